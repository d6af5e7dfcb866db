"""The worked example of mta.md 12 digit for digit, and the model against plain loops over the specification's sums."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.allocator.mta import Instance, Model, draw
from edgora.allocator.mta.instance import load
from edgora.wire.errors import Refused

EXAMPLE = b"""{"problem":"mta","version":1,"seed":null,
 "params":{"n":2,"m":3,"draw":"real","cap_scale":1,"price_scale":1,"size_scale":1},
 "price":[3,8,1],"size":[10,12,20],"deadline":[30,12.05,9],"origin":[0,0,1],
 "capacity":[50,60],"freq":[2,5],"arch":[1e-5,1e-5],"theta":[2,5],"bandwidth":[5,8],"power":[5,10],"gain":[5,6],
 "fee":0.01,"noise":0.01}"""


@pytest.fixture(scope="module")
def example() -> Model:
    return load(EXAMPLE).model


def digits(actual: object, expected: object) -> None:
    """Equal in every digit that the specification prints (12 significant ones)."""
    np.testing.assert_allclose(np.asarray(actual, dtype=float), np.asarray(expected, dtype=float), rtol=0, atol=5e-10)


def test_worked_example_derived_quantities(example: Model) -> None:
    digits(example.cycles, [[20, 24, 40], [50, 60, 100]])
    np.testing.assert_allclose(example.rate, [89.6578717, 153.556843037], rtol=5e-10)
    digits(example.send_time, [0.111535104, 0.133842124, 0.130244928])
    digits(example.send_energy, [0.557675518, 0.669210621, 1.302449282])
    digits(example.time, [[10, 12, 20.130244928], [10.111535104, 12.133842124, 20]])
    assert example.feasible.tolist() == [[True, True, False], [True, False, False]]
    digits(example.reward, [[59.9992, 191.99904, 0], [148.4875, 0, -0.302449282]])
    digits(example.value, [[59.9992, 191.99904, 38.695950718], [149.429824482, 479.315789379, 99.975]])


@pytest.mark.parametrize(
    ("plan", "settled", "literal", "rewards", "servers"),
    [
        ((1, 0, -1), 341.428864482, 340.226415200, 340.48654, (192.941364482, 148.4875)),
        ((0, 0, -1), 251.99824, 251.695790718, 251.99824, (251.99824, 0)),
        ((1, -1, -1), 149.429824482, 149.478164579, 148.4875, (0.942324482, 148.4875)),
        ((-1, -1, -1), 0, 0.990664579, 0, (0, 0)),
    ],
)
def test_worked_example_plans(
    example: Model, plan: tuple[int, ...], settled: float, literal: float, rewards: float, servers: tuple[float, ...]
) -> None:
    a = np.array(plan)
    assert example.audit(plan).feasible
    digits(example.settled_utility(a), settled)
    digits(example.literal_utility(a), literal)
    digits(example.reward_sum(a), rewards)
    digits(example.server_utility(a), servers)
    assert example.settle(a).tolist() == list(plan)


def test_worked_example_late_plan(example: Model) -> None:
    plan = np.array([0, 1, -1])
    audit = example.audit(plan)
    assert not audit.feasible
    assert [text.partition(" take ")[0] for text in audit.violations] == ["C2: task 1 would"]
    assert audit.deadline_slack[1] == pytest.approx(-0.083842124, abs=5e-10)
    assert example.settle(plan).tolist() == [0, -1, -1]
    digits(example.settled_utility(example.settle(plan)), 59.9992)
    digits(example.reward_sum(plan), 59.9992)


def test_the_constraints_are_met_with_equality() -> None:
    """Integer data that exactly fill capacity and deadline are allowed (mta.md 3, A21)."""
    text = EXAMPLE.replace(b'"deadline":[30,12.05,9]', b'"deadline":[10,12,9]').replace(b"[50,60]", b"[44,60]")
    assert load(text).model.audit([0, 0, -1]).feasible
    assert load(text.replace(b"[44,60]", b"[43.9999999,60]")).model.audit([0, 0, -1]).violations == (
        "C1: server 0 would run 44 cycles of 43.9999999",
    )


@pytest.mark.parametrize(
    "plan", [[0, 0], [0, 0, 0, 0], [2, 0, 0], [-2, 0, 0], [0.0, 0.0, 0.0], [[0, 0, 0]], []], ids=str
)
def test_an_audit_refuses_what_is_no_plan(example: Model, plan: list[int]) -> None:
    audit = example.audit(plan)
    assert not audit.feasible
    assert audit.violations[0].startswith("plan")


@st.composite
def instances(choose: st.DrawFn) -> Instance:
    n, m = choose(st.integers(1, 5)), choose(st.integers(0, 8))
    family, seed = choose(st.sampled_from(["integer", "real"])), choose(st.integers(0, 10**6))
    scale = choose(st.sampled_from([0.2, 0.5, 1.0]))
    return draw(seed, {"n": n, "m": m, "draw": family, "cap_scale": scale})


@st.composite
def planned(choose: st.DrawFn) -> tuple[Instance, np.ndarray]:
    instance = choose(instances())
    entries = st.lists(st.integers(-1, instance.n - 1), min_size=instance.m, max_size=instance.m)
    return instance, np.array(choose(entries), dtype=np.int64)


@settings(max_examples=150, deadline=None)
@given(planned())
def test_utilities_are_the_sums_of_section_5(case: tuple[Instance, np.ndarray]) -> None:
    """Per server and task, as the specification's table has it: settled, literal and per-server utility, constraints."""
    e, plan = case
    n, m = e.n, e.m
    rate = [e.bandwidth[i] * math.log2(1 + e.power[i] * e.gain[i] / e.noise**2) for i in range(n)]
    settled, literal, late = [0.0] * n, 0.0, []
    used = [0.0] * n
    for j in range(m):
        o, k, p, d = int(e.origin[j]), int(plan[j]), e.price[j], e.size[j]
        send_s = d / rate[o]
        send_money = e.power[o] * send_s
        if k == -1:
            literal += e.fee * p * d * e.theta[o] - send_money
            continue
        cycles = d * e.theta[k]
        used[k] += cycles
        energy = e.arch[k] * cycles * e.freq[k] ** 2
        if cycles / e.freq[k] + (send_s if k != o else 0.0) > e.deadline[j] * (1 + 1e-9):
            late.append(j)
        if k == o:
            settled[o] += p * cycles - energy
            literal += p * cycles - energy
        else:
            settled[k] += (1 - e.fee) * p * cycles - energy
            settled[o] += e.fee * p * cycles - send_money
            literal += (1 - e.fee) * p * cycles - energy + e.fee * p * d * e.theta[o] - send_money
    model = e.model
    over = [i for i in range(n) if used[i] > e.capacity[i] * (1 + 1e-9)]
    audit = model.audit(plan)
    assert audit.feasible == (not over and not late)
    assert len(audit.violations) == len(over) + len(late)
    np.testing.assert_allclose(audit.capacity_slack, e.capacity - used, atol=1e-6)
    np.testing.assert_allclose(model.server_utility(plan), settled, rtol=1e-9, atol=1e-9)
    assert model.settled_utility(plan) == pytest.approx(sum(settled), rel=1e-9, abs=1e-9)
    assert model.literal_utility(plan) == pytest.approx(literal, rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(planned())
def test_a_settlement_is_allowed_and_maximal_in_order(case: tuple[Instance, np.ndarray]) -> None:
    instance, plan = case
    settled = instance.model.settle(plan)
    assert instance.model.audit(settled).feasible
    assert all(s in {-1, p} for s, p in zip(settled.tolist(), plan.tolist(), strict=True))
    for j in np.flatnonzero((settled == -1) & (plan != -1)):
        earlier = np.where(np.arange(instance.m) < j, settled, -1)
        earlier[j] = plan[j]
        assert not instance.model.audit(earlier).feasible
    if instance.model.audit(plan).feasible:
        assert settled.tolist() == plan.tolist()


@settings(max_examples=100, deadline=None)
@given(planned())
def test_the_table_is_the_model(case: tuple[Instance, np.ndarray]) -> None:
    """Allowed by the table means allowed by the audit and the other way round, with the same worth."""
    instance, plan = case
    table = instance.table
    assert table.allows(plan) == instance.model.audit(plan).feasible
    assert table.worth(plan) == instance.model.settled_utility(plan)


def test_the_table_of_integer_data_is_exact() -> None:
    table = draw(5).table
    assert table.weight.dtype == table.room.dtype == np.int64
    assert draw(5, {"draw": "real"}).table.weight.dtype == np.float64


@pytest.mark.parametrize("edit", [{"fee": 0.0}, {"fee": 1.0}, {"noise": 1.0}, {"arch": 0.0}, {"cap_scale": 0.0}])
def test_edges_of_the_domain_raise_nothing(edit: dict[str, object]) -> None:
    instance = draw(3, {"n": 4, "m": 9, **edit})
    assert instance.model.audit(instance.table.rejected()).feasible
    assert instance.table.allows(instance.table.fill(instance.table.rejected()))


def test_extreme_magnitudes_stay_finite() -> None:
    """The window 1e-15..1e15 of files keeps every product finite; warnings would be errors here."""
    ends = (b"1e-15", b"1e15")
    for low in ends:
        for high in ends:
            text = EXAMPLE
            for name, old in (("size", b"[10,12,20]"), ("theta", b"[2,5]"), ("power", b"[5,10]"), ("gain", b"[5,6]")):
                pair = b",".join((low, high, low)[: old.count(b",") + 1])
                text = text.replace(f'"{name}":'.encode() + old, f'"{name}":['.encode() + pair + b"]")
            with np.errstate(all="raise", under="ignore"):
                table = load(text).table
            assert np.isfinite(table.value).all()
            assert np.isfinite(table.room).all()
            assert table.allows(table.fill(table.rejected()))


def test_more_pairs_than_memory_holds_are_refused() -> None:
    with pytest.raises(Refused, match="n \\* m"):
        draw(0, {"n": 10**5, "m": 10**5})
