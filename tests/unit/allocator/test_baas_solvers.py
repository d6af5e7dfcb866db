"""BaaS's solvers that know the model: exact against exhaustive search, what priced buys, floors and order of schemes."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from edgora.allocator import registry, solve
from edgora.allocator.baas import Choice, Instance, Params, draw, settle
from edgora.allocator.baas.baselines import random_matching
from edgora.allocator.baas.batch import Batch
from edgora.allocator.baas.evaluate import play, scale
from edgora.allocator.baas.exact import best, bound, optimum
from edgora.allocator.baas.matching import fill, matching
from edgora.allocator.baas.policies import SOLVERS
from edgora.allocator.baas.stream import Stream
from edgora.wire.errors import Refused

FEW = range(2000, 2008)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 3), st.sampled_from(["paper", "hetero"]))
def test_exact_is_the_best_of_all_choices(seed: int, users: int, servers: int, profile: Any) -> None:
    params = Params(U=users, M=servers, profile=profile, k_T=0.5 + 0.4 * (seed % 2))
    batch = Batch(Stream(params, np.random.default_rng(seed), 1))
    batch.step(best(batch.slots))
    slots = batch.slots
    found = settle(slots, best(slots)).reward[0]
    power = best(slots).request
    everything = [
        settle(slots, Choice(np.array([assign]), power)).reward[0]
        for assign in itertools.product(range(-1, users), repeat=servers)
    ]
    assert found == pytest.approx(max(everything))
    assert found == pytest.approx(optimum(slots)[0])
    assert found <= bound(slots)[0] + 1e-9
    assert best(slots).assign.tolist() == settle(slots, best(slots)).assign.tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_the_split_of_hash_power_is_the_linear_programs(seed: int, servers: int) -> None:
    rng = np.random.default_rng(seed)
    value, cap, total = rng.uniform(30, 40, servers), rng.uniform(20, 100, servers), rng.uniform(20, 100) * servers
    power = fill(value, cap, total)
    program = linprog(-value, A_ub=np.ones((1, servers)), b_ub=[total], bounds=[(20, c) for c in cap])
    assert value @ power == pytest.approx(-program.fun)
    assert power.sum() <= total + 1e-9
    assert ((power >= 20 - 1e-9) & (power <= cap + 1e-9)).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_pruning_a_large_matching_loses_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    U, M = int(rng.integers(13, 60)), 3
    worth = rng.normal(0.0, 1.0, (U, 1)) + rng.normal(0.0, 0.3, (U, M))
    found = matching(worth)
    total = sum(worth[u, m] for m, u in enumerate(found) if u >= 0)
    assert len(set(found[found >= 0])) == (found >= 0).sum()
    top = np.argsort(-worth.max(axis=1))[: 3 * M]  # the best triple lies among each server's best three
    brute = max(sum(max(worth[u, m], 0.0) for m, u in enumerate(triple)) for triple in itertools.permutations(top, M))
    assert total >= brute - 1e-9


def test_permuting_ues_and_servers_permutes_the_choice() -> None:
    slots = Batch(Stream(Params(U=8, M=4), np.random.default_rng(4), 1)).slots
    rng = np.random.default_rng(0)
    ues, servers = rng.permutation(8), rng.permutation(4)
    assert slots.rate is not None
    turned = type(slots)(
        params=slots.params, d=slots.d[:, ues], xi=slots.xi[:, ues], tau=slots.tau[:, ues], b=slots.b[:, servers],
        f=slots.f[:, servers], A=slots.A, B=slots.B, rate=slots.rate[:, ues][:, :, servers],
    )  # fmt: skip
    before, after = best(slots), best(turned)
    places = np.argsort(ues)
    assert after.assign[0].tolist() == [places[u] if u >= 0 else -1 for u in before.assign[0, servers]]
    assert np.allclose(after.request, before.request[:, servers])


def test_random_matchings_are_matchings_of_full_size() -> None:
    rng = np.random.default_rng(0)
    for U, M in ((3, 5), (5, 3), (4, 4)):
        assign = random_matching(rng, 50, U, M)
        for one in assign:
            named = one[one >= 0]
            assert len(named) == len(set(named)) == min(U, M)


def test_the_order_of_schemes_and_what_reputation_is_worth() -> None:
    params = Params()
    measure = scale(params, FEW, 60)
    score = {
        name: measure.score(play(params, SOLVERS[name]().policy(0), FEW, 60)).mean
        for name in ("random", "greedy", "exact", "priced")
    }
    assert abs(score["random"]) < 0.03
    assert 0.5 < score["greedy"] < score["exact"] < score["priced"] < 1.0
    assert score["exact"] > 0.94
    genetic = play(params, SOLVERS["ga"](generations=20).policy(0), range(2000, 2002), 10)  # type: ignore[call-arg]
    assert scale(params, range(2000, 2002), 10).score(genetic).mean > 0.2


def test_exact_earns_the_optimum_of_every_slot() -> None:
    params = Params()
    rollout = play(params, SOLVERS["exact"]().policy(0), range(3), 20)
    batch = Batch(Stream(params, np.random.default_rng(1), 1))
    for reward in rollout.metrics["utility"][1]:
        assert reward == pytest.approx(optimum(batch.slots)[0])
        batch.step(best(batch.slots))


def test_a_price_of_zero_is_exact() -> None:
    instance = draw(3, {"slots": 5})
    exact, priced = (
        solve("baas", name, instance, settings=options) for name, options in (("exact", {}), ("priced", {"theta": 0}))
    )
    assert exact.objective == priced.objective
    assert solve("baas", "priced", draw(3, {"slots": 5, "theta": 0})).objective == exact.objective


@pytest.mark.parametrize("name", ["random", "greedy", "ga", "exact", "priced"])
def test_through_the_registry(name: str) -> None:
    instance = draw(7, {"slots": 3, "U": 6, "M": 3})
    found = solve("baas", name, instance, seed=2)
    again = solve("baas", name, instance, seed=2)
    assert [slot.assign for slot in found.slots] == [slot.assign for slot in again.slots]
    assert found.objective == again.objective
    room = registry.problem("baas")
    assert room.score(instance, room.load_solution(room.dump_solution(found), instance)).holds


def test_the_optimum_of_one_slot_is_proven() -> None:
    found = solve("baas", "exact", draw(7))
    assert found.objective == pytest.approx(55.822792, abs=5e-7)
    assert found.bound == pytest.approx(found.objective)
    assert found.info["status"] == "optimal"


class Heaviest:
    """A user's policy: the i-th server takes the UE with the i-th greatest demand."""

    def propose(self, instance: Instance, budget_s: float) -> object:
        assert instance.T == 1
        order = np.argsort(-(instance.d[0] * instance.xi[0]))[: instance.params.M]
        return {"assign": order, "request": np.full(instance.params.M, 60.0)}


def test_a_users_policy_plays_slot_after_slot() -> None:
    instance = draw(7, {"slots": 4})
    found = solve("baas", Heaviest(), instance)
    assert len(found.slots) == 4
    assert solve("baas", "random", instance).objective < found.objective < solve("baas", "exact", instance).objective


@pytest.mark.parametrize(
    "answer",
    [
        None,
        3,
        {},
        {"assign": [0]},
        {"assign": [[0, 1]] * 2, "request": [60, 60]},
        {"assign": [0.5, 1], "request": [60, 60]},
    ],
)
def test_answers_that_are_no_choice(answer: object) -> None:
    class Answers:
        def propose(self, instance: Instance, budget_s: float) -> object:
            return answer

    with pytest.raises(registry.PolicyError, match="Answers"):
        solve("baas", Answers(), draw(1, {"U": 3, "M": 2}))


def test_a_solution_leaves_a_trace(tmp_path: Path) -> None:
    instance, path = draw(7, {"slots": 3}), tmp_path / "trace.npz"
    found = solve("baas", "exact", instance, settings={"trace": str(path)})
    with np.load(path, allow_pickle=False) as file:
        assert file["reward"].tolist() == [slot.reward for slot in found.slots]
        assert file["assign"].tolist() == [list(slot.assign) for slot in found.slots]
        assert file["start"].tolist() == [True, False, False]
        assert (file["rate"] == instance.rate).all()
        assert str(file["profile"]) == "hetero"
    for wrong in (3, str(tmp_path / "no" / "trace.npz")):
        with pytest.raises(Refused, match="trace"):
            solve("baas", "exact", instance, settings={"trace": wrong})
