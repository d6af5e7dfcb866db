"""WASI preview 1 as a task sees it: arguments, stdin, stdout, a clock that stands still, seeded random octets.

Rule 1: an answer depends on the module and its input alone, so every server gives the same one.
Rule 2: a host function never raises and never stops the module: it answers an errno. A module is stopped by its fuel
        alone, or by the `unreachable` inside the adapter's proc_exit (sandbox.py).
Rule 3: the host's work is charged: HOST_CALL fuel a call, HOST_VECTOR for each buffer of a read or write, and 1 fuel for
        each octet that is copied or made. It is Python's work, and it needs the interpreter lock that the node's own
        threads need too, so it is dear: programs do well to read and write in large pieces.

There are no files, directories, sockets, signals or environment variables: their functions exist, so that programs of
usual toolchains link, and answer NOTCAPABLE (or BADF where that ends a program's search for preopened folders).
stderr is swallowed. The clock shows the Unix epoch with a resolution of 1 ns. Numbers are those of the preview 1
witx (wasi_snapshot_preview1: errno, fdstat, iovec).

The functions that only answer a constant are compiled from `ADAPTER`, WAT text made below; the others are methods of
`World`, which the sandbox links.
"""

import hashlib
from collections.abc import Callable
from typing import Final, Protocol

__all__ = [
    "ADAPTER", "EXIT_CODE", "FUNCTIONS", "HOST_CALL", "HOST_VECTOR", "NAMESPACE", "RUNNING", "GuestMemory", "Meter", "World",
]  # fmt: skip

NAMESPACE: Final = "wasi_snapshot_preview1"

HOST_CALL: Final = 10_000
"""Fuel of one call into the host: up to 100 us of Python, at the speed of the slowest kernel (meter.py)."""

HOST_VECTOR: Final = 2_000
"""Fuel of one more buffer in a call."""

_OK, _BADF, _FAULT, _INVAL, _NOTSUP, _SPIPE, _NOTCAPABLE = 0, 8, 21, 28, 58, 70, 76

# Parameters of each function, i = i32 and l = i64; all answer an errno but proc_exit, which does not come back.
_SERVED: Final = {
    "args_get": "ii",
    "args_sizes_get": "ii",
    "environ_get": "ii",
    "environ_sizes_get": "ii",
    "clock_res_get": "ii",
    "clock_time_get": "ili",
    "fd_fdstat_get": "ii",
    "fd_read": "iiii",
    "fd_write": "iiii",
    "random_get": "ii",
}
_CONSTANT: Final = {
    "fd_advise": ("illi", _NOTCAPABLE),
    "fd_allocate": ("ill", _NOTCAPABLE),
    "fd_close": ("i", _OK),
    "fd_datasync": ("i", _OK),
    "fd_fdstat_set_flags": ("ii", _NOTSUP),
    "fd_fdstat_set_rights": ("ill", _NOTCAPABLE),
    "fd_filestat_get": ("ii", _NOTCAPABLE),
    "fd_filestat_set_size": ("il", _NOTCAPABLE),
    "fd_filestat_set_times": ("illi", _NOTCAPABLE),
    "fd_pread": ("iiili", _NOTCAPABLE),
    "fd_prestat_dir_name": ("iii", _BADF),
    "fd_prestat_get": ("ii", _BADF),
    "fd_pwrite": ("iiili", _NOTCAPABLE),
    "fd_readdir": ("iiili", _NOTCAPABLE),
    "fd_renumber": ("ii", _NOTCAPABLE),
    "fd_seek": ("ilii", _SPIPE),
    "fd_sync": ("i", _OK),
    "fd_tell": ("ii", _SPIPE),
    "path_create_directory": ("iii", _NOTCAPABLE),
    "path_filestat_get": ("iiiii", _NOTCAPABLE),
    "path_filestat_set_times": ("iiiilli", _NOTCAPABLE),
    "path_link": ("iiiiiii", _NOTCAPABLE),
    "path_open": ("iiiiillii", _NOTCAPABLE),
    "path_readlink": ("iiiiii", _NOTCAPABLE),
    "path_remove_directory": ("iii", _NOTCAPABLE),
    "path_rename": ("iiiiii", _NOTCAPABLE),
    "path_symlink": ("iiiii", _NOTCAPABLE),
    "path_unlink_file": ("iii", _NOTCAPABLE),
    "poll_oneoff": ("iiii", _NOTSUP),
    "proc_raise": ("i", _NOTSUP),
    "sched_yield": ("", _OK),
    "sock_accept": ("iii", _NOTCAPABLE),
    "sock_recv": ("iiiiii", _NOTCAPABLE),
    "sock_send": ("iiiii", _NOTCAPABLE),
    "sock_shutdown": ("ii", _NOTCAPABLE),
}
FUNCTIONS: Final = frozenset((*_SERVED, *_CONSTANT, "proc_exit"))
"""All of preview 1."""

EXIT_CODE: Final = "exit_code"
"""The adapter's global: RUNNING until proc_exit."""
RUNNING: Final = -1

_NAMES: Final = {"i": "i32", "l": "i64"}


def _constant(name: str, parameters: str, errno: int) -> str:
    words = " ".join(_NAMES[p] for p in parameters)
    return f'  (func (export "{name}") (param {words}) (result i32) (i32.const {errno}))'


ADAPTER: Final = "\n".join((
    "(module",
    f'  (global $exit_code (export "{EXIT_CODE}") (mut i64) (i64.const {RUNNING}))',
    '  (func (export "proc_exit") (param i32)',
    "    (global.set $exit_code (i64.extend_i32_u (local.get 0))) (unreachable))",
    *(_constant(name, *shape) for name, shape in _CONSTANT.items()),
    ")",
))  # fmt: skip
"""proc_exit and the functions that answer a constant, as a module that is instantiated beside the task's."""

_IOVECS: Final = 1024
"""Buffers that one call may name; preview 1 answers INVAL beyond."""
_STDIN, _STDOUT, _STDERR = 0, 1, 2


class GuestMemory(Protocol):
    """The module's memory, bounds-checked: read and write answer None and False outside it."""

    def read(self, at: int, count: int) -> bytes | None: ...

    def write(self, at: int, octets: bytes) -> bool: ...


class Meter(Protocol):
    """The run's fuel, as host functions see it."""

    def charge(self, fuel: int) -> bool:
        """Take fuel; False if there is not enough, and then nothing is left."""
        ...

    def halt(self) -> None:
        """Let the module stop at its next branch or call."""
        ...


class World:
    """What one run of a WASI command can see. `overflow` is set once it wrote more than it may."""

    def __init__(self, args: bytes, stdin: bytes, seed: bytes, output_limit: int, meter: Meter) -> None:
        """Set up a run; args are split at NUL octets."""
        self._args = [b"task", *(args.split(b"\0") if args else ())]
        self._stdin = memoryview(stdin)
        self._at = 0
        self._seed = seed
        self._draws = 0
        self._limit = output_limit
        self._meter = meter
        self.output = bytearray()
        self.overflow = False

    def served(self) -> dict[str, tuple[str, Callable[..., int]]]:
        """Name to (parameters, function) of what the sandbox must link; each function takes the memory first."""
        return {name: (shape, getattr(self, f"_{name}")) for name, shape in _SERVED.items()}

    def call(self, function: Callable[..., int], memory: GuestMemory, arguments: tuple[int, ...]) -> int:
        """Answer a call; without fuel for it nothing is done, and the module stops at its next branch or call."""
        return function(memory, *arguments) if self._meter.charge(HOST_CALL) else _NOTSUP

    # ---- arguments and environment

    def _args_sizes_get(self, memory: GuestMemory, count_at: int, octets_at: int) -> int:
        octets = sum(len(a) + 1 for a in self._args)
        return _wrote(memory.write(count_at, _u32(len(self._args))) and memory.write(octets_at, _u32(octets)))

    def _args_get(self, memory: GuestMemory, pointers_at: int, octets_at: int) -> int:
        pointers, at = bytearray(), octets_at
        for argument in self._args:
            pointers += _u32(at & 0xFFFFFFFF)
            at += len(argument) + 1
        text = b"".join(a + b"\0" for a in self._args)
        if not self._meter.charge(len(text)):
            return _NOTSUP
        return _wrote(memory.write(pointers_at, bytes(pointers)) and memory.write(octets_at, text))

    def _environ_sizes_get(self, memory: GuestMemory, count_at: int, octets_at: int) -> int:
        return _wrote(memory.write(count_at, _u32(0)) and memory.write(octets_at, _u32(0)))

    def _environ_get(self, _memory: GuestMemory, _pointers_at: int, _octets_at: int) -> int:
        return _OK

    # ---- clock and random

    def _clock_res_get(self, memory: GuestMemory, clock: int, at: int) -> int:
        return _wrote(memory.write(at, (1).to_bytes(8, "little"))) if clock < 4 else _INVAL

    def _clock_time_get(self, memory: GuestMemory, clock: int, _precision: int, at: int) -> int:
        return _wrote(memory.write(at, bytes(8))) if clock < 4 else _INVAL

    def _random_get(self, memory: GuestMemory, at: int, count: int) -> int:
        """Octets of SHAKE-256(seed || number of the call)."""
        if not self._meter.charge(count):
            return _NOTSUP
        if memory.read(at, 0) is None or memory.read(at + count, 0) is None:
            return _FAULT
        self._draws += 1
        return _wrote(memory.write(at, hashlib.shake_256(self._seed + self._draws.to_bytes(8, "big")).digest(count)))

    # ---- stdin, stdout, stderr

    def _fd_fdstat_get(self, memory: GuestMemory, fd: int, at: int) -> int:
        """A stream of unknown kind: no terminal, so that programs buffer their output."""
        if fd > _STDERR:
            return _BADF
        rights = 1 << 1 if fd == _STDIN else 1 << 6  # fd_read, fd_write
        return _wrote(memory.write(at, bytes(8) + rights.to_bytes(8, "little") + bytes(8)))

    def _fd_read(self, memory: GuestMemory, fd: int, vectors_at: int, count: int, read_at: int) -> int:
        if fd != _STDIN:
            return _BADF
        if count > _IOVECS:
            return _INVAL
        if not self._meter.charge(HOST_VECTOR * count):
            return _NOTSUP
        vectors = _vectors(memory, vectors_at, count)
        if vectors is None:
            return _FAULT
        taken = 0
        for at, room in vectors:
            chunk = bytes(self._stdin[self._at : self._at + room])
            if not self._meter.charge(len(chunk)):
                return _NOTSUP
            if not memory.write(at, chunk):
                return _FAULT
            self._at += len(chunk)
            taken += len(chunk)
        return _wrote(memory.write(read_at, _u32(taken)))

    def _fd_write(self, memory: GuestMemory, fd: int, vectors_at: int, count: int, written_at: int) -> int:
        if fd not in {_STDOUT, _STDERR}:
            return _BADF
        if count > _IOVECS:
            return _INVAL
        if not self._meter.charge(HOST_VECTOR * count):
            return _NOTSUP
        vectors = _vectors(memory, vectors_at, count)
        if vectors is None:
            return _FAULT
        total = sum(length for _, length in vectors)
        if fd == _STDOUT and len(self.output) + total > self._limit:
            self.overflow = True
            self._meter.halt()
            return _NOTSUP
        if not self._meter.charge(total):
            return _NOTSUP
        for at, length in vectors:
            chunk = memory.read(at, length) if fd == _STDOUT else memory.read(at + length, 0)
            if chunk is None:
                return _FAULT
            self.output += chunk  # nothing for stderr: it is only checked
        return _wrote(memory.write(written_at, _u32(total & 0xFFFFFFFF)))


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _wrote(done: bool) -> int:
    return _OK if done else _FAULT


def _vectors(memory: GuestMemory, at: int, count: int) -> list[tuple[int, int]] | None:
    """The (pointer, length) pairs of an iovec array; None if it lies outside the memory."""
    table = memory.read(at, 8 * count)
    if table is None:
        return None
    words = [int.from_bytes(table[i : i + 4], "little") for i in range(0, len(table), 4)]
    return list(zip(words[::2], words[1::2], strict=True))
