"""The contract on revm, in this process, for tests of state: thousands of calls a second.

revm keeps storage warm between calls, so nothing here may look at gas prices; block time is whatever `now` says.
EDGORA_TEST_ARTIFACT names another artifact file to run the same tests against: that is how mutants are hunted. Who hunts
wants to know that a test fails, not the smallest way to make it fail.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import Phase
from pyrevm import EVM, AccountInfo, BlockEnv, CfgEnv, Env

from chain.certify import Certified, Quorum, certify, quorum_of
from edgora.adapters.contract_chain import Interface, Log
from edgora.contracts import Artifact, Parameters, initcode, settlement
from edgora.crypto.sign import SigningKey
from edgora.wire.eip712 import Domain
from edgora.wire.hashing import keccak
from edgora.wire.settlement import (
    Line,
    Payload,
    Section,
    ServerRow,
    TaskLeaf,
    Voucher,
    certificate_arguments,
    epoch_arguments,
    line_amount,
    market_address,
)

START_S = 2_000_000_000
CHAIN_ID = 31337
LAMBDA_BPS = 1_000
EXIT_DELAY_S = 7_200
UNBOND_DELAY_S = 14_400
STAKE = 10**18
GENESIS = keccak(b"edgora test genesis")
RICH = SigningKey.derived("rich")
PHASES = (Phase.generate,) if "EDGORA_TEST_ARTIFACT" in os.environ else tuple(Phase)

# The usual batch: one task that server 0 received and server 1 computed.
ROWS = (ServerRow(0, 1_000, 900), ServerRow(1, 2_000, 2_500))
LINE = Line(0, 1, 10**6, 50)
AMOUNT = line_amount(LINE)
OFFER = keccak(b"offer")

_REVERT = re.compile(r"output: 0x([0-9a-f]*)")


class Refused(Exception):
    """The contract reverted with this error; OutOfGas if the EVM stopped instead."""

    def __init__(self, rule: str, values: tuple[Any, ...] = ()) -> None:
        super().__init__(f"{rule}{values}")
        self.rule = rule
        self.values = values


def refusal_of(call: Callable[[], object]) -> Refused | None:
    """What the call was refused with; None if it was done."""
    try:
        call()
    except Refused as refused:
        return refused
    return None


def artifact() -> Artifact:
    named = os.environ.get("EDGORA_TEST_ARTIFACT")
    return Artifact.from_json(Path(named).read_text("utf-8")) if named else settlement()


def hexed(address: bytes) -> str:
    return "0x" + address.hex()


class World:
    """One deployment with its validators, a clock, and somebody who pays."""

    def __init__(
        self,
        *,
        validators: int = 4,
        lambda_bps: int = LAMBDA_BPS,
        chain_id: int = CHAIN_ID,
        genesis: bytes = GENESIS,
        deployer: str = "deployer",
        min_stake: int = STAKE,
        registered: int | None = None,
    ) -> None:
        self.artifact = artifact()
        self.abi = Interface(self.artifact.abi)
        self.chain_id = chain_id
        self.now = START_S
        self.block = 1
        self.quorum = quorum_of(validators, Domain.ledger(7, genesis))
        self.evm = EVM(env=Env(cfg=CfgEnv(chain_id=chain_id), block=self._block_env()), spec_id="CANCUN")
        key = SigningKey.derived(deployer)
        self.parameters = Parameters(
            self.quorum.addresses, 7, genesis, lambda_bps, EXIT_DELAY_S, min_stake, UNBOND_DELAY_S
        )
        self.evm.set_balance(hexed(key.address), 10**30)
        self.evm.set_balance(hexed(RICH.address), 10**40)
        self.market = bytes.fromhex(self.evm.deploy(hexed(key.address), initcode(self.parameters, self.artifact))[2:])
        assert self.market == market_address(key.address)
        self.domain = Domain.market(chain_id, self.market, genesis)
        self.logs: list[tuple[str, tuple[Any, ...]]] = []
        self.batch_id = 0
        for index in range(validators if registered is None else registered):
            self.register(self.quorum.keys[index])

    def _block_env(self) -> BlockEnv:
        return BlockEnv(number=self.block, timestamp=self.now, gas_limit=2**40, basefee=0)

    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        self.block += 1
        self.evm.set_block_env(self._block_env())

    # ---- calls

    def fund(self, address: bytes, wei: int = 10**30) -> None:
        self.evm.set_balance(hexed(address), wei)

    def balance(self, address: bytes) -> int:
        return self.evm.get_balance(hexed(address))

    def code_at(self, address: bytes, code: bytes) -> None:
        """Put a contract there."""
        self.evm.insert_account_info(hexed(address), AccountInfo(code=code))

    def raw(self, sender: bytes, data: bytes, *, wei: int = 0, gas: int | None = None, static: bool = False) -> bytes:
        self.evm.reset_transient_storage()
        try:
            answer: bytes = self.evm.message_call(
                hexed(sender), hexed(self.market), data, value=wei, gas=gas, is_static=static
            )
        except RuntimeError as error:
            found = _REVERT.search(str(error))
            if found is None:
                raise Refused("OutOfGas" if "OutOfGas" in str(error) else str(error)) from None
            raise self._refused(bytes.fromhex(found[1])) from None
        return answer

    def _refused(self, data: bytes) -> Refused:
        if data[:4] == keccak(b"Panic(uint256)")[:4]:
            return Refused("Panic", (data[-1],))
        refusal = self.abi.refusal(data)
        words = [data[at : at + 32] for at in range(4, len(data), 32)]
        return Refused(refusal.rule, tuple(int.from_bytes(word, "big") for word in words))

    def send(
        self, sender: SigningKey | bytes, name: str, *arguments: object, wei: int = 0, gas: int | None = None
    ) -> Any:
        """A transaction. Returns what the function returns; `logs` holds what it emitted."""
        address = sender if isinstance(sender, bytes) else sender.address
        data = self.raw(address, self.abi.call(name, *arguments), wei=wei, gas=gas)
        assert self.evm.result is not None
        self.logs = []
        for log in self.evm.result.logs:
            topics, body = log.data
            event = self.abi.event(Log(self.block, b"", 0, 0, tuple(topics), body))
            assert event is not None
            self.logs.append(event)
        result = self.abi.result(name, data)
        return result[0] if len(result) == 1 else result

    def view(self, name: str, *arguments: object) -> Any:
        result = self.abi.result(name, self.raw(bytes(20), self.abi.call(name, *arguments), static=True))
        return result[0] if len(result) == 1 else result

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """Arguments of each log of that name in the last transaction."""
        return [values for event, values in self.logs if event == name]

    # ---- scenes

    def register(self, key: SigningKey, *, owner: bytes | None = None, stake: int = STAKE) -> int:
        self.fund(key.address)
        return int(self.send(key, "register", owner or key.address, keccak(key.address), wei=stake))

    def ue(self, label: str, wei: int = 10**18) -> SigningKey:
        """A UE with a deposit that somebody else made."""
        key = SigningKey.derived(label)
        if wei:
            self.send(RICH, "depositFor", key.address, wei=wei)
        return key

    def section(
        self, key: SigningKey, lines: Sequence[Line], *, cap: int = 10**18, valid_until: int | None = None
    ) -> Section:
        voucher = Voucher(cap, START_S + 86_400 if valid_until is None else valid_until)
        return Section(key.sign(voucher.digest(self.domain)), voucher.cap, voucher.valid_until, tuple(lines))

    def one_section(self, key: SigningKey, *lines: Line, **terms: int) -> Payload:
        """The usual batch, or these lines, of one UE."""
        return Payload(ROWS, (self.section(key, lines or (LINE,), **terms),))

    def lock(self, key: SigningKey, offer: bytes, wei: int, *, deadline: int | None = None) -> bytes:
        """Open a lock; returns its key."""
        self.fund(key.address)
        self.send(key, "open", offer, self.now + 600 if deadline is None else deadline, wei=wei)
        return bytes(self.view("lockKey", key.address, offer))

    def certified(
        self, payload: Payload | bytes, *, batch_id: int | None = None, quorum: Quorum | None = None,
        tasks: Sequence[TaskLeaf] = (), links: int = 0, receipts: int = 1, leaf: int = 0,
    ) -> Certified:  # fmt: skip
        return certify(
            quorum or self.quorum, self.chain_id, self.market, self.batch_id + 1 if batch_id is None else batch_id,
            payload, tasks=tasks, links=links, receipts=receipts, leaf=leaf,
        )  # fmt: skip

    def settle(self, what: Payload | bytes | Certified, *, sender: SigningKey = RICH, gas: int | None = None) -> None:
        """Settle a payload as the next batch, or a batch that was certified before."""
        certified = what if isinstance(what, Certified) else self.certified(what)
        self.send(
            sender, "settle", certified.batch_id, certified.task_root, certified.payload,
            certificate_arguments(certified.proof), gas=gas,
        )  # fmt: skip
        self.batch_id = certified.batch_id

    def advance(self, following: Sequence[SigningKey], *, height: int = 2_047) -> None:
        """Hand over to the next validators."""
        addresses = [key.address for key in following]
        header, certificate = self.quorum.hand_over(height, addresses, keccak(b"params"))
        self.send(RICH, "advanceEpoch", *epoch_arguments(header, certificate, addresses, keccak(b"params")))
        self.quorum = Quorum(tuple(following), self.quorum.domain, self.quorum.epoch + 1)
