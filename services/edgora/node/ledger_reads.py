"""Blocks, headers, transactions, receipts, proofs and state values, as this node has them stored (ledger.md 8, 18).

Answer levels are named everywhere: ADMITTED (in a pool: no promise), COMMITTED (executed here), CERTIFIED (its receipt
stands under a header with a commit certificate). Proofs are checkable offline with the validator list alone.
"""

from collections import Counter
from typing import Literal

from edgora.ledger.proofs import prove_receipt, prove_tx, prove_value
from edgora.node import views
from edgora.node.follower import Follower
from edgora.node.queries import page
from edgora.ports.consensus import Consensus, EvidenceView
from edgora.ports.consensus import ViewStep as Step
from edgora.ports.store import StoredBlock
from edgora.wire import rest
from edgora.wire.codec import encode
from edgora.wire.errors import NotFound, Refused, Unavailable
from edgora.wire.genesis import Genesis
from edgora.wire.ledger import Header, Kind, Receipt, ReceiptProof
from edgora.wire.pbft import Offence

__all__ = ["LedgerReads"]

ProofName = Literal["TASK", "RESULT_HASH", "SETTLEMENT", "TX", "RECEIPT"]
MAX_HEADERS = 256
LINEAR_TIMEOUT_MS = 5_000


class LedgerReads:
    """The ledger's own resources."""

    def __init__(self, genesis: Genesis, follower: Follower, consensus: Consensus) -> None:
        self._genesis, self._follower, self._consensus = genesis, follower, consensus
        self._index_of: dict[bytes, int] = {address: i for i, address in enumerate(genesis.addresses)}

    # ---- blocks

    def _stored(self, height: int) -> StoredBlock:
        found = self._follower.store.block(height) if 0 < height <= self._follower.height else None
        if found is None:
            raise NotFound(
                f"block {height} is not stored here; the newest is {self._follower.height}", field="height",
                fix="ask another node for older blocks, or wait for newer ones",
            )  # fmt: skip
        return found

    def block(self, height: int) -> rest.Block:
        stored = self._stored(height)
        certified = self._follower.store.certificate_from(height) is not None
        return views.block(stored.block, stored.receipts, stored.state_root, stored.certificate, certified)

    def blocks(self, cursor: str | None, limit: int) -> rest.BlockPage:
        """Newest first."""
        newest = self._follower.height
        last = newest
        if cursor is not None and cursor.isascii() and cursor.isdigit() and len(cursor) < 20:
            last = min(newest, int(cursor) - 1)
        heights = ((height, height) for height in range(last, 0, -1))
        found, more = page(heights, cursor, limit)
        signed = self._follower.store.certificate_from(min(found)) if found else None
        upto = newest if signed is not None else 0
        items = [self._summary(stored, upto) for h in found if (stored := self._follower.store.block(h)) is not None]
        return rest.BlockPage(items=items, cursor=more)

    def _summary(self, stored: StoredBlock, signed_upto: int) -> rest.BlockSummary:
        head = stored.block.header
        certified = stored.certificate is not None or (
            bool(signed_upto) and self._follower.store.certificate_from(head.height) is not None
        )
        kinds = Counter(_kind_name(signed.tx.kind) for signed in stored.block.txs)
        return rest.BlockSummary(
            height=head.height, hash=views.hex_of(head.hash), time_ms=head.time_ms,
            proposer=self._index_of.get(head.proposer, -1), kinds=dict(sorted(kinds.items())),
            refused=sum(receipt.code != 0 for receipt in stored.receipts), certified=certified,
            signers=[] if stored.certificate is None else stored.certificate.signers(),
            view=None if stored.certificate is None else stored.certificate.vote.view,
        )  # fmt: skip

    def headers(self, first: int, last: int) -> rest.HeaderList:
        if last < first or last - first >= MAX_HEADERS:
            raise Refused(
                f"{first}..{last} is not a range of at most {MAX_HEADERS} headers", field="query.to",
                fix=f"ask for at most {MAX_HEADERS} at a time, from <= to",
            )  # fmt: skip
        found = self._follower.store.headers(first, min(last, self._follower.height))
        return rest.HeaderList(items=[views.header(header) for header in found])

    def epoch(self, number: int) -> rest.EpochInfo:
        """Version 1 has the epoch of the genesis document only."""
        if number != 0:
            raise NotFound(f"epoch {number} has not begun", field="epoch", fix="the present epoch is 0")
        epoch = self._genesis.epoch()
        return rest.EpochInfo(
            epoch=0, first_height=epoch.first_height,
            validators=[views.hex_of(address) for address in self._genesis.addresses],
            validators_hash=views.hex_of(epoch.validators_hash), params_hash=views.hex_of(epoch.params_hash),
            quorum=self._follower.market.core.q,
        )  # fmt: skip

    async def evidence(self) -> rest.EvidenceList:
        """What the ledger has ordered, and what our replica holds, if it can be asked."""
        try:
            held = (await self._consensus.status()).evidence
        except Unavailable:
            held = ()
        items = [
            rest.EvidenceItem(
                kind=found.kind, height=found.height, accused=found.accused,
                tx_hash=None if found.tx_hash is None else views.hex_of(found.tx_hash),
                payload=views.hex_of(found.payload),
            )
            for found in self._follower.archive.evidence
        ]  # fmt: skip
        return rest.EvidenceList(items=items, held=[_held(item) for item in held])

    async def views(self) -> rest.ViewHistory:
        """Which views this validator left, and why, and entered. Raises Unavailable while the consensus half is away."""
        status = await self._consensus.status()
        return rest.ViewHistory(
            server=status.own_index, view=status.view, view_active=status.view_active, primary=status.primary,
            view_changes=status.view_changes, items=[_step(step) for step in reversed(status.steps)],
        )  # fmt: skip

    async def checkpoints(self) -> rest.CheckpointList:
        """States that a quorum signed, as they became stable here. Raises Unavailable as `views` does."""
        status, every = await self._consensus.status(), self._genesis.consensus.checkpoint_every
        items = [
            rest.Checkpoint(
                height=found.height, block_hash=views.hex_of(found.block_hash),
                state_root=views.hex_of(found.state_root), signers=list(found.signers), stable_ms=found.at_ms,
            )
            for found in reversed(status.checkpoints)
        ]  # fmt: skip
        return rest.CheckpointList(
            server=status.own_index, every=every, stable=status.stable_checkpoint,
            next=(status.executed_height // every + 1) * every, items=items,
        )  # fmt: skip

    # ---- transactions and receipts

    def _place(self, tx_hash: bytes) -> tuple[StoredBlock, int] | None:
        place = self._follower.store.place_of(tx_hash)
        if place is None or place[0] > self._follower.height:
            return None
        stored = self._follower.store.block(place[0])
        return None if stored is None else (stored, place[1])

    def status(self, tx_hash: str) -> rest.TxStatus:
        found = self._place(views.unhex(tx_hash, "hash"))
        if found is None:
            return rest.TxStatus(tx_hash=tx_hash, level="UNKNOWN", height=None, index=None, tx=None, receipt=None)
        stored, index = found
        receipt, height = stored.receipts[index], stored.block.header.height
        return rest.TxStatus(
            tx_hash=tx_hash, level="COMMITTED" if self._follower.certified_by(height) is None else "CERTIFIED",
            height=height, index=index, tx=views.tx(stored.block.txs[index], receipt.tx_hash),
            receipt=views.receipt(receipt),
        )  # fmt: skip

    def _executed(self, tx_hash: bytes) -> tuple[StoredBlock, int]:
        found = self._place(tx_hash)
        if found is None:
            raise NotFound(
                f"transaction 0x{tx_hash.hex()} is in no block that is stored here", field="hash",
                fix="wait for its receipt, or ask another node if it is an old one",
            )  # fmt: skip
        return found

    def tx_proof(self, tx_hash: str) -> rest.Proof:
        return self._tx_proof("TX", views.unhex(tx_hash, "hash"))

    def _tx_proof(self, name: ProofName, digest: bytes) -> rest.Proof:
        """That the transaction stands in a certified block. Raises NotFound, or Unavailable while it is not certified."""
        stored, index = self._executed(digest)
        height = stored.block.header.height
        signed = self._follower.store.certificate_from(height)
        headers = () if signed is None else tuple(self._follower.store.headers(height, signed[0]))
        if signed is None or len(headers) != signed[0] - height + 1:
            raise _not_yet(digest)
        proof = prove_tx(stored.block, [r.tx_hash for r in stored.receipts], index, headers, signed[1])
        return rest.Proof(
            name=name, tx_hash=views.hex_of(digest), kind="tx", height=height, certified_height=signed[0], epoch=headers[0].epoch,
            proof=views.hex_of(encode(proof)), receipt=views.receipt(stored.receipts[index]),
        )  # fmt: skip

    def receipt_proof(self, tx_hash: bytes) -> ReceiptProof:
        """That the receipt stands under a certified header. Raises NotFound, or Unavailable while it does not."""
        stored, index = self._executed(tx_hash)
        receipt = stored.receipts[index]
        signed = self._follower.certified_by(receipt.height)
        if signed is None:
            raise _not_yet(tx_hash)
        headers, certificate = signed
        receipts, place = self._receipts_under(headers[0], receipt)
        return prove_receipt(receipts, place, headers, certificate)

    def _receipts_under(self, header: Header, receipt: Receipt) -> tuple[list[Receipt], int]:
        """(all receipts that this header names, place of one of them)."""
        parent = self._follower.store.headers(header.height - 1, header.height - 1)
        above = parent[0].exec_height if parent else 0
        receipts: list[Receipt] = []
        place = 0
        for height in range(above + 1, header.exec_height + 1):
            stored = self._follower.store.block(height)
            if stored is None:
                raise _not_yet(receipt.tx_hash)
            if height == receipt.height:
                place = len(receipts) + receipt.index
            receipts += stored.receipts
        return receipts, place

    def receipt_proof_body(self, tx_hash: str) -> rest.Proof:
        return self._proof_body("RECEIPT", self.receipt_proof(views.unhex(tx_hash, "hash")))

    @staticmethod
    def _proof_body(name: ProofName, proof: ReceiptProof) -> rest.Proof:
        return rest.Proof(
            name=name, tx_hash=views.hex_of(proof.receipt.tx_hash), kind="receipt", height=proof.receipt.height,
            certified_height=proof.headers[-1].height, epoch=proof.headers[0].epoch,
            proof=views.hex_of(encode(proof)), receipt=views.receipt(proof.receipt),
        )  # fmt: skip

    def task_proofs(self, task_id: str) -> rest.TaskProofs:
        """What is certified of a task's life: TASK, RESULT_HASH, the SETTLEMENT of its batch.

        Of each the receipt (its rule accepted it) and the transaction (what it said).
        """
        archive = self._follower.archive
        task = archive.tasks.get(views.unhex(task_id, "id"))
        if task is None:
            raise NotFound(f"no task {task_id} up to height {self._follower.height}", field="id", fix="check the id")
        known = self._follower.market.task(task.offer_id)
        number = task.batch if known is None or not known.batch else known.batch
        batch = None if number is None else archive.batches.get(number)
        named: tuple[tuple[ProofName, bytes | None], ...] = (
            ("TASK", task.tx_hash), ("RESULT_HASH", task.result_tx),
            ("SETTLEMENT", None if batch is None else batch.settlement_tx),
        )  # fmt: skip
        items: list[rest.Proof] = []
        for name, tx_hash in named:
            if tx_hash is not None:
                try:
                    receipt = self._proof_body(name, self.receipt_proof(tx_hash))
                    items += [receipt, self._tx_proof(name, tx_hash)]
                except (NotFound, Unavailable):
                    continue  # not certified yet, or its block is older than this node's store
        validators = [views.hex_of(address) for address in self._genesis.addresses]
        return rest.TaskProofs(task=task_id, validators=validators, items=items)

    # ---- state

    async def state(self, key: str, read: str, now_ms: int) -> rest.StateValue:
        """A value by its key. local: may be stale. certified: with a proof. linear: not older than any finished write."""
        name = views.unhex(key, "key")
        if read == "certified":
            return self._certified(name, now_ms)
        if read == "linear":
            await self._catch_up_with_quorum()
        value = self._follower.value(name)
        return rest.StateValue(
            key=key, value=None if value is None else views.hex_of(value), read="linear" if read == "linear" else "local",
            height=self._follower.height, age_ms=max(0, now_ms - self._follower.header_time_ms),
            state_root=views.hex_of(self._follower.executor.state_root), proof=None,
        )  # fmt: skip

    def _certified(self, key: bytes, now_ms: int) -> rest.StateValue:
        found = self._follower.certified_state()
        if found is None:
            raise Unavailable("no certified state is at hand since this node's start", fix="try again in a second")
        proof = prove_value(found.state, key, found.headers, found.certificate)
        return rest.StateValue(
            key=views.hex_of(key), value=None if proof.value is None else views.hex_of(proof.value), read="certified",
            height=found.height, age_ms=max(0, now_ms - found.headers[-1].time_ms),
            state_root=views.hex_of(found.state.root), proof=views.hex_of(encode(proof)),
        )  # fmt: skip

    async def _catch_up_with_quorum(self) -> None:
        """Wait until this half has executed the highest height that a quorum's status names (ledger.md 8, linear)."""
        status = await self._consensus.status()
        heard = sorted((v.committed_height for v in status.voters if v.last_heard_ms is not None), reverse=True)
        if len(heard) < status.quorum:
            raise Unavailable(
                f"{len(heard)} of {status.quorum} validators were heard; a linear read needs a quorum",
                fix="read locally, or try again when links are back",
            )  # fmt: skip
        await self._follower.reach(heard[0], LINEAR_TIMEOUT_MS)


_OFFENCES: dict[Offence, tuple[Literal["DOUBLE_VOTE", "FORGOTTEN_TIP", "DOUBLE_CHECKPOINT"], str]] = {
    Offence.DOUBLE_VOTE: ("DOUBLE_VOTE", "validator {0} signed votes for two different blocks at one place"),
    Offence.FORGOTTEN_TIP: (
        "FORGOTTEN_TIP", "validator {0} asked for a new view and named nothing as high as a block that it had committed to",
    ),
    Offence.DOUBLE_CHECKPOINT: ("DOUBLE_CHECKPOINT", "validator {0} signed two different states of one height"),
}  # fmt: skip


def _held(item: EvidenceView) -> rest.HeldEvidence:
    name, words = _OFFENCES[Offence(item.offence)]
    return rest.HeldEvidence(
        offence=name, accused=item.accused, sentence=words.format(item.accused), proof=views.hex_of(item.proof)
    )


def _step(step: Step) -> rest.ViewStep:
    if step.entered:
        words = f"view {step.view} began with primary {step.primary}; asked for by {', '.join(map(str, step.asked))}"
    else:
        words = f"left view {step.left} and asked for view {step.view} with primary {step.primary}: {step.why}"
    return rest.ViewStep(
        at_ms=step.at_ms, step="ENTERED" if step.entered else "LEFT", view=step.view, primary=step.primary,
        left=step.left, reason=step.why, asked=list(step.asked), sentence=words,
    )  # fmt: skip


def _kind_name(kind: int) -> str:
    return Kind(kind).name if kind in Kind.__members__.values() else f"KIND_{kind}"


def _not_yet(tx_hash: bytes) -> Unavailable:
    return Unavailable(
        f"transaction 0x{tx_hash.hex()} is executed, its receipt is not certified yet", field="hash",
        fix="ask again in a moment",
    )  # fmt: skip
