"""What goes into the ledger core and what comes out (ledger.md 1).

`Replica.step(now_ms, input) -> Effects`. The driver owes, in this order: write `snapshot` and append `persist` to the
log; where `sync` is set make everything up to this step durable; only then send, publish and answer. It may group the
syncs of many steps, go on stepping meanwhile, and must keep the order: the sends of step k leave when the records of
all steps <= k are durable. A failed or short write or sync means crash now; never try it again.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from edgora.wire.ledger import Block, Certificate, Header, Receipt, SignedTx
from edgora.wire.pbft import CheckpointCertificate, Evidence, Message, WalRecord

__all__ = [
    "ALL", "Answer", "Boot", "ClientTx", "DurableState", "Effects", "Executed", "Fault", "Input", "Recv", "Send",
    "SetTimer", "SnapshotImage", "TimerFired", "Verified", "Verify", "ViewEntered", "ViewLeft",
]  # fmt: skip

ALL = -1
"""Destination: every other validator."""


# ---- inputs ----------------------------------------------------------------------------------------------------------


class Recv(NamedTuple):
    """A message from the authenticated peer with this validator index."""

    peer: int
    message: Message


class TimerFired(NamedTuple):
    """A timer that SetTimer armed has reached its deadline. One that fires early or twice does no harm."""

    name: str


class ClientTx(NamedTuple):
    """A transaction that our own API process admitted: its signature was checked there."""

    tx: SignedTx
    hash: bytes


class Verified(NamedTuple):
    """The signature work of `token` is done; ok[i] says whether signature i is by whom it should be."""

    token: int
    ok: tuple[bool, ...]


class Boot(NamedTuple):
    """First input of a replica's life, exactly once: what its disk holds (nothing for a fresh one)."""

    state: "DurableState"


Input = Recv | TimerFired | ClientTx | Verified | Boot


# ---- effects ---------------------------------------------------------------------------------------------------------


class Send(NamedTuple):
    dest: int
    """A validator index, or ALL."""
    message: Message


class SetTimer(NamedTuple):
    """Replaces the deadline of the timer of this name."""

    name: str
    deadline_ms: int | None
    """On the clock that `now_ms` comes from; None cancels."""


class Verify(NamedTuple):
    """Signature work for the pool: answer with Verified(token, ...)."""

    token: int
    items: tuple[tuple[bytes, bytes, bytes], ...]
    """(signer address, digest, signature)."""


class Executed(NamedTuple):
    """A block that is committed and executed, in height order, each at most once per process life.

    After a boot the blocks above the snapshot come again; after a state transfer the heights that it skipped never
    come. A database that keeps its applied height beside its effects drops what it has.
    """

    block: Block
    certificate: Certificate | None
    """A commit certificate for this very block where we hold one; ancestors of a certified block may have none."""
    receipts: tuple[Receipt, ...]
    events: tuple[msgspec.Struct, ...]
    state_root: bytes


class Answer(NamedTuple):
    """What became of a ClientTx: admitted to the pool or not, or dropped from it (EXPIRED, DUPLICATE).

    reason is the name of a `ledger.pool.Admission`.
    """

    hash: bytes
    admitted: bool
    reason: str


class SnapshotImage(NamedTuple):
    """A checkpointed state: must be durable before the CHECKPOINT that the same step sends."""

    header: Header
    """Of the block whose execution gave this state."""
    state_root: bytes
    state: Mapping[bytes, bytes]
    installed: bool = False
    """True where the state came from peers: the application was restored, the heights in between were not executed."""

    @property
    def height(self) -> int:
        return self.header.height

    @property
    def block_hash(self) -> bytes:
        return self.header.hash


class DurableState(NamedTuple):
    """The latest durable snapshot, every log record that is still there in order, and this boot's nonce."""

    snapshot: SnapshotImage | None
    records: tuple[WalRecord, ...]
    boot_nonce: int


class Fault(NamedTuple):
    """A peer sent what no correct one sends; the link should lose credit (ledger.md 16)."""

    peer: int
    reason: str


class ViewLeft(NamedTuple):
    """We stopped voting in `view` and asked for `wanted`."""

    view: int
    wanted: int
    primary: int
    """Of the wanted view."""
    why: str


class ViewEntered(NamedTuple):
    """A view is active; also said at a boot that finds it in the log."""

    view: int
    primary: int
    asked: tuple[int, ...]
    """Validators whose VIEW_CHANGEs stand in its NEW_VIEW."""


class Effects(msgspec.Struct):
    """What one step asks for. Empty fields ask for nothing."""

    persist: list[WalRecord] = []
    snapshot: SnapshotImage | None = None
    sync: bool = False
    compacted: bool = False
    """This step's records together with the newest snapshot replace all earlier records: once this step is durable,
    older segments (and older snapshots) may be deleted."""
    send: list[Send] = []
    executed: list[Executed] = []
    answers: list[Answer] = []
    timers: list[SetTimer] = []
    verify: list[Verify] = []
    faults: list[Fault] = []
    evidence: list[Evidence] = []
    """New evidence of this step: persisted and gossiped already, named for whoever watches."""
    views: list[ViewLeft | ViewEntered] = []
    """How we moved between views, in order, for whoever watches."""
    stable: CheckpointCertificate | None = None
    """A checkpoint that became our stable one, for whoever watches."""
    alarm: str | None = None
    """Set when the replica must stop voting for good (divergence of results); the driver dumps state and says so."""
