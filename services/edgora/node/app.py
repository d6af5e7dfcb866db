"""The API half of a node as one object, and the node's two processes (ledger.md 1).

`ApiNode` ties follower, service, duties and REST to the ports that it is given; the embedded run makes four of them.
`python -m edgora.node.app api [--config FILE]` is the same half in a process of its own, with the consensus half at the
other end of a Unix socket; `python -m edgora.node.app consensus --config FILE` is that other half.
"""

import argparse
import asyncio
import importlib.metadata
import logging
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from edgora.adapters.anvil_chain import AnvilChain
from edgora.adapters.blob_files import BlobFiles
from edgora.adapters.memory_bus import MemoryBus
from edgora.adapters.node_db import NodeDb
from edgora.adapters.pool_runner import PoolRunner
from edgora.adapters.redis_bus import RedisBus
from edgora.adapters.sqlite_store import SqliteReader
from edgora.adapters.system_clock import SystemClock
from edgora.compute.sandbox import Sandbox
from edgora.crypto.keys import SealingKey
from edgora.crypto.sign import SigningKey
from edgora.node import consensus as consensus_process
from edgora.node.api.app import build_app
from edgora.node.api.edge import Buckets
from edgora.node.api.node import NodeApi
from edgora.node.audit_chain import AuditChains
from edgora.node.consensus_link import SocketConsensus
from edgora.node.directory import Directory
from edgora.node.duties.adverts import Adverts
from edgora.node.duties.audits import Audits, Draws
from edgora.node.duties.chain_facts import DEV_CHAINS, ChainFacts
from edgora.node.duties.cleanup import Cleanup
from edgora.node.duties.holds import Holds
from edgora.node.duties.pacing import Pace, Pacing
from edgora.node.duties.post import Duty, Post, keep
from edgora.node.duties.registration import Registration
from edgora.node.duties.rounds import Rounds
from edgora.node.duties.runs import Runs
from edgora.node.duties.settle import Settle
from edgora.node.faucet import Faucet
from edgora.node.follower import Follower, Step
from edgora.node.gateway import Gateway
from edgora.node.lanes import Lanes
from edgora.node.ledger_reads import LedgerReads
from edgora.node.peers import Peers
from edgora.node.positions import Positions
from edgora.node.queries import Queries
from edgora.node.records import NodeKeys
from edgora.node.service import Parts, Service
from edgora.node.settings import NodeSettings, read_settings
from edgora.node.standing import Standing
from edgora.node.stream import EventStreams
from edgora.node.why import Explainer
from edgora.node.workbench import Workbench
from edgora.ports.bus import Bus, Skipped
from edgora.ports.chain import Chain
from edgora.ports.clock import Clock
from edgora.ports.consensus import Consensus
from edgora.ports.runner import Runner
from edgora.ports.store import BlockReader
from edgora.telemetry.logs import configure
from edgora.telemetry.metrics import NodeMetrics
from edgora.telemetry.tracing import LedgerSpans, TraceSettings, open_tracing
from edgora.wire.codec import decode
from edgora.wire.errors import Broken, EdgoraError, Refused, Unavailable
from edgora.wire.genesis import Genesis

__all__ = ["ApiNode", "MoreDuties", "NodeKeys", "main", "no_more"]

_log = logging.getLogger("edgora.node")
VERSION = importlib.metadata.version("edgora")
RECONNECT_S = 0.2
Work = Callable[[], Coroutine[object, object, None]]
MoreDuties = Callable[[Post], Sequence[Duty]]


def no_more(_: Post) -> Sequence[Duty]:
    """No duties beyond a node's own."""
    return ()


class ApiNode:
    """One node's API half. `app` is served by whoever runs it; `failed` ends with what made the node stop."""

    def __init__(
        self, genesis: Genesis, index: int, keys: NodeKeys, settings: NodeSettings, consensus: Consensus,
        store: BlockReader, chain: Chain, bus: Bus, runner: Runner, clock: Clock,
        more: MoreDuties = no_more,
    ) -> None:  # fmt: skip
        """more: duties that a composition root adds. Raises Refused if a key is not the one that genesis names."""
        self._consensus, self._chain, self._runner = consensus, chain, runner
        self._data_dir = settings.data_dir
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        document = keys.document(settings.network_url, settings.public_url)
        _check_keys(genesis, index, keys)
        self._journal = NodeDb(settings.data_dir / "journal.sqlite")
        blobs = BlobFiles(settings.data_dir)
        self.follower = Follower(genesis, store)
        if document.hash != genesis.servers[index].meta_hash:
            own = self.follower.market.server(index)
            if own is None or own.meta_hash != document.hash:
                raise Refused(
                    f"the key document of server {index} hashes to 0x{document.hash.hex()}, certified is "
                    f"0x{genesis.servers[index].meta_hash.hex()}",
                    field="public_url", fix="use the keys and URLs that the genesis document was made from",
                )  # fmt: skip
        peers = Peers(consensus)
        position = settings.advert.position_m
        millimetres = None if position is None else (round(position[0] * 1000), round(position[1] * 1000))
        self._directory = Directory(index, document, millimetres, self.follower, peers)
        self._lanes = Lanes(keys.signer, genesis.ledger_domain(), self.follower, consensus)
        self.follower.listen(lambda step: self._lanes.executed(step.stored.block.header.height, step.stored.receipts))
        self._metrics = NodeMetrics()
        self._spans = open_tracing(
            "node", str(index), TraceSettings(settings.trace, settings.trace_endpoint, settings.trace_file)
        )
        self._tracing = LedgerSpans(self._spans, index, clock.now_ms)
        self.follower.listen(self._count)
        post = Post(
            genesis, index, keys, settings, clock, self.follower, self._lanes, peers, self._directory, blobs, runner,
            chain, bus, self._journal, self._tracing,
        )  # fmt: skip
        bench, chains = Workbench(post), AuditChains(self._journal)
        reads = LedgerReads(genesis, self.follower, consensus)
        code_hash = settings.contract_code_hash
        self._registration = Registration(
            post, document, None if code_hash is None else bytes.fromhex(code_hash.removeprefix("0x"))
        )
        pacing = Pacing(post)
        self._runs, facts, rounds = Runs(post, bench, pacing, self._metrics.work), ChainFacts(post), Rounds(post)
        self.paces: Mapping[bytes, Pace] = self._runs.paces
        """By offer id: what a task that this node ran was paced to, and why."""
        self.skipped: Mapping[int, Sequence[Skipped]] = rounds.skipped
        """By round: which of this node's allocators made no proposal, and why."""
        settle = Settle(post, reads, facts)
        self.duties: tuple[Duty, ...] = (
            self._registration, Adverts(post, chains), rounds, self._runs, Draws(post, chains),
            Audits(post, bench), facts, settle, pacing, Cleanup(post), *more(post),
        )  # fmt: skip
        self._holds = Holds(post, document)
        explainer = Explainer(self.follower, clock, self._runs.progress)
        queries = Queries(
            genesis, index, clock, self.follower, self._directory, explainer, self.skipped, settle.gas_used
        )
        gateway = Gateway(genesis, self.follower, consensus)
        service = Service(Parts(
            genesis, index, keys, clock, self.follower, gateway, consensus, peers, blobs, runner, facts, queries,
            self._tracing,
        ))  # fmt: skip
        self._streams = EventStreams(self.follower, settings.limits.streams)
        development = settings.development
        if development is None:
            development = genesis.chain_id in DEV_CHAINS
        limits = settings.limits
        self._standing = Standing(genesis, index, clock, self.follower, consensus, self.duties, self._runs)
        self._faucet = Faucet(chain, keys.faucet, limits.faucet_wei, time.monotonic)
        self.app: FastAPI = build_app(NodeApi(
            service=service, queries=queries, ledger=reads, gateway=gateway, streams=self._streams, clock=clock,
            settings=settings, version=VERSION, development=development and keys.faucet is not None,
            txs=Buckets(limits.tx_per_s, limits.tx_burst, time.monotonic, "transactions"),
            positions=Positions(), faucet=self._faucet.give,
            status=self._standing.status, ready=self._standing.ready, metrics=self._exposition,
        ))  # fmt: skip
        self.failed: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def _count(self, step: Step) -> None:
        events = [(item.time_ms, item.event) for item in step.events]
        self._metrics.block(step.stored, events)
        self._tracing.block(events)

    async def _exposition(self) -> bytes:
        try:
            status = await self._consensus.status()
        except Unavailable:
            self._metrics.standing({"consensus_reached": 0})
        else:
            self._metrics.status(status, running=self._runs.running, streams=self._streams.open)
        disk = shutil.disk_usage(self._data_dir)
        self._metrics.standing(self._standing.figures() | {"disk_octets": disk.total, "disk_free_octets": disk.free})
        return self._metrics.exposition()

    async def start(self) -> None:
        """Catch up, answer peers, take up the duties. Raises Broken if the contract is not ours."""
        self.failed = asyncio.get_running_loop().create_future()
        while self.follower.catch_up(256):  # noqa: ASYNC110 - others get a turn between chunks; nothing is polled
            await asyncio.sleep(0)
        try:
            await self._registration.check()
        except Unavailable as error:
            _log.warning("the chain is not reached yet", extra={"detail": error.detail})
        self._consensus.serve(self._holds.answer)
        works: list[Work] = [self._follow, self._lanes.run, self._directory.run]
        works += [partial(keep, duty) for duty in self.duties]
        self._tasks = [asyncio.ensure_future(self._guarded(work)) for work in works]
        _log.info("API half is up", extra={"height": self.follower.height})

    async def _follow(self) -> None:
        """Follow for ever; the consensus half may be restarted under us."""
        while True:
            try:
                await self.follower.run(self._consensus)
            except Unavailable as error:
                _log.warning("the consensus half is away", extra={"detail": error.detail})
            await asyncio.sleep(RECONNECT_S)

    async def _guarded(self, work: Work) -> None:
        try:
            await work()
        except Exception as error:
            _log.critical("the API half stops", exc_info=error)
            if self.failed is not None and not self.failed.done():
                self.failed.set_exception(error)
                self.failed.exception()  # whoever awaits it hears it; nobody has to

    def end_streams(self) -> None:
        """Let open event streams end, so that a web server can shut down."""
        self._streams.close()

    async def stop(self) -> None:
        """Stop duties and streams; the ports belong to whoever gave them, but for the runner."""
        self._streams.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._runner.close()
        self._journal.close()
        self._spans.close()
        if self.failed is not None and not self.failed.done():
            self.failed.cancel()


def _check_keys(genesis: Genesis, index: int, keys: NodeKeys) -> None:
    if not 0 <= index < len(genesis.servers):
        raise Refused(f"the genesis document has {len(genesis.servers)} servers, none is {index}", field="index")
    for what, address in (("server", genesis.servers[index].signer), ("validator", genesis.validators[index].address)):
        if address != keys.signer.address:
            raise Refused(
                f"the signer key is 0x{keys.signer.address.hex()}, genesis names 0x{address.hex()} as {what} {index}",
                field="signer_key_file", fix="use the key that the genesis document was made from",
            )  # fmt: skip


# ---- the process -----------------------------------------------------------------------------------------------------


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{what} {path} cannot be read: {error.strerror}", field=what) from None


def _signing_key(path: Path, what: str) -> SigningKey:
    try:
        return SigningKey(bytes.fromhex(_read(path, what).decode().strip().removeprefix("0x")))
    except ValueError:
        raise Refused(f"{what} {path} does not hold a secp256k1 secret in hex", field=what) from None


async def _opened_store(settings: NodeSettings, genesis: Genesis, enough: asyncio.Event) -> SqliteReader | None:
    """The consensus half's block store, once that half has made it; None if we are told to stop first."""
    path = settings.store_file or settings.consensus_socket.parent / "consensus" / "blocks.sqlite"
    while not enough.is_set():
        if path.exists():
            try:
                return SqliteReader(path, genesis.id)
            except Broken as error:
                _log.warning("the block store cannot be read yet", extra={"detail": error.detail})
        try:
            async with asyncio.timeout(1):
                await enough.wait()
        except TimeoutError:
            _log.info("waiting for the consensus half's block store", extra={"path": str(path)})
    return None


async def run_api(settings: NodeSettings) -> None:
    """One API half until SIGTERM or SIGINT; raises what stopped it otherwise."""
    genesis = decode(_read(settings.genesis_file, "genesis_file"), Genesis)
    faucet = settings.deployer_key_file
    keys = NodeKeys(
        _signing_key(settings.signer_key_file, "signer_key_file"),
        SealingKey.from_pem(_read(settings.sealing_key_file, "sealing_key_file")),
        _read(settings.link_key_file, "link_key_file"),
        None if faucet is None else _signing_key(faucet, "deployer_key_file"),
    )
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, enough.set)
    store = await _opened_store(settings, genesis, enough)
    if store is None:
        return
    slots = settings.worker_processes or settings.advert.slots
    consensus = await SocketConsensus.open(settings.consensus_socket)
    chain = AnvilChain(settings.chain_rpc, genesis.market_address)
    bus: Bus = RedisBus(settings.redis_url) if settings.redis_url else MemoryBus()
    closing: tuple[Callable[[], Awaitable[None]], ...] = (bus.close, chain.close, consensus.close)
    try:
        runner: Runner = PoolRunner(Sandbox(cache_folder=settings.data_dir / "compiled"), slots)
        more: MoreDuties = no_more
        if settings.lie_file is not None:
            from edgora.node.lies import FalseAllocations, FalsifyingRunner, LieFile

            chosen = LieFile(settings.lie_file)
            runner, more = FalsifyingRunner(runner, chosen), lambda post: (FalseAllocations(post, chosen),)
        node = ApiNode(
            genesis, settings.index, keys, settings, consensus, store, chain, bus, runner, SystemClock(), more
        )
        await node.start()
        try:
            await _served(node, settings, enough)
        finally:
            await node.stop()
    finally:
        for close in closing:
            await close()
        store.close()


async def _served(node: ApiNode, settings: NodeSettings, enough: asyncio.Event) -> None:
    config = uvicorn.Config(
        node.app, host=settings.listen_host, port=settings.listen_port, log_config=None, access_log=False,
        lifespan="off", timeout_graceful_shutdown=5, server_header=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server._serve())  # noqa: SLF001 - serve() would take over the signals
    assert node.failed is not None
    told = asyncio.ensure_future(enough.wait())
    waits: list[asyncio.Future[None] | asyncio.Task[bool]] = [told, node.failed, serving]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    node.end_streams()
    server.should_exit = True
    await serving
    told.cancel()
    if node.failed.done() and not node.failed.cancelled():
        node.failed.result()


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 after a signal, 2 for a refused start, 1 when the node had to stop."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["consensus"]:
        sys.argv[1:] = given[1:]
        return consensus_process.main()
    parser = argparse.ArgumentParser(prog="edgora.node.app", description="The API half of an Edgora node.")
    parser.add_argument("half", choices=["api", "consensus"])
    parser.add_argument("--config", type=Path, help="TOML file of settings; EDGORA_* environment goes before it")
    found = parser.parse_args(given)
    try:
        settings = read_settings(found.config)
        configure(settings.log_level)
        asyncio.run(run_api(settings))
    except EdgoraError as error:
        sys.stderr.write(f"{error.detail}\n" + (f"{error.fix}\n" if error.fix else ""))
        return 2 if isinstance(error, Refused) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
