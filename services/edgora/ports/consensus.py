"""The consensus half of a node as its API half sees it (ledger.md 1).

The two halves are two processes with a local Unix socket between them, or two objects in one embedded process. The
consensus half orders, executes and stores; the API half reads what was stored (ports.store) and follows.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import msgspec

from edgora.wire.ledger import SignedTx

__all__ = [
    "Admission", "CheckpointView", "Consensus", "ConsensusStatus", "EvidenceView", "PeerHandler", "ViewStep", "VoterView",
]  # fmt: skip


class Admission(msgspec.Struct, frozen=True):
    """ADMITTED: in this node's pool, no promise (ledger.md 8); or not, and why."""

    admitted: bool
    reason: str = ""
    """Code: "", DUPLICATE, CONFLICT, POOL_FULL, SENDER_FULL, LANE_GAP, EXPIRED, TOO_FAR, TOO_LARGE, BAD_KIND,
    UNKNOWN_SENDER, TOO_MANY_LANES, ALARM."""


class VoterView(msgspec.Struct, frozen=True):
    """One validator as this replica sees it."""

    index: int
    address: bytes
    connected: bool
    last_heard_ms: int | None
    """Milliseconds ago; null if never."""
    committed_height: int
    view: int
    voted: bool
    """Whether we hold its vote for the next height, in the phase that is missing."""


class ViewStep(msgspec.Struct, frozen=True):
    """This replica left a view, or entered one."""

    at_ms: int
    entered: bool
    view: int
    """Entered, or asked for."""
    primary: int
    """Of that view."""
    left: int | None
    """The view that it left; None for an entry."""
    why: str
    """Why it left; empty for an entry."""
    asked: tuple[int, ...]
    """Of an entry: whose VIEW_CHANGEs founded the view."""


class CheckpointView(msgspec.Struct, frozen=True):
    """A checkpoint that q validators signed and that became this replica's stable one."""

    at_ms: int
    height: int
    block_hash: bytes
    state_root: bytes
    signers: tuple[int, ...]


class EvidenceView(msgspec.Struct, frozen=True):
    """Evidence that this replica holds (ledger.md 14)."""

    offence: int
    """wire.pbft.Offence"""
    accused: int
    proof: bytes
    """Canonical wire.pbft.Evidence: two signed items, checkable with the epoch's keys."""


class ConsensusStatus(msgspec.Struct, frozen=True):
    """Why consensus waits, as values: REST and CLI put it in words."""

    epoch: int
    view: int
    view_active: bool
    primary: int
    own_index: int
    validators: int
    quorum: int
    committed_height: int
    committed_hash: bytes
    executed_height: int
    header_time_ms: int
    stable_checkpoint: int
    pool_txs: int
    waiting: str
    """Code: IDLE, ORDERING, PREPARING, COMMITTING, VIEW_CHANGE, SYNCING, OBSERVING, NO_QUORUM, ALARM."""
    waiting_since_ms: int
    """How long, in milliseconds."""
    next_height: int
    votes: int
    """Votes held for next_height in the phase that is missing; in a view change, validators who have asked for it."""
    timeout_ms: int
    """The progress timer now, after back-off."""
    view_changes: int
    alarm: str | None
    voters: tuple[VoterView, ...]
    steps: tuple[ViewStep, ...] = ()
    """The last ones since this process started, oldest first."""
    checkpoints: tuple[CheckpointView, ...] = ()
    """The last ones since this process started, oldest first."""
    evidence: tuple[EvidenceView, ...] = ()


PeerHandler = Callable[[int, bytes], Awaitable[bytes]]
"""(server id of the caller, request) -> answer; runs in the API half."""


class Consensus(Protocol):
    async def submit(self, tx: SignedTx, tx_hash: bytes) -> Admission:
        """Hand over a transaction whose signature the caller has checked."""
        ...

    async def status(self) -> ConsensusStatus: ...

    def heights(self) -> AsyncIterator[int]:
        """Executed and stored heights as they appear, newest only if the reader is slow; starts with the current one."""
        ...

    async def call(self, server: int, request: bytes, timeout_ms: int) -> bytes:
        """Ask another node's API half over the authenticated sync-class link; answers up to 4 MiB.

        Raises wire.errors.Unavailable if it is unreachable, slow or refuses.
        """
        ...

    def serve(self, handler: PeerHandler) -> None:
        """Who answers calls from other nodes."""
        ...

    async def close(self) -> None: ...
