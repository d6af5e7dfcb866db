"""Solutions of DPE: built from a decision, read strictly, scored against their instance (dpe.md 12).

What a solution claims is computed here from the audited decision, never taken from its solver. Scoring recomputes
everything and compares, so a file that was edited, or written by another program, is caught.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np

from edgora.allocator.dpe.instance import Instance, Seed
from edgora.allocator.dpe.model import Decision
from edgora.allocator.dpe.priced import Priced
from edgora.allocator.files import indices, read_json, write_json
from edgora.allocator.search import Found, Search
from edgora.wire.errors import Refused

__all__ = ["ARRAYS", "Score", "Solution", "build", "decision", "dump", "load", "score"]

Seconds = Annotated[float, msgspec.Meta(ge=0)]

ARRAYS = ("phi", "gamma", "b", "p", "fu", "fs")
"""The decided quantities beside `assoc`, one number a user."""

_CLAIM = 1e-6
"""Relative tolerance between a claimed and the recomputed number."""
_PROOF = 1e-9
"""Relative tolerance of a bound against a value: rounding."""


class Solution(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The JSON document; its fields in the order of dpe.md 12."""

    problem: Literal["dpe"]
    version: Literal[1]
    solver: str
    seed: Seed
    """The solver's seed."""
    objective: float | None
    """DPE; null where the decision breaks a constraint."""
    bound: float | None
    """Proven upper bound on the DPE of every decision, or null."""
    wall_s: Seconds
    cpu_s: Seconds
    assoc: Sequence[int]
    phi: Sequence[float]
    gamma: Sequence[float]
    b: Sequence[float]
    p: Sequence[float]
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
    """Recomputed DPE; null where the decision is not feasible."""
    user_part: float | None
    server_part: float | None
    bound: float | None
    """As claimed."""
    server_gap: float | None
    """(bound - DPE) / (bound - user part at the best clocks); null where objective or bound is null."""
    slack: Mapping[str, Sequence[float | None]]
    """By constraint C3-C10; per user, but C6 and C8 per server. C1 and C2 hold by the form of `assoc`."""
    problems: Sequence[str]
    """One sentence for each broken constraint and each wrong claim."""


def build(instance: Instance, solver: str, seed: int, found: Found, wall_s: float, cpu_s: float) -> Solution:
    """The solution that a decision is: audited, valued, timed. Raises Refused if it has no valid shape."""
    plan = checked(found.plan, instance, f"solver {solver}: ")
    model = instance.model
    objective = model.dpe(plan) if model.audit(plan).feasible else None
    bound, info = found.bound, {"status": found.status, **found.info}
    if bound is not None and objective is not None and bound < objective:
        if bound < objective - _PROOF * abs(objective):  # disproved by its own decision: a user policy's mistake
            info["bound_dropped"], bound = bound, None
        else:
            bound = objective
    return Solution(
        problem="dpe",
        version=1,
        solver=solver,
        seed=seed,
        objective=objective,
        bound=bound,
        wall_s=wall_s,
        cpu_s=cpu_s,
        assoc=plan.assoc.tolist(),
        **{name: getattr(plan, name).tolist() for name in ARRAYS},
        info=info,
    )


def checked(plan: object, instance: Instance, whose: str = "") -> Decision:
    """The decision, if it has the instance's shape, servers that exist and finite numbers. Raises Refused."""
    taken: dict[str, np.ndarray] = {}
    for name in ("assoc", *ARRAYS):
        if not hasattr(plan, name):
            raise Refused(f"{whose}must decide {name}, decided a {type(plan).__name__} without it", field=name)
        try:
            values = np.asarray(getattr(plan, name))
        except ValueError:  # ragged nesting
            values = np.empty(0, dtype=object)
        kinds = "iu" if name == "assoc" else "iuf"
        if values.shape != (instance.N,) or values.dtype.kind not in kinds:
            raise Refused(
                f"{whose}{name} must be {instance.N} {'integers' if kinds == 'iu' else 'numbers'}", field=name
            )
        taken[name] = values.astype(np.int64 if name == "assoc" else np.float64)
        low, high = (0, instance.M - 1) if name == "assoc" else (-np.inf, np.inf)
        bad = ~(np.isfinite(taken[name]) & (taken[name] >= low) & (taken[name] <= high))
        if bad.any():
            at = int(np.argmax(bad))
            expected = f"within 0..{instance.M - 1}" if name == "assoc" else "finite"
            raise Refused(
                f"{whose}{name}[{at}] is {taken[name][at].item()!r}: must be {expected}", field=f"{name}[{at}]"
            )
    return Decision(**taken)


def decision(solution: Solution) -> Decision:
    """The decision that a solution holds."""
    assoc = np.array(solution.assoc, dtype=np.int64)
    return Decision(assoc, **{name: np.array(getattr(solution, name), dtype=np.float64) for name in ARRAYS})


def load(data: bytes, instance: Instance) -> Solution:
    """The solution in a file's bytes, or Refused: unknown or missing field, wrong shape, index out of range."""
    solution = read_json(data, Solution, "dpe solution")
    indices("assoc", solution.assoc, instance.N, 0, instance.M - 1)
    for name in ARRAYS:
        values = getattr(solution, name)
        if len(values) != instance.N:
            raise Refused(f"{name} has {len(values)} entries: must have {instance.N}", field=name)
        for n, value in enumerate(values):
            if not abs(value) <= 1e300:
                raise Refused(f"{name}[{n}] is {value!r}: must be finite", field=f"{name}[{n}]")
    for name in ("objective", "bound"):
        value = getattr(solution, name)
        if value is not None and not abs(value) <= 1e300:
            raise Refused(f"{name} is {value!r}: must be finite", field=name)
    return solution


def dump(solution: Solution) -> bytes:
    return write_json(solution)


def score(instance: Instance, solution: Solution) -> Score:
    """Audit the decision and check every claim of the solution."""
    model, plan = instance.model, decision(solution)
    audit, terms = model.audit(plan), model.terms(plan)
    objective = terms.dpe if audit.feasible else None
    problems = list(audit.violations)
    claimed = solution.objective
    if claimed is None or objective is None:
        if claimed is not objective:
            problems.append(f"objective is claimed {_shown(claimed)}, but is {_shown(objective)}")
    elif abs(claimed - objective) > _CLAIM * max(abs(claimed), abs(objective)):
        problems.append(f"objective is claimed {_shown(claimed)}, but is {_shown(objective)}")
    bound, gap = solution.bound, None
    if bound is not None:
        known = _known(instance)
        reached = known if objective is None else max(known, objective)
        if bound < reached - _PROOF * abs(reached):
            problems.append(f"bound is claimed {_shown(bound)}, but a decision is worth {_shown(reached)}")
        if objective is not None:
            room = bound - model.user_part
            gap = (bound - objective) / room if room > 0.0 else 0.0
    return Score(
        problem="dpe",
        solver=solution.solver,
        feasible=audit.feasible,
        holds=not problems,
        objective=objective,
        user_part=terms.user_part if audit.feasible else None,
        server_part=terms.server_part if audit.feasible else None,
        bound=bound,
        server_gap=gap,
        slack={name: [x if math.isfinite(x) else None for x in slack.tolist()] for name, slack in audit.slack.items()},
        problems=problems,
    )


def _known(instance: Instance) -> float:
    """The worth of a good decision that is quickly had: it disproves a bound that is too low."""
    model = instance.model
    found = Priced(proof=False).solve(model, Search(deadline=time.monotonic() + 1.0))
    return model.dpe(found.plan)


def _shown(number: float | None) -> str:
    return "null" if number is None else f"{number:.12g}"
