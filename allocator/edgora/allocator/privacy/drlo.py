"""DRLO, the paper's deep Q-network (algorithm 2, eq. 17), with the constants of privacy.md 4.

One network for all miners, 300 and 200 hidden units; each miner decides from its own features and learns from its own
reward. One update of a batch of 128 for every slot. The target network is eq. 17's theta', which the listing leaves out;
it follows by Polyak averaging. The target is the plain maximum, as printed; `double=true` takes the other.

Up to four streams the network values a miner's 2^M decisions; beyond, each stream has a two-valued head whose reward is
the miner's / M. A slot limit is never an end: every target is bootstrapped.
"""

from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgora.allocator.learn.replay import Replay
from edgora.allocator.learn.run import Run
from edgora.allocator.learn.schedules import Linear
from edgora.allocator.learn.weights import Arrays
from edgora.allocator.privacy.features import features, width
from edgora.allocator.privacy.instance import Instance
from edgora.allocator.privacy.simulation import Simulation
from edgora.allocator.privacy.trained import MAX_JOINT, actions_to_bits, header, of
from edgora.allocator.privacy.training import WATCHED, learned, watch
from edgora.allocator.search import Found, Search

__all__ = ["Drlo"]

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Drlo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of DRLO."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "torch")
    kind: ClassVar[str] = "network"
    algo: ClassVar[str] = "DRLO"
    default_slots: ClassVar[tuple[int, int]] = (10_000, 10_000)

    hidden: tuple[Count, Count] = (300, 200)
    replay: Count = 100_000
    """Transitions remembered, one for each miner and slot."""
    batch: Count = 128
    lr: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1e-3
    polyak: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.005
    """How far the target follows at each update."""
    double: bool = False
    """Whether the online network chooses the action that the target values."""
    reward_scale: Annotated[float, msgspec.Meta(gt=0)] = 0.02
    epsilon_first: Share = 1.0
    epsilon_last: Share = 0.02
    explore: Share = 0.5
    """Share of the run over which epsilon falls."""
    log_every: Count = 100
    """Slots between two lines of the log."""
    slots: Count | None = None
    """Slots of the run; none: the instance's."""

    def solve(self, instance: Instance, search: Search) -> Found:
        return learned(self, instance, search)

    def learn(self, instance: Instance, seed: int, run: Run) -> Arrays:
        import torch
        from torch import nn

        from edgora.allocator.learn import torch_state

        N, M = instance.N, instance.M
        heads, choices = (1, 2**M) if M <= MAX_JOINT else (M, 2)
        total = self.slots or instance.slots
        gamma, scale = instance.constants.gamma, self.reward_scale / heads
        epsilon = Linear(self.epsilon_first, self.epsilon_last, self.explore * total)

        # Network, target, optimiser, memory.
        torch_state.deterministic(seed)

        def network() -> nn.Sequential:
            first, second = self.hidden
            return nn.Sequential(
                nn.Linear(width(instance), first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(),
                nn.Linear(second, heads * choices),
            )  # fmt: skip

        online, target = network(), network()
        target.load_state_dict(online.state_dict())
        pairs = list(zip(target.parameters(), online.parameters(), strict=True))
        adam = torch.optim.Adam(online.parameters(), lr=self.lr, fused=True)
        seen_shape = (width(instance),)
        memory = Replay(self.replay, {
            "seen": (seen_shape, np.float32), "action": ((heads,), np.int64), "reward": ((), np.float32),
            "after": (seen_shape, np.float32),
        })  # fmt: skip
        rng = np.random.default_rng([seed, 3])
        simulation = Simulation(instance, 1, (seed, 2))
        slot, updates, rewards, loss_sum = 0, 0, 0.0, 0.0
        if run.checkpoint is not None:
            arrays, state = run.checkpoint
            torch_state.restore_module("online", online, arrays)
            torch_state.restore_module("target", target, arrays)
            torch_state.restore_adam("adam", adam, arrays)
            memory.restore({name[7:]: array for name, array in arrays.items() if name.startswith("memory/")})
            simulation.restore(arrays, state["simulation"])
            rng.bit_generator.state = state["rng"]
            slot, updates, rewards, loss_sum = (state[key] for key in ("slot", "updates", "rewards", "loss_sum"))

        def save() -> tuple[Arrays, dict[str, object]]:
            arrays, generator = simulation.snapshot()
            arrays |= torch_state.module_arrays("online", online) | torch_state.module_arrays("target", target)
            arrays |= torch_state.adam_arrays("adam", adam)
            arrays |= {f"memory/{name}": array for name, array in memory.arrays().items()}
            return arrays, {
                "slot": slot, "updates": updates, "rewards": rewards, "loss_sum": loss_sum, "simulation": generator,
                "rng": rng.bit_generator.state,
            }  # fmt: skip

        seen = features(simulation.state, instance)[0]
        while slot < total and not run.over(slot, updates, save):
            # Plan: every miner by its own features, epsilon-greedily.
            with torch.no_grad():
                values = online(torch.from_numpy(seen)).numpy().reshape(N, heads, choices)
            action = values.argmax(axis=2)
            wild = rng.random(action.shape) < epsilon.at(slot)
            action = np.where(wild, rng.integers(0, choices, action.shape), action)
            x = actions_to_bits(action[:, 0], M) if heads == 1 else action == 1
            outcome = simulation.step(x[None])
            after = features(simulation.state, instance)[0]
            memory.add(seen=seen, action=action, reward=np.float32(scale) * outcome.reward[0], after=after)
            seen = after
            slot += 1
            rewards += float(outcome.reward.mean())
            # Update: one batch.
            if len(memory) >= self.batch:
                drawn = {name: torch.from_numpy(rows) for name, rows in memory.sample(rng, self.batch).items()}
                with torch.no_grad():
                    ahead = target(drawn["after"]).view(-1, heads, choices)
                    if self.double:
                        best = online(drawn["after"]).view(-1, heads, choices).argmax(dim=2, keepdim=True)
                        ahead = ahead.gather(2, best).squeeze(2)
                    else:
                        ahead = ahead.amax(dim=2)
                    aim = drawn["reward"][:, None] + gamma * ahead
                q = online(drawn["seen"]).view(-1, heads, choices).gather(2, drawn["action"][:, :, None]).squeeze(2)
                loss = nn.functional.smooth_l1_loss(q, aim)
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch publishes none
                adam.step()
                with torch.no_grad():
                    for behind, ahead_of in pairs:
                        behind.lerp_(ahead_of, self.polyak)
                updates += 1
                loss_sum += loss.item()
            if slot % self.log_every == 0:
                policy = of(torch_state.layers("q", online), header(self.kind, instance), instance)
                watched = watch(policy, instance) if slot % WATCHED == 0 else {}
                figures = {"reward": rewards / self.log_every, "loss": loss_sum / self.log_every}
                run.log(slot, updates, {**figures, "epsilon": epsilon.at(slot), **watched})
                rewards = loss_sum = 0.0
        found = torch_state.layers("q", online)
        if slot >= total:
            run.finish(slot, updates, found, header(self.kind, instance), save)
        return found
