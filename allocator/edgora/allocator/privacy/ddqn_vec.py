"""ddqn-vec, ours: double DQN on many environments side by side, few updates, a near-average discount (privacy.md 4).

A batch of updates costs far more than a slot, so experience is made by `copies` systems at once and only `ratio` updates
are spent on each slot. What else differs from DRLO, and why:

- a slot's own reward is known before acting, so Q(s,a) is that reward, the others ignored, plus a network that learns the
  rest: what follows, and what the miners' waits cost;
- new data, channel and level do not depend on decisions, so a slot that was seen says what every other decision of a miner
  would have brought: all outputs learn from each transition, with the same chance in each, which is what makes the
  difference between decisions visible under a noise many times its size;
- for the same reason a slot also says what it would have brought from any other buffers: half of the transitions are told
  with buffers drawn evenly, so that states which a good policy seldom visits are learnt as well;
- a miner learns from its reward less what its work makes the others wait for, so that the sum of what miners learn from
  is what a decision does to the system; with its own reward alone, waits that it causes are free to it;
- discount 0.95: the optimum at 0.85 is 1.7 % below the best average (privacy.md 10); rewards are centred;
- squared loss: Huber's is a median's where noise is large, and rewards are skewed;
- the learning rate falls to zero over the run, and the policy is a running mean of the weights (the target network).
"""

from dataclasses import replace
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgora.allocator.learn.replay import Replay
from edgora.allocator.learn.run import Run
from edgora.allocator.learn.schedules import Linear
from edgora.allocator.learn.weights import Arrays
from edgora.allocator.privacy.features import features, width
from edgora.allocator.privacy.instance import Instance
from edgora.allocator.privacy.model import Floats, Ints
from edgora.allocator.privacy.simulation import Simulation
from edgora.allocator.privacy.trained import MAX_JOINT, actions_to_bits, header, known, of
from edgora.allocator.privacy.training import learned, watch
from edgora.allocator.search import Found, Search
from edgora.wire.errors import Refused

__all__ = ["DdqnVec"]

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class DdqnVec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of ddqn-vec."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "torch")
    kind: ClassVar[str] = "residual"
    algo: ClassVar[str] = "ddqn-vec"
    default_slots: ClassVar[tuple[int, int]] = (50_000, 40_000)
    """For one miner, for more."""

    hidden: tuple[Count, Count] = (128, 64)
    discount: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.95
    copies: Count = 100
    """Systems side by side."""
    ratio: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.05
    """Updates for each slot."""
    batch: Count = 256
    replay: Count = 200_000
    """Transitions remembered, one for each miner and slot."""
    lr: Annotated[float, msgspec.Meta(gt=0, le=1)] = 4e-3
    polyak: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.05
    """How far the target follows at each update."""
    anew: Share = 0.5
    """Share of transitions that are told with buffers drawn anew."""
    own: bool = False
    """Whether a miner learns from its own reward alone."""
    reward_scale: Annotated[float, msgspec.Meta(gt=0)] = 0.02
    epsilon_first: Share = 1.0
    epsilon_last: Share = 0.05
    explore: Share = 0.5
    """Share of the run over which epsilon falls."""
    log_every: Count = 1_000
    """Slots between two lines of the log."""
    slots: Count | None = None
    """Slots of the run, all copies together; none: the instance's."""

    def solve(self, instance: Instance, search: Search) -> Found:
        return learned(self, instance, search, scale=self.reward_scale)

    def learn(self, instance: Instance, seed: int, run: Run) -> Arrays:
        import torch
        from torch import nn

        from edgora.allocator.learn import torch_state

        N, M, model = instance.N, instance.M, instance.model
        if M > MAX_JOINT:
            detail = f"M is {M}: ddqn-vec enumerates decisions of at most {MAX_JOINT} streams; use afterstate or DRLO"
            raise Refused(detail, field="M")
        choices = 2**M
        total = self.slots or instance.slots
        scale = self.reward_scale
        head = header(self.kind, instance, scale=scale)
        epsilon = Linear(self.epsilon_first, self.epsilon_last, self.explore * total)

        # Network, target, optimiser, memory.
        torch_state.deterministic(seed)

        def network() -> nn.Sequential:
            first, second = self.hidden
            return nn.Sequential(
                nn.Linear(width(instance), first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(),
                nn.Linear(second, choices),
            )  # fmt: skip

        online, target = network(), network()
        target.load_state_dict(online.state_dict())
        pairs = list(zip(target.parameters(), online.parameters(), strict=True))
        adam = torch.optim.Adam(online.parameters(), lr=self.lr, fused=True)
        seen_shape = (width(instance),)
        memory = Replay(self.replay, {
            "seen": (seen_shape, np.float32), "rest": ((choices,), np.float32),
            "after": ((choices, *seen_shape), np.float32), "known": ((choices, choices), np.float32),
        })  # fmt: skip
        rng = np.random.default_rng([seed, 3])
        copies = min(self.copies, total)
        simulation = Simulation(instance, copies, (seed, 2))
        slot, updates, rewards, loss_sum, logged, centre = 0, 0, 0.0, 0.0, (0, 0), 0.0
        if run.checkpoint is not None:
            arrays, state = run.checkpoint
            torch_state.restore_module("online", online, arrays)
            torch_state.restore_module("target", target, arrays)
            torch_state.restore_adam("adam", adam, arrays)
            memory.restore({name[7:]: array for name, array in arrays.items() if name.startswith("memory/")})
            simulation.restore(arrays, state["simulation"])
            rng.bit_generator.state = state["rng"]
            slot, updates, rewards, loss_sum = (state[key] for key in ("slot", "updates", "rewards", "loss_sum"))
            logged, centre = (state["logged"][0], state["logged"][1]), state["centre"]

        def save() -> tuple[Arrays, dict[str, object]]:
            arrays, generator = simulation.snapshot()
            arrays |= torch_state.module_arrays("online", online) | torch_state.module_arrays("target", target)
            arrays |= torch_state.adam_arrays("adam", adam)
            arrays |= {f"memory/{name}": array for name, array in memory.arrays().items()}
            return arrays, {
                "slot": slot, "updates": updates, "rewards": rewards, "loss_sum": loss_sum, "logged": logged,
                "centre": centre, "simulation": generator, "rng": rng.bit_generator.state,
            }  # fmt: skip

        seen = features(simulation.state, instance)
        own = known(simulation.state, instance)[:, :, 0]
        while slot < total and not run.over(slot, updates, save):
            # All copies decide, epsilon-greedily, and learn what their decisions did to the system.
            with torch.no_grad():
                values = online(torch.from_numpy(seen)).numpy()
            action = (values + np.float32(scale) * own).argmax(axis=2)
            wild = rng.random(action.shape) < epsilon.at(slot)
            action = np.where(wild, rng.integers(0, choices, action.shape), action)
            x = actions_to_bits(action, M)
            before = simulation.state
            outcome = simulation.step(x)
            after = simulation.state
            # What each decision of a miner would have brought, the others deciding as they did, for a share of the miners
            # had their buffers been other ones.
            drawn_D0 = rng.uniform(0.0, instance.constants.B, before.D0.shape)
            anew = rng.random(action.shape) < self.anew
            told = replace(before, D0=np.where(anew[:, :, None], drawn_D0, before.D0))
            told_seen = features(told, instance)
            if N > 1:  # the mean buffer of all, as it is
                told_seen[:, :, -1] = seen[:, :, -1]
            kb = told.D0 + told.D1
            work, left = model.work(kb), model.left(kb)
            n_others, W_others = _others(x.sum(axis=2)), _others((work * x).sum(axis=2))
            rest, follows, owns = [], [], []
            for code in range(choices):
                bits = (code >> np.arange(M) & 1).astype(np.bool_)
                waits = W_others * bits.sum()
                if not self.own:
                    waits = waits + n_others * (work * bits).sum(axis=2)
                rest.append(-0.5 * scale * model.wait_price * waits)
                would = replace(after, D0=np.where(bits, 0.0, left))
                shown = features(would, instance)
                if N > 1:  # the mean buffer of all, as it is
                    shown[:, :, -1] = features(after, instance)[:, :, -1]
                follows.append(shown)
                owns.append(scale * known(would, instance)[:, :, 0])
            memory.add(
                seen=told_seen.reshape(-1, *seen_shape), rest=np.stack(rest, axis=2).reshape(-1, choices),
                after=np.stack(follows, axis=2).reshape(-1, choices, *seen_shape),
                known=np.stack(owns, axis=2).reshape(-1, choices, choices),
            )  # fmt: skip
            seen, own = features(after, instance), known(after, instance)[:, :, 0]
            slot += copies
            rewards += float(outcome.reward.mean())
            centre += 0.02 * (scale * float(outcome.reward.mean()) - centre)
            # Updates: `ratio` for each slot.
            while updates < int(self.ratio * slot) and len(memory) >= self.batch:
                drawn = {name: torch.from_numpy(rows) for name, rows in memory.sample(rng, self.batch).items()}
                with torch.no_grad():
                    then, gain = drawn["after"].flatten(0, 1), drawn["known"].flatten(0, 1)
                    best = (online(then) + gain).argmax(dim=1, keepdim=True)
                    ahead = (target(then) + gain).gather(1, best).view(-1, choices)
                    aim = drawn["rest"] - centre + self.discount * ahead
                loss = nn.functional.mse_loss(online(drawn["seen"]), aim)
                for group in adam.param_groups:
                    group["lr"] = self.lr * max(0.02, 1.0 - slot / total)
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch publishes none
                adam.step()
                with torch.no_grad():
                    for behind, ahead_of in pairs:
                        behind.lerp_(ahead_of, self.polyak)
                updates += 1
                loss_sum += loss.item()
            if slot // self.log_every > logged[0] // self.log_every:
                played, done = (slot - logged[0]) // copies, max(1, updates - logged[1])
                policy = of(torch_state.layers("q", target), head, instance)
                figures = {"reward": rewards / played, "loss": loss_sum / done, "epsilon": epsilon.at(slot)}
                run.log(slot, updates, {**figures, **watch(policy, instance)})
                rewards, loss_sum, logged = 0.0, 0.0, (slot, updates)
        found = torch_state.layers("q", target)
        if slot >= total:
            run.finish(slot, updates, found, head, save)
        return found


def _others(of_each: Floats | Ints) -> Floats:
    """Of each miner, the sum over the other miners (B,N)."""
    rest: Floats = (of_each.sum(axis=1, keepdims=True) - of_each).astype(np.float64)
    return rest
