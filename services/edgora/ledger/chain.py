"""The chain: blocks that are here, and the single path by which they become committed (ledger.md 6.5, 11).

Rule 1: a valid commit certificate from anyone, in any view, commits its block and all its ancestors, in height order.
Rule 2: there is one commit path, guarded by height: whether votes, state transfer or a restart brought the block,
        it is executed exactly once.
Rule 3: a committed header names results of blocks that we executed; if ours differ, this replica has diverged. It
        stops voting for good and says so; nothing is repaired silently.
"""

from edgora.ledger import checkpoints
from edgora.ledger.effects import Answer, Executed
from edgora.ledger.state import Core, Known
from edgora.wire.codec import encode
from edgora.wire.hashing import merkle_root
from edgora.wire.ledger import Block, Certificate, Header, Phase, Vote, tx_hash
from edgora.wire.pbft import MAX_ANSWER, WalBlock, WalCommit

__all__ = [
    "advance_commits",
    "ancestry",
    "certified_links",
    "identify",
    "learn_certificate",
    "learn_valid",
    "log_body",
    "missing_path",
    "remember",
]

_ABANDONED = 16
"""Uncommitted bodies are kept up to this many buffers; then those accepted in the oldest views go first."""

_HEARD_AHEAD = 2_048
"""How far above the head single commit certificates are kept for the blocks to come; the highest always is."""


def identify(core: Core, block: Block, block_hash: bytes) -> Known | None:
    """The block with its transaction hashes, if the body is the one that its header names; else None."""
    header = block.header
    if header.tx_count != len(block.txs):
        return None
    hashes: list[bytes] = []
    for signed in block.txs:
        entry = core.pool.same(signed)
        hashes.append(tx_hash(signed.tx, core.config.domain) if entry is None else entry.hash)
    leaves = [name + signed.signature for name, signed in zip(hashes, block.txs, strict=True)]
    if merkle_root(leaves) != header.tx_root:
        return None
    return Known(block, block_hash, tuple(hashes), len(encode(block)))


def remember(core: Core, known: Known) -> Known:
    """Keep a body; the one already here, if there is one."""
    chain = core.chain
    present = chain.known.get(known.hash)
    if present is not None:
        return present
    chain.keep(known)
    if len(chain.known) - len(chain.committed) > _ABANDONED * core.params.buffer:
        _evict(core, known)
    return known


def _evict(core: Core, newest: Known) -> None:
    kept = {newest.hash, *ancestry(core, core.view.last_hash), *ancestry(core, newest.header.parent)}
    if core.chain.tip is not None:
        kept.update(ancestry(core, core.chain.tip.vote.block_hash))
    loose = [k for k in core.chain.known.values() if k.header.height > core.chain.head.height and k.hash not in kept]
    if loose:
        victim = min(loose, key=lambda k: (k.accepted_view, k.header.height, k.hash))
        del core.chain.known[victim.hash]


def ancestry(core: Core, block_hash: bytes) -> list[bytes]:
    """Hashes from this block down to just above the head, as far as headers are here; [] for the head itself."""
    path: list[bytes] = []
    header = core.chain.header(block_hash)
    while header is not None and header.height > core.chain.head.height:
        path.append(block_hash)
        block_hash = header.parent
        header = core.chain.header(block_hash)
    return path


def missing_path(core: Core, block_hash: bytes) -> bytes | None:
    """The lowest known-by-name block between the head and this one (inclusive) whose body is missing; None if none is.

    A block that does not descend from the head counts as missing: its ancestry ends in an unknown hash.
    """
    missing: bytes | None = None
    while block_hash != core.chain.head_hash:
        if block_hash not in core.chain.known:
            missing = block_hash
        header = core.chain.header(block_hash)
        if header is None or header.height <= core.chain.head.height:
            return missing or block_hash
        block_hash = header.parent
    return missing


def certified_links(core: Core, height: int) -> tuple[tuple[Header, ...], Certificate] | None:
    """Headers above a committed height up to the nearest one that we hold a commit certificate of, and that."""
    chain = core.chain
    links: list[Header] = []
    while height not in chain.certificates:
        height += 1
        if height not in chain.committed:
            return None
        links.append(chain.known[chain.committed[height]].header)
        if len(links) > MAX_ANSWER:
            return None
    return tuple(links), chain.certificates[height]


def log_body(core: Core, known: Known) -> None:
    """Append a body to the log, once."""
    if not known.logged:
        known.logged = True
        core.persist(WalBlock(known.header.epoch, known.block))


def learn_certificate(core: Core, certificate: Certificate) -> bool:
    """Check a commit certificate and take it in. False if it is no valid one."""
    best = core.chain.best
    if certificate == best:
        return True
    if not core.check.good(certificate, Phase.COMMIT):
        return False
    learn_valid(core, certificate)
    return True


def learn_valid(core: Core, certificate: Certificate) -> None:
    """Take in a commit certificate that is known to be good."""
    chain, vote, fresh = core.chain, certificate.vote, False
    if chain.committed.get(vote.height) == vote.block_hash:
        chain.certificates.setdefault(vote.height, certificate)
    elif chain.head.height < vote.height <= chain.head.height + _HEARD_AHEAD and vote.block_hash not in chain.heard:
        chain.heard[vote.block_hash] = certificate
        fresh = True
    tip = chain.tip
    raises_tip = tip is None or (vote.view, vote.height) > (tip.vote.view, tip.vote.height)
    best = chain.best
    higher = best is None or (vote.height, vote.view) > (best.vote.height, best.vote.view)
    if raises_tip:
        chain.tip = certificate
    if higher:
        chain.best = certificate
    if higher or raises_tip or fresh:  # a lower one too: the highest may be of a block that is not here yet
        core.persist(WalCommit(vote.epoch, certificate))
    _adopt(core, vote)


def _adopt(core: Core, vote: Vote) -> None:
    """Take a certified body from a proposal that we could not vote for (our clock, our lag): it is here already."""
    proposal = core.view.proposals.get((vote.view, vote.height))
    if proposal is None or proposal.block_hash != vote.block_hash or vote.block_hash in core.chain.known:
        return
    known = proposal.known or identify(core, Block(proposal.message.header, proposal.message.txs), vote.block_hash)
    if known is not None:
        remember(core, known)


def advance_commits(core: Core) -> bool:
    """Execute what is certified and here. True if the head moved."""
    chain = core.chain
    best = chain.best
    if best is None or best.vote.height <= chain.head.height or core.halted is not None:
        return False
    # The highest certificate may be of a block that is not here yet; then a lower one can still commit something.
    below = sorted(chain.heard.values(), key=lambda c: c.vote.height, reverse=True)
    for certificate in (best, *(c for c in below if c != best)):
        path = _path_from_head(core, certificate.vote.block_hash)
        if path and path[0] in chain.known:
            return _commit_along(core, path, certificate)
    return False


def _path_from_head(core: Core, block_hash: bytes) -> list[bytes]:
    """Hashes from the head's child up to this block; [] if the headers between are not all here."""
    path = ancestry(core, block_hash)
    if not path:
        return []
    lowest = core.chain.header(path[-1])
    assert lowest is not None
    if lowest.height != core.chain.head.height + 1:
        return []
    if lowest.parent != core.chain.head_hash:
        core.halt(f"a certified chain forks from ours below height {lowest.height}")
        return []
    path.reverse()
    return path


def _commit_along(core: Core, path: list[bytes], certificate: Certificate) -> bool:
    chain, committed = core.chain, 0
    for block_hash in path:
        known = chain.known.get(block_hash)
        if known is None or core.halted is not None:
            break
        chain.proof = certificate
        _commit(core, known, certificate if block_hash == certificate.vote.block_hash else chain.heard.get(block_hash))
        committed += 1
    if committed < len(path) and core.halted is None:
        # What proves the head hangs on headers whose bodies are not here: a restart must find them again.
        core.persist_links(
            [chain.headers[block_hash] for block_hash in path[committed:] if block_hash in chain.headers]
        )
    return committed > 0


def _diverged(core: Core, header: Header) -> str | None:
    """How a certified header contradicts our own results; None if it does not."""
    root = core.executor.root_after(header.exec_height)
    if root is not None and root != header.state_root:
        return (
            f"the certified header {header.height} gives state {header.state_root.hex()} after height "
            f"{header.exec_height}, ours is {root.hex()}"
        )
    receipts = core.executor.receipts_between(core.chain.head.exec_height, header.exec_height)
    if receipts is not None and receipts != (header.receipt_root, header.receipt_count):
        return f"the certified header {header.height} gives other receipts up to height {header.exec_height} than ours"
    return None


def _commit(core: Core, known: Known, certificate: Certificate | None) -> None:
    """Make a block the head: execute it, hand it on, settle pool and timers. Its parent is the head."""
    chain, header = core.chain, known.header
    divergence = _diverged(core, header)
    if divergence is not None:
        core.halt(divergence)
        return
    log_body(core, known)
    core.out.sync = True  # the commit's records are durable before anybody is told of it
    result = core.executor.execute(header, known.hash, known.block.txs, known.hashes)
    chain.head, chain.head_hash = header, known.hash
    chain.committed[header.height] = known.hash
    chain.retained_octets += known.octets
    if certificate is not None:
        chain.certificates[header.height] = certificate
    chain.committed_ms = core.now
    chain.wake_at = core.application.wake_at()
    if result.substantial:
        if chain.results_height <= header.exec_height:
            chain.results_since = core.now
        chain.results_height = header.height
    core.out.executed.append(Executed(known.block, certificate, result.receipts, result.events, result.state_root))
    for entry, why in core.pool.executed(known.block.txs, known.hashes, core.now, header.height):
        if entry.own:
            core.out.answers.append(Answer(entry.hash, admitted=False, reason=why.name))
    _settle_view(core, known, result.unconsumed)
    _drop_siblings(core, known)
    core.executor.forget_below(min(header.exec_height, header.height - core.params.buffer))
    if header.height % core.params.checkpoint_interval == 0:
        checkpoints.take(core)


def _settle_view(core: Core, known: Known, unconsumed: tuple[tuple[bytes, int], ...]) -> None:
    """What a commit means to the view that we are in."""
    view = core.view
    view.in_flight.difference_update(known.hashes)
    if view.selection is not None:
        view.selection.committed(known.hashes, unconsumed)
    if view.active:
        view.committed_here = True
        view.failures = 0
    core.timers.progress_since = core.now
    for height in [h for h in view.accepted if h <= known.header.height]:
        del view.accepted[height]
    for height in [h for h in view.commits if h <= known.header.height]:
        del view.commits[height]
    for key in [k for k in view.proposals if k[1] <= known.header.height]:
        del view.proposals[key]
    core.votes.prune(known.header.height - core.params.window, view.view - 1)


def _drop_siblings(core: Core, known: Known) -> None:
    """Forget bodies that lost against the committed block; their transactions are in the pool since acceptance."""
    chain, height = core.chain, known.header.height
    for block_hash in chain.at_height.pop(height, ()):
        if block_hash != known.hash:
            chain.known.pop(block_hash, None)
    for block_hash in [h for h, header in chain.headers.items() if header.height <= height]:
        del chain.headers[block_hash]
    for block_hash in [h for h, c in chain.heard.items() if c.vote.height <= height]:
        del chain.heard[block_hash]
