"""What a plan of the UEs' resources is asked from and what it answers: plain data, JSON on the wire.

    PlanRequest   who stands where, what each UE will send and how much work that is, what servers and channel have
    RadioPlan     for each UE a server, a split, radio resources, and the computing it gets, in integers (market.md 4)

Both are bounded, so that a service may decode whatever it is sent. 1 fuel is 1 cycle of the papers' clocks.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec

from edgora.allocator.files import read_json
from edgora.wire.errors import Refused

__all__ = [
    "MAX_SERVERS", "MAX_USERS", "PPM", "Costs", "Delays", "PlanRequest", "PlanServer", "PlanUser", "RadioLink",
    "RadioPlan", "UeShare", "read_request",
]  # fmt: skip

MAX_USERS, MAX_SERVERS = 256, 64
PPM = 1_000_000

Positive = Annotated[float, msgspec.Meta(ge=1e-9, le=1e15)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Metres = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]
Fuel = Annotated[int, msgspec.Meta(ge=1, le=2**48 - 1)]
Address = Annotated[str, msgspec.Meta(pattern="^0x[0-9a-f]{40}$")]
Policy = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class PlanUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A UE and the mean of its next tasks."""

    ue: Address
    position_m: tuple[Metres, Metres]
    bits: Positive
    """Input that the server would need if it did everything."""
    fuel: Positive
    """Work of one task."""
    output_bits: NotNegative
    splittable: bool
    """Whether a part of each task can be computed on the UE; if not, everything goes to the server."""
    clock: Fuel
    """fuel/s of the UE."""
    compute_w: Positive
    """What the UE's processor takes at full clock; with clock^3 (the papers' kappa)."""
    power_w: Positive
    """Most that it transmits with."""


class PlanServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]
    position_m: tuple[Metres, Metres]
    speed: Fuel
    """fuel/s of one slot: the most that one task is run at."""
    slots: Annotated[int, msgspec.Meta(ge=1, le=2**16 - 1)]
    uplink: Annotated[int, msgspec.Meta(ge=1, le=2**40 - 1)]
    """octets/s towards the other servers."""
    bandwidth_hz: Positive
    """Shared by its UEs."""
    power_w: Positive
    """Transmit power, shared by its UEs."""
    compute_w: Positive
    """What its processors take with all slots at full speed."""
    score: Share = 0.0
    """History score, q_m of tcr."""

    @property
    def clock(self) -> int:
        """fuel/s of all slots together: what its UEs share."""
        return self.speed * self.slots


class RadioLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The channel between UEs and servers (allocator.radio)."""

    noise_w_per_hz: Annotated[float, msgspec.Meta(ge=1e-30, le=1)] = 10.0**-20.4
    pl0_db: Annotated[float, msgspec.Meta(ge=0, le=300)] = 128.1
    """Path loss at 1 km."""
    pl1_db: Annotated[float, msgspec.Meta(ge=0, le=100)] = 37.6
    """Path loss a decade of distance."""
    nearest_m: Positive = 1.0


class Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Weights, and what keeping the chain costs, as tcr.md 2 and dpe.md 2 name them."""

    w_t: Positive = 0.5
    w_e: Positive = 0.5
    v1: Positive = 1.0
    v2: Positive = 5.0
    c: Positive = 1e-6
    """Preference of dpe, per bit."""
    block_octets: Positive = 4096.0
    """What travels between servers for one task: its transactions."""
    omega_b: Positive = 0.01
    """Block bits per bit of data."""
    eta_b: Positive = 1.0
    """fuel per block bit."""
    verify_fuel: NotNegative = 100_000.0
    """To verify a block."""


class PlanRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    policy: Policy
    """`tcr:SOLVER` or `dpe:SOLVER`; SOLVER may be a user's `module:object`."""
    users: Annotated[tuple[PlanUser, ...], msgspec.Meta(min_length=1, max_length=MAX_USERS)]
    servers: Annotated[tuple[PlanServer, ...], msgspec.Meta(min_length=1, max_length=MAX_SERVERS)]
    radio: RadioLink = RadioLink()
    costs: Costs = Costs()
    phi_min: Share = 0.5
    phi_max: Share = 1.0
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    budget_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0
    """Wall seconds for the solver."""
    valid_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 300.0
    """How long servers keep to the plan's shares."""
    settings: dict[str, bool | int | float | str] = {}
    """The solver's own, as `--set`."""

    def __post_init__(self) -> None:
        for field, ids in (("users", [u.ue for u in self.users]), ("servers", [s.id for s in self.servers])):
            if len(set(ids)) != len(ids):
                raise ValueError(f"two {field} are the same one")
        if self.phi_min > self.phi_max:
            raise ValueError(f"phi_min {self.phi_min!r} is above phi_max {self.phi_max!r}")


class Delays(NamedTuple):
    """Where the time of a task goes, ms."""

    upload: float
    run: float
    download: float
    local: float
    chain: float
    """Making and spreading its block, as the model has it."""

    @property
    def total(self) -> float:
        """One data path after the other, the local part beside it (tcr.md 5, profile `chain`)."""
        return max(self.local, self.upload + self.run + self.download + self.chain)


class UeShare(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a plan gives one UE. Rounded down, so that shares of integers never exceed what is shared."""

    ue: Address
    server: int
    phi_ppm: Annotated[int, msgspec.Meta(ge=0, le=PPM)]
    """Share of each task that the server computes."""
    bandwidth_hz: int
    power_up_uw: int
    power_down_uw: int
    rate_up: int
    """bit/s"""
    rate_down: int
    speed: int
    """fuel/s that the server runs this UE's tasks at: the data part of its clock share, at most a slot's speed."""
    local_speed: int
    """fuel/s of the UE's own part."""
    chain_us: int
    """Block work and propagation of its mean task, by the model."""
    expected_ms: Delays
    """Of the mean of its next tasks, at these shares."""
    reasons: tuple[str, ...] = ()
    """Where the plan could not be taken as it was solved."""

    @property
    def phi(self) -> float:
        return self.phi_ppm / PPM

    def delays(self, bits: float, fuel: float, output_bits: float, phi: float | None = None) -> Delays:
        """Of a task of this size; phi: what was really split off, if the planned share is not what a split gave."""
        share = self.phi if phi is None else phi
        return Delays(
            upload=1000.0 * share * bits / self.rate_up, run=1000.0 * share * fuel / self.speed,
            download=1000.0 * share * output_bits / self.rate_down,
            local=1000.0 * (1.0 - share) * fuel / self.local_speed, chain=self.chain_us / 1000.0,
        )  # fmt: skip


class RadioPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    policy: str
    ues: tuple[UeShare, ...]
    """In the request's order."""
    objective: float | None
    """TCR or DPE of what was solved, as the problem's own model values it."""
    bound: float | None
    """Proven, or null."""
    status: str
    """How the solver ended."""
    wall_s: float
    fallback: str = ""
    """Why this is not the policy's plan but the nearest server and equal shares; empty: it is the policy's."""
    untold: str = ""
    """Why servers were not told their computing shares, and so pace as before; empty: they were."""

    def of(self, ue: str) -> UeShare | None:
        """The share of this address."""
        return next((share for share in self.ues if share.ue == ue), None)

    def at(self, server: int) -> Sequence[UeShare]:
        """The shares of one server's UEs."""
        return [share for share in self.ues if share.server == server]


def read_request(data: bytes) -> PlanRequest:
    """The request in a JSON document. Raises Refused naming the first field at fault."""
    request = read_json(data, PlanRequest, "plan request")
    problem, _, solver = request.policy.partition(":")
    if problem not in {"tcr", "dpe"} or not solver:
        raise Refused(f"policy is {request.policy!r}: must be tcr:SOLVER or dpe:SOLVER", field="policy")
    return request
