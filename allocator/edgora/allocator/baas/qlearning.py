"""`qlearning`, the RL baseline: M independent learners that share one table (baas.md 5).

A table over the joint state never sees a state twice (U = 20: 10^20 and more cells), so each server looks at itself:

    state    reputation in 3 bins cut at 0.9 and 1.3, x block in 4 equal bins, x speed in 3 equal bins
    action   a fifth of the UEs that are still free, by demand, whose heaviest UE is taken, x 5 levels of hash power
    reward   w_um + v_m p_m / H of this server

Servers choose in index order. Copies and servers that visit a cell in the same slot are averaged before the table moves
by alpha, so a run with 32 copies steps as far as one with one. The last slot of an episode bootstraps like any other.
"""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from edgora.allocator.baas.batch import Batch
from edgora.allocator.baas.checkpointing import batch_arrays, batch_state, restore_batch
from edgora.allocator.baas.learned import ACTIONS, STATES, TablePolicy, table_choice, table_states
from edgora.allocator.baas.params import Params
from edgora.allocator.baas.stream import Stream
from edgora.allocator.learn.problem import Note, Stopped, Trained
from edgora.allocator.learn.run import Run, Tally
from edgora.allocator.learn.schedules import Linear
from edgora.wire.errors import Refused

__all__ = ["ARGUMENTS", "Arguments", "train"]

Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `--set` takes beside the environment's params."""

    slots: Count = 40_000
    """Slots of experience, all copies together."""
    copies: Count = 32
    """Environments side by side; 1 is the paper's way."""
    alpha: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.1
    """How far a cell moves to what was seen."""
    gamma: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.85
    epsilon: Share = 1.0
    epsilon_last: Share = 0.05
    epsilon_share: Share = 0.4
    log_slots: Count = 1_000
    tensorboard: bool = False


ARGUMENTS = Arguments


def train(
    algo: str, params: Params, arguments: Arguments, seed: int, out: Path, note: Note, stopped: Stopped
) -> Trained:
    """Play, move the table, write it."""
    if params.obs != "full":
        raise Refused(f"{algo} needs obs=full: it looks at demands and blocks", field="obs")
    everything = {**msgspec.structs.asdict(params), **msgspec.structs.asdict(arguments)}
    total, copies = arguments.slots, min(arguments.copies, arguments.slots)
    run = Run(out, "baas", algo, seed, everything, total, note, stopped, tensorboard=arguments.tensorboard)
    if run.finished:
        return run.trained()

    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    stream = Stream(params, np.random.default_rng(seed), copies)
    batch = Batch(stream)
    table = np.zeros((STATES, ACTIONS))
    epsilon = Linear(arguments.epsilon, arguments.epsilon_last, arguments.epsilon_share * total)
    slot = updates = 0
    reward, loss = Tally(), Tally()

    def save() -> tuple[dict[str, Any], dict[str, object]]:
        counts = {"slot": slot, "updates": updates, "reward": reward.state, "loss": loss.state}
        return {**batch_arrays(batch), "table": table}, {
            **batch_state(batch, stream), "explore": rng.bit_generator.state, **counts,
        }  # fmt: skip

    if run.checkpoint is not None:
        arrays, state = run.checkpoint
        restore_batch(batch, stream, arrays, state)
        table[...] = arrays["table"]
        rng.bit_generator.state = state["explore"]
        slot, updates = state["slot"], state["updates"]
        reward.state, loss.state = state["reward"], state["loss"]

    while slot < total:
        if run.over(slot, updates, save):
            return run.trained()
        # Play one slot in every copy: each server explores on its own.
        slots = batch.slots
        states = table_states(slots)
        actions = table[states].argmax(axis=2)
        explores = rng.random(actions.shape) < epsilon.at(slot)
        actions[explores] = rng.integers(0, ACTIONS, int(explores.sum()))
        outcome = batch.step(table_choice(slots, actions))
        reward.add(outcome.reward)
        # Move every visited cell towards the mean of what was seen there.
        after = table_states(batch.slots if batch.final is None else batch.final)
        seen = outcome.worth + outcome.income + arguments.gamma * table[after].max(axis=2)
        cell = (states * ACTIONS + actions).ravel()
        visits = np.bincount(cell, minlength=table.size)
        sums = np.bincount(cell, weights=seen.ravel(), minlength=table.size)
        visited = visits > 0
        error = sums[visited] / visits[visited] - table.ravel()[visited]
        table.ravel()[visited] += arguments.alpha * error
        loss.add(np.square(error))
        updates += 1
        before, slot = slot, slot + copies
        if slot // arguments.log_slots > before // arguments.log_slots or slot >= total:
            run.log(slot, updates, {"reward": reward.take(), "loss": loss.take(), "epsilon": epsilon.at(slot)})

    header = {"form": "table", "algo": algo}
    return run.finish(slot, updates, TablePolicy.arrays_of(table), header, save)
