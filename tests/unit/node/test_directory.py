"""Key documents of the other servers: who is asked, and what is believed."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from edgora.node import directory
from edgora.node.directory import Directory
from edgora.wire.codec import encode
from edgora.wire.errors import Unavailable
from edgora.wire.metadata import ServerMetadata
from edgora.wire.peer import Description

DOCUMENTS = [ServerMetadata(f"http://node{i}", f"http://node{i}", b"rsa", b"link %d" % i) for i in range(4)]
WAIT_S = 20


class Neighbours:
    """The others as the directory asks them: 1 keeps it waiting, 2 is unreachable once, 3 lies once."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.one_may_answer = asyncio.Event()

    async def describe(self, server: int) -> Description:
        again = server in self.asked
        self.asked.append(server)
        if server == 1:
            await self.one_may_answer.wait()
        if server == 2 and not again:
            raise Unavailable("no link")
        shown = DOCUMENTS[0] if server == 3 and not again else DOCUMENTS[server]
        return Description(encode(shown), (server, 0))


def made(neighbours: Neighbours) -> Directory:
    servers = [SimpleNamespace(id=i, meta_hash=document.hash) for i, document in enumerate(DOCUMENTS)]
    market: Any = SimpleNamespace(servers=lambda: servers, server=lambda i: servers[i])
    follower: Any = SimpleNamespace(market=market)
    peers: Any = neighbours
    return Directory(0, DOCUMENTS[0], None, follower, peers)


async def test_a_server_that_keeps_us_waiting_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "RETRY_S", 0.01)
    neighbours = Neighbours()
    known = made(neighbours)
    running = asyncio.ensure_future(known.run())
    async with asyncio.timeout(WAIT_S):
        while not (known.get(2) and known.get(3)):
            await asyncio.sleep(0.01)  # the directory tells nobody of what it learns
        assert known.get(1) is None
        assert sorted(neighbours.asked) == [1, 2, 2, 3, 3], "nobody twice at once, and the uncertified is not believed"
        neighbours.one_may_answer.set()
        while known.get(1) is None:
            await asyncio.sleep(0.01)
    assert [known.get(i) for i in range(4)] == DOCUMENTS
    assert known.position_mm(1) == (1, 0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
