"""From a frozen batch to money: SETTLEMENT on the ledger, `settle` and `refund` on the chain (market.md 6).

Validators take turns: the one that the batch's number names goes first, each next one a step later, so a dead one delays
payment and nothing more. Whoever loses the race on the chain sees SettlementOutOfOrder and treats it as done.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence

from edgora.market.duties import SettlementDuty, refundable_locks, settlement_duty
from edgora.market.records import Lock
from edgora.node.archive import BATCHES
from edgora.node.duties.chain_facts import ChainFacts
from edgora.node.duties.post import Post
from edgora.node.ledger_reads import LedgerReads
from edgora.ports.tracing import Span, Stage
from edgora.wire.codec import encode
from edgora.wire.errors import EdgoraError, NotFound, RuleRefused, Unavailable, Unknown
from edgora.wire.ledger import Kind
from edgora.wire.market import code_name
from edgora.wire.settlement import lock_key

__all__ = ["Settle"]

_log = logging.getLogger("edgora.duty.settle")
STEP_MS = 2_000
"""How long each validator has before the next one's turn; at least two chain blocks."""
LOOK_S = 0.5
AGAIN_MS = 10_000
"""Before a chain transaction that seems to have had no effect is sent again."""


class Settle:
    """This validator's part in paying."""

    name = "settle"

    def __init__(self, post: Post, reads: LedgerReads, facts: ChainFacts) -> None:
        self._post, self._reads, self._facts = post, reads, facts
        self.says = "no batch waits"
        self.gas_used: OrderedDict[int, int] = OrderedDict()
        """By batch: gas of the settlements that we sent, by their chain receipts; the last ones."""
        self._since: dict[tuple[int, str], int] = {}
        """(batch, stage) -> when we first saw it there, for the turns."""
        self._sent: dict[bytes | int, int] = {}
        """What was sent to the chain last, and when."""

    async def run(self) -> None:
        """Certify, settle, refund; until cancelled."""
        while True:
            duty = settlement_duty(self._post.market)
            if duty is None:
                self.says = "no batch waits"
                self._since.clear()
            elif duty.certify:
                await self._certify(duty)
            else:
                await self._settle(duty)
            await self._refund()
            await self._post.moved_or(LOOK_S)

    def _turn(self, number: int, stage: str, first: int) -> bool:
        """Whether our turn has come."""
        validators = len(self._post.genesis.validators)
        begun = self._since.setdefault((number, stage), self._post.clock.now_ms())
        return self._post.clock.now_ms() - begun >= (self._post.index - first) % validators * STEP_MS

    async def _certify(self, duty: SettlementDuty) -> None:
        number = duty.payload.batch_id
        self.says = f"batch {number} is frozen and waits for its SETTLEMENT"
        if not self._turn(number, "frozen", duty.first):
            return
        receipt = await self._post.lanes.send(Kind.SETTLEMENT, encode(duty.payload))
        _log.info("settlement filed", extra={"batch": number, "rule": code_name(receipt.code)})

    async def _settle(self, duty: SettlementDuty) -> None:
        post, record = self._post, duty.batch.record
        self.says = f"batch {record.id} is certified and waits for the chain"
        now = post.clock.now_ms()
        if not self._turn(record.id, "certified", duty.first) or now - self._sent.get(record.id, 0) < AGAIN_MS:
            return
        archived = post.follower.archive.batches.get(record.id)
        if archived is None or archived.settlement_tx is None:
            self.says = f"batch {record.id}: its SETTLEMENT is older than this node's blocks; others settle it"
            return
        try:
            proof = self._reads.receipt_proof(archived.settlement_tx)
        except (NotFound, Unavailable):
            return  # its header is not certified yet
        self._sent[record.id] = now
        try:
            mined = await post.chain.settle(post.keys.signer, record.id, record.task_root, record.payload, proof)
        except RuleRefused as error:
            if error.rule != "SettlementOutOfOrder":
                _log.warning("settle reverted", extra={"batch": record.id, "rule": error.rule})
        except Unknown as error:
            _log.warning("settle outcome unknown", extra={"batch": record.id, "detail": error.detail})
        except Unavailable as error:
            del self._sent[record.id]
            self.says = f"the chain is not reached: {error.detail}"
        else:
            self.gas_used[record.id] = mined.gas_used
            if len(self.gas_used) > BATCHES:
                self.gas_used.popitem(last=False)
            self._told(record.id, now, mined.gas_used, archived.tasks)
            _log.info("batch settled", extra={"batch": record.id, "gas": mined.gas_used, "chain_tx": mined.tx_hash})

    def _told(self, batch: int, began_ms: int, gas: int, tasks: Sequence[bytes]) -> None:
        """The chain took a batch: for the traces of the tasks that it pays."""
        tracing, now = self._post.tracing, self._post.clock.now_ms()
        for task in tasks if tracing.on else ():
            what = {"batch": batch, "gas": gas, "lines": len(tasks)}
            tracing.span(Span(task, Stage.CHAIN, began_ms, now, (batch, self._post.index), what))

    # ---- refunds

    async def _refund(self) -> None:
        """Money of locks that nobody can be paid from any more goes back to its UE."""
        latest = self._facts.latest
        if latest is None:
            return
        post, now = self._post, self._post.clock.now_ms()
        chain_s = max(latest.time_s, now // 1000 - 1)
        for lock in refundable_locks(post.market, chain_s):
            key = bytes(lock_key(lock.ue, lock.offer))
            first = int.from_bytes(key[:8], "big") % len(post.genesis.validators)
            if self._turn(int.from_bytes(key, "big"), "refund", first) and now - self._sent.get(key, 0) >= AGAIN_MS:
                self._sent[key] = now
                await self._refund_one(lock)
        if len(self._sent) > 1_024:
            self._sent = {name: at for name, at in self._sent.items() if now - at < AGAIN_MS}

    async def _refund_one(self, lock: Lock) -> None:
        post = self._post
        try:
            await post.chain.refund(post.keys.signer, lock.ue, lock.offer)
            _log.info("lock refunded", extra={"task": lock.offer})
        except RuleRefused as error:
            _log.info("refund reverted", extra={"task": lock.offer, "rule": error.rule})
        except EdgoraError as error:
            self.says = f"a refund could not be sent: {error.detail}"
