"""What the consensus half stores and the API half reads: blocks, receipts, certificates, events, snapshots.

One writer (the driver, one database transaction a block), any number of readers, also from another process.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from edgora.ledger.effects import SnapshotImage
from edgora.wire.ledger import Block, Certificate, Header, Receipt

__all__ = ["BlockReader", "BlockStore", "StoredBlock", "StoredEvent"]


class StoredBlock(NamedTuple):
    block: Block
    certificate: Certificate | None
    receipts: tuple[Receipt, ...]
    state_root: bytes


class StoredEvent(NamedTuple):
    """id is height * 65,536 + place in the block: ascending, and equal on every node, also on one that took a snapshot
    from its peers and never saw the blocks before. It is the SSE id that a reader resumes from.
    """

    id: int
    height: int
    time_ms: int
    data: bytes
    """Canonical msgpack of the application's event (wire.market_events.Event)."""


class BlockReader(Protocol):
    """After a state transfer heights are missing: `block` answers None there, and a follower restores `snapshot`."""

    def height(self) -> int:
        """Highest stored height; 0 before the first block."""
        ...

    def block(self, height: int) -> StoredBlock | None: ...

    def headers(self, first: int, last: int) -> Sequence[Header]: ...

    def certificate_from(self, height: int) -> tuple[int, Certificate] | None:
        """The lowest height >= this one that has a commit certificate."""
        ...

    def place_of(self, tx_hash: bytes) -> tuple[int, int] | None:
        """(height, index) of a transaction that was executed."""
        ...

    def events(self, after: int, limit: int) -> Sequence[StoredEvent]: ...

    def snapshot(self) -> tuple[int, Mapping[bytes, bytes]] | None:
        """Newest snapshot: (height, whole state). A follower restores it and applies the blocks after it."""
        ...

    def newest_snapshot(self) -> SnapshotImage | None:
        """The same with header and root: what a replica boots from, and a follower starts from."""
        ...


class BlockStore(BlockReader, Protocol):
    def append(self, stored: StoredBlock, events: Sequence[bytes]) -> None:
        """Store the next height. Idempotent: a height that is there already is left alone."""
        ...

    def add_certificate(self, certificate: Certificate) -> None: ...

    def save_snapshot(self, image: SnapshotImage) -> None:
        """Durable when it returns, with all blocks before it; only the newest two are kept."""
        ...

    def close(self) -> None: ...
