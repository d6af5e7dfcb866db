"""The primary's half of the normal case: when to propose, what, and how a view starts (ledger.md 3, 6.2, 7, 10).

A block closes when it is full, or after a delay: short while the pipeline is idle, the block gap behind the previous
proposal else, so that idle latency is low and a busy core is not spent on small blocks. Without transactions it
proposes to seal results that no header certifies yet, and to let header time pass a moment that the application waits
for. Nothing to order, seal or wake: silence.
"""

from edgora.ledger import chain, normal
from edgora.ledger.config import Params
from edgora.ledger.effects import ALL
from edgora.ledger.pool import Selection
from edgora.ledger.state import Core, Known
from edgora.wire.codec import encode
from edgora.wire.hashing import merkle_root
from edgora.wire.ledger import Block, Header, Phase, SignedTx, Vote
from edgora.wire.pbft import PrePrepare

__all__ = ["advance_propose", "seal_due"]


def seal_due(core: Core, above: Header) -> int | None:
    """When an empty block is due to certify results that no header up to `above` names; None if there are none."""
    if core.chain.results_height <= above.exec_height:
        return None
    return core.chain.results_since + core.params.seal_delay_ms


def advance_propose(core: Core) -> bool:
    """Propose if this replica is the primary and something is due; else set the timer for it. True if it proposed."""
    normal.catch_up(core)
    view, head = core.view, core.chain.head
    if not view.active or not core.may_sign or not core.is_primary or core.chain.best_height > head.height:
        core.set_timer("propose", None)
        return False
    if view.pending_base is not None:
        return _repropose(core, view.pending_base.hash)
    height, parent = view.last_height + 1, core.chain.header(view.last_hash)
    if (
        not head.height < height <= head.height + core.params.window
        or parent is None
        or normal.too_far_ahead(core, height)
    ):
        core.set_timer("propose", None)
        return False
    if parent.exec_height > head.height:
        return False
    if view.selection is None:
        view.selection = Selection(core.pool, core.executor, core.params, _uncommitted(core))
        view.batch_since = None
    view.selection.fill(height)
    due = _due(core, view.selection, parent, core.params)
    if due is None or due > core.now:
        core.set_timer("propose", due)
        return False
    core.set_timer("propose", None)
    _propose(core, height, parent)
    return True


def _uncommitted(core: Core) -> list[tuple[bytes, SignedTx]]:
    """Transactions of the blocks between the head and the last accepted one."""
    found: list[tuple[bytes, SignedTx]] = []
    for block_hash in chain.ancestry(core, core.view.last_hash):
        known = core.chain.known[block_hash]
        found += zip(known.hashes, known.block.txs, strict=True)
    return found


def _due(core: Core, selection: Selection, parent: Header, params: Params) -> int | None:
    """When the next block is to be proposed (ledger.md 3, 7); None while there is nothing to propose."""
    view = core.view
    if not selection.batch:
        view.batch_since = None
    elif view.batch_since is None:
        view.batch_since = core.now
    if selection.full:
        return core.now
    spaced = view.proposed_ms + params.block_gap_ms
    due: int | None = None
    if view.batch_since is not None:
        idle = view.last_height == core.chain.head.height
        due = view.batch_since + params.batch_delay_ms if idle else spaced
    else:
        seal = seal_due(core, parent)
        if seal is not None:
            due = max(seal, spaced)
    wake = core.chain.wake_at
    if wake is not None and parent.time_ms < wake:
        wake = max(wake + core.shift, spaced)
        due = wake if due is None else min(due, wake)
    return due


def _propose(core: Core, height: int, parent: Header) -> None:
    view, executed = core.view, core.executor.height
    assert view.selection is not None
    batch = view.selection.close(height)
    view.batch_since = None
    txs = tuple(entry.signed for entry in batch)
    hashes = tuple(entry.hash for entry in batch)
    receipts = core.executor.receipts_between(parent.exec_height, executed)
    root = core.executor.root_after(executed)
    assert receipts is not None
    assert root is not None
    header = Header(
        epoch=core.config.epoch, height=height, parent=view.last_hash,
        tx_root=merkle_root([name + signed.signature for name, signed in zip(hashes, txs, strict=True)]),
        tx_count=len(txs), exec_height=executed, state_root=root, receipt_root=receipts[0], receipt_count=receipts[1],
        next_epoch=bytes(32), time_ms=max(core.wall, parent.time_ms + 1),
        proposer=core.config.validators[core.me],
    )  # fmt: skip
    block = Block(header, txs)
    known = chain.remember(core, Known(block, header.hash, hashes, len(encode(block))))
    _send_proposal(core, known)


def _repropose(core: Core, block_hash: bytes) -> bool:
    """Start the view with exactly its base, as soon as its ancestry and the results that it names are here."""
    core.set_timer("propose", None)
    known = core.chain.known.get(block_hash)
    if known is None or chain.missing_path(core, known.header.parent) is not None:
        return False
    verdict = normal.check_results(core, known.header)
    if verdict:
        core.halt(f"the prepared block {known.header.height}: {verdict}")
    if verdict != "":
        return False
    _send_proposal(core, known)
    return True


def _send_proposal(core: Core, known: Known) -> None:
    view, header = core.view, known.header
    vote = Vote(Phase.PREPARE, core.config.epoch, view.view, header.height, known.hash)
    signature = core.sign(vote)
    compact = core.params.compact and header.tx_count > 0
    message = PrePrepare(
        core.config.epoch, view.view, header, () if compact else known.block.txs, known.hashes if compact else (),
        signature, core.chain.certificates.get(header.exec_height) or core.chain.best,
    )  # fmt: skip
    normal.accept(core, known, message, signature)
    core.send(ALL, message)
    view.proposed_ms = core.now
    core.timers.heartbeat_ms = core.now
