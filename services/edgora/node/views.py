"""From ledger values to REST resources and back (wire.rest). Pure functions; no rule is decided here."""

from enum import Enum
from typing import Any, cast

import msgspec

from edgora.market.reasons import sentence
from edgora.node.archive import ArchivedEvent
from edgora.wire import rest
from edgora.wire.codec import encode, from_u96, from_u128, to_u96
from edgora.wire.errors import Refused
from edgora.wire.ledger import Block, Certificate, Header, Kind, Receipt, SignedTx, Tx
from edgora.wire.market import Instance, Offer, Reason, TaskState, VoucherPart
from edgora.wire.market_codes import code_name, refusal_numbers, refusal_sentence
from edgora.wire.market_events import Event

__all__ = [
    "block", "event", "header", "hex_of", "instance", "offer_body", "offer_of", "plain", "reason", "receipt", "state_name", "tx",
    "tx_of", "unhex", "voucher_of",
]  # fmt: skip

_WIDE = {12: from_u96, 16: from_u128}
"""Lengths at which octets are an integer on the wire: u96 and u128."""


def hex_of(octets: bytes) -> str:
    return "0x" + octets.hex()


def unhex(text: str, field: str) -> bytes:
    """Octets of a 0x-hex string whose shape was checked. Raises Refused naming the field."""
    try:
        octets = bytes.fromhex(text[2:])
    except ValueError:
        octets = b""
    if "0x" + octets.hex() != text:
        raise Refused(f"{field} is not 0x-hex", field=field, fix="write octets as lower-case 0x-hex")
    return octets


def state_name(state: TaskState) -> rest.TaskStateName:
    return cast(rest.TaskStateName, state.name)  # both lists are pinned to each other by a test


# ---- offers, vouchers, transactions --------------------------------------------------------------------------------------


def offer_body(offer: Offer) -> rest.OfferBody:
    return rest.OfferBody(
        ue=hex_of(offer.ue), nonce=offer.nonce, module_digest=hex_of(offer.module_digest),
        input_digest=hex_of(offer.input_digest), input_octets=offer.input_octets, output_octets=offer.output_octets,
        memory_pages=offer.memory_pages, fuel_limit=offer.fuel_limit, price=offer.price, desired_ms=offer.desired_ms,
        deadline_ms=offer.deadline_ms, result_key=hex_of(offer.result_key), key_commit=hex_of(offer.key_commit),
        source=offer.source, flags=offer.flags,
    )  # fmt: skip


def offer_of(body: rest.OfferBody) -> Offer:
    return Offer(
        unhex(body.ue, "offer.ue"), body.nonce, unhex(body.module_digest, "offer.module_digest"),
        unhex(body.input_digest, "offer.input_digest"), body.input_octets, body.output_octets, body.memory_pages,
        body.fuel_limit, body.price, body.desired_ms, body.deadline_ms, unhex(body.result_key, "offer.result_key"),
        unhex(body.key_commit, "offer.key_commit"), body.source, body.flags,
    )  # fmt: skip


def voucher_of(body: rest.VoucherBody) -> VoucherPart:
    cap = int(body.cap)
    if cap >= 2**96:
        raise Refused(f"voucher.cap {cap} does not fit 96 bits", field="voucher.cap", fix="use a smaller cap")
    return VoucherPart(to_u96(cap), body.valid_until_s, unhex(body.signature, "voucher.signature"))


def tx_of(order: rest.TxOrder) -> SignedTx:
    if order.kind not in Kind.__members__.values():
        raise Refused(f"kind {order.kind} is unknown", field="kind", fix="use one of 1..11, see ledger.md 3")
    body = Tx(
        order.kind, unhex(order.sender, "sender"), order.lane, order.seq, order.valid_until_height,
        unhex(order.payload, "payload"),
    )  # fmt: skip
    return SignedTx(body, unhex(order.signature, "signature"))


def tx(signed: SignedTx, digest: bytes) -> rest.Tx:
    body = signed.tx
    name = Kind(body.kind).name if body.kind in Kind.__members__.values() else f"KIND_{body.kind}"
    return rest.Tx(
        hash=hex_of(digest), kind=body.kind, kind_name=name, sender=hex_of(body.sender), lane=body.lane, seq=body.seq,
        valid_until_height=body.valid_until, payload=hex_of(body.payload), signature=hex_of(signed.signature),
    )  # fmt: skip


def receipt(found: Receipt) -> rest.Receipt:
    numbers = refusal_numbers(found.output[2:]) if found.code else ()
    return rest.Receipt(
        tx_hash=hex_of(found.tx_hash), height=found.height, index=found.index, code=found.code,
        rule=code_name(found.code), sentence=refusal_sentence(found.code, numbers), output=hex_of(found.output),
    )  # fmt: skip


# ---- blocks ------------------------------------------------------------------------------------------------------------


def header(found: Header) -> rest.Header:
    return rest.Header(
        hash=hex_of(found.hash), epoch=found.epoch, height=found.height, parent=hex_of(found.parent),
        tx_root=hex_of(found.tx_root), tx_count=found.tx_count, exec_height=found.exec_height,
        state_root=hex_of(found.state_root), receipt_root=hex_of(found.receipt_root),
        receipt_count=found.receipt_count, next_epoch=hex_of(found.next_epoch), time_ms=found.time_ms,
        proposer=hex_of(found.proposer),
    )  # fmt: skip


def block(
    found: Block, receipts: tuple[Receipt, ...], state_root: bytes, certificate: Certificate | None, certified: bool
) -> rest.Block:
    return rest.Block(
        header=header(found.header),
        txs=[tx(signed, r.tx_hash) for signed, r in zip(found.txs, receipts, strict=True)],
        receipts=[receipt(r) for r in receipts],
        state_root=hex_of(state_root),
        certified=certified,
        signers=[] if certificate is None else certificate.signers(),
        view=None if certificate is None else certificate.vote.view,
        certificate=None if certificate is None else hex_of(encode(certificate)),
    )  # fmt: skip


# ---- reasons, events, instances --------------------------------------------------------------------------------------------


def reason(found: Reason, words: str | None = None) -> rest.ReasonBody:
    """words: its sentence, where it is not one of the market's."""
    return rest.ReasonBody(
        code=found.code, subject=found.subject, numbers=list(found.numbers), sentence=words or sentence(found)
    )


def plain(value: object) -> Any:
    """Any wire value as JSON has it: octets as hex, wide integers as decimal strings, structures by field name."""
    if isinstance(value, Reason):
        return plain_fields(value) | {"sentence": sentence(value)}
    if isinstance(value, msgspec.Struct):
        return plain_fields(value)
    if isinstance(value, (bytes, bytearray)):
        wide = _WIDE.get(len(value))
        return hex_of(bytes(value)) if wide is None else str(wide(bytes(value)))
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def plain_fields(value: msgspec.Struct) -> dict[str, Any]:
    fields = {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    tag = value.__struct_config__.tag
    return {"type": type(value).__name__, **fields} if tag is not None else fields


def event(found: ArchivedEvent) -> rest.Event:
    data = plain_fields(found.event)
    data.pop("type", None)
    return rest.Event(
        id=found.id, height=found.height, time_ms=found.time_ms, type=type(found.event).__name__,
        task=data.get("offer_id"), server=_server_of(found.event), data=data,
    )  # fmt: skip


def _server_of(found: Event) -> int | None:
    """The server that an event is about, by whatever name it has there."""
    for name in ("executor", "server", "auditor", "witness", "winner"):
        number = getattr(found, name, None)
        if isinstance(number, int):
            return number
    return None


def instance(found: Instance) -> dict[str, Any]:
    return plain_fields(found)
