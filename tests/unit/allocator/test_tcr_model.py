"""The system model of tcr.md 4 and 5: the worked example, the audit, solutions and their scores."""

import dataclasses
import json

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.allocator import registry
from edgora.allocator.search import Found
from edgora.allocator.tcr import Decision, Instance, draw
from edgora.allocator.tcr.instance import make
from edgora.wire.errors import Refused

TCR = registry.problem("tcr")


def worked() -> tuple[Instance, Decision]:
    """Section 11's example."""
    base = draw(0, {
        "N": 3, "M": 2, "N0": 4e-21, "wire": 1.6e7, "eta_u": 300, "eta_r": 300, "eta_s": 300, "eta_b": 700,
    })  # fmt: skip
    arrays = {f.name: getattr(base, f.name) for f in dataclasses.fields(base) if f.name not in {"seed", "params"}}
    arrays |= {
        "d": [8e6, 12e6, 16e6], "score": [0.1, 0.4], "gain": [[2.4e-13, 1e-14], [2e-13, 1.4e-12], [3e-14, 4e-14]],
    }  # fmt: skip
    chosen = Decision(
        assoc=np.array([0, 1, 1]), phi=np.array([0.5, 0.75, 0.5]), gamma=np.array([0.4, 0.5, 0.25]),
        b=np.array([4e6, 5e6, 2e6]), pu=np.array([0.2, 0.1, 0.2]), ps=np.array([5.0, 4.0, 6.0]),
        fu=np.array([1e9, 8e8, 1e9]), fs=np.array([6e9, 8e9, 5e9]),
    )  # fmt: skip
    return make(None, base.params, arrays), chosen


def test_the_worked_example_digit_for_digit() -> None:
    instance, chosen = worked()
    t = instance.model.terms(chosen)
    expected = {
        "Ru": [8000000, 15000000, 2000000], "Rd": [24991710.053774, 40672131.601105, 9908392.620774],
        "t_ut": [0.5, 0.6, 4], "t_up": [1.2, 1.125, 2.4], "t_fin": [1.08, 3.0375, 2.16], "t_sp": [0.5, 0.675, 1.92],
        "t_sg": [0.7777777778, 1.575, 1.4933333333], "t_st": [0.1440477659, 0.1991535649, 0.7266567117],
        "T_u": [2.78, 4.7625, 8.56], "T_s": [5.4718255437, 6.4991535649, 8.1899900450], "E_u": [0.328, 0.27312, 1.256],
        "E_s": [5.0402388296, 15.1966142596, 12.6099402702], "V": [2.0149030205, 2.2512917986, 2.1102132003],
        "t_chain": [4.05, 4.05, 4.05],
    }  # fmt: skip
    for name, values in expected.items():
        assert getattr(t, name).tolist() == pytest.approx(values, rel=1e-9), name
    assert (t.T, t.E, t.trust, t.C) == pytest.approx((8.56, 34.7039133594, 6.3764080195, 21.6319566797), rel=1e-10)
    assert t.tcr == pytest.approx(0.294767972861, rel=1e-11)


def test_profiles_count_delays_on_their_side() -> None:
    instance, chosen = worked()
    t = instance.model.terms(chosen)
    switched = dataclasses.replace(
        instance, params=msgspec.structs.replace(instance.params, ut_on_user=0, fin_on_server=1)
    ).model.terms(chosen)
    assert switched.T_u.tolist() == pytest.approx((t.T_u - t.t_ut).tolist())
    assert switched.T_s.tolist() == pytest.approx((t.T_s + t.t_ut + t.t_fin).tolist())
    assert switched.E == t.E


def test_a_lone_server_waits_for_nobody_and_others_for_the_slowest() -> None:
    assert draw(0, {"N": 2, "M": 1}).model.t_chain.tolist() == [0.0]
    assert draw(0).model.t_chain.tolist() == pytest.approx([4.266666666667 + 0.05] * 3)
    e = draw(0, {"M": 3})
    arrays = {f.name: getattr(e, f.name) for f in dataclasses.fields(e) if f.name not in {"seed", "params"}}
    wire = [[0, 8e6, 4e6], [8e6, 0, 16e6], [1e6, 2e6, 0]]
    uneven = make(None, e.params, {**arrays, "wire": wire, "verify": [2e9, 4e9, 8e9]})
    assert uneven.model.t_chain.tolist() == pytest.approx([16 + 0.4, 8 + 0.4, 64 + 0.2])


def test_nothing_offloaded_takes_no_transfers() -> None:
    """phi = 0 makes the five terms with D or R zero; t_chain still counts."""
    e = draw(0, {"N": 4, "M": 2, "profile": "paper"})
    t = e.model.terms(e.model.even(e.model.spread(), np.zeros(4)))
    for name in ("t_ut", "t_st", "t_fin", "t_sp", "t_sg", "E_s"):
        assert not getattr(t, name).any(), name
    assert t.T_s.tolist() == t.t_chain.tolist()
    assert t.T_u.tolist() == pytest.approx((e.d * e.eta_u / e.fu_max).tolist())


@pytest.mark.parametrize(
    ("field", "at", "value", "constraint"),
    [
        ("phi", 0, 0.49, "C3"), ("phi", 0, 1.01, "C3"), ("gamma", 1, 0.0, "C4"), ("gamma", 1, 1.0, "C4"),
        ("b", 1, 9e6, "C5"), ("pu", 2, 0.21, "C6"), ("pu", 2, 0.0, "C6"), ("ps", 2, 6.1, "C7"), ("fu", 0, 1.01e9, "C8"),
        ("fu", 0, -1.0, "C8"), ("fs", 1, 1.6e10, "C9"), ("b", 0, 0.0, "positive"), ("ps", 0, -1.0, "positive"),
    ],
)  # fmt: skip
def test_every_constraint_is_audited(field: str, at: int, value: float, constraint: str) -> None:
    instance, chosen = worked()
    assert instance.model.audit(chosen).feasible
    changed = getattr(chosen, field).copy()
    changed[at] = value
    audit = instance.model.audit(dataclasses.replace(chosen, **{field: changed}))
    assert not audit.feasible
    assert [sentence.split()[0] for sentence in audit.violations] == [constraint]
    assert audit.slack[constraint].min() <= 0.0


def test_tolerances_are_those_of_the_specification() -> None:
    instance, chosen = worked()
    for field, at, good, bad in (
        ("phi", 0, 0.5 - 0.9e-6, 0.5 - 1.1e-6), ("b", 1, 8e6 + 9.0, 8e6 + 11.0), ("ps", 1, 4 + 9e-6, 4 + 11e-6),
        ("pu", 0, 0.2 * (1 + 0.9e-6), 0.2 * (1 + 1.1e-6)),
    ):  # fmt: skip
        for value, allowed in ((good, True), (bad, False)):
            changed = getattr(chosen, field).copy()
            changed[at] = value
            audit = instance.model.audit(dataclasses.replace(chosen, **{field: changed}))
            assert audit.feasible is allowed, (field, value)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.1, 30.0))
def test_slower_links_and_clocks_never_shorten_the_delay(seed: int, factor: float) -> None:
    e = draw(seed % 7, {"N": 5, "M": 2})
    even = e.model.even(np.random.default_rng(seed).integers(0, 2, 5))
    less = {name: getattr(even, name) * min(1.0, factor) for name in ("b", "pu", "ps", "fu", "fs")}
    assert e.model.terms(dataclasses.replace(even, **less)).T >= e.model.terms(even).T * (1 - 1e-12)


def document(instance: Instance, chosen: Decision) -> dict[str, object]:
    solution = TCR.solution(instance, "hand", 0, Found(chosen), 0.1, 0.1)
    made: dict[str, object] = json.loads(TCR.dump_solution(solution))
    return made


def test_solutions_round_trip_and_score() -> None:
    instance, chosen = worked()
    made = document(instance, chosen)
    assert list(made)[:16] == [
        "problem", "version", "solver", "seed", "wall_s", "cpu_s", "objective", "bound", "assoc", "phi", "gamma", "b",
        "pu", "ps", "fu", "fs",
    ]  # fmt: skip
    score = TCR.score(instance, TCR.load_solution(json.dumps(made).encode(), instance))
    assert score.holds
    assert score.objective == pytest.approx(0.294767972861, rel=1e-11)
    assert set(score.slack) == {"C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11", "positive"}


def test_wrong_claims_are_caught() -> None:
    instance, chosen = worked()
    made = document(instance, chosen)
    for change, word in (
        ({"objective": 0.2947683}, "objective"), ({"objective": None}, "objective"), ({"bound": 0.29}, "bound"),
        ({"b": [4e6, 9e6, 2e6]}, "C5"), ({"phi": [0.5, 0.75, 0.6]}, "objective"),
    ):  # fmt: skip
        score = TCR.score(instance, TCR.load_solution(json.dumps({**made, **change}).encode(), instance))
        assert not score.holds
        assert any(word in sentence for sentence in score.problems), change
    broken = json.dumps({**made, "gamma": [0.0, 1.0, -3.0], "fu": [0.0, -1.0, 1e300]}).encode()
    score = TCR.score(instance, TCR.load_solution(broken, instance))
    assert (score.feasible, score.objective) == (False, None)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"assoc": [0, 1, 2]}, "assoc[2]"), ({"assoc": [0, 1, -1]}, "assoc[2]"), ({"assoc": [0, 1]}, "assoc"),
        ({"assoc": [0, 1, 0.5]}, "assoc[2]"), ({"phi": [1, 2]}, "phi"), ({"b": [1, 2, "3"]}, "b[2]"),
        ({"b": [1, 2, True]}, "b[2]"), ({"colour": 1}, "colour"), ({"info": 3}, "info"), ({"problem": "mta"}, "problem"),
    ],
)  # fmt: skip
def test_solutions_are_refused_by_field(change: dict[str, object], field: str) -> None:
    instance, chosen = worked()
    with pytest.raises(Refused) as refusal:
        TCR.load_solution(json.dumps({**document(instance, chosen), **change}).encode(), instance)
    assert refusal.value.field == field
    short = document(instance, chosen)
    del short["fs"]
    with pytest.raises(Refused, match="fs"):
        TCR.load_solution(json.dumps(short).encode(), instance)


def test_policies_of_users_are_taken_in_any_form_and_refused_by_field() -> None:
    instance, chosen = worked()
    as_lists = {f.name: getattr(chosen, f.name).tolist() for f in dataclasses.fields(chosen)}
    for answer in (
        chosen,
        Found(chosen),
        as_lists,
        {"plan": as_lists, "bound": 1.0},
        TCR.solution(instance, "x", 0, Found(chosen), 0, 0),
    ):
        assert TCR.foreign(answer, instance).plan.b.tolist() == chosen.b.tolist()
    for answer, field in (
        (None, "assoc"), ({**as_lists, "b": [1.0]}, "b"), ({**as_lists, "b": [1.0, 2.0, float("nan")]}, "b[2]"),
        ({**as_lists, "assoc": [0.0, 1.0, 1.0]}, "assoc"), ({"plan": as_lists, "bound": float("inf")}, "bound"),
        ({"plan": as_lists, "bound": True}, "bound"),
    ):  # fmt: skip
        with pytest.raises(Refused) as refusal:
            TCR.foreign(answer, instance)
        assert refusal.value.field == field
