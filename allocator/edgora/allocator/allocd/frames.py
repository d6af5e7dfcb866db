"""What the service and its child process say to each other: length-prefixed MessagePack over the child's pipes.

Parent to child: `Job`. Child to parent: one `Hello` when it is ready or knows that it never will be, then one `Done` a
job, in order.
"""

import asyncio
import struct
from typing import BinaryIO

import msgspec

from edgora.wire.codec import U32, U64
from edgora.wire.market import Allocation, Instance, Reason

__all__ = ["Done", "Hello", "Job", "frame", "read_frame", "read_frame_async"]

_LENGTH = struct.Struct(">I")


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=0, forbid_unknown_fields=True):
    refused: str | None
    """Why the child cannot serve: a policy's name or library at fault."""


class Job(msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    number: U64
    instance: Instance
    budget_ms: U32


class Done(msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """Exactly one of allocation and reason."""

    number: U64
    allocation: Allocation | None
    reason: Reason | None


def frame(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def read_frame(source: BinaryIO) -> bytes | None:
    """The next frame, or None at the end of the stream."""
    head = source.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    length: int = _LENGTH.unpack(head)[0]
    data = source.read(length)
    return data if len(data) == length else None


async def read_frame_async(source: asyncio.StreamReader) -> bytes | None:
    """The next frame, or None at the end of the stream."""
    try:
        head = await source.readexactly(_LENGTH.size)
        return await source.readexactly(_LENGTH.unpack(head)[0])
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
