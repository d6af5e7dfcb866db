"""Hot loops of the allocators, compiled where numba is installed (the `fast` extra), else run as they stand.

    @compiled
    def kernel(...): ...

Rule: a kernel computes the same with and without numba, digit for digit. It therefore uses float64, int64, bool and
arrays of them alone, draws no random numbers of NumPy's, and keeps to operations that both evaluate in the same order.
Its uncompiled form is `kernel.py_func` where numba is there, and tests compare the two.

Machine code is kept beside the source, or in numba's own cache folder, so only the first run on a machine compiles. A
solver calls its kernels once when it is made, before its clock starts. numba keys the code by the kernel's own file: after
an edit of a kernel that others in other files call, remove their `*.nbi` files too.
"""

import importlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

__all__ = ["COMPILED", "compiled"]

P = ParamSpec("P")
T = TypeVar("T")

_numba: Any
try:
    _numba = importlib.import_module("numba")
except ModuleNotFoundError:
    _numba = None

COMPILED = _numba is not None
"""Whether kernels run compiled."""


def compiled(kernel: Callable[P, T]) -> Callable[P, T]:
    """The kernel, compiled on its first call if numba is there."""
    if _numba is None:
        return kernel
    fast: Callable[P, T]
    try:
        fast = _numba.njit(cache=True)(kernel)
    except RuntimeError:  # no folder to keep machine code in: compile anew in each process
        fast = _numba.njit(kernel)
    return fast
