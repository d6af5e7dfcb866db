"""Events as server-sent events: everything, or one task's, resumable by the id of the last one that was seen.

A stream reads the archive's recent events and, further back, the store; it waits for the follower in between. An event
is rendered once for all readers. Comments keep idle connections open through proxies.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable

import msgspec

from edgora.market.records import FINISHED
from edgora.node import views
from edgora.node.archive import ArchivedEvent, decode_event
from edgora.node.follower import Follower
from edgora.wire.errors import NotFound, TooMany

__all__ = ["EventStreams"]

PAGE = 512
KEEP_ALIVE_S = 15.0
RENDERED = 4_096
_encoder = msgspec.json.Encoder()


class EventStreams:
    """All open event streams of a node."""

    def __init__(self, follower: Follower, most: int) -> None:
        self._follower, self._most = follower, most
        self._rendered: OrderedDict[int, bytes] = OrderedDict()
        self._closed = asyncio.Event()
        self.open = 0

    def close(self) -> None:
        """End every stream; clients come back to whoever serves next."""
        self._closed.set()

    def admit(self) -> None:
        """Raises TooMany if as many streams are open as this node serves."""
        if self.open >= self._most:
            raise TooMany(
                f"{self._most} event streams are open here", retry_after_s=5, fix="use another node or try again later"
            )

    def newest(self) -> int:
        return self._follower.archive.last_event

    async def all(self, after: int) -> AsyncIterator[bytes]:
        """Every event with a higher id, as it comes."""
        self.open += 1
        try:
            while not self._closed.is_set():
                fresh = list(self._after(after))
                for item in fresh:
                    after = item.id
                    yield self._frame(item)
                if not fresh and not await self._more():
                    yield b": nothing new\n\n"
        finally:
            self.open -= 1

    async def of_task(self, offer_id: bytes, after: int) -> AsyncIterator[bytes]:
        """A task's events with a higher id; ends with the task."""
        self.open += 1
        try:
            while not self._closed.is_set():
                task = self._follower.archive.tasks.get(offer_id)
                ids = [] if task is None else sorted({number for number in task.events if number > after})
                for number in ids:
                    after = number
                    found = self._one(number)
                    if found is not None:
                        yield self._frame(found)
                if task is None or (task.state in FINISHED and not ids):
                    return
                if not ids and not await self._more():
                    yield b": nothing new\n\n"
        finally:
            self.open -= 1

    def known(self, offer_id: bytes) -> None:
        """Raises NotFound for a task that is not here."""
        if offer_id not in self._follower.archive.tasks:
            raise NotFound(f"no task 0x{offer_id.hex()} is known here", field="id", fix="check the id")

    async def _more(self) -> bool:
        """Wait for further blocks. False: only the time for a keep-alive has passed."""
        waits = [asyncio.ensure_future(self._follower.moved()), asyncio.ensure_future(self._closed.wait())]
        try:
            done, _ = await asyncio.wait(waits, timeout=KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return bool(done)

    def _after(self, after: int) -> Iterable[ArchivedEvent]:
        recent = self._follower.archive.since(after)
        if recent is not None:
            return recent[:PAGE]
        stored = self._follower.store.events(after, PAGE)
        return [ArchivedEvent(e.id, e.height, e.time_ms, decode_event(e.data)) for e in stored]

    def _one(self, number: int) -> ArchivedEvent | None:
        stored = self._follower.store.events(number - 1, 1)
        if not stored or stored[0].id != number:
            return None
        found = stored[0]
        return ArchivedEvent(found.id, found.height, found.time_ms, decode_event(found.data))

    def _frame(self, item: ArchivedEvent) -> bytes:
        frame = self._rendered.get(item.id)
        if frame is None:
            body = views.event(item)
            frame = b"id: %d\nevent: %s\ndata: %s\n\n" % (item.id, body.type.encode(), _encoder.encode(body))
            self._rendered[item.id] = frame
            if len(self._rendered) > RENDERED:
                self._rendered.popitem(last=False)
        return frame
