"""keccak-256 and the one Merkle tree shape of the ledger (ledger.md 2).

leaf = H(0x00 || data), node = H(0x01 || left || right), a lone last node moves up unchanged, empty tree = H("").
The leaf count is certified beside the root, so a path's shape follows from (index, count) alone.
"""

from collections.abc import Sequence

import sha3

from edgora.wire.units import Digest

__all__ = ["EMPTY_ROOT", "keccak", "merkle_leaf", "merkle_path", "merkle_root", "merkle_verify"]


def keccak(data: bytes) -> Digest:
    """keccak-256 of data: H(x) everywhere in Edgora."""
    digest: bytes = sha3.keccak_256(data).digest()
    return Digest(digest)


EMPTY_ROOT = keccak(b"")


def merkle_leaf(data: bytes) -> Digest:
    """Hash of a leaf's data."""
    return keccak(b"\x00" + data)


def _parents(row: Sequence[bytes]) -> list[bytes]:
    paired = [keccak(b"\x01" + row[i] + row[i + 1]) for i in range(0, len(row) - 1, 2)]
    return [*paired, row[-1]] if len(row) % 2 else list(paired)


def merkle_root(leaves: Sequence[bytes]) -> Digest:
    """Root over leaf data, in order."""
    if not leaves:
        return EMPTY_ROOT
    row: list[bytes] = [merkle_leaf(x) for x in leaves]
    while len(row) > 1:
        row = _parents(row)
    return Digest(row[0])


def merkle_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Sibling hashes from the leaf at index up to the root; a level where the node moves up alone adds nothing."""
    if not 0 <= index < len(leaves):
        raise IndexError(index)
    row: list[bytes] = [merkle_leaf(x) for x in leaves]
    path: list[bytes] = []
    while len(row) > 1:
        sibling = index ^ 1
        if sibling < len(row):
            path.append(row[sibling])
        row = _parents(row)
        index //= 2
    return path


def merkle_verify(data: bytes, index: int, count: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether data is leaf `index` of `count` under root. Never raises on a bad path."""
    if not 0 <= index < count:
        return False
    node, rest = bytes(merkle_leaf(data)), list(path)
    while count > 1:
        if index % 2:
            if not rest:
                return False
            node = keccak(b"\x01" + rest.pop(0) + node)
        elif index + 1 < count:
            if not rest:
                return False
            node = keccak(b"\x01" + node + rest.pop(0))
        index //= 2
        count = (count + 1) // 2
    return not rest and node == root
