import itertools

import cvxpy as cp
import numpy as np
import pytest

from edgora.allocator.conic.lift import Lift
from edgora.allocator.conic.program import Program


def relaxed(n, m, kind, tight, weight, cost, room, low=0.3, high=0.9):
    """max sum weight phi x - cost x with a budget row a server, relaxed."""
    lift = Lift(n, m, low, high, kind, tight)
    goal = cp.sum(cp.multiply(weight, lift.product)) - cp.sum(cp.multiply(cost, lift.x))
    rows = [*lift.constraints, cp.sum(lift.x, axis=0) <= room]
    solved = Program(cp.Problem(cp.Maximize(goal), rows)).solve()
    return solved, lift.read(solved.values)


def case(n, m, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, m)), rng.random((n, m)), -(-n // m) * np.ones(m)


@pytest.mark.parametrize("tight", [0, 1, 2])
@pytest.mark.parametrize(("n", "m"), [(4, 2), (6, 2), (5, 3)])
def test_blocks_are_the_full_lift(n, m, tight):
    weight, cost, room = case(n, m, seed=n)
    full, _ = relaxed(n, m, "full", tight, weight, cost, room)
    blocks, _ = relaxed(n, m, "blocks", tight, weight, cost, room)
    assert blocks.value == pytest.approx(full.value, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("kind", ["blocks", "full"])
def test_it_relaxes_and_tightens(kind):
    """Never below the best true point, and lower with each level of `tight`."""
    n, m = 4, 2
    weight, cost, room = case(n, m, seed=1)
    values = [relaxed(n, m, kind, tight, weight, cost, room)[0].value for tight in (0, 1, 2)]
    best = -np.inf
    for assoc in itertools.product(range(m), repeat=n):
        if all(np.bincount(assoc, minlength=m) <= room):
            each = [max(weight[u, s] * 0.3, weight[u, s] * 0.9) - cost[u, s] for u, s in enumerate(assoc)]
            best = max(best, sum(each))
    assert values[0] >= values[1] - 1e-6 >= values[2] - 2e-6 >= best - 3e-6


def test_a_true_point_is_a_point_of_the_lift():
    """Association and ratios fixed from outside: the relaxation admits them, with their own product."""
    rng = np.random.default_rng(0)
    n, m = 3, 2
    phi, x = rng.uniform(0.3, 0.9, n), np.eye(m)[rng.integers(0, m, n)]
    for kind in ("blocks", "full"):
        lift = Lift(n, m, 0.3, 0.9, kind, 2)
        rows = [*lift.constraints, lift.x == x, lift.phi == phi]
        found = lift.read(Program(cp.Problem(cp.Minimize(0), rows)).solve().values)
        assert found.product == pytest.approx(phi[:, None] * x, abs=1e-4)


@pytest.mark.parametrize("kind", ["blocks", "full"])
def test_what_is_read_is_one_matrix(kind):
    n, m = 4, 3
    weight, cost, room = case(n, m, seed=5)
    _, found = relaxed(n, m, kind, 1, weight, cost, room)
    s = found.matrices
    assert s.shape == ((n, m + 2, m + 2) if kind == "blocks" else (1, n + n * m + 1, n + n * m + 1))
    assert np.array_equal(s, s.transpose(0, 2, 1))
    assert np.linalg.eigvalsh(s).min() > -1e-6
    assert s[:, -1, -1] == pytest.approx(1.0)
    if kind == "blocks":
        assert np.array_equal(s[:, 0, -1], found.phi)
        assert np.array_equal(s[:, 1:-1, -1], found.x)
        assert np.array_equal(s[:, 0, 1:-1], found.product)
        diagonal = np.diagonal(s, axis1=1, axis2=2)[:, 1:-1]
    else:
        assert np.array_equal(s[0, :n, -1], found.phi)
        assert np.array_equal(s[0, n:-1, -1].reshape(n, m), found.x)
        assert np.array_equal(s[0, 1, n + m : n + 2 * m], found.product[1])
        diagonal = np.diagonal(s[0])[n:-1].reshape(n, m)
    assert np.array_equal(diagonal, found.x)
    assert found.x.sum(axis=1) == pytest.approx(1.0, abs=1e-6)
