"""One conformance suite for the bus port, run against memory and a real redis-server."""

import asyncio
import shutil
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from edgora.adapters.loopback import free_port
from edgora.adapters.memory_bus import MemoryBus
from edgora.adapters.redis_bus import RedisBus
from edgora.ports.bus import Bus, Delivery
from edgora.wire.errors import Refused, Unavailable

Make = Callable[..., Bus]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of our own on a free port, without persistence; an existing server is never touched."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    folder = tmp_path_factory.mktemp("redis")
    server = subprocess.Popen(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if "Ready to accept connections" in line:
                break
        else:
            pytest.fail("redis-server ended before it was ready")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(10)
        server.stdout.close()


@pytest.fixture(params=["memory", "redis"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes buses that share their topics only through the thing under test."""
    made: list[Bus] = []
    prefix = uuid.uuid4().hex
    if request.param == "memory":

        def build(**options: int) -> Bus:
            bus = MemoryBus(**options)
            made.append(bus)
            return bus
    else:
        url = request.getfixturevalue("redis_url")

        def build(**options: int) -> Bus:
            bus = RedisBus(url, prefix=prefix, **options)
            made.append(bus)
            return bus

    yield build
    for bus in made:
        await bus.close()


async def take(bus: Bus, group: str = "g", consumer: str = "c", limit: int = 100, wait_ms: int = 0) -> list[Delivery]:
    return list(await bus.take("t", group, consumer, limit=limit, wait_ms=wait_ms))


async def data(bus: Bus, group: str = "g", consumer: str = "c", limit: int = 100, wait_ms: int = 0) -> list[bytes]:
    return [delivery.data for delivery in await take(bus, group, consumer, limit, wait_ms)]


async def test_entries_come_in_order_and_once(make: Make) -> None:
    bus = make()
    sent = [bytes([k]) * (k % 7) for k in range(40)]
    for entry in sent:
        await bus.publish("t", entry)
    first = await data(bus, limit=15)
    assert first == sent[:15]
    assert await data(bus) == sent[15:]
    assert await data(bus) == []


async def test_each_group_sees_everything_from_the_oldest_kept(make: Make) -> None:
    bus = make()
    await bus.publish("t", b"before any group")
    assert await data(bus, "a") == [b"before any group"]
    await bus.publish("t", b"later")
    assert await data(bus, "a") == [b"later"]
    assert await data(bus, "b") == [b"before any group", b"later"]


async def test_within_a_group_each_entry_goes_to_one_consumer(make: Make) -> None:
    bus = make()
    for k in range(10):
        await bus.publish("t", bytes([k]))
    one, two = await data(bus, consumer="one", limit=4), await data(bus, consumer="two", limit=100)
    assert sorted(one + two) == [bytes([k]) for k in range(10)]
    assert len(one) == 4


async def test_topics_are_apart(make: Make) -> None:
    bus = make()
    await bus.publish("other", b"x")
    assert await data(bus) == []


async def test_what_was_not_acknowledged_is_given_again_and_first(make: Make) -> None:
    bus = make(stale_ms=0)
    for k in range(3):
        await bus.publish("t", bytes([k]))
    mine = await take(bus, consumer="dies", limit=2)
    await bus.ack("t", "g", [mine[0].id])
    assert await take(bus, consumer="lives") == [mine[1], Delivery(id=(await last_id(bus)), data=b"\x02")]


async def last_id(bus: Bus) -> str:
    return (await take(bus, group=uuid.uuid4().hex))[-1].id


async def test_acknowledged_entries_stay_away(make: Make) -> None:
    bus = make(stale_ms=0)
    await bus.publish("t", b"x")
    ids = [delivery.id for delivery in await take(bus)]
    await bus.ack("t", "g", ids)
    await bus.ack("t", "g", [*ids, "999-0"] if "-" in ids[0] else [*ids, "999"])
    await bus.ack("t", "g", [])
    assert await take(bus) == []
    assert await take(bus, group="another") != []


async def test_before_it_is_stale_an_entry_belongs_to_its_taker(make: Make) -> None:
    bus = make(stale_ms=3_600_000)
    await bus.publish("t", b"x")
    assert await data(bus, consumer="slow") == [b"x"]
    assert await data(bus, consumer="other") == []


async def test_a_topic_is_bounded_and_keeps_the_newest(make: Make) -> None:
    bus = make(kept=5, stale_ms=0)
    await data(bus)
    for k in range(3):
        await bus.publish("t", bytes([k]))
    assert len(await take(bus, consumer="dies")) == 3
    for k in range(3, 12):
        await bus.publish("t", bytes([k]))
    expected = [bytes([k]) for k in range(7, 12)]
    assert await data(bus, group="new") == expected
    assert await data(bus) == expected  # the three that were pending are gone with their data


async def test_take_waits_for_the_first_entry(make: Make) -> None:
    bus = make()
    waiting = asyncio.create_task(data(bus, wait_ms=30_000))
    await asyncio.sleep(0)
    await bus.publish("t", b"x")
    assert await waiting == [b"x"]


async def test_take_gives_up_after_its_wait(make: Make) -> None:
    assert await data(make(), wait_ms=10) == []


async def test_a_cancelled_take_loses_nothing(make: Make) -> None:
    bus = make(stale_ms=0)
    waiting = asyncio.create_task(data(bus, wait_ms=30_000))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await bus.publish("t", b"x")
    assert await data(bus) == [b"x"]


async def test_a_closed_bus_is_unavailable(make: Make) -> None:
    bus = make()
    await bus.close()
    await bus.close()
    with pytest.raises(Unavailable):
        await bus.publish("t", b"x")
    with pytest.raises(Unavailable):
        await take(bus)
    with pytest.raises(Unavailable):
        await bus.ack("t", "g", ["1"])


async def test_memory_closing_wakes_a_waiting_consumer() -> None:
    bus = MemoryBus()
    waiting = asyncio.create_task(take(bus, wait_ms=30_000))
    await asyncio.sleep(0)
    await bus.close()
    with pytest.raises(Unavailable):
        await waiting


async def test_redis_processes_share_topics_and_survive_a_flush(redis_url: str) -> None:
    prefix = uuid.uuid4().hex
    node, allocator = RedisBus(redis_url, prefix=prefix), RedisBus(redis_url, prefix=prefix)
    stranger = RedisBus(redis_url, prefix=uuid.uuid4().hex)
    try:
        await node.publish("t", b"x")
        assert await data(allocator) == [b"x"]
        assert await data(stranger) == []
        await node._redis.flushall()
        assert await data(allocator) == []
        await node.publish("t", b"y")
        assert await data(allocator) == [b"y"]
    finally:
        for bus in (node, allocator, stranger):
            await bus.close()


async def test_redis_out_of_reach_is_unavailable() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        bus = RedisBus(f"redis://127.0.0.1:{held.getsockname()[1]}/0")
        with pytest.raises(Unavailable, match="cannot be reached"):
            await bus.publish("t", b"x")
        await bus.close()


def test_redis_url_is_checked() -> None:
    with pytest.raises(Refused, match="redis url"):
        RedisBus("http://127.0.0.1")
