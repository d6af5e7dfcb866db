"""The solvers of mta.md 7 and 13: the specification's figures, exhaustive search, order of tasks and servers, stopping."""

import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.allocator import solve
from edgora.allocator.mta import Instance, Table, draw
from edgora.allocator.mta.instance import dump, load
from edgora.allocator.mta.solvers import PAPER_SOLVERS, TABLE_SOLVERS
from edgora.allocator.mta.solvers.exact import Exact
from edgora.allocator.mta.solvers.greedy_global import GreedyGlobal
from edgora.allocator.search import Found, Search

ALLOWED = sorted(TABLE_SOLVERS)


def test_every_name_of_the_specification_that_is_built_so_far() -> None:
    assert {*TABLE_SOLVERS, *PAPER_SOLVERS} >= {
        "random-naive", "random", "greedy-naive", "greedy", "greedy-global", "exact",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("solver", "rewards", "utility"),
    [
        ("random-naive", 16_340, 13_037),
        ("random", None, 17_409),
        ("greedy-naive", 36_846, 5_833),
        ("greedy", None, 22_743),
        ("greedy-global", None, 26_349),
    ],
)
def test_table_8_4(solver: str, rewards: float | None, utility: float) -> None:
    """Means over 20 x 50, seeds 0..23, solver seed = instance seed."""
    found = [solve("mta", solver, draw(seed), seed=seed) for seed in range(24)]
    worth = [s.settlement if s.objective is None else s.objective for s in found]
    assert round(float(np.mean(worth))) == utility
    if rewards is not None:
        assert round(float(np.mean([s.reward_sum for s in found]))) == rewards


def by_the_printed_constraints(instance: Instance) -> float:
    """The optimum of mta.md 4 and 5 as printed, over all pairs and in cycles, by SciPy's front end."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    model, n, m = instance.model, instance.n, instance.m
    capacity = np.zeros((n, n, m))
    capacity[np.arange(n), np.arange(n)] = model.cycles
    once = np.tile(np.eye(m), (1, n))
    found = milp(
        -model.value.ravel(),
        constraints=[
            LinearConstraint(capacity.reshape(n, n * m), -np.inf, instance.capacity),
            LinearConstraint(once, -np.inf, 1),
        ],
        integrality=np.ones(n * m),
        bounds=Bounds(0, model.feasible.ravel().astype(float)),
        options={"mip_rel_gap": 0.0},
    )
    assert found.success
    return -float(found.fun)


@pytest.mark.parametrize("seed", [23, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 17, 19, 20))])
def test_default_instances_are_proven_at_the_printed_models_optimum(seed: int) -> None:
    found = solve("mta", "exact", draw(seed), time_limit_s=250)
    assert found.proven
    assert found.objective == pytest.approx(by_the_printed_constraints(draw(seed)), rel=1e-7)


def best_by_enumeration(table: Table) -> float:
    """The optimum over all (n+1)^m plans."""
    return max(
        table.worth(np.array(plan, dtype=np.int64))
        for plan in itertools.product(range(-1, table.n), repeat=table.m)
        if table.allows(np.array(plan, dtype=np.int64))
    )


@st.composite
def small_instances(choose: st.DrawFn) -> Instance:
    n, m = choose(st.sampled_from([(1, 6), (2, 5), (3, 4), (4, 3)]))
    settings_ = {
        "n": n, "m": m, "draw": choose(st.sampled_from(["integer", "real"])),
        "cap_scale": choose(st.sampled_from([0.15, 0.4, 1.0])), "arch": choose(st.sampled_from([1e-5, 0.05])),
        "noise": choose(st.sampled_from([0.01, 1.0])),
    }  # fmt: skip
    return draw(choose(st.integers(0, 10**6)), settings_)


@st.composite
def small_tables(choose: st.DrawFn) -> Table:
    """Tables as live rounds make them: weights by server, large and small integers, values of either sign, ties."""
    n, m = choose(st.sampled_from([(1, 5), (2, 4), (3, 4)]))
    size = choose(st.sampled_from([10, 10**12]))
    whole = st.integers(1, size)
    grid = st.lists(st.lists(whole, min_size=m, max_size=m), min_size=n, max_size=n)
    weight = np.array(choose(grid), dtype=np.int64)
    value = np.array(choose(grid), dtype=np.float64) / size - choose(st.sampled_from([0.0, 0.3]))
    room = np.array(choose(st.lists(st.integers(0, 2 * size), min_size=n, max_size=n)), dtype=np.int64)
    feasible = np.array(choose(st.lists(st.lists(st.booleans(), min_size=m, max_size=m), min_size=n, max_size=n)))
    return Table(value, weight, room, feasible)


@settings(max_examples=40, deadline=None)
@given(small_instances())
def test_no_plan_is_better_than_the_best_of_all_and_exact_finds_it(instance: Instance) -> None:
    optimum = best_by_enumeration(instance.table)
    for name in ALLOWED:
        found = solve("mta", name, instance, seed=3)
        assert found.objective is not None
        assert instance.model.audit(found.plan).feasible
        assert found.objective <= optimum * (1 + 1e-12)
        if name == "exact":
            assert found.objective == pytest.approx(optimum, rel=1e-9)
            assert found.proven
            assert found.bound == pytest.approx(optimum, rel=1e-9)
            assert found.gap == pytest.approx(0.0, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(small_tables())
def test_exact_is_exact_on_tables_of_any_integers(table: Table) -> None:
    found = Exact().on_table(table, Search())
    assert table.allows(found.plan)
    optimum = best_by_enumeration(table)
    assert table.worth(found.plan) == pytest.approx(optimum, rel=1e-9, abs=1e-12)
    assert found.bound is not None
    assert found.bound >= optimum * (1 - 1e-9)
    assert found.status == "optimal"


@settings(max_examples=60, deadline=None)
@given(small_tables(), st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_any_prices_give_a_bound(table: Table, prices: list[float]) -> None:
    nu = np.array(prices[: table.n]) * float(table.value.max(initial=0.0)) / float(table.weight.max())
    assert table.priced_bound(nu) >= best_by_enumeration(table) * (1 - 1e-12)


def shuffled(instance: Instance, servers: list[int], tasks: list[int]) -> Instance:
    """The same instance with servers and tasks in another order."""
    import json

    document = json.loads(dump(instance))
    place = {old: new for new, old in enumerate(servers)}
    for name in ("price", "size", "deadline", "origin"):
        document[name] = [document[name][j] for j in tasks]
    document["origin"] = [place[i] for i in document["origin"]]
    for name in ("capacity", "freq", "arch", "theta", "bandwidth", "power", "gain"):
        document[name] = [document[name][i] for i in servers]
    return load(json.dumps(document).encode())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(4)), st.permutations(range(9)))
def test_the_order_of_servers_and_tasks_does_not_matter(seed: int, servers: list[int], tasks: list[int]) -> None:
    """Where no rule names an order: exact's objective; global greedy's whole plan on real data, which have no ties."""
    instance = draw(seed, {"n": 4, "m": 9, "draw": "real", "cap_scale": 0.3})
    other = shuffled(instance, servers, tasks)
    assert solve("mta", "exact", other).objective == pytest.approx(solve("mta", "exact", instance).objective, rel=1e-9)
    plan, moved = (solve("mta", "greedy-global", e).plan for e in (instance, other))
    place = {-1: -1} | {old: new for new, old in enumerate(servers)}
    assert list(moved) == [place[plan[j]] for j in tasks]


def test_ties_go_to_the_lower_task_then_the_lower_server() -> None:
    tied = Table(np.ones((3, 3)), np.ones(3, dtype=np.int64), np.array([1, 1, 0]), np.ones((3, 3), dtype=bool))
    for name in ("greedy", "greedy-global"):
        assert TABLE_SOLVERS[name]().on_table(tied, Search()).plan.tolist() == [0, 1, -1], name


def test_greedy_goes_by_arrival_and_global_by_value() -> None:
    """Task 0 comes first, task 1 is worth more, one fits: mta.md 7."""
    table = Table(np.array([[1.0, 2.0]]), np.array([1, 1]), np.array([1]), np.ones((1, 2), dtype=bool))
    assert TABLE_SOLVERS["greedy"]().on_table(table, Search()).plan.tolist() == [0, -1]
    assert TABLE_SOLVERS["greedy-global"]().on_table(table, Search()).plan.tolist() == [-1, 0]


def test_pairs_without_profit_are_left() -> None:
    table = Table(np.array([[0.0, -1.0]]), np.array([1, 1]), np.array([9]), np.ones((1, 2), dtype=bool))
    for name in ("greedy", "greedy-global", "exact"):
        assert TABLE_SOLVERS[name]().on_table(table, Search()).plan.tolist() == [-1, -1], name


def test_random_draws_nothing_for_a_task_that_fits_nowhere() -> None:
    """The stream of mta.md 7, followed by hand."""
    feasible = np.array([[1, 0, 1, 1], [1, 0, 1, 1], [1, 0, 0, 1]], dtype=bool)
    table = Table(np.ones((3, 4)), np.array([2, 1, 2, 2]), np.array([2, 4, 2]), feasible)
    for seed in range(20):
        rng, left, expected = np.random.default_rng(seed), [2, 4, 2], []
        for j, weight in enumerate([2, 1, 2, 2]):
            candidates = [i for i in range(3) if feasible[i, j] and left[i] >= weight]
            expected.append(candidates[rng.integers(len(candidates))] if candidates else -1)
            if candidates:
                left[expected[-1]] -= weight
        assert TABLE_SOLVERS["random"]().on_table(table, Search(seed)).plan.tolist() == expected


def test_naive_greedy_takes_the_largest_reward_or_none() -> None:
    instance = draw(4)
    reward = instance.model.reward
    plan = solve("mta", "greedy-naive", instance).plan
    for j, i in enumerate(plan):
        assert reward[i, j] == reward[:, j].max() if i >= 0 else reward[:, j].max() == 0
    lost = draw(4, {"cap_scale": 0})
    assert {i for j, i in enumerate(solve("mta", "greedy-naive", lost).plan) if lost.model.reward[:, j].max() == 0} <= {
        -1
    }


@pytest.mark.parametrize("name", sorted({*TABLE_SOLVERS, *PAPER_SOLVERS}))
@pytest.mark.parametrize(
    "edges",
    [{"n": 1, "m": 0}, {"n": 7, "m": 2}, {"n": 3, "m": 5, "cap_scale": 0}, {"n": 2, "m": 6, "price_scale": 0}],
    ids=["no tasks", "few tasks", "no capacity", "no price"],
)
def test_degenerate_instances_raise_nothing(name: str, edges: dict[str, object]) -> None:
    solution = solve("mta", name, draw(9, edges), seed=5)
    assert len(solution.plan) == edges["m"]
    if name == "exact":
        assert solution.proven
        assert (solution.gap, solution.objective) == (0.0, solution.bound)
    if name in ALLOWED:
        assert solution.objective is not None


@pytest.mark.parametrize("name", ["random", "random-naive", "greedy", "greedy-global", "greedy-naive", "exact"])
def test_a_seed_repeats(name: str) -> None:
    instance = draw(1, {"n": 6, "m": 18})
    first, second = (solve("mta", name, instance, seed=8) for _ in range(2))
    assert first.plan == second.plan
    assert first.objective == second.objective
    if name.startswith("random"):
        assert solve("mta", name, instance, seed=9).plan != first.plan


def test_exact_ends_at_its_limit_with_a_plan_and_a_bound() -> None:
    """Whatever moment it is cut off at, the bound is not below the optimum and the plan is allowed."""
    instance = draw(3, {"n": 8, "m": 26})
    optimum = solve("mta", "exact", instance)
    assert optimum.proven
    for limit_s in (1e-6, 1e-3, 5e-3, 2e-2, 5e-2, 1e-1):
        cut = solve("mta", "exact", instance, time_limit_s=limit_s)
        assert cut.objective is not None
        assert cut.bound is not None
        assert cut.objective <= optimum.objective * (1 + 1e-9)
        assert cut.bound >= optimum.objective * (1 - 1e-9)
        assert cut.gap == pytest.approx((cut.bound - cut.objective) / cut.bound)
        assert cut.info["status"] in {"time_limit", "optimal"}


def test_exact_stops_when_told_and_keeps_the_best() -> None:
    """A stop in the middle of HiGHS's work: the answer comes while the run winds down by itself."""
    instance, stop = draw(1, {"n": 40, "m": 300}), threading.Event()
    threading.Timer(0.3, stop.set).start()
    begun = time.monotonic()
    found = solve("mta", "exact", instance, time_limit_s=60, stopped=stop.is_set)
    assert time.monotonic() - begun < 30
    assert found.info["status"] == "interrupted"
    assert found.objective >= solve("mta", "greedy-global", instance).objective
    assert found.bound >= found.objective


def test_exact_reports_improvements() -> None:
    heard: list[tuple[float, float | None]] = []
    found = solve("mta", "exact", draw(2, {"n": 6, "m": 20}), report=lambda worth, bound: heard.append((worth, bound)))
    assert [worth for worth, _ in heard] == sorted({worth for worth, _ in heard})
    assert heard[-1][0] == pytest.approx(found.objective)
    assert all(bound is not None and bound >= found.objective * (1 - 1e-9) for _, bound in heard)


def test_repairs_leave_an_allowed_plan() -> None:
    table = Table(
        np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0]]), np.array([2, 2, 2]), np.array([4, 0]), np.ones((2, 3), dtype=bool)
    )
    assert table.without_overload(np.array([0, 0, 0])).tolist() == [0, -1, 0]
    assert table.without_overload(np.array([1, 0, 0])).tolist() == [-1, 0, 0]


def test_a_search_remembers_the_best_offer() -> None:
    search = Search(deadline=time.monotonic() - 1)
    assert search.over()
    table = draw(0).table
    found = GreedyGlobal().on_table(table, search)
    search.keep(Found(found.plan), table.worth(found.plan))
    assert search.best is not None
    assert search.best.plan is found.plan
