"""A fleet tells development nodes where its UEs stand, and nothing that a node does stops it."""

import asyncio
from collections import Counter

import httpx2
import msgspec
import pytest

from edgora.ue import positions
from edgora.ue.positions import tell_positions
from edgora.wire import rest

URLS = {0: "http://open.test", 1: "http://closed.test", 2: "http://away.test"}
UES = [f"0x{i:040x}" for i in range(300)]
PLACES = [(float(i), -0.5 * i) for i in range(300)]


class Nodes:
    """One node takes positions, one is no development node, one does not answer. `enough` after so many requests."""

    def __init__(self, enough: int) -> None:
        self.asked: Counter[str] = Counter()
        self.told: dict[str, tuple[float, float]] = {}
        self.enough, self._most = asyncio.Event(), enough

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        host = request.url.host
        self.asked[host] += 1
        if self.asked.total() >= self._most:
            self.enough.set()
        if host == "away.test":
            raise httpx2.ConnectError("nobody listens")
        if host == "closed.test":
            return httpx2.Response(404)
        assert (request.method, request.url.path) == ("PUT", "/v1/dev/positions")
        report = msgspec.json.decode(request.content, type=rest.PositionReport)
        self.told |= {p.ue: (p.x_m, p.y_m) for p in report.items}
        return httpx2.Response(200, json={"items": []})


async def test_every_ue_is_told_in_reports_that_a_node_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "AGAIN_S", 0)
    nodes = Nodes(enough=12)
    telling = asyncio.create_task(tell_positions(UES, PLACES, URLS, httpx2.MockTransport(nodes.answer)))
    await nodes.enough.wait()
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    assert nodes.told == dict(zip(UES, PLACES, strict=True))
    assert nodes.asked["closed.test"] == 1, "who wants none is not asked again"
    assert nodes.asked["away.test"] > 1, "who is away may come back"


async def test_it_ends_when_no_node_wants_positions() -> None:
    nodes = Nodes(enough=1_000)
    await tell_positions(UES, PLACES, {1: URLS[1]}, httpx2.MockTransport(nodes.answer))
    assert nodes.asked == {"closed.test": 1}
