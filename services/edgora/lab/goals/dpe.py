"""The goals of dpe.md 13, measured.

Every solver run is a fresh one on a fresh instance, default options, CPU time as its solution states it: nothing is kept
from run to run but the convex programs, which G6 excludes, and what Python imports, which every goal excludes. One
solve of another instance goes before, for what is imported on first use.

Gaps are server gaps: the difference over the optimal server part. "Best known" are the values of dpe.md 8.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from edgora.allocator import registry
from edgora.allocator.compiled import COMPILED
from edgora.allocator.dpe import Instance, draw
from edgora.allocator.dpe.continuous import continuous
from edgora.allocator.dpe.pairs import Pairs
from edgora.allocator.dpe.solution import Solution
from edgora.lab.goals.measured import Measured, Note

__all__ = ["measure"]

_SIZES = ((10, 2), (20, 3), (30, 4))
_PROOF = 1e-9

_Settings = Mapping[str, object]


def measure(note: Note) -> Iterator[Measured]:
    _solve("priced", draw(99))
    for part in (_exact, _proof, _fast, _scale, _continuous, _daur, _baselines):
        yield from part(note)


def _figure(goal: str, what: str, value: float, unit: str, limit: float, *, least: bool = False) -> Measured:
    return Measured(
        problem="dpe", goal=goal, what=what, value=value, unit=unit, sense=">=" if least else "<=", limit=limit
    )


def _solve(solver: str, instance: Instance, settings: _Settings | None = None) -> Solution:
    solution: Solution = registry.solve("dpe", solver, instance, settings=settings)
    return solution


def _worth(solution: Solution) -> float:
    assert solution.objective is not None  # our solvers' and the paper's decisions are allowed
    return solution.objective


def _many(
    users: int, servers: int, seeds: Sequence[int], solver: str, settings: _Settings | None = None
) -> list[Solution]:
    return [_solve(solver, draw(seed, {"N": users, "M": servers}), settings) for seed in seeds]


def _cpu(solutions: Sequence[Solution]) -> float:
    return statistics.mean(solution.cpu_s for solution in solutions)


def _gap(users: int, servers: int, seed: int, worth: float, best: float) -> float:
    """In percent of the optimal server part."""
    return 100.0 * (best - worth) / (best - draw(seed, {"N": users, "M": servers}).model.user_part)


def _exact(note: Note) -> Iterator[Measured]:
    equal = 0
    for users, servers, seeds in ((8, 2, 20), (10, 2, 20), (8, 3, 10)):
        note(f"dpe G1: {users} x {servers}")
        ours, every = (_many(users, servers, range(seeds), solver) for solver in ("priced", "exact"))
        equal += sum(abs(_worth(a) - _worth(b)) <= 1e-6 * _worth(b) for a, b in zip(ours, every, strict=True))
    yield _figure("G1", "instances where priced equals the subset table to 1e-6", equal, "instances", 50, least=True)


def _proof(note: Note) -> Iterator[Measured]:
    proven = 0
    for (users, servers), limit in zip(_SIZES, (0.040, 0.080, 0.120), strict=True):
        note(f"dpe G2: {users} x {servers}")
        found = _many(users, servers, range(20), "priced")
        proven += _proven(found)
        yield _figure(f"G2 {users}x{servers}", "mean CPU time of a proof, 20 instances", _cpu(found), "s", limit)
    yield _figure("G2", "instances proven at 10x2, 20x3, 30x4", proven, "instances", 60, least=True)
    note("dpe G2: 100 x 5")
    found = _many(100, 5, range(5), "priced")
    yield _figure("G2 100x5", "mean CPU time of a proof, 5 instances", _cpu(found), "s", 0.5)
    yield _figure("G2 100x5", "instances proven", _proven(found), "instances", 5, least=True)


def _proven(solutions: Sequence[Solution]) -> int:
    return sum(s.bound is not None and s.bound - _worth(s) <= _PROOF * _worth(s) for s in solutions)


def _fast(note: Note) -> Iterator[Measured]:
    not_below = 0
    for (users, servers), limit in zip(_SIZES, (0.010, 0.030, 0.050), strict=True):
        note(f"dpe G3: {users} x {servers}")
        fast = _many(users, servers, range(10), "priced", {"proof": 0})
        best, theirs = _many(users, servers, range(10), "priced"), _many(users, servers, range(10), "daur")
        gaps = [_gap(users, servers, seed, _worth(fast[seed]), _worth(best[seed])) for seed in range(10)]
        not_below += sum(_worth(a) >= _worth(b) for a, b in zip(fast, theirs, strict=True))
        yield _figure(
            f"G3 {users}x{servers}", "mean gap of the fast mode, 10 instances", statistics.mean(gaps), "%", 0.005
        )
        yield _figure(f"G3 {users}x{servers}", "greatest gap of the fast mode", max(gaps), "%", 0.05)
        yield _figure(f"G3 {users}x{servers}", "mean CPU time of the fast mode", _cpu(fast), "s", limit)
    yield _figure("G3", "instances where the fast mode is not below daur", not_below, "instances", 30, least=True)


def _scale(note: Note) -> Iterator[Measured]:
    for users, servers, known, limit in ((300, 10, 2288.5489, 0.060), (1000, 20, 7433.6547, 0.3)):
        note(f"dpe G4: {users} x {servers}")
        fast = _many(users, servers, range(2), "priced", {"proof": 0})
        user_part = statistics.mean(draw(seed, {"N": users, "M": servers}).model.user_part for seed in range(2))
        mean = statistics.mean(_worth(s) for s in fast)
        bound = statistics.mean(s.bound or np.inf for s in fast)
        size = f"G4 {users}x{servers}"
        yield _figure(size, "mean CPU time, bound included, seeds 0 and 1", _cpu(fast), "s", limit)
        yield _figure(size, "gap below the best known, mean", 100.0 * (known - mean) / (known - user_part), "%", 0.001)
        yield _figure(
            size, "bound above the best known, mean", 100.0 * (bound - known) / (known - user_part), "%", 0.005
        )


_VARIED: Sequence[_Settings] = (
    {}, {"B": 1e6, "fs_max": 2e9}, {"w_t": 0.9}, {"w_e": 0.0}, {"kappa_u": 1e-27, "kappa_s": 1e-27}, {"c_mixed": True},
)  # fmt: skip


def _continuous(note: Note) -> Iterator[Measured]:
    note("dpe G5: residuals and certificates")
    residuals, certificates = [], []
    for changes in _VARIED:
        for seed in range(5):
            instance = draw(seed, {"N": 30, "M": 4, **changes})
            drawn = np.random.default_rng(seed).integers(0, 4, 30)
            for assoc in (instance.model.gucaa(), drawn, instance.gain.argmax(axis=1)):
                solved = continuous(instance.model, assoc)
                residuals.append(solved.residual)
                certificates.append((solved.bound - solved.worth) / solved.worth)
    yield _figure("G5", "greatest relative KKT residual, 90 associations", max(residuals), "", 1e-8)
    yield _figure("G5", "greatest relative certificate, 90 associations", max(certificates), "", _PROOF)
    for users, servers, limit in ((30, 4, 0.5e-3), (1000, 20, 4e-3)):
        models = [draw(seed, {"N": users, "M": servers}).model for seed in range(5)]
        for compiled in (False, True)[: 1 + COMPILED]:
            note(f"dpe G5: {users} x {servers}, {'compiled' if compiled else 'arrays'}")
            times = []
            for model in models:
                pairs, assoc = Pairs.of(model, compiled=compiled), model.gucaa()
                times.append(_repeated(functools.partial(continuous, model, assoc, pairs)))
            form = "compiled kernels" if compiled else "array kernels"
            yield _figure(
                f"G5 {users}x{servers}", f"mean CPU time, {form}, 5 instances", statistics.mean(times), "s", limit
            )


def _repeated(work: Callable[[], object]) -> float:
    """Median CPU seconds of 40 runs, after one; what compiles has compiled by then."""
    work()
    times = []
    for _ in range(40):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return statistics.median(times)


def _daur(note: Note) -> Iterator[Measured]:
    for (users, servers), gap, limit in zip(_SIZES, (0.9, 1.0, 1.2), (0.2, 0.4, 0.8), strict=True):
        note(f"dpe G6: {users} x {servers}")
        _solve("daur", draw(98, {"N": users, "M": servers}))  # compiles
        theirs, best = _many(users, servers, range(10), "daur"), _many(users, servers, range(10), "priced")
        gaps = [_gap(users, servers, seed, _worth(theirs[seed]), _worth(best[seed])) for seed in range(10)]
        yield _figure(f"G6 {users}x{servers}", "mean gap of daur, 10 instances", statistics.mean(gaps), "%", gap)
        yield _figure(f"G6 {users}x{servers}", "mean CPU time of daur, compiled before", _cpu(theirs), "s", limit)
    note("dpe G6: full lift")
    instance = draw(0)
    full = [_solve("daur", instance, {"lift": "full"}) for _ in range(2)][1]
    apart = abs(_relaxed(full) / _relaxed(_solve("daur", instance)) - 1.0)
    yield _figure("G6 10x2 full", "CPU time with the rank penalty, compiled before", full.cpu_s, "s", 1.5)
    yield _figure("G6 10x2 full", "relaxed value against the blocks', relative", apart, "", 1e-6)
    larger = _solve("aauco", draw(0, {"N": 20, "M": 3}), {"lift": "full", "rank": "drop"})
    yield _figure("G6 20x3 full", "CPU time of the relaxation with Clarabel", larger.cpu_s, "s", 15.0)
    held = asked = 0
    for users, servers in _SIZES:
        instance = draw(0, {"N": users, "M": servers})
        for options in _OPTIONS:
            note(f"dpe G6: {users} x {servers} {options}")
            asked += 1
            held += _solve("daur", instance, {"outer": 1, **options}).objective is not None
    yield _figure("G6", f"option sets of {asked} that pass the audit at three sizes", held, "runs", asked, least=True)


_OPTIONS: Sequence[_Settings] = (
    *({"rounding": how, "rank": rank} for how in ("hungarian", "random", "secondary", "rank1", "greedy") for rank in ("keep", "drop")),
    *({"weights": weights} for weights in ("whatif", "literal")),
    {"gamma": "half"},
)  # fmt: skip


def _relaxed(solution: Solution) -> float:
    """The value of the first relaxation, without the penalty."""
    info = solution.info or {}
    steps = info["steps"]
    assert isinstance(steps, list)
    return float(steps[0]["relaxed"][0])


_PRINTED = (
    (0, {"N": 8, "M": 2}, (65.84942681, 66.93167523, 70.93187430)),
    (1, {"N": 10, "M": 2}, (83.06359512, 82.27008696, 86.85712416)),
    (2, {"N": 8, "M": 3, "c_mixed": True}, (30.95550218, 29.63510459, 31.58581598)),
)
"""Section 11: RUCAA, GUCAA, GUCRO."""


def _baselines(note: Note) -> Iterator[Measured]:
    note("dpe G7: baselines")
    furthest = max(
        abs(_worth(_solve(solver, draw(seed, settings))) - value) / value
        for seed, settings, values in _PRINTED
        for solver, value in zip(("rucaa", "gucaa", "gucro"), values, strict=True)
    )
    yield _figure("G7", "furthest baseline from section 11, relative", furthest, "", 1e-8)
