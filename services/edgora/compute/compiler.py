"""Compilation within bounds: in a process of its own, which can be killed.

Compiling is the cheap denial of service: a module of a few KiB can keep a compiler busy for minutes, and a thread that
does it cannot be stopped. So foreign modules compile in `python -m edgora.compute.compiler`, a child that reads the
binary on stdin and writes the artifact on stdout, with a limit on its address space, and is killed after COMPILE_MS of
wall time; at most two such children run at once, at low priority. That costs about half a second a module, once:
artifacts are kept (cache.py). Modules that we ship compile in the caller's process in a few ms. Out of bounds is a
BadModule like any other, and remembered as such.
"""

import os
import subprocess
import sys
import threading

from edgora.compute.engine import compile_module, validate
from edgora.compute.limits import COMPILE_MEMORY, COMPILE_MS
from edgora.compute.module import BadModule
from edgora.wire.errors import Unavailable
from edgora.wire.units import Millis

__all__ = ["compile_bounded"]

_INVALID = 3
_CHILDREN = threading.BoundedSemaphore(2)


def compile_bounded(wasm: bytes, wall_ms: Millis = COMPILE_MS, memory: int = COMPILE_MEMORY) -> bytes:
    """Machine code of a foreign module.

    Raises BadModule if it is invalid or does not compile within the bounds, Unavailable if no child can be started.
    """
    command = [sys.executable, "-P", "-m", "edgora.compute.compiler", str(memory)]
    try:
        with _CHILDREN:
            done = subprocess.run(command, input=wasm, capture_output=True, check=False, timeout=wall_ms / 1000)
    except subprocess.TimeoutExpired:
        raise BadModule(f"the module does not compile within {wall_ms} ms") from None
    except OSError as error:
        raise Unavailable(f"no compiler process can be started: {error.strerror}") from None
    if done.returncode == _INVALID:
        raise BadModule(done.stderr.decode(errors="replace").strip())
    if done.returncode != 0:
        raise BadModule(f"the module does not compile within {memory // 2**20} MiB")
    return done.stdout


def _child() -> int:
    """Compile stdin to stdout."""
    try:
        import resource

        limit = int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.nice(10)
    except ImportError:  # no such limits on Windows; the wall time holds there too
        pass
    wasm = sys.stdin.buffer.read()
    try:
        validate(wasm)
    except BadModule as error:
        sys.stderr.write(error.detail)
        return _INVALID
    sys.stdout.buffer.write(compile_module(wasm))  # what fails now is the bound on memory
    return 0


if __name__ == "__main__":
    sys.exit(_child())
