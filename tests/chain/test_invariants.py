"""I1-I8, I11, I12: the contract and a plain model side by side, on random calls (contracts.md 12).

Each rule makes one call on both. They must agree on the answer: done, or refused with the same error. After each call
every word of state is compared, so a call that should not have moved something is caught at once.
"""

import os

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chain.evm_world import EXIT_DELAY_S, PHASES, RICH, STAKE, World, refusal_of
from chain.market_model import Model, Settled
from edgora.crypto.sign import SigningKey
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Vote
from edgora.wire.settlement import (
    BURN,
    Exit,
    Line,
    LockLine,
    Payload,
    Penalty,
    Section,
    ServerRow,
    Voucher,
    encode_payload,
    epoch_arguments,
    line_amount,
    lock_key,
)

UES = [SigningKey.derived(f"machine ue {index}") for index in range(3)]
SERVERS = [SigningKey.derived(f"validator {index}") for index in range(4)]
NEWCOMERS = [SigningKey.derived(f"machine newcomer {index}") for index in range(3)]
OFFERS = [keccak(bytes([index])) for index in range(2)]
UNIT = line_amount(Line(0, 0, 1, 1))

ues = st.sampled_from(range(len(UES)))
offers = st.sampled_from(range(len(OFFERS)))
amounts = st.one_of(st.integers(0, 40), st.just(2**60)).map(lambda n: n * UNIT)
ids = st.integers(0, 7)


class ContractMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.model = Model(self.world.domain, [key.address for key in SERVERS], self.world.now)
        for key in SERVERS:
            self.model.register(key.address, key.address, STAKE)
        for key in (*UES, *NEWCOMERS):
            self.world.fund(key.address)
        self.keys = {key.address: key for key in (*SERVERS, *NEWCOMERS)}
        self.settled: list[object] = []
        self.spent = [0] * len(UES)

    def both(self, sender: SigningKey, name: str, arguments: tuple[object, ...], model, *, wei: int = 0):
        """The call on both sides; returns what the model returned, or None if both refused."""
        answers = []
        expected = refusal_of(lambda: answers.append(model()))
        found = refusal_of(lambda: self.world.send(sender, name, *arguments, wei=wei))
        assert (found and found.rule) == (expected and expected.rule), f"{name}{arguments}"
        return answers[0] if answers else None

    @initialize(ue=ues, lock=offers)
    def somebody_has_money(self, ue: int, lock: int) -> None:
        self.deposit(ue, 100 * UNIT)
        self.open(ue, lock, 10 * UNIT, 900)

    # ---- time

    @rule(seconds=st.sampled_from([1, 13, 600, EXIT_DELAY_S - 1, EXIT_DELAY_S]))
    def pass_time(self, seconds: int) -> None:
        self.world.pass_time(seconds)
        self.model.now = self.world.now

    # ---- UEs

    @rule(ue=ues, wei=amounts)
    def deposit(self, ue: int, wei: int) -> None:
        address = UES[ue].address
        self.both(RICH, "depositFor", (address,), lambda: self.model.deposit(address, wei), wei=wei)

    @rule(ue=ues, offer=offers, wei=amounts, ahead=st.sampled_from([0, 1, 600, 30 * 86_400, 30 * 86_400 + 1]))
    def open(self, ue: int, offer: int, wei: int, ahead: int) -> None:
        deadline = self.world.now + ahead
        arguments = (OFFERS[offer], deadline)
        self.both(
            UES[ue], "open", arguments, lambda: self.model.open(UES[ue].address, OFFERS[offer], deadline, wei), wei=wei
        )

    @rule(ue=ues, offer=offers)
    def refund(self, ue: int, offer: int) -> None:
        address = UES[ue].address
        before = self.world.balance(address)
        paid = self.both(RICH, "refund", (address, OFFERS[offer]), lambda: self.model.refund(address, OFFERS[offer]))
        assert self.world.balance(address) == before + (paid or 0)

    @rule(ue=ues)
    def request_exit(self, ue: int) -> None:
        self.both(UES[ue], "requestExit", (), lambda: self.model.request_exit(UES[ue].address))

    @rule(ue=ues)
    def request_exit_for(self, ue: int) -> None:
        address = UES[ue].address
        exit_ = Exit(self.model.account(address).nonce, self.world.now)
        signature = UES[ue].sign(exit_.digest(self.world.domain))
        arguments = (address, exit_.valid_until, signature)
        self.both(RICH, "requestExitFor", arguments, lambda: self.model.request_exit(address))

    @rule(ue=ues)
    def finish_exit(self, ue: int) -> None:
        address = UES[ue].address
        before = self.world.balance(address)
        paid = self.both(RICH, "finishExit", (address,), lambda: self.model.finish_exit(address))
        assert self.world.balance(address) == before + (paid or 0)

    # ---- servers

    @rule(who=st.sampled_from([*NEWCOMERS, SERVERS[0]]), stake=st.sampled_from([STAKE - 1, STAKE, 3 * STAKE]))
    def register(self, who: SigningKey, stake: int) -> None:
        arguments = (UES[0].address, keccak(who.address))
        self.both(
            who, "register", arguments, lambda: self.model.register(who.address, UES[0].address, stake), wei=stake
        )

    def _owner(self, id: int) -> SigningKey:
        owned = self.model.servers[id].owner if id < len(self.model.servers) else b""
        return UES[0] if owned == UES[0].address else self.keys.get(owned, RICH)

    @rule(id=ids, stranger=st.booleans())
    def unbond(self, id: int, stranger: bool) -> None:
        sender = RICH if stranger else self._owner(id)
        self.both(sender, "unbond", (id,), lambda: self.model.unbond(sender.address, id))

    @rule(id=ids, stranger=st.booleans())
    def withdraw_stake(self, id: int, stranger: bool) -> None:
        sender = RICH if stranger else self._owner(id)
        before = self.world.balance(sender.address)
        paid = self.both(sender, "withdrawStake", (id,), lambda: self.model.withdraw_stake(sender.address, id))
        assert self.world.balance(sender.address) == before + (paid or 0)

    @rule(id=ids, stranger=st.booleans())
    def withdraw(self, id: int, stranger: bool) -> None:
        sender, purse = RICH if stranger else self._owner(id), keccak(b"purse")[12:]
        before = self.world.balance(purse)
        paid = self.both(sender, "withdraw", (id, purse), lambda: self.model.withdraw(sender.address, id))
        assert self.world.balance(purse) == before + (paid or 0)

    @rule(who=st.sampled_from([*SERVERS[2:], *NEWCOMERS]))
    def slash(self, who: SigningKey) -> None:
        votes = [(b, who.sign(Vote(2, 0, 1, 9, b).digest(self.world.quorum.domain))) for b in (OFFERS[0], OFFERS[1])]
        self.both(RICH, "slash", (2, 0, 1, 9, *votes[0], *votes[1]), lambda: self.model.slash(who.address))

    @rule(order=st.permutations([*SERVERS, *NEWCOMERS]), size=st.integers(3, 6))
    def advance_epoch(self, order: list[SigningKey], size: int) -> None:
        chosen = order[:size]
        addresses = [key.address for key in chosen]
        header, certificate = self.world.quorum.hand_over(2_047, addresses, bytes(32))
        before = self.model.epoch
        arguments = epoch_arguments(header, certificate, addresses, bytes(32))
        self.both(RICH, "advanceEpoch", arguments, lambda: self.model.advance(addresses))
        if self.model.epoch != before:
            old = self.world.quorum
            self.world.quorum = type(old)(tuple(chosen), old.domain, self.model.epoch)

    # ---- batches

    def _section(self, draw, places: int) -> Section:
        ue = UES[draw(ues)]
        lines = tuple(self._line(draw, places) for _ in range(draw(st.integers(0, 4))))
        account, total = self.model.account(ue.address), sum(map(line_amount, lines))
        cap = max(0, account.spent + total + draw(st.sampled_from([-1, 0, 0, UNIT, 50 * UNIT])))
        until = self.world.now + draw(st.sampled_from([-1, 0, 600]))
        voucher = Voucher(cap, until)
        signature = ue.sign(voucher.digest(self.world.domain))
        if draw(st.integers(0, 9)) == 0:
            signature = signature[:64] + bytes((draw(st.integers(0, 30)),))
        return Section(signature, cap, until, lines)

    def _line(self, draw, places: int) -> Line:
        server = st.integers(0, places - 1)
        return Line(draw(server), draw(server), draw(st.integers(0, 6)), draw(st.integers(0, 3)))

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        draw = data.draw
        chosen = draw(st.permutations(range(len(self.model.servers))))[: draw(st.integers(1, 4))]
        numbers = st.integers(0, 2**32 - 1)
        rows = tuple(ServerRow(id, draw(numbers), draw(numbers)) for id in chosen)
        places = len(rows)
        locks = tuple(
            LockLine(lock_key(UES[draw(ues)].address, OFFERS[draw(offers)]), self._line(draw, places))
            for _ in range(draw(st.integers(0, 3)))
        )
        penalties = tuple(
            Penalty(
                draw(st.integers(0, len(self.model.servers) - 1)), draw(st.sampled_from([0, places - 1, BURN])),
                draw(st.sampled_from([0, 1, STAKE // 30, STAKE])),
            )
            for _ in range(draw(st.integers(0, 3)))
        )  # fmt: skip
        sections = tuple(self._section(draw, places) for _ in range(draw(st.integers(0, 3))))
        packed = encode_payload(Payload(rows, sections, locks, penalties))
        if draw(st.integers(0, 19)) == 0:
            packed = packed[: draw(st.integers(0, len(packed) - 1))]
        batch_id = self.model.batch_id + draw(st.sampled_from([1, 1, 1, 1, 0, 2]))
        self._settle(self.world.certified(packed, batch_id=batch_id))

    def _settle(self, certified) -> None:
        debit = sum(account.balance for account in self.model.accounts.values())
        debit += sum(lock.amount for lock in self.model.locks.values()) + sum(s.stake for s in self.model.servers)
        credit = sum(server.earned for server in self.model.servers) + self.model.burnt
        answers: list[Settled] = []
        refused = refusal_of(lambda: answers.append(self.model.settle(certified.batch_id, certified.payload)))
        found = refusal_of(lambda: self.world.settle(certified))
        assert (found and found.rule) == (refused and refused.rule)
        if found and refused:
            assert not refused.values or found.values == refused.values
            return
        (expected,) = answers
        self.settled.append(certified)
        assert [(name, v[1]) for name, v in self.world.logs if name.endswith("Skipped")] == expected.skipped
        # I3: what servers gained (and what was burnt) is what accounts, locks and stakes lost, to the wei.
        lost = debit - sum(account.balance for account in self.model.accounts.values())
        lost -= sum(lock.amount for lock in self.model.locks.values()) + sum(s.stake for s in self.model.servers)
        assert sum(server.earned for server in self.model.servers) + self.model.burnt - credit == lost

    @precondition(lambda self: self.settled)
    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        """I6."""
        certified = data.draw(st.sampled_from(self.settled))
        refused = refusal_of(lambda: self.world.settle(certified))  # type: ignore[arg-type]
        assert refused is not None, "a settled batch settled again"
        assert refused.rule in ("SettlementOutOfOrder", "ConsortiumWrongEpoch", "LedgerProofBadSigner")

    # ---- what holds after every call

    @invariant()
    def same_state(self) -> None:
        world, model = self.world, self.model
        assert world.balance(world.market) == model.total()
        assert world.view("head")[1:] == (model.epoch, model.batch_id)
        assert world.view("counters") == (len(model.servers), model.burnt)
        for place, ue in enumerate(UES):
            account = model.account(ue.address)
            assert world.view("account", ue.address) == (
                account.balance, account.spent, account.exit_at, account.nonce,
            )  # fmt: skip
            # I4: never falls, never above the largest cap that was signed.
            assert self.spent[place] <= account.spent <= max(account.signed, 0)
            self.spent[place] = account.spent
            for offer in OFFERS:
                key = lock_key(ue.address, offer)
                lock = model.locks.get(key)
                assert world.view("lockOf", key) == ((lock.amount, lock.deadline) if lock else (0, 0))
        for id, server in enumerate(model.servers):
            assert world.view("earned", id) == (server.earned, server.desired, server.actual, server.tasks)
            assert world.view("server", id)[:4] == (server.owner, server.stake, server.signer, server.unbond_at)


ContractMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("EDGORA_INVARIANT_RUNS", "40")),
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    phases=PHASES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
test_contract_and_model_agree = ContractMachine.TestCase
