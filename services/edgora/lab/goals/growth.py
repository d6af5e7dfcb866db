"""Time against size for every solver, the papers' printed times beside ours, and growth exponents.

Each solver runs on one instance a size, smallest first, and stops at the size that took longer than `CAP_S`: a curve
ends where its solver stops being useful. The exponent is the slope of log CPU time over log(users x servers), least
squares over the sizes that took at least `LEAST_S`; shorter times are overhead. Two such sizes are needed.

The papers' times are theirs, on their machines, with their solvers: they are drawn for their growth, not for their size.
"""

import csv
import io
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edgora.allocator import registry
from edgora.wire.errors import Refused

__all__ = ["CAP_S", "Curve", "Point", "draw_growth", "measure_growth"]

CAP_S = 5.0
LEAST_S = 0.005


class Case(NamedTuple):
    """A problem's sizes (users, servers) and what its solvers are given."""

    users: str
    """Name of the setting that is the number of users or tasks."""
    servers: str
    sizes: Sequence[tuple[int, int]]
    limited: Mapping[str, float]
    """Solvers that take all the time they get -> their time limit, seconds; drawn as such."""


_CASES: Mapping[str, Case] = {
    "mta": Case(
        "m", "n", ((25, 10), (50, 20), (200, 40), (500, 50), (2_000, 200), (20_000, 200)),
        {"priced": 1.0, "exact": 60.0},
    ),
    "tcr": Case("N", "M", ((6, 2), (10, 2), (20, 3), (30, 4), (100, 5), (300, 10)), {}),
    "dpe": Case("N", "M", ((8, 2), (10, 2), (20, 3), (30, 4), (100, 5), (300, 10), (1_000, 20)), {}),
}  # fmt: skip

PRINTED: Mapping[str, tuple[str, Sequence[tuple[int, int, float]]]] = {
    "tcr": ("DASHF, the paper's Table II", ((10, 2, 3.07), (20, 3, 26.94), (30, 4, 1600.09))),
    "dpe": ("DAUR, the paper's Table II", ((10, 2, 0.22), (20, 3, 13.98), (30, 4, 228.86))),
}
"""(users, servers, seconds) as printed; the mta paper prints no time."""


class Point(msgspec.Struct, frozen=True):
    users: int
    servers: int
    cpu_s: float


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    problem: str
    solver: str
    """A solver's name, or whose printed times these are."""
    points: Sequence[Point]
    exponent: float | None
    """Of users x servers; null where fewer than two sizes took long enough."""
    ended: str = ""
    """Why larger sizes are missing."""


def measure_growth(problems: Sequence[str], note: Callable[[str], None]) -> list[Curve]:
    """One curve a solver, and the papers' own."""
    curves = []
    for problem in (name for name in problems if name in _CASES):  # learners' times are goals of their own
        case, room = _CASES[problem], registry.problem(problem)
        curves += [_curve(problem, case, solver, note) for solver in room.solvers]
        if problem in PRINTED:
            name, printed = PRINTED[problem]
            points = [Point(*row) for row in printed]
            curves.append(Curve(problem=problem, solver=name, points=points, exponent=_exponent(points)))
    return curves


def _curve(problem: str, case: Case, solver: str, note: Callable[[str], None]) -> Curve:
    points: list[Point] = []
    ended = ""
    room, limit_s = registry.problem(problem), case.limited.get(solver)
    for users, servers in case.sizes:
        instance = room.draw(0, {case.users: users, case.servers: servers})
        try:
            solution = registry.solve(problem, solver, instance, time_limit_s=limit_s)
        except Refused as refused:  # an enumeration that does not fit says so
            ended = refused.detail
            break
        points.append(Point(users, servers, solution.cpu_s))
        note(f"{problem} {solver} {users} x {servers}: {solution.cpu_s:.3g} s")
        if solution.cpu_s > CAP_S:
            ended = f"{users} x {servers} took {solution.cpu_s:.1f} s, the benchmark goes on below {CAP_S:g} s"
            break
    return Curve(problem=problem, solver=solver, points=points, exponent=_exponent(points), ended=ended)


def _exponent(points: Sequence[Point]) -> float | None:
    long = [(math.log(p.users * p.servers), math.log(p.cpu_s)) for p in points if p.cpu_s >= LEAST_S]
    if len(long) < 2:
        return None
    return round(statistics.linear_regression(*zip(*long, strict=True)).slope, 2)


def draw_growth(curves: Sequence[Curve], out: Path) -> list[str]:
    """growth.csv, growth.png and growth.svg in `out`."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    problems = list(dict.fromkeys(curve.problem for curve in curves))
    figure: Any = Figure(figsize=(5.4 * len(problems), 5.6), layout="constrained")
    for axes, problem in zip(figure.subplots(1, len(problems), squeeze=False)[0], problems, strict=True):
        printed = PRINTED.get(problem, ("", ()))[0]
        for curve in (c for c in curves if c.problem == problem and c.points):
            sizes = [p.users * p.servers for p in curve.points]
            growth = "" if curve.exponent is None else f" ({curve.exponent:g})"
            style = "k--s" if curve.solver == printed else "-o"
            axes.loglog(
                sizes, [max(p.cpu_s, 1e-5) for p in curve.points], style, ms=3, lw=1, label=curve.solver + growth
            )
        axes.set(title=problem, xlabel="users x servers", ylabel="seconds (ours: CPU, one thread)")
        axes.grid(visible=True, which="major", lw=0.3)
        axes.legend(
            fontsize=7, title="solver (growth exponent)", title_fontsize=7, ncols=3, frameon=False,
            loc="upper center", bbox_to_anchor=(0.5, -0.13),
        )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("problem", "solver", "users", "servers", "seconds", "exponent"))
    for curve in curves:
        writer.writerows(
            (curve.problem, curve.solver, p.users, p.servers, f"{p.cpu_s:.6g}", curve.exponent) for p in curve.points
        )
    (out / "growth.csv").write_text(text.getvalue(), encoding="utf-8")
    figure.savefig(out / "growth.png", dpi=120, metadata={"Software": None})
    figure.savefig(out / "growth.svg", metadata={"Date": None})
    return ["growth.csv", "growth.png", "growth.svg"]
