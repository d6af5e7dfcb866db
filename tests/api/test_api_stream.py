"""Server-sent events: complete, in order, resumable at any node by the last id that was seen."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api.world import Platform
from edgora.node.settings import LimitSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Stream:
    """An open stream: events as they come."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._text = b""

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            return
        self._text += message.get("body", b"")
        *frames, self._text = self._text.split(b"\n\n")
        for frame in frames:
            fields = dict(line.split(": ", 1) for line in frame.decode().splitlines() if not line.startswith(":"))
            if fields:
                body = json.loads(fields["data"])
                assert (str(body["id"]), body["type"]) == (fields["id"], fields["event"])
                self.queue.put_nowait(body)
        if not message.get("more_body", False):
            self.queue.put_nowait(None)

    async def take(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(20):
            found = [await self.queue.get() for _ in range(count)]
        assert None not in found, "the stream ended early"
        return [event for event in found if event is not None]


@asynccontextmanager
async def opened(platform: Platform, path: str, node: int = 0, last: int | None = None) -> AsyncIterator[Stream]:
    """A GET whose answer is read while it comes; the client leaves at the end of the block."""
    stream, left = Stream(), asyncio.Event()
    path, _, query = path.partition("?")
    headers = [] if last is None else [(b"last-event-id", str(last).encode())]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": path,
        "raw_path": path.encode(), "query_string": query.encode(), "headers": headers, "scheme": "http",
        "client": ("stream", 1), "server": ("node", 80), "root_path": "",
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    serving = asyncio.ensure_future(platform.nodes[node].app(scope, receive, stream.send))
    try:
        yield stream
    finally:
        left.set()
        async with asyncio.timeout(20):
            await asyncio.gather(serving, return_exceptions=True)


async def test_all_events_resume_where_a_reader_left_off(platform: Platform) -> None:
    ue = await platform.funded_ue()
    async with opened(platform, "/v1/events?after=0") as stream:
        first = await stream.take(9)
        assert stream.headers["content-type"].startswith("text/event-stream")
    ids = [event["id"] for event in first]
    assert ids == sorted(set(ids))
    async with opened(platform, "/v1/events", node=2, last=ids[4]) as stream:
        resumed = await stream.take(4)
    assert resumed == first[5:], "another node goes on with the same events"
    async with (
        opened(platform, "/v1/events") as stream,  # from now on
        opened(platform, "/v1/events", node=1) as other,
    ):
        task = await ue.submit()
        event = (await stream.take(1))[0]
        assert event["id"] > ids[-1]
        kinds = [event["type"]] + [e["type"] for e in await stream.take(4)]
        assert "TaskOpened" in kinds
        assert [e["type"] for e in await other.take(5)] == kinds
    assert platform.nodes[0]._streams.open == 0, "a reader that left is forgotten"
    await platform.until(lambda: platform.state(task) == "SETTLED")


async def test_events_older_than_memory_come_from_the_store(platform: Platform) -> None:
    archive = platform.nodes[0].follower.archive
    dropped, archive._dropped = archive._dropped, archive.last_event
    try:
        async with opened(platform, "/v1/events", last=0) as stream:
            old = await stream.take(8)
    finally:
        archive._dropped = dropped
    async with opened(platform, "/v1/events", last=0) as stream:
        assert await stream.take(8) == old


async def test_a_tasks_stream_tells_its_life_and_ends(platform: Platform) -> None:
    ue = await platform.funded_ue()
    task = await ue.submit(source=2)
    async with opened(platform, f"/v1/tasks/{task}/events", node=3) as stream:
        told: list[dict[str, Any]] = []
        async with asyncio.timeout(20):
            while (event := await stream.queue.get()) is not None:
                told.append(event)
    kinds = [event["type"] for event in told]
    life = ["TaskOpened", "RoundClosed", "TaskAssigned", "ResultFiled", "TaskFinal", "TaskSettled"]
    assert [kind for kind in kinds if kind in life] == life
    assert all(event["task"] == task for event in told if event["type"] != "RoundClosed")
    assigned = next(i for i, kind in enumerate(kinds) if kind == "TaskAssigned")
    again = await platform.clients[0].get(
        f"/v1/tasks/{task}/events", headers={"Last-Event-ID": str(told[assigned]["id"])}
    )
    assert [line[7:] for line in again.text.splitlines() if line.startswith("event: ")] == kinds[assigned + 1 :]
    opened_event = told[kinds.index("TaskOpened")]
    assert opened_event["data"]["maximum"] == str(10_000_000 * 100 * 1000), "wide integers are decimal"
    assert opened_event["data"]["offer"]["ue"] == ue.address


async def test_streams_are_counted_and_end_with_the_node() -> None:
    limits = LimitSettings(streams=1)
    async with Platform(live=False, limits=limits) as platform, opened(platform, "/v1/events") as stream:
        await platform.until(lambda: platform.nodes[0]._streams.open == 1)
        refused = await platform.clients[0].get("/v1/events")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many")
        platform.nodes[0].end_streams()
        async with asyncio.timeout(20):
            while await stream.queue.get() is not None:
                pass
