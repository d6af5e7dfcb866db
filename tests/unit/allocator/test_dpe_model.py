"""What a decision is worth and whether it is allowed: the hand example, C1-C10, files and scores (dpe.md 4, 11, 12)."""

import dataclasses
import json
import math

import numpy as np
import pytest

from edgora.allocator import registry, solve
from edgora.allocator.dpe import Decision, draw, made
from edgora.allocator.dpe.solution import Solution
from edgora.allocator.search import Found
from edgora.wire.errors import Refused

ROOM = registry.problem("dpe")

HAND = made(
    [[1.5e-12, 1e-13], [3.1e-12, 2e-13], [1e-13, 1.4e-12]], [4e6, 8e6, 12e6],
    N0=4e-21, t_chain=[4, 5], fu_max=[1e9, 1e9, 2e9], eta_u=250, eta_s=250, eta_b=750, kappa_u=1e-28, kappa_s=1e-28,
)  # fmt: skip
POINT = Decision(
    assoc=np.array([0, 0, 1]), phi=np.array([0.5, 1.0, 0.75]), gamma=np.array([0.5, 0.25, 0.5]),
    b=np.array([5e6, 5e6, 10e6]), p=np.full(3, 0.2), fu=HAND.fu_max, fs=np.full(3, 4e9),
)  # fmt: skip


def test_the_hand_example():
    terms = HAND.model.terms(POINT)
    for name, expected in {
        "rate": (20e6, 25e6, 30e6), "t_ut": (0.1, 0.32, 0.3), "e_ut": (0.02, 0.064, 0.06), "t_up": (0.5, 0, 0.375),
        "e_up": (0.05, 0, 0.3), "t_sp": (0.25, 2, 1.125), "e_sp": (0.2, 0.2, 0.9), "t_sg": (0.75, 2, 3.375),
        "e_sg": (0.6, 5.4, 2.7), "cost_s": (2.96, 6.992, 6.73),
        "server": (0.675675675676, 1.144164759725, 1.337295690936),
        "user": (7.272727272727, 7.272727272727, 8.888888888889),
    }.items():  # fmt: skip
        assert getattr(terms, name) == pytest.approx(expected, rel=1e-12, abs=1e-12), name
    assert (terms.user_part, terms.server_part) == pytest.approx((23.434343434343, 3.157136126337), rel=1e-12)
    assert HAND.model.dpe(POINT) == pytest.approx(26.591479560681, rel=1e-13)
    assert HAND.model.audit(POINT).feasible


def test_the_optimum_of_the_hand_example():
    solution = solve("dpe", "priced", HAND)
    assert solution.objective == pytest.approx(27.601305871730, rel=1e-12)
    assert solution.assoc == [0, 0, 1]
    assert solution.phi == [1.0] * 3
    assert solution.gamma == pytest.approx([0.5] * 3, rel=1e-9)
    assert solution.p == pytest.approx([0.2] * 3)
    assert solution.fs == pytest.approx([3419951893] * 3, rel=1e-9)
    assert solution.b == pytest.approx([4330297.771, 5669702.229, 1e7], rel=1e-9)
    assert solution.fu == pytest.approx([1e9, 1e9, 1709975947], rel=1e-9)


def test_nothing_offloaded_is_worth_nothing_on_the_server():
    terms = HAND.model.terms(dataclasses.replace(POINT, phi=np.zeros(3)))
    assert terms.server_part == 0.0
    assert terms.user_part == pytest.approx(23.434343434343, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"phi": np.array([0.5, 1.0 + 2e-6, 0.75])}, "C3"),
        ({"phi": np.array([-2e-6, 1.0, 0.75])}, "C3"),
        ({"gamma": np.array([0.5, 1.0, 0.5])}, "C4"),
        ({"gamma": np.array([0.5, 0.0, 0.5])}, "C4"),
        ({"b": np.array([10e6, 0.0, 10e6])}, "C5"),
        ({"b": np.array([5e6, 5e6 + 20, 10e6])}, "C6"),
        ({"fs": np.array([4e9, 0.0, 4e9])}, "C7"),
        ({"fs": np.array([4e9, 4e9, 20.1e9])}, "C8"),
        ({"p": np.array([0.2, 0.21, 0.2])}, "C9"),
        ({"p": np.array([0.2, 0.0, 0.2])}, "C9"),
        ({"fu": np.array([1e9, 1.1e9, 2e9])}, "C10"),
        ({"fu": np.array([1e9, 0.0, 2e9])}, "C10"),
        ({"b": np.array([5e6, math.nan, 10e6])}, "C5"),
    ],
)
def test_every_constraint_is_audited(change, constraint):
    audit = HAND.model.audit(dataclasses.replace(POINT, **change))
    assert not audit.feasible
    assert any(sentence.startswith(f"{constraint} ") for sentence in audit.violations)
    if not any(np.isnan(values).any() for values in change.values()):
        assert audit.slack[constraint].min() <= 0.0


@pytest.mark.parametrize(
    "change",
    [
        {"phi": np.array([0.5, 1.0 + 0.9e-6, 0.75])},
        {"b": np.array([5e6, 5e6 + 9, 10e6])},
        {"fs": np.array([10e9, 10e9 + 1.9e4, 4e9])},
        {"p": np.full(3, 0.2 * (1 + 0.9e-6))},
        {"fu": HAND.fu_max * (1 + 0.9e-6)},
    ],
)
def test_a_millionth_beyond_a_bound_is_allowed(change):
    assert HAND.model.audit(dataclasses.replace(POINT, **change)).feasible


def test_slacks_say_how_far_each_limit_is():
    slack = HAND.model.audit(POINT).slack
    assert slack["C3"] == pytest.approx([0.5, 0.0, 0.25])
    assert slack["C6"] == pytest.approx([0.0, 0.0])
    assert slack["C8"] == pytest.approx([12e9, 16e9])
    assert slack["C9"] == pytest.approx([0.0] * 3)


def found(instance, bound=None):
    return Found(instance.model.average(np.zeros(instance.N, dtype=np.int64), 0.5, 0.5), bound)


def test_scores_recompute_everything():
    instance = draw(1)
    solution = ROOM.solution(instance, "mine", 0, found(instance), 0.0, 0.0)
    score = ROOM.score(instance, solution)
    assert score.holds
    assert score.user_part + score.server_part == pytest.approx(score.objective)
    assert set(score.slack) == {"C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10"}
    assert score.server_gap is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"objective": 70.0}, "objective is claimed"),
        ({"objective": None}, "objective is claimed"),
        ({"bound": 80.0}, "bound is claimed"),
        ({"bound": 87.5}, "bound is claimed"),
        ({"b": [5e6] * 10}, "C6 is broken"),
        ({"gamma": [0.0] * 10}, "C4 is broken"),
    ],
)
def test_edited_solutions_do_not_hold(change, said):
    instance = draw(1)  # its optimum is 88.13
    document = json.loads(ROOM.dump_solution(ROOM.solution(instance, "mine", 0, found(instance, 90.0), 0.0, 0.0)))
    score = ROOM.score(instance, ROOM.load_solution(json.dumps({**document, **change}).encode(), instance))
    assert not score.holds
    assert said in " ".join(score.problems)


def test_the_gap_to_the_bound_is_of_the_server_part():
    instance = draw(1)
    score = ROOM.score(instance, solve("dpe", "priced", instance))
    assert score.holds
    assert score.server_gap == pytest.approx(0.0, abs=1e-9)
    loose = ROOM.score(instance, ROOM.solution(instance, "mine", 0, found(instance, 90.0), 0.0, 0.0))
    expected = (90.0 - loose.objective) / (90.0 - instance.model.user_part)
    assert loose.server_gap == pytest.approx(expected)


def test_an_overshot_decision_has_no_objective_and_a_disproved_bound_is_dropped():
    instance = draw(1)
    plan = found(instance).plan
    broken = ROOM.solution(instance, "mine", 0, Found(dataclasses.replace(plan, b=2 * plan.b)), 0.0, 0.0)
    assert broken.objective is None
    assert not ROOM.score(instance, broken).holds
    dropped = ROOM.solution(instance, "mine", 0, found(instance, 1.0), 0.0, 0.0)
    assert dropped.bound is None
    assert dropped.info["bound_dropped"] == 1.0


class Answers:
    def __init__(self, answer):
        self.answer = answer

    def propose(self, instance, budget_s):
        return self.answer(instance)


def as_mapping(instance):
    plan = found(instance).plan
    return {field.name: getattr(plan, field.name).tolist() for field in dataclasses.fields(plan)}


@pytest.mark.parametrize(
    "answer",
    [
        lambda e: found(e).plan,
        as_mapping,
        lambda e: {"plan": as_mapping(e), "bound": 1e3},
        lambda e: {"plan": found(e).plan, "bound": None},
        found,
        lambda e: ROOM.solution(e, "x", 0, found(e), 0.0, 0.0),
    ],
)
def test_a_users_policy_may_answer_in_any_sensible_form(answer):
    instance = draw(1)
    solution = solve("dpe", Answers(answer), instance)
    assert isinstance(solution, Solution)
    assert solution.objective == pytest.approx(instance.model.dpe(found(instance).plan))


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        (lambda e: None, "assoc"),
        (lambda e: {**as_mapping(e), "assoc": [7] * e.N}, "assoc[0]"),
        (lambda e: {**as_mapping(e), "assoc": [0.5] * e.N}, "assoc"),
        (lambda e: {**as_mapping(e), "b": [1.0]}, "b"),
        (lambda e: {**as_mapping(e), "b": [math.nan] * e.N}, "b[0]"),
        (lambda e: {**as_mapping(e), "b": [[1], [1, 2]] * 5}, "b"),
        (lambda e: {key: value for key, value in as_mapping(e).items() if key != "fs"}, "fs"),
        (lambda e: {"plan": found(e).plan, "bound": math.inf}, "bound"),
    ],
)
def test_a_users_policy_that_answers_nonsense_is_named(answer, field):
    with pytest.raises(registry.PolicyError) as refused:
        solve("dpe", Answers(answer), draw(1))
    assert refused.value.field == field


def test_other_problems_instances_are_refused():
    with pytest.raises(Refused, match="dpe instance"):
        solve("dpe", "priced", registry.problem("mta").draw(0, {"n": 2, "m": 3}))
