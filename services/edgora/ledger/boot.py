"""From a disk to a replica (ledger.md 12).

The snapshot gives state and head; the log gives all that is above it: bodies, what we accepted, our tip, our view, and
commit certificates. Nothing is signed anew: what was signed last is sent again from the log, byte for byte, so a
restart can never make two different votes for one place.
"""

from edgora.ledger import chain, checkpoints, views
from edgora.ledger.effects import ALL, DurableState, SnapshotImage
from edgora.ledger.normal import catch_up
from edgora.ledger.state import Accepted, ChainState, Core
from edgora.ledger.sync import own_status
from edgora.wire.errors import Broken
from edgora.wire.ledger import Phase
from edgora.wire.pbft import (
    CheckpointVote,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    ViewChange,
    WalAccepted,
    WalBlock,
    WalCheckpoint,
    WalCommit,
    WalEvidence,
    WalLinks,
    WalNewView,
    WalStable,
    WalTip,
    WalView,
)  # fmt: skip

__all__ = ["boot"]


class _Log:
    """The log's records by what they are for; the last one of a kind wins where only one can hold."""

    def __init__(self, core: Core, state: DurableState) -> None:
        self.accepted: dict[tuple[int, int], WalAccepted] = {}
        self.commits: dict[tuple[int, int], WalTip] = {}
        self.change: ViewChange | None = None
        self.new_view: NewView | None = None
        floor = core.chain.head.height
        for record in state.records:
            match record:
                case WalBlock(_, block):
                    if block.header.height > floor:
                        self._body(core, record)
                case WalAccepted(_, view, height):
                    self.accepted[view, height] = record
                case WalTip(_, certificate):
                    self.commits[certificate.vote.view, certificate.vote.height] = record
                    tip, vote = core.chain.tip, certificate.vote
                    if tip is None or (vote.view, vote.height) > (tip.vote.view, tip.vote.height):
                        core.chain.tip = certificate
                case WalView(_, change):
                    self.change = change
                case WalNewView(_, new_view):
                    self.new_view = new_view
                case WalLinks(_, headers):
                    core.chain.headers.update({h.hash: h for h in headers if h.height > floor})
                case WalCommit(_, certificate):
                    chain.learn_valid(core, certificate)
                case WalCheckpoint(_, body, signature):
                    core.checkpoints.own = CheckpointVote(core.config.epoch, body, signature)
                case WalStable(_, certificate):
                    if certificate.body.height <= floor:
                        core.checkpoints.stable = certificate
                case WalEvidence(_, evidence):
                    if evidence not in core.evidence:  # a compaction wrote it again
                        core.evidence.append(evidence)
        core.out.persist.clear()  # all of it is in the log already

    @staticmethod
    def _body(core: Core, record: WalBlock) -> None:
        block_hash = record.block.header.hash
        known = core.chain.known.get(block_hash) or chain.identify(core, record.block, block_hash)
        if known is None:
            raise Broken(f"the log holds a block of height {record.block.header.height} whose body is not its header's")
        known.logged = True
        if block_hash not in core.chain.known:
            core.chain.keep(known)


def boot(core: Core, state: DurableState) -> None:
    """Rebuild durable state, execute what is committed, and say again what was said last."""
    core.booted = True
    core.boot_nonce = state.boot_nonce
    core.view.entered_ms = core.timers.heartbeat_ms = core.timers.status_ms = core.timers.rearmed_ms = core.now
    if state.snapshot is not None:
        _restore(core, state.snapshot)
    core.chain.wake_at = core.application.wake_at()
    log = _Log(core, state)
    chain.advance_commits(core)
    _view(core, log)
    if core.may_sign:
        _votes(core, log)
        _say_again(core)
    core.send(ALL, own_status(core))


def _restore(core: Core, image: SnapshotImage) -> None:
    core.executor.restore(image.header, dict(image.state), image.state_root)
    header, block_hash = image.header, image.block_hash
    core.chain = ChainState(header, block_hash, results_height=core.executor.latest_receipts(), results_since=core.now)
    core.checkpoints.states[header.height] = (header, core.executor.freeze())


def _view(core: Core, log: _Log) -> None:
    """The latest view that we entered or left for."""
    change, entered = log.change, log.new_view
    if entered is not None and (change is None or entered.view >= change.body.new_view):
        views.enter(core, entered)
    elif change is not None:
        view = core.view
        view.view, view.active, view.own_change = change.body.new_view, False, change
        view.changes[core.me] = change
        core.timers.resent_ms = core.now
    if core.view.view == 0 and core.view.active:
        core.view.last_height, core.view.last_hash = 0, core.config.genesis.hash


def _votes(core: Core, log: _Log) -> None:
    """What we accepted and committed to in the present view."""
    view, epoch = core.view, core.config.epoch
    for (number, _), record in sorted(log.accepted.items()):
        known = core.chain.known.get(record.block_hash)
        if known is not None:
            known.accepted_view = number
    if not view.active:
        return
    catch_up(core)
    for (number, height), record in sorted(log.accepted.items()):
        if number != view.view or height <= view.last_height:
            continue
        view.last_height, view.last_hash, view.pending_base = height, record.block_hash, None
        if height <= core.chain.head.height:
            continue
        known = core.chain.known.get(record.block_hash)
        if known is None:
            raise Broken(f"the log names block {height} as accepted in view {number} and does not hold it")
        message: Prepare | PrePrepare = Prepare(epoch, number, height, record.block_hash, record.signature)
        if core.is_primary:
            executed = core.chain.certificates.get(known.header.exec_height) or core.chain.best
            message = PrePrepare(epoch, number, known.header, known.block.txs, (), record.signature, executed)
        view.accepted[height] = Accepted(record.block_hash, record, message, core.now)
        core.votes.cast(core.me, (Phase.PREPARE, number, height), record.block_hash, record.signature, verified=True)
    for (number, height), tip in sorted(log.commits.items()):
        if number != view.view or height <= core.chain.head.height or tip.signature is None:
            continue
        commit = Commit(epoch, number, height, tip.certificate.vote.block_hash, tip.signature)
        view.commits[height] = (tip, commit, core.now)
        core.votes.cast(core.me, (Phase.COMMIT, number, height), commit.block_hash, tip.signature, verified=True)
    for block_hash in chain.ancestry(core, view.last_hash):
        if block_hash in core.chain.known:
            view.in_flight |= core.chain.known[block_hash].unique


def _say_again(core: Core) -> None:
    view = core.view
    for height in sorted(view.accepted):
        core.send(ALL, view.accepted[height].message)
    for height in sorted(view.commits):
        core.send(ALL, view.commits[height][1])
    if view.own_change is not None:
        core.send(ALL, view.own_change)
    own = core.checkpoints.own
    if own is not None and own.body.height > core.checkpoints.stable_height:
        core.send(ALL, own)
        checkpoints.count(core, core.me, own)
