"""How long a solver may look, who can stop it, and what it hands back.

A solver calls `Search.over` at its natural steps, offers better plans to `Search.keep` as it finds them, and returns a
`Found`. Whoever called it can stop it from outside (Ctrl-C, a closing round) and still has the best plan so far.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Found", "Search", "Status"]

Status = Literal["done", "optimal", "time_limit", "interrupted", "numerical"]
"""Why a search ended: by its own rule, by a proof, by the clock, by its caller, or because its arithmetic gave up."""


@dataclass(frozen=True, slots=True)
class Found:
    """A plan and what is known about it."""

    plan: Any
    """The problem's own decisions: a plan of mta, a `Decision` of tcr and dpe."""
    bound: float | None = None
    """Proven upper bound on the worth of any plan, or None."""
    status: Status = "done"
    info: Mapping[str, object] = field(default_factory=dict)
    """Anything else: iterations, curves. JSON values only."""


def _never() -> bool:
    return False


def _silently(worth: float, bound: float | None) -> None:
    """Report nothing."""


@dataclass(slots=True)
class Search:
    """One call of a solver."""

    seed: int = 0
    deadline: float | None = None
    """Instant of `clock` at which to end; None: by the solver's own rule."""
    stopped: Callable[[], bool] = _never
    report: Callable[[float, float | None], None] = _silently
    """Called with worth and bound at each improvement; for progress displays."""
    best: Found | None = None
    """The best that the solver has offered so far."""
    clock: Callable[[], float] = time.monotonic
    """What the deadline is measured on; benchmarks of CPU seconds use `time.process_time`."""

    def left_s(self) -> float:
        """Seconds until the deadline, never negative; infinite without one."""
        return float("inf") if self.deadline is None else max(0.0, self.deadline - self.clock())

    def over(self) -> bool:
        """Whether to end now."""
        return self.stopped() or self.left_s() <= 0.0

    def keep(self, found: Found, worth: float) -> None:
        """Offer a better plan: it is what remains if the search is cut off."""
        self.best = found
        self.report(worth, found.bound)
