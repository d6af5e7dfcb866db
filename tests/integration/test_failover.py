"""A node goes away and comes back: clients go on, results stay, and every node says what it waits for."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from edgora.client import Ticket, Wallet
from edgora.wire.errors import Unavailable
from edgora.wire.market import ResultCode
from embedded import Embedded, hexed, spin

WAIT_S = 60.0


@pytest.fixture(scope="module")
def shaky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with Embedded("market.margin_ms=120000", folder=tmp_path_factory.mktemp("run")) as running:
        yield running


@pytest.fixture(scope="module")
def keys(shaky: Embedded) -> Wallet:
    return shaky.funded(10**17)


def status(platform: Embedded, node: int) -> dict[str, Any]:
    found: dict[str, Any] = platform.get("/v1/status", node).json()
    return found


def readiness(platform: Embedded, node: int) -> str:
    try:
        return platform.get("/readyz", node).text
    except httpx2.ConnectError:
        return "down"


def until(platform: Embedded, holds: Any) -> None:
    """Wait in the platform's loop until a look at it says so."""

    async def wait() -> None:
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)  # what REST tells of consensus has no event to wait for

    try:
        platform.run(asyncio.wait_for(wait(), WAIT_S), WAIT_S + 5)
    except TimeoutError:
        pytest.fail(f"after {WAIT_S:.0f} s it still does not hold: {[readiness(platform, node) for node in range(4)]}")


def test_a_client_goes_on_without_one_node(shaky: Embedded, keys: Wallet) -> None:
    with shaky.client(keys) as ue:
        earlier = ue.submit(spin())
        ue.deliver(earlier)
    shaky.run(shaky.cluster.nodes[3].stop())
    try:
        goes_on_without_node_3(shaky, keys, earlier)
    finally:
        shaky.cluster.nodes[3] = shaky.run(shaky.cluster.start_node(3))
    comes_back(shaky, keys, earlier)


def goes_on_without_node_3(shaky: Embedded, keys: Wallet, earlier: Ticket) -> None:
    with pytest.raises(httpx2.ConnectError):
        shaky.get("/healthz", 3)
    dead_first = [shaky.urls[3], *shaky.urls[:3]]
    with shaky.client(keys, nodes=dead_first) as ue:
        for _ in range(3):
            ticket = ue.submit(spin(source=0))
            answer = ue.deliver(ticket)
            assert answer.code is ResultCode.OK
            assert answer.executor != 3
        assert ue.deliver(earlier).code is ResultCode.OK, "whoever ran it"
    for node in range(3):  # each of those left serves it by itself
        with shaky.client(keys, nodes=[shaky.urls[node]]) as ue:
            assert ue.deliver(ticket).output == answer.output
        until(shaky, lambda node=node: "silent: 3" in status(shaky, node)["sentence"])
        voters = {voter["index"]: voter for voter in status(shaky, node)["voters"]}
        assert not voters[3]["connected"]
    with shaky.client(keys, nodes=[shaky.urls[3]]) as alone, pytest.raises(Unavailable):
        alone.connect()


def comes_back(shaky: Embedded, keys: Wallet, earlier: Ticket) -> None:
    newest = status(shaky, 0)["committed_height"]
    until(shaky, lambda: status(shaky, 3)["follower_height"] >= newest)
    until(shaky, lambda: shaky.get("/readyz", 3).status_code == 200)
    headers = [shaky.get(f"/v1/blocks/{newest}", node).json()["header"]["hash"] for node in (0, 3)]
    assert headers[0] == headers[1]
    # It asks the others for their key documents again; that takes as long as its slowest link needs to come up.
    until(shaky, lambda: all(server["keys"] for server in shaky.get("/v1/servers", 3).json()["items"]))
    with shaky.client(keys, nodes=[shaky.urls[3]]) as ue:
        assert ue.deliver(earlier).code is ResultCode.OK
        assert ue.compute(spin(source=0)).code is ResultCode.OK
    until(shaky, lambda: all(server["live"] for server in shaky.get("/v1/servers").json()["items"]))


def test_without_a_quorum_every_node_says_so_and_nothing_is_lost(shaky: Embedded, keys: Wallet) -> None:
    network = shaky.cluster.network

    async def halve(cut: bool) -> None:
        for a in (0, 1):
            for b in (2, 3):
                (network.cut if cut else network.mend)(a, b)

    shaky.run(halve(True))
    try:
        for node in range(4):
            until(shaky, lambda node=node: status(shaky, node)["waiting"] == "NO_QUORUM")
            sentence = status(shaky, node)["sentence"]
            assert "2 of 4 validators are connected, 3 are needed" in sentence
            assert shaky.get("/readyz", node).status_code == 503
        before = status(shaky, 0)["committed_height"]
        body: dict[str, Any] = {}

        async def posted() -> int:
            async with shaky.async_client(keys) as ue:
                await ue.connect()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ue.submit(spin()), 4)
                [(task, fields)] = ue.journal.tasks().items()
                body.update(task="0x" + task.hex(), submission=fields["submission"], stage=fields["stage"])
                return len(body)

        assert asyncio.run(posted())
        assert body["stage"] == "signed", "nobody could accept it"
        why = shaky.get(f"/v1/tasks/{body['task']}/why")
        assert why.status_code == 404 or "not ordered yet" in why.json()["sentence"]
        assert status(shaky, 0)["committed_height"] == before
    finally:
        shaky.run(halve(False))
    until(shaky, lambda: status(shaky, 0)["waiting"] != "NO_QUORUM")
    again = httpx2.post(
        f"{shaky.urls[0]}/v1/tasks",
        content=body["submission"],
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    assert again.status_code == 202, again.text
    assert again.json()["task"]["id"] == body["task"]
    with shaky.client(keys) as ue:
        assert ue.finish(bytes.fromhex(body["task"][2:])).state == "SETTLED"


def test_a_cut_between_two_nodes_is_no_outage(shaky: Embedded, keys: Wallet) -> None:
    async def between(cut: bool) -> None:
        (shaky.cluster.network.cut if cut else shaky.cluster.network.mend)(0, 1)

    shaky.run(between(True))
    try:
        until(shaky, lambda: not status(shaky, 0)["voters"][1]["connected"])
        with shaky.client(keys) as ue:
            ticket = ue.submit(spin(source=0))
            assert ue.deliver(ticket).code is ResultCode.OK
            assert ue.task(ticket.task).id == hexed(ticket)
    finally:
        shaky.run(between(False))
    until(shaky, lambda: all(status(shaky, 0)["voters"][i]["connected"] for i in range(4)))
