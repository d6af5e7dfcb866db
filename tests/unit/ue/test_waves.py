"""Waves: who takes part in a plan and with what, when the next one is made, and what a failing planner costs."""

import asyncio
from typing import Any

import httpx2
import msgspec
import pytest

from edgora.allocator.plan_files import PlanRequest, RadioPlan
from edgora.allocator.radio_plan import nearest_equal, solve_plan
from edgora.client.kernels import order_for_input
from edgora.ue.plan import Arrival, Fleet, Planning
from edgora.ue.waves import PlanService, Waves, Works
from edgora.ue.work import air_bits, draw_work
from edgora.wire import rest
from edgora.wire.errors import EdgoraError, NotFound, Refused, TooMany, Unavailable

ADDRESSES = [f"0x{i + 1:040x}" for i in range(3)]
POSITIONS = [(0.0, 0.0), (400.0, 0.0), (200.0, 10.0)]
PLACES = {0: (0.0, 10.0), 1: (390.0, 0.0), 2: (9.0, 9.0)}


def arrival(ue: int, kernel: str = "matmul", fate: Any = "settle", at_ms: int = 0) -> Arrival:
    return Arrival(at_ms, ue, kernel, 10 * ue + at_ms, 5, fate)


def listed(server: int, *, live: bool = True, score: float | None = None) -> rest.Server:
    advert = rest.Advert(
        speed=10_000_000 * (server + 1), capacity=10**9, slots=2, ask=5, uplink=10**6, forward="0", until_ms=10**12
    )  # type: ignore[arg-type]
    reputation = rest.Reputation(desired_ms=0, actual_ms=0, done=0, late=0, failed=0, disputed=0, score=score)
    return rest.Server(
        id=server, signer="0x" + "00" * 20, meta_hash="0x" + "00" * 32, live=live, bonded=True, advert=advert, credit=10**9,
        used=0, tasks=0, earned="0", reputation=reputation, keys=None, position_m=None,
    )  # type: ignore[arg-type]  # fmt: skip


class Asked:
    """A planner that keeps what it was asked, and fails when it is told to."""

    def __init__(self) -> None:
        self.requests: list[PlanRequest] = []
        self.fails: EdgoraError | None = None

    async def plan(self, request: PlanRequest) -> RadioPlan:
        self.requests.append(request)
        if self.fails is not None:
            raise self.fails
        return solve_plan(request)


class Stage:
    def __init__(self, arrivals: list[Arrival], planning: Planning | None = None, **fleet: Any) -> None:
        self.planner, self.tuned = Asked(), dict[int, Any]()
        self.fleet = Fleet(ues=3, allocation="tcr:gucaa", planning=planning or Planning(tasks=2, every_s=600), **fleet)
        self.servers = [listed(0), listed(1, live=False), listed(2, score=0.8), listed(7)]

        async def servers() -> list[rest.Server]:
            return self.servers

        self.waves = Waves(
            self.fleet, 9, arrivals, Works(arrivals), ADDRESSES, POSITIONS, PLACES, self.planner, servers,
            self.tuned.__setitem__,
        )  # fmt: skip

    async def settled(self) -> None:
        while self.waves._making is not None:
            await asyncio.sleep(0)


async def test_a_request_holds_each_ues_next_tasks_and_the_live_servers() -> None:
    stage = Stage(
        [arrival(0), arrival(0, "sobel", at_ms=1), arrival(1, "nftcheck", at_ms=2), arrival(0, "blur", at_ms=3),
         arrival(2, fate="cancel", at_ms=4)],
        Planning(tasks=2, offload=(0.25, 0.75), clock=77, compute_w=0.5, w_e=2.0, budget_s=1.5, every_s=10.0),
        patience_ms=20_000,
    )  # fmt: skip
    asked = await stage.waves.request(0)
    assert asked is not None
    assert [u.ue for u in asked.users] == ADDRESSES[:2], "the third one's task is never served"
    first, second = asked.users
    orders = [draw_work("matmul", 0).order, draw_work("sobel", 1).order]
    assert first.fuel == sum(o.fuel_limit for o in orders) / 2, "the mean of those within the horizon"
    assert first.bits == sum(air_bits(len(o.plaintext)) for o in orders) / 2, "as they travel, sealed and in base64"
    assert first.output_bits == sum(air_bits(o.output_octets) for o in orders) / 2
    assert (first.splittable, second.splittable) == (True, False)
    assert second.fuel == draw_work("nftcheck", 12).order.fuel_limit, "beyond the horizon, and still its next"
    assert (first.clock, first.compute_w, first.power_w) == (77, 0.5, stage.fleet.power_w)
    assert [(s.id, s.position_m, s.speed, s.slots) for s in asked.servers] == [
        (0, PLACES[0], 10_000_000, 2), (2, PLACES[2], 30_000_000, 2)
    ], "those that live and have a place"  # fmt: skip
    assert [s.score for s in asked.servers] == [0.25, 0.4]
    assert (asked.phi_min, asked.phi_max, asked.budget_s, asked.valid_s) == (0.25, 0.75, 1.5, 30.0)
    assert (asked.policy, asked.seed, asked.costs.w_e) == ("tcr:gucaa", 9, 2.0)
    assert await stage.waves.request(4) is None, "nothing is left that is served"


async def test_the_first_wave_tells_everybody_and_the_next_one_comes_after_enough_arrivals() -> None:
    stage = Stage([arrival(i % 3, at_ms=i) for i in range(6)])
    await stage.waves.begin()
    assert sorted(stage.tuned) == [0, 1, 2]
    number, share = stage.waves.share(2) or (None, None)
    assert (number, share) == (0, stage.waves.made[0].plan.ues[2])
    for i in range(6):
        stage.waves.arrived(i)
        await stage.settled()
    assert [wave.first for wave in stage.waves.made] == [0, 2, 4]
    number, share = stage.waves.share(0) or (None, None)
    assert number == 1, "the third wave knows nothing of UE 0, whose tasks are over: its last plan stands"
    assert share == stage.waves.made[1].plan.of(ADDRESSES[0])


async def test_an_old_plan_is_made_anew_at_the_next_arrival() -> None:
    stage = Stage([arrival(0, at_ms=i) for i in range(9)], Planning(tasks=9, every_s=0.001))
    await stage.waves.begin()
    stage.waves.arrived(0)
    assert stage.waves._making is None, "it looked at this arrival already"
    while len(stage.waves.made) < 2:
        stage.waves.arrived(1)
        await stage.settled()
        await asyncio.sleep(0.001)
    assert stage.waves.made[1].first == 1
    await stage.waves.end()


@pytest.mark.parametrize("error", [Unavailable("nobody is there"), TooMany("another plan", retry_after_s=1)])
async def test_a_planner_that_is_away_costs_the_policy_and_not_the_run(error: EdgoraError) -> None:
    stage = Stage([arrival(0), arrival(1)])
    stage.planner.fails = error
    await stage.waves.begin()
    [wave] = stage.waves.made
    assert wave.plan.fallback == error.detail
    assert wave.plan.ues == nearest_equal(stage.planner.requests[0], error.detail).ues
    assert sorted(stage.tuned) == [0, 1]


async def test_a_request_that_is_wrong_in_itself_ends_the_run_at_its_start_and_no_later() -> None:
    stage = Stage([arrival(0, at_ms=i) for i in range(4)])
    stage.planner.fails = NotFound("no solver", field="solver")
    with pytest.raises(NotFound):
        await stage.waves.begin()
    stage.planner.fails = None
    await stage.waves.begin()
    stage.planner.fails = Refused("a server's numbers", field="servers")
    stage.waves.arrived(3)
    await stage.settled()
    assert len(stage.waves.made) == 1


async def test_without_a_live_server_there_is_no_plan() -> None:
    stage = Stage([arrival(0)])
    stage.servers = []
    with pytest.raises(Unavailable, match="no server is live"):
        await stage.waves.begin()


async def test_works_are_drawn_once() -> None:
    works = Works([arrival(0, "sobel")])
    first, again = await asyncio.gather(works.of(0), works.of(0))
    assert first is again
    assert first.order == order_for_input("sobel", first.order.plaintext)
    works.forget(0)
    assert (await works.of(0)).order == first.order


# ---- the service -----------------------------------------------------------------------------------------------------


def service(status: int, body: bytes) -> tuple[PlanService, list[httpx2.Request]]:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(status, content=body)

    return PlanService("http://allocator:8190/", httpx2.MockTransport(answer)), seen


async def a_request() -> PlanRequest:
    asked = await Stage([arrival(0)]).waves.request(0)
    assert asked is not None
    return asked


async def test_a_service_is_asked_in_json() -> None:
    asked = await a_request()
    plan = solve_plan(asked)
    there, seen = service(200, msgspec.json.encode(plan))
    assert await there.plan(asked) == plan
    assert str(seen[0].url) == "http://allocator:8190/plan"
    assert msgspec.json.decode(seen[0].content, type=PlanRequest) == asked


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"detail": "users: too long", "field": "users"}', Refused),
        (429, b'{"detail": "another plan is being made"}', Unavailable), (503, b"{}", Unavailable),
        (502, b"<html>", Unavailable), (200, b"{}", Unavailable),
    ],
)  # fmt: skip
async def test_a_services_refusals_keep_their_kind(status: int, body: bytes, kind: type[EdgoraError]) -> None:
    there, _ = service(status, body)
    with pytest.raises(kind) as raised:
        await there.plan(await a_request())
    assert type(raised.value) is kind
