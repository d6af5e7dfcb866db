"""A saved proof convinces by itself, and nothing that was changed in it does."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from edgora.client import Delivery, Ticket, Wallet
from edgora.client.proofs import Check, ProofDocument, ProofItem, check_document, document_of, read_document
from edgora.wire.errors import EdgoraError, Refused
from embedded import Embedded, spin

FLIPS = 48
"""Bits changed in each member; drawn with a seed."""


@pytest.fixture(scope="module")
def told(platform: Embedded, rich: Wallet) -> tuple[ProofDocument, Delivery, Ticket, Ticket]:
    """The document of a settled task, its delivery, and another task's ticket."""
    with platform.client(rich) as ue:
        ticket, other = ue.submit(spin()), ue.submit(spin(rounds=25_000))
        ue.deliver(other)
        ue.deliver(ticket)
        ue.finish(ticket.task)
        delivery = ue.deliver(ticket)  # once more: now the payment is among the proofs
        trust, _ = ue.session.known()
        return document_of(trust, ticket, delivery, with_salt=True), delivery, ticket, other


@pytest.fixture
def document(told: tuple[ProofDocument, Delivery, Ticket, Ticket]) -> ProofDocument:
    return told[0]


@pytest.fixture
def pinned(platform: Embedded) -> bytes:
    return bytes(platform.genesis.id)


def holds(checks: Any) -> bool:
    return all(check.ok for check in checks)


def by_name(checks: Any) -> dict[str, Check]:
    return {check.name: check for check in checks}


def verdict(data: bytes, pinned: bytes | None, output: bytes) -> bool:
    """Whether a file would be believed."""
    try:
        return holds(check_document(read_document(data), pinned, output))
    except Refused:
        return False


def test_a_good_document_holds_and_says_what_it_proves(
    told: tuple[ProofDocument, Delivery, Ticket, Ticket], pinned: bytes
) -> None:
    document, delivery, ticket, _ = told
    again = read_document(msgspec.json.encode(document))
    assert again == document
    checks = by_name(check_document(again, pinned, delivery.output))
    assert list(checks) == ["genesis", "offer", "task", "payment", "result", "output"]
    assert holds(checks.values())
    assert f"run by server {delivery.executor}" in checks["result"].sentence
    assert str(delivery.fuel_used) in checks["result"].sentence
    assert "0x" + ticket.offer.ue.hex() in checks["task"].sentence
    assert "as pinned" in checks["genesis"].sentence


def test_nothing_secret_is_in_a_document(told: tuple[ProofDocument, Delivery, Ticket, Ticket]) -> None:
    document, delivery, ticket, _ = told
    text = msgspec.json.encode(document)
    assert delivery.output.hex().encode() not in text
    bare = replace_salt(document)
    assert ticket.salt.hex().encode() not in msgspec.json.encode(bare)


def replace_salt(document: ProofDocument) -> ProofDocument:
    return msgspec.structs.replace(document, salt=None)


def test_without_the_salt_an_output_cannot_be_compared(document: ProofDocument, pinned: bytes) -> None:
    bare = replace_salt(document)
    assert holds(check_document(bare, pinned))
    assert not by_name(check_document(bare, pinned, b"x"))["output"].ok


def test_without_a_pin_it_says_that_the_anchor_is_missing(document: ProofDocument) -> None:
    assert "not pinned" in by_name(check_document(document, None))["genesis"].sentence


def test_a_wrong_output_is_refused(told: tuple[ProofDocument, Delivery, Ticket, Ticket], pinned: bytes) -> None:
    document, delivery, _, _ = told
    for wrong in (b"", delivery.output + b"\0", delivery.output[:-1], bytes(len(delivery.output))):
        checks = by_name(check_document(document, pinned, wrong))
        assert not checks["output"].ok
        assert "NOT" in checks["output"].sentence


def flips(octets: int, seed: str) -> Iterator[tuple[int, int]]:
    draw = random.Random(seed)
    for _ in range(min(FLIPS, 8 * octets)):
        yield draw.randrange(octets), 1 << draw.randrange(8)


def bent(text: str, place: int, mask: int) -> str:
    data = bytearray.fromhex(text[2:])
    data[place] ^= mask
    return "0x" + data.hex()


def members(document: ProofDocument) -> list[tuple[str, str]]:
    """(where, 0x-hex) of every member that holds octets."""
    found = [(name, getattr(document, name)) for name in ("genesis", "task", "cipher_digest", "salt")]
    found += [
        (f"proofs.{i}.{name}", getattr(item, name))
        for i, item in enumerate(document.proofs)
        for name in ("proof", "tx_hash")
    ]
    found += [
        (f"offer.{name}", value) for name in document.offer.__slots__
        if isinstance(value := getattr(document.offer, name), str)
    ]  # fmt: skip
    return found


def changed(document: ProofDocument, where: str, value: Any) -> ProofDocument:
    head, _, rest = where.partition(".")
    if head == "proofs":
        number, _, name = rest.partition(".")
        items = list(document.proofs)
        items[int(number)] = msgspec.structs.replace(items[int(number)], **{name: value})
        return msgspec.structs.replace(document, proofs=items)
    if head == "offer":
        return msgspec.structs.replace(document, offer=replace(document.offer, **{rest: value}))
    return msgspec.structs.replace(document, **{head: value})


def test_every_flipped_bit_is_refused(told: tuple[ProofDocument, Delivery, Ticket, Ticket], pinned: bytes) -> None:
    document, delivery, _, _ = told
    believed, tried = [], 0
    for where, text in members(document):
        for place, mask in flips(len(text) // 2 - 1, where):
            tried += 1
            if verdict(msgspec.json.encode(changed(document, where, bent(text, place, mask))), pinned, delivery.output):
                believed.append((where, place, mask))
    assert tried > 400
    assert believed == []


def test_every_changed_number_of_the_offer_is_refused(document: ProofDocument, pinned: bytes) -> None:
    for name in document.offer.__slots__:
        value = getattr(document.offer, name)
        if isinstance(value, int):
            other = changed(document, f"offer.{name}", value + 1)
            assert not verdict(msgspec.json.encode(other), pinned, b"") or name == "", name
            assert not by_name(check_document(other, pinned))["offer"].ok


@pytest.mark.parametrize("left_out", range(6))
def test_a_document_with_a_proof_missing_is_refused(document: ProofDocument, pinned: bytes, left_out: int) -> None:
    items = [item for number, item in enumerate(document.proofs) if number != left_out]
    assert not holds(check_document(msgspec.structs.replace(document, proofs=items), pinned))


def test_proofs_of_another_task_do_not_fit(
    platform: Embedded, told: tuple[ProofDocument, Delivery, Ticket, Ticket], pinned: bytes
) -> None:
    """A receipt alone does not say whose task it was: the transaction must be this offer's."""
    document, _, _, other = told
    items = platform.get(f"/v1/tasks/0x{other.task.hex()}/proof").json()["items"]
    theirs = [ProofItem(name=i["name"], kind=i["kind"], tx_hash=i["tx_hash"], proof=i["proof"]) for i in items]
    admitted = [item for item in theirs if item.name == "TASK"]
    mine = [item for item in document.proofs if item.name != "TASK"]
    checks = by_name(check_document(msgspec.structs.replace(document, proofs=admitted + mine), pinned))
    assert not checks["task"].ok
    filed = [item for item in theirs if item.name == "RESULT_HASH"]
    mine = [item for item in document.proofs if item.name != "RESULT_HASH"]
    assert not holds(check_document(msgspec.structs.replace(document, proofs=mine + filed), pinned))
    one_of_each = [item for item in document.proofs if item.kind == "receipt"] + [i for i in theirs if i.kind == "tx"]
    assert not holds(check_document(msgspec.structs.replace(document, proofs=one_of_each), pinned))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"version": None}, {"surprise": 1}, {"proofs": [{}]}, {"proofs": {}}, {"genesis": 7}, {"offer": {}},
        {"offer": None}, {"salt": []},
    ],
)  # fmt: skip
def test_a_document_of_another_shape_is_refused_by_name(document: ProofDocument, change: dict[str, Any]) -> None:
    body = msgspec.json.decode(msgspec.json.encode(document)) | change
    with pytest.raises(Refused, match="not a proof document") as refused:
        read_document(msgspec.json.encode(body))
    assert refused.value.field == "proof"


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{", b"\xff\xfe", b'{"version": 1}', b"0x00"])
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(EdgoraError):
        read_document(data)


@pytest.mark.parametrize("where", ["genesis", "task", "cipher_digest", "proofs.0.proof", "proofs.3.proof"])
@pytest.mark.parametrize("value", ["", "0x", "0xzz", "zz", "0x00", "0x" + "c0" * 40, "0x" + "dd" * 5])
def test_octets_that_are_none_never_raise(document: ProofDocument, pinned: bytes, where: str, value: str) -> None:
    assert not holds(check_document(changed(document, where, value), pinned))
