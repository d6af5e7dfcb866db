"""pair-q: learn what a pair is worth and how long it takes from the outcomes of served pairs (baas.md 6.3).

Where speeds, channels or fees are not known in numbers, the controller still sees, slot by slot, what every served
pair earned and how long it took, and what every server mined with the power it had: the ledger records them anyway.
That is semi-bandit feedback, M labelled examples a slot, so this is regression and not a search:

    worth, seconds   of (UE, server)   one scorer shared by all pairs, so it does not depend on U or M
    value            of a block        income x H / granted power, standardised: the knapsack needs its order only

Decisions decode the predictions as `exact` decodes true values, and pay theta for a second under the desired time as
`priced` does. While it explores, a slot is played by a random matching.
"""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from edgora.allocator.baas import features
from edgora.allocator.baas.baselines import explored
from edgora.allocator.baas.batch import Batch
from edgora.allocator.baas.checkpointing import batch_arrays, batch_state, restore_batch
from edgora.allocator.baas.learned import PairPolicy
from edgora.allocator.baas.params import Params
from edgora.allocator.baas.stream import Stream
from edgora.allocator.learn.problem import Note, Stopped, Trained
from edgora.allocator.learn.replay import Replay
from edgora.allocator.learn.run import Run, Tally
from edgora.allocator.learn.schedules import Linear
from edgora.allocator.learn.shallow import Adam, Shallow
from edgora.wire.errors import Refused

__all__ = ["ARGUMENTS", "Arguments", "train"]

Positive = Annotated[float, msgspec.Meta(gt=0.0)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `--set` takes beside the environment's params."""

    slots: Count = 1_000
    """Slots of experience, all copies together."""
    copies: Count = 50
    """Environments side by side: more layouts in the same number of slots."""
    units: Annotated[int, msgspec.Meta(ge=0, le=256)] = 16
    """ReLU units of the scorer, beside its linear path."""
    rate: Positive = 0.02
    """Adam's, falling to a tenth."""
    batch: Count = 256
    """Outcomes in an update."""
    updates_per_slot: Positive = 1.0
    memory: Count = 100_000
    """Outcomes kept."""
    epsilon: Share = 1.0
    """Share of slots that explore at first."""
    epsilon_last: Share = 0.05
    epsilon_share: Share = 0.4
    """Part of the run over which epsilon falls."""
    log_slots: Count = 100
    tensorboard: bool = False


ARGUMENTS = Arguments

SECONDS = 5.0
"""Seconds are learned in this unit, so that both outputs weigh alike."""


def train(
    algo: str, params: Params, arguments: Arguments, seed: int, out: Path, note: Note, stopped: Stopped
) -> Trained:
    """Play, regress, write the policy."""
    if params.obs != "full":
        raise Refused(f"{algo} needs obs=full: it looks at demands", field="obs")
    everything = {**msgspec.structs.asdict(params), **msgspec.structs.asdict(arguments)}
    total, copies = arguments.slots, min(arguments.copies, arguments.slots)
    run = Run(out, "baas", algo, seed, everything, total, note, stopped, tensorboard=arguments.tensorboard)
    if run.finished:
        return run.trained()

    play_rng, fit_rng = (np.random.default_rng(part) for part in np.random.SeedSequence(seed).spawn(2))
    stream = Stream(params, np.random.default_rng(seed), copies)
    batch = Batch(stream)
    pairs = Shallow(fit_rng, features.SERVED, arguments.units, 2)
    blocks = Shallow(fit_rng, features.BLOCK, arguments.units, 1)
    adam = Adam({"pair": pairs, "block": blocks})
    served = Replay(
        min(arguments.memory, total * params.M), {"x": ((features.SERVED,), np.float32), "y": ((2,), np.float64)}
    )
    mined = Replay(
        min(arguments.memory, total * params.M), {"x": ((features.BLOCK,), np.float32), "y": ((1,), np.float64)}
    )
    epsilon = Linear(arguments.epsilon, arguments.epsilon_last, arguments.epsilon_share * total)
    slot = updates = 0
    unit = [0.0, 1.0]  # centre and scale of block values, from the first outcomes
    reward, loss = Tally(), Tally()

    def save() -> tuple[dict[str, Any], dict[str, object]]:
        arrays = {
            **batch_arrays(batch), **pairs.arrays("pair"), **blocks.arrays("block"), **adam.arrays("adam"),
            **{f"served.{name}": held for name, held in served.arrays().items()},
            **{f"mined.{name}": held for name, held in mined.arrays().items()},
        }  # fmt: skip
        generators = {"play": play_rng.bit_generator.state, "fit": fit_rng.bit_generator.state}
        counts = {"slot": slot, "updates": updates, "unit": unit, "reward": reward.state, "loss": loss.state}
        return arrays, {**batch_state(batch, stream), **generators, **counts}

    if run.checkpoint is not None:
        arrays, state = run.checkpoint
        restore_batch(batch, stream, arrays, state)
        pairs.restore("pair", arrays)
        blocks.restore("block", arrays)
        adam.restore("adam", arrays)
        for name, memory in (("served", served), ("mined", mined)):
            memory.restore({key.partition(".")[2]: a for key, a in arrays.items() if key.startswith(f"{name}.")})
        play_rng.bit_generator.state, fit_rng.bit_generator.state = state["play"], state["fit"]
        slot, updates, unit = state["slot"], state["updates"], state["unit"]
        reward.state, loss.state = state["reward"], state["loss"]

    while slot < total:
        if run.over(slot, updates, save):
            return run.trained()
        # Play one slot in every copy.
        slots = batch.slots
        policy = PairPolicy(_arrays(pairs, blocks), {"algo": algo, "outputs": 2, "theta": params.theta})
        choice = explored(slots, policy.decide(slots), play_rng, epsilon.at(slot))
        outcome = batch.step(choice)
        reward.add(outcome.reward)
        active = outcome.assign >= 0
        if active.any():
            took = np.stack((outcome.worth, outcome.seconds / SECONDS), axis=-1)
            served.add(x=features.served(slots, outcome.assign)[active], y=took[active])
        values = (outcome.income * params.H / outcome.hash).reshape(-1, 1)
        if slot == 0:
            unit = [float(values.mean()), max(float(values.std()), 1e-9)]
        mined.add(x=features.blocks(slots).reshape(-1, features.BLOCK), y=(values - unit[0]) / unit[1])
        before, slot = slot, slot + copies
        # Fit.
        for _ in range(int(slot * arguments.updates_per_slot) - int(before * arguments.updates_per_slot)):
            rate = arguments.rate * (1.0 - 0.9 * min(before / total, 1.0))
            gradients = {}
            for name, network, memory in (("pair", pairs, served), ("block", blocks, mined)):
                if not len(memory):
                    continue
                sample = memory.sample(fit_rng, arguments.batch)
                error = network(sample["x"]) - sample["y"]
                gradients[name] = network.gradient(sample["x"], 2.0 * error / len(error))
                if name == "pair":
                    loss.add(np.square(error).sum(axis=1))
            adam.step(gradients, rate)
            updates += 1
        if slot // arguments.log_slots > before // arguments.log_slots or slot >= total:
            run.log(slot, updates, {"reward": reward.take(), "loss": loss.take(), "epsilon": epsilon.at(slot)})

    header = {"form": "pair", "algo": algo, "outputs": 2, "theta": params.theta}
    return run.finish(slot, updates, _arrays(pairs, blocks), header, save)


def _arrays(pairs: Shallow, blocks: Shallow) -> dict[str, np.ndarray]:
    """The networks under the names of `learned`, seconds in seconds."""
    weights = {name: weight.astype(np.float32) for name, weight in pairs.weights.items()}
    into, bias, out = weights["in"], weights["bias"], weights["out"]
    into[-1] *= SECONDS
    bias[-1] *= SECONDS
    out[-1] *= SECONDS
    return {
        "pair.ue": into[:, : features.UE], "pair.server": into[:, features.UE : -features.PAIR],
        "pair.pair": into[:, -features.PAIR :],
        "pair.bias": bias, "pair.out": out,
        **{f"block.{name}": weight.astype(np.float32) for name, weight in blocks.weights.items()},
    }  # fmt: skip
