"""The replica's log as a port: what must be durable before a vote leaves (ledger.md 12)."""

from collections.abc import Sequence
from typing import Protocol

from edgora.wire.pbft import WalRecord

__all__ = ["Log"]


class Log(Protocol):
    """Appending is cheap and happens in the driver's thread; flushing blocks and may run in another one."""

    @property
    def end(self) -> int:
        """The index after the last record: all that was there when the log was opened is durable."""
        ...

    def append(self, records: Sequence[WalRecord], *, compacted: bool = False) -> int:
        """Take records; the index after the last one. compacted: they open a new segment, which later replaces all."""
        ...

    def flush(self) -> int:
        """Make everything durable that was appended before the call; the index up to which all is durable.

        Raises Broken after a failed or short write or sync: then nothing may be tried again, the process must end.
        """
        ...

    def drop_before(self, index: int) -> None:
        """Delete segments that hold only records below index."""
        ...

    def close(self) -> None: ...
