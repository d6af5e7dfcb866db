"""`edgora/BaaS-v0`: Gymnasium's own checker, single and vectorised forms on the normative stream."""

from typing import Any

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from edgora.allocator.baas import Params  # noqa: E402
from edgora.allocator.baas.batch import Batch  # noqa: E402
from edgora.allocator.baas.env import ID, BaaSEnv, BaaSVectorEnv  # noqa: E402
from edgora.allocator.baas.exact import best  # noqa: E402
from edgora.allocator.baas.model import Choice  # noqa: E402
from edgora.allocator.baas.stream import Stream  # noqa: E402
from edgora.wire.errors import Refused  # noqa: E402


@pytest.mark.filterwarnings("ignore:.*(symmetric|infinity).*:UserWarning")  # advice about scaling; units are the spec's
@pytest.mark.parametrize(
    "options",
    [{}, {"profile": "paper"}, {"obs": "paper"}, {"action": "levels"}, {"U": 3, "M": 5, "horizon": 4}],
    ids=str,
)
def test_gymnasiums_checker_is_content(options: dict[str, Any]) -> None:
    check_env(gymnasium.make(ID, **options).unwrapped, skip_render_check=True)


def as_action(choice: Choice) -> dict[str, np.ndarray]:
    return {"assign": choice.assign[0], "request": choice.request[0]}


def test_the_environment_plays_the_normative_stream() -> None:
    env = gymnasium.make(ID)
    batch = Batch(Stream(Params(), np.random.default_rng(7), 1))
    seen, _ = env.reset(seed=7)
    for expected in (55.822792, 56.343626, 56.203342):
        assert (seen["d"] == batch.slots.d[0]).all()
        choice = best(batch.slots)
        seen, reward, terminated, truncated, info = env.step(as_action(choice))
        outcome = batch.step(choice)
        assert reward == outcome.reward[0] == pytest.approx(expected, abs=5e-7)
        assert (terminated, truncated) == (False, False)
        assert info["ecl"] == outcome.ecl[0]
        assert seen["Y"] == pytest.approx(batch.slots.Y[0])


def test_the_last_slot_truncates_and_shows_what_to_bootstrap_from() -> None:
    env, batch = BaaSEnv(horizon=2), Batch(Stream(Params(horizon=2), np.random.default_rng(3), 1))
    env.reset(seed=3)
    for slot in range(4):  # reset goes on with the same generator
        seen, reward, terminated, truncated, _ = env.step(as_action(best(batch.slots)))
        assert reward == batch.step(best(batch.slots)).reward[0]
        assert not terminated
        assert truncated == (slot % 2 == 1)
        if truncated:
            assert batch.final is not None
            assert (seen["d"] == batch.final.d[0]).all()
            seen, _ = env.reset()
            assert (seen["d"] == batch.slots.d[0]).all()
            assert (seen["Y"] == 1).all()


def test_copies_in_lockstep() -> None:
    envs = gymnasium.make_vec(ID, num_envs=3, vectorization_mode="vector_entry_point", horizon=2)
    batch = Batch(Stream(Params(horizon=2), np.random.default_rng(5), 3))
    seen, _ = envs.reset(seed=5)
    assert envs.observation_space.contains(seen)
    for slot in range(4):
        choice = best(batch.slots)
        seen, rewards, terminated, truncated, info = envs.step({"assign": choice.assign, "request": choice.request})
        assert (rewards == batch.step(choice).reward).all()
        assert not terminated.any()
        assert truncated.tolist() == [slot % 2 == 1] * 3
        assert (seen["d"] == batch.slots.d).all()
        if truncated.all():
            assert batch.final is not None
            assert (info["final_obs"][2]["tau"] == batch.final.tau[2]).all()
            assert (seen["Y"] == 1).all()
        else:
            assert "final_obs" not in info


def test_levels_are_the_same_choices() -> None:
    plain, levels = BaaSEnv(U=4, M=2), BaaSEnv(action="levels", U=4, M=2)
    plain.reset(seed=1)
    levels.reset(seed=1)
    first = plain.step({"assign": np.array([3, -1]), "request": np.array([40.0, 100.0])})
    assert levels.step(np.array([4, 0, 1, 4]))[1] == first[1]


def test_a_seed_for_each_copy() -> None:
    envs = BaaSVectorEnv(2, U=3, M=2)
    seen, _ = envs.reset(seed=[8, 9])
    alone, _ = BaaSEnv(U=3, M=2).reset(seed=9)
    assert (seen["d"][1] == alone["d"]).all()
    with pytest.raises(Refused, match="seed"):
        envs.reset(seed=[1])


@pytest.mark.parametrize(
    ("options", "field"), [({"u": 3}, "u"), ({"action": "free"}, "action"), ({"horizon": 0}, "horizon")]
)
def test_settings_are_refused_by_name(options: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused) as refusal:
        BaaSEnv(**options)
    assert refusal.value.field == field


def test_stepping_before_a_reset() -> None:
    for env in (BaaSEnv(), BaaSVectorEnv(2)):
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(env.action_space.sample())
