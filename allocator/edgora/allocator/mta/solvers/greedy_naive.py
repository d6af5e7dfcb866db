"""Greedy in the paper's words (mta.md 7): for each task the server with the largest reward, capacity ignored.

Ties go to the lowest server; a task whose largest reward is 0 is rejected. On default instances most tasks pile up on
the few servers with the largest theta, so the plan breaks C1 and its settlement is worth little.
"""

from typing import ClassVar

import msgspec
import numpy as np

from edgora.allocator.mta.model import Model
from edgora.allocator.mta.table import REJECTED
from edgora.allocator.search import Found, Search

__all__ = ["GreedyNaive"]


class GreedyNaive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def on_paper(self, model: Model, search: Search) -> Found:  # noqa: ARG002 - draws nothing and ends at once
        reward = model.reward
        choice = reward.argmax(axis=0).astype(np.int64)
        return Found(np.where(reward.max(axis=0) == 0.0, REJECTED, choice))
