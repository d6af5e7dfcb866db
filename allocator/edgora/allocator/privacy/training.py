"""What the learners of this room have in common: how a solver runs one, and how its policy is watched.

A learner is an immutable record of its options with

    learn(instance, seed, run) -> the policy's arrays

which plays, logs, saves and finishes `run`; each one is a file that reads from top to bottom.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol

from edgora.allocator.learn.problem import Progress
from edgora.allocator.learn.run import Run
from edgora.allocator.learn.weights import Arrays
from edgora.allocator.privacy.evaluation import decisions, exactly, is_exact
from edgora.allocator.privacy.instance import Instance
from edgora.allocator.privacy.policies import Plan, Policy
from edgora.allocator.privacy.trained import header, of
from edgora.allocator.search import Found, Search

__all__ = ["WATCHED", "Learner", "learned", "watch"]

WATCHED = 500
"""Slots between two exact evaluations of the greedy policy, for the learning curves (privacy.md 7)."""


class Learner(Protocol):
    """A learning algorithm with its options: an immutable msgspec Struct."""

    kind: ClassVar[str]
    """Of its policy file: see `trained`."""
    algo: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]
    """Distributions whose versions its results depend on."""
    default_slots: ClassVar[tuple[int, int]]
    """Slots of `edgora train` unless given: for one miner, for more."""

    @property
    def slots(self) -> int | None:
        """Slots of the run; None: the instance's."""
        ...

    def solve(self, instance: Instance, search: Search) -> Found:
        """A `Plan` of what it learns in a folder that is not kept."""
        ...

    def learn(self, instance: Instance, seed: int, run: Run) -> Arrays:
        """Play until the run is over; the policy as it stands. Raises Refused where the instance does not fit."""
        ...


def learned(learner: Learner, instance: Instance, search: Search, **more: object) -> Found:
    """Train for a solver: in a folder that is not kept, until the run or the search is over. `more` is for the header."""

    def note(progress: Progress) -> None:
        search.report(progress.figures.get("greedy", progress.figures.get("reward", 0.0)), None)

    with tempfile.TemporaryDirectory() as folder:
        total = learner.slots or instance.slots
        run = Run(
            Path(folder) / "run", "privacy", learner.algo, search.seed, {}, total, note, search.over,
            checkpoint_s=float("inf"),
        )  # fmt: skip
        arrays = learner.learn(instance, search.seed, run)
        trained = run.trained()
    head = {**header(learner.kind, instance, **more), "algo": learner.algo}
    plan = Plan(of(arrays, head, instance), arrays, head)
    info: Mapping[str, object] = {"slots": trained.slots, "updates": trained.updates}
    return Found(plan, status="done" if run.finished else "interrupted", info=info)


def watch(policy: Policy, instance: Instance) -> dict[str, float]:
    """The exact average reward of a greedy policy, where there is one."""
    if not is_exact(instance):
        return {}
    return {"greedy": exactly(decisions(policy, instance), instance).reward}
