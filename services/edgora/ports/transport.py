"""Links between validators as a port (ledger.md 16, 17).

A transport carries opaque octets between authenticated validator identities, in the three ordered lanes of
`wire.pbft.Lane`, so that bulk never delays votes. It may lose what it was given at any time: the core resends what
matters. What it hands up is in order within one lane of one connection, whole, at most `wire.pbft.MAX_FRAME` octets,
and from the peer that it names.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from edgora.wire.pbft import MAX_FRAME, Lane

__all__ = ["MAX_ANSWER", "LinkView", "Receiver", "Transport"]

MAX_ANSWER = MAX_FRAME - 16
"""Octets of a request or an answer: a frame less its own heading."""


class LinkView(NamedTuple):
    """One peer's links as status shows them."""

    peer: int
    connected: bool
    """Whether all lanes are up."""
    heard_ms_ago: int | None
    """Since the last frame from it; None if there never was one."""
    refused: str
    """Why the latest attempt was refused by either side; empty if it was not."""
    dropped_frames: int
    """Frames to this peer that the egress queue dropped, over the transport's life."""


class Receiver(Protocol):
    """Who hears from the links."""

    async def received(self, peer: int, lane: Lane, data: bytes) -> None:
        """A frame. While this waits, no more is read from that connection: back-pressure reaches the sender."""
        ...

    async def asked(self, peer: int, request: bytes) -> bytes:
        """Answer another node's request, at most MAX_ANSWER octets; an EdgoraError is told to the caller."""
        ...


class Transport(Protocol):
    @property
    def peers(self) -> Sequence[int]:
        """Every other validator."""
        ...

    async def start(self, receiver: Receiver, boot_nonce: int) -> None:
        """Listen and dial. boot_nonce names this instance: peers refuse a second one of the same identity."""
        ...

    def send(self, peer: int, lane: Lane, data: bytes) -> None:
        """Queue a frame; never blocks. Over 16 MiB queued, gossip is dropped first, then sync, votes last of all."""
        ...

    async def call(self, peer: int, request: bytes, timeout_ms: int) -> bytes:
        """Request and answer in the sync lane. Raises Unavailable: not connected, too slow, or refused."""
        ...

    def cut(self, peer: int, reason: str) -> None:
        """Close the links to a peer that broke the protocol; they come back after a back-off."""
        ...

    def links(self) -> Sequence[LinkView]:
        """Every other validator, by index."""
        ...

    async def stop(self) -> None: ...
