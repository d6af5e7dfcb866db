"""The edge: token buckets and bounded bodies, without a socket."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgora.node.api import edge
from edgora.node.api.edge import BodyRule, Buckets, Edge
from edgora.wire.errors import TooMany


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    clock = Clock()
    buckets = Buckets(10, 20, clock, "things")
    buckets.take("a", 20)
    with pytest.raises(TooMany) as refused:
        buckets.take("a", 15)
    assert refused.value.retry_after_s == 2
    clock.now = 1.0
    buckets.take("a", 10)
    with pytest.raises(TooMany):
        buckets.take("a")
    buckets.take("b", 20)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5)), max_size=60))
def test_a_bucket_never_gives_more_than_burst_and_rate_allow(calls: Sequence[tuple[float, int]]) -> None:
    clock = Clock()
    buckets = Buckets(2, 6, clock, "things")
    given_ = 0
    for wait, count in calls:
        clock.now += wait
        try:
            buckets.take("a", count)
            given_ += count
        except TooMany:
            pass
        assert given_ <= 6 + 2 * clock.now + 1e-6


def test_sources_are_forgotten_the_least_recent_first() -> None:
    buckets = Buckets(1, 1, Clock(), "things")
    buckets.take("first")
    for number in range(edge._SOURCES):
        buckets.take(str(number))
    buckets.take("first")  # its bucket was dropped, so it is full again
    assert len(buckets._buckets) == edge._SOURCES


class Echo:
    """An application that reads its body and answers with its length."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        self.bodies.append(message.get("body", b""))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


async def call(
    app: Edge, *, method: str = "POST", path: str = "/small", chunks: Sequence[bytes] = (), length: str | None = None,
    leaves: bool = False,
) -> int:  # fmt: skip
    parts = list(chunks) or [b""]
    sent: list[Any] = []

    async def receive() -> Any:
        if parts:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts) or leaves}
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if length is None else [(b"content-length", length.encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": ("1.2.3.4", 1)}
    await app(scope, receive, send)
    return int(sent[0]["status"])


async def test_bodies_are_bounded_by_what_is_declared_and_by_what_arrives() -> None:
    echo = Echo()
    rules = [BodyRule(edge.re.compile("/big/.*"), 100)]
    app = Edge(echo, rules=rules, default_octets=10, requests=Buckets(1000, 1000, Clock(), "requests"))
    assert await call(app, chunks=[b"12345", b"67890"]) == 200
    assert await call(app, chunks=[b"12345", b"678901"]) == 413
    assert await call(app, length="11") == 413
    assert await call(app, length="-1") == 413
    assert await call(app, length="ten") == 413
    assert await call(app, path="/big/one", chunks=[b"x" * 100], length="100") == 200
    assert await call(app, path="/bigger", chunks=[b"x" * 100]) == 413
    assert await call(app, chunks=[b"123"], leaves=True) == 400
    assert echo.bodies == [b"1234567890", b"x" * 100]


async def test_a_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "BODY_SECONDS", 0.01)
    app = Edge(Echo(), rules=[], default_octets=10, requests=Buckets(1000, 1000, Clock(), "requests"))
    sent: list[Any] = []

    async def receive() -> Any:
        await edge.asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "PUT", "path": "/", "headers": [], "client": None}, receive, send)
    assert sent[0]["status"] == 408
