"""One conformance suite for every transport: memory and TLS 1.3 on loopback (ledger.md 16, 17)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from consortium import Consortium, Wires
from edgora.adapters.link_frames import HEADER, EgressQueue, Kind, Pacer, frame, parse_header
from edgora.adapters.links import Identity, LinkLimits, Links
from edgora.adapters.tls_links import TlsCarrier
from edgora.crypto.links import LinkKey
from edgora.crypto.sign import SigningKey
from edgora.ports.transport import MAX_ANSWER
from edgora.wire.errors import NotFound, Unavailable, WireError
from edgora.wire.genesis import LinkEndpoint
from edgora.wire.pbft import MAX_FRAME, Lane


class Ear:
    """A receiver that notes what it hears, and can be told to stop listening."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, Lane, bytes]] = []
        self.changed = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.answer: Callable[[int, bytes], Awaitable[bytes]] | None = None

    async def received(self, peer: int, lane: Lane, data: bytes) -> None:
        await self.open.wait()
        self.heard.append((peer, lane, data))
        self.changed.set()

    async def asked(self, peer: int, request: bytes) -> bytes:
        assert self.answer is not None
        return await self.answer(peer, request)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


async def until(condition: Callable[[], bool]) -> None:
    """For states that announce no change."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


class World:
    """Wires, and every transport that was started on them."""

    def __init__(self, wires: Wires) -> None:
        self.wires = wires
        self.started: list[Links] = []

    async def start(
        self, index: int, nonce: int = 1, identity: Identity | None = None, limits: LinkLimits | None = None
    ) -> tuple[Links, Ear]:
        links, ear = self.wires.links(index, limits, identity), Ear()
        self.started.append(links)
        await links.start(ear, nonce)
        return links, ear

    async def pair(self) -> tuple[Links, Ear, Links, Ear]:
        a, ear_a = await self.start(0)
        b, ear_b = await self.start(1)
        await until(lambda: up(a, 1) and up(b, 0))
        return a, ear_a, b, ear_b


def up(links: Links, peer: int) -> bool:
    """Whether all three lanes are up: a transport that can call can do all else."""
    return set(links._peers[peer].connections) == set(Lane)


@pytest.fixture(params=["memory", "tls"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    wires = Wires(Consortium(4), request.param)
    await wires.reserve()
    made = World(wires)
    yield made
    for links in made.started:
        await links.stop()


async def test_frames_arrive_whole_in_order_and_in_their_lane(world: World) -> None:
    a, ear_a, b, ear_b = await world.pair()
    sizes = [0, 1, 1000, 300_000, MAX_FRAME]
    for lane in Lane:
        for number in range(50):
            a.send(1, lane, bytes((number,)))
    for size in sizes:
        b.send(0, Lane.CONSENSUS, b"x" * size)
    await ear_b.until(lambda: len(ear_b.heard) == 150)
    await ear_a.until(lambda: len(ear_a.heard) == len(sizes))
    for lane in Lane:
        assert [d for p, at, d in ear_b.heard if (p, at) == (0, lane)] == [bytes((n,)) for n in range(50)]
    assert [len(data) for _, _, data in ear_a.heard] == sizes


async def test_four_validators_form_a_full_mesh(world: World) -> None:
    nodes = [await world.start(i) for i in range(4)]
    for index, (links, _) in enumerate(nodes):
        await until(lambda links=links, index=index: all(up(links, p) for p in range(4) if p != index))
        for peer in range(4):
            if peer != index:
                links.send(peer, Lane.CONSENSUS, bytes((index,)))
    for index, (_, ear) in enumerate(nodes):
        await ear.until(lambda ear=ear: len(ear.heard) == 3)
        assert {(peer, data) for peer, _, data in ear.heard} == {(p, bytes((p,))) for p in range(4) if p != index}


async def test_votes_and_gossip_of_before_the_link_was_up_arrive(world: World) -> None:
    a, _ = await world.start(0)
    for lane in Lane:
        a.send(1, lane, bytes((lane,)))
    _, ear = await world.start(1)
    await ear.until(lambda: len(ear.heard) == 2)
    assert {lane for _, lane, _ in ear.heard} == {Lane.CONSENSUS, Lane.GOSSIP}


async def test_requests_are_answered_and_errors_told(world: World) -> None:
    a, ear_a, b, _ = await world.pair()

    async def answer(peer: int, request: bytes) -> bytes:
        if request == b"where":
            raise NotFound("there is no such module")
        return bytes((peer,)) + request

    ear_a.answer = answer
    assert await b.call(0, b"hello", 5_000) == b"\x01hello"
    big = b"y" * (MAX_ANSWER - 1)
    assert await b.call(0, big, 10_000) == b"\x01" + big
    with pytest.raises(Unavailable, match="there is no such module"):
        await b.call(0, b"where", 5_000)
    with pytest.raises(Unavailable, match="answer has"):
        await b.call(0, big + b"y", 10_000)
    with pytest.raises(Unavailable, match="not connected"):
        await a.call(2, b"hello", 5_000)


async def test_a_slow_answer_is_unavailable_and_harms_nothing(world: World) -> None:
    _, ear_a, b, _ = await world.pair()
    free = asyncio.Event()

    async def answer(peer: int, request: bytes) -> bytes:
        if request == b"slow":
            await free.wait()
        return request

    ear_a.answer = answer
    with pytest.raises(Unavailable, match="within 50 ms"):
        await b.call(0, b"slow", 50)
    assert await b.call(0, b"quick", 5_000) == b"quick"
    free.set()
    assert await b.call(0, b"again", 5_000) == b"again"


async def test_too_many_requests_at_once_are_refused_not_queued(world: World) -> None:
    _, ear_a, b, _ = await world.pair()
    free = asyncio.Event()

    async def answer(peer: int, request: bytes) -> bytes:
        await free.wait()
        return request

    ear_a.answer = answer
    calls = [asyncio.ensure_future(b.call(0, b"", 10_000)) for _ in range(20)]
    done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert isinstance(next(iter(done)).exception(), Unavailable)
    free.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results.count(b"") == 16


async def test_calls_under_way_fail_when_the_peer_goes(world: World) -> None:
    a, ear_a, b, _ = await world.pair()
    asked = asyncio.Event()

    async def answer(peer: int, request: bytes) -> bytes:
        asked.set()
        await asyncio.Event().wait()
        return request

    ear_a.answer = answer
    call = asyncio.ensure_future(b.call(0, b"", 60_000))
    await asyncio.wait_for(asked.wait(), 10)
    await a.stop()
    with pytest.raises(Unavailable, match="broke"):
        await asyncio.wait_for(call, 10)


async def test_a_restarted_peer_comes_back_under_a_new_nonce(world: World) -> None:
    a, ear_a, b, _ = await world.pair()
    await b.stop()
    await until(lambda: not a.links()[0].connected)
    again, _ = await world.start(1, nonce=2)
    await until(lambda: up(again, 0))
    again.send(0, Lane.CONSENSUS, b"back")
    await ear_a.until(lambda: (1, Lane.CONSENSUS, b"back") in ear_a.heard)


async def test_the_accepting_side_may_restart_too(world: World) -> None:
    a, _, b, _ = await world.pair()
    await a.stop()
    await until(lambda: not b.links()[0].connected)
    _, ear = await world.start(0, nonce=2)
    await until(lambda: up(b, 0) and b._peers[0].nonce == 2)
    b.send(0, Lane.GOSSIP, b"news")
    await ear.until(lambda: (1, Lane.GOSSIP, b"news") in ear.heard)


async def test_a_second_instance_of_one_identity_is_refused(world: World) -> None:
    """Ledger.md 21.15: the same key on two machines."""
    a, ear_a, b, _ = await world.pair()
    twin, _ = await world.start(1, nonce=2) if world.wires.kind == "memory" else await dial_only(world, 1, 2)
    await until(lambda: "second instance" in next(v.refused for v in twin.links() if v.peer == 0))
    assert not next(v.connected for v in twin.links() if v.peer == 0)
    b.send(0, Lane.CONSENSUS, b"the first one still speaks")
    await ear_a.until(lambda: (1, Lane.CONSENSUS, b"the first one still speaks") in ear_a.heard)
    assert up(a, 1)


async def dial_only(world: World, index: int, nonce: int) -> tuple[Links, Ear]:
    """A twin on another machine: it cannot have its original's address, so it listens elsewhere."""
    me = world.wires.consortium.identity(index)
    keys = [v.link_key for v in me.genesis.validators]
    carrier = TlsCarrier(me.link_key, index, keys, world.wires.endpoints, LinkEndpoint("127.0.0.1", 0))
    links, ear = Links(me, carrier, world.wires.clock), Ear()
    world.started.append(links)
    await links.start(ear, nonce)
    return links, ear


@pytest.mark.parametrize("fault", ["genesis", "epoch", "statement", "stranger"])
async def test_who_does_not_belong_never_gets_a_frame_through(world: World, fault: str) -> None:
    consortium = world.wires.consortium
    a, ear_a = await world.start(0)
    me = consortium.identity(1)
    other = Consortium(4, window=2)
    wrong = {
        "genesis": Identity(other.genesis, 1, me.signing_key, me.link_key),
        "epoch": Identity(me.genesis, 1, me.signing_key, me.link_key, epoch=1),
        "statement": Identity(me.genesis, 1, SigningKey.derived("thief of a link key"), me.link_key),
        "stranger": Identity(me.genesis, 1, me.signing_key, LinkKey.derived("stranger")),
    }[fault]
    b, _ = await world.start(1, identity=wrong)
    await until(lambda: b.links()[0].refused != "")
    b.send(0, Lane.CONSENSUS, b"let me in")
    good, _ = await world.start(2)
    await until(lambda: up(a, 2))
    good.send(0, Lane.CONSENSUS, b"after that")
    await ear_a.until(lambda: bool(ear_a.heard))
    assert ear_a.heard == [(2, Lane.CONSENSUS, b"after that")]
    assert not a.links()[0].connected
    assert not b.links()[0].connected


async def test_a_peer_that_is_cut_off_stays_away_for_its_penalty(world: World) -> None:
    a, _ = await world.start(0, limits=LinkLimits(penalty_s=0.3))
    b, _ = await world.start(1)
    await until(lambda: up(a, 1))
    a.cut(1, "ten bad signatures")
    await until(lambda: "ten bad signatures" in b.links()[0].refused)
    await until(lambda: up(b, 0))


async def test_a_receiver_that_is_busy_holds_its_peer_back(world: World) -> None:
    """Reading stops, the sender's queue fills, gossip is dropped and nothing grows without bound."""
    a, _, b, ear_b = await world.pair()
    ear_b.open.clear()
    frame_octets = 512 * 1024
    for _ in range(100):
        a.send(1, Lane.GOSSIP, bytes(frame_octets))
        await asyncio.sleep(0)
    queue = a._peers[1].queue
    assert queue.octets <= 16 * 2**20
    assert queue.dropped > 0
    a.send(1, Lane.CONSENSUS, b"vote")
    ear_b.open.set()
    await ear_b.until(lambda: (0, Lane.CONSENSUS, b"vote") in ear_b.heard)
    assert up(b, 0)


async def test_ingress_over_the_limit_is_slowed_and_votes_are_not(world: World) -> None:
    a, _ = await world.start(0)
    b, ear_b = await world.start(1, limits=LinkLimits(gossip=64 * 1024))
    await until(lambda: up(a, 1) and up(b, 0))
    for _ in range(6):
        a.send(1, Lane.GOSSIP, bytes(32 * 1024))
    for number in range(100):
        a.send(1, Lane.CONSENSUS, bytes((number,)))
    await ear_b.until(lambda: sum(lane is Lane.CONSENSUS for _, lane, _ in ear_b.heard) == 100)
    assert sum(lane is Lane.GOSSIP for _, lane, _ in ear_b.heard) <= 3


# ---- one raw connection ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        HEADER.pack(MAX_FRAME + 1, Lane.CONSENSUS),
        HEADER.pack(2**32 - 1, Lane.CONSENSUS),
        HEADER.pack(1, 99) + b"x",
        HEADER.pack(1, Lane.GOSSIP) + b"x",
        frame(Kind.REQUEST, b"12345678"),
    ],
    ids=["too long", "far too long", "unknown kind", "other lane", "request out of the sync lane"],
)
async def test_a_frame_out_of_bounds_ends_the_connection_before_it_is_read(world: World, raw: bytes) -> None:
    a, ear_a, b, _ = await world.pair()
    b._peers[0].connections[Lane.CONSENSUS].stream.write(raw)
    await until(lambda: not a.links()[0].connected)
    assert "frame" in a.links()[0].refused
    assert ear_a.heard == []


def test_an_announced_length_is_judged_before_any_content() -> None:
    assert parse_header(HEADER.pack(MAX_FRAME, Lane.SYNC), Lane.SYNC) == (MAX_FRAME, Lane.SYNC)
    with pytest.raises(WireError, match=str(MAX_FRAME + 1)):
        parse_header(HEADER.pack(MAX_FRAME + 1, Lane.SYNC), Lane.SYNC)
    with pytest.raises(WireError, match="before HELLO"):
        parse_header(HEADER.pack(0, Lane.SYNC), None)
    with pytest.raises(WireError):
        frame(Lane.SYNC, bytes(MAX_FRAME + 1))


def test_the_egress_queue_drops_gossip_then_sync_and_never_a_vote() -> None:
    queue = EgressQueue(limit=100)
    for lane in Lane:
        assert queue.push(lane, bytes(30))
    assert queue.push(Lane.CONSENSUS, bytes(30))
    assert queue.take(Lane.GOSSIP, 1000) == b""
    assert queue.push(Lane.CONSENSUS, bytes(30))
    assert queue.take(Lane.SYNC, 1000) == b""
    assert not queue.push(Lane.CONSENSUS, bytes(30))
    assert len(queue.take(Lane.CONSENSUS, 1000)) == 120
    assert (queue.octets, queue.dropped) == (0, 2)


def test_a_batch_is_cut_at_its_limit_but_never_empty() -> None:
    queue = EgressQueue()
    for size in (10, 20, 30):
        queue.push(Lane.SYNC, bytes(size))
    assert [len(queue.take(Lane.SYNC, 5)), len(queue.take(Lane.SYNC, 50)), len(queue.take(Lane.SYNC, 5))] == [10, 50, 0]


def test_what_is_kept_for_an_absent_peer_are_the_newest_votes_and_gossip() -> None:
    queue = EgressQueue()
    for number in range(5):
        queue.push(Lane.CONSENSUS, bytes((number,)) * 10)
        queue.push(Lane.SYNC, bytes(10))
        queue.push(Lane.GOSSIP, bytes((number,)) * 12)
    queue.clear(keep=25)
    assert queue.take(Lane.CONSENSUS, 100) == bytes((3,)) * 10 + bytes((4,)) * 10
    assert queue.take(Lane.GOSSIP, 100) == bytes((3,)) * 12 + bytes((4,)) * 12
    assert queue.octets == 0


def test_the_pacer_allows_a_burst_and_then_the_rate() -> None:
    now = 0.0
    pacer = Pacer(1000, lambda: now)
    assert pacer.take(1000) == 0
    assert pacer.take(500) == pytest.approx(0.5)
    now = 0.5
    assert pacer.take(0) == 0
    now = 100.0
    assert pacer.take(1001) == pytest.approx(0.001)
