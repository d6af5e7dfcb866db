"""The log on disk: bytes in, records out (ledger.md 12). No file is touched here.

A log is a row of segments named by the index of their first record. A segment is

    magic (8) | first index (u64) | record | record | ... | zeros up to its preallocated size

and a record, all integers big endian,

    payload length (u32) | crc32c of all that follows (u32) | type (u8) | epoch (u64) | index (u64) | payload

The index grows by one from record to record, across segments, so a missing record is visible.

Rule 1: a clean end is a frame of zeros. Anything else that is no valid record is damage.
Rule 2: damage in the last segment with nothing valid after it is a torn tail: it is cut, which is safe, since nothing
        that depends on it was ever sent.
Rule 3: damage with a valid record after it, a gap in the index, or damage in an older segment is refused (`Broken`).
        There is no repair: a replica that forgets a vote is a faulty one.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from edgora.ledger.crc32c import crc32c
from edgora.wire.errors import Broken, WireError
from edgora.wire.pbft import WalRecord, decode_record, encode_record

__all__ = ["HEADER_OCTETS", "SEGMENT_OCTETS", "LogCursor", "Scan", "Write", "frame", "scan"]

SEGMENT_OCTETS = 64 * 2**20
HEADER_OCTETS = 16
_MAGIC = b"EDGORAW1"
_FRAME_OCTETS = 25
_MAX_PAYLOAD = 8 * 2**20  # above any record: a block is 512 KiB, a NEW_VIEW at most 64 view changes


class Write(NamedTuple):
    """Octets to put at an offset of the segment that starts at index `segment`; offset 0 creates the segment."""

    segment: int
    offset: int
    data: bytes


class Scan(NamedTuple):
    """What a log holds."""

    records: tuple[WalRecord, ...]
    indices: tuple[int, ...]
    cursor: "LogCursor"
    """Where the next record goes."""
    torn: int
    """Octets cut off as a torn tail. If not 0 the last segment MUST be zeroed or truncated from the cursor on, and
    synced, before anything is appended."""


class LogCursor:
    """Places records into segments. It only counts; the caller writes."""

    __slots__ = ("next_index", "offset", "segment", "segment_octets")

    def __init__(
        self, next_index: int = 0, segment: int | None = None, offset: int = 0, segment_octets: int = SEGMENT_OCTETS
    ) -> None:
        self.next_index = next_index
        self.segment = segment
        """First index of the open segment; None where the next record opens one."""
        self.offset = offset
        self.segment_octets = segment_octets

    def place(self, records: Sequence[WalRecord]) -> list[Write]:
        """Writes that append these records, in order; at most one a segment, so a group costs one write call."""
        writes: list[Write] = []
        start, parts, size = self.offset, list[bytes](), 0
        for record in records:
            data = frame(self.next_index, record)
            if self.segment is None or self.offset + size + len(data) > self.segment_octets:
                if parts and self.segment is not None:
                    writes.append(Write(self.segment, start, b"".join(parts)))
                self.segment, self.offset = self.next_index, 0
                start, parts, size = 0, [_MAGIC + self.next_index.to_bytes(8, "big")], HEADER_OCTETS
            parts.append(data)
            size += len(data)
            self.next_index += 1
        if parts and self.segment is not None:
            writes.append(Write(self.segment, start, b"".join(parts)))
            self.offset = start + size
        return writes


def frame(index: int, record: WalRecord) -> bytes:
    """One record as it stands in a segment."""
    payload = encode_record(record)
    kind = record.__struct_config__.tag
    assert isinstance(kind, int)
    body = kind.to_bytes(1, "big") + record.epoch.to_bytes(8, "big") + index.to_bytes(8, "big") + payload
    return len(payload).to_bytes(4, "big") + crc32c(body).to_bytes(4, "big") + body


def _record_at(data: bytes, offset: int) -> tuple[int, int, WalRecord] | None:
    """(index, end, record) of a valid record at this place, else None."""
    if offset + _FRAME_OCTETS > len(data):
        return None
    length = int.from_bytes(data[offset : offset + 4], "big")
    end = offset + _FRAME_OCTETS + length
    if not 0 < length <= _MAX_PAYLOAD or end > len(data):
        return None
    if crc32c(data[offset + 8 : end]) != int.from_bytes(data[offset + 4 : offset + 8], "big"):
        return None
    try:
        record = decode_record(data[offset + _FRAME_OCTETS : end])
    except WireError:
        return None
    if record.__struct_config__.tag != data[offset + 8] or record.epoch != int.from_bytes(
        data[offset + 9 : offset + 17], "big"
    ):
        return None
    return int.from_bytes(data[offset + 17 : offset + 25], "big"), end, record


def _valid_after(data: bytes, offset: int, expected: int) -> int | None:
    """Index of some valid record that starts behind offset, wherever its frame begins; None if there is none."""
    # A later record's index shares its upper octets with the expected one, or is one carry above it.
    high = [(expected >> 24) + carry for carry in (0, 1)]
    upper = b"|".join(re.escape(value.to_bytes(5, "big")) for value in high)
    candidates = re.compile(b"(?s)(?=[\\x01-\\x7f].{8}(?:" + upper + b"))")
    for match in candidates.finditer(data, offset + 9):
        found = _record_at(data, match.start() - 8)
        if found is not None and found[0] > expected:
            return found[0]
    return None


def scan(segments: Sequence[tuple[int, bytes]], segment_octets: int = SEGMENT_OCTETS) -> Scan:
    """Read a whole log: (first index by the file's name, content) by ascending index.

    Raises Broken where rule 3 says so; the sentence names the segment, the place and what is wrong.
    """
    records: list[WalRecord] = []
    indices: list[int] = []
    cursor = LogCursor(segment_octets=segment_octets)
    torn = 0
    for position, (first, data) in enumerate(segments):
        last = position == len(segments) - 1
        if position and first != cursor.next_index:
            raise Broken(f"log segment {first} follows record {cursor.next_index - 1}: records are missing")
        if position == 0:
            cursor.next_index = first
        if data[:HEADER_OCTETS] != _MAGIC + first.to_bytes(8, "big"):
            if last and _valid_after(data, 0, max(first - 1, 0)) is None and not _record_at(data, HEADER_OCTETS):
                # The segment was created and never synced: nothing in it was relied on.
                return Scan(tuple(records), tuple(indices), _in_new_segment(cursor), len(data.rstrip(b"\0")))
            raise Broken(f"log segment {first} has a wrong header; a log is not repaired, restore it or re-join")
        offset, content_end = HEADER_OCTETS, len(data.rstrip(b"\0"))
        while offset < content_end:
            found = _record_at(data, offset)
            if found is None:
                if not last:
                    raise Broken(f"log segment {first} is damaged at octet {offset} and later segments exist")
                later = _valid_after(data, offset, cursor.next_index)
                if later is not None:
                    raise Broken(f"log segment {first} is damaged at octet {offset} and record {later} follows")
                torn = content_end - offset
                break
            index, end, record = found
            if index != cursor.next_index:
                raise Broken(f"log segment {first} holds record {index} where {cursor.next_index} is due")
            records.append(record)
            indices.append(index)
            cursor.next_index += 1
            offset = end
        cursor.segment, cursor.offset = first, offset
    return Scan(tuple(records), tuple(indices), cursor, torn)


def _in_new_segment(cursor: LogCursor) -> LogCursor:
    """The same place, but in a segment still to be created."""
    return LogCursor(cursor.next_index, None, 0, cursor.segment_octets)
