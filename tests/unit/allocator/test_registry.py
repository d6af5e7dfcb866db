"""Names to code: built-in solvers, users' policies, refusals."""

import math
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgora.allocator import registry, solve
from edgora.allocator.mta import Instance, Solution, draw
from edgora.wire.errors import NotFound, Refused


class Best:
    """A user's policy: the offline greedy, by its own loop over the table."""

    def __init__(self) -> None:
        self.budgets: list[float] = []

    def propose(self, instance: Instance, budget_s: float) -> object:
        self.budgets.append(budget_s)
        table = instance.table
        return {"plan": table.fill(table.rejected()).tolist(), "bound": table.priced_bound(np.zeros(table.n))}


class Answers:
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def propose(self, instance: Instance, budget_s: float) -> object:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module: Any = ModuleType("my_policies")
    module.Best, module.best, module.number = Best, Best(), 3
    module.nested = module
    monkeypatch.setitem(sys.modules, "my_policies", module)
    return module


@pytest.mark.parametrize("name", ["my_policies:Best", "my_policies:best", "my_policies:nested.Best"])
def test_a_users_policy_by_name(user: ModuleType, name: str) -> None:
    instance = draw(3)
    found = solve("mta", name, instance, seed=6, time_limit_s=2.0)
    assert isinstance(found, Solution)
    assert found.solver == name
    assert found.seed == 6
    assert found.objective == solve("mta", "greedy-global", instance).objective
    assert found.bound is not None
    assert found.gap == pytest.approx(1 - found.objective / found.bound)


def test_a_users_policy_as_an_object() -> None:
    policy = Best()
    assert solve("mta", policy, draw(3), time_limit_s=2.0).objective is not None
    solve("mta", policy, draw(3))
    assert policy.budgets[0] == pytest.approx(2.0, abs=0.5)
    assert math.isfinite(policy.budgets[1])


def test_a_solution_may_be_a_plan_alone_or_another_solution() -> None:
    instance = draw(1, {"n": 3, "m": 6})
    other = solve("mta", "exact", instance)
    for answer in (list(other.plan), np.array(other.plan), other, {"plan": other.plan}):
        assert solve("mta", Answers(answer), instance).objective == other.objective


@pytest.mark.parametrize(
    "answer",
    [
        None, 3, "plan", {}, {"plan": [0]}, [0] * 5, [0.0] * 6, [[0] * 6], [[0], [0, 1], 0, 0, 0, 0], [True] * 6,
        {"plan": [0] * 6, "bound": "x"}, {"plan": [0] * 6, "bound": math.nan}, ValueError("mine"), SystemError(),
    ],
    ids=repr,
)  # fmt: skip
def test_a_policy_that_answers_nonsense_is_named(answer: object) -> None:
    with pytest.raises(registry.PolicyError, match="Answers"):
        solve("mta", Answers(answer), draw(1, {"n": 3, "m": 6}))


def test_a_plan_out_of_range_is_refused() -> None:
    with pytest.raises(Refused, match=r"plan\[0\] is 7"):
        solve("mta", Answers([7] * 6), draw(1, {"n": 3, "m": 6}))


def test_ctrl_c_is_a_result_only_for_a_caller_who_stops_searches() -> None:
    """A sweep that is interrupted ends, and takes no plan that was cut off for a figure."""
    with pytest.raises(KeyboardInterrupt):
        solve("mta", Answers(KeyboardInterrupt()), draw(1))
    found = solve("mta", Answers(KeyboardInterrupt()), draw(1), stopped=lambda: False)
    assert set(found.plan) == {-1}
    assert found.info is not None
    assert found.info["status"] == "interrupted"


def test_names_that_lead_nowhere(user: ModuleType) -> None:
    instance = draw(1)
    for name in ("nothing", "no_such_module:x", "my_policies:missing"):
        with pytest.raises(NotFound, match=name.partition(":")[0]):
            solve("mta", name, instance)
    with pytest.raises(Refused, match="no method propose"):
        solve("mta", "my_policies:number", instance)
    with pytest.raises(NotFound, match="mta"):
        solve("knapsack", "greedy", instance)


def test_settings_are_the_solvers_own(user: ModuleType) -> None:
    for name in ("greedy", "exact", "my_policies:Best"):
        with pytest.raises(Refused) as refusal:
            solve("mta", name, draw(1), settings={"rounds": 3})
        assert refusal.value.field == "rounds"


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_have_a_range(seed: int) -> None:
    with pytest.raises(Refused, match="seed"):
        solve("mta", "greedy", draw(1), seed=seed)


def test_an_instance_must_be_one() -> None:
    for name in ("greedy", "greedy-naive"):
        with pytest.raises(Refused):
            solve("mta", name, {"n": 3})


def test_a_missing_library_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("edgora.allocator.mta")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(Refused, match="needs the library numpy"):
        registry.problem("mta")
