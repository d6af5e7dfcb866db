"""The platform's own solvers of tcr: resources, enumeration, moves by price, the closed form, proven bounds."""

import dataclasses
import itertools
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from edgora.allocator import registry
from edgora.allocator.search import Search
from edgora.allocator.tcr import Decision, Instance, climb, draw
from edgora.allocator.tcr.bound import upper_bound
from edgora.allocator.tcr.climb import Climb
from edgora.allocator.tcr.closed import local_only
from edgora.allocator.tcr.instance import make
from edgora.allocator.tcr.pairs import Pairs
from edgora.allocator.tcr.resources import alone, decision, inside, settle, variables
from edgora.allocator.tcr.solution import decision as of_solution
from edgora.wire.errors import Refused

TCR = registry.problem("tcr")

OPTIMA = (
    1.364837, 1.383639, 1.383117, 1.390777, 1.452565, 1.313914, 1.359343, 1.665715, 1.316290, 1.551947, 1.204772,
    1.337491, 1.388004, 1.455942, 1.346624, 1.436587, 1.309058, 1.356830, 1.267529, 1.464679,
)  # fmt: skip
"""tcr.md 11: `delegate` 6x2, seeds 0-19, by enumeration."""

BEST = {
    (10, 2): (1.798591, 1.717689, 1.883198, 1.805050, 1.460744),
    (20, 3): (2.479899, 2.311313, 2.904027, 2.511143, 2.453608),
    (30, 4): (3.271089, 3.442891, 3.077031, 3.505555, 3.654314),
}
"""Best known values of section 11, seeds 0-4."""


def made(instance: Instance, **changes: object) -> Instance:
    arrays = {
        f.name: getattr(instance, f.name) for f in dataclasses.fields(instance) if f.name not in {"seed", "params"}
    }
    return make(None, instance.params, {**arrays, **changes})


def objective(solver: str, instance: Instance, **options: object) -> float:
    """The audited value of a solution that holds."""
    solution = registry.solve("tcr", solver, instance, settings=options)
    assert TCR.score(instance, solution).holds
    assert solution.objective is not None
    return float(solution.objective)


# --- resources of one association


@pytest.mark.slow
def test_resources_are_as_good_as_a_general_solvers() -> None:
    """SLSQP over the same seven variables a user, from several starts, finds nothing better (3x2)."""
    e = draw(3, {"N": 3, "M": 2})
    assoc = np.array([0, 1, 1])
    ours = settle(e, assoc[None])

    def as_decision(v: np.ndarray) -> Decision:
        b, ps, g1, g2, pu, fu = np.exp(v.reshape(6, 3))
        return Decision(
            assoc, np.full(3, 0.5), g1 / (g1 + g2), b * e.B[assoc], pu * e.pu_max, ps * e.ps_max[assoc], fu * e.fu_max,
            (g1 + g2) * e.fs_max[assoc],
        )  # fmt: skip

    def rooms(v: np.ndarray) -> np.ndarray:
        b, ps, g1, g2, _pu, _fu = np.exp(v.reshape(6, 3))
        return np.concatenate([1.0 - np.bincount(assoc, shares, 2) for shares in (b, ps, g1 + g2)])

    rng = np.random.default_rng(0)
    best = 0.0
    for _ in range(4):
        first = np.log(rng.uniform(0.05, 0.3, 18))
        found = minimize(
            lambda v: -e.model.terms(as_decision(v)).tcr, first, method="SLSQP", bounds=[(-12.0, 0.0)] * 18,
            constraints={"type": "ineq", "fun": rooms}, options={"maxiter": 300},
        )  # fmt: skip
        if rooms(found.x).min() > -1e-9:
            best = max(best, -found.fun)
    assert best > 0.9 * ours.value[0]
    assert ours.value[0] >= best * (1 - 1e-7)


def test_facts_of_an_optimum() -> None:
    """F1: T_u = T for all; F2: bandwidth is used up; F4: phi at its least; section 10: gamma near one half."""
    e = draw(0, {"N": 6, "M": 2})
    points = settle(e, np.array([[0, 1, 1, 0, 0, 1]]), final=1e-9)
    best = decision(e, points, 0)
    t = e.model.terms(best)
    assert t.T_u.tolist() == pytest.approx([t.T] * 6, rel=1e-6)
    assert np.bincount(best.assoc, best.b, 2).tolist() == pytest.approx(e.B.tolist(), rel=1e-7)
    assert best.phi.tolist() == [0.5] * 6
    assert (best.gamma > 0.507).all()
    assert (best.gamma < 0.5475).all()
    assert (t.T, t.E, t.trust) == pytest.approx((9.95535, 5.86787, 10.79806), rel=2e-6)
    assert t.tcr == pytest.approx(1.3648369, rel=1e-7)


def test_a_batch_gives_what_single_solves_give() -> None:
    e = draw(2, {"N": 7, "M": 3})
    every = np.random.default_rng(1).integers(0, 3, (9, 7))
    together = settle(e, every)
    alone_ = [settle(e, assoc[None]).value[0] for assoc in every]
    assert together.value.tolist() == pytest.approx(alone_, rel=1e-7)


def test_values_are_those_of_the_model_and_rise_with_precision() -> None:
    e = draw(4, {"N": 8, "M": 3, "profile": "chain"})
    assoc = e.gain.argmax(axis=1)[None]
    values = []
    for final in (1e-2, 1e-4, 1e-7):
        points = settle(e, assoc, final=final)
        audit = e.model.audit(decision(e, points, 0))
        assert audit.feasible
        assert audit.terms.tcr == pytest.approx(points.value[0], rel=1e-12)
        values.append(points.value[0])
    assert values == sorted(values)


def test_a_warm_solve_ends_where_a_cold_one_does() -> None:
    """Section 14.9: all gains change by 5 %."""
    e = draw(0)
    assoc = e.gain.argmax(axis=1)
    before = decision(e, settle(e, assoc[None]), 0)
    changed = made(e, gain=e.gain * np.where(np.random.default_rng(0).random(e.gain.shape) < 0.5, 0.95, 1.05))
    cold = settle(changed, assoc[None]).value[0]
    warm = settle(changed, assoc[None], variables(changed, before), mu=1e-3, final=1e-6)
    assert warm.value[0] == pytest.approx(cold, rel=1e-5)


def test_offloading_rises_where_it_pays() -> None:
    """Slow users on fast servers: phi leaves its least value, and no fixed phi does better."""
    e = draw(1, {"N": 4, "M": 2, "fu_max": 3e7, "fs_max": 2e11, "phi_min": 0.2, "kappa_s": 1e-31, "omega_r": 0.1})
    assoc = e.gain.argmax(axis=1)[None]
    free = settle(e, assoc)
    assert free.X[0].max() > 0.3
    for phi_min in (0.2, 0.5, 0.8):
        fixed = dataclasses.replace(e, params=type(e.params)(**{
            **{f: getattr(e.params, f) for f in e.params.__struct_fields__}, "phi_min": phi_min, "phi_max": phi_min + 1e-6,
        }))  # fmt: skip
        assert settle(fixed, assoc).value[0] <= free.value[0] * (1 + 1e-5)


def test_a_stopped_solve_has_a_feasible_point() -> None:
    e = draw(0)
    points = settle(e, e.gain.argmax(axis=1)[None], over=lambda: True)
    assert points.steps.tolist() == [1]
    assert e.model.audit(decision(e, points, 0)).feasible


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_no_random_decision_of_an_association_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    e = draw(seed % 11, {"N": 4, "M": 2, "profile": ("delegate", "chain")[seed % 2]})
    assoc = rng.integers(0, 2, 4)
    best = settle(e, assoc[None]).value[0]
    near = decision(e, settle(e, assoc[None], final=1e-6), 0)
    for _ in range(20):
        factors = {f: rng.uniform(0.9, 1.0, 4) for f in ("b", "pu", "ps", "fu", "fs")}
        moved = {f: getattr(near, f) * factor for f, factor in factors.items()}
        other = dataclasses.replace(near, **moved, phi=np.minimum(near.phi + rng.uniform(0.0, 0.05, 4), 1.0))
        assert e.model.audit(other).feasible
        assert e.model.terms(other).tcr <= best * (1 + 1e-9)


# --- enumeration and moves


def test_exact_finds_the_optima_of_the_specification() -> None:
    for seed in (0, 7, 12):
        assert objective("exact", draw(seed, {"N": 6, "M": 2})) == pytest.approx(OPTIMA[seed], rel=1e-6)


@pytest.mark.slow
def test_exact_finds_all_optima_of_the_specification() -> None:
    for seed in range(20):
        assert objective("exact", draw(seed, {"N": 6, "M": 2})) == pytest.approx(OPTIMA[seed], rel=1e-6)


@pytest.mark.parametrize(("seed", "optimum"), [(0, 1.140336), (1, 1.132714), (2, 1.144761)])
def test_the_chain_profile(seed: int, optimum: float) -> None:
    e = draw(seed, {"N": 6, "M": 2, "profile": "chain"})
    solution = registry.solve("tcr", "exact", e)
    assert solution.objective == pytest.approx(optimum, rel=1e-6)
    assert objective("priced", e) == pytest.approx(optimum, rel=1e-5)
    if seed == 0:
        assert list(solution.assoc) == [0, 1, 1, 0, 0, 1]
        assert solution.objective == pytest.approx(1.1403355, rel=1e-7)
        t = e.model.terms(of_solution(solution, e))
        assert (t.T, t.E, t.trust) == pytest.approx((12.08154, 7.22244, 11.00651), rel=5e-6)


def test_gucro_exact_keeps_gucaas_association() -> None:
    for profile, value in (("delegate", 1.359879), ("chain", 1.129021)):
        e = draw(0, {"N": 6, "M": 2, "profile": profile})
        solution = registry.solve("tcr", "gucro-exact", e)
        assert list(solution.assoc) == [0, 1, 0, 1, 0, 1]
        assert solution.objective == pytest.approx(value, rel=1e-6)


def test_exact_refuses_what_is_too_many_by_name() -> None:
    with pytest.raises(Refused, match="N = 13, M = 2") as refusal:
        registry.solve("tcr", "exact", draw(0, {"N": 13, "M": 2}))
    assert refusal.value.field == "N"
    assert objective("exact", draw(0, {"N": 40, "M": 1})) > 0.0


def test_exact_is_what_single_solves_of_every_association_give() -> None:
    e = draw(5, {"N": 4, "M": 3})
    every = [settle(e, np.array([a])).value[0] for a in itertools.product(range(3), repeat=4)]
    assert objective("exact", e) >= max(every) * (1 - 1e-9)


@pytest.mark.parametrize("size", [(10, 2), (20, 3)])
def test_priced_reaches_the_best_known_values(size: tuple[int, int]) -> None:
    for seed in (3,):
        e = draw(seed, {"N": size[0], "M": size[1]})
        assert objective("priced", e) >= 0.995 * BEST[size][seed]


@pytest.mark.slow
def test_priced_reaches_all_best_known_values() -> None:
    ratios = [
        objective("priced", draw(seed, {"N": n, "M": m})) / best
        for (n, m), values in BEST.items()
        for seed, best in enumerate(values)
    ]
    assert min(ratios) >= 0.995
    assert np.mean(ratios) >= 0.999


def test_priced_equals_enumeration_on_small_instances() -> None:
    for seed in range(2):
        e = draw(seed, {"N": 4, "M": 3})
        assert objective("priced", e) >= (1 - 1e-3) * objective("exact", e)


@pytest.mark.parametrize("profile", ["paper", "delegate", "chain"])
def test_priced_is_never_below_the_papers_methods(profile: str) -> None:
    e = draw(2, {"N": 4, "M": 2, "profile": profile})
    ours = objective("priced", e)
    for solver in ("rucaa", "gucaa", "aauco", "gucro", "dashf", "gucro-exact"):
        assert objective(solver, e) <= ours * (1 + 1e-6), solver


@pytest.mark.parametrize("profile", ["paper", "delegate", "chain", "custom"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (5, 1), (2, 5), (8, 4)])
def test_every_shape_is_solved(profile: str, n: int, m: int) -> None:
    e = draw(1, {"N": n, "M": m, "profile": profile})
    ours = objective("priced", e, descents=1)
    assert ours >= e.model.terms(e.model.even(e.model.spread())).tcr
    if m**n <= 32:
        assert ours == pytest.approx(objective("exact", e), rel=1e-6)


def test_users_and_servers_in_another_order_change_nothing_but_the_order() -> None:
    e = draw(6, {"N": 6, "M": 3})
    rng = np.random.default_rng(0)
    users, servers = rng.permutation(6), rng.permutation(3)
    by_user, by_server = ("d", "pu_max", "fu_max", "eta_u", "eta_r", "kappa_u", "pos_u"), (
        "score", "B", "ps_max", "fs_max", "eta_s", "eta_b", "kappa_s", "verify", "pos_s",
    )  # fmt: skip
    other = made(
        e, gain=e.gain[users][:, servers], wire=e.wire[servers][:, servers],
        **{name: getattr(e, name)[users] for name in by_user}, **{name: getattr(e, name)[servers] for name in by_server},
    )  # fmt: skip
    first, second = (registry.solve("tcr", "exact", i) for i in (e, other))
    assert second.objective == pytest.approx(first.objective, rel=1e-7)
    assert [int(servers[a]) for a in second.assoc] == [first.assoc[n] for n in users]


def test_other_units_scale_the_answer() -> None:
    """Bits counted in tens: sizes, rates and noise fall, cycles per bit rise; nothing else changes. v1 scales TCR."""
    e = draw(3, {"N": 5, "M": 2})
    base = objective("exact", e)
    scaled = draw(3, {
        "N": 5, "M": 2, "kb_bits": 800, "B": 1e6, "N0": e.params.N0 * 10, "eta_u": 2796.2, "eta_r": 2796.2,
        "eta_s": 2796.2, "eta_b": 7375.0, "wire": 1.5e6, "block_bits": 6.4e6,
    })  # fmt: skip
    assert objective("exact", scaled) == pytest.approx(base, rel=1e-7)
    for v1 in (1e-6, 1e6):
        assert objective("exact", draw(3, {"N": 5, "M": 2, "v1": v1})) == pytest.approx(v1 * base, rel=1e-6)
    slower = draw(3, {"N": 5, "M": 2, "w_t": 5.0, "w_e": 5.0})
    assert objective("exact", slower) == pytest.approx(base / 10, rel=1e-6)


def test_better_servers_never_lower_the_optimum() -> None:
    e = draw(8, {"N": 5, "M": 2})
    base = objective("exact", e)
    for change in ({"gain": e.gain * 2}, {"score": e.score + 0.1}, {"wire": e.wire * 2}, {"pu_max": e.pu_max * 2}):
        assert objective("exact", made(e, **change)) >= base * (1 - 1e-7)


def test_a_time_limit_holds_and_leaves_an_answer() -> None:
    e = draw(0, {"N": 200, "M": 8})
    began = time.monotonic()
    solution = registry.solve("tcr", "priced", e, time_limit_s=0.4)
    assert time.monotonic() - began < 3.0
    assert solution.info["status"] == "time_limit"
    assert TCR.score(e, solution).holds
    assert solution.objective > e.model.terms(e.model.even(e.model.spread())).tcr


def test_a_large_batch_is_settled_in_parts_that_a_limit_can_part(monkeypatch: pytest.MonkeyPatch) -> None:
    e = draw(0, {"N": 4, "M": 2})
    every = np.array(list(itertools.product(range(2), repeat=4)))
    whole = Climb(e, Search()).settled(every)
    monkeypatch.setattr(climb, "_TOGETHER", 12)
    parts = Climb(e, Search()).settled(every)
    assert np.array_equal(parts.assoc, every)
    assert parts.value == pytest.approx(whole.value, rel=1e-4)
    assert parts.X.shape == whole.X.shape
    assert parts.prices.shape == whole.prices.shape
    cut_off = Climb(e, Search(stopped=lambda: True)).settled(every)
    assert np.array_equal(cut_off.assoc, every[:3])


def test_a_bound_is_not_begun_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    e = draw(0, {"N": 6, "M": 2})

    def begun(*_: object, **__: object) -> None:
        raise AssertionError("the pair search ran after the limit")

    best = registry.solve("tcr", "gucro-exact", e)
    monkeypatch.setattr(Pairs, "_judge", begun)
    assert upper_bound(e, of_solution(best, e), Search(stopped=lambda: True)) is None
    solution = registry.solve("tcr", "priced", e, settings={"bound": 1}, stopped=lambda: True)
    assert solution.bound is None
    assert solution.info["status"] == "interrupted"


def test_a_pair_search_that_is_cut_off_bounds_all_the_same() -> None:
    e = draw(1, {"N": 3, "M": 2})
    pairs = Pairs(e, np.repeat(np.arange(3), 2), np.tile(np.arange(2), 3))
    asked = {"tolerance": 1e-3, "upto": 9.0}
    prices = np.full((3, 2), 1.0)
    close = pairs.bounds(9.0, 1.0, prices, **asked).most(3)
    rough = pairs.bounds(9.0, 1.0, prices, **asked, over=lambda: True).most(3)
    assert (rough >= close - 1e-9).all()
    assert (rough > close + 1e-3).any()


def test_a_search_that_is_stopped_returns_its_best() -> None:
    e = draw(0)
    heard: list[float] = []
    solution = registry.solve(
        "tcr", "priced", e, stopped=lambda: len(heard) >= 3, report=lambda worth, _bound: heard.append(worth)
    )
    assert solution.info["status"] == "interrupted"
    assert solution.objective == pytest.approx(heard[-1], rel=1e-12)
    assert heard == sorted(heard)


def test_the_same_call_gives_the_same_solution() -> None:
    e = draw(9, {"N": 9, "M": 3})
    runs = [registry.solve("tcr", "priced", e, settings={"kicks": 2}) for _ in range(2)]
    assert runs[0].b == runs[1].b
    assert list(runs[0].info["objectives"]) == sorted(runs[0].info["objectives"])


@pytest.mark.parametrize(("name", "value"), [("descents", 0), ("kicks", -1), ("bound", 2), ("colour", 1)])
def test_options_are_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(Refused) as refusal:
        registry.policy("tcr", "priced", settings={name: value})
    assert refusal.value.field == name


# --- phi = 0


def test_the_closed_form_of_the_specification() -> None:
    e = draw(0, {"N": 6, "M": 2, "profile": "paper"})
    chosen = local_only(e)
    assert chosen is not None
    t = e.model.terms(chosen)
    assert t.tcr == pytest.approx(4.877042704904, rel=1e-12)
    assert (t.T, t.E, t.trust) == pytest.approx((4.31666667, 0.73387446, 12.31585238), rel=1e-8)
    assert sorted(np.bincount(chosen.assoc)) == [2, 4]
    assert local_only(draw(0)) is None


@pytest.mark.parametrize("seed", range(3))
def test_enumeration_never_beats_the_closed_form(seed: int) -> None:
    e = draw(seed, {"N": 6, "M": 2, "profile": "paper"})
    closed = e.model.terms(local_only(e)).tcr
    assert objective("exact", e) == pytest.approx(closed, rel=1e-9)


def test_loads_and_delay_of_the_closed_form_are_the_best() -> None:
    """Against all loads and a fine search over T, with propagation times that differ."""
    e = draw(1, {"N": 3, "M": 3, "profile": "paper", "w_t": 0.05})
    uneven = made(e, wire=[[0, 8e6, 4e6], [8e6, 0, 16e6], [1e6, 2e6, 0]])
    best = 0.0
    for assoc in itertools.product(range(3), repeat=3):
        even = uneven.model.even(np.array(assoc), np.zeros(3))
        for T in np.geomspace(uneven.model.t_chain[list(assoc)].max(), 200.0, 60):
            fu = uneven.d * uneven.eta_u / T
            if (fu <= uneven.fu_max).all():
                best = max(best, uneven.model.terms(dataclasses.replace(even, fu=fu)).tcr)
    closed = uneven.model.terms(local_only(uneven)).tcr
    assert best * (1 - 1e-12) <= closed <= best * 1.01


def test_the_closed_form_at_any_size() -> None:
    e = draw(0, {"N": 1000, "M": 20, "profile": "paper"})
    chosen = local_only(e)
    assert e.model.audit(chosen).feasible
    q, k = e.score, np.bincount(chosen.assoc, minlength=20)

    def worth(k: np.ndarray) -> np.ndarray:
        return np.where(k > 0, k * np.log1p(5.0 * (3.0 / np.maximum(k, 1) + q)), 0.0)

    assert (worth(k) - worth(np.maximum(k - 1, 0)))[k > 0].min() >= (worth(k + 1) - worth(k)).max() - 1e-12


# --- bounds


def test_pair_bounds_hold_for_every_point_and_are_close() -> None:
    """Against local solves from many starts and against random points, at the incumbent's prices and at others."""
    e = draw(0, {"N": 5, "M": 2})
    points = settle(e, np.array([[0, 1, 1, 0, 1]]))
    users, servers = np.repeat(np.arange(5), 2), np.tile(np.arange(2), 5)
    rng = np.random.default_rng(0)
    own = points.prices[:, 0]
    for prices in (own, own * 0.5 + 0.2, np.zeros((3, 2))):
        T, y = float(np.exp(points.tau[0])) * 1.1, float(points.value[0])
        leaves = Pairs(e, users, servers).bounds(T, y, prices, tolerance=1e-4, upto=1.2 * T)
        bound = leaves.most(5)
        best = np.full(10, -np.inf)
        for level in (-0.02, -1.0, -2.5, -5.0):
            X = np.empty((7, 10))
            X[0], X[1:3], X[3:5], X[5], X[6] = 0.5, -0.05, -1.3, -0.5, level
            worth, _ = alone(e, users, servers, X, tau=float(np.log(T)), y=y, rent=prices[:, servers], final=1e-7)
            best = np.maximum(best, worth)
        reached = best.reshape(5, 2).max(axis=1)
        assert (bound >= reached - 1e-9).all()
        earned = np.full(5, -np.inf)
        np.maximum.at(earned, leaves.places.user, leaves.places.value)
        if prices is own:
            assert (bound <= earned + 2e-4).all()
        later = np.full(5, -np.inf)
        np.maximum.at(later, leaves.user, leaves.bound + leaves.slope * 0.15 * T)
        for _ in range(300):
            n, m = rng.integers(5), rng.integers(2)
            share = np.exp(rng.uniform(-6, 0, 4))
            one = dataclasses.replace(
                e.model.even(np.full(5, m)), phi=np.full(5, rng.uniform(0.5, 1)), b=np.full(5, share[0] * e.B[m]),
                ps=np.full(5, share[1] * e.ps_max[m]), fs=np.full(5, share[2] * e.fs_max[m]), gamma=np.full(5, rng.uniform(0.2, 0.8)),
                fu=np.full(5, rng.uniform(0.05, 1) * e.fu_max[0]), pu=np.full(5, share[3] * e.pu_max[0]),
            )  # fmt: skip
            t = e.model.terms(one)
            slowest = max(t.T_u[n], t.T_s[n])
            worth = t.V[n] - y * 0.5 * (t.E_u[n] + t.E_s[n]) - share[:3] @ prices[:, m]
            if slowest <= T:
                assert worth <= bound[n] + 1e-9
            if slowest <= 1.15 * T:
                assert worth <= later[n] + 1e-9


@pytest.mark.parametrize("profile", ["delegate", "chain"])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_bounds_hold_and_are_close(profile: str, seed: int) -> None:
    e = draw(seed, {"N": 6, "M": 2, "profile": profile})
    solution = registry.solve("tcr", "priced", e, settings={"bound": 1})
    optimum = objective("exact", e)
    assert solution.bound is not None
    assert optimum <= solution.bound <= optimum * 1.01


@pytest.mark.slow
def test_a_bound_from_a_poor_incumbent_still_holds() -> None:
    """Prices and delay of a bad decision make it loose, never wrong."""
    e = draw(3, {"N": 3, "M": 2})
    optimum = objective("exact", e)
    for assoc in (np.zeros(3, dtype=np.int64), e.model.spread()):
        bound = upper_bound(e, e.model.even(assoc), Search(deadline=time.monotonic() + 20.0))
        assert bound is None or bound >= optimum


def test_bounds_of_the_larger_instances() -> None:
    e = draw(0, {"N": 10, "M": 2})
    solution = registry.solve("tcr", "priced", e, settings={"bound": 1, "descents": 1})
    assert solution.bound is not None
    assert BEST[10, 2][0] <= solution.bound <= 1.005 * BEST[10, 2][0]


@pytest.mark.parametrize("settings_", [{"profile": "paper"}, {"w_e": 0}, {"omega_r": 0}])
def test_no_bound_is_claimed_where_none_can_be_proven(settings_: dict[str, object]) -> None:
    e = draw(0, {"N": 3, "M": 2, **settings_})
    assert registry.solve("tcr", "priced", e, settings={"bound": 1, "descents": 1}).bound is None


def test_warm_starts_lie_strictly_inside() -> None:
    e = draw(1, {"N": 6, "M": 3})
    points = settle(e, e.model.spread()[None])
    chosen = decision(e, points, 0)
    again = variables(e, chosen)
    assert again == pytest.approx(inside(points.X), abs=1e-9)
    assert (again[1:3] < 0.0).all()


def test_the_room_starts_without_the_convex_solvers() -> None:
    code = (
        "import sys; from edgora.allocator.registry import solve; from edgora.allocator.tcr import draw;"
        "e = draw(0, {'N': 3, 'M': 2}); solve('tcr', 'priced', e); solve('tcr', 'exact', e);"
        "print(sorted({'cvxpy', 'clarabel', 'scipy', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
