"""One wire form per value: canonical MessagePack arrays (ledger.md 2).

`decode` re-encodes what it read and refuses any difference, so two different byte strings never mean the same thing.
Integers wider than 64 bits travel as fixed-length big-endian binary; the aliases below give the field types.
"""

from typing import Annotated, Any, TypeVar

import msgspec

from edgora.wire.errors import WireError

__all__ = [
    "B20", "B32", "B65", "U8", "U16", "U32", "U40", "U48", "U56", "U64", "U96", "U128", "decode", "encode", "from_u96",
    "from_u128", "to_u96", "to_u128",
]  # fmt: skip

T = TypeVar("T")

U8 = Annotated[int, msgspec.Meta(ge=0, le=2**8 - 1)]
U16 = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
U40 = Annotated[int, msgspec.Meta(ge=0, le=2**40 - 1)]
U48 = Annotated[int, msgspec.Meta(ge=0, le=2**48 - 1)]
U56 = Annotated[int, msgspec.Meta(ge=0, le=2**56 - 1)]
U64 = Annotated[int, msgspec.Meta(ge=0)]  # MessagePack itself ends at 2^64 - 1
B20 = Annotated[bytes, msgspec.Meta(min_length=20, max_length=20)]
B32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
B65 = Annotated[bytes, msgspec.Meta(min_length=65, max_length=65)]
U96 = Annotated[bytes, msgspec.Meta(min_length=12, max_length=12)]
U128 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def to_u96(value: int) -> bytes:
    """Wei on the wire. Raises OverflowError outside 0..2^96-1."""
    return value.to_bytes(12, "big")


def from_u96(data: bytes) -> int:
    return int.from_bytes(data, "big")


def to_u128(value: int) -> bytes:
    return value.to_bytes(16, "big")


def from_u128(data: bytes) -> int:
    return int.from_bytes(data, "big")


def encode(value: object) -> bytes:
    """Canonical MessagePack of a wire structure."""
    return _encoder.encode(value)


def decode(data: bytes, kind: type[T]) -> T:
    """The structure in data, or WireError: wrong shape, type, width, length, or not the canonical form."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        value: T = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"{getattr(kind, '__name__', kind)}: {error}") from None
    if _encoder.encode(value) != data:
        raise WireError(f"{getattr(kind, '__name__', kind)}: not in canonical form")
    return value
