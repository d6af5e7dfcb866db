"""Plans near the bound: a selection is the best of all selections, and no search passes over a better plan."""

import itertools
import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.allocator.mta import selection
from edgora.allocator.mta.blocks import BITS, Flat, words
from edgora.allocator.mta.lagrange import Lagrangian
from edgora.allocator.mta.nearby import Nearby
from edgora.allocator.mta.prices import core_of
from edgora.allocator.mta.selection import Selection
from edgora.allocator.mta.table import REJECTED, Table

PLAIN = {name: getattr(getattr(selection, name), "py_func", getattr(selection, name)) for name in ("_search", "_taken", "_reduced")}  # fmt: skip


@st.composite
def blocks(choose: st.DrawFn) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Up to four blocks' sets (k,c) with losses, and the tasks' multipliers; tasks across words or not."""
    count = choose(st.sampled_from([4, BITS, BITS + 1]))
    tasks = st.sampled_from([0, 1, 2, count - 2, count - 1])
    found = []
    for _ in range(choose(st.integers(1, 4))):
        chosen = choose(st.lists(st.frozensets(tasks, max_size=3), min_size=1, max_size=6, unique=True))
        sets = np.zeros((len(chosen), count), dtype=np.bool_)
        for row, held in zip(sets, chosen, strict=True):
            row[list(held)] = True
        losses = choose(st.lists(st.integers(0, 20), min_size=len(chosen), max_size=len(chosen)))
        found.append((sets, np.sort(np.array(losses, dtype=np.float64))))
    u = np.zeros(count)
    for j in (0, 1, 2, count - 2, count - 1):
        u[j] = choose(st.integers(0, 15))
    return found, u


@settings(deadline=None)
@given(blocks(), st.integers(1, 90), st.integers(1, 40))
def test_a_selection_loses_least_of_all_that_are_disjoint(case, gap: int, slice_: int) -> None:
    found, u = case
    starts = np.cumsum([0, *(len(losses) for _, losses in found)]).astype(np.int64)
    tasks = np.concatenate([words(sets) for sets, _ in found])
    flat = Flat(tasks, np.zeros(len(tasks)), starts)
    losses = np.concatenate([losses for _, losses in found])

    def loss(rows: tuple[int, ...]) -> float:
        held = np.array([found[b][0][row] for b, row in enumerate(rows)])
        if (held.sum(axis=0) > 1).any():
            return math.inf
        return float(sum(found[b][1][row] for b, row in enumerate(rows)) + u[~held.any(axis=0)].sum())

    least = min(map(loss, itertools.product(*(range(len(losses)) for _, losses in found))))

    def searched() -> tuple[float, list[int] | None, int]:
        search = Selection(flat, losses, u, float(gap))
        while not search.done:
            before = search.looks
            search.run(slice_)
            assert search.looks > before or search.done
        rows = search.rows
        if rows is None:
            assert search.loss == gap
            return search.loss, None, search.looks
        chosen = rows - starts[:-1]
        assert search.loss == pytest.approx(loss(tuple(chosen.tolist())))
        return search.loss, chosen.tolist(), search.looks

    told = searched()
    if least < gap:
        assert told[0] == pytest.approx(least)
        assert told[1] is not None
    else:
        assert told[1] is None
    with mock.patch.multiple(selection, **PLAIN):
        assert searched() == told


def small(n: int, m: int, real: bool, shared: bool, seed: int) -> Table:
    rng = np.random.default_rng(seed)
    weight = rng.uniform(1, 9, (n, m)) if real else rng.integers(1, 9, (n, m))
    room = rng.uniform(4, 20, n) if real else rng.integers(4, 20, n)
    return Table(rng.uniform(1, 30, (n, m)), weight[0] if shared else weight, room, rng.random((n, m)) < 0.9)


def worths(table: Table) -> dict[tuple[int, ...], float]:
    """Of every allowed plan."""
    plans = itertools.product(range(-1, table.n), repeat=table.m)
    return {plan: table.worth(np.array(plan)) for plan in plans if table.allows(np.array(plan))}


def nearby_of(table: Table, seed: int = 7) -> Nearby:
    core = core_of(table, np.arange(table.m))
    lagrangian = Lagrangian(core, np.zeros(table.n), 0.0, math.inf)
    lagrangian.run(60, 0.0)
    return Nearby(lagrangian, core.value, seed, lambda: False)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(2, 5), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_widening_passes_over_no_better_plan_and_ends_with_a_proof(
    n: int, m: int, real: bool, shared: bool, seed: int
) -> None:
    table = small(n, m, real, shared, seed)
    best = max(worths(table).values())
    nearby, worth = nearby_of(table), 0.0
    bound = nearby.bound
    nearby.settle(worth)
    assert best * (1 - 1e-9) <= nearby.bound <= bound
    if nearby.done:  # too many sets lose nothing
        return
    while not nearby.done and nearby.bound > worth * (1 + 1e-9):
        before = nearby.bound
        plan = nearby.widen(worth)
        if plan is not None:
            assert table.allows(table.without_overload(plan))
            worth = max(worth, table.worth(table.without_overload(plan)))
        assert best * (1 - 1e-9) <= nearby.bound <= before
    if not nearby.done:
        assert worth == pytest.approx(best, rel=1e-8)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 3), st.integers(2, 5), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_regrouping_gives_some_servers_the_best_of_what_they_and_nobody_hold(
    n: int, m: int, real: bool, shared: bool, seed: int
) -> None:
    """With fewer servers than a group it reaches the best plan at once, from any plan; and says so when it is there."""
    table = small(n, m, real, shared, seed)
    every = worths(table)
    rng = np.random.default_rng(seed)
    plan = np.array(list(every)[int(rng.integers(len(every)))])
    best = max(every.values())
    nearby = nearby_of(table)
    changed = nearby.regroup(plan)
    if changed is None:
        assert table.worth(plan) == pytest.approx(best, rel=1e-8)
        return
    assert table.allows(table.without_overload(changed))
    assert table.worth(table.without_overload(changed)) == pytest.approx(best, rel=1e-8)
    assert nearby.regroup(changed) is None


def test_a_regrouping_changes_few_servers_and_only_for_the_better() -> None:
    table = small(12, 30, real=True, shared=True, seed=3)
    plan = table.fill(table.rejected())
    better = 0
    for seed in range(40):
        nearby = nearby_of(table, seed)
        tried = (
            nearby.regroup(plan) for _ in range(5)
        )  # the first groups take too long, so far is this plan from the best
        changed = next((found for found in tried if found is not None), None)
        if changed is None:
            continue
        better += 1
        assert table.allows(changed)
        assert table.worth(changed) > table.worth(plan)
        moved = plan != changed
        assert len({*plan[moved].tolist(), *changed[moved].tolist()} - {REJECTED}) <= 8
    assert better


def test_where_nothing_can_be_served_there_is_nothing_to_search() -> None:
    table = Table(np.ones((2, 3)), np.ones(3), np.full(2, 9.0), np.zeros((2, 3), dtype=np.bool_))
    nearby = nearby_of(table)
    nearby.settle(0.0)
    assert nearby.done
    assert nearby.bound == 0.0
