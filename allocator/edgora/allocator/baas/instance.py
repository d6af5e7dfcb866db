"""Instances of BaaS: one slot, or the slots of one episode, as drawn from the normative stream or read from a file.

An `Instance` is immutable and checked when it is made, so no model or solver checks again. With more than one slot,
reputation rolls on from slot 0's A and B; speeds and rates belong to each slot and need not change.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgora.allocator.baas.model import Floats, Slots
from edgora.allocator.baas.params import MAX_PAIRS, Params, Profile, check
from edgora.allocator.baas.params import read as read_params
from edgora.allocator.baas.stream import Stream
from edgora.allocator.files import LARGEST, SMALLEST, number, read_json, read_settings, write_json
from edgora.wire.errors import Refused

__all__ = ["DrawSettings", "Instance", "Seed", "draw", "dump", "load", "of_slots"]

Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Vector = Sequence[float]
Matrix = Sequence[Vector]

MAX_NUMBERS = 20_000_000
"""Most U * M * slots of an instance with many slots."""


class SlotFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One slot of a file with several."""

    d: Vector
    xi: Vector
    tau: Vector
    b: Vector
    f: Vector
    A: Vector | None = None
    B: Vector | None = None
    rate: Matrix | None = None


class InstanceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The JSON document of baas.md 12: one slot's arrays, or `slots`."""

    problem: Literal["baas"]
    version: Literal[1]
    seed: Seed | None
    profile: Profile
    params: Params
    """Those that differ from the spec's table; the profile stands beside it."""
    d: Vector | None = None
    xi: Vector | None = None
    tau: Vector | None = None
    b: Vector | None = None
    f: Vector | None = None
    A: Vector | None = None
    B: Vector | None = None
    rate: Matrix | None = None
    slots: Sequence[SlotFile] | None = None


class DrawSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `edgora draw baas --set` takes beside the params."""

    slots: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Slots of one episode; without it a single slot and its plain form of a file."""


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """A slot, or the slots of an episode. Arrays are read-only."""

    seed: int | None
    params: Params
    d: Floats
    """Mbit (T,U)."""
    xi: Floats
    """Gcycle/Mbit (T,U)."""
    tau: Floats
    """s (T,U)."""
    b: Floats
    """KB (T,M)."""
    f: Floats
    """Gcycle/s (T,M)."""
    A: Floats
    """Remembered desired seconds before slot 0 (M,)."""
    B: Floats
    """Remembered seconds taken before slot 0 (M,)."""
    rate: Floats | None
    """Mbit/s (T,U,M); None in `paper`."""
    listed: bool
    """Whether the file lists `slots`; also with one."""

    @property
    def T(self) -> int:  # noqa: N802  # the spec's symbol
        """Slots."""
        return int(self.d.shape[0])

    def slot(self, t: int, A: Floats, B: Floats) -> Slots:
        """Slot t with this history of the servers (M,)."""
        one = slice(t, t + 1)
        return Slots(
            params=self.params, d=self.d[one], xi=self.xi[one], tau=self.tau[one], b=self.b[one], f=self.f[one],
            A=A[None, :], B=B[None, :], rate=None if self.rate is None else self.rate[one],
        )  # fmt: skip

    @property
    def first(self) -> Slots:
        """Slot 0: what a policy decides when there is only one."""
        return self.slot(0, self.A, self.B)

    def singles(self) -> Iterator["Instance"]:
        """Each slot as an instance of its own, before any history."""
        for t in range(self.T):
            yield of_slots(self.slot(t, self.A, self.B), self.seed)


def of_slots(slots: Slots, seed: int | None = None) -> Instance:
    """The instance of one copy of a running environment, trusted as it is."""
    return Instance(
        seed=seed, params=slots.params, d=slots.d, xi=slots.xi, tau=slots.tau, b=slots.b, f=slots.f, A=slots.A[0],
        B=slots.B[0], rate=slots.rate, listed=False,
    )  # fmt: skip


def draw(seed: int, settings: Mapping[str, object] | None = None) -> Instance:
    """The first slots of the normative stream for one seed. Raises Refused for a setting."""
    number("seed", seed, 0, 2**63 - 1)
    given = dict(settings or {})
    listed = {key: given.pop(key) for key in ("slots",) if key in given}
    params = read_params(given, "baas draw")
    asked = read_settings(listed, DrawSettings, "baas draw").slots
    T = asked or 1
    if params.horizon < T:
        raise Refused(f"slots is {T}: an episode has {params.horizon} (horizon)", field="slots")
    _expect_bounded(params, T, "slots")
    stream = Stream(params, np.random.default_rng(seed), 1)
    layout = stream.layout()
    d, xi, tau, b = map(np.concatenate, zip(*(stream.slot() for _ in range(T)), strict=True))
    rate = None if layout.rate is None else np.repeat(layout.rate, T, axis=0)
    arrays = {"d": d, "xi": xi, "tau": tau, "b": b, "f": np.repeat(layout.f, T, axis=0)}
    history = {"A": np.zeros(params.M), "B": np.zeros(params.M)}
    for array in (*arrays.values(), *history.values(), *(() if rate is None else (rate,))):
        array.flags.writeable = False
    return Instance(seed=seed, params=params, **arrays, **history, rate=rate, listed=asked is not None)


def load(data: bytes) -> Instance:
    """The instance in a file's bytes, or Refused."""
    document = read_json(data, InstanceFile, "baas instance")
    params = check(_joined(document), "params.")
    own = {name: getattr(document, name) for name in SlotFile.__struct_fields__}
    if document.slots is None:
        for name, values in own.items():
            if values is None and name != "rate":
                raise Refused(f"baas instance: {name} is missing", field=name)
        files = [SlotFile(**own)]
    else:
        for name, values in own.items():
            if values is not None:
                raise Refused(f"baas instance: {name} stands beside slots: use one or the other", field=name)
        files = list(document.slots)
        if not 1 <= len(files) <= params.horizon:
            detail = f"slots has {len(files)} entries: must have 1..{params.horizon}, an episode (params.horizon)"
            raise Refused(detail, field="slots")
    _expect_bounded(params, len(files), "slots")
    return _checked(document.seed, params, files, listed=document.slots is not None)


def dump(instance: Instance) -> bytes:
    """The instance as a file's bytes; `load` gives back the same doubles."""
    files = []
    for t in range(instance.T):
        arrays = {name: getattr(instance, name)[t].tolist() for name in _SHAPES if name not in {"A", "B"}}
        if t == 0:
            arrays |= {"A": instance.A.tolist(), "B": instance.B.tolist()}
        files.append(SlotFile(**arrays, rate=None if instance.rate is None else instance.rate[t].tolist()))
    params = instance.params
    bare = msgspec.structs.replace(params, profile="hetero")  # the default, which is not written twice
    if instance.listed:
        document = InstanceFile("baas", 1, instance.seed, params.profile, bare, slots=files)
    else:
        document = InstanceFile(
            "baas", 1, instance.seed, params.profile, bare,
            **{name: getattr(files[0], name) for name in SlotFile.__struct_fields__},
        )  # fmt: skip
    return write_json(document)


def _joined(document: InstanceFile) -> Params:
    """The params with the file's profile, which `params` may repeat but not contradict."""
    if document.params.profile not in {"hetero", document.profile}:
        raise Refused(
            f"params.profile is {document.params.profile}: profile is {document.profile}", field="params.profile"
        )
    return msgspec.structs.replace(document.params, profile=document.profile)


_SHAPES: Mapping[str, tuple[str, float, float]] = {
    "d": ("U", SMALLEST, LARGEST), "xi": ("U", SMALLEST, LARGEST), "tau": ("U", SMALLEST, LARGEST),
    "b": ("M", SMALLEST, LARGEST), "f": ("M", SMALLEST, LARGEST), "A": ("M", 0.0, LARGEST), "B": ("M", 0.0, LARGEST),
}  # fmt: skip
"""Whose array it is, and its least and greatest entry."""


def _checked(seed: int | None, params: Params, files: Sequence[SlotFile], *, listed: bool) -> Instance:
    arrays: dict[str, list[Floats]] = {name: [] for name in _SHAPES}
    rates: list[Floats] = []
    for t, file in enumerate(files):
        at = f"slots[{t}]." if listed else ""
        for name, (side, low, high) in _SHAPES.items():
            values = getattr(file, name)
            if name in {"A", "B"} and t > 0:
                if values is not None:
                    raise Refused(f"{at}{name}: only slot 0 carries a history", field=f"{at}{name}")
                continue
            if values is None:
                raise Refused(f"baas instance: {at}{name} is missing", field=f"{at}{name}")
            arrays[name].append(_array(f"{at}{name}", values, (getattr(params, side),), low, high))
        if params.profile == "paper":
            if file.rate is not None:
                raise Refused(f"{at}rate: profile paper has no rates", field=f"{at}rate")
        elif file.rate is None:
            raise Refused(f"baas instance: {at}rate is missing", field=f"{at}rate")
        else:
            rates.append(_array(f"{at}rate", file.rate, (params.U, params.M), SMALLEST, LARGEST))
    stacked = {name: _frozen(np.stack(rows)) for name, rows in arrays.items() if name not in {"A", "B"}}
    return Instance(
        seed=seed, params=params, **stacked, A=arrays["A"][0], B=arrays["B"][0],
        rate=_frozen(np.stack(rates)) if rates else None, listed=listed,
    )  # fmt: skip


def _array(name: str, values: object, shape: tuple[int, ...], low: float, high: float) -> Floats:
    try:
        array = np.array(values, dtype=np.float64)
    except (ValueError, OverflowError):  # rows of unequal length; an integer of hundreds of digits
        raise Refused(f"{name} must be numbers of shape {shape}, each within {low:g}..{high:g}", field=name) from None
    if array.shape != shape:
        raise Refused(f"{name} has shape {array.shape}: must have {shape}", field=name)
    bad = ~((array >= low) & (array <= high))
    if bad.any():
        at = np.unravel_index(int(np.argmax(bad)), shape)
        place = name + "".join(f"[{i}]" for i in at)
        raise Refused(f"{place} is {array[at].item()!r}: must be within {low:g}..{high:g}", field=place)
    return _frozen(array)


def _frozen(array: NDArray[np.float64]) -> Floats:
    array.flags.writeable = False
    return array


def _expect_bounded(params: Params, T: int, field: str) -> None:
    if T > 1 and T * params.U * params.M > MAX_NUMBERS:
        detail = f"{T} slots of {params.U} x {params.M} pairs: at most {MAX_NUMBERS} together (and {MAX_PAIRS} in one)"
        raise Refused(detail, field=field)
