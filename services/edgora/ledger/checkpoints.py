"""Checkpoints and what they let go (ledger.md 9).

Every K blocks of executed height the state is frozen, written (durable before CHECKPOINT leaves) and signed. q equal
CHECKPOINTs make it stable. Heights are fixed multiples of K, so all replicas name the same one.

When a checkpoint becomes stable, votes, proposals and evidence caches at or below it go, older states go, and the log
is *compacted*: the step appends everything that is still needed, so that this step's records and the newest snapshot
replace all earlier records.
"""

from edgora.ledger import evidence
from edgora.ledger.effects import ALL, SnapshotImage
from edgora.ledger.quorum import certify_checkpoint
from edgora.ledger.state import Core
from edgora.wire.ledger import CheckpointBody, Phase
from edgora.wire.pbft import (
    CheckpointCertificate,
    CheckpointVote,
    WalBlock,
    WalCheckpoint,
    WalCommit,
    WalEvidence,
    WalNewView,
    WalStable,
    WalTip,
    WalView,
)  # fmt: skip

__all__ = ["compact", "count", "make_stable", "on_checkpoint", "release", "take"]

_VOTES_PER_SIGNER = 4
"""Checkpoint heights of one signer that are kept while they are not stable; the highest ones win."""


def take(core: Core) -> None:
    """Freeze, write and sign the state of the head, whose height is a multiple of K."""
    header = core.chain.head
    frozen = core.executor.freeze()
    core.checkpoints.states[header.height] = (header, frozen)
    core.out.snapshot = SnapshotImage(header, frozen.root, frozen.merged())
    if not core.may_sign:
        _settle(core, header.height)
        return
    body = CheckpointBody(core.config.epoch, header.height, core.chain.head_hash, frozen.root)
    vote = CheckpointVote(core.config.epoch, body, core.sign(body))
    core.checkpoints.own = vote
    core.persist(WalCheckpoint(core.config.epoch, body, vote.signature), sync=True)
    core.send(ALL, vote)
    count(core, core.me, vote)


def on_checkpoint(core: Core, peer: int, vote: CheckpointVote) -> None:
    """Count a peer's checkpoint."""
    body, state = vote.body, core.checkpoints
    interval = core.params.checkpoint_interval
    if body.epoch != core.config.epoch or body.height % interval or body.height <= state.stable_height:
        return
    earlier = state.votes.get(body.height, {}).get(peer)
    if earlier is not None and earlier.body == body:
        return
    if not core.signed_by(peer, body, vote.signature):
        core.fault(peer, "CHECKPOINT with a bad signature")
        return
    if earlier is not None:
        evidence.double_checkpoint(core, peer, earlier, vote)
        return
    count(core, peer, vote)


def count(core: Core, signer: int, vote: CheckpointVote) -> None:
    """Keep a checked vote, the highest few of each signer, and look whether its checkpoint is stable now."""
    state, height = core.checkpoints, vote.body.height
    state.votes.setdefault(height, {})[signer] = vote
    mine = sorted(h for h, votes in state.votes.items() if signer in votes)
    for surplus in mine[:-_VOTES_PER_SIGNER]:
        del state.votes[surplus][signer]
        if not state.votes[surplus]:
            del state.votes[surplus]
    _settle(core, height)


def _settle(core: Core, height: int) -> None:
    """Make the checkpoint of this height stable if q votes for it are equal."""
    votes = core.checkpoints.votes.get(height, {})
    for body in {vote.body: None for vote in votes.values()}:
        equal = [(signer, vote.signature) for signer, vote in votes.items() if vote.body == body]
        if len(equal) >= core.q:
            certificate = certify_checkpoint(body, equal, core.q)
            core.check.trust(certificate)
            make_stable(core, certificate)
            return


def make_stable(core: Core, certificate: CheckpointCertificate) -> None:
    """Take in a checkpoint that q validators signed; it becomes ours once its height is executed here."""
    state, body = core.checkpoints, certificate.body
    if body.height <= state.stable_height:
        return
    kept = state.states.get(body.height)
    if kept is None:
        return  # not executed yet: the votes stay, and state transfer brings the certificate with the state
    header, frozen = kept
    if (header.hash, frozen.root) != (body.block_hash, body.state_root):
        core.halt(f"a quorum certified another state at height {body.height} than ours")
        return
    state.stable = core.out.stable = certificate
    for height in [h for h in state.states if h < body.height]:
        del state.states[height]
    for height in [h for h in state.votes if h <= body.height]:
        del state.votes[height]
    release(core)
    compact(core)


def release(core: Core) -> None:
    """Let committed blocks go that peers a little behind no longer need: those over the bound, oldest first.

    The block of the checkpoint stays: its certificate is part of the snapshot's offer.
    """
    chain, stable = core.chain, core.checkpoints.stable_height
    floor = stable - core.params.checkpoint_interval
    for height in sorted(chain.committed):
        if height >= stable or (height > floor and chain.retained_octets <= core.params.retained_octets):
            break
        known = chain.known.pop(chain.committed.pop(height))
        chain.certificates.pop(height, None)
        chain.retained_octets -= known.octets


def compact(core: Core) -> None:
    """Append all durable state that lies above the stable checkpoint once more, so that earlier records can go."""
    chain, view, epoch = core.chain, core.view, core.config.epoch
    stable = core.checkpoints.stable
    if stable is not None:
        core.persist(WalStable(epoch, stable))
    if core.checkpoints.own is not None:
        own = core.checkpoints.own
        core.persist(WalCheckpoint(epoch, own.body, own.signature))
    for item in core.evidence:
        core.persist(WalEvidence(epoch, item))
    if view.new_view is not None:
        core.persist(WalNewView(epoch, view.new_view))
    if view.own_change is not None:
        core.persist(WalView(epoch, view.own_change))
    floor = core.checkpoints.stable_height
    logged = [k for k in chain.known.values() if k.logged and k.header.height > floor]
    for known in sorted(logged, key=lambda k: (k.header.height, k.hash)):
        core.persist(WalBlock(epoch, known.block))
    certificates = {c.vote.height: c for c in (*chain.heard.values(), chain.proof, chain.best) if c is not None}
    for height in sorted(certificates):
        core.persist(WalCommit(epoch, certificates[height]))
    links = [header for _, header in sorted(chain.headers.items(), key=lambda item: (item[1].height, item[0]))]
    core.persist_links(links)
    for height in sorted(view.accepted):
        core.persist(view.accepted[height].record)
    if chain.tip is not None and chain.tip.vote.phase == Phase.PREPARE and chain.tip.vote.height > chain.best_height:
        kept = view.commits.get(chain.tip.vote.height)
        if kept is None or kept[0].certificate != chain.tip:
            core.persist(WalTip(epoch, chain.tip, None))
    for height in sorted(view.commits):
        core.persist(view.commits[height][0])
    core.out.sync = True
    core.out.compacted = True
