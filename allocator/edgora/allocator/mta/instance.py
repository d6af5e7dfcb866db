"""Instances of MTA: the arrays of mta.md 1, the generator of section 2, the files of section 14.

An `Instance` is immutable and checked when it is made, whether it was drawn, read or built by hand, so that no model
or solver checks again. Servers are i = 0..n-1 and tasks j = 0..m-1 in arrival order; units are the paper's abstract
cycle, data unit, time unit and money.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgora.allocator.files import LARGEST, SMALLEST, indices, number, numbers, read_json, read_settings, write_json
from edgora.wire.errors import Refused

if TYPE_CHECKING:
    from edgora.allocator.mta.model import Model
    from edgora.allocator.mta.table import Table

__all__ = ["MAX_PAIRS", "DrawSettings", "Instance", "Params", "draw", "dump", "load", "nested"]

Floats = NDArray[np.float64]
Count = Annotated[int, msgspec.Meta(ge=1)]
CountOrNone = Annotated[int, msgspec.Meta(ge=0)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Family = Literal["integer", "real"]

MAX_PAIRS = 50_000_000
"""Most n * m: each (n,m) array is then at most 400 MB, and an absurd size is refused instead of exhausting memory."""

_TASK_RANGES = (("price", 1, 10), ("size", 10, 20), ("deadline", 1, 100))
_SERVER_RANGES = (
    ("capacity", 200, 400), ("freq", 1, 10), ("theta", 1, 10), ("bandwidth", 5, 10), ("power", 5, 10), ("gain", 5, 10),
)  # fmt: skip
"""Name and closed range, in the order in which the reference generator draws them (mta.md 1, 2)."""


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the instance was drawn; n and m equal the array lengths, the rest is a record."""

    n: Count
    m: CountOrNone
    draw: Family
    cap_scale: float
    price_scale: float
    size_scale: float


class DrawSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `edgora draw mta --set` takes."""

    n: Count = 20
    m: CountOrNone = 50
    draw: Family = "integer"
    """Uniform on the integers of each range, or on the reals."""
    cap_scale: float = 1.0
    """Multiplies capacity, to keep the default contention when m/n grows."""
    price_scale: float = 1.0
    size_scale: float = 1.0
    arch: float = 1e-5
    """Energy coefficient of every server."""
    fee: float = 0.01
    noise: float = 0.01


class InstanceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON document; its fields in the order of mta.md 14."""

    problem: Literal["mta"]
    version: Literal[1]
    seed: Seed | None
    params: Params
    price: Sequence[float]
    size: Sequence[float]
    deadline: Sequence[float]
    origin: Sequence[int]
    capacity: Sequence[float]
    freq: Sequence[float]
    arch: Sequence[float]
    theta: Sequence[float]
    bandwidth: Sequence[float]
    power: Sequence[float]
    gain: Sequence[float]
    fee: float
    noise: float


@dataclass(frozen=True, eq=False)
class Instance:
    """One MTA problem. Arrays are read-only; shapes are (m,) for tasks and (n,) for servers."""

    seed: int | None
    params: Params
    price: Floats
    """p_j, money per cycle; >= 0."""
    size: Floats
    """D_j, data units; > 0."""
    deadline: Floats
    """tau_e,j, time units; > 0."""
    origin: NDArray[np.int64]
    """o(j), the server that submitted j."""
    capacity: Floats
    """mu_i, cycles that server i offers this round; >= 0."""
    freq: Floats
    """f_i, cycles per time unit; > 0."""
    arch: Floats
    """alpha_i, energy coefficient, money time^2 / cycle^3; >= 0."""
    theta: Floats
    """theta_i, cycles per data unit; > 0."""
    bandwidth: Floats
    """B_i, data per time unit; > 0."""
    power: Floats
    """H_i, money per time unit of sending; > 0."""
    gain: Floats
    """G_i; > 0."""
    fee: float
    """lambda, the intermediary's share of the payment; 0..1."""
    noise: float
    """delta, noise amplitude; 0 < delta <= 1, enters squared."""

    @property
    def n(self) -> int:
        return len(self.capacity)

    @property
    def m(self) -> int:
        return len(self.price)

    @cached_property
    def model(self) -> "Model":
        """Derived quantities and values of this instance."""
        from edgora.allocator.mta.model import Model  # model is written on top of instance

        return Model(self)

    @property
    def table(self) -> "Table":
        """The assignment table: what a policy that also runs live reads (`live.LiveRound` has it too)."""
        return self.model.table


def from_file(document: InstanceFile) -> Instance:
    """Check shapes, ranges and sizes. Raises Refused naming the field."""
    params = document.params
    n, m = params.n, params.m
    _expect_size(n, m)
    for name in ("cap_scale", "price_scale"):
        number(f"params.{name}", getattr(params, name), 0.0, LARGEST)
    number("params.size_scale", params.size_scale, SMALLEST, LARGEST)
    return Instance(
        seed=document.seed,
        params=params,
        price=numbers("price", document.price, m, zero=True),
        size=numbers("size", document.size, m, zero=False),
        deadline=numbers("deadline", document.deadline, m, zero=False),
        origin=indices("origin", document.origin, m, 0, n - 1),
        capacity=numbers("capacity", document.capacity, n, zero=True),
        freq=numbers("freq", document.freq, n, zero=False),
        arch=numbers("arch", document.arch, n, zero=True),
        theta=numbers("theta", document.theta, n, zero=False),
        bandwidth=numbers("bandwidth", document.bandwidth, n, zero=False),
        power=numbers("power", document.power, n, zero=False),
        gain=numbers("gain", document.gain, n, zero=False),
        fee=number("fee", document.fee, 0.0, 1.0),
        noise=number("noise", document.noise, SMALLEST, 1.0),
    )


def load(data: bytes) -> Instance:
    """The instance in a file's bytes, or Refused."""
    return from_file(read_json(data, InstanceFile, "mta instance"))


def dump(instance: Instance) -> bytes:
    """The instance as a file's bytes; `load` gives back the same doubles."""
    columns = {
        field.name: getattr(instance, field.name).tolist()
        for field in msgspec.structs.fields(InstanceFile)
        if isinstance(getattr(instance, field.name, None), np.ndarray)
    }
    document = InstanceFile(
        problem="mta", version=1, seed=instance.seed, params=instance.params, fee=instance.fee, noise=instance.noise,
        **columns,
    )  # fmt: skip
    return write_json(document)


def draw(seed: int, settings: Mapping[str, object] | None = None) -> Instance:
    """The reference draw of mta.md 2 for one seed. Raises Refused for a setting that is unknown or out of range."""
    chosen = read_settings(settings or {}, DrawSettings, "mta draw")
    number("seed", seed, 0, 2**63 - 1)
    _expect_size(chosen.n, chosen.m)
    rng = np.random.default_rng(seed)

    def sample(low: int, high: int, count: int) -> Floats:
        if chosen.draw == "integer":
            return rng.integers(low, high + 1, count).astype(np.float64)
        return rng.uniform(low, high, count)

    columns = {name: sample(low, high, chosen.m) for name, low, high in _TASK_RANGES}
    columns |= {name: sample(low, high, chosen.n) for name, low, high in _SERVER_RANGES}
    with np.errstate(over="ignore"):  # an absurd scale becomes inf here and is refused with the field's name below
        columns["capacity"] *= chosen.cap_scale
        columns["price"] *= chosen.price_scale
        columns["size"] *= chosen.size_scale
    columns["arch"] = np.full(chosen.n, chosen.arch)
    origin = _deal(rng.permutation(chosen.m), chosen.n)
    params = Params(
        n=chosen.n, m=chosen.m, draw=chosen.draw,
        cap_scale=chosen.cap_scale, price_scale=chosen.price_scale, size_scale=chosen.size_scale,
    )  # fmt: skip
    return from_file(
        InstanceFile(
            problem="mta", version=1, seed=seed, params=params, origin=origin.tolist(),
            fee=chosen.fee, noise=chosen.noise, **{name: column.tolist() for name, column in columns.items()},
        )
    )  # fmt: skip


def nested(largest: Instance, n: int, m: int) -> Instance:
    """The first n servers and m tasks of one draw, origins dealt anew (mta.md 2): a point of a sweep over n or m.

    All points of a sweep come from one `largest`, so that a curve shows the size effect alone.
    """
    number("n", n, 1, largest.n)
    number("m", m, 0, largest.m)
    rng = np.random.default_rng([largest.seed or 0, n, m])
    tasks = {name: getattr(largest, name)[:m].tolist() for name in ("price", "size", "deadline")}
    servers = {name: getattr(largest, name)[:n].tolist() for name, _, _ in _SERVER_RANGES}
    return from_file(
        InstanceFile(
            problem="mta", version=1, seed=largest.seed, params=msgspec.structs.replace(largest.params, n=n, m=m),
            origin=_deal(rng.permutation(m), n).tolist(), arch=largest.arch[:n].tolist(),
            fee=largest.fee, noise=largest.noise, **tasks, **servers,
        )
    )  # fmt: skip


def _deal(order: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Origins: the permuted tasks cut into n nearly equal groups, as numpy.array_split cuts; group i is server i's."""
    origin = np.empty(len(order), dtype=np.int64)
    sizes = np.full(n, len(order) // n)
    sizes[: len(order) % n] += 1
    origin[order] = np.repeat(np.arange(n), sizes)
    return origin


def _expect_size(n: int, m: int) -> None:
    if n > MAX_PAIRS or m > MAX_PAIRS or n * m > MAX_PAIRS:
        raise Refused(f"params.n is {n} and params.m is {m}: n * m must be at most {MAX_PAIRS}", field="params.m")
