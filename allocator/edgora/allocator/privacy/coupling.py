"""What a slot's decisions are worth together, and two ways to choose them.

Theory. Reward is additive over streams but for two waits (privacy.md 2). With n streams of W cycles in all at the
server, random order makes them wait W (n - 1) / 2 cycles' time together; the same holds on each device for the streams
it mines itself. So a slot is told by

    gain_j      what stream j alone adds by going to the server, against staying,
    at server   - wait_price W (n - 1) / 2
    at device   - device_price V_i (l_i - 1) / 2        (l_i streams of V_i bits stay at miner i)

and nothing else. Given n and l_i both waits are linear, so the best decision of one miner alone is the best of M + 1
sorts (`alone`). Many miners together are searched by flips, in the order that privacy.md 4 fixes (`flips`).

A continuation is given either added to `gain`, stream by stream, or as `joint`, one value for each of a miner's 2^M
decisions, bit m of the decision being x of stream m.
"""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from edgora.allocator.privacy.model import Bits, Floats, Model, State

__all__ = ["Stakes", "alone", "flips", "own_rewards", "stakes"]

SWEEPS = 3
"""Most sweeps of the flip search (privacy.md 4)."""

_RAISES = 1e-9
"""What a flip must add: rounding alone must not flip for ever."""


@dataclass(frozen=True, slots=True)
class Stakes:
    """A slot's decisions, valued."""

    stay: Floats
    """Reward of each stream on the device, without waits (B,N,M)."""
    gain: Floats
    """What each stream adds to that by going to the server, without waits (B,N,M)."""
    work: Floats
    """Cycles of each stream at the server (B,N,M)."""
    bits: Floats
    """Bits of each stream on the device (B,N,M)."""
    wait_price: float
    """Reward that a stream loses by waiting for one cycle at the server."""
    device_price: float
    """Reward that a stream loses by waiting for one bit on the device."""
    joint: Floats | None = None
    """Further value of each of a miner's decisions (B,N,2^M)."""

    def more(self, gain: Floats) -> "Stakes":
        """With this added to every stream's gain."""
        return replace(self, gain=self.gain + gain)

    def total(self, x: Bits) -> Floats:
        """Value of a decision for each system: the sum of its miners' rewards, and of what was added (B,)."""
        n, W = x.sum(axis=(1, 2)), (self.work * x).sum(axis=(1, 2))
        stay = ~x
        kept, V = stay.sum(axis=2), (self.bits * stay).sum(axis=2)
        value: Floats = (self.stay + self.gain * x).sum(axis=(1, 2)) - 0.5 * self.wait_price * W * np.maximum(n - 1, 0)
        value -= 0.5 * self.device_price * (V * np.maximum(kept - 1, 0)).sum(axis=1)
        if self.joint is not None:
            value += np.take_along_axis(self.joint, _codes(x)[:, :, None], axis=2).sum(axis=(1, 2))
        return value


def stakes(model: Model, state: State) -> Stakes:
    """This slot's rewards, exactly, as stakes; no continuation yet."""
    c = model.constants
    kb = state.D0 + state.D1
    bits = 1000.0 * kb
    good = (state.g == 1)[:, :, None]
    upload = bits / np.where(good, c.r_1, c.r_0)
    processing = bits * (c.X / c.F)
    wait = model.waiting(state)[:, None, None] / c.F
    served = model.energy_price * (c.P_M * upload + c.P_srv * processing + c.P_C * wait)
    served += model.latency_price * (upload + wait + processing)
    mined = model.energy_price * 1000.0 * (kb - model.left(kb)) * c.e_l + model.latency_price * bits * c.t_l
    generated = state.D1 if c.usage == "text" else state.D0
    usage = (np.abs(generated - kb) - generated) * (1000.0 / c.D_ref)
    location = (c.lambda_ / kb.shape[2]) * (kb > 0.0)
    privacy = np.where(good, usage, location)
    usage_here = np.where(good, generated * (1000.0 / c.D_ref), 0.0)
    return Stakes(
        stay=model.w_P * usage_here - mined, gain=model.w_P * privacy - served + mined, work=bits * c.X, bits=bits, wait_price=model.wait_price,
        device_price=model.latency_price * c.t_l,
    )  # fmt: skip


def alone(slot: Stakes) -> Bits:
    """Each miner's best decision with the other miners ignored; exact."""
    M = slot.gain.shape[2]
    if slot.joint is not None:
        options = (np.arange(2**M)[:, None] >> np.arange(M) & 1).astype(np.bool_)
        values = np.stack([_own(slot, np.broadcast_to(x, slot.gain.shape)) for x in options], axis=2) + slot.joint
        chosen_of: Bits = options[values.argmax(axis=2)]
        return chosen_of
    best = np.full(slot.gain.shape[:2], -np.inf)
    x = np.zeros(slot.gain.shape, dtype=np.bool_)
    for k in range(M + 1):  # k streams at the server, M - k here: both waits are linear in the streams
        here = 0.5 * slot.device_price * max(M - k - 1, 0) * slot.bits
        score = slot.gain - 0.5 * slot.wait_price * max(k - 1, 0) * slot.work + here
        rank = np.argsort(np.argsort(-score, axis=2, kind="stable"), axis=2, kind="stable")
        chosen = rank < k
        value = np.where(chosen, score, 0.0).sum(axis=2) - here.sum(axis=2)
        better = value > best + (_RAISES if k else 0.0)
        best = np.where(better, value, best)
        x[better] = chosen[better]
    return x


def own_rewards(slot: Stakes) -> Floats:
    """Reward of each miner's 2^M decisions with the other miners ignored (B,N,2^M)."""
    M = slot.gain.shape[2]
    options = (np.arange(2**M)[:, None] >> np.arange(M) & 1).astype(np.bool_)
    own = np.stack([_own(slot, np.broadcast_to(x, slot.gain.shape)) for x in options], axis=2)
    rewards: Floats = slot.stay.sum(axis=2)[:, :, None] + own
    return rewards


def flips(slot: Stakes) -> Bits:
    """From x = 0 up to `SWEEPS` sweeps over the miners in index order: single, then pair flips that raise the total."""
    B, N, M = slot.gain.shape
    sets = [list(chosen) for size in (1, 2) for chosen in combinations(range(M), size)]
    x = np.zeros((B, N, M), dtype=np.bool_)
    n, W = np.zeros(B), np.zeros(B)
    kept, V = np.full((B, N), float(M)), slot.bits.sum(axis=2)
    rows = np.arange(B)
    code = np.zeros((B, N), dtype=np.int64)
    for _ in range(SWEEPS):
        flipped = False
        for i in range(N):
            for chosen in sets:
                sign = np.where(x[:, i, chosen], -1.0, 1.0)
                dn, dW = sign.sum(axis=1), (sign * slot.work[:, i, chosen]).sum(axis=1)
                dV = (sign * slot.bits[:, i, chosen]).sum(axis=1)
                value = (sign * slot.gain[:, i, chosen]).sum(axis=1)
                n_new, W_new, kept_new, V_new = n + dn, W + dW, kept[:, i] - dn, V[:, i] - dV
                value -= 0.5 * slot.wait_price * (W_new * np.maximum(n_new - 1, 0) - W * np.maximum(n - 1, 0))
                local = V_new * np.maximum(kept_new - 1, 0) - V[:, i] * np.maximum(kept[:, i] - 1, 0)
                value -= 0.5 * slot.device_price * local
                mask = sum(1 << m for m in chosen)
                if slot.joint is not None:
                    value += slot.joint[rows, i, code[:, i] ^ mask] - slot.joint[rows, i, code[:, i]]
                take = value > _RAISES
                if not take.any():
                    continue
                flipped = True
                for m in chosen:
                    x[:, i, m] ^= take
                n, W = np.where(take, n_new, n), np.where(take, W_new, W)
                kept[:, i], V[:, i] = np.where(take, kept_new, kept[:, i]), np.where(take, V_new, V[:, i])
                code[:, i] ^= np.where(take, mask, 0)
        if not flipped:
            break
    return x


def _own(slot: Stakes, x: Bits) -> Floats:
    """Value of each miner's decision with the other miners ignored, but for `joint` (B,N)."""
    stay = ~x
    served = (slot.work * x).sum(axis=2) * np.maximum(x.sum(axis=2) - 1, 0)
    mined = (slot.bits * stay).sum(axis=2) * np.maximum(stay.sum(axis=2) - 1, 0)
    own: Floats = (slot.gain * x).sum(axis=2) - 0.5 * (slot.wait_price * served + slot.device_price * mined)
    return own


def _codes(x: Bits) -> np.ndarray:
    return x @ (1 << np.arange(x.shape[2]))
