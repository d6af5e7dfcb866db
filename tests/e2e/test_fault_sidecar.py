"""The profile `faults` in containers: the board breaks and heals a node through the sidecar, and nothing else can."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from e2e.stack import ROOT, Stack, run, until
from edgora.client import Ticket
from edgora.client.kernels import order_for_kernel
from edgora.wire import rest
from edgora.wire.errors import Unavailable

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

HEADER = {"X-Edgora-Board": "1"}


class BrokenStack(Stack):
    """The platform as deploy/faults.env starts it."""

    def __init__(self) -> None:
        super().__init__()
        lines = (ROOT / "deploy" / "faults.env").read_text().splitlines()
        self.env |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        self.board = f"http://127.0.0.1:{self.board_port}"

    def faults(self) -> dict[int, tuple[str, str | None]]:
        reply = httpx2.get(f"{self.board}/faults", timeout=30)
        assert reply.status_code == 200, reply.text
        return {node["index"]: (node["state"], node["lie"]) for node in reply.json()["nodes"]}

    def act(self, node: int, what: str, **more: str) -> httpx2.Response:
        order = {"node": node, "act": what, **more}
        return httpx2.post(f"{self.board}/faults", json=order, headers=HEADER, timeout=60)


@pytest.fixture(scope="module")
def broken(engine: None, request: pytest.FixtureRequest) -> Iterator[BrokenStack]:
    stack = BrokenStack()
    good = False
    try:
        stack.compose("build", "genesis", timeout_s=900)
        parts = (
            "node0",
            "node1",
            "node2",
            "node3",
            "board",
            "faults",
        )  # no allocator, no fleet: greedy places a task, too
        stack.compose("up", "--detach", *parts, timeout_s=600)
        good = True
        yield stack
    finally:
        if not good or request.session.testsfailed:
            print(f"\nlogs of the stack: {stack.save_logs()}")
        stack.down()


async def test_the_board_breaks_and_heals_nodes(broken: BrokenStack) -> None:
    await broken.quorum(within_s=300)

    async def panel() -> bool:
        try:
            return broken.faults() == dict.fromkeys(range(4), ("up", None))
        except (httpx2.HTTPError, AssertionError):
            return False

    await until("the panel shows four nodes", panel)
    primary = await broken.primary()
    victim = next(node for node in (1, 2, 3) if node != primary)
    assert broken.act(victim, "kill").json()["state"] == "killed"
    assert broken.faults()[victim] == ("killed", None)
    assert broken.inspect(f"node{victim}")["State"]["Status"] == "exited"

    async def silent() -> bool:
        found = await broken.get(0, "/v1/status", rest.Status)
        return f"silent: {victim}" in found.sentence

    await until("status names the killed node", silent)
    async with broken.client() as ue:
        ue.session.nodes = [url for url in ue.session.nodes if url != broken.urls[victim]]

        async def taken() -> Ticket | None:
            try:
                return await ue.submit(order_for_kernel("spin", b"", {"rounds": 20_000}))
            except Unavailable:  # a platform that has just come up has no advert on its ledger yet
                return None

        ticket = await until("a server takes a task", taken)
        assert ticket is not None
        assert (await ue.finish(ticket.task)).state == "SETTLED"

    assert broken.act(victim, "cut").status_code == 409
    assert broken.act(victim, "heal").json()["state"] == "up"
    await broken.caught_up(victim)

    assert broken.act(victim, "cut").json()["state"] == "cut"
    assert f"{broken.project}_default" not in broken.inspect(f"node{victim}")["NetworkSettings"]["Networks"]
    assert broken.act(victim, "heal").json()["state"] == "up"

    async def stands_still() -> bool:  # a kernel may refuse to freeze a process that is just being made
        reply = broken.act(victim, "pause")
        assert reply.status_code == 200 or "refuses" in reply.text, reply.text
        return reply.status_code == 200 and reply.json()["state"] == "paused"

    await until("the node is paused", stands_still, within_s=20)
    assert broken.act(victim, "heal").json()["state"] == "up"
    assert broken.act(victim, "lie", lie="equivocate").json()["lie"] == "equivocate"
    kept = broken.compose("exec", "--no-TTY", f"node{victim}", "cat", "/node/lie")
    assert kept.strip() == b"equivocate"
    assert broken.act(victim, "heal").json()["lie"] is None
    await broken.caught_up(victim)
    await broken.ledgers_agree()


def test_the_sidecar_is_out_of_everybodys_reach(broken: BrokenStack) -> None:
    found = broken.inspect("faults")
    assert not any(found["NetworkSettings"]["Ports"].values())
    assert list(found["NetworkSettings"]["Networks"]) == [f"{broken.project}_faults"]
    host: dict[str, Any] = found["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["Privileged"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    with_socket = [
        item["Service"]
        for item in broken.states().values()
        if any(mount["Destination"] == "/var/run/docker.sock" for mount in broken.inspect(item["Service"])["Mounts"])
    ]
    assert with_socket == ["faults"]
    (network,) = json.loads(run("docker", "network", "inspect", f"{broken.project}_faults").stdout)
    assert network["Internal"]
    members = {broken.container("board"), broken.container("faults")}
    assert set(network["Containers"]) == members

    reach = "import socket; socket.create_connection(('faults', 8090), 3)"
    for service, reaches in (("board", True), ("node0", False)):
        done = broken.composed("exec", "--no-TTY", service, "python", "-I", "-c", reach)
        assert (done.returncode == 0) is reaches, done.stderr
