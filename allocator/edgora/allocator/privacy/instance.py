"""Instances of PRIV: the symbols and constants of privacy.md 1, the files of section 11.

An `Instance` is immutable and checked when it is made, whether it was drawn, read or built by hand. It names a system,
not its data: N miners with M streams each, the two weights, and the constants that differ from section 1. The data of
every slot follow from the seed by the normative stream (`simulation`).

Rule: `params` holds what was said, `constants` what holds. Sizes are in kb = 10^3 bits as in the spec; everything else
is SI. The constants of one stream (M = 1) and of several (M >= 2) are the two columns of section 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from edgora.allocator.files import LARGEST, SMALLEST, number, read_json, read_settings, write_json
from edgora.wire.errors import Refused

if TYPE_CHECKING:
    from edgora.allocator.privacy.model import Model

__all__ = ["CHAIN", "MAX_STREAMS", "Constants", "Instance", "Params", "draw", "dump", "load", "make"]

Count = Annotated[int, msgspec.Meta(ge=1)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Usage = Literal["text", "literal"]

MAX_STREAMS = 100_000
"""Most N * M: an absurd size is refused instead of exhausting memory."""

MAX_GRID = 10_000
"""Most values that new data may take."""

CHAIN = ((0.9, 0.1, 0.0), (0.2, 0.6, 0.2), (0.0, 0.3, 0.7))
"""How the level of background work moves from slot to slot (privacy.md 3)."""


@dataclass(frozen=True, slots=True)
class Constants:
    """Every constant of privacy.md 1, resolved."""

    C: float
    """Most that the device clears of a stream in a slot, kb."""
    B: float
    """Buffer of a stream, kb."""
    D1_lo: float
    D1_hi: float
    grid: float
    """New data are D1_lo, D1_lo + grid, .., D1_hi kb, all as likely."""
    usage: Usage = "text"
    """text: |D1 - x (D0+D1)|, what was generated against what is sent; literal: |D0 - x (D0+D1)| as eq. 8 prints it."""
    sigma: float = 0.8
    lambda_: float = 0.35
    S: float = 20.0
    gamma: float = 0.85
    X: float = 2250.0
    """Server work, cycle/bit."""
    F: float = 1e10
    """Server speed, cycle/s."""
    cores: float = 100.0
    kappa: float = 1e-26
    """J s^2 / cycle^3."""
    P_M: float = 0.5
    """Transmit power, W."""
    P_C: float = 0.05
    """Circuit power while queued, W."""
    r_1: float = 20e6
    """Uplink over a good channel, bit/s."""
    r_0: float = 1.5e6
    """Uplink over a bad channel, bit/s."""
    t_l: float = 4.75e-7
    """Device time, s/bit."""
    e_l: float = 3.25e-7
    """Device energy, J/bit."""
    D_ref: float = 1e5
    """Reference load of a miner, bit."""
    tau: float = 15.0
    """Deadline, s."""
    Q: tuple[float, float, float] = (0.0, 0.5e8, 2e8)
    """Background work at the server by level, cycle."""

    @property
    def K(self) -> int:  # noqa: N802  # the spec's symbol
        """How many values new data may take."""
        return round((self.D1_hi - self.D1_lo) / self.grid) + 1

    @property
    def E_0(self) -> float:  # noqa: N802  # the spec's symbol
        """Energy of the reference load on the device, J."""
        return self.e_l * self.D_ref

    @property
    def L_0(self) -> float:  # noqa: N802  # the spec's symbol
        """Time of the reference load on the device, s."""
        return self.t_l * self.D_ref

    @property
    def P_srv(self) -> float:  # noqa: N802  # the spec's symbol
        """Server power at work, W."""
        return self.cores * self.kappa * (self.F / self.cores) ** 3

    @property
    def mean_kb(self) -> float:
        """Mean of new data, kb: the unit in which learners see sizes."""
        return 0.5 * (self.D1_lo + self.D1_hi)


_ONE_STREAM = {"C": 100.0, "B": 300.0, "D1_lo": 50.0, "D1_hi": 150.0, "grid": 10.0}
_STREAMS = {"C": 50.0, "B": 150.0, "D1_lo": 25.0, "D1_hi": 75.0, "grid": 5.0}


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename={"lambda_": "lambda"}):
    """The constants that differ from section 1; None: they do not."""

    usage: Usage | None = None
    C: float | None = None
    B: float | None = None
    D1_lo: float | None = None
    D1_hi: float | None = None
    grid: float | None = None
    sigma: float | None = None
    lambda_: float | None = None
    S: float | None = None
    gamma: float | None = None
    X: float | None = None
    F: float | None = None
    cores: float | None = None
    kappa: float | None = None
    P_M: float | None = None
    P_C: float | None = None
    r_1: float | None = None
    r_0: float | None = None


class DrawSettings(Params, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What `edgora draw privacy --set` takes."""

    N: Count = 1
    M: Count = 1
    beta: float = 0.5
    w_P: float = 50.0  # noqa: N815  # the paper's symbol
    slots: Count = 10_000


class InstanceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON document of privacy.md 11."""

    problem: Literal["privacy"]
    version: Literal[1]
    seed: Seed | None
    params: Params
    N: Count
    M: Count
    beta: float
    w_P: float  # noqa: N815  # the paper's symbol
    slots: Count


@dataclass(frozen=True)
class Instance:
    """One system of miners."""

    seed: int | None
    """Of the normative stream; null counts as 0."""
    N: int
    """Miners."""
    M: int
    """Streams of a miner."""
    beta: float
    """Weight of energy; 1 - beta of latency."""
    w_P: float  # noqa: N815  # the paper's symbol
    """Weight of privacy."""
    slots: int
    """Slots of a training run, and of a trace."""
    params: Params
    constants: Constants

    @cached_property
    def model(self) -> "Model":
        """The formulas of a slot."""
        from edgora.allocator.privacy.model import Model  # model is written on top of instance

        return Model(self)

    @property
    def tabular(self) -> bool:
        """Whether every buffer that can occur lies on the grid 0, grid, .., B, so that tables are exact."""
        return all(_multiple(getattr(self.constants, name), self.constants.grid) for name in ("C", "B", "D1_lo"))


def make(
    seed: int | None = None, *, N: int = 1, M: int = 1, beta: float = 0.5, w_P: float = 50.0, slots: int = 10_000,
    params: Params | None = None,
) -> Instance:  # fmt: skip
    """An instance of checked values. Raises Refused naming the field."""
    said = params or Params()
    number("beta", beta, 0.0, 1.0)
    number("w_P", w_P, 0.0, 1e6)
    number("slots", slots, 1, 10**9)
    number("N", N, 1, MAX_STREAMS)
    number("M", M, 1, MAX_STREAMS)
    if N * M > MAX_STREAMS:
        raise Refused(f"N x M is {N} x {M}: at most {MAX_STREAMS} streams", field="N")
    given = {name: value for name in Params.__struct_fields__ if (value := getattr(said, name)) is not None}
    for name, value in given.items():
        if name != "usage":
            low, high = _WINDOWS.get(name, (0.0, LARGEST))
            number(name.rstrip("_"), value, low, high)
    constants = Constants(**{**(_ONE_STREAM if M == 1 else _STREAMS), **given})
    if constants.D1_hi < constants.D1_lo:
        detail = f"D1_hi is {constants.D1_hi:g}: must be at least D1_lo, {constants.D1_lo:g}"
        raise Refused(detail, field="D1_hi")
    steps = (constants.D1_hi - constants.D1_lo) / constants.grid
    if steps > MAX_GRID or not _multiple(constants.D1_hi - constants.D1_lo, constants.grid):
        detail = f"grid is {constants.grid:g}: D1_hi - D1_lo must be a whole number of steps, at most {MAX_GRID}"
        raise Refused(detail, field="grid")
    return Instance(seed, N, M, beta, w_P, slots, said, constants)


def draw(seed: int, settings: Mapping[str, object] | None = None) -> Instance:
    """The system that the settings describe, with this seed for its data. Raises Refused naming the setting."""
    chosen = read_settings(settings or {}, DrawSettings, "privacy draw")
    number("seed", seed, 0, 2**63 - 1)
    params = Params(**{name: getattr(chosen, name) for name in Params.__struct_fields__})
    return make(seed, N=chosen.N, M=chosen.M, beta=chosen.beta, w_P=chosen.w_P, slots=chosen.slots, params=params)


def load(data: bytes) -> Instance:
    """The instance in a file's bytes, or Refused."""
    file = read_json(data, InstanceFile, "privacy instance")
    return make(file.seed, N=file.N, M=file.M, beta=file.beta, w_P=file.w_P, slots=file.slots, params=file.params)


def dump(instance: Instance) -> bytes:
    """The instance as a file's bytes; `load` gives back the same doubles."""
    document = InstanceFile(
        problem="privacy", version=1, seed=instance.seed, params=instance.params, N=instance.N, M=instance.M,
        beta=instance.beta, w_P=instance.w_P, slots=instance.slots,
    )  # fmt: skip
    return write_json(document)


_SIZE = 1e9
"""Greatest size in kb: far beyond any stream."""
_WINDOWS: Mapping[str, tuple[float, float]] = {
    "C": (SMALLEST, _SIZE), "B": (0.0, _SIZE), "D1_lo": (0.0, _SIZE), "D1_hi": (0.0, _SIZE), "grid": (SMALLEST, _SIZE),
    "sigma": (0.0, 1.0), "lambda_": (0.0, 1e6), "S": (0.0, 1e6), "gamma": (0.0, 0.9999), "X": (0.0, 1e9),
    "F": (1.0, LARGEST), "cores": (1.0, 1e9), "kappa": (0.0, 1.0), "P_M": (0.0, 1e6), "P_C": (0.0, 1e6),
    "r_1": (1.0, LARGEST), "r_0": (1.0, LARGEST),
}  # fmt: skip
"""Least and greatest value of each constant."""


def _multiple(value: float, grid: float) -> bool:
    return abs(value / grid - round(value / grid)) < 1e-9
