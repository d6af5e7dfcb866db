"""API halves over a ledger that orders at once: real market, real executor, real certificates, everything in memory.

    async with Platform() as platform:             # 4 servers, registered and live
        ue = await platform.funded_ue()
        task = await ue.submit(platform, source=0)
        await platform.until(lambda: platform.state(task) == "SETTLED")

What is fake: consensus (`InstantLedger` makes a block as soon as something is submitted or due), the chain (`FakeChain`,
over lab.market_actors.DevChain) and the sandbox (`EchoRunner`). The clock runs ten times faster than real time, so
periods of seconds pass in tenths; nothing waits for a fixed time. No pytest in here.
"""

import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import msgspec

from edgora.adapters.blob_files import BlobFiles
from edgora.adapters.memory_bus import MemoryBus
from edgora.compute.limits import Outcome
from edgora.compute.module import ModuleInfo, inspect, module_digest
from edgora.crypto.keys import SealingKey
from edgora.crypto.seal import ContentKey, Context, Envelope, open_sealed, result_digest, seal
from edgora.crypto.sign import SigningKey
from edgora.lab.market_actors import Consortium, DevChain
from edgora.ledger.config import Params, genesis_header
from edgora.ledger.effects import SnapshotImage
from edgora.ledger.executor import Executor
from edgora.market.machine import Market
from edgora.node.app import ApiNode, NodeKeys
from edgora.node.settings import AdvertSettings, LimitSettings, NodeSettings
from edgora.ports.chain import AccountView, ChainBlock, FoundFact, HeadView, LockView, Mined
from edgora.ports.consensus import (
    Admission,
    CheckpointView,
    ConsensusStatus,
    EvidenceView,
    PeerHandler,
    ViewStep,
    VoterView,
)
from edgora.ports.runner import Job
from edgora.ports.store import StoredBlock, StoredEvent
from edgora.wire.codec import encode, from_u96, to_u96
from edgora.wire.errors import RuleRefused, Unavailable
from edgora.wire.genesis import ConsensusParams, Genesis, GenesisServer, GenesisValidator
from edgora.wire.hashing import keccak
from edgora.wire.inputs import TaskInput
from edgora.wire.ledger import Block, Certificate, Header, Kind, LedgerCode, Phase, SignedTx, Tx, Vote
from edgora.wire.market import (
    BatchSettled,
    ChainFact,
    MarketParams,
    Offer,
    OfferFlag,
    ResultCode,
    ServerRegistered,
    TaskPayload,
    VoucherPart,
)
from edgora.wire.metadata import ServerMetadata
from edgora.wire.settlement import Voucher
from edgora.wire.units import Fuel, Millis

SCALE = 10
PARAMS = MarketParams(
    round_ms=100, proposal_ms=100, solve_ms=40, slack_ms=500, batch_ms=2_000, audit_max_ms=20_000, draw_ms=4_000,
    margin_ms=120_000, audit_bps=0, auditors=2,
)  # fmt: skip
CODE = keccak(b"contract")
WASM = bytes.fromhex(
    # (module (memory (export "memory") 1) (func (export "alloc") (param i32) (result i32) i32.const 0)
    #         (func (export "run") (param i32 i32) (result i64) i64.const 0))
    "0061736d01000000010c0260017f017f60027f7f017e03030200010503010001071803066d656d6f72790200"
    "05616c6c6f6300000372756e00010a0b02040041000b040042000b"
)


@cache
def sealing_key(label: str) -> SealingKey:
    """RSA keys are slow to make: one a label for the whole test run."""
    return SealingKey.generate()


class FastClock:
    """Wall time from now on, ten times as fast."""

    def __init__(self) -> None:
        self._start_ms, self._began = time.time_ns() // 1_000_000, time.monotonic()

    def now_ms(self) -> Millis:
        return Millis(self._start_ms + int((time.monotonic() - self._began) * 1000 * SCALE))

    def call_at(self, deadline_ms: int, call: Callable[[], None]) -> asyncio.TimerHandle:
        delay = max(0, deadline_ms - self.now_ms() + 1) / 1000 / SCALE
        return asyncio.get_running_loop().call_later(delay, call)


class MemoryStore:
    """ports.store.BlockStore in lists."""

    def __init__(self) -> None:
        self.blocks: dict[int, StoredBlock] = {}
        self.places: dict[bytes, tuple[int, int]] = {}
        self.stored_events: list[StoredEvent] = []
        self.image: SnapshotImage | None = None

    def height(self) -> int:
        return max(self.blocks, default=0)

    def block(self, height: int) -> StoredBlock | None:
        return self.blocks.get(height)

    def headers(self, first: int, last: int) -> Sequence[Header]:
        return [self.blocks[h].block.header for h in range(first, min(last, self.height()) + 1) if h in self.blocks]

    def certificate_from(self, height: int) -> tuple[int, Certificate] | None:
        for h in range(height, self.height() + 1):
            stored = self.blocks.get(h)
            if stored is not None and stored.certificate is not None:
                return h, stored.certificate
        return None

    def place_of(self, tx_hash: bytes) -> tuple[int, int] | None:
        return self.places.get(tx_hash)

    def events(self, after: int, limit: int) -> Sequence[StoredEvent]:
        return [event for event in self.stored_events if event.id > after][:limit]

    def snapshot(self) -> tuple[int, Mapping[bytes, bytes]] | None:
        return None if self.image is None else (self.image.header.height, self.image.state)

    def newest_snapshot(self) -> SnapshotImage | None:
        return self.image

    def append(self, stored: StoredBlock, events: Sequence[bytes]) -> None:
        header = stored.block.header
        self.blocks[header.height] = stored
        for receipt in stored.receipts:
            if receipt.code not in (1, 2, 3, 4) or receipt.tx_hash not in self.places:
                self.places[receipt.tx_hash] = (header.height, receipt.index)
        for place, data in enumerate(events):
            self.stored_events.append(StoredEvent(header.height * 65_536 + place, header.height, header.time_ms, data))


class InstantLedger:
    """One executor for all nodes; a block for whatever is there, at once."""

    def __init__(self, genesis: Genesis, keys: Sequence[SigningKey], clock: FastClock) -> None:
        self.genesis, self.keys, self.clock = genesis, keys, clock
        self.domain = genesis.ledger_domain()
        self.market = Market.from_genesis(genesis)
        self.executor = Executor(self.market, genesis.addresses, Params())
        self.store = MemoryStore()
        self.head = genesis_header(genesis.id, genesis.time_ms)
        self.pending: dict[bytes, SignedTx] = {}
        self.handlers: dict[int, PeerHandler] = {}
        self.cut: set[int] = set()
        """Nodes whose peer calls fail."""
        self.frozen = False
        """Nothing is ordered while this is set; submissions wait in the pool."""
        self.changed = asyncio.Event()
        self._due = False
        self._wake: asyncio.TimerHandle | None = None

    def submit(self, tx: SignedTx, tx_hash: bytes) -> Admission:
        if self.store.place_of(tx_hash) is not None or tx.tx.seq < self.executor.next_seq((tx.tx.sender, tx.tx.lane)):
            return Admission(False, "DUPLICATE")
        if not self.executor.knows(tx.tx.sender):
            return Admission(False, "UNKNOWN_SENDER")
        if tx.tx.seq > self.executor.next_seq((tx.tx.sender, tx.tx.lane)) + 64:
            return Admission(False, "LANE_GAP")
        self.pending[tx_hash] = tx
        self._schedule()
        return Admission(True)

    def _schedule(self) -> None:
        if not self._due and not self.frozen:
            self._due = True
            asyncio.get_running_loop().call_soon(self._block)

    def thaw(self) -> None:
        self.frozen = False
        self._schedule()

    def _block(self) -> None:
        self._due = False
        txs: list[tuple[bytes, SignedTx]] = []
        ahead: dict[tuple[bytes, int], int] = {}
        for name, signed in sorted(self.pending.items(), key=lambda item: (item[1].tx.lane, item[1].tx.seq)):
            lane = (signed.tx.sender, signed.tx.lane)
            due = ahead.get(lane, self.executor.next_seq(lane))
            if signed.tx.seq == due:
                txs.append((name, signed))
                ahead[lane] = due + 1
            elif signed.tx.seq < due:
                del self.pending[name]
        for name, _ in txs:
            del self.pending[name]
        self.make([signed for _, signed in txs], [name for name, _ in txs])

    def make(self, txs: Sequence[SignedTx], hashes: Sequence[bytes]) -> None:
        """The next block: built, executed, certified and stored."""
        parent, height = self.head, self.head.height + 1
        named = self.executor.receipts_between(parent.exec_height, height - 1)
        root = self.executor.root_after(height - 1)
        assert named is not None
        assert root is not None
        header = Header(
            0, height, parent.hash, keccak(b"".join(hashes)), len(txs), height - 1, root, named[0], named[1], bytes(32),
            max(parent.time_ms + 1, self.clock.now_ms()), self.keys[0].address,
        )  # fmt: skip
        result = self.executor.execute(header, header.hash, txs, hashes)
        vote = Vote(Phase.COMMIT, 0, 0, height, header.hash)
        signatures = tuple(key.sign(vote.digest(self.domain)) for key in self.keys[:3])
        stored = StoredBlock(
            Block(header, tuple(txs)), Certificate(vote, 0b111, signatures), result.receipts, result.state_root
        )
        self.store.append(stored, [encode(event) for event in result.events])
        self.head = header
        self.changed.set()
        self.changed = asyncio.Event()
        if result.substantial:
            asyncio.get_running_loop().call_later(0.002, self._schedule)  # a seal: the results need a header
        if self._wake is not None:
            self._wake.cancel()
        wake = self.market.wake_at()
        self._wake = self.clock.call_at(wake, self._schedule) if wake else None

    def stop(self) -> None:
        self.frozen = True
        if self._wake is not None:
            self._wake.cancel()


class FakeConsensus:
    """ports.consensus.Consensus of one node of an InstantLedger."""

    def __init__(self, ledger: InstantLedger, index: int) -> None:
        self._ledger, self._index = ledger, index
        self.refuse: str | None = None
        """Admission's reason for whatever is submitted here, while set."""
        self.away = False
        self.steps: tuple[ViewStep, ...] = ()
        self.checkpoints: tuple[CheckpointView, ...] = ()
        self.evidence: tuple[EvidenceView, ...] = ()

    async def submit(self, tx: SignedTx, tx_hash: bytes) -> Admission:
        return self._ledger.submit(tx, tx_hash) if self.refuse is None else Admission(False, self.refuse)

    async def status(self) -> ConsensusStatus:
        if self.away:
            raise Unavailable("the consensus half is away")
        ledger, height = self._ledger, self._ledger.head.height
        voters = tuple(
            VoterView(i, address, True, 5, height, 0, False) for i, address in enumerate(ledger.genesis.addresses)
        )
        waiting = "PREPARING" if ledger.frozen else "IDLE"
        return ConsensusStatus(
            0, 0, True, 0, self._index, len(voters), 3, height, ledger.head.hash, height, ledger.head.time_ms, 0,
            len(ledger.pending), waiting, 7, height + 1, 2, 1_000, 0, None, voters,
            self.steps, self.checkpoints, self.evidence,
        )  # fmt: skip

    async def heights(self) -> AsyncIterator[int]:
        seen = -1
        while True:
            changed = self._ledger.changed
            if self._ledger.head.height > seen:
                seen = self._ledger.head.height
                yield seen
            else:
                await changed.wait()

    async def call(self, server: int, request: bytes, timeout_ms: int) -> bytes:
        handler = self._ledger.handlers.get(server)
        if handler is None or server in self._ledger.cut or self._index in self._ledger.cut:
            raise Unavailable(f"server {server} is not reached")
        return await handler(self._index, request)

    def serve(self, handler: PeerHandler) -> None:
        self._ledger.handlers[self._index] = handler

    async def close(self) -> None:
        pass


class FakeChain:
    """ports.chain.Chain as far as a node uses it, over DevChain: a block a call, never reorganised."""

    def __init__(self, consortium: Consortium, clock: FastClock) -> None:
        self.genesis, self.clock = consortium.genesis, clock
        self.dev = DevChain(consortium)
        self.market = self.genesis.market_address
        self.registered: dict[bytes, int] = {}
        self.found: list[FoundFact] = []
        self.number = 1
        self.code = CODE
        self.settled: list[tuple[int, int]] = []
        """(batch id, server index of the relayer) of every settle that went through."""
        self.proofs: list[Any] = []
        self.down = False

    def _up(self) -> None:
        if self.down:
            raise Unavailable("the chain is not reached")

    def _hash(self, number: int) -> bytes:
        return keccak(b"chain block %d" % number)

    def put(self, fact: ChainFact | None) -> Mined:
        """Mine a fact of DevChain in a block of its own."""
        if fact is None:
            raise RuleRefused("reverted", rule="Reverted")
        self.number += 1
        placed = msgspec.structs.replace(fact, block_hash=self._hash(self.number), tx_index=0, log_index=0)
        self.found.append(FoundFact(self.number, placed))
        return Mined(keccak(placed.block_hash), self.number, placed.block_hash, 0, 50_000, None)

    async def chain_id(self) -> int:
        self._up()
        return self.genesis.chain_id

    async def latest(self) -> ChainBlock:
        self._up()
        return ChainBlock(self.number, self._hash(self.number), self.clock.now_ms() // 1000)

    async def block(self, number: int) -> ChainBlock | None:
        self._up()
        return ChainBlock(number, self._hash(number), 0) if number <= self.number else None

    async def code_hash(self, address: bytes) -> bytes | None:
        self._up()
        return self.code if address == self.market else None

    async def events(self, from_block: int, to_block: int) -> Sequence[FoundFact]:
        self._up()
        return [item for item in self.found if from_block <= item.block_number <= to_block]

    async def server_of(self, signer: bytes) -> int | None:
        self._up()
        return self.registered.get(signer)

    async def server_count(self) -> int:
        return len(self.registered)

    async def register(self, key: SigningKey, owner: bytes, meta_hash: bytes, stake: int) -> Mined:
        number = len(self.registered)
        self.registered[key.address] = number
        fact = ServerRegistered(number, owner, key.address, meta_hash, to_u96(stake))
        return self.put(ChainFact(bytes(32), 0, 0, fact))

    async def deposit_for(self, key: SigningKey, ue: bytes, wei: int) -> Mined:
        self._up()
        return self.put(self.dev.deposit(ue, wei))

    async def settle(self, key: SigningKey, batch_id: int, task_root: bytes, payload: bytes, proof: Any) -> Mined:
        self._up()
        fact = self.dev.settle(batch_id, task_root, payload, self.clock.now_ms() // 1000)
        if fact is None:
            raise RuleRefused("out of order", rule="SettlementOutOfOrder")
        self.proofs.append(proof)
        self.settled.append((batch_id, self.registered[key.address]))
        assert isinstance(fact.fact, BatchSettled)
        return self.put(fact)

    async def refund(self, key: SigningKey, ue: bytes, offer: bytes) -> Mined:
        self._up()
        return self.put(self.dev.refund(ue, offer, self.clock.now_ms() // 1000))

    async def account(self, ue: bytes) -> AccountView:
        found = self.dev._account(ue)
        return AccountView(found.balance, found.spent, found.exit_at_s, 0)

    async def lock_of(self, key: bytes) -> LockView:
        return LockView(*self.dev.locks.get(key, (0, 0)))

    async def head(self) -> HeadView:
        return HeadView(bytes(20), 0, self.dev.batch_id)

    async def close(self) -> None:
        pass


class EchoRunner:
    """A sandbox that gives the data back, reversed. args say how else a run ends: b"trap", b"wall", b"hang"."""

    slots = 2

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.begun = asyncio.Event()
        self.closed = False

    async def run(self, job: Job) -> Outcome:
        self.jobs.append(job)
        self.begun.set()
        task = TaskInput.unpack(job.plaintext)
        if task.args == b"hang":
            await asyncio.Event().wait()
        if task.args == b"wall":
            return Outcome(ResultCode.WALL, b"", Fuel(0), Millis(1), "wall")
        if task.args == b"trap":
            return Outcome(ResultCode.TRAP, b"", Fuel(77), Millis(1), "trap")
        return Outcome(ResultCode.OK, task.data[::-1], Fuel(1_000 + len(task.data)), Millis(1))

    async def prepare(self, wasm: bytes) -> ModuleInfo:
        return inspect(wasm)

    def knows(self, digest: bytes) -> bool:
        return False

    async def close(self) -> None:
        self.closed = True


class TestUe:
    """A device: builds offers, envelopes and submissions; every part can be bent by the caller."""

    __test__ = False

    def __init__(self, platform: "Platform", label: str = "ue") -> None:
        self.platform = platform
        self.key = SigningKey.derived(label + secrets.token_hex(4))
        self.sealing = sealing_key("ue")
        self.address = "0x" + self.key.address.hex()
        self.nonce = 0

    def sealed(self, *, source: int = 0, data: bytes = b"hello", args: bytes = b"", **fields: Any) -> "Draft":
        """An offer with its sealed input: 10 Mfuel at 100 gwei/Mfuel, deadline in 10 minutes of the fast clock."""
        self.nonce += 1
        genesis = self.platform.genesis
        fields = {"module_digest": keccak(WASM), "nonce": self.nonce, **fields}
        context = Context(genesis.chain_id, genesis.id, self.key.address, fields["nonce"], fields["module_digest"])
        server = self.platform.sealing[source if source < 4 else 0].public
        envelope, content = seal(TaskInput(args, data).pack(), [server], context, secrets.token_bytes)
        offer = Offer(
            ue=self.key.address, nonce=fields.pop("nonce"), module_digest=fields.pop("module_digest"),
            input_digest=envelope.cipher_digest, input_octets=len(envelope.ciphertext), output_octets=4_096,
            memory_pages=16, fuel_limit=10_000_000, price=100, desired_ms=5_000,
            deadline_ms=self.platform.clock.now_ms() + 600_000, result_key=self.sealing.public.digest,
            key_commit=content.commit, source=source, flags=0,
        )  # fmt: skip
        return Draft(self, msgspec.structs.replace(offer, **fields), envelope, content)

    async def submit(self, **how: Any) -> str:
        """Upload, order; the task's id. Raises AssertionError with the problem if refused."""
        draft = self.sealed(**how)
        uploaded = await draft.upload()
        assert uploaded.status_code in (200, 201), uploaded.text
        posted = await draft.post(uploaded.json()["stored"])
        assert posted.status_code == 202, posted.text
        return str(posted.json()["task"]["id"])


class Draft:
    """An offer before it is a task."""

    def __init__(self, ue: TestUe, offer: Offer, envelope: Envelope, content: ContentKey) -> None:
        self.ue, self.offer, self.envelope, self.content = ue, offer, envelope, content
        self.platform = ue.platform

    @property
    def id(self) -> bytes:
        return self.offer.digest(self.platform.genesis.market_domain())

    def offer_json(self) -> dict[str, Any]:
        body = {}
        for name in Offer.__struct_fields__:
            value = getattr(self.offer, name)
            body[name] = "0x" + value.hex() if isinstance(value, bytes) else value
        return body

    def upload_json(self) -> dict[str, Any]:
        return {
            "offer": self.offer_json(), "envelope": msgspec.to_builtins(self.envelope.to_jwe()),
            "result_key": "0x" + self.ue.sealing.public.spki.hex(),
        }  # fmt: skip

    async def upload(self, body: dict[str, Any] | None = None) -> httpx2.Response:
        source = self.platform.clients[self.offer.source if self.offer.source < 4 else 0]
        return await source.put(f"/v1/inputs/0x{self.offer.input_digest.hex()}", json=body or self.upload_json())

    def voucher(
        self, *, cap: int | None = None, until_s: int | None = None, key: SigningKey | None = None
    ) -> VoucherPart:
        market, params = self.platform.ledger.market, self.platform.genesis.market
        account = market.account(self.offer.ue)
        maximum = self.offer.fuel_limit * self.offer.price * 1000
        base = account.spent + account.reserved if account else 0
        now_s = self.platform.clock.now_ms() // 1000
        if until_s is None:
            until_s = now_s + params.exit_delay_s - params.margin_ms // 1000 - 60
            if account and account.voucher and account.unfinished:
                until_s = max(until_s, account.voucher.valid_until_s)
        cap = base + maximum if cap is None else cap
        digest = Voucher(cap, until_s).digest(self.platform.genesis.market_domain())
        return VoucherPart(to_u96(cap), until_s, (key or self.ue.key).sign(digest))

    def post_json(
        self, stored: str, *, voucher: VoucherPart | None = None, lane: int = 0, seq: int | None = None,
        until: int | None = None, key: SigningKey | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        ledger = self.platform.ledger
        if voucher is None and not self.offer.flags & OfferFlag.LOCK_LANE:
            voucher = self.voucher()
        seq = ledger.executor.next_seq((self.offer.ue, lane)) if seq is None else seq
        until = ledger.head.height + 2_000 if until is None else until
        payload = encode(TaskPayload(self.offer, bytes.fromhex(stored[2:]), voucher))
        tx = Tx(Kind.TASK, self.offer.ue, lane, seq, until, payload)
        signature = (key or self.ue.key).sign(tx.digest(ledger.domain))
        return {
            "offer": self.offer_json(), "stored": stored,
            "voucher": None if voucher is None else {
                "cap": str(from_u96(voucher.cap)), "valid_until_s": voucher.valid_until_s,
                "signature": "0x" + voucher.signature.hex(),
            },
            "lane": lane, "seq": seq, "valid_until_height": until, "signature": "0x" + signature.hex(),
            "result_key": "0x" + self.ue.sealing.public.spki.hex(),
        }  # fmt: skip

    async def post(self, stored: str, *, node: int = 0, **how: Any) -> httpx2.Response:
        return await self.platform.clients[node].post("/v1/tasks", json=self.post_json(stored, **how))

    def open_result(self, sealed: dict[str, Any]) -> bytes:
        """The output in a SealedResult, opened and compared with its digest."""
        envelope = Envelope.from_jwe(msgspec.convert(sealed["envelope"], type=type(self.envelope.to_jwe())))
        genesis = self.platform.genesis
        context = Context(genesis.chain_id, genesis.id, self.offer.ue, self.offer.nonce, self.offer.module_digest)
        output = open_sealed(envelope, self.ue.sealing, context, None).plaintext
        code = ResultCode[sealed["code"]]
        assert "0x" + result_digest(self.content, int(code), output).hex() == sealed["result_digest"]
        return output


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


__all__ = [
    "PARAMS", "WASM", "Draft", "EchoRunner", "FakeChain", "FakeConsensus", "FastClock", "InstantLedger", "LedgerCode",
    "MemoryStore", "Platform", "TestUe", "module_digest", "sealing_key",
]  # fmt: skip
