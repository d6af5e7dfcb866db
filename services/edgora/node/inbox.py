"""What waits for the replica: one queue with four priorities, bounded where others fill it (ledger.md 16).

Own events (timers, finished checks) go first, then consensus, sync, and last gossip with our own clients' transactions.
Every eighth turn looks from the bottom up, so a flood above starves nobody below. Frames are bounded per peer and lane:
a peer that floods us waits, and its connection is not read meanwhile; it takes no room from the others.
"""

import asyncio
from collections import deque
from typing import NamedTuple

from edgora.ledger.effects import ClientTx, TimerFired, Verified
from edgora.wire.pbft import Lane

__all__ = ["Frame", "Inbox"]

_PEER_OCTETS = 2 * 2**20
_CLIENT_TXS = 20_000
_FAIR = 8


class Frame(NamedTuple):
    """An encoded message of a peer, not decoded yet."""

    peer: int
    lane: Lane
    data: bytes


Item = Frame | ClientTx | TimerFired | Verified


class Inbox:
    """Filled by many tasks, emptied by one, all in one event loop."""

    def __init__(self) -> None:
        self._own: deque[TimerFired | Verified] = deque()
        self._lanes: dict[Lane, deque[Frame | ClientTx]] = {lane: deque() for lane in Lane}
        self._octets: dict[tuple[int, Lane], int] = {}
        self._clients = 0
        self._turn = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()

    def put_own(self, event: TimerFired | Verified) -> None:
        self._own.append(event)
        self._filled.set()

    def put_client(self, tx: ClientTx) -> bool:
        """False: too many wait already."""
        if self._clients >= _CLIENT_TXS:
            return False
        self._clients += 1
        self._lanes[Lane.GOSSIP].append(tx)
        self._filled.set()
        return True

    async def put_frame(self, peer: int, lane: Lane, data: bytes) -> None:
        """Waits while this peer has 2 MiB in this lane."""
        key = (peer, lane)
        while self._octets.get(key, 0) >= _PEER_OCTETS:
            self._room.clear()
            await self._room.wait()
        self._octets[key] = self._octets.get(key, 0) + len(data)
        self._lanes[lane].append(Frame(peer, lane, data))
        self._filled.set()

    async def ready(self) -> None:
        """Wait until there is something to take."""
        await self._filled.wait()

    def take(self) -> Item | None:
        """The next input; None if nothing waits."""
        self._turn += 1
        if self._own:
            return self._own.popleft()
        for lane in reversed(Lane) if self._turn % _FAIR == 0 else Lane:
            if self._lanes[lane]:
                item = self._lanes[lane].popleft()
                self._note_taken(item)
                return item
        self._filled.clear()
        return None

    def _note_taken(self, item: Frame | ClientTx) -> None:
        if isinstance(item, ClientTx):
            self._clients -= 1
            return
        key = (item.peer, item.lane)
        before = self._octets[key]
        self._octets[key] = before - len(item.data)
        if before >= _PEER_OCTETS > self._octets[key]:
            self._room.set()
