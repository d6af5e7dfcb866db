"""The life of a task as its UE lives it (README.md 1, steps 1 to 3 and 8), written once.

    submit  -> Ticket     seal, upload to the source, fund, sign, post: TASK is on the ledger with code 0
    deliver -> Delivery   follow it, fetch the sealed result, check quorum certificate and proofs, open it
    finish  -> rest.Task  wait until it is SETTLED or REFUNDED
    cancel, fund          what else a UE may do

Rule 1: nothing is believed that `trust` has not checked. Rule 2: whatever would be lost with the process is noted
first. Rule 3: a wait that ran out means "unknown": the identical bytes are sent again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from edgora.client.orders import Order, Quote, module_name, quote, reach
from edgora.client.session import Session, account, ask, get, read, servers
from edgora.client.steps import Entropy, Flow, Follow, Http, Note, Now, OpenLock, Pause, Tell, Unreachable
from edgora.client.trust import CertifiedResult, Untrusted, hex0x, offer_body, offer_of, unhex
from edgora.crypto.seal import Context, Envelope, open_sealed, seal
from edgora.wire import rest
from edgora.wire.codec import encode, to_u96
from edgora.wire.errors import NotFound, Refused, RuleRefused, Unavailable, Unknown
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Kind, Tx
from edgora.wire.market import Cancel, Offer, OfferFlag, ResultCode, TaskPayload, VoucherPart
from edgora.wire.settlement import Voucher
from edgora.wire.units import OfferId, Wei, amount

__all__ = ["Delivery", "Ticket", "cancel", "deliver", "finish", "fund", "submit", "ticket_of"]

ENDS = frozenset(("SETTLED", "REFUNDED"))
_VALID_BLOCKS = 2_000
"""A TASK transaction lives this many blocks; the ledger allows 5,000."""
_CLOCK_SLACK_S = 5
_RESIGN = frozenset(("DUPLICATE", "SEQ_GAP"))
_NOT_YET = frozenset(("LOCK_UNKNOWN", "CHAIN_NOT_SEEN", "UNKNOWN_SENDER"))
_ATTEMPTS = 40
_BEHIND_MS = 20_000
"""How long nodes may say that they know no such task before they are believed."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """An admitted task, and all that its UE needs to recognise and open the result."""

    task: OfferId
    offer: Offer
    salt: bytes
    """HMAC of the input's content key: makes the result digest checkable."""
    tx_hash: bytes
    label: str
    fields: dict[str, Any]
    """The journal's form of all this."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A result that a quorum certified and that only this UE could open."""

    task: OfferId
    code: ResultCode
    output: bytes
    fuel_used: int
    cost: Wei
    executor: int
    certified: CertifiedResult
    sealed: rest.SealedResult
    proofs: rest.TaskProofs


def fund(session: Session, wei: int) -> Flow[rest.Account]:
    """Have a deposit of this much made by the development faucet and wait until the ledger knows it."""
    _, info = session.known()
    faucet = yield from _faucet(session)
    if faucet is None:
        raise Refused(
            f"the account 0x{session.wallet.address.hex()} holds too little and this chain has no faucet", field="balance",
            fix=f"deposit with depositFor(0x{session.wallet.address.hex()}) on {info.market_address}",
        )  # fmt: skip
    before = yield from account(session)
    order = rest.FaucetOrder(address=hex0x(session.wallet.address), wei=str(wei))
    yield Tell("deposit", f"asking the development faucet for {wei} wei")
    yield from ask(session, "POST", "/v1/dev/faucet", msgspec.json.encode(order), node=faucet, timeout_ms=30_000)
    for _ in range(_ATTEMPTS * 2):
        now = yield from account(session)
        if int(now.balance) >= int(before.balance) + wei:
            return now
        yield Pause(250)
    raise Unknown(
        "the deposit was mined but a quorum has not attested it yet; try again in a few seconds", field="balance"
    )


def _faucet(session: Session) -> Flow[str | None]:
    """Base URL of a node with an open faucet, those that we were given first; None if no node has one."""
    for url in session.nodes:
        if (yield from _has_faucet(url)):
            return url
    for server in (yield from servers(session)):
        other = reach(session, server)
        if other is not None and other not in session.nodes and (yield from _has_faucet(other)):
            return other
    return None


def _has_faucet(url: str) -> Flow[bool]:
    reply = yield Http("GET", url + "/v1/info", timeout_ms=5_000)
    return not isinstance(reply, Unreachable) and reply.status == 200 and read(reply, rest.Info).development


def submit(
    session: Session, order: Order, agreed: Quote | None = None, remark: Mapping[str, str] | None = None
) -> Flow[Ticket]:
    """Put an order on the ledger.

    agreed: a quote that the user has seen; its price and deadline are kept. remark: the caller's own fields for the
    journal, written together with the signature, so that a crash loses both or none.
    """
    trust, _ = session.known()
    terms = agreed or (yield from quote(session, order))
    funds = yield from account(session)
    if not order.lock and int(funds.free) < terms.maximum:
        funds = yield from fund(session, max(terms.maximum - int(funds.free), 10 * terms.maximum))
    offer, envelope, salt = yield from _sealed(session, order, terms)
    task = OfferId(offer.digest(trust.market))
    yield from _upload_module(session, order, terms)
    upload = rest.InputUpload(
        offer=offer_body(offer), envelope=envelope.to_jwe(), result_key=hex0x(session.wallet.sealing.public.spki)
    )
    reply = yield from ask(
        session, "PUT", f"/v1/inputs/{hex0x(offer.input_digest)}", msgspec.json.encode(upload), node=terms.source_url,
        timeout_ms=60_000,
    )  # fmt: skip
    stored = unhex(read(reply, rest.StoredInput).stored)
    trust.check_stored(offer, stored)
    yield Tell("stored", f"server {offer.source} keeps the sealed input, {offer.input_octets} octets")
    if order.lock:
        params = trust.genesis.market
        end_s = -(-_end_ms(session, offer) // 1000) + -(-params.margin_ms // 1000) + _CLOCK_SLACK_S
        yield OpenLock(task, terms.maximum, end_s)
    for attempt in range(_ATTEMPTS):
        try:
            return (yield from _post(session, order, offer, salt, stored, remark or {}))
        except RuleRefused as refused:
            again = (refused.rule in _RESIGN and attempt < 3) or refused.rule in _NOT_YET
            if not again or attempt + 1 == _ATTEMPTS:
                raise
            yield Pause(250)
    raise AssertionError("the last attempt returns or raises")


def _sealed(session: Session, order: Order, terms: Quote) -> Flow[tuple[Offer, Envelope, bytes]]:
    trust, _ = session.known()
    source = yield from get(session, f"/v1/servers/{terms.source}", rest.Server)
    key = trust.server_key(source)
    pool = bytearray((yield Entropy(8 + 32 + 12)))
    nonce = int.from_bytes(_take(pool, 8), "big") >> 1  # REST integers have 63 bits
    module = keccak(order.module)
    context = Context(trust.genesis.chain_id, trust.id, session.wallet.address, nonce, module)
    envelope, content_key = seal(order.plaintext, [key], context, lambda n: _take(pool, n))
    flags = (OfferFlag.AUDITABLE if order.auditable else 0) | (OfferFlag.LOCK_LANE if order.lock else 0)
    offer = Offer(
        ue=session.wallet.address, nonce=nonce, module_digest=module, input_digest=envelope.cipher_digest,
        input_octets=len(envelope.ciphertext), output_octets=order.output_octets, memory_pages=order.memory_pages,
        fuel_limit=order.fuel_limit, price=terms.price, desired_ms=terms.desired_ms, deadline_ms=terms.deadline_ms,
        result_key=session.wallet.sealing.public.digest, key_commit=content_key.commit, source=terms.source, flags=int(flags),
    )  # fmt: skip
    return offer, envelope, content_key.result_salt


def _take(pool: bytearray, octets: int) -> bytes:
    taken = bytes(pool[:octets])
    del pool[:octets]
    return taken


def _upload_module(session: Session, order: Order, terms: Quote) -> Flow[None]:
    path = f"/v1/modules/{module_name(order)}"
    try:
        yield from ask(session, "HEAD", path, node=terms.source_url)
    except NotFound:
        yield from ask(
            session,
            "PUT",
            path,
            order.module,
            content_type="application/wasm",
            node=terms.source_url,
            timeout_ms=60_000,
        )


def _end_ms(session: Session, offer: Offer) -> int:
    """The latest moment at which the task can become payable (market.md 6)."""
    p = session.known()[0].genesis.market
    return offer.deadline_ms + p.file_ms + 2 * (p.draw_ms + p.audit_max_ms) + p.batch_ms


def _voucher(session: Session, offer: Offer, funds: rest.Account, time_ms: int) -> VoucherPart:
    """A voucher for everything spent and reserved plus this maximum, as long-lived as the ledger allows."""
    trust, _ = session.known()
    p = trust.genesis.market
    cap = int(funds.spent) + int(funds.reserved) + amount(offer.fuel_limit, offer.price)
    until = (time_ms + 1000 * p.exit_delay_s - p.margin_ms) // 1000 - _CLOCK_SLACK_S
    if funds.voucher is not None:
        until = max(until, funds.voucher.valid_until_s)
    signature = session.wallet.signing.sign(Voucher(cap, until).digest(trust.market))
    return VoucherPart(to_u96(cap), until, signature)


def _post(
    session: Session, order: Order, offer: Offer, salt: bytes, stored: bytes, remark: Mapping[str, str]
) -> Flow[Ticket]:
    trust, _ = session.known()
    info = yield from get(session, "/v1/info", rest.Info)
    funds = yield from account(session)
    voucher = None if order.lock else _voucher(session, offer, funds, info.time_ms)
    payload = encode(TaskPayload(offer, stored, voucher))
    seq = next((lane.next_seq for lane in funds.lanes if lane.lane == order.lane), 0)
    tx = Tx(Kind.TASK, session.wallet.address, order.lane, seq, info.height + _VALID_BLOCKS, payload)
    digest = tx.digest(trust.domain)
    submission = rest.TaskSubmission(
        offer=offer_body(offer), stored=hex0x(stored), lane=tx.lane, seq=tx.seq, valid_until_height=tx.valid_until,
        signature=hex0x(session.wallet.signing.sign(digest)), result_key=hex0x(session.wallet.sealing.public.spki),
        voucher=None if voucher is None else rest.VoucherBody(
            cap=str(int.from_bytes(voucher.cap, "big")), valid_until_s=voucher.valid_until_s,
            signature=hex0x(voucher.signature),
        ),
    )  # fmt: skip
    body = msgspec.json.encode(submission)
    task = OfferId(offer.digest(trust.market))
    fields: dict[str, Any] = {
        **remark, "label": order.label, "salt": hex0x(salt), "tx_hash": hex0x(digest), "genesis_id": hex0x(trust.id),
        "nodes": session.nodes, "submission": body.decode(),
    }  # fmt: skip
    yield Note(task, "signed", fields)
    for attempt in range(_ATTEMPTS):
        try:
            yield from post_again(session, task, body)
            break
        except Unavailable as unknown:  # the very same bytes until somebody answers: a new offer could run twice
            if attempt + 1 == _ATTEMPTS:
                raise
            yield Tell("unknown", f"{unknown.detail}; sending the same bytes again")
            yield Pause(1_000)
    return Ticket(task, offer, salt, digest, order.label, fields)


def post_again(session: Session, task: bytes, body: bytes) -> Flow[rest.TaskAccepted]:
    """Send a signed submission, for the first time or again: the ledger executes it at most once."""
    headers = {"Idempotency-Key": hex0x(keccak(body))}
    reply = yield from ask(session, "POST", "/v1/tasks", body, headers=headers, timeout_ms=30_000)
    accepted = read(reply, rest.TaskAccepted)
    yield Note(task, "accepted", {"height": accepted.height})
    yield Tell("ordered", f"on the ledger at height {accepted.height}: {accepted.task.why}")
    return accepted


def ticket_of(task: bytes, fields: dict[str, Any]) -> Ticket:
    """The ticket that a journal entry stands for. Raises Refused if the entry is from before the signature."""
    if "submission" not in fields:
        raise Refused(f"task {hex0x(task)} was never signed; submit it again", field="task")
    submission = msgspec.json.decode(fields["submission"], type=rest.TaskSubmission)
    offer = offer_of(submission.offer)
    return Ticket(
        OfferId(task), offer, unhex(fields["salt"]), unhex(fields["tx_hash"]), fields.get("label", ""), fields
    )


def _watch(session: Session, task: bytes, done: frozenset[str], patience_ms: int) -> Flow[rest.Task]:
    """Follow a task until its state is in done; between events, ask why it waits."""
    path, after, said = f"/v1/tasks/{hex0x(task)}", 0, ""
    start = known = yield Now()
    node = 0
    while True:
        try:
            state = yield from get(session, path, rest.Task)
        except NotFound:  # the node that acknowledged it may be down, and the others behind
            if (yield Now()) - known > min(_BEHIND_MS, patience_ms):
                raise
            yield Pause(500)
            continue
        known = yield Now()
        if state.why != said:
            said = state.why
            yield Tell(state.state.lower(), said)
        if state.state in done:
            return state
        if known - start > patience_ms:
            raise Unknown(f"task {hex0x(task)} is {state.state} after {patience_ms} ms: {state.why}", field="task")
        event = yield Follow(f"{session.nodes[node % len(session.nodes)]}{path}/events", after, 1_000)
        if isinstance(event, Unreachable):
            node += 1
            yield Pause(200)
        elif event is not None:
            after = event.id
            yield Tell(event.type, "", event)


_FILED = frozenset(
    (
        "DONE",
        "FINAL",
        "CERTIFIED",
        "SETTLED",
        "LATE",
        "FAILED",
        "DISPUTED",
        "UNPAYABLE",
        "EXPIRED",
        "CANCELLED",
        "REFUNDED",
    )
)


def deliver(session: Session, ticket: Ticket, patience_ms: int = 600_000) -> Flow[Delivery]:
    """Wait for the result, check it against the quorum's certificate, open it.

    Raises Refused with the reason if the task ends without a result, Untrusted if a node's answer fails a check.
    """
    trust, _ = session.known()
    path = f"/v1/tasks/{hex0x(ticket.task)}"
    state = yield from _watch(session, ticket.task, _FILED, patience_ms)
    sealed_away = state.result is None or state.result.cipher_digest is None
    if sealed_away or state.state in {"LATE", "FAILED", "DISPUTED", "EXPIRED", "CANCELLED"}:
        raise Refused(
            f"the task ended without a result: {state.why}", field="task", fix="nothing was charged; submit it again"
        )
    sealed = yield from get(session, f"{path}/result", rest.SealedResult)
    envelope = Envelope.from_jwe(sealed.envelope)
    certified = None
    for _ in range(_ATTEMPTS):
        proofs = yield from get(session, f"{path}/proof", rest.TaskProofs)
        certified = trust.result(ticket.task, envelope.cipher_digest, proofs.items)
        if certified is not None:
            break
        yield Pause(150)
    else:
        raise Unknown("the result is filed but not certified yet; fetch it again", field="proof")
    offer = ticket.offer
    context = Context(trust.genesis.chain_id, trust.id, offer.ue, offer.nonce, offer.module_digest)
    output = open_sealed(envelope, session.wallet.sealing, context, None).plaintext
    if keccak(ticket.salt + int(certified.code).to_bytes(2, "big") + output) != certified.result_digest:
        raise Untrusted("the opened result is not the one that was certified", field="result")
    yield Note(ticket.task, "delivered", {"code": certified.code.name, "fuel_used": certified.fuel_used})
    yield Tell("verified", f"certified by a quorum at height {certified.height}, run by server {certified.executor}")
    cost = amount(certified.fuel_used, offer.price)
    return Delivery(
        ticket.task, certified.code, output, certified.fuel_used, cost, certified.executor, certified, sealed, proofs
    )


def finish(session: Session, task: bytes, patience_ms: int = 600_000) -> Flow[rest.Task]:
    """Wait until the task is SETTLED or REFUNDED."""
    state = yield from _watch(session, task, ENDS, patience_ms)
    yield Note(task, state.state.lower(), {"amount": state.amount})
    return state


def cancel(session: Session, task: bytes, lane: int = 1) -> Flow[rest.Task]:
    """Cancel an OPEN task. Raises RuleRefused if it is not OPEN any more."""
    trust, _ = session.known()
    info = yield from get(session, "/v1/info", rest.Info)
    funds = yield from account(session)
    seq = next((known.next_seq for known in funds.lanes if known.lane == lane), 0)
    tx = Tx(Kind.CANCEL, session.wallet.address, lane, seq, info.height + _VALID_BLOCKS, encode(Cancel(task)))
    order = rest.CancelOrder(
        lane=lane, seq=seq, valid_until_height=tx.valid_until,
        signature=hex0x(session.wallet.signing.sign(tx.digest(trust.domain))),
    )  # fmt: skip
    reply = yield from ask(
        session, "POST", f"/v1/tasks/{hex0x(task)}/cancel", msgspec.json.encode(order), timeout_ms=30_000
    )
    return read(reply, rest.Task)
