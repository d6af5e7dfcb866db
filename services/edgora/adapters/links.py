"""Links between validators, whatever carries the octets: `ports.transport.Transport` (ledger.md 16, 17).

Rule 1: nothing is believed before the handshake: the stream proves a link key (TLS does, or the embedded network), the
        key must be one that genesis pins, and the HELLO must carry that validator's signed statement for it.
Rule 2: one connection per lane and peer. The higher index dials; the lower one accepts. A newer connection of the same
        instance replaces an older one in its lane.
Rule 3: an instance is named by its boot nonce. While connections with one nonce are alive, another nonce of the same
        identity is refused by both sides: that is a copied key or data directory, and two voters with one key would be
        a Byzantine replica (ledger.md 12). A restarted node gets in as soon as its old connections are dead, at the
        latest after SILENCE_S without a frame.
Rule 4: sending never blocks; receiving does, and stops reading (Pacer, Receiver.received), so pressure reaches the peer.

How a connection lives: dial or accept -> HELLO both ways -> registered under (peer, lane) -> a reader and a writer task
until one of them ends -> forgotten, and the dialling side tries again with a back-off that doubles up to a second.
"""

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, Protocol

import msgspec

from edgora.adapters.link_frames import HEADER, EgressQueue, Hello, Kind, Pacer, frame, parse_header
from edgora.crypto.links import LinkKey, SignedStatement, check_statement
from edgora.crypto.sign import SigningKey
from edgora.ports.clock import Clock
from edgora.ports.transport import MAX_ANSWER, LinkView, Receiver
from edgora.wire.codec import decode, encode
from edgora.wire.errors import EdgoraError, Refused, TooLarge, Unavailable, WireError
from edgora.wire.genesis import Genesis
from edgora.wire.pbft import Lane

__all__ = ["SILENCE_S", "Carrier", "Identity", "LinkLimits", "Links", "Stream"]

_VERSION = 1
SILENCE_S = 5.0
"""A connection without a frame for so long is dead; a PING goes out each second of silence."""
_STATEMENT_LIFE_MS = 3_600_000
_WRITE_OCTETS = 256 * 1024
_KEPT_OFFLINE = 2**20
_ASKING = 16


class Stream(Protocol):
    """An ordered, authenticated stream of octets."""

    @property
    def peer_key(self) -> bytes:
        """SPKI DER of the link key that the other side has proved to hold."""
        ...

    async def readexactly(self, count: int) -> bytes:
        """Raises EOFError or OSError when the stream ends first."""
        ...

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...


class Carrier(Protocol):
    """Where streams come from: TLS over TCP, or memory."""

    async def listen(self, accept: Callable[[Stream], Awaitable[None]]) -> None: ...

    async def dial(self, peer: int) -> Stream:
        """Raises OSError if there is nobody, or somebody else."""
        ...

    async def close(self) -> None: ...


class Identity(msgspec.Struct, frozen=True):
    """Who we are in which consortium."""

    genesis: Genesis
    index: int
    signing_key: SigningKey
    link_key: LinkKey
    epoch: int = 0


class LinkLimits(msgspec.Struct, frozen=True):
    """[param]s of ledger.md 16: octets a second that are read from a peer, by lane.

    Consensus is wide enough for a full window of full blocks each round trip and far above 2,000 votes a second.
    """

    consensus: int = 32 * 2**20
    sync: int = 8 * 2**20
    gossip: int = 4 * 2**20
    penalty_s: float = 5.0
    """How long a peer that was cut off for misbehaving stays away."""

    def of(self, lane: Lane) -> int:
        return {Lane.CONSENSUS: self.consensus, Lane.SYNC: self.sync, Lane.GOSSIP: self.gossip}[lane]


class _Connection:
    """One registered stream."""

    __slots__ = ("heard_at", "lane", "said_at", "stream", "wake")

    def __init__(self, stream: Stream, lane: Lane, now: float) -> None:
        self.stream = stream
        self.lane = lane
        self.wake = asyncio.Event()
        self.heard_at = self.said_at = now


class _Peer:
    """What we know of one other validator."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.queue = EgressQueue()
        self.connections: dict[Lane, _Connection] = {}
        self.nonce = 0
        """Of the instance that the live connections belong to."""
        self.heard_at: float | None = None
        self.refused = ""
        self.banned_until = 0.0
        self.calls: dict[int, asyncio.Future[bytes]] = {}
        self.asking = 0

    def close(self) -> None:
        for connection in self.connections.values():
            connection.stream.close()


class _HandshakeError(Exception):
    """The other side is not who it must be, or does not want us."""


class Links:
    """The transport of one validator over a carrier."""

    def __init__(self, identity: Identity, carrier: Carrier, clock: Clock, limits: LinkLimits | None = None) -> None:
        self._me = identity
        self._carrier = carrier
        self._clock = clock
        self._limits = limits or LinkLimits()
        self._domain = identity.genesis.ledger_domain()
        self._genesis_id = identity.genesis.id
        self._by_key = {v.link_key: i for i, v in enumerate(identity.genesis.validators)}
        self._peers = {i: _Peer(i) for i in range(len(identity.genesis.validators)) if i != identity.index}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids = itertools.count(1)
        self._stopping = False
        self._nonce = 0
        self._receiver: Receiver

    @property
    def peers(self) -> Sequence[int]:
        return tuple(self._peers)

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    # ---- Transport ---------------------------------------------------------------------------------------------------

    async def start(self, receiver: Receiver, boot_nonce: int) -> None:
        self._receiver, self._nonce = receiver, boot_nonce
        await self._carrier.listen(self._accept)
        self._spawn(self._keep_house())
        for peer in self._peers.values():
            if peer.index < self._me.index:
                for lane in Lane:
                    self._spawn(self._dial(peer, lane))

    def send(self, peer: int, lane: Lane, data: bytes) -> None:
        self._push(self._peers[peer], lane, frame(lane, data))

    async def call(self, peer: int, request: bytes, timeout_ms: int) -> bytes:
        other = self._peers[peer]
        if len(request) > MAX_ANSWER:
            raise TooLarge(f"a request of {len(request)} octets; at most {MAX_ANSWER} may be asked")
        if Lane.SYNC not in other.connections:
            raise Unavailable(f"server {peer} is not connected: {other.refused or 'no link is up'}")
        number = next(self._ids)
        answer = other.calls[number] = self._loop.create_future()
        self._push(other, Lane.SYNC, frame(Kind.REQUEST, number.to_bytes(8, "big") + request))
        try:
            return await asyncio.wait_for(answer, timeout_ms / 1000)
        except TimeoutError:
            raise Unavailable(f"server {peer} did not answer within {timeout_ms} ms") from None
        finally:
            other.calls.pop(number, None)

    def cut(self, peer: int, reason: str) -> None:
        other = self._peers[peer]
        other.refused = reason
        other.banned_until = self._loop.time() + self._limits.penalty_s
        other.close()

    def links(self) -> Sequence[LinkView]:
        now = self._loop.time()
        return [
            LinkView(
                p.index,
                len(p.connections) == len(Lane),
                None if p.heard_at is None else int((now - p.heard_at) * 1000),
                p.refused,
                p.queue.dropped,
            )
            for p in self._peers.values()
        ]

    async def stop(self) -> None:
        self._stopping = True
        for peer in self._peers.values():
            peer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._carrier.close()

    # ---- sending -----------------------------------------------------------------------------------------------------

    def _push(self, peer: _Peer, lane: Lane, data: bytes) -> None:
        if lane not in peer.connections:
            # Kept without a connection at all, the queue is held small; with the other lanes up, it is bounded as ever.
            if peer.queue.push(lane, data) and not peer.connections:
                peer.queue.clear(keep=_KEPT_OFFLINE)
            return
        if peer.queue.push(lane, data):
            peer.connections[lane].wake.set()
        else:
            peer.refused = "16 MiB wait for it: it does not read"
            peer.queue.clear()
            peer.close()

    async def _write(self, peer: _Peer, connection: _Connection) -> None:
        while True:
            batch = peer.queue.take(connection.lane, _WRITE_OCTETS)
            if not batch:
                connection.wake.clear()
                await connection.wake.wait()
                continue
            connection.said_at = self._loop.time()
            connection.stream.write(batch)
            await connection.stream.drain()

    # ---- receiving ---------------------------------------------------------------------------------------------------

    async def _read(self, peer: _Peer, connection: _Connection) -> None:
        lane, stream = connection.lane, connection.stream
        pacer = Pacer(self._limits.of(lane), self._loop.time)
        while True:
            length, kind = parse_header(await stream.readexactly(HEADER.size), lane)
            pause = pacer.take(HEADER.size + length)
            if pause:
                await asyncio.sleep(pause)
            content = await stream.readexactly(length)
            connection.heard_at = peer.heard_at = self._loop.time()
            if kind == lane:
                # While we are the ones who are busy, the peer's silence is of our own making.
                connection.heard_at = math.inf
                await self._receiver.received(peer.index, lane, content)
                connection.heard_at = self._loop.time()
            elif kind == Kind.REQUEST:
                self._asked(peer, content)
            elif kind == Kind.ANSWER:
                self._answered(peer, content)

    def _asked(self, peer: _Peer, content: bytes) -> None:
        if len(content) < 8:
            raise WireError("a request without its number")
        if peer.asking >= _ASKING:
            self._answer(peer, content[:8], 1, b"busy: too many requests are in work")
            return
        peer.asking += 1
        self._spawn(self._work(peer, content[:8], content[8:]))

    async def _work(self, peer: _Peer, number: bytes, request: bytes) -> None:
        try:
            answer = await self._receiver.asked(peer.index, request)
            if len(answer) > MAX_ANSWER:
                raise TooLarge(f"the answer has {len(answer)} octets")
            self._answer(peer, number, 0, answer)
        except EdgoraError as error:
            self._answer(peer, number, 1, error.detail.encode())
        finally:
            peer.asking -= 1

    def _answer(self, peer: _Peer, number: bytes, code: int, answer: bytes) -> None:
        self._push(peer, Lane.SYNC, frame(Kind.ANSWER, number + bytes((code,)) + answer))

    @staticmethod
    def _answered(peer: _Peer, content: bytes) -> None:
        if len(content) < 9:
            raise WireError("an answer without its number")
        waiting = peer.calls.pop(int.from_bytes(content[:8], "big"), None)
        if waiting is None or waiting.done():
            return
        if content[8] == 0:
            waiting.set_result(content[9:])
        else:
            said = content[9:].decode(errors="replace")[:300]
            waiting.set_exception(Unavailable(f"server {peer.index} refused: {said}"))

    # ---- connections -------------------------------------------------------------------------------------------------

    async def _dial(self, peer: _Peer, lane: Lane) -> None:
        pause = 0.05
        while True:
            wait = peer.banned_until - self._loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            try:
                async with asyncio.timeout(SILENCE_S):
                    stream = await self._carrier.dial(peer.index)
            except (OSError, EOFError) as error:  # TimeoutError is an OSError
                peer.refused = f"cannot be reached: {str(error) or type(error).__name__}"
            else:
                began = self._loop.time()
                await self._serve(stream, (peer, lane))
                if self._loop.time() - began > 1:
                    pause = 0.05
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def _accept(self, stream: Stream) -> None:
        if self._stopping:
            stream.close()
            return
        task = self._spawn(self._serve(stream, None))
        await asyncio.wait([task])

    async def _serve(self, stream: Stream, dialled: tuple[_Peer, Lane] | None) -> None:
        """Handshake, then both directions, until the stream ends. Errors of the stream end here."""
        lane: Lane | None = None
        try:
            async with asyncio.timeout(SILENCE_S):
                peer, lane = await (self._greet(stream, *dialled) if dialled else self._greeted(stream))
            connection = _Connection(stream, lane, self._loop.time())
            older = peer.connections.get(lane)
            if older is not None:
                older.stream.close()
            peer.connections[lane] = connection
            peer.refused = ""
            await self._both_ways(peer, connection)
        except _HandshakeError as error:
            if dialled:
                dialled[0].refused = str(error)
        except (OSError, EOFError):
            if dialled and lane is None:
                dialled[0].refused = "it hangs up during the handshake: does its genesis pin our link key?"
        except Refused as error:
            if dialled:
                dialled[0].refused = error.detail
        finally:
            stream.close()

    async def _both_ways(self, peer: _Peer, connection: _Connection) -> None:
        connection.wake.set()
        tasks = [asyncio.ensure_future(work(peer, connection)) for work in (self._read, self._write)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except WireError as error:
            self.cut(peer.index, error.detail)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if peer.connections.get(connection.lane) is connection:
                del peer.connections[connection.lane]
                self._lost(peer, connection.lane)

    @staticmethod
    def _lost(peer: _Peer, lane: Lane) -> None:
        if lane is Lane.SYNC:
            for waiting in peer.calls.values():
                if not waiting.done():
                    waiting.set_exception(Unavailable(f"the link to server {peer.index} broke"))
        if not peer.connections:
            peer.queue.clear(keep=_KEPT_OFFLINE)

    # ---- handshake ---------------------------------------------------------------------------------------------------

    def _hello(self, lane: Lane) -> bytes:
        statement = SignedStatement.make(
            self._me.signing_key,
            self._me.link_key.spki,
            epoch=self._me.epoch,
            expires_ms=self._clock.now_ms() + _STATEMENT_LIFE_MS,
            domain=self._domain,
        )
        return frame(
            Kind.HELLO, encode(Hello(_VERSION, self._genesis_id, self._me.epoch, lane, self._nonce, statement))
        )

    async def _greet(self, stream: Stream, peer: _Peer, lane: Lane) -> tuple[_Peer, Lane]:
        if self._by_key.get(stream.peer_key) != peer.index:
            raise _HandshakeError(f"at the address of validator {peer.index} another one answers")
        stream.write(self._hello(lane))
        self._check(peer, stream.peer_key, await self._read_hello(stream), lane)
        return peer, lane

    async def _greeted(self, stream: Stream) -> tuple[_Peer, Lane]:
        hello = await self._read_hello(stream)
        index = self._by_key.get(stream.peer_key)
        peer = None if index is None or index <= self._me.index else self._peers[index]
        if peer is None or hello.lane not in tuple(Lane):
            await self._refuse(stream, "this is not a link that a validator of higher index dials")
        lane = Lane(hello.lane)
        try:
            self._check(peer, stream.peer_key, hello, lane)
        except _HandshakeError as error:
            peer.refused = str(error)
            await self._refuse(stream, peer.refused)
        stream.write(self._hello(lane))
        return peer, lane

    @staticmethod
    async def _refuse(stream: Stream, why: str) -> NoReturn:
        stream.write(frame(Kind.REFUSED, why.encode()))
        await stream.drain()
        raise _HandshakeError(why)

    async def _read_hello(self, stream: Stream) -> Hello:
        length, kind = parse_header(await stream.readexactly(HEADER.size), None)
        if length > 4096:
            raise _HandshakeError("its HELLO is too long")
        content = await stream.readexactly(length)
        if kind == Kind.REFUSED:
            raise _HandshakeError(f"it refuses us: {content.decode(errors='replace')[:300]}")
        return decode(content, Hello)

    def _check(self, peer: _Peer, key: bytes, hello: Hello, lane: Lane) -> None:
        why = None
        if hello.version != _VERSION:
            why = f"speaks link version {hello.version}, we speak {_VERSION}"
        elif hello.genesis_id != self._genesis_id:
            why = f"belongs to genesis {hello.genesis_id.hex()}, we to {self._genesis_id.hex()}"
        elif hello.epoch != self._me.epoch:
            why = f"is in epoch {hello.epoch}, we are in {self._me.epoch}"
        elif hello.lane != lane:
            why = f"answers for lane {hello.lane} where {lane} was dialled"
        elif self._loop.time() < peer.banned_until:
            why = peer.refused
        elif peer.connections and peer.nonce != hello.boot_nonce:
            why = "is a second instance of a validator that is connected already: never run one key twice"
        else:
            why = check_statement(
                hello.statement,
                validator=self._me.genesis.validators[peer.index].address,
                link_key=key,
                epoch=self._me.epoch,
                now_ms=self._clock.now_ms(),
                domain=self._domain,
            )
        if why is not None:
            raise _HandshakeError(f"validator {peer.index}: {why}")
        peer.nonce = hello.boot_nonce

    # ---- housekeeping ------------------------------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        ping = frame(Kind.PING, b"")
        while True:
            await asyncio.sleep(1)
            now = self._loop.time()
            for peer in self._peers.values():
                for connection in list(peer.connections.values()):
                    if now - connection.heard_at > SILENCE_S:
                        peer.refused = f"silent for {SILENCE_S:.0f} s"
                        connection.stream.close()
                    elif now - connection.said_at >= 1:
                        self._push(peer, connection.lane, ping)

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
