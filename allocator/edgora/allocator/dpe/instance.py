"""Instances of DPE: the arrays of dpe.md 2, the generator of section 3, the files of section 12.

An `Instance` is immutable and checked when it is made, whether it was drawn, read or built by hand, so that no model
or solver checks again. Users are n = 0..N-1 and servers m = 0..M-1; every quantity is in SI units and a double.

Each field has its own magnitude window, wide enough for any radio and any processor and narrow enough that no product
of the model's formulas overflows or vanishes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgora.allocator.files import read_json, read_settings, write_json
from edgora.allocator.radio import LogDistance, RayleighFading, distances, uniform_disc
from edgora.wire.errors import Refused

if TYPE_CHECKING:
    from edgora.allocator.dpe.model import Model

__all__ = ["MAX_PAIRS", "DrawSettings", "Instance", "draw", "dump", "load", "made"]

Floats = NDArray[np.float64]
Count = Annotated[int, msgspec.Meta(ge=1)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

MAX_PAIRS = 1_000_000
"""Most N * M: an absurd size is refused instead of exhausting memory."""


@dataclass(frozen=True, slots=True)
class _Field:
    """Shape and range of one field."""

    shape: str
    """"N", "M", "NM" or "" for a scalar."""
    low: float
    high: float
    default: float | None = None
    """What `made` takes where nothing is given."""
    zero: bool = False
    """Whether 0 is allowed below `low`."""


_THERMAL = 10.0**-20.4
"""-174 dBm/Hz in W/Hz."""

_FIELDS: Mapping[str, _Field] = {
    "gain": _Field("NM", 1e-40, 1e15),
    "c_s": _Field("NM", 1e-30, 1e15, 1e-6, zero=True),
    "d": _Field("N", 1e-3, 1e18),
    "p_max": _Field("N", 1e-15, 1e9, 0.2),
    "fu_max": _Field("N", 1e-3, 1e15, 1e9),
    "eta_u": _Field("N", 1e-9, 1e12, 279.62),
    "kappa_u": _Field("N", 1e-60, 1e3, 1e-29, zero=True),
    "c_u": _Field("N", 1e-30, 1e15, 1e-6, zero=True),
    "B": _Field("M", 1e-3, 1e15, 10e6),
    "fs_max": _Field("M", 1e-3, 1e15, 20e9),
    "eta_s": _Field("M", 1e-9, 1e12, 279.62),
    "eta_b": _Field("M", 1e-9, 1e12, 737.5),
    "kappa_s": _Field("M", 1e-60, 1e3, 1e-29, zero=True),
    "t_chain": _Field("M", 1e-12, 1e12, 0.0, zero=True),
    "N0": _Field("", 1e-40, 1e3, _THERMAL),
    "omega_b": _Field("", 1e-9, 1e9, 1.0),
    "w_t": _Field("", 1e-9, 1e9, 0.5),
    "w_e": _Field("", 1e-12, 1e9, 0.5, zero=True),
    "phi_min": _Field("", 1e-9, 1.0, 0.0, zero=True),
    "phi_max": _Field("", 1e-9, 1.0, 1.0),
}


class DrawSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What `edgora draw dpe --set` takes; in files, `params`: what differs from these defaults, a record only."""

    N: Count = 10
    M: Count = 2
    radius: float = 1000.0
    """Metres around the origin in which users and servers stand."""
    d_min: float = 10.0
    """Metres; closer pairs count as this far."""
    n0_dbm_hz: float = -174.0
    pl0: float = 128.1
    """Path loss at 1 km, dB."""
    pl1: float = 37.6
    """Path loss per decade of distance, dB."""
    d_lo: float = 500.0
    d_hi: float = 2000.0
    """Range of the data, kilobytes."""
    kb_bits: float = 8000.0
    block_bits: float = 64e6
    wire: float = 15e6
    """Rate between servers, bit/s."""
    verify_cycles: float = 1e9
    c: float = 1e-6
    c_mixed: bool = False
    """Preferences uniform in [0, c) instead of c."""
    B: float = 10e6
    p_max: float = 0.2
    fu_max: float = 1e9
    fs_max: float = 20e9
    eta_u: float = 279.62
    eta_s: float = 279.62
    eta_b: float = 737.5
    kappa_u: float = 1e-29
    kappa_s: float = 1e-29
    omega_b: float = 1.0
    w_t: float = 0.5
    w_e: float = 0.5
    phi_min: float = 0.0
    phi_max: float = 1.0


class InstanceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON document of dpe.md 12."""

    problem: Literal["dpe"]
    version: Literal[1]
    seed: Seed | None
    params: DrawSettings
    gain: Sequence[Sequence[float]]
    c_s: Sequence[Sequence[float]]
    d: Sequence[float]
    p_max: Sequence[float]
    fu_max: Sequence[float]
    eta_u: Sequence[float]
    kappa_u: Sequence[float]
    c_u: Sequence[float]
    B: Sequence[float]
    fs_max: Sequence[float]
    eta_s: Sequence[float]
    eta_b: Sequence[float]
    kappa_s: Sequence[float]
    t_chain: Sequence[float]
    N0: float
    omega_b: float
    w_t: float
    w_e: float
    phi_min: float
    phi_max: float


@dataclass(frozen=True, eq=False)
class Instance:
    """One DPE problem. Arrays are read-only; shapes are (N,) for users, (M,) for servers, (N,M) for pairs."""

    seed: int | None
    params: DrawSettings
    gain: Floats
    """g_nm, channel power gain (N,M)."""
    c_s: Floats
    """c_nm, preference of the pair, per bit and unit cost (N,M); >= 0."""
    d: Floats
    """d_n, data, bit (N,)."""
    p_max: Floats
    """P_n, W (N,)."""
    fu_max: Floats
    """f_n^max, the user's clock, cycle/s (N,)."""
    eta_u: Floats
    """Local work, cycle/bit (N,)."""
    kappa_u: Floats
    """Switched capacitance of the user, J s^2/cycle^3 (N,); >= 0."""
    c_u: Floats
    """c_n, preference of the user's local part (N,); >= 0."""
    B: Floats
    """B_m, Hz (M,)."""
    fs_max: Floats
    """F_m, server clock shared by its users, cycle/s (M,)."""
    eta_s: Floats
    """Work on the server, cycle/bit (M,)."""
    eta_b: Floats
    """Work of the block, cycle per block bit (M,)."""
    kappa_s: Floats
    """Switched capacitance of the server (M,); >= 0."""
    t_chain: Floats
    """t0_m, block propagation and validation, s (M,); >= 0."""
    N0: float
    """Noise density, W/Hz."""
    omega_b: float
    """Block bits per offloaded bit."""
    w_t: float
    """Weight of delay, 1/s; > 0."""
    w_e: float
    """Weight of energy, 1/J; >= 0."""
    phi_min: float
    phi_max: float
    """Allowed range of the offloaded share."""

    @property
    def N(self) -> int:  # noqa: N802 - the paper's symbol
        return len(self.d)

    @property
    def M(self) -> int:  # noqa: N802 - the paper's symbol
        return len(self.B)

    @cached_property
    def model(self) -> "Model":
        """Derived quantities and values of this instance."""
        from edgora.allocator.dpe.model import Model  # model is written on top of instance

        return Model(self)


def made(
    gain: ArrayLike, d: ArrayLike, *, seed: int | None = None, params: DrawSettings | None = None, **given: ArrayLike
) -> Instance:
    """An instance by hand: gains (N,M), data (N,) and any other field of `Instance`; a scalar stands for every entry.

    What is not given has the default of dpe.md 2, except `t_chain`, which is 0. Raises Refused naming the field.
    """
    for name in given:
        if name not in _FIELDS:
            raise Refused(f"{name} is no field of a dpe instance: use one of {', '.join(_FIELDS)}", field=name)
    gains = _numeric("gain", gain)
    if gains.ndim != 2 or 0 in gains.shape:
        raise Refused(f"gain has the shape {gains.shape}: must be (N, M), both at least 1", field="gain")
    users, servers = gains.shape
    if users * servers > MAX_PAIRS:
        raise Refused(f"gain has {users} x {servers} entries: must be at most {MAX_PAIRS}", field="gain")
    shapes = {"N": (users,), "M": (servers,), "NM": (users, servers), "": ()}
    checked: dict[str, Floats] = {}
    for name, rule in _FIELDS.items():
        value = {"gain": gains, "d": d}.get(name, given.get(name, rule.default))
        assert value is not None
        checked[name] = _within(name, _shaped(name, _numeric(name, value), shapes[rule.shape]), rule)
    scalars = {name: float(checked.pop(name)) for name, rule in _FIELDS.items() if not rule.shape}
    if scalars["phi_min"] > scalars["phi_max"]:
        raise Refused(
            f"phi_min is {scalars['phi_min']!r}: must be at most phi_max, {scalars['phi_max']!r}", field="phi_min"
        )
    arrays: dict[str, Any] = {**checked, **scalars}  # names and shapes are those of _FIELDS
    return Instance(seed=seed, params=params or DrawSettings(), **arrays)


def load(data: bytes) -> Instance:
    """The instance in a file's bytes, or Refused: shapes are exact here, no scalar stands for an array."""
    document = read_json(data, InstanceFile, "dpe instance")
    users, servers = len(document.d), len(document.B)
    for name, rule in _FIELDS.items():
        if rule.shape:
            _expect_length(name, getattr(document, name), servers if rule.shape == "M" else users)
        if rule.shape == "NM":
            for n, row in enumerate(getattr(document, name)):
                _expect_length(f"{name}[{n}]", row, servers)
    values = {name: getattr(document, name) for name in _FIELDS}
    return made(values.pop("gain"), values.pop("d"), seed=document.seed, params=document.params, **values)


def dump(instance: Instance) -> bytes:
    """The instance as a file's bytes; `load` gives back the same doubles."""
    fields = {name: np.asarray(getattr(instance, name)).tolist() for name in _FIELDS}
    return write_json(InstanceFile(problem="dpe", version=1, seed=instance.seed, params=instance.params, **fields))


def draw(seed: int, settings: Mapping[str, object] | None = None) -> Instance:
    """The reference draw of dpe.md 3 for one seed. Raises Refused for a setting that is unknown or out of range."""
    s = read_settings(settings or {}, DrawSettings, "dpe draw")
    if not 0 <= seed < 2**63:
        raise Refused(f"seed is {seed}: must be within 0..2^63-1", field="seed")
    if s.N > MAX_PAIRS or s.M > MAX_PAIRS or s.N * s.M > MAX_PAIRS:
        raise Refused(f"N is {s.N} and M is {s.M}: N * M must be at most {MAX_PAIRS}", field="N")
    for name in ("radius", "d_min", "d_lo", "d_hi", "kb_bits", "wire", "fs_max"):
        _expect_range(name, getattr(s, name), 1e-9, 1e15)
    for name in ("block_bits", "verify_cycles", "c"):
        _expect_range(name, getattr(s, name), 0.0, 1e18)
    for name in ("n0_dbm_hz", "pl0", "pl1"):
        _expect_range(name, getattr(s, name), -400.0, 400.0)
    rng = np.random.default_rng(seed)
    servers, users = uniform_disc(rng, s.M, s.radius), uniform_disc(rng, s.N, s.radius)
    fading = RayleighFading().factor(rng, (s.N, s.M))
    loss = LogDistance(s.pl0, s.pl1, s.d_min)
    drawn: dict[str, Floats] = {
        "gain": fading * loss.gain(distances(users, servers)),
        "d": (s.d_lo + (s.d_hi - s.d_lo) * rng.random(s.N)) * s.kb_bits,
    }
    if s.c_mixed:
        drawn["c_u"] = s.c * rng.random(s.N)
        drawn["c_s"] = s.c * rng.random((s.N, s.M))
    verify = 0.0 if s.M == 1 else s.block_bits / s.wire + s.verify_cycles / s.fs_max  # all servers are alike
    constant = {name: getattr(s, name) for name in _FIELDS if hasattr(s, name)}
    constant |= {"c_u": s.c, "c_s": s.c, "t_chain": verify, "N0": 10.0 ** ((s.n0_dbm_hz - 30.0) / 10.0)}
    values: dict[str, ArrayLike] = {**constant, **drawn}
    return made(values.pop("gain"), values.pop("d"), seed=seed, params=s, **values)


def _numeric(name: str, value: ArrayLike) -> Floats:
    """The value as doubles; a private copy."""
    try:
        return np.array(value, dtype=np.float64)
    except (OverflowError, TypeError, ValueError):  # integers of hundreds of digits, text, ragged nesting
        raise Refused(f"{name} is not an array of numbers that doubles hold", field=name) from None


def _shaped(name: str, value: Floats, shape: tuple[int, ...]) -> Floats:
    if value.ndim == 0 and shape:
        return np.full(shape, value)
    if value.shape != shape:
        raise Refused(f"{name} has the shape {value.shape}: must be {shape}", field=name)
    return value


def _within(name: str, value: Floats, rule: _Field) -> Floats:
    bad = ~((value >= rule.low) & (value <= rule.high))
    if rule.zero:
        bad &= value != 0.0
    if bad.any():
        at = np.unravel_index(int(np.argmax(bad)), bad.shape)
        field = name + "".join(f"[{int(i)}]" for i in at)
        zero = "0 or " if rule.zero else ""
        raise Refused(f"{field} is {float(value[at])!r}: must be {zero}within {rule.low:g}..{rule.high:g}", field=field)
    value.flags.writeable = False
    return value


def _expect_length(name: str, values: Sequence[object], length: int) -> None:
    if len(values) != length:
        raise Refused(f"{name} has {len(values)} entries: must have {length}", field=name)


def _expect_range(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise Refused(f"{name} is {value!r}: must be within {low:g}..{high:g}", field=name)
