"""Exchanges of tasks of one weight: optimal where all weigh the same, never worse, never over a room."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from edgora.allocator.mta import Table, draw
from edgora.allocator.mta.exchange import exchanged, worthwhile
from edgora.allocator.mta.prices import core_of, priced
from edgora.allocator.mta.table import REJECTED


def _table(seed: int, n: int, m: int, weights: list[int]) -> Table:
    rng = np.random.default_rng(seed)
    value = rng.uniform(-0.2, 1.0, (n, m)).round(3)
    return Table(
        value,
        rng.choice(np.array(weights), m),
        rng.integers(0, 1 + max(weights) * 2 * m // n, n),
        rng.random((n, m)) < 0.8,
    )


def _greedy(table: Table) -> np.ndarray:
    return table.fill(table.rejected())


def _optimum(table: Table) -> float:
    """By linear programming: with one weight the polytope's corners are whole, rooms being rounded down to tasks."""
    n, m = table.n, table.m
    rows = [np.kron(np.eye(n)[i], np.ones(m)) for i in range(n)] + [np.tile(np.eye(m)[j], n) for j in range(m)]
    limits = [int(room) // int(table.weight[0]) for room in table.room] + [1] * m
    upper = np.where(table.feasible.ravel(), 1.0, 0.0)
    found = linprog(
        -table.value.ravel(), A_ub=np.array(rows), b_ub=limits, bounds=list(zip(upper * 0, upper, strict=True))
    )
    return float(-found.fun)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(3, 14))
def test_with_one_weight_nothing_is_better(seed, n, m):
    table = _table(seed, n, m, [7])
    core = core_of(table, np.arange(m))
    prices = priced(table)
    for nu in (prices.nu, np.zeros(n)):  # wherever the search begins
        for start in (_greedy(table), table.rejected()):
            plan = exchanged(core, nu, start)
            assert table.allows(plan)
            assert table.worth(plan) == pytest.approx(_optimum(table), abs=1e-6)


def test_exchanges_that_are_cut_short_leave_the_other_weights_alone():
    table = _table(4, 5, 40, [5, 6, 9])
    core, start, nu = core_of(table, np.arange(40)), table.rejected(), np.zeros(5)
    for weights in range(4):
        plan = exchanged(core, nu, start, iter([False] * weights + [True]).__next__)
        moved = set(table.weight[plan != start].tolist())
        assert moved == set([5, 6, 9][:weights])
        assert table.allows(plan)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(4, 12))
def test_with_more_weights_no_two_of_one_weight_should_change_places(seed, n, m):
    table = _table(seed, n, m, [5, 6, 9])
    core = core_of(table, np.arange(m))
    start = _greedy(table)
    plan = exchanged(core, priced(table).nu, start)
    assert table.allows(plan)
    assert table.worth(plan) >= table.worth(start)
    heaviest = int(table.weight.max())
    for a, b in itertools.combinations(range(m), 2):
        if table.weight[a] != table.weight[b] or table.weight[a] != heaviest:  # the last weight that was gone through
            continue
        swapped = plan.copy()
        swapped[a], swapped[b] = plan[b], plan[a]
        if table.allows(swapped):
            assert table.worth(swapped) <= table.worth(plan) + 1e-6


def test_a_plan_of_a_wide_table_gains_and_keeps_to_its_rooms():
    table = draw(3, {"n": 20, "m": 800, "cap_scale": 20.0}).table
    found = priced(table)
    assert worthwhile(found.core)
    start = np.full(len(found.core.tasks), REJECTED)
    for j in range(len(start)):  # each task somewhere it fits, in turn
        weight = found.core.weight[0]
        loads = np.bincount(start[start >= 0], weights=weight[start >= 0], minlength=20)
        fits = np.flatnonzero(np.isfinite(found.core.value[:, j]) & (loads + weight[j] <= found.core.room))
        if len(fits):
            start[j] = fits[j % len(fits)]
    plan = exchanged(found.core, found.nu, start)
    whole, before = table.rejected(), table.rejected()
    whole[found.core.tasks], before[found.core.tasks] = plan, start
    assert table.allows(before)
    assert table.allows(whole)
    assert table.worth(whole) > 1.02 * table.worth(before)
    assert found.bound >= table.worth(whole)


def test_few_tasks_of_each_weight_are_left_alone():
    assert not worthwhile(priced(draw(0).table).core)
    assert not worthwhile(priced(draw(0, {"draw": "real"}).table).core)
