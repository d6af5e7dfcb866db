"""The paper's learner as written (mta.md 8.2), for reproduction: its plan may break C1, or choose an own server in vain.

With the printed parameters it does not learn: all rewards are positive and Q starts at 0, so the first action that was
tried in a state wins every later argmax, and a rate of 0.01 never lets another overtake it.
"""

from collections.abc import Callable
from typing import Annotated, ClassVar

import msgspec

from edgora.allocator.mta.learner import Learner, Parameters, ready
from edgora.allocator.mta.model import Model
from edgora.allocator.mta.table import Plan
from edgora.allocator.search import Found, Search, Status

__all__ = ["Learning", "QLearningPaper", "learned"]

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]

_SLICE = 10
"""Episodes between two looks at the clock."""


class Learning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The learner's options; defaults as printed (Table I)."""

    rate: Share = 0.01
    discount: Share = 0.9
    epsilon: Share = 0.9
    """Probability to exploit (A17)."""
    episodes: Annotated[int, msgspec.Meta(ge=1, le=10**7)] = 500

    def __post_init__(self) -> None:
        ready()

    @property
    def parameters(self) -> Parameters:
        return Parameters(self.rate, self.discount, self.epsilon)


class QLearningPaper(Learning, frozen=True, forbid_unknown_fields=True):
    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def on_paper(self, model: Model, search: Search) -> Found:
        e = model.instance
        learner = Learner(model.reward, model.reward, self.parameters, search.seed)
        return learned(
            learner, self.episodes, search,
            lambda episodes: learner.paper(episodes, model.cycles, e.capacity, e.freq, e.deadline), model.reward_sum,
        )  # fmt: skip


def learned(
    learner: Learner, episodes: int, search: Search, work: Callable[[int], None], worth: Callable[[Plan], float]
) -> Found:
    """Run the episodes, in slices, while the search lasts; the plan of the best one, and each one's worth."""
    status: Status = "done"
    while len(learner.curve) < episodes:
        best = max(learner.curve, default=-1.0)
        work(min(_SLICE, episodes - len(learner.curve)))
        if max(learner.curve) > best:
            search.keep(Found(learner.best.copy(), status="interrupted"), worth(learner.best))
        if search.over():
            status = "interrupted" if search.stopped() else "time_limit"
            break
    info = {"episodes": len(learner.curve), "curve": learner.curve}
    return Found(learner.best, status=status, info=info)
