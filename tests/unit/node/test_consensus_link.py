"""The Unix socket between the halves of a node: what one half says is what the other hears, also over restarts."""

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgora.ledger.status import _SENTENCES
from edgora.node.consensus import ConsensusSocket
from edgora.node.consensus_link import _WAITING, SocketConsensus
from edgora.ports.consensus import Admission, ConsensusStatus, PeerHandler, VoterView
from edgora.wire.errors import NotFound, Unavailable
from edgora.wire.hashing import keccak
from edgora.wire.ledger import SignedTx, Tx

STATUS = ConsensusStatus(
    epoch=0, view=3, view_active=True, primary=3, own_index=1, validators=4, quorum=3, committed_height=12,
    committed_hash=keccak(b"h"), executed_height=12, header_time_ms=5, stable_checkpoint=8, pool_txs=2,
    waiting="PREPARING", waiting_since_ms=7, next_height=13, votes=2, timeout_ms=1_000, view_changes=3, alarm=None,
    voters=(VoterView(0, bytes(20), True, 4, 12, 3, False),),
)  # fmt: skip


def signed(seq: int) -> tuple[SignedTx, bytes]:
    tx = SignedTx(Tx(9, bytes(20), 0, seq, 99, b"payload"), bytes(65))
    return tx, keccak(bytes((seq,)))


class FakeConsensus:
    """Answers as told."""

    def __init__(self) -> None:
        self.submitted: list[tuple[SignedTx, bytes]] = []
        self.height = 5
        self.moved = asyncio.Event()
        self.handler: PeerHandler | None = None
        self.free = asyncio.Event()
        self.free.set()
        self.asked = asyncio.Event()

    async def submit(self, tx: SignedTx, tx_hash: bytes) -> Admission:
        self.submitted.append((tx, tx_hash))
        if tx.tx.seq == 99:
            raise Unavailable("consensus has stopped here")
        return Admission(admitted=tx.tx.seq != 1, reason="LANE_GAP" if tx.tx.seq == 1 else "")

    async def status(self) -> ConsensusStatus:
        return STATUS

    async def heights(self) -> AsyncIterator[int]:
        while True:
            yield self.height
            self.moved.clear()
            await self.moved.wait()

    async def call(self, server: int, request: bytes, timeout_ms: int) -> bytes:
        self.asked.set()
        await self.free.wait()
        if server == 9:
            raise Unavailable("server 9 is not connected")
        return b"%d %d " % (server, timeout_ms) + request

    def serve(self, handler: PeerHandler) -> None:
        self.handler = handler


class Halves:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.consensus = FakeConsensus()
        self.socket = ConsensusSocket(self.consensus, path)  # type: ignore[arg-type]

    async def restart(self) -> None:
        await self.socket.stop()
        self.socket = ConsensusSocket(self.consensus, self.path)  # type: ignore[arg-type]
        await self.socket.start()


@pytest.fixture
async def halves(tmp_path: Path) -> AsyncIterator[Halves]:
    made = Halves(tmp_path / "c.sock")
    await made.socket.start()
    yield made
    await made.socket.stop()


@pytest.fixture
async def link(halves: Halves) -> AsyncIterator[SocketConsensus]:
    opened = await SocketConsensus.open(halves.path)
    yield opened
    await opened.close()


async def test_transactions_and_their_fate(halves: Halves, link: SocketConsensus) -> None:
    results = await asyncio.gather(*(link.submit(*signed(seq)) for seq in (0, 1, 2)))
    assert list(results) == [Admission(True), Admission(False, "LANE_GAP"), Admission(True)]
    assert sorted(halves.consensus.submitted, key=lambda s: s[0].tx.seq) == [signed(seq) for seq in (0, 1, 2)]
    with pytest.raises(Unavailable, match="has stopped"):
        await link.submit(*signed(99))


async def test_status_comes_whole(link: SocketConsensus) -> None:
    assert await link.status() == STATUS


def test_every_reason_to_wait_has_a_code_of_the_port() -> None:
    codes = {
        "IDLE", "ORDERING", "PREPARING", "COMMITTING", "VIEW_CHANGE", "SYNCING", "OBSERVING", "NO_QUORUM", "ALARM",
    }  # fmt: skip
    assert set(_WAITING) == set(_SENTENCES)
    assert set(_WAITING.values()) <= codes


async def test_an_unforeseen_error_is_an_answer_too(halves: Halves, link: SocketConsensus) -> None:
    async def fail() -> ConsensusStatus:
        raise KeyError("new code")

    halves.consensus.status = fail  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="KeyError"):
        await asyncio.wait_for(link.status(), 10)


async def test_calls_go_out_and_refusals_come_back(link: SocketConsensus) -> None:
    assert await link.call(2, b"x" * 2**20, 700) == b"2 700 " + b"x" * 2**20
    with pytest.raises(Unavailable, match="server 9"):
        await link.call(9, b"", 700)


async def test_other_nodes_are_answered_by_the_api_half(halves: Halves, link: SocketConsensus) -> None:
    async def answer(server: int, request: bytes) -> bytes:
        if request == b"missing":
            raise NotFound("no such module")
        return bytes((server,)) + request

    link.serve(answer)
    await link.status()  # whatever was said before is heard before
    assert halves.consensus.handler is not None
    assert await halves.consensus.handler(3, b"hi") == b"\x03hi"
    with pytest.raises(Unavailable, match="no such module"):
        await halves.consensus.handler(3, b"missing")


async def test_heights_are_the_newest_and_go_on_after_a_restart(halves: Halves, link: SocketConsensus) -> None:
    heights = link.heights()
    assert await anext(heights) == 5
    following = asyncio.ensure_future(anext(heights))
    halves.consensus.height = 8
    halves.consensus.moved.set()
    assert await asyncio.wait_for(following, 10) == 8
    following = asyncio.ensure_future(anext(heights))
    halves.consensus.height = 9
    await halves.restart()
    assert await asyncio.wait_for(following, 10) == 9


async def test_requests_under_way_fail_as_unknown_when_consensus_restarts(
    halves: Halves, link: SocketConsensus
) -> None:
    halves.consensus.free.clear()
    call = asyncio.ensure_future(link.call(2, b"", 60_000))
    await asyncio.wait_for(halves.consensus.asked.wait(), 10)
    await halves.restart()
    with pytest.raises(Unavailable, match="unknown"):
        await asyncio.wait_for(call, 10)
    halves.consensus.free.set()
    assert await link.call(2, b"", 1) == b"2 1 "


async def test_the_handler_is_announced_again_after_a_restart(halves: Halves, link: SocketConsensus) -> None:
    async def answer(server: int, request: bytes) -> bytes:
        return request

    link.serve(answer)
    await link.status()
    halves.consensus.handler = None
    await halves.restart()
    await link.status()
    assert halves.consensus.handler is not None
    assert await halves.consensus.handler(0, b"still here") == b"still here"


async def test_without_an_api_half_the_caller_is_told(halves: Halves) -> None:
    link = await SocketConsensus.open(halves.path)
    link.serve(lambda server, request: asyncio.sleep(0, request))
    await link.status()
    handler = halves.consensus.handler
    assert handler is not None
    await link.close()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(handler(0, b""), 10)


async def test_a_reader_hears_of_the_end(link: SocketConsensus) -> None:
    heights = link.heights()
    assert await anext(heights) == 5
    following = asyncio.ensure_future(anext(heights))
    await asyncio.sleep(0)
    await link.close()
    with pytest.raises(Unavailable, match="closed"):
        await asyncio.wait_for(following, 10)


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1", b"\x00\x00\x00\x03\x92\x2a\x00"])
async def test_rubbish_on_the_socket_ends_that_connection_only(
    halves: Halves, link: SocketConsensus, raw: bytes
) -> None:
    reader, writer = await asyncio.open_unix_connection(halves.path)
    writer.write(raw)
    async with asyncio.timeout(10):
        while await reader.read(1000):
            pass
    writer.close()
    assert await link.status() == STATUS


async def test_only_our_user_may_open_the_socket_and_a_dead_one_is_replaced(halves: Halves) -> None:
    assert stat.S_IMODE(halves.path.stat().st_mode) == 0o600
    await halves.restart()
    assert halves.path.is_socket()
    await halves.socket.stop()
    assert not halves.path.exists()


async def test_nobody_there_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgora.node.consensus_link._CONNECT_S", 0.05)
    link = await SocketConsensus.open(tmp_path / "missing.sock")
    with pytest.raises(Unavailable, match=r"missing\.sock"):
        await link.status()
    await link.close()
