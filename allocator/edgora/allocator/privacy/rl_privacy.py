"""RL-privacy, the paper's [29]: Q-learning that starts warm and learns post-decision states.

Two things are added to RLO. A slot's decision leaves a post-decision state (D0', g) before chance moves on; its value

    U(after) <- U(after) + alpha [max Q(s',.) - U(after)]

is learned from every slot whatever led there, and bootstraps Q(s,a) <- Q(s,a) + alpha [r + gamma U(after) - Q(s,a)]. And
both tables start from a similar past environment: here one trained for as many slots at beta 0.8 (privacy.md 4).
"""

from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgora.allocator.learn.run import Run
from edgora.allocator.learn.schedules import Linear
from edgora.allocator.learn.weights import Arrays
from edgora.allocator.privacy.instance import Instance, make
from edgora.allocator.privacy.model import Floats
from edgora.allocator.privacy.simulation import Simulation
from edgora.allocator.privacy.trained import Streams, header
from edgora.allocator.privacy.training import WATCHED, learned, watch
from edgora.allocator.search import Found, Search

__all__ = ["RlPrivacy"]

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class RlPrivacy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of RL-privacy."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)
    kind: ClassVar[str] = "streams"
    algo: ClassVar[str] = "RL-privacy"
    default_slots: ClassVar[tuple[int, int]] = (10_000, 10_000)

    alpha: Share = 0.1
    """Learning rate."""
    past_beta: Share = 0.8
    """beta of the past environment."""
    past_slots: Annotated[int, msgspec.Meta(ge=0)] = 10_000
    """Slots in the past environment, before the run's; 0: start cold."""
    epsilon_first: Share = 1.0
    """In the past environment; the run itself starts from epsilon_last of it, knowing something already."""
    epsilon_last: Share = 0.05
    explore: Share = 0.5
    """Share of the past over which epsilon falls, or of the run where there is no past."""
    log_every: Count = 100
    """Slots between two lines of the log."""
    slots: Count | None = None
    """Slots of the run; none: the instance's."""

    def solve(self, instance: Instance, search: Search) -> Found:
        return learned(self, instance, search)

    def learn(self, instance: Instance, seed: int, run: Run) -> Arrays:
        c, total = instance.constants, self.slots or instance.slots
        past = make(
            instance.seed, N=instance.N, M=instance.M, beta=self.past_beta, w_P=instance.w_P, params=instance.params
        )
        epsilon = Linear(self.epsilon_first, self.epsilon_last, self.explore * (self.past_slots or total))
        rng = np.random.default_rng([seed, 3])
        simulation = Simulation(past if self.past_slots else instance, 1, (seed, 2))
        buffers = round(c.B / c.grid) + 1
        table = Streams(instance, np.zeros((c.K, buffers, 2, 1, 2)))
        U: Floats = np.zeros((buffers, 2))
        slot, rewards = -self.past_slots, 0.0  # the past has negative slots
        if run.checkpoint is not None:
            arrays, state = run.checkpoint
            table.Q, U, slot, rewards = arrays["Q"], arrays["U"], state["slot"], state["rewards"]
            if slot >= 0:
                simulation = Simulation(instance, 1, (seed, 4))
            simulation.restore(arrays, state["simulation"])
            rng.bit_generator.state = state["rng"]

        def save() -> tuple[Arrays, dict[str, object]]:
            arrays, generator = simulation.snapshot()
            state = {"slot": slot, "rewards": rewards, "simulation": generator, "rng": rng.bit_generator.state}
            return {**arrays, "Q": table.Q, "U": U}, state

        while slot < total and not run.over(max(slot, 0), slot + self.past_slots, save):
            if slot == 0 and self.past_slots:  # the present begins
                simulation = Simulation(instance, 1, (seed, 4))
                rewards = 0.0
            here = table.places(simulation.state)
            values = table.Q[here]
            x = values[..., 1] > values[..., 0]
            wild = rng.random(x.shape) < epsilon.at(slot + self.past_slots)
            x = np.where(wild, rng.random(x.shape) < 0.5, x)
            outcome = simulation.step(x)
            after = (np.rint(outcome.D0 / c.grid).astype(np.int64), here[2])
            following = table.Q[table.places(simulation.state)].max(axis=-1)
            np.add.at(U, after, self.alpha * (following - U[after]))
            cell = (*here, x.astype(np.int64))
            reward = outcome.reward[:, :, None] / instance.M
            np.add.at(table.Q, cell, self.alpha * (reward + c.gamma * U[after] - table.Q[cell]))
            slot += 1
            rewards += float(outcome.reward.mean())
            if slot > 0 and slot % self.log_every == 0:
                seen = watch(table, instance) if slot % WATCHED == 0 else {}
                run.log(slot, slot + self.past_slots, {"reward": rewards / self.log_every, **seen})
                rewards = 0.0
        if slot >= total:
            run.finish(slot, slot + self.past_slots, {"Q": table.Q}, header(self.kind, instance), save)
        return {"Q": table.Q}
