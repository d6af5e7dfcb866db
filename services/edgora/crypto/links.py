"""Who is at the other end of a link (ledger.md 17).

A node's links use an Ed25519 key of their own, its link key. Two things bind it to the validator:

1. TLS 1.3 with mutual authentication. Each side presents a certificate that its link key signed. The other side trusts
   exactly one anchor a validator: a certificate made locally around the link key that genesis pins. A stranger fails
   in the handshake, before a single frame is read.
2. A statement, signed with the validator key in the ledger's domain, over (address, link key, epoch, expiry). It is
   shown in the first frame, so a stolen link key ends with its statement and a link key alone is never an identity.

Certificates carry no facts besides the key: names and dates are constants and time is judged by the statement alone.
An anchor is never shown to anybody, so its own signature is by a throwaway key: OpenSSL does not check the signature
of what it is told to trust.
"""

import datetime as dt

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)
from cryptography.x509.oid import NameOID

from edgora.crypto.sign import SigningKey, recover
from edgora.wire.codec import B20, B65, U64
from edgora.wire.eip712 import Domain, Typed
from edgora.wire.errors import WireError
from edgora.wire.hashing import keccak

__all__ = ["LinkKey", "LinkStatement", "SignedStatement", "anchor_pem", "certified_key", "check_statement"]

_FROM = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_TO = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)


class LinkStatement(Typed, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A validator says: this link key is mine, in this epoch, until then."""

    TYPE = "LinkStatement(address validator,bytes linkKey,uint64 epoch,uint64 expiresMs)"
    validator: B20
    link_key: bytes
    """SPKI DER."""
    epoch: U64
    expires_ms: U64
    """Unix time in milliseconds."""


class SignedStatement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    statement: LinkStatement
    signature: B65

    @classmethod
    def make(
        cls, key: SigningKey, link_key: bytes, *, epoch: int, expires_ms: int, domain: Domain
    ) -> "SignedStatement":
        statement = LinkStatement(key.address, link_key, epoch, expires_ms)
        return cls(statement, key.sign(statement.digest(domain)))


def check_statement(
    signed: SignedStatement, *, validator: bytes, link_key: bytes, epoch: int, now_ms: int, domain: Domain
) -> str | None:
    """None if this validator says today that this link key is its own in this epoch; else one sentence why not."""
    said = signed.statement
    if said.validator != validator or recover(said.digest(domain), signed.signature) != validator:
        return f"the link statement is not signed by validator 0x{validator.hex()}"
    if said.link_key != link_key:
        return "the link statement is for another link key than the connection uses"
    if said.epoch != epoch:
        return f"the link statement is for epoch {said.epoch}, this is epoch {epoch}"
    if said.expires_ms <= now_ms:
        return f"the link statement expired at {said.expires_ms} ms, it is {now_ms} ms"
    return None


class LinkKey:
    """The private half of a node's link identity."""

    __slots__ = ("_key", "spki")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        """Public key as SPKI DER: the form that genesis pins."""

    @classmethod
    def generate(cls) -> "LinkKey":
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_secret(cls, secret: bytes) -> "LinkKey":
        """From the 32 octets of `secret`. Raises ValueError for another length."""
        return cls(Ed25519PrivateKey.from_private_bytes(secret))

    @classmethod
    def derived(cls, label: str) -> "LinkKey":
        """A key that follows from a label: tests and simulations only."""
        return cls.from_secret(keccak(b"edgora test link key" + label.encode()))

    @property
    def secret(self) -> bytes:
        return self._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

    def private_pem(self) -> bytes:
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def certificate_pem(self) -> bytes:
        """What this node presents: its link key, vouched for by the anchor of that same key."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgora link")])
        return _certificate(subject, _anchor_name(self.spki), self._key.public_key(), self._key, authority=False)


def anchor_pem(link_key: bytes) -> bytes:
    """A trust anchor that accepts certificates signed by this link key and no others.

    Raises WireError if link_key is not the SPKI DER of an Ed25519 key.
    """
    name = _anchor_name(link_key)
    return _certificate(name, name, _ed25519(link_key), Ed25519PrivateKey.generate(), authority=True)


def certified_key(certificate_der: bytes) -> bytes:
    """The public key, as SPKI DER, in the certificate that a peer presented and TLS has verified."""
    public = x509.load_der_x509_certificate(certificate_der).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _ed25519(link_key: bytes) -> Ed25519PublicKey:
    try:
        public = load_der_public_key(link_key)
    except (ValueError, UnsupportedAlgorithm):
        raise WireError("a link key is the SPKI DER of an Ed25519 public key", field="link_key") from None
    if not isinstance(public, Ed25519PublicKey):
        raise WireError("a link key is an Ed25519 key", field="link_key")
    return public


def _anchor_name(link_key: bytes) -> x509.Name:
    # 64 characters is X.520's limit for a common name: 31 octets of the digest in hexadecimal fit.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, keccak(link_key)[:31].hex())])


def _certificate(
    subject: x509.Name, issuer: x509.Name, public: Ed25519PublicKey, signer: Ed25519PrivateKey, *, authority: bool
) -> bytes:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(1 if authority else 2).not_valid_before(_FROM).not_valid_after(_TO)
    builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    return builder.sign(signer, algorithm=None).public_bytes(Encoding.PEM)
