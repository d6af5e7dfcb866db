"""The goals of the privacy room, measured: w_P = 50, M = 2 for several miners, both beta, worst of five training seeds.

One miner is scored by exact evaluation; several play 160,000 miner-slots and more, on draws that they share with random,
myopic and lookahead. Times are CPU seconds of training alone, imports excluded. Cheap lines come first.
"""

import time
from collections.abc import Iterator
from typing import cast

import msgspec

from edgora.allocator.privacy.afterstate import Afterstate
from edgora.allocator.privacy.ddqn_vec import DdqnVec
from edgora.allocator.privacy.drlo import Drlo
from edgora.allocator.privacy.evaluation import Played, decisions, exactly, play, score
from edgora.allocator.privacy.exact import best_average, miner
from edgora.allocator.privacy.instance import Instance, make
from edgora.allocator.privacy.policies import Myopic, Policy, Uniform, lookahead
from edgora.allocator.privacy.problem import PRIVACY, planned
from edgora.allocator.privacy.training import Learner
from edgora.allocator.search import Search
from edgora.lab.bench_env import measure_environments
from edgora.lab.goals.measured import Measured, Note

__all__ = ["SEEDS", "best_of_environment", "many", "measure", "one_miner", "planners"]

SEEDS = range(5)
"""Training seeds."""
BETAS = (0.5, 0.8)
EVALUATED = 1_000
"""Seed of the shared draws: no training run plays it."""

# The exact values of privacy.md 3, by (beta, what).
AVERAGES = {0.5: 4.246352, 0.8: 6.019745}
DISCOUNTED = {1: 82.316356, 0: -15.405069}
"""V* at (100, 0, g, 0) for beta 0.5."""


def measure(note: Note) -> Iterator[Measured]:
    """Every figure of the room."""
    yield from planners()
    yield from best_of_environment(note)
    yield from one_miner(Afterstate(slots=10_000), "afterstate at 10,000 slots", 0.90, 5.0, note)
    yield from one_miner(DdqnVec(slots=50_000), "ddqn-vec at 50,000 slots", 0.98, 20.0, note)
    yield from many(note)
    yield from one_miner(Drlo(slots=10_000), "DRLO as printed at 10,000 slots", 0.85, None, note)


def planners() -> Iterator[Measured]:
    """VI and RVI against the spec's exact values."""
    wrong = 0.0
    for beta, average in AVERAGES.items():
        wrong = max(wrong, abs(best_average(make(beta=beta)) - average))
        plan = planned(PRIVACY.search(PRIVACY.solver("RVI", {}), make(beta=beta), Search()))
        wrong = max(wrong, abs(exactly(decisions(plan, make(beta=beta)), make(beta=beta)).reward - average))
    tables = miner(make())
    values = tables.discounted(0.85)[0].reshape(tables.shape)
    wrong = max([wrong, *(abs(float(values[5, 0, g, 0]) - value) for g, value in DISCOUNTED.items())])
    yield Measured(
        problem="privacy", goal="VI and RVI exact", what="greatest error of six exact values", value=wrong, unit="",
        sense="<=", limit=1e-6,
    )  # fmt: skip


def best_of_environment(note: Note) -> Iterator[Measured]:
    """Slots a second of the vectorised environment."""
    for speed in measure_environments(note, "edgora/Privacy-v0"):
        if speed.goal is not None:
            yield Measured(
                problem="privacy", goal="environment, batch 1024", what="slots per CPU second, observations included",
                value=speed.slots_per_s, unit="slots/s", sense=">=", limit=speed.goal,
            )  # fmt: skip


def one_miner(learner: Learner, name: str, least: float, limit_s: float | None, note: Note) -> Iterator[Measured]:
    """Worst exact score of five seeds at both beta, and the longest training."""
    _warm(learner)
    worst, longest = float("inf"), 0.0
    for beta in BETAS:
        instance = make(beta=beta)
        floor, best = score(instance, 0)
        for seed in SEEDS:
            policy, cpu_s = _trained(learner, instance, seed)
            reached = (exactly(decisions(policy, instance), instance).reward - floor) / (best - floor)
            note(f"{name}, beta {beta:g}, seed {seed}: {reached:.4f} in {cpu_s:.1f} s")
            worst, longest = min(worst, reached), max(longest, cpu_s)
    what = f"worst score of {len(SEEDS)} seeds, both beta"
    yield Measured(problem="privacy", goal=f"N=1 {name}", what=what, value=worst, unit="", sense=">=", limit=least)
    if limit_s is not None:
        yield Measured(
            problem="privacy", goal=f"N=1 {name}", what="longest training", value=longest, unit="s", sense="<=",
            limit=limit_s,
        )  # fmt: skip


def many(note: Note, sizes: tuple[int, ...] = (5, 10)) -> Iterator[Measured]:
    """ddqn-vec against lookahead, and afterstate against myopic, on common draws."""
    _warm(DdqnVec())
    worst, longest, least_gain, least_errors = float("inf"), 0.0, float("inf"), float("inf")
    for miners in sizes:
        for beta in BETAS:
            instance = make(N=miners, M=2, beta=beta)
            floor, best, myopic = (_played(p, instance) for p in (Uniform(0), lookahead(instance), Myopic(instance)))
            for seed in SEEDS:
                policy, cpu_s = _trained(DdqnVec(slots=40_000), instance, seed)
                low, high = floor.averages.reward, best.averages.reward
                reached = (_played(policy, instance).averages.reward - low) / (high - low)
                note(f"ddqn-vec, N={miners}, beta {beta:g}, seed {seed}: {reached:.4f} of lookahead in {cpu_s:.1f} s")
                worst, longest = min(worst, reached), max(longest, cpu_s)
                if miners != 5:
                    continue
                policy, cpu_s = _trained(Afterstate(slots=20_000, copies=20), instance, seed)
                gain, error = _gain(_played(policy, instance), myopic)
                over, _ = _gain(_played(policy, instance), best)
                note(
                    f"afterstate, N={miners}, beta {beta:g}, seed {seed}: myopic + {gain:.3f} (error {error:.3f}),"
                    f" lookahead {over:+.3f}, {cpu_s:.1f} s"
                )
                least_gain, least_errors = min(least_gain, gain), min(least_errors, gain / error)
    where = f"N = {', '.join(map(str, sizes))}"
    yield Measured(
        problem="privacy", goal=f"{where}: ddqn-vec at 40,000 slots", what="worst score against lookahead", value=worst,
        unit="", sense=">=", limit=0.93,
    )  # fmt: skip
    yield Measured(
        problem="privacy", goal=f"{where}: ddqn-vec at 40,000 slots", what="longest training", value=longest, unit="s",
        sense="<=", limit=30.0,
    )  # fmt: skip
    if 5 in sizes:
        what = f"least gain in reward, {least_gain:.3f}, in standard errors"
        yield Measured(
            problem="privacy", goal="N=5 afterstate beats myopic", what=what, value=least_errors, unit="", sense=">=",
            limit=2.0,
        )  # fmt: skip


def _warm(learner: Learner) -> None:
    """A few updates before anything is timed: torch imports half of itself on the first one."""
    assert isinstance(learner, msgspec.Struct)
    short = cast(Learner, msgspec.structs.replace(learner, slots=400))
    short.solve(make(), Search())


def _trained(learner: Learner, instance: Instance, seed: int) -> tuple[Policy, float]:
    began = time.process_time()
    found = learner.solve(instance, Search(seed))
    return planned(found), time.process_time() - began


def _played(policy: Policy, instance: Instance) -> Played:
    return play(policy, instance, EVALUATED)


def _gain(one: Played, other: Played) -> tuple[float, float]:
    """Mean difference of the copies' rewards and its standard error: the draws are common."""
    gain = one.copies - other.copies
    return float(gain.mean()), float(gain.std(ddof=1) / len(gain) ** 0.5)
