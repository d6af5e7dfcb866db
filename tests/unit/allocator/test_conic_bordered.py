"""The penalised round of the full lift in small matrices is the round in one large matrix (dpe.md 6, "keep")."""

import cvxpy as cp
import numpy as np
import pytest

from edgora.allocator.conic.bordered import Bordered
from edgora.allocator.conic.lift import Lift
from edgora.allocator.conic.program import Program
from edgora.allocator.conic.rank import alternate, penalty, rank_gap

USERS, SERVERS = 5, 2


class Rounds:
    """Users who like the same server, in a relaxation with little room: a first solve in one matrix, rounds in `lift`."""

    def __init__(self, lift, first, seed):
        rng = np.random.default_rng(seed)
        self.k = rng.uniform(0.5, 2.0, (USERS, SERVERS))
        self.k0 = rng.uniform(0.0, 1.0, (USERS, SERVERS)) * self.k
        self.lifts = {False: first, True: lift}
        self.programs = {penalised: self.made(one) for penalised, one in self.lifts.items()}

    def made(self, lift):
        self.worth = cp.Parameter(lift.entries.size, name="worth")
        rows = [*lift.constraints, cp.sum(lift.x, axis=0) <= 3]
        return Program(cp.Problem(cp.Maximize(self.worth @ lift.entries), rows))

    def __call__(self, weights):
        lift = self.lifts[weights is not None]
        worth = lift.coefficients(-self.k0, self.k, None if weights is None else -weights)
        solved = self.programs[weights is not None].solve(worth=worth)
        point = lift.read(solved.values)
        return solved, point, float(np.sum(self.k * point.product - self.k0 * point.x))


def both(seed, tight=1, low=0.0, high=1.0):
    full = Lift(USERS, SERVERS, low, high, "full", tight)
    return Rounds(full, full, seed), Rounds(Bordered(USERS, SERVERS, low, high, tight), full, seed)


@pytest.mark.parametrize("tight", [0, 1, 2])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.2, 0.8)])
def test_a_round_has_the_value_and_the_matrix_of_the_large_one(tight, low, high):
    tau = 5.0
    for seed in range(3):
        large, small = both(seed, tight, low, high)
        factor = np.random.default_rng(seed).normal(size=(1, USERS * (SERVERS + 1) + 1, 3))
        weights = tau * penalty(factor @ factor.transpose(0, 2, 1))
        points = [rounds(weights)[1:] for rounds in (large, small)]
        values = [worth - np.sum(weights * point.matrices) for point, worth in points]
        assert values[1] == pytest.approx(values[0], abs=1e-5)
        (one, _), (other, _) = points
        assert other.matrices == pytest.approx(one.matrices, abs=2e-3)
        assert np.linalg.eigvalsh(other.matrices).min() > -1e-5


def test_the_matrix_that_is_read_has_the_point_in_it():
    _, small = both(1)
    factor = np.random.default_rng(1).normal(size=(1, USERS * (SERVERS + 1) + 1, 3))
    _, point, _ = small(penalty(factor @ factor.transpose(0, 2, 1)))
    (s,) = point.matrices
    assert np.array_equal(s, s.T)
    assert s[-1, -1] == 1.0
    assert np.array_equal(s[:USERS, -1], point.phi)
    assert np.array_equal(s[USERS:-1, -1].reshape(USERS, SERVERS), point.x)
    assert np.array_equal(np.diagonal(s)[USERS:-1].reshape(USERS, SERVERS), point.x)
    for n in range(USERS):
        assert np.array_equal(s[n, USERS + n * SERVERS : USERS + (n + 1) * SERVERS], point.product[n])


@pytest.mark.parametrize("tau", [5.0, 175.0])
def test_the_rounds_take_the_same_way(tau):
    for seed in range(4):
        large, small = both(seed)
        one, other = (alternate(rounds, tau) for rounds in (large, small))
        assert (other.ended, len(other.gaps)) == (one.ended, len(one.gaps))
        assert other.gaps == pytest.approx(one.gaps, abs=1e-3)
        assert other.objectives == pytest.approx(one.objectives, abs=1e-2)
        assert rank_gap(other.lifted.matrices) == other.gaps[-1]
        assert small.programs[True].compilations == 1
