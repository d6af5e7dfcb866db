"""RSA keys that things are sealed to: inputs to servers, results to UEs (README.md, Sealing).

RSA of 3072 bits, public exponent 65537; up to 4096 bits are accepted from others. A key is named by its digest,
keccak-256 of its SubjectPublicKeyInfo DER: that is an Offer's `resultKey`, and its hex form is the `kid` of a JWE
recipient. Keys are bytes in and bytes out; whoever writes a PEM to a file gives it mode 0600.
"""

from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from edgora.wire.errors import Refused
from edgora.wire.hashing import keccak
from edgora.wire.units import Digest

__all__ = ["KEY_BITS", "BadKey", "SealingKey", "SealingPublicKey", "key_digest", "key_id"]

KEY_BITS = 3072
_MAX_BITS = 4096
_MAX_SPKI_OCTETS = 1024  # 4096 bits need 550
_EXPONENT = 65537
_OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)


class BadKey(Refused):
    """Not an RSA key of 3072 to 4096 bits with exponent 65537."""

    code = "bad_key"


def key_digest(spki: bytes) -> Digest:
    """H(SPKI DER): what an Offer's resultKey and a recipient's kid stand for."""
    return keccak(spki)


def key_id(digest: bytes) -> str:
    """The `kid` of JWE: the key digest in hex, 0x first as everywhere in REST."""
    return "0x" + digest.hex()


class SealingPublicKey:
    """Somebody's public half. Raises BadKey for anything but the keys that the module's first lines allow."""

    __slots__ = ("_key", "digest", "spki")

    def __init__(self, spki: bytes) -> None:
        if len(spki) > _MAX_SPKI_OCTETS:
            raise BadKey(f"a public key of {len(spki)} octets; an RSA-{_MAX_BITS} SPKI has 550")
        try:
            key = serialization.load_der_public_key(spki)
        except (ValueError, UnsupportedAlgorithm):
            raise BadKey("the public key is not SubjectPublicKeyInfo DER") from None
        if not isinstance(key, rsa.RSAPublicKey):
            raise BadKey("the public key is not RSA")
        if not KEY_BITS <= key.key_size <= _MAX_BITS or key.public_numbers().e != _EXPONENT:
            raise BadKey(f"RSA-{key.key_size}; {KEY_BITS} to {_MAX_BITS} bits with exponent {_EXPONENT} are taken")
        self._key = key
        # Not the caller's octets: DER that a lenient parser would also take must not give one key two names.
        self.spki = _spki(key)
        self.digest = key_digest(self.spki)
        if self.spki != spki:
            raise BadKey("the public key is not in DER's canonical form")

    @property
    def kid(self) -> str:
        return key_id(self.digest)

    def wrap(self, secret: bytes) -> bytes:
        """RSA-OAEP with SHA-256 (JWA RSA-OAEP-256)."""
        return self._key.encrypt(secret, _OAEP)

    def __repr__(self) -> str:
        return f"SealingPublicKey({self.kid})"


class SealingKey:
    """An RSA key pair. Never shows its private half but through `to_pem`."""

    __slots__ = ("_key", "public")

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key
        self.public = SealingPublicKey(_spki(key.public_key()))

    @classmethod
    def generate(cls) -> Self:
        """A fresh RSA-3072 key; takes some 0.1 to 1 s."""
        return cls(rsa.generate_private_key(_EXPONENT, KEY_BITS))

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Read what `to_pem` wrote, or any unencrypted PKCS #8 or PKCS #1 PEM. Raises BadKey."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise BadKey("not an unencrypted PEM private key") from None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise BadKey("the private key is not RSA")
        return cls(key)

    def to_pem(self) -> bytes:
        """PKCS #8 PEM, unencrypted: keep it in a file of mode 0600."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def unwrap(self, wrapped: bytes) -> bytes | None:
        """What was wrapped to us, or None: all failures look alike."""
        try:
            return self._key.decrypt(wrapped, _OAEP)
        except ValueError:
            return None

    def __repr__(self) -> str:
        return f"SealingKey({self.public.kid})"


def _spki(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
