"""All that a replica remembers between two steps, in one place (ledger.md 5), and the turn in which a step acts on it.

Durable parts are rebuilt from the log by `boot`; everything else may be lost. No part knows another: the modules
`chain`, `normal`, `proposing`, `views`, `checkpoints`, `sync`, `transfer`, `gossip` and `timers` are functions over a
`Core`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edgora.ledger.config import LedgerConfig, Params, Recover, Signer
from edgora.ledger.effects import Effects, Fault, Send, SetTimer
from edgora.ledger.executor import Executor
from edgora.ledger.pool import Pool, Selection
from edgora.ledger.quorum import CertificateCheck, VoteBook
from edgora.ledger.tree import FrozenState
from edgora.wire.application import Application
from edgora.wire.eip712 import Typed
from edgora.wire.ledger import Block, Certificate, Header, SignedTx
from edgora.wire.pbft import (
    MAX_ANSWER,
    CheckpointCertificate,
    CheckpointVote,
    Commit,
    Evidence,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    SnapshotOffer,
    Status,
    ViewChange,
    WalAccepted,
    WalLinks,
    WalRecord,
    WalTip,
)  # fmt: skip

__all__ = [
    "Accepted", "Base", "ChainState", "CheckpointState", "Core", "Fetch", "Known", "PeerState", "Proposal",
    "SnapshotFetch", "SyncState", "TimerState", "ViewState",
]  # fmt: skip


class Known:
    """A block whose body is here."""

    __slots__ = ("accepted_view", "block", "hash", "hashes", "header", "logged", "octets", "unique")

    def __init__(self, block: Block, block_hash: bytes, hashes: tuple[bytes, ...], octets: int) -> None:
        self.block = block
        self.header = block.header
        self.hash = block_hash
        self.hashes = hashes
        """Of its transactions, in order."""
        self.unique = frozenset(hashes)
        self.octets = octets
        self.logged = False
        """Whether its body is in the log."""
        self.accepted_view = -1
        """Latest view in which we accepted it; such a body is kept until its height is committed."""


@dataclass(slots=True)
class ChainState:
    """Blocks, the committed chain, and the highest certificates."""

    head: Header
    """Committed and executed."""
    head_hash: bytes
    known: dict[bytes, Known] = field(default_factory=dict)
    at_height: dict[int, list[bytes]] = field(default_factory=dict)
    """Hashes of the known blocks above the head, by height."""
    headers: dict[bytes, Header] = field(default_factory=dict)
    """Headers that we learnt without their bodies (from view changes and state transfer)."""
    committed: dict[int, bytes] = field(default_factory=dict)
    """Height to hash of the committed blocks that are still in memory."""
    certificates: dict[int, Certificate] = field(default_factory=dict)
    """Commit certificates of those heights, where we hold one for that very block."""
    heard: dict[bytes, Certificate] = field(default_factory=dict)
    """Commit certificates of blocks above the head, by block hash."""
    best: Certificate | None = None
    """Highest commit certificate; its block may still be missing."""
    proof: Certificate | None = None
    """The certificate that committed the head: of the head itself, or of a block that links down to it."""
    tip: Certificate | None = None
    """Highest certificate by (view, height), PREPARE or COMMIT; never decreases."""
    results_height: int = 0
    """Highest executed height with results that a header must certify."""
    results_since: int = 0
    wake_at: int | None = None
    """When the application next changes by time alone, in header time."""
    committed_ms: int = 0
    """When the head was committed here."""
    retained_octets: int = 0
    """Octets of the committed blocks in memory."""

    def keep(self, known: Known) -> None:
        """Add a body that is not known yet."""
        self.known[known.hash] = known
        self.at_height.setdefault(known.header.height, []).append(known.hash)
        self.headers.pop(known.hash, None)

    def header(self, block_hash: bytes) -> Header | None:
        """A header by its hash: of the head, of a known block, or one that came without its body."""
        if block_hash == self.head_hash:
            return self.head
        known = self.known.get(block_hash)
        return known.header if known is not None else self.headers.get(block_hash)

    @property
    def best_height(self) -> int:
        return 0 if self.best is None else self.best.vote.height


class Base(NamedTuple):
    """What a view builds on: the greatest candidate of its NEW_VIEW (ledger.md 10)."""

    view: int
    height: int
    hash: bytes
    is_tip: bool
    """True: re-propose this very block first. False: it is committed, go on above it."""


class Proposal:
    """A PRE_PREPARE that waits to be accepted."""

    __slots__ = ("block_hash", "incomplete", "known", "message", "received_ms", "sound", "token")

    def __init__(self, message: PrePrepare, block_hash: bytes, received_ms: int) -> None:
        self.message = message
        self.block_hash = block_hash
        self.received_ms = received_ms
        self.known: Known | None = None
        """Body and transaction hashes, once checked against the header."""
        self.incomplete = False
        """Compact, and the pool lacks a transaction: the body must be fetched."""
        self.token: int | None = None
        """Signature work under way."""
        self.sound = False
        """All transaction signatures are good."""


class Accepted(NamedTuple):
    """What we accepted at a height of the present view, and what we signed for it."""

    block_hash: bytes
    record: WalAccepted
    message: Prepare | PrePrepare
    at_ms: int


@dataclass(slots=True)
class ViewState:
    view: int = 0
    active: bool = True
    base: Base | None = None
    """None in view 0, which starts at the genesis."""
    pending_base: Base | None = None
    """A base that must be the first block accepted in this view, and is not yet."""
    last_height: int = 0
    """Last block accepted in this view, or what its first one must build on."""
    last_hash: bytes = b""
    accepted: dict[int, Accepted] = field(default_factory=dict)
    commits: dict[int, tuple[WalTip, Commit, int]] = field(default_factory=dict)
    """Our COMMITs of this view by height, with the time of their first sending."""
    in_flight: set[bytes] = field(default_factory=set)
    """Transactions of the uncommitted blocks below and including the last one; membership only, never iterated."""
    proposals: dict[tuple[int, int], Proposal] = field(default_factory=dict)
    new_view: NewView | None = None
    """What we entered this view with."""
    entered_ms: int = 0
    own_change: ViewChange | None = None
    """What we left the previous view with, while this view is not active."""
    changes: dict[int, ViewChange] = field(default_factory=dict)
    """The highest view change of each signer, checked."""
    left_because: str = ""
    failures: int = 0
    """Views in a row that ended without a commit: T is doubled that often."""
    committed_here: bool = False
    heartbeats: int = 0
    """Of the active view's primary while nothing was due."""
    selection: Selection | None = None
    """The primary's next batch."""
    batch_since: int | None = None
    proposed_ms: int = 0


@dataclass(slots=True)
class CheckpointState:
    stable: CheckpointCertificate | None = None
    votes: dict[int, dict[int, CheckpointVote]] = field(default_factory=dict)
    """Height to signer to vote."""
    own: CheckpointVote | None = None
    states: dict[int, tuple[Header, FrozenState]] = field(default_factory=dict)
    """Checkpointed states in memory: from the stable one up."""

    @property
    def stable_height(self) -> int:
        return 0 if self.stable is None else self.stable.body.height


@dataclass(slots=True)
class PeerState:
    status: Status | None = None
    heard_ms: int = 0
    repaired_ms: int = 0
    """When we last sent this peer what its status showed missing."""
    new_view_ms: int = 0


class Fetch(NamedTuple):
    """One question under way, to one peer."""

    peer: int
    what: bytes | int
    """Block hash, or first height."""
    deadline_ms: int


@dataclass(slots=True)
class SnapshotFetch:
    offer: SnapshotOffer
    buckets: dict[int, tuple[tuple[bytes, bytes], ...]] = field(default_factory=dict)


@dataclass(slots=True)
class SyncState:
    claimed: int = 0
    """Height that f + 1 peers claim in their STATUS."""
    behind_since: int | None = None
    wanted_since: int | None = None
    blocks: Fetch | None = None
    body: Fetch | None = None
    turn: int = 0
    """Advances with every question, so that peers take turns."""
    snapshot: SnapshotFetch | None = None


@dataclass(slots=True)
class TimerState:
    armed: dict[str, int] = field(default_factory=dict)
    progress_since: int | None = None
    """Since when a duty has been outstanding without a commit."""
    heartbeat_ms: int = 0
    """When the primary was last heard (backup) or last spoke (primary)."""
    new_view_since: int | None = None
    """When q view changes for the view that we wait for had come."""
    rearmed_ms: int = 0
    """No waiting before this moment counts: we were paused, or the clock was set."""
    overdue: dict[str, str] = field(default_factory=dict)
    """Patience that is at its end, by timer, with the reason to leave the view: we suspect its primary."""
    told: bool = False
    """Whether our last word to all was that we suspect."""
    suspicion: tuple[int, str] = (0, "")
    """Until when our word that we suspected this view's primary binds us, and why we did."""
    resent_ms: int = 0
    status_ms: int = 0


class Core:
    """State, collaborators and the effects of the step under way."""

    def __init__(self, config: LedgerConfig, signer: Signer, application: Application, recover: Recover) -> None:
        self.config = config
        self.params: Params = config.params
        self.me = config.index
        self.n, self.f, self.q = config.n, config.f, config.q
        self.application = application
        self.recover = recover
        self.epochs = {config.epoch: config.validators}
        self.check = CertificateCheck(config.domain, self.epochs, recover)
        self.votes = VoteBook(config.epoch, config.validators, config.domain, recover, self.check)
        self.executor = Executor(application, config.validators, config.params)
        self.pool = Pool(config.params, self.executor)
        self.chain = ChainState(config.genesis, config.genesis.hash)
        self.view = ViewState(last_hash=self.chain.head_hash)
        self.checkpoints = CheckpointState()
        self.peers = {i: PeerState() for i in range(config.n) if i != config.index}
        self.sync = SyncState()
        self.timers = TimerState()
        self.evidence: list[Evidence] = []
        self.halted: str | None = None
        self.boot_nonce = 0
        self.booted = False
        self.tokens = 0
        self.verifying: dict[int, Proposal | tuple[int, tuple[tuple[SignedTx, bytes], ...]]] = {}
        """Signature work under way: a proposal, or a peer's gossiped transactions with their hashes."""
        self.gossip: list[bytes] = []
        """Own transactions that the next TX_GOSSIP carries, by hash."""
        self.gossiped_ms = 0
        self.wall = 0
        """The driver's clock: what block times and wake-ups are compared with."""
        self.shift = 0
        """How far that clock has been set back in this life. Deadlines live on `now`, which therefore never falls."""
        self.now = 0
        self.out = Effects()
        self._signer = signer

    # ---- effects ----------------------------------------------------------------------------------------------------

    @property
    def may_sign(self) -> bool:
        """Whether this replica takes part: it is no observer and has not diverged."""
        return self.config.voting and self.halted is None

    def sign(self, struct: Typed) -> bytes:
        assert self.may_sign
        return self._signer.sign(struct.digest(self.config.domain))

    def signed_by(self, index: int, struct: Typed, signature: bytes) -> bool:
        """Whether validator `index` signed this structure."""
        return self.recover(struct.digest(self.config.domain), signature) == self.config.validators[index]

    def persist(self, record: WalRecord, *, sync: bool = False) -> None:
        self.out.persist.append(record)
        if sync:
            self.out.sync = True

    def persist_links(self, headers: Sequence[Header]) -> None:
        """Append headers without bodies to the log."""
        for first in range(0, len(headers), MAX_ANSWER):
            self.persist(WalLinks(self.config.epoch, tuple(headers[first : first + MAX_ANSWER])))

    def send(self, dest: int, message: Message) -> None:
        self.out.send.append(Send(dest, message))

    def fault(self, peer: int, reason: str) -> None:
        self.out.faults.append(Fault(peer, reason))

    def set_timer(self, name: str, deadline: int | None) -> None:
        """Arm, move or (None) cancel a timer; tells the driver only what changed."""
        armed = self.timers.armed
        if armed.get(name) == deadline:
            return
        if deadline is None:
            del armed[name]
        else:
            armed[name] = deadline
        self._tell_timer(name)

    def _tell_timer(self, name: str) -> None:
        deadline = self.timers.armed.get(name)
        self.out.timers.append(SetTimer(name, None if deadline is None else deadline - self.shift))

    def turn(self, wall_ms: int) -> int:
        """Begin a step at this time of the driver's clock. Returns how long the last one is ago."""
        if wall_ms < self.wall:
            self.shift += self.wall - wall_ms
            for name in sorted(self.timers.armed):
                self._tell_timer(name)
        elapsed = wall_ms + self.shift - self.now if self.booted else 0
        self.wall, self.now = wall_ms, wall_ms + self.shift
        return elapsed

    def halt(self, why: str) -> None:
        """Stop voting for good (ledger.md 3): our results are not those that a quorum certified."""
        if self.halted is None:
            self.halted = why
            self.out.alarm = why

    def new_token(self) -> int:
        self.tokens += 1
        return self.tokens

    # ---- what several modules ask -----------------------------------------------------------------------------------

    @property
    def timeout_ms(self) -> int:
        """T with its present back-off."""
        return min(self.params.timeout_ms << min(self.view.failures, 16), self.params.timeout_cap_ms)

    @property
    def fetch_deadline_ms(self) -> int:
        """When a question that is asked now has been in vain."""
        return self.now + max(self.params.fetch_timeout_ms, 100)

    @property
    def is_primary(self) -> bool:
        return (self.view.view + self.config.epoch) % self.n == self.me
