"""What each call of the contract costs, measured on anvil (contracts.md 10).

Inputs are seeded, block times are fixed, keys are derived: the table comes out equal to the unit every time, so
`contracts/edgora/contracts/gas.json` is compared exactly and any change is a diff to review. Every figure is the gas of
a receipt, but for `check_*`: the certificate and receipt check beyond calldata, metered inside an eth_call, because a
transaction that does nothing else pays EIP-7623's floor for its calldata instead.

The chain is left as it was found (evm_snapshot, evm_revert). It must mine each transaction at once.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from edgora.adapters.anvil_chain import AnvilChain, start_anvil
from edgora.adapters.chain_deploy import deploy_settlement
from edgora.adapters.contract_chain import interface
from edgora.crypto.sign import SigningKey
from edgora.lab.certified import Quorum
from edgora.ports.chain import Mined
from edgora.wire.eip712 import Domain
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Phase, Vote
from edgora.wire.settlement import (
    Batch,
    Exit,
    Line,
    LockLine,
    Payload,
    Section,
    ServerRow,
    Voucher,
    certificate_arguments,
    encode_payload,
    line_amount,
    lock_key,
    market_address,
    payload_hash,
)  # fmt: skip

__all__ = ["GOALS", "MUST", "PAPER_GAS", "gas_json", "measure_gas", "measure_on_fresh_anvil", "ratios"]

MUST: Mapping[str, int] = {
    "deploy": 2_700_000, "register": 145_000, "deposit_first": 46_500, "deposit_later": 29_500, "open": 47_500,
    "refund": 33_000, "withdraw": 39_500, "request_exit": 29_000, "request_exit_for": 35_500, "finish_exit": 37_000,
    "settle_1": 83_000, "settle_10x10": 203_000, "settle_100x100": 1_220_000, "settle_100x10": 245_000,
    "settle_1000x10": 665_000, "settle_1_lock": 74_000, "settle_10_locks": 126_000, "settle_100_locks": 615_000,
    "more_13_validators": 28_500, "more_link": 11_200, "check_4": 21_500, "check_13": 43_500,
    "advance_epoch_4": 137_000, "advance_epoch_13": 280_000, "slash": 58_000,
}  # fmt: skip
"""Above these the contract is too dear: the test fails. n = 4 validators, 256 receipts, 4 servers unless named."""

GOALS: Mapping[str, int] = {
    "deploy": 2_400_000, "open": 46_500, "refund": 31_000, "withdraw": 37_000, "settle_1": 76_000,
    "settle_10x10": 188_000, "settle_100x100": 1_145_000, "settle_100x10": 225_000, "settle_1000x10": 605_000,
    "settle_100_locks": 575_000, "more_13_validators": 27_000, "check_4": 18_500, "check_13": 39_500,
}  # fmt: skip

PAPER_GAS = 170_948 + 3_904_827
"""CreationTrade + Trading as the BaaS paper prints them, one trade."""

_TIME_S = 2_000_000_000
_RECEIPTS = 256
_LAMBDA_BPS = 1_000
_EXIT_DELAY_S = 7_200
_STAKE = 10**18
_GENESIS = keccak(b"edgora gas table")


class _Draw:
    """Seeded integers, equal in every Python."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self._count = 0

    def below(self, limit: int) -> int:
        self._count += 1
        return int.from_bytes(keccak(self._seed + self._count.to_bytes(8, "big")), "big") % limit

    def line(self, servers: int) -> Line:
        """A task of 10^7 .. 10^10 fuel at 10^3 .. 10^5 gwei/Mfuel."""
        fuel = 10 ** (7 + self.below(3)) * (1 + self.below(9)) + self.below(10**6)
        return Line(self.below(servers), self.below(servers), fuel, 1_000 + self.below(99_000))

    def rows(self, servers: int) -> tuple[ServerRow, ...]:
        return tuple(ServerRow(id, 1_000 + self.below(60_000), 500 + self.below(60_000)) for id in range(servers))


class _Case(NamedTuple):
    """A settle to measure: so many tasks of so many UEs, or from so many locks."""

    name: str
    tasks: int = 0
    ues: int = 0
    locks: int = 0
    remainder: int = 0
    """Wei that each lock keeps."""


_CASES = (
    _Case("settle_1", 1, 1), _Case("settle_10x10", 10, 10), _Case("settle_100x100", 100, 100),
    _Case("settle_100x10", 100, 10), _Case("settle_1000x10", 1_000, 10), _Case("settle_1_lock", locks=1),
    _Case("settle_10_locks", locks=10), _Case("settle_100_locks", locks=100),
    _Case("settle_100_locks_with_remainders", locks=100, remainder=10**15),
)  # fmt: skip


@dataclass
class _Bench:
    """One deployment with its validators registered as servers, and a clock that we set."""

    chain: AnvilChain
    quorum: Quorum
    domain: Domain
    chain_id: int
    relayer: SigningKey
    deploy_gas: int = 0
    register_gas: list[int] = field(default_factory=list)
    """The first server also opens the counters' word."""
    now_s: int = _TIME_S

    async def tick(self, seconds: int = 10) -> None:
        """Fix the time of the next block."""
        self.now_s += seconds
        await self.chain.rpc("evm_setNextBlockTimestamp", self.now_s)

    async def fund(self, address: bytes, wei: int = 10**24) -> None:
        await self.chain.rpc("anvil_setBalance", "0x" + address.hex(), hex(wei))

    def certified(self, batch_id: int, task_root: bytes, payload: bytes) -> Batch:
        return Batch(self.chain_id, self.chain.market, batch_id, task_root, payload_hash(payload))

    async def settle(self, payload: Payload, *, links: int = 0) -> Mined:
        """Certify and settle as batch 1; the receipt is the last but one of 256."""
        packed, root = encode_payload(payload), keccak(b"edgora gas tasks")
        proof = self.quorum.settlement(
            self.certified(1, root, packed), receipts=_RECEIPTS, leaf=_RECEIPTS - 2, links=links
        )
        await self.tick()
        return await self.chain.settle(self.relayer, 1, root, packed, proof)

    @asynccontextmanager
    async def untouched(self) -> AsyncIterator[None]:
        """What happens inside is undone."""
        snapshot, now = await self.chain.rpc("evm_snapshot"), self.now_s
        try:
            yield
        finally:
            await self.chain.rpc("evm_revert", snapshot)
            self.now_s = now


@asynccontextmanager
async def _deployed(url: str, validators: int) -> AsyncIterator[_Bench]:
    """A contract with so many validators, each a server with stake; gone from the chain afterwards."""
    deployer = SigningKey.derived(f"gas deployer {validators}")
    keys = tuple(SigningKey.derived(f"gas validator {index}") for index in range(validators))
    chain = AnvilChain(url, market_address(deployer.address))
    chain_id = await chain.chain_id()
    bench = _Bench(
        chain=chain,
        quorum=Quorum(keys, Domain.ledger(7, _GENESIS)),
        domain=Domain.market(chain_id, chain.market, _GENESIS),
        chain_id=chain_id,
        relayer=SigningKey.derived("gas relayer"),
    )
    try:
        async with bench.untouched():
            await _set_up(bench, deployer)
            yield bench
    finally:
        await chain.close()


async def _set_up(bench: _Bench, deployer: SigningKey) -> None:
    chain, keys = bench.chain, bench.quorum.keys
    for key in (deployer, bench.relayer, *keys):
        await bench.fund(key.address)
    await bench.tick()
    deployment = await deploy_settlement(
        chain, deployer, bench.quorum.addresses, 7, _GENESIS, _LAMBDA_BPS, _EXIT_DELAY_S, _STAKE, 2 * _EXIT_DELAY_S
    )
    block = await chain.rpc("eth_getBlockByNumber", hex(deployment.block), False)
    bench.deploy_gas = int(block["gasUsed"], 16)
    for key in keys:
        await bench.tick()
        registered = await chain.register(key, key.address, keccak(key.address), _STAKE)
        bench.register_gas.append(registered.gas_used)


async def _ue(bench: _Bench, number: int) -> SigningKey:
    key = SigningKey.derived(f"gas ue {number}")
    await bench.fund(key.address)
    await bench.tick()
    await bench.chain.deposit_for(key, key.address, 10**20)
    return key


def _section(bench: _Bench, key: SigningKey, lines: Sequence[Line]) -> Section:
    cap = sum(map(line_amount, lines)) + 10**17
    voucher = Voucher(cap, _TIME_S + 86_400)
    return Section(key.sign(voucher.digest(bench.domain)), voucher.cap, voucher.valid_until, tuple(lines))


async def _case_payload(bench: _Bench, case: _Case) -> Payload:
    """The batch of a case, with every deposit and lock that it draws on."""
    draw = _Draw(case.name)
    servers = 1 if case.tasks + case.locks == 1 else 4
    sections = []
    for number in range(case.ues):
        key = await _ue(bench, number)
        sections.append(_section(bench, key, [draw.line(servers) for _ in range(case.tasks // case.ues)]))
    locks = []
    for number in range(case.locks):
        ue = SigningKey.derived("gas lock ue")
        await bench.fund(ue.address)
        line, offer = draw.line(servers), keccak(b"gas offer" + bytes([number]))
        await bench.tick()
        # Used up exactly, as a task that runs to its limit does: clearing the word earns the EVM's refund.
        await bench.chain.open(ue, offer, _TIME_S + 86_400, line_amount(line) + case.remainder)
        locks.append(LockLine(lock_key(ue.address, offer), line))
    return Payload(draw.rows(servers), tuple(sections), tuple(locks))


async def _measure_settles(bench: _Bench) -> dict[str, int]:
    table = {}
    for case in _CASES:
        async with bench.untouched():
            payload = await _case_payload(bench, case)
            table[case.name] = (await bench.settle(payload)).gas_used
    async with bench.untouched():
        payload = await _case_payload(bench, _CASES[0])
        linked = (await bench.settle(payload, links=1)).gas_used
        table["more_link"] = linked - table["settle_1"]
    return table


async def _measure_market(bench: _Bench) -> dict[str, int]:
    """Deposits, locks, exits, withdrawals: the calls of UEs and of servers' owners."""
    chain, table = bench.chain, {}
    ue = SigningKey.derived("gas market ue")
    await bench.fund(ue.address)
    await bench.tick()
    table["deposit_first"] = (await chain.deposit_for(bench.relayer, ue.address, 10**19)).gas_used
    await bench.tick()
    table["deposit_later"] = (await chain.deposit_for(bench.relayer, ue.address, 10**19)).gas_used
    offer = keccak(b"gas offer")
    await bench.tick()
    table["open"] = (await chain.open(ue, offer, bench.now_s + 600, 10**16)).gas_used
    async with bench.untouched():
        await bench.tick(601)
        table["refund"] = (await chain.refund(ue, ue.address, offer)).gas_used
    await bench.tick(601)
    table["refund_by_another"] = (await chain.refund(bench.relayer, ue.address, offer)).gas_used
    async with bench.untouched():
        await bench.tick()
        table["request_exit"] = (await chain.request_exit(ue)).gas_used
        async with bench.untouched():
            await bench.tick(_EXIT_DELAY_S)
            table["finish_exit"] = (await chain.finish_exit(ue, ue.address)).gas_used
        await bench.tick(_EXIT_DELAY_S)
        table["finish_exit_by_another"] = (await chain.finish_exit(bench.relayer, ue.address)).gas_used
    async with bench.untouched():
        exit_ = Exit(0, _TIME_S + 86_400)
        signature = ue.sign(exit_.digest(bench.domain))
        await bench.tick()
        carried = await chain.request_exit_for(bench.relayer, ue.address, exit_.valid_until, signature)
        table["request_exit_for"] = carried.gas_used
    async with bench.untouched():
        await bench.settle(await _case_payload(bench, _CASES[0]))
        owner = bench.quorum.keys[0]
        await bench.tick()
        table["withdraw"] = (await chain.withdraw(owner, 0, owner.address)).gas_used
    return table


async def _measure_slash(bench: _Bench) -> int:
    accused = bench.quorum.keys[1]
    hashes = (keccak(b"gas block a"), keccak(b"gas block b"))
    votes = [Vote(Phase.COMMIT, 0, 3, 77, block).digest(bench.quorum.domain) for block in hashes]
    pair = [(block, accused.sign(digest)) for block, digest in zip(hashes, votes, strict=True)]
    async with bench.untouched():
        await bench.tick()
        slashed = await bench.chain.slash(bench.relayer, Phase.COMMIT, 0, 3, 77, pair[0], pair[1])
    return slashed.gas_used


async def _measure_epoch(bench: _Bench) -> int:
    # The same servers in another order: registered, staked, and a new page all the same.
    following, params = bench.quorum.addresses[::-1], keccak(b"gas params")
    header, certificate = bench.quorum.hand_over(2_047, following, params)
    async with bench.untouched():
        await bench.tick()
        advanced = await bench.chain.advance_epoch(bench.relayer, header, certificate, following, params)
    return advanced.gas_used


def _meter(market: bytes) -> bytes:
    """Code that calls the contract with its own calldata and returns the gas that the call took; the address is warm.

    PUSH20 market EXTCODESIZE POP | CALLDATASIZE 0 0 CALLDATACOPY | GAS | 0 0 CALLDATASIZE 0 PUSH20 market GAS
    STATICCALL | GAS | SWAP1 PUSH1 ok JUMPI 0 0 REVERT | JUMPDEST SWAP1 SUB 0 MSTORE 32 0 RETURN
    """
    head = bytes.fromhex("73") + market + bytes.fromhex("3b50365f5f375a5f5f365f73") + market
    tail = bytes.fromhex("5afa5a90")
    target = len(head) + len(tail) + 6
    return head + tail + bytes((0x60, target)) + bytes.fromhex("575f5ffd5b90035f5260205ff3")


async def _measure_check(bench: _Bench) -> int:
    """Certificate and receipt check of one task's audit: everything but the task's own path, which is empty."""
    leaf = keccak(b"gas task")
    batch = Batch(bench.chain_id, bench.chain.market, 1, leaf, keccak(b"gas payload"))
    proof = bench.quorum.settlement(batch, receipts=_RECEIPTS, leaf=_RECEIPTS - 2)
    data = interface().call(
        "verifyTask", 1, leaf, batch.payload_hash, certificate_arguments(proof), leaf, 0, 1, []
    )  # fmt: skip
    meter = "0x" + keccak(b"gas meter")[12:].hex()
    call = {"to": meter, "data": "0x" + data.hex(), "gas": hex(10**6)}
    overrides = {meter: {"code": "0x" + _meter(bench.chain.market).hex()}}
    answer: str = await bench.chain.rpc("eth_call", call, "latest", overrides)
    return int(answer, 16)


async def measure_gas(anvil_url: str) -> dict[str, int]:
    """The whole table, by the names of MUST. The chain's time must lie before 2033."""
    async with _deployed(anvil_url, 4) as bench:
        table = {
            "deploy": bench.deploy_gas, "register": bench.register_gas[-1], "register_first": bench.register_gas[0],
        }  # fmt: skip
        table |= await _measure_market(bench)
        table |= await _measure_settles(bench)
        table["check_4"] = await _measure_check(bench)
        table["advance_epoch_4"] = await _measure_epoch(bench)
        table["slash"] = await _measure_slash(bench)
    async with _deployed(anvil_url, 13) as bench:
        async with bench.untouched():
            more = (await bench.settle(await _case_payload(bench, _CASES[0]))).gas_used
            table["more_13_validators"] = more - table["settle_1"]
        table["check_13"] = await _measure_check(bench)
        table["advance_epoch_13"] = await _measure_epoch(bench)
    return table


def measure_on_fresh_anvil() -> dict[str, int]:
    """The table of an anvil started for it. Raises Unavailable if there is none."""
    with start_anvil() as anvil:
        return asyncio.run(measure_gas(anvil.url))


def gas_json(table: Mapping[str, int]) -> str:
    """The table as it is committed."""
    return json.dumps(dict(table), indent=1) + "\n"


def ratios(table: Mapping[str, int]) -> dict[str, tuple[float, float]]:
    """Gas of a trade against the BaaS paper's 4,075,775 and against its two functions written plainly (251,440).

    A trade in the lock lane opens and settles alone of a hundred; in the voucher lane its deposit is amortised elsewhere.
    """
    plain = 188_557 + 62_883
    trades = {
        "lock lane": table["open"] + table["settle_100_locks"] / 100,
        "voucher lane, 100 tasks of 100 UEs": table["settle_100x100"] / 100,
        "voucher lane, 100 tasks of 10 UEs": table["settle_100x10"] / 100,
        "voucher lane, 1000 tasks of 10 UEs": table["settle_1000x10"] / 1000,
    }
    return {name: (PAPER_GAS / gas, plain / gas) for name, gas in trades.items()}
