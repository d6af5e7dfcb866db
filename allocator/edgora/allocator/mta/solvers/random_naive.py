"""Random, naive (mta.md 7): each task to a uniform server of all n; nothing is tested, so C1 and C2 are usually broken."""

from typing import ClassVar

import msgspec
import numpy as np

from edgora.allocator.mta.model import Model
from edgora.allocator.search import Found, Search

__all__ = ["RandomNaive"]


class RandomNaive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def on_paper(self, model: Model, search: Search) -> Found:
        instance = model.instance
        return Found(np.random.default_rng(search.seed).integers(0, instance.n, instance.m))
