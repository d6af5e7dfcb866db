"""`priced` and what it is made of: knapsacks, prices, rebuilding, the Lagrangian bound, branch and bound (mta.md 9, 13)."""

import itertools
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.allocator import solve
from edgora.allocator.compiled import COMPILED
from edgora.allocator.mta import Table, anytime, draw, knapsack, learner, prices
from edgora.allocator.mta.anytime import Anytime
from edgora.allocator.mta.prices import core_of, dual, priced, reachable
from edgora.allocator.mta.rebuild import build
from edgora.allocator.mta.solvers.priced import Priced
from edgora.allocator.search import Search
from edgora.wire.errors import Refused


def by_enumeration(table: Table) -> float:
    return max(
        table.worth(np.array(plan, dtype=np.int64))
        for plan in itertools.product(range(-1, table.n), repeat=table.m)
        if table.allows(np.array(plan, dtype=np.int64))
    )


def packed(profit: list[float], weight: list[float], room: float, unit: float, rounded: bool) -> tuple[float, float]:
    """`pack`, after its solution has been checked."""
    count = len(profit)
    p, w, take = np.array(profit), np.array(weight), np.zeros(count, dtype=bool)
    value, bound = knapsack.pack(
        count, p, w, room, unit, rounded, take, *knapsack.workspace(count, room if unit else 0.0)
    )
    assert w[take].sum() <= room * (1 + 1e-12)
    assert p[take].sum() == pytest.approx(value, rel=1e-12, abs=1e-12)
    assert value <= bound
    return value, bound


def best_subset(profit: list[float], weight: list[float], room: float) -> float:
    chosen = np.array(list(itertools.product((0.0, 1.0), repeat=len(profit))))
    return float((chosen @ np.array(profit))[chosen @ np.array(weight) <= room].max())


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.015625, 100, width=32), st.integers(1, 30)), min_size=1, max_size=11),
    st.integers(0, 90),
)
def test_a_knapsack_of_small_integers_is_exact_on_cells_and_on_states(
    items: list[tuple[float, int]], room: int
) -> None:
    profit, weight = [p for p, _ in items], [float(w) for _, w in items]
    best = best_subset(profit, weight, room)
    for unit in (1.0, 0.0):
        value, bound = packed(profit, weight, float(room), unit, rounded=False)
        assert value == pytest.approx(best, rel=1e-11)
        assert bound == pytest.approx(best, rel=1e-11)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 9), st.floats(0.5, 9)), min_size=1, max_size=11), st.floats(0, 40))
def test_a_knapsack_of_reals_is_exact_and_rounded_ones_are_allowed(
    items: list[tuple[float, float]], room: float
) -> None:
    profit, weight = [p for p, _ in items], [w for _, w in items]
    best = best_subset(profit, weight, room)
    value, bound = packed(profit, weight, room, 0.0, rounded=False)
    assert bound >= best * (1 - 1e-12)
    assert value == pytest.approx(best, rel=1e-9)
    assert packed(profit, weight, room, 0.0, rounded=True)[0] <= best * (1 + 1e-12)


def test_a_knapsack_of_huge_integers_takes_the_exact_sum() -> None:
    """Fuel of live rounds: a difference of one unit in 2^47 decides."""
    huge = float(2**47)
    assert packed([3.0, 2.0, 2.0], [huge, huge / 2 + 1, huge / 2], huge, 1.0, rounded=False)[0] == 3.0
    assert packed([3.0, 2.0, 2.0], [huge, huge / 2, huge / 2], huge, 1.0, rounded=False)[0] == 4.0


def test_a_knapsack_of_thousands_of_reals_stays_within_its_workspace() -> None:
    """Too many items for the cells: the list's best solution is what there is."""
    rng = np.random.default_rng(1)
    weight = rng.uniform(1.0, 2.0, 6_000)
    value, bound = packed(
        (weight * rng.uniform(1.0, 1.0 + 1e-6, 6_000)).tolist(), weight.tolist(), 4_000.0, 0.0, rounded=True
    )
    assert 0.999 * bound <= value


def test_a_knapsack_that_is_cut_short_still_has_a_proven_bound() -> None:
    """Equal efficiencies and no exact filling: the list of states outgrows its workspace."""
    rng = np.random.default_rng(2)
    weight = rng.uniform(1.0, 2.0, 400)
    value, bound = packed((weight * (1 + 1e-7 * rng.random(400))).tolist(), weight.tolist(), 100.0, 0.0, rounded=False)
    assert 99.0 < value <= bound <= 100.0 * (1 + 2e-7)


@st.composite
def tables(choose: st.DrawFn) -> Table:
    """Weights by server or shared, small and huge integers or reals, values of either sign."""
    n, m = choose(st.sampled_from([(1, 6), (2, 5), (3, 4), (4, 3)]))
    seed, kind = choose(st.integers(0, 10**6)), choose(st.sampled_from(["shared", "integer", "fuel", "real"]))
    rng = np.random.default_rng(seed)
    value = rng.uniform(-0.3, 1.0, (n, m)) * rng.choice([1.0, 1e6])
    feasible = rng.random((n, m)) < 0.8
    shape = (m,) if kind == "shared" else (n, m)
    if kind == "real":
        return Table(value, rng.uniform(1, 3, shape), rng.uniform(0, 7, n), feasible)
    top = 10**12 if kind == "fuel" else 9
    return Table(value, rng.integers(1, top, shape), rng.integers(0, 3 * top, n), feasible)


@settings(max_examples=60, deadline=None)
@given(tables())
def test_bounds_hold_and_plans_are_allowed_at_every_step(table: Table) -> None:
    optimum = by_enumeration(table)
    search = Search(3)
    anytime = Anytime(table, search, 400)
    steps = [anytime.first, lambda: anytime.improve(0.3), lambda: anytime.tighten(0.6, 0.01), lambda: anytime.branch(0.8),
             lambda: anytime.improve(1.0)]  # fmt: skip
    for step in steps:
        step()
        assert table.allows(anytime.plan)
        assert anytime.worth == pytest.approx(table.worth(anytime.plan), rel=1e-12, abs=1e-12)
        assert anytime.worth <= optimum * (1 + 1e-12) + 1e-12
        assert anytime.bound >= optimum * (1 - 1e-9)
        if anytime.proven:
            assert anytime.worth == pytest.approx(optimum, rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(tables())
def test_small_tables_are_solved_to_the_optimum(table: Table) -> None:
    found = Priced(rounds=30_000).on_table(table, Search(1))
    assert found.status == "optimal"
    assert table.worth(found.plan) == pytest.approx(by_enumeration(table), rel=1e-9, abs=1e-12)


def linear_bound(table: Table) -> float:
    """The LP bound by SciPy."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, vstack

    i, j = np.nonzero(table.feasible & (table.value > 0))
    k = np.arange(len(i))
    rows = vstack([
        csr_matrix((table.weights()[i, j], (i, k)), shape=(table.n, len(k))),
        csr_matrix((np.ones(len(k)), (j, k)), shape=(table.m, len(k))),
    ])  # fmt: skip
    return -float(linprog(-table.value[i, j], A_ub=rows, b_ub=np.r_[table.room, np.ones(table.m)], method="highs").fun)


@pytest.mark.parametrize(
    "options", [{}, {"n": 20, "m": 200}, {"draw": "real"}, {"n": 7, "m": 3}, {"cap_scale": 0.2}], ids=str
)
def test_prices_find_the_lp_bound(options: dict[str, object]) -> None:
    drawn = draw(5, options).table
    found = priced(drawn)
    table = Table(drawn.value, drawn.weight, reachable(drawn), drawn.feasible)
    least = linear_bound(table)
    assert least * (1 - 1e-9) <= found.bound <= least * 1.0008
    assert found.bound == pytest.approx(table.priced_bound(found.nu), rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.integers(0, 60), st.integers(0, 2**9 - 1))
def test_reachable_rooms_are_what_some_set_of_tasks_fills(weights: list[int], room: int, mask: int) -> None:
    """Exactly where all tasks of a weight are feasible or none; never less than any feasible set weighs."""
    weight = np.array(weights)
    feasible = np.array([bool(mask >> w % 9 & 1) for w in weights]) & (weight <= room)
    table = Table(np.ones((1, len(weights))), weight, np.array([room]), feasible[None, :])
    fillable = {sum(c) for k in range(len(weights) + 1) for c in itertools.combinations(weight[feasible].tolist(), k)}
    expected = max(total for total in fillable if total <= room)
    assert reachable(table)[0] == (expected if room <= 8 * weight.mean() else room)
    assert (
        reachable(Table(np.ones((1, len(weights))), weight * 1.0, np.array([room * 1.0]), feasible[None, :]))[0] == room
    )


def test_a_price_bound_sees_room_that_no_tasks_can_fill() -> None:
    """Three tasks of 10 at 9 a unit on a server of 27: two fit, and the bound from prices says so."""
    table = Table(np.full((1, 3), 90.0), np.array([10, 10, 10]), np.array([27]), np.ones((1, 3), dtype=bool))
    assert priced(table).bound == pytest.approx(180.0, rel=1e-3)


def test_a_knapsack_of_many_equal_weights_is_exact() -> None:
    """Of equally heavy items only as many as fit are looked at."""
    rng = np.random.default_rng(4)
    weight, profit = rng.integers(10, 21, 400).astype(float), rng.uniform(1, 9, 400)
    for room in (5.0, 27.0, 64.0, 151.0):
        best = np.zeros(int(room) + 1)
        for w, p in zip(weight.astype(int).tolist(), profit.tolist(), strict=True):
            best[w:] = np.maximum(best[w:], best[: len(best) - w] + p) if w < len(best) else best[w:]
        for unit in (1.0, 0.0):
            value, bound = packed(profit.tolist(), weight.tolist(), room, unit, rounded=False)
            assert value == pytest.approx(best[-1], rel=1e-11)
            assert bound == pytest.approx(best[-1], rel=1e-11)


@settings(max_examples=60, deadline=None)
@given(st.integers(13, 16), st.integers(0, 10**6), st.floats(0.5, 12))
def test_a_knapsack_that_holds_few_of_many_reals_is_exact(count: int, seed: int, room: float) -> None:
    """Items that enough others beat in both worth and weight are left out; ties in either are common."""
    rng = np.random.default_rng(seed)
    profit, weight = rng.integers(1, 9, count) / 2.0, rng.choice([1.5, 2.0, 2.5, 3.25, 6.0], count)
    value, bound = packed(profit.tolist(), weight.tolist(), room, 0.0, rounded=False)
    best = best_subset(profit.tolist(), weight.tolist(), room)
    assert value == pytest.approx(best, rel=1e-11)
    assert bound == pytest.approx(best, rel=1e-11)


def test_a_server_that_few_tasks_suit_is_priced_well_in_a_large_table() -> None:
    """Seeds whose slow servers hardly any of 20,000 tasks meets in time: a sample of the tasks says nothing of them."""
    for seed in (2, 4):
        table = draw(seed, {"n": 200, "m": 20_000}).table
        anytime = Anytime(table, Search(seed), 10)
        anytime.first()
        assert table.allows(anytime.plan)
        assert anytime.worth >= 0.998 * anytime.bound


def test_a_large_table_keeps_a_core_and_its_bound_is_of_the_whole_table() -> None:
    table = draw(2, {"n": 60, "m": 12_000}).table
    found = priced(table)
    assert len(found.core.tasks) < 2_500
    filled = Table(table.value, table.weight, reachable(table), table.feasible)
    assert found.bound == pytest.approx(filled.priced_bound(found.nu), rel=1e-9)
    outside = np.setdiff1d(np.arange(table.m), found.core.tasks)
    best = np.where(table.feasible, table.value - found.nu[:, None] * table.weights(), -np.inf).max(axis=0)
    assert np.allclose(found.outside[outside], best[outside])
    assert np.isneginf(found.outside[found.core.tasks]).all()
    plan = Priced(rounds=100).on_table(table, Search()).plan
    assert table.allows(plan)
    assert table.worth(plan) >= 0.997 * found.bound


def test_any_prices_bound_the_core() -> None:
    table = draw(1).table
    core = core_of(table, np.arange(table.m))
    rng = np.random.default_rng(0)
    for _ in range(5):
        nu = rng.uniform(0, 40, table.n)
        assert dual(core, nu) == pytest.approx(table.priced_bound(nu), rel=1e-12)


def test_the_lagrangian_bound_is_tighter_than_the_lps() -> None:
    """mta.md 13: column generation's bound is 0.02-0.25 % above the optimum, the LP's 0.1-2 %."""
    for seed, optimum in ((2, 27_027.565961), (19, 27_755.789636)):  # proven by HiGHS on the printed model
        anytime = Anytime(draw(seed).table, Search(seed), 60_000)
        anytime.first()
        linear = anytime.bound
        anytime.improve(0.2)
        anytime.tighten(0.9, 0.01)
        assert optimum * (1 - 1e-9) <= anytime.bound < optimum * 1.0016
        assert anytime.bound - optimum < 0.3 * (linear - optimum)


def test_rounds_repeat_digit_for_digit_and_a_seed_matters() -> None:
    instance = draw(6)
    first, second = (solve("mta", "priced", instance, seed=4, settings={"rounds": 1_500}) for _ in range(2))
    assert (first.plan, first.objective, first.bound) == (second.plan, second.objective, second.bound)
    assert first.info["rounds"] <= 1_500
    assert first.info["status"] in {"done", "optimal"}
    others = {solve("mta", "priced", draw(0), seed=s, settings={"rounds": 300}).objective for s in range(6)}
    assert len(others) > 1


@pytest.mark.parametrize("rounds", [0, -1, 1.5, "many"])
def test_rounds_are_a_positive_whole_number(rounds: object) -> None:
    with pytest.raises(Refused):
        solve("mta", "priced", draw(0), settings={"rounds": rounds})


@pytest.mark.parametrize("options", [{}, {"draw": "real"}, {"n": 10, "m": 120, "cap_scale": 3}], ids=str)
def test_own_solver_is_never_below_the_papers_and_the_greedy_ones(options: dict[str, object]) -> None:
    for seed in range(3):
        instance = draw(seed, options)
        ours = solve("mta", "priced", instance, settings={"rounds": 2_000})
        assert ours.bound >= ours.objective
        for name in ("greedy", "greedy-global", "random", "qlearning"):
            assert solve("mta", name, instance, seed=seed).objective <= ours.objective


def test_more_time_is_never_worse_and_the_first_plan_is_near() -> None:
    instance = draw(3)
    heard: list[tuple[float, float | None]] = []
    found = solve("mta", "priced", instance, time_limit_s=0.3, report=lambda worth, bound: heard.append((worth, bound)))
    assert [worth for worth, _ in heard] == sorted(worth for worth, _ in heard)
    assert heard[0][0] >= 0.97 * found.objective
    assert all(bound is not None and bound >= found.objective * (1 - 1e-9) for _, bound in heard)


def test_prices_of_a_sample_are_made_better_only_while_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that was stopped ends with the plan that the sample's prices gave."""
    calls: list[Table] = []
    made_better = anytime.refined

    def refined(table: Table, *rest: Any) -> Any:
        calls.append(table)
        return made_better(table, *rest)

    monkeypatch.setattr(anytime, "refined", refined)
    monkeypatch.setattr(anytime, "_ROUGH", -1.0)
    monkeypatch.setattr(prices, "_WHOLE_PAIRS", 100)  # as for a table of millions of pairs
    table = draw(0, {"n": 20, "m": 1000}).table
    for stopped, times in ((True, 0), (False, 1)):
        search = Search(stopped=lambda answer=stopped: answer)
        Anytime(table, search, None).first()
        assert search.best is not None
        assert table.allows(search.best.plan)
        assert len(calls) == times


@pytest.mark.parametrize("seed", range(3))
def test_where_rooms_are_wide_plans_from_colder_prices_leave_less_of_the_gap(seed: int) -> None:
    table = draw(seed, {"n": 20, "m": 2_000, "cap_scale": 40.0}).table
    search = Anytime(table, Search(), 10)
    search.first()
    worth, bound = search.worth, search.bound
    search.cool(1.0)
    assert bound >= search.bound >= search.worth >= worth
    assert search.bound - search.worth < 0.5 * (bound - worth)
    assert table.allows(search.plan)
    assert table.worth(search.plan) == search.worth


def test_a_plan_that_is_cut_short_leaves_the_other_servers_empty() -> None:
    table = draw(2, {"n": 8, "m": 60}).table
    found = priced(table)
    order = np.argsort(-found.nu, kind="stable")
    whole = build(found.core, found.nu, order)
    for servers in range(9):
        plan = build(found.core, found.nu, order, iter([False] * servers + [True]).__next__)
        assert np.array_equal(plan, np.where(np.isin(whole, order[:servers]), whole, -1))


def test_it_stops_when_told_and_at_its_limit() -> None:
    instance, stop = draw(1, {"n": 30, "m": 300}), threading.Event()
    threading.Timer(0.2, stop.set).start()
    found = solve("mta", "priced", instance, time_limit_s=60, stopped=stop.is_set)
    assert found.info["status"] == "interrupted"
    assert found.objective > 0
    for limit_s in (1e-6, 1e-3, 3e-2):
        cut = solve("mta", "priced", instance, time_limit_s=limit_s)
        assert cut.objective is not None
        assert cut.info["status"] in {"time_limit", "optimal"}
        assert cut.bound >= found.objective * (1 - 1e-9)


def test_scaling_values_scales_the_result() -> None:
    table = draw(8, {"n": 6, "m": 25}).table
    scaled = Table(table.value * 2.0**-30, table.weight, table.room, table.feasible)
    one, other = (Priced(rounds=1_000).on_table(t, Search(2)) for t in (table, scaled))
    assert other.bound == pytest.approx(one.bound * 2.0**-30, rel=1e-9)
    assert scaled.worth(other.plan) == pytest.approx(table.worth(one.plan) * 2.0**-30, rel=2e-3)


def test_the_order_of_servers_and_tasks_does_not_matter_to_a_proof() -> None:
    table = draw(8, {"n": 4, "m": 12, "cap_scale": 0.4}).table
    rng = np.random.default_rng(5)
    servers, tasks = rng.permutation(4), rng.permutation(12)
    moved = Table(table.value[np.ix_(servers, tasks)], table.weight[tasks], table.room[servers],
                  table.feasible[np.ix_(servers, tasks)])  # fmt: skip
    one, other = (Priced(rounds=20_000).on_table(t, Search(2)) for t in (table, moved))
    assert one.status == other.status == "optimal"
    assert moved.worth(other.plan) == pytest.approx(table.worth(one.plan), rel=1e-9)


@pytest.mark.skipif(not COMPILED, reason="numba is not installed: there is one path only")
def test_kernels_compute_the_same_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole search and both learners, digit for digit."""
    from edgora.allocator.mta import branch, lagrange, prices, rebuild

    small, plain = draw(4, {"n": 5, "m": 14, "cap_scale": 0.5}), draw(4, {"n": 5, "m": 14, "draw": "real"})
    runs = [
        (solver, instance, settings_)
        for instance in (small, plain)
        for solver, settings_ in [
            ("priced", {"rounds": 150}), ("qlearning", {"episodes": 8}), ("qlearning-paper", {"episodes": 8}),
        ]
    ]  # fmt: skip
    compiled = [solve("mta", solver, instance, seed=7, settings=chosen) for solver, instance, chosen in runs]
    for module in (knapsack, prices, rebuild, lagrange, branch, learner):
        for name, kernel in vars(module).copy().items():
            if hasattr(kernel, "py_func"):
                monkeypatch.setattr(module, name, kernel.py_func)
    monkeypatch.setattr(learner, "COMPILED", False)  # its other container, too
    for (solver, instance, chosen), fast in zip(runs, compiled, strict=True):
        slow = solve("mta", solver, instance, seed=7, settings=chosen)
        assert (slow.plan, slow.objective, slow.reward_sum) == (fast.plan, fast.objective, fast.reward_sum)
        assert slow.bound == (None if fast.bound is None else pytest.approx(fast.bound, rel=1e-12))


def test_a_search_on_another_clock() -> None:
    """Benchmarks of CPU seconds: the deadline is an instant of whatever clock the search has."""
    began = time.process_time()
    found = Priced().on_table(draw(0).table, Search(0, began + 0.05, clock=time.process_time))
    assert found.status in {"time_limit", "optimal"}
    assert Search(deadline=began, clock=time.process_time).over()
    assert not Search(deadline=time.monotonic() + 60, clock=lambda: 0.0).over()
