"""The formulas of a round against numbers worked out by hand, and greedy against every plan there is (market.md 4)."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgora.market.rules import (
    Refusal,
    check_plan,
    check_proposal,
    greedy,
    instance_digest,
    plan_value,
    room_of,
    round_table,
)
from edgora.wire.codec import to_u128
from edgora.wire.market import Allocation, Code, Instance, LiveServer, OpenTask

NOW = 1_700_000_000_150


def server(number: int, **fields) -> LiveServer:
    base = LiveServer(number, 100_000_000, 10**10, 4, 50, 10_000_000, 10**9, 2 * 10**9, 0)
    return replace(base, **fields)


def task(**fields) -> OpenTask:
    base = OpenTask(b"t" * 32, b"u" * 20, 0, 10_000_000, 100, 10_240, 1_024, 1_000, NOW + 60_000, ())
    return replace(base, **fields)


def instance(tasks, servers) -> Instance:
    return Instance(7, NOW, 500, tuple(tasks), tuple(servers))


def test_the_numbers_of_a_pair_by_hand():
    # room: min(10^10, 2*10^9) - 300; weight: max(10^7, ceil(2*10^9 / 3)) = 666,666,667
    # T: 1000*10^7/10^8 = 100 ms run, 10,240,000/10^6 = 11 ms in over the source's uplink, 1,024,000/10^7 = 1 ms out
    # W: 1000 * 10^7 * (100 - 50) wei - 10 KiB * 10^9 wei
    source, other = server(0, uplink=1_000_000), server(1, slots=3, used=300)
    table = round_table(instance([task()], [source, other]))
    assert table.room == [2 * 10**9, 2 * 10**9 - 300]
    assert table.weight == [[500_000_000, 666_666_667]]
    assert table.T == [[100 + 2, 100 + 11 + 1]]
    assert table.W == [[500_000_000_000, 500_000_000_000 - 10 * 10**9]]
    assert table.ok == [[True, True]]


def test_times_and_weights_are_rounded_up():
    table = round_table(instance([task(fuel_limit=100_000_001, output_octets=1)], [server(0, slots=64)]))
    assert table.T == [[1_001 + 1]]
    assert table.weight == [[100_000_001]]


@pytest.mark.parametrize(
    ("change_task", "change_server", "ok"),
    [
        ({}, {}, True),
        ({"price": 50}, {"ask": 50}, True),
        ({"price": 49}, {"ask": 50}, False),
        ({"deadline_ms": NOW + 101 + 1 + 500}, {}, True),
        ({"deadline_ms": NOW + 101 + 500}, {}, False),
        ({}, {"used": 2 * 10**9 - 500_000_000}, True),
        ({}, {"used": 2 * 10**9 - 499_999_999}, False),
        ({"excluded": (0,)}, {}, False),
        ({"excluded": (1,)}, {}, True),
        ({"source": 1}, {}, False),  # a source that is not in the instance
    ],
)
def test_a_pair_is_ok_up_to_the_edge_of_each_rule(change_task, change_server, ok):
    table = round_table(instance([task(fuel_limit=10_000_001, **change_task)], [server(0, **change_server)]))
    assert table.ok == [[ok]]


def test_a_negative_value_is_allowed_in_a_plan_but_greedy_leaves_it():
    table = round_table(instance([task(price=50)], [server(0, ask=200, forward=10**12), server(1)]))
    assert table.W[0][1] == -10 * 10**12
    assert table.ok[0] == [False, True]
    assert check_plan(table, [(0, 1)]) == -10 * 10**12
    assert greedy(table).pairs == ()


def test_greedy_takes_by_value_then_task_then_server():
    servers = [server(0, slots=1), server(1, slots=1), server(2, slots=1, ask=10)]
    tasks = [task(source=s, offer_id=bytes([s]) * 32) for s in (0, 0)]
    table = round_table(instance(tasks, [replace(s, forward=0) for s in servers]))
    assert greedy(table).pairs == ((0, 2), (1, 0))  # the cheapest first, for the earlier task; then the least id


def brute_force(table):
    """The best of all feasible plans of pairs with W >= 0."""
    places = [None, *range(len(table.ids))]
    best = 0
    for choice in itertools.product(places, repeat=len(table.instance.tasks)):
        load = [0] * len(table.ids)
        value, good = 0, True
        for j, i in enumerate(choice):
            if i is None:
                continue
            good = good and table.ok[j][i]
            load[i] += table.weight[j][i]
            value += table.W[j][i]
        if good and all(x <= max(0, room) for x, room in zip(load, table.room, strict=True)):
            best = max(best, value)
    return best


small = st.builds(
    lambda tasks, servers: instance(
        [task(offer_id=bytes([j]) * 32, fuel_limit=f * 10**8, price=p, source=s) for j, (f, p, s) in enumerate(tasks)],
        [server(i, ask=a, slots=n, credit=c * 10**8, used=u * 10**8) for i, (a, n, c, u) in enumerate(servers)],
    ),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 200), st.integers(0, 2)), max_size=5),
    st.lists(
        st.tuples(st.integers(1, 150), st.integers(1, 4), st.integers(1, 20), st.integers(0, 20)),
        min_size=1,
        max_size=3,
    ),
)


@settings(max_examples=150, deadline=None)
@given(small)
def test_greedy_is_feasible_honest_and_never_above_the_optimum(found):
    table = round_table(found)
    plan = greedy(table)
    assert check_plan(table, plan.pairs) == plan.value == plan_value(table, plan.pairs)
    assert 0 <= plan.value <= brute_force(table)


@settings(max_examples=100, deadline=None)
@given(small, st.data())
def test_no_plan_that_the_check_lets_pass_exceeds_a_room(found, data):
    table = round_table(found)
    places = st.sampled_from([None, *table.ids])
    wanted = data.draw(st.lists(places, min_size=len(found.tasks), max_size=len(found.tasks)))
    pairs = [(j, s) for j, s in enumerate(wanted) if s is not None]
    load = {s: sum(table.weight[j][table.place[s]] for j, x in pairs if x == s) for s in table.ids}
    fits = all(load[s] <= max(0, room_of(found.servers[table.place[s]])) for s in table.ids)
    allowed = all(table.ok[j][table.place[s]] for j, s in pairs)
    try:
        value = check_plan(table, pairs)
    except Refusal:
        assert not (fits and allowed)
    else:
        assert fits
        assert allowed
        assert value == sum(table.W[j][table.place[s]] for j, s in pairs)


TWO = instance(
    [task(offer_id=b"a" * 32), task(offer_id=b"b" * 32, fuel_limit=1_900_000_000)], [server(0), server(1, forward=0)]
)


def proposal(pairs, value=None, **fields) -> Allocation:
    table = round_table(TWO)
    worth = plan_value(table, pairs) if value is None else value
    base = Allocation(7, instance_digest(TWO), tuple(pairs), to_u128(worth), None, "test", 1)
    return replace(base, **fields)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (proposal([(0, 0), (1, 1)], round=8), Code.WRONG_ROUND),
        (proposal([(0, 0), (1, 1)], digest=b"x" * 32), Code.WRONG_DIGEST),
        (proposal([(0, 0), (1, 1)], policy=""), Code.POLICY_NAME),
        (proposal([(0, 0), (1, 1)], policy="p" * 65), Code.POLICY_NAME),
        (proposal([(2, 0)], 0), Code.TASK_INDEX),
        (proposal([(0, 0), (0, 1)], 0), Code.TASK_TWICE),
        (proposal([(1, 1), (0, 0)], 0), Code.PAIRS_UNSORTED),
        (proposal([(0, 5)], 0), Code.SERVER_NOT_IN_ROUND),
        (proposal([(0, 0), (1, 0)], 0), Code.ROOM_EXCEEDED),
        (proposal([(0, 0), (1, 1)], 1), Code.VALUE_WRONG),
        (proposal([(0, 0)]), Code.BELOW_FLOOR),
    ],
)  # fmt: skip
def test_a_proposal_is_refused_for_the_first_rule_it_breaks(given, code):
    table = round_table(TWO)
    with pytest.raises(Refusal) as refused:
        check_proposal(
            table, instance_digest(TWO), given, greedy_value=greedy(table).value, floor_bps=10_000, accepted={}
        )
    assert refused.value.code == code


def test_a_proposal_at_the_floor_passes_and_an_equal_plan_does_not():
    table = round_table(TWO)
    good = proposal([(0, 0), (1, 1)])
    value = plan_value(table, good.pairs)
    rest = {"greedy_value": value, "floor_bps": 10_000}
    assert check_proposal(table, instance_digest(TWO), good, accepted={}, **rest) == value
    with pytest.raises(Refusal) as refused:
        check_proposal(table, instance_digest(TWO), good, accepted={3: good.pairs}, **rest)
    assert (refused.value.code, refused.value.numbers) == (Code.DUPLICATE_PLAN, (3,))
    just_below = {"greedy_value": value + 1, "floor_bps": 10_000}
    with pytest.raises(Refusal) as refused:
        check_proposal(table, instance_digest(TWO), good, accepted={}, **just_below)
    assert refused.value.code == Code.BELOW_FLOOR


def test_a_proposal_with_an_excluded_pair_is_refused():
    table = round_table(instance([task(excluded=(1,))], [server(0), server(1)]))
    with pytest.raises(Refusal) as refused:
        check_plan(table, [(0, 1)])
    assert (refused.value.code, refused.value.numbers) == (Code.PAIR_NOT_OK, (0, 1))
