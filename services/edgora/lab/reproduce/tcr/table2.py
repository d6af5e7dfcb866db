"""table2: what DASHF costs by size, in both lifts, and what our solver costs."""

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from edgora.allocator.conic.lift import Kind
from edgora.allocator.conic.program import ProgramFailed, Solver
from edgora.allocator.tcr.association import Association, Coefficients, Pairs
from edgora.lab.reproduce.item import Cell, Note, Printed, Reproduction, Setting
from edgora.lab.reproduce.tcr.methods import COLORS, COLUMNS, SIZES, Run, figure, instance, rows, run, seeds, warm

__all__ = ["table2"]

PAPER = {(10, 2): 3.07, (20, 3): 26.94, (30, 4): 1600.09}
"""Seconds as printed, with MOSEK on the paper's machine."""
SCS_S = 120.0
SCS_TOLERANCE = 1e-4


def table2(setting: Setting, note: Note) -> Reproduction:
    warm()
    lines: list[tuple[Cell, ...]] = []
    made: dict[str, dict[tuple[int, int], list[Run]]] = {"dashf": {}, "priced": {}}
    for n, m in SIZES:
        for by_size in made.values():
            by_size[n, m] = []
        for seed in seeds(setting):
            note(f"tcr.table2: {n} x {m}, seed {seed}")
            e = instance(seed, (("N", n), ("M", m)))
            runs = {name: run(name, e) for name in made}
            lines += rows("table2", "delegate", f"{n}x{m}", seed, runs)
            for name, one in runs.items():
                made[name][n, m].append(one)
    full: dict[tuple[int, int], str] = {}
    seconds: dict[tuple[int, int], float] = {}
    for size in SIZES:
        if setting.quick and size != SIZES[0]:
            full[size] = "not run: quick"
            continue
        note(f"tcr.table2: full lift at {size[0]} x {size[1]}")
        full[size], took = full_lift(size)
        if took is not None:
            seconds[size] = took
        lines.append(("table2 full", "delegate", f"{size[0]}x{size[1]}", "full", 0, *(None,) * 6, took, None))
    cpu = {
        name: {size: statistics.median(r.cpu_s for r in many) for size, many in by.items()} for name, by in made.items()
    }
    wall = {
        name: {size: statistics.median(r.wall_s for r in many) for size, many in by.items()}
        for name, by in made.items()
    }
    times = {name: ", ".join(f"{by[size]:.2f}" for size in SIZES) for name, by in cpu.items()}
    growth = {name: exponent(by) for name, by in cpu.items()} | {"paper": exponent(PAPER)}

    drawing, (axis,) = figure(1, width=5.6, height=3.8)
    at = np.arange(len(SIZES))
    bars: Sequence[tuple[str, str, Mapping[tuple[int, int], float]]] = (
        ("printed (MOSEK, their machine)", "#9e9e9e", PAPER), ("full lift (see table)", "#f57c00", seconds),
        ("DASHF, one block a user", COLORS["dashf"], cpu["dashf"]), ("priced (ours)", COLORS["priced"], cpu["priced"]),
    )  # fmt: skip
    for k, (label, shade, values) in enumerate(bars):
        axis.bar(at + 0.2 * (k - 1.5), [values.get(size, np.nan) for size in SIZES], 0.2, color=shade, label=label)
    axis.set(
        yscale="log",
        ylabel="seconds (ours: CPU)",
        xticks=at,
        xticklabels=[f"{n} x {m}" for n, m in SIZES],
        xlabel="users x servers",
    )
    axis.legend(frameon=False, fontsize=8)  # fmt: skip
    printed = []
    for size in SIZES:
        text = ", ".join(f"{name} {cpu[name][size]:.2f} s CPU ({wall[name][size]:.2f} s wall)" for name in made)
        printed.append(Printed(f"{size[0]} x {size[1]}", f"{PAPER[size]:g} s", f"{text}; full lift: {full[size]}"))
    printed.append(
        Printed("growth exponent of users", f"{growth['paper']:.1f}", f"dashf {growth['dashf']:.1f}, priced {growth['priced']:.1f}")
    )  # fmt: skip
    gain = 100 * np.mean([
        ours.tcr / theirs.tcr - 1
        for size in SIZES
        for ours, theirs in zip(made["priced"][size], made["dashf"][size], strict=True)
    ])  # fmt: skip
    return Reproduction(
        title="Time by size",
        how=f"{len(seeds(setting))} seeds a size, `delegate`, medians, compilation included, one thread, Clarabel. Full lift: seed 0 only.",
        columns=COLUMNS,
        rows=lines,
        paragraph=(
            "The printed times are those of the lift, not of the algorithm. One matrix of order N + N M + 1 over all users makes "
            f"them grow with the power {growth['paper']:.1f} of the users; one block of order M + 2 a user is the same relaxation with the same value, "
            f"and the whole of DASHF then takes {times['dashf']} s and grows with the power {growth['dashf']:.1f}. "
            "The full lift explodes here as it did there: "
            + "; ".join(f"{n} x {m}: {full[n, m]}" for n, m in SIZES)
            + f". Our solver, with three starts, takes {times['priced']} s and ends {gain:.1f} % above DASHF."
        ),
        figure=drawing,
        printed=printed,
    )


def exponent(times: Mapping[tuple[int, int], float]) -> float:
    """Slope of log time over log users."""
    points = [(math.log(n), math.log(max(took, 1e-6))) for (n, _), took in times.items()]
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def full_lift(size: tuple[int, int]) -> tuple[str, float | None]:
    """What the one matrix over all users costs on seed 0, in words and CPU seconds."""
    n, m = size
    e = instance(0, (("N", n), ("M", m)))
    if n == 10:
        made = run("dashf", e, lift="full")
        return f"whole run {made.cpu_s:.2f} s, TCR {made.tcr:.4f}", made.cpu_s
    solver: Solver = "clarabel" if n == 20 else "scs"
    try:
        value, cpu_s = one_relaxation(size, "full", solver)
    except ProgramFailed as error:
        return f"not run to its end: {error.detail} (at most {SCS_S:.0f} s)", None
    blocks, _ = one_relaxation(size, "blocks", "clarabel")
    return f"one relaxation by {solver} {cpu_s:.1f} s, value {value:.4f} (blocks {blocks:.4f})", cpu_s


def one_relaxation(size: tuple[int, int], lift: Kind, solver: Solver) -> tuple[float, float]:
    """Value and CPU seconds of the first relaxation of a run."""
    e = instance(0, (("N", size[0]), ("M", size[1])))
    y = e.model.terms(e.model.even(e.model.spread())).tcr
    pairs = Pairs.nominal(e)
    k = Coefficients.of(e, pairs)
    limits = {"tolerance": SCS_TOLERANCE, "time_limit_s": SCS_S} if solver == "scs" else {}
    solved = Association(e, lift).relax(y, k, pairs, solver, **limits)
    return solved.value, solved.cpu_s
