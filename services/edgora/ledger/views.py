"""View changes (ledger.md 10). Everything that moves a replica to another view lives here.

Blocks are hash-linked and several are in flight, so one certificate on the highest block of the highest view stands
for its whole ancestry: a VIEW_CHANGE carries the sender's highest commit certificate and its tip, no more.

    base of a view = the maximum by (view, height) over every tip and every commit certificate of q VIEW_CHANGEs.

If the base is a commit, the view goes on above it. If it is a tip, the *first* block that anyone votes for in the view
is exactly that block at its own height. Its uncommitted ancestors are never voted on again: they commit with it.
Re-proposing them bottom-up would let a prepare certificate (new view, low) outrank (old view, high) and abandon a
committed block, with no Byzantine replica at all.

Rule 0: on a timeout nobody leaves alone; on proof that the primary lied, at once. Whose patience is at its end says so
        in its STATUS and goes on voting; of f + 1 such, each leaves, and for a while its word binds it to follow who
        left on it. VIEW_CHANGE is a promise never to vote in the old view again, so a replica that left alone - cut off
        for a moment, or slow to find its peers after a restart - would be lost to the consortium until the others have
        a reason of their own. Nothing is lost by waiting: f or fewer who leave move no one. (The I-HATE-THE-PRIMARY of
        Zyzzyva, Kotla et al., SOSP 2007; the pre-vote of Raft, Ongaro's thesis, 9.6.)
Rule 1: one signer's large view number moves nobody; f + 1 signers above us do, to the smallest such view.
Rule 2: an invalid item spoils itself only: the other view changes count, and a good certificate in it is learnt.
Rule 3: the new view is durable before VIEW_CHANGE leaves, the NEW_VIEW before the first vote in it.
"""

from collections.abc import Sequence

from edgora.ledger import chain, evidence
from edgora.ledger.effects import ALL, ViewEntered, ViewLeft
from edgora.ledger.state import Base, Core
from edgora.wire.ledger import Certificate, Header, Phase
from edgora.wire.pbft import (
    NewView,
    NewViewBody,
    PutCertificate,
    ViewChange,
    ViewChangeBody,
    WalNewView,
    WalView,
    view_changes_hash,
)  # fmt: skip

__all__ = ["advance_views", "base_of", "enter", "leave", "on_new_view", "on_view_change"]


# ---- leaving ---------------------------------------------------------------------------------------------------------


def leave(core: Core, new_view: int, why: str) -> None:
    """Stop voting in the present view and ask for a later one."""
    if not core.may_sign:
        return
    tip, best, view = core.chain.tip, core.chain.best, core.view
    new_view = max(new_view, *(c.vote.view + 1 for c in (tip, best) if c is not None), view.view + 1)
    if not view.committed_here:
        view.failures += 1
    headers = _tip_headers(core)
    if headers is None:
        core.halt("our prepared tip does not extend our committed chain: more than f replicas are faulty")
        return
    body = _own_body(core, new_view, tip if headers else None)
    change = ViewChange(
        core.config.epoch, core.me, body, best, tip if headers else None, headers, core.sign(body)
    )  # fmt: skip
    core.persist(WalView(core.config.epoch, change), sync=True)
    core.send(ALL, change)
    core.out.views.append(ViewLeft(view.view, new_view, core.config.primary(new_view), why))
    view.view, view.active, view.own_change, view.left_because = new_view, False, change, why
    view.changes[core.me] = change
    _forget_view(core)
    core.timers.resent_ms = core.now
    core.timers.new_view_since = None


def _tip_headers(core: Core) -> tuple[Header, ...] | None:
    """Headers from above our highest commit up to the tip; () if no tip lies above it; None if they do not link."""
    tip, best = core.chain.tip, core.chain.best
    floor = core.config.genesis.hash if best is None else best.vote.block_hash
    if tip is None or tip.vote.phase != Phase.PREPARE or tip.vote.height <= core.chain.best_height:
        return ()
    headers: list[Header] = []
    block_hash = tip.vote.block_hash
    while block_hash != floor:
        header = core.chain.header(block_hash)
        if header is None or header.height <= core.chain.best_height:
            return None
        headers.append(header)
        block_hash = header.parent
    return tuple(reversed(headers))


def _own_body(core: Core, new_view: int, tip: Certificate | None) -> ViewChangeBody:
    best = core.chain.best
    commit = (
        (0, 0, core.config.genesis.hash) if best is None else (best.vote.view, best.vote.height, best.vote.block_hash)
    )
    top = (0, 0, bytes(32)) if tip is None else (tip.vote.view, tip.vote.height, tip.vote.block_hash)
    return ViewChangeBody(core.config.epoch, new_view, *commit, *top)


def _forget_view(core: Core) -> None:
    """Drop what belonged to the view that we leave. Bodies and tip stay."""
    view = core.view
    view.base = view.pending_base = view.new_view = view.selection = view.batch_since = None
    view.accepted.clear()
    view.commits.clear()
    view.in_flight.clear()
    view.committed_here = False
    view.heartbeats = 0
    for key in [k for k in view.proposals if k[0] < view.view]:
        del view.proposals[key]
    core.votes.prune(core.chain.head.height - core.params.window, view.view - 1)
    core.pool.on_ready = None
    core.timers.progress_since = None
    core.timers.overdue.clear()
    core.timers.told = False
    core.timers.suspicion = 0, ""


# ---- collecting ------------------------------------------------------------------------------------------------------


def on_view_change(core: Core, peer: int, change: ViewChange) -> None:
    """Check and keep a peer's view change, the highest of each."""
    view = core.view
    if change.signer != peer:
        core.fault(peer, "VIEW_CHANGE under another's name")
        return
    wanted = change.body.new_view
    if wanted < view.view or (wanted == view.view and view.active):
        _help(core, peer)
        return
    kept = view.changes.get(peer)
    if kept is not None and kept.body.new_view >= wanted:
        return
    if not valid_change(core, change, wanted):
        core.fault(peer, "an invalid VIEW_CHANGE")
        return
    view.changes[peer] = change
    _compare_with_votes(core, change)


def _help(core: Core, peer: int) -> None:
    """Send a peer that asks for our view, or an older one, what we entered ours with."""
    state, view = core.peers[peer], core.view
    if view.active and view.new_view is not None and core.now - state.new_view_ms >= core.params.status_interval_ms:
        state.new_view_ms = core.now
        core.send(peer, view.new_view)


def _compare_with_votes(core: Core, change: ViewChange) -> None:
    """Whether the sender has forgotten a COMMIT of its own that we still hold."""
    body = change.body
    named = max((body.commit_view, body.commit_height), (body.tip_view, body.tip_height))
    view = body.new_view - 1
    for height in range(core.chain.head.height + 1, core.chain.head.height + core.params.buffer + 1):
        slot = (Phase.COMMIT, view, height)
        cast = core.votes.votes(slot).get(change.signer)
        if cast is not None and named < (view, height):
            evidence.forgotten_tip(core, slot, cast, change)
            return


def valid_change(core: Core, change: ViewChange, new_view: int) -> bool:
    """Whether a VIEW_CHANGE for this view is sound, item by item."""
    body, config = change.body, core.config
    if change.epoch != config.epoch or body.epoch != config.epoch or body.new_view != new_view:
        return False
    if change == core.view.changes.get(change.signer):
        return True
    if change.signer >= core.n or not core.signed_by(change.signer, body, change.signature):
        return False
    if change.commit is None:
        if (body.commit_view, body.commit_height, body.commit_hash) != (0, 0, config.genesis.hash):
            return False
    else:
        named = change.commit.vote
        if not chain.learn_certificate(core, change.commit) or body.commit_view >= new_view:
            return False
        if (named.view, named.height, named.block_hash) != (body.commit_view, body.commit_height, body.commit_hash):
            return False
    if change.tip is None:
        return (body.tip_view, body.tip_height, body.tip_hash) == (0, 0, bytes(32)) and not change.headers
    return _valid_tip(core, change, change.tip)


def _valid_tip(core: Core, change: ViewChange, tip: Certificate) -> bool:
    body, named = change.body, tip.vote
    if (named.view, named.height, named.block_hash) != (body.tip_view, body.tip_height, body.tip_hash):
        return False
    if body.tip_view >= body.new_view or not 0 < body.tip_height - body.commit_height <= core.params.buffer:
        return False
    if len(change.headers) != body.tip_height - body.commit_height or not core.check.good(tip, Phase.PREPARE):
        return False
    below, height = body.commit_hash, body.commit_height
    for header in change.headers:
        if header.parent != below or header.height != height + 1:
            return False
        below, height = header.hash, header.height
    return below == body.tip_hash


# ---- deciding --------------------------------------------------------------------------------------------------------


def _suspects(core: Core) -> str:
    """Why we suspect the primary, or just did while a peer that has left may have counted on it; else nothing."""
    timers, view = core.timers, core.view
    if timers.overdue:
        return next(iter(timers.overdue.values()))
    until, why = timers.suspicion
    left = any(s != core.me and c.body.new_view > view.view for s, c in view.changes.items())
    return why if left and core.now < until else ""


def _suspecting(core: Core) -> int:
    """How many others suspect the primary of the view that we are in or wait for, or have left it."""
    view = core.view
    left = {signer for signer, change in view.changes.items() if change.body.new_view > view.view}
    said = {
        i for i, peer in core.peers.items()
        if peer.status is not None and peer.status.view == view.view and peer.status.suspects
    }  # fmt: skip
    return len((left | said) - {core.me})


def advance_views(core: Core) -> bool:
    """Leave with f others, join f + 1, notice a quorum, or found the new view as its primary. True if the view moved."""
    view, config = core.view, core.config
    if not core.may_sign:
        return False
    why = _suspects(core)
    if why and _suspecting(core) >= core.f:
        leave(core, view.view + 1, why)
        return True
    if not view.changes:
        return False
    above = sorted(
        c.body.new_view for signer, c in view.changes.items() if signer != core.me and c.body.new_view > view.view
    )
    if len(above) > core.f:
        leave(core, above[0], "f + 1 others left")
        return True
    if view.active:
        return False
    if core.timers.new_view_since is None:
        asking = sum(1 for c in view.changes.values() if c.body.new_view >= view.view)
        if asking >= core.q:
            core.timers.new_view_since = core.now
    if not core.is_primary:
        return False
    exact = [view.changes[s] for s in sorted(view.changes) if view.changes[s].body.new_view == view.view]
    if len(exact) < core.q:
        return False
    chosen = tuple(exact[: core.q])
    body = NewViewBody(config.epoch, view.view, view_changes_hash(chosen, config.domain))
    message = NewView(config.epoch, view.view, chosen, core.sign(body))
    core.persist(WalNewView(config.epoch, message), sync=True)
    core.send(ALL, message)
    enter(core, message)
    return True


def on_new_view(core: Core, peer: int, message: NewView) -> None:
    """Enter a view that a quorum asked for. It proves itself, so anybody may deliver it."""
    view, config = core.view, core.config
    if message.view < view.view or (message.view == view.view and view.active):
        return
    changes = message.view_changes
    if [c.signer for c in changes] != sorted({c.signer for c in changes}) or len(changes) != core.q:
        core.fault(peer, "a NEW_VIEW without exactly q view changes by ascending signer")
        return
    body = NewViewBody(config.epoch, message.view, view_changes_hash(changes, config.domain))
    if not core.signed_by(config.primary(message.view), body, message.signature):
        core.fault(peer, "a NEW_VIEW not signed by its primary")
        return
    if not all(valid_change(core, change, message.view) for change in changes):
        core.fault(peer, "a NEW_VIEW with an invalid view change")
        return
    core.persist(WalNewView(config.epoch, message), sync=True)
    enter(core, message)


def base_of(changes: Sequence[ViewChange]) -> Base:
    """The greatest candidate by (view, height); a commit before a tip of the same block."""
    candidates = [Base(c.body.commit_view, c.body.commit_height, c.body.commit_hash, is_tip=False) for c in changes]
    candidates += [
        Base(c.body.tip_view, c.body.tip_height, c.body.tip_hash, is_tip=True) for c in changes if c.tip is not None
    ]
    return max(candidates, key=lambda base: (base.view, base.height, not base.is_tip, base.hash))


def enter(core: Core, message: NewView) -> None:
    """Make a view active. Its NEW_VIEW is checked and in the log."""
    view = core.view
    view.view = message.view
    _forget_view(core)
    view.active, view.new_view, view.own_change, view.left_because = True, message, None, ""
    view.entered_ms = core.now
    asked = tuple(change.signer for change in message.view_changes)
    core.out.views.append(ViewEntered(message.view, core.config.primary(message.view), asked))
    base = view.base = base_of(message.view_changes)
    view.last_height, view.last_hash = base.height, base.hash
    for change in message.view_changes:
        for header in change.headers:
            block_hash = header.hash
            if header.height > core.chain.head.height and block_hash not in core.chain.known:
                core.chain.headers[block_hash] = header
    if base.is_tip and base.height <= core.chain.head.height:
        # Others may hold its prepare certificate only; ours saves them the vote.
        if core.chain.best is not None:
            core.send(ALL, PutCertificate(core.config.epoch, core.chain.best))
    elif base.is_tip:
        tip_header = core.chain.header(base.hash)
        assert tip_header is not None  # the view change that named it carries its headers down to a commit
        view.last_height, view.last_hash, view.pending_base = base.height - 1, tip_header.parent, base
    for signer in [s for s, c in view.changes.items() if c.body.new_view <= view.view]:
        del view.changes[signer]
    core.timers.heartbeat_ms = core.now
    core.timers.new_view_since = None
    view.proposed_ms = 0
