"""Catching up by snapshot (ledger.md 11): a stable state, offered with its proof and fetched bucket by bucket.

Who asks for blocks that a peer has let go is offered the stable checkpoint instead: q CHECKPOINT signatures over the
state root, the hashes of all 4096 buckets that fold to it, and a commit certificate that links down to its block. Then
buckets are fetched in chunks, from any peer that holds that state; each is checked by its own hash, so a liar costs one
chunk. If the peers move on to a newer checkpoint meanwhile, buckets that did not change are kept.
"""

from edgora.ledger import chain, checkpoints
from edgora.ledger.effects import Answer, SnapshotImage
from edgora.ledger.state import ChainState, Core, Fetch, SnapshotFetch
from edgora.ledger.tree import bucket_hash, fold
from edgora.wire.codec import encode
from edgora.wire.ledger import Phase
from edgora.wire.pbft import BUCKETS, GetChunk, PutChunk, SnapshotOffer, WalCommit

__all__ = ["next_bucket", "offer_of", "on_get_chunk", "on_put_chunk", "on_snapshot_offer"]

_EMPTY_BUCKET = bucket_hash(())


def offer_of(core: Core) -> SnapshotOffer | None:
    stable = core.checkpoints.stable
    if stable is None:
        return None
    kept = core.checkpoints.states.get(stable.body.height)
    if kept is None:  # after a restart from a newer snapshot, until that one is stable too
        return None
    header, frozen = kept
    proof = chain.certified_links(core, header.height)
    if proof is None:
        return None
    return SnapshotOffer(core.config.epoch, stable, header, *proof, b"".join(frozen.hashes))


def on_snapshot_offer(core: Core, peer: int, offer: SnapshotOffer) -> None:
    """The blocks that we asked for are pruned there; a certified state is on offer instead."""
    sync, body = core.sync, offer.checkpoint.body
    if sync.blocks is None or sync.blocks.peer != peer or body.height <= core.chain.head.height:
        return
    present = sync.snapshot
    if present is not None and present.offer.checkpoint.body.height >= body.height:
        return
    failure = _unsound(core, offer)
    if failure is not None:
        core.fault(peer, failure)
        return
    fetch = SnapshotFetch(offer)
    if present is not None:  # what is the same in the newer state need not come again
        for number, pairs in present.buckets.items():
            if _hash_at(present.offer, number) == _hash_at(offer, number):
                fetch.buckets[number] = pairs
    for number in range(BUCKETS):
        if number not in fetch.buckets and _hash_at(offer, number) == _EMPTY_BUCKET:
            fetch.buckets[number] = ()
    sync.snapshot = fetch
    _next_chunk_or_install(core, peer, fetch)


def _unsound(core: Core, offer: SnapshotOffer) -> str | None:
    body = offer.checkpoint.body
    if not core.check.good_checkpoint(offer.checkpoint):
        return "a snapshot without a quorum of checkpoints"
    if offer.header.hash != body.block_hash or offer.header.height != body.height:
        return "a snapshot with another header"
    hashes = [_hash_at(offer, number) for number in range(BUCKETS)]
    if fold(hashes) != body.state_root:
        return "bucket hashes that do not give the state root"
    below, height = body.block_hash, body.height
    for header in offer.links:
        if header.parent != below or header.height != height + 1:
            return "links that do not continue the snapshot's block"
        below, height = header.hash, header.height
    if offer.certificate.vote.block_hash != below or not core.check.good(offer.certificate, Phase.COMMIT):
        return "a snapshot under an invalid commit certificate"
    return None


def _hash_at(offer: SnapshotOffer, number: int) -> bytes:
    return offer.bucket_hashes[32 * number : 32 * number + 32]


def next_bucket(fetch: SnapshotFetch) -> int:
    return next(number for number in range(BUCKETS) if number not in fetch.buckets)


def on_get_chunk(core: Core, peer: int, message: GetChunk) -> None:
    """Answer with buckets of that state, or with the offer that has replaced it."""
    kept = core.checkpoints.states.get(message.height)
    stable = core.checkpoints.stable_height
    if kept is None or message.height > stable or message.first >= BUCKETS:
        offer = offer_of(core)
        if offer is not None and message.height < stable:
            core.send(peer, offer)
        return
    buckets: list[tuple[tuple[bytes, bytes], ...]] = []
    octets = 0
    for number in range(message.first, BUCKETS):
        pairs = kept[1].pairs(number)
        size = len(encode(pairs))
        if buckets and octets + size > core.params.sync_octets:
            break
        buckets.append(pairs)
        octets += size
    core.send(peer, PutChunk(core.config.epoch, message.height, message.first, tuple(buckets)))


def on_put_chunk(core: Core, peer: int, message: PutChunk) -> None:
    """Buckets that we asked this peer for; each is checked against the certified root."""
    sync = core.sync
    fetch = sync.snapshot
    if fetch is None or sync.blocks is None or sync.blocks.peer != peer:
        return
    if message.height != fetch.offer.checkpoint.body.height:
        return
    honest = True
    for number, pairs in enumerate(message.buckets, message.first):
        if number >= BUCKETS or bucket_hash(pairs) != _hash_at(fetch.offer, number):
            core.fault(peer, f"bucket {number} of the snapshot of height {message.height} is forged")
            honest = False
            break
        fetch.buckets[number] = pairs
    # What we keep is verified bucket by bucket: a lie after the last missing one does not spoil it.
    if honest or len(fetch.buckets) == BUCKETS:
        _next_chunk_or_install(core, peer, fetch)  # else the deadline moves us to the next peer


def _next_chunk_or_install(core: Core, peer: int, fetch: SnapshotFetch) -> None:
    sync, height = core.sync, fetch.offer.checkpoint.body.height
    if len(fetch.buckets) == BUCKETS:
        _install(core, fetch)
        return
    core.send(peer, GetChunk(core.config.epoch, height, next_bucket(fetch)))
    sync.blocks = Fetch(peer, height, core.fetch_deadline_ms)


def _install(core: Core, fetch: SnapshotFetch) -> None:
    """Become a replica that has executed up to the checkpoint. View, accepted blocks and tip stay as they are."""
    offer = fetch.offer
    header, body = offer.header, offer.checkpoint.body
    state = {key: value for number in range(BUCKETS) for key, value in fetch.buckets[number]}
    core.executor.restore(header, state, body.state_root)
    old = core.chain
    core.chain = ChainState(
        header, body.block_hash, best=old.best, tip=old.tip, wake_at=core.application.wake_at(),
        committed_ms=core.now, results_height=core.executor.latest_receipts(), results_since=core.now,
        heard={name: c for name, c in old.heard.items() if c.vote.height > header.height},
    )  # fmt: skip
    for known in old.known.values():
        if known.header.height > header.height:
            core.chain.keep(known)
    for link in (*old.headers.values(), *offer.links):
        link_hash = link.hash
        if link.height > header.height and link_hash not in core.chain.known:
            core.chain.headers[link_hash] = link
    chain.learn_valid(core, offer.certificate)
    if offer.certificate.vote.block_hash == body.block_hash:
        core.chain.certificates[header.height] = offer.certificate
    for entry, why in core.pool.resettle(core.now, header.height):
        if entry.own:
            core.out.answers.append(Answer(entry.hash, admitted=False, reason=why.name))
    core.view.selection = None
    _forget_below(core, header.height)
    frozen = core.executor.freeze()
    core.checkpoints.states = {header.height: (header, frozen)}
    core.checkpoints.stable = core.out.stable = offer.checkpoint
    core.out.snapshot = SnapshotImage(header, frozen.root, state, installed=True)
    if core.chain.best is not None:
        core.persist(WalCommit(core.config.epoch, core.chain.best))
    checkpoints.compact(core)
    core.sync.snapshot = core.sync.blocks = core.sync.behind_since = None
    core.timers.progress_since = core.now


def _forget_below(core: Core, height: int) -> None:
    view, state = core.view, core.checkpoints
    for table in (view.accepted, view.commits):
        for old in [h for h in table if h <= height]:
            del table[old]
    for key in [k for k in view.proposals if k[1] <= height]:
        del view.proposals[key]
    for old in [h for h in state.votes if h <= height]:
        del state.votes[old]
    core.votes.prune(height - core.params.window, view.view - 1)
