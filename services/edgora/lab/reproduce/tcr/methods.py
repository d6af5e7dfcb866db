"""Who is compared in the TCR figures, how a run is timed, and how means are shown.

CPU seconds are those of this process for one run, compilation of its convex programs included and imports excluded:
`warm` imports. Runs are remembered by instance, since three figures share the default point.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from edgora.allocator.search import Found, Search
from edgora.allocator.tcr import Decision, Instance, draw
from edgora.allocator.tcr.problem import TCR
from edgora.lab.reproduce.item import Cell, Setting

__all__ = [
    "COLORS", "COLUMNS", "LABELS", "METHODS", "PROFILES", "SIZES", "Run", "Spread", "bound", "compare", "figure",
    "instance", "profiles", "rows", "run", "seeds", "spread", "warm",
]  # fmt: skip

COLUMNS = ("item", "profile", "x", "method", "seed", "tcr", "T_s", "E_J", "trust", "cost", "bound", "cpu_s", "wall_s")

METHODS = ("rucaa", "gucaa", "aauco", "gucro", "dashf", "priced")
LABELS: Mapping[str, str] = {name: "priced (ours)" if name == "priced" else name.upper() for name in METHODS}
COLORS: Mapping[str, str] = {
    "rucaa": "#9e9e9e", "gucaa": "#6d4c41", "aauco": "#f57c00", "gucro": "#7b1fa2", "dashf": "#1565c0", "priced": "#2e7d32",
}  # fmt: skip

PROFILES = ("delegate", "paper")
SIZES = ((10, 2), (20, 3), (30, 4))
"""Users and servers of Table II."""

Settings = tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One method on one instance, valued by the model."""

    tcr: float
    T: float
    E: float
    trust: float
    cost: float
    cpu_s: float
    wall_s: float
    found: Found

    @property
    def plan(self) -> Decision:
        decision: Decision = self.found.plan
        return decision


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds and half the width of its 95 % interval (Student's t)."""

    mean: float
    half: float

    @property
    def text(self) -> str:
        return f"{self.mean:.3g} ± {self.half:.2g}"


def spread(values: Sequence[float]) -> Spread:
    from scipy.stats import t

    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    half = float(t.ppf(0.975, n - 1) * array.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0
    return Spread(float(array.mean()), half)


@lru_cache(maxsize=1024)
def instance(seed: int, settings: Settings) -> Instance:
    return draw(seed, dict(settings))


def run(name: str, e: Instance, **options: object) -> Run:
    """Run a solver by its name and options; its decision is audited and valued here."""
    solver = TCR.solver(name, options)
    wall, cpu = time.perf_counter(), time.process_time()
    found = TCR.search(solver, e, Search())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    audit = e.model.audit(found.plan)
    assert audit.feasible, audit.violations
    terms = audit.terms
    return Run(terms.tcr, terms.T, terms.E, terms.trust, terms.C, cpu, wall, found)


@lru_cache(maxsize=1024)
def compare(seed: int, settings: Settings) -> Mapping[str, Run]:
    """Every method on one instance; ours follows one start, as its table of times does."""
    e = instance(seed, settings)
    return {name: run(name, e, **({"descents": 1} if name == "priced" else {})) for name in METHODS}


@lru_cache(maxsize=1024)
def bound(seed: int, settings: Settings) -> Run:
    """Our solver with all its starts and its proven upper bound."""
    return run("priced", instance(seed, settings), bound=1)


def warm() -> None:
    """Import every solver's libraries."""
    compare(0, (("N", 3), ("M", 2)))


def seeds(setting: Setting) -> range:
    return setting.seeds(5, 1)


def profiles(setting: Setting) -> tuple[str, ...]:
    return PROFILES[:1] if setting.quick else PROFILES


def rows(
    item: str, profile: str, x: Cell, seed: int, runs: Mapping[str, Run], upper: float | None = None
) -> Iterator[tuple[Cell, ...]]:
    """Lines of the CSV."""
    for name, r in runs.items():
        yield (
            item, profile, x, name, seed, r.tcr, r.T, r.E, r.trust, r.cost, upper if name == "priced" else None,
            r.cpu_s, r.wall_s,
        )  # fmt: skip


def figure(columns: int, height: float = 3.4, rows_count: int = 1, width: float = 4.2) -> tuple[Any, Iterable[Any]]:
    """A drawing with this many axes."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width * columns, height * rows_count), layout="constrained")
    axes = drawing.subplots(rows_count, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(visible=True, alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return drawing, axes.flat
