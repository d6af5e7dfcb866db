"""Sets of tasks as columns: none that a better plan holds is missing, none is listed that cannot be, and proofs agree."""

import itertools
from unittest import mock

import highspy
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.allocator import solve
from edgora.allocator.mta import draw, subsets
from edgora.allocator.mta.blocks import members
from edgora.allocator.mta.solvers import exact


@st.composite
def servers(choose: st.DrawFn) -> tuple[np.ndarray, ...]:
    """One server's values, weights (whole or real), its room, and multipliers."""
    k = choose(st.integers(1, 8))
    real = choose(st.booleans())
    number = st.floats(0.5, 9.0) if real else st.integers(1, 9)
    of = lambda strategy: np.array(choose(st.lists(strategy, min_size=k, max_size=k)), dtype=np.float64)
    value = np.where(of(st.integers(0, 4)) > 0, of(st.floats(0.1, 20.0)), -np.inf)
    return value, of(number), np.array([float(choose(number)) * 2]), of(st.floats(0.0, 12.0))


@settings(deadline=None)  # its first example compiles
@given(servers(), st.floats(0.0, 15.0), st.integers(1, 40))
def test_the_sets_are_those_that_fit_and_are_good_enough(case, gap: float, most: int) -> None:
    value, weight, room, u = case
    able = np.flatnonzero(value > 0.0).tolist()
    fits = {
        frozenset(chosen): float((value - u)[list(chosen)].sum())
        for size in range(len(able) + 1)
        for chosen in itertools.combinations(able, size)
        if weight[list(chosen)].sum() <= room[0] * (1 - 1e-9) or weight[list(chosen)].sum() == room[0]
    }
    best = max(fits.values())
    good = {chosen for chosen, profit in fits.items() if profit >= best - gap + 1e-9}
    perhaps = {chosen for chosen, profit in fits.items() if profit >= best - gap - 1e-9}

    def listed() -> set[frozenset[int]] | None:
        found = subsets.subsets(value[None], weight[None], room, u, np.array([best]), gap, most)
        if not found:
            return None
        block = found[0]
        sets = [frozenset(np.flatnonzero(row).tolist()) for row in members(block.tasks, len(value))]
        assert block.value == pytest.approx([sum(value[list(chosen)]) for chosen in sets])
        assert len(sets) == len(set(sets)) <= most
        assert all(weight[list(chosen)].sum() <= room[0] * (1 + 1e-9) for chosen in sets)
        return set(sets)

    told = listed()
    if weight[able].sum() <= room[0]:
        assert told is None  # nothing to list: it holds whatever it may
    elif told is None:
        assert len(perhaps) > most
    else:
        assert good <= told
        assert {chosen for chosen in told if chosen in fits} <= perhaps
    near = subsets.nearest(value[None], weight[None], room, u, np.array([best]), gap, most)
    if told is not None:
        assert near is not None
        flat, losses, of = near
        assert {frozenset(np.flatnonzero(row).tolist()) for row in members(flat.tasks, len(value))} == told
        assert losses == pytest.approx(
            [best - sum((value - u)[list(np.flatnonzero(row))]) for row in members(flat.tasks, len(value))]
        )
        assert (np.diff(losses) >= 0).all()
        assert of.tolist() == [0]
    elif weight[able].sum() > room[0]:
        assert near is None
    plain = {
        name: getattr(getattr(subsets, name), "py_func", getattr(subsets, name)) for name in ("_of_server", "_listed")
    }
    with mock.patch.multiple(subsets, **plain):
        assert listed() == told


def test_a_failure_of_the_library_is_told_and_costs_the_proof_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no memory")

    instance = draw(1, {"n": 12, "m": 30})
    monkeypatch.setattr(exact, "_NODES", 0)
    proven = solve("mta", "exact", instance, seed=1)
    monkeypatch.setattr(exact.Anytime, "merge", lambda _: None)
    monkeypatch.setattr(exact, "_model", fails)
    found = solve("mta", "exact", instance, seed=1)
    assert found.info["status"] == "numerical"
    assert 0 < found.objective <= proven.objective * (1 + 1e-9)
    assert found.bound >= proven.objective * (1 - 1e-9)
    assert "no memory" in caplog.text


@pytest.mark.parametrize("seed", [1, 2, 17])
@pytest.mark.parametrize("kind", ["integer", "real"])
def test_a_program_of_sets_and_levels_and_one_of_pairs_prove_the_same(seed: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Merged servers; then HiGHS alone, from the same plan: columns for sets and levels, for pairs and levels, for pairs."""
    instance = draw(seed, {"n": 12, "m": 30, "draw": kind})
    monkeypatch.setattr(exact, "_NODES", 0)
    found = [solve("mta", "exact", instance, seed=seed)]
    monkeypatch.setattr(exact.Anytime, "merge", lambda _: None)
    found.append(solve("mta", "exact", instance, seed=seed))
    for name in ("_SETS", "_SET_PAIRS"):
        monkeypatch.setattr(exact, name, 0)
        found.append(solve("mta", "exact", instance, seed=seed))
    for one in found:
        assert one.objective == pytest.approx(found[0].objective, rel=2e-9)
        assert one.bound == pytest.approx(one.objective, rel=2e-9)


def test_a_plan_is_a_point_of_the_program_and_worth_as_much() -> None:
    table = draw(3, {"n": 6, "m": 12}).table
    useful = table.feasible & (table.value > 0.0)
    first = slice(0, 2)  # columns for sets, where not all fit; the others have one for each task
    whole = subsets.subsets(
        np.where(useful, table.value, -np.inf)[first], table.weights()[first].astype(float), table.room[first].astype(float),
        np.zeros(table.m), np.full(2, table.value.sum()), np.inf, 5_000,
    )  # fmt: skip
    assert whole
    sets = {server: members(block.tasks, table.m) for server, block in whole.items()}
    program = exact._Program.of(table, sets).levelled(table)
    lp = exact._model(highspy, program, table)
    shape = lp.num_row_, lp.num_col_
    rows = scipy.sparse.csc_array((lp.a_matrix_.value_, lp.a_matrix_.index_, lp.a_matrix_.start_), shape)
    rng = np.random.default_rng(0)
    for _ in range(20):
        wished = rng.integers(table.n, size=table.m)
        plan = table.without_overload(np.where(useful[wished, np.arange(table.m)], wished, -1))
        point = np.array(program.start(plan))
        assert set(point.tolist()) == {0.0, 1.0}
        assert np.all(rows @ point >= np.asarray(lp.row_lower_))
        assert np.all(rows @ point <= np.asarray(lp.row_upper_))
        assert np.dot(lp.col_cost_, point) == pytest.approx(table.worth(plan) * program.scale)
        assert np.array_equal(program.plan(table, point), table.fill(plan))
