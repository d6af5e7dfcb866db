"""Bulk goes when its time is over: inputs and results keep_ms after the task's end (README.md 1).

An input that no TASK came for goes an hour after its upload: no offer's deadline is farther than that.
"""

import asyncio
import logging

from edgora.market.records import FINISHED
from edgora.node.duties.post import Post
from edgora.ports.blobs import Room, Stored
from edgora.wire.market import MAX_DEADLINE_MS

__all__ = ["Cleanup"]

_log = logging.getLogger("edgora.duty.cleanup")
EVERY_S = 30.0


class Cleanup:
    """Deletes what nobody may ask for any more."""

    name = "cleanup"

    def __init__(self, post: Post) -> None:
        self._post = post
        self.says = "nothing deleted yet"

    async def run(self) -> None:
        """Look every half minute."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.sweep()

    async def sweep(self) -> int:
        """Delete what is over. Returns how many things went."""
        gone = 0
        for room in (Room.INPUTS, Room.RESULTS):
            for stored in await asyncio.to_thread(self._list, room):
                if self._over(stored):
                    await asyncio.to_thread(self._post.blobs.delete, room, stored.key)
                    gone += 1
        if gone:
            self.says = f"{gone} inputs and results deleted at the last look"
            _log.info("bulk deleted", extra={"count": gone})
        return gone

    def _list(self, room: Room) -> list[Stored]:
        return list(self._post.blobs.all(room))

    def _over(self, stored: Stored) -> bool:
        post, now = self._post, self._post.ledger_ms()
        task, record = post.market.task(stored.key), post.follower.archive.tasks.get(stored.key)
        keep_ms = post.genesis.market.keep_ms
        if task is not None and task.state not in FINISHED:
            return False
        if record is not None and record.ended_ms is not None:
            return record.ended_ms + keep_ms < now
        if record is not None and task is not None:
            return False
        return stored.stored_ms + MAX_DEADLINE_MS + keep_ms < now
