"""Signatures of a simulation: a registry stub by default, real secp256k1 on demand (ledger.md 19).

Stub rule: a signature verifies iff that signer produced it. The registry notes every (signer, digest) that a key of this
world signed; a stub signature is the two of them in 65 octets and counts only if it was noted. So nobody, not even the
scripted Byzantine replica, can use a signature that its owner never made, and a check costs a set look-up.
"""

from typing import Protocol

from edgora.crypto.sign import SigningKey, recover
from edgora.wire.hashing import keccak
from edgora.wire.units import NOBODY, Address

__all__ = ["RealRegistry", "Registry", "Signer", "StubRegistry"]

_TAIL = bytes(12) + b"\x1b"
"""Pads signer and digest to 65 octets and ends in a legal v."""


class Signer(Protocol):
    """What signs digests: `crypto.sign.SigningKey` or a stub of it."""

    @property
    def address(self) -> Address: ...
    def sign(self, digest: bytes) -> bytes: ...


class Registry(Protocol):
    """Makes keys by label and says who signed."""

    def key(self, label: str) -> Signer: ...
    def wrap(self, key: SigningKey) -> Signer:
        """A key that somebody else made, to sign in this world's way."""
        ...

    def recover(self, digest: bytes, signature: bytes) -> Address: ...


class _StubKey:
    __slots__ = ("_signed", "address")

    def __init__(self, address: Address, signed: set[bytes]) -> None:
        self.address = address
        self._signed = signed

    def sign(self, digest: bytes) -> bytes:
        body = self.address + digest
        self._signed.add(body)
        return body + _TAIL


class StubRegistry:
    """Keys that cost nothing and cannot be forged inside one simulation."""

    def __init__(self) -> None:
        self._signed: set[bytes] = set()

    def key(self, label: str) -> Signer:
        return _StubKey(Address(keccak(b"edgora stub key" + label.encode())[12:]), self._signed)

    def wrap(self, key: SigningKey) -> Signer:
        return _StubKey(key.address, self._signed)

    def recover(self, digest: bytes, signature: bytes) -> Address:
        body = signature[:52]
        if signature[52:] != _TAIL or body[20:] != digest or body not in self._signed:
            return NOBODY
        return Address(body[:20])


class RealRegistry:
    """The product's own signatures."""

    def key(self, label: str) -> Signer:
        return SigningKey.derived(label)

    def wrap(self, key: SigningKey) -> Signer:
        return key

    def recover(self, digest: bytes, signature: bytes) -> Address:
        return recover(digest, signature)
