"""Run a node, or a whole platform, as processes: start children, wait, stop what was started and nothing else.

A node is two processes (ledger.md 1): consensus and API. If either ends, the other is stopped and the node ends with
its status: whoever runs the node (compose, systemd, `edgora up`) decides on a restart.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgora.adapters.wal_files import begin_log
from edgora.lab.backup import OBSERVER
from edgora.lab.ground import read_endpoint
from edgora.lab.scenario import Scenario
from edgora.wire.errors import Refused

__all__ = [
    "Child", "NodePlan", "allocator_children", "lie_file", "node_children", "run_children", "start_children", "stop_children",
]  # fmt: skip

_STOP_S = 15.0
_STOP_JOBS_S = 35.0
"""A long run is given 30 s for its checkpoint."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process to run: a module of ours with arguments."""

    name: str
    module: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = _STOP_S
    """How long it may take to end after SIGTERM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """Where a node's things are and how it is reached."""

    home: Path
    """Its secrets, its certified addresses and its data; a volume of its own in containers."""
    genesis: Path
    """Folder with genesis.bin and deployment.json."""
    index: int
    links: Sequence[str]
    """host:port of each validator's links."""
    link_bind: str
    listen: str
    """host:port of REST."""
    chain_rpc: str
    redis_url: str = ""
    faucet_key: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    faults: bool = False
    """Whether the scenario allows that this node is made to lie (node.lies)."""


def lie_file(home: Path) -> Path:
    """Where a node's lie is chosen, if its scenario allows faults; shared by both halves of the node."""
    return home / "lie"


def node_children(plan: NodePlan) -> list[Child]:
    """The two processes of a node; writes the consensus half's configuration into its home.

    A home with data of an API half may have voted, so its log must be there (ledger.md 12); one restored from a backup
    that may not be the newest only observes.
    """
    if not (plan.home / "signer.key").exists():
        raise Refused(f"{plan.home} holds no node keys", field="home", fix="run `edgora genesis` first")
    reached = read_endpoint(plan.home)
    observes = (plan.home / OBSERVER).exists()
    ran = (plan.home / "api").is_dir()
    if not ran:  # before anything runs, so that a kill at any moment leaves a node that starts
        begin_log(plan.home / "consensus")
    config = {
        "genesis_file": str((plan.genesis / "genesis.bin").resolve()), "index": plan.index, "signer_key_file": "signer.key",
        "link_key_file": "link.key", "data_dir": "consensus", "socket": "consensus.sock",
        "endpoints": list(plan.links), "bind": plan.link_bind, "observer": observes,
        "require_log": not observes and ran,
    }  # fmt: skip
    if plan.faults:
        config["lie_file"] = str(lie_file(plan.home).resolve())
    lines = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in config.items()]
    path = plan.home / "consensus.toml"
    path.write_text("\n".join(lines) + "\n")
    host, _, port = plan.listen.rpartition(":")
    deployment = plan.genesis / "deployment.json"
    environment = {
        "EDGORA_DATA_DIR": str(plan.home / "api"), "EDGORA_GENESIS_FILE": str(config["genesis_file"]),
        "EDGORA_INDEX": str(plan.index), "EDGORA_SIGNER_KEY_FILE": str(plan.home / "signer.key"),
        "EDGORA_SEALING_KEY_FILE": str(plan.home / "sealing.pem"), "EDGORA_LINK_KEY_FILE": str(plan.home / "link.spki"),
        "EDGORA_LISTEN_HOST": host, "EDGORA_LISTEN_PORT": port, "EDGORA_PUBLIC_URL": reached.public_url,
        "EDGORA_NETWORK_URL": reached.network_url, "EDGORA_CONSENSUS_SOCKET": str(plan.home / "consensus.sock"),
        "EDGORA_CHAIN_RPC": plan.chain_rpc, "EDGORA_REDIS_URL": plan.redis_url, **plan.environment,
    }  # fmt: skip
    if plan.faults:
        environment["EDGORA_LIE_FILE"] = str(lie_file(plan.home))
    if plan.faucet_key is not None:
        environment["EDGORA_DEPLOYER_KEY_FILE"] = str(plan.faucet_key)
    if deployment.exists():
        environment["EDGORA_CONTRACT_CODE_HASH"] = msgspec.json.decode(deployment.read_bytes())["code_hash"]
    return [
        Child(f"node{plan.index}.consensus", "edgora.node.app", ("consensus", "--config", str(path))),
        Child(f"node{plan.index}.api", "edgora.node.app", ("api",), {k: str(v) for k, v in environment.items()}),
    ]


def allocator_children(
    scenario: Scenario, redis_url: str, ports: Sequence[int], host: str = "127.0.0.1", jobs: Path | None = None
) -> list[Child]:
    """One allocator a node, with the policy that the scenario gives it. Each of them makes plans for UEs, too.

    The first one takes jobs where it is given a folder for them.
    """
    params = scenario.market_params()
    first = () if jobs is None else ("--jobs", str(jobs))
    return [
        Child(f"allocator{i}", "edgora.allocator.allocd", (
            "--redis", redis_url, "--node", str(i), "--policy", scenario.server(i).policy, "--solve-ms", str(params.solve_ms),
            "--floor-bps", str(params.floor_bps), "--seed", str(scenario.seed), "--port", str(ports[i]),
            "--host", host, "--allocation", scenario.fleet.allocation, *(first if i == 0 else ()),
        ), stop_s=_STOP_JOBS_S if first and i == 0 else _STOP_S)
        for i in range(scenario.consortium.nodes)
    ]  # fmt: skip


async def start_children(children: Sequence[Child]) -> list[asyncio.subprocess.Process]:
    """Start all, in order; if one cannot be started, those before it are stopped again."""
    running: list[asyncio.subprocess.Process] = []
    try:
        for child in children:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", child.module, *child.arguments, env={**os.environ, **child.environment},
                start_new_session=True,  # Ctrl-C reaches us alone; we stop the children in order
            )  # fmt: skip
            running.append(process)
    except BaseException:
        await stop_children(running)
        raise
    return running


async def stop_children(running: Sequence[asyncio.subprocess.Process], within_s: float = _STOP_S) -> None:
    """SIGTERM to all that run, SIGKILL to those that do not end in time; returns when none is left."""
    for process in running:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
    deadline = asyncio.get_running_loop().time() + within_s
    for process in running:
        try:
            async with asyncio.timeout_at(deadline):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def run_children(children: Sequence[Child]) -> int:
    """Run all until a signal (status 0) or until one ends (its status, 1 for 0: nobody should end by itself)."""
    loop = asyncio.get_running_loop()
    enough = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, enough.set)
    running = await start_children(children)
    try:
        ends = {asyncio.ensure_future(process.wait()): child for process, child in zip(running, children, strict=True)}
        stop = asyncio.ensure_future(enough.wait())
        await asyncio.wait([*ends, stop], return_when=asyncio.FIRST_COMPLETED)
        ended = [(child, future.result()) for future, child in ends.items() if future.done()]
        stop.cancel()
        if enough.is_set() or not ended:
            return 0
        child, status = ended[0]
        sys.stderr.write(f"edgora: {child.name} ended with status {status}; stopping the rest\n")
        return status if status > 0 else 1
    finally:
        await stop_children(running, max(child.stop_s for child in children))
