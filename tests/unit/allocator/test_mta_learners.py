"""The paper's Q-learning, as written and repaired (mta.md 8)."""

import numpy as np
import pytest

from edgora.allocator import solve
from edgora.allocator.mta import Instance, draw
from edgora.allocator.mta.solvers.qlearning import QLearning
from edgora.allocator.search import Search
from edgora.wire.errors import Refused

SEEDS = range(24)


@pytest.fixture(scope="module")
def instances() -> list[Instance]:
    return [draw(seed) for seed in SEEDS]


def mean_utility(instances: list[Instance], **settings: object) -> float:
    found = [solve("mta", "qlearning", e, seed=seed, settings=settings) for seed, e in enumerate(instances)]
    return float(np.mean([s.objective for s in found]))


def test_table_8_4_mode_paper(instances: list[Instance]) -> None:
    """Streams are normative, so the specification's means come out to the digit but one."""
    found = [solve("mta", "qlearning-paper", e, seed=seed) for seed, e in enumerate(instances)]
    settled = [s.settlement if s.objective is None else s.objective for s in found]
    assert round(float(np.mean([s.reward_sum for s in found]))) == 23_525
    assert float(np.mean(settled)) == pytest.approx(12_411, abs=1)
    naive = [solve("mta", "greedy-naive", e).reward_sum for e in instances]
    assert all(s.reward_sum < best for s, best in zip(found, naive, strict=True)), "24 of 24 below naive greedy (11)"


def test_table_8_4_mode_feasible(instances: list[Instance]) -> None:
    assert round(mean_utility(instances)) == 19_086
    assert mean_utility(instances, epsilon=0) == pytest.approx(21_425, abs=1)
    greedy = np.mean([solve("mta", "greedy", e).objective for e in instances])
    swapped = mean_utility(instances, rate=0.9, discount=0.01)
    assert greedy < swapped == pytest.approx(23_600, rel=0.01)


def test_with_the_printed_parameters_it_does_not_learn(instances: list[Instance]) -> None:
    """8.4: the curve is flat from episode 50 on, and the result is the best of many nearly random plans."""
    curves = np.array([solve("mta", "qlearning", e, seed=s).info["curve"] for s, e in enumerate(instances[:8])])
    assert curves.shape == (8, 500)
    assert curves[:, 400:].mean() == pytest.approx(curves[:, 50:150].mean(), rel=0.03)
    taught = [
        solve("mta", "qlearning", e, seed=s, settings={"rate": 0.9, "discount": 0.01}).info["curve"]
        for s, e in enumerate(instances[:8])
    ]
    assert np.array(taught)[:, 400:].mean() > 1.1 * curves[:, 400:].mean()


def by_hand(instance: Instance, seed: int, rate: float, discount: float, epsilon: float, episodes: int) -> list[int]:
    """8.1 with 8.3, word for word."""
    model, rng = instance.model, np.random.default_rng(seed)
    n, m = instance.n, instance.m
    reward, value = model.reward, model.value
    q, best, best_worth = np.zeros((m, n)), [-1] * m, -np.inf
    for _ in range(episodes):
        used, plan = np.zeros(n), []
        for j in range(m):
            c = [
                i for i in range(n)
                if model.feasible[i, j] and value[i, j] > 0 and used[i] + model.cycles[i, j] <= instance.capacity[i]
            ]  # fmt: skip
            if not c:
                plan.append(-1)
                continue
            i = max(c, key=lambda i: (q[j, i], -i)) if rng.random() < epsilon else c[rng.integers(len(c))]
            ahead = max((q[j + 1, k] for k in range(n) if reward[k, j + 1] != 0), default=0.0) if j + 1 < m else 0.0
            q[j, i] += rate * (reward[i, j] + discount * ahead - q[j, i])
            used[i] += model.cycles[i, j]
            plan.append(i)
        worth = sum(value[i, j] for j, i in enumerate(plan) if i >= 0)
        if worth > best_worth:
            best, best_worth = plan, worth
    return best


@pytest.mark.parametrize("seed", range(4))
def test_the_learner_follows_the_printed_loop(seed: int) -> None:
    instance = draw(seed, {"n": 4, "m": 12, "cap_scale": 0.6})
    chosen = {"rate": 0.5, "discount": 0.7, "epsilon": 0.6, "episodes": 30}
    assert list(solve("mta", "qlearning", instance, seed=seed, settings=chosen).plan) == by_hand(
        instance, seed, **chosen
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rate", 1.5),
        ("rate", "x"),
        ("discount", -0.1),
        ("epsilon", 2),
        ("episodes", 0),
        ("episodes", 1.5),
        ("alpha", 0.1),
    ],
)
@pytest.mark.parametrize("name", ["qlearning", "qlearning-paper"])
def test_settings_are_refused_by_name(name: str, key: str, value: object) -> None:
    with pytest.raises(Refused) as refused:
        solve("mta", name, draw(0), settings={key: value})
    assert key in str(refused.value)


def test_a_learner_stops_when_told_with_the_best_episode_so_far() -> None:
    asked = iter([False, False, True])
    found = solve("mta", "qlearning", draw(0), stopped=lambda: next(asked, True), settings={"episodes": 10**6})
    assert found.info["status"] == "interrupted"
    assert found.objective == pytest.approx(max(found.info["curve"]))


def test_the_repaired_learner_runs_on_a_live_rounds_table_too() -> None:
    table = draw(2).table
    found = QLearning(episodes=20).on_table(table, Search(1))
    assert table.allows(found.plan)
    assert table.worth(found.plan) == pytest.approx(max(found.info["curve"]))
