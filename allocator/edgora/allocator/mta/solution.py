"""Solutions of MTA: built from a plan, read strictly, scored against their instance (mta.md 14).

What a solution claims is computed here from the audited plan, never taken from its solver. A plan that breaks C1 or
C2 has objective null; `settlement` then values its admissible part, and `server_utility` divides that part up.
Scoring recomputes everything and compares, so a file that was edited, or written by another program, is caught.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np

from edgora.allocator.files import indices, read_json, write_json
from edgora.allocator.mta.instance import Instance, Seed
from edgora.allocator.mta.table import REJECTED
from edgora.allocator.search import Found
from edgora.wire.errors import Refused

__all__ = ["Score", "Solution", "build", "dump", "load", "score"]

Seconds = Annotated[float, msgspec.Meta(ge=0)]

_CLAIM = 1e-9
"""Relative tolerance between a claimed and the recomputed number."""


class Solution(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The JSON document; its fields in the order of mta.md 14."""

    problem: Literal["mta"]
    version: Literal[1]
    solver: str
    seed: Seed
    """The solver's seed."""
    plan: Sequence[int]
    """Executing server of each task, -1 if rejected."""
    objective: float | None
    """Settled utility; null where the plan breaks C1 or C2."""
    bound: float | None
    """Proven upper bound on the settled utility of every plan, or null."""
    proven: bool
    """Whether the plan is proven optimal."""
    gap: float | None
    """(bound - objective) / bound; 0 where bound is 0, null where bound or objective is null."""
    reward_sum: float
    server_utility: Sequence[float]
    wall_s: Seconds
    cpu_s: Seconds
    info: Mapping[str, object] | None = None
    settlement: float | None = None
    """Present exactly where objective is null: value of the admissible part."""


class Score(msgspec.Struct, frozen=True):
    """What `edgora score` says about a solution."""

    problem: str
    solver: str
    feasible: bool
    holds: bool
    """Feasible, and every claimed number is right: exit code 0."""
    objective: float | None
    """Recomputed settled utility; null where the plan is not feasible."""
    settlement: float
    """Value of the admissible part; equals objective where the plan is feasible."""
    literal: float | None
    bound: float | None
    """As claimed."""
    gap: float | None
    reward_sum: float
    server_utility: Sequence[float]
    slack: Mapping[str, Sequence[float | None]]
    """`capacity`: cycles left on each server (C1); `deadline`: time left of each task, null if rejected (C2);
    `assignment`: servers each task could still be given to (C3, 0 or 1)."""
    problems: Sequence[str]
    """One sentence for each broken constraint and each wrong claim."""


def build(instance: Instance, solver: str, seed: int, found: Found, wall_s: float, cpu_s: float) -> Solution:
    """The solution that a plan is: audited, valued, timed. Raises Refused if the plan has no valid shape."""
    model = instance.model
    audit = model.audit(found.plan)
    if not len(audit.capacity_slack):
        raise Refused(f"solver {solver}: {audit.violations[0]}", field="plan")
    settled = model.settle(found.plan)
    objective = model.settled_utility(found.plan) if audit.feasible else None
    bound, info = found.bound, {"status": found.status, **found.info}
    if bound is not None and objective is not None and bound < objective:
        if bound < objective - _CLAIM * abs(objective):  # disproved by its own plan: a user policy's mistake
            info["bound_dropped"], bound = bound, None
        else:
            bound = objective
    return Solution(
        problem="mta",
        version=1,
        solver=solver,
        seed=seed,
        plan=found.plan.tolist(),
        objective=objective,
        bound=bound,
        proven=objective is not None and bound is not None and bound - objective <= _CLAIM * abs(bound),
        gap=_gap(objective, bound),
        reward_sum=model.reward_sum(found.plan),
        server_utility=model.server_utility(settled).tolist(),
        wall_s=wall_s,
        cpu_s=cpu_s,
        info=info,
        settlement=None if audit.feasible else model.settled_utility(settled),
    )


def load(data: bytes, instance: Instance) -> Solution:
    """The solution in a file's bytes, or Refused: unknown or missing field, wrong shape, index out of range."""
    solution = read_json(data, Solution, "mta solution")
    indices("plan", solution.plan, instance.m, REJECTED, instance.n - 1)
    if len(solution.server_utility) != instance.n:
        detail = f"server_utility has {len(solution.server_utility)} entries: must have {instance.n}"
        raise Refused(detail, field="server_utility")
    return solution


def dump(solution: Solution) -> bytes:
    return write_json(solution)


def score(instance: Instance, solution: Solution) -> Score:
    """Audit the plan and check every claim of the solution."""
    model = instance.model
    plan = np.array(solution.plan, dtype=np.int64)
    audit = model.audit(plan)
    settled = model.settle(plan)
    objective = model.settled_utility(plan) if audit.feasible else None
    settlement = model.settled_utility(settled)
    utility = model.server_utility(settled)
    reward_sum = model.reward_sum(plan)

    problems = list(audit.violations)
    problems += _claim("objective", solution.objective, objective)
    problems += _claim("settlement", solution.settlement, None if audit.feasible else settlement)
    problems += _claim("reward_sum", solution.reward_sum, reward_sum)
    for i, (claimed, true) in enumerate(zip(solution.server_utility, utility.tolist(), strict=True)):
        problems += _claim(f"server_utility[{i}]", claimed, true, scale=abs(settlement))
    problems += _claim("gap", solution.gap, _gap(objective, solution.bound))
    problems += _bound(instance, solution, objective)
    return Score(
        problem="mta",
        solver=solution.solver,
        feasible=audit.feasible,
        holds=not problems,
        objective=objective,
        settlement=settlement,
        literal=model.literal_utility(plan) if audit.feasible else None,
        bound=solution.bound,
        gap=_gap(objective, solution.bound),
        reward_sum=reward_sum,
        server_utility=utility.tolist(),
        slack={
            "capacity": audit.capacity_slack.tolist(),
            "deadline": [None if math.isnan(x) else x for x in audit.deadline_slack.tolist()],
            "assignment": (plan == REJECTED).astype(int).tolist(),
        },
        problems=problems,
    )


def _gap(objective: float | None, bound: float | None) -> float | None:
    if objective is None or bound is None:
        return None
    return (bound - objective) / bound if bound else 0.0


def _claim(name: str, claimed: float | None, true: float | None, scale: float = 0.0) -> list[str]:
    if claimed is None or true is None:
        return [] if claimed is true else [f"{name} is claimed {_shown(claimed)}, but is {_shown(true)}"]
    near = abs(claimed - true) <= _CLAIM * max(abs(claimed), abs(true), scale, 1.0 if name == "gap" else 0.0)
    return [] if near else [f"{name} is claimed {_shown(claimed)}, but is {_shown(true)}"]


def _bound(instance: Instance, solution: Solution, objective: float | None) -> list[str]:
    """A bound is disproved by any better plan: the solution's own, or the offline greedy's."""
    bound = solution.bound
    if bound is None:
        return ["proven is claimed without a bound"] if solution.proven else []
    table = instance.table
    reached = max(table.worth(table.fill(table.rejected())), objective if objective is not None else 0.0)
    if bound < reached - _CLAIM * abs(reached):
        return [f"bound is claimed {_shown(bound)}, but a plan is worth {_shown(reached)}"]
    if solution.proven and (objective is None or bound - objective > _CLAIM * abs(bound)):
        return [f"proven is claimed, but the bound is {_shown(bound)} and the objective {_shown(objective)}"]
    return []


def _shown(number: float | None) -> str:
    return "null" if number is None else f"{number:.12g}"
