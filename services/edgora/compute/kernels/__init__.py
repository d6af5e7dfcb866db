"""Sources of the modules that ship with Edgora, and the recipe that makes their binaries.

The recipe needs nothing but the WASM engine: `;; include FILE` lines are replaced by that file, the text goes through
wat2wasm, and the binary is written beside its manifest in wire/kernels/ with its digest entered there.

    python -m edgora.compute.kernels build     write binaries and digests
    python -m edgora.compute.kernels check     rebuild and compare bytes; exit 1 on a difference (CI)
    python -m edgora.compute.kernels measure   fuel and speed of each kernel on this machine
"""

from edgora.compute.kernels.recipe import check, source, write
from edgora.wire.kernels import Kernel, load, names

__all__ = ["Kernel", "check", "load", "names", "source", "write"]
