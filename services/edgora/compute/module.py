"""Which modules may run: a reading of the binary's outline, before anything is compiled.

Rule 1: a refusal names what is wrong and with which value; nothing here executes or compiles.
Rule 2: whatever this lets through may still be refused by the engine's own validation, never the reverse.

Two forms are taken (peers.md 4):
  bare   no imports; exports memory, `alloc(len: i32) -> ptr: i32`, `run(ptr: i32, len: i32) -> i64`. The host asks for
         room, writes the input there and calls `run`; the result is (pointer << 32 | length) of the output.
         `alloc` answers 0 if there is no room.
  wasi   a WASI preview 1 command: exports memory and `_start() -> ()`, imports functions of wasi_snapshot_preview1
         only. What they answer is in wasi.py: input on stdin, output on stdout, no files, no network.

A module has one memory of its own of at most 1024 pages, at most 8 tables of 100,000 elements, 4 MiB. Sections are
those of WebAssembly 2.0 (core specification 5.5); types are read so far as needed to check the exports.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from edgora.compute.limits import MAX_MEMORY_PAGES, MAX_MODULE, MAX_TABLE_ELEMENTS, MAX_TABLES
from edgora.compute.wasi import FUNCTIONS, NAMESPACE
from edgora.wire.errors import Refused
from edgora.wire.hashing import keccak
from edgora.wire.units import ModuleDigest

__all__ = ["BadModule", "Form", "ModuleInfo", "inspect", "module_digest"]

_MAGIC: Final = b"\x00asm\x01\x00\x00\x00"
_CUSTOM, _TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _GLOBAL, _EXPORT, _START = range(9)
_ELEMENT, _CODE, _DATA, _DATA_COUNT = range(9, 13)
_ORDER: Final = {
    kind: place
    for place, kind in enumerate(
        (_TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _GLOBAL, _EXPORT, _START, _ELEMENT, _DATA_COUNT, _CODE, _DATA)
    )
}
"""Order of the known sections; the data count stands before the code."""

_KINDS: Final = ("func", "table", "memory", "global", "tag")
_VALUE_TYPES: Final = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128", 0x70: "funcref"}

_MAX_ENTRIES: Final = 200_000
"""In all vectors of the outline together: reading it must stay cheap (a 4 MiB module can claim millions)."""

_Signature = tuple[tuple[str, ...], tuple[str, ...]]
_BARE: Final[dict[str, _Signature]] = {"alloc": (("i32",), ("i32",)), "run": (("i32", "i32"), ("i64",))}


class BadModule(Refused):
    """A module that no server may run; the sentence says why."""

    code = "bad_module"


class Form(Enum):
    """How a module takes its input and gives its output."""

    BARE = "bare"
    WASI = "wasi"


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """What a module says about itself."""

    digest: ModuleDigest
    form: Form
    octets: int
    memory_pages: int
    """Pages that it needs to start at all."""
    has_start: bool
    """Whether instantiation runs code of the module."""
    imports: tuple[str, ...]
    exports: tuple[str, ...]


def module_digest(wasm: bytes) -> ModuleDigest:
    """keccak-256 of the binary: the module's name everywhere."""
    return ModuleDigest(keccak(wasm))


class _Reader:
    """A cursor over the binary. Running over the end is a BadModule, as is an integer of more than 32 bits."""

    __slots__ = ("at", "end", "octets")

    def __init__(self, octets: bytes, at: int, end: int) -> None:
        self.octets = octets
        self.at = at
        self.end = end

    def octet(self) -> int:
        if self.at >= self.end:
            raise BadModule("the module ends in the middle of a section")
        self.at += 1
        return self.octets[self.at - 1]

    def u32(self) -> int:
        """LEB128, at most 5 octets."""
        value = 0
        for shift in range(0, 35, 7):
            octet = self.octet()
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                if value >= 1 << 32:
                    break
                return value
        raise BadModule("the module has an integer of more than 32 bits")

    def take(self, count: int) -> bytes:
        if count > self.end - self.at:
            raise BadModule("the module ends in the middle of a section")
        self.at += count
        return self.octets[self.at - count : self.at]

    def name(self) -> str:
        try:
            return self.take(self.u32()).decode()
        except UnicodeDecodeError:
            raise BadModule("a name in the module is not UTF-8") from None

    def value_type(self) -> str:
        octet = self.octet()
        if octet not in _VALUE_TYPES:
            raise BadModule(f"value type 0x{octet:02x} is not taken; numbers, v128 and funcref are")
        return _VALUE_TYPES[octet]

    def limits(self, thing: str) -> int:
        """Minimum of a memory or table; shared and 64-bit ones are refused."""
        flags = self.octet()
        if flags > 1:
            raise BadModule(f"a shared or 64-bit {thing} is not taken")
        least = self.u32()
        if flags == 1:
            self.u32()
        return least


def _sections(wasm: bytes) -> Iterator[tuple[int, _Reader]]:
    if wasm[:8] != _MAGIC:
        raise BadModule("not a WebAssembly 1.0 binary: text and components are not taken here")
    reader, last = _Reader(wasm, 8, len(wasm)), -1
    while reader.at < reader.end:
        kind, size = reader.octet(), reader.u32()
        start = reader.at
        reader.take(size)
        if kind == _CUSTOM:
            continue
        place = _ORDER.get(kind)
        if place is None:
            raise BadModule(f"section {kind} belongs to no proposal that is taken")
        if place <= last:
            raise BadModule("the module's sections are out of order or doubled")
        last = place
        yield kind, _Reader(wasm, start, start + size)


class _Outline:
    """The sections that say what a module needs and offers."""

    def __init__(self, wasm: bytes) -> None:
        self.types: list[_Signature] = []
        self.functions: list[int] = []
        """Type index of each function, imported ones first."""
        self.imports: list[str] = []
        self.exports: dict[str, tuple[str, int]] = {}
        self.memories: list[int] = []
        self.tables: list[int] = []
        self.has_start = False
        self._entries = 0
        for kind, reader in _sections(wasm):
            if kind == _START:
                self.has_start = True
            elif kind in {_TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _EXPORT}:
                for _ in range(self._count(reader)):
                    self._entry(kind, reader)
                if reader.at != reader.end:
                    raise BadModule("a section of the module is longer than its entries")

    def _count(self, reader: _Reader) -> int:
        count = reader.u32()
        self._entries += count
        if self._entries > _MAX_ENTRIES:
            raise BadModule(f"the module has over {_MAX_ENTRIES} types, imports, functions, tables and exports")
        return count

    def _entry(self, kind: int, reader: _Reader) -> None:
        if kind == _TYPE:
            if reader.octet() != 0x60:
                raise BadModule("only function types are taken")
            parameters = tuple(reader.value_type() for _ in range(self._count(reader)))
            results = tuple(reader.value_type() for _ in range(self._count(reader)))
            self.types.append((parameters, results))
        elif kind == _IMPORT:
            module, name, what = reader.name(), reader.name(), reader.octet()
            if what != 0 or module != NAMESPACE or name not in FUNCTIONS:
                raise BadModule(f"import {module}.{name} is not offered; functions of WASI preview 1 are")
            self.imports.append(f"{module}.{name}")
            self.functions.append(reader.u32())
        elif kind == _FUNCTION:
            self.functions.append(reader.u32())
        elif kind == _TABLE:
            if reader.value_type() != "funcref":
                raise BadModule("only tables of functions are taken")
            self.tables.append(reader.limits("table"))
        elif kind == _MEMORY:
            self.memories.append(reader.limits("memory"))
        else:
            name, what, index = reader.name(), reader.octet(), reader.u32()
            if what >= len(_KINDS) or name in self.exports:
                raise BadModule("an export of the module is doubled or of no known kind")
            self.exports[name] = (_KINDS[what], index)

    def signature(self, name: str) -> _Signature | None:
        """Type of an exported function; None if there is no such export."""
        kind, index = self.exports.get(name, ("", 0))
        if kind != "func" or index >= len(self.functions) or self.functions[index] >= len(self.types):
            return None
        return self.types[self.functions[index]]


def inspect(wasm: bytes) -> ModuleInfo:
    """Read a module's outline and say which form it has. Raises BadModule."""
    if len(wasm) > MAX_MODULE:
        raise BadModule(f"the module has {len(wasm)} octets; at most {MAX_MODULE} may be")
    outline = _Outline(wasm)
    if len(outline.memories) != 1 or outline.exports.get("memory") != ("memory", 0):
        raise BadModule('the module must have one memory and export it as "memory"')
    if outline.memories[0] > MAX_MEMORY_PAGES:
        raise BadModule(f"the module starts with {outline.memories[0]} pages; at most {MAX_MEMORY_PAGES} may be")
    if len(outline.tables) > MAX_TABLES or any(size > MAX_TABLE_ELEMENTS for size in outline.tables):
        raise BadModule(f"at most {MAX_TABLES} tables of {MAX_TABLE_ELEMENTS} elements may be")
    return ModuleInfo(
        digest=module_digest(wasm),
        form=_form(outline),
        octets=len(wasm),
        memory_pages=outline.memories[0],
        has_start=outline.has_start,
        imports=tuple(outline.imports),
        exports=tuple(outline.exports),
    )


def _form(outline: _Outline) -> Form:
    if "_start" in outline.exports:
        if outline.signature("_start") != ((), ()):
            raise BadModule("_start must be a function without parameters and results")
        return Form.WASI
    if outline.imports:
        raise BadModule(f"a bare module imports nothing; this one imports {outline.imports[0]}")
    for name, signature in _BARE.items():
        if outline.signature(name) != signature:
            parameters, results = signature
            raise BadModule(f"a bare module exports {name}({', '.join(parameters)}) -> {results[0]}; this one does not")
    return Form.BARE
