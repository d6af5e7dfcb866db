"""What travels on a link and how much of it (ledger.md 16, 17).

A frame is u32 length (big endian) | u8 kind | content. The length is checked against 4 MiB before the content is read,
so a hostile length allocates nothing. A connection carries one lane; besides that lane's frames it knows HELLO (first,
once), PING (keeps a silent link known to be alive) and, in the sync lane, REQUEST and ANSWER between API halves.
"""

import struct
from collections import deque
from collections.abc import Callable
from enum import IntEnum

import msgspec

from edgora.crypto.links import SignedStatement
from edgora.wire.codec import B32, U8, U64
from edgora.wire.errors import WireError
from edgora.wire.pbft import MAX_FRAME, Lane

__all__ = ["EGRESS_OCTETS", "HEADER", "EgressQueue", "Hello", "Kind", "Pacer", "frame", "parse_header"]

EGRESS_OCTETS = 16 * 2**20
"""What may wait for one peer, all lanes together."""

HEADER = struct.Struct(">IB")


class Kind(IntEnum):
    """Kinds of frames besides the three lanes, whose numbers stand for themselves."""

    HELLO = 16
    REFUSED = 17
    """Instead of a HELLO: why, in one sentence; then the connection is closed."""
    PING = 18
    REQUEST = 19
    """u64 id | request."""
    ANSWER = 20
    """u64 id | u8 0 | answer, or u64 id | u8 1 | why not."""


class Hello(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """First frame in each direction. Everything in it must fit before anything else is said."""

    version: U8
    genesis_id: B32
    epoch: U64
    lane: U8
    boot_nonce: U64
    statement: SignedStatement


def frame(kind: int, content: bytes) -> bytes:
    """Raises WireError for content over 4 MiB: the other side would cut the link."""
    if len(content) > MAX_FRAME:
        raise WireError(f"a frame of {len(content)} octets; at most {MAX_FRAME} may be sent")
    return HEADER.pack(len(content), kind) + content


def parse_header(data: bytes, lane: Lane | None) -> tuple[int, int]:
    """(length, kind) of the frame that follows; lane None while the HELLO is awaited.

    Raises WireError for a frame that is too long or out of place here.
    """
    length, kind = HEADER.unpack(data)
    if length > MAX_FRAME:
        raise WireError(f"a frame of {length} octets was announced; at most {MAX_FRAME} are read")
    if lane is None:
        fits = kind in (Kind.HELLO, Kind.REFUSED)
    else:
        fits = kind in (lane, Kind.PING) or (lane is Lane.SYNC and kind in (Kind.REQUEST, Kind.ANSWER))
    if not fits:
        raise WireError(f"a frame of kind {kind} is out of place {'before HELLO' if lane is None else lane.name}")
    return length, kind


class EgressQueue:
    """Frames that wait for one peer, by lane. Over the limit gossip goes first, oldest first, then sync."""

    def __init__(self, limit: int = EGRESS_OCTETS) -> None:
        self._limit = limit
        self._lanes: dict[Lane, deque[bytes]] = {lane: deque() for lane in Lane}
        self._sizes = dict.fromkeys(Lane, 0)
        self.dropped = 0

    @property
    def octets(self) -> int:
        return sum(self._sizes.values())

    def push(self, lane: Lane, data: bytes) -> bool:
        """Queue a frame. False: even without gossip and sync it is too much, so the peer does not read at all."""
        self._lanes[lane].append(data)
        self._sizes[lane] += len(data)
        for victim in (Lane.GOSSIP, Lane.SYNC):
            while self._lanes[victim] and self.octets > self._limit:
                self._drop(victim)
        return self.octets <= self._limit

    def take(self, lane: Lane, octets: int) -> bytes:
        """The next frames of a lane in one piece: at least one if any waits, else up to so many octets."""
        waiting, batch, size = self._lanes[lane], list[bytes](), 0
        while waiting and (not batch or size + len(waiting[0]) <= octets):
            batch.append(waiting.popleft())
            size += len(batch[-1])
        self._sizes[lane] -= size
        return b"".join(batch)

    def clear(self, keep: int = 0) -> None:
        """Forget all but the newest `keep` octets of consensus and of gossip: what a peer that is away should still
        hear. Sync goes whole: who asked has given up.
        """
        for lane, waiting in self._lanes.items():
            while waiting and self._sizes[lane] > (0 if lane is Lane.SYNC else keep):
                self._drop(lane)

    def _drop(self, lane: Lane) -> None:
        self._sizes[lane] -= len(self._lanes[lane].popleft())
        self.dropped += 1


class Pacer:
    """A token bucket over octets with a burst of one second. now is in seconds, from any steady clock."""

    def __init__(self, per_second: int, now: Callable[[], float]) -> None:
        self._rate = per_second
        self._now = now
        self._tokens = float(per_second)
        self._at = now()

    def take(self, octets: int) -> float:
        """Account for so many octets; the seconds to pause before reading on, 0 if there is room."""
        now = self._now()
        self._tokens = min(float(self._rate), self._tokens + (now - self._at) * self._rate) - octets
        self._at = now
        return max(0.0, -self._tokens / self._rate)
