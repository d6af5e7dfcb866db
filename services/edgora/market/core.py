"""What every operation of the market works on: the constants, the state, the block being executed, the events so far.

Rule 1: time is the header time of the block, `now_ms`; nothing else tells the time.
Rule 2: the rooms beside this one (lifecycle, rounds, audit, settlement, facts) are functions over a Core; who calls
them in which order is machine.py's business.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from edgora.market.records import Account, Server, Task
from edgora.market.rules import run_ms, transfer_ms
from edgora.market.state import State
from edgora.wire.codec import to_u96
from edgora.wire.eip712 import Domain
from edgora.wire.ledger import faulty, quorum
from edgora.wire.market import LiveServer, MarketParams, OpenTask, TaskState
from edgora.wire.market_events import AccountChanged

__all__ = ["BAN_MS", "FORGIVE_MS", "U48_MAX", "Core", "ServerKey", "check_params"]

FORGIVE_MS = 600_000
"""A server's credit is back at credit0 this long after its last fault (market.md 5)."""
BAN_MS = 600_000
"""How long a (source, executor) pair is not ok after UNAVAILABLE (market.md 5)."""
U48_MAX = 2**48 - 1
_NO_BLOCK = bytes(32)


class ServerKey(Protocol):
    """What genesis says of a server; wire.genesis.GenesisServer fits."""

    @property
    def id(self) -> int: ...

    @property
    def signer(self) -> bytes: ...

    @property
    def meta_hash(self) -> bytes: ...


def check_params(params: MarketParams, validators: int) -> None:
    """Raises ValueError, with one sentence, for parameters under which the market could not keep its word."""
    needed = 10_000 * (faulty(validators) + 1)
    rules = (
        (params.file_ms >= needed, f"file_ms {params.file_ms} is below {needed} = 10,000 (f+1)"),
        (params.round_ms >= 1 and params.proposal_ms >= 1, "round_ms and proposal_ms must be at least 1"),
        (params.draw_ms >= 1 and params.audit_max_ms >= 1, "draw_ms and audit_max_ms must be at least 1"),
        (params.batch_ms >= 1 and params.margin_ms >= 4, "batch_ms must be at least 1, margin_ms at least 4"),
        (0 <= params.lambda_bps <= 10_000, f"lambda_bps {params.lambda_bps} is not within 0..10,000"),
        (0 <= params.floor_bps <= 10_000, f"floor_bps {params.floor_bps} is not within 0..10,000"),
        (0 <= params.audit_bps <= 10_000, f"audit_bps {params.audit_bps} is not within 0..10,000"),
        (1 <= params.auditors <= 64, f"auditors {params.auditors} is not within 1..64"),
        (0 < params.probe <= params.credit0 <= U48_MAX, "0 < probe <= credit0 < 2^48 does not hold"),
        (0 <= params.audit_pay < 2**64, "audit_pay must fit 64 bits"),
        (params.slack_ms >= 0 and params.keep_ms >= 0, "slack_ms and keep_ms must not be negative"),
        (params.exit_delay_s * 1000 > 2 * params.margin_ms, "exit_delay_s must be longer than two margins"),
    )
    for holds, sentence in rules:
        if not holds:
            raise ValueError(sentence)


class Core:
    """Constants, state and the current block."""

    def __init__(
        self, params: MarketParams, servers: Sequence[ServerKey], validators: int, ledger_domain: Domain,
        market_domain: Domain, chain_id: int, market_address: bytes,
    ) -> None:  # fmt: skip
        check_params(params, validators)
        self.params = params
        self.validators = validators
        self.f = faulty(validators)
        self.q = quorum(validators)
        self.ledger_domain = ledger_domain
        self.market_domain = market_domain
        self.chain_id = chain_id
        self.market_address = market_address
        self.state = State(self.due_ms)
        self.now_ms = 0
        self.height = 0
        self.block_hash = _NO_BLOCK
        self.events: list[msgspec.Struct] = []
        for server in servers:
            self.state.put_server(Server(server.id, server.signer, server.meta_hash, credit=params.credit0))
        self.state.drain()  # genesis is the snapshot that the first block's writes build on

    def emit(self, event: msgspec.Struct) -> None:
        self.events.append(event)

    # ---- servers

    def server_of(self, address: bytes) -> Server | None:
        number = self.state.signers.get(address)
        return None if number is None else self.state.servers[number]

    def validator_of(self, address: bytes) -> Server | None:
        """The server of this address, if it is a validator: server id = validator index in version 1."""
        server = self.server_of(address)
        return server if server is not None and server.id < self.validators else None

    def is_live(self, server: Server) -> bool:
        advert = server.advert
        return (
            advert is not None and server.fit and server.registered and not server.leaving
            and advert.capacity > 0 and advert.until_ms > self.now_ms
        )  # fmt: skip

    def live(self) -> list[Server]:
        """By id."""
        return [server for server in self.state.servers.values() if self.is_live(server)]

    # ---- the view of a round

    def as_seller(self, server: Server) -> LiveServer:
        """A server with an advert, as an instance holds it."""
        advert = server.advert
        assert advert is not None
        return LiveServer(
            server.id, advert.speed, advert.capacity, advert.slots, advert.ask, advert.uplink, advert.forward,
            server.credit, server.used,
        )  # fmt: skip

    def sellers(self) -> list[LiveServer]:
        return [self.as_seller(server) for server in self.live()]

    def as_open(self, task: Task) -> OpenTask:
        """A task as an instance holds it, with the pairs that are banned now."""
        offer = task.offer
        banned = {executor for source, executor in self.state.bans.ordered() if source == offer.source}
        return OpenTask(
            task.offer_id, offer.ue, offer.source, offer.fuel_limit, offer.price, offer.input_octets,
            offer.output_octets, offer.desired_ms, offer.deadline_ms, tuple(sorted(banned.union(task.excluded))),
        )  # fmt: skip

    # ---- time

    def least_ms(self, fuel: int, input_octets: int, output_octets: int, source: int) -> int:
        """Least T over the known adverts, live or not; 0 if there is none (market.md 4, EXPIRED)."""
        origin = self.state.servers.get(source)
        forward = transfer_ms(input_octets, origin.advert.uplink) if origin is not None and origin.advert else 0
        return min(
            (
                run_ms(fuel, advert.speed) + transfer_ms(output_octets, advert.uplink) + (forward if i != source else 0)
                for i, advert in ((server.id, server.advert) for server in self.state.servers.values())
                if advert is not None
            ),
            default=0,
        )

    def end_ms(self, deadline_ms: int) -> int:
        """The latest moment at which a task of this deadline can become payable (market.md 6)."""
        p = self.params
        return self.resolved_ms(deadline_ms) + p.batch_ms

    def resolved_ms(self, deadline_ms: int) -> int:
        """By then every task of this deadline is FINAL or has ended without pay: end - batch_ms."""
        p = self.params
        return deadline_ms + p.file_ms + 2 * (p.draw_ms + p.audit_max_ms)

    def due_ms(self, task: Task) -> int | None:
        """When this task moves by time alone; None if it waits for somebody or is over."""
        offer = task.offer
        if task.state == TaskState.OPEN:
            least = self.least_ms(offer.fuel_limit, offer.input_octets, offer.output_octets, offer.source)
            return max(0, offer.deadline_ms - self.params.slack_ms - least) + 1
        if task.state == TaskState.ASSIGNED:
            last = offer.deadline_ms + self.params.file_ms
            return min(task.file_by_ms or last, last) + 1
        if task.state == TaskState.DONE and task.audit is not None:
            audit = task.audit
            if audit.number == 0:
                due = audit.draw_by_ms + 1
            else:
                due = min((a.by_ms for a in audit.auditors if not a.closed), default=audit.ends_ms) + 1
            return min(due, self.resolved_ms(offer.deadline_ms))
        return None

    def chain_seen_ms(self) -> int:
        """Header time of the q-th newest Head; 0 while fewer than q validators have filed one."""
        filed = sorted((head.filed_ms for head in self.state.heads.values()), reverse=True)
        return filed[self.q - 1] if len(filed) >= self.q else 0

    def chain_seen(self) -> bool:
        """Whether voucher tasks may be admitted: a quorum has looked at the chain lately (contracts.md 9)."""
        seen = self.chain_seen_ms()
        return seen > 0 and self.now_ms - seen <= self.params.margin_ms // 2

    # ---- accounts

    def put_account(self, account: Account) -> None:
        """Stores an account and says so."""
        self.state.accounts.put(account.ue, account)
        voucher = account.voucher
        self.emit(AccountChanged(
            account.ue, to_u96(account.balance), to_u96(account.spent), to_u96(account.reserved),
            voucher.cap if voucher else bytes(12), voucher.valid_until_s if voucher else 0, account.exit_at_s,
        ))  # fmt: skip
