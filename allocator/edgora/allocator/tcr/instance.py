"""Instances of TCR: the symbols of tcr.md 2, the generator of section 3, the profiles of section 5, the files of 13.

An `Instance` is immutable and checked when it is made, whether it was drawn, read or built by hand, so that no model
or solver checks again. Users are n = 0..N-1 and servers m = 0..M-1; units are SI: bit, hertz, watt, cycle per second.

Every positive quantity lies within 1e-15 .. 1e15, gains and noise within 1e-40 .. 1e15, coefficients that may vanish
within 0 .. 1e15: no product of the model's formulas overflows then, so no solver guards against infinities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgora.allocator.files import LARGEST, SMALLEST, number, read_json, read_settings, write_json
from edgora.allocator.radio import LogDistance, distances, uniform_square
from edgora.wire.errors import Refused

if TYPE_CHECKING:
    from edgora.allocator.tcr.model import Model

__all__ = ["MAX_PAIRS", "PROFILES", "DrawSettings", "Instance", "Params", "Profile", "draw", "dump", "load"]

Floats = NDArray[np.float64]
Count = Annotated[int, msgspec.Meta(ge=1)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Switch = Annotated[int, msgspec.Meta(ge=0, le=1)]
ProfileName = Literal["paper", "delegate", "chain", "custom"]

MAX_PAIRS = 5_000_000
"""Most N * M and M * M: an absurd size is refused instead of exhausting memory."""

_FAINTEST = 1e-40
"""Least gain and noise density: far beyond any link, and snr = h p / (N0 b) stays a double."""

_DECIBELS = 400.0
"""Greatest magnitude of a setting in decibels."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Where two delays count, and how little a user may offload (tcr.md 5)."""

    phi_min: float
    ut_on_user: int
    fin_on_server: int


PROFILES: Mapping[str, Profile] = {
    "paper": Profile(0.0, 1, 0),
    "delegate": Profile(0.5, 1, 0),
    "chain": Profile(0.5, 0, 1),
}


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The scalars of an instance."""

    profile: ProfileName
    """A record of where the three switches come from; the switches decide."""
    N: Count
    M: Count
    N0: float
    """Noise power density, W/Hz."""
    block_bits: float
    omega_b: float
    """Block bits per offloaded data bit."""
    omega_r: float
    """Returned bits per offloaded data bit."""
    w_t: float
    """1/s."""
    w_e: float
    """1/J."""
    v1: float
    v2: float
    phi_min: float
    phi_max: float
    ut_on_user: Switch
    """1: the upload counts in the user's delay; 0: in the server's."""
    fin_on_server: Switch
    """1: the handling of the result counts in the server's delay too."""


class DrawSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `edgora draw tcr --set` takes; one number stands for every user or server."""

    N: Count = 20
    M: Count = 3
    profile: ProfileName = "delegate"
    side: float = 1000.0
    """Metres of the square."""
    d_min: float = 10.0
    """Least distance, m."""
    n0_dbm_hz: float = -174.0
    N0: float | None = None
    """W/Hz, instead of n0_dbm_hz."""
    pl0: float = 128.1
    """Path loss at 1 km, dB."""
    pl1: float = 37.6
    """Path loss per decade, dB."""
    d_lo: float = 500.0
    """Least task, KB."""
    d_hi: float = 2000.0
    kb_bits: float = 8000.0
    score_hi: float = 0.5
    B: float = 1e7
    ps_max: float = 10.0
    fs_max: float = 2e10
    pu_max: float = 0.2
    fu_max: float = 1e9
    eta_u: float = 279.62
    eta_r: float = 279.62
    eta_s: float = 279.62
    eta_b: float = 737.5
    kappa_u: float = 1e-28
    kappa_s: float = 1e-28
    omega_b: float = 1.0
    omega_r: float = 0.9
    block_bits: float = 6.4e7
    wire: float = 1.5e7
    verify: float = 1e9
    w_t: float = 0.5
    w_e: float = 0.5
    v1: float = 1.0
    v2: float = 5.0
    phi_min: float | None = None
    """None: the profile's; any other value makes the profile `custom`, as do the two switches."""
    phi_max: float = 1.0
    ut_on_user: Switch | None = None
    fin_on_server: Switch | None = None


Vector = Sequence[float]
Matrix = Sequence[Sequence[float]]


class InstanceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON document of tcr.md 13."""

    problem: Literal["tcr"]
    version: Literal[1]
    seed: Seed | None
    params: Params
    gain: Matrix
    d: Vector
    score: Vector
    B: Vector
    ps_max: Vector
    fs_max: Vector
    pu_max: Vector
    fu_max: Vector
    eta_u: Vector
    eta_r: Vector
    eta_s: Vector
    eta_b: Vector
    kappa_u: Vector
    kappa_s: Vector
    wire: Matrix
    verify: Vector
    pos_u: Matrix
    pos_s: Matrix


@dataclass(frozen=True, eq=False)
class Instance:
    """One TCR problem. Arrays are read-only."""

    seed: int | None
    params: Params
    gain: Floats
    """h_nm, channel power gain in both directions (N,M)."""
    d: Floats
    """Task sizes, bit (N,)."""
    score: Floats
    """q_m, history scores (M,)."""
    B: Floats
    """Hz that each server's users share (M,)."""
    ps_max: Floats
    """P_m, W that each server's users share (M,)."""
    fs_max: Floats
    """F_m, cycle/s that each server's users share (M,)."""
    pu_max: Floats
    """W (N,)."""
    fu_max: Floats
    """cycle/s (N,)."""
    eta_u: Floats
    """User's cycles per raw bit (N,)."""
    eta_r: Floats
    """User's cycles per returned bit (N,)."""
    eta_s: Floats
    """Server's cycles per data bit (M,)."""
    eta_b: Floats
    """Server's cycles per block bit (M,)."""
    kappa_u: Floats
    """J s^2 / cycle^3 (N,)."""
    kappa_s: Floats
    """J s^2 / cycle^3 (M,)."""
    wire: Floats
    """Wired rate between servers, bit/s (M,M); diagonal 0."""
    verify: Floats
    """Cycles to verify a block (M,)."""
    pos_u: Floats
    """Places in metres, for maps only (N,2)."""
    pos_s: Floats
    """Places in metres, for maps only (M,2)."""

    @property
    def N(self) -> int:  # noqa: N802  # the paper's symbol
        return self.params.N

    @property
    def M(self) -> int:  # noqa: N802  # the paper's symbol
        return self.params.M

    @cached_property
    def model(self) -> "Model":
        """Formulas and audit of this instance."""
        from edgora.allocator.tcr.model import Model  # model is written on top of instance

        return Model(self)


def make(seed: int | None, params: Params, arrays: Mapping[str, object]) -> Instance:
    """An instance of checked values; `arrays` holds every array field by name. Raises Refused naming the field."""
    N, M = params.N, params.M
    if N * M > MAX_PAIRS or M * M > MAX_PAIRS:
        raise Refused(f"params.N x params.M is {N} x {M}: at most {MAX_PAIRS} pairs", field="params.N")
    _check(params)
    shapes = _shapes(N, M)
    checked = {name: _array(name, arrays[name], shape, *_WINDOWS[name]) for name, shape in shapes.items()}
    wire, off = checked["wire"], ~np.eye(M, dtype=bool)
    _expect(
        "wire", wire, np.where(off, (wire >= SMALLEST), wire == 0.0), f"at least {SMALLEST:g}, and 0 on the diagonal"
    )
    if params.omega_r * checked["eta_r"].max() > checked["eta_u"].min():
        detail = (
            f"params.omega_r max eta_r is {params.omega_r * checked['eta_r'].max():g}: must not exceed min eta_u, "
            f"{checked['eta_u'].min():g}, or returned results cost users more than computing"
        )
        raise Refused(detail, field="params.omega_r")
    return Instance(seed=seed, params=params, **checked)


def load(data: bytes) -> Instance:
    """The instance in a file's bytes, or Refused."""
    document = read_json(data, InstanceFile, "tcr instance")
    return make(document.seed, document.params, {name: getattr(document, name) for name in _WINDOWS})


def dump(instance: Instance) -> bytes:
    """The instance as a file's bytes; `load` gives back the same doubles."""
    arrays = {name: getattr(instance, name).tolist() for name in _WINDOWS}
    return write_json(InstanceFile(problem="tcr", version=1, seed=instance.seed, params=instance.params, **arrays))


def draw(seed: int, settings: Mapping[str, object] | None = None) -> Instance:
    """The reference draw of tcr.md 3 for one seed. Raises Refused for a setting that is unknown or out of range."""
    chosen = read_settings(settings or {}, DrawSettings, "tcr draw")
    number("seed", seed, 0, 2**63 - 1)
    for name in ("side", "d_min"):
        number(name, getattr(chosen, name), SMALLEST, 1e6)
    for name in ("n0_dbm_hz", "pl0", "pl1"):
        number(name, getattr(chosen, name), -_DECIBELS, _DECIBELS)
    for name in ("d_lo", "d_hi", "kb_bits"):
        number(name, getattr(chosen, name), SMALLEST, LARGEST)
    number("score_hi", chosen.score_hi, 0.0, LARGEST)
    N, M = chosen.N, chosen.M
    if N * M > MAX_PAIRS or M * M > MAX_PAIRS:
        raise Refused(f"N x M is {N} x {M}: at most {MAX_PAIRS} pairs", field="N")
    rng = np.random.default_rng(seed)
    pos_s = uniform_square(rng, M, chosen.side)
    pos_u = uniform_square(rng, N, chosen.side)
    fading = rng.exponential(size=(N, M))
    sizes, scores = rng.random(N), rng.random(M)
    loss = LogDistance(chosen.pl0, chosen.pl1, nearest_m=chosen.d_min)
    arrays: dict[str, object] = {
        "gain": loss.gain(distances(pos_u, pos_s)) * fading,
        "d": (chosen.d_lo + (chosen.d_hi - chosen.d_lo) * sizes) * chosen.kb_bits,
        "score": chosen.score_hi * scores,
        "wire": np.where(np.eye(M, dtype=bool), 0.0, chosen.wire),
        "pos_u": pos_u,
        "pos_s": pos_s,
    }
    for name, shape in _shapes(N, M).items():
        if name not in arrays:
            arrays[name] = np.full(shape, getattr(chosen, name))
    return make(seed, _params(chosen), arrays)


def _params(chosen: DrawSettings) -> Params:
    profile = PROFILES["delegate" if chosen.profile == "custom" else chosen.profile]
    switches = Profile(
        profile.phi_min if chosen.phi_min is None else chosen.phi_min,
        profile.ut_on_user if chosen.ut_on_user is None else chosen.ut_on_user,
        profile.fin_on_server if chosen.fin_on_server is None else chosen.fin_on_server,
    )
    return Params(
        profile=chosen.profile if switches == profile else "custom", N=chosen.N, M=chosen.M,
        N0=10.0 ** ((chosen.n0_dbm_hz - 30.0) / 10.0) if chosen.N0 is None else chosen.N0,
        block_bits=chosen.block_bits, omega_b=chosen.omega_b, omega_r=chosen.omega_r, w_t=chosen.w_t, w_e=chosen.w_e,
        v1=chosen.v1, v2=chosen.v2, phi_min=switches.phi_min, phi_max=chosen.phi_max,
        ut_on_user=switches.ut_on_user, fin_on_server=switches.fin_on_server,
    )  # fmt: skip


def _check(params: Params) -> None:
    number("params.N0", params.N0, _FAINTEST, LARGEST)
    for name in ("block_bits", "omega_b", "v1", "v2"):
        number(f"params.{name}", getattr(params, name), SMALLEST, LARGEST)
    for name in ("omega_r", "w_t", "w_e"):
        number(f"params.{name}", getattr(params, name), 0.0, LARGEST)
    if params.w_t + params.w_e < SMALLEST:
        raise Refused("params.w_t and params.w_e are both 0: one weight must be positive", field="params.w_t")
    number("params.phi_max", params.phi_max, 0.0, 1.0)
    if not 0.0 <= params.phi_min < params.phi_max:
        detail = f"params.phi_min is {params.phi_min!r}: must be at least 0 and below phi_max, {params.phi_max!r}"
        raise Refused(detail, field="params.phi_min")


def _shapes(N: int, M: int) -> dict[str, tuple[int, ...]]:
    users = dict.fromkeys(("d", "pu_max", "fu_max", "eta_u", "eta_r", "kappa_u"), (N,))
    servers = dict.fromkeys(("score", "B", "ps_max", "fs_max", "eta_s", "eta_b", "kappa_s", "verify"), (M,))
    return {"gain": (N, M), "wire": (M, M), "pos_u": (N, 2), "pos_s": (M, 2), **users, **servers}


_POSITIVE, _ANY_COST = (SMALLEST, LARGEST), (0.0, LARGEST)
_WINDOWS: Mapping[str, tuple[float, float]] = {
    "gain": (_FAINTEST, LARGEST), "wire": _ANY_COST, "pos_u": (-LARGEST, LARGEST), "pos_s": (-LARGEST, LARGEST),
    "score": _ANY_COST, "kappa_u": _ANY_COST, "kappa_s": _ANY_COST, "verify": _ANY_COST,
    **dict.fromkeys(("d", "B", "ps_max", "fs_max", "pu_max", "fu_max", "eta_u", "eta_r", "eta_s", "eta_b"), _POSITIVE),
}  # fmt: skip
"""Least and greatest entry of each array field."""


def _array(name: str, values: object, shape: tuple[int, ...], low: float, high: float) -> Floats:
    try:
        array = np.array(values, dtype=np.float64)
    except (ValueError, OverflowError):  # rows of unequal length; an integer of hundreds of digits
        raise Refused(f"{name} must be numbers of shape {shape}, each within {low:g}..{high:g}", field=name) from None
    if array.shape != shape:
        raise Refused(f"{name} has shape {array.shape}: must have {shape}", field=name)
    _expect(name, array, (array >= low) & (array <= high), f"within {low:g}..{high:g}")
    array.flags.writeable = False
    return array


def _expect(name: str, array: Floats, good: NDArray[np.bool_], expected: str) -> None:
    if not good.all():
        at = np.unravel_index(int(np.argmin(good)), array.shape)
        place = name + "".join(f"[{i}]" for i in at)
        raise Refused(f"{place} is {array[at].item()!r}: must be {expected}", field=place)
