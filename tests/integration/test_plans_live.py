"""TCR and DPE allocate live: UEs, radio links, servers and runners do what the plan says (market.md 4).

Asserted from what does not depend on luck: offers, executors and fuel on the ledger, the sandbox's own count for the
same parts, air times that the links computed, and what executors say they paced to. A round that the preferred policy
did not win (its proposals came too late) is told apart by its own verdict.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest

from edgora.client.kernels import order_for_input
from edgora.client.split import split
from edgora.compute.limits import Limits
from edgora.compute.sandbox import Sandbox
from edgora.node.duties.pacing import Pace
from edgora.ue.fleet import run_fleet
from edgora.ue.plan import Fleet, Planning, Refunds, draw_arrivals
from edgora.ue.records import FleetRun, TaskRecord
from edgora.ue.work import draw_work
from edgora.wire import kernels
from edgora.wire.market import ResultCode
from embedded import Embedded

SPEED = 20_000_000
SERVERS = [
    {"policy": "associated", "speed": SPEED, "slots": 2, "ask": 12 + 4 * i, "x_m": x, "y_m": y}
    for i, (x, y) in enumerate([(100, 100), (300, 100), (100, 300), (300, 300)])
]
SETTINGS = (
    "market.proposal_ms=2500", "market.solve_ms=1500", "market.prefer=associated", "market.floor_bps=0",
    f"servers={json.dumps(SERVERS)}",
)  # fmt: skip
FLEET = Fleet(
    ues=5, tasks=7, rate_per_s=2.0, kernels={"matmul": 1, "sobel": 1, "nftcheck": 1}, bandwidth_hz=2e6, margin=(30, 60),
    planning=Planning(tasks=16, every_s=600, offload=(0.25, 0.75), clock=5_000_000),
)  # fmt: skip
SANDBOX = Sandbox()


@pytest.fixture(scope="module")
def platform() -> Iterator[Embedded]:
    with Embedded(*SETTINGS) as running:
        yield running


def play(platform: Embedded, policy: str, seed: int) -> FleetRun:
    fleet = msgspec.structs.replace(FLEET, allocation=policy)
    cluster = platform.cluster
    arrivals = draw_arrivals(fleet, Refunds(cancelled=0, expired=0), seed)
    return platform.run(
        run_fleet(
            fleet, arrivals, seed, cluster.urls, cluster.places, genesis_id=platform.genesis_id,
            planner=cluster.planner,
        ),
        240,
    )  # fmt: skip


def fuel_of(kernel: str, plaintext: bytes) -> int:
    order, loaded = order_for_input(kernel, plaintext), kernels.load(kernel)
    limits = Limits(order.fuel_limit, order.memory_pages, order.output_octets, 60_000)  # type: ignore[arg-type]
    outcome = SANDBOX.run(loaded.wasm, plaintext, limits, digest=loaded.digest)
    assert outcome.code is ResultCode.OK
    return int(outcome.fuel_used)


def check_parts(record: TaskRecord, seed: int) -> bytes:
    """The work of a task was divided as its record says; its remote plaintext."""
    followed = record.followed
    assert followed is not None
    whole = draw_work(record.kernel, seed * 1_000_003 + record.number).order.plaintext
    if record.kernel == "nftcheck":
        assert (followed.phi_met, followed.local_fuel) == (1.0, 0)
        assert "cannot be split" in followed.split
        assert record.fuel_used == fuel_of(record.kernel, whole)
        return whole
    halves = split(record.kernel, whole, followed.phi)
    assert followed.phi_met == halves.share
    assert 0 < followed.phi_met < 1
    assert record.fuel_used == fuel_of(record.kernel, halves.remote), "the ledger paid for the server's part"
    assert followed.local_fuel == fuel_of(record.kernel, halves.local), "and the UE computed the rest"
    assert followed.met_ms["local"] >= 1000 * followed.local_fuel / followed.local_speed - 1, "at its own pace"
    return halves.remote


def check_task(
    platform: Embedded, run: FleetRun, paces: Mapping[bytes, Pace], record: TaskRecord, seed: int
) -> dict[str, Any]:
    """Source, rates, pace and parts of one task; what the ledger says of its round."""
    followed = record.followed
    assert followed is not None
    assert (record.state, record.code, record.verified) == ("SETTLED", "OK", True), record.error or record.reason
    share = run.waves[followed.wave].plan.of(run.addresses[record.ue])
    assert share is not None
    assert (followed.server, followed.phi, followed.speed) == (share.server, share.phi, share.speed)
    task = platform.get(f"/v1/tasks/{record.task}").json()
    assert task["offer"]["source"] == record.source == share.server, "the ledger's offer names the plan's server"
    remote = check_parts(record, seed)
    octets = followed.met_ms["upload"] * share.rate_up / 8_000
    assert octets > len(remote), "the input was on the air at the plan's rate"
    pace = paces[bytes.fromhex(str(record.task)[2:])]
    if record.executor == share.server:
        assert pace.speed == share.speed
        assert pace.reason is not None
        assert pace.reason.code == "PACED"
        assert record.ledger_ms["ResultFiled"] - record.ledger_ms["TaskAssigned"] >= 0
    else:
        assert (pace.speed, pace.reason) == (SPEED, None), "whoever else runs it knows no share"
    return dict(platform.get(f"/v1/allocations/{task['round']}").json())


def has_room(allocation: dict[str, Any], record: TaskRecord) -> bool:
    """Whether the source was live, and the round's plan left it room for this task (market.md 4)."""
    fuel = {task["offer_id"]: int(task["fuel_limit"]) for task in allocation["instance"]["tasks"]}
    for server in allocation["instance"]["servers"]:
        if server["id"] == record.source:
            held = min(int(server["capacity"]), int(server["credit"]))
            least = -(-held // int(server["slots"]))
            taken = [fuel[pair["task"]] for pair in allocation["pairs"] if pair["server"] == record.source]
            left = held - int(server["used"]) - sum(max(work, least) for work in taken)
            return left >= max(fuel[str(record.task)], least)
    return False


@pytest.mark.parametrize(("policy", "seed"), [("tcr:gucaa", 3), ("dpe:gucro", 4)])
def test_a_plan_is_followed_by_ues_links_servers_and_runners(platform: Embedded, policy: str, seed: int) -> None:
    run = play(platform, policy, seed)
    paces = platform.cluster.paces()
    [wave] = run.waves
    assert (wave.plan.policy, wave.plan.fallback, wave.plan.untold) == (policy, "", "")
    assert len(run.records) == FLEET.tasks
    preferred = 0
    for record in run.records:
        allocation = check_task(platform, run, paces, record, seed)
        if allocation["winner"] == "associated":
            preferred += record.executor == record.source
            assert allocation["verdict"]["code"] == "PREFERRED"
            roomy = has_room(allocation, record)
            assert record.executor == record.source or not roomy, "an association is followed where its policy wins"
    assert preferred, "the preferred policy sent no task to its source"
    assert any(share.speed < SPEED for share in wave.plan.ues), "the plan slows somebody down"
    told = platform.get("/v1/status", node=wave.plan.ues[0].server).json()["duties"]["pacing"]
    assert "UEs share this server" in told


def test_a_policy_that_fails_leaves_the_fleet_a_plan(platform: Embedded) -> None:
    run = play(platform, "tcr:live_policies:Crashes", 5)
    assert all("Crashes" in wave.plan.fallback for wave in run.waves)
    for record in run.records:
        assert (record.state, record.verified) == ("SETTLED", True), record.error or record.reason
        near = min(SERVERS, key=lambda s: (s["x_m"] - run.positions_m[record.ue][0]) ** 2  # type: ignore[operator]
                   + (s["y_m"] - run.positions_m[record.ue][1]) ** 2)  # type: ignore[operator]  # fmt: skip
        assert record.source == SERVERS.index(near)
