"""The modules that ship with Edgora: binaries, and manifests that say how to call them and what a call costs.

Data only, so that a device has them too: `NAME.wasm` beside `NAME.json`. Sources and the recipe are in
compute/kernels/; CI rebuilds the binaries and compares bytes.

All are bare modules (compute/module.py). Arguments have a fixed layout: the manifest's fields in order, little endian,
without padding; `octets` below is the length of arguments and data together. Fuel, output and memory have bounds

    base + per_octet * octets + sum of (factor * product of the named arguments)

that hold for every input the kernel accepts: an offer made from them never runs out of fuel. They are fitted to
wasmtime's fuel (one per instruction, roughly) and tested against it.
"""

import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal, NamedTuple

import msgspec

from edgora.wire.errors import NotFound, Refused
from edgora.wire.units import Fuel, ModuleDigest, Octets

__all__ = ["Argument", "Bound", "Kernel", "Manifest", "Term", "Value", "load", "names"]

Value = int | bytes

_PAGE = 65_536
_WIDTHS = {"u32": 4, "u64": 8, "bytes20": 20, "bytes32": 32}
_NAMES = ("blur", "cachemiss", "hashpuzzle", "matmul", "nftcheck", "sobel", "spin")


class Argument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field of a kernel's arguments."""

    name: str
    type: Literal["u32", "u64", "bytes20", "bytes32"]
    meaning: str
    least: int = 0
    most: int | None = None
    default: int | None = None
    """What a client takes if the user says nothing; None: it must be given or follows from the data."""

    def check(self, value: Value) -> bytes:
        """The field's octets. Raises Refused naming field and range."""
        width = _WIDTHS[self.type]
        if self.type.startswith("bytes"):
            if not isinstance(value, bytes) or len(value) != width:
                raise Refused(f"{self.name} must be {width} octets", field=self.name)
            return value
        most = (1 << (8 * width)) - 1 if self.most is None else self.most
        if isinstance(value, bytes) or not self.least <= value <= most:
            raise Refused(f"{self.name} is {value!r}; {self.least} to {most} may be", field=self.name)
        return value.to_bytes(width, "little")


class Term(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """factor * product of the named arguments."""

    factor: int
    of: tuple[str, ...]


class Bound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An upper bound: base + per_octet * octets + the terms."""

    base: int
    per_octet: int = 0
    terms: tuple[Term, ...] = ()

    def at(self, octets: int, values: Mapping[str, Value]) -> int:
        terms = sum(term.factor * math.prod(int(values[name]) for name in term.of) for term in self.terms)
        return self.base + self.per_octet * octets + terms


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to call a kernel and what a call costs at most."""

    name: str
    title: str
    summary: str
    digest: str
    """keccak-256 of the binary, hex."""
    arguments: tuple[Argument, ...]
    data: str
    """What follows the arguments in the buffer."""
    result: str
    fuel: Bound
    output: Bound
    """Octets."""
    memory: Bound
    """Octets; rounded up to pages."""
    splittable: bool = False
    """Whether a call can be computed in parts whose results make the whole (client.split)."""

    def pack(self, values: Mapping[str, Value]) -> bytes:
        """Arguments in the kernel's layout. Raises Refused naming a field that is missing, unknown or out of range."""
        known = {argument.name for argument in self.arguments}
        for name in values:
            if name not in known:
                raise Refused(f"{self.name} has no argument {name}; it has {', '.join(sorted(known))}", field=name)
        packed = b""
        for argument in self.arguments:
            value = values.get(argument.name, argument.default)
            if value is None:
                raise Refused(f"{self.name} needs {argument.name}: {argument.meaning}", field=argument.name)
            packed += argument.check(value)
        return packed

    def unpack(self, args: bytes) -> dict[str, Value]:
        """Inverse of `pack`. Raises Refused for another length."""
        if len(args) != self.arguments_octets:
            raise Refused(f"{len(args)} octets of arguments; {self.name} has {self.arguments_octets}", field="args")
        values: dict[str, Value] = {}
        at = 0
        for argument in self.arguments:
            width = _WIDTHS[argument.type]
            octets = args[at : at + width]
            values[argument.name] = octets if argument.type.startswith("bytes") else int.from_bytes(octets, "little")
            at += width
        return values

    @property
    def arguments_octets(self) -> int:
        return sum(_WIDTHS[argument.type] for argument in self.arguments)

    def fuel_limit(self, data_octets: int, values: Mapping[str, Value]) -> Fuel:
        """Fuel that is enough for data of this length with these arguments."""
        return Fuel(self.fuel.at(self.arguments_octets + data_octets, self._all(values)))

    def output_octets(self, data_octets: int, values: Mapping[str, Value]) -> Octets:
        """Octets that the output has at most."""
        return Octets(self.output.at(self.arguments_octets + data_octets, self._all(values)))

    def memory_pages(self, data_octets: int, values: Mapping[str, Value]) -> int:
        """Pages of 64 KiB that are enough."""
        return -(-self.memory.at(self.arguments_octets + data_octets, self._all(values)) // _PAGE)

    def _all(self, values: Mapping[str, Value]) -> dict[str, Value]:
        defaults = {a.name: a.default for a in self.arguments if a.default is not None}
        return {**defaults, **values}


class Kernel(NamedTuple):
    manifest: Manifest
    wasm: bytes

    @property
    def digest(self) -> ModuleDigest:
        return ModuleDigest(bytes.fromhex(self.manifest.digest))


def names() -> tuple[str, ...]:
    """All kernels, by name."""
    return _NAMES


@cache
def load(name: str) -> Kernel:
    """A kernel by name. Raises NotFound with the names there are."""
    if name not in _NAMES:
        raise NotFound(f"no kernel {name!r}; there are {', '.join(_NAMES)}", field="kernel")
    here = files(__name__)
    manifest = msgspec.json.decode((here / f"{name}.json").read_bytes(), type=Manifest)
    return Kernel(manifest, (here / f"{name}.wasm").read_bytes())
