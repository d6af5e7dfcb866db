"""Who asks for what, and when: drawn once from a seed, before anything runs."""

import math
import random
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import msgspec

from edgora.wire.errors import Refused

__all__ = [
    "Arrival", "Fate", "Fleet", "Mining", "Planning", "Refunds", "draw_arrivals", "draw_positions", "lasting", "nearest",
]  # fmt: skip

Positive = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0)]
Watts = Annotated[float, msgspec.Meta(gt=0)]
Part = Annotated[float, msgspec.Meta(ge=0, le=1)]
Fate = Literal["settle", "cancel", "expire"]

MOST_PER_MINUTE = 600
MOST_MINUTES = 1_440
"""A day: a fleet ends by itself."""
_MIX = {"sobel": 2.0, "blur": 1.0, "hashpuzzle": 2.0, "matmul": 2.0, "nftcheck": 1.0}


class Planning(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """How a fleet with an allocation policy plans (`fleet.allocation`)."""

    tasks: Positive = 16
    """Arrivals that one plan looks ahead, and after which the next one is made."""
    every_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 20.0
    """A plan older than this is made anew at the next arrival."""
    offload: tuple[Part, Part] = (0.5, 1.0)
    """Least and greatest share of a task that a server may get."""
    clock: Positive = 10_000_000
    """fuel/s of a UE."""
    compute_w: Watts = 0.1
    """Of a UE at full clock."""
    server_compute_w: Watts = 40.0
    """Of a server with all slots at full speed."""
    server_power_w: Watts = 10.0
    """Transmit power that a server's UEs share."""
    w_t: Watts = 0.5
    """Weight of delay, 1/s."""
    w_e: Watts = 0.5
    """Weight of energy, 1/J."""
    budget_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0
    """Wall time of the solver for one plan."""
    settings: dict[str, bool | int | float | str] = {}
    """The solver's own, as `edgora solve --set`."""


class Mining(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """UEs that mine beside their tasks, under a privacy policy (privacy.md; `ue.miner`)."""

    policy: Annotated[str, msgspec.Meta(max_length=190)] = ""
    """A solver of privacy or a `module:object`; empty: nobody mines."""
    ues: Positive = 1
    """How many: the first ones that come with a hash puzzle."""
    slots: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 10
    slot_ms: Annotated[int, msgspec.Meta(ge=10, le=3_600_000)] = 1_000
    beta: Part = 0.5
    """Weight of energy against latency."""
    bits: Annotated[int, msgspec.Meta(ge=0, le=20)] = 4
    """Leading zero bits of a puzzle."""
    clock: Positive = 10_000_000
    """fuel/s of a UE's own processor."""


class Fleet(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The user equipments of a scenario."""

    ues: Positive = 8
    tasks: Positive = 24
    rate_per_s: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    """Mean arrivals per second of the whole fleet (Poisson)."""
    area_m: Annotated[float, msgspec.Meta(gt=0)] = 400.0
    """Side of the square in which UEs and servers stand."""
    kernels: dict[str, Share] = msgspec.field(default_factory=lambda: dict(_MIX))
    """Relative shares of the arrivals; each kernel with a share comes at least once if there are tasks enough."""
    margin: tuple[Positive, Positive] = (2, 40)
    """gwei/Mfuel that a UE bids above the dearest live ask, drawn uniformly."""
    desired_ms: Positive = 8_000
    patience_ms: Positive = 90_000
    """From the offer to its deadline."""
    deposit_gwei: Positive = 300_000_000
    bandwidth_hz: Annotated[float, msgspec.Meta(gt=0)] = 20e6
    power_w: Annotated[float, msgspec.Meta(gt=0)] = 0.2
    allocation: Annotated[str, msgspec.Meta(pattern="^((tcr|dpe):.{1,190})?$")] = ""
    """`tcr:SOLVER` or `dpe:SOLVER`: who serves each UE, with which split, band, powers and clocks. Empty: the nearest
    server, the band shared evenly, everything offloaded, at the servers' advertised speeds."""
    planning: Planning = Planning()
    mining: Mining = Mining()


def lasting(fleet: Fleet, per_minute: float, minutes: float) -> Fleet:
    """The same UEs with tasks for so long, at this mean rate: a platform that people watch needs something to do."""
    if not (math.isfinite(per_minute) and 0 < per_minute <= MOST_PER_MINUTE):
        raise Refused(f"{per_minute} tasks a minute is not within (0, {MOST_PER_MINUTE}]", field="rate")
    if not (math.isfinite(minutes) and 0 < minutes <= MOST_MINUTES):
        raise Refused(f"{minutes} minutes is not within (0, {MOST_MINUTES}]", field="minutes")
    tasks = max(1, round(per_minute * minutes))
    return msgspec.structs.replace(fleet, tasks=tasks, rate_per_s=per_minute / 60)


class Refunds(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Refunds that belong to the plan; voucher lane only, since a lock's deadline is farther than a demo."""

    cancelled: Annotated[int, msgspec.Meta(ge=0)] = 1
    """Tasks offered at a price that only pays for a server that is not worth forwarding to: they wait, their UE cancels."""
    expired: Annotated[int, msgspec.Meta(ge=0)] = 1
    """The same, not cancelled: they end when no server can meet the deadline any more."""


class Arrival(NamedTuple):
    at_ms: int
    """After the start of the run."""
    ue: int
    kernel: str
    seed: int
    """Of the task's input."""
    margin: int
    fate: Fate


def draw_arrivals(fleet: Fleet, refunds: Refunds, seed: int) -> list[Arrival]:
    """The run's arrivals in order of time: Poisson, UEs in turn, kernels by share, planned refunds among the early ones."""
    names = sorted(name for name, share in fleet.kernels.items() if share > 0)
    if not names:
        raise Refused("fleet.kernels: at least one kernel needs a share above 0", field="fleet.kernels")
    planned = refunds.cancelled + refunds.expired
    if planned > fleet.tasks:
        raise Refused(f"plan: {planned} refunds planned among {fleet.tasks} tasks", field="plan")
    draw = random.Random(f"arrivals {seed}")  # noqa: S311 - a scenario must repeat
    kernels = names[: fleet.tasks]
    kernels += draw.choices(names, [fleet.kernels[n] for n in names], k=fleet.tasks - len(kernels))
    draw.shuffle(kernels)
    fates: list[Fate] = []
    fates.extend("cancel" for _ in range(refunds.cancelled))
    fates.extend("expire" for _ in range(refunds.expired))
    fates.extend("settle" for _ in range(fleet.tasks - planned))
    head = fates[: max(planned * 3, 1)]
    draw.shuffle(head)
    fates = head + fates[len(head) :]
    at, arrivals = 0.0, []
    for number, (kernel, fate) in enumerate(zip(kernels, fates, strict=True)):
        at += draw.expovariate(fleet.rate_per_s)
        margin = draw.randint(*fleet.margin)
        arrivals.append(Arrival(int(1000 * at), number % fleet.ues, kernel, seed * 1_000_003 + number, margin, fate))
    return arrivals


def draw_positions(fleet: Fleet, seed: int) -> list[tuple[float, float]]:
    """Where each UE stands, metres."""
    draw = random.Random(f"positions {seed}")  # noqa: S311 - a scenario must repeat
    return [(draw.uniform(0, fleet.area_m), draw.uniform(0, fleet.area_m)) for _ in range(fleet.ues)]


def nearest(place: tuple[float, float], servers: Mapping[int, tuple[float, float]]) -> list[int]:
    """Server ids by distance; ties by id."""
    return sorted(servers, key=lambda s: (math.dist(place, servers[s]), s))
