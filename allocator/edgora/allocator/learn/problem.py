"""What a problem with learners offers beside `registry.Problem`: its room's attribute `learning`.

Rule 1: a training run is a function of (algorithm, seed, settings). Killed and called again with the same `out`, it
ends with the same weights, byte for byte, as if it had run through.
Rule 2: an evaluation compares on common draws: every policy, floor and bound sees the same slots of a seed.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

__all__ = [
    "Evaluation",
    "Learning",
    "Note",
    "Progress",
    "Proposer",
    "Statistic",
    "Stopped",
    "Trained",
    "never",
    "silent",
]


class Progress(msgspec.Struct, frozen=True):
    """Where a run is."""

    done: int
    """Slots played so far."""
    total: int
    figures: Mapping[str, float]
    """What the log holds for this moment: reward, loss, epsilon, ..."""


Note = Callable[[Progress], None]
"""Hears progress now and then."""

Stopped = Callable[[], bool]
"""Asked at every step; True ends the run after a checkpoint."""


def silent(_progress: Progress) -> None:
    """A `Note` that nobody reads."""


def never() -> bool:
    """A `Stopped` that lets the run end by itself."""
    return False


class Statistic(msgspec.Struct, frozen=True):
    """An estimate and its 95 % interval; both ends null where one seed says nothing about spread."""

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return f"{self.mean:.4f}" if self.low is None else f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """What a training run left."""

    problem: str
    algo: str
    seed: int
    settings: Mapping[str, object]
    slots: int
    """Slots of experience so far, all copies of the environment together."""
    updates: int
    """Gradient steps, or table updates."""
    finished: bool
    """False: it was stopped and can be resumed."""
    policy: str | None
    """Where the policy is; null while unfinished."""
    cpu_s: float
    """CPU seconds of the run over all its resumptions, imports excluded."""
    figures: Mapping[str, float]
    """Last logged figures."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """A policy on unseen layouts."""

    problem: str
    policy: str
    seeds: tuple[int, int]
    """First and last environment seed, both played."""
    slots: int
    """Slots played for each seed."""
    settings: Mapping[str, object]
    metrics: Mapping[str, Statistic]
    """Means over all slots; intervals over seeds."""
    score: Statistic | None
    """(metric - floor) / (bound - floor) as the problem's spec defines it; null where it defines none."""
    scale: Mapping[str, float]
    """What the score is made of: floor and bound on the same slots."""
    decision_ms: float
    """CPU milliseconds for a decision of one slot, mean."""
    cpu_s: float
    trace: str | None = None


class Proposer(Protocol):
    """A user's policy, as the registry finds it under `module:object`."""

    def propose(self, instance: object, budget_s: float) -> object: ...


class Learning(Protocol):
    """Training and evaluation of one problem."""

    @property
    def algorithms(self) -> Sequence[str]:
        """Names that `train` takes."""
        ...

    def train(
        self, algo: str, out: Path, seed: int, settings: Mapping[str, object], note: Note, stopped: Stopped
    ) -> Trained:
        """Train into `out`: policy.npz, log.jsonl, checkpoint.npz; goes on from a checkpoint that it finds there.

        `settings` are the environment's and the algorithm's own. Raises NotFound for the algorithm, Refused for a
        setting, for a folder that holds another run, and where torch is needed and not installed.
        """
        ...

    def evaluate(
        self,
        policy: str | Proposer,
        seeds: range,
        settings: Mapping[str, object],
        trace: Path | None,
        note: Note,
    ) -> Evaluation:
        """Play a policy on one environment for each seed.

        `policy` is a policy.npz, a solver's name, or a user's policy (the registry resolves `module:object`).
        `trace` is where the slots are written as the spec's trace. Raises NotFound, Refused.
        """
        ...

    def check_evaluation(self, policy: str | Proposer, seeds: range, settings: Mapping[str, object]) -> None:
        """Raise what `evaluate` would raise for its arguments, without playing a slot."""
        ...
