"""The summary of a fleet's plans counts what followed them, and sets planned beside met."""

import msgspec

from edgora.allocator.radio_plan import nearest_equal, solve_plan
from edgora.lab.plans import plan_lines, wave_lines
from edgora.node.duties.pacing import Pace
from edgora.ue.records import FleetRun, Followed, TaskRecord
from edgora.ue.waves import Wave
from unit.allocator.plan_world import address, request


def record(number: int, ue: int, wave: int, server: int, executor: int, phi_met: float, **met: float) -> TaskRecord:
    return TaskRecord(
        number=number, ue=ue, kernel="sobel", fate="settle", at_ms=0, task=f"0x{number:064x}", executor=executor,
        followed=Followed(
            wave=wave, server=server, speed=5, local_speed=6, phi=0.5, phi_met=phi_met, split="why not",
            planned_ms={"run": 10.0, "local": 1.0, "total": 11.0}, met_ms=met,
        ),
    )  # fmt: skip


def a_run() -> FleetRun:
    asked = request("tcr:gucaa", users=2)
    first = solve_plan(asked)
    second = msgspec.structs.replace(
        nearest_equal(msgspec.structs.replace(asked, users=asked.users[:1]), "nobody answered"),
        untold="the bus is away",
    )
    home = first.ues[0].server
    return FleetRun(
        records=[
            record(0, 0, 0, home, home, 0.4, run=20.0, local=2.0, total=90.0), record(1, 0, 0, home, 9, 1.0, run=40.0),
            record(2, 0, 1, 2, 2, 0.5),
            TaskRecord(number=3, ue=1, kernel="spin", fate="cancel", at_ms=0),
        ],
        addresses=[address(0), address(1)], rates_bits_s=[], positions_m=[], wall_ms=1,
        waves=[Wave(number=0, at_ms=3, first=0, plan=first), Wave(number=1, at_ms=9, first=2, plan=second)],
    )  # fmt: skip


def test_waves_count_who_followed_them() -> None:
    first, second = wave_lines(a_run())
    assert (first.ues, first.tasks, first.at_source, first.split, first.why) == (2, 2, 1, 1, "")
    assert (second.ues, second.tasks, second.at_source, second.split) == (1, 1, 1, 1)
    assert (second.status, second.why) == ("fallback", "nobody answered; the bus is away")
    assert first.objective is not None


def test_planned_stands_beside_what_was_met() -> None:
    run = a_run()
    paces = {bytes(31) + bytes([i]): Pace(speed, None) for i, speed in ((0, 100), (1, 300), (77, 5))}
    lines = plan_lines(run, paces)
    assert [(line.wave, line.ue) for line in lines] == [(0, 0), (0, 1), (1, 0)]
    own, idle, _ = lines
    share = run.waves[0].plan.ues[0]
    assert (own.server, own.speed, own.rate_up, own.bandwidth_hz) == (
        share.server, share.speed, share.rate_up, share.bandwidth_hz
    )  # fmt: skip
    assert (own.tasks, own.at_source, own.phi_met, own.speed_met) == (2, 1, 0.7, 200.0)
    assert own.met_ms == {"run": 30.0, "local": 2.0, "total": 90.0}
    assert own.planned_ms == {"run": 10.0, "local": 1.0, "total": 11.0}
    assert own.expected_ms["total"] == round(share.expected_ms.total, 3)
    assert own.reasons == ["why not"], "of the task that was not split"
    assert (idle.tasks, idle.phi_met, idle.speed_met, idle.met_ms) == (0, None, None, {})


def test_without_a_policy_there_is_nothing_to_say() -> None:
    run = FleetRun(records=[], addresses=[], rates_bits_s=[], positions_m=[], wall_ms=1)
    assert (wave_lines(run), plan_lines(run, {})) == ([], [])
