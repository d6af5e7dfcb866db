"""What a client can have a node do: store an input, order a task, cancel it, store a module, fetch a result.

Rule 1: everything is checked before anything is stored or ordered; a refusal names the field and what to do.
Rule 2: 202 for a task only once its TASK receipt has code 0; the same bytes again get the same answer.
Rule 3: a plain input never exists here: ciphertext comes in, ciphertext is stored (README.md 1).
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import msgspec

from edgora.compute.module import ModuleInfo
from edgora.crypto.keys import SealingPublicKey
from edgora.crypto.seal import Envelope, SealError, unwrap
from edgora.crypto.sign import recover
from edgora.market.reasons import sentence
from edgora.node import views
from edgora.node.follower import Follower
from edgora.node.gateway import Gateway, Ordered, rule_refused
from edgora.node.peers import Peers
from edgora.node.queries import Queries
from edgora.node.records import InputRecord, NodeKeys, ResultRecord, context_of
from edgora.node.why import consensus_sentence
from edgora.ports.blobs import Blobs, Room
from edgora.ports.clock import Clock
from edgora.ports.consensus import Consensus
from edgora.ports.runner import Runner
from edgora.ports.tracing import NO_TRACING, Span, Stage, Tracing
from edgora.wire import rest
from edgora.wire.codec import decode, encode
from edgora.wire.errors import (
    BadSignature,
    Conflict,
    EdgoraError,
    NotFound,
    Refused,
    RuleRefused,
    TooLarge,
    Unavailable,
    Unknown,
)  # fmt: skip
from edgora.wire.genesis import Genesis
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Kind, LedgerCode, OrderedTx, Receipt, SignedTx, Tx
from edgora.wire.market import (
    MAX_DEADLINE_MS,
    MAX_INPUT,
    Cancel,
    Code,
    Offer,
    OfferFlag,
    Reason,
    ResultCode,
    Stored,
    TaskPayload,
    TaskState,
)  # fmt: skip

__all__ = ["MODULE_OCTETS", "ChainWatch", "Parts", "Service"]

MODULE_OCTETS = 4 * 1024 * 1024
IDEMPOTENCY_KEYS = 4_096
NOT_SERVED = frozenset((TaskState.LATE, TaskState.DISPUTED))


class ChainWatch(Protocol):
    """Whoever files Head facts for this node."""

    async def look(self) -> None:
        """File a Head now, because a task waits for the chain to be seen (contracts.md 9)."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a service is made of."""

    genesis: Genesis
    index: int
    keys: NodeKeys
    clock: Clock
    follower: Follower
    gateway: Gateway
    consensus: Consensus
    peers: Peers
    blobs: Blobs
    runner: Runner
    watch: ChainWatch
    queries: Queries
    tracing: Tracing = NO_TRACING


class Service:
    """The verbs of one node."""

    def __init__(self, parts: Parts) -> None:
        self._genesis, self._index, self._keys = parts.genesis, parts.index, parts.keys
        self._clock, self._follower, self._gateway = parts.clock, parts.follower, parts.gateway
        self._peers, self._blobs, self._runner = parts.peers, parts.blobs, parts.runner
        self._consensus = parts.consensus
        self._watch, self._queries, self._tracing = parts.watch, parts.queries, parts.tracing
        self._ledger_domain, self._market_domain = parts.genesis.ledger_domain(), parts.genesis.market_domain()

        self._keys_seen: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._in_hand: dict[bytes, int] = {}

    # ---- inputs

    async def put_input(self, digest: str, upload: rest.InputUpload) -> tuple[rest.StoredInput, bool]:
        """Keep a sealed input as its source. Returns (the signed Stored, whether it is new)."""
        offer = views.offer_of(upload.offer)
        offer_id, began = offer.digest(self._market_domain), self._clock.now_ms()
        self._check_input(digest, offer)
        try:
            envelope = Envelope.from_jwe(upload.envelope)
        except EdgoraError as error:
            error.field = f"envelope.{error.field}" if error.field else "envelope"
            raise
        self._check_envelope(offer, envelope)
        result_key = self._result_key(upload.result_key, offer)
        if not self._blobs.has(Room.MODULES, offer.module_digest):
            raise RuleRefused(
                f"this source does not have module 0x{offer.module_digest.hex()}", rule="MODULE_UNKNOWN",
                field="offer.module_digest", fix=f"PUT /v1/modules/0x{offer.module_digest.hex()} here first",
            )  # fmt: skip
        await asyncio.to_thread(self._open_key, envelope, offer)
        record = encode(InputRecord(offer, envelope, result_key.spki))
        fresh = not self._blobs.has(Room.INPUTS, offer_id)
        if fresh:
            await asyncio.to_thread(self._blobs.put, Room.INPUTS, offer_id, record)
        signature = self._keys.signer.sign(Stored(offer_id).digest(self._ledger_domain))
        stored = rest.StoredInput(
            task=views.hex_of(offer_id), server=self._index, stored=views.hex_of(signature),
            keep_until_ms=offer.deadline_ms + self._genesis.market.keep_ms,
        )  # fmt: skip
        self._tracing.span(Span(
            offer_id, Stage.STORE, began, self._clock.now_ms(),
            attributes={"source": self._index, "input_octets": offer.input_octets, "fresh": fresh},
        ))  # fmt: skip
        return stored, fresh

    def _check_input(self, digest: str, offer: Offer) -> None:
        if views.unhex(digest, "digest") != offer.input_digest:
            raise Refused(
                "the path names another digest than the offer", field="offer.input_digest",
                fix="put to /v1/inputs/{offer.input_digest}",
            )  # fmt: skip
        if offer.source != self._index:
            raise Refused(
                f"the offer's source is server {offer.source}, this is server {self._index}", field="offer.source",
                fix=f"upload to server {offer.source}, or sign an offer with source {self._index}",
            )  # fmt: skip
        if not 1 <= offer.input_octets <= MAX_INPUT:
            raise TooLarge(
                f"input_octets {offer.input_octets} is not within 1..{MAX_INPUT}", field="offer.input_octets",
                fix="send a smaller input",
            )  # fmt: skip
        now = self._clock.now_ms()
        if not now < offer.deadline_ms <= now + MAX_DEADLINE_MS:
            raise Refused(
                f"deadline {offer.deadline_ms} is not within the hour after now, {now}", field="offer.deadline_ms",
                fix="compute deadlines from time_ms of GET /v1/info",
            )  # fmt: skip

    def _check_envelope(self, offer: Offer, envelope: Envelope) -> None:
        if len(envelope.ciphertext) != offer.input_octets:
            raise Refused(
                f"the ciphertext has {len(envelope.ciphertext)} octets, the offer says {offer.input_octets}",
                field="offer.input_octets", fix="set input_octets to the ciphertext's length",
            )  # fmt: skip
        if envelope.cipher_digest != offer.input_digest:
            raise Refused(
                f"iv, ciphertext and tag hash to 0x{envelope.cipher_digest.hex()}, not to the offer's input digest",
                field="envelope.ciphertext", fix="set input_digest to keccak(iv || ciphertext || tag) of what you send",
            )  # fmt: skip
        if envelope.aad != context_of(self._genesis, offer).aad():
            raise Refused(
                "the envelope is sealed for another chain, consortium, UE, nonce or module", field="envelope.aad",
                fix="seal with aad = abi.encode(chainId, genesisId, ue, nonce, moduleDigest) of this offer",
            )  # fmt: skip

    def _open_key(self, envelope: Envelope, offer: Offer) -> None:
        """Whether the content key is for us and is the committed one. The plaintext is not opened here."""
        try:
            unwrap(envelope, self._keys.sealing, offer.key_commit)
        except SealError as error:
            raise Refused(
                error.detail, field="envelope.recipients",
                fix=f"seal the content key to {self._keys.sealing.public.kid} and commit to it in key_commit",
            ) from None  # fmt: skip

    @staticmethod
    def _result_key(spki: str, offer: Offer) -> SealingPublicKey:
        try:
            key = SealingPublicKey(views.unhex(spki, "result_key"))
        except EdgoraError as error:
            raise Refused(error.detail, field="result_key", fix="send the SPKI DER of an RSA-3072 key") from None
        if key.digest != offer.result_key:
            raise Refused(
                f"result_key hashes to 0x{key.digest.hex()}, the offer names 0x{offer.result_key.hex()}",
                field="result_key", fix="send the key whose keccak stands in offer.result_key",
            )  # fmt: skip
        return key

    # ---- tasks

    def remember(self, key: str, body: rest.TaskSubmission) -> None:
        """An Idempotency-Key stands for one request body of its UE. Raises Conflict for a second one."""
        name, digest = (body.offer.ue, key), keccak(msgspec.json.encode(body))
        if self._keys_seen.setdefault(name, digest) != digest:
            raise Conflict(
                "this Idempotency-Key was used for another request", field="header.Idempotency-Key",
                fix="use a new key for a new task, the same bytes for a retry",
            )  # fmt: skip
        if len(self._keys_seen) > IDEMPOTENCY_KEYS:
            self._keys_seen.popitem(last=False)

    async def why(self, task_id: str) -> rest.Why:
        """Why a task waits; also for one that this node is about to have ordered."""
        offer_id = views.unhex(task_id, "id")
        since = self._in_hand.get(offer_id)
        if since is None or offer_id in self._follower.archive.tasks:
            return self._queries.why(task_id)
        status = await self._consensus.status()
        reason = Reason("NOT_ORDERED", offer_id.hex(), (status.votes, status.quorum))
        return rest.Why(
            task=task_id, state="UNORDERED", sentence=f"{sentence(reason)}; {consensus_sentence(status)}",
            reasons=[views.reason(reason)], choice=None, since_ms=since, height=self._follower.height,
            time_ms=self._follower.header_time_ms,
        )  # fmt: skip

    async def open_task(self, body: rest.TaskSubmission, timeout_ms: int) -> rest.TaskAccepted:
        """Order a TASK and answer once its receipt has code 0."""
        offer = views.offer_of(body.offer)
        self._result_key(body.result_key, offer)
        stored = views.unhex(body.stored, "stored")
        voucher = None if body.voucher is None else views.voucher_of(body.voucher)
        payload = encode(TaskPayload(offer, stored, voucher))
        tx = Tx(int(Kind.TASK), offer.ue, body.lane, body.seq, body.valid_until_height, payload)
        signed = SignedTx(tx, views.unhex(body.signature, "signature"))
        tx_hash, offer_id = self._gateway.check(signed), offer.digest(self._market_domain)
        began = self._in_hand[offer_id] = self._clock.now_ms()
        failure: str | None = "given up by the client"
        try:
            ordered = await self._order_task(offer, signed, tx_hash, stored, timeout_ms)
            failure = None
        except EdgoraError as error:
            failure = error.detail
            raise
        finally:
            self._in_hand.pop(offer_id, None)
            self._tracing.span(
                Span(offer_id, Stage.ORDER, began, self._clock.now_ms(), (self._index,), {"node": self._index}, failure)
            )
        assert ordered.receipt is not None
        self._accepted(ordered.receipt)
        return rest.TaskAccepted(
            task=self._queries.task(views.hex_of(offer_id)), tx_hash=views.hex_of(tx_hash),
            height=ordered.receipt.height, location=f"/v1/tasks/{views.hex_of(offer_id)}",
        )  # fmt: skip

    async def _order_task(
        self, offer: Offer, signed: SignedTx, tx_hash: bytes, stored: bytes, timeout_ms: int
    ) -> Ordered:
        if self._follower.receipt(tx_hash) is None:
            self._check_stored(offer, stored)
            self._gateway.check_window(signed)
            loop = asyncio.get_running_loop()
            deadline = loop.time() + timeout_ms / 1000
            await self._chain_in_sight(offer, signed, tx_hash, timeout_ms)
            timeout_ms = max(1, int(1000 * (deadline - loop.time())))
        return await self._gateway.order(signed, tx_hash, "committed", timeout_ms)

    def _check_stored(self, offer: Offer, stored: bytes) -> None:
        source = self._follower.market.server(offer.source)
        if source is None:
            raise RuleRefused(
                f"no registered server has id {offer.source}", rule="SOURCE_UNKNOWN", field="offer.source",
                fix="name the server that the input was uploaded to",
            )  # fmt: skip
        word = Stored(offer.digest(self._market_domain)).digest(self._ledger_domain)
        if recover(word, stored) != source.signer:
            raise BadSignature(
                f"stored is not server {offer.source}'s signature for this offer", field="stored",
                fix=f"PUT the sealed input to server {offer.source} and use its answer",
            )  # fmt: skip

    async def _chain_in_sight(self, offer: Offer, signed: SignedTx, tx_hash: bytes, timeout_ms: int) -> None:
        """Refuse early what would be refused; where only the chain is out of sight, file Head and wait for others."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while True:
                    outcome = self._follower.advise(OrderedTx(tx_hash, signed.tx), self._clock.now_ms())
                    if outcome.code == LedgerCode.OK:
                        return
                    if outcome.code != Code.CHAIN_NOT_SEEN or offer.flags & OfferFlag.LOCK_LANE:
                        receipt = Receipt(tx_hash, 0, 0, outcome.code, bytes(2) + outcome.output)
                        raise rule_refused(receipt)
                    await self._watch.look()
                    await self._follower.moved()
        except TimeoutError:
            raise Unknown(
                "the validators have not seen the chain in time; the task was not ordered",
                fix="send the identical bytes again",
            ) from None

    @staticmethod
    def _accepted(receipt: Receipt) -> None:
        if receipt.code != LedgerCode.OK:
            raise rule_refused(receipt)

    async def cancel(self, task_id: str, order: rest.CancelOrder, timeout_ms: int) -> rest.Task:
        """Order a CANCEL and answer once its receipt has code 0."""
        offer_id = views.unhex(task_id, "id")
        offer = self._queries.offer(offer_id)
        payload = encode(Cancel(offer_id))
        tx = Tx(int(Kind.CANCEL), offer.ue, order.lane, order.seq, order.valid_until_height, payload)
        signed = SignedTx(tx, views.unhex(order.signature, "signature"))
        tx_hash = self._gateway.check(signed)
        if self._follower.receipt(tx_hash) is None:
            outcome = self._follower.advise(OrderedTx(tx_hash, tx), self._clock.now_ms())
            self._accepted(Receipt(tx_hash, 0, 0, outcome.code, bytes(2) + outcome.output))
        ordered = await self._gateway.order(signed, tx_hash, "committed", timeout_ms)
        assert ordered.receipt is not None
        self._accepted(ordered.receipt)
        return self._queries.task(task_id)

    # ---- modules

    async def put_module(self, digest: str, wasm: bytes) -> tuple[rest.Module, bool]:
        """Keep a module. Returns (what it says about itself, whether it is new)."""
        name = views.unhex(digest, "digest")
        if keccak(wasm) != name:
            raise Refused(
                f"the body hashes to 0x{keccak(wasm).hex()}, the path names {digest}", field="digest",
                fix="put to /v1/modules/{keccak-256 of the body}",
            )  # fmt: skip
        try:
            info = await self._runner.prepare(wasm)
        except Refused as error:
            error.field = error.field or "body"
            raise
        fresh = not self._blobs.has(Room.MODULES, name)
        if fresh:
            await asyncio.to_thread(self._blobs.put, Room.MODULES, name, wasm)
        return _module(info), fresh

    async def module(self, digest: str) -> bytes:
        found = await asyncio.to_thread(self._blobs.get, Room.MODULES, views.unhex(digest, "digest"))
        if found is None:
            raise NotFound(
                f"this node does not have module {digest}", field="digest", fix="ask another node, or PUT it"
            )
        return found

    def has_module(self, digest: str) -> None:
        """Raises NotFound if this node does not have the module."""
        if not self._blobs.has(Room.MODULES, views.unhex(digest, "digest")):
            raise NotFound(
                f"this node does not have module {digest}", field="digest", fix="ask another node, or PUT it"
            )

    # ---- results

    async def result(self, task_id: str) -> rest.SealedResult:
        """The sealed result, from our store or from a holder's."""
        offer_id = views.unhex(task_id, "id")
        record = self._queries.record(offer_id)
        state, ended = self._queries.states(offer_id)
        if ended in NOT_SERVED or state in NOT_SERVED:
            raise Conflict(
                f"the task is {(ended or state).name}: its result is not served", field="id",
                fix="nothing was charged; offer the task anew",
            )  # fmt: skip
        filed = record.result
        if filed is None or filed.cipher_digest is None:
            why = self._queries.task(task_id).why
            raise NotFound(f"there is no result: {why}", field="id", fix="wait for the ResultFiled event of the task")
        envelope, server = await self._sealed(offer_id, filed.cipher_digest, [*filed.holders, filed.executor])
        return rest.SealedResult(
            task=task_id, code=ResultCode(filed.code).name, result_digest=views.hex_of(filed.result_digest),
            cipher_digest=views.hex_of(filed.cipher_digest), fuel_used=filed.fuel_used, envelope=envelope.to_jwe(),
            holders=list(filed.holders), server=server,
        )  # fmt: skip

    async def _sealed(self, offer_id: bytes, cipher_digest: bytes, holders: list[int]) -> tuple[Envelope, int]:
        own = await asyncio.to_thread(self._blobs.get, Room.RESULTS, offer_id)
        if own is not None:
            found = decode(own, ResultRecord)
            if found.envelope.cipher_digest == cipher_digest:
                return found.envelope, self._index
        for server in holders:
            if server == self._index:
                continue
            try:
                envelope, digest = await self._peers.sealed_result(server, offer_id, cipher_digest)
            except Unavailable:
                continue
            record = encode(ResultRecord(offer_id, self._queries.record_code(offer_id), digest, envelope))
            await asyncio.to_thread(self._blobs.put, Room.RESULTS, offer_id, record)
            return envelope, server
        raise Unavailable(
            "no holder of the result can be reached, or all have cleared it", fix="ask one of the holders itself"
        )


def _module(info: ModuleInfo) -> rest.Module:
    return rest.Module(
        digest=views.hex_of(info.digest), octets=info.octets, imports=list(info.imports), exports=list(info.exports)
    )
