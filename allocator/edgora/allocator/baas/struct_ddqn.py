"""struct-ddqn: double Q-learning on the scalar reward alone, with a network of the problem's shape (baas.md 6.4).

    Q(s, a) = V(s) + sum over served pairs q(u, m) + sum over servers v_m (p_m - 60) / 60

q and v are small networks shared by all pairs and all servers, so one reward teaches about M pairs at once and the
weights do not depend on U or M. Q is additive, so its maximum over all legal actions is a matching and a knapsack, and
the double-DQN target is exact:

    a' = argmax Q(s', .) online,   y = r - centre + gamma (Q'(s', a') - Q'(s'_0, a'))

s'_0 is s' with servers that have no history. The next slot's draws do not depend on the action, so what Q' says of them
is noise to the learner, some 1.5 token of standard deviation where actions differ by less; subtracting it changes no
order of actions, for a function of the draws alone is absorbed by V. What remains of the future is exactly what the
action changed, reputation (`common_draws`).

The policy that is written is the target network's, a running mean of the online weights.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from edgora.allocator.baas import features
from edgora.allocator.baas.baselines import explored
from edgora.allocator.baas.batch import Batch
from edgora.allocator.baas.checkpointing import batch_arrays, batch_state, restore_batch
from edgora.allocator.baas.learned import PairPolicy
from edgora.allocator.baas.matching import fill
from edgora.allocator.baas.memory import Memory
from edgora.allocator.baas.model import Floats, Ints, Slots
from edgora.allocator.baas.params import Params
from edgora.allocator.baas.stream import Stream
from edgora.allocator.learn.problem import Note, Stopped, Trained
from edgora.allocator.learn.run import Run, Tally
from edgora.allocator.learn.schedules import Linear
from edgora.allocator.learn.shallow import Adam, Shallow
from edgora.wire.errors import Refused

__all__ = ["ARGUMENTS", "Arguments", "train"]

Positive = Annotated[float, msgspec.Meta(gt=0.0)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]

_MEAN_HASH = 60.0
"""Hash power that counts as neither more nor less, MHash/s."""


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `--set` takes beside the environment's params."""

    slots: Count = 5_000
    """Slots of experience, all copies together."""
    copies: Count = 25
    units: Annotated[int, msgspec.Meta(ge=0, le=256)] = 16
    """ReLU units of each of the three networks, beside their linear paths."""
    gamma: Share = 0.85
    rate: Positive = 0.02
    """Adam's, falling to a tenth."""
    batch: Count = 128
    updates_per_slot: Positive = 0.1
    warm_slots: Count = 320
    """Played before the first update."""
    polyak: Share = 0.02
    """Step of the target network towards the online one, each update."""
    memory: Count = 100_000
    epsilon: Share = 1.0
    epsilon_last: Share = 0.05
    epsilon_share: Share = 0.4
    common_draws: bool = True
    """Take the next slot's draws out of the target."""
    log_slots: Count = 500
    tensorboard: bool = False


ARGUMENTS = Arguments


class _Networks:
    """q, v and V."""

    def __init__(self, rng: np.random.Generator, units: int) -> None:
        self.parts = {
            "pair": Shallow(rng, features.SERVED, units, 1),
            "block": Shallow(rng, features.BLOCK, units, 1),
            "state": Shallow(rng, features.TOTALS, units, 1),
        }

    def inputs(self, slots: Slots, assign: Ints) -> dict[str, np.ndarray]:
        """What each of them reads, a row a pair, a server, a slot."""
        return {
            "pair": features.served(slots, assign).reshape(-1, features.SERVED),
            "block": features.blocks(slots).reshape(-1, features.BLOCK),
            "state": features.totals(slots),
        }

    def value(self, slots: Slots, assign: Ints, power: Floats) -> Floats:
        """Q(s, a) of each copy (B,)."""
        x = self.inputs(slots, assign)
        q, v, V = (self.parts[name](x[name]) for name in ("pair", "block", "state"))
        total: Floats = V[:, 0] + (q.reshape(assign.shape) * (assign >= 0)).sum(axis=1)
        total += (v.reshape(assign.shape) * _lever(power)).sum(axis=1)
        return total

    def follow(self, other: "_Networks", share: float) -> None:
        for name, part in self.parts.items():
            part.follow(other.parts[name], share)

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        return {
            key: array for name, part in self.parts.items() for key, array in part.arrays(f"{prefix}.{name}").items()
        }

    def restore(self, prefix: str, arrays: dict[str, np.ndarray]) -> None:
        for name, part in self.parts.items():
            part.restore(f"{prefix}.{name}", arrays)

    def exported(self) -> dict[str, np.ndarray]:
        """Under the names of `learned`, which needs no V to decide."""
        pair = {name: weight.astype(np.float32) for name, weight in self.parts["pair"].weights.items()}
        block = {f"block.{name}": weight.astype(np.float32) for name, weight in self.parts["block"].weights.items()}
        into = pair["in"]
        return {
            "pair.ue": into[:, : features.UE], "pair.server": into[:, features.UE : -features.PAIR],
            "pair.pair": into[:, -features.PAIR :], "pair.bias": pair["bias"], "pair.out": pair["out"], **block,
        }  # fmt: skip

    def policy(self, algo: str) -> PairPolicy:
        return PairPolicy(self.exported(), {"algo": algo, "outputs": 1, "theta": 0.0})


def train(
    algo: str, params: Params, arguments: Arguments, seed: int, out: Path, note: Note, stopped: Stopped
) -> Trained:
    """Play, learn, write the policy."""
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
    online, target = _Networks(fit_rng, arguments.units), _Networks(fit_rng, arguments.units)
    target.follow(online, 1.0)
    adam = Adam(online.parts)
    memory = Memory(params, min(arguments.memory, total + copies))
    epsilon = Linear(arguments.epsilon, arguments.epsilon_last, arguments.epsilon_share * total)
    slot = updates = 0
    centre = 0.0
    reward, loss = Tally(), Tally()

    def save() -> tuple[dict[str, Any], dict[str, object]]:
        arrays = {
            **batch_arrays(batch), **memory.arrays(), **online.arrays("online"), **target.arrays("target"),
            **adam.arrays("adam"),
        }  # fmt: skip
        generators = {"play": play_rng.bit_generator.state, "fit": fit_rng.bit_generator.state}
        counts = {"slot": slot, "updates": updates, "centre": centre, "reward": reward.state, "loss": loss.state}
        return arrays, {**batch_state(batch, stream), **generators, **counts}

    if run.checkpoint is not None:
        arrays, state = run.checkpoint
        restore_batch(batch, stream, arrays, state)
        memory.restore(arrays)
        online.restore("online", arrays)
        target.restore("target", arrays)
        adam.restore("adam", arrays)
        play_rng.bit_generator.state, fit_rng.bit_generator.state = state["play"], state["fit"]
        slot, updates, centre = state["slot"], state["updates"], state["centre"]
        reward.state, loss.state = state["reward"], state["loss"]

    while slot < total:
        if run.over(slot, updates, save):
            return run.trained()
        # Play one slot in every copy.
        slots, episode = batch.slots, batch.episode
        outcome = batch.step(explored(slots, online.policy(algo).decide(slots), play_rng, epsilon.at(slot)))
        memory.add(episode, slots, outcome, outcome.hash, batch.slots if batch.final is None else batch.final)
        reward.add(outcome.reward)
        if slot == 0:
            centre = float(outcome.reward.mean())
        before, slot = slot, slot + copies
        # Learn.
        if slot < arguments.warm_slots:
            continue
        for _ in range(int(slot * arguments.updates_per_slot) - int(before * arguments.updates_per_slot)):
            seen = memory.sample(fit_rng, arguments.batch)
            chosen = online.policy(algo).decide(seen.after)
            future = target.value(seen.after, chosen.assign, chosen.request)
            if arguments.common_draws:
                future -= _without_history(target, seen.after, chosen.assign)
            error = online.value(seen.slots, seen.assign, seen.power) - (
                seen.reward - centre + arguments.gamma * future
            )
            slope = (2.0 * error / len(error))[:, None]
            x = online.inputs(seen.slots, seen.assign)
            slopes = {"pair": slope * (seen.assign >= 0), "block": slope * _lever(seen.power), "state": slope}
            gradients = {
                name: part.gradient(x[name], slopes[name].reshape(-1, 1)) for name, part in online.parts.items()
            }
            adam.step(gradients, arguments.rate * (1.0 - 0.9 * min(before / total, 1.0)))
            target.follow(online, arguments.polyak)
            loss.add(np.square(error))
            updates += 1
        if slot // arguments.log_slots > before // arguments.log_slots or slot >= total:
            run.log(slot, updates, {"reward": reward.take(), "loss": loss.take(), "epsilon": epsilon.at(slot)})

    header = {"form": "pair", "algo": algo, "outputs": 1, "theta": 0.0}
    return run.finish(slot, updates, target.exported(), header, save)


def _without_history(networks: _Networks, slots: Slots, assign: Ints) -> Floats:
    """Q of the same draws and selection where no server has a history, with the split of power that this allows."""
    fresh = replace(slots, A=np.zeros_like(slots.A), B=np.zeros_like(slots.B))
    v = networks.parts["block"](features.blocks(fresh).reshape(-1, features.BLOCK)).reshape(assign.shape)
    return networks.value(fresh, assign, fill(v, fresh.cap, slots.params.H))


def _lever(power: Floats) -> Floats:
    """How far hash power is from its mean, in means."""
    return (power - _MEAN_HASH) / _MEAN_HASH
