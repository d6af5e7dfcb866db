"""Live rounds: the allocator's integers are the market's, and only proposals that the market accepts are made."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.allocator.live import LiveRound, propose
from edgora.allocator.registry import policy
from edgora.allocator.search import Found
from edgora.market import rules
from edgora.wire.codec import decode, encode, from_u128
from edgora.wire.errors import Refused
from edgora.wire.market import Allocation, Instance, LiveServer, OpenTask, Reason

NOW = 1_800_000_000_000


@st.composite
def rounds(choose: st.DrawFn, most_tasks: int = 7) -> Instance:
    """Rounds with tight rooms, deadlines at the edge, dead sources, exclusions, and money beyond 64 bits."""
    ids = choose(st.lists(st.integers(0, 63), min_size=1, max_size=4, unique=True).map(sorted))
    fuel = st.one_of(st.integers(1, 20), st.integers(10**6, 10**12))
    wide = choose(st.booleans())
    rates = st.integers(1, 2**32 - 1) if wide else st.integers(1, 12)
    servers = tuple(
        LiveServer(
            id=i,
            speed=choose(st.integers(1, 10**10)),
            capacity=choose(st.one_of(st.integers(1, 60), st.integers(10**6, 2**48 - 1))),
            slots=choose(st.integers(1, 5)),
            ask=choose(rates),
            uplink=choose(st.integers(1, 10**6)),
            forward=choose(st.one_of(st.just(0), st.integers(0, 2**64 - 1 if wide else 5_000))),
            credit=choose(st.one_of(st.integers(1, 60), st.integers(10**6, 10**13))),
            used=choose(st.sampled_from([0, 5, 10**9])),
        )
        for i in ids
    )
    tasks = tuple(
        OpenTask(
            offer_id=bytes(31) + bytes([j]),
            ue=bytes(20),
            source=choose(st.sampled_from([*ids, *ids, 64])),
            fuel_limit=choose(fuel),
            price=choose(rates),
            input_octets=choose(st.sampled_from([1, 1023, 1024, 1025, 2**24])),
            output_octets=choose(st.integers(0, 2**24)),
            desired_ms=1,
            deadline_ms=NOW + choose(st.sampled_from([500, 1_500, 10**5, 10**9, 10**13])),
            excluded=tuple(choose(st.lists(st.sampled_from([*ids, 65]), max_size=1))),
        )
        for j in range(choose(st.integers(0, most_tasks)))
    )
    return Instance(choose(st.integers(0, 2**40)), NOW, 500, tasks, servers)


@settings(max_examples=200, deadline=None)
@given(rounds())
def test_every_number_is_the_markets(instance: Instance) -> None:
    """The vectorised formulas against the market's own, which the replicas run."""
    live, market = LiveRound(instance), rules.round_table(instance)
    assert live.room.tolist() == market.room
    assert live.weight.T.tolist() == market.weight or not instance.tasks
    assert live.time_ms.T.tolist() == market.T or not instance.tasks
    assert live.ok.T.tolist() == market.ok or not instance.tasks
    assert live.worth.T.tolist() == market.W or not instance.tasks
    assert live.digest == rules.instance_digest(instance)
    greedy = rules.greedy(market)
    assert live.pairs(live.greedy) == greedy.pairs
    assert live.value(live.greedy) == greedy.value


@settings(max_examples=60, deadline=None)
@given(rounds(most_tasks=5), st.sampled_from(["greedy-global", "exact", "random", "greedy"]))
def test_a_proposal_is_one_that_the_market_accepts(instance: Instance, name: str) -> None:
    market = rules.round_table(instance)
    floor = rules.greedy(market).value
    answer = propose(instance, policy("mta", name), 5.0)
    if isinstance(answer, Reason):
        placeable = any(
            ok and worth >= 0 for j, row in enumerate(market.ok) for ok, worth in zip(row, market.W[j], strict=True)
        )
        assert answer.code == "BELOW_FLOOR" if placeable else answer.code == "EMPTY"
        assert not placeable or name in {"random", "greedy"}
        return
    assert decode(encode(answer), Allocation) == answer
    value = rules.check_proposal(
        market, rules.instance_digest(instance), answer, greedy_value=floor, floor_bps=10_000, accepted={}
    )
    assert value == from_u128(answer.value) >= floor
    assert answer.policy == name
    if name == "exact":
        assert answer.bound is not None
        assert value <= from_u128(answer.bound) <= value + math.ceil(value * 1e-8) + 1


def a_round(prices: list[int], *, room: int = 2, servers: int = 1, ask: int = 1, fuel: int = 1) -> Instance:
    """Tasks of equal fuel at these prices, all from server 0; each server has room for `room` tasks."""
    tasks = tuple(OpenTask(bytes(32), bytes(20), 0, fuel, price, 1024, 1, 1, NOW + 10**6, ()) for price in prices)
    return Instance(
        9, NOW, 500, tasks,
        tuple(LiveServer(i, 10**6, room * fuel, room, ask, 10**6, 0, 10**12, 0) for i in range(servers)),
    )  # fmt: skip


class Says:
    """A policy that answers a fixed plan, or calls."""

    name = "says"

    def __init__(self, answer: list[int] | Callable[[LiveRound], list[int]], bound: float | None = None) -> None:
        self._answer, self._bound = answer, bound

    def propose(self, instance: object, budget_s: float) -> Found:
        assert isinstance(instance, LiveRound)
        plan = self._answer(instance) if callable(self._answer) else self._answer
        return Found(np.array(plan, dtype=np.int64), self._bound)


def test_a_plan_is_completed_with_what_still_fits_even_at_no_gain() -> None:
    """Task 1 at the asked price earns nothing, yet is served, and more pairs win ties."""
    answer = propose(a_round([5, 1, 3]), Says([-1, -1, 0]), 1.0)
    assert isinstance(answer, Allocation)
    assert answer.pairs == ((0, 0), (2, 0))
    answer = propose(a_round([5, 1]), Says([0, -1]), 1.0)
    assert isinstance(answer, Allocation)
    assert answer.pairs == ((0, 0), (1, 0))
    assert from_u128(answer.value) == 4_000


def test_worth_below_greedys_is_not_sent() -> None:
    instance = a_round([5, 9, 3], room=1)
    answer = propose(instance, Says([0, -1, -1]), 1.0)
    assert answer == Reason("BELOW_FLOOR", "says", (9, 500_000, 1_000_000))
    assert isinstance(propose(instance, Says([0, -1, -1]), 1.0, floor_bps=5_000), Allocation)


def test_a_plan_that_floats_cannot_tell_from_greedys_becomes_greedys() -> None:
    """One gwei/Mfuel of 2 x 10^9 less: the ledger, in integers, would refuse it."""
    instance = a_round([2 * 10**9, 2 * 10**9 + 1], room=1)
    answer = propose(instance, Says([0, -1]), 1.0)
    assert isinstance(answer, Allocation)
    assert answer.pairs == ((1, 0),)
    assert from_u128(answer.value) == 1_000 * 2 * 10**9


@pytest.mark.parametrize("plan", [[0, 0, 0], [1, 0, 0], [-2, 0, 0], [0], []], ids=str)
def test_a_plan_that_is_not_allowed_is_not_sent(plan: list[int]) -> None:
    assert propose(a_round([5, 9, 3]), Says(plan), 1.0) == Reason("NOT_ALLOWED", "says", (9,))


def test_nothing_to_place_is_said() -> None:
    assert propose(a_round([]), Says([]), 1.0) == Reason("EMPTY", "says", (9, 0, 1))
    assert propose(a_round([4], ask=5), Says([0]), 1.0) == Reason("EMPTY", "says", (9, 1, 1))


def test_solvers_of_the_papers_form_refuse_a_live_round() -> None:
    answer = propose(a_round([5]), policy("mta", "greedy-naive"), 1.0)
    assert isinstance(answer, Reason)
    assert answer.code == "FAILED"
    assert "needs a paper instance" in answer.subject


def test_a_bound_is_rounded_up_and_never_below_the_value() -> None:
    answer = propose(a_round([5, 9]), Says([0, 0], bound=1.75), 1.0)
    assert isinstance(answer, Allocation)
    assert answer.bound is not None
    assert from_u128(answer.bound) == math.ceil(1.75 * 8_000 * 1.000000001)
    low = propose(a_round([5, 9]), Says([0, 0], bound=0.1), 1.0)
    assert isinstance(low, Allocation)
    assert low.bound == low.value


def test_the_budget_reaches_the_policy_less_a_share_for_sending() -> None:
    budgets: list[float] = []

    class Hears(Says):
        def propose(self, instance: object, budget_s: float) -> Found:
            budgets.append(budget_s)
            return super().propose(instance, budget_s)

    propose(a_round([5]), Hears([0]), 100.0)
    assert 80.0 < budgets[0] < 90.0


def test_a_name_that_the_ledger_would_refuse_is_not_sent() -> None:
    named = Says([0])
    named.name = "m" * 65
    answer = propose(a_round([5]), named, 1.0)
    assert isinstance(answer, Reason)
    assert "over 64 octets" in answer.subject


@pytest.mark.parametrize("field", ["speed", "slots", "uplink"])
def test_a_server_that_cannot_be_is_refused(field: str) -> None:
    import msgspec

    instance = a_round([5])
    broken = msgspec.structs.replace(instance.servers[0], **{field: 0})
    with pytest.raises(Refused, match="speed, slots or uplink 0"):
        LiveRound(msgspec.structs.replace(instance, servers=(broken,)))


def test_the_same_policy_object_runs_on_paper_instances_and_live() -> None:
    """House promise: `propose(instance, budget_s)` over `instance.table`, unchanged."""
    from edgora.allocator import solve
    from edgora.allocator.mta import draw

    class Mine:
        name = "mine"

        def propose(self, instance: object, budget_s: float) -> Found:
            table = instance.table  # type: ignore[attr-defined]
            return Found(table.fill(table.rejected()))

    paper = draw(2)
    assert solve("mta", Mine(), paper).objective == solve("mta", "greedy-global", paper).objective
    assert isinstance(propose(a_round([5, 9, 3]), Mine(), 1.0), Allocation)
