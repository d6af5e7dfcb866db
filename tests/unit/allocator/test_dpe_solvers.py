"""`exact` and `priced`: the conformance vectors, proofs, and what must hold for any instance (dpe.md 8, 11, 13)."""

import itertools
import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.allocator import registry, solve
from edgora.allocator.dpe import draw, made
from edgora.allocator.dpe.continuous import continuous
from edgora.allocator.dpe.listing import Book, Listing
from edgora.allocator.dpe.market import Market
from edgora.allocator.dpe.pairs import Pairs
from edgora.wire.errors import NotFound, Refused

ROOM = registry.problem("dpe")
PROOF = 1e-9


@pytest.mark.parametrize(
    ("seed", "settings", "optimum", "assoc"),
    [
        (0, {"N": 8, "M": 2}, 71.0462094904, [1, 0, 0, 0, 0, 1, 1, 1]),
        (1, {"N": 10, "M": 2}, 88.1300675894, [0, 1, 1, 1, 0, 0, 1, 0, 0, 1]),
        (2, {"N": 8, "M": 3, "c_mixed": True}, 35.8054183090, [0, 0, 1, 1, 0, 1, 2, 0]),
    ],
)
def test_the_generated_vectors(seed, settings, optimum, assoc):
    instance = draw(seed, settings)
    for solver in ("exact", "priced"):
        solution = solve("dpe", solver, instance)
        assert solution.objective == pytest.approx(optimum, rel=1e-11)
        assert solution.assoc == assoc
        assert 0.0 <= solution.bound - solution.objective <= PROOF * solution.objective
        assert solution.info["status"] == "optimal"
        assert ROOM.score(instance, solution).holds


@pytest.mark.parametrize(("n", "m", "optimum"), [(20, 3, 171.4264077), (30, 4, 255.6911166)])
def test_the_proven_vectors(n, m, optimum):
    solution = solve("dpe", "priced", draw(0, {"N": n, "M": m}))
    assert solution.objective == pytest.approx(optimum, abs=5e-8)
    assert solution.bound - solution.objective <= PROOF * solution.objective


@pytest.mark.parametrize(("n", "m", "mean"), [(10, 2, 87.3523), (20, 3, 172.6640), (30, 4, 256.3901)])
def test_the_means_of_section_8(n, m, mean):
    solutions = [solve("dpe", "priced", draw(seed, {"N": n, "M": m})) for seed in range(10)]
    assert np.mean([s.objective for s in solutions]) == pytest.approx(mean, abs=5e-5)
    assert all(s.bound - s.objective <= PROOF * s.objective for s in solutions)


@pytest.mark.parametrize(("n", "m", "seeds"), [(8, 2, 20), (10, 2, 20), (8, 3, 10)])
def test_priced_is_exact(n, m, seeds):
    """G1."""
    for seed in range(seeds):
        instance = draw(seed, {"N": n, "M": m})
        exact = solve("dpe", "exact", instance)
        assert solve("dpe", "priced", instance).objective == pytest.approx(exact.objective, rel=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"c_mixed": True}, {"B": 1e6, "fs_max": 2e9}, {"w_e": 0.0}, {"kappa_s": 1e-27}, {"phi_max": 0.4},
        {"radius": 20000.0}, {"M": 5, "N": 3}, {"M": 1}, {"N": 1, "M": 6}, {"block_bits": 0.0, "verify_cycles": 0.0},
    ],
    ids=str,
)  # fmt: skip
def test_both_equal_an_exhaustive_search(changes):
    for seed in range(2):
        instance = draw(seed, {"N": 4, "M": 3, **changes})
        model = instance.model
        best = max(
            continuous(model, np.array(assoc)).worth
            for assoc in itertools.product(range(instance.M), repeat=instance.N)
        )
        for solver in ("exact", "priced"):
            solution = solve("dpe", solver, instance)
            assert solution.objective == pytest.approx(model.user_part + best, rel=1e-10)
            assert solution.objective <= solution.bound <= solution.objective * (1 + PROOF)


@pytest.mark.parametrize(
    "changes", [{"B": 1e6}, {"fs_max": 2e9}, {"w_t": 0.1}, {"w_t": 0.9}, {"kappa_s": 1e-27}, {"c_mixed": True}]
)
def test_other_settings_are_proven_too(changes):
    """Section 8.5 at 20 x 3."""
    for seed in range(3):
        solution = solve("dpe", "priced", draw(seed, {"N": 20, "M": 3, **changes}))
        assert solution.info["status"] == "optimal"
        assert solution.bound - solution.objective <= PROOF * solution.objective


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_any_instance_has_an_answer_that_holds(seed):
    rng = np.random.default_rng(seed)
    N, M = int(rng.integers(1, 8)), int(rng.integers(1, 5))
    instance = made(
        10 ** rng.uniform(-22, -6, (N, M)), 10 ** rng.uniform(3, 8, N), c_s=10 ** rng.uniform(-9, -5, (N, M)) * rng.integers(0, 2, (N, M)),
        B=10 ** rng.uniform(4, 8, M), fs_max=10 ** rng.uniform(8, 11, M), t_chain=rng.uniform(0, 3, M) * rng.integers(0, 2),
        phi_min=0.0, phi_max=rng.uniform(0.05, 1.0), w_e=rng.integers(0, 2) * 0.5,
    )  # fmt: skip
    solution = solve("dpe", "priced", instance, settings={"associations": 2000})
    assert solution.objective is not None
    assert solution.bound >= solution.objective
    assert ROOM.score(instance, solution).holds
    assert solution.objective >= instance.model.dpe(continuous(instance.model, instance.model.gucaa()).decision) - 1e-12


@pytest.mark.parametrize(
    "instance",
    [
        made([[1e-12]], 1e6),
        made([[1e-40]], 1e6),
        made([[1e-40, 1e-40]], 1e6, B=[1.0, 1e15]),
        made([[1e-12, 1e-12]] * 3, 1e6, t_chain=4.0),  # users and servers alike
        made([[1e-12] * 4] * 8, 1e7, t_chain=4.0),
        made([[1e-12] * 3] * 14, 1e7, t_chain=4.0),  # too many for a subset table
        made([[1e-12, 1e-20]] * 5, 1e6, c_s=0.0),
        made([[1.0, 1e-30], [1e-30, 1.0]], [1e-3, 1e18]),
        made([[1e15, 1e-40]] * 2, 1e6, w_e=0.0, kappa_s=0.0, kappa_u=0.0),
        made([[1e-12] * 40], 1e7, t_chain=4.3),
    ],
    ids=range(10),
)  # fmt: skip
def test_degenerate_instances(instance):
    for options in ({"associations": 500}, {"proof": 0}):
        solution = solve("dpe", "priced", instance, settings=options)
        assert ROOM.score(instance, solution).holds
        assert solution.bound >= solution.objective > 0.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 85, 124])
def test_the_corners_of_what_a_file_may_hold(seed):
    """Every field anywhere in its window: no warning, no overflow, and an answer that holds."""
    rng = np.random.default_rng([7, seed])
    users, servers, w = int(rng.integers(1, 7)), int(rng.integers(1, 4)), rng.uniform(0.2, 1)

    def spread(low, high, shape=None):
        return 10 ** (rng.uniform(low, high, shape) * w)

    instance = made(
        spread(-39, 14, (users, servers)), spread(-2, 17, users), p_max=spread(-14, 8, users),
        fu_max=spread(-2, 14, users), eta_u=spread(-8, 11, users), kappa_u=spread(-59, 2, users),
        c_u=spread(-29, 14, users), B=spread(-2, 14, servers), fs_max=spread(-2, 14, servers),
        eta_s=spread(-8, 11, servers), eta_b=spread(-8, 11, servers), kappa_s=spread(-59, 2, servers) * (rng.random() < 0.8),
        t_chain=spread(-11, 11, servers) * (rng.random() < 0.6), c_s=spread(-29, 14, (users, servers)), N0=spread(-39, 2),
        omega_b=spread(-8, 8), w_t=spread(-8, 8), w_e=spread(-11, 8) * (rng.random() < 0.8), phi_max=spread(-8, 0),
    )  # fmt: skip
    solution = solve("dpe", "priced", instance, settings={"associations": 500})
    assert ROOM.score(instance, solution).holds
    assert math.isfinite(solution.bound)


def test_likeness_is_proven_by_partition_where_there_are_few_users():
    """Eight equal users and four equal servers: thousands of equal associations, one subset table."""
    solution = solve("dpe", "priced", made([[1e-12] * 4] * 8, 1e7, t_chain=4.0))
    assert solution.info["status"] == "optimal"
    assert sorted(np.bincount(solution.assoc, minlength=4)) == [2, 2, 2, 2]


def permuted(instance, users, servers):
    changed = {}
    for name in ("gain", "c_s"):
        changed[name] = getattr(instance, name)[users][:, servers]
    for name in ("d", "p_max", "fu_max", "eta_u", "kappa_u", "c_u"):
        changed[name] = getattr(instance, name)[users]
    for name in ("B", "fs_max", "eta_s", "eta_b", "kappa_s", "t_chain"):
        changed[name] = getattr(instance, name)[servers]
    for name in ("N0", "omega_b", "w_t", "w_e", "phi_min", "phi_max"):
        changed[name] = getattr(instance, name)
    return made(changed.pop("gain"), changed.pop("d"), **changed)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_users_and_servers_permutes_the_answer(seed):
    instance = draw(seed, {"N": 15, "M": 3, "c_mixed": True})
    rng = np.random.default_rng(seed)
    users, servers = rng.permutation(15), rng.permutation(3)
    plain, other = (solve("dpe", "priced", e) for e in (instance, permuted(instance, users, servers)))
    assert other.objective == pytest.approx(plain.objective, rel=1e-11)
    assert servers[np.array(other.assoc)].tolist() == np.array(plain.assoc)[users].tolist()
    for name in ("b", "fs", "gamma", "p"):
        np.testing.assert_allclose(getattr(other, name), np.array(getattr(plain, name))[users], rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_units_scale_out(seed):
    """Hertz to megahertz, cycles to megacycles, bits to megabits: shares, associations and DPE stay, as c is per bit."""
    e = draw(seed, {"N": 12, "M": 3})
    k = 1e-6
    scaled = made(
        e.gain, e.d * k, B=e.B * k, N0=e.N0 / k, fs_max=e.fs_max * k, fu_max=e.fu_max * k, kappa_s=e.kappa_s / k**3,
        kappa_u=e.kappa_u / k**3, c_s=e.c_s / k, c_u=e.c_u / k, t_chain=e.t_chain, eta_u=e.eta_u, eta_s=e.eta_s,
        eta_b=e.eta_b, p_max=e.p_max,
    )  # fmt: skip
    plain, other = solve("dpe", "priced", e), solve("dpe", "priced", scaled)
    assert other.assoc == plain.assoc
    assert other.objective == pytest.approx(plain.objective, rel=1e-9)
    np.testing.assert_allclose(other.b, np.array(plain.b) * k, rtol=1e-6)
    np.testing.assert_allclose(other.fs, np.array(plain.fs) * k, rtol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"N": 20, "M": 3}, {"c_mixed": True}], ids=str)
def test_our_own_are_never_below_the_papers_methods(changes):
    for seed in range(2):
        instance = draw(seed, changes)
        proven = solve("dpe", "priced", instance)
        fast = solve("dpe", "priced", instance, settings={"proof": 0})
        for solver in ("rucaa", "gucaa", "gucro", "aauco", "daur"):
            theirs = solve("dpe", solver, instance).objective
            assert theirs <= fast.objective * (1 + 1e-9), solver
            assert theirs <= proven.bound
        assert fast.objective <= proven.bound


def test_the_fast_mode_is_close_and_its_bound_holds():
    """G3: at most 0.05 % of the server part below the optimum, 0.005 % on average."""
    gaps = []
    for seed in range(6):
        instance = draw(seed, {"N": 30, "M": 4})
        fast = solve("dpe", "priced", instance, settings={"proof": False})
        proven = solve("dpe", "priced", instance)
        assert fast.info["associations"] <= 256
        assert fast.objective <= proven.objective <= fast.bound * (1 + 1e-12)
        gaps.append((proven.objective - fast.objective) / (proven.objective - instance.model.user_part))
    assert max(gaps) <= 5e-4
    assert np.mean(gaps) <= 5e-5


def test_the_curve_only_improves_and_ends_in_the_answer():
    solution = solve("dpe", "priced", draw(12, {"N": 30, "M": 4}))
    listed, objective, bound = np.array(solution.info["curve"]).T
    assert (np.diff(listed) > 0).all()
    assert (np.diff(objective) >= 0).all()
    assert (np.diff(bound) <= 0).all()
    assert (objective <= bound * (1 + 1e-12)).all()
    assert objective[-1] == pytest.approx(solution.objective, rel=1e-12)
    assert solution.info["dual_bound"] >= bound[0] * (1 - 1e-12)


def test_the_same_instance_has_the_same_answer():
    instance = draw(7, {"N": 20, "M": 3})
    first, second = (solve("dpe", "priced", instance, seed=seed) for seed in (0, 5))
    assert first.b == second.b
    assert first.assoc == second.assoc
    assert first.bound == second.bound


@pytest.mark.slow  # numba compiles for seconds
def test_compiled_kernels_give_the_same_answer():
    instance = draw(7, {"N": 20, "M": 3})
    plain, compiled = (solve("dpe", "priced", instance, settings={"compiled": choice}) for choice in (0, 1))
    assert compiled.assoc == plain.assoc
    assert compiled.objective == pytest.approx(plain.objective, rel=1e-12)
    assert compiled.bound == pytest.approx(plain.bound, rel=1e-11)


@pytest.mark.parametrize("solver", ["priced", "exact"])
def test_stopped_at_once_there_is_still_an_answer(solver):
    instance = draw(0, {"N": 12, "M": 3})
    stop = threading.Event()
    stop.set()
    solution = solve("dpe", solver, instance, stopped=stop.is_set)
    assert solution.info["status"] == "interrupted"
    assert ROOM.score(instance, solution).holds
    solution = solve("dpe", solver, instance, time_limit_s=1e-9)
    assert solution.info["status"] == "time_limit"
    assert ROOM.score(instance, solution).holds


def test_every_improvement_is_reported():
    heard = []
    solution = solve(
        "dpe", "priced", draw(1, {"N": 20, "M": 3}), report=lambda worth, bound: heard.append((worth, bound))
    )
    assert [worth for worth, _ in heard] == sorted(worth for worth, _ in heard)
    assert heard[-1][0] == pytest.approx(solution.objective, rel=1e-12)
    assert all(worth <= bound for worth, bound in heard)


def test_an_unproven_search_still_bounds():
    instance = draw(13, {"N": 30, "M": 4})
    short = solve("dpe", "priced", instance, settings={"associations": 3})
    best = solve("dpe", "priced", instance).objective
    assert short.info["associations"] == 3
    assert short.info["status"] == "done"
    assert short.objective <= best <= short.bound


def test_exact_names_n_when_there_are_too_many():
    with pytest.raises(Refused, match="N is 13") as refused:
        solve("dpe", "exact", draw(0, {"N": 13}))
    assert refused.value.field == "N"


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"q": 1}, "q"), ({"proof": 2}, "proof"), ({"proof": "x"}, "proof"), ({"associations": 0}, "associations")],
)
def test_options_are_strict(settings, field):
    with pytest.raises(Refused) as refused:
        solve("dpe", "priced", draw(0), settings=settings)
    assert refused.value.field == field
    with pytest.raises(Refused):
        solve("dpe", "exact", draw(0), settings={"proof": 1})
    with pytest.raises(NotFound, match="priced"):
        solve("dpe", "none", draw(0))


def test_a_listing_holds_every_association_once_by_rising_loss():
    rng = np.random.default_rng(3)
    upper = rng.uniform(0, 1, (5, 3))
    listing = Listing(upper)
    listed = []
    while batch := listing.next(7, np.inf):
        listed += batch
    assert len(listed) == 3**5
    model = draw(0, {"N": 5, "M": 3}).model
    market = Market(Pairs.of(model))
    book = Book(market.pairs, listing.base, market.points)
    book.value([moves for _, moves in listed])
    associations = [tuple(book.decision(model, moves)[0].assoc) for _, moves in listed]
    assert len(set(associations)) == 3**5
    losses = [loss for loss, _ in listed]
    assert losses == sorted(losses)
    for (loss, _), assoc in zip(listed, associations, strict=True):
        assert loss == pytest.approx((upper.max(axis=1) - upper[np.arange(5), assoc]).sum())


def test_a_listing_ends_below_the_threshold():
    upper = np.random.default_rng(4).uniform(0, 1, (7, 4))
    everything, some = Listing(upper), Listing(upper)
    expected = [loss for loss, _ in everything.next(4**7, np.inf) if loss < 0.7]
    assert [loss for loss, _ in some.next(4**7, 0.7)] == expected


def test_gains_at_different_servers_add_up_in_a_union():
    model = draw(0, {"N": 60, "M": 8}).model
    market = Market(Pairs.of(model))
    base = model.gucaa()
    book = Book(market.pairs, base, market.points)
    rng = np.random.default_rng(5)
    asked = [((user, int(rng.integers(0, 8))),) for user in range(60)]
    gainers = [one for one in book.value([m for m in asked if m[0][1] != base[m[0][0]]]) if one.worth > book.worth]
    union = book.union(gainers)
    chosen = [one for one in gainers if one.moves[0] in union]
    assert len(chosen) > 1
    assert max(gainers, key=lambda one: one.worth) in chosen
    touched = [server for user, to in union for server in (to, int(base[user]))]
    assert len(set(touched)) == len(touched)
    for one in gainers:  # nothing that fits was left out
        user, to = one.moves[0]
        assert one in chosen or {to, int(base[user])} & set(touched)
    gain = sum(one.worth - book.worth for one in chosen)
    assert book.value([union])[0].worth == pytest.approx(book.worth + gain, rel=1e-9)
    moved = base.copy()
    moved[[user for user, _ in union]] = [to for _, to in union]
    assert continuous(model, moved).worth == pytest.approx(book.worth + gain, rel=1e-9)
