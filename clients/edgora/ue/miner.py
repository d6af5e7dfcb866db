"""A UE that mines: slot after slot a privacy policy decides which puzzles go to a server and which stay (privacy.md).

The slot is the model's, the puzzles are real. New data come in (privacy.md 1), what waits is the UE's own queue, the
channel is what its radio gives it now, and the server's level is its advertised load. Then

    sent        everything that waits and the new data become one `hashpuzzle` task, of exactly so many bits, on the
                platform like any other: sealed, ordered, run, audited, paid
    kept        as much as a slot clears is run in the UE's own sandbox at its own clock; the rest waits

Privacy, cost, energy and latency of a slot are the model's figures for what was decided: joules and an observer's guess
cannot be measured here. How long the puzzles really took stands beside them. `beside` plays the same data, channel and
levels under other policies, each with the queue that it would have had.

The radio fades as the model's two-state channel does: in the bad state it has r_0 / r_1 of its rate.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
import numpy as np

from edgora.client import Order
from edgora.client.checks import verify_output
from edgora.client.kernels import order_for_kernel
from edgora.ue.plan import Mining
from edgora.wire.errors import EdgoraError, Refused

if TYPE_CHECKING:
    from edgora.allocator.privacy.instance import Instance
    from edgora.allocator.privacy.model import State
    from edgora.allocator.privacy.policies import Policy

__all__ = [
    "BESIDE",
    "KERNEL",
    "Means",
    "MinedSlot",
    "Prepared",
    "Puzzle",
    "Sent",
    "Site",
    "beside",
    "mine",
    "prepared",
    "puzzle",
]

KERNEL = "hashpuzzle"
_OCTETS_PER_KB = 125
"""kb are 10^3 bits, as in the paper."""
BESIDE = ("NO", "EO", "myopic")
"""Whom a run's policy is shown beside."""


class MinedSlot(msgspec.Struct, kw_only=True):
    """One slot of one UE. kb, mJ, ms; privacy, cost and reward as privacy.md 2 defines them."""

    ue: int
    number: int
    at_ms: int
    """Since its UE began to mine."""
    new_kb: float
    waiting_kb: float
    """Before the slot."""
    good: bool
    """Whether the radio had its full rate."""
    level: int
    """Of the server's load, 0..2."""
    sent: bool
    privacy: float
    cost: float
    reward: float
    energy_mj: float
    latency_ms: float
    puzzle_kb: float = 0.0
    """What was sent, or run here."""
    met_ms: float | None = None
    """From the decision to the solved puzzle; null where nothing was run, or it failed."""
    task: str | None = None
    amount: int = 0
    """Wei paid."""
    verified: bool | None = None
    error: str | None = None


class Means(msgspec.Struct, kw_only=True):
    """A policy over all slots of all UEs that mined: means a slot."""

    policy: str
    slots: int
    sent: float
    """Share of slots."""
    reward: float
    privacy: float
    cost: float
    energy_mj: float
    latency_ms: float


class Puzzle(NamedTuple):
    plaintext: bytes
    order: Order


class Sent(NamedTuple):
    task: str
    amount: int
    output: bytes


class Site(Protocol):
    """What a UE has: a radio, servers, a processor."""

    def fade(self, share: float) -> None:
        """The radio has this share of its rate from now on."""
        ...

    def share(self) -> float:
        """What it has now."""
        ...

    async def load(self) -> float:
        """How busy the nearest live server says it is, 0..1."""
        ...

    async def send(self, puzzle: Puzzle) -> Sent:
        """Have it done by the platform. Raises EdgoraError."""
        ...

    async def compute(self, puzzle: Puzzle) -> bytes:
        """Do it here. Raises EdgoraError."""
        ...


def puzzle(kb: float, bits: int, seed: int) -> Puzzle:
    """A puzzle over so much data that repeats for a seed."""
    header = np.random.default_rng([seed, 7]).bytes(max(1, round(kb * _OCTETS_PER_KB)))
    order = order_for_kernel(KERNEL, header, {"bits": bits})
    return Puzzle(order.plaintext, order)


def system(mining: Mining) -> "Instance":
    """One miner with one stream. Raises Refused where the allocator's libraries are missing."""
    try:
        from edgora.allocator.privacy.instance import draw
    except ModuleNotFoundError as error:
        detail = f"fleet.mining needs the library {error.name}"
        raise Refused(detail, field="fleet.mining", fix='pip install "edgora[solve]"') from None
    return draw(0, {"beta": mining.beta})


def chosen(name: str, instance: "Instance") -> "Policy":
    """A policy by its name: trained weights that ship, else a solver, or `module:object`. Raises Refused, NotFound."""
    from edgora.allocator import registry
    from edgora.allocator.privacy.problem import LEARNERS, planned
    from edgora.allocator.privacy.trained import shipped

    ready = shipped(name, instance) if name in LEARNERS else None
    return ready or planned(registry.policy("privacy", name).propose(instance, 30.0))


class Prepared(NamedTuple):
    """What every miner of a run shares."""

    instance: "Instance"
    policy: "Policy"


def prepared(mining: Mining) -> Prepared:
    """The system and the policy of a fleet's miners. Raises EdgoraError."""
    instance = system(mining)
    return Prepared(instance, chosen(mining.policy, instance))


async def mine(
    mining: Mining, ready: Prepared, ue: int, seed: int, site: Site, enough: asyncio.Event
) -> list[MinedSlot]:  # fmt: skip
    """Play the slots; returns when every puzzle has ended. A failure is its slot's error."""
    instance, policy = ready
    c, rng = instance.constants, np.random.default_rng([seed, ue, 11])
    low = c.r_0 / c.r_1
    good, waiting = bool(rng.integers(0, 2)), 0.0
    begun, slots, running = time.monotonic(), list[MinedSlot](), list[asyncio.Task[None]]()
    for number in range(mining.slots):
        if number:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, begun + number * mining.slot_ms / 1000.0 - time.monotonic())):
                    await enough.wait()
        if enough.is_set():
            break
        site.fade(1.0 if good else low)
        new = c.D1_lo + c.grid * float(rng.integers(0, c.K))
        level = min(2, int(3.0 * await site.load()))
        seen = _state(new, waiting, good=site.share() > low**0.5, level=level)
        sent = bool((await asyncio.to_thread(policy.act, seen))[0, 0, 0])
        slot, left = _slot(instance, seen, sent=sent)
        slot.ue, slot.number, slot.at_ms = ue, number, int(1000.0 * (time.monotonic() - begun))
        slot.puzzle_kb = round(new + waiting - left, 6)
        slots.append(slot)
        if slot.puzzle_kb > 0.0:
            work = puzzle(slot.puzzle_kb, mining.bits, seed * 1_000_003 + ue * 1_009 + number)
            running.append(asyncio.create_task(_done(slot, site, work)))
        waiting = left
        good ^= bool(rng.random() >= c.sigma)
    try:
        await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        site.fade(1.0)
    return slots


async def _done(slot: MinedSlot, site: Site, work: Puzzle) -> None:
    begun = time.monotonic()
    try:
        if slot.sent:
            ended = await site.send(work)
            slot.task, slot.amount, output = ended.task, ended.amount, ended.output
        else:
            output = await site.compute(work)
        slot.met_ms = round(1000.0 * (time.monotonic() - begun), 2)
        slot.verified = await asyncio.to_thread(verify_output, KERNEL, work.plaintext, output)
    except EdgoraError as error:
        slot.error = error.detail


def _state(new: float, waiting: float, *, good: bool, level: int) -> "State":
    from edgora.allocator.privacy.model import State

    return State(
        D1=np.full((1, 1, 1), new), D0=np.full((1, 1, 1), waiting), g=np.full((1, 1), int(good)),
        level=np.full(1, level), backlog=np.zeros(1),
    )  # fmt: skip


def _slot(instance: "Instance", seen: "State", *, sent: bool) -> tuple[MinedSlot, float]:
    """The model's figures for a decision, and what waits afterwards."""
    outcome = instance.model.slot(seen, np.full((1, 1, 1), sent))
    slot = MinedSlot(
        ue=0, number=0, at_ms=0, new_kb=float(seen.D1[0, 0, 0]), waiting_kb=float(seen.D0[0, 0, 0]),
        good=bool(seen.g[0, 0]), level=int(seen.level[0]), sent=sent, privacy=float(outcome.P[0, 0]),
        cost=float(outcome.cost[0, 0]), reward=float(outcome.reward[0, 0]),
        energy_mj=1000.0 * float(outcome.E[0, 0, 0]), latency_ms=1000.0 * float(outcome.L[0, 0, 0]),
    )  # fmt: skip
    return slot, float(outcome.D0[0, 0, 0])


def beside(mining: Mining, slots: Sequence[MinedSlot]) -> list[Means]:
    """The run's policy, and `BESIDE` on the same data, channel and levels, each with its own queue."""
    if not slots:
        return []
    instance = system(mining)
    lines = [_means(mining.policy, slots)]
    for name in BESIDE:
        policy, played = chosen(name, instance), list[MinedSlot]()
        for ue in sorted({slot.ue for slot in slots}):
            waiting = 0.0
            for slot in (slot for slot in slots if slot.ue == ue):
                seen = _state(slot.new_kb, waiting, good=slot.good, level=slot.level)
                other, waiting = _slot(instance, seen, sent=bool(policy.act(seen)[0, 0, 0]))
                played.append(other)
        lines.append(_means(name, played))
    return lines


def _means(policy: str, slots: Sequence[MinedSlot]) -> Means:
    names = ("reward", "privacy", "cost", "energy_mj", "latency_ms", "sent")
    means: Mapping[str, float] = {name: float(np.mean([getattr(slot, name) for slot in slots])) for name in names}
    return Means(policy=policy, slots=len(slots), **means)
