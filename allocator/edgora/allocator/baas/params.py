"""Constants of BaaS: the table of baas.md 1, which of them a run changes, and within which limits.

`Params` are the scalars of a model; `--set` takes them all, and an instance file holds those that differ from the
table. Units: Mbit, Gcycle, second, KB, MHash/s, token, MHz.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from edgora.allocator.files import LARGEST, SMALLEST, number, read_settings
from edgora.wire.errors import Refused

__all__ = [
    "LEVELS",
    "MAX_PAIRS",
    "PAPER_SPEED",
    "P_MAX",
    "P_MIN",
    "SIDE_M",
    "Params",
    "Profile",
    "check",
    "read",
    "split",
]

Count = Annotated[int, msgspec.Meta(ge=1)]
Profile = Literal["paper", "hetero"]

P_MIN, P_MAX = 20.0, 100.0
"""Least and greatest hash power of a server, MHash/s."""
LEVELS = (20.0, 40.0, 60.0, 80.0, 100.0)
"""Requests of learners that choose among levels, MHash/s."""
PAPER_SPEED = 5.0
"""f of every server in profile `paper`, Gcycle/s."""
SIDE_M = 500.0
"""Side of the square area, metres."""
NEAREST_M, REFERENCE_M = 10.0, 100.0
"""Least distance of a pair, and the distance of snr_100, metres."""

MAX_PAIRS = 5_000_000
"""Most U * M: an absurd size is refused instead of exhausting memory."""


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The scalars of a model."""

    profile: Profile = "hetero"
    U: Count = 20
    """User equipments."""
    M: Count = 10
    """Servers, which are also the miners."""
    obs: Literal["full", "paper"] = "full"
    """What an environment shows: everything, or xi and Y alone."""
    horizon: Count = 200
    """Slots of an episode; a time limit, not an end."""
    d_lo: float = 8.0
    """Least data of a task, Mbit."""
    d_hi: float = 40.0
    xi_lo: float = 0.6
    """Least work for each data, Gcycle/Mbit."""
    xi_hi: float = 1.6
    tau_lo: float = 4.0
    """Least desired execution time, s."""
    tau_hi: float = 12.0
    f_lo: float = 3.0
    """Least speed of a server in `hetero`, Gcycle/s."""
    f_hi: float = 7.0
    b_lo: float = 1.0
    """Least block, KB."""
    b_hi: float = 10.0
    mu: float = 0.15
    """Price of computing, token/Gcycle."""
    k_T: float = 0.5  # noqa: N815  # the spec's name in `--set`
    """Price of latency, token/s; the paper's 1 is possible."""
    R: float = 30.0
    """Block reward, token."""
    rho: float = 1.0
    """Fees of a block, token/KB."""
    eta: float = 1.0 / 600.0
    """Orphaning rate, 1/s."""
    z: float = 0.5
    """Propagation time, s/KB."""
    p_mean: float = 60.0
    """Hash power of the chain for each server, MHash/s: H = p_mean M."""
    lambda_r: float = 0.9
    """Memory of reputation."""
    c_r: float = 5.0
    """Prior of reputation, s."""
    Y_star: float = 1.5
    """Reputation that lifts every cap."""
    B_w: float = 20.0
    """Uplink band of a server in `hetero`, MHz."""
    snr_100: float = 100.0
    """Signal to noise at 100 m, a ratio (20 dB)."""
    a: float = 3.5
    """Path loss exponent."""
    theta: float = 0.015
    """What `priced` pays for a second under the desired time, token/s."""

    @property
    def H(self) -> float:  # noqa: N802  # the paper's symbol
        """Hash power of the chain, MHash/s."""
        return self.p_mean * self.M


_RANGES = ("d", "xi", "tau", "f", "b")
_POSITIVE = ("mu", "c_r", "Y_star", "B_w", "snr_100")
_NOT_NEGATIVE = ("k_T", "R", "rho", "eta", "z", "theta")


def check(params: Params, prefix: str = "") -> Params:
    """The same params, or Refused naming the field."""
    if params.U * params.M > MAX_PAIRS:
        detail = f"{prefix}U x {prefix}M is {params.U} x {params.M}: at most {MAX_PAIRS} pairs"
        raise Refused(detail, field=f"{prefix}U")
    for name in _POSITIVE:
        number(f"{prefix}{name}", getattr(params, name), SMALLEST, LARGEST)
    for name in _NOT_NEGATIVE:
        number(f"{prefix}{name}", getattr(params, name), 0.0, LARGEST)
    for name in _RANGES:
        low = number(f"{prefix}{name}_lo", getattr(params, f"{name}_lo"), SMALLEST, LARGEST)
        number(f"{prefix}{name}_hi", getattr(params, f"{name}_hi"), low, LARGEST)
    number(f"{prefix}p_mean", params.p_mean, P_MIN, P_MAX)
    number(f"{prefix}lambda_r", params.lambda_r, 0.0, 1.0)
    number(f"{prefix}a", params.a, 0.0, 10.0)
    return params


def read(settings: Mapping[str, object], what: str) -> Params:
    """The params that `--set` pairs describe."""
    return check(read_settings(settings, Params, what))


def split(settings: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Settings that are params, and all others."""
    mine = {key: value for key, value in settings.items() if key in Params.__struct_fields__}
    return mine, {key: value for key, value in settings.items() if key not in mine}
