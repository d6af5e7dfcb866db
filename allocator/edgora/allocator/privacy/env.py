"""Environments: one system (`PrivacyEnv`), many side by side (`PrivacyVectorEnv`), one agent a miner (`MinersEnv`).

All three play the normative slots of `simulation` and show the features of `features`. Settings are the keys of
`edgora draw privacy --set`: N, M, beta, w_P, slots and the constants of privacy.md 1.

What is decided: for one miner with at most four streams an action 0..2^M - 1 whose bit m is x of stream m; otherwise
M bits a miner. The reward is the system's, the mean over miners; `MinersEnv` gives every miner its own.

Nothing ends (privacy.md 3): `terminated` is never true. One system is truncated after `slots` slots, as a caller expects
of an episode; a learner bootstraps through it. The vectorised form is never truncated and never resets itself.

Importing this module registers `edgora/Privacy-v0`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from edgora.allocator.privacy.evaluation import is_exact
from edgora.allocator.privacy.exact import miner
from edgora.allocator.privacy.features import Floats32, bounds, features, width
from edgora.allocator.privacy.instance import Instance, draw
from edgora.allocator.privacy.model import Bits, Outcome
from edgora.allocator.privacy.simulation import Simulation, TableSimulation
from edgora.allocator.privacy.trained import MAX_JOINT, actions_to_bits

__all__ = ["ENV_ID", "MinersEnv", "PrivacyEnv", "PrivacyVectorEnv"]

ENV_ID = "edgora/Privacy-v0"

_LARGEST_SEED = 2**31 - 1


class PrivacyEnv(gymnasium.Env[Floats32, Any]):
    """One system under one agent."""

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, render_mode: None = None, **settings: object) -> None:
        """`render_mode` is there because gymnasium passes it; the slots have no picture. Raises Refused for a setting."""
        self.render_mode = render_mode
        self.instance = draw(0, settings)
        self.observation_space = _observations(self.instance)
        self.action_space = _actions(self.instance)
        self._simulation = Simulation(self.instance, 1, 0)
        self._played = 0

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002  # none are known
    ) -> tuple[Floats32, dict[str, Any]]:
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(_LARGEST_SEED)) if seed is None else seed
        self._simulation.reset(drawn)
        self._played = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Floats32, float, bool, bool, dict[str, Any]]:
        x = _bits(np.asarray(action)[None], self.instance)
        outcome = self._simulation.step(x)
        self._played += 1
        info = {name: float(values[0]) for name, values in _told(outcome).items()}
        return (
            self._observe(), float(outcome.reward.mean()), False, self._played >= self.instance.slots, info,
        )  # fmt: skip

    def _observe(self) -> Floats32:
        seen: Floats32 = _seen(features(self._simulation.state, self.instance), self.instance)[0]
        return seen


class PrivacyVectorEnv(VectorEnv[Floats32, Any, NDArray[Any]]):
    """`num_envs` systems, each under its agent; for one stream by tables, some ten million slots a second."""

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.DISABLED}

    def __init__(self, num_envs: int = 1, render_mode: None = None, **settings: object) -> None:
        """Raises Refused for a setting."""
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.instance = draw(0, settings)
        self.single_observation_space = _observations(self.instance)
        self.single_action_space = _actions(self.instance)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self._never = np.zeros(num_envs, dtype=np.bool_)
        self._never.flags.writeable = False
        self._simulation: Simulation | TableSimulation
        if is_exact(self.instance):
            tables = miner(self.instance)
            self._simulation = TableSimulation(tables, num_envs, 0)
            self._features = features(tables.states, self.instance)[:, 0]
            names = ("privacy", "cost", "energy", "latency")
            self._metrics = np.stack([tables.metric(name).ravel() for name in names], axis=1)
        else:
            self._simulation = Simulation(self.instance, num_envs, 0)

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002  # none are known
    ) -> tuple[Floats32, dict[str, Any]]:
        """One seed draws for all systems, as the normative stream of a batch does."""
        first = seed[0] if isinstance(seed, list) and seed else seed
        assert first is None or isinstance(first, int)
        super().reset(seed=first)
        self._simulation.reset(int(self.np_random.integers(_LARGEST_SEED)) if first is None else first)
        return self._observe(), {}

    def step(self, actions: Any) -> tuple[Floats32, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        if isinstance(self._simulation, TableSimulation):
            cells, reward = self._simulation.step(actions)
            told = self._metrics.take(cells, axis=0).T
            info: dict[str, Any] = {"privacy": told[0], "cost": told[1], "energy": told[2], "latency": told[3]}
        else:
            outcome = self._simulation.step(_bits(np.asarray(actions), self.instance))
            reward, info = outcome.reward.mean(axis=1), dict(_told(outcome))
        return self._observe(), reward, self._never, self._never, info

    def _observe(self) -> Floats32:
        if isinstance(self._simulation, TableSimulation):
            return self._features.take(self._simulation.index, axis=0)
        return _seen(features(self._simulation.state, self.instance), self.instance)


class MinersEnv(ParallelEnv):  # type: ignore[misc]  # pettingzoo publishes no types
    """PettingZoo's parallel view: an agent for each miner, with its own features and its own reward."""

    metadata: ClassVar[dict[str, Any]] = {"name": "edgora_privacy_v0", "render_modes": []}

    def __init__(self, render_mode: None = None, **settings: object) -> None:
        """Raises Refused for a setting."""
        self.render_mode = render_mode
        self.instance = draw(0, settings)
        self.possible_agents = [f"miner_{i}" for i in range(self.instance.N)]
        self.agents: list[str] = []
        low, high = bounds(self.instance)
        M = self.instance.M
        self.observation_spaces = {agent: spaces.Box(low, high, dtype=np.float32) for agent in self.possible_agents}
        self.action_spaces = {
            agent: spaces.Discrete(2**M) if M <= MAX_JOINT else spaces.MultiBinary(M) for agent in self.possible_agents
        }
        self._simulation = Simulation(self.instance, 1, 0)
        self._rng = np.random.default_rng()
        self._played = 0

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self.action_spaces[agent]

    def reset(
        self,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002  # none are known
    ) -> tuple[dict[str, Floats32], dict[str, dict[str, Any]]]:
        if seed is not None:
            self._rng = np.random.default_rng([seed, 1])
        self._simulation.reset(int(self._rng.integers(_LARGEST_SEED)) if seed is None else seed)
        self.agents, self._played = list(self.possible_agents), 0
        return self._observe(), {agent: {} for agent in self.agents}

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Floats32], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        agents = self.agents
        chosen = np.array([actions[agent] for agent in agents])
        M = self.instance.M
        x = actions_to_bits(chosen, M) if chosen.ndim == 1 else chosen.astype(np.bool_)
        outcome = self._simulation.step(x[None])
        self._played += 1
        over = self._played >= self.instance.slots
        rewards = dict(zip(agents, outcome.reward[0].tolist(), strict=True))
        infos = {
            agent: {"privacy": p, "cost": c}
            for agent, p, c in zip(agents, outcome.P[0].tolist(), outcome.cost[0].tolist(), strict=True)
        }
        seen = self._observe()
        if over:
            self.agents = []
        return seen, rewards, dict.fromkeys(agents, False), dict.fromkeys(agents, over), infos

    def _observe(self) -> dict[str, Floats32]:
        rows = features(self._simulation.state, self.instance)[0]
        return dict(zip(self.possible_agents, rows, strict=True))


def _observations(instance: Instance) -> spaces.Space[Any]:
    low, high = bounds(instance)
    if instance.N > 1:
        low, high = np.tile(low, (instance.N, 1)), np.tile(high, (instance.N, 1))
    return spaces.Box(low, high, dtype=np.float32)


def _actions(instance: Instance) -> spaces.Space[Any]:
    if instance.N == 1:
        return spaces.Discrete(2**instance.M) if instance.M <= MAX_JOINT else spaces.MultiBinary(instance.M)
    if instance.M <= MAX_JOINT:
        return spaces.MultiDiscrete([2**instance.M] * instance.N)
    return spaces.MultiBinary([instance.N, instance.M])


def _bits(actions: NDArray[Any], instance: Instance) -> Bits:
    """Actions of a batch as bits (B,N,M)."""
    N, M = instance.N, instance.M
    if M <= MAX_JOINT:
        return actions_to_bits(actions.reshape(-1, N), M)
    return actions.reshape(-1, N, M).astype(np.bool_)


def _seen(found: Floats32, instance: Instance) -> Floats32:
    return found if instance.N > 1 else found.reshape(len(found), width(instance))


def _told(outcome: Outcome) -> dict[str, NDArray[Any]]:
    return {
        "privacy": outcome.P.mean(axis=1), "cost": outcome.cost.mean(axis=1),
        "energy": outcome.E.sum(axis=2).mean(axis=1), "latency": outcome.L.mean(axis=(1, 2)),
    }  # fmt: skip


if ENV_ID not in gymnasium.registry:
    gymnasium.register(
        id=ENV_ID,
        entry_point="edgora.allocator.privacy.env:PrivacyEnv",
        vector_entry_point="edgora.allocator.privacy.env:PrivacyVectorEnv",
    )
