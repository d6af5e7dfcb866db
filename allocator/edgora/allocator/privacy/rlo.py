"""RLO, the paper's tabular Q-learning (algorithm 1, eq. 15).

    Q(s,a) <- Q(s,a) + alpha [r + gamma max Q(s',.) - Q(s,a)],    s = (D1, D0, g)

The level of the server's background work is not in the state, as printed, so the table averages over a hidden variable;
`level=true` puts it in. Several streams and miners share one table: state of the stream, reward of the miner / M
(privacy.md 4). Ten thousand slots visit the 4,092 cells some 2.4 times each (section 9, item 16).
"""

from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgora.allocator.learn.run import Run
from edgora.allocator.learn.schedules import Linear
from edgora.allocator.learn.weights import Arrays
from edgora.allocator.privacy.instance import Instance
from edgora.allocator.privacy.simulation import Simulation
from edgora.allocator.privacy.trained import Streams, header
from edgora.allocator.privacy.training import WATCHED, learned, watch
from edgora.allocator.search import Found, Search

__all__ = ["Rlo"]

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Rlo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of RLO."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)
    kind: ClassVar[str] = "streams"
    algo: ClassVar[str] = "RLO"
    default_slots: ClassVar[tuple[int, int]] = (10_000, 10_000)

    alpha: Share = 0.1
    """Learning rate."""
    epsilon_first: Share = 1.0
    epsilon_last: Share = 0.05
    explore: Share = 0.5
    """Share of the run over which epsilon falls."""
    level: bool = False
    """Whether the table knows the level of background work."""
    log_every: Count = 100
    """Slots between two lines of the log."""
    slots: Count | None = None
    """Slots of the run; none: the instance's."""

    def solve(self, instance: Instance, search: Search) -> Found:
        return learned(self, instance, search)

    def learn(self, instance: Instance, seed: int, run: Run) -> Arrays:
        c, total = instance.constants, self.slots or instance.slots
        epsilon = Linear(self.epsilon_first, self.epsilon_last, self.explore * total)
        rng = np.random.default_rng([seed, 3])
        simulation = Simulation(instance, 1, (seed, 2))
        table = Streams(instance, np.zeros((c.K, round(c.B / c.grid) + 1, 2, 3 if self.level else 1, 2)))
        slot, rewards = 0, 0.0
        if run.checkpoint is not None:
            arrays, state = run.checkpoint
            table.Q, slot, rewards = arrays["Q"], state["slot"], state["rewards"]
            simulation.restore(arrays, state["simulation"])
            rng.bit_generator.state = state["rng"]

        def save() -> tuple[Arrays, dict[str, object]]:
            arrays, generator = simulation.snapshot()
            state = {"slot": slot, "rewards": rewards, "simulation": generator, "rng": rng.bit_generator.state}
            return {**arrays, "Q": table.Q}, state

        while slot < total and not run.over(slot, slot, save):
            # Plan: observe, choose epsilon-greedily, mine.
            here = table.places(simulation.state)
            values = table.Q[here]
            x = values[..., 1] > values[..., 0]
            wild = rng.random(x.shape) < epsilon.at(slot)
            x = np.where(wild, rng.random(x.shape) < 0.5, x)
            outcome = simulation.step(x)
            # Update: every stream with its miner's reward / M.
            reward = outcome.reward[:, :, None] / instance.M
            target = reward + c.gamma * table.Q[table.places(simulation.state)].max(axis=-1)
            cell = (*here, x.astype(np.int64))
            np.add.at(table.Q, cell, self.alpha * (target - table.Q[cell]))
            slot += 1
            rewards += float(outcome.reward.mean())
            if slot % self.log_every == 0:
                seen = watch(table, instance) if slot % WATCHED == 0 else {}
                run.log(slot, slot, {"reward": rewards / self.log_every, "epsilon": epsilon.at(slot), **seen})
                rewards = 0.0
        if slot >= total:
            run.finish(slot, slot, {"Q": table.Q}, header(self.kind, instance), save)
        return {"Q": table.Q}
