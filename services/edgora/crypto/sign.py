"""secp256k1 signatures over EIP-712 digests (ledger.md 2).

65 octets r || s || v, v in {27, 28}, s in the lower half, RFC 6979 nonce. Whoever signed is whom the signature recovers
to; anything malformed recovers to nobody. No identity ever depends on signature bytes.
"""

import coincurve

from edgora.wire.hashing import keccak
from edgora.wire.units import NOBODY, Address

__all__ = ["HALF_ORDER", "SigningKey", "address_of", "recover"]

HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


def address_of(public_key: bytes) -> Address:
    """Address of an uncompressed public key (65 octets, 0x04 first)."""
    return Address(keccak(public_key[1:])[12:])


class SigningKey:
    """A secp256k1 key. Signs digests, never raw data."""

    __slots__ = ("_key", "address")

    def __init__(self, secret: bytes) -> None:
        self._key = coincurve.PrivateKey(secret)
        self.address = address_of(self._key.public_key.format(compressed=False))

    @classmethod
    def derived(cls, label: str) -> "SigningKey":
        """A key that follows from a label: tests and simulations only, where runs must repeat."""
        return cls(keccak(b"edgora test key" + label.encode()))

    @property
    def secret(self) -> bytes:
        return self._key.secret

    def sign(self, digest: bytes) -> bytes:
        signature = self._key.sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes((27 + signature[64],))


def recover(digest: bytes, signature: bytes) -> Address:
    """Who signed digest, or NOBODY for anything malformed: length, v, high s, r or s out of range."""
    if len(signature) != 65 or signature[64] not in (27, 28) or int.from_bytes(signature[32:64], "big") > HALF_ORDER:
        return NOBODY
    compact = signature[:64] + bytes((signature[64] - 27,))
    try:
        public = coincurve.PublicKey.from_signature_and_message(compact, digest, hasher=None)
    except Exception:  # coincurve raises bare Exception and ValueError alike
        return NOBODY
    return address_of(public.format(compressed=False))
