"""Solutions of mta: what is claimed is what is audited, and every wrong claim is found."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from edgora.allocator import solve
from edgora.allocator.mta import Instance, Solution, draw
from edgora.allocator.mta.solution import build, dump, load, score
from edgora.allocator.search import Found
from edgora.wire.errors import Refused

ALWAYS = [
    "problem", "version", "solver", "seed", "plan", "objective", "bound", "proven", "gap", "reward_sum",
    "server_utility", "wall_s", "cpu_s", "info",
]  # fmt: skip


@pytest.fixture(scope="module")
def instance() -> Instance:
    return draw(7, {"n": 5, "m": 14})


@pytest.fixture(scope="module")
def solution(instance: Instance) -> Solution:
    return solve("mta", "exact", instance, seed=4)


def test_a_solution_of_a_proof(instance: Instance, solution: Solution) -> None:
    document = json.loads(dump(solution))
    assert list(document) == ALWAYS
    assert document["problem"] == "mta"
    assert document["seed"] == 4
    assert document["proven"] is True
    assert document["gap"] == 0.0
    assert sum(document["server_utility"]) == pytest.approx(document["objective"])
    assert set(document["info"]["versions"]) == {"edgora", "numpy", "highspy"}
    judged = score(instance, load(dump(solution), instance))
    assert judged.holds
    assert judged.feasible
    assert judged.objective == solution.objective
    assert judged.slack["capacity"] == instance.model.audit(solution.plan).capacity_slack.tolist()
    assert [x is None for x in judged.slack["deadline"]] == [i == -1 for i in solution.plan]
    assert judged.slack["assignment"] == [int(i == -1) for i in solution.plan]


@pytest.mark.parametrize("name", ["random", "greedy", "greedy-global"])
def test_a_solution_without_a_bound(instance: Instance, name: str) -> None:
    found = solve("mta", name, instance)
    assert (found.bound, found.gap, found.proven) == (None, None, False)
    assert score(instance, found).holds


def test_a_plan_that_breaks_a_constraint_has_no_objective(instance: Instance) -> None:
    naive = solve("mta", "greedy-naive", instance)
    document = json.loads(dump(naive))
    assert list(document) == [*ALWAYS, "settlement"]
    assert document["objective"] is None
    assert sum(document["server_utility"]) == pytest.approx(document["settlement"])
    judged = score(instance, naive)
    assert not judged.feasible
    assert not judged.holds
    assert any(sentence.startswith("C1: server") for sentence in judged.problems)
    assert len(judged.problems) == len(instance.model.audit(naive.plan).violations)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"objective": 1e5}, "objective"),
        ({"objective": None}, "objective"),
        ({"bound": 10.0, "gap": 0.0}, "bound"),
        ({"bound": None, "gap": None}, "proven"),
        ({"bound": 1e6, "gap": 0.5}, "gap"),
        ({"gap": None}, "gap"),
        ({"reward_sum": 0.0}, "reward_sum"),
        ({"server_utility": [1.0] * 5}, "server_utility[0]"),
        ({"settlement": 3.0}, "settlement"),
        ({"plan": [0] * 14}, "C1"),
        ({"plan": [-1] * 14}, "objective"),
    ],
    ids=str,
)
def test_a_wrong_claim_is_named(instance: Instance, solution: Solution, change: dict[str, Any], named: str) -> None:
    judged = score(instance, msgspec.structs.replace(solution, **change))
    assert not judged.holds
    assert any(sentence.startswith(named) for sentence in judged.problems)


def test_a_bound_is_disproved_by_greedy(instance: Instance) -> None:
    nothing = build(instance, "mine", 0, Found(instance.table.rejected(), bound=1.0), 0.0, 0.0)
    assert nothing.bound == 1.0
    assert score(instance, nothing).problems[0].startswith("bound is claimed 1, but a plan is worth")


def test_a_bound_below_its_own_plan_is_dropped(instance: Instance) -> None:
    plan = instance.table.fill(instance.table.rejected())
    built = build(instance, "mine", 0, Found(plan, bound=1.0), 0.0, 0.0)
    assert built.bound is None
    assert built.info is not None
    assert built.info["bound_dropped"] == 1.0
    assert score(instance, built).holds


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"plan": [0] * 13}, "plan"),
        ({"plan": [5] + [0] * 13}, "plan[0]"),
        ({"plan": [0, -2] + [0] * 12}, "plan[1]"),
        ({"plan": [0.5] * 14}, "plan[0]"),
        ({"plan": [2**80] * 14}, "plan[0]"),
        ({"server_utility": [0.0]}, "server_utility"),
        ({"proven": 1}, "proven"),
        ({"wall_s": -1}, "wall_s"),
        ({"seed": -1}, "seed"),
        ({"objective": "1"}, "objective"),
        ({"problem": "dpe"}, "problem"),
        ({"version": 0}, "version"),
        ({"settled": 1}, "settled"),
    ],
    ids=str,
)
def test_a_file_is_refused_by_field(instance: Instance, solution: Solution, change: dict[str, Any], field: str) -> None:
    document = {**json.loads(dump(solution)), **change}
    with pytest.raises(Refused) as refusal:
        load(json.dumps(document).encode(), instance)
    assert refusal.value.field == field or (field == "plan[0]" and refusal.value.field == "plan")


@pytest.mark.parametrize("field", [name for name in ALWAYS if name != "info"])
def test_every_field_but_info_is_needed(instance: Instance, solution: Solution, field: str) -> None:
    document = json.loads(dump(solution))
    del document[field]
    with pytest.raises(Refused, match=field):
        load(json.dumps(document).encode(), instance)
    del (whole := json.loads(dump(solution)))["info"]
    assert load(json.dumps(whole).encode(), instance).info is None


def test_a_plan_of_the_wrong_length_is_no_solution(instance: Instance) -> None:
    with pytest.raises(Refused, match="plan has shape"):
        build(instance, "mine", 0, Found(np.zeros(3, dtype=np.int64)), 0.0, 0.0)
