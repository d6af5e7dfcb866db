"""The bus between a node and its allocators: instances out, proposals in (README.md 1, market.md 4).

A bus has named topics. What is published to a topic is kept, oldest first, up to a bounded number of entries; each
group of a topic sees every kept entry, and within a group each entry goes to one consumer.

Delivery is at least once: an entry that was taken but not acknowledged is given out again after a while, to whoever
asks next. So consumers are idempotent: a round's number says whether an answer is a repetition. Nothing agreed on
depends on the bus. Entries beyond the bound are dropped oldest first, acknowledged or not; a lost, late, repeated or
forged message costs a round its proposal and nothing else, since the ledger checks every proposal.

The messages of the allocation service are below: canonical MessagePack (`wire.codec`), one topic a node each way.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from edgora.wire.codec import B20, U16, U32, U48, U64
from edgora.wire.market import Allocation, Instance, Reason

__all__ = [
    "Answer", "Bus", "Delivery", "Proposed", "RoundRequest", "Share", "Shares", "Skipped", "answers_topic",
    "rounds_topic", "shares_topic",
]  # fmt: skip


class Delivery(NamedTuple):
    """An entry as a consumer gets it. id is the bus's own; acknowledge by it."""

    id: str
    data: bytes


class Bus(Protocol):
    """Raises wire.errors.Unavailable from every method while the bus cannot be reached, or after close."""

    async def publish(self, topic: str, data: bytes) -> None:
        """Append one entry; drops the oldest ones beyond the topic's bound. Never waits for consumers."""
        ...

    async def take(self, topic: str, group: str, consumer: str, *, limit: int, wait_ms: int) -> Sequence[Delivery]:
        """Up to limit entries for this consumer: stale ones of the group first, then new ones.

        Waits up to wait_ms for a first entry; empty if none came. A new group starts with the oldest kept entry.
        """
        ...

    async def ack(self, topic: str, group: str, ids: Sequence[str]) -> None:
        """The group is done with these entries; unknown and repeated ids do nothing."""
        ...

    async def close(self) -> None: ...


class RoundRequest(msgspec.Struct, frozen=True, array_like=True, tag=0, forbid_unknown_fields=True):
    """A node asks its allocators for proposals."""

    instance: Instance
    sent_ms: U48
    """The node's clock when it was published: an answer counts from here."""
    budget_ms: U32
    """solve_ms: how long until an answer comes too late."""


class Proposed(msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """A proposal for the node to sign and order."""

    node: U16
    allocation: Allocation


class Skipped(msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """A policy makes no proposal for a round, and why: so "greedy won" always has a visible reason."""

    node: U16
    policy: str
    round: U64
    reason: Reason
    """LATE_ARRIVAL, SUPERSEDED, BUSY, LATE, EMPTY, BELOW_FLOOR, NOT_ALLOWED, FAILED; numbers as `live` and `allocd` say."""


Answer = Proposed | Skipped
"""What stands on a node's answers topic."""


class Share(NamedTuple):
    """What one UE may use of a server."""

    ue: B20
    speed: U48
    """fuel/s that its tasks are paced to; 0 is no share."""


class Shares(msgspec.Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """A plan's computing shares of one server (market.md 4): the newest one holds until `until_ms`, then none does."""

    node: U16
    issued_ms: U48
    until_ms: U48
    shares: tuple[Share, ...]


def rounds_topic(node: int) -> str:
    """Where a node publishes its rounds; each policy is a group."""
    return f"node.{node}.rounds"


def answers_topic(node: int) -> str:
    """Where the policies of a node answer."""
    return f"node.{node}.answers"


def shares_topic(node: int) -> str:
    """Where whoever plans for the UEs tells a node their computing shares."""
    return f"node.{node}.shares"
