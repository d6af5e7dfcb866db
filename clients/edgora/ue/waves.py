"""Plans of a fleet in waves: all UEs at the start, again when many tasks have come or the plan is old.

A wave looks `planning.tasks` arrivals ahead. Each UE with one among them, or with any later one, takes part with the
mean of its next tasks; servers take part with what they advertise now. The planner's answer holds for each UE until
the next wave. While that is made, tasks go on with the plan before.

A planner that is away or busy, or has nothing to plan with, costs the policy and not the run: the wave is then the
nearest server and equal shares, and says why. A request that is wrong in itself ends the run: so would every later one.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import httpx2
import msgspec

from edgora.allocator.plan_files import PlanRequest, PlanServer, PlanUser, RadioPlan, UeShare
from edgora.client.split import splittable
from edgora.ue.plan import Arrival, Fleet
from edgora.ue.work import Work, air_bits, draw_work
from edgora.wire import rest
from edgora.wire.errors import EdgoraError, Refused, TooMany, Unavailable

__all__ = ["PlanService", "Planner", "Wave", "Waves", "Works"]

_log = logging.getLogger("edgora.ue.waves")

Places = Mapping[int, tuple[float, float]]
_PATIENCE_S = 30.0
"""Beyond the solver's budget, until the service is taken for lost."""
HISTORY = 0.5
"""History score of a server whose tasks took as long as desired (tcr.md 2: q up to 0.5)."""


class Planner(Protocol):
    """Who makes plans: the allocator's planner in this process, or its service."""

    async def plan(self, request: PlanRequest) -> RadioPlan:
        """Raises Refused for a request that is wrong in itself, TooMany or Unavailable where another try may help."""
        ...


class PlanService:
    """The allocator service's `POST /plan`."""

    def __init__(self, url: str, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._url = url.rstrip("/") + "/plan"
        self._transport = transport

    async def plan(self, request: PlanRequest) -> RadioPlan:
        try:
            async with httpx2.AsyncClient(transport=self._transport, timeout=request.budget_s + _PATIENCE_S) as http:
                reply = await http.post(self._url, content=msgspec.json.encode(request))
            if reply.status_code == 200:
                return msgspec.json.decode(reply.content, type=RadioPlan)
            problem = msgspec.json.decode(reply.content, type=dict[str, object])
        except (httpx2.HTTPError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unavailable(f"the allocator at {self._url} gave no plan: {type(error).__name__}: {error}") from None
        detail, field = str(problem.get("detail", reply.status_code)), str(problem.get("field"))
        if reply.status_code in {429, 503}:
            raise Unavailable(f"the allocator at {self._url} gave no plan: {detail}", field=field)
        raise Refused(detail, field=field)


class Wave(msgspec.Struct, kw_only=True, frozen=True):
    """One plan of the run."""

    number: int
    at_ms: int
    """When it was asked for, after the start of the run."""
    first: int
    """Number of the first arrival that it looked at."""
    plan: RadioPlan


class Works:
    """The arrivals' tasks, drawn once, whether a plan or a UE asks first."""

    def __init__(self, arrivals: Sequence[Arrival]) -> None:
        self._arrivals = arrivals
        self._drawn: dict[int, asyncio.Future[Work]] = {}

    async def of(self, number: int) -> Work:
        """The task of this arrival."""
        if number not in self._drawn:
            arrival = self._arrivals[number]
            self._drawn[number] = asyncio.ensure_future(asyncio.to_thread(draw_work, arrival.kernel, arrival.seed))
        return await asyncio.shield(self._drawn[number])

    def forget(self, number: int) -> None:
        """It was played."""
        self._drawn.pop(number, None)


class Waves:
    """When to plan, with what, and what the newest plan says."""

    def __init__(
        self, fleet: Fleet, seed: int, arrivals: Sequence[Arrival], works: Works, ues: Sequence[str],
        positions: Sequence[tuple[float, float]], places: Places, planner: Planner,
        servers: Callable[[], Awaitable[Sequence[rest.Server]]],
        tuned: Callable[[int, UeShare], None],
    ) -> None:  # fmt: skip
        """ues: addresses, 0x-hex; servers: what they advertise now; tuned hears each UE's new share."""
        self._fleet, self._seed, self._arrivals, self._works = fleet, seed, arrivals, works
        self._ues, self._positions, self._places = ues, positions, places
        self._planner, self._servers, self._tuned = planner, servers, tuned
        self.made: list[Wave] = []
        self._start = self._asked_s = time.monotonic()
        self._first = 0
        self._making: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """The first wave. Raises Refused if no plan can ever be made this way."""
        self._start = time.monotonic()
        await self._make(0)

    def arrived(self, number: int) -> None:
        """Begin another wave with this arrival if it is due; the tasks before it keep what they have."""
        planning = self._fleet.planning
        old = time.monotonic() - self._asked_s >= planning.every_s
        if (number - self._first >= planning.tasks or (old and number > self._first)) and self._making is None:
            self._making = asyncio.ensure_future(self._again(number))

    async def end(self) -> None:
        """Nothing is planned any more."""
        if self._making is not None:
            self._making.cancel()
            await asyncio.gather(self._making, return_exceptions=True)

    def share(self, ue: int) -> tuple[int, UeShare] | None:
        """The newest wave that says something of this UE, and what."""
        for wave in reversed(self.made):
            found = wave.plan.of(self._ues[ue])
            if found is not None:
                return wave.number, found
        return None

    async def _again(self, number: int) -> None:
        try:
            await self._make(number)
        except EdgoraError as error:
            _log.warning("a wave was not planned", extra={"detail": error.detail})
        finally:
            self._making = None

    async def _make(self, number: int) -> None:
        self._first, self._asked_s = number, time.monotonic()
        at_ms = int(1000 * (self._asked_s - self._start))
        request = await self.request(number)
        if request is None:
            return
        try:
            plan = await self._planner.plan(request)
        except (TooMany, Unavailable) as error:
            from edgora.allocator.radio_plan import nearest_equal  # with it come the problems' models

            plan = await asyncio.to_thread(nearest_equal, request, error.detail)
        self.made.append(Wave(number=len(self.made), at_ms=at_ms, first=number, plan=plan))
        for ue, address in enumerate(self._ues):
            share = plan.of(address)
            if share is not None:
                self._tuned(ue, share)

    async def request(self, number: int) -> PlanRequest | None:
        """What a plan from this arrival on is asked from; None if no UE has anything to come."""
        fleet, planning = self._fleet, self._fleet.planning
        users = [await self._user(ue, tasks) for ue, tasks in sorted(self._next(number).items())]
        servers = tuple(
            PlanServer(
                id=s.id, position_m=self._places[s.id], speed=s.advert.speed, slots=s.advert.slots,
                uplink=s.advert.uplink, bandwidth_hz=fleet.bandwidth_hz, power_w=planning.server_power_w,
                compute_w=planning.server_compute_w, score=HISTORY * min(1.0, _punctual(s)),
            )
            for s in await self._servers() if s.live and s.advert is not None and s.id in self._places
        )  # fmt: skip
        if not users:
            return None
        if not servers:
            raise Unavailable("no server is live", field="servers")
        base = PlanRequest(policy=fleet.allocation, users=tuple(users), servers=servers)
        return msgspec.structs.replace(
            base, costs=msgspec.structs.replace(base.costs, w_t=planning.w_t, w_e=planning.w_e),
            phi_min=planning.offload[0], phi_max=planning.offload[1], seed=self._seed, budget_s=planning.budget_s,
            valid_s=planning.every_s + fleet.patience_ms / 1000, settings=planning.settings,
        )  # fmt: skip

    def _next(self, number: int) -> dict[int, list[int]]:
        """By UE: its arrivals among the next ones that will be served, or else its first later one."""
        found: dict[int, list[int]] = {}
        for i in range(number, len(self._arrivals)):
            arrival = self._arrivals[i]
            if arrival.fate == "settle" and (i < number + self._fleet.planning.tasks or arrival.ue not in found):
                found.setdefault(arrival.ue, []).append(i)
        return found

    async def _user(self, ue: int, tasks: Sequence[int]) -> PlanUser:
        works = [await self._works.of(i) for i in tasks]
        count = len(works)
        return PlanUser(
            ue=self._ues[ue], position_m=self._positions[ue],
            bits=sum(air_bits(len(w.order.plaintext)) for w in works) / count,
            fuel=sum(w.order.fuel_limit for w in works) / count,
            output_bits=sum(air_bits(w.order.output_octets) for w in works) / count,
            splittable=any(splittable(w.kernel) for w in works), clock=self._fleet.planning.clock,
            compute_w=self._fleet.planning.compute_w, power_w=self._fleet.power_w,
        )  # fmt: skip


def _punctual(server: rest.Server) -> float:
    """Desired over actual time of all its tasks; half before the first one."""
    score = server.reputation.score
    return 0.5 if score is None else score
