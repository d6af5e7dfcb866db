"""Solutions of TCR: built from a decision, read strictly, scored against their instance (tcr.md 13).

What a solution claims is computed here from the audited decision, never taken from its solver. A decision that breaks
a constraint has objective null. Scoring recomputes everything and compares, so a file that was edited, or written by
another program, is caught.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgora.allocator.files import indices, read_json, write_json
from edgora.allocator.search import Found
from edgora.allocator.tcr.instance import Instance, Seed
from edgora.allocator.tcr.model import Decision
from edgora.wire.errors import Refused

__all__ = ["Score", "Solution", "build", "decision", "dump", "load", "score"]

Seconds = Annotated[float, msgspec.Meta(ge=0)]

_CLAIM = 1e-6
"""Relative tolerance between a claimed and the recomputed number."""

_AMOUNTS = ("phi", "gamma", "b", "pu", "ps", "fu", "fs")


class Solution(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The JSON document; its fields in the order of tcr.md 13."""

    problem: Literal["tcr"]
    version: Literal[1]
    solver: str
    seed: Seed
    """The solver's seed."""
    wall_s: Seconds
    cpu_s: Seconds
    objective: float | None
    """TCR; null where the decision breaks a constraint."""
    bound: float | None
    """Upper bound of TCR over all decisions, or null."""
    assoc: Sequence[int]
    phi: Sequence[float]
    gamma: Sequence[float]
    b: Sequence[float]
    pu: Sequence[float]
    ps: Sequence[float]
    fu: Sequence[float]
    fs: Sequence[float]
    info: Mapping[str, object] | None = None


class Score(msgspec.Struct, frozen=True):
    """What `edgora score` says about a solution."""

    problem: str
    solver: str
    feasible: bool
    holds: bool
    """Feasible, and every claimed number is right: exit code 0."""
    objective: float | None
    """Recomputed TCR; null where the decision is not feasible."""
    bound: float | None
    """As claimed."""
    T: float | None
    """System delay, s; null where it is not finite."""
    E: float | None
    """Energy, J."""
    trust: float | None
    slack: Mapping[str, Sequence[float | None]]
    """Of each constraint in its own unit: C3, C4, C6, C8, C10, C11 and `positive` by user; C5, C7, C9 by server."""
    problems: Sequence[str]
    """One sentence for each broken constraint and each wrong claim."""


def build(instance: Instance, solver: str, seed: int, found: Found, wall_s: float, cpu_s: float) -> Solution:
    """The solution that a decision is: audited, valued, timed."""
    chosen: Decision = found.plan
    audit = instance.model.audit(chosen)
    terms = audit.terms
    objective = terms.tcr if audit.feasible else None
    info: dict[str, object] = {
        "status": found.status, "T": _finite(terms.T), "E": _finite(terms.E), "trust": _finite(terms.trust), **found.info,
    }  # fmt: skip
    bound = found.bound
    if bound is not None and objective is not None and bound < objective:
        if bound < objective * (1.0 - _CLAIM):  # disproved by its own decision: a user policy's mistake
            info["bound_dropped"], bound = bound, None
        else:
            bound = objective
    return Solution(
        problem="tcr", version=1, solver=solver, seed=seed, wall_s=wall_s, cpu_s=cpu_s, objective=objective,
        bound=bound, assoc=chosen.assoc.tolist(), info=info,
        **{name: getattr(chosen, name).tolist() for name in _AMOUNTS},
    )  # fmt: skip


def decision(source: object, instance: Instance) -> Decision:
    """A `Decision` of what has its fields as attributes or keys. Raises Refused naming the field."""
    amounts: dict[str, NDArray[np.float64]] = {}
    assoc = np.empty(0, dtype=np.int64)
    for field in fields(Decision):
        value = source.get(field.name) if isinstance(source, Mapping) else getattr(source, field.name, None)
        try:
            array = np.asarray(value)
        except (ValueError, OverflowError):  # ragged nesting; an integer of hundreds of digits
            array = np.empty((0, 0))
        kinds = "iu" if field.name == "assoc" else "iuf"
        if array.shape != (instance.N,) or array.dtype.kind not in kinds:
            kind = "integers" if field.name == "assoc" else "numbers"
            raise Refused(f"{field.name} must be {instance.N} {kind}", field=field.name)
        if not np.isfinite(array).all():
            at = int(np.argmin(np.isfinite(array)))
            raise Refused(f"{field.name}[{at}] is not a finite number", field=f"{field.name}[{at}]")
        if field.name == "assoc":
            assoc = indices("assoc", array.tolist(), instance.N, 0, instance.M - 1)
        else:
            amounts[field.name] = array.astype(np.float64)
    return Decision(assoc=assoc, **amounts)


def load(data: bytes, instance: Instance) -> Solution:
    """The solution in a file's bytes, or Refused: unknown or missing field, wrong shape, index out of range."""
    solution = read_json(data, Solution, "tcr solution")
    decision(solution, instance)
    for name in ("objective", "bound"):
        value = getattr(solution, name)
        if value is not None and not math.isfinite(value):
            raise Refused(f"{name} is not a finite number", field=name)
    return solution


def dump(solution: Solution) -> bytes:
    return write_json(solution)


def score(instance: Instance, solution: Solution) -> Score:
    """Audit the decision and check every claim of the solution."""
    model = instance.model
    audit = model.audit(decision(solution, instance))
    terms = audit.terms
    objective = terms.tcr if audit.feasible else None
    problems = list(audit.violations)
    if (solution.objective is None) != (objective is None) or (
        objective is not None
        and solution.objective is not None
        and not math.isclose(solution.objective, objective, rel_tol=_CLAIM)
    ):
        problems.append(f"objective is claimed {_shown(solution.objective)}, but is {_shown(objective)}")
    if solution.bound is not None:  # disproved by the decision's own value, or by the simplest one
        reached = max(model.terms(model.even(model.spread())).tcr, 0.0 if objective is None else objective)
        if solution.bound < reached * (1.0 - _CLAIM):
            problems.append(f"bound is claimed {_shown(solution.bound)}, but a decision reaches {_shown(reached)}")
    return Score(
        problem="tcr", solver=solution.solver, feasible=audit.feasible, holds=not problems, objective=objective,
        bound=solution.bound, T=_finite(terms.T), E=_finite(terms.E), trust=_finite(terms.trust),
        slack={name: [_finite(x) for x in slack.tolist()] for name, slack in audit.slack.items()}, problems=problems,
    )  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown(value: float | None) -> str:
    return "null" if value is None else f"{value:.12g}"
