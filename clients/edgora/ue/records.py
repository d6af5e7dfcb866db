"""What a fleet's run keeps: a record a task, and all of them with what the run was.

A record says what was asked, what came back, whether it was right, when each stage was seen and how the task ended. It
never hides a failure: an error stays in it, with its sentence. Where the fleet has an allocation policy, `followed` says
what was planned for the task and what came of it.
"""

import msgspec

from edgora.ue.miner import MinedSlot
from edgora.ue.waves import Wave

__all__ = ["FleetRun", "Followed", "TaskRecord"]


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
