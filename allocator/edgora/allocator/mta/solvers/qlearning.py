"""The paper's learner, repaired (mta.md 8.3): candidates are the servers that can take the task at a profit.

Every plan is feasible, and the best episode is the one with the largest settled utility. On a paper instance the
learner is rewarded by the paper's table R; a live round has no such table, so there the reward is the value itself.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.mta.learner import Learner
from edgora.allocator.mta.model import Model
from edgora.allocator.mta.solvers.qlearning_paper import Learning, learned
from edgora.allocator.mta.table import Table
from edgora.allocator.search import Found, Search

__all__ = ["QLearning"]


class QLearning(Learning, frozen=True, forbid_unknown_fields=True):
    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def on_paper(self, model: Model, search: Search) -> Found:
        return self._learn(model.table, model.reward, search)

    def on_table(self, table: Table, search: Search) -> Found:
        return self._learn(table, table.value, search)

    def _learn(self, table: Table, reward: NDArray[np.float64], search: Search) -> Found:
        learner = Learner(reward, table.value, self.parameters, search.seed)
        candidates = table.feasible & (table.value > 0.0)
        weight, room = table.weights().astype(np.float64), table.room.astype(np.float64)
        return learned(
            learner, self.episodes, search, lambda episodes: learner.feasible(episodes, candidates, weight, room),
            table.worth,
        )  # fmt: skip
