"""The embedded platform: chain, four nodes, allocators, all in this process; REST and the board on loopback HTTP.

What differs from containers is chosen here and nowhere else: links in memory instead of TLS, the bus in memory instead
of Redis, anvil or the in-process EVM instead of a chain service. Consensus, log files, block store, sandbox, REST and
the client are the same code on the same paths.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import uvicorn

from edgora.adapters.links import Identity
from edgora.adapters.loopback import free_port
from edgora.adapters.memory_bus import MemoryBus
from edgora.adapters.memory_links import MemoryNetwork
from edgora.adapters.pool_runner import PoolRunner
from edgora.adapters.system_clock import SystemClock
from edgora.allocator import registry
from edgora.allocator.allocd.engine import ThreadEngine
from edgora.allocator.allocd.planner import Planner, solve_in_thread
from edgora.allocator.allocd.worker import AllocatorWorker
from edgora.board.app import build_board
from edgora.board.faults import fault_routes
from edgora.board.nodes import BoardNodes
from edgora.board.settings import BoardSettings, board_origins
from edgora.client import Done
from edgora.compute.sandbox import Sandbox
from edgora.lab.chain import EVM_CHAIN_ID, RunningChain, chain_kind, open_chain
from edgora.lab.ground import Endpoint, Ground, draw_ground
from edgora.lab.scenario import Scenario
from edgora.market.machine import Market
from edgora.node.app import ApiNode, MoreDuties, NodeKeys, no_more
from edgora.node.consensus import ConsensusNode
from edgora.node.duties.pacing import Pace
from edgora.node.settings import AdvertSettings, NodeSettings
from edgora.ports.bus import Skipped
from edgora.ports.runner import Runner
from edgora.ports.tracing import Tracing
from edgora.ports.transport import Transport
from edgora.telemetry.tracing import client_span, from_environment, open_tracing
from edgora.wire.errors import Refused, Unavailable

if TYPE_CHECKING:
    from edgora.lab.faults import App, EmbeddedFaults

__all__ = ["Cluster", "EmbeddedNode"]


_GRACE_S = 5
"""How long a web server that ends lets requests end."""


class _Server(uvicorn.Server):
    """uvicorn that leaves signals to whoever runs the loop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def break_off(self) -> None:
        """Connections break, requests end unanswered."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()


async def _serve(port: int, app: "App", lifespan: Literal["on", "off"]) -> "tuple[_Server, asyncio.Task[None]]":
    """A web server in this loop, listening on 127.0.0.1. Raises Refused if something else has the port."""
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise Refused(
            f"127.0.0.1:{port} cannot be listened on: {error.strerror}",
            field="ports",
            fix="stop what uses it, or give another port",
        ) from None
    # log_config None: uvicorn's own would close the handlers of whoever runs us.
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", lifespan=lifespan, timeout_graceful_shutdown=_GRACE_S
    )
    web = _Server(config)
    serving = asyncio.create_task(web.serve(sockets=[listening]))
    while not web.started and not serving.done():  # noqa: ASYNC110 - uvicorn sets a flag, no event
        await asyncio.sleep(0.005)
    return web, serving


class EmbeddedNode:
    """One edge server of the embedded platform."""

    def __init__(
        self, index: int, consensus: ConsensusNode, api: ApiNode, server: _Server, serving: "asyncio.Task[None]"
    ) -> None:
        self.index = index
        self.consensus = consensus
        self.api = api
        self._server = server
        self._serving = serving
        self._stopped = False

    async def kill(self) -> None:
        """Stop without a word: open connections break, requests end unanswered."""
        self._server.force_exit = True
        self._server.break_off()
        await self.stop()

    async def stop(self) -> None:
        """Twice does no harm."""
        if self._stopped:
            return
        self._stopped = True
        self.api.end_streams()
        self._server.should_exit = True
        await self._serving
        # uvicorn tells no connection of the end that it accepted while it ended: kept alive, it would be served on.
        self._server.break_off()
        await self.api.stop()
        await self.consensus.stop()


class Cluster:
    """`async with Cluster(scenario) as cluster:` - a running platform; everything it made is gone afterwards."""

    def __init__(
        self, scenario: Scenario, folder: Path | None = None, board: int | None = None, *, own_ports: bool = False
    ) -> None:
        """folder: kept run folder; a temporary one if None. board: port of the page; 0 for a free one, None for no page.

        own_ports: REST on the scenario's ports, for people; else on free ones, so that many can run beside each other.
        """
        self.scenario = scenario
        self._keep = folder
        self.folder = folder or Path()
        self.network = MemoryNetwork()
        self.nodes: list[EmbeddedNode] = []
        self.ground: Ground | None = None
        self._chain: RunningChain | None = None
        self._bus = MemoryBus()
        self.planner = Planner(self._bus, solve_in_thread)
        """Plans for UEs with an allocation policy; tells the nodes their shares."""
        self._workers: list[tuple[AllocatorWorker, asyncio.Task[None]]] = []
        self._closing: list[Callable[[], None]] = []
        self.on_done: Callable[[Done], None] | None = None
        """Hears what a fleet's clients have done, for the traces of their tasks."""
        self._own_ports = own_ports
        self._board_port = free_port() if board == 0 else board
        self._page: tuple[_Server, asyncio.Task[None]] | None = None
        self.faults = self._faults()
        """Kills, pauses, cuts off, makes lie; None unless the scenario allows it."""

    def _faults(self) -> "EmbeddedFaults | None":
        if not self.scenario.faults.allowed:
            return None
        from edgora.lab.faults import EmbeddedFaults

        return EmbeddedFaults(self, SystemClock())

    @property
    def chain(self) -> RunningChain:
        if self._chain is None:
            raise Unavailable("the cluster is not started")
        return self._chain

    @property
    def running_ground(self) -> Ground:
        if self.ground is None:
            raise Unavailable("the cluster is not started")
        return self.ground

    @property
    def urls(self) -> Mapping[int, str]:
        """REST of each server."""
        return {i: e.public_url for i, e in enumerate(self.running_ground.endpoints)}

    @property
    def board_url(self) -> str | None:
        """The page; None without one."""
        return None if self._board_port is None else f"http://127.0.0.1:{self._board_port}"

    @property
    def places(self) -> Mapping[int, tuple[float, float]]:
        """Where each server stands, metres."""
        servers = [self.scenario.server(i) for i in range(self.scenario.consortium.nodes)]
        return {i: (s.x_m, s.y_m) for i, s in enumerate(servers)}

    def skipped(self) -> dict[int, list[Skipped]]:
        """By round: which allocators made no proposal, and why."""
        found: dict[int, list[Skipped]] = {}
        for node in self.nodes:
            for number, skips in node.api.skipped.items():
                found.setdefault(number, []).extend(skips)
        return found

    def paces(self) -> dict[bytes, Pace]:
        """By offer id: what the task's newest executor paced it to, and why."""
        return {offer_id: pace for node in self.nodes for offer_id, pace in node.api.paces.items()}

    async def start(self) -> None:
        """Chain, contract, nodes, allocators; returns when every node's REST is ready."""
        kind = chain_kind(self.scenario.chain.kind)
        scenario = self.scenario
        chain_id = EVM_CHAIN_ID if kind == "evm" else scenario.chain.chain_id
        first = scenario.ports.api if self._own_ports else 0
        ports = [
            first + i * scenario.ports.api_step if first else free_port() for i in range(scenario.consortium.nodes)
        ]
        endpoints = [Endpoint(f"http://127.0.0.1:{p}", f"http://127.0.0.1:{p}") for p in ports]
        clock = SystemClock()
        self.ground = await asyncio.to_thread(draw_ground, scenario, endpoints, clock.now_ms(), chain_id)
        if self._keep is None:
            self.folder = Path(tempfile.mkdtemp(prefix="edgora-"))
        self._chain = await open_chain(kind, self.ground, scenario.ports.chain)
        for index in range(len(self.ground.nodes)):
            self.nodes.append(await self.start_node(index))
        for index in range(len(self.ground.nodes)):
            await self._start_worker(index)
        self.on_done = partial(client_span, self._sink("client", "fleet"))
        if self._board_port is not None:
            self._page = await self._start_board(self._board_port)

    async def start_node(self, index: int) -> EmbeddedNode:
        """Start (or start again) one server over its own folder."""
        ground = self.running_ground
        keys, home, clock = ground.nodes[index], self.folder / f"node{index}", SystemClock()
        identity = Identity(ground.genesis, index, keys.signing, keys.link)
        links: Transport = self.network.links(identity, clock)
        if self.faults is not None:
            links = self.faults.links(identity, links)
        consensus = ConsensusNode(
            ground.genesis, index, keys.signing, keys.link, home / "consensus", links, clock,
            Market.from_genesis(ground.genesis),
        )  # fmt: skip
        async with contextlib.AsyncExitStack() as undo:  # a node that does not come up leaves nothing behind
            await consensus.start()
            undo.push_async_callback(consensus.stop)
            api = self._api(index, consensus, home / "api", clock)
            await api.start()
            undo.push_async_callback(api.stop)
            port = int(ground.endpoints[index].public_url.rpartition(":")[2])
            app = api.app if self.faults is None else self.faults.gate(index, api.app)
            web, serving = await _serve(port, app, "off")
            undo.pop_all()
        return EmbeddedNode(index, consensus, api, web, serving)

    def _api(self, index: int, consensus: ConsensusNode, data: Path, clock: SystemClock) -> ApiNode:
        ground, server = self.running_ground, self.scenario.server(index)
        keys, url = ground.nodes[index], ground.endpoints[index].public_url
        settings = NodeSettings(
            data_dir=data, index=index, public_url=url, network_url=url, development=True,
            contract_code_hash=self.chain.deployment.code_hash,
            cors_origins=() if self._board_port is None else board_origins("127.0.0.1", self._board_port),
            advert=AdvertSettings(
                speed=server.speed, capacity=server.capacity, slots=server.slots, ask=server.ask, uplink=server.uplink,
                forward=server.forward, position_m=(server.x_m, server.y_m),
            ),
        )  # fmt: skip
        runner: Runner = PoolRunner(Sandbox(), server.slots)
        more: MoreDuties = no_more
        if self.faults is not None:
            runner, more = self.faults.runner(index, runner), self.faults.duties(index)
        return ApiNode(
            ground.genesis, index, NodeKeys(keys.signing, keys.sealing, keys.link.spki, ground.deployer), settings,
            consensus.consensus, consensus.store, self.chain.chain, self._bus, runner, clock, more,
        )  # fmt: skip

    async def _start_board(self, port: int) -> "tuple[_Server, asyncio.Task[None]]":
        settings = BoardSettings(nodes=tuple(self.urls.values()), port=port, scenario=self.scenario.name)
        panel = () if self.faults is None else fault_routes(self.faults)
        board = build_board(settings, BoardNodes(settings), panel)
        return await _serve(port, board, "on")

    def _sink(self, service: str, instance: str) -> Tracing:
        """Where spans of a part of the platform go that is no node; closed with the cluster."""
        spans = open_tracing(service, instance, from_environment(os.environ))
        self._closing.append(spans.close)
        return spans

    async def _start_worker(self, index: int) -> None:
        name, seed = self.scenario.server(index).policy, self.scenario.seed
        # In a thread: where numba is installed, a solver that was never used on this machine compiles its kernels here.
        policy = await asyncio.to_thread(registry.policy, "mta", name, seed=seed)
        engine = ThreadEngine(policy, floor_bps=self.running_ground.genesis.market.floor_bps)
        solve_ms, spans = self.running_ground.genesis.market.solve_ms, self._sink("allocator", str(index))
        worker = AllocatorWorker(self._bus, index, engine, solve_ms=solve_ms, tracing=spans)
        self._workers.append((worker, asyncio.create_task(worker.run())))

    async def stop(self) -> None:
        """Stop what was started, in reverse; a temporary folder is removed."""
        if self.faults is not None:
            self.faults.let_go()
        if self._page is not None:
            web, serving = self._page
            web.should_exit = True
            await serving
        for worker, _ in self._workers:
            worker.stop()
        for _, task in self._workers:
            task.cancel()
        await asyncio.gather(*(task for _, task in self._workers), return_exceptions=True)
        for close in self._closing:
            close()
        for node in reversed(self.nodes):
            await node.stop()
        if self._chain is not None:
            await self._chain.close()
        await self._bus.close()
        if self._keep is None and self.folder != Path():
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
