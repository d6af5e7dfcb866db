"""BaaS's slot: the vectors of baas.md 4 digit for digit, the normative stream, the rules against a plain loop."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.allocator.baas import Choice, Params, Slots, settle
from edgora.allocator.baas.batch import Batch
from edgora.allocator.baas.exact import best, optimum
from edgora.allocator.baas.model import caps, execute, grant, latency, mining_value, worth
from edgora.allocator.baas.stream import Stream, Streams


def row(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.float64)


SLOT = Slots(
    params=Params(U=3, M=2), d=row(16, 24, 40), xi=row(1, 1.5, 0.8), tau=row(6, 8, 10), b=row(2, 9), f=row(4, 5),
    A=row(12, 30), B=row(10, 40), rate=np.array([[[20, 40], [60, 30], [10, 80]]], dtype=np.float64),
)  # fmt: skip


def choice(assign: list[int], request: list[float]) -> Choice:
    return Choice(np.array([assign]), row(*request))


def near(values: object, *expected: object) -> bool:
    return np.allclose(np.squeeze(values), np.squeeze(expected), rtol=0, atol=5e-7)


def test_the_arithmetic_of_a_hetero_slot() -> None:
    assert near(latency(SLOT), (4.8, 3.6), (9.4, 8.0), (12.0, 6.9))
    assert near(worth(SLOT), (0, 0.6), (0.7, 1.4), (-1.2, 1.35))
    assert near(mining_value(SLOT.params, SLOT.b), 31.946711, 38.708594)
    assert near(SLOT.Y, 1.133333, 0.777778)
    assert near(caps(SLOT.params, SLOT.Y), 80.444444, 61.481481)
    assert SLOT.params.H == 120


def test_the_outcome_of_a_choice() -> None:
    outcome = settle(SLOT, choice([1, 2], [100, 100]))
    assert near(outcome.hash, 67.441860, 52.558140)
    assert near([outcome.revenue, outcome.mining, outcome.ecl, outcome.reward], 10.2, 34.908311, 16.3, 36.958311)
    assert near(outcome.A, 18.8, 37)
    assert near(outcome.B, 18.4, 42.9)
    assert outcome.served == [2]
    assert near(outcome.worth, 0.7, 1.35)
    assert near(outcome.rep, SLOT.Y)


def test_a_ue_named_twice_stays_with_the_first_server() -> None:
    outcome = settle(SLOT, choice([2, 2], [40, 60]))
    assert outcome.assign.tolist() == [[2, -1]]
    assert near(outcome.reward, 28.803201)


def test_the_best_choice_of_the_slot() -> None:
    found = best(SLOT)
    assert found.assign.tolist() == [[1, 2]]
    assert near(found.request, 58.518519, 61.481481)
    assert near(settle(SLOT, found).reward, 37.461133)
    assert near(optimum(SLOT), 37.461133)


@pytest.mark.parametrize(
    ("profile", "rewards"),
    [
        ("hetero", (55.822792, 56.343626, 56.203342, 57.746087, 54.492206)),
        ("paper", (55.514948, 55.519206, 55.946412, 57.387768, 53.409145)),
    ],
)
def test_the_stream_of_seed_7(profile: str, rewards: tuple[float, ...]) -> None:
    batch = Batch(Stream(Params(profile=profile), np.random.default_rng(7), 1))  # type: ignore[arg-type]
    slots = batch.slots
    assert near(slots.d[0, :2], 29.496485, 17.613443)
    assert near([slots.xi[0, 0], slots.tau[0, 0], slots.b[0, 0]], 0.638057, 10.121979, 9.533117)
    if profile == "hetero":
        assert near(slots.f[0, :2], 5.500382, 6.588855)
        assert slots.rate is not None
        assert near(slots.rate[0, 0, 0], 135.036979)
    else:
        assert slots.rate is None
        assert (slots.f == 5).all()
    assert near([batch.step(best(batch.slots)).reward[0] for _ in range(5)], rewards)


def test_the_stream_is_numpys_uniform_in_the_specs_order() -> None:
    params, B = Params(U=4, M=3), 2
    stream, rng = Stream(params, np.random.default_rng(5), B), np.random.default_rng(5)
    layout = stream.layout()
    assert (layout.f == rng.uniform(3.0, 7.0, (B, 3))).all()
    servers, ues = rng.uniform(0, 500, (B, 3, 2)), rng.uniform(0, 500, (B, 4, 2))
    apart = math.dist(ues[1, 3], servers[1, 2])
    assert layout.rate is not None
    assert layout.rate[1, 3, 2] == pytest.approx(20 * math.log2(1 + 100 * (max(apart, 10) / 100) ** -3.5))
    for _ in range(3):
        drawn = stream.slot()
        for values, (low, high), width in zip(
            drawn, ((8, 40), (0.6, 1.6), (4, 12), (1, 10)), (4, 4, 4, 3), strict=True
        ):
            assert (values == rng.uniform(low, high, (B, width))).all()


def test_seeds_side_by_side_are_the_seeds_alone() -> None:
    params = Params(U=3, M=2, horizon=4)
    together = Batch(Streams(params, range(10, 13)))
    alone = [Batch(Stream(params, np.random.default_rng(seed), 1)) for seed in range(10, 13)]
    for _ in range(9):  # over two resets
        decided = best(together.slots)
        rewards = [batch.step(best(batch.slots)).reward[0] for batch in alone]
        assert together.step(decided).reward.tolist() == rewards


def test_an_episode_ends_by_time_and_the_next_has_no_history() -> None:
    batch = Batch(Stream(Params(horizon=3), np.random.default_rng(0), 2))
    layout = batch.slots.f
    for slot in range(3):
        outcome = batch.step(best(batch.slots))
        assert (batch.final is None) == (slot < 2)
    assert batch.final is not None
    assert (batch.final.A == outcome.A).all()
    assert (batch.final.f == layout).all()
    assert (batch.slots.A == 0).all()
    assert (batch.slots.f != layout).all()
    assert batch.clock == 0


def by_hand(slots: Slots, assign: list[int], request: list[float]) -> tuple[float, list[float]]:
    """Reward and hash power of one copy by the spec's sentences."""
    p = slots.params
    taken: set[int] = set()
    total, desired, took = 0.0, [], []
    for m, u in enumerate(assign):
        seconds = tau = 0.0
        if u >= 0 and u not in taken:
            taken.add(u)
            work = slots.d[0, u] * slots.xi[0, u]
            seconds = work / slots.f[0, m] + (slots.d[0, u] / slots.rate[0, u, m] if slots.rate is not None else 0.0)
            total += p.mu * work - p.k_T * seconds
            tau = slots.tau[0, u]
        desired.append(tau)
        took.append(seconds)
    extra = []
    for m, q in enumerate(request):
        Y = (slots.A[0, m] + p.c_r) / (slots.B[0, m] + p.c_r)
        cap = 20 + 80 * min(max(Y / p.Y_star, 0), 1)
        extra.append(min(max(q, 20), cap) - 20)
    share = min(1.0, (p.H - 20 * p.M) / sum(extra)) if sum(extra) > 0 else 1.0
    power = [20 + e * share for e in extra]
    for m, granted in enumerate(power):
        total += (p.R + p.rho * slots.b[0, m]) * math.exp(-p.eta * p.z * slots.b[0, m]) * granted / p.H
    return total, power


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_choice_is_settled_by_the_rules(data: st.DataObject) -> None:
    U, M = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    profile = data.draw(st.sampled_from(["paper", "hetero"]))
    params = Params(U=U, M=M, profile=profile, p_mean=data.draw(st.sampled_from([20.0, 60.0, 100.0])))
    batch = Batch(Stream(params, np.random.default_rng(data.draw(st.integers(0, 99))), 1))
    for _ in range(3):
        assign = data.draw(st.lists(st.integers(-1, U - 1), min_size=M, max_size=M))
        request = data.draw(st.lists(st.floats(0, 120), min_size=M, max_size=M))
        expected, power = by_hand(batch.slots, assign, request)
        cap = caps(params, batch.slots.Y)
        outcome = batch.step(choice(assign, request))
        assert outcome.reward[0] == pytest.approx(expected)
        assert outcome.hash[0] == pytest.approx(power)
        assert outcome.hash.sum() <= params.H * (1 + 1e-12)
        assert (outcome.hash >= 20 - 1e-9).all()
        assert (outcome.hash <= cap + 1e-9).all()
        assert outcome.reward[0] == pytest.approx(outcome.mining[0] + outcome.worth.sum())
        assert outcome.reward[0] == pytest.approx(outcome.mining[0] + outcome.revenue[0] - params.k_T * outcome.ecl[0])


def test_duplicates_over_many_copies() -> None:
    rng = np.random.default_rng(3)
    assign = rng.integers(-1, 4, (200, 6))
    executed = execute(assign)
    for before, after in zip(assign.tolist(), executed.tolist(), strict=True):
        assert after == [u if u not in before[:m] else -1 for m, u in enumerate(before)]


def test_power_that_nobody_may_take_is_idle() -> None:
    params = Params(M=3)
    granted = grant(params, row(100, 100, 100), row(30, 40, 50))
    assert near(granted, 30, 40, 50)
    assert granted.sum() < params.H
