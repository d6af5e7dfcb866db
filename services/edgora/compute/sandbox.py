"""Runs modules: deterministic, metered, bounded (peers.md 4; house.md 5, step 8).

Rule 1: code, output and fuel_used of a paid outcome follow from module, input and limits alone.
Rule 2: whatever a module does, `run` comes back with an Outcome, at the latest at the wall limit.
Rule 3: nothing is shared between runs but the compiled machine code.

How a run ends and what it is charged stands in execution.py.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgora.compute.cache import Artifact, ArtifactCache
from edgora.compute.compiler import compile_bounded
from edgora.compute.engine import compile_module, validate
from edgora.compute.execution import Stop, execute
from edgora.compute.limits import Limits, Outcome
from edgora.compute.module import BadModule, Form, ModuleInfo, inspect, module_digest
from edgora.wire import kernels
from edgora.wire.errors import Unavailable, WireError
from edgora.wire.inputs import TaskInput
from edgora.wire.market import ResultCode
from edgora.wire.units import Fuel, Millis, ModuleDigest

__all__ = ["Sandbox"]

_CACHE_OCTETS: Final = 256 * 1024 * 1024


class Sandbox:
    """Checks, compiles and runs modules. Safe to use from many threads; one of them can serve a whole process."""

    def __init__(
        self,
        *,
        cache_octets: int = _CACHE_OCTETS,
        cache_folder: Path | None = None,
        compiler: Callable[[bytes], bytes] = compile_bounded,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Artifacts take at most cache_octets of memory, and stay in cache_folder across restarts if it is given.

        compiler makes machine code of modules that are not ours; the default does it in a child that can be killed.
        """
        self._cache = ArtifactCache(cache_octets, cache_folder)
        self._compiler = compiler
        self._clock = clock
        self._shipped = frozenset(kernels.load(name).manifest.digest for name in kernels.names())

    def check(self, wasm: bytes) -> ModuleInfo:
        """Whether a module may be stored and offered: outline and types, without compiling. Raises BadModule."""
        info = inspect(wasm)
        validate(wasm)
        return info

    def prepare(self, wasm: bytes) -> ModuleDigest:
        """Check and compile ahead of the first run. Raises BadModule, or Unavailable if no compiler can be started."""
        digest = module_digest(wasm)
        self._artifact(digest, wasm)
        return digest

    def knows(self, digest: ModuleDigest) -> bool:
        """Whether that module can be run by digest alone."""
        try:
            return self._cache.get(digest) is not None
        except BadModule:
            return False

    def run(
        self, wasm: bytes | None, plaintext: bytes, limits: Limits, *, digest: ModuleDigest, stop: Stop | None = None
    ) -> Outcome:
        """Run a module on a task's plaintext; wasm may be None if `knows(digest)`.

        Blocks its thread, without the interpreter lock while the module runs. Raises Stopped, and nothing else.
        """
        start = self._clock()
        try:
            task = TaskInput.unpack(plaintext)
        except WireError:
            return _unpaid(ResultCode.BAD_INPUT, "the plaintext is not canonical MessagePack [args, data]")
        try:
            if wasm is not None and module_digest(wasm) != digest:
                raise BadModule("the module is not the one that the offer names")
            artifact = self._artifact(digest, wasm)
        except BadModule as error:
            return _unpaid(ResultCode.BAD_MODULE, error.detail)
        except Unavailable as error:
            return _unpaid(ResultCode.UNAVAILABLE, error.detail)
        ended = execute(artifact, digest, task, limits, stop or Stop())
        elapsed = Millis(int((self._clock() - start) * 1000))
        return Outcome(
            code=ended.code, output=ended.output, fuel_used=ended.fuel_used, wall_ms=elapsed, reason=ended.reason
        )

    def _artifact(self, digest: ModuleDigest, wasm: bytes | None) -> Artifact:
        def make() -> Artifact:
            if wasm is None:
                raise Unavailable("the module is not on this server")
            info = self.check(wasm)
            ours = digest.hex() in self._shipped
            code = compile_module(wasm) if ours else self._compiler(wasm)
            return Artifact(info.form is Form.WASI, info.has_start, info.memory_pages, code)

        return self._cache.get_or_make(digest, make)


def _unpaid(code: ResultCode, reason: str) -> Outcome:
    return Outcome(code=code, output=b"", fuel_used=Fuel(0), wall_ms=Millis(0), reason=reason)
