"""afterstate, ours: learn only what cannot be known, what a buffer is worth once the slot is over.

A slot's reward is known before acting, exactly; chance decides only what comes after. So W(D0', g, level), 186 numbers
for the grid of one stream, is all there is to learn, and decisions take the best of r + W (privacy.md 4).

Two things make it fast. New data, channel and level do not depend on what was decided, so each slot that is seen says
what it would have brought to every buffer: one observation updates W(., g, level) whole. And with many streams a stream
is valued given what the others do in the slot that was seen, waits that it causes included:

    v_j(d0) = max( stay_j(d0) - device_price (V + b_j l) / 2 + gamma W(left(d0), g', level'),
                   stay_j(d0) + gain_j(d0) - wait_price (Wk + w_j n) / 2 + gamma W(0, g', level') )

with Wk cycles in n other streams at the server and V bits in l other streams on the same device: what adding stream j
does to the total (see `coupling`). The joint decision is then searched with these continuations. `copies` systems are
played side by side; the step size is 1 / visits^decay of (g, level).
"""

from dataclasses import replace
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgora.allocator.learn.run import Run
from edgora.allocator.learn.weights import Arrays
from edgora.allocator.privacy.coupling import stakes
from edgora.allocator.privacy.instance import Instance
from edgora.allocator.privacy.model import Bits, Floats, State
from edgora.allocator.privacy.simulation import Simulation
from edgora.allocator.privacy.trained import Afterstate as Policy
from edgora.allocator.privacy.trained import header
from edgora.allocator.privacy.training import WATCHED, learned, watch
from edgora.allocator.search import Found, Search

__all__ = ["Afterstate"]

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Afterstate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of afterstate."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)
    kind: ClassVar[str] = "afterstate"
    algo: ClassVar[str] = "afterstate"
    default_slots: ClassVar[tuple[int, int]] = (10_000, 10_000)

    discount: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.95
    """Nearer to the average reward than the paper's 0.85, which costs 1.7 % (privacy.md 10)."""
    decay: Annotated[float, msgspec.Meta(ge=0.5, le=1)] = 0.6
    """How fast steps shrink with visits."""
    copies: Count = 4
    """Systems side by side."""
    log_every: Count = 100
    """Slots between two lines of the log."""
    slots: Count | None = None
    """Slots of the run, all copies together; none: the instance's."""

    def solve(self, instance: Instance, search: Search) -> Found:
        return learned(self, instance, search)

    def learn(self, instance: Instance, seed: int, run: Run) -> Arrays:
        c, total = instance.constants, self.slots or instance.slots
        buffers = round(c.B / c.grid) + 1
        policy = Policy(instance, np.zeros((buffers, 2, 3)))  # W with the discount in it
        visits = np.zeros((2, 3))
        simulation = Simulation(instance, min(self.copies, total), (seed, 2))
        slot, rewards, shown = 0, 0.0, 0
        x = policy.act(simulation.state)
        if run.checkpoint is not None:
            arrays, state = run.checkpoint
            policy.W, visits = arrays["W"], arrays["visits"]
            slot, rewards, shown = state["slot"], state["rewards"], state["shown"]
            simulation.restore(arrays, state["simulation"])
            x = arrays["x"]  # decided before W learned from the slot

        def save() -> tuple[Arrays, dict[str, object]]:
            arrays, generator = simulation.snapshot()
            state = {"slot": slot, "rewards": rewards, "shown": shown, "simulation": generator}
            return {**arrays, "W": policy.W, "visits": visits, "x": x}, state

        while slot < total and not run.over(slot, slot // simulation.batch, save):
            before = simulation.state
            outcome = simulation.step(x)
            x = policy.act(simulation.state)
            values = _hypothetical(policy, instance, simulation.state, x, buffers)  # (buffers, B, N, M)
            for g in (0, 1):
                for level in range(3):
                    seen = (before.g == g) & (before.level == level)[:, None]  # (B,N)
                    if seen.any():
                        visits[g, level] += 1
                        mean = values[:, seen].mean(axis=(1, 2))
                        step = visits[g, level] ** -self.decay
                        policy.W[:, g, level] += step * (self.discount * mean - policy.W[:, g, level])
            slot += simulation.batch
            rewards += float(outcome.reward.mean())
            if slot // self.log_every > (slot - simulation.batch) // self.log_every:
                steps = slot // simulation.batch - shown
                watched = slot // WATCHED > (slot - simulation.batch) // WATCHED
                seen_now = watch(policy, instance) if watched else {}
                run.log(slot, slot // simulation.batch, {"reward": rewards / steps, **seen_now})
                rewards, shown = 0.0, slot // simulation.batch
        if slot >= total:
            run.finish(slot, slot // simulation.batch, {"W": policy.W}, header(self.kind, instance), save)
        return {"W": policy.W}


def _hypothetical(policy: Policy, instance: Instance, state: State, x: Bits, buffers: int) -> Floats:
    """What each stream would be worth with every buffer, the other streams doing what they do (buffers,B,N,M)."""
    c, model = instance.constants, instance.model
    B, N, M = state.D1.shape
    # The others, as they are.
    slot = stakes(model, state)
    work, bits = slot.work * x, slot.bits * ~x
    n_others = x.sum(axis=(1, 2), keepdims=True) - x
    W_others = work.sum(axis=(1, 2), keepdims=True) - work
    l_others = (~x).sum(axis=2, keepdims=True) - ~x
    V_others = bits.sum(axis=2, keepdims=True) - bits
    # This stream, with any buffer: buffers x B systems at once.
    what_if = replace(
        state,
        D1=np.tile(state.D1, (buffers, 1, 1)),
        D0=np.broadcast_to((c.grid * np.arange(buffers))[:, None, None, None], (buffers, B, N, M)).reshape(-1, N, M),
        g=np.tile(state.g, (buffers, 1)), level=np.tile(state.level, buffers), backlog=np.tile(state.backlog, buffers),
    )  # fmt: skip
    any_slot = stakes(model, what_if)
    shape = (buffers, B, N, M)
    stay, gain = any_slot.stay.reshape(shape), any_slot.gain.reshape(shape)
    left = np.rint(model.left(what_if.D0 + what_if.D1) / c.grid).astype(np.int64).reshape(shape)
    g, level = state.g[:, :, None], state.level[:, None, None]
    waits_here = 0.5 * slot.device_price * (V_others + any_slot.bits.reshape(shape) * l_others)
    waits_there = 0.5 * slot.wait_price * (W_others + any_slot.work.reshape(shape) * n_others)
    found: Floats = np.maximum(
        stay - waits_here + policy.W[left, g, level], stay + gain - waits_there + policy.W[0, g, level]
    )
    return found
