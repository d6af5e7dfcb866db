"""A simulated disk: real log framing, lost unsynced suffixes, torn writes (ledger.md 12, 19).

What is appended is volatile until a sync that started afterwards ends. A crash keeps everything synced and a random
part of the rest, cut at any octet, with zeros or noise where the tear is; then the product's own scan reads it back. The
octets of a log follow from its records, so they are laid out only when a crash needs them.
"""

import random
from collections.abc import Sequence

from edgora.lab.sim.violation import Violation
from edgora.ledger.effects import SnapshotImage
from edgora.ledger.snapshot import decode_snapshot, encode_snapshot
from edgora.ledger.wal import SEGMENT_OCTETS, LogCursor, scan
from edgora.wire.pbft import WalRecord

__all__ = ["Disk"]

_PREALLOCATED = 64
"""Zeros behind the content of a segment, as a preallocated file has them."""


class _Segment:
    __slots__ = ("first", "records")

    def __init__(self, first: int) -> None:
        self.first = first
        self.records: list[WalRecord] = []


class Disk:
    """The log segments and snapshots of one replica."""

    def __init__(self, rng: random.Random, segment_octets: int = SEGMENT_OCTETS) -> None:
        self._rng = rng
        self._segment_octets = segment_octets
        self._segments = [_Segment(0)]
        self._next_index = 0
        self._synced_index = 0
        self._unsynced: list[WalRecord] = []
        self._snapshots: list[tuple[int, SnapshotImage]] = []
        """(log index at which it was written, image), old to new."""
        self._drop: list[tuple[int, int]] = []
        """(log index that must be durable first, first index that is kept)."""

    @property
    def written(self) -> int:
        """Position behind everything that was handed over."""
        return self._next_index

    @property
    def synced(self) -> int:
        return self._synced_index

    def append(self, records: Sequence[WalRecord], snapshot: SnapshotImage | None, *, compacted: bool) -> None:
        """Take the records and the snapshot of one step. A compacting step opens a new segment."""
        if snapshot is not None:
            image = snapshot._replace(state=dict(snapshot.state))
            self._snapshots.append((self._next_index + len(records), image))
        if compacted:
            self._segments.append(_Segment(self._next_index))
            self._drop.append((self._next_index + len(records), self._next_index))
        self._segments[-1].records.extend(records)
        self._unsynced.extend(records)
        self._next_index += len(records)

    def sync(self, position: int) -> list[WalRecord]:
        """A sync that started at this position has ended. Returns the records that became durable."""
        count = max(0, position - self._synced_index)
        fresh, self._unsynced = self._unsynced[:count], self._unsynced[count:]
        self._synced_index += count
        for needed, first in [d for d in self._drop if d[0] <= position]:
            self._drop.remove((needed, first))
            self._segments = [s for s in self._segments if s.first >= first]
            durable = [s for s in self._snapshots if s[0] <= position]
            self._snapshots = durable[-1:] + [s for s in self._snapshots if s[0] > position]
        return fresh

    def layout(self) -> list[tuple[int, bytearray]]:
        """The segments as (first index, octets), all that was written, synced or not."""
        files: list[tuple[int, bytearray]] = []
        for segment in self._segments:
            cursor = LogCursor(segment.first, None, 0, self._segment_octets)
            for write in cursor.place(segment.records):
                if write.offset == 0:
                    files.append((write.segment, bytearray()))
                files[-1][1][write.offset :] = write.data
        return files

    def crash(self) -> None:
        """Lose a random part of what was not synced; the rest is what the next boot reads."""
        survivors = self._torn()
        read = scan([(first, bytes(data)) for first, data in survivors], self._segment_octets)
        synced = self._synced_index
        kept = read.cursor.next_index if survivors else synced
        if kept < synced:
            raise Violation("P3", f"the log scan lost synced records {kept}..{synced - 1}")
        self._drop.clear()
        self._unsynced.clear()
        self._segments = []
        for first, _ in survivors:
            self._segments.append(_Segment(first))
        if not self._segments:
            self._segments.append(_Segment(kept))
        for index, record in zip(read.indices, read.records, strict=True):
            home = max((s for s in self._segments if s.first <= index), key=lambda s: s.first)
            home.records.append(record)
        # what the tear left of an unfinished segment is empty: the next record opens one of its own
        self._segments = [s for s in self._segments if s.records] or [_Segment(kept)]
        self._next_index = self._synced_index = kept
        # a snapshot is a file of its own, put in place by a rename: there or not, whatever became of the records
        self._snapshots = [
            (min(at, kept), decode_snapshot(encode_snapshot(image)))
            for at, image in self._snapshots
            if at <= synced or self._rng.random() < 0.5
        ]

    def boot(self) -> tuple[SnapshotImage | None, tuple[WalRecord, ...]]:
        """The newest snapshot and every record that is still there."""
        newest = self._snapshots[-1][1] if self._snapshots else None
        return newest, tuple(r for s in self._segments for r in s.records)

    def _torn(self) -> list[tuple[int, bytearray]]:
        """The octets that a crash leaves: everything synced, then a tear somewhere in the rest."""
        files = self.layout()
        position = {first: 0 for first, _ in files}
        for segment in self._segments:
            cursor = LogCursor(segment.first, None, 0, self._segment_octets)
            for index, record in enumerate(segment.records, segment.first):
                if index >= self._synced_index:
                    break
                for write in cursor.place([record]):
                    position[write.segment] = write.offset + len(write.data)
        synced_files = [(first, position[first]) for first, _ in files]
        unsynced = sum(len(data) - end for (_, data), (_, end) in zip(files, synced_files, strict=True))
        keep = self._rng.randint(0, unsynced)
        survivors: list[tuple[int, bytearray]] = []
        for (first, data), (_, end) in zip(files, synced_files, strict=True):
            take = min(len(data) - end, keep)
            keep -= take
            if end + take == 0:
                break
            rest = bytes(_PREALLOCATED)
            if end + take < len(data) and self._rng.random() < 0.3:
                rest = self._rng.randbytes(self._rng.randint(1, 8)) + rest
            survivors.append((first, data[: end + take] + rest))
            if end + take < len(data):
                break
        return survivors
