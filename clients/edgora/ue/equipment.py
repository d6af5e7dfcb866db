"""One user equipment of a fleet: an SDK client behind its own radio link that plays the arrivals of its plan.

Each arrival is a task with a fate: to settle, to be cancelled, or to expire. The first is priced so that every server
would take it, the others so that only the cheapest would. A refusal that passes by itself - nodes away or busy, a full
market, a chain behind - is tried again with what servers say then; any other ends the task, and its record says so.

With a share of an allocation plan, a UE sends to the plan's server at the plan's rates and follows its split.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import httpx2

from edgora.allocator.plan_files import UeShare
from edgora.client import AsyncClient, Done, Order, Tell, Ticket, Wallet
from edgora.client.trust import hex0x
from edgora.ue.follow import Parts, follow, measure
from edgora.ue.miner import Sent
from edgora.ue.plan import Arrival, Fleet
from edgora.ue.radio import RadioTransport
from edgora.ue.records import TaskRecord
from edgora.ue.waves import Works
from edgora.wire import rest
from edgora.wire.errors import EdgoraError, Refused, RuleRefused, TooMany, Unavailable
from edgora.wire.market import ResultCode

if TYPE_CHECKING:
    from edgora.ue.device import Device

__all__ = ["Equipment"]

T = TypeVar("T")
_DOOMED_PATIENCE_MS = 4_000
_AGAIN_S = 0.5
_PASSING = frozenset((
    "CHAIN_NOT_SEEN", "DEADLINE_TOO_SOON", "FUEL_TOO_LARGE", "NOT_AUDITABLE", "SETTLEMENT_BEHIND", "TASKS_FULL", "UE_TASKS_FULL",
))  # fmt: skip
"""Rules that refuse an order for what the consortium is doing now, not for what the order is."""

_playing: ContextVar[TaskRecord] = ContextVar("playing")
_began: ContextVar[float] = ContextVar("began")
"""Of the asyncio task that a step is told in: a UE plays several tasks at a time."""


def _passes(error: EdgoraError) -> bool:
    """Whether the same order may be welcome in a moment: nodes away or busy, a server that went, a chain behind."""
    if isinstance(error, RuleRefused):
        return error.rule in _PASSING
    return isinstance(error, Unavailable | TooMany) or error.field == "source"


class Equipment:
    """One UE: its keys, its radio, its client and, where the fleet splits or mines, its processor."""

    def __init__(
        self,
        index: int,
        wallet: Wallet,
        urls: list[str],
        near: list[int],
        rate: float,
        genesis_id: str | None,
        inside: bool,
        works: Works,
        device: "Device | None",
        on_done: Callable[[Done], None] | None,
    ) -> None:
        self.index = index
        self.near = near
        self._works, self.device = works, device
        self.radio = RadioTransport(httpx2.AsyncHTTPTransport(retries=0), rate, aired=self._aired)
        self._http = httpx2.AsyncClient(transport=self.radio)
        self.client = AsyncClient(
            urls, wallet, genesis_id=genesis_id, http=self._http, inside=inside, on_progress=self._told, on_done=on_done
        )
        self._current: dict[str, tuple[TaskRecord, float, Callable[[TaskRecord], None]]] = {}

    async def close(self) -> None:
        await self.client.aclose()
        await self._http.aclose()
        if self.device is not None:
            await self.device.close()

    def tune(self, share: UeShare) -> None:
        """The rates of a new plan."""
        self.radio.tune(share.rate_up, share.rate_down)

    def _aired(self, request: httpx2.Request, up: bool, seconds: float) -> None:
        """Note what a task's input and result spent on the air."""
        record = _playing.get(None)
        if record is None or record.followed is None:
            return
        met, path = record.followed.met_ms, request.url.path
        if up and path.startswith("/v1/inputs/"):
            met["upload"] = met.get("upload", 0.0) + 1000.0 * seconds
        elif not up and path.endswith("/result"):
            met["download"] = met.get("download", 0.0) + 1000.0 * seconds

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
                record.ledger_ms[tell.event.type] = tell.event.time_ms
                changed(record)

    async def play(
        self,
        fleet: Fleet,
        arrival: Arrival,
        record: TaskRecord,
        planned: tuple[int, UeShare] | None,
        changed: Callable[[TaskRecord], None],
    ) -> None:
        start = time.monotonic()
        _playing.set(record)
        _began.set(start)

        def mark(stage: str, state: str) -> None:
            record.seen_ms.setdefault(stage, int(1000 * (time.monotonic() - start)))
            record.state = state
            changed(record)

        deadline = start + 3 * fleet.patience_ms / 1000
        parts: Parts | None = None
        try:
            work = await self._works.of(record.number)
            order = work.order
            if planned is not None and arrival.fate == "settle":
                parts = follow(work, record, *planned, self.device)
                order = parts.order
            mark("sealing", "SEALING")
            ticket = await self._admitted(fleet, arrival, order, deadline)
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
                output = delivery.output
                if parts is not None and delivery.code is ResultCode.OK:
                    output = await parts.whole(output)
                mark("delivered", "DONE")
                record.verified = await asyncio.to_thread(work.check, output)
            ended = await self._insist(lambda: self.client.finish(ticket.task), deadline)
            record.amount = int(ended.amount)
            record.reason = ended.why
            mark("ended", ended.state)
        except EdgoraError as error:
            record.error = error.detail
            if record.task is not None:
                task = bytes.fromhex(record.task.removeprefix("0x"))
                try:
                    ended = await self._insist(partial(self.client.finish, task), deadline)
                    record.state, record.amount, record.reason = ended.state, int(ended.amount), ended.why
                except EdgoraError as again:
                    record.error += f"; {again.detail}"
        finally:
            if parts is not None:
                await parts.give_up()
                measure(record)
            self._works.forget(record.number)
            record.done = True
            changed(record)

    async def have_done(self, fleet: Fleet, bids: Arrival, order: Order) -> Sent:
        """One more task of this UE, to its end: a mining UE's. Raises EdgoraError."""
        _playing.set(TaskRecord(number=-1, ue=self.index, kernel=bids.kernel, fate="settle", at_ms=0))
        _began.set(time.monotonic())
        deadline = time.monotonic() + 3 * fleet.patience_ms / 1000
        ticket = await self._admitted(fleet, bids, order, deadline)
        delivery = await self._insist(lambda: self.client.deliver(ticket), deadline)
        ended = await self._insist(lambda: self.client.finish(ticket.task), deadline)
        if delivery.code is not ResultCode.OK:
            raise Unavailable(f"the puzzle ended {delivery.code.name}: {ended.why}", field="mining")
        return Sent(hex0x(ticket.task), int(ended.amount), delivery.output)

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
        followed = _playing.get().followed
        if followed is not None and followed.server in live:
            near.insert(0, followed.server)
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
