"""One run of one compiled module: from its plaintext to the code, the output and the fuel.

How a run ends, and what it is charged:
  OK            returned (bare), or ended with exit status 0 (wasi)                       fuel counted
  TRAP          `unreachable`, or an exit status other than 0                             fuel counted
                any other fault: division by zero, access out of bounds, stack overflow   the whole limit
  OUT_OF_FUEL   the next step would go beyond the limit                                   the whole limit
  MEMORY        cannot start within the offer's pages, has no room for its input, or
                stopped at `unreachable` with its memory grown to the ceiling             fuel counted
  OUTPUT        its output is longer than the offer's limit                               fuel counted
  WALL          took too long on this machine                                             nothing
  BAD_INPUT     the plaintext is not a TaskInput                                          nothing
  BAD_MODULE    does not validate, compile, link or initialise                            nothing
  UNAVAILABLE   the module is not here, or this host failed                               nothing

Faults cost the whole limit because the engine keeps its fuel counter in a register between calls and forgets it when
the processor faults (bytecodealliance/wasmtime#13802): after a loop of 10^9 steps and a division by zero it reports 0.
A count that a user could reset would make work free, so it is not used. Compilers end programs they know to be
wrong (panic, assert, abort) with `unreachable`, and that is counted exactly.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

import wasmtime
from wasmtime._exportable import AsExtern

from edgora.compute import wasi
from edgora.compute.cache import Artifact
from edgora.compute.engine import assemble, compile_module, new_engine
from edgora.compute.limits import MAX_TABLE_ELEMENTS, MAX_TABLES, PAGE, Limits
from edgora.wire.hashing import keccak
from edgora.wire.inputs import TaskInput
from edgora.wire.market import ResultCode
from edgora.wire.units import Fuel, ModuleDigest

__all__ = ["Ended", "Stop", "Stopped", "execute"]

_LOW: Final = 0xFFFFFFFF
_Exports = Mapping[str, AsExtern]


class Stopped(Exception):
    """The run was stopped by its Stop before it ended."""


class Stop:
    """A handle that ends one run from any thread, before it begins or while it goes on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engine: wasmtime.Engine | None = None
        self.asked = False

    def stop(self) -> None:
        """End the run: it raises Stopped within a loop iteration or a call."""
        with self._lock:
            self.asked = True
            if self._engine is not None:
                self._engine.increment_epoch()

    def watch(self, engine: wasmtime.Engine | None) -> None:
        """Say which engine to interrupt; None when the run is over. For `execute` only."""
        with self._lock:
            self._engine = engine
            if engine is not None and self.asked:
                engine.increment_epoch()


@dataclass(frozen=True, slots=True)
class Ended:
    """An Outcome before its wall time is known."""

    code: ResultCode
    fuel_used: Fuel
    reason: str = ""
    output: bytes = b""


def execute(artifact: Artifact, digest: ModuleDigest, task: TaskInput, limits: Limits, stop: Stop) -> Ended:
    """Run to the end, at the latest to the wall limit. Raises Stopped, and nothing else."""
    if artifact.memory_pages > limits.memory_pages:
        return Ended(
            ResultCode.MEMORY,
            Fuel(0),
            f"it starts with {artifact.memory_pages} pages, the offer allows {limits.memory_pages}",
        )
    engine = new_engine()
    try:
        run = _Run(engine, artifact, limits)
    except wasmtime.WasmtimeError as error:
        return Ended(ResultCode.UNAVAILABLE, Fuel(0), f"the engine cannot load it: {type(error).__name__}")
    timer = threading.Timer(limits.wall_ms / 1000, engine.increment_epoch)
    timer.daemon = True
    timer.start()
    stop.watch(engine)
    try:
        ended = run.run_wasi(digest, task) if artifact.wasi else run.run_bare(task)
    finally:
        stop.watch(None)
        timer.cancel()
    if ended.code is ResultCode.WALL and stop.asked:
        raise Stopped
    return ended


class _Faulted(Exception):
    """A run is over, and this is how."""

    def __init__(self, ended: Ended) -> None:
        super().__init__()
        self.ended = ended


class _Run:
    """A store with one module in it. Also the Meter and the GuestMemory of its host functions."""

    def __init__(self, engine: wasmtime.Engine, artifact: Artifact, limits: Limits) -> None:
        self._engine = engine
        self._artifact = artifact
        self._limits = limits
        self._module = wasmtime.Module.deserialize(engine, artifact.code)
        self._store = wasmtime.Store(engine)
        self._store.set_fuel(limits.fuel)
        self._store.set_epoch_deadline(1)
        self._store.set_limits(
            memory_size=limits.memory_pages * PAGE,
            table_elements=MAX_TABLE_ELEMENTS,
            instances=2,
            tables=MAX_TABLES,
            memories=1,
        )
        self._memory: wasmtime.Memory | None = None
        self._halted_at: Fuel | None = None

    # ---- the two forms

    def run_bare(self, task: TaskInput) -> Ended:
        """Room for args || data, run, and the output from where the result says."""
        buffer = task.args + task.data
        try:
            exports = self._begin(lambda: wasmtime.Instance(self._store, self._module, []))
            at = self._call(exports, "alloc", len(buffer)) & _LOW
            if (at == 0 and buffer) or not self.write(at, buffer):
                return self._ended(ResultCode.MEMORY, "it has no room for its input")
            result = self._call(exports, "run", at, len(buffer))
            at, length = (result >> 32) & _LOW, result & _LOW
            if length > self._limits.output_octets:
                return self._ended(ResultCode.OUTPUT, f"{length} octets of output")
            output = self.read(at, length)
        except _Faulted as fault:
            return fault.ended
        if output is None:
            return self._ended(ResultCode.TRAP, "its result lies outside its memory")
        return self._ended(ResultCode.OK, "", output)

    def run_wasi(self, digest: ModuleDigest, task: TaskInput) -> Ended:
        """_start, with arguments, stdin and stdout."""
        seed = keccak(b"edgora random" + digest + keccak(task.args) + keccak(task.data))
        world = wasi.World(task.args, task.data, seed, self._limits.output_octets, self)
        adapter = wasmtime.Instance(self._store, wasmtime.Module.deserialize(self._engine, _adapter()), [])
        try:
            exports = self._begin(lambda: self._linked(world, adapter))
            self._call(exports, "_start")
            status = 0
        except _Faulted as fault:
            exit_code = adapter.exports(self._store)[wasi.EXIT_CODE]
            status = exit_code.value(self._store) if isinstance(exit_code, wasmtime.Global) else wasi.RUNNING
            if status == wasi.RUNNING and self._halted_at is None:
                return fault.ended
        if world.overflow:
            return self._ended(ResultCode.OUTPUT, f"more than {self._limits.output_octets} octets of output")
        if self._halted_at is not None:
            return self._ended(ResultCode.OUT_OF_FUEL, "out of fuel in a host call")
        if status != 0:
            return self._ended(ResultCode.TRAP, f"exit status {status}")
        return self._ended(ResultCode.OK, "", bytes(world.output))

    def _linked(self, world: wasi.World, adapter: wasmtime.Instance) -> wasmtime.Instance:
        linker = wasmtime.Linker(self._engine)
        linker.define_instance(self._store, wasi.NAMESPACE, adapter)
        for name, (shape, function) in world.served().items():
            words = [wasmtime.ValType.i32() if p == "i" else wasmtime.ValType.i64() for p in shape]
            masks = [_LOW if p == "i" else (1 << 64) - 1 for p in shape]
            linker.define_func(
                wasi.NAMESPACE,
                name,
                wasmtime.FuncType(words, [wasmtime.ValType.i32()]),
                partial(self._answer, world, function, masks),
            )
        return linker.instantiate(self._store, self._module)

    def _answer(self, world: wasi.World, function: Callable[..., int], masks: list[int], *arguments: int) -> int:
        """A host call. Must not raise: the bindings hand an exception to whichever thread traps next."""
        unsigned = tuple(a & m for a, m in zip(arguments, masks, strict=True))
        return world.call(function, self, unsigned)

    # ---- steps that may end the run

    def _begin(self, instantiate: Callable[[], wasmtime.Instance]) -> _Exports:
        try:
            exports = instantiate().exports(self._store)
        except wasmtime.Trap as trap:
            ended = self._trapped(trap)
            if not self._artifact.has_start and ended.code is ResultCode.TRAP:
                ended = Ended(ResultCode.BAD_MODULE, Fuel(0), "a segment does not fit its memory or table")
            raise _Faulted(ended) from None
        except wasmtime.WasmtimeError as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise _Faulted(Ended(ResultCode.BAD_MODULE, Fuel(0), f"it does not link: {reason}")) from None
        memory = exports["memory"]
        assert isinstance(memory, wasmtime.Memory)  # module.inspect saw it
        self._memory = memory
        return exports

    def _call(self, exports: _Exports, name: str, *arguments: int) -> int:
        function = exports[name]
        assert isinstance(function, wasmtime.Func)
        try:
            value = function(self._store, *arguments)
        except wasmtime.Trap as trap:
            raise _Faulted(self._trapped(trap)) from None
        return value if isinstance(value, int) else 0

    def _trapped(self, trap: wasmtime.Trap) -> Ended:
        code = trap.trap_code
        if code is wasmtime.TrapCode.INTERRUPT:
            return Ended(ResultCode.WALL, Fuel(0), f"not done after {self._limits.wall_ms} ms")
        if code is wasmtime.TrapCode.OUT_OF_FUEL:
            return Ended(ResultCode.OUT_OF_FUEL, self._limits.fuel, "out of fuel")
        if code is not wasmtime.TrapCode.UNREACHABLE:
            name = "fault" if code is None else code.name.lower().replace("_", " ")
            return Ended(ResultCode.TRAP, self._limits.fuel, name)
        if self._memory is not None and self._memory.size(self._store) >= self._limits.memory_pages:
            return self._ended(ResultCode.MEMORY, f"unreachable, with all {self._limits.memory_pages} pages in use")
        return self._ended(ResultCode.TRAP, "unreachable")

    def _ended(self, code: ResultCode, reason: str, output: bytes = b"") -> Ended:
        spent = self._spent() if self._halted_at is None else self._halted_at
        return Ended(code, spent, reason, output)

    def _spent(self) -> Fuel:
        return Fuel(self._limits.fuel - self._store.get_fuel())

    # ---- Meter

    def charge(self, fuel: int) -> bool:
        left = self._store.get_fuel()
        if fuel <= left:
            self._store.set_fuel(left - fuel)
            return True
        if self._halted_at is None:
            self._halted_at = self._limits.fuel
            self._store.set_fuel(0)
        return False

    def halt(self) -> None:
        if self._halted_at is None:
            self._halted_at = self._spent()
            self._store.set_fuel(0)

    # ---- GuestMemory

    def read(self, at: int, count: int) -> bytes | None:
        memory = self._memory
        if memory is None or at + count > memory.data_len(self._store):
            return None
        return bytes(memory.read(self._store, at, at + count)) if count else b""

    def write(self, at: int, octets: bytes) -> bool:
        memory = self._memory
        if memory is None or at + len(octets) > memory.data_len(self._store):
            return False
        if octets:
            memory.write(self._store, octets, at)
        return True


@cache
def _adapter() -> bytes:
    return compile_module(assemble(wasi.ADAPTER))
