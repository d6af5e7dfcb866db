"""The API half's hold on the consensus half: `ports.consensus.Consensus`, in one process or over a Unix socket.

Over the socket travel frames of u32 length (big endian) and a tagged MessagePack array. The socket is the trust
boundary (ledger.md 1): its file is mode 0600, so who writes to it is this node's own API half, whose word that a
signature was checked is taken. Requests carry a number and are answered in any order. When the consensus process
restarts, the link comes back by itself; requests that were under way fail as unavailable, their outcome unknown.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgora.node.driver import Driver
from edgora.ports.consensus import Admission, ConsensusStatus, EvidenceView, PeerHandler, VoterView
from edgora.ports.transport import Transport
from edgora.wire.codec import B32, U16, U32, U64, encode
from edgora.wire.errors import EdgoraError, Unavailable, WireError
from edgora.wire.ledger import SignedTx, quorum

__all__ = [
    "FROM_API",
    "AskStatus",
    "Asked",
    "Call",
    "CallAnswer",
    "FromApi",
    "FromConsensus",
    "LocalConsensus",
    "Serve",
    "SocketConsensus",
    "StatusIs",
    "Stored",
    "Submit",
    "SubmitAnswer",
    "read_frame",
    "write_frame",
]  # fmt: skip

_log = logging.getLogger(__name__)

_MAX_FRAME = 8 * 2**20
_CONNECT_S = 5.0
_WAITING = {
    "idle": "IDLE", "seal": "ORDERING", "batch": "ORDERING", "proposal": "ORDERING", "window": "ORDERING", "signatures": "ORDERING",
    "execution": "ORDERING", "checkpoint": "ORDERING", "prepare": "PREPARING", "base": "PREPARING",
    "commit": "COMMITTING", "view_change": "VIEW_CHANGE", "new_view": "VIEW_CHANGE", "syncing": "SYNCING",
    "snapshot": "SYNCING", "booting": "SYNCING", "observing": "OBSERVING", "halted": "ALARM",
}  # fmt: skip
"""`ledger.status.WaitReason` codes to those of `ports.consensus.ConsensusStatus`."""


class LocalConsensus:
    """The consensus half in this very process and event loop."""

    def __init__(self, driver: Driver, transport: Transport, addresses: tuple[bytes, ...], index: int) -> None:
        self._driver = driver
        self._transport = transport
        self._addresses = addresses
        self._index = index

    async def submit(self, tx: SignedTx, tx_hash: bytes) -> Admission:
        return await self._driver.submit(tx, tx_hash)

    async def status(self) -> ConsensusStatus:
        driver, found = self._driver, self._driver.status()
        links = {link.peer: link for link in self._transport.links()}
        peers = {peer.index: peer for peer in found.peers}
        need = quorum(len(self._addresses))
        committing = found.waiting.code == "commit"
        voted = found.votes.committed if committing else found.votes.prepared
        waiting = _WAITING.get(found.waiting.code, "ORDERING")
        if waiting not in {"ALARM", "SYNCING"} and 1 + sum(link.connected for link in links.values()) < need:
            waiting = "NO_QUORUM"
        quiet_ms = max(0, driver.now_ms() - driver.progress_ms)
        voters = []
        for index, address in enumerate(self._addresses):
            if index == self._index:
                own = VoterView(index, address, True, 0, found.height, found.view, index in voted)
                voters.append(own)
                continue
            link, peer = links[index], peers.get(index)
            heard = [ms for ms in (link.heard_ms_ago, peer.age_ms if peer else None) if ms is not None]
            voters.append(
                VoterView(
                    index=index,
                    address=address,
                    connected=link.connected,
                    last_heard_ms=min(heard, default=None),
                    committed_height=peer.height if peer else 0,
                    view=peer.view if peer else 0,
                    voted=index in voted,
                )
            )
        return ConsensusStatus(
            epoch=found.epoch,
            view=found.view,
            view_active=found.active,
            primary=found.primary,
            own_index=self._index,
            validators=len(self._addresses),
            quorum=need,
            committed_height=found.height,
            committed_hash=found.block_hash,
            executed_height=driver.stored_height,
            header_time_ms=found.time_ms,
            stable_checkpoint=found.checkpoint,
            pool_txs=found.pool,
            waiting=waiting,
            waiting_since_ms=min(quiet_ms, found.oldest_wait_ms) if found.pool else quiet_ms,
            next_height=found.votes.height,
            votes=found.waiting.numbers["have"] if waiting == "VIEW_CHANGE" else len(voted),
            timeout_ms=found.timeout_ms,
            view_changes=driver.view_changes,
            alarm=driver.alarm or found.halted,
            voters=tuple(voters),
            steps=tuple(driver.steps),
            checkpoints=tuple(driver.checkpoints),
            evidence=tuple(EvidenceView(item.offence, item.accused, encode(item)) for item in found.evidence),
        )

    def heights(self) -> AsyncIterator[int]:
        return self._driver.heights()

    async def call(self, server: int, request: bytes, timeout_ms: int) -> bytes:
        if server == self._index:
            return await self._driver.asked(server, request)
        if not 0 <= server < len(self._addresses):
            raise Unavailable(f"there is no server {server}")
        return await self._transport.call(server, request, timeout_ms)

    def serve(self, handler: PeerHandler) -> None:
        self._driver.handler = handler

    async def close(self) -> None:
        """The node that owns the driver stops it."""


# ---- what travels over the socket ------------------------------------------------------------------------------------


class Submit(msgspec.Struct, frozen=True, array_like=True, tag=0):
    id: U32
    tx: SignedTx
    hash: B32


class AskStatus(msgspec.Struct, frozen=True, array_like=True, tag=1):
    id: U32


class Call(msgspec.Struct, frozen=True, array_like=True, tag=2):
    id: U32
    server: U16
    request: bytes
    timeout_ms: U32


class Serve(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """This connection answers calls of other nodes; the last one that says so does."""


class CallAnswer(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """To Call or Asked. refusal is one sentence, None if answer stands."""

    id: U32
    answer: bytes
    refusal: str | None


class SubmitAnswer(msgspec.Struct, frozen=True, array_like=True, tag=5):
    id: U32
    admission: Admission | None
    refusal: str | None


class StatusIs(msgspec.Struct, frozen=True, array_like=True, tag=6):
    id: U32
    status: ConsensusStatus | None
    refusal: str | None


class Stored(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """All blocks up to this height can be read from the store."""

    height: U64


class Asked(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Another node's server asks our API half."""

    id: U32
    server: U16
    request: bytes


FromApi = Submit | AskStatus | Call | Serve | CallAnswer
FromConsensus = SubmitAnswer | StatusIs | CallAnswer | Stored | Asked

_T = TypeVar("_T")
_encoder = msgspec.msgpack.Encoder()
FROM_API: msgspec.msgpack.Decoder[FromApi] = msgspec.msgpack.Decoder(FromApi)
"""What the consensus process reads from its socket."""
_from_consensus: msgspec.msgpack.Decoder[FromConsensus] = msgspec.msgpack.Decoder(FromConsensus)


async def read_frame(reader: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[_T]) -> _T:
    """The next frame. Raises EOFError or OSError at the end, WireError if the other half speaks another language."""
    length = int.from_bytes(await reader.readexactly(4), "big")
    if length > _MAX_FRAME:
        raise WireError(f"a frame of {length} octets between the halves of a node; at most {_MAX_FRAME} are read")
    try:
        return decoder.decode(await reader.readexactly(length))
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise WireError(f"the other half of this node is of another version: {error}") from None


def write_frame(writer: asyncio.StreamWriter, message: FromApi | FromConsensus) -> None:
    data = _encoder.encode(message)
    writer.write(len(data).to_bytes(4, "big") + data)


class SocketConsensus:
    """The consensus half in another process of this machine."""

    def __init__(self, path: Path) -> None:
        """Nothing happens before `open`."""
        self._path = path
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._handler: PeerHandler | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._up = asyncio.Event()
        self._height = -1
        self._height_changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> "SocketConsensus":
        """Start connecting to the socket at path; it may appear later."""
        link = cls(path)
        link._spawn(link._keep_connected())
        return link

    # ---- Consensus ---------------------------------------------------------------------------------------------------

    async def submit(self, tx: SignedTx, tx_hash: bytes) -> Admission:
        answer: SubmitAnswer = await self._ask(lambda number: Submit(number, tx, tx_hash))
        if answer.admission is None:
            raise Unavailable(answer.refusal or "refused")
        return answer.admission

    async def status(self) -> ConsensusStatus:
        answer: StatusIs = await self._ask(AskStatus)
        if answer.status is None:
            raise Unavailable(answer.refusal or "refused")
        return answer.status

    async def heights(self) -> AsyncIterator[int]:
        seen = -1
        while True:
            if self._closed:
                raise Unavailable("the link to the consensus process is closed")
            if self._height > seen:
                seen = self._height
                yield seen
            else:
                self._height_changed.clear()
                await self._height_changed.wait()

    async def call(self, server: int, request: bytes, timeout_ms: int) -> bytes:
        answer: CallAnswer = await self._ask(lambda number: Call(number, server, request, timeout_ms))
        if answer.refusal is not None:
            raise Unavailable(answer.refusal)
        return answer.answer

    def serve(self, handler: PeerHandler) -> None:
        self._handler = handler
        if self._writer is not None:
            write_frame(self._writer, Serve())

    async def close(self) -> None:
        self._closed = True
        self._height_changed.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- the connection ----------------------------------------------------------------------------------------------

    async def _ask(self, make: Any) -> Any:
        try:
            await asyncio.wait_for(self._up.wait(), _CONNECT_S)
        except TimeoutError:
            raise Unavailable(f"the consensus process does not answer at {self._path}") from None
        if self._writer is None:
            raise Unavailable("the link to the consensus process just broke")
        number = next(self._ids) % 2**32
        answer = self._pending[number] = asyncio.get_running_loop().create_future()
        try:
            write_frame(self._writer, make(number))
            return await answer
        finally:
            self._pending.pop(number, None)

    async def _keep_connected(self) -> None:
        pause = 0.02
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._path)
            except OSError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, 1.0)
                continue
            self._writer = writer
            if self._handler is not None:
                write_frame(writer, Serve())
            self._up.set()
            try:
                while True:
                    self._take(await read_frame(reader, _from_consensus), writer)
            except (OSError, EOFError):
                pause = 0.02
            except WireError as error:
                _log.error("%s", error.detail)
                pause = 1.0
            finally:
                self._up.clear()
                self._writer = None
                writer.close()
                broke = Unavailable("the link to the consensus process broke; the outcome is unknown")
                for answer in self._pending.values():
                    if not answer.done():
                        answer.set_exception(broke)

    def _take(self, message: FromConsensus, writer: asyncio.StreamWriter) -> None:
        match message:
            case Stored(height):
                self._height = max(self._height, height)
                self._height_changed.set()
            case Asked():
                self._spawn(self._answer(message, writer))
            case SubmitAnswer() | StatusIs() | CallAnswer():
                waiting = self._pending.get(message.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        try:
            if self._handler is None:
                raise Unavailable("the API half of this node is not up")
            said = CallAnswer(asked.id, await self._handler(asked.server, asked.request), None)
        except EdgoraError as error:
            said = CallAnswer(asked.id, b"", error.detail)
        write_frame(writer, said)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
