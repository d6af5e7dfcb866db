"""The rank penalty: what the gap measures, what a round promises, how rounds end (dpe.md 6)."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgora.allocator.conic.lift import Lift, Lifted
from edgora.allocator.conic.program import Program, Solved
from edgora.allocator.conic.rank import alternate, leading, penalty, rank_gap

factors = arrays(np.float64, (3, 4, 4), elements=st.floats(-2, 2, width=32))


def psd(factor):
    return factor @ factor.transpose(0, 2, 1)


@settings(max_examples=40, deadline=None)
@given(factors, factors)
def test_the_penalty_bounds_the_gap_everywhere_and_touches_it_where_it_was_made(one, other):
    here, there = psd(one), psd(other)
    weights = penalty(here)
    assert rank_gap(here) >= -1e-9
    assert np.sum(weights * here) == pytest.approx(rank_gap(here), abs=1e-8)
    assert np.sum(weights * there) >= rank_gap(there) - 1e-8


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, (3, 4), elements=st.floats(-2, 2, width=32)))
def test_rank_one_has_no_gap(vectors):
    matrices = vectors[:, :, None] * vectors[:, None, :]
    assert rank_gap(matrices) == pytest.approx(0.0, abs=1e-9)
    values, _ = leading(matrices)
    assert values == pytest.approx((vectors**2).sum(axis=1), abs=1e-9)


def test_leading_pairs_are_eigenpairs():
    matrices = psd(np.random.default_rng(5).normal(size=(6, 5, 5)))
    values, vectors = leading(matrices)
    assert np.einsum("kij,kj->ki", matrices, vectors) == pytest.approx(values[:, None] * vectors, abs=1e-9)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)


class Crowded:
    """Five users who all like server 0, in a relaxation of an association with room for three a server."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.k = rng.uniform(0.5, 2.0, (5, 2))
        self.k0 = rng.uniform(0.0, 1.0, (5, 2)) * self.k
        self.lift = Lift(5, 2, 0.0, 1.0)
        self.weights = cp.Parameter(self.lift.matrices.shape, name="weights")
        worth = cp.sum(cp.multiply(self.k, self.lift.product)) - cp.sum(cp.multiply(self.k0, self.lift.x))
        objective = cp.Maximize(worth - cp.sum(cp.multiply(self.weights, self.lift.matrices)))
        self.program = Program(cp.Problem(objective, [*self.lift.constraints, cp.sum(self.lift.x, axis=0) <= 3]))

    def __call__(self, weights):
        given_weights = np.zeros(self.lift.matrices.shape) if weights is None else weights
        solved = self.program.solve(weights=given_weights)
        lifted = self.lift.read(solved.values)
        return solved, lifted, float(np.sum(self.k * lifted.product - self.k0 * lifted.x))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tau", [5.0, 175.0])
def test_the_penalised_objective_never_falls_and_nothing_is_compiled_again(seed, tau):
    crowded = Crowded(seed)
    rounds = alternate(crowded, tau, rounds=12)
    penalised = np.array(rounds.penalised(tau))
    assert (np.diff(penalised) >= -1e-6 * tau).all()
    assert len(rounds.solves) == len(rounds.gaps) == len(rounds.objectives) > 1
    assert rounds.gaps[-1] < rounds.gaps[0]
    assert max(rounds.objectives[1:]) <= rounds.objectives[0] + 1e-6  # the relaxation bounds what the penalty leaves
    assert crowded.program.compilations == 1
    if rounds.ended == "rank one":
        assert rounds.gaps[-1] < 1e-4
        lifted = rounds.lifted
        assert lifted.product == pytest.approx(lifted.phi[:, None] * lifted.x, abs=1e-2)
        assert np.abs(lifted.x - lifted.x.round()).max() < 1e-2


def scripted(gaps):
    """A relaxation whose points have these gaps in turn."""
    left = iter(gaps)
    seen = []

    def relax(weights):
        seen.append(weights)
        gap = next(left)
        matrices = np.diag([2.0, gap])[None]
        lifted = Lifted(np.zeros(1), np.zeros((1, 1)), np.zeros((1, 1)), matrices)
        return Solved("clarabel", "solved", 0.0, {}, 1, 0.0, 0.0, 0.0), lifted, 1.0 - gap

    return relax, seen


@pytest.mark.parametrize(
    ("gaps", "rounds", "ended", "solves"),
    [
        ([1e-5, 0.0], 10, "rank one", 1),
        ([0.5, 1e-5, 0.0], 10, "rank one", 2),
        ([0.5, 0.4, 0.4 - 1e-7, 0.0], 10, "still", 3),
        ([0.5, 0.5, 0.3, 0.0], 10, "rank one", 4),  # the first comparison is between penalised rounds
        ([0.5, 0.4, 0.3, 0.2], 3, "rounds", 4),
        ([0.5, 0.4, 0.3, 1e-5], 3, "rank one", 4),
        ([0.5], 0, "rounds", 1),
    ],
)
def test_how_rounds_end(gaps, rounds, ended, solves):
    relax, seen = scripted(gaps)
    done = alternate(relax, 10.0, rounds=rounds)
    assert (done.ended, len(done.solves)) == (ended, solves)
    assert done.gaps == pytest.approx(gaps[:solves])
    assert seen[0] is None
    for weights in seen[1:]:
        assert weights == pytest.approx(10.0 * np.diag([0.0, 1.0])[None])


def test_a_caller_can_cut_the_rounds_off():
    relax, seen = scripted([0.5, 0.4, 0.3])
    done = alternate(relax, 10.0, over=lambda: len(seen) == 2)
    assert (done.ended, len(done.solves)) == ("cut off", 2)


@pytest.mark.parametrize("kind", ["blocks", "full"])
def test_coefficients_say_the_same_as_the_expressions(kind):
    rng = np.random.default_rng(2)
    lift = Lift(3, 2, 0.0, 1.0, kind)
    x, product = rng.normal(size=(2, 3, 2))
    matrices = rng.normal(size=lift.matrices.shape)
    lift.entries.value = rng.normal(size=lift.entries.size)
    said = np.sum(x * lift.x.value) + np.sum(product * lift.product.value) + np.sum(matrices * lift.matrices.value)
    constant = matrices[..., -1, -1].sum()
    assert lift.coefficients(x, product, matrices) @ lift.entries.value == pytest.approx(said - constant)
    assert lift.coefficients(x, product) @ lift.entries.value == pytest.approx(
        np.sum(x * lift.x.value) + np.sum(product * lift.product.value)
    )
