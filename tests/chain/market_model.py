"""What the contract should do, in plain words: dictionaries, integers, no packing, no assembly.

Written from contracts.md, not from the Solidity. A call either changes the model or raises Refused with the name of
the contract's error. Certificates are not modelled: callers say whether one holds.
"""

from dataclasses import dataclass, field

from chain.evm_world import EXIT_DELAY_S, LAMBDA_BPS, STAKE, UNBOND_DELAY_S, Refused
from edgora.crypto.sign import recover
from edgora.wire.eip712 import Domain
from edgora.wire.settlement import (
    BURN,
    BadPayload,
    Line,
    Payload,
    Voucher,
    decode_payload,
    line_amount,
    lock_key,
    split,
)
from edgora.wire.units import NOBODY

U56, U40 = 2**56 - 1, 2**40 - 1


@dataclass
class Account:
    balance: int = 0
    spent: int = 0
    exit_at: int = 0
    nonce: int = 0
    signed: int = 0
    """Largest cap that a settled voucher of this UE carried."""


@dataclass
class Lock:
    amount: int
    deadline: int


@dataclass
class Server:
    owner: bytes
    signer: bytes
    stake: int
    unbond_at: int = 0
    earned: int = 0
    desired: int = 0
    actual: int = 0
    tasks: int = 0


@dataclass
class Settled:
    """Which sections and which lock lines were paid, in order; what each skip names, in the order of the logs."""

    sections: list[bool] = field(default_factory=list)
    locks: list[bool] = field(default_factory=list)
    skipped: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass
class Model:
    """The whole contract. `now` is the block's time."""

    domain: Domain
    validators: list[bytes]
    now: int
    accounts: dict[bytes, Account] = field(default_factory=dict)
    locks: dict[bytes, Lock] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)
    burnt: int = 0
    batch_id: int = 0
    epoch: int = 0

    def account(self, ue: bytes) -> Account:
        return self.accounts.setdefault(ue, Account())

    def total(self) -> int:
        """Wei that the contract owes or has burnt."""
        return (
            sum(account.balance for account in self.accounts.values())
            + sum(lock.amount for lock in self.locks.values())
            + sum(server.earned + server.stake for server in self.servers)
            + self.burnt
        )

    # ---- UEs

    def deposit(self, ue: bytes, wei: int) -> None:
        if wei == 0:
            raise Refused("TaskMarketBadAmount")
        self.account(ue).balance += wei

    def open(self, ue: bytes, offer: bytes, deadline: int, wei: int) -> None:
        if wei == 0:
            raise Refused("TaskMarketBadAmount")
        if not self.now < deadline <= self.now + 30 * 86_400:
            raise Refused("TaskMarketBadDeadline")
        key = lock_key(ue, offer)
        if key in self.locks:
            raise Refused("TaskMarketOfferOpen")
        self.locks[key] = Lock(wei, deadline)

    def refund(self, ue: bytes, offer: bytes) -> int:
        key = lock_key(ue, offer)
        if key not in self.locks:
            raise Refused("TaskMarketOfferUnknown")
        if self.now <= self.locks[key].deadline:
            raise Refused("TaskMarketTooEarly")
        return self.locks.pop(key).amount

    def request_exit(self, ue: bytes) -> None:
        account = self.account(ue)
        if account.exit_at:
            raise Refused("TaskMarketExiting")
        account.exit_at = self.now + EXIT_DELAY_S
        account.nonce += 1

    def finish_exit(self, ue: bytes) -> int:
        account = self.account(ue)
        if not account.exit_at or self.now < account.exit_at:
            raise Refused("TaskMarketTooEarly")
        paid, account.balance, account.exit_at = account.balance, 0, 0
        return paid

    # ---- servers

    def register(self, signer: bytes, owner: bytes, stake: int) -> None:
        if stake < STAKE:
            raise Refused("ConsortiumBadStake")
        if any(server.signer == signer for server in self.servers):
            raise Refused("ConsortiumSignerTaken")
        self.servers.append(Server(owner, signer, stake))

    def _owned(self, sender: bytes, id: int) -> Server:
        if id >= len(self.servers):
            raise Refused("ConsortiumUnknownServer")
        if self.servers[id].owner != sender:
            raise Refused("ConsortiumNotOwner")
        return self.servers[id]

    def unbond(self, sender: bytes, id: int) -> None:
        server = self._owned(sender, id)
        if server.unbond_at:
            raise Refused("ConsortiumTooEarly")
        server.unbond_at = self.now + UNBOND_DELAY_S

    def withdraw_stake(self, sender: bytes, id: int) -> int:
        server = self._owned(sender, id)
        if not server.unbond_at or server.signer in self.validators:
            raise Refused("ConsortiumStakeLocked")
        if self.now < server.unbond_at:
            raise Refused("ConsortiumTooEarly")
        if not server.stake:
            raise Refused("ConsortiumBadStake")
        paid, server.stake = server.stake, 0
        return paid

    def withdraw(self, sender: bytes, id: int) -> int:
        server = self._owned(sender, id)
        if not server.earned:
            raise Refused("TaskMarketBadAmount")
        paid, server.earned = server.earned, 0
        return paid

    def slash(self, signer: bytes) -> int:
        """Two votes of that signer were shown. Returns the reporter's share."""
        server = next((server for server in self.servers if server.signer == signer), None)
        if server is None:
            raise Refused("ConsortiumUnknownServer")
        if not server.stake:
            raise Refused("ConsortiumBadStake")
        bounty = server.stake // 10
        self.burnt += server.stake - bounty
        server.stake = 0
        return bounty

    def advance(self, following: list[bytes]) -> None:
        if len(set(following)) != len(following) or not 4 <= len(following) <= 64:
            raise Refused("ConsortiumBadValidators")
        for signer in following:
            server = next((server for server in self.servers if server.signer == signer), None)
            if server is None:
                raise Refused("ConsortiumUnknownServer")
            if server.stake < STAKE or server.unbond_at:
                raise Refused("ConsortiumBadStake")
        self.validators = list(following)
        self.epoch += 1

    # ---- batches

    def settle(self, batch_id: int, packed: bytes) -> Settled:
        """Pay a certified batch."""
        if batch_id != self.batch_id + 1:
            raise Refused("SettlementOutOfOrder")
        try:
            payload = decode_payload(packed, len(self.servers))
        except BadPayload as bad:
            raise Refused("SettlementBadPayload", (bad.offset,)) from None
        result = Settled()
        for section in payload.sections:
            voucher = Voucher(section.cap, section.valid_until)
            ue = recover(voucher.digest(self.domain), section.signature)
            total = sum(map(line_amount, section.lines))
            account = self.account(ue)
            payable = (
                ue != NOBODY
                and account.spent + total <= section.cap
                and total <= account.balance
                and self.now <= section.valid_until
            )
            result.sections.append(payable)
            if not payable:
                result.skipped.append(("SectionSkipped", ue))
                continue
            account.balance -= total
            account.spent += total
            account.signed = max(account.signed, section.cap)
            for line in section.lines:
                self._credit(payload, line)
        for key, line in payload.locks:
            lock, amount = self.locks.get(key), line_amount(line)
            result.locks.append(lock is not None and self.now <= lock.deadline and amount <= lock.amount)
            if lock is None or not result.locks[-1]:
                result.skipped.append(("LockSkipped", key))
                continue
            lock.amount -= amount
            lock.deadline = 0
            if lock.amount == 0:
                del self.locks[key]
            self._credit(payload, line)
        left: dict[int, int] = {}
        for penalty in payload.penalties:
            server = self.servers[penalty.server]
            left.setdefault(penalty.server, server.stake // 10)
            taken = min(penalty.wei, left[penalty.server])
            left[penalty.server] -= taken
            server.stake -= taken
            if penalty.beneficiary == BURN:
                self.burnt += taken
            else:
                self.servers[payload.servers[penalty.beneficiary].id].earned += taken
        for row in payload.servers:
            server = self.servers[row.id]
            server.desired = min(server.desired + row.desired_ms, U56)
            server.actual = min(server.actual + row.actual_ms, U56)
        self.batch_id = batch_id
        return result

    def _credit(self, payload: Payload, line: Line) -> None:
        fee, rest = split(line_amount(line), LAMBDA_BPS)
        self.servers[payload.servers[line.receiver].id].earned += fee
        executor = self.servers[payload.servers[line.executor].id]
        executor.earned += rest
        executor.tasks = min(executor.tasks + 1, U40)
