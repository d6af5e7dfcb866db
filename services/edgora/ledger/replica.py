"""One PBFT replica (ledger.md 1): feed it inputs and time, perform what it returns, in order.

A step records what came (the handlers), then acts on what is recorded until nothing moves (`_advance`), then derives
every timer anew. The order inside is fixed: votes to certificates, certificates to commits, view changes, accepting,
proposing, at last asking for what is missing. So the same inputs give the same effects, however they interleave with
work that was already possible.
"""

from edgora.crypto.sign import recover as recover_signer
from edgora.ledger import (
    boot,
    chain,
    checkpoints,
    evidence,
    gossip,
    normal,
    proposing,
    sync,
    timers,
    transfer,
    views,
    waiting,
)  # fmt: skip
from edgora.ledger.config import LedgerConfig, Recover, Signer
from edgora.ledger.effects import Boot, ClientTx, Effects, Input, Recv, TimerFired, Verified
from edgora.ledger.state import Core, Proposal
from edgora.ledger.status import ReplicaStatus
from edgora.wire.application import Application
from edgora.wire.pbft import (
    CheckpointVote,
    Commit,
    Evidence,
    GetBlocks,
    GetBody,
    GetChunk,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    PutBlocks,
    PutBody,
    PutCertificate,
    PutChunk,
    SnapshotOffer,
    Status,
    TxGossip,
    ViewChange,
)  # fmt: skip

__all__ = ["Replica"]


class Replica:
    """One PBFT replica. Deterministic: equal constructor arguments and inputs give equal effects."""

    def __init__(
        self, config: LedgerConfig, signer: Signer, application: Application, recover: Recover = recover_signer
    ) -> None:
        """Nothing happens before the first input, which must be Boot."""
        if config.voting and signer.address != config.validators[config.index]:
            raise ValueError(f"the key of {signer.address.hex()} is not that of validator {config.index}")
        self._core = Core(config, signer, application, recover)

    def step(self, now_ms: int, event: Input) -> Effects:
        """Take one input at this time (Unix ms).

        After a pause of more than T timers are armed anew instead of fired. A clock that is set back delays no timer:
        deadlines are given again on the new time.
        """
        core = self._core
        core.out = out = Effects()
        elapsed = core.turn(now_ms)
        if elapsed > max(core.params.timeout_ms, 2 * core.params.status_interval_ms):
            timers.clock_leapt(core, elapsed)
        match event:
            case Boot(state):
                if core.booted:
                    raise ValueError("a replica boots once")
                boot.boot(core, state)
            case _ if not core.booted:
                raise ValueError("the first input of a replica is Boot")
            case Recv(peer, message):
                self._receive(peer, message)
            case TimerFired(name):
                timers.on_timer(core, name)
            case ClientTx():
                gossip.on_client_tx(core, event)
            case Verified(token, ok):
                self._verified(token, ok)
        self._advance()
        timers.update(core)
        return out

    def status(self, now_ms: int) -> ReplicaStatus:
        """Where we stand and why we wait."""
        return waiting.status(self._core, now_ms)

    # ---- inputs -----------------------------------------------------------------------------------------------------

    def _receive(self, peer: int, message: Message) -> None:
        core = self._core
        if peer not in core.peers or message.epoch != core.config.epoch:
            return
        match message:
            case Prepare() | Commit():
                normal.on_vote(core, peer, message)
            case PrePrepare():
                normal.on_pre_prepare(core, peer, message)
            case TxGossip():
                gossip.on_gossip(core, peer, message)
            case Status():
                if message.active and message.view == core.view.view and core.config.primary(message.view) == peer:
                    timers.on_heartbeat(core)
                sync.on_status(core, peer, message)
            case ViewChange():
                views.on_view_change(core, peer, message)
            case NewView():
                views.on_new_view(core, peer, message)
            case CheckpointVote():
                checkpoints.on_checkpoint(core, peer, message)
            case Evidence():
                evidence.receive(core, peer, message)
            case GetBlocks():
                sync.on_get_blocks(core, peer, message)
            case PutBlocks():
                sync.on_put_blocks(core, peer, message)
            case GetBody():
                sync.on_get_body(core, peer, message)
            case PutBody():
                sync.on_put_body(core, peer, message)
            case PutCertificate():
                sync.on_put_certificate(core, peer, message)
            case SnapshotOffer():
                transfer.on_snapshot_offer(core, peer, message)
            case GetChunk():
                transfer.on_get_chunk(core, peer, message)
            case PutChunk():
                transfer.on_put_chunk(core, peer, message)

    def _verified(self, token: int, ok: tuple[bool, ...]) -> None:
        work = self._core.verifying.pop(token, None)
        if isinstance(work, Proposal):
            normal.on_verified(self._core, work, ok)
        elif work is not None:
            gossip.on_gossip_verified(self._core, *work, ok)

    # ---- the turn ---------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Act until nothing moves; every round but the last makes a certificate, a block or a view progress."""
        core = self._core
        moved = True
        while moved:
            moved = normal.advance_votes(core)
            moved = chain.advance_commits(core) or moved
            moved = views.advance_views(core) or moved
            moved = normal.advance_accept(core) or moved
            moved = proposing.advance_propose(core) or moved
        sync.advance_sync(core)
        gossip.flush(core)
