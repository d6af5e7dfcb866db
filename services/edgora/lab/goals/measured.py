"""One measured figure beside its goal, and the run over the problems that were asked for."""

import importlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, assert_never

import msgspec

from edgora.wire.errors import NotFound

__all__ = ["PROBLEMS", "GoalsResult", "Measured", "Note", "run_goals"]

PROBLEMS = ("mta", "tcr", "dpe", "baas", "privacy")

Note = Callable[[str], None]
"""Hears one line about what is being measured."""

Measure = Callable[[Note], Iterator["Measured"]]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A figure, with the goal that it is held against."""

    problem: str
    goal: str
    """Which line of the spec's Goals section: "15 priced 20x50, 30 ms"."""
    what: str
    """The statistic in words: "mean gap to the proven optimum, 24 instances"."""
    value: float
    unit: str
    """"%", "s", "MiB", "instances" or "" for plain ratios and objectives."""
    sense: Literal["<=", ">="]
    limit: float

    @property
    def holds(self) -> bool:
        match self.sense:
            case "<=":
                return self.value <= self.limit
            case ">=":
                return self.value >= self.limit
            case _:
                assert_never(self.sense)


class GoalsResult(msgspec.Struct, kw_only=True):
    machine: str
    figures: list[Measured]
    reached: int
    cpu_s: float


def run_goals(problems: Sequence[str], note: Note) -> GoalsResult:
    """Measure the goals of these problems. Raises NotFound for a name."""
    modules: list[Measure] = []
    for name in problems:
        if name not in PROBLEMS:
            raise NotFound(f"no allocation problem {name!r}: use {', '.join(PROBLEMS)}", field="--only")
        modules.append(importlib.import_module(f"edgora.lab.goals.{name}").measure)
    began = time.process_time()
    figures = []
    for measure in modules:
        for figure in measure(note):
            figures.append(figure)
            verdict = "reached" if figure.holds else "NOT reached"
            note(
                f"{figure.problem} {figure.goal}: {figure.value:.4g} {figure.unit} {figure.sense} {figure.limit:g}: {verdict}"
            )
    return GoalsResult(
        machine=f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}",
        figures=figures,
        reached=sum(figure.holds for figure in figures),
        cpu_s=round(time.process_time() - began, 1),
    )
