"""Who is compared in the DPE figures, how a run is timed, and how means are shown.

CPU seconds are those of this process, with the convex programs of the size compiled before (`warm`): a compilation is
paid once for a size, not once for a network. AAUCO is the first step of DAUR, so its value and time are read off
DAUR's own record.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgora.allocator.dpe import Decision, Model, draw
from edgora.allocator.dpe.problem import DPE
from edgora.allocator.search import Found, Search
from edgora.lab.reproduce.item import Cell

__all__ = [
    "COLORS", "COLUMNS", "LABELS", "METHODS", "PAPER", "SIZES", "Run", "Spread", "compare", "figure", "ours", "rows",
    "run", "spread", "warm",
]  # fmt: skip

COLUMNS = ("item", "x", "method", "seed", "dpe", "server_part", "cpu_s")

METHODS = ("rucaa", "gucaa", "aauco", "gucro", "daur", "optimum")
LABELS: Mapping[str, str] = {name: name if name == "optimum" else name.upper() for name in METHODS}
COLORS: Mapping[str, str] = {
    "rucaa": "#9e9e9e", "gucaa": "#6d4c41", "aauco": "#f57c00", "gucro": "#7b1fa2", "daur": "#1565c0", "optimum": "#2e7d32",
}  # fmt: skip
PAPER: Mapping[str, float] = {"rucaa": 80.78, "gucaa": 80.38, "aauco": 83.25, "gucro": 84.82, "daur": 87.87}
"""DPE as printed for one random network of 10 users and 2 servers."""

SIZES = ((10, 2), (20, 3), (30, 4))
"""Users and servers of Table II."""


@dataclass(frozen=True, slots=True)
class Run:
    """One method on one network."""

    dpe: float
    server_part: float
    cpu_s: float
    found: Found


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over networks and half the width of its 95 % interval (Student's t)."""

    mean: float
    half: float
    low: float
    high: float

    @property
    def text(self) -> str:
        return f"{self.mean:.2f} ± {self.half:.2f}"


def spread(values: Sequence[float]) -> Spread:
    from scipy.stats import t

    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    half = float(t.ppf(0.975, n - 1) * array.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0
    return Spread(float(array.mean()), half, float(array.min()), float(array.max()))


def run(name: str, model: Model, **settings: object) -> Run:
    """Run a solver by its name and options; its decision is audited and valued here."""
    solver = DPE.solver(name, settings)
    began = time.process_time()
    found = solver.solve(model, Search())
    cpu_s = time.process_time() - began
    return valued(model, found, cpu_s)


def valued(model: Model, found: Found, cpu_s: float) -> Run:
    plan: Decision = found.plan
    audit = model.audit(plan)
    assert audit.feasible, audit.violations
    return Run(model.dpe(plan), model.server_part(plan), cpu_s, found)


def warm(users: int, servers: int, **settings: object) -> None:
    """Compile the convex programs of a size, and whatever else the first run does once."""
    model = draw(0, {"N": users, "M": servers}).model
    run("daur", model, outer=1, dc_rounds=1, fp_iters=1, **settings)
    run("gucro", model)
    run("exact" if users <= 12 else "priced", model)


def compare(model: Model) -> dict[str, Run]:
    """Every method on one network; the optimum is enumerated up to 12 users, proven by `priced` beyond."""
    daur = run("daur", model)
    first = daur.found.info["steps"][0]  # type: ignore[index]  # info holds JSON values
    step: dict[str, Any] = first
    return {
        "rucaa": run("rucaa", model),
        "gucaa": run("gucaa", model),
        "aauco": Run(step["dpe"], step["dpe"] - model.user_part, step["cpu_s"], daur.found),
        "gucro": run("gucro", model),
        "daur": daur,
        "optimum": ours(model),
    }


def ours(model: Model) -> Run:
    return run("exact" if model.instance.N <= 12 else "priced", model)


def rows(item: str, x: Cell, seed: int, runs: Mapping[str, Run]) -> Iterator[tuple[Cell, ...]]:
    """Lines of the CSV."""
    for method, made in runs.items():
        yield item, x, method, seed, made.dpe, made.server_part, made.cpu_s


def figure(columns: int, height: float = 3.4, rows_count: int = 1, width: float = 4.2) -> tuple[Any, Iterable[Any]]:
    """A drawing with this many axes."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width * columns, height * rows_count), layout="constrained")
    axes = drawing.subplots(rows_count, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(visible=True, alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return drawing, axes.flat
