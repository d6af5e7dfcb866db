"""What every problem's room does alike: a solver from its name and options, and a user policy's answer taken apart."""

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgora.allocator.files import read_settings, written_later
from edgora.wire.errors import NotFound, Refused

__all__ = ["Traced", "answered", "solver_of", "traced_of"]


@dataclass(frozen=True, slots=True)
class Traced:
    """A solver, and where the trace of its run goes."""

    solver: Any
    trace: Path | None

    @property
    def default_limit_s(self) -> float | None:
        limit: float | None = self.solver.default_limit_s
        return limit

    @property
    def libraries(self) -> tuple[str, ...]:
        names: tuple[str, ...] = self.solver.libraries
        return names


def solver_of(problem: str, solvers: Mapping[str, str | type[Any]], name: str, settings: Mapping[str, object]) -> Any:
    """The solver of this name with its options.

    A solver is an immutable msgspec Struct, whose fields are the keys of `--set`, or `module:object` where one lives,
    imported when it is asked for, so that one solver starts without the libraries of another. Raises NotFound for
    the name, Refused for an option.
    """
    place = solvers.get(name)
    if place is None:
        known = ", ".join(sorted(solvers))
        raise NotFound(f"{problem} has no solver {name!r}: use one of {known}, or module:object", field="solver")
    if isinstance(place, str):
        module, _, attribute = place.partition(":")
        place = getattr(importlib.import_module(module), attribute)
    return read_settings(settings, place, f"{problem} solver {name}")


def traced_of(
    problem: str, solvers: Mapping[str, str | type[Any]], name: str, settings: Mapping[str, object]
) -> Traced:
    """As `solver_of`, of a problem whose solvers also take `trace`, a file's path."""
    options = dict(settings)
    path = options.pop("trace", None)
    solver = solver_of(problem, solvers, name, options)
    if not (path is None or isinstance(path, str)):
        raise Refused(f"trace is {path!r}: must be a file's path", field="trace")
    return Traced(solver, None if path is None else written_later(Path(path), "--trace"))


def answered(answer: object) -> tuple[Any, float | None]:
    """(plan, bound) of what a user's policy answered: a mapping or object with `plan` and `bound`, or the bare plan."""
    if isinstance(answer, Mapping):
        plan, bound = answer.get("plan", answer), answer.get("bound")
    else:
        plan, bound = getattr(answer, "plan", answer), getattr(answer, "bound", None)
    if bound is None:
        return plan, None
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
        raise Refused(f"must answer a finite bound or none, answered {bound!r:.60}", field="bound")
    return plan, float(bound)
