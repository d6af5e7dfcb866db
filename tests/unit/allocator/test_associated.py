"""`associated`: tasks stay at the server that they were sent to, as long as the market lets them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgora.allocator.live import LiveRound, propose
from edgora.allocator.mta.solvers import TABLE_SOLVERS
from edgora.allocator.mta.table import Table
from edgora.allocator.registry import policy
from edgora.allocator.search import Search
from edgora.wire.market import Allocation, Instance, LiveServer, OpenTask

NOW = 1_800_000_000_000
ASSOCIATED = policy("mta", "associated")


def a_round(sources: list[int], asks: tuple[int, ...] = (5, 20, 10), slots: int = 4, price: int = 30) -> Instance:
    tasks = tuple(
        OpenTask(bytes([j]) * 32, bytes(20), source, 10, price, 64, 8, 1_000, NOW + 10**6, ())
        for j, source in enumerate(sources)
    )
    servers = tuple(LiveServer(i, 10**6, 40, slots, ask, 10**6, 0, 10**12, 0) for i, ask in enumerate(asks))
    return Instance(1, NOW, 500, tasks, servers)


def placed(instance: Instance, floor_bps: int = 0) -> dict[int, int]:
    made = propose(instance, ASSOCIATED, 5.0, floor_bps=floor_bps)
    assert isinstance(made, Allocation), made
    assert made.policy == "associated"
    return dict(made.pairs)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=4))
def test_each_task_is_served_where_it_was_sent(sources: list[int]) -> None:
    assert placed(a_round(sources)) == dict(enumerate(sources))


def test_what_its_source_cannot_take_goes_elsewhere() -> None:
    assert placed(a_round([1, 1, 1], slots=2)) == {0: 1, 1: 1, 2: 0}, "no room there: the best of the others"
    assert placed(a_round([1, 0], price=12)) == {0: 0, 1: 0}, "its ask is above the price"
    assert placed(a_round([7, 2])) == {1: 2}, "a source that is not live: nobody can fetch from it"


def test_it_costs_value_and_so_needs_a_floor_below_greedys() -> None:
    refused = propose(a_round([1]), ASSOCIATED, 5.0, floor_bps=10_000)
    assert not isinstance(refused, Allocation)
    assert refused.code == "BELOW_FLOOR"
    assert placed(a_round([1]), floor_bps=3_000) == {0: 1}


def test_without_homes_it_is_the_greedy() -> None:
    draw = np.random.default_rng(3)
    table = Table(draw.random((3, 9)), np.ones(9, dtype=np.int64), np.array([2, 2, 2]), draw.random((3, 9)) < 0.8)
    plans = [TABLE_SOLVERS[name]().on_table(table, Search()).plan.tolist() for name in ("associated", "greedy-global")]
    assert plans[0] == plans[1]


def test_a_live_round_knows_where_inputs_lie() -> None:
    assert LiveRound(a_round([2, 7, 0])).table.home.tolist() == [2, -1, 0]
