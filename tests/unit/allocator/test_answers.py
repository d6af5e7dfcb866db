"""What a user's policy may answer, the same for every problem."""

from types import SimpleNamespace
from typing import Any

import pytest

from edgora.allocator import registry
from edgora.allocator.solvers import answered
from edgora.wire.errors import NotFound, Refused


@pytest.mark.parametrize(
    ("answer", "plan", "bound"),
    [
        ([1, 2], [1, 2], None),
        ({"plan": [1], "bound": 3}, [1], 3.0),
        ({"assoc": [0]}, {"assoc": [0]}, None),
        (SimpleNamespace(plan=[1], bound=2.5), [1], 2.5),
        (SimpleNamespace(plan=[1]), [1], None),
    ],
)
def test_a_plan_comes_bare_or_beside_its_bound(answer: Any, plan: Any, bound: float | None) -> None:
    assert answered(answer) == (plan, bound)


@pytest.mark.parametrize("bound", [True, "7", float("nan"), float("inf"), [1.0]])
@pytest.mark.parametrize("problem", ["mta", "tcr", "dpe", "baas"])
def test_a_bound_that_is_no_finite_number_is_refused_in_every_room(problem: str, bound: object) -> None:
    room = registry.problem(problem)
    instance = room.draw(0, {"mta": {"n": 2, "m": 3}, "baas": {"U": 3, "M": 2}}.get(problem, {"N": 2, "M": 1}))
    with pytest.raises(Refused) as refusal:
        room.foreign({"plan": room.nothing(instance).plan, "bound": bound}, instance)
    assert refusal.value.field == "bound"


@pytest.mark.parametrize("problem", registry.PROBLEMS)
def test_an_unknown_solver_is_refused_with_the_known_ones(problem: str) -> None:
    room = registry.problem(problem)
    with pytest.raises(NotFound) as refusal:
        room.solver("best", {})
    assert all(name in refusal.value.detail for name in room.solvers)
