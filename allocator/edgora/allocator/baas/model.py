"""One slot of BaaS, exactly (baas.md 2), for any number of independent copies at once.

A controller sees `Slots`, decides who is served and what hash power is asked for (a `Choice`), and `settle` says what
comes of it. The first axis of every array counts copies; u = 0..U-1 and m = 0..M-1 as in the paper, idle is -1.

`settle` touches served pairs only. The (copies, U, M) arrays of `latency` and `worth` are for whoever decides.
"""

from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.baas.params import P_MAX, P_MIN, Params

__all__ = [
    "IDLE", "Bools", "Choice", "Floats", "Ints", "Outcome", "Slots", "caps", "execute", "grant", "latency", "mining_value",
    "reputation", "settle", "worth",
]  # fmt: skip

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

IDLE = -1


@dataclass(frozen=True, eq=False)
class Slots:
    """What is there to decide in one slot of each copy."""

    params: Params
    d: Floats
    """Task data, Mbit (B,U)."""
    xi: Floats
    """Work for each data, Gcycle/Mbit (B,U)."""
    tau: Floats
    """Desired execution time, s (B,U)."""
    b: Floats
    """Block sizes, KB (B,M)."""
    f: Floats
    """Speeds, Gcycle/s (B,M)."""
    A: Floats
    """Remembered desired seconds (B,M)."""
    B: Floats
    """Remembered seconds taken (B,M)."""
    rate: Floats | None
    """Uplinks, Mbit/s (B,U,M); None in `paper`, where data takes no time."""

    @property
    def copies(self) -> int:
        return int(self.d.shape[0])

    @cached_property
    def Y(self) -> Floats:  # noqa: N802  # the paper's symbol
        """Reputation at the start of the slot (B,M)."""
        return reputation(self.params, self.A, self.B)

    @cached_property
    def cap(self) -> Floats:
        """Most hash power that each server may be given, MHash/s (B,M)."""
        return caps(self.params, self.Y)

    def of(self, copy: int) -> "Slots":
        """One copy alone."""
        one = slice(copy, copy + 1)
        arrays = {name: getattr(self, name)[one] for name in ("d", "xi", "tau", "b", "f", "A", "B")}
        return replace(self, rate=None if self.rate is None else self.rate[one], **arrays)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """An action for each copy."""

    assign: Ints
    """UE of each server, or IDLE (B,M)."""
    request: Floats
    """Hash power asked for, MHash/s (B,M)."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What came of a choice."""

    assign: Ints
    """As executed, after the rule of duplicates (B,M)."""
    rep: Floats
    """Reputation before the slot (B,M)."""
    hash: Floats
    """Granted hash power, MHash/s (B,M)."""
    worth: Floats
    """w of each served pair, 0 where idle, token (B,M)."""
    seconds: Floats
    """T of each served pair, 0 where idle, s (B,M)."""
    income: Floats
    """Mining income of each server, token (B,M)."""
    revenue: Floats
    """Token (B,)."""
    mining: Floats
    """Token (B,)."""
    ecl: Floats
    """Sum of T over served pairs, s (B,)."""
    served: Ints
    """Tasks (B,)."""
    reward: Floats
    """Token (B,)."""
    A: Floats
    """After the slot (B,M)."""
    B: Floats
    """After the slot (B,M)."""


def latency(slots: Slots) -> Floats:
    """T_um of every pair, s (B,U,M)."""
    seconds = (slots.d * slots.xi)[:, :, None] / slots.f[:, None, :]
    if slots.rate is not None:
        seconds += slots.d[:, :, None] / slots.rate
    return seconds


def worth(slots: Slots, theta: float = 0.0) -> Floats:
    """w_um = mu W_u - k_T T_um of every pair, plus theta (tau_u - T_um) where that is not 0; token (B,U,M)."""
    params, seconds = slots.params, latency(slots)
    pairs = (params.mu * (slots.d * slots.xi))[:, :, None] - params.k_T * seconds
    if theta:
        pairs += theta * (slots.tau[:, :, None] - seconds)
    return pairs


def mining_value(params: Params, b: Floats) -> Floats:
    """v_m = (R + rho b) exp(-eta z b), token a block."""
    return (params.R + params.rho * b) * np.exp(-params.eta * params.z * b)


def reputation(params: Params, A: Floats, B: Floats) -> Floats:
    """Y = (A + c_r) / (B + c_r): above 1 where deadlines were kept with time to spare."""
    return (A + params.c_r) / (B + params.c_r)


def caps(params: Params, Y: Floats) -> Floats:
    """Most hash power that this reputation allows, MHash/s."""
    share = Y / params.Y_star
    np.maximum(share, 0.0, out=share)  # `clip` in two steps takes half its time on short rows
    np.minimum(share, 1.0, out=share)
    share *= P_MAX - P_MIN
    share += P_MIN
    return share


def grant(params: Params, request: Floats, cap: Floats) -> Floats:
    """Hash power granted: within 20..cap, and scaled back above 20 where the chain's H does not suffice."""
    extra = np.maximum(request, P_MIN)
    np.minimum(extra, cap, out=extra)
    extra -= P_MIN
    room = params.H - P_MIN * params.M
    extra *= (room / np.maximum(_sum(extra), max(room, 1e-300)))[..., None]
    extra += P_MIN
    return extra


def execute(assign: Ints) -> Ints:
    """The selection as executed: a UE named by several servers stays with the first of them, the others idle.

    Each server writes itself down at its UE, the last server first, so that the first one stays: of an index that
    comes several times an assignment leaves the last value. That is the order of sorting, without a sort.
    """
    copies, M = assign.shape
    width = int(assign.max(initial=IDLE)) + 2  # idle servers meet at a place of their own
    place = (assign + (1 + width * np.arange(copies))[:, None]).ravel()
    server = np.arange(copies * M)
    first = np.empty(copies * width, dtype=np.int64)
    first[place[::-1]] = server[::-1]
    again = (first[place] != server).reshape(copies, M)
    again &= assign != IDLE
    if not again.any():
        return assign
    return np.where(again, IDLE, assign)


def settle(slots: Slots, choice: Choice) -> Outcome:
    """Carry a choice out. Caps follow from the reputation before the slot."""
    params = slots.params
    assign = execute(choice.assign)
    active = assign != IDLE
    at = np.maximum(assign, 0)
    at += np.arange(0, slots.copies * params.U, params.U)[:, None]
    data = slots.d.take(at)
    data *= active
    work = slots.xi.take(at)
    work *= data
    desired = slots.tau.take(at)
    desired *= active
    seconds = work / slots.f
    if slots.rate is not None:
        at *= params.M
        at += np.arange(params.M)
        data /= slots.rate.take(at)
        seconds += data
    rep = slots.Y
    granted = grant(params, choice.request, slots.cap)
    income = mining_value(params, slots.b)
    income *= granted
    income /= params.H
    pair = params.mu * work - params.k_T * seconds
    mining = _sum(income)
    return Outcome(
        assign=assign, rep=rep, hash=granted, worth=pair, seconds=seconds, income=income,
        revenue=params.mu * _sum(work), mining=mining, ecl=_sum(seconds), served=np.count_nonzero(active, axis=1),
        reward=mining + _sum(pair), A=params.lambda_r * slots.A + desired, B=params.lambda_r * slots.B + seconds,
    )  # fmt: skip


def _sum(rows: Floats) -> Floats:
    """Sums over the last axis; twice as fast as `sum` on short rows."""
    return rows @ _ones(rows.shape[-1])


@cache
def _ones(width: int) -> Floats:
    ones = np.ones(width)
    ones.flags.writeable = False
    return ones
