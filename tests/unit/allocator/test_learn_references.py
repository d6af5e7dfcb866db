"""Our learners beside references that the product does not need: stable-baselines3 and TensorBoard's own reader."""

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

torch = pytest.importorskip("torch")
sb3 = pytest.importorskip("stable_baselines3")

from stable_baselines3.common.env_checker import check_env  # noqa: E402
from stable_baselines3.common.type_aliases import ReplayBufferSamples  # noqa: E402
from stable_baselines3.common.utils import polyak_update  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

import edgora.allocator.baas.env  # noqa: E402
import edgora.allocator.privacy.env  # noqa: E402, F401
from edgora.allocator import registry  # noqa: E402
from edgora.allocator.learn import torch_state  # noqa: E402
from edgora.allocator.learn.replay import Replay  # noqa: E402
from edgora.allocator.learn.weights import read  # noqa: E402
from edgora.allocator.privacy.evaluation import decisions, exactly  # noqa: E402
from edgora.allocator.privacy.features import features  # noqa: E402
from edgora.allocator.privacy.instance import draw  # noqa: E402
from edgora.allocator.privacy.model import State  # noqa: E402
from edgora.wire.errors import Refused  # noqa: E402

SCALE = 0.02
"""DRLO's unit of rewards."""


# ---- environments ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning:stable_baselines3.common.env_checker")  # advice on scales and types
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("edgora/BaaS-v0", {"U": 4, "M": 2, "action": "levels"}),
        ("edgora/BaaS-v0", {"U": 4, "M": 2, "action": "levels", "obs": "paper", "profile": "paper"}),
        ("edgora/Privacy-v0", {}),
        ("edgora/Privacy-v0", {"N": 3, "M": 2}),
    ],
    ids=str,
)
def test_the_environments_are_what_the_reference_takes(name: str, settings: dict[str, Any]) -> None:
    check_env(gymnasium.make(name, **settings).unwrapped)


# ---- the update ------------------------------------------------------------------------------------------------------


def reference(instance: Any, hidden: list[int], seed: int, **more: Any) -> Any:
    """The reference's DQN with DRLO's options, on DRLO's environment."""
    env = gymnasium.make("edgora/Privacy-v0", slots=1_000_000)
    env = gymnasium.wrappers.TransformReward(env, lambda reward: SCALE * reward)
    return sb3.DQN(
        "MlpPolicy", env, learning_rate=1e-3, buffer_size=100_000, batch_size=128, learning_starts=128, train_freq=1,
        tau=0.005, target_update_interval=1, gamma=instance.constants.gamma, max_grad_norm=float("inf"),
        policy_kwargs={"net_arch": hidden}, seed=seed, device="cpu", **more,
    )  # fmt: skip


def test_drlo_learns_from_a_batch_what_the_references_dqn_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same first weights, same batches: after 40 updates, target network and Adam included, the same weights."""
    batches: list[dict[str, Any]] = []
    drawn = Replay.sample

    def kept(self: Replay, rng: np.random.Generator, size: int) -> dict[str, Any]:
        batches.append(drawn(self, rng, size))
        return batches[-1]

    monkeypatch.setattr(Replay, "sample", kept)
    hidden, settings = [24, 16], {"hidden": [24, 16], "slots": 167}
    trained = registry.learning("privacy").train("DRLO", tmp_path / "run", 5, settings, lambda _: None, lambda: False)
    assert len(batches) == trained.updates == 40

    instance = draw(0, {})
    model = reference(instance, hidden, 5)
    torch_state.deterministic(5)  # as DRLO makes its first weights
    shapes = [layer.weight.shape for layer in model.q_net.q_net if hasattr(layer, "weight")]
    parts = [torch.nn.Linear(inputs, outputs) for outputs, inputs in shapes]
    first = {
        f"q_net.{2 * i}.{name}": value for i, part in enumerate(parts) for name, value in part.state_dict().items()
    }
    for net in (model.q_net, model.q_net_target):
        net.load_state_dict({**net.state_dict(), **first})
    model._logger = sb3.common.logger.configure(None, [])
    queue = iter(batches)

    def given(*_: Any, **__: Any) -> ReplayBufferSamples:
        batch = {name: torch.from_numpy(rows) for name, rows in next(queue).items()}
        never = torch.zeros((len(batch["reward"]), 1))
        return ReplayBufferSamples(batch["seen"], batch["action"], batch["after"], never, batch["reward"][:, None])

    monkeypatch.setattr(model.replay_buffer, "sample", given)
    for _ in batches:
        model.train(1, 128)
        polyak_update(model.q_net.parameters(), model.q_net_target.parameters(), model.tau)
    ours, _ = read(tmp_path / "run" / "checkpoint.npz", "checkpoint")
    for which, net in (("online", model.q_net), ("target", model.q_net_target)):
        for name, tensor in net.state_dict().items():
            mine = ours[f"{which}/{name.removeprefix('q_net.')}"]
            np.testing.assert_allclose(mine, tensor.numpy(), atol=2e-6, err_msg=f"{which} {name}")
            assert not np.allclose(mine, first[name].numpy(), atol=1e-5)


class _Learned:
    """The reference's greedy policy."""

    def __init__(self, model: Any, instance: Any) -> None:
        self._net, self._instance = model.q_net, instance

    def act(self, state: State) -> Any:
        seen = features(state, self._instance)[:, 0]
        with torch.no_grad():
            best = self._net(torch.from_numpy(seen)).argmax(dim=1).numpy()
        return (best == 1)[:, None, None]


@pytest.mark.slow
def test_drlo_reaches_what_the_reference_reaches(tmp_path: Path) -> None:
    """On the same budget of slots and updates, by exact evaluation: at least the reference's score less its spread."""
    instance, hidden, slots = draw(0, {}), [64, 48], 6_000
    scores: dict[str, list[float]] = {"ours": [], "reference": []}
    low = registry.evaluate("privacy", "random", range(1)).metrics["reward"].mean
    for seed in range(3):
        out = tmp_path / str(seed)
        registry.learning("privacy").train(
            "DRLO", out, seed, {"hidden": hidden, "slots": slots}, lambda _: None, lambda: False
        )
        found = registry.evaluate("privacy", str(out / "policy.npz"), range(1))
        scores["ours"].append(found.score.mean)
        best = found.scale["best"]
        model = reference(instance, hidden, seed, exploration_fraction=0.5, exploration_final_eps=0.02)
        model.learn(slots)
        reward = exactly(decisions(_Learned(model, instance), instance), instance).reward
        scores["reference"].append((reward - low) / (best - low))
    assert np.mean(scores["ours"]) >= np.mean(scores["reference"]) - 0.05, scores
    assert min(scores["ours"]) > 0.5, scores


# ---- TensorBoard -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "algo", "settings"),
    [
        ("baas", "pair-q", {"U": 4, "M": 2, "copies": 4, "slots": 200, "log_slots": 20}),
        ("privacy", "RLO", {"slots": 400}),
    ],
)
def test_scalars_read_back_are_those_of_the_log_after_a_kill_too(
    tmp_path: Path, problem: str, algo: str, settings: dict[str, Any]
) -> None:
    learning, told = registry.learning(problem), []
    asked = {**settings, "tensorboard": True}
    half = learning.train(algo, tmp_path, 1, asked, told.append, lambda: len(told) >= 2)
    assert not half.finished
    log = tmp_path / "log.jsonl"
    with log.open("ab") as late:  # as if it had been killed later than its last checkpoint
        late.write(b'{"slot": %d, "reward": 7}\n' % (half.slots + 1))
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "tensorboard")) as writer:
        writer.add_scalar("reward", 7.0, half.slots + 1)
    assert learning.train(algo, tmp_path, 1, asked, told.append, lambda: False).finished
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    names = set(lines[-1]) - {"slot", "updates", "cpu_s"}
    assert set(board.Tags()["scalars"]) == {name for line in lines for name in line} - {"slot", "updates", "cpu_s"}
    assert "reward" in names
    for name in board.Tags()["scalars"]:
        written = [(line["slot"], np.float32(line[name])) for line in lines if name in line]
        assert [(event.step, np.float32(event.value)) for event in board.Scalars(name)] == written


@pytest.mark.parametrize(("problem", "algo"), [("baas", "pair-q"), ("privacy", "RLO")])
def test_without_tensorboard_it_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str, algo: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(Refused, match="needs the library tensorboard") as refused:
        registry.learning(problem).train(algo, tmp_path, 1, {"tensorboard": True}, lambda _: None, lambda: False)
    assert (refused.value.field, refused.value.fix) == ("tensorboard", "pip install tensorboard")
