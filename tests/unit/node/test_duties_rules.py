"""Rules of single duties with time in the test's hand: turns, depth of facts, reorganisations, registration order."""

from types import SimpleNamespace
from typing import Any

import pytest

from edgora.adapters.node_db import NodeDb
from edgora.crypto.sign import SigningKey
from edgora.node.duties.chain_facts import ChainFacts
from edgora.node.duties.registration import Registration
from edgora.node.duties.settle import STEP_MS, Settle
from edgora.ports.chain import ChainBlock
from edgora.wire.errors import Broken, Unavailable
from edgora.wire.hashing import keccak
from edgora.wire.metadata import ServerMetadata


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms


def post(index: int = 0, *, chain: Any = None, chain_id: int = 31_337, confirmations: int | None = None) -> Any:
    genesis = SimpleNamespace(
        validators=range(4), chain_id=chain_id, market_address=b"\5" * 20, min_stake_gwei=3,
        market=SimpleNamespace(margin_ms=20_000),
    )  # fmt: skip
    return SimpleNamespace(
        index=index, genesis=genesis, clock=Clock(), chain=chain, journal=NodeDb(None),
        settings=SimpleNamespace(confirmations=confirmations), keys=SimpleNamespace(signer=SigningKey.derived("duty")),
    )  # fmt: skip


# ---- turns ---------------------------------------------------------------------------------------------------------------


def test_turns_come_one_after_the_other_from_the_batchs_number() -> None:
    duties = [Settle(post(index), None, None) for index in range(4)]  # type: ignore[arg-type]
    for elapsed, whose in ((0, {2}), (STEP_MS, {2, 3}), (2 * STEP_MS, {2, 3, 0}), (3 * STEP_MS, {2, 3, 0, 1})):
        for duty in duties:
            duty._post.clock.ms = 1_000_000 + elapsed  # type: ignore[attr-defined]
        assert {i for i, duty in enumerate(duties) if duty._turn(6, "frozen", 2)} == whose
    assert not duties[1]._turn(6, "certified", 2), "each stage has turns of its own"


# ---- how deep a fact must be ---------------------------------------------------------------------------------------------


class Blocks:
    """A chain that a test can extend and reorganise."""

    def __init__(self) -> None:
        self.hashes: dict[int, bytes] = {}

    def at(self, number: int, fork: str = "a") -> ChainBlock:
        self.hashes[number] = keccak(f"{fork}{number}".encode())
        return ChainBlock(number, self.hashes[number], 0)

    async def block(self, number: int) -> ChainBlock | None:
        found = self.hashes.get(number)
        return None if found is None else ChainBlock(number, found, 0)


async def test_on_a_dev_chain_a_block_must_be_two_seconds_old_and_still_there() -> None:
    chain = Blocks()
    facts = ChainFacts(post(chain=chain))
    clock: Any = facts._post.clock
    assert await facts._deep_enough(chain.at(5)) == 0
    clock.ms += 1_999
    assert await facts._deep_enough(chain.at(6)) == 0
    clock.ms += 1
    assert await facts._deep_enough(chain.at(7)) == 5
    chain.at(6, "b")
    latest = chain.at(7, "b")
    clock.ms += 1_999
    assert await facts._deep_enough(latest) == 5, "6 was replaced and 7 is a new block"
    clock.ms += 2_000
    assert await facts._deep_enough(latest) == 7


@pytest.mark.parametrize(("confirmations", "deep"), [(None, 88), (3, 97)])
async def test_elsewhere_blocks_on_top_count(confirmations: int | None, deep: int) -> None:
    chain = Blocks()
    facts = ChainFacts(post(chain=chain, chain_id=1, confirmations=confirmations))
    assert await facts._deep_enough(chain.at(100)) == deep


# ---- registration --------------------------------------------------------------------------------------------------------


class Contract:
    def __init__(self) -> None:
        self.code: bytes | None = b"\7" * 32
        self.id = 31_337
        self.servers: dict[bytes, int] = {}
        self.away = False
        self.stakes: list[int] = []

    async def chain_id(self) -> int:
        if self.away:
            raise Unavailable("away")
        return self.id

    async def code_hash(self, _: bytes) -> bytes | None:
        return self.code

    async def server_of(self, signer: bytes) -> int | None:
        return self.servers.get(signer)

    async def server_count(self) -> int:
        return len(self.servers)

    async def register(self, key: SigningKey, owner: bytes, meta_hash: bytes, stake: int) -> None:
        assert owner == key.address
        self.servers[key.address] = len(self.servers)
        self.stakes.append(stake)


DOCUMENT = ServerMetadata("http://a", "http://a", b"rsa", b"link")


async def test_a_node_registers_when_its_turn_by_genesis_has_come() -> None:
    contract = Contract()
    duty = Registration(post(1, chain=contract), DOCUMENT, b"\7" * 32)
    assert not await duty._try()
    assert "waits for server 0" in duty.says
    contract.servers[b"first"] = 0
    contract.away = True
    assert not await duty._try()
    contract.away = False
    assert not await duty._try()
    assert await duty._try()
    assert duty.says == "registered as server 1"
    assert contract.stakes == [3 * 10**9]


async def test_what_is_not_our_deployment_stops_the_node() -> None:
    contract = Contract()
    duty = Registration(post(1, chain=contract), DOCUMENT, b"\7" * 32)
    contract.code = None
    assert not await duty._try()
    contract.code = b"\1" * 32
    with pytest.raises(Broken):
        await duty._try()
    contract.code, contract.id = b"\7" * 32, 1
    with pytest.raises(Broken):
        await duty._try()
    contract.id = 31_337
    contract.servers = {b"a": 0, b"b": 1}
    with pytest.raises(Broken, match="id taken"):
        await duty._try()
    contract.servers = {SigningKey.derived("duty").address: 0}
    with pytest.raises(Broken, match="knows our signer as server 0"):
        await duty._try()
