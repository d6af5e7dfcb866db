"""Goals of BaaS: what exact and priced earn, what learners reach in how many slots and seconds, decisions, speed.

Scores are those of baas.md 8 on its 64 layouts of 200 slots; a learner's is the worst of five training seeds. Times are
CPU seconds of the training call; nothing here imports torch.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from edgora.allocator.baas.batch import Batch
from edgora.allocator.baas.evaluate import SCORE_SEEDS, Rollout, Scale, play, scale
from edgora.allocator.baas.exact import best, optimum
from edgora.allocator.baas.learned import load_policy
from edgora.allocator.baas.learning import LEARNING
from edgora.allocator.baas.model import settle
from edgora.allocator.baas.params import Params
from edgora.allocator.baas.policies import SOLVERS, Policy
from edgora.allocator.baas.stream import Stream
from edgora.allocator.learn.problem import never, silent
from edgora.lab.goals.measured import Measured, Note

__all__ = ["measure"]

SEEDS = range(5)
"""Of training."""
_HETERO = Params()
_CROWD, _CITY = Params(U=100), Params(U=1000, M=100)


def measure(note: Note) -> Iterator[Measured]:
    """Every figure of the goals, cheapest first."""
    note("baas: floor and bound of the 64 layouts")
    measuring = scale(_HETERO, SCORE_SEEDS, _HETERO.horizon)
    yield from _known(measuring)
    with tempfile.TemporaryDirectory() as folder:
        yield from _pair_q(Path(folder), measuring, note)
        yield from _struct_ddqn(Path(folder), measuring, note)
        yield from _decisions(load_policy(Path(folder) / "pair-q-0" / "policy.npz"))


def _known(measuring: Scale) -> Iterator[Measured]:
    score = {}
    for name in ("exact", "priced"):
        score[name] = measuring.score(_played(SOLVERS[name]().policy(0))).mean
    yield _figure("2 exact", "score, hetero 20 x 10", score["exact"], ">=", 0.955)
    batch = Batch(Stream(_HETERO, np.random.default_rng(7), 64))
    gap = 0.0
    for _ in range(20):
        slots = batch.slots
        gap = max(gap, float(np.abs(settle(slots, best(slots)).reward - optimum(slots)).max()))
        batch.step(best(slots))
    yield _figure("2 exact", "greatest difference to the optimum of 1,280 slots", gap, "<=", 1e-9, "token")
    yield _figure("2 priced", "score, hetero 20 x 10", score["priced"], ">=", 0.962)
    yield _figure("2 priced", "score above exact's", score["priced"] - score["exact"], ">=", 0.004)


def _pair_q(folder: Path, measuring: Scale, note: Note) -> Iterator[Measured]:
    policies, cpu = _trained("pair-q", folder, {"slots": 1000}, note)
    worst = min(measuring.score(_played(policy)).mean for policy in policies)
    yield _figure("2 pair-q", "score after 1,000 slots, worst of 5 seeds", worst, ">=", 0.94)
    yield _figure("2 pair-q", "training CPU, worst of 5 seeds", cpu, "<=", 5.0, "s")
    for params, seeds, slots, limit in ((_CROWD, SCORE_SEEDS, 200, 0.94), (_CITY, SCORE_SEEDS[:4], 10, 0.98)):
        size = f"{params.U} x {params.M}"
        note(f"baas pair-q: the same weights at {size}")
        there = scale(params, seeds, slots)
        worst = min(there.score(play(params, policy, seeds, slots)).mean for policy in policies)
        what = f"score of the same weights at {size}, {len(seeds)} layouts of {slots} slots, worst of 5 seeds"
        yield _figure(f"2 pair-q {size}", what, worst, ">=", limit)


def _struct_ddqn(folder: Path, measuring: Scale, note: Note) -> Iterator[Measured]:
    for slots, least, seconds in ((5_000, 0.90, 15.0), (10_000, 0.92, 30.0)):
        policies, cpu = _trained("struct-ddqn", folder, {"slots": slots}, note)
        worst = min(measuring.score(_played(policy)).mean for policy in policies)
        yield _figure("2 struct-ddqn", f"score after {slots:,} slots, worst of 5 seeds", worst, ">=", least)
        yield _figure("2 struct-ddqn", f"training CPU, {slots:,} slots, worst of 5 seeds", cpu, "<=", seconds, "s")


def _decisions(learned: Policy) -> Iterator[Measured]:
    for name, policy, limits in (
        ("exact", SOLVERS["exact"]().policy(0), (0.3, 8.0)),
        ("learned", learned, (2.0, 15.0)),
    ):
        for params, limit in zip((_CROWD, _CITY), limits, strict=True):
            batch = Batch(Stream(params, np.random.default_rng(1), 1))
            took = []
            for _ in range(40):
                began = time.process_time()
                choice = policy.decide(batch.slots)
                took.append(1000.0 * (time.process_time() - began))
                batch.step(choice)
            what = f"CPU of a decision at {params.U} x {params.M}, median of 40"
            yield _figure(f"2 {name} decision", what, statistics.median(took), "<=", limit, "ms")


def _trained(algo: str, folder: Path, settings: Mapping[str, object], note: Note) -> tuple[list[Policy], float]:
    """Policies of the training seeds, and the longest CPU time."""
    policies: list[Policy] = []
    longest = 0.0
    for seed in SEEDS:
        out = folder / (f"{algo}-{seed}" if algo == "pair-q" else f"{algo}-{settings['slots']}-{seed}")
        began = time.process_time()
        LEARNING.train(algo, out, seed, settings, silent, never)
        took = time.process_time() - began
        note(f"baas {algo} {settings['slots']} slots, seed {seed}: {took:.1f} s CPU")
        longest = max(longest, took)
        policies.append(load_policy(out / "policy.npz"))
    return policies, longest


def _played(policy: Policy) -> Rollout:
    return play(_HETERO, policy, SCORE_SEEDS, _HETERO.horizon)


def _figure(goal: str, what: str, value: float, sense: str, limit: float, unit: str = "") -> Measured:
    return Measured(problem="baas", goal=goal, what=what, value=value, unit=unit, sense=sense, limit=limit)  # type: ignore[arg-type]  # one of the two
