# ruff: noqa: N803  # symbols as in the paper
"""Exact answers: the spec's values to the digit, brute force on small systems, joint decisions against enumeration."""

from itertools import product

import numpy as np
import pytest

from edgora.allocator import solve
from edgora.allocator.privacy import exact as room
from edgora.allocator.privacy.cmdp import cheapest, default_floor
from edgora.allocator.privacy.coupling import alone, flips, stakes
from edgora.allocator.privacy.evaluation import decisions, exactly, play, score
from edgora.allocator.privacy.exact import best_average, miner, relative_values
from edgora.allocator.privacy.instance import Instance, Params, make
from edgora.allocator.privacy.model import State
from edgora.allocator.privacy.policies import Constant, Inverse, Myopic, Planned, Uniform, lookahead
from edgora.wire.errors import Refused

SMALL = Params(C=20.0, B=40.0, D1_lo=10.0, D1_hi=30.0, grid=10.0)


def test_the_exact_values_of_the_spec() -> None:
    tables = miner(make())
    V = tables.discounted(0.85)[0].reshape(tables.shape)
    assert V[5, 0, 1, 0] == pytest.approx(82.316356, abs=1e-6)
    assert V[5, 0, 0, 0] == pytest.approx(-15.405069, abs=1e-6)
    assert V.size == 2046


@pytest.mark.parametrize(("beta", "best"), [(0.5, 4.246352), (0.8, 6.019745)])
def test_the_best_average_of_the_spec(beta: float, best: float) -> None:
    instance = make(beta=beta)
    assert best_average(instance) == pytest.approx(best, abs=1e-6)
    solution = solve("privacy", "RVI", instance)
    assert solution.objective == pytest.approx(best, abs=1e-6)
    assert solution.score == pytest.approx(1.0, abs=1e-9)


TABLE = {  # privacy.md 6: reward, privacy, cost at beta 0.5 and 0.8
    "RVI": ((4.25, 0.664, 28.96), (6.02, 0.622, 25.06)),
    "VI": ((4.07, 0.643, 28.07), (5.96, 0.594, 23.72)),
    "myopic": ((3.08, 0.563, 25.05), (5.77, 0.570, 22.74)),
    "CMDP": ((3.55, 0.566, 24.74), (5.13, 0.522, 20.99)),
    "inverse": ((2.70, 0.675, 31.05), (4.65, 0.675, 29.10)),
    "random": ((-6.03, 0.364, 24.25), (-5.15, 0.364, 23.37)),
    "NO": ((-10.0, 0.5, 35.0), (-1.0, 0.5, 26.0)),
    "EO": ((-17.10, 0.175, 25.85), (-16.60, 0.175, 25.35)),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_one_miner(name: str) -> None:
    for beta, (reward, privacy, cost) in zip((0.5, 0.8), TABLE[name], strict=True):
        solution = solve("privacy", name, make(3, beta=beta))
        assert solution.reward == pytest.approx(reward, abs=0.0051)
        assert solution.privacy == pytest.approx(privacy, abs=0.00051)
        assert solution.cost == pytest.approx(cost, abs=0.0051)


def test_exact_averages_are_those_of_a_long_run() -> None:
    instance = make(5)
    for policy in (Inverse(), Uniform(1), Myopic(instance)):
        found = exactly(decisions(policy, instance), instance)
        played = play(policy, instance, 5, copies=400, slots=400, settling=60)
        assert played.averages.reward == pytest.approx(found.reward, abs=5 * played.error())
        assert played.averages.energy == pytest.approx(found.energy, rel=0.02)
        assert played.averages.latency == pytest.approx(found.latency, rel=0.02)


def test_no_policy_of_a_small_system_beats_relative_values() -> None:
    """Sixty random policies, and every one-state change of the best one, by the exact average."""
    instance = make(params=SMALL)
    tables = miner(instance)
    average, U = tables.relative()
    best = tables.greedy(U, 1.0)
    assert tables.averages(tables.table(best)).reward == pytest.approx(average, abs=1e-8)
    rng = np.random.default_rng(0)
    for _ in range(60):
        assert tables.averages(tables.table(rng.integers(0, 2, best.size))).reward <= average + 1e-9
    for s in range(best.size):
        other = best.copy()
        other[s] ^= 1
        assert tables.averages(tables.table(other)).reward <= average + 1e-9


def test_discounted_values_solve_bellmans_equation_state_by_state() -> None:
    tables = miner(make(params=SMALL))
    V = tables.discounted(0.9)[0]
    chain = np.zeros((V.size, 2, V.size))  # written out in full, by the shape of the tables
    for s, (i1, i0, g, q) in enumerate(np.ndindex(*tables.shape)):
        kb = 10 * i0 + 10 + 10 * i1
        for a in (0, 1):
            left = 0 if a else (kb - max(min(kb, 20), kb - 40)) // 10
            for j1, h, r in product(range(3), range(2), range(3)):
                p = (0.8 if h == g else 0.2) * room.CHAIN[q][r] / 3
                chain[s, a, np.ravel_multi_index((j1, left, h, r), tables.shape)] += p
    assert (tables.reward + 0.9 * chain @ V).max(axis=1) == pytest.approx(V, abs=1e-7)


def test_several_closed_classes_are_weighted_by_the_start() -> None:
    """A channel that never changes: half of the systems are good for ever, half bad."""
    frozen = make(params=Params(sigma=1.0))
    tables = miner(frozen)
    found = tables.averages(tables.table(decisions(Constant(offload=True), frozen)))
    assert found.privacy == pytest.approx(0.5 * 0.35)
    with pytest.raises(Refused) as refused:
        tables.relative()
    assert refused.value.field == "sigma"


def test_iteration_and_elimination_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = make()
    tables = miner(instance)
    table = tables.table(decisions(Inverse(), instance))
    by_elimination = tables.averages(table)
    monkeypatch.setattr(room, "MAX_DENSE", 1)
    by_iteration = tables.averages(table)
    assert by_iteration.reward == pytest.approx(by_elimination.reward, abs=1e-7)
    assert by_iteration.latency == pytest.approx(by_elimination.latency, abs=1e-9)


def test_the_least_cost_keeps_the_floor_with_one_coin() -> None:
    instance = make()
    floor = default_floor(instance)
    assert floor == pytest.approx(0.88 * 0.6428662, abs=1e-6)
    chances, cost, price = cheapest(miner(instance), floor)
    found = exactly(chances, instance)
    assert found.privacy == pytest.approx(floor, abs=1e-7)
    assert found.cost == pytest.approx(cost, abs=1e-6)
    assert ((chances > 0) & (chances < 1)).sum() <= 1
    # The multiplier is the cost's slope, and no policy keeps more privacy than the most there is.
    assert cheapest(miner(instance), floor + 0.001)[1] - cost == pytest.approx(0.001 * price, rel=0.1)
    with pytest.raises(Refused) as refused:
        cheapest(miner(instance), 2.0)
    assert refused.value.field == "floor"


def slots_of(instance: Instance, count: int, seed: int) -> State:
    c, rng, shape = instance.constants, np.random.default_rng(seed), (count, instance.N, instance.M)
    return State(
        c.D1_lo + c.grid * rng.integers(0, c.K, shape), c.grid * rng.integers(0, round(c.B / c.grid), shape).astype(float),
        rng.integers(0, 2, shape[:2]), rng.integers(0, 3, count), np.zeros(count),
    )  # fmt: skip


@pytest.mark.parametrize(("N", "M"), [(1, 1), (1, 5), (2, 2), (3, 1)])
def test_stakes_say_what_the_formulas_say(N: int, M: int) -> None:
    instance = make(N=N, M=M, beta=0.7)
    state = slots_of(instance, 20, 1)
    slot = stakes(instance.model, state)
    rng = np.random.default_rng(2)
    for _ in range(8):
        x = rng.integers(0, 2, (20, N, M)).astype(bool)
        assert slot.total(x) == pytest.approx(instance.model.slot(state, x).reward.sum(axis=1), abs=1e-8)


@pytest.mark.parametrize("M", [1, 2, 5])
def test_a_miner_alone_takes_the_best_of_all_decisions(M: int) -> None:
    instance = make(M=M)
    state = slots_of(instance, 40, 3)
    slot = stakes(instance.model, state)
    rewards = np.stack([
        instance.model.slot(state, np.tile(x, (40, 1, 1))).reward[:, 0] for x in product((0, 1), repeat=M)
    ])  # fmt: skip
    assert slot.total(alone(slot)) == pytest.approx(rewards.max(axis=0), abs=1e-8)


def test_flips_are_the_search_of_the_spec() -> None:
    """The same search, one system at a time, by the formulas alone."""
    instance = make(N=3, M=2)
    state = slots_of(instance, 12, 4)
    found = flips(stakes(instance.model, state))
    for b in range(12):
        one = State(*(getattr(state, name)[b : b + 1] for name in ("D1", "D0", "g", "level", "backlog")))
        x = np.zeros((1, 3, 2), dtype=bool)
        for _ in range(3):
            for i in range(3):
                for chosen in ([0], [1], [0, 1]):
                    other = x.copy()
                    other[0, i, chosen] ^= True
                    gain = instance.model.slot(one, other).reward.sum() - instance.model.slot(one, x).reward.sum()
                    if gain > 1e-9:
                        x = other
        assert found[b].tolist() == x[0].tolist()


def test_lookahead_of_one_miner_is_optimal_and_of_many_beats_myopic() -> None:
    one = make(M=1)
    assert isinstance(lookahead(one), Planned)
    assert exactly(decisions(lookahead(one), one), one).reward == pytest.approx(relative_values(one)[0], abs=1e-9)
    many = make(N=3, M=1)
    runs = [play(policy, many, 1, copies=100, slots=120, settling=40) for policy in (lookahead(many), Myopic(many))]
    gain = runs[0].copies - runs[1].copies  # common draws
    assert gain.mean() > 5 * gain.std() / 10
    assert runs[0].averages.reward < best_average(many)


def test_scores_are_zero_for_random_and_one_for_the_best() -> None:
    low, high = score(make(), 0)
    assert (low, high) == (pytest.approx(-6.03, abs=0.005), pytest.approx(4.246352, abs=1e-6))


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"N": 2}, "N"), ({"M": 3}, "M"), ({"params": Params(C=33.0)}, "grid"), ({"params": Params(F=1e8)}, "F")],
)
def test_tables_are_refused_where_they_would_not_be_exact(settings: dict[str, object], field: str) -> None:
    with pytest.raises(Refused) as refused:
        solve("privacy", "VI", make(**settings))  # type: ignore[arg-type]
    assert refused.value.field == field
