"""Where a node keeps bulk: modules, sealed inputs, sealed results. Never anything that is not ciphertext or code."""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple, Protocol

__all__ = ["Blobs", "Room", "Stored"]


class Room(StrEnum):
    MODULES = "modules"
    INPUTS = "inputs"
    RESULTS = "results"


class Stored(NamedTuple):
    key: bytes
    octets: int
    stored_ms: int
    """When it was put, by the disk's clock."""


class Blobs(Protocol):
    def put(self, room: Room, key: bytes, data: bytes) -> None:
        """Store under a 32-octet key; durable (fsync of file and folder) when it returns. An equal key is replaced.

        Raises wire.errors.TooMany if the room's quota is used up.
        """
        ...

    def get(self, room: Room, key: bytes) -> bytes | None: ...

    def has(self, room: Room, key: bytes) -> bool: ...

    def delete(self, room: Room, key: bytes) -> None:
        """Idempotent."""
        ...

    def all(self, room: Room) -> Iterable[Stored]: ...
