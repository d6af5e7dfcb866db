"""One slot, exactly (privacy.md 2): energies, delays, privacy, reward and the next buffers of a batch of systems.

Everything is vectorised over a batch of b = 0..B-1 systems that do not know each other. Arrays of streams are
(B, N, M), of miners (B, N), of systems (B,). Sizes go in as kb, as in the spec; joules, seconds and cycles come out.

The server serves in random order, so a stream waits in the mean for half of every other stream's work (section 9,
item 8); the same holds on the device. Both waits make the miners' choices depend on each other, and are the only
coupling of the model: offloaded work W_b and the number n_b of offloaded streams say all that a stream has to know.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgora.allocator.privacy.instance import Instance

__all__ = ["Bits", "Floats", "Ints", "Model", "Outcome", "State"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bits = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class State:
    """What is known before a slot's decision."""

    D1: Floats
    """New data, kb (B,N,M)."""
    D0: Floats
    """Data that wait on the device, kb (B,N,M)."""
    g: Ints
    """Channel, 0 bad, 1 good (B,N)."""
    level: Ints
    """Level 0..2 of the server's background work (B,)."""
    backlog: Floats
    """Offloaded work that the server did not finish, cycle (B,)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a slot's decision brings."""

    E: Floats
    """Energy of each stream, J (B,N,M)."""
    L: Floats
    """Delay of each stream, s (B,N,M)."""
    P: Floats
    """Privacy of each miner (B,N)."""
    cost: Floats
    """Cost of each miner (B,N)."""
    reward: Floats
    """Reward of each miner (B,N)."""
    D0: Floats
    """What waits on the device afterwards, kb (B,N,M)."""
    backlog: Floats
    """Work that the server did not finish in this slot, cycle (B,)."""
    late: Ints
    """Streams past the deadline (B,)."""


class Model:
    """The formulas of privacy.md 2 for one instance."""

    def __init__(self, instance: "Instance") -> None:
        self.constants = c = instance.constants
        self.beta, self.w_P = instance.beta, instance.w_P
        self.energy_price = c.S * self.beta / c.E_0
        """Cost per joule of a miner."""
        self.latency_price = c.S * (1.0 - self.beta) / c.L_0 / instance.M
        """Cost per second of one stream's delay: a miner's delay is the mean over its streams."""
        self.wait_price = (self.latency_price + self.energy_price * c.P_C) / c.F
        """Cost of one stream's waiting for one cycle of work before it at the server."""
        self._Q = np.array(c.Q)

    def work(self, kb: Floats) -> Floats:
        """Server work of a stream's data, cycle."""
        cycles: Floats = 1000.0 * kb * self.constants.X
        return cycles

    def waiting(self, state: State) -> Floats:
        """Work at the server before any of this slot's, cycle (B,)."""
        return self._Q[state.level] + state.backlog

    def left(self, kb: Floats) -> Floats:
        """What the device leaves of a stream's data that it mines itself, kb."""
        c = self.constants
        return kb - np.maximum(np.minimum(kb, c.C), kb - c.B)

    def slot(self, state: State, x: Bits | Ints) -> Outcome:
        """The outcome of offloading the streams where x is 1."""
        c, off = self.constants, np.asarray(x, dtype=np.bool_)
        kb = state.D0 + state.D1
        bits = 1000.0 * kb
        good = state.g == 1
        # Server: upload, wait in random order, processing.
        work = np.where(off, bits * c.X, 0.0)
        others = work.sum(axis=(1, 2))[:, None, None] - work
        wait = (self.waiting(state)[:, None, None] + 0.5 * others) / c.F
        upload = bits / np.where(good, c.r_1, c.r_0)[:, :, None]
        processing = bits * (c.X / c.F)
        # Device: data beyond the buffer are cleared at once, nothing is lost.
        after = np.where(off, 0.0, self.left(kb))
        here = np.where(off, 0.0, bits)
        local = here.sum(axis=2, keepdims=True) - here
        E = np.where(off, c.P_M * upload + c.P_srv * processing + c.P_C * wait, 1000.0 * (kb - after) * c.e_l)
        L = np.where(off, upload + wait + processing, (bits + 0.5 * local) * c.t_l)
        P = self.privacy(state, off)
        cost = self.energy_price * E.sum(axis=2) + self.latency_price * L.sum(axis=2)
        total = work.sum(axis=(1, 2))
        return Outcome(
            E=E, L=L, P=P, cost=cost, reward=self.w_P * P - cost, D0=after,
            backlog=np.maximum(0.0, state.backlog + total - c.F), late=(c.tau < L).sum(axis=(1, 2)),
        )  # fmt: skip

    def caused(self, state: State, x: Bits | Ints) -> Floats:
        """What each miner's offloading costs the others in this slot: their waits behind its work (B,N)."""
        off = np.asarray(x, dtype=np.bool_)
        own = (self.work(state.D0 + state.D1) * off).sum(axis=2)
        streams = off.sum(axis=2)
        others = streams.sum(axis=1, keepdims=True) - streams
        waits: Floats = 0.5 * self.wait_price * own * others
        return waits

    def privacy(self, state: State, off: Bits) -> Floats:
        """Usage pattern over a good channel, location over a bad one (B,N)."""
        c = self.constants
        kb = state.D0 + state.D1
        generated = state.D1 if c.usage == "text" else state.D0
        usage = np.abs(generated - np.where(off, kb, 0.0)).sum(axis=2) * (1000.0 / c.D_ref)
        location = (off & (kb > 0.0)).mean(axis=2)
        privacy: Floats = np.where(state.g == 1, usage, c.lambda_ * location)
        return privacy
