"""`edgora/BaaS-v0` for Gymnasium: single, and vectorised over copies that step together.

    import gymnasium, edgora.allocator.baas.env                       # importing it registers the id
    env = gymnasium.make("edgora/BaaS-v0", U=30, profile="paper")     # any key of `--set`
    envs = gymnasium.make_vec("edgora/BaaS-v0", num_envs=512, vectorization_mode="vector_entry_point")

Observation (`obs=full`): d, xi, tau of the UEs; Y, cap, b, f of the servers; rate of the pairs in `hetero`, all in the
spec's units. `obs=paper` shows xi and Y alone: demand and blocks are hidden, and hash power cannot follow blocks.
Action: `assign`, a UE for each server or -1, and `request`, MHash/s; with `action="levels"` one MultiDiscrete of M
choices among idle and U UEs, then M among the five levels, for libraries without Dict actions.

The 200th slot truncates and never terminates. The vectorised form resets in the same step and hands the observation to
bootstrap from in `infos["final_obs"]`. One seed is one generator for all copies (baas.md 3).
"""

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from edgora.allocator.baas.batch import Batch
from edgora.allocator.baas.model import IDLE, Choice, Outcome, Slots
from edgora.allocator.baas.params import LEVELS, P_MAX, P_MIN, Params
from edgora.allocator.baas.params import read as read_params
from edgora.allocator.baas.stream import Source, Stream, Streams
from edgora.wire.errors import Refused

__all__ = ["ID", "BaaSEnv", "BaaSVectorEnv"]

ID = "edgora/BaaS-v0"

Observation = dict[str, NDArray[np.float64]]
Action = dict[str, NDArray[Any]] | NDArray[np.int64]
Form = Literal["dict", "levels"]


class BaaSEnv(gymnasium.Env[Observation, Action]):
    """One copy."""

    metadata = {"render_modes": []}

    def __init__(self, action: Form = "dict", **settings: object) -> None:
        """`settings` are params by name. Raises Refused."""
        self.params = read_params(settings, "edgora/BaaS-v0")
        self.observation_space: spaces.Space[Any] = _observation_space(self.params)
        self.action_space = _action_space(self.params, action)
        self._batch: Batch | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        if self._batch is None or seed is not None:
            self._batch = Batch(Stream(self.params, self.np_random, 1))
        elif self._batch.clock > 0:  # an episode that ended has already begun the next
            self._batch.reset()
        return _first(observe(self._batch.slots)), {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        if self._batch is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        outcome = self._batch.step(_choice(self.params, action, 1))
        after = self._batch.slots if self._batch.final is None else self._batch.final
        info = {name: values[0] for name, values in _info(outcome).items()}
        return _first(observe(after)), float(outcome.reward[0]), False, self._batch.final is not None, info


class BaaSVectorEnv(VectorEnv[Observation, Action, NDArray[Any]]):
    """`num_envs` copies in lockstep."""

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, num_envs: int = 1, action: Form = "dict", **settings: object) -> None:
        """`settings` are params by name. Raises Refused."""
        self.params, self.num_envs = read_params(settings, "edgora/BaaS-v0"), num_envs
        self.single_observation_space = _observation_space(self.params)
        self.single_action_space = _action_space(self.params, action)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._batch: Batch | None = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """An integer seeds one generator for all copies, a list one for each."""
        super().reset(seed=seed if isinstance(seed, int) else None, options=options)
        if self._batch is None or seed is not None:
            self._batch = Batch(self._source(seed))
        elif self._batch.clock > 0:
            self._batch.reset()
        return observe(self._batch.slots), {}

    def step(self, actions: Action) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        if self._batch is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        outcome = self._batch.step(_choice(self.params, actions, self.num_envs))
        ended = np.full(self.num_envs, self._batch.final is not None)
        info: dict[str, Any] = _info(outcome)
        if self._batch.final is not None:
            last = observe(self._batch.final)
            info["final_obs"] = np.empty(self.num_envs, dtype=object)
            for copy in range(self.num_envs):
                info["final_obs"][copy] = {name: values[copy] for name, values in last.items()}
            info["_final_obs"] = ended
        return observe(self._batch.slots), outcome.reward, np.zeros(self.num_envs, dtype=bool), ended, info

    def _source(self, seed: int | list[int | None] | None) -> Source:
        if not isinstance(seed, list):
            return Stream(self.params, self.np_random, self.num_envs)
        seeds = [one for one in seed if one is not None]
        if len(seeds) != self.num_envs or len(seed) != self.num_envs:
            raise Refused(f"seed must be one integer or {self.num_envs} of them", field="seed")
        return Streams(self.params, seeds)


def observe(slots: Slots) -> Observation:
    """What a controller is shown; each array (B, ...). Arrays are the environment's own: do not write to them."""
    Y = slots.Y
    if slots.params.obs == "paper":
        return {"xi": slots.xi, "Y": Y}
    seen = {
        "d": slots.d, "xi": slots.xi, "tau": slots.tau, "Y": Y, "cap": slots.cap, "b": slots.b, "f": slots.f,
    }  # fmt: skip
    if slots.rate is not None:
        seen["rate"] = slots.rate
    return seen


def _observation_space(params: Params) -> spaces.Dict:
    def box(low: float, high: float, *shape: int) -> spaces.Box:
        return spaces.Box(low, high, shape, np.float64)

    U, M = params.U, params.M
    if params.obs == "paper":
        return spaces.Dict({"xi": box(params.xi_lo, params.xi_hi, U), "Y": box(0.0, np.inf, M)})
    seen: dict[str, spaces.Space[Any]] = {
        "d": box(params.d_lo, params.d_hi, U), "xi": box(params.xi_lo, params.xi_hi, U),
        "tau": box(params.tau_lo, params.tau_hi, U), "Y": box(0.0, np.inf, M), "cap": box(P_MIN, P_MAX, M),
        "b": box(params.b_lo, params.b_hi, M), "f": box(0.0, np.inf, M),
    }  # fmt: skip
    if params.profile == "hetero":
        seen["rate"] = box(0.0, np.inf, U, M)
    return spaces.Dict(seen)


def _action_space(params: Params, form: Form) -> spaces.Space[Any]:
    U, M = params.U, params.M
    if form == "levels":
        return spaces.MultiDiscrete([U + 1] * M + [len(LEVELS)] * M)
    if form != "dict":
        raise Refused(f"action is {form!r}: use dict or levels", field="action")
    return spaces.Dict({
        "assign": spaces.MultiDiscrete([U + 1] * M, start=[IDLE] * M),
        "request": spaces.Box(P_MIN, P_MAX, (M,), np.float64),
    })  # fmt: skip


def _choice(params: Params, action: Action, copies: int) -> Choice:
    if isinstance(action, dict):
        assign = np.asarray(action["assign"], dtype=np.int64).reshape(copies, params.M)
        return Choice(assign, np.asarray(action["request"], dtype=np.float64).reshape(copies, params.M))
    both = np.asarray(action, dtype=np.int64).reshape(copies, 2 * params.M)
    return Choice(both[:, : params.M] - 1, np.asarray(LEVELS)[both[:, params.M :]])


def _info(outcome: Outcome) -> dict[str, Any]:
    return {
        "revenue": outcome.revenue, "mining": outcome.mining, "ecl": outcome.ecl, "served": outcome.served,
        "assign": outcome.assign, "hash": outcome.hash,
    }  # fmt: skip


def _first(batched: Observation) -> Observation:
    """One copy's own arrays: speeds and rates outlive a slot and must not be shared between observations."""
    return {name: values[0].copy() for name, values in batched.items()}


if ID not in gymnasium.registry:
    gymnasium.register(ID, entry_point=BaaSEnv, vector_entry_point=BaaSVectorEnv)
