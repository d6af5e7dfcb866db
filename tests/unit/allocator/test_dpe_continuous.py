"""The continuous part: its curves, its optimum, its certificate, and Newton in both of its forms (dpe.md 5, F1-F7)."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize

from edgora.allocator.dpe import Decision, draw, made, newton
from edgora.allocator.dpe.continuous import Groups, continuous, solve_groups
from edgora.allocator.dpe.market import Market, descend
from edgora.allocator.dpe.pairs import FREE_B, L_CAP, Pairs, air, log_snr_at

VARIATIONS = [
    {}, {"B": 1e6, "fs_max": 2e9}, {"w_t": 0.9}, {"w_e": 0.0}, {"kappa_u": 1e-27, "kappa_s": 1e-27}, {"c_mixed": True},
    {"radius": 30000.0}, {"M": 1}, {"N": 1}, {"c_mixed": True, "w_e": 0.0, "block_bits": 0, "verify_cycles": 0},
]  # fmt: skip


def associations(instance):
    """Greedy, random, and everyone where the gain is best: even, uneven and lopsided crowds."""
    yield instance.model.gucaa()
    yield np.random.default_rng(instance.seed).integers(0, instance.M, instance.N)
    yield instance.gain.argmax(axis=1)


@pytest.mark.parametrize("changes", VARIATIONS, ids=str)
def test_every_kkt_point_is_certified_and_within_the_budgets(changes):
    """G5: the KKT residual, and the certificate that F5 promises, on any association."""
    for seed in range(3):
        instance = draw(seed, {"N": 30, "M": 4, **changes})
        model = instance.model
        for assoc in associations(instance):
            solved = continuous(model, assoc)
            assert solved.residual <= 1e-8
            assert 0.0 <= solved.bound - solved.worth <= 1e-9 * solved.worth
            assert model.audit(solved.decision).feasible
            assert model.server_part(solved.decision) == pytest.approx(solved.worth, rel=1e-10)
            assert model.terms(solved.decision).user_part == pytest.approx(model.user_part, rel=1e-12)


def best_of_two(model, assoc):
    """The optimum of a fixed association by a general solver: SLSQP over shares, powers and splits."""
    e = model.instance
    base = model.average(assoc, e.phi_max, model.gamma0)

    def decision(x):
        b, fs, p, gamma = x.reshape(4, e.N)
        return Decision(assoc, base.phi, gamma, b * base.b, p * e.p_max, model.best_fu, fs * base.fs)

    def share(values, m):
        return 1.0 - values[assoc == m].mean()

    rules = [
        {"type": "ineq", "fun": lambda x, m=m, k=k: share(x.reshape(4, e.N)[k], m)} for m in set(assoc) for k in (0, 1)
    ]
    start = np.concatenate((np.ones(2 * e.N), np.full(e.N, 0.9), base.gamma))
    limits = [(1e-3, e.N)] * (2 * e.N) + [(1e-3, 1.0)] * e.N + [(0.05, 0.95)] * e.N
    found = optimize.minimize(
        lambda x: -model.server_part(decision(x)), start, bounds=limits, constraints=rules, method="SLSQP",
        options={"maxiter": 400, "ftol": 1e-12},
    )  # fmt: skip
    return -found.fun


@pytest.mark.parametrize(
    "changes", [{}, {"fs_max": 2e9, "B": 1e6}, {"w_t": 0.9}, {"kappa_s": 1e-27, "p_max": 2.0}], ids=str
)
def test_a_general_solver_finds_the_same_optimum(changes):
    model = draw(2, {"N": 5, "M": 2, **changes}).model
    assoc = np.array([0, 1, 0, 1, 1])
    assert continuous(model, assoc).worth == pytest.approx(best_of_two(model, assoc), rel=1e-6)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_no_allowed_decision_of_the_association_is_better(seed):
    """Concavity, seen from outside: random shares, splits, powers and phi never pass the certificate."""
    rng = np.random.default_rng(seed)
    instance = draw(seed % 7, {"N": 8, "M": 3, "c_mixed": bool(seed % 2), "w_t": (0.1, 0.5, 0.9)[seed % 3]})
    model, e = instance.model, instance
    assoc = rng.integers(0, 3, 8)
    solved = continuous(model, assoc)
    b, fs = rng.exponential(size=8) + 1e-6, rng.exponential(size=8) + 1e-6
    crowd_b, crowd_f = np.bincount(assoc, b, 3)[assoc], np.bincount(assoc, fs, 3)[assoc]
    other = Decision(
        assoc, rng.uniform(0.01, 1.0, 8), rng.uniform(0.1, 0.9, 8), e.B[assoc] * b / crowd_b,
        e.p_max * rng.uniform(0.05, 1.0, 8), e.fu_max * rng.uniform(0.1, 1.0, 8), e.fs_max[assoc] * fs / crowd_f,
    )  # fmt: skip
    assert model.audit(other).feasible
    assert model.server_part(other) <= solved.bound
    assert model.terms(other).user_part <= model.user_part * (1 + 1e-12)
    # Between any two points V is above its chord: mixing the optimum with the other one gains over the mixed values.
    more = dataclasses.replace(other, phi=np.ones(8))
    assert model.server_part(more) >= model.server_part(other) - 1e-12


@given(st.integers(0, 10_000))
@example(8643)  # every user is on a server that is worth nothing to it
@settings(max_examples=40, deadline=None)
def test_starving_users_and_odd_units_do_not_stop_newton(seed):
    """Instances far from the paper's: gains and preferences over many decades, some worth nothing at all."""
    rng = np.random.default_rng([seed, 1])
    N, M = int(rng.integers(1, 20)), int(rng.integers(1, 5))
    wide = rng.uniform(0, 6)

    def spread(low, high, shape=None):
        return 10 ** rng.uniform(low, high, shape)

    instance = made(
        spread(-12 - wide, -12 + wide, (N, M)), spread(6 - wide / 4, 7 + wide / 4, N),
        p_max=spread(-1 - wide / 4, wide / 4 - 0.5, N), B=spread(7 - wide / 3, 7 + wide / 3, M),
        fs_max=spread(10 - wide / 3, 10 + wide / 3, M), eta_s=spread(2, 3, M), eta_b=spread(2, 4, M),
        kappa_s=spread(-30, -26, M) * (rng.random() < 0.8), t_chain=rng.uniform(0, 5, M) * (rng.random() < 0.6),
        c_s=spread(-6 - wide / 3, -6, (N, M)) * (rng.random((N, M)) < (0.8 if rng.random() < 0.3 else 1.0)),
        w_t=spread(-1, 0), w_e=spread(-2, 0) * (rng.random() < 0.8), phi_max=rng.uniform(0.1, 1.0),
    )  # fmt: skip
    solved = continuous(instance.model, rng.integers(0, M, N))
    assert instance.model.audit(solved.decision).feasible
    assert solved.bound - solved.worth <= 1e-8 * solved.worth
    assert instance.model.server_part(solved.decision) == pytest.approx(solved.worth, rel=1e-8, abs=1e-20)


def test_clocks_stand_at_g_star_where_the_server_has_enough():
    """F6: with 2 g* for everyone C8 is slack, its price 0, and the clock is split in halves."""
    model = draw(0, {"N": 4, "M": 2, "fs_max": 100e9}).model
    solved = continuous(model, np.array([0, 1, 0, 1]))
    assert solved.mu.tolist() == [0.0, 0.0]
    assert solved.decision.gamma.tolist() == [0.5] * 4
    assert solved.decision.fs == pytest.approx(2 * model.g_star[[0, 1, 0, 1]], rel=1e-12)
    assert model.g_star[0] == pytest.approx(3.684e9, rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_the_split_of_a_scarce_clock_lies_between_a_half_and_gamma0(seed):
    model = draw(seed, {"N": 20, "M": 2}).model
    gamma = continuous(model, model.gucaa()).decision.gamma
    assert (gamma < 0.5).all()
    assert (gamma > model.gamma0[0]).all()
    assert model.gamma0[0] == pytest.approx(0.381092, abs=1e-6)


def test_prices_are_what_a_little_more_of_a_resource_is_worth():
    plain = {"N": 12, "M": 3, "B": 2e6, "fs_max": 5e9}
    model = draw(1, plain).model
    assoc = model.gucaa()
    solved = continuous(model, assoc)
    for name, price in (("B", solved.lam), ("fs_max", solved.mu)):
        step = 1e-4 * plain[name]
        up = continuous(draw(1, {**plain, name: plain[name] + step, "block_bits": 64e6}).model, assoc)
        chain = draw(1, {**plain, name: plain[name] + step})
        same = made(chain.gain, chain.d, **{**fields(model.instance), name: plain[name] + step})
        assert continuous(same.model, assoc).worth - solved.worth == pytest.approx(step * price.sum(), rel=1e-3)
        assert up.worth > solved.worth


def fields(instance):
    skipped = {"seed", "params", "gain", "d"}
    return {f.name: getattr(instance, f.name) for f in dataclasses.fields(instance) if f.name not in skipped}


@pytest.mark.parametrize("changes", [{}, {"w_e": 5.0, "p_max": 2.0}, {"w_e": 0.0}], ids=str)
def test_the_air_curve_is_the_least_cost_over_the_power(changes):
    """F4 against a search over the power; slope and bend against differences; on both sides of the cap."""
    instance = draw(0, {"N": 6, "M": 2, **changes})
    model, pairs = instance.model, Pairs.of(instance.model)
    capped = 0
    for share in (1e-4, 0.1, 0.5, 1.0):
        b = np.tile(instance.B * share, 6)
        log_snr = log_snr_at(b, pairs.rows)
        curve = air(log_snr, pairs.rows)
        np.testing.assert_allclose(curve.b, b, rtol=1e-9)
        capped += int((log_snr <= pairs.rows[L_CAP]).sum())
        for column in range(12):
            n, m = divmod(column, 2)

            def cost(p, n=n, m=m, b=b[column]):
                return (instance.w_t + instance.w_e * p) / (b * math.log2(1 + model.snr_hz[n, m] * p / b))

            least = optimize.minimize_scalar(
                cost, bounds=(1e-9, instance.p_max[n]), method="bounded", options={"xatol": 1e-12}
            )
            assert curve.cost[column] == pytest.approx(min(least.fun, cost(instance.p_max[n])), rel=1e-8)
        up, down = (air(log_snr_at(b * math.exp(h), pairs.rows), pairs.rows) for h in (1e-5, -1e-5))
        np.testing.assert_allclose(-(up.cost - down.cost) / 2e-5, curve.slope, rtol=1e-6)
        np.testing.assert_allclose(-(up.slope - down.slope) / 2e-5, curve.bend, rtol=1e-5)
    assert capped if changes != {"w_e": 5.0, "p_max": 2.0} else capped < 48
    assert (pairs.rows[FREE_B] > 0).all() == (instance.w_e > 0)


@pytest.mark.parametrize(
    "changes", [{}, {"c_mixed": True}, {"w_e": 0.0}, {"p_max": 20.0}, {"radius": 30000.0}], ids=str
)
def test_arrays_and_loops_are_the_same_newton(changes):
    same_newton(changes, newton.Kernels(newton._probe_loop, newton._balance_loop, newton._advance_loop))


@pytest.mark.slow  # numba compiles for seconds
def test_compiled_loops_are_the_same_newton():
    same_newton({}, newton.loops())


def same_newton(changes, kernels):
    instance = draw(3, {"N": 12, "M": 3, **changes})
    pairs = Pairs.of(instance.model)
    market = Market(pairs)
    descend(market)
    rng = np.random.default_rng(0)
    points = [market.point, market.point * rng.uniform(0.5, 2.0, market.point.shape)]
    points[1][0, :6] = pairs.rows[-1, :6]  # at their least bandwidth
    points[1][1:, :3] = pairs.rows[11, :3]  # and at their slowest
    lam, mu = market.lam[market.servers], market.mu[market.servers]
    for point in points:
        ends = []
        for form in (newton.ARRAYS, kernels):
            at, probed = point.copy(), np.empty((newton.ROWS, 36))
            reach, course = np.ones(36), rng.standard_normal(36)
            form.probe(pairs.rows, pairs.w_t, at, lam, mu, probed)
            form.advance(pairs.rows, probed, at, 0.01 * lam, 0.01 * mu, reach, np.zeros_like(course), True)
            ends.append((probed, at, reach))
        for mine, theirs in zip(*ends, strict=True):
            np.testing.assert_allclose(theirs, mine, rtol=1e-6, atol=1e-9 * np.abs(mine).max())


def test_many_groups_at_once_are_what_each_is_alone():
    instance = draw(2, {"N": 9, "M": 3, "c_mixed": True})
    pairs = Pairs.of(instance.model)
    rng = np.random.default_rng(1)
    sets = [(rng.permutation(9)[: rng.integers(1, 9)], int(rng.integers(0, 3))) for _ in range(40)]
    starts = np.cumsum([0] + [len(users) for users, _ in sets[:-1]])
    columns = np.concatenate([users * 3 + m for users, m in sets])
    together = solve_groups(pairs, Groups(columns, starts, np.array([m for _, m in sets])))
    for k, (users, m) in enumerate(sets):
        alone = solve_groups(pairs, Groups(users * 3 + m, np.array([0]), np.array([m])))
        assert together.worth[k] == pytest.approx(alone.worth[0], rel=1e-11)
        assert together.bound[k] == pytest.approx(alone.bound[0], rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_of_prices_holds_for_every_association(seed):
    """F7 and F9: D, and D less an association's loss, at good prices and at bad ones."""
    instance = draw(seed, {"N": 7, "M": 3, "c_mixed": seed > 2})
    market = Market(Pairs.of(instance.model))
    rng = np.random.default_rng(seed)
    for prices in ("first", "least", "bad"):
        if prices == "least":
            descend(market)
        elif prices == "bad":
            market.lam, market.mu = market.lam * rng.uniform(0.2, 3, 3), market.mu * rng.uniform(0.2, 3, 3)
        upper, total = market.certified(np.inf)
        for _ in range(30):
            assoc = rng.integers(0, 3, 7)
            lost = (upper.max(axis=1) - upper[np.arange(7), assoc]).sum()
            assert continuous(instance.model, assoc).worth <= (total - lost) * (1 + 1e-12)


@pytest.mark.parametrize("changes", [{}, {"c_mixed": True}, {"fs_max": 60e9}], ids=str)
def test_arrays_and_loops_balance_alike(changes):
    """The prices of groups of every size, with scarce and with plenty of clocks."""
    instance = draw(4, {"N": 14, "M": 4, **changes})
    pairs = Pairs.of(instance.model)
    assoc = np.array([0] * 8 + [1] * 4 + [2, 3])
    groups = Groups.of(assoc, 4)
    rows, sizes = pairs.rows[:, groups.columns], np.array([8, 4, 1, 1])
    share = pairs.budgets / sizes
    of = np.repeat(np.arange(4), sizes)
    point = np.array([log_snr_at(share[0, of], rows), 0.3 * share[1, of], 0.6 * share[1, of]])
    point[1:] = np.minimum(point[1:], rows[10])
    probed, prices = np.empty((newton.ROWS, 14)), np.random.default_rng(0).uniform(1e-9, 1e-7, (2, 4))
    newton.ARRAYS.probe(rows, pairs.w_t, point, prices[0, of], prices[1, of], probed)
    slack = 2 * sizes * pairs.g_star <= pairs.F
    ends = []
    for balance in (newton.ARRAYS.balance, newton._balance_loop):
        moved, off = np.empty((2, 4)), np.empty(4)
        balance(probed, groups.start, pairs.budgets, slack, prices, moved, off)
        ends.append((moved, off))
    for mine, theirs in zip(*ends, strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-7)
    assert (ends[0][0][1, slack] == 0.0).all()
