"""`priced`: moves by price from several starts, any size, anytime; and `gucro-exact`, its resources alone (tcr.md 9).

An answer stands from the first millisecond (everything shared equally), is improved in every batch, and only ever
replaced by a better one that the model has audited. Then, on request, F7's bound.
"""

import importlib
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgora.allocator.search import Found, Search, Status
from edgora.allocator.tcr.climb import Climb
from edgora.allocator.tcr.closed import local_only
from edgora.allocator.tcr.instance import Instance

__all__ = ["GucroExact", "Priced"]


class Priced(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `priced`."""

    descents: Annotated[int, msgspec.Meta(ge=1)] = 3
    """How many starts are followed; above 300 users always one."""
    kicks: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How often the best association is disturbed and followed again."""
    bound: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    """1: also report an upper bound of TCR over all decisions."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def __post_init__(self) -> None:
        if self.bound:  # SciPy, only where it is asked for, and before the solver's clock starts
            importlib.import_module("edgora.allocator.tcr.bound")

    def solve(self, instance: Instance, search: Search) -> Found:
        climb = opened(instance, search)
        points = climb.settled(np.array(list(climb.starts())))
        order = np.argsort(-points.value, kind="stable")
        rng = np.random.default_rng([search.seed, instance.N, instance.M])
        count = self.descents if instance.N <= _ONE_DESCENT else 1
        ends = [climb.follow(points.pick(np.array([at]))) for at in order[:count]]
        for _ in range(self.kicks):
            if search.over() or climb.best is None:
                break
            ends.append(climb.follow(climb.settled(climb.disturbed(climb.best.assoc, rng)[None])))
        if not search.over():
            climb.finish(max(ends, key=lambda end: float(end.value[0])))
        bound = None
        if self.bound and climb.best is not None and not search.over():
            from edgora.allocator.tcr.bound import upper_bound

            bound = upper_bound(instance, climb.best, search)
        return closed(climb, search, bound)


class GucroExact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`gucro-exact`: GUCAA's association, phi, gamma and resources together."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def solve(self, instance: Instance, search: Search) -> Found:
        climb = Climb(instance, search)
        even = instance.model.even(instance.model.spread())
        climb.offer(even)
        climb.finish(climb.modes(climb.settled(even.assoc[None])))
        return closed(climb, search)


_ONE_DESCENT = 300


def opened(instance: Instance, search: Search) -> Climb:
    """A climb that has an answer already: GUCAA with equal shares, or phi = 0 where that is allowed and better."""
    climb = Climb(instance, search)
    climb.offer(instance.model.even(instance.model.spread()))
    local = local_only(instance)
    if local is not None:
        climb.offer(local)
    return climb


def closed(climb: Climb, search: Search, bound: float | None = None) -> Found:
    """What a climb has found."""
    status: Status = "interrupted" if search.stopped() else "time_limit" if search.over() else "done"
    info: dict[str, object] = {"trials": climb.trials, "steps": climb.steps, "objectives": climb.objectives}
    return Found(climb.best, bound, status, info)
