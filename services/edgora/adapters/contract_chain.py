"""The contract's calls and logs as octets: what every chain adapter shares (ports.chain).

An adapter knows how to run a read, how to get a transaction into a block, and where logs are. Everything else, from
ABI encoding over the names of errors to the grouping of a batch's skips, is here and written once.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, cast

import msgspec
from eth_abi.abi import decode as abi_decode
from eth_abi.abi import encode as abi_encode
from eth_account import Account

from edgora.contracts import settlement
from edgora.crypto.sign import SigningKey
from edgora.ports.chain import AccountView, ChainBlock, EarnedView, FoundFact, HeadView, LockView, Mined, ServerView
from edgora.wire.codec import to_u96
from edgora.wire.errors import RuleRefused
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Certificate, Header, ReceiptProof
from edgora.wire.market import (
    BatchSettled,
    ChainFact,
    Deposited,
    EpochAdvanced,
    Exited,
    ExitRequested,
    Fact,
    OfferOpened,
    OfferRefunded,
    ServerMetaChanged,
    ServerRegistered,
    ServerSlashed,
    ServerUnbonding,
)  # fmt: skip
from edgora.wire.settlement import certificate_arguments, epoch_arguments, exact_quorum

__all__ = ["ContractChain", "Interface", "Log", "Reverted", "interface", "signed_transaction"]


class Log(NamedTuple):
    """A log of the contract as the chain keeps it."""

    block_number: int
    block_hash: bytes
    tx_index: int
    log_index: int
    topics: tuple[bytes, ...]
    data: bytes


class Reverted(Exception):
    """The EVM reverted with these octets."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data.hex())
        self.data = data


def _type_of(parameter: Mapping[str, Any]) -> str:
    kind: str = parameter["type"]
    if kind.startswith("tuple"):
        return "(" + ",".join(_type_of(part) for part in parameter["components"]) + ")" + kind[5:]
    return kind


class _Entry(NamedTuple):
    """A function, error or event: its name, its selector or topic, and the types of what it takes and gives."""

    name: str
    key: bytes
    inputs: tuple[str, ...]
    indexed: tuple[bool, ...]
    outputs: tuple[str, ...]


class Interface:
    """A contract's ABI, ready to encode calls and to read answers, errors and logs."""

    def __init__(self, abi: Sequence[Mapping[str, Any]]) -> None:
        entries: dict[str, list[_Entry]] = {"function": [], "error": [], "event": []}
        for item in abi:
            if item["type"] not in entries:
                continue
            inputs = tuple(_type_of(parameter) for parameter in item["inputs"])
            signature = f"{item['name']}({','.join(inputs)})".encode()
            key = keccak(signature) if item["type"] == "event" else keccak(signature)[:4]
            indexed = tuple(bool(parameter.get("indexed")) for parameter in item["inputs"])
            outputs = tuple(_type_of(parameter) for parameter in item.get("outputs", ()))
            entries[item["type"]].append(_Entry(item["name"], key, inputs, indexed, outputs))
        self._functions = {entry.name: entry for entry in entries["function"]}
        self._errors = {entry.key: entry for entry in entries["error"]}
        self._events = {entry.key: entry for entry in entries["event"]}

    def call(self, name: str, *arguments: object) -> bytes:
        """Calldata of a call."""
        entry = self._functions[name]
        return entry.key + abi_encode(entry.inputs, arguments)

    def result(self, name: str, data: bytes) -> tuple[Any, ...]:
        """What a call returned; addresses as 20 octets."""
        outputs = self._functions[name].outputs
        return tuple(
            bytes.fromhex(value[2:]) if kind == "address" else value
            for kind, value in zip(outputs, abi_decode(outputs, data), strict=True)
        )

    def refusal(self, data: bytes) -> RuleRefused:
        """The error of a revert: its Solidity name as `rule`, its arguments in the sentence."""
        entry = self._errors.get(data[:4])
        if entry is None:
            rule = "OutOfGas" if not data else "Reverted"
            return RuleRefused(f"the contract reverted with 0x{data.hex()}", rule=rule)
        values = (value.hex() if isinstance(value, bytes) else value for value in abi_decode(entry.inputs, data[4:]))
        return RuleRefused(f"the contract refused: {entry.name}({', '.join(map(str, values))})", rule=entry.name)

    def event(self, log: Log) -> tuple[str, tuple[Any, ...]] | None:
        """Name and arguments of a log, in the order of the declaration; None for a foreign one."""
        entry = self._events.get(log.topics[0]) if log.topics else None
        if entry is None:
            return None
        topics = iter(log.topics[1:])
        plain = [kind for kind, indexed in zip(entry.inputs, entry.indexed, strict=True) if not indexed]
        rest = iter(abi_decode(plain, log.data))
        values = []
        for kind, indexed in zip(entry.inputs, entry.indexed, strict=True):
            value = abi_decode([kind], next(topics))[0] if indexed else next(rest)
            values.append(bytes.fromhex(value[2:]) if kind == "address" else value)
        return entry.name, tuple(values)


@cache
def interface() -> Interface:
    """The deployed contract's."""
    return Interface(settlement().abi)


def signed_transaction(key: SigningKey, fields: Mapping[str, object]) -> bytes:
    """A raw transaction of type 2."""
    return bytes(Account.sign_transaction(dict(fields), key.secret).raw_transaction)


def _fact(name: str, values: tuple[Any, ...], skipped: Mapping[int, tuple[list[bytes], list[bytes]]]) -> Fact | None:
    """The fact that the ledger is told; None for logs that it does not need."""
    match name:
        case "ServerRegistered":
            return ServerRegistered(values[0], values[1], values[2], values[3], to_u96(values[4]))
        case "ServerMetaChanged":
            return ServerMetaChanged(*values)
        case "ServerUnbonding":
            return ServerUnbonding(*values)
        case "ServerSlashed":
            return ServerSlashed(values[0], to_u96(values[2]))
        case "EpochAdvanced":
            return EpochAdvanced(values[0], values[1])
        case "Deposited":
            return Deposited(values[0], to_u96(values[1]))
        case "OfferOpened":
            return OfferOpened(values[0], values[1], to_u96(values[2]), values[3])
        case "OfferRefunded":
            return OfferRefunded(values[0], values[1], to_u96(values[2]))
        case "ExitRequested":
            return ExitRequested(*values)
        case "Exited":
            return Exited(values[0], to_u96(values[1]))
        case "BatchSettled":
            ues, locks = skipped.get(values[0], ([], []))
            return BatchSettled(values[0], values[1], to_u96(values[2]), tuple(ues), tuple(locks))
        case _:
            return None


def facts(logs: Sequence[Log]) -> list[FoundFact]:
    """Facts in these logs, which must hold whole transactions in chain order.

    A batch's skips stand in front of its BatchSettled in the same transaction and become part of that one fact.
    """
    found = []
    skipped: dict[int, tuple[list[bytes], list[bytes]]] = {}
    for log in logs:
        event = interface().event(log)
        if event is None:
            continue
        name, values = event
        if name == "SectionSkipped":
            skipped.setdefault(values[0], ([], []))[0].append(values[1])
        elif name == "LockSkipped":
            skipped.setdefault(values[0], ([], []))[1].append(values[1])
        elif (fact := _fact(name, values, skipped)) is not None:
            place = ChainFact(log.block_hash, log.tx_index, log.log_index, fact)
            found.append(FoundFact(log.block_number, place))
    return found


class ContractChain(ABC):
    """`ports.chain.Chain` over four primitives of a concrete chain."""

    def __init__(self, market: bytes) -> None:
        self.market = market
        self._senders: dict[bytes, asyncio.Lock] = {}
        self._page: tuple[bytes, tuple[bytes, ...]] = (b"", ())

    # ---- primitives

    @abstractmethod
    async def _call(self, data: bytes) -> bytes:
        """Run a read against the latest block. Raises Reverted."""

    @abstractmethod
    async def _submit(self, key: SigningKey, to: bytes | None, data: bytes, wei: int) -> "asyncio.Future[Mined]":
        """Sign with the next nonce and hand in; the future is the mined transaction. Raises Reverted, here or there."""

    @abstractmethod
    async def _logs(self, from_block: int, to_block: int) -> Sequence[Log]:
        """Logs of the contract in these blocks, in chain order."""

    @abstractmethod
    async def _code(self, address: bytes) -> bytes:
        """Runtime code at an address; empty where no contract is."""

    @abstractmethod
    async def latest(self) -> ChainBlock: ...

    # ---- shared

    async def _send(self, key: SigningKey, to: bytes | None, data: bytes, wei: int = 0) -> Mined:
        # One nonce at a time a sender; the lock is free again while the transaction waits for its block.
        async with self._senders.setdefault(key.address, asyncio.Lock()):
            try:
                mined = await self._submit(key, to, data, wei)
            except Reverted as reverted:
                raise interface().refusal(reverted.data) from None
        try:
            return await mined
        except Reverted as reverted:
            raise interface().refusal(reverted.data) from None

    async def _transact(self, key: SigningKey, name: str, *arguments: object, wei: int = 0) -> Mined:
        return await self._send(key, self.market, interface().call(name, *arguments), wei)

    async def _read(self, name: str, *arguments: object) -> tuple[Any, ...]:
        try:
            data = await self._call(interface().call(name, *arguments))
        except Reverted as reverted:
            raise interface().refusal(reverted.data) from None
        return interface().result(name, data)

    async def code_hash(self, address: bytes) -> bytes | None:
        code = await self._code(address)
        return keccak(code) if code else None

    async def events(self, from_block: int, to_block: int) -> Sequence[FoundFact]:
        return facts(await self._logs(from_block, to_block))

    # ---- sends

    async def deploy(self, key: SigningKey, initcode: bytes) -> Mined:
        return await self._send(key, None, initcode)

    async def transfer(self, key: SigningKey, to: bytes, wei: int) -> Mined:
        return await self._send(key, to, b"", wei)

    async def deposit_for(self, key: SigningKey, ue: bytes, wei: int) -> Mined:
        return await self._transact(key, "depositFor", ue, wei=wei)

    async def open(self, key: SigningKey, offer: bytes, deadline_s: int, wei: int) -> Mined:
        return await self._transact(key, "open", offer, deadline_s, wei=wei)

    async def refund(self, key: SigningKey, ue: bytes, offer: bytes) -> Mined:
        return await self._transact(key, "refund", ue, offer)

    async def request_exit(self, key: SigningKey) -> Mined:
        return await self._transact(key, "requestExit")

    async def request_exit_for(self, key: SigningKey, ue: bytes, valid_until_s: int, signature: bytes) -> Mined:
        return await self._transact(key, "requestExitFor", ue, valid_until_s, signature)

    async def finish_exit(self, key: SigningKey, ue: bytes) -> Mined:
        return await self._transact(key, "finishExit", ue)

    async def register(self, key: SigningKey, owner: bytes, meta_hash: bytes, stake: int) -> Mined:
        return await self._transact(key, "register", owner, meta_hash, wei=stake)

    async def set_meta(self, key: SigningKey, server: int, meta_hash: bytes) -> Mined:
        return await self._transact(key, "setMeta", server, meta_hash)

    async def unbond(self, key: SigningKey, server: int) -> Mined:
        return await self._transact(key, "unbond", server)

    async def withdraw_stake(self, key: SigningKey, server: int) -> Mined:
        return await self._transact(key, "withdrawStake", server)

    async def settle(
        self, key: SigningKey, batch_id: int, task_root: bytes, payload: bytes, proof: ReceiptProof
    ) -> Mined:
        exact = exact_quorum(proof.certificate, len(await self.validators()))
        trimmed = msgspec.structs.replace(proof, certificate=exact)
        return await self._transact(key, "settle", batch_id, task_root, payload, certificate_arguments(trimmed))

    async def advance_epoch(
        self, key: SigningKey, header: Header, certificate: Certificate, validators: Sequence[bytes], params_hash: bytes
    ) -> Mined:
        exact = exact_quorum(certificate, len(await self.validators()))
        arguments = epoch_arguments(header, exact, validators, params_hash)
        return await self._transact(key, "advanceEpoch", *arguments)

    async def slash(
        self, key: SigningKey, phase: int, epoch: int, view: int, height: int,
        vote_a: tuple[bytes, bytes], vote_b: tuple[bytes, bytes],
    ) -> Mined:  # fmt: skip
        return await self._transact(key, "slash", phase, epoch, view, height, *vote_a, *vote_b)

    async def withdraw(self, key: SigningKey, server: int, to: bytes) -> Mined:
        return await self._transact(key, "withdraw", server, to)

    # ---- views

    async def account(self, ue: bytes) -> AccountView:
        return AccountView(*await self._read("account", ue))

    async def lock_of(self, key: bytes) -> LockView:
        return LockView(*await self._read("lockOf", key))

    async def earned(self, server: int) -> EarnedView:
        return EarnedView(*await self._read("earned", server))

    async def head(self) -> HeadView:
        return HeadView(*await self._read("head"))

    async def validators(self) -> tuple[bytes, ...]:
        page = (await self.head()).page
        if page != self._page[0]:
            # A page's code is 0x00 and the addresses; it never changes, a new set is a new page.
            code = await self._code(page)
            self._page = (page, tuple(code[at : at + 20] for at in range(1, len(code), 20)))
        return self._page[1]

    async def server(self, server: int) -> ServerView | None:
        try:
            return ServerView(*await self._read("server", server))
        except RuleRefused as refused:
            if refused.rule == "ConsortiumUnknownServer":
                return None
            raise

    async def server_of(self, signer: bytes) -> int | None:
        (place,) = await self._read("serverOf", signer)
        return place - 1 if place else None

    async def server_count(self) -> int:
        return cast("int", (await self._read("counters"))[0])
