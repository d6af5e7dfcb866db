"""The goals of TCR (tcr.md 14), measured on the profile `delegate`; values as the model audits them.

Times are CPU seconds of one process and one thread, imports excluded; the first solve of a process is not timed.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgora.allocator import registry
from edgora.allocator.search import Search
from edgora.allocator.tcr import Decision, Instance, Solution, draw
from edgora.allocator.tcr.bound import upper_bound
from edgora.allocator.tcr.closed import local_only
from edgora.allocator.tcr.instance import make
from edgora.allocator.tcr.priced import Priced
from edgora.allocator.tcr.resources import resettle, settle
from edgora.allocator.tcr.solution import decision
from edgora.lab.goals.measured import Measured, Note
from edgora.wire.errors import EdgoraError

__all__ = ["measure"]

_Settings = Mapping[str, object]

_SIZES = ((10, 2), (20, 3), (30, 4))
_OPTIMA = (
    1.364837, 1.383639, 1.383117, 1.390777, 1.452565, 1.313914, 1.359343, 1.665715, 1.316290, 1.551947, 1.204772,
    1.337491, 1.388004, 1.455942, 1.346624, 1.436587, 1.309058, 1.356830, 1.267529, 1.464679,
)  # fmt: skip
_CHAIN = (1.140336, 1.132714, 1.144761)
_BEST = {
    (10, 2): (1.798591, 1.717689, 1.883198, 1.805050, 1.460744),
    (20, 3): (2.479899, 2.311313, 2.904027, 2.511143, 2.453608),
    (30, 4): (3.271089, 3.442891, 3.077031, 3.505555, 3.654314),
}
_DASHF = {
    (10, 2): (1.784121, 1.576182, 1.793589, 1.716346, 1.437458),
    (20, 3): (2.262012, 2.191903, 2.821369, 2.410123, 2.443794),
    (30, 4): (3.087190, 3.072259, 2.802394, 3.277074, 3.564700),
}
_MEANS = {"aauco": (0.908, 1.224, 1.382), "gucro": (1.601, 2.088, 2.921)}
_LOCAL = 4.877042704904
"""The optimum of `paper` 6x2, seed 0."""


def measure(note: Note) -> Iterator[Measured]:
    """Every figure of tcr.md 14, in its order."""
    _solve("gucaa", draw(0))
    _solve("priced", draw(0, {"N": 4, "M": 2}))
    yield from _model(note)
    theirs: dict[tuple[int, int], list[float]] = {size: [-math.inf] * 5 for size in _SIZES}
    yield from _dashf(note, theirs)
    yield from _baselines(note, theirs)
    yield from _small(note)
    yield from _priced(note, theirs)
    yield from _scale(note)
    yield from _warm(note)
    yield from _profiles(note)


def _figure(goal: str, what: str, value: float, unit: str, limit: float, *, least: bool = False) -> Measured:
    return Measured(
        problem="tcr", goal=goal, what=what, value=float(value), unit=unit, sense=">=" if least else "<=", limit=limit
    )


def _solve(solver: str, instance: Instance, settings: _Settings | None = None) -> Solution:
    solution: Solution = registry.solve("tcr", solver, instance, settings=settings)
    return solution


def _limited(instance: Instance, limit_s: float) -> Solution:
    """`priced` under a limit, counted in CPU time so that a busy machine does not count."""
    solution: Solution = registry.solve("tcr", "priced", instance, stopped=_Stop(time.process_time() + limit_s))
    return solution


def _worth(solution: Solution) -> float:
    return -math.inf if solution.objective is None else solution.objective


def _drawn(size: tuple[int, int]) -> list[Instance]:
    return [draw(seed, {"N": size[0], "M": size[1]}) for seed in range(5)]


def _with(instance: Instance, **arrays: object) -> Instance:
    kept = {f.name: getattr(instance, f.name) for f in dataclasses.fields(instance) if f.name not in {"seed", "params"}}
    return make(None, instance.params, {**kept, **arrays})


def _worked() -> float:
    """TCR of section 11's example."""
    base = draw(0, {"N": 3, "M": 2, "N0": 4e-21, "wire": 1.6e7, "eta_u": 300, "eta_r": 300, "eta_s": 300, "eta_b": 700})
    instance = _with(
        base, d=[8e6, 12e6, 16e6], score=[0.1, 0.4], gain=[[2.4e-13, 1e-14], [2e-13, 1.4e-12], [3e-14, 4e-14]]
    )
    chosen = Decision(
        assoc=np.array([0, 1, 1]), phi=np.array([0.5, 0.75, 0.5]), gamma=np.array([0.4, 0.5, 0.25]),
        b=np.array([4e6, 5e6, 2e6]), pu=np.array([0.2, 0.1, 0.2]), ps=np.array([5.0, 4.0, 6.0]),
        fu=np.array([1e9, 8e8, 1e9]), fs=np.array([6e9, 8e9, 5e9]),
    )  # fmt: skip
    return instance.model.terms(chosen).tcr


def _model(note: Note) -> Iterator[Measured]:
    note("tcr 1: worked example, draw, closed form")
    yield _figure("1", "relative error of the worked example", abs(_worked() / 0.294767972861 - 1.0), "", 1e-9)
    gain = float(draw(0, {"N": 6, "M": 2}).gain[0, 0])
    yield _figure("1", "relative error of a drawn gain", abs(gain / 2.240323204967e-12 - 1.0), "", 1e-12)
    local = local_only(paper := draw(0, {"N": 6, "M": 2, "profile": "paper"}))
    reached = paper.model.terms(local).tcr if local else 0.0
    yield _figure("1", "relative error of the closed form, 6x2", abs(reached / _LOCAL - 1.0), "", 1e-6)
    large = draw(0, {"N": 1000, "M": 20, "profile": "paper"})
    times = []
    for _ in range(5):
        began = time.process_time()
        local_only(large)
        times.append(time.process_time() - began)
    yield _figure("1", "median CPU time of the closed form, 1000x20", statistics.median(times), "s", 0.1)


def _dashf(note: Note, theirs: dict[tuple[int, int], list[float]]) -> Iterator[Measured]:
    from edgora.allocator.tcr.association import Association, Coefficients, Pairs  # cvxpy only where it is measured

    ratios = []
    for size, limit in zip(_SIZES, (0.75, 1.4, 1.9), strict=True):
        note(f"tcr 2: dashf {size[0]} x {size[1]}")
        found = [_solve("dashf", instance) for instance in _drawn(size)]
        ratios += [_worth(s) / known for s, known in zip(found, _DASHF[size], strict=True)]
        _keep(theirs[size], [_worth(s) for s in found])
        cpu = statistics.median(s.cpu_s for s in found)
        yield _figure(f"2 {size[0]}x{size[1]}", "median CPU time of dashf, 5 instances", cpu, "s", limit)
    yield _figure("2", "least value of dashf in parts of section 8's, 15 instances", min(ratios), "", 0.99, least=True)
    apart = []
    for size in ((6, 2), (10, 2)):
        instance = draw(0, {"N": size[0], "M": size[1]})
        pairs = Pairs.nominal(instance)
        known = Coefficients.of(instance, pairs)
        full, blocks = (Association(instance, lift, 1).relax(1.0, known, pairs).value for lift in ("full", "blocks"))
        apart.append(abs(full - blocks) / max(abs(full), 1.0))
    yield _figure("2", "greatest relative difference of the two lifts, 6x2 and 10x2", max(apart), "", 1e-5)


def _keep(best: list[float], values: Sequence[float]) -> None:
    best[:] = map(max, best, values)


def _values(note: Note, solver: str, size: tuple[int, int]) -> list[float]:
    """Values of five instances; one that a convex solver gave up counts 0, and is told."""
    values = []
    for instance in _drawn(size):
        try:
            values.append(_worth(_solve(solver, instance)))
        except EdgoraError as error:
            note(f"tcr: {solver} fails at {size[0]} x {size[1]}, seed {instance.seed}: {error.detail}")
            values.append(0.0)
    return values


def _baselines(note: Note, theirs: dict[tuple[int, int], list[float]]) -> Iterator[Measured]:
    small = draw(0, {"N": 6, "M": 2})
    for solver, known in (("rucaa", 0.5258831827611), ("gucaa", 0.5449099471532)):
        error = abs(_worth(_solve(solver, small)) / known - 1.0)
        yield _figure("3", f"relative error of {solver}, 6x2", error, "", 1e-9)
    for solver, means in _MEANS.items():
        ratios = []
        for size, mean in zip(_SIZES, means, strict=True):
            note(f"tcr 3: {solver} {size[0]} x {size[1]}")
            values = _values(note, solver, size)
            _keep(theirs[size], values)
            ratios.append(statistics.mean(values) / mean)
        yield _figure(
            "3", f"least mean of {solver} in parts of section 8's, 3 sizes", min(ratios), "", 0.99, least=True
        )
    for size in _SIZES:
        for solver in ("rucaa", "gucaa"):
            _keep(theirs[size], _values(note, solver, size))


def _small(note: Note) -> Iterator[Measured]:
    note("tcr 4, 5: exact and priced at 6 x 2")
    instances = [draw(seed, {"N": 6, "M": 2}) for seed in range(20)]
    exact, priced = ([_solve(solver, e) for e in instances] for solver in ("exact", "priced"))
    equal = sum(abs(_worth(s) / optimum - 1.0) <= 1e-5 for s, optimum in zip(exact, _OPTIMA, strict=True))
    yield _figure("4", "optima that exact finds to 1e-5, 6x2", equal, "instances", 20, least=True)
    yield _figure("4", "greatest CPU time of exact, 6x2", max(s.cpu_s for s in exact), "s", 1.0)
    ratios = [_worth(s) / optimum for s, optimum in zip(priced, _OPTIMA, strict=True)]
    yield _figure("5", "least value of priced in parts of the optimum, 6x2", min(ratios), "", 0.999, least=True)
    yield _figure(
        "5", "optima that priced finds to 1e-5, 6x2", sum(r >= 1.0 - 1e-5 for r in ratios), "instances", 19, least=True
    )
    yield _figure("5", "median CPU time of priced, 6x2", statistics.median(s.cpu_s for s in priced), "s", 0.4)


def _priced(note: Note, theirs: dict[tuple[int, int], list[float]]) -> Iterator[Measured]:
    ratios, gaps = [], []
    below = fast = wrong = 0
    for size, limit, limited, extra in zip(_SIZES, (1.2, 2.5, 5.0), (0.15, 0.25, 0.5), (1.5, 3.0, 6.0), strict=True):
        name = f"{size[0]}x{size[1]}"
        note(f"tcr 6, 7: priced and its bound, {name}")
        instances = _drawn(size)
        found = [_solve("priced", instance) for instance in instances]
        ratios += [_worth(s) / best for s, best in zip(found, _BEST[size], strict=True)]
        below += sum(_worth(s) < other * (1.0 - 1e-9) for s, other in zip(found, theirs[size], strict=True))
        cpu = statistics.median(s.cpu_s for s in found)
        yield _figure(f"6 {name}", "median CPU time of priced, 5 instances", cpu, "s", limit)
        quick = [_limited(instance, limited) for instance in instances]
        fast += sum(_worth(s) >= known for s, known in zip(quick, _DASHF[size], strict=True))
        times = []
        for instance, solution, best in zip(instances, found, _BEST[size], strict=True):
            began = time.process_time()
            bound = upper_bound(instance, decision(solution, instance), Search())
            times.append(time.process_time() - began)
            gaps.append(math.inf if bound is None else 100.0 * (bound / _worth(solution) - 1.0))
            wrong += bound is not None and bound < max(_worth(solution), best * (1.0 - 1e-6))
        yield _figure(f"7 {name}", "median CPU time of the bound, 5 instances", statistics.median(times), "s", extra)
    yield _figure(
        "6", "least value of priced in parts of the best known, 15 instances", min(ratios), "", 0.995, least=True
    )
    yield _figure(
        "6", "mean value of priced in parts of the best known", statistics.mean(ratios), "", 0.999, least=True
    )
    yield _figure("6", "instances where dashf, gucro or a baseline is above priced", below, "instances", 0)
    yield _figure("6", "instances at dashf's value within 0.15, 0.25, 0.5 s", fast, "instances", 12, least=True)
    yield _figure("7", "greatest gap of the bound, 15 instances", max(gaps), "%", 0.5)
    yield _figure("7", "median gap of the bound", statistics.median(gaps), "%", 0.2)
    yield _figure("7", "bounds below a value reached", wrong, "instances", 0)


def _scale(note: Note) -> Iterator[Measured]:
    for size, goals in (
        ((100, 5), ((4.0, 6.45),)), ((300, 10), ((4.0, 15.0),)), ((1000, 20), ((10.0, 28.0), (30.0, 29.5))),
    ):  # fmt: skip
        note(f"tcr 8: {size[0]} x {size[1]}")
        instance = draw(0, {"N": size[0], "M": size[1]})
        heard: list[tuple[float, float]] = []
        began = time.process_time()
        longest = goals[-1][0]
        search = Search()
        search.stopped = _Stop(began + longest)
        search.report = _Heard(began, heard)
        Priced().solve(instance, search)
        for limit, goal in goals:
            worth = max((worth for cpu, worth in heard if cpu <= limit), default=0.0)
            yield _figure(f"8 {size[0]}x{size[1]}", f"value of priced after {limit:g} s", worth, "", goal, least=True)


@dataclasses.dataclass
class _Stop:
    end: float

    def __call__(self) -> bool:
        return time.process_time() >= self.end


@dataclasses.dataclass
class _Heard:
    began: float
    heard: list[tuple[float, float]]

    def __call__(self, worth: float, _bound: float | None) -> None:
        self.heard.append((time.process_time() - self.began, worth))


def _warm(note: Note) -> Iterator[Measured]:
    note("tcr 9: resources after all gains changed by 5 %, 20 x 3")
    times, errors = [], []
    for seed in range(5):
        instance = draw(seed)
        before = decision(_solve("priced", instance, {"descents": 1}), instance)
        up = np.random.default_rng(seed).random(instance.gain.shape) < 0.5
        changed = _with(instance, gain=instance.gain * np.where(up, 1.05, 0.95))
        for _ in range(3):
            began = time.process_time()
            after = resettle(changed, before)
            times.append(time.process_time() - began)
        cold = float(settle(changed, before.assoc[None]).value[0])
        errors.append(1.0 - changed.model.terms(after).tcr / cold)
    yield _figure("9", "median CPU time of a warm solve", 1e3 * statistics.median(times), "ms", 20.0)
    yield _figure("9", "greatest relative loss against a cold solve", max(errors), "", 1e-5)


def _profiles(note: Note) -> Iterator[Measured]:
    note("tcr 10: every solver in paper and chain")
    room = registry.problem("tcr")
    failed = 0
    for profile in ("paper", "chain"):
        instance = draw(0, {"N": 6, "M": 2, "profile": profile})
        for solver in room.solvers:
            failed += not room.score(instance, _solve(solver, instance)).holds
    yield _figure("10", "solvers whose solution of paper or chain does not hold", failed, "solvers", 0)
    errors = []
    for seed, optimum in enumerate(_CHAIN):
        instance = draw(seed, {"N": 6, "M": 2, "profile": "chain"})
        errors += [abs(_worth(_solve(solver, instance)) / optimum - 1.0) for solver in ("exact", "priced")]
    yield _figure("10", "greatest relative error at chain 6x2, seeds 0-2", max(errors), "", 1e-5)
