"""The planning service: an answer and the servers' shares of it, whatever the policy does."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from fastapi.testclient import TestClient

from edgora.adapters.memory_bus import MemoryBus
from edgora.allocator.allocd import Planner, WorkerStatus, planner, solve_in_child, solve_in_thread
from edgora.allocator.allocd.app import MAX_REQUEST_OCTETS, Metrics, create_app
from edgora.allocator.plan_files import PlanRequest, RadioPlan
from edgora.allocator.radio_plan import nearest_equal, solve_plan
from edgora.ports.bus import Shares, shares_topic
from edgora.wire.codec import decode
from edgora.wire.errors import NotFound, Refused, TooMany
from unit.allocator.plan_world import request

NOW = 1_800_000_000_000


async def told(bus: MemoryBus, server: int) -> list[Shares]:
    return [decode(d.data, Shares) for d in await bus.take(shares_topic(server), "node", "test", limit=9, wait_ms=0)]


async def test_each_server_hears_of_its_own_ues_and_of_nobody_elses() -> None:
    bus, asked = MemoryBus(), request("tcr:gucaa", valid_s=60)
    plan = await Planner(bus, solve_in_thread, now_ms=lambda: NOW).plan(asked)
    assert plan.ues == solve_plan(asked).ues
    heard = {}
    for server in asked.servers:
        [message] = await told(bus, server.id)
        assert (message.node, message.issued_ms, message.until_ms) == (server.id, NOW, NOW + 60_000)
        heard |= {share.ue: (server.id, share.speed) for share in message.shares}
    assert heard == {bytes.fromhex(share.ue[2:]): (share.server, share.speed) for share in plan.ues}


async def test_a_server_without_ues_hears_that_too() -> None:
    bus = MemoryBus()
    await Planner(bus, solve_in_thread).plan(request("tcr:gucaa", users=1, servers=3))
    assert sorted([len((await told(bus, i))[0].shares) for i in range(3)]) == [0, 0, 1]


async def test_one_plan_at_a_time() -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(asked: PlanRequest) -> RadioPlan:
        entered.set()
        await go.wait()
        return nearest_equal(asked, "slow")

    made = Planner(MemoryBus(), slow)
    first = asyncio.create_task(made.plan(request("tcr:gucaa")))
    await entered.wait()
    with pytest.raises(TooMany):
        await made.plan(request("tcr:gucaa"))
    go.set()
    assert (await first).fallback == "slow"
    assert (made.plans, made.fallbacks) == (1, 1)


async def test_a_service_runs_no_module_that_its_operator_did_not_name(workplace: Path) -> None:
    entered: list[str] = []

    async def solve(asked: PlanRequest) -> RadioPlan:
        entered.append(asked.policy)
        return nearest_equal(asked, "not solved here")

    service = Planner(MemoryBus(), solve, own="tcr:own_plans:Sleeps")
    with pytest.raises(Refused, match="not started for") as refused:
        await service.plan(request("tcr:own_plans:Dies"))
    assert refused.value.field == "policy"
    with pytest.raises(Refused):
        await Planner(MemoryBus(), solve, own="").plan(request("tcr:own_plans:Sleeps"))
    for policy in ("tcr:own_plans:Sleeps", "tcr:gucaa", "dpe:gucaa"):
        await service.plan(request(policy))
    assert entered == ["tcr:own_plans:Sleeps", "tcr:gucaa", "dpe:gucaa"]


async def test_without_a_bus_there_is_a_plan_that_says_so() -> None:
    bus = MemoryBus()
    await bus.close()
    plan = await Planner(bus, solve_in_thread).plan(request("tcr:gucaa"))
    assert plan.fallback == ""
    assert plan.untold == "the bus is closed"


# ---- the child -------------------------------------------------------------------------------------------------------

OWN = """
import os, time

class Sleeps:
    def propose(self, instance, budget_s):
        time.sleep(600)

class Dies:
    def propose(self, instance, budget_s):
        print("nobody reads this as an answer", flush=True)
        os._exit(3)
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_plans.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_a_child_gives_the_plan_that_a_thread_gives() -> None:
    asked = request("dpe:gucaa")
    child = await solve_in_child(asked)
    assert msgspec.structs.replace(child, wall_s=0.0) == msgspec.structs.replace(solve_plan(asked), wall_s=0.0)


async def test_a_policy_that_overruns_is_ended(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "GRACE_S", 6.0)
    plan = await solve_in_child(request("tcr:own_plans:Sleeps", budget_s=0.1))
    assert "had no answer after 6 s and was ended" in plan.fallback


async def test_a_policy_that_takes_its_process_along_leaves_a_plan(workplace: Path) -> None:
    plan = await solve_in_child(request("tcr:own_plans:Dies"))
    assert "ended with status 3 and no plan" in plan.fallback


async def test_a_request_that_is_wrong_in_itself_is_refused_through_the_child() -> None:
    with pytest.raises(Refused, match="nobody") as refused:
        await solve_in_child(request("tcr:nobody"))
    assert refused.value.field == "solver"


# ---- REST ------------------------------------------------------------------------------------------------------------


def test_plans_over_rest() -> None:
    bus = MemoryBus()
    service = Planner(bus, solve_in_thread)
    rest = TestClient(create_app(lambda: WorkerStatus("exact", 3), Metrics("exact", 3), service))
    asked = request("dpe:gucaa")
    reply = rest.post("/plan", content=msgspec.json.encode(asked))
    assert reply.status_code == 200
    plan = msgspec.json.decode(reply.content, type=RadioPlan)
    assert plan.ues == solve_plan(asked).ues
    state = rest.get("/status").json()
    assert (state["plans"], state["plan_fallbacks"], state["last_plan"]) == (1, 0, "done")
    for body, status, code, field in (
        (b"{}", 400, "bad_request", "policy"),
        (msgspec.json.encode(request("tcr:nobody")), 404, NotFound.code, "solver"),
        (b" " * (MAX_REQUEST_OCTETS + 1), 413, "too_large", "body"),
    ):
        reply = rest.post("/plan", content=body)
        assert (reply.status_code, reply.json()["code"], reply.json()["field"]) == (status, code, field), reply.text
        assert reply.headers["content-type"] == "application/problem+json"
