"""Links inside one process: the carrier of the embedded run and of tests, with faults on demand.

Only the octets' way differs from TLS: frames, handshake, lanes, queues, limits and refusals are those of
`adapters.links`. A stream holds at most 256 KiB in flight, like a socket. The network is one object that all
validators of a process share; `cut`, `mend`, `delay`, `hold` and `release` make it a bad one while it runs.
"""

import asyncio
from collections.abc import Awaitable, Callable

from edgora.adapters.links import Identity, LinkLimits, Links, Stream
from edgora.ports.clock import Clock

__all__ = ["MemoryNetwork"]

_IN_FLIGHT = 256 * 1024


class _Pipe:
    """One direction of a stream."""

    def __init__(self, delay_ms: Callable[[], int], held: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._delay_ms, self._held = delay_ms, held
        self._late: list[bytes] = []
        """What arrived while one of the two stands still."""
        self._reader = asyncio.StreamReader()
        self._in_flight = 0
        self._room = asyncio.Event()
        self._room.set()
        self._last_arrival = 0.0
        self.closed = False

    def write(self, data: bytes) -> None:
        if self.closed:
            return
        self._in_flight += len(data)
        if self._in_flight > _IN_FLIGHT:
            self._room.clear()
        delay = self._delay_ms() / 1000
        # What was written later never overtakes, also when the delay was shortened in between.
        arrival = max(self._loop.time() + delay, self._last_arrival)
        if delay == 0 and self._last_arrival <= self._loop.time():
            self._arrive(data)
        else:
            self._last_arrival = arrival
            self._loop.call_at(arrival, self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        if self.closed:
            return
        if self._held() or self._late:
            self._late.append(data)
        else:
            self._reader.feed_data(data)

    def flush(self) -> None:
        """Let out what was held back, in order."""
        late, self._late = self._late, []
        for data in late:
            self._arrive(data)

    async def readexactly(self, count: int) -> bytes:
        data = await self._reader.readexactly(count)
        self._in_flight -= count
        if self._in_flight <= _IN_FLIGHT:
            self._room.set()
        return data

    async def drain(self) -> None:
        await self._room.wait()
        if self.closed:
            raise ConnectionResetError("the stream is closed")

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._room.set()
            self._reader.feed_eof()


class _MemoryStream:
    """One end of two pipes."""

    def __init__(self, inward: _Pipe, outward: _Pipe, peer_key: bytes) -> None:
        self._in, self._out = inward, outward
        self._peer_key = peer_key

    @property
    def peer_key(self) -> bytes:
        return self._peer_key

    async def readexactly(self, count: int) -> bytes:
        return await self._in.readexactly(count)

    def write(self, data: bytes) -> None:
        self._out.write(data)

    async def drain(self) -> None:
        await self._out.drain()

    def close(self) -> None:
        self._in.close()
        self._out.close()

    def flush(self) -> None:
        self._in.flush()
        self._out.flush()


class MemoryNetwork:
    """What lies between the validators of one process."""

    def __init__(self) -> None:
        self._listening: dict[int, tuple[bytes, Callable[[Stream], Awaitable[None]]]] = {}
        self._cut: set[frozenset[int]] = set()
        self._delay_ms: dict[frozenset[int], int] = {}
        self._held: set[int] = set()
        self._streams: dict[frozenset[int], list[_MemoryStream]] = {}
        self._tasks: set[asyncio.Future[None]] = set()

    def links(self, identity: Identity, clock: Clock, limits: LinkLimits | None = None) -> Links:
        """The transport of one validator of this process."""
        return Links(identity, _MemoryCarrier(self, identity.index, identity.link_key.spki), clock, limits)

    # ---- faults ------------------------------------------------------------------------------------------------------

    def cut(self, a: int, b: int) -> None:
        """Break what is between two validators and keep it broken."""
        pair = frozenset((a, b))
        self._cut.add(pair)
        for stream in self._streams.pop(pair, []):
            stream.close()

    def mend(self, a: int, b: int) -> None:
        self._cut.discard(frozenset((a, b)))

    def delay(self, a: int, b: int, delay_ms: int) -> None:
        """From now on each octet between the two takes so long, in both directions."""
        self._delay_ms[frozenset((a, b))] = delay_ms

    def hold(self, index: int) -> None:
        """A validator stands still: what it and the others say to each other waits until `release`."""
        self._held.add(index)

    def release(self, index: int) -> None:
        self._held.discard(index)
        for pair, streams in self._streams.items():
            if index in pair:
                for stream in streams:
                    stream.flush()

    # ---- for carriers ------------------------------------------------------------------------------------------------

    def listen(self, index: int, key: bytes, accept: Callable[[Stream], Awaitable[None]]) -> None:
        # A second instance of an identity listens nowhere: the first one holds the address, as a port does.
        self._listening.setdefault(index, (key, accept))

    def leave(self, index: int, accept: Callable[[Stream], Awaitable[None]] | None) -> None:
        if index in self._listening and self._listening[index][1] is accept:
            del self._listening[index]

    def dial(self, caller: int, caller_key: bytes, peer: int) -> Stream:
        pair = frozenset((caller, peer))
        if pair in self._cut or peer not in self._listening:
            raise ConnectionRefusedError(f"validator {peer} cannot be reached")
        key, accept = self._listening[peer]

        def delay_ms() -> int:
            return self._delay_ms.get(pair, 0)

        def held() -> bool:
            return not self._held.isdisjoint(pair)

        there, back = _Pipe(delay_ms, held), _Pipe(delay_ms, held)
        mine, theirs = _MemoryStream(back, there, key), _MemoryStream(there, back, caller_key)
        alive = [s for s in self._streams.get(pair, []) if not s._in.closed]  # noqa: SLF001 - same module
        self._streams[pair] = [*alive, mine]
        task = asyncio.ensure_future(accept(theirs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return mine


class _MemoryCarrier:
    """`links.Carrier` of one validator."""

    def __init__(self, network: MemoryNetwork, index: int, key: bytes) -> None:
        self._network = network
        self._index = index
        self._key = key
        self._accept: Callable[[Stream], Awaitable[None]] | None = None

    async def listen(self, accept: Callable[[Stream], Awaitable[None]]) -> None:
        self._accept = accept
        self._network.listen(self._index, self._key, accept)

    async def dial(self, peer: int) -> Stream:
        return self._network.dial(self._index, self._key, peer)

    async def close(self) -> None:
        self._network.leave(self._index, self._accept)
