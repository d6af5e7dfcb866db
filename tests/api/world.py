"""API halves over a ledger that orders at once: real market, real executor, real certificates, everything in memory.

    async with Platform() as platform:             # 4 servers, registered and live
        ue = await platform.funded_ue()
        task = await ue.submit(source=0)
        await platform.until(lambda: platform.state(task) == "SETTLED")

What is fake: consensus and the clock (`instant_ledger`), the chain and the sandbox (`stand_ins`). The clock runs ten
times faster than real time, and nothing waits for a fixed time. Users are `devices`. No pytest in any of them.
"""

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from api.devices import TestUe, sealing_key
from api.instant_ledger import FakeConsensus, FastClock, InstantLedger
from api.stand_ins import CODE, WASM, EchoRunner, FakeChain
from edgora.adapters.blob_files import BlobFiles
from edgora.adapters.memory_bus import MemoryBus
from edgora.crypto.sign import SigningKey
from edgora.lab.market_actors import Consortium
from edgora.node.app import ApiNode, NodeKeys
from edgora.node.settings import AdvertSettings, LimitSettings, NodeSettings
from edgora.wire.genesis import ConsensusParams, Genesis, GenesisServer, GenesisValidator
from edgora.wire.hashing import keccak
from edgora.wire.market import MarketParams
from edgora.wire.metadata import ServerMetadata

__all__ = ["PARAMS", "Platform"]

PARAMS = MarketParams(
    round_ms=100, proposal_ms=100, solve_ms=40, slack_ms=500, batch_ms=2_000, audit_max_ms=20_000, draw_ms=4_000,
    margin_ms=120_000, audit_bps=0, auditors=2,
)  # fmt: skip


class Platform:
    """Four API halves. `clients[i]` speaks HTTP to node i's application."""

    def __init__(
        self, *, params: MarketParams = PARAMS, limits: LimitSettings | None = None, live: bool = True,
        settings: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """settings: of every node, where they differ from the defaults."""
        self.settings = dict(settings or {})
        self.clock = FastClock()
        self.signing = [SigningKey.derived(f"api server {i}") for i in range(4)]
        self.sealing = [
            sealing_key("server 0"),
            sealing_key("server 1"),
            sealing_key("server 1"),
            sealing_key("server 1"),
        ]
        self.faucet = SigningKey.derived("api deployer")
        urls = [f"http://node{i}.test" for i in range(4)]
        documents = [ServerMetadata(urls[i], urls[i], self.sealing[i].public.spki, b"link %d" % i) for i in range(4)]
        self.genesis = Genesis(
            1, 7, 31_337, tuple(GenesisValidator(k.address, b"link %d" % i) for i, k in enumerate(self.signing)),
            tuple(GenesisServer(i, k.address, documents[i].hash) for i, k in enumerate(self.signing)),
            self.faucet.address, ConsensusParams(), params, "echo", self.clock.now_ms(),
        )  # fmt: skip
        self.limits = limits or LimitSettings(
            tx_per_s=100_000, tx_burst=100_000, requests_per_s=100_000, request_burst=100_000
        )
        self.live, self.urls = live, urls
        self.nodes: list[ApiNode] = []
        self.clients: list[httpx2.AsyncClient] = []
        self.runners: list[EchoRunner] = []
        self.consensus: list[FakeConsensus] = []
        self.bus = MemoryBus()

    async def __aenter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self.ledger = InstantLedger(self.genesis, self.signing, self.clock)
        consortium = Consortium(params=self.genesis.market, keys=self.signing)
        consortium.genesis = self.genesis
        consortium.market_domain = self.genesis.market_domain()
        self.chain = FakeChain(consortium, self.clock)
        for index in range(4):
            await self.add_node(index)
        if self.live:
            await self.until(lambda: all(self.ledger.market.is_live(s) for s in self.ledger.market.servers()))
            for client in self.clients:
                answer = await client.put(f"/v1/modules/0x{keccak(WASM).hex()}", content=WASM)
                assert answer.status_code == 201, answer.text
        return self

    async def add_node(self, index: int) -> ApiNode:
        """Start a node over its folder; an earlier one of that index must be stopped."""
        settings = NodeSettings(
            data_dir=Path(self._folder.name) / str(index), index=index, public_url=self.urls[index],
            network_url=self.urls[index], limits=self.limits, contract_code_hash=CODE.hex(),
            advert=AdvertSettings(speed=100_000_000, ask=50, slots=4, valid_ms=3_000_000, position_m=(1.5, 2.0)),
            **self.settings,
        )  # fmt: skip
        keys = NodeKeys(self.signing[index], self.sealing[index], b"link %d" % index, self.faucet)
        runner, consensus = EchoRunner(), FakeConsensus(self.ledger, index)
        node = ApiNode(
            self.genesis, index, keys, settings, consensus, self.ledger.store, self.chain, self.bus, runner, self.clock
        )
        client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=node.app, raise_app_exceptions=False),
            base_url=self.urls[index],
            timeout=30,
        )
        await node.start()
        for row, item in (
            (self.nodes, node),
            (self.clients, client),
            (self.runners, runner),
            (self.consensus, consensus),
        ):
            row[index : index + 1] = [item]
        return node

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ledger.stop()
        for client in self.clients:
            await client.aclose()
        for node in self.nodes:
            await node.stop()
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """Where all nodes keep what they store."""
        return Path(self._folder.name)

    def blobs(self, index: int) -> BlobFiles:
        """A node's bulk store, opened beside it."""
        return BlobFiles(self.folder / str(index))

    async def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until something holds, looking after each block and, for what no block tells, every 20 ms."""
        async with asyncio.timeout(seconds):
            while not holds():
                for node in self.nodes:
                    if node.failed is not None and node.failed.done() and not node.failed.cancelled():
                        node.failed.result()
                try:
                    async with asyncio.timeout(0.02):
                        await self.ledger.changed.wait()
                except TimeoutError:
                    pass

    def state(self, task: str, node: int = 0) -> str | None:
        """The task's state as node's archive has it."""
        found = self.nodes[node].follower.archive.tasks.get(bytes.fromhex(task[2:]))
        return None if found is None else found.state.name

    async def funded_ue(self, wei: int = 10**18) -> TestUe:
        """A UE whose deposit the ledger knows."""
        ue = TestUe(self)
        answer = await self.clients[0].post("/v1/dev/faucet", json={"address": ue.address, "wei": str(wei)})
        assert answer.status_code == 200, answer.text
        await self.until(lambda: (a := self.ledger.market.account(ue.key.address)) is not None and a.balance >= wei)
        await self.until(lambda: all(n.follower.market.account(ue.key.address) for n in self.nodes))
        return ue
