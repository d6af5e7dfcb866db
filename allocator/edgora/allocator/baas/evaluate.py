"""Policies on unseen layouts and common draws, with intervals and the score of baas.md 8.

    score = (utility - random) / (bound - random)

pooled over seeds; random and bound are computed on the same slots, which is possible because draws do not depend on
actions. All seeds are played side by side, one generator each, so that a seed shows the same slots in any company.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.baas.baselines import Random
from edgora.allocator.baas.batch import Batch
from edgora.allocator.baas.exact import bound
from edgora.allocator.baas.model import Choice, Floats, Slots
from edgora.allocator.baas.params import Params
from edgora.allocator.baas.policies import Policy
from edgora.allocator.baas.stream import Drawn, Layout, Streams
from edgora.allocator.learn import intervals
from edgora.allocator.learn.problem import Statistic

__all__ = ["METRICS", "REPLAYS", "SCORE_SEEDS", "Rollout", "Scale", "play", "scale", "write_trace"]

SCORE_SEEDS = range(2000, 2064)
"""The set that goals are scored on: 64 layouts of 200 slots."""
REPLAYS = 10
"""Of random play, whose mean is the floor."""
_GROUP_NUMBERS = 4_000_000
"""Copies are played in groups of at most this many pairs."""

METRICS = ("utility", "ecl", "revenue", "mining", "served", "mean_Y")


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """A policy's play; arrays are (seeds, slots)."""

    metrics: Mapping[str, Floats]
    cpu_s: float
    """Spent deciding."""
    trace: Mapping[str, NDArray[Any]] | None = None
    """baas.md 4; the slots of one seed after those of the other."""

    @property
    def decision_ms(self) -> float:
        return 1000.0 * self.cpu_s / self.metrics["utility"].size

    def statistics(self) -> dict[str, Statistic]:
        return {name: intervals.mean(values.mean(axis=1)) for name, values in self.metrics.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """What a score is measured with: mean per slot of each seed."""

    random: Floats
    bound: Floats

    def score(self, rollout: Rollout) -> Statistic:
        """(utility - random) / (bound - random), pooled; the interval is over seeds."""
        utility = rollout.metrics["utility"].mean(axis=1)
        return intervals.ratio(utility - self.random, self.bound - self.random)


def play(
    params: Params,
    policy: Policy,
    seeds: range,
    slots: int,
    *,
    trace: bool = False,
    progress: Callable[[int], None] = lambda _done: None,
) -> Rollout:
    """Play `slots` slots of each seed. `progress` hears how many slots are behind us."""
    found: dict[str, list[Floats]] = {name: [] for name in METRICS}
    kept: dict[str, list[NDArray[Any]]] = {}
    cpu, done = 0.0, 0
    for group in _groups(params, seeds):
        batch = Batch(Streams(params, group))
        rows: dict[str, list[Floats]] = {name: [] for name in METRICS}
        record: dict[str, list[NDArray[Any]]] = {}
        for _ in range(slots):
            before, start = batch.slots, batch.clock == 0
            began = time.process_time()
            choice = policy.decide(before)
            cpu += time.process_time() - began
            outcome = batch.step(choice)
            values = (
                outcome.reward,
                outcome.ecl,
                outcome.revenue,
                outcome.mining,
                outcome.served,
                outcome.rep.mean(axis=1),
            )
            for name, value in zip(METRICS, values, strict=True):
                rows[name].append(np.asarray(value, dtype=np.float64))
            if trace:
                arrays = {
                    "d": before.d, "xi": before.xi, "tau": before.tau, "b": before.b, "f": before.f, "rep": outcome.rep,
                    "hash": outcome.hash, "assign": outcome.assign, "reward": outcome.reward,
                    "start": np.full(before.copies, start), **({} if before.rate is None else {"rate": before.rate}),
                }  # fmt: skip
                for name, array in arrays.items():
                    record.setdefault(name, []).append(array)
            done += before.copies
            progress(done)
        for name, columns in rows.items():
            found[name].append(np.stack(columns, axis=1))
        for name, steps in record.items():  # (slots, seeds, ...) -> seed after seed
            stacked = np.stack(steps, axis=1)
            kept.setdefault(name, []).append(stacked.reshape(-1, *stacked.shape[2:]))
    told = {name: np.concatenate(parts) for name, parts in kept.items()} if trace else None
    return Rollout({name: np.concatenate(parts) for name, parts in found.items()}, cpu, told)


def scale(params: Params, seeds: range, slots: int) -> Scale:
    """Random play and the bound on the slots that `play` plays."""
    policy = Random(1)  # one generator for all replays (baas.md 5)
    floors, bounds = [], []
    for group in _groups(params, seeds):
        tape = _Tape(Batch(Streams(params, group)), slots)
        bounds.append(tape.bounds)
        floors.append(np.mean([tape.replay(policy) for _ in range(REPLAYS)], axis=0))
    return Scale(np.concatenate(floors), np.concatenate(bounds))


class _Tape:
    """The slots of a batch, kept, so that they can be played again. It is a `stream.Source`."""

    def __init__(self, batch: Batch, slots: int) -> None:
        self.params, self.copies = batch.params, batch.slots.copies
        self._layouts: list[Layout] = []
        self._drawn: list[Drawn] = []
        best = np.zeros(self.copies)
        idle = Choice(np.full((self.copies, self.params.M), -1), np.full((self.copies, self.params.M), 60.0))
        for _ in range(slots):
            now: Slots = batch.slots
            if batch.clock == 0:
                self._layouts.append(Layout(now.f, now.rate))
            self._drawn.append(Drawn(now.d, now.xi, now.tau, now.b))
            best += bound(now)
            batch.step(idle)
            if batch.final is not None:  # drawn after an episode's last slot, and never played
                self._drawn.append(Drawn(batch.final.d, batch.final.xi, batch.final.tau, batch.final.b))
        self._layouts.append(Layout(batch.slots.f, batch.slots.rate))
        self._drawn.append(Drawn(batch.slots.d, batch.slots.xi, batch.slots.tau, batch.slots.b))
        self._slots = slots
        self.bounds: Floats = best / slots

    def layout(self) -> Layout:
        return next(self._layouts_left)

    def slot(self) -> Drawn:
        return next(self._drawn_left)

    def replay(self, policy: Policy) -> Floats:
        """Mean reward of each copy."""
        self._layouts_left, self._drawn_left = iter(self._layouts), iter(self._drawn)
        batch = Batch(self)
        total = np.zeros(self.copies)
        for _ in range(self._slots):
            total += batch.step(policy.decide(batch.slots)).reward
        return total / self._slots


def _groups(params: Params, seeds: range) -> list[range]:
    size = max(1, _GROUP_NUMBERS // (params.U * params.M))
    return [seeds[at : at + size] for at in range(0, len(seeds), size)]


def write_trace(path: Path, params: Params, trace: Mapping[str, NDArray[Any]]) -> None:
    """The trace of baas.md 4 as .npz."""
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, profile=np.array(params.profile), **trace)
