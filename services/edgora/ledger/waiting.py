"""Why consensus waits: the one place that turns a replica's state into a reason (market.md 7)."""

from edgora.ledger import sync, timers
from edgora.ledger.normal import too_far_ahead
from edgora.ledger.state import Core
from edgora.ledger.status import PeerStatus, ReplicaStatus, VoteStatus, WaitReason
from edgora.wire.ledger import Phase
from edgora.wire.pbft import BUCKETS

__all__ = ["reason", "status"]


def _voters(core: Core, phase: Phase, height: int) -> tuple[int, ...]:
    return tuple(sorted(core.votes.votes((phase, core.view.view, height))))


def _others_than(core: Core, seen: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(i for i in range(core.n) if i not in seen)


def reason(core: Core) -> WaitReason:
    """What the next commit waits for, as seen from here."""
    head = core.chain.head.height
    if not core.booted:
        return WaitReason("booting")
    if core.halted is not None:
        return WaitReason("halted", {"height": head})
    target = sync.behind_target(core)
    if target > head:
        fetch = core.sync.snapshot
        if fetch is not None:
            numbers = {"height": fetch.offer.header.height, "have": len(fetch.buckets), "need": BUCKETS}
            return WaitReason("snapshot", numbers)
        return WaitReason("syncing", {"behind": target - head, "target": target})
    if not core.config.voting:
        return WaitReason("observing", {"height": head})
    return _view_reason(core, head)


def _view_reason(core: Core, head: int) -> WaitReason:
    view, need = core.view, core.q
    if not view.active:
        asking = tuple(sorted(s for s, c in view.changes.items() if c.body.new_view >= view.view))
        numbers = {"view": view.view, "have": len(asking), "need": need, "primary": core.config.primary(view.view)}
        return WaitReason("new_view" if len(asking) >= need else "view_change", numbers, _others_than(core, asking))
    if view.pending_base is not None:
        return _vote_reason(core, "base", Phase.PREPARE, view.pending_base.height)
    height = head + 1
    if too_far_ahead(core, height):
        return WaitReason("checkpoint", {"height": height, "stable": core.checkpoints.stable_height})
    accepted = view.accepted.get(height)
    if accepted is not None:
        phase = Phase.COMMIT if height in view.commits else Phase.PREPARE
        return _vote_reason(core, "commit" if phase == Phase.COMMIT else "prepare", phase, height)
    proposal = view.proposals.get((view.view, height))
    if proposal is not None and proposal.token is not None:
        return WaitReason("signatures", {"height": height})
    if proposal is not None:
        header = proposal.message.header
        numbers = {"height": height, "exec_height": header.exec_height, "executed": core.executor.height}
        return WaitReason("execution", numbers)
    if not timers.duties(core):
        return WaitReason("idle", {"height": head})
    if not core.is_primary:
        return WaitReason("proposal", {"primary": core.config.primary(view.view), "height": height})
    if view.last_height >= head + core.params.window:
        return WaitReason("window", {"in_flight": view.last_height - head, "window": core.params.window})
    if not core.pool.ready:
        return WaitReason("seal", {"height": core.chain.results_height})
    return WaitReason("batch", {"waiting": len(core.pool)})


def _vote_reason(core: Core, code: str, phase: Phase, height: int) -> WaitReason:
    seen = _voters(core, phase, height)
    numbers = {"view": core.view.view, "height": height, "have": len(seen), "need": core.q}
    return WaitReason(code, numbers, _others_than(core, seen))


def status(core: Core, now: int) -> ReplicaStatus:
    """All that an operator, the board or a test wants to see."""
    chain, view = core.chain, core.view
    now += core.shift
    height = chain.head.height + 1
    prepared, committed = _voters(core, Phase.PREPARE, height), _voters(core, Phase.COMMIT, height)
    oldest = core.pool.oldest_ready()
    peers = tuple(
        PeerStatus(i, p.status.view, p.status.active, p.status.height, p.status.checkpoint, now - p.heard_ms)
        for i, p in core.peers.items()
        if p.status is not None
    )
    tip = chain.tip
    return ReplicaStatus(
        index=core.me, epoch=core.config.epoch, view=view.view, active=view.active,
        primary=core.config.primary(view.view), height=chain.head.height, block_hash=chain.head_hash,
        time_ms=chain.head.time_ms, state_root=core.executor.state_root, certified=chain.head.exec_height,
        accepted=view.last_height, tip_view=0 if tip is None else tip.vote.view,
        tip_height=0 if tip is None else tip.vote.height, checkpoint=core.checkpoints.stable_height,
        pool=len(core.pool), pool_octets=core.pool.octets, oldest_wait_ms=0 if oldest is None else now - oldest[1],
        timeout_ms=core.timeout_ms, timers={name: deadline - core.shift for name, deadline in sorted(core.timers.armed.items())},
        votes=VoteStatus(height, prepared, committed, _others_than(core, tuple({*prepared, *committed}))),
        peers=peers, waiting=reason(core), left_because=view.left_because,
        evidence=tuple(core.evidence), halted=core.halted,
    )  # fmt: skip
