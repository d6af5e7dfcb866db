"""The environments are what their libraries expect, and play the model's slots."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test

from edgora.allocator.privacy.env import ENV_ID, MinersEnv, PrivacyVectorEnv
from edgora.allocator.privacy.features import features
from edgora.allocator.privacy.instance import draw
from edgora.allocator.privacy.simulation import Simulation
from edgora.wire.errors import Refused


@pytest.mark.parametrize("settings", [{}, {"M": 2, "beta": 0.8}, {"N": 3, "M": 2}, {"N": 2, "M": 6}], ids=str)
def test_gymnasium_accepts_them(settings: dict[str, object]) -> None:
    check_env(gymnasium.make(ENV_ID, **settings).unwrapped, skip_render_check=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pettingzoo_accepts_the_parallel_view() -> None:
    parallel_api_test(MinersEnv(N=3, M=2, slots=40), num_cycles=100)
    parallel_api_test(MinersEnv(N=2, M=6, slots=40), num_cycles=50)


@pytest.mark.parametrize("settings", [{}, {"N": 2, "M": 2}, {"lambda": 0.5, "F": 1e8}], ids=str)
def test_the_vectorised_form_plays_the_normative_slots(settings: dict[str, object]) -> None:
    instance = draw(0, settings)
    env = gymnasium.make_vec(ENV_ID, num_envs=17, **settings)
    simulation = Simulation(instance, 17, 5)
    seen, _ = env.reset(seed=5)
    rng = np.random.default_rng(1)
    for _ in range(30):
        assert seen == pytest.approx(features(simulation.state, instance).reshape(seen.shape))
        assert env.observation_space.contains(seen)
        codes = rng.integers(0, 2**instance.M, (17, instance.N))
        x = codes[:, :, None] >> np.arange(instance.M) & 1
        seen, reward, terminated, truncated, info = env.step(codes[:, 0] if instance.N == 1 else codes)
        outcome = simulation.step(x)
        assert reward == pytest.approx(outcome.reward.mean(axis=1))
        assert info["cost"] == pytest.approx(outcome.cost.mean(axis=1))
        assert info["latency"] == pytest.approx(outcome.L.mean(axis=(1, 2)))
        assert not terminated.any()
        assert not truncated.any()


def test_one_system_is_truncated_never_terminated() -> None:
    env = gymnasium.make(ENV_ID, slots=5)
    env.reset(seed=1)
    ends = [env.step(0)[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]


def test_parallel_rewards_are_the_miners_own() -> None:
    env = MinersEnv(N=3, M=2)
    env.reset(seed=8)
    simulation = Simulation(draw(0, {"N": 3, "M": 2}), 1, 8)
    _, rewards, *_ = env.step({"miner_0": 1, "miner_1": 2, "miner_2": 3})
    expected = simulation.step(np.array([[[1, 0], [0, 1], [1, 1]]])).reward[0]
    assert list(rewards.values()) == expected.tolist()


def test_settings_are_refused_by_name() -> None:
    with pytest.raises(Refused) as refused:
        PrivacyVectorEnv(4, beta=7)
    assert refused.value.field == "beta"


def test_the_room_starts_without_torch_and_gymnasium() -> None:
    code = (
        "import sys; from edgora.allocator import solve; from edgora.allocator.privacy import draw;"
        "solve('privacy', 'myopic', draw(0)); print([m for m in ('torch', 'gymnasium', 'cvxpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
