"""A value of the replicated state under a certified root: what a `certified` read answers (ledger.md 3, 8).

The state tree has 4096 buckets; a key lives in the bucket of the first 12 bits of its keccak. The proof holds that
whole bucket, so it also proves that a key is absent. headers[0] names the root (its stateRoot is the state after
execHeight), each further header is a child, and the certificate signs the last one.
"""

import msgspec

from edgora.wire.codec import B32, U64
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Certificate, Header

__all__ = ["DEPTH", "StateProof"]

DEPTH = 12


class StateProof(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    key: bytes
    height: U64
    """The state is the one after this block."""
    pairs: tuple[tuple[bytes, bytes], ...]
    """The key's bucket by ascending key."""
    path: tuple[B32, ...]
    """Sibling hashes from the bucket up to the root."""
    headers: tuple[Header, ...]
    certificate: Certificate

    @property
    def value(self) -> bytes | None:
        """What the bucket says of the key; None if it is absent."""
        return dict(self.pairs).get(self.key)

    def root(self) -> bytes:
        """The state root that bucket and path add up to."""
        parts = [b"\x02"]
        for key, value in self.pairs:
            parts += (len(key).to_bytes(4, "big"), key, len(value).to_bytes(4, "big"), value)
        node: bytes = keccak(b"".join(parts))
        index = int.from_bytes(keccak(self.key)[:2], "big") >> 4
        for sibling in self.path:
            node = keccak(b"\x01" + (sibling + node if index % 2 else node + sibling))
            index //= 2
        return node

    def included(self) -> bool:
        """The hash part of the check: bucket, path, header links. The certificate's signatures are crypto's."""
        if not self.headers or len(self.path) != DEPTH:
            return False
        keys = [key for key, _ in self.pairs]
        first = self.headers[0]
        links = zip(self.headers, self.headers[1:], strict=False)
        return (
            keys == sorted(set(keys))
            and first.exec_height == self.height
            and self.root() == first.state_root
            and all(child.parent == parent.hash and child.height == parent.height + 1 for parent, child in links)
        )
