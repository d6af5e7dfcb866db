"""The normal case: proposals, PREPARE, COMMIT (ledger.md 3, 6, 7).

Rule 1: in view v a replica accepts one block a height, in sequence, from the base of v on. Its PREPARE for a block
        therefore means: I have accepted it and all its ancestors.
Rule 2: accepted and body are durable before PRE_PREPARE or PREPARE leaves, the prepare certificate before COMMIT.
Rule 3: a first proposal is checked for form, time, results and signatures. The base of a view is not: a quorum has
        prepared it, and it must be taken unchanged.
Rule 4: only proven faults of the primary end a view at once; what may be our own lag or clock waits for the timer.

Handlers only record what came. `advance_*` then act on what is recorded, in one order, until nothing moves; so no
answer can set off an unbounded re-evaluation.
"""

from edgora.ledger import chain, evidence, views
from edgora.ledger.effects import ALL, Verify
from edgora.ledger.pool import malformed
from edgora.ledger.quorum import Slot
from edgora.ledger.state import Accepted, Core, Known, Proposal
from edgora.wire.codec import encode
from edgora.wire.ledger import Block, Certificate, Header, Phase, Vote
from edgora.wire.pbft import Commit, Prepare, PrePrepare, WalAccepted, WalTip

__all__ = [
    "advance_accept", "advance_votes", "catch_up", "on_pre_prepare", "on_verified", "on_vote",
    "too_far_ahead",
]  # fmt: skip

_BLOCK_OVERHEAD = 1_024
"""Octets of a block besides its transactions: the header and array headers."""

_CHECKPOINT_LAG = 8
"""Checkpoint intervals that a replica may run ahead of its stable checkpoint (ledger.md 9)."""


# ---- what comes in ---------------------------------------------------------------------------------------------------


def _in_range(core: Core, view: int, height: int) -> bool:
    """Views current - 1 .. current + 1, heights above the head and within the buffer; all else is dropped unread.

    The view before is kept because a replica that has left it alone must still see its commits.
    """
    head = core.chain.head.height
    return head < height <= head + core.params.buffer and abs(view - core.view.view) <= 1


def on_pre_prepare(core: Core, peer: int, message: PrePrepare) -> None:
    """Keep a proposal of the present or next view until it can be accepted."""
    header = message.header
    if not _in_range(core, message.view, header.height) or message.view < core.view.view:
        return
    if core.config.primary(message.view) != peer:
        core.fault(peer, "PRE_PREPARE by a replica that is not the primary")
        return
    block_hash = header.hash
    slot = (Phase.PREPARE, message.view, header.height)
    key = (message.view, header.height)
    present = core.view.proposals.get(key)
    if present is not None and present.block_hash == block_hash:
        return
    vote = message.vote(block_hash)
    if not core.signed_by(peer, vote, message.signature):
        core.fault(peer, "PRE_PREPARE with a bad signature")
        return
    earlier = core.votes.cast(peer, slot, block_hash, message.signature, verified=True)
    if earlier is not None:
        evidence.double_vote(core, peer, slot, earlier, block_hash, message.signature)
        return
    if message.executed is not None and message.executed.vote.height > core.chain.best_height:
        chain.learn_certificate(core, message.executed)
    core.view.proposals[key] = Proposal(message, block_hash, core.wall)
    if message.view == core.view.view:
        core.timers.heartbeat_ms = core.now


def on_vote(core: Core, peer: int, message: Prepare | Commit) -> None:
    """Count a vote of the link peer; its signature is checked when a quorum may be there."""
    phase = Phase.PREPARE if isinstance(message, Prepare) else Phase.COMMIT
    if not _in_range(core, message.view, message.height) or (phase == Phase.PREPARE and message.view < core.view.view):
        return
    slot = (phase, message.view, message.height)
    earlier = core.votes.cast(peer, slot, message.block_hash, message.signature)
    if earlier is not None:
        evidence.double_vote(core, peer, slot, earlier, message.block_hash, message.signature)


def on_verified(core: Core, proposal: Proposal, ok: tuple[bool, ...]) -> None:
    """The signatures of a proposal's transactions are checked."""
    proposal.token = None
    if all(ok):
        proposal.sound = True
    else:
        _misbehaved(core, proposal, "a transaction with a bad signature")


# ---- votes -----------------------------------------------------------------------------------------------------------


def advance_votes(core: Core) -> bool:
    """Turn ripe slots into certificates and act on them. True if one was made."""
    made = False
    view = core.view
    for slot in sorted(core.votes.ripe):
        phase, number, height = slot
        if phase == Phase.PREPARE:
            accepted = view.accepted.get(height)
            if not view.active or number != view.view or accepted is None:
                continue
            if accepted.block_hash != core.votes.ripe[slot]:
                continue
        certificate, bad = core.votes.ripen(slot)
        for peer in bad:
            core.fault(peer, "a vote with a bad signature")
        if certificate is None:
            continue
        made = True
        if phase == Phase.PREPARE:
            _prepared(core, slot, certificate)
        else:
            chain.learn_valid(core, certificate)
    return made


def _prepared(core: Core, slot: Slot, certificate: Certificate) -> None:
    """Rule 6.4: raise the tip, make it durable, then COMMIT."""
    tip, vote = core.chain.tip, certificate.vote
    if tip is None or (vote.view, vote.height) > (tip.vote.view, tip.vote.height):
        core.chain.tip = certificate
    if vote.height <= core.chain.head.height or not core.may_sign:
        return
    signature = core.sign(Vote(Phase.COMMIT, vote.epoch, vote.view, vote.height, vote.block_hash))
    record = WalTip(vote.epoch, certificate, signature)
    message = Commit(vote.epoch, vote.view, vote.height, vote.block_hash, signature)
    core.persist(record, sync=True)
    core.send(ALL, message)
    core.view.commits[vote.height] = (record, message, core.now)
    core.votes.cast(core.me, (Phase.COMMIT, slot[1], slot[2]), vote.block_hash, signature, verified=True)


# ---- accepting -------------------------------------------------------------------------------------------------------


def catch_up(core: Core) -> None:
    """Where commits have passed the base, or in this view the last accepted block, go on above them.

    A base that is committed here is done: what follows still builds on it. A head with a commit certificate of this
    view lies on the one chain that this view prepares; a certificate of any other view says nothing about what to
    accept in this one.
    """
    view, best, head = core.view, core.chain.best, core.chain.head
    base = view.pending_base
    if base is not None and base.height <= head.height:
        view.last_height, view.last_hash, view.pending_base = base.height, base.hash, None
    if best is None or not view.active or head.height <= view.last_height or best.vote.view != view.view:
        return
    view.last_height, view.last_hash = head.height, core.chain.head_hash
    view.pending_base = None
    view.in_flight.clear()
    view.selection = None


def too_far_ahead(core: Core, height: int) -> bool:
    """Whether a block of this height runs too far ahead of the stable checkpoint."""
    return height > core.checkpoints.stable_height + _CHECKPOINT_LAG * core.params.checkpoint_interval


def advance_accept(core: Core) -> bool:
    """Accept the next proposal of the active view if it is here and right. True if one was accepted."""
    catch_up(core)
    view = core.view
    if not view.active or not core.may_sign or core.is_primary:
        return False
    height = view.last_height + 1
    proposal = view.proposals.get((view.view, height))
    if proposal is None or not core.chain.head.height < height <= core.chain.head.height + core.params.buffer:
        return False
    if too_far_ahead(core, height):
        return False
    verdict = _examine(core, proposal)
    if verdict:
        _misbehaved(core, proposal, verdict)
    if verdict != "" or proposal.known is None:
        return False
    known = chain.remember(core, proposal.known)
    vote = proposal.message.vote(known.hash)
    signature = core.sign(vote)
    message = Prepare(vote.epoch, vote.view, vote.height, vote.block_hash, signature)
    accept(core, known, message, signature)
    core.send(ALL, message)
    return True


def accept(core: Core, known: Known, message: Prepare | PrePrepare, signature: bytes) -> None:
    """Make it durable that this block, and no other, is ours at this height of this view."""
    view, header = core.view, known.header
    chain.log_body(core, known)
    record = WalAccepted(core.config.epoch, view.view, header.height, known.hash, signature)
    core.persist(record, sync=True)
    known.accepted_view = view.view
    assert header.height not in view.accepted
    view.accepted[header.height] = Accepted(known.hash, record, message, core.now)
    view.last_height, view.last_hash = header.height, known.hash
    view.in_flight |= known.unique
    if view.pending_base is not None:
        view.pending_base = None
        for block_hash in chain.ancestry(core, known.header.parent):
            below = core.chain.known[block_hash]
            chain.log_body(core, below)
            view.in_flight |= below.unique
    slot = (Phase.PREPARE, view.view, header.height)
    core.votes.cast(core.me, slot, known.hash, signature, verified=True)
    for signed, name in zip(known.block.txs, known.hashes, strict=True):
        if core.pool.get(name) is None:  # so that it returns to the pool if this block is abandoned
            core.pool.add(signed, name, len(encode(signed)), core.now, header.height)


def _misbehaved(core: Core, proposal: Proposal, what: str) -> None:
    """The primary of the present view signed what no correct one signs: leave its view."""
    message = proposal.message
    core.fault(core.config.primary(message.view), f"PRE_PREPARE of height {message.header.height}: {what}")
    if message.view == core.view.view and core.view.active:
        views.leave(core, core.view.view + 1, what)


def _examine(core: Core, proposal: Proposal) -> str | None:
    """The empty string if the proposal may be accepted now, None if it must wait, else what is wrong with it."""
    view = core.view
    base = view.pending_base
    if base is not None and proposal.block_hash != base.hash:
        return f"the view starts with another block than its base at height {base.height}"
    if proposal.known is None:
        failure = _complete(core, proposal)
        if failure != "":
            return failure
    known = proposal.known
    assert known is not None
    if base is not None:
        if chain.missing_path(core, known.header.parent) is not None:
            return None
        verdict = check_results(core, known.header)
        if verdict:
            core.halt(f"the prepared block {known.header.height}: {verdict}")
            return None
        return verdict
    parent = core.chain.header(view.last_hash)
    if parent is None:
        return None
    if proposal.token is None and not proposal.sound:
        failure = _check_form(core, proposal, known, parent)
        if failure is not None:
            return failure
        _check_signatures(core, proposal, known)
    if not known.unique.isdisjoint(view.in_flight):
        return "a transaction stands in the uncommitted chain below"
    if not proposal.sound or not _timely(core, proposal, parent):
        return None
    return check_results(core, known.header)


def _complete(core: Core, proposal: Proposal) -> str | None:
    """Give a proposal its body: "" if done, None if something must be fetched, else what is wrong."""
    message = proposal.message
    known = core.chain.known.get(proposal.block_hash)
    if known is not None:
        proposal.known = known
        return ""
    txs = message.txs
    if message.hashes:
        entries = [core.pool.get(name) for name in message.hashes]
        found = [entry.signed for entry in entries if entry is not None]
        if txs or len(message.hashes) != message.header.tx_count:
            return "hashes that do not fit the header"
        if len(found) < len(entries):
            proposal.incomplete = True
            return None
        txs = tuple(found)
    proposal.known = chain.identify(core, Block(message.header, txs), proposal.block_hash)
    if proposal.known is None:
        if message.hashes:  # the pool may hold another signature than the block; the body decides
            proposal.incomplete = True
            return None
        return "a body that is not the header's"
    return ""


def _check_form(core: Core, proposal: Proposal, known: Known, parent: Header) -> str | None:
    """Stateless validity, the same everywhere (ledger.md 3): what is wrong, or None."""
    header, params = known.header, core.params
    if header.epoch != core.config.epoch or header.height != parent.height + 1 or header.parent != core.view.last_hash:
        return "a header that does not continue the chain"
    if header.proposer != core.config.validators[core.config.primary(proposal.message.view)]:
        return "another proposer in the header"
    if header.next_epoch != bytes(32):
        return "a change of the validator set that nobody ordered"
    if header.time_ms <= parent.time_ms:
        return "a time that does not grow"
    if not parent.exec_height <= header.exec_height < header.height <= header.exec_height + params.window + 1:
        return "an impossible execution height"
    if len(known.hashes) > params.block_txs or known.octets > params.block_octets + _BLOCK_OVERHEAD:
        return "more transactions than a block may hold"
    if len(known.unique) != len(known.hashes):
        return "a transaction twice"
    for signed in known.block.txs:
        octets = 0 if core.pool.same(signed) is not None else len(encode(signed))
        bad = malformed(signed, octets, header.height, params)
        if bad is not None:
            return f"a transaction that is {bad.name}"
    return None


def _check_signatures(core: Core, proposal: Proposal, known: Known) -> None:
    """Have those signatures checked that the pool does not vouch for."""
    unknown = [
        (signed.tx.sender, name, signed.signature)
        for signed, name in zip(known.block.txs, known.hashes, strict=True)
        if core.pool.same(signed) is None
    ]
    if unknown:
        proposal.token = core.new_token()
        core.out.verify.append(Verify(proposal.token, tuple(unknown)))
        core.verifying[proposal.token] = proposal
    else:
        proposal.sound = True


def _timely(core: Core, proposal: Proposal, parent: Header) -> bool:
    """Whether the header's time is near our clock; seen from when the proposal came, so our own lag does not count."""
    time_ms, tolerance = proposal.message.header.time_ms, core.params.clock_tolerance_ms
    earliest = proposal.received_ms - max(tolerance, 2 * core.timeout_ms)
    latest = core.wall + tolerance
    return earliest <= time_ms <= latest or (time_ms == parent.time_ms + 1 and parent.time_ms >= latest)


def check_results(core: Core, header: Header) -> str | None:
    """The empty string if the header names our own results, None if we are not that far, else what differs."""
    parent = core.chain.header(header.parent)
    root = core.executor.root_after(header.exec_height)
    if parent is None or root is None:
        return None
    if root != header.state_root:
        return f"state {header.state_root.hex()} after height {header.exec_height}, ours is {root.hex()}"
    receipts = core.executor.receipts_between(parent.exec_height, header.exec_height)
    if receipts is not None and receipts != (header.receipt_root, header.receipt_count):
        return f"receipts up to height {header.exec_height} differ from ours"
    return ""
