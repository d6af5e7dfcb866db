"""The shape of a replicated application: what the ledger applies operations to (house.md 3).

Neither the ledger nor the market imports the other; both see this. Everything here is deterministic: equal calls in
equal order give equal receipts, writes, events and wake times on every replica, in every process.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from edgora.wire.ledger import BlockContext, OrderedTx
from edgora.wire.units import Millis

__all__ = ["Application", "Applied", "Outcome"]


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What one transaction came to. code 0 is success; output goes behind the uint16 kind into the receipt."""

    code: int
    output: bytes = b""


class Applied(msgspec.Struct, frozen=True):
    """What one block came to."""

    outcomes: Sequence[Outcome]
    """One for each transaction, in order."""
    writes: Mapping[bytes, bytes | None]
    """State keys to their new value, None to delete; the ledger keeps them in its state tree."""
    events: Sequence[msgspec.Struct]
    """What happened, in order; opaque to the ledger, handed on with the block."""


class Application(Protocol):
    """A deterministic state machine behind the ledger."""

    def apply(self, block: BlockContext, txs: Sequence[OrderedTx]) -> Applied:
        """Execute one committed block; also where time passes, so it is called for empty blocks too."""
        ...

    def knows(self, sender: bytes) -> bool:
        """Whether the state names this sender; the ledger stores no lane for strangers (ledger.md 8)."""
        ...

    def wake_at(self) -> Millis | None:
        """When the next thing happens by time alone, in header time; None if nothing is pending."""
        ...

    def snapshot(self) -> Mapping[bytes, bytes]:
        """The whole state as the keys and values that all writes so far add up to."""
        ...

    def restore(self, state: Mapping[bytes, bytes]) -> None:
        """Become the application whose snapshot this is."""
        ...

    def precheck(self, tx: OrderedTx) -> Outcome:
        """What executing tx now would answer; advice for the API only, never part of block validity."""
        ...
