"""Solutions of BaaS: built from a plan, read strictly, scored against their instance (baas.md 12).

What a solution claims is what the environment computes from its plan, never what a solver says. Scoring plays the plan
again and compares, so a file that was edited, or written by another program, is caught. `assign` is as executed: a UE
that several servers named has stayed with the first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgora.allocator.baas.instance import Instance, Seed
from edgora.allocator.baas.model import IDLE, Choice, Floats, Ints, Outcome, caps, settle
from edgora.allocator.baas.params import P_MAX, P_MIN
from edgora.allocator.files import read_json, write_json
from edgora.allocator.search import Found
from edgora.wire.errors import Refused

__all__ = ["Plan", "Score", "Solution", "build", "dump", "load", "plan", "play", "score"]

Seconds = Annotated[float, msgspec.Meta(ge=0)]

_CLAIM = 1e-6
"""Tolerance between a claimed and the recomputed number, relative, and absolute below 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is decided in every slot."""

    assign: Ints
    """UE of each server, or -1 (T,M)."""
    request: Floats
    """MHash/s (T,M)."""


class SlotSolution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One slot of a solution with several."""

    assign: Sequence[int]
    request: Sequence[float]
    hash: Sequence[float]
    reward: float
    revenue: float
    mining: float
    ecl: float


class Solution(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The JSON document."""

    problem: Literal["baas"]
    version: Literal[1]
    solver: str
    seed: Seed
    """The solver's seed."""
    wall_s: Seconds
    cpu_s: Seconds
    objective: float | None
    """Reward of the slot, or mean reward over the slots, token."""
    bound: float | None
    """Proven upper bound of the objective, or null."""
    assign: Sequence[int] | None = None
    request: Sequence[float] | None = None
    hash: Sequence[float] | None = None
    reward: float | None = None
    revenue: float | None = None
    mining: float | None = None
    ecl: float | None = None
    slots: Sequence[SlotSolution] | None = None
    info: Mapping[str, object] | None = None


class Score(msgspec.Struct, frozen=True):
    """What `edgora score` says about a solution."""

    problem: str
    solver: str
    feasible: bool
    holds: bool
    """Feasible, and every claimed number is right: exit code 0."""
    objective: float | None
    """Recomputed; null where the plan breaks a constraint."""
    bound: float | None
    """As claimed."""
    revenue: float
    """Mean over slots, as are the next four."""
    mining: float
    ecl: float
    served: float
    mean_Y: float  # noqa: N815  # the spec's symbol
    slack: Mapping[str, Sequence[float | None]]
    """`once`: 0 where a server's UE is its own, -1 where an earlier server has it; `request`: MHash/s to the nearer end
    of 20..100; `cap`: MHash/s below the cap; `chain`: H less what is granted. By slot, then by server."""
    problems: Sequence[str]
    """One sentence for everything that does not hold."""


def play(instance: Instance, plan: Plan) -> list[Outcome]:
    """What comes of a plan, slot after slot."""
    A, B = instance.A, instance.B
    outcomes = []
    for t in range(instance.T):
        outcome = settle(instance.slot(t, A, B), Choice(plan.assign[t : t + 1], plan.request[t : t + 1]))
        outcomes.append(outcome)
        A, B = outcome.A[0], outcome.B[0]
    return outcomes


def plan(source: object, instance: Instance) -> Plan:
    """The plan in an object or mapping with `assign` and `request`: (M,) for one slot, (T,M) for several. Raises Refused."""
    T, M = instance.T, instance.params.M

    def read(name: str, kinds: str, what: str) -> NDArray[np.generic]:
        value = source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
        try:
            array = np.asarray(value)
        except (ValueError, OverflowError):  # ragged nesting; an integer of hundreds of digits
            array = np.empty((0, 0, 0))
        if array.shape not in {(T, M), *([(M,)] if T == 1 else [])} or array.dtype.kind not in kinds:
            shape = f"{M}" if T == 1 else f"{T} times {M}"
            raise Refused(f"{name} must be {shape} {what}", field=name)
        return array.reshape(T, M)

    assign = read("assign", "iu", "integers").astype(np.int64)
    request = read("request", "iuf", "numbers").astype(np.float64)
    _refuse_first(
        "assign", assign, (assign < IDLE) | (assign >= instance.params.U), f"within -1..{instance.params.U - 1}"
    )
    _refuse_first("request", request, ~np.isfinite(request), "a finite number")
    return Plan(assign, request)


def build(instance: Instance, solver: str, seed: int, found: Found, wall_s: float, cpu_s: float) -> Solution:
    """Play a plan and write down what it is worth."""
    outcomes = play(instance, found.plan)
    rows = [
        SlotSolution(
            assign=outcome.assign[0].tolist(), request=request.tolist(), hash=outcome.hash[0].tolist(),
            reward=float(outcome.reward[0]), revenue=float(outcome.revenue[0]), mining=float(outcome.mining[0]),
            ecl=float(outcome.ecl[0]),
        )
        for outcome, request in zip(outcomes, found.plan.request, strict=True)
    ]  # fmt: skip
    allowed = bool(((found.plan.request >= P_MIN) & (found.plan.request <= P_MAX)).all())
    common = {
        "problem": "baas", "version": 1, "solver": solver, "seed": seed, "wall_s": wall_s, "cpu_s": cpu_s,
        "objective": float(np.mean([row.reward for row in rows])) if allowed else None, "bound": found.bound,
        "info": {"status": found.status, **found.info},
    }  # fmt: skip
    if instance.listed:
        return Solution(**common, slots=rows)  # type: ignore[arg-type]  # fields by name
    return Solution(**common, **msgspec.structs.asdict(rows[0]))  # type: ignore[arg-type]  # fields by name


def load(data: bytes, instance: Instance) -> Solution:
    """The solution in a file's bytes, or Refused: unknown or missing field, wrong shape, value out of range."""
    solution = read_json(data, Solution, "baas solution")
    own = {name: getattr(solution, name) for name in SlotSolution.__struct_fields__}
    if instance.listed:
        if solution.slots is None:
            raise Refused("baas solution: slots is missing, the instance lists slots", field="slots")
        if len(solution.slots) != instance.T:
            raise Refused(f"slots has {len(solution.slots)} entries: must have {instance.T}", field="slots")
    elif solution.slots is not None:
        raise Refused("baas solution: slots is given, the instance is one slot", field="slots")
    for name, value in own.items():
        if (value is None) != instance.listed:
            what = "stands beside slots" if instance.listed else "is missing"
            raise Refused(f"baas solution: {name} {what}", field=name)
    _plan_of(solution, instance)
    for name in ("objective", "bound"):
        value = getattr(solution, name)
        if value is not None and not math.isfinite(value):
            raise Refused(f"{name} is not a finite number", field=name)
    return solution


def dump(solution: Solution) -> bytes:
    return write_json(solution)


def score(instance: Instance, solution: Solution) -> Score:
    """Play the plan again and check every constraint and claim."""
    chosen = _plan_of(solution, instance)
    outcomes = play(instance, chosen)
    rows = [solution] if solution.slots is None else solution.slots
    params = instance.params
    executed, rep, granted = (np.concatenate([getattr(o, n) for o in outcomes]) for n in ("assign", "rep", "hash"))
    slack = {
        "once": np.where(executed == chosen.assign, 0.0, -1.0),
        "request": np.minimum(chosen.request - P_MIN, P_MAX - chosen.request),
        "cap": caps(params, rep) - granted,
        "chain": params.H - granted.sum(axis=1),
    }
    tolerance = {"once": 0.0, "request": 1e-9, "cap": 1e-9, "chain": 1e-6 * params.H}
    problems = [
        f"{name}: least slack is {values.min():.6g}"
        for name, values in slack.items()
        if values.min() < -tolerance[name]
    ]
    feasible = not problems
    objective = float(np.mean([outcome.reward[0] for outcome in outcomes]))
    for t, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
        at = f"slots[{t}]." if instance.listed else ""
        for name in ("hash", "reward", "revenue", "mining", "ecl"):
            claimed, value = np.asarray(getattr(row, name), dtype=np.float64), getattr(outcome, name)[0]
            if claimed.shape != np.shape(value) or not np.allclose(claimed, value, rtol=_CLAIM, atol=_CLAIM):
                problems.append(f"{at}{name} is claimed {_shown(claimed)}, but is {_shown(value)}")
    if (solution.objective is None) == feasible or (
        feasible and not math.isclose(solution.objective or 0.0, objective, rel_tol=_CLAIM, abs_tol=_CLAIM)
    ):
        known = f"{objective:.12g}" if feasible else "null"
        problems.append(f"objective is claimed {solution.objective}, but is {known}")
    if solution.bound is not None and feasible and solution.bound < objective - _CLAIM * max(1.0, abs(objective)):
        problems.append(f"bound is claimed {solution.bound:.12g}, but the plan reaches {objective:.12g}")
    means = {
        name: float(np.mean([getattr(o, name)[0] for o in outcomes])) for name in ("revenue", "mining", "ecl", "served")
    }
    return Score(
        problem="baas", solver=solution.solver, feasible=feasible, holds=not problems,
        objective=objective if feasible else None, bound=solution.bound, **means, mean_Y=float(rep.mean()),
        slack={name: values.ravel().tolist() for name, values in slack.items()}, problems=problems,
    )  # fmt: skip


def _plan_of(solution: Solution, instance: Instance) -> Plan:
    if solution.slots is None:
        return plan(solution, instance)
    for t, row in enumerate(solution.slots):
        for name in ("assign", "request", "hash"):
            if len(getattr(row, name)) != instance.params.M:
                detail = f"slots[{t}].{name} has {len(getattr(row, name))} entries: must have {instance.params.M}"
                raise Refused(detail, field=f"slots[{t}].{name}")
    return plan({name: [getattr(row, name) for row in solution.slots] for name in ("assign", "request")}, instance)


def _refuse_first(name: str, array: NDArray[np.generic], bad: NDArray[np.bool_], expected: str) -> None:
    if bad.any():
        t, m = np.unravel_index(int(np.argmax(bad)), array.shape)
        place = f"slots[{t}].{name}[{m}]" if len(array) > 1 else f"{name}[{m}]"
        raise Refused(f"{place} is {array[t, m].item()!r}: must be {expected}", field=place)


def _shown(value: object) -> str:
    text = np.array2string(np.asarray(value), precision=9, threshold=4)
    return text if len(text) <= 80 else f"{text[:77]}..."
