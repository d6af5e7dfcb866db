"""Who acts on a market in simulations and tests: servers, UEs, and the chain they deposit on.

Rule 1: everything follows from a label and the calls; keys are derived, no clock, no randomness of its own.
Rule 2: actors build payloads and signatures; which transaction goes in which block is the caller's business.

`Consortium` is a genesis with all its keys. `Ue` builds offers and vouchers, `Seller` adverts, results and draws.
`DevChain` is the contract as far as the market can see it: deposits, locks, exits, settlement with its skips
(contracts.md 7); each change is a fact at a place of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from edgora.crypto.sign import SigningKey, recover
from edgora.market.draws import AuditChain
from edgora.market.machine import Market
from edgora.market.receipts import maximum
from edgora.wire.codec import encode, to_u96, to_u128
from edgora.wire.eip712 import Domain
from edgora.wire.genesis import ConsensusParams, Genesis, GenesisServer, GenesisValidator
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Kind, OrderedTx, Tx, tx_hash
from edgora.wire.market import (
    Advert,
    Allocation,
    BatchSettled,
    ChainFact,
    Deposited,
    Draw,
    EpochAdvanced,
    Exited,
    ExitRequested,
    Fact,
    Held,
    HeldPart,
    MarketParams,
    Offer,
    OfferFlag,
    OfferOpened,
    OfferRefunded,
    ResultCode,
    ResultHash,
    ServerRegistered,
    ServerUnbonding,
    Stored,
    TaskPayload,
    VoucherPart,
)
from edgora.wire.settlement import Payload, Voucher, decode_payload, line_amount, lock_key

__all__ = ["Consortium", "DevChain", "Seller", "Ue", "ordered"]

_CHAIN_LENGTH = 1024
"""Draws that a simulated server has; the product's chains are 2^16 long and slower to make."""


def ordered(domain: Domain, key: SigningKey, kind: Kind, payload: object, *, lane: int = 0, seq: int = 0) -> OrderedTx:
    """A transaction as the ledger hands it to the market; for markets that run without a ledger."""
    data = payload if isinstance(payload, bytes) else encode(payload)
    tx = Tx(kind, key.address, lane, seq, 2**32, data)
    return OrderedTx(tx_hash(tx, domain), tx)


class Consortium:
    """A genesis and every key of it.

    keys and ledger_domain are for worlds that have their own: the server keys by id, and what they sign under.
    """

    def __init__(
        self, label: str = "market", *, servers: int = 4, params: MarketParams | None = None,
        consensus: ConsensusParams | None = None, time_ms: int = 0, keys: Sequence[SigningKey] | None = None,
        ledger_domain: Domain | None = None,
    ) -> None:  # fmt: skip
        self.label = label
        self.keys = list(keys or (SigningKey.derived(f"{label} server {i}") for i in range(servers)))
        self.genesis = Genesis(
            version=1, consortium_id=7, chain_id=31_337,
            validators=tuple(GenesisValidator(k.address, b"link %d" % i) for i, k in enumerate(self.keys)),
            servers=tuple(GenesisServer(i, k.address, keccak(b"meta %d" % i)) for i, k in enumerate(self.keys)),
            deployer=SigningKey.derived(f"{label} deployer").address, consensus=consensus or ConsensusParams(),
            market=params or MarketParams(), engine="simulated", time_ms=time_ms,
        )  # fmt: skip
        self.ledger_domain = ledger_domain or self.genesis.ledger_domain()
        self.market_domain = self.genesis.market_domain()
        self.sellers = [Seller(self, i, key) for i, key in enumerate(self.keys)]

    def market(self) -> Market:
        """A fresh market of this genesis."""
        g = self.genesis
        return Market(
            g.market, g.servers, len(g.validators), self.ledger_domain, self.market_domain, g.chain_id, g.market_address
        )

    def ue(self, number: int) -> "Ue":
        return Ue(self, SigningKey.derived(f"{self.label} ue {number}"))

    def stored(self, offer: Offer, offer_id: bytes) -> bytes:
        """The source's word that it keeps the input; of a source that does not exist, server 0's."""
        key = self.keys[offer.source if offer.source < len(self.keys) else 0]
        return key.sign(Stored(offer_id).digest(self.ledger_domain))

    def registrations(self) -> list[ServerRegistered]:
        """What the chain says of the genesis servers once all have registered."""
        return [
            ServerRegistered(s.id, s.signer, s.signer, s.meta_hash, to_u96(10**18)) for s in self.genesis.servers
        ]  # fmt: skip


class Ue:
    """A user's device."""

    def __init__(self, consortium: Consortium, key: SigningKey) -> None:
        self.consortium = consortium
        self.key = key
        self.address = key.address
        self.nonce = 0

    def offer(self, *, deadline_ms: int, source: int = 0, **fields: object) -> Offer:
        """A fresh offer: 10 Mfuel at 100 gwei/Mfuel with a 10 KiB input, unless fields say otherwise."""
        self.nonce += 1
        offer = Offer(
            ue=self.address, nonce=self.nonce, module_digest=keccak(b"module"), input_digest=keccak(b"input"),
            input_octets=10_240, output_octets=1_024, memory_pages=16, fuel_limit=10_000_000, price=100, desired_ms=1_000,
            deadline_ms=deadline_ms, result_key=keccak(b"result key"), key_commit=keccak(b"content key"), source=source,
            flags=OfferFlag.AUDITABLE,
        )  # fmt: skip
        return replace(offer, **fields)

    def offer_id(self, offer: Offer) -> bytes:
        return offer.digest(self.consortium.market_domain)

    def voucher(self, cap: int, valid_until_s: int) -> VoucherPart:
        digest = Voucher(cap, valid_until_s).digest(self.consortium.market_domain)
        return VoucherPart(to_u96(cap), valid_until_s, self.key.sign(digest))

    def task(self, offer: Offer, voucher: VoucherPart | None) -> TaskPayload:
        return TaskPayload(offer, self.consortium.stored(offer, self.offer_id(offer)), voucher)

    def voucher_for(self, market: Market, offer: Offer) -> VoucherPart:
        """The voucher that the rules ask for now: spent + reserved + this maximum, valid as long as allowed."""
        account = market.account(self.address)
        spent, reserved = (account.spent, account.reserved) if account else (0, 0)
        p = market.params
        until_s = (market.now_ms + p.exit_delay_s * 1000 - p.margin_ms) // 1000
        if account and account.voucher and account.unfinished:
            until_s = max(until_s, account.voucher.valid_until_s)
        return self.voucher(spent + reserved + maximum(offer), until_s)


class Seller:
    """A server: sells compute, stores inputs and results, audits."""

    def __init__(self, consortium: Consortium, number: int, key: SigningKey) -> None:
        self.consortium = consortium
        self.id = number
        self.key = key
        self._chains = 0
        self.renew_chain()

    def renew_chain(self) -> None:
        """A fresh audit chain, whose tip the next advert may commit."""
        self._chains += 1
        seed = keccak(f"{self.consortium.label} audit {self.id} {self._chains}".encode())
        self.chain = AuditChain(seed, _CHAIN_LENGTH)

    def advert(self, *, until_ms: int, tip: bool = False, **fields: object) -> Advert:
        """100 Mfuel/s, 4 slots, all of the first credit, ask 50; tip: commit the audit chain."""
        advert = Advert(
            speed=100_000_000, capacity=10**10, slots=4, ask=50, uplink=10_000_000, forward=10**9, until_ms=until_ms,
            tip=self.chain.first_tip if tip else None,
        )  # fmt: skip
        return replace(advert, **fields)

    def held(self, offer_id: bytes, result_digest: bytes, cipher_digest: bytes, seen_ms: int) -> HeldPart:
        held = Held(offer_id, result_digest, cipher_digest, seen_ms)
        return HeldPart(self.id, seen_ms, self.key.sign(held.digest(self.consortium.ledger_domain)))

    def result(
        self, offer_id: bytes, *, seen_ms: int, holders: Iterable[int], code: ResultCode = ResultCode.OK,
        fuel_used: int = 5_000_000, output: bytes = b"output",
    ) -> ResultHash:  # fmt: skip
        """RESULT_HASH of an executor, held by those servers."""
        digest, cipher = keccak(offer_id + output), keccak(b"cipher" + offer_id + output)
        sellers = self.consortium.sellers
        held = tuple(sellers[i].held(offer_id, digest, cipher, seen_ms) for i in holders)
        return ResultHash(offer_id, code, digest, fuel_used, cipher, held)

    def audit(
        self,
        offer_id: bytes,
        *,
        code: ResultCode = ResultCode.OK,
        fuel_used: int = 5_000_000,
        output: bytes = b"output",
    ) -> ResultHash:
        """RESULT_HASH of an auditor: what `result` says of the same output."""
        return ResultHash(offer_id, code, keccak(offer_id + output), fuel_used)

    def draw(self, market: Market, up_to: int) -> Draw | None:
        """The next preimage of its chain; None without a tip in the state."""
        server = market.server(self.id)
        preimage = self.chain.preimage(server.tip) if server is not None and server.tip is not None else None
        return Draw(preimage, up_to) if preimage is not None else None

    def proposal(
        self, market: Market, pairs: Sequence[tuple[int, int]], value: int, policy: str = "test"
    ) -> Allocation:
        """A proposal for the open round."""
        view = market.round_state()
        assert view is not None
        return Allocation(view.instance.round, view.digest, tuple(pairs), to_u128(value), None, policy, 5)


@dataclass
class _ChainAccount:
    balance: int = 0
    spent: int = 0
    exit_at_s: int = 0


@dataclass
class DevChain:
    """The contract as the market sees it. Every change returns, and keeps, the fact that validators attest."""

    consortium: Consortium
    facts: list[ChainFact] = field(default_factory=list)
    accounts: dict[bytes, _ChainAccount] = field(default_factory=dict)
    locks: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    """Lock key -> (wei, deadline in seconds)."""
    batch_id: int = 0
    earned: int = 0
    """Wei that settlements moved to servers."""

    def _fact(self, fact: Fact) -> ChainFact:
        number = len(self.facts)
        placed = ChainFact(keccak(b"chain block %d" % number), number % 7, 0, fact)
        self.facts.append(placed)
        return placed

    def _account(self, ue: bytes) -> _ChainAccount:
        return self.accounts.setdefault(ue, _ChainAccount())

    def register_all(self) -> list[ChainFact]:
        return [self._fact(fact) for fact in self.consortium.registrations()]

    def unbond(self, server: int, when_s: int) -> ChainFact:
        return self._fact(ServerUnbonding(server, when_s))

    def advance_epoch(self, epoch: int, first_height: int) -> ChainFact:
        return self._fact(EpochAdvanced(epoch, first_height))

    def deposit(self, ue: bytes, wei: int) -> ChainFact:
        self._account(ue).balance += wei
        return self._fact(Deposited(ue, to_u96(wei)))

    def open(self, ue: bytes, offer_id: bytes, wei: int, deadline_s: int) -> ChainFact:
        self.locks[lock_key(ue, offer_id)] = (wei, deadline_s)
        return self._fact(OfferOpened(offer_id, ue, to_u96(wei), deadline_s))

    def refund(self, ue: bytes, offer_id: bytes, now_s: int) -> ChainFact | None:
        """None where the contract would revert: no lock, or its deadline has not passed."""
        wei, deadline_s = self.locks.get(lock_key(ue, offer_id), (0, 0))
        if not wei or now_s <= deadline_s:
            return None
        del self.locks[lock_key(ue, offer_id)]
        return self._fact(OfferRefunded(offer_id, ue, to_u96(wei)))

    def request_exit(self, ue: bytes, now_s: int) -> ChainFact | None:
        account = self._account(ue)
        if account.exit_at_s:
            return None
        account.exit_at_s = now_s + self.consortium.genesis.market.exit_delay_s
        return self._fact(ExitRequested(ue, account.exit_at_s))

    def finish_exit(self, ue: bytes, now_s: int) -> ChainFact | None:
        account = self._account(ue)
        if not account.exit_at_s or now_s < account.exit_at_s:
            return None
        wei, account.balance, account.exit_at_s = account.balance, 0, 0
        return self._fact(Exited(ue, to_u96(wei)))

    def settle(self, batch_id: int, task_root: bytes, data: bytes, now_s: int) -> ChainFact | None:
        """Pays or skips each section and lock line as the contract does; None where it reverts as out of order."""
        if batch_id != self.batch_id + 1:
            return None
        payload = decode_payload(data, len(self.consortium.genesis.servers))
        self.batch_id = batch_id
        skipped_ues, paid = self._pay_sections(payload, now_s)
        skipped_locks: list[bytes] = []
        for key, line in payload.locks:
            wei, deadline_s = self.locks.get(key, (0, 0))
            amount = line_amount(line)
            if not wei or now_s > deadline_s or amount > wei:
                skipped_locks.append(key)
            else:
                paid += amount
                self.locks[key] = (wei - amount, 0)
                if wei == amount:
                    del self.locks[key]
        self.earned += paid
        return self._fact(BatchSettled(batch_id, task_root, to_u96(paid), tuple(skipped_ues), tuple(skipped_locks)))

    def _pay_sections(self, payload: Payload, now_s: int) -> tuple[list[bytes], int]:
        skipped, paid = [], 0
        for section in payload.sections:
            digest = Voucher(section.cap, section.valid_until).digest(self.consortium.market_domain)
            ue = recover(digest, section.signature)
            account = self._account(ue)
            total = sum(line_amount(line) for line in section.lines)
            if account.spent + total > section.cap or account.balance < total or now_s > section.valid_until:
                skipped.append(ue)
            else:
                account.spent += total
                account.balance -= total
                paid += total
        return list(skipped), paid
