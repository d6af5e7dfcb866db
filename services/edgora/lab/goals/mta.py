"""The goals of mta.md 15, measured: integer draws with default parameters unless a line says otherwise, one thread.

A budget is CPU seconds of this process: the search's clock is `time.process_time`. Kernels are compiled before anything
is timed. Gaps of 20 x 50 are to the proven optimum that `exact` finds first, or to its bound where it has no proof.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgora.allocator import solve
from edgora.allocator.live import LiveRound
from edgora.allocator.mta import Table, draw
from edgora.allocator.mta.solvers.exact import Exact
from edgora.allocator.mta.solvers.priced import Priced
from edgora.allocator.search import Found, Search
from edgora.lab.goals.measured import Measured, Note
from edgora.wire.market import Instance, LiveServer, OpenTask

__all__ = ["live_round", "measure"]

_DEFAULTS = range(24)
"""Seeds of the 20 x 50 lines."""
_SEEDS = range(5)
"""Seeds of the larger ones."""
_LIMIT_S = 60.0


@dataclass
class _Timed:
    """A run and when it had its first plan, CPU seconds from the start, building the table included."""

    found: Found
    table: Table
    cpu_s: float
    first_s: float
    first: Found
    heard: list[float] = field(default_factory=list)

    @property
    def worth(self) -> float:
        return self.table.worth(self.found.plan)

    @property
    def gap(self) -> float:
        """To its own bound, %."""
        assert self.found.bound is not None
        return 100.0 * (self.found.bound - self.worth) / self.found.bound

    @property
    def first_gap(self) -> float:
        assert self.first.bound is not None
        return 100.0 * (self.first.bound - self.table.worth(self.first.plan)) / self.first.bound


def _run(
    solver: Priced | Exact, seed: int, budget_s: float, settings: Mapping[str, object], table: Table | None = None
) -> _Timed:
    instance = draw(seed, settings)
    clock = time.process_time
    began = clock()
    search = Search(seed, began + budget_s, clock=clock)
    firsts: list[tuple[float, Found]] = []

    def heard(_worth: float, _bound: float | None) -> None:
        if not firsts:
            assert search.best is not None
            firsts.append((clock() - began, search.best))

    search.report = heard
    table = instance.table if table is None else table
    found = solver.on_table(table, search)
    cpu_s = clock() - began
    first_s, first = firsts[0]
    return _Timed(found, table, cpu_s, first_s, first)


def measure(note: Note) -> Iterator[Measured]:
    def figure(goal: str, what: str, value: float, unit: str, sense: str, limit: float) -> Measured:
        assert sense in {"<=", ">="}
        return Measured(
            problem="mta", goal=f"15 {goal}", what=what, value=float(value), unit=unit,
            sense="<=" if sense == "<=" else ">=", limit=limit,
        )  # fmt: skip

    _run(Priced(), 0, 0.05, {})  # whatever is made on first use

    note("exact, 20 x 50, 24 instances")
    proofs = [_run(Exact(), seed, _LIMIT_S, {}) for seed in _DEFAULTS]
    optimum = [run.worth if run.found.status == "optimal" else float(run.found.bound or 0.0) for run in proofs]
    times = [run.cpu_s for run in proofs]
    proven = sum(run.found.status == "optimal" for run in proofs)
    yield figure("exact 20x50", "proven, of 24", proven, "instances", ">=", 24)
    yield figure("exact 20x50", "longest CPU time", max(times), "s", "<=", 5.0)
    yield figure("exact 20x50", "median CPU time", statistics.median(times), "s", "<=", 2.5)

    for budget_s, mean, worst in ((0.03, 0.08, 0.30), (0.1, 0.04, 0.25), (1.0, 0.010, 0.10)):
        goal = f"priced 20x50, {budget_s * 1000:g} ms"
        note(f"{goal}, 24 instances")
        runs = [_run(Priced(), seed, budget_s, {}) for seed in _DEFAULTS]
        gaps = [100.0 * (best - run.worth) / best for best, run in zip(optimum, runs, strict=True)]
        yield figure(goal, "mean gap to the optimum", statistics.fmean(gaps), "%", "<=", mean)
        yield figure(goal, "worst gap to the optimum", max(gaps), "%", "<=", worst)
        if budget_s == 1.0:
            yield figure(goal, "optimal, of 24", sum(gap < 1e-7 for gap in gaps), "instances", ">=", 18)
        if budget_s == 0.03:
            first = [
                100.0 * (best - run.table.worth(run.first.plan)) / best for best, run in zip(optimum, runs, strict=True)
            ]
            moment = statistics.median(1000.0 * run.first_s for run in runs)
            yield figure("priced 20x50, first plan", "median CPU time", moment, "ms", "<=", 4.0)
            yield figure(
                "priced 20x50, first plan", "mean gap to the optimum", statistics.fmean(first), "%", "<=", 0.45
            )
            learned = [solve("mta", "qlearning", draw(seed), seed=seed).objective for seed in _DEFAULTS]
            ratio = sum(run.worth for run in runs) / sum(learned)
            yield figure("against the learner", "priced at 30 ms over qlearning, mean utilities", ratio, "", ">=", 1.43)

    for n, m, budget_s, limit in ((50, 500, 0.1, 0.05), (50, 500, 3.0, 0.015), (200, 2_000, 2.0, 0.08)):
        goal = f"priced {n}x{m}, {budget_s:g} s"
        note(f"{goal}, {len(_SEEDS)} instances")
        gaps = [_run(Priced(), seed, budget_s, {"n": n, "m": m}).gap for seed in _SEEDS]
        yield figure(goal, "mean gap to its own bound", statistics.fmean(gaps), "%", "<=", limit)

    note("priced 200 x 20,000")
    large = [_run(Priced(), seed, 1.0, {"n": 200, "m": 20_000}) for seed in _SEEDS]
    moment = statistics.median(run.first_s for run in large)
    yield figure("priced 200x20000", "first plan with a proven bound, median CPU time", moment, "s", "<=", 0.3)
    gap = statistics.fmean(run.first_gap for run in large)
    yield figure("priced 200x20000", "gap of the first plan to its own bound, mean", gap, "%", "<=", 0.05)
    roomy = [_run(Priced(), seed, 6.0, {"n": 200, "m": 20_000, "cap_scale": 40.0}) for seed in _SEEDS]
    gap = statistics.fmean(run.gap for run in roomy)
    yield figure("priced 200x20000, cap_scale 40, 6 s", "mean gap to its own bound", gap, "%", "<=", 0.012)
    moment = statistics.median(run.first_s for run in roomy)
    yield figure("priced 200x20000, cap_scale 40", "first plan, median CPU time", moment, "s", "<=", 2.0)

    for n, m in ((50, 500), (20, 200)):
        goal = f"exact {n}x{m}, 60 s"
        note(f"{goal}, {len(_SEEDS)} instances")
        gap = statistics.fmean(_run(Exact(), seed, _LIMIT_S, {"n": n, "m": m}).gap for seed in _SEEDS)
        yield figure(goal, "mean gap", gap, "%", "<=", 0.02)

    note("qlearning 20 x 50, K = 500")
    moment = statistics.median(solve("mta", "qlearning", draw(seed), seed=seed).cpu_s for seed in _SEEDS)
    yield figure("qlearning 20x50, K = 500", "median CPU time, compiled", moment, "s", "<=", 0.05)
    yield figure("qlearning 20x50, K = 500", "median CPU time, without numba", _plain_learner_s(), "s", "<=", 0.15)

    note("priced, real draws and live tables, 100 ms")
    gaps = [_run(Priced(), seed, 0.1, {"draw": "real"}).gap for seed in _DEFAULTS]
    yield figure("priced real 20x50, 100 ms", "mean gap to its own bound", statistics.fmean(gaps), "%", "<=", 0.1)
    gaps = [_run(Priced(), seed, 0.1, {}, LiveRound(live_round(seed)).table).gap for seed in _SEEDS]
    yield figure("priced live 64x256, 100 ms", "mean gap to its own bound", statistics.fmean(gaps), "%", "<=", 0.1)

    note("memory at 200 x 20,000")
    yield figure("memory 200x20000", "greatest resident size of a solving process", _resident_mib(), "MiB", "<=", 600)


def live_round(seed: int, servers: int = 64, tasks: int = 256) -> Instance:
    """A full round of the market: prices, asks and deadlines spread as a busy fleet's are, and contention."""
    rng, now = np.random.default_rng(seed), 1_800_000_000_000
    live = tuple(
        LiveServer(
            id=i, speed=int(rng.integers(20, 120)) * 1_000_000, capacity=int(rng.integers(100, 600)) * 1_000_000,
            slots=int(rng.integers(1, 5)), ask=int(rng.integers(5, 30)), uplink=int(rng.integers(1, 20)) * 125_000,
            forward=int(rng.integers(0, 2_000)), credit=10**12, used=0,
        )
        for i in range(servers)
    )  # fmt: skip
    opened = tuple(
        OpenTask(
            offer_id=j.to_bytes(32, "big"), ue=bytes(20), source=int(rng.integers(servers)),
            fuel_limit=int(rng.integers(10_000_000, 120_000_000)), price=int(rng.integers(15, 60)),
            input_octets=int(rng.integers(1_000, 400_000)), output_octets=int(rng.integers(100, 50_000)), desired_ms=1,
            deadline_ms=now + int(rng.integers(1_000, 20_000)), excluded=(),
        )
        for j in range(tasks)
    )  # fmt: skip
    return Instance(seed, now, 500, opened, live)


_PLAIN = """
import statistics, sys
sys.modules["numba"] = None
from edgora.allocator import solve
from edgora.allocator.mta import draw
from edgora.allocator.compiled import COMPILED
assert not COMPILED
print(statistics.median(solve("mta", "qlearning", draw(seed), seed=seed).cpu_s for seed in range(5)))
"""

_LARGE = """
from pathlib import Path
from edgora.allocator import solve
from edgora.allocator.mta import draw
found = solve("mta", "priced", draw(0, {"n": 200, "m": 20_000}), time_limit_s=5.0)
assert found.objective is not None
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) / 1024)
"""
"""Not `ru_maxrss`: that of a child starts from its parent's."""


def _plain_learner_s() -> float:
    return _printed(_PLAIN)


def _resident_mib() -> float:
    return _printed(_LARGE)


def _printed(program: str) -> float:
    """The number that a program prints, run by a Python of its own."""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(done.stdout)
