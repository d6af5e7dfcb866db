"""The bus between processes: Redis Streams with consumer groups.

    publish  XADD with an exact MAXLEN          take  XAUTOCLAIM of stale entries, then XREADGROUP
    ack      XACK                               a group is made on first use, from the oldest kept entry

A stream that vanishes (a restart without persistence, a flush) costs what was in it: the group is made anew. Every
failure of the connection is `Unavailable`; the client reconnects by itself on the next call.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from edgora.ports.bus import Delivery
from edgora.wire.errors import Refused, Unavailable

__all__ = ["RedisBus"]

_FIELD = b"d"
"""The one field of an entry."""
_LONGEST_WAIT_MS = 5_000
"""A longer wait is cut: the socket's own timeout, below, must stay well beyond it."""
_SOCKET_TIMEOUT_S = 15.0


class RedisBus:
    """Bounded streams under one prefix. Entries not acknowledged within stale_ms are given out again."""

    def __init__(self, url: str, *, prefix: str = "edgora", kept: int = 1024, stale_ms: int = 5_000) -> None:
        try:
            self._redis = redis.asyncio.from_url(
                url, protocol=2, socket_timeout=_SOCKET_TIMEOUT_S, socket_connect_timeout=5.0
            )
        except ValueError as error:
            raise Refused(f"redis url: {error}", field="redis", fix="write redis://host:port/0") from error
        self._prefix, self._kept, self._stale_ms = prefix, kept, stale_ms
        self._groups: set[tuple[str, str]] = set()
        self._closed = False

    async def publish(self, topic: str, data: bytes) -> None:
        async with self._reaching():
            await self._redis.xadd(self._key(topic), {_FIELD: data}, maxlen=self._kept, approximate=False)

    async def take(self, topic: str, group: str, consumer: str, *, limit: int, wait_ms: int) -> Sequence[Delivery]:
        async with self._reaching():
            await self._ensure(topic, group)
            try:
                return await self._take(self._key(topic), group, consumer, limit, wait_ms)
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                self._groups.discard((topic, group))
                await self._ensure(topic, group)
                return await self._take(self._key(topic), group, consumer, limit, wait_ms)

    async def _take(self, key: str, group: str, consumer: str, limit: int, wait_ms: int) -> list[Delivery]:
        claimed: Any = await self._redis.xautoclaim(key, group, consumer, self._stale_ms, "0-0", count=limit)
        stale = _deliveries(claimed[1])
        if len(stale) >= limit:
            return stale
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise asyncio.CancelledError  # one that got lost on the way here must not wait for a whole block
        # BLOCK 0 would wait for ever: no BLOCK at all is what "do not wait" means here.
        block = min(wait_ms, _LONGEST_WAIT_MS) if wait_ms > 0 and not stale else None
        read: Any = await self._redis.xreadgroup(group, consumer, {key: ">"}, count=limit - len(stale), block=block)
        return stale + [delivery for _, entries in read or () for delivery in _deliveries(entries)]

    async def ack(self, topic: str, group: str, ids: Sequence[str]) -> None:
        if ids:
            async with self._reaching():
                await self._redis.xack(self._key(topic), group, *ids)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._redis.aclose()

    def _key(self, topic: str) -> str:
        return f"{self._prefix}.{topic}"

    async def _ensure(self, topic: str, group: str) -> None:
        if (topic, group) in self._groups:
            return
        try:
            await self._redis.xgroup_create(self._key(topic), group, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._groups.add((topic, group))

    @asynccontextmanager
    async def _reaching(self) -> AsyncIterator[None]:
        if self._closed:
            raise Unavailable("the bus is closed")
        try:
            yield
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            raise Unavailable(f"redis cannot be reached: {error}") from error
        except RedisError as error:
            raise Unavailable(f"redis refused: {error}") from error


def _deliveries(entries: Any) -> list[Delivery]:
    """Entries of a reply. One whose data is gone (trimmed while pending) has no fields and is passed over."""
    return [Delivery(id_.decode(), fields[_FIELD]) for id_, fields in entries if fields and _FIELD in fields]
