"""State transfer (ledger.md 11): STATUS, catching up by blocks, bodies by hash. Snapshots are `transfer`'s.

Rule 1: nothing committed is rolled back, and nothing that we accepted or hold as tip is touched.
Rule 2: one question is under way for blocks and one for a body, each to one peer, asked again only after its deadline;
        an answer is used once, at most sets off one more question, and never a re-evaluation of all.
Rule 3: nothing is believed: blocks hang on a commit certificate by their hashes, a snapshot on q CHECKPOINT
        signatures, each bucket on the state root. What does not fit is dropped, its sender loses credit, and the next
        peer is asked.
Rule 4: a certificate or a vote that a peer's STATUS shows missing is pushed to it, at most once a status interval.
        That repairs lost messages, in place of asking.
"""

from edgora.ledger import chain, transfer
from edgora.ledger.state import Core, Fetch
from edgora.wire.ledger import Block
from edgora.wire.pbft import (
    MAX_ANSWER,
    GetBlocks,
    GetBody,
    GetChunk,
    Prepare,
    PutBlocks,
    PutBody,
    PutCertificate,
    Status,
)  # fmt: skip

__all__ = [
    "advance_sync", "behind_target", "on_get_blocks", "on_get_body", "on_put_blocks", "on_put_body",
    "on_put_certificate", "on_status", "own_status",
]  # fmt: skip

_PATIENCE_MS = 100
"""A gap younger than this is left to the votes that are under way; also the least time between two questions."""


# ---- status and repair -----------------------------------------------------------------------------------------------


def own_status(core: Core) -> Status:
    chain_, view = core.chain, core.view
    return Status(
        core.config.epoch, view.view, view.active, view.last_height, chain_.head.height, chain_.head_hash,
        core.checkpoints.stable_height, len(core.pool), core.boot_nonce, bool(core.timers.overdue),
    )  # fmt: skip


def on_status(core: Core, peer: int, status: Status) -> None:
    """Note where a peer stands and push what it visibly misses."""
    state = core.peers[peer]
    state.status, state.heard_ms = status, core.now
    claims = sorted((p.status.height for p in core.peers.values() if p.status is not None), reverse=True)
    core.sync.claimed = claims[core.f] if len(claims) > core.f else 0
    if core.now - state.repaired_ms >= core.params.status_interval_ms // 2 and _repair(core, peer, status):
        state.repaired_ms = core.now


def _repair(core: Core, peer: int, status: Status) -> bool:
    """Send again what a peer lacks although it had the time to arrive. True if anything was sent."""
    before, view = len(core.out.send), core.view
    stale = core.now - core.params.status_interval_ms
    head = core.chain.head.height
    settled = core.chain.committed_ms <= stale or status.height + core.params.buffer < head
    if status.height < head and settled and core.chain.best is not None:
        core.send(peer, PutCertificate(core.config.epoch, core.chain.best))
    if view.active and view.new_view is not None and (status.view, status.active) < (view.view, True):
        core.send(peer, view.new_view)
    if view.active and status.view == view.view and core.may_sign:
        _resend_votes(core, peer, status, stale)
    own = core.checkpoints.own
    if own is not None and status.checkpoint < own.body.height <= status.height:
        core.send(peer, own)
    return len(core.out.send) > before


def _resend_votes(core: Core, peer: int, status: Status, stale: int) -> None:
    """Our own votes for blocks that the peer has not committed; the whole proposal if it has not accepted it."""
    view = core.view
    for height in sorted(view.accepted):
        accepted = view.accepted[height]
        if height <= status.height or accepted.at_ms > stale:
            continue
        if isinstance(accepted.message, Prepare) or height > status.accepted:
            core.send(peer, accepted.message)
        if height in view.commits and view.commits[height][2] <= stale:
            core.send(peer, view.commits[height][1])


def on_put_certificate(core: Core, peer: int, message: PutCertificate) -> None:
    """A commit certificate from whoever holds one."""
    if message.certificate.vote.height <= core.chain.best_height:
        return
    if not chain.learn_certificate(core, message.certificate):
        core.fault(peer, "an invalid commit certificate")


# ---- what we miss ----------------------------------------------------------------------------------------------------


def behind_target(core: Core) -> int:
    """Height that is certainly committed: of our best certificate, or what f + 1 peers claim."""
    return max(core.chain.best_height, core.sync.claimed)


def _wanted_body(core: Core) -> tuple[bytes, list[int]] | None:
    """(hash, likely holders) of a body that we need before we can vote and know only by its hash."""
    view = core.view
    if not view.active:
        return None
    base = view.pending_base
    if base is not None:
        missing = chain.missing_path(core, base.hash)
        if missing is None or view.new_view is None:
            return None
        tips = [c.tip for c in view.new_view.view_changes if c.tip is not None and c.body.tip_hash == base.hash]
        return missing, [signer for signer in tips[0].signers() if signer != core.me]
    proposal = view.proposals.get((view.view, view.last_height + 1))
    if proposal is not None and proposal.incomplete and proposal.block_hash not in core.chain.known:
        return proposal.block_hash, [core.config.primary(view.view)]
    return None


def advance_sync(core: Core) -> None:
    """Ask for what is missing, one question at a time; arm the timer for the next look."""
    _advance_blocks(core)
    _advance_body(core)
    sync = core.sync
    deadlines = [fetch.deadline_ms for fetch in (sync.blocks, sync.body) if fetch is not None]
    if sync.blocks is None and sync.behind_since is not None:
        deadlines.append(sync.behind_since + _PATIENCE_MS)
    if sync.body is None and sync.wanted_since is not None:
        deadlines.append(sync.wanted_since + _PATIENCE_MS)
    core.set_timer("fetch", min(deadlines, default=None))


def _advance_blocks(core: Core) -> None:
    sync, head = core.sync, core.chain.head.height
    target = behind_target(core)
    if target <= head or core.halted is not None or not core.peers:
        sync.behind_since = sync.blocks = sync.snapshot = None
        return
    if sync.behind_since is None:
        sync.behind_since = core.now
    if sync.blocks is not None and core.now < sync.blocks.deadline_ms:
        return
    if target <= head + core.params.buffer and core.now < sync.behind_since + _PATIENCE_MS:
        return
    peer = _next_peer(core, head + 1)
    if sync.snapshot is not None:
        first = transfer.next_bucket(sync.snapshot)
        core.send(peer, GetChunk(core.config.epoch, sync.snapshot.offer.checkpoint.body.height, first))
    else:
        core.send(peer, GetBlocks(core.config.epoch, head + 1))
    sync.blocks = Fetch(peer, head + 1, core.fetch_deadline_ms)


def _advance_body(core: Core) -> None:
    sync = core.sync
    found = _wanted_body(core)
    if found is None:
        sync.body = sync.wanted_since = None
        return
    wanted, holders = found
    if sync.body is not None and sync.body.what == wanted and core.now < sync.body.deadline_ms:
        return
    if not holders or (sync.wanted_since is not None and core.now < sync.wanted_since + _PATIENCE_MS):
        return
    sync.turn += 1
    peer = holders[sync.turn % len(holders)]
    core.send(peer, GetBody(core.config.epoch, wanted))
    sync.wanted_since = core.now
    sync.body = Fetch(peer, wanted, core.fetch_deadline_ms)


def _next_peer(core: Core, height: int) -> int:
    """The next peer, in turn, that claims to hold this height; any peer if none claims it."""
    others = sorted(core.peers)
    able = [p for p in others if (s := core.peers[p].status) is not None and s.height >= height] or others
    core.sync.turn += 1
    return able[core.sync.turn % len(able)]


# ---- blocks ----------------------------------------------------------------------------------------------------------


def on_get_blocks(core: Core, peer: int, message: GetBlocks) -> None:
    """Answer with committed blocks from memory, or offer the snapshot that has replaced them."""
    chain_ = core.chain
    if message.first > chain_.head.height:
        core.send(peer, PutBlocks(core.config.epoch, (), (), None))
        return
    if message.first not in chain_.committed:
        offer = transfer.offer_of(core)
        if offer is not None:
            core.send(peer, offer)
        return
    blocks: list[Block] = []
    octets, height = 0, message.first
    while height <= chain_.head.height and len(blocks) < MAX_ANSWER:
        known = chain_.known[chain_.committed[height]]
        if blocks and octets + known.octets > core.params.sync_octets:
            break
        blocks.append(known.block)
        octets += known.octets
        height += 1
    proof = chain.certified_links(core, height - 1)
    if proof is not None:
        core.send(peer, PutBlocks(core.config.epoch, tuple(blocks), *proof))


def on_put_blocks(core: Core, peer: int, message: PutBlocks) -> None:
    """Blocks that we asked this peer for. Whether they came by votes meanwhile makes no difference."""
    sync = core.sync
    if sync.blocks is None or sync.blocks.peer != peer:
        return
    if message.certificate is None:
        return  # it has nothing above our head: the deadline moves us to the next peer
    blocks = [b for b in message.blocks if b.header.height > core.chain.head.height]
    failure = _link(core, blocks, message)
    if failure is not None:
        core.fault(peer, failure)
        return
    if not chain.learn_certificate(core, message.certificate):
        core.fault(peer, "blocks under an invalid certificate")
        return
    for block in blocks:
        known = core.chain.known.get(block_hash := block.header.hash) or chain.identify(core, block, block_hash)
        if known is None:
            core.fault(peer, "a block whose body is not its header's")
            return
        if block_hash not in core.chain.known:
            core.chain.keep(known)
    for header in message.links:
        if header.height > core.chain.head.height and header.hash not in core.chain.known:
            core.chain.headers[header.hash] = header
    sync.blocks, sync.behind_since = None, core.now - _PATIENCE_MS


def _link(core: Core, blocks: list[Block], message: PutBlocks) -> str | None:
    """None if blocks and links hang together, from our head up to the certificate; else what does not."""
    if not blocks and not message.links:
        return None
    below, height = core.chain.head_hash, core.chain.head.height
    for header in (*(b.header for b in blocks), *message.links):
        if header.height <= core.chain.head.height:
            continue
        if header.parent != below or header.height != height + 1:
            return "blocks that do not continue our chain"
        below, height = header.hash, header.height
    assert message.certificate is not None
    if height > core.chain.head.height and message.certificate.vote.block_hash != below:
        return "a certificate of another block"
    return None


# ---- bodies ----------------------------------------------------------------------------------------------------------


def on_get_body(core: Core, peer: int, message: GetBody) -> None:
    known = core.chain.known.get(message.block_hash)
    if known is not None:
        core.send(peer, PutBody(core.config.epoch, known.block))


def on_put_body(core: Core, peer: int, message: PutBody) -> None:
    """A body that we asked this peer for by its hash."""
    sync, block_hash = core.sync, message.block.header.hash
    if sync.body is None or sync.body.peer != peer or sync.body.what != block_hash:
        return
    known = chain.identify(core, message.block, block_hash)
    if known is None:
        core.fault(peer, "a body that is not its header's")
        return
    if known.header.height > core.chain.head.height:
        chain.remember(core, known)
    sync.body = sync.wanted_since = None
