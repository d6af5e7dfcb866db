"""Servers merged into groups: no union that a better plan holds is missing, and the bound comes down onto the optimum."""

import itertools
import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.allocator.mta import blocks, descent, draw
from edgora.allocator.mta.anytime import Anytime
from edgora.allocator.mta.blocks import Block, Flat, members, merged, profits, single, words
from edgora.allocator.mta.descent import Descent
from edgora.allocator.mta.lagrange import Lagrangian
from edgora.allocator.mta.prices import core_of
from edgora.allocator.mta.table import REJECTED, Table
from edgora.allocator.search import Search


@st.composite
def lists(choose: st.DrawFn) -> tuple[int, list[tuple[np.ndarray, np.ndarray]]]:
    """How many tasks, across words or not, and two servers' sets and values."""
    count = choose(st.sampled_from([4, 62, 63, 130]))
    tasks = st.sampled_from([0, 1, 2, count // 2, count - 2, count - 1])
    found = []
    for _ in range(2):
        chosen = choose(st.lists(st.frozensets(tasks, max_size=4), min_size=1, max_size=12, unique=True))
        sets = np.zeros((len(chosen), count), dtype=np.bool_)
        for row, tasks_ in zip(sets, chosen, strict=True):
            row[list(tasks_)] = True
        value = np.array(choose(st.lists(st.integers(1, 50), min_size=count, max_size=count)), dtype=np.float64)
        found.append((sets, value))
    return count, found


def listed(block: Block, count: int) -> dict[frozenset[int], float]:
    rows = [frozenset(np.flatnonzero(row).tolist()) for row in members(block.tasks, count)]
    assert len(rows) == len(set(rows))
    return dict(zip(rows, block.value.tolist(), strict=True))


@settings(deadline=None)
@given(lists(), st.integers(0, 150), st.sampled_from([0.0, 0.6, 1.0]), st.integers(0, 2**32 - 1))
def test_a_merged_block_holds_every_disjoint_union_that_is_good_enough(
    case, most_loss: int, wanted: float, seed: int
) -> None:
    count, servers = case
    rng = np.random.default_rng(seed)
    u = rng.integers(0, 40, count).astype(np.float64)
    shared = rng.random(count) < wanted
    kernels = [
        blocks._packed, blocks._profits, blocks.sums, blocks._slot, blocks._distinct, blocks._table_size, blocks._signs,
        blocks._signed, blocks._unions,
    ]  # fmt: skip
    plain = {kernel.__name__: getattr(kernel, "py_func", kernel) for kernel in kernels}

    def both_ways() -> tuple[Block, dict[frozenset[int], float]]:
        mine = [single(i, sets, value) for i, (sets, value) in enumerate(servers)]
        for at, (block, (sets, value)) in enumerate(zip(mine, servers, strict=True)):
            profit = profits(Flat.of([block], block.tasks.shape[1]), u)
            assert profit.tolist() == (sets @ (value - u)).tolist()
            order = np.argsort(-profit, kind="stable")
            mine[at], losses[at] = block.only(order), profit.max() - profit[order]
            parts[at] = profit.max()
        held = members(mine[0].union() | mine[1].union(), count)
        found = merged(
            *mine, (losses[0], losses[1]), float(most_loss), 144, words(shared[None])[0], sum(parts) + u[held].sum()
        )
        assert found is not None
        best: dict[frozenset[int], float] = {}
        for (a, first), (b, second) in itertools.product(*(enumerate(members(block.tasks, count)) for block in mine)):
            if not (first & second).any() and losses[0][a] + losses[1][b] <= most_loss:
                union = frozenset(np.flatnonzero((first | second) & shared).tolist())
                best[union] = max(best.get(union, -np.inf), float(mine[0].value[a] + mine[1].value[b]))
        return found, best

    losses, parts = [np.zeros(0)] * 2, [0.0] * 2
    both, best = both_ways()
    assert listed(both, count) == best

    held = np.zeros((2, count), dtype=np.bool_)
    both.mark(held)
    for row, worth in enumerate(both.value.tolist()):  # what a set is worth is what its servers' tasks are worth
        plan = np.full(count, REJECTED, dtype=np.int64)
        both.give(row, plan)
        assert worth == sum(servers[i][1][plan == i].sum() for i in range(2))
        assert all(held[i][plan == i].all() for i in range(2))
        assert set(np.flatnonzero((plan != REJECTED) & shared)) == set(np.flatnonzero(members(both.tasks[row], count)))

    with mock.patch.multiple(blocks, **plain):
        again, _ = both_ways()
    assert listed(again, count) == best


def test_too_many_unions_are_none() -> None:
    sets = np.eye(6, dtype=np.bool_)
    one, other = single(0, sets, np.ones(6)), single(1, sets, np.ones(6))
    losses = np.zeros(6), np.zeros(6)
    assert merged(one, other, losses, 0.0, 14, words(np.ones((1, 6), dtype=np.bool_))[0], 12.0) is None
    both = merged(one, other, losses, 0.0, 15, words(np.ones((1, 6), dtype=np.bool_))[0], 12.0)
    assert both is not None
    assert len(both) == 15  # of the 30, each union stands twice


def test_tasks_that_nobody_else_wants_leave_the_sets_and_the_best_stays() -> None:
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=np.bool_)
    seen = single(3, sets, np.array([5.0, 2.0, 4.0])).seen(words(np.array([[True, False, False]]))[0])
    assert listed(seen, 3) == {frozenset({0}): 7.0, frozenset(): 6.0}
    plan = np.full(3, REJECTED, dtype=np.int64)
    seen.give(seen.value.argmax(), plan)
    assert plan.tolist() == [3, 3, REJECTED]


def searching(table: Table) -> Anytime:
    """A search that has its plan and the Lagrangian bound."""
    anytime = Anytime(table, Search(), None)
    anytime.first()
    anytime.tighten(1.0, converged=0.01)
    return anytime


def optimum(table: Table) -> float:
    """The best of all plans, server by server over the sets of tasks left."""
    weight, best = table.weights(), {frozenset(range(table.m)): 0.0}
    for i in range(table.n):
        able = [j for j in range(table.m) if table.feasible[i, j]]
        fits = [
            (frozenset(chosen), float(table.value[i, list(chosen)].sum()))
            for size in range(len(able) + 1)
            for chosen in itertools.combinations(able, size)
            if weight[i, list(chosen)].sum() <= table.room[i]
        ]
        after: dict[frozenset[int], float] = {}
        for left, worth in best.items():
            for chosen, more in fits:
                if chosen <= left:
                    after[left - chosen] = max(after.get(left - chosen, -np.inf), worth + more)
        best = after
    return max(best.values())


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 4), st.integers(3, 8), st.booleans(), st.sets(st.integers(0, 3)), st.integers(0, 2**32 - 1))
def test_the_bound_over_lists_falls_and_holds(n: int, m: int, real: bool, unlisted: set[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.uniform(1, 9, m) if real else rng.integers(1, 9, m)
    room = rng.uniform(4, 20, n) if real else rng.integers(4, 20, n)
    table = Table(rng.uniform(1, 30, (n, m)), weight, room, np.ones((n, m), dtype=np.bool_))
    core = core_of(table, np.arange(m))
    u = rng.uniform(0, 15, m)
    lagrangian = Lagrangian(core, np.zeros(n), 0.0, math.inf)
    before = lagrangian.at(u)[0]
    sets = lagrangian.sets(u, math.inf, 1_000, [i for i in range(n) if i not in unlisted])
    listed_ = list(sets.values())
    rest = [i for i in range(n) if i not in sets]

    found = Descent(listed_, rest, lagrangian, u, 0.0)
    assert optimum(table) * (1 - 1e-9) <= found.bound <= before * (1 + 1e-9)
    assert lagrangian.at(found.u)[0] == pytest.approx(found.bound, rel=1e-9)
    for block, part, loss in zip(listed_, found.parts, found.losses, strict=True):
        assert part - loss == pytest.approx(profits(Flat.of([block], 1), found.u))
        assert loss.min() >= -1e-9
    assert ((found.share >= 0) & (found.share <= 1)).all()
    with mock.patch.object(descent, "_descend", getattr(descent._descend, "py_func", descent._descend)):
        again = Descent(listed_, rest, lagrangian, u, 0.0)
    assert (again.bound, again.u.tolist(), again.evaluations) == (found.bound, found.u.tolist(), found.evaluations)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 4), st.integers(3, 8), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_merging_finds_and_proves_the_best_of_all_plans(n: int, m: int, real: bool, shared: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.uniform(1, 9, (n, m)) if real else rng.integers(1, 9, (n, m))
    weight = weight[0] if shared else weight
    room = rng.uniform(4, 20, n) if real else rng.integers(4, 20, n)
    table = Table(rng.uniform(1, 30, (n, m)), weight, room, rng.random((n, m)) < 0.9)
    anytime = searching(table)
    anytime.merge()
    best = optimum(table)
    assert anytime.worth <= best * (1 + 1e-9)
    assert anytime.bound >= best * (1 - 1e-9)
    assert anytime.proven


@pytest.mark.parametrize(("seed", "best"), [(15, 30_796.288), (14, 22_819.528)])
def test_merging_proves_what_the_bound_of_single_servers_leaves_open(seed: int, best: float) -> None:
    table = draw(seed).table
    anytime = Anytime(table, Search(seed), 60_000)  # of rounds: the same plan again
    anytime.first()
    anytime.improve(0.3)
    anytime.tighten(0.8, converged=0.01)
    assert not anytime.proven
    before, pairs = anytime.bound, anytime.pairs
    anytime.merge()
    assert best * (1 - 1e-6) <= anytime.bound <= before
    assert (anytime.bound - best) < 0.5 * (before - best)
    assert anytime.pairs < pairs


def test_merging_ends_when_it_is_told_to() -> None:
    calls, last = itertools.count(), math.inf
    anytime = Anytime(draw(14).table, Search(stopped=lambda: next(calls) > last), None)
    anytime.first()
    anytime.tighten(1.0, converged=0.01)
    before, last = anytime.bound, next(calls) + 40  # while the servers' sets are listed, or soon after
    anytime.merge()
    assert not anytime.proven
    assert anytime.worth < anytime.bound <= before
    assert last < next(calls) < last + 400
