"""The bus within one process: the embedded run, tests and simulations.

Same semantics as the Redis adapter, held to it by one conformance suite. All of it runs in one event loop.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgora.ports.bus import Delivery
from edgora.wire.errors import Unavailable

__all__ = ["MemoryBus"]


@dataclass(slots=True)
class _Group:
    """What a group has been given."""

    seen: int = 0
    """Number of the last entry that was given to anyone."""
    pending: dict[int, float] = field(default_factory=dict)
    """Entry -> when it was given out; in order of that."""


@dataclass(slots=True)
class _Topic:
    entries: OrderedDict[int, bytes] = field(default_factory=OrderedDict)
    last: int = 0
    groups: dict[str, _Group] = field(default_factory=dict)
    arrival: asyncio.Event = field(default_factory=asyncio.Event)


class MemoryBus:
    """Bounded topics in memory. Entries not acknowledged within stale_ms are given out again."""

    def __init__(self, *, kept: int = 1024, stale_ms: int = 5_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept, self._stale_s, self._clock = kept, stale_ms / 1000.0, clock
        self._topics: dict[str, _Topic] = {}
        self._closed = False

    async def publish(self, topic: str, data: bytes) -> None:
        self._expect_open()
        place = self._topics.setdefault(topic, _Topic())
        place.last += 1
        place.entries[place.last] = data
        while len(place.entries) > self._kept:
            place.entries.popitem(last=False)
        place.arrival.set()

    async def take(self, topic: str, group: str, consumer: str, *, limit: int, wait_ms: int) -> Sequence[Delivery]:  # noqa: ARG002 - any consumer of a group may get a stale entry
        self._expect_open()
        place = self._topics.setdefault(topic, _Topic())
        state = place.groups.setdefault(group, _Group())
        deadline = self._clock() + wait_ms / 1000.0
        while True:
            taken = self._stale(place, state, limit)
            taken += self._new(place, state, limit - len(taken))
            left_s = deadline - self._clock()
            if taken or left_s <= 0.0:
                return [Delivery(str(number), place.entries[number]) for number in taken]
            place.arrival.clear()
            try:
                await asyncio.wait_for(place.arrival.wait(), left_s)
            except TimeoutError:
                return []
            self._expect_open()

    def _stale(self, place: _Topic, state: _Group, limit: int) -> list[int]:
        now = self._clock()
        for dropped in [number for number in state.pending if number not in place.entries]:
            del state.pending[dropped]
        due = [number for number, given in state.pending.items() if now - given >= self._stale_s][:limit]
        for number in due:
            del state.pending[number]
            state.pending[number] = now
        return due

    def _new(self, place: _Topic, state: _Group, limit: int) -> list[int]:
        first = max(state.seen + 1, next(iter(place.entries), place.last + 1))
        fresh = list(range(first, min(place.last, first + limit - 1) + 1))
        if fresh:
            state.seen = fresh[-1]
            state.pending.update(dict.fromkeys(fresh, self._clock()))
        return fresh

    async def ack(self, topic: str, group: str, ids: Sequence[str]) -> None:
        self._expect_open()
        place = self._topics.get(topic)
        state = place.groups.get(group) if place else None
        if state:
            for number in ids:
                state.pending.pop(int(number), None)

    async def close(self) -> None:
        self._closed = True
        for place in self._topics.values():
            place.arrival.set()

    def _expect_open(self) -> None:
        if self._closed:
            raise Unavailable("the bus is closed")
