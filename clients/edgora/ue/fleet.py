"""Run a drawn plan against a live platform: each UE is one SDK client behind its own radio link.

The fleet keeps a record a task: what was asked, what came back, whether it was right, when each stage was seen and how
the task ended. A record never hides a failure: an error stays in it, with its sentence.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import TypeVar

import httpx2
import msgspec

from edgora.allocator.radio import Channel
from edgora.client import AsyncClient, Order, Tell, Ticket, Wallet
from edgora.client.trust import hex0x
from edgora.ue.plan import Arrival, Fleet, draw_positions, nearest
from edgora.ue.radio import RadioTransport, rates
from edgora.ue.work import draw_work
from edgora.wire import rest
from edgora.wire.errors import EdgoraError, Refused, RuleRefused, TooMany, Unavailable

__all__ = ["FleetRun", "TaskRecord", "run_fleet"]

T = TypeVar("T")
_DOOMED_PATIENCE_MS = 4_000
_AGAIN_S = 0.5
_PASSING = frozenset((
    "CHAIN_NOT_SEEN", "DEADLINE_TOO_SOON", "FUEL_TOO_LARGE", "NOT_AUDITABLE", "SETTLEMENT_BEHIND", "TASKS_FULL", "UE_TASKS_FULL",
))  # fmt: skip
"""Rules that refuse an order for what the consortium is doing now, not for what the order is."""


class TaskRecord(msgspec.Struct, kw_only=True):
    """One task of the run. Times are milliseconds since its arrival, as its UE saw them."""

    number: int
    ue: int
    kernel: str
    fate: str
    at_ms: int
    source: int | None = None
    task: str | None = None
    state: str = "DRAWN"
    executor: int | None = None
    code: str | None = None
    verified: bool | None = None
    """Whether the output is what an independent computation says; null if there was none to check."""
    fuel_used: int = 0
    maximum: int = 0
    amount: int = 0
    reason: str = ""
    error: str | None = None
    seen_ms: dict[str, int] = {}
    """Stage or event -> when it was first seen."""
    done: bool = False


_playing: ContextVar[TaskRecord] = ContextVar("playing")
_began: ContextVar[float] = ContextVar("began")
"""Of the asyncio task that a step is told in: a UE plays several tasks at a time."""


class FleetRun(msgspec.Struct, kw_only=True):
    """What a run was and came to."""

    records: list[TaskRecord]
    addresses: list[str]
    rates_bits_s: list[float]
    positions_m: list[tuple[float, float]]
    wall_ms: int


async def run_fleet(
    fleet: Fleet,
    arrivals: Sequence[Arrival],
    seed: int,
    urls: Mapping[int, str],
    places: Mapping[int, tuple[float, float]],
    *,
    genesis_id: str | None = None,
    inside: bool = False,
    on_change: Callable[[TaskRecord], None] | None = None,
    wallets: Sequence[Wallet] | None = None,
) -> FleetRun:
    """Play the arrivals. urls and places: of each server by id. Returns when every task has ended or given up."""
    positions = draw_positions(fleet, seed)
    links = rates(Channel(bandwidth_hz=fleet.bandwidth_hz), fleet.power_w, positions, places)
    keys = list(wallets or [])
    while len(keys) < fleet.ues:
        keys.append(await asyncio.to_thread(Wallet.generate))
    start = time.monotonic()
    records: list[TaskRecord] = []
    ues = [
        _Ue(
            i,
            keys[i],
            [urls[s] for s in nearest(positions[i], places)],
            nearest(positions[i], places),
            links[i],
            genesis_id,
            inside,
        )
        for i in range(fleet.ues)
    ]
    try:
        await asyncio.gather(*(ue.client.fund(fleet.deposit_gwei * 10**9) for ue in ues))
        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number, arrival in enumerate(arrivals):
                await asyncio.sleep(max(0.0, arrival.at_ms / 1000 - (time.monotonic() - start)))
                record = TaskRecord(
                    number=number, ue=arrival.ue, kernel=arrival.kernel, fate=arrival.fate,
                    at_ms=int(1000 * (time.monotonic() - start)), seen_ms={},
                )  # fmt: skip
                records.append(record)
                group.create_task(ues[arrival.ue].play(fleet, arrival, record, on_change or (lambda _: None)))
    finally:
        for ue in ues:
            await ue.close()
    return FleetRun(
        records=records, addresses=[hex0x(w.address) for w in keys], rates_bits_s=links, positions_m=positions,
        wall_ms=int(1000 * (time.monotonic() - start)),
    )  # fmt: skip


def _passes(error: EdgoraError) -> bool:
    """Whether the same order may be welcome in a moment: nodes away or busy, a server that went, a chain behind."""
    if isinstance(error, RuleRefused):
        return error.rule in _PASSING
    return isinstance(error, Unavailable | TooMany) or error.field == "source"


class _Ue:
    def __init__(
        self,
        index: int,
        wallet: Wallet,
        urls: list[str],
        near: list[int],
        rate: float,
        genesis_id: str | None,
        inside: bool,
    ) -> None:
        self.index = index
        self.near = near
        self._http = httpx2.AsyncClient(transport=RadioTransport(httpx2.AsyncHTTPTransport(retries=0), rate))
        self.client = AsyncClient(
            urls, wallet, genesis_id=genesis_id, http=self._http, inside=inside, on_progress=self._told
        )
        self._current: dict[str, tuple[TaskRecord, float, Callable[[TaskRecord], None]]] = {}

    async def close(self) -> None:
        await self.client.aclose()
        await self._http.aclose()

    def _told(self, tell: Tell) -> None:
        if tell.stage == "stored":
            _playing.get().seen_ms.setdefault("stored", int(1000 * (time.monotonic() - _began.get())))
        if tell.event is None or tell.event.task is None:
            return
        known = self._current.get(tell.event.task)
        if known is not None:
            record, start, changed = known
            if tell.event.type not in record.seen_ms:
                record.seen_ms[tell.event.type] = int(1000 * (time.monotonic() - start))
                changed(record)

    async def play(
        self, fleet: Fleet, arrival: Arrival, record: TaskRecord, changed: Callable[[TaskRecord], None]
    ) -> None:
        start = time.monotonic()
        _playing.set(record)
        _began.set(start)

        def mark(stage: str, state: str) -> None:
            record.seen_ms.setdefault(stage, int(1000 * (time.monotonic() - start)))
            record.state = state
            changed(record)

        deadline = start + 3 * fleet.patience_ms / 1000
        try:
            work = await asyncio.to_thread(draw_work, arrival.kernel, arrival.seed)
            mark("sealing", "SEALING")
            ticket = await self._admitted(fleet, arrival, work.order, deadline)
            record.source = ticket.offer.source
            record.task = hex0x(ticket.task)
            record.maximum = ticket.offer.fuel_limit * ticket.offer.price * 1000
            self._current[record.task] = (record, start, changed)
            mark("ordered", "OPEN")
            if arrival.fate == "cancel":
                await self._insist(lambda: self.client.cancel(ticket.task), deadline)
                mark("cancelled", "CANCELLED")
            if arrival.fate == "settle":
                delivery = await self._insist(lambda: self.client.deliver(ticket), deadline)
                record.executor, record.code, record.fuel_used = (
                    delivery.executor,
                    delivery.code.name,
                    delivery.fuel_used,
                )
                mark("delivered", "DONE")
                record.verified = await asyncio.to_thread(work.check, delivery.output)
            ended = await self._insist(lambda: self.client.finish(ticket.task), deadline)
            record.amount = int(ended.amount)
            record.reason = ended.why
            mark("ended", ended.state)
        except EdgoraError as error:
            record.error = error.detail
            if record.task is not None:
                try:
                    ended = await self._insist(lambda: self.client.finish(bytes.fromhex(record.task[2:])), deadline)  # type: ignore[index]
                    record.state, record.amount, record.reason = ended.state, int(ended.amount), ended.why
                except EdgoraError as again:
                    record.error += f"; {again.detail}"
        finally:
            record.done = True
            changed(record)

    async def _admitted(self, fleet: Fleet, arrival: Arrival, order: Order, deadline: float) -> Ticket:
        """Bid and submit, again with what servers say then when the refusal is one that passes by itself."""
        while True:
            try:
                bid = self._bid(fleet, arrival, order, await self._insist(self.client.servers, deadline))
                return await self._insist(partial(self.client.submit, bid), deadline)
            except EdgoraError as error:
                if not _passes(error) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_AGAIN_S)

    def _bid(self, fleet: Fleet, arrival: Arrival, order: Order, listed: Sequence[rest.Server]) -> Order:
        live = {s.id: s.advert.ask for s in listed if s.live and s.advert is not None and s.keys is not None}
        if not live:
            raise Unavailable("no server is live", field="servers")
        near = [s for s in self.near if s in live]
        if arrival.fate == "settle":
            price = max(live.values()) + arrival.margin
            return replace(
                order, source=near[0], price=price, desired_ms=fleet.desired_ms, patience_ms=fleet.patience_ms
            )
        # Priced so that just the cheapest server would take it and forwarding the input there costs more than it earns.
        cheapest = min(live.values())
        sources = [s for s in near if live[s] > cheapest]
        if not sources:
            raise Refused("every server asks the same: the plan's refunds need a dearer source", field="plan")
        patience = _DOOMED_PATIENCE_MS if arrival.fate == "expire" else fleet.patience_ms
        return replace(order, source=sources[0], price=cheapest, desired_ms=fleet.desired_ms, patience_ms=patience)

    async def _insist(self, verb: Callable[[], Awaitable[T]], deadline: float) -> T:
        """Try again while nodes are away: a UE outlives an outage. The SDK repeats identical bytes, so nothing runs twice."""
        while True:
            try:
                return await verb()
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_AGAIN_S)
