"""A checkpointed state as one file (ledger.md 9, 12): bytes in, image out.

magic (8) | canonical msgpack of [header, state root, installed, pairs by ascending key] | keccak of all before (32).
The digest finds a torn or rotten file; whether the state is the right one follows from the state root at boot.
"""

import msgspec

from edgora.ledger.effects import SnapshotImage
from edgora.wire.codec import B32, decode, encode
from edgora.wire.errors import Broken
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Header

__all__ = ["decode_snapshot", "encode_snapshot"]

_MAGIC = b"EDGORAS1"


class _File(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    header: Header
    state_root: B32
    installed: bool
    pairs: tuple[tuple[bytes, bytes], ...]


def encode_snapshot(image: SnapshotImage) -> bytes:
    """File content of a snapshot."""
    content = _File(image.header, image.state_root, image.installed, tuple(sorted(image.state.items())))
    data = _MAGIC + encode(content)
    return data + keccak(data)


def decode_snapshot(data: bytes) -> SnapshotImage:
    """The image in a file's content. Raises Broken for a damaged file; an older snapshot may then serve."""
    if data[:8] != _MAGIC or keccak(data[:-32]) != data[-32:]:
        raise Broken(f"snapshot of {len(data)} octets is damaged")
    content = decode(data[8:-32], _File)
    return SnapshotImage(content.header, content.state_root, dict(content.pairs), content.installed)
