"""Proof that a validator did what no correct one does (ledger.md 14). Kept, gossiped, never acted on by the core.

A double vote after a restart is an offence too: there is no excuse, hence the log.
"""

from edgora.ledger.quorum import Cast, Slot
from edgora.ledger.state import Core
from edgora.wire.eip712 import Typed
from edgora.wire.ledger import Phase, Vote
from edgora.wire.pbft import (
    CheckpointVote,
    Evidence,
    Offence,
    SignedCheckpoint,
    SignedItem,
    SignedViewChange,
    SignedVote,
    ViewChange,
    WalEvidence,
)  # fmt: skip

__all__ = ["double_checkpoint", "double_vote", "forgotten_tip", "proven", "receive"]

_KEPT = 64
"""Items; one accused and offence is kept once, so this is never reached by fewer than 22 offenders."""


def _signed_struct(item: SignedItem) -> Typed:
    return item.vote if isinstance(item, SignedVote) else item.body


def _conflicting(offence: int, first: SignedItem, second: SignedItem) -> bool:
    """Whether no correct replica signs both of these."""
    if offence == Offence.DOUBLE_VOTE and isinstance(first, SignedVote) and isinstance(second, SignedVote):
        a, b = first.vote, second.vote
        same_slot = (a.phase, a.epoch, a.view, a.height) == (b.phase, b.epoch, b.view, b.height)
        return same_slot and a.block_hash != b.block_hash
    if offence == Offence.FORGOTTEN_TIP and isinstance(first, SignedVote) and isinstance(second, SignedViewChange):
        vote, body = first.vote, second.body
        voted = (vote.view, vote.height)
        below = (body.tip_view, body.tip_height) < voted and (body.commit_view, body.commit_height) < voted
        return vote.phase == Phase.COMMIT and vote.epoch == body.epoch and body.new_view > vote.view and below
    if (
        offence == Offence.DOUBLE_CHECKPOINT
        and isinstance(first, SignedCheckpoint)
        and isinstance(second, SignedCheckpoint)
    ):
        c, d = first.body, second.body
        return (c.epoch, c.height) == (d.epoch, d.height) and c != d
    return False


def proven(core: Core, item: Evidence) -> bool:
    """Whether the item convicts the one it accuses."""
    if item.epoch != core.config.epoch or item.accused >= core.n:
        return False
    if not _conflicting(item.offence, item.first, item.second):
        return False
    return all(core.signed_by(item.accused, _signed_struct(i), i.signature) for i in (item.first, item.second))


def _keep(core: Core, item: Evidence) -> bool:
    known = any(e.accused == item.accused and e.offence == item.offence for e in core.evidence)
    if known or len(core.evidence) >= _KEPT or not proven(core, item):
        return False
    core.evidence.append(item)
    core.out.evidence.append(item)
    core.persist(WalEvidence(core.config.epoch, item))
    return True


def _found(core: Core, offence: Offence, accused: int, first: SignedItem, second: SignedItem) -> None:
    item = Evidence(core.config.epoch, offence, accused, first, second)
    if _keep(core, item):
        core.send(-1, item)


def receive(core: Core, peer: int, item: Evidence) -> None:
    """Somebody else's find: kept if it proves itself, not sent on (its finder tells all)."""
    known = any(e.accused == item.accused and e.offence == item.offence for e in core.evidence)
    if not known and not _keep(core, item):
        core.fault(peer, "evidence that proves nothing")


def double_vote(core: Core, signer: int, slot: Slot, earlier: Cast, block_hash: bytes, signature: bytes) -> None:
    """Two different votes of one signer for one slot; nothing is kept unless both signatures are its own."""
    phase, view, height = slot
    first = Vote(phase, core.config.epoch, view, height, earlier.block_hash)
    second = Vote(phase, core.config.epoch, view, height, block_hash)
    _found(core, Offence.DOUBLE_VOTE, signer, SignedVote(first, earlier.signature), SignedVote(second, signature))


def forgotten_tip(core: Core, slot: Slot, cast: Cast, change: ViewChange) -> None:
    """A COMMIT of this signer against a later VIEW_CHANGE that names nothing as high."""
    phase, view, height = slot
    vote = SignedVote(Vote(phase, core.config.epoch, view, height, cast.block_hash), cast.signature)
    _found(core, Offence.FORGOTTEN_TIP, change.signer, vote, SignedViewChange(change.body, change.signature))


def double_checkpoint(core: Core, signer: int, first: CheckpointVote, second: CheckpointVote) -> None:
    _found(
        core, Offence.DOUBLE_CHECKPOINT, signer,
        SignedCheckpoint(first.body, first.signature), SignedCheckpoint(second.body, second.signature),
    )  # fmt: skip
