"""Solutions of PRIV: built from a policy, read strictly, scored against their instance (privacy.md 11).

What a solution claims is computed here from the policy, never taken from its solver: exactly for one miner with one
stream, else by playing it on the draws of the instance's seed. Scoring does the same again. The policy it needs for
that is in the file: a table of decisions for one miner with one stream, else the weights of a learned policy under
`info.weights`; rules and plans are made again from the solver's name.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np

from edgora.allocator.files import read_json, write_json
from edgora.allocator.privacy import evaluation
from edgora.allocator.privacy.evaluation import decisions, exactly, is_exact, play, verify_trace
from edgora.allocator.privacy.exact import Averages, best_average
from edgora.allocator.privacy.instance import Instance, Seed
from edgora.allocator.privacy.model import Floats
from edgora.allocator.privacy.policies import Plan, Policy
from edgora.allocator.privacy.trained import packed, unpacked
from edgora.allocator.search import Found
from edgora.wire.errors import Refused

__all__ = ["Score", "Solution", "build", "copies_of", "dump", "load", "score"]

Seconds = Annotated[float, msgspec.Meta(ge=0)]

_CLAIM = 1e-6
"""Tolerance between a claimed and the recomputed number, relative to the greater of 1 and the number."""

_TRACE = 1e-6
"""Tolerance of a trace's numbers (privacy.md 3)."""

SCORED_STREAMS = 2
"""Most streams of a miner for which lookahead, and so a score, exists."""


class Solution(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The JSON document."""

    problem: Literal["privacy"]
    version: Literal[1]
    solver: str
    seed: Seed
    """The solver's seed."""
    wall_s: Seconds
    cpu_s: Seconds
    objective: float | None
    """The average reward of a slot, per miner."""
    bound: float | None
    """The best that a miner alone could have on average, or null where that cannot be computed."""
    reward: float
    privacy: float
    cost: float
    energy_mj: float
    """Sum over a miner's streams."""
    latency_ms: float
    """Mean over streams."""
    score: float | None
    """0 for random, 1 for the best average, or for many miners lookahead (privacy.md 8)."""
    policy: Sequence[Sequence[Sequence[Sequence[float]]]] | None = None
    """One miner with one stream: chances to offload by D1, D0, g, level; 0 and 1 are decisions."""
    trace: str | None = None
    info: Mapping[str, object] | None = None


class Score(msgspec.Struct, frozen=True):
    """What `edgora score` says about a solution."""

    problem: str
    solver: str
    feasible: bool
    holds: bool
    """Every claimed number is right: exit code 0."""
    objective: float | None
    """Recomputed average reward; null where the solution holds nothing to recompute it from."""
    bound: float | None
    """As claimed."""
    score: float | None
    slack: Mapping[str, Sequence[float | None]]
    """Seconds between the deadline and the longest delay there can be: a policy has no other constraint."""
    problems: Sequence[str]


def copies_of(instance: Instance) -> int:
    """Systems side by side in an evaluation: at least 10^5 miner-slots in all, and no more than it takes for many."""
    return max(4, min(evaluation.COPIES, evaluation.COPIES * 10 // instance.N))


def build(instance: Instance, solver: str, seed: int, found: Found, wall_s: float, cpu_s: float) -> Solution:
    """Evaluate a plan."""
    plan = found.plan
    if not isinstance(plan, Plan):
        raise Refused(f"a solution of privacy is made from a Plan, not from a {type(plan).__name__}")
    info = dict(found.info)
    table = None
    if is_exact(instance):
        table = decisions(plan.policy, instance)
    elif plan.arrays is not None:
        info["weights"] = packed(plan.arrays, plan.header)
    averages, told, worth = _evaluate(instance, plan.policy, table)
    info = {"status": found.status, "evaluation": told, **info}
    trace = info.pop("trace", None)
    return Solution(
        problem="privacy", version=1, solver=solver, seed=seed, wall_s=wall_s, cpu_s=cpu_s,
        objective=averages.reward, bound=_bound(instance), reward=averages.reward, privacy=averages.privacy,
        cost=averages.cost, energy_mj=1e3 * averages.energy, latency_ms=1e3 * averages.latency, score=worth,
        policy=None if table is None else table.tolist(), trace=None if trace is None else str(trace), info=info,
    )  # fmt: skip


def dump(solution: Solution) -> bytes:
    """The solution as a file's bytes."""
    return write_json(solution)


def load(data: bytes, instance: Instance) -> Solution:
    """The solution in a file's bytes, or Refused."""
    solution = read_json(data, Solution, "privacy solution")
    if is_exact(instance):
        if solution.policy is None:
            raise Refused("policy is missing: one miner with one stream has a table", field="policy")
        _table(solution.policy, instance)
    elif solution.policy is not None:
        raise Refused("policy is a table of one miner with one stream: the instance has more", field="policy")
    return solution


def score(instance: Instance, solution: Solution) -> Score:
    """Evaluate the policy again and check every claim of the solution."""
    problems: list[str] = []
    averages = worth = None
    if solution.policy is not None:
        averages, _, worth = _evaluate(instance, None, _table(solution.policy, instance))
    else:
        policy = _again(instance, solution)
        if policy is None:
            problems.append(
                "objective cannot be recomputed: the solution holds neither table nor weights of its policy"
            )
        else:
            averages, _, worth = _evaluate(instance, policy, None)
    if averages is not None:
        for name, value in (
            ("objective", averages.reward), ("reward", averages.reward), ("privacy", averages.privacy),
            ("cost", averages.cost), ("energy_mj", 1e3 * averages.energy), ("latency_ms", 1e3 * averages.latency),
            ("score", worth),
        ):  # fmt: skip
            claimed = getattr(solution, name)
            if not _same(claimed, value):
                problems.append(f"{name} is claimed {_shown(claimed)}, but is {_shown(value)}")
    if solution.bound is not None and not _same(solution.bound, _bound(instance)):
        problems.append(f"bound is claimed {_shown(solution.bound)}, but is {_shown(_bound(instance))}")
    if solution.trace is not None and Path(solution.trace).is_file():
        wrong = verify_trace(Path(solution.trace), instance)
        if wrong > _TRACE:
            problems.append(f"trace differs by up to {wrong:.3g} from the slots it records")
    return Score(
        problem="privacy", solver=solution.solver, feasible=True, holds=not problems,
        objective=None if averages is None else averages.reward, bound=solution.bound, score=worth, slack={},
        problems=problems,
    )  # fmt: skip


def _evaluate(
    instance: Instance, policy: Policy | None, table: Floats | None
) -> tuple[Averages, dict[str, object], float | None]:
    """Averages, how they were come by, and the score."""
    seed = instance.seed or 0
    if table is not None:
        averages = exactly(table, instance)
        told: dict[str, object] = {"method": "exact"}
        floor, best = evaluation.score(instance, seed)
    else:
        assert policy is not None
        copies = copies_of(instance)
        played = play(policy, instance, seed, copies=copies)
        averages = played.averages
        told = {
            "method": "played", "seed": seed, "copies": copies, "slots": evaluation.SLOTS,
            "settling": evaluation.SETTLING, "standard_error": played.error(), "power_w": played.power,
            "late": played.late,
        }  # fmt: skip
        if instance.M > SCORED_STREAMS or not instance.tabular:
            return averages, told, None
        floor, best = evaluation.score(instance, seed, copies=copies)
    return averages, told, (averages.reward - floor) / (best - floor) if best > floor else None


def _bound(instance: Instance) -> float | None:
    try:
        return best_average(instance)
    except Refused:  # no table of one miner alone: off the grid, too many streams, a channel that never changes
        return None


def _again(instance: Instance, solution: Solution) -> Policy | None:
    """The policy of a solution without a table: from its weights, or by its rule's name."""
    from edgora.allocator.privacy.problem import PRIVACY, RULES  # the registry's face is written on top of this module
    from edgora.allocator.search import Search

    weights = (solution.info or {}).get("weights")
    if isinstance(weights, str):
        return unpacked(weights, instance)
    if solution.solver not in RULES:
        return None
    plan = PRIVACY.search(PRIVACY.solver(solution.solver, {}), instance, Search(solution.seed)).plan
    assert isinstance(plan, Plan)
    return plan.policy


def _table(policy: Sequence[Sequence[Sequence[Sequence[float]]]], instance: Instance) -> Floats:
    c = instance.constants
    shape = (c.K, round(c.B / c.grid) + 1, 2, 3)
    try:
        table = np.array(policy, dtype=np.float64)
    except (ValueError, OverflowError):  # rows of unequal length; an integer of hundreds of digits
        table = np.empty(0)
    if table.shape != shape or not ((table >= 0.0) & (table <= 1.0)).all():
        raise Refused(f"policy must be chances within 0..1 of shape {shape}", field="policy")
    return table


def _same(claimed: float | None, value: float | None) -> bool:
    if claimed is None or value is None:
        return claimed is value
    return math.isclose(claimed, value, rel_tol=_CLAIM, abs_tol=_CLAIM)


def _shown(value: float | None) -> str:
    return "null" if value is None else f"{value:.12g}"
