"""What came of a fleet's allocation policy: its waves, and each UE's plan beside what its tasks met.

Planned numbers are the plan's own (`ue.waves.Wave`). Met ones come from where they happened: rates' air time and the
UE's part from the UE, run times from ledger time, speeds from what the executors say they paced to.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from edgora.node.duties.pacing import Pace
from edgora.ue.records import FleetRun, TaskRecord
from edgora.ue.waves import Wave

__all__ = ["PARTS", "PlanLine", "WaveLine", "plan_lines", "wave_lines"]

PARTS = ("upload", "run", "download", "local", "total")


class WaveLine(msgspec.Struct, kw_only=True):
    """One plan of the run."""

    wave: int
    at_ms: int
    policy: str
    objective: float | None
    """TCR or DPE."""
    bound: float | None
    solver_s: float
    status: str
    ues: int
    tasks: int
    """That followed it."""
    at_source: int
    """Of these, served by the server that the plan chose."""
    split: int
    """Of these, computed in two parts."""
    why: str
    """Why it is not the policy's plan, or why servers do not know it; empty where all went as asked."""


class PlanLine(msgspec.Struct, kw_only=True):
    """What one wave gave one UE, and what the UE's tasks of that wave met: means over them, null without any."""

    wave: int
    ue: int
    server: int
    tasks: int
    at_source: int
    phi: float
    phi_met: float | None
    bandwidth_hz: int
    power_up_uw: int
    power_down_uw: int
    rate_up: int
    rate_down: int
    speed: int
    """fuel/s"""
    speed_met: float | None
    """What executors paced to."""
    local_speed: int
    expected_ms: dict[str, float]
    """Of the mean task that was planned with."""
    planned_ms: dict[str, float]
    """By the same formulas, of the tasks that came."""
    met_ms: dict[str, float]
    reasons: list[str]
    """Where the plan was not taken as it was solved, and why tasks were not split."""


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return round(statistics.fmean(found), 3) if found else None


def _parts(told: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each part over the tasks that have it."""
    every = list(told)
    means = {part: _mean(ms[part] for ms in every if part in ms) for part in PARTS}
    return {part: mean for part, mean in means.items() if mean is not None}


def _by_wave(records: Sequence[TaskRecord], wave: int) -> list[TaskRecord]:
    return [r for r in records if r.followed is not None and r.followed.wave == wave]


def _home(record: TaskRecord) -> bool:
    return record.followed is not None and record.executor == record.followed.server


def wave_lines(run: FleetRun) -> list[WaveLine]:
    """Each wave with what followed it."""
    return [_wave_line(wave, _by_wave(run.records, wave.number)) for wave in run.waves]


def _wave_line(wave: Wave, followed: Sequence[TaskRecord]) -> WaveLine:
    plan = wave.plan
    return WaveLine(
        wave=wave.number, at_ms=wave.at_ms, policy=plan.policy, objective=plan.objective, bound=plan.bound,
        solver_s=round(plan.wall_s, 3), status=plan.status, ues=len(plan.ues), tasks=len(followed),
        at_source=sum(_home(r) for r in followed),
        split=sum(r.followed is not None and r.followed.phi_met < 1 for r in followed),
        why="; ".join(words for words in (plan.fallback, plan.untold) if words),
    )  # fmt: skip


def plan_lines(run: FleetRun, paces: Mapping[bytes, Pace]) -> list[PlanLine]:
    """Each UE of each wave, in order."""
    number = {address: ue for ue, address in enumerate(run.addresses)}
    lines = []
    for wave in run.waves:
        followed = _by_wave(run.records, wave.number)
        for share in wave.plan.ues:
            mine = [r for r in followed if r.ue == number[share.ue]]
            told = [r.followed for r in mine if r.followed is not None]
            paced = [paces[task].speed for r in mine if r.task and (task := bytes.fromhex(r.task[2:])) in paces]
            lines.append(PlanLine(
                wave=wave.number, ue=number[share.ue], server=share.server, tasks=len(mine),
                at_source=sum(_home(r) for r in mine), phi=share.phi, phi_met=_mean(f.phi_met for f in told),
                bandwidth_hz=share.bandwidth_hz, power_up_uw=share.power_up_uw, power_down_uw=share.power_down_uw,
                rate_up=share.rate_up, rate_down=share.rate_down, speed=share.speed, speed_met=_mean(paced),
                local_speed=share.local_speed,
                expected_ms={**_parts([share.expected_ms._asdict()]), "total": round(share.expected_ms.total, 3)},
                planned_ms=_parts(f.planned_ms for f in told), met_ms=_parts(f.met_ms for f in told),
                reasons=sorted({*share.reasons, *(f.split for f in told if f.phi_met == 1.0)}),
            ))  # fmt: skip
    return lines
