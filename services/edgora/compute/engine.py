"""The WASM engine: one configuration, compiled artifacts, and the string that names both.

Rule 1: two servers whose `ENGINE` is equal meter every module alike; it is part of the genesis document (ledger.md 22)
        and checked at join. Fuel may differ between versions of the engine.
Rule 2: code is generated for a fixed baseline of the processor family, never for the features that this host happens
        to have. So the depth at which the stack ends, the one thing that depends on generated code, is the same on
        every server, and artifacts can be kept across machines.

What is on: multi-value, bulk memory, sign extension, saturating conversion, reference types (functions), SIMD, relaxed
SIMD in its deterministic form, tail calls. What is off: threads, shared memory, 64-bit memory, several memories, GC,
exceptions, stack switching, custom page sizes, wide arithmetic, components. NaNs are canonical. Fuel is counted, and
epochs interrupt: each run has an engine of its own (60 us), so that ending one run touches no other.
"""

import json
import platform
from importlib.metadata import version
from typing import Final

import wasmtime

from edgora.compute.limits import MAX_MODULE
from edgora.compute.module import BadModule
from edgora.compute.wasi import HOST_CALL, HOST_VECTOR
from edgora.wire.errors import TooLarge
from edgora.wire.hashing import keccak

__all__ = ["ENGINE", "assemble", "compile_module", "new_engine", "validate"]

STACK_OCTETS: Final = 512 * 1024
"""Of a module's calls; far below the 8 MiB (glibc) or 16 MiB (macOS) that Python's threads have."""

_SETTINGS: Final[dict[str, bool | int | str]] = {
    "consume_fuel": True,
    "epoch_interruption": True,
    "cranelift_nan_canonicalization": True,
    "cranelift_opt_level": "speed",
    "max_wasm_stack": STACK_OCTETS,
    "parallel_compilation": False,
    "gc_support": False,
    "wasm_bulk_memory": True,
    "wasm_multi_value": True,
    "wasm_reference_types": True,
    "wasm_simd": True,
    "wasm_relaxed_simd": True,
    "wasm_relaxed_simd_deterministic": True,
    "wasm_tail_call": True,
    "wasm_threads": False,
    "shared_memory": False,
    "wasm_memory64": False,
    "wasm_multi_memory": False,
    "wasm_gc": False,
    "wasm_function_references": False,
    "wasm_exceptions": False,
    "wasm_stack_switching": False,
    "wasm_custom_page_sizes": False,
    "wasm_wide_arithmetic": False,
    "wasm_component_model": False,
}
_TARGETS: Final[dict[tuple[str, str], tuple[str, tuple[str, ...]]]] = {
    # x86-64-v2: what every server processor since 2009 has, and what SIMD and rounding need to be fast
    ("Linux", "x86_64"): (
        "x86_64-unknown-linux-gnu",
        ("has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt"),
    ),
    ("Linux", "aarch64"): ("aarch64-unknown-linux-gnu", ()),
}
_METERING: Final = 1
"""Goes up when this room itself charges differently (faults, input, what a host call counts)."""

_TARGET: Final = _TARGETS.get((platform.system(), platform.machine()))


def _name() -> str:
    target = f"{platform.system()}-{platform.machine()}-native" if _TARGET is None else _TARGET[0]
    described = json.dumps([_SETTINGS, _TARGET, _METERING, HOST_CALL, HOST_VECTOR], sort_keys=True)
    return f"wasmtime {version('wasmtime')} {target} {keccak(described.encode()).hex()[:16]}"


ENGINE: Final = _name()
"""Version, target and digest of the configuration, for the genesis document."""


def new_engine() -> wasmtime.Engine:
    """An engine with the one configuration; artifacts of any of them load into any other."""
    config = wasmtime.Config()
    for name, value in _SETTINGS.items():
        setattr(config, name, value)
    if _TARGET is not None:
        triple, features = _TARGET
        config.target = triple
        for feature in features:
            config.cranelift_flag_enable(feature)
    return wasmtime.Engine(config)


def assemble(text: str) -> bytes:
    """Binary of a module in the text format. Raises BadModule with the parser's message, TooLarge for a long text."""
    if len(text) > 4 * MAX_MODULE:
        raise TooLarge(f"{len(text)} characters of WAT; at most {4 * MAX_MODULE} may be")
    try:
        return bytes(wasmtime.wat2wasm(text))
    except wasmtime.WasmtimeError as error:
        raise BadModule(f"not a module in the text format: {error}") from None


def validate(wasm: bytes) -> None:
    """Type-check the whole binary, without compiling it; linear time. Raises BadModule."""
    try:
        wasmtime.Module.validate(new_engine(), wasm)
    except wasmtime.WasmtimeError as error:
        raise BadModule(f"not a valid module: {_first_line(error)}") from None


def compile_module(wasm: bytes) -> bytes:
    """Machine code of a module, in this process and for as long as it takes. Raises BadModule."""
    try:
        return bytes(wasmtime.Module(new_engine(), wasm).serialize())
    except wasmtime.WasmtimeError as error:
        raise BadModule(f"not a valid module: {_first_line(error)}") from None


def _first_line(error: wasmtime.WasmtimeError) -> str:
    return str(error).strip().splitlines()[0][:200]
