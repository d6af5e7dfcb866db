"""A drawn plan repeats, covers every kernel, and holds exactly the refunds that were planned."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgora.ue.plan import Fleet, Refunds, draw_arrivals, draw_positions, lasting, nearest
from edgora.wire.errors import Refused


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(5, 60), st.integers(0, 2), st.integers(0, 2))
def test_every_plan_keeps_its_promises(seed: int, ues: int, tasks: int, cancelled: int, expired: int) -> None:
    fleet, refunds = Fleet(ues=ues, tasks=tasks), Refunds(cancelled=cancelled, expired=expired)
    arrivals = draw_arrivals(fleet, refunds, seed)
    assert arrivals == draw_arrivals(fleet, refunds, seed)
    assert len(arrivals) == tasks
    assert [a.at_ms for a in arrivals] == sorted(a.at_ms for a in arrivals)
    assert {a.ue for a in arrivals} <= set(range(ues))
    assert {a.kernel for a in arrivals} == set(fleet.kernels)
    assert Counter(a.fate for a in arrivals) == Counter(
        {k: v for k, v in {"cancel": cancelled, "expire": expired, "settle": tasks - cancelled - expired}.items() if v}
    )
    assert len({a.seed for a in arrivals}) == tasks
    assert all(fleet.margin[0] <= a.margin <= fleet.margin[1] for a in arrivals)


def test_another_seed_is_another_plan() -> None:
    assert draw_arrivals(Fleet(), Refunds(), 1) != draw_arrivals(Fleet(), Refunds(), 2)
    assert draw_positions(Fleet(), 1) != draw_positions(Fleet(), 2)


def test_more_refunds_than_tasks_are_refused() -> None:
    with pytest.raises(Refused) as refused:
        draw_arrivals(Fleet(tasks=1), Refunds(cancelled=1, expired=1), 0)
    assert refused.value.field == "plan"


def test_servers_are_near_in_order_of_distance_then_id() -> None:
    assert nearest((0, 0), {0: (3, 0), 1: (0, 2), 2: (0, 3), 3: (1, 0)}) == [3, 1, 0, 2]


def test_a_lasting_fleet_asks_at_its_rate_for_its_time() -> None:
    fleet = lasting(Fleet(ues=5), 60, 30)
    arrivals = draw_arrivals(fleet, Refunds(), 7)
    assert len(arrivals) == 1_800
    assert 1_650_000 < arrivals[-1].at_ms < 1_950_000, "thirty minutes, as far as a Poisson process keeps them"
    assert {a.ue for a in arrivals} == set(range(5))


@pytest.mark.parametrize(
    ("per_minute", "minutes", "field"),
    [
        (0, 1, "rate"), (-1, 1, "rate"), (601, 1, "rate"), (float("nan"), 1, "rate"),
        (60, 0, "minutes"), (60, 1_441, "minutes"), (60, float("inf"), "minutes"),
    ],
)  # fmt: skip
def test_a_lasting_fleet_is_bounded(per_minute: float, minutes: float, field: str) -> None:
    with pytest.raises(Refused) as refused:
        lasting(Fleet(), per_minute, minutes)
    assert refused.value.field == field
