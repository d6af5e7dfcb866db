"""Faults on purpose: with one of four nodes faulty, a paying user's task settles, and no two ledgers differ.

Everything is asked for as the page asks for it, over the board's routes; what follows is read from the nodes' REST.
"""

import asyncio
import contextlib
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from edgora.cli import app
from edgora.client import Wallet
from edgora.lab.cluster import Cluster
from edgora.lab.faults import Gate
from edgora.lab.scenario import load
from edgora.ports.faults import Act, FaultOrder
from edgora.wire.market import ResultCode
from embedded import ECHO, Embedded, own_module, spin

WAIT_S = 60.0
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
HEADER = {"X-Edgora-Board": "1"}


@pytest.fixture(scope="module")
def breakable() -> Iterator[Embedded]:
    with Embedded(
        "faults.allowed=true", "market.audit_bps=10000", "market.proposal_ms=1500", "market.audit_max_ms=30000", board=0
    ) as running:
        yield running


@pytest.fixture(scope="module")
def keys(breakable: Embedded) -> Wallet:
    return breakable.funded(10**17)


@pytest.fixture(autouse=True)
def healed(breakable: Embedded) -> Iterator[None]:
    """Leaves every node as it was, and all ledgers equal."""
    yield
    for node in range(4):
        act(breakable, node, "heal")
    newest = max(status(breakable, node)["committed_height"] for node in range(4))
    for node in range(4):
        until(lambda node=node: status(breakable, node)["follower_height"] >= newest)
    hashes = {breakable.get(f"/v1/blocks/{newest}", node).json()["header"]["hash"] for node in range(4)}
    assert len(hashes) == 1
    until(lambda: all(server["live"] for server in breakable.get("/v1/servers").json()["items"]))


def act(platform: Embedded, node: int, what: str, lie: str | None = None) -> dict[str, Any]:
    order = {"node": node, "act": what, **({} if lie is None else {"lie": lie})}
    reply = httpx2.post(f"{platform.cluster.board_url}/faults", json=order, headers=HEADER, timeout=60)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def shown(platform: Embedded) -> dict[int, tuple[str, str | None]]:
    nodes = httpx2.get(f"{platform.cluster.board_url}/faults", timeout=10).json()["nodes"]
    return {node["index"]: (node["state"], node["lie"]) for node in nodes}


def status(platform: Embedded, node: int) -> dict[str, Any]:
    found: dict[str, Any] = platform.get("/v1/status", node).json()
    return found


def until(holds: Callable[[], Any]) -> Any:
    """Ask until the answer is true: other nodes' views change when they change."""
    end = time.monotonic() + WAIT_S
    while not (found := holds()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)  # REST has no event for most of what is asked here
    return found


def pays(platform: Embedded, keys: Wallet, nodes: list[int], source: int = 0) -> dict[str, Any]:
    """A task of a paying user goes its whole way over these nodes; what they say of it in the end."""
    with platform.client(keys, nodes=[platform.urls[i] for i in nodes]) as ue:
        ticket = ue.submit(spin(source=source, auditable=False))
        assert ue.deliver(ticket).code is ResultCode.OK
        assert ue.finish(ticket.task).state == "SETTLED"
    found: dict[str, Any] = platform.get(f"/v1/tasks/0x{ticket.task.hex()}", nodes[0]).json()
    return found


def test_a_killed_node_is_an_outage_for_nobody(breakable: Embedded, keys: Wallet) -> None:
    assert set(shown(breakable).values()) == {("up", None)}
    found = act(breakable, 2, "kill")
    assert (found["index"], found["state"], found["lie"]) == (2, "killed", None)
    assert act(breakable, 2, "kill") == found, "twice does no harm"
    with pytest.raises(httpx2.TransportError):
        breakable.get("/healthz", 2)
    assert pays(breakable, keys, [0, 1, 3])["executor"] != 2
    until(lambda: "silent: 2" in status(breakable, 0)["sentence"])
    act(breakable, 2, "heal")
    assert shown(breakable)[2] == ("up", None)
    until(lambda: breakable.get("/readyz", 2).status_code == 200)


def test_a_killed_node_leaves_no_connection_behind_that_came_at_its_end(breakable: Embedded) -> None:
    """A keep-alive connection accepted in the last moment would have the dead node answer for as long as it is used."""
    port = int(breakable.urls[2].rpartition(":")[2])

    async def killed_while_they_come() -> list[socket.socket]:
        assert breakable.cluster.faults is not None
        killing = asyncio.ensure_future(breakable.cluster.faults.act(FaultOrder(node=2, act=Act.KILL)))
        await asyncio.sleep(0)  # the kill has begun
        # The loop stands still until the web server is due to look whether it shall end: it accepts and ends at once.
        came = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(5)]
        time.sleep(0.2)
        await killing
        return came

    opened = breakable.run(killed_while_they_come())
    assert shown(breakable)[2] == ("killed", None)
    for connection in opened:
        with connection:
            answer = b""
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")
                answer = connection.recv(1)
            assert answer == b""


@pytest.mark.slow
def test_a_paused_node_answers_nobody_and_goes_on_where_it_was(breakable: Embedded, keys: Wallet) -> None:
    act(breakable, 1, "pause")
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.get(breakable.urls[1] + "/healthz", timeout=0.3)
    pays(breakable, keys, [0, 2, 3])
    until(lambda: "silent: 1" in status(breakable, 0)["sentence"])
    assert "1" in httpx2.post(
        f"{breakable.cluster.board_url}/faults", json={"node": 1, "act": "cut"}, headers=HEADER, timeout=10
    ).json()["detail"], "what stands still cannot be cut off, too"  # fmt: skip
    act(breakable, 1, "heal")
    assert breakable.get("/healthz", 1).status_code == 200


@pytest.mark.slow
def test_cut_off_nodes_say_so_and_with_two_gone_everybody_does(breakable: Embedded, keys: Wallet) -> None:
    act(breakable, 2, "cut")
    until(lambda: status(breakable, 2)["waiting"] == "NO_QUORUM")
    assert "1 of 4 validators are connected, 3 are needed" in status(breakable, 2)["sentence"]
    pays(breakable, keys, [0, 1, 3])
    act(breakable, 1, "cut")
    for node in range(4):
        until(lambda node=node: status(breakable, node)["waiting"] == "NO_QUORUM")
    assert "2 of 4 validators are connected, 3 are needed" in status(breakable, 0)["sentence"]
    before = status(breakable, 0)["committed_height"]
    act(breakable, 1, "heal")  # and not the way between 1 and 2, which is still cut off
    pays(breakable, keys, [0, 1, 3])
    assert status(breakable, 0)["committed_height"] > before
    assert not status(breakable, 1)["voters"][2]["connected"]


def test_an_equivocating_primary_loses_its_turn_and_forks_nothing(breakable: Embedded, keys: Wallet) -> None:
    before = status(breakable, 0)
    liar = before["primary"]
    assert act(breakable, liar, "lie", "equivocate")["lie"] == "equivocate"
    others = [node for node in range(4) if node != liar]
    pays(breakable, keys, others, source=others[0])
    after = status(breakable, others[0])
    assert after["view"] > before["view"]
    assert after["primary"] != liar
    first, last = before["committed_height"], min(status(breakable, node)["committed_height"] for node in range(4))
    path = f"/v1/headers?from={max(first, last - 200)}&to={last}"
    histories = {tuple(h["hash"] for h in breakable.get(path, node).json()["items"]) for node in range(4)}
    assert len(histories) == 1, "one history, whoever tells it"
    assert len(histories.pop()) > 1


def test_a_false_allocation_is_refused_with_its_reason(breakable: Embedded, keys: Wallet) -> None:
    act(breakable, 1, "lie", "false_allocation")
    task = pays(breakable, keys, [0, 2, 3])
    told = breakable.get(f"/v1/allocations/{task['round']}").json()
    lies = {p["policy"]: p for p in told["proposals"] if p["policy"].startswith("false-")}
    assert set(lies) == {"false-value", "false-pairs"}
    assert all(p["validator"] == 1 and not p["accepted"] for p in lies.values())
    assert lies["false-value"]["reason"]["code"] == "VALUE_WRONG"
    assert lies["false-pairs"]["reason"]["code"] in {"PAIR_NOT_OK", "ROOM_EXCEEDED", "SERVER_NOT_IN_ROUND"}
    assert all(p["reason"]["sentence"] for p in lies.values())
    assert told["winner"] not in lies
    assert int(told["value"]) >= int(told["greedy_value"])


def test_a_false_result_is_caught_by_audit_and_costs_the_user_nothing(breakable: Embedded, keys: Wallet) -> None:
    # A fuel limit that gives the auditors half a minute: what they say counts here, not how fast.
    echo = replace(own_module(ECHO, b"what the user sent", fuel_limit=300_000_000), source=0)
    liar = 3  # the cheapest, so it gets the task
    act(breakable, liar, "lie", "false_result")
    with breakable.client(keys) as ue:
        before = int(breakable.get(f"/v1/accounts/0x{keys.address.hex()}").json()["balance"])
        ticket = ue.submit(echo)
        ended = ue.finish(ticket.task)
        assert (ended.executor, ended.state) == (liar, "REFUNDED")
        assert ended.reason is not None
        assert ended.reason.code == "LOST_DISPUTE"
        account = breakable.get(f"/v1/accounts/0x{keys.address.hex()}").json()
        assert (int(account["balance"]), int(account["reserved"])) == (before, 0)
        act(breakable, liar, "heal")
        until(lambda: breakable.get(f"/v1/servers/{liar}").json()["live"])
        answer = ue.deliver(again := ue.submit(echo))
        assert answer.output.endswith(b"what the user sent")
        assert ue.finish(again.task).state == "SETTLED"


def test_the_commands_of_the_page(breakable: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/faults.md, as it stands: only addresses are this platform's."""
    monkeypatch.setattr("edgora.cli.output.console.width", 400)
    block = PAGE.read_text().partition("<!-- executed by tests/integration/test_faults.py -->\n```sh\n")[2]
    lines = [shlex.split(line, comments=True) for line in block.partition("```")[0].splitlines()]
    said: list[str] = []
    for program, *words in lines:
        assert program == "edgora"
        where = ["--board", str(breakable.cluster.board_url)]
        if words == ["status"]:
            where = [part for node in (0, 3) for part in ("--node", breakable.urls[node])]
            wanted = ("3 are needed", "silent: 1, 2") if "paused" in said[-1] else ("silent: 2",)
            until(lambda wanted=wanted: all(words in status(breakable, 0)["sentence"] for words in wanted))
        done = CliRunner().invoke(app, [*words, *where])
        assert done.exit_code == 0, done.output
        said.append(done.output)
    shown = [" ".join(line.split()) for line in "".join(said).splitlines()]
    assert sum("│ up │ none" in line for line in shown) == 4 + 3, "four at first, three were healed"
    assert any("3 are needed" in line and "silent: 1, 2" in line for line in shown)
    assert any("3 │ up │ false_result" in line for line in shown)


async def test_a_platform_with_a_paused_node_can_be_stopped() -> None:
    """A request that the node holds back does not hold the whole platform."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    cluster = Cluster(load(None, ["faults.allowed=true"]))
    assert cluster.faults is not None
    gate, said = cluster.faults.gate(0, app), asyncio.Event()

    async def heard(_: Any) -> None:
        said.set()

    assert isinstance(gate, Gate)
    gate.hold()
    waiting = asyncio.ensure_future(gate({}, heard, heard))
    await asyncio.sleep(0)
    assert not said.is_set()
    await cluster.stop()
    await asyncio.wait_for(waiting, 5)
    assert said.is_set()


def test_without_the_scenarios_word_there_is_nothing_to_ask(platform: Embedded) -> None:
    assert platform.cluster.faults is None
    code = "import sys, edgora.node.app; print('edgora.node.lies' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
