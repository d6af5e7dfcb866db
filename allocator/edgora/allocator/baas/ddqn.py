"""`dqn` and `ddqn`, the paper's learners, and their ablations (baas.md 5, 7).

One flat network, three hidden layers 64-32-32, reads the concatenated state and gives

    Q(s, a) = V(s) + sum over servers q_m(s, u_m) + sum over servers h_m(s, level_m)

The joint action set has about (U+1)^M 5^M members and cannot be listed, but Q is additive, so its maximum over legal
selections is an assignment problem (idle = 0), and the best level of a server is an argmax. Both targets are exact:

    dqn     y = r + gamma max_a Q'(s', a)                    with the target network
    ddqn    y = r + gamma Q'(s', argmax_a Q(s', a))          argmax with the online network

Ablations: `no-alloc` asks for 60 MHash/s everywhere and learns the selection; `no-select` plays a random matching and
learns the levels. `output=sigmoid` is the paper's output layer: it maps the sum to (0, 1), and rewards to
(1 - gamma) (r - r_min) / (r_max - r_min), or values outside of (0, 1) could not be represented (baas.md 10.6).

Rewards are centred on the mean of the warm slots: a V of some 330 would hide differences of 1. The horizon is a time
limit: its last slot bootstraps like any other.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import torch
from torch import nn

from edgora.allocator.baas import features
from edgora.allocator.baas.baselines import explored
from edgora.allocator.baas.batch import Batch
from edgora.allocator.baas.checkpointing import batch_arrays, batch_state, restore_batch
from edgora.allocator.baas.learned import FlatPolicy, greedy_heads
from edgora.allocator.baas.memory import Memory
from edgora.allocator.baas.model import Floats, Ints
from edgora.allocator.baas.params import LEVELS, Params
from edgora.allocator.baas.stream import Stream
from edgora.allocator.learn.problem import Note, Stopped, Trained
from edgora.allocator.learn.run import Run, Tally
from edgora.allocator.learn.schedules import Linear
from edgora.allocator.learn.torch_state import (
    adam_arrays,
    deterministic,
    layers,
    module_arrays,
    restore_adam,
    restore_module,
)  # fmt: skip

__all__ = ["ARGUMENTS", "Arguments", "network", "train"]

Positive = Annotated[float, msgspec.Meta(gt=0.0)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Width = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `--set` takes beside the environment's params."""

    slots: Count = 40_000
    """Slots of experience, all copies together."""
    copies: Count = 32
    """Environments side by side; 1 is the paper's way."""
    hidden: Annotated[tuple[Width, ...], msgspec.Meta(min_length=1, max_length=8)] = (64, 32, 32)
    """Widths of the hidden layers."""
    output: Literal["linear", "sigmoid"] = "linear"
    gamma: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.85
    rate: Positive = 1e-3
    """Adam's; the paper's 0.01 is possible."""
    batch: Count = 128
    updates_per_slot: Positive | None = None
    """Null: one for each slot with one copy, one for 10 slots with more."""
    warm_slots: Count = 320
    """Played before the first update."""
    polyak: Share = 0.01
    """Step of the target network towards the online one, each update."""
    memory: Count = 100_000
    epsilon: Share = 1.0
    epsilon_last: Share = 0.05
    epsilon_share: Share = 0.4
    log_slots: Count = 1_000
    tensorboard: bool = False


ARGUMENTS = Arguments


def network(params: Params, hidden: Sequence[int]) -> nn.Sequential:
    """State -> V, then q (U,M), then h (M, levels)."""
    widths = [features.flat_size(params), *hidden]
    parts: list[nn.Module] = []
    for before, after in pairwise(widths):
        parts += [nn.Linear(before, after), nn.ReLU()]
    outputs = 1 + params.U * params.M + params.M * len(LEVELS)
    return nn.Sequential(*parts, nn.Linear(widths[-1], outputs))


def train(
    algo: str, params: Params, arguments: Arguments, seed: int, out: Path, note: Note, stopped: Stopped
) -> Trained:
    """Play, learn, write the policy."""
    double, ablation = algo.startswith("ddqn"), algo.removeprefix("ddqn").removeprefix("dqn").removeprefix("-")
    everything = {**msgspec.structs.asdict(params), **msgspec.structs.asdict(arguments)}
    total, copies = arguments.slots, min(arguments.copies, arguments.slots)
    run = Run(out, "baas", algo, seed, everything, total, note, stopped, tensorboard=arguments.tensorboard)
    if run.finished:
        return run.trained()
    per_slot = arguments.updates_per_slot or (1.0 if copies == 1 else 0.1)

    deterministic(seed)
    play_rng, fit_rng = (np.random.default_rng(part) for part in np.random.SeedSequence(seed).spawn(2))
    stream = Stream(params, np.random.default_rng(seed), copies)
    batch = Batch(stream)
    online, target = network(params, arguments.hidden), network(params, arguments.hidden)
    target.load_state_dict(online.state_dict())
    adam = torch.optim.Adam(online.parameters(), lr=arguments.rate)
    memory = Memory(params, min(arguments.memory, total + copies))
    epsilon = Linear(arguments.epsilon, arguments.epsilon_last, arguments.epsilon_share * total)
    slot = updates = 0
    warm: list[float] = []  # rewards before the first update: their mean and range are the learner's unit
    reward, loss = Tally(), Tally()

    def save() -> tuple[dict[str, Any], dict[str, object]]:
        arrays = {
            **batch_arrays(batch), **memory.arrays(), **module_arrays("online", online), **module_arrays("target", target),
            **adam_arrays("adam", adam),
        }  # fmt: skip
        generators = {"play": play_rng.bit_generator.state, "fit": fit_rng.bit_generator.state}
        counts = {"slot": slot, "updates": updates, "warm": warm, "reward": reward.state, "loss": loss.state}
        return arrays, {**batch_state(batch, stream), **generators, **counts}

    if run.checkpoint is not None:
        held, state = run.checkpoint
        restore_batch(batch, stream, held, state)
        memory.restore(held)
        restore_module("online", online, held)
        restore_module("target", target, held)
        restore_adam("adam", adam, held)
        play_rng.bit_generator.state, fit_rng.bit_generator.state = state["play"], state["fit"]
        slot, updates, warm = state["slot"], state["updates"], state["warm"]
        reward.state, loss.state = state["reward"], state["loss"]

    header = {
        "form": "flat", "algo": algo, "ablation": ablation, "U": params.U, "M": params.M, "profile": params.profile,
        "obs": params.obs,
    }  # fmt: skip
    while slot < total:
        if run.over(slot, updates, save):
            return run.trained()
        # Play one slot in every copy.
        slots, episode = batch.slots, batch.episode
        policy = FlatPolicy(layers("net", online), header, int(play_rng.integers(2**63)))
        choice = explored(slots, policy.decide(slots), play_rng, epsilon.at(slot))
        outcome = batch.step(choice)
        memory.add(episode, slots, outcome, choice.request, batch.slots if batch.final is None else batch.final)
        reward.add(outcome.reward)
        if slot < arguments.warm_slots:
            warm += outcome.reward.tolist()
        before, slot = slot, slot + copies
        # Learn.
        due = int(slot * per_slot) - int(before * per_slot) if slot >= arguments.warm_slots else 0
        for _ in range(due):
            seen = memory.sample(fit_rng, arguments.batch)
            with torch.no_grad():
                after = torch.from_numpy(features.flat(seen.after))
                judged = target(after)
                assign, level = greedy_heads(
                    (online(after) if double else judged).numpy(), seen.after, ablation, fit_rng
                )
                future = _value(judged, assign, level, ablation)
                if arguments.output == "sigmoid":
                    future = torch.sigmoid(future)
                goal = torch.from_numpy(_scaled(seen.reward, warm, arguments)) + arguments.gamma * future
            answer = _value(
                online(torch.from_numpy(features.flat(seen.slots))), seen.assign, _level_of(seen.power), ablation
            )
            if arguments.output == "sigmoid":
                answer = torch.sigmoid(answer)
            error = nn.functional.mse_loss(answer, goal)
            adam.zero_grad()
            error.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            adam.step()
            with torch.no_grad():
                for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
                    slow.lerp_(fast, arguments.polyak)
            loss.add(np.array([error.item()]))
            updates += 1
        if slot // arguments.log_slots > before // arguments.log_slots or slot >= total:
            run.log(slot, updates, {"reward": reward.take(), "loss": loss.take(), "epsilon": epsilon.at(slot)})

    return run.finish(slot, updates, layers("net", online), header, save)


def _value(heads: torch.Tensor, assign: Ints, level: Ints, ablation: str) -> torch.Tensor:
    """Q(s, a) from the heads of each copy (B,)."""
    M = assign.shape[1]
    pairs = heads.shape[1] - 1 - M * len(LEVELS)
    total = heads[:, 0]
    if ablation != "no-select":
        at = torch.from_numpy(np.maximum(assign, 0) * M + np.arange(M))
        served = heads[:, 1 : 1 + pairs].gather(1, at)
        total = total + (served * torch.from_numpy(assign >= 0)).sum(dim=1)
    if ablation != "no-alloc":
        at = torch.from_numpy(level + len(LEVELS) * np.arange(M))
        total = total + heads[:, 1 + pairs :].gather(1, at).sum(dim=1)
    return total


def _level_of(request: Floats) -> Ints:
    """Requests as places among the levels."""
    return np.searchsorted(LEVELS, request)


def _scaled(reward: Floats, warm: list[float], arguments: Arguments) -> np.ndarray:
    """Rewards in the learner's unit."""
    if arguments.output == "linear":
        return (reward - np.mean(warm)).astype(np.float32)
    low, high = min(warm), max(warm)
    span = high - low or 1.0  # a slot may earn more than any warm one: leave room above
    return ((1.0 - arguments.gamma) * (reward - low) / (2.0 * span)).astype(np.float32)
