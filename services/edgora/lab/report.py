"""What a run came to: every task's end, latency by stage, rounds against their proven optimum, gas, money to the wei.

Everything is read back from where it is certain: tasks and rounds from the ledger's events, money from the contract.
Whatever is not as it must be is a sentence in `problems`; a run without problems is a good run.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from edgora.allocator import registry
from edgora.allocator.live import LiveRound
from edgora.lab.plans import PlanLine, WaveLine, plan_lines, wave_lines
from edgora.market.reasons import sentence, skipped_sentence, verdict
from edgora.node.duties.pacing import Pace
from edgora.ports.bus import Skipped
from edgora.ports.chain import Chain
from edgora.ports.store import BlockReader
from edgora.ue.miner import Means, MinedSlot, beside
from edgora.ue.plan import Mining
from edgora.ue.records import FleetRun, TaskRecord
from edgora.wire.codec import decode, from_u96, from_u128
from edgora.wire.genesis import Genesis
from edgora.wire.ledger import Kind
from edgora.wire.market import Allocation, Code, Deposited, Instance
from edgora.wire.market_events import (
    BatchClosed,
    BatchFrozen,
    Event,
    FactApplied,
    ResultFiled,
    RoundClosed,
    RoundOpened,
    TaskAssigned,
    TaskFinal,
    TaskOpened,
    TaskRefunded,
    TaskSettled,
    Verdict,
)

__all__ = ["Latency", "Money", "Report", "RoundLine", "latencies", "percentile", "read_events", "report_run"]

E = TypeVar("E")
_PAGE = 4_096
_OPTIMUM_S = 2.0
"""Wall time to prove one round's optimum; a bound stands in for it beyond."""


class Latency(msgspec.Struct, kw_only=True):
    """Milliseconds of one stage."""

    stage: str
    tasks: int
    p50: float
    p99: float
    what: str


class RoundLine(msgspec.Struct, kw_only=True):
    """One closed round, in wei. optimum is proven unless proven is false; then it is an upper bound."""

    round: int
    tasks: int
    winner: str
    winner_server: int | None
    value: int
    greedy: int
    bound: int | None
    optimum: int
    proven: bool
    proposals: int
    """Accepted ones."""
    refused: int
    late: int
    """Ordered when the round was over."""
    why: str
    """Why that plan won, in words."""
    skipped: list[str]
    """Which allocators made no proposal, and why."""


class Money(msgspec.Struct, kw_only=True):
    """Wei. Every pair must be equal."""

    deposited: int
    charged: int
    returned_or_free: int
    executors: int
    sources: int
    stakes: int
    contract_balance: int
    checks: dict[str, tuple[int, int]]
    """What -> (by the ledger, on the chain)."""


class Report(msgspec.Struct, kw_only=True):
    scenario: str
    seed: int
    chain: str
    wall_s: float
    height: int
    tasks: int
    settled: int
    refunded: int
    refunds_planned: int
    verified: int
    kernels: dict[str, int]
    latency_ms: list[Latency]
    gas: dict[str, float]
    rounds: list[RoundLine]
    utility: int
    """Sum of the winners' values, wei."""
    optimum: int
    money: Money
    policies: dict[str, int]
    """Rounds that each policy won; "greedy" is the built-in."""
    waves: list[WaveLine] = []
    """Plans of the fleet's allocation policy; none without one."""
    plans: list[PlanLine] = []
    """Of each wave, each UE's part, planned and met."""
    privacy: list[Means] = []
    """Of UEs that mine: their policy's means a slot, and those of others on the same data, channel and levels."""
    mined: list[MinedSlot] = []
    """Their slots."""
    records: list[TaskRecord]
    problems: list[str]

    @property
    def good(self) -> bool:
        return not self.problems


class _Timed(msgspec.Struct):
    time_ms: int
    event: Event


def read_events(store: BlockReader) -> list[_Timed]:
    """All events of the ledger, in order, with header time."""
    found: list[_Timed] = []
    after = 0
    while page := store.events(after, _PAGE):
        found += [_Timed(e.time_ms, decode(e.data, Event)) for e in page]  # type: ignore[arg-type]
        after = page[-1].id
    return found


def _of(events: Iterable[_Timed], kind: type[E]) -> list[tuple[int, E]]:
    return [(t.time_ms, t.event) for t in events if isinstance(t.event, kind)]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share lies (nearest rank)."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


def latencies(events: Sequence[_Timed], records: Sequence[TaskRecord]) -> list[Latency]:
    """p50 and p99 of each stage that a task of the run went through."""
    opened = {e.offer_id: t for t, e in _of(events, TaskOpened)}
    assigned: dict[bytes, int] = {e.offer_id: t for t, e in _of(events, TaskAssigned)}
    filed = {e.offer_id: e.done_ms for _, e in _of(events, ResultFiled)}
    final = {e.offer_id: t for t, e in _of(events, TaskFinal)}
    settled = {e.offer_id: t for t, e in _of(events, TaskSettled)}

    def between(a: Mapping[bytes, int], b: Mapping[bytes, int]) -> list[float]:
        return [float(max(0, b[k] - a[k])) for k in b if k in a]

    def seen(last: str, first: str | None = None) -> list[float]:
        both = [r.seen_ms for r in records if last in r.seen_ms and (first is None or first in r.seen_ms)]
        return [float(at[last] - (at[first] if first else 0)) for at in both]

    rows = [
        ("admit", seen("stored"), "UE: arrival, sealing, upload over the radio, the source's Stored"),
        ("order", seen("ordered", "stored"), "UE: TASK signed, ordered and executed with code 0"),
        ("allocate", between(opened, assigned), "ledger: TASK ordered to the close of the round that assigned it"),
        ("run", between(assigned, filed), "ledger: assigned to result held by f+1: transfer, WASM, sealing, holding"),
        ("deliver", seen("delivered"), "UE: arrival to opened and verified result"),
        ("certify", between(filed, final), "ledger: result filed to final receipt, audits included"),
        ("settle", between(final, settled), "ledger: final receipt to payment seen on the chain by a quorum"),
        ("total", seen("ended"), "UE: arrival to SETTLED or REFUNDED"),
    ]
    return [
        Latency(stage=s, tasks=len(v), p50=round(statistics.median(v), 1), p99=percentile(v, 0.99), what=w)
        for s, v, w in rows
        if v
    ]


def _optimum(instance: Instance) -> tuple[int, bool]:
    """The best total value of a round in wei, proven by HiGHS, or an upper bound on it."""
    live = LiveRound(instance)
    if not live.wanted.any():
        return 0, True
    found = registry.policy("mta", "exact").propose(live, _OPTIMUM_S)
    value = live.value(live.complete(found.plan))
    if found.bound is None:
        return value, False
    bound = live.bound(found.bound, value)
    # The solver works on floats of W / max W: within its tolerance the value that it reached is the optimum.
    return (value, True) if bound - value <= max(1, value // 10**7) else (bound, False)


def _late_proposals(store: BlockReader) -> Counter[int]:
    """By round: proposals that were ordered when it was over. They change nothing, so no event tells of them."""
    late: Counter[int] = Counter()
    for height in range(1, store.height() + 1):
        stored = store.block(height)
        if stored is None:
            continue
        for signed, receipt in zip(stored.block.txs, stored.receipts, strict=True):
            if signed.tx.kind == Kind.ALLOCATION and receipt.code in {Code.NO_ROUND, Code.WRONG_ROUND}:
                late[decode(signed.tx.payload, Allocation).round] += 1
    return late


def _rounds(
    events: Sequence[_Timed], late: Mapping[int, int], skipped: Mapping[int, Sequence[Skipped]], prefer: str
) -> list[RoundLine]:
    instances = {e.instance.round: e.instance for _, e in _of(events, RoundOpened)}
    lines = []
    for _, closed in _of(events, RoundClosed):
        instance = instances[closed.round]
        optimum, proven = _optimum(instance)
        behind = late.get(closed.round, 0)
        lines.append(RoundLine(
            round=closed.round, tasks=len(instance.tasks), winner="greedy" if closed.winner is None else closed.policy,
            winner_server=closed.winner, value=from_u128(closed.value), greedy=from_u128(closed.greedy),
            bound=None if closed.bound is None else from_u128(closed.bound), optimum=optimum, proven=proven,
            proposals=len(closed.accepted), refused=len(closed.refused), late=behind,
            why=sentence(verdict(closed, behind, prefer)),
            skipped=[
                f"server {s.node}, {s.policy}: {skipped_sentence(s.reason)}" for s in skipped.get(closed.round, ())
            ],
        ))  # fmt: skip
    return lines


async def _money(genesis: Genesis, events: Sequence[_Timed], chain: Chain, addresses: Sequence[bytes]) -> Money:
    deposits: dict[bytes, int] = defaultdict(int)
    for _, applied in _of(events, FactApplied):
        if isinstance(applied.fact, Deposited):
            deposits[applied.fact.ue] += from_u96(applied.fact.wei)
    owners = {e.offer_id: e.offer for _, e in _of(events, TaskOpened)}
    finals = {e.offer_id: e for _, e in _of(events, TaskFinal)}
    executors = {e.offer_id: e.executor for _, e in _of(events, TaskAssigned)}
    charged: dict[bytes, int] = defaultdict(int)
    earned: dict[int, int] = defaultdict(int)
    to_executors = to_sources = 0
    for _, paid in _of(events, TaskSettled):
        receipt, offer = finals[paid.offer_id], owners[paid.offer_id]
        charged[offer.ue] += from_u96(paid.paid)
        earned[executors[paid.offer_id]] += from_u96(receipt.executor_share)
        earned[offer.source] += from_u96(receipt.source_share)
        to_executors += from_u96(receipt.executor_share)
        to_sources += from_u96(receipt.source_share)
    penalties = sum(from_u96(p.wei) for _, v in _of(events, Verdict) for p in v.penalties)
    checks: dict[str, tuple[int, int]] = {}
    accounts = 0
    for address in addresses:
        held = (await chain.account(address)).balance
        accounts += held
        checks[f"account 0x{address.hex()[:8]}"] = (deposits[address] - charged[address], held)
    servers = stakes = 0
    for server in genesis.servers:
        view, registered = await chain.earned(server.id), await chain.server(server.id)
        servers += view.balance
        stakes += registered.stake if registered is not None else 0
        if not penalties:
            checks[f"earnings of server {server.id}"] = (earned[server.id], view.balance)
    balance = await chain.balance(genesis.market_address)
    total = sum(charged.values())
    checks["charged = executors + sources"] = (total, to_executors + to_sources)
    checks["contract = accounts + earnings + stakes"] = (accounts + servers + stakes, balance)
    return Money(
        deposited=sum(deposits.values()), charged=total, returned_or_free=accounts, executors=to_executors,
        sources=to_sources, stakes=stakes, contract_balance=balance, checks=checks,
    )  # fmt: skip


def _problems(
    records: Sequence[TaskRecord], mined: Sequence[MinedSlot], money: Money, rounds: Sequence[RoundLine]
) -> list[str]:  # fmt: skip
    found = [
        f"slot {s.number} of mining UE {s.ue} gave no puzzle solved: {s.error or 'a wrong output'}"
        for s in mined
        if s.puzzle_kb > 0 and not s.verified
    ]
    for r in records:
        name = f"task {r.number} ({r.kernel}, UE {r.ue})"
        if r.state not in {"SETTLED", "REFUNDED"}:
            found.append(f"{name} ended neither settled nor refunded: {r.state} {r.error or r.reason}")
        elif r.state == "REFUNDED" and r.fate == "settle":
            found.append(f"{name} was refunded, which was not planned: {r.reason}")
        elif r.state == "SETTLED" and r.fate != "settle":
            found.append(f"{name} was settled, a refund was planned")
        elif r.fate == "settle" and (r.code != "OK" or not r.verified):
            found.append(f"{name} gave {r.code}, verified {r.verified}: {r.error or 'a wrong output'}")
    found += [
        f"{what}: {ledger} wei by the ledger, {chain} on the chain"
        for what, (ledger, chain) in money.checks.items()
        if ledger != chain
    ]
    found += [
        f"round {r.round} was won by {r.value} wei, above its optimum {r.optimum}"
        for r in rounds
        if r.value > r.optimum
    ]
    return found


async def report_run(
    genesis: Genesis, name: str, seed: int, chain_kind: str, chain: Chain, store: BlockReader, run: FleetRun,
    settle_gas: Callable[[], Mapping[str, float]], skipped: Mapping[int, Sequence[Skipped]],
    paces: Mapping[bytes, Pace], mining: Mining,
) -> Report:  # fmt: skip
    """Put the report together.

    settle_gas gives what settlements cost, as the relayers saw it; skipped, by round, the allocators without a proposal;
    paces, by offer id, what executors paced runs to; mining, of the fleet.
    """
    events = read_events(store)
    rounds = _rounds(events, _late_proposals(store), skipped, genesis.market.prefer)
    money = await _money(genesis, events, chain, [bytes.fromhex(a[2:]) for a in run.addresses])
    records = sorted(run.records, key=lambda r: r.number)
    settled = len(_of(events, TaskSettled))
    batches = len(_of(events, BatchClosed))
    gas = {"batches": float(len(_of(events, BatchFrozen))), "settled_batches": float(batches), **settle_gas()}
    if settled:
        gas["per_settled_task"] = round(gas.get("settle_total", 0.0) / settled, 1)
    return Report(
        scenario=name, seed=seed, chain=chain_kind, wall_s=round(run.wall_ms / 1000, 1), height=store.height(),
        tasks=len(records), settled=sum(r.state == "SETTLED" for r in records),
        refunded=len(_of(events, TaskRefunded)), refunds_planned=sum(r.fate != "settle" for r in records),
        verified=sum(bool(r.verified) for r in records), kernels=dict(Counter(r.kernel for r in records)),
        latency_ms=latencies(events, records), gas=gas, rounds=rounds, utility=sum(r.value for r in rounds),
        optimum=sum(r.optimum for r in rounds), money=money, policies=dict(Counter(r.winner for r in rounds)),
        waves=wave_lines(run), plans=plan_lines(run, paces), records=records,
        privacy=beside(mining, run.mined), mined=run.mined, problems=_problems(records, run.mined, money, rounds),
    )  # fmt: skip
