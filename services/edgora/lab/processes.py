"""`edgora up`: the platform as processes on 127.0.0.1, from one scenario and one folder that survives restarts.

anvil keeps its state in the folder, nodes their logs; Redis is started where it is found, on a free port, without
persistence. The board runs beside them. Without Redis no allocator runs and the built-in greedy wins every round: the board and /v1/allocations
say so.
"""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
from rich.console import Console

from edgora.adapters.anvil_chain import AnvilChain, start_anvil
from edgora.adapters.chain_deploy import write_deployment
from edgora.adapters.loopback import free_port
from edgora.board.settings import board_origins
from edgora.lab import chain as chains
from edgora.lab.ground import Endpoint, Ground, lay_out, read_ground
from edgora.lab.scenario import Scenario, load
from edgora.lab.supervise import Child, NodePlan, allocator_children, node_children, run_children
from edgora.wire.errors import Refused, Unavailable

__all__ = ["node_plans", "prepare_chain", "run_platform", "start_redis"]


def _must_be_free(port: int) -> None:
    """Raises Refused if somebody has the board's port: found before anything is started."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Refused(
                f"127.0.0.1:{port} cannot be listened on: {error.strerror}", field="ports.board",
                fix="stop what uses it, or lay out a new folder with --set ports.board=0 for a free port",
            ) from None  # fmt: skip


def start_redis(stack: ExitStack) -> str | None:
    """Redis on a free port for the life of the stack; None where it is not installed."""
    binary = shutil.which("redis-server")
    if binary is None:
        return None
    port = free_port()
    process = subprocess.Popen(
        [
            binary,
            "--bind",
            "127.0.0.1",
            "--port",
            str(port),
            "--save",
            "",
            "--appendonly",
            "no",
            "--protected-mode",
            "yes",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    stack.callback(_stop, process)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.02)
        else:
            return f"redis://127.0.0.1:{port}/0"
    raise Unavailable(f"{binary} did not come up on 127.0.0.1:{port}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def prepare_chain(url: str, ground: Ground, folder: Path) -> None:
    """Fund, deploy and write the deployment file; idempotent."""
    remote = AnvilChain(url, ground.genesis.market_address)
    try:
        await chains.fund(remote, chains.accounts(ground.genesis))
        deployment = await chains.deploy(remote, ground.deployer, ground.genesis)
    finally:
        await remote.close()
    if not (folder / "deployment.json").exists():
        write_deployment(folder / "deployment.json", deployment)


def node_plans(
    ground: Ground, folder: Path, links: Sequence[int], rpc: str, redis_url: str, origins: Sequence[str] = ()
) -> list[NodePlan]:
    """A plan a node: REST where its certified key document says, links on 127.0.0.1. origins: of pages that may read it.

    Only node 0 is a faucet: two processes that send from one chain account would draw equal nonces.
    """
    hosts = [f"127.0.0.1:{port}" for port in links]
    readers = {"EDGORA_CORS_ORIGINS": msgspec.json.encode(origins).decode()}
    return [
        NodePlan(
            home=folder / f"node{i}", genesis=folder, index=i, links=hosts, link_bind=hosts[i],
            listen=endpoint.public_url.removeprefix("http://"), chain_rpc=rpc, redis_url=redis_url,
            faucet_key=folder / "deployer" / "deployer.key" if i == 0 else None, environment={**ground.scenario.server(i).environment(), **readers},
            faults=ground.scenario.faults.allowed,
        )
        for i, endpoint in enumerate(ground.endpoints)
    ]  # fmt: skip


def lay_out_local(scenario: Scenario, folder: Path) -> Ground:
    """Keys and genesis for processes on this machine; ports of the scenario, 0 for free ones.

    Free ones are chosen once: they are part of the certified key documents, so a folder keeps its own.
    """
    count, first = scenario.consortium.nodes, scenario.ports.api
    if not first and (folder / "genesis.bin").exists():
        endpoints = list(read_ground(folder).endpoints)
    else:
        ports = [first + i * scenario.ports.api_step if first else free_port() for i in range(count)]
        endpoints = [Endpoint(url, url) for url in (f"http://127.0.0.1:{port}" for port in ports)]
    return lay_out(scenario, endpoints, folder, time.time_ns() // 1_000_000)


def run_platform(folder: Path, scenario_file: Path | None, settings: Sequence[str], progress: Console) -> int:
    """Run until Ctrl-C; the status of the first child that ended by itself otherwise."""
    ground = lay_out_local(load(scenario_file, settings), folder)
    scenario = ground.scenario
    board = scenario.ports.board or free_port()
    _must_be_free(board)
    with ExitStack() as stack:
        anvil = start_anvil(
            port=scenario.ports.chain or 8545, block_time_s=2, state=folder / "anvil.json",
            arguments=("--chain-id", str(ground.genesis.chain_id)),
        )  # fmt: skip
        stack.callback(anvil.stop)
        redis_url = start_redis(stack)
        asyncio.run(prepare_chain(anvil.url, ground, folder))
        links = [scenario.ports.links + i if scenario.ports.links else free_port() for i in range(len(ground.nodes))]
        origins = board_origins("127.0.0.1", board)
        plans = node_plans(ground, folder, links, anvil.url, redis_url or "", origins)
        children = [c for plan in plans for c in node_children(plan)]
        if redis_url is not None:
            ports = [free_port() for _ in ground.nodes]
            children += allocator_children(scenario, redis_url, ports, jobs=folder / "jobs")
            progress.print(f"allocator: http://127.0.0.1:{ports[0]} (edgora fleet --allocator)", highlight=False)
        else:
            progress.print(
                "no redis-server found: no allocator runs, the built-in greedy wins every round", style="yellow"
            )
        asked = [part for endpoint in ground.endpoints for part in ("--node", endpoint.public_url)]
        children.append(
            Child("board", "edgora.board.app", (*asked, "--listen", f"127.0.0.1:{board}", "--scenario", scenario.name))
        )
        for i, endpoint in enumerate(ground.endpoints):
            progress.print(
                f"node {i}: {endpoint.public_url}  (API: {endpoint.public_url}/openapi.json)", highlight=False
            )
        progress.print(f"board: {origins[0]}", highlight=False)
        progress.print(f"chain: {anvil.url}; keys and ledgers in {folder}; Ctrl-C stops everything", highlight=False)
        return asyncio.run(run_children(children))
