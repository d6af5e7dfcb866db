"""Run a drawn plan against a live platform: each UE is one SDK client behind its own radio link.

The fleet keeps a record a task: what was asked, what came back, whether it was right, when each stage was seen and how
the task ended. A record never hides a failure: an error stays in it, with its sentence.

With an allocation policy (`fleet.allocation`) a UE follows its share of the newest wave: it sends to the plan's server
at the plan's rates, and of a task that can be split it computes its own part beside the server's, at the plan's clock.
What is checked then is the whole of both parts. `TaskRecord.followed` says what was planned and what came of it.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import httpx2
import msgspec

from edgora.allocator.plan_files import PPM, UeShare
from edgora.allocator.radio import Channel
from edgora.client import AsyncClient, Done, Order, Tell, Ticket, Wallet
from edgora.client.kernels import order_for_input
from edgora.client.split import Halves, SplitRefused, split
from edgora.client.trust import hex0x
from edgora.ue.miner import KERNEL, MinedSlot, Puzzle, Sent, mine, prepared
from edgora.ue.plan import Arrival, Fleet, draw_positions, nearest
from edgora.ue.positions import tell_positions
from edgora.ue.radio import RadioTransport, rates
from edgora.ue.waves import Planner, Wave, Waves, Works
from edgora.ue.work import Work, air_bits
from edgora.wire import rest
from edgora.wire.errors import EdgoraError, Refused, RuleRefused, TooMany, Unavailable
from edgora.wire.market import ResultCode

if TYPE_CHECKING:
    from edgora.ue.device import Device, LocalRun

__all__ = ["FleetRun", "Followed", "TaskRecord", "run_fleet", "until_interrupted"]

T = TypeVar("T")
_DOOMED_PATIENCE_MS = 4_000
_AGAIN_S = 0.5
_PASSING = frozenset((
    "CHAIN_NOT_SEEN", "DEADLINE_TOO_SOON", "FUEL_TOO_LARGE", "NOT_AUDITABLE", "SETTLEMENT_BEHIND", "TASKS_FULL", "UE_TASKS_FULL",
))  # fmt: skip
"""Rules that refuse an order for what the consortium is doing now, not for what the order is."""


class Followed(msgspec.Struct, kw_only=True):
    """How a task followed its plan. Times in ms, by part: upload, run, download, local, total."""

    wave: int
    server: int
    """To which its UE was told to send."""
    speed: int
    """fuel/s that the plan's server was told to pace it to."""
    local_speed: int
    phi: float
    """Share of the work that the plan gives the server."""
    phi_met: float = 1.0
    """What whole rows make of it; 1 for a task that was not split."""
    split: str = ""
    """How it was split, or why not."""
    planned_ms: dict[str, float] = {}
    """By the plan's formulas, for this task's own input and fuel limit."""
    met_ms: dict[str, float] = {}
    """As it was: upload and download on the air, run from assigned to filed by ledger time, total until the result."""
    local_fuel: int = 0
    """What the UE's own part used."""


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
    ledger_ms: dict[str, int] = {}
    """Event -> ledger time at which it happened first."""
    followed: Followed | None = None
    """The plan of an allocation policy, where the fleet has one."""
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
    waves: list[Wave] = []
    """The plans that the fleet followed; none without an allocation policy."""
    mined: list[MinedSlot] = []
    """What UEs that mine decided, slot by slot; none without a mining policy."""


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
    planner: Planner | None = None,
    enough: asyncio.Event | None = None,
    on_done: Callable[[Done], None] | None = None,
) -> FleetRun:
    """Play the arrivals. urls and places: of each server by id. Returns when every task has ended or given up.

    planner: who makes the plans of `fleet.allocation`; Refused if there is a policy and nobody to ask. enough: once it
    is set no further task arrives; those under way are seen to their end. on_done: hears what every UE's client has done.
    """
    if fleet.allocation and planner is None:
        raise Refused(f"the fleet has the policy {fleet.allocation} and no allocator to ask", field="fleet.allocation")
    positions = draw_positions(fleet, seed)
    links = rates(Channel(bandwidth_hz=fleet.bandwidth_hz), fleet.power_w, positions, places)
    keys = list(wallets or [])
    while len(keys) < fleet.ues:
        keys.append(await asyncio.to_thread(Wallet.generate))
    works = Works(arrivals)
    devices = _devices(fleet)
    mining = await asyncio.to_thread(prepared, fleet.mining) if fleet.mining.policy else None
    ues = [
        _Ue(
            i,
            keys[i],
            [urls[s] for s in nearest(positions[i], places)],
            nearest(positions[i], places),
            links[i],
            genesis_id,
            inside,
            works,
            devices[i] if devices else None,
            on_done,
        )
        for i in range(fleet.ues)
    ]
    records: list[TaskRecord] = []
    mines: list[asyncio.Task[list[MinedSlot]]] = []
    waves: Waves | None = None
    enough = enough or asyncio.Event()
    telling = asyncio.create_task(tell_positions([hex0x(w.address) for w in keys[: fleet.ues]], positions, urls))
    start = time.monotonic()
    try:
        await asyncio.gather(*(ue.client.fund(fleet.deposit_gwei * 10**9) for ue in ues))
        if planner is not None and fleet.allocation:
            waves = Waves(
                fleet, seed, arrivals, works, [hex0x(w.address) for w in keys], positions, places, planner,
                ues[0].client.servers, lambda i, share: ues[i].tune(share),
            )  # fmt: skip
            await waves.begin()
        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            if mining is not None:
                mines = [
                    group.create_task(mine(fleet.mining, mining, i, seed, _Site(ues[i], fleet, arrivals), enough))
                    for i in _miners(fleet, arrivals)
                ]
            for number, arrival in enumerate(arrivals):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, arrival.at_ms / 1000 - (time.monotonic() - start))):
                        await enough.wait()
                if enough.is_set():
                    break
                if waves is not None:
                    waves.arrived(number)
                record = TaskRecord(
                    number=number, ue=arrival.ue, kernel=arrival.kernel, fate=arrival.fate,
                    at_ms=int(1000 * (time.monotonic() - start)), seen_ms={}, ledger_ms={},
                )  # fmt: skip
                records.append(record)
                share = None if waves is None else waves.share(arrival.ue)
                group.create_task(ues[arrival.ue].play(fleet, arrival, record, share, on_change or (lambda _: None)))
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        if waves is not None:
            await waves.end()
        for ue in ues:
            await ue.close()
    return FleetRun(
        records=records, addresses=[hex0x(w.address) for w in keys], rates_bits_s=links, positions_m=positions,
        wall_ms=int(1000 * (time.monotonic() - start)), waves=[] if waves is None else waves.made,
        mined=[slot for mined in mines for slot in mined.result()],
    )  # fmt: skip


def until_interrupted(say: Callable[[str], None]) -> asyncio.Event:
    """Set at the first SIGINT or SIGTERM; the second one acts as usual."""
    enough, loop = asyncio.Event(), asyncio.get_running_loop()

    def ask_to_end() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        say("no further tasks; those under way are seen to their end; again stops at once")
        enough.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask_to_end)
    return enough


def _devices(fleet: Fleet) -> "list[Device]":
    """The UEs' own processors; only a fleet that splits tasks, or mines, needs the sandbox."""
    if not (fleet.allocation or fleet.mining.policy):
        return []
    from edgora.compute.sandbox import Sandbox
    from edgora.ue.device import Device

    sandbox = Sandbox()
    return [Device(sandbox) for _ in range(fleet.ues)]


def _miners(fleet: Fleet, arrivals: Sequence[Arrival]) -> list[int]:
    """The UEs that mine: the first ones that come with a hash puzzle, as far as there are any."""
    puzzlers = dict.fromkeys(arrival.ue for arrival in arrivals if arrival.kernel == KERNEL)
    return list(puzzlers)[: fleet.mining.ues]


class _Site:
    """What a mining UE has: see `miner.Site`."""

    def __init__(self, ue: "_Ue", fleet: Fleet, arrivals: Sequence[Arrival]) -> None:
        self._ue, self._fleet = ue, fleet
        first = next(arrival for arrival in arrivals if arrival.ue == ue.index)
        self._bids = first._replace(kernel=KERNEL, fate="settle")

    def fade(self, share: float) -> None:
        self._ue.radio.fading = share

    def share(self) -> float:
        return self._ue.radio.fading

    async def load(self) -> float:
        """A server that cannot be asked is as good as busy."""
        with contextlib.suppress(EdgoraError):
            held = {s.id: s for s in await self._ue.client.servers() if s.live and s.advert is not None}
            for near in self._ue.near:
                if near in held and (advert := held[near].advert) is not None:
                    return min(1.0, held[near].used / max(1, advert.capacity))
        return 1.0

    async def send(self, puzzle: Puzzle) -> Sent:
        return await self._ue.have_done(self._fleet, self._bids, puzzle.order)

    async def compute(self, puzzle: Puzzle) -> bytes:
        assert self._ue.device is not None
        return (await self._ue.device.run(KERNEL, puzzle.plaintext, self._fleet.mining.clock)).output


class _Parts:
    """A task that follows a plan: what goes to the server, and the UE's own part beside it."""

    def __init__(
        self, order: Order, halves: Halves | None, local: "asyncio.Future[LocalRun] | None", followed: Followed
    ) -> None:
        self.order = order
        self._halves, self._local, self._followed = halves, local, followed

    async def whole(self, remote: bytes) -> bytes:
        """The task's output: the server's, with the UE's part where there is one."""
        if self._halves is None or self._local is None:
            return remote
        own = await self._local
        self._followed.met_ms["local"] = round(own.ms, 2)
        self._followed.local_fuel = own.fuel_used
        return self._halves.merge(remote, own.output)

    async def give_up(self) -> None:
        """Nobody waits for the UE's part any more."""
        if self._local is not None and not self._local.done():
            self._local.cancel()
            await asyncio.gather(self._local, return_exceptions=True)


def _measure(record: TaskRecord) -> None:
    """What the record saw, beside what was planned."""
    followed, ledger = record.followed, record.ledger_ms
    if followed is None:
        return
    if {"TaskAssigned", "ResultFiled"} <= ledger.keys():
        followed.met_ms["run"] = float(ledger["ResultFiled"] - ledger["TaskAssigned"])
    if "delivered" in record.seen_ms:
        followed.met_ms["total"] = float(record.seen_ms["delivered"])
    followed.met_ms = {name: round(ms, 2) for name, ms in followed.met_ms.items()}


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
        parts: _Parts | None = None
        try:
            work = await self._works.of(record.number)
            order = work.order
            if planned is not None and arrival.fate == "settle":
                parts = self._follow(work, record, *planned)
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
                _measure(record)
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

    def _follow(self, work: Work, record: TaskRecord, wave: int, share: UeShare) -> "_Parts":
        """Split the task as the plan says, as far as it can be, and begin the UE's part."""
        followed = record.followed = Followed(
            wave=wave, server=share.server, speed=share.speed, local_speed=share.local_speed, phi=share.phi, met_ms={}
        )
        order, halves, local = work.order, None, None
        try:
            if share.phi_ppm == PPM:
                raise SplitRefused("; ".join(share.reasons) or "the plan gives the server everything")
            halves = split(work.kernel, work.order.plaintext, share.phi)
        except SplitRefused as refused:
            followed.split = str(refused)
        else:
            assert self.device is not None
            followed.phi_met = halves.share
            followed.split = f"{100 * halves.share:.1f} % of its rows go to server {share.server}"
            order = order_for_input(work.kernel, halves.remote)
            local = asyncio.ensure_future(self.device.run(work.kernel, halves.local, share.local_speed))
        delays = share.delays(
            air_bits(len(work.order.plaintext)),
            work.order.fuel_limit,
            air_bits(work.order.output_octets),
            followed.phi_met,
        )
        followed.planned_ms = {name: round(ms, 2) for name, ms in delays._asdict().items()}
        followed.planned_ms["total"] = round(delays.total, 2)
        return _Parts(order, halves, local, followed)

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
