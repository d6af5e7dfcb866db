"""A node's own small durable facts that the ledger does not hold: audit seed, chain cursor. One process, one writer."""

from typing import Protocol

__all__ = ["Journal"]


class Journal(Protocol):
    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes) -> None:
        """Durable when it returns."""
        ...

    def close(self) -> None: ...
