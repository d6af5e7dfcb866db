"""Link keys, their certificates and the statements that tie them to validators (ledger.md 17)."""

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgora.crypto.links import LinkKey, LinkStatement, SignedStatement, anchor_pem, certified_key, check_statement
from edgora.crypto.sign import SigningKey
from edgora.wire.codec import decode, encode
from edgora.wire.eip712 import Domain
from edgora.wire.errors import WireError

KEY, LINK = SigningKey.derived("v"), LinkKey.derived("l")
DOMAIN = Domain.ledger(7, bytes(32))
SIGNED = SignedStatement.make(KEY, LINK.spki, epoch=3, expires_ms=1_000, domain=DOMAIN)


def checked(**changes: object) -> str | None:
    right = {
        "signed": SIGNED, "validator": KEY.address, "link_key": LINK.spki, "epoch": 3, "now_ms": 999, "domain": DOMAIN,
    }  # fmt: skip
    merged = {**right, **changes}
    return check_statement(merged.pop("signed"), **merged)  # type: ignore[arg-type]


def test_the_right_statement_is_accepted_and_survives_the_wire() -> None:
    assert checked() is None
    assert checked(signed=decode(encode(SIGNED), SignedStatement)) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"validator": SigningKey.derived("w").address}, "not signed by validator"),
        ({"link_key": LinkKey.derived("m").spki}, "another link key"),
        ({"epoch": 4}, "epoch 3"),
        ({"now_ms": 1_000}, "expired"),
        ({"domain": Domain.ledger(7, b"\1" * 32)}, "not signed by validator"),
    ],
)
def test_each_part_of_a_statement_counts(changes: dict[str, object], why: str) -> None:
    assert why in (checked(**changes) or "")


@pytest.mark.parametrize(
    "change", [{"epoch": 4}, {"expires_ms": 2_000}, {"link_key": b""}, {"validator": bytes(20)}], ids=str
)
def test_a_changed_statement_is_not_the_signed_one(change: dict[str, object]) -> None:
    forged = SignedStatement(msgspec.structs.replace(SIGNED.statement, **change), SIGNED.signature)
    said = forged.statement
    assert "not signed" in (checked(signed=forged, link_key=said.link_key, epoch=said.epoch) or "")


def test_the_type_string_is_the_field_list() -> None:
    assert len(msgspec.structs.fields(LinkStatement)) == LinkStatement.TYPE.count(",") + 1


def test_a_key_is_its_secret() -> None:
    assert LinkKey.from_secret(LINK.secret).spki == LINK.spki
    assert LinkKey.generate().spki != LinkKey.generate().spki
    with pytest.raises(ValueError, match="32"):
        LinkKey.from_secret(b"short")


def test_the_certificate_holds_the_link_key_and_hangs_on_its_anchor() -> None:
    leaf = x509.load_pem_x509_certificate(LINK.certificate_pem())
    anchor = x509.load_pem_x509_certificate(anchor_pem(LINK.spki))
    assert certified_key(leaf.public_bytes(Encoding.DER)) == LINK.spki
    leaf.verify_directly_issued_by(anchor)
    with pytest.raises(ValueError, match="Issuer"):
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(anchor_pem(LinkKey.derived("m").spki)))


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"no key",
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    ],
    ids=["empty", "garbage", "P-256"],
)
def test_only_ed25519_keys_are_anchors(key: bytes) -> None:
    with pytest.raises(WireError, match="Ed25519"):
        anchor_pem(key)
