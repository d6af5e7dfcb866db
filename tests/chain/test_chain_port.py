"""One suite for every implementation of `ports.chain.Chain`: anvil over JSON-RPC, py-evm in this process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chain.certify import certify, quorum_of
from edgora.adapters.anvil_chain import Anvil, AnvilChain, find_anvil, start_anvil
from edgora.adapters.chain_deploy import (
    check_deployment,
    deploy_settlement,
    read_deployment,
    write_deployment,
)
from edgora.adapters.contract_chain import ContractChain
from edgora.adapters.evm_chain import EvmChain
from edgora.crypto.sign import SigningKey
from edgora.ports.chain import Chain, FoundFact
from edgora.wire import market as facts
from edgora.wire.codec import from_u96
from edgora.wire.eip712 import Domain
from edgora.wire.errors import Conflict, NotFound, RuleRefused, Unavailable, WireError
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Vote
from edgora.wire.settlement import (
    Exit,
    Line,
    LockLine,
    Payload,
    Section,
    ServerRow,
    Voucher,
    line_amount,
    lock_key,
    market_address,
    split,
)

GENESIS = keccak(b"chain port genesis")
DEPLOYER, RELAYER, UE = (SigningKey.derived(label) for label in ("port deployer", "port relayer", "port ue"))
LEDGER = Domain.ledger(7, GENESIS)
QUORUM = quorum_of(4, LEDGER)
SETTINGS = (QUORUM.addresses, 7, GENESIS, 1_000, 60, 10**18, 120)
MONEY = 10**21
FUNDED = [DEPLOYER, RELAYER, UE, *QUORUM.keys]


class Clock:
    """Time that passes when somebody sleeps; starts where anvil cannot be."""

    def __init__(self) -> None:
        self.now = 2_000_000_000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def anvil():
    if find_anvil() is None:
        yield None
        return
    with start_anvil() as running:
        yield running


class Bench:
    """A chain, and how to move its time."""

    def __init__(self, chain: ContractChain, clock: Clock | None) -> None:
        self.chain: Chain = chain
        self._clock = clock
        self._anvil = chain if isinstance(chain, AnvilChain) else None

    async def pass_time(self, seconds: int) -> None:
        if self._clock is not None:
            self._clock.now += seconds
            await self.chain.latest()
        elif self._anvil is not None:
            await self._anvil.rpc("evm_increaseTime", seconds)
            await self._anvil.rpc("evm_mine")


@pytest.fixture(params=["anvil", "evm"])
async def bench(request: pytest.FixtureRequest, anvil: Anvil | None) -> AsyncIterator[Bench]:
    market = market_address(DEPLOYER.address)
    if request.param == "evm":
        clock = Clock()
        funded = {key.address: MONEY for key in FUNDED}
        inside = EvmChain(market, funded, clock=clock, sleep=clock.sleep)
        yield Bench(inside, clock)
        await inside.close()
        return
    if anvil is None:
        pytest.skip("no anvil")
    chain = AnvilChain(anvil.url, market)
    snapshot = await chain.rpc("evm_snapshot")
    for key in FUNDED:
        await chain.rpc("anvil_setBalance", "0x" + key.address.hex(), hex(MONEY))
    yield Bench(chain, None)
    await chain.rpc("evm_revert", snapshot)
    await chain.close()


async def deployed(bench: Bench) -> Chain:
    await deploy_settlement(bench.chain, DEPLOYER, *SETTINGS)
    for key in QUORUM.keys:
        await bench.chain.register(key, key.address, keccak(key.address), 10**18)
    return bench.chain


async def all_facts(chain: Chain) -> list[FoundFact]:
    return list(await chain.events(0, (await chain.latest()).number))


async def test_deployment_is_idempotent_and_known_again(bench: Bench, tmp_path: Path) -> None:
    chain = bench.chain
    assert await chain.code_hash(chain.market) is None
    first = await deploy_settlement(chain, DEPLOYER, *SETTINGS)
    second = await deploy_settlement(chain, DEPLOYER, *SETTINGS)
    assert first.block > 0
    assert (second.block, second.code_hash, second.address) == (0, first.code_hash, "0x" + chain.market.hex())
    path = tmp_path / "deployment.json"
    write_deployment(path, first)
    assert read_deployment(path) == first
    await check_deployment(chain, first)
    assert await chain.validators() == QUORUM.addresses
    assert (await chain.head()).epoch == 0


async def test_other_parameters_at_the_same_address_are_refused(bench: Bench) -> None:
    await deploy_settlement(bench.chain, DEPLOYER, *SETTINGS)
    with pytest.raises(Conflict, match="code hash"):
        await deploy_settlement(bench.chain, DEPLOYER, *SETTINGS[:3], 2_000, *SETTINGS[4:])


async def test_used_deployer_is_refused(bench: Bench) -> None:
    await bench.chain.transfer(DEPLOYER, UE.address, 1)
    with pytest.raises(Conflict, match="fresh key"):
        await deploy_settlement(bench.chain, DEPLOYER, *SETTINGS)


async def test_parameters_that_the_constructor_refuses_name_the_rule(bench: Bench) -> None:
    with pytest.raises(RuleRefused) as refused:
        await deploy_settlement(bench.chain, DEPLOYER, QUORUM.addresses[:3], *SETTINGS[1:])
    assert refused.value.rule == "ConsortiumBadValidators"


async def test_chain_facts_of_a_whole_life(bench: Bench) -> None:
    """Every call once, and the facts that the ledger is told, in chain order."""
    chain = await deployed(bench)
    offer, spare = keccak(b"offer"), keccak(b"spare")
    chain_id = await chain.chain_id()
    domain = Domain.market(chain_id, chain.market, GENESIS)
    await chain.deposit_for(RELAYER, UE.address, 10**18)
    now = (await chain.latest()).time_s
    await chain.open(UE, offer, now + 1_000, 10**16)
    await chain.open(UE, spare, now + 1_000, 5)
    line = Line(0, 1, 10**6, 50)
    voucher = Voucher(10**17, now + 1_000)
    good = Section(UE.sign(voucher.digest(domain)), voucher.cap, voucher.valid_until, (line,))
    poor = SigningKey.derived("poor")
    bad = Section(poor.sign(voucher.digest(domain)), voucher.cap, voucher.valid_until, (line,))
    keys = [lock_key(UE.address, offer), keccak(b"no such lock")]
    payload = Payload(
        (ServerRow(0, 5, 6), ServerRow(1, 7, 8)), (good, bad), tuple(LockLine(key, line) for key in keys)
    )  # fmt: skip
    batch = certify(QUORUM, chain_id, chain.market, 1, payload, receipts=3, leaf=1, links=1)
    settled = await chain.settle(RELAYER, *batch)
    amount = line_amount(line)
    fee, rest = split(amount, 1_000)
    assert (await chain.earned(1)) == (2 * rest, 7, 8, 2)
    assert (await chain.earned(0)).balance == 2 * fee
    assert (await chain.account(UE.address))[:2] == (10**18 - amount, amount)
    assert await chain.lock_of(keys[0]) == (10**16 - amount, 0)
    assert (await chain.head()).batch_id == 1
    await chain.refund(RELAYER, UE.address, offer)
    exit_ = Exit(0, now + 1_000)
    await chain.request_exit_for(RELAYER, UE.address, exit_.valid_until, UE.sign(exit_.digest(domain)))
    when = (await chain.account(UE.address)).exit_at_s
    await bench.pass_time(61)
    await chain.finish_exit(RELAYER, UE.address)
    await chain.request_exit(UE)
    before = await chain.balance(poor.address)
    await chain.withdraw(QUORUM.keys[1], 1, poor.address)
    assert await chain.balance(poor.address) == before + 2 * rest
    await chain.set_meta(QUORUM.keys[0], 0, keccak(b"meta"))
    await chain.advance_epoch(
        RELAYER, *QUORUM.hand_over(127, QUORUM.addresses[::-1], GENESIS), QUORUM.addresses[::-1], GENESIS
    )
    assert await chain.validators() == QUORUM.addresses[::-1]
    await chain.unbond(QUORUM.keys[3], 3)
    hashes = keccak(b"a"), keccak(b"b")
    votes = [(b, QUORUM.keys[2].sign(Vote(2, 0, 0, 9, b).digest(LEDGER))) for b in hashes]
    await chain.slash(RELAYER, 2, 0, 0, 9, votes[0], votes[1])
    server = await chain.server(2)
    assert server is not None
    assert (server.stake, server.signer) == (0, QUORUM.addresses[2])

    found = await all_facts(chain)
    kinds = [type(one.fact.fact) for one in found]
    assert kinds == [
        *[facts.ServerRegistered] * 4, facts.Deposited, facts.OfferOpened, facts.OfferOpened, facts.BatchSettled,
        facts.OfferRefunded, facts.ExitRequested, facts.Exited, facts.ExitRequested, facts.ServerMetaChanged,
        facts.EpochAdvanced, facts.ServerUnbonding, facts.ServerSlashed,
    ]  # fmt: skip
    by_kind = {type(one.fact.fact): one for one in found}
    batch_fact = by_kind[facts.BatchSettled]
    assert batch_fact.fact.fact == facts.BatchSettled(
        1, batch.task_root, (2 * amount).to_bytes(12, "big"), (poor.address,), (keys[1],)
    )  # fmt: skip
    assert (batch_fact.block_number, batch_fact.fact.block_hash) == (settled.block_number, settled.block_hash)
    assert batch_fact.fact.tx_index == settled.tx_index
    block = await chain.block(settled.block_number)
    assert block is not None
    assert block.hash == settled.block_hash
    assert by_kind[facts.ServerMetaChanged].fact.fact == facts.ServerMetaChanged(0, keccak(b"meta"))
    assert by_kind[facts.EpochAdvanced].fact.fact == facts.EpochAdvanced(1, 128)
    assert by_kind[facts.OfferRefunded].fact.fact == facts.OfferRefunded(
        offer, UE.address, (10**16 - amount).to_bytes(12, "big")
    )  # fmt: skip
    assert found[9].fact.fact == facts.ExitRequested(UE.address, when)
    assert from_u96(by_kind[facts.Exited].fact.fact.wei) == 10**18 - amount  # type: ignore[union-attr]
    registered = [one.fact.fact for one in found[:4]]
    assert sorted(fact.id for fact in registered) == [0, 1, 2, 3]  # type: ignore[union-attr]
    half = [one for one in found if one.block_number <= settled.block_number]
    assert list(await chain.events(0, settled.block_number)) == half
    assert list(await chain.events(settled.block_number + 1, found[-1].block_number)) == found[len(half) :]


async def test_refusals_carry_the_contracts_name_for_them(bench: Bench) -> None:
    chain = await deployed(bench)
    with pytest.raises(RuleRefused) as refused:
        await chain.refund(RELAYER, UE.address, keccak(b"none"))
    assert refused.value.rule == "TaskMarketOfferUnknown"
    with pytest.raises(RuleRefused) as refused:
        await chain.register(QUORUM.keys[0], UE.address, bytes(32), 10**18)
    assert refused.value.rule == "ConsortiumSignerTaken"
    chain_id = await chain.chain_id()
    late = certify(QUORUM, chain_id, chain.market, 2, Payload())
    with pytest.raises(RuleRefused) as refused:
        await chain.settle(RELAYER, *late)
    assert refused.value.rule == "SettlementOutOfOrder"
    assert await chain.server(9) is None
    assert await chain.server_of(UE.address) is None
    assert await chain.server_count() == 4


async def test_a_ledgers_larger_certificate_is_cut_to_a_quorum(bench: Bench) -> None:
    chain = await deployed(bench)
    chain_id = await chain.chain_id()
    batch = certify(QUORUM, chain_id, chain.market, 1, Payload((ServerRow(0, 1, 1),)))
    every = QUORUM.certificate(batch.proof.headers[-1], signers=range(4))
    assert len(every.signatures) == 4
    proof = type(batch.proof)(batch.proof.receipt, 0, (), batch.proof.headers, every)
    await chain.settle(RELAYER, 1, batch.task_root, batch.payload, proof)
    assert (await chain.head()).batch_id == 1


async def test_many_sends_of_one_key_at_once_take_a_nonce_each(bench: Bench) -> None:
    chain = await deployed(bench)
    sent = await asyncio.gather(*(chain.deposit_for(RELAYER, UE.address, wei) for wei in range(1, 9)))
    assert len({mined.tx_hash for mined in sent}) == 8
    assert (await chain.account(UE.address)).balance == 36


# ---- what is special to one --------------------------------------------------------------------------------------------


async def test_evm_mines_what_waits_together_and_never_ahead_of_wall_time() -> None:
    clock = Clock()
    chain = EvmChain(
        market_address(DEPLOYER.address), {key.address: MONEY for key in FUNDED}, clock=clock, sleep=clock.sleep
    )
    await deploy_settlement(chain, DEPLOYER, *SETTINGS)
    sent = await asyncio.gather(*(chain.deposit_for(key, UE.address, 1) for key in QUORUM.keys))
    assert len({mined.block_number for mined in sent}) == 1
    assert [mined.tx_index for mined in sent] == [0, 1, 2, 3]
    for _ in range(3):
        await chain.deposit_for(RELAYER, UE.address, 1)
        newest = await chain.latest()
        assert newest.time_s <= clock.now
    blocks = [await chain.block(number) for number in range(newest.number + 1)]
    times = [block.time_s for block in blocks if block is not None]
    assert times == sorted(set(times))
    assert await chain.block(newest.number + 1) is None
    clock.now += 5
    assert (await chain.latest()).time_s == int(clock.now), "time passes although nobody sends"
    assert (await chain.latest()).number == newest.number + 1
    await chain.close()


async def test_unreachable_chain_is_unavailable() -> None:
    chain = AnvilChain("http://127.0.0.1:9", bytes(20))
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        await chain.latest()
    await chain.close()


async def test_missing_or_broken_deployment_file_names_itself(tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    with pytest.raises(NotFound, match=r"deployment\.json"):
        read_deployment(path)
    path.write_text("{}")
    with pytest.raises(WireError, match=r"deployment\.json"):
        read_deployment(path)


def test_anvil_that_cannot_start_says_why(tmp_path: Path) -> None:
    fake = tmp_path / "anvil"
    fake.write_text("#!/bin/sh\necho no such option >&2\nexit 3\n")
    fake.chmod(0o755)
    with pytest.raises(Unavailable, match="no such option"):
        start_anvil(binary=fake, port=1)


def test_anvil_keeps_its_state_in_a_file(tmp_path: Path) -> None:
    if find_anvil() is None:
        pytest.skip("no anvil")
    state = tmp_path / "state.json"

    async def balance(url: str, *, fund: bool) -> int:
        chain = AnvilChain(url, bytes(20))
        if fund:
            await chain.rpc("anvil_setBalance", "0x" + UE.address.hex(), hex(77))
            await chain.rpc("evm_mine")
        found = await chain.balance(UE.address)
        await chain.close()
        return found

    for fund in (True, False):
        with start_anvil(state=state) as running:
            assert asyncio.run(balance(running.url, fund=fund)) == 77
        assert state.exists()
