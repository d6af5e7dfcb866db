"""The platform in containers: it comes up whole and hardened, pays, survives faults and restarts, and tells nobody."""

import asyncio
import json
import re
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import NamedTuple

import httpx2
import pytest
import wasmtime

from e2e.stack import NODES, ONE_SHOTS, SERVICES, VOLUMES, Stack, disguises, run, told, until, volume_tells
from edgora.adapters.anvil_chain import AnvilChain
from edgora.client import AsyncClient, Order, Ticket, Wallet
from edgora.client.checks import verify_output
from edgora.client.images import photo
from edgora.client.kernels import demo_input, order_for_input, order_for_kernel, order_for_module
from edgora.client.trust import hex0x, unhex
from edgora.wire import rest
from edgora.wire.errors import EdgoraError

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

MONEY = 10**15
ENDS = {"SETTLED", "REFUNDED"}


def small_order(number: int) -> Order:
    """A task of some milliseconds, another one for every number."""
    kernel = ("hashpuzzle", "nftcheck", "sobel")[number % 3]
    return order_for_input(kernel, demo_input(kernel, number))


async def settles(stack: Stack, first: int = 0) -> rest.Task:
    """A new task is computed, right, and paid."""
    order = order_for_kernel("sobel", photo(), {})
    async with stack.client(first) as client:
        ticket = await client.submit(order)
        delivery = await client.deliver(ticket)
        assert verify_output("sobel", order.plaintext, delivery.output)
        task = await client.finish(ticket.task)
    assert task.state == "SETTLED", task.why
    assert int(task.amount) == delivery.cost > 0
    return task


@asynccontextmanager
async def contract(stack: Stack) -> AsyncIterator[AnvilChain]:
    info = await stack.get(0, "/v1/info", rest.Info)
    chain = AnvilChain(stack.chain_url, unhex(info.market_address))
    try:
        yield chain
    finally:
        await chain.close()


# ---- it comes up -----------------------------------------------------------------------------------------------------


async def test_everything_comes_up_healthy(stack: Stack) -> None:
    await stack.all_well()
    height = [await stack.height(i) for i in NODES]
    assert min(height) >= 0


def test_every_container_is_hardened(stack: Stack) -> None:
    published = {}
    for service in (*SERVICES, *ONE_SHOTS, "fleet"):
        found = stack.inspect(service)
        host = found["HostConfig"]
        assert found["Config"]["User"] not in {"", "0", "root"}, service
        if found["Config"]["Image"].startswith("edgora-"):
            assert found["Config"]["User"] == "10001:10001", service
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert not host["CapAdd"], service
        assert not host["Privileged"], service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        assert all(mount["Type"] == "volume" or not mount["RW"] for mount in found["Mounts"]), service
        for port, bindings in (host["PortBindings"] or {}).items():
            for binding in bindings:
                assert binding["HostIp"] == "127.0.0.1", (service, port)
                published[service, port] = int(binding["HostPort"])
    expected = {(f"node{i}", "8000/tcp"): port for i, port in enumerate(stack.ports)}
    assert published == {
        **expected, ("chain", "8545/tcp"): stack.chain_port, ("board", "8080/tcp"): stack.board_port,
    }  # fmt: skip


def test_the_kernel_agrees_that_nobody_is_root(stack: Stack) -> None:
    for service in SERVICES:
        words = stack.compose("exec", "--no-TTY", service, "cat", "/proc/1/status").decode()
        status = dict(line.split(":", 1) for line in words.splitlines())
        assert "0" not in status["Uid"].split(), service
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0, service
        assert status["NoNewPrivs"].strip() == "1", service
        wrote = stack.composed("exec", "--no-TTY", service, "touch", "/etc/x")
        assert wrote.returncode != 0, service


def test_a_node_mounts_its_own_secrets_only(stack: Stack) -> None:
    own = {i: {f"{stack.project}_genesis", f"{stack.project}_node{i}"} for i in NODES}
    own[0].add(f"{stack.project}_deployer")  # the development faucet
    for i in NODES:
        mounts = stack.inspect(f"node{i}")["Mounts"]
        assert {mount["Name"] for mount in mounts if mount["Type"] == "volume"} == own[i]
        assert not any(mount["RW"] for mount in mounts if mount.get("Name") not in {f"{stack.project}_node{i}"})
    for service in ("allocator", "fleet", "redis", "chain", "board"):
        names = {mount.get("Name", "") for mount in stack.inspect(service)["Mounts"]}
        assert not any("node" in name or "deployer" in name for name in names), service
    modes = stack.compose("exec", "--no-TTY", "node1", "stat", "--format", "%a %u", "/node/signer.key", "/node")
    assert modes.decode().split() == ["600", "10001", "700", "10001"]


@pytest.mark.parametrize(
    ("image", "present", "absent"),
    [
        ("edgora-node", ["fastapi", "wasmtime", "web3"], ["numpy", "scipy", "highspy", "cvxpy", "eth_tester", "eth"]),
        ("edgora-fleet", ["numpy", "wasmtime"], ["scipy", "highspy", "cvxpy", "eth_tester", "eth", "web3", "fastapi"]),
        ("edgora-allocator", ["scipy", "highspy", "cvxpy"], ["eth_tester", "eth"]),
    ],
)
def test_an_image_holds_what_it_needs(stack: Stack, image: str, present: list[str], absent: list[str]) -> None:
    program = "import importlib.util as u, json, sys; print(json.dumps([bool(u.find_spec(m)) for m in sys.argv[1:]]))"
    command = ("docker", "run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", program)
    found = json.loads(run(*command, *present, *absent).stdout)
    assert found == [True] * len(present) + [False] * len(absent)


async def test_a_photo_is_computed_and_paid(stack: Stack) -> None:
    await settles(stack)


async def test_the_board_names_the_nodes_as_this_host_reaches_them_and_they_answer_its_page(stack: Stack) -> None:
    origin = f"http://127.0.0.1:{stack.board_port}"
    async with httpx2.AsyncClient(timeout=10) as browser:

        async def learned() -> bool:
            told = (await browser.get(f"{origin}/board.json")).json()
            return [node["url"] for node in told["nodes"]] == stack.urls

        await until("the board has learned the nodes' public URLs", learned)
        page = await browser.get(origin)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert " ".join(("connect-src 'self'", *stack.urls)) in page.headers["content-security-policy"]
        shipped = re.findall(r'(?:src|href)="(static/[^"]+)"', page.text)
        assert len(shipped) > 2, "the wheel in the image carries the page's files"
        for path in shipped:
            assert (await browser.get(f"{origin}/{path}")).status_code == 200, path
        for url in stack.urls:
            answer = await browser.get(f"{url}/v1/info", headers={"Origin": origin})
            assert answer.headers["access-control-allow-origin"] == origin
            other = await browser.get(f"{url}/v1/info", headers={"Origin": "http://127.0.0.1:1"})
            assert "access-control-allow-origin" not in other.headers


async def _fleet_done(stack: Stack) -> None:
    async def ended() -> bool:
        state = await asyncio.to_thread(stack.states)
        return state["fleet"]["State"] == "exited"

    await until("the fleet is done", ended, within_s=400)


async def test_the_fleet_ends_its_tasks(stack: Stack) -> None:
    await _fleet_done(stack)
    words = stack.compose("logs", "--no-color", "fleet").decode()
    assert stack.states()["fleet"]["ExitCode"] == 0, words
    assert "40 of 40 tasks ended settled or refunded" in words


def test_doctor_finds_the_stack_in_order_and_its_ports_taken(stack: Stack, tmp_path) -> None:
    nodes = [word for url in stack.urls for word in ("--node", url)]
    ports = ["--port", str(stack.ports[0])]
    options = ["--rpc", stack.chain_url, "--slots", "0", "--folder", str(tmp_path), "--json"]
    command = [sys.executable, "-c", "from edgora.cli import main; main()", "doctor", *nodes, *ports, *options]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    document = json.loads(done.stdout)
    findings = {finding["name"]: finding for finding in document["findings"]}
    assert done.returncode == 0, findings
    assert document["ok"]
    taken = findings[f"port {stack.ports[0]}"]
    assert taken["verdict"] == "warn"
    assert "taken" in taken["sentence"]
    assert taken["fix"]
    assert findings["chain"]["verdict"] == findings["engine"]["verdict"] == "ok"
    for url in stack.urls:
        assert findings[f"clock {url}"]["verdict"] == "ok"
        assert findings[f"consensus {url}"]["verdict"] == "ok"


# ---- it tells nobody -------------------------------------------------------------------------------------------------

ECHO = wasmtime.wat2wasm("""
(module
  (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (i32.const 16))
  (func (export "run") (param $at i32) (param $len i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32)) (i64.extend_i32_u (local.get $len)))))
""")
"""Its result is its input."""


async def test_what_a_task_is_about_is_found_nowhere(stack: Stack) -> None:
    marker = b"marker-" + secrets.token_hex(12).encode()
    order = order_for_module(bytes(ECHO), 40 * marker, {}, fuel_limit=1_000_000, output_octets=65_536, memory_pages=4)
    async with stack.client() as client:
        ticket = await client.submit(order)
        delivery = await client.deliver(ticket)
        assert 40 * marker in delivery.output
        assert (await client.finish(ticket.task)).state == "SETTLED"
    control = b"marker-" + secrets.token_hex(12).encode()

    for volume in VOLUMES:
        assert volume_tells(f"{stack.project}_{volume}", marker) == []
    assert not told(stack.compose("logs", "--no-color"), marker)

    # Redis keeps nothing on disk; what is in its streams now is all there is.
    await _plant(stack, control)
    dump = await asyncio.to_thread(_streams, stack)
    assert b"edgora" in dump
    assert not told(dump, marker)
    assert told(dump, control)

    # The searches would have found it: the same ones find what is planted.
    scratch = f"{stack.project}_control"
    run("docker", "volume", "create", scratch)
    try:
        forms = [form.decode() for form in disguises(control)]
        program = (
            "import sys; [open(f'/v/{i}', 'wb').write(bytes(5000) + w.encode()) for i, w in enumerate(sys.argv[1:])]"
        )
        plant = f"docker run --rm --user 0 --volume {scratch}:/v --entrypoint python edgora-node -c".split()
        run(*plant, program, *forms)
        assert sorted(volume_tells(scratch, control)) == [f"/v/{i}" for i in range(len(forms))]
    finally:
        run("docker", "volume", "rm", scratch)
    said = stack.compose("run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "echo", "deployer", control.hex())
    assert told(said, control)


async def _plant(stack: Stack, control: bytes) -> None:
    stack.compose("exec", "--no-TTY", "redis", "redis-cli", "XADD", "edgora:control", "*", "d", control.decode())


def _streams(stack: Stack) -> bytes:
    """Every entry of every stream."""
    keys = stack.compose("exec", "--no-TTY", "redis", "redis-cli", "--scan").split()
    assert keys
    dump = b""
    for key in keys:
        kind = stack.compose("exec", "--no-TTY", "redis", "redis-cli", "TYPE", key.decode()).strip()
        assert kind == b"stream", (key, kind)
        dump += key + stack.compose("exec", "--no-TTY", "redis", "redis-cli", "XRANGE", key.decode(), "-", "+")
    stack.compose("exec", "--no-TTY", "redis", "redis-cli", "DEL", "edgora:control")
    return dump


# ---- it survives faults ----------------------------------------------------------------------------------------------


class Load(NamedTuple):
    """Orders of several UEs, and what became of them."""

    clients: list[AsyncClient]
    tickets: list[Ticket]
    ends: list["asyncio.Task[rest.Task]"]

    async def order(self, number: int) -> None:
        """Submit until it is acknowledged; then it is owed an end. What nobody acknowledged is sent anew."""
        client = self.clients[number % len(self.clients)]
        end = time.monotonic() + 240
        while True:
            try:
                ticket = await client.submit(replace(small_order(number), patience_ms=90_000))
                break
            except EdgoraError:
                if time.monotonic() > end:
                    raise
                client.session.nodes.append(client.session.nodes.pop(0))  # another node is the nearby one now
                await asyncio.sleep(0.5)
        self.tickets.append(ticket)
        self.ends.append(asyncio.create_task(client.finish(ticket.task)))


@asynccontextmanager
async def killed(stack: Stack, node: int) -> AsyncIterator[None]:
    container = stack.container(f"node{node}")
    run("docker", "kill", "--signal", "KILL", container)
    try:
        yield
    finally:
        run("docker", "start", container)


@asynccontextmanager
async def paused(stack: Stack, node: int) -> AsyncIterator[None]:
    container = stack.container(f"node{node}")

    async def frozen() -> bool:  # a kernel may refuse to freeze a process that is just being made
        return run("docker", "pause", container, check=False).returncode == 0

    await until(f"node {node} stands still", frozen, within_s=20)
    began = time.monotonic()
    try:
        yield
        await asyncio.sleep(max(0.0, 10 - (time.monotonic() - began)))  # how long the fault is, not a wait
    finally:
        run("docker", "unpause", container)


@asynccontextmanager
async def disconnected(stack: Stack, node: int) -> AsyncIterator[None]:
    container, network = stack.container(f"node{node}"), f"{stack.project}_default"
    run("docker", "network", "disconnect", network, container)
    try:
        yield
    finally:
        run("docker", "network", "connect", "--alias", f"node{node}", network, container)


async def test_faults_one_at_a_time_lose_no_acknowledged_task(stack: Stack) -> None:
    """50 tasks; a node is killed, another stands still for 10 s, the primary loses the network; then the sums."""
    async with AsyncExitStack() as closing, contract(stack) as chain:
        wallets = await asyncio.gather(*(asyncio.to_thread(Wallet.generate) for _ in range(10)))
        clients = [await closing.enter_async_context(stack.client(i % 4, w)) for i, w in enumerate(wallets)]
        await stack.quorum()
        await _fleet_done(stack)  # what servers earn below is of these wallets alone
        before = await chain.balance(chain.market)
        earned = sum([(await chain.earned(i)).balance for i in NODES])
        for client in clients:
            await client.fund(MONEY)

        load = Load(clients, [], [])
        await asyncio.gather(*map(load.order, range(5)))
        await _through(stack, load, killed, range(5, 20), lambda primary: (primary + 1) % 4)
        await _through(stack, load, paused, range(20, 35), lambda primary: (primary + 2) % 4)
        await _through(stack, load, disconnected, range(35, 50), lambda primary: primary)

        assert len(load.tickets) == 50
        ended = await asyncio.gather(*load.ends)
        assert {task.state for task in ended} <= ENDS, [(task.id, task.state, task.why) for task in ended]
        assert sum(task.state == "SETTLED" for task in ended) >= 25  # faults delay; they do not end the market

        # Four ledgers, one history, one state of every task.
        for node in NODES:
            await stack.caught_up(node)
        await stack.ledgers_agree()
        for task in ended:
            told_by = [await stack.get(i, f"/v1/tasks/{task.id}", rest.Task) for i in NODES]
            assert {(t.state, t.amount, t.executor) for t in told_by} == {(task.state, task.amount, task.executor)}

        # The money: each UE paid for what settled and for nothing else, servers got just that, nothing is left over.
        paid = 0
        for wallet in wallets:
            due = sum(int(t.amount) for t in ended if t.offer.ue == hex0x(wallet.address) and t.state == "SETTLED")
            assert (await chain.account(wallet.address)).balance == MONEY - due
            for node in NODES:
                account = await stack.get(node, f"/v1/accounts/{hex0x(wallet.address)}", rest.Account)
                assert (int(account.balance), int(account.reserved)) == (MONEY - due, 0)
            paid += due
        assert sum([(await chain.earned(i)).balance for i in NODES]) - earned == paid > 0
        assert await chain.balance(chain.market) - before == MONEY * len(wallets)


async def _through(
    stack: Stack, load: Load, fault: Callable[[Stack, int], object], numbers: range, pick: Callable[[int], int]
) -> None:
    """Order under a fault; it ends when most orders are acknowledged, and the node must come back before the next."""
    node = pick(await stack.primary())
    async with fault(stack, node):  # type: ignore[attr-defined]
        orders = [asyncio.create_task(load.order(number)) for number in numbers]
        acknowledged = len(load.tickets) + 2 * len(numbers) // 3
        await until(f"{acknowledged} orders acknowledged without node {node}", _reached(load, acknowledged))
    await asyncio.gather(*orders)
    await stack.caught_up(node)
    await stack.quorum()


def _reached(load: Load, count: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return len(load.tickets) >= count

    return look


# ---- it is backed up and restored ------------------------------------------------------------------------------------


async def test_a_stopped_node_moves_and_votes_again(stack: Stack, tmp_path) -> None:
    in_node1 = ["run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "edgora", "node1", "node"]
    export = (*in_node1, "export", "--home", "/node", "-")
    restore = (*in_node1, "import", "--home", "/node", "-")
    running = stack.composed(*export)
    assert running.returncode == 2
    assert b"in use" in running.stderr
    assert running.stdout == b""

    height = await stack.height(1)
    stack.compose("stop", "node1")
    archive = stack.compose(*export)
    stack.compose("rm", "--force", "node1", "genesis")  # the one-shot that drew the keys holds on to the volume
    run("docker", "volume", "rm", f"{stack.project}_node1")

    broken = bytearray(archive)
    broken[len(broken) // 2] ^= 1
    assert stack.composed(*restore, "--votes", data=bytes(broken)).returncode == 2
    assert b"the node votes" in stack.compose(*restore, "--votes", data=archive)
    assert stack.composed(*restore, "--votes", data=archive).returncode == 2  # not over what is there

    # With another node stopped a quorum needs the restored one.
    stack.compose("up", "--detach", "--no-recreate", "node1")
    await stack.caught_up(1)
    assert await stack.height(1) >= height
    stack.compose("stop", "node3")
    try:
        task = await settles(stack, first=2)
    finally:
        stack.compose("start", "node3")
    await stack.caught_up(3)
    assert (await stack.get(1, f"/v1/tasks/{task.id}", rest.Task)).state == "SETTLED"
    await stack.ledgers_agree()


# ---- it survives restarts --------------------------------------------------------------------------------------------


class Remembered(NamedTuple):
    headers: list[dict[int, str]]
    task: rest.Task
    account: rest.Account
    code: bytes | None
    block: int
    genesis_id: str


async def remember(stack: Stack) -> Remembered:
    task = await settles(stack, first=3)
    account = await stack.get(0, f"/v1/accounts/{task.offer.ue}", rest.Account)
    async with contract(stack) as chain:
        code = await chain.code_hash(chain.market)
        block = await chain.latest()
    info = await stack.get(0, "/v1/info", rest.Info)
    return Remembered(await stack.ledgers_agree(), task, account, code, block.number, info.genesis_id)


async def nothing_is_lost(stack: Stack, known: Remembered) -> None:
    await stack.all_well()
    for node in NODES:
        await stack.caught_up(node)
        assert await stack.headers(node, max(known.headers[node])) == known.headers[node]
        task = await stack.get(node, f"/v1/tasks/{known.task.id}", rest.Task)
        assert replace(task, height=0) == replace(known.task, height=0)
        account = await stack.get(node, f"/v1/accounts/{known.task.offer.ue}", rest.Account)
        assert (account.balance, account.spent) == (known.account.balance, known.account.spent)
        assert account.lanes == known.account.lanes
        assert (await stack.get(node, "/v1/info", rest.Info)).genesis_id == known.genesis_id
    async with contract(stack) as chain:
        assert await chain.code_hash(chain.market) == known.code is not None
        assert (await chain.latest()).number >= known.block - 1  # the state on the volume is at most a second old
    new = await settles(stack, first=1)
    assert new.batch is not None
    assert known.task.batch is not None
    assert new.batch > known.task.batch
    assert max((await stack.ledgers_agree())[0]) > max(known.headers[0])


async def test_a_restart_of_everything_loses_nothing(stack: Stack) -> None:
    """All at once and in no order, one-shots too."""
    known = await remember(stack)
    await asyncio.to_thread(stack.compose, "restart", timeout_s=300)
    await nothing_is_lost(stack, known)


async def test_down_and_up_again_loses_nothing(stack: Stack) -> None:
    """New containers and a new network over the old volumes."""
    known = await remember(stack)
    await asyncio.to_thread(stack.compose, "down", timeout_s=300)
    assert stack.states() == {}
    await asyncio.to_thread(stack.compose, "up", "--detach", timeout_s=600)
    await nothing_is_lost(stack, known)


def test_another_scenario_over_the_same_volumes_is_refused(stack: Stack) -> None:
    """Keys and genesis are never overwritten, and the sentence says what to do."""
    settings = stack.env
    stack.env = {**settings, "EDGORA_NODE0_PORT": str(stack.ports[1])}
    try:
        done = stack.composed("run", "--rm", "--no-deps", "--no-TTY", "genesis")
    finally:
        stack.env = settings
    assert done.returncode == 2
    assert b"another scenario" in done.stderr
    kept = json.loads(stack.compose("exec", "--no-TTY", "node0", "cat", "/node/endpoint.json"))
    assert kept["public_url"] == stack.urls[0]
