"""From WAT to the committed binaries."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from edgora.compute.engine import assemble
from edgora.compute.module import inspect
from edgora.wire import kernels
from edgora.wire.kernels import Manifest

__all__ = ["binary", "check", "source", "write"]

_INCLUDE: Final = re.compile(r"^\s*;; include (\S+)\n", re.MULTILINE)
_SOURCES: Final = Path(str(files(__name__.rpartition(".")[0])))
_TARGET: Final = Path(str(files(kernels.__name__)))


def source(name: str) -> str:
    """A kernel's text with its includes in place."""
    text = (_SOURCES / f"{name}.wat").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: (_SOURCES / found[1]).read_text(encoding="utf-8"), text)


def binary(name: str) -> bytes:
    return assemble(source(name))


def check() -> list[str]:
    """Names of kernels whose committed binary or digest is not what the source gives."""
    stale = []
    for name in kernels.names():
        kernel, wasm = kernels.load(name), binary(name)
        if kernel.wasm != wasm or kernel.digest != inspect(wasm).digest:
            stale.append(name)
    return stale


def write() -> None:
    """Write every binary and enter its digest into its manifest."""
    for name in kernels.names():
        wasm, place = binary(name), _TARGET / f"{name}.json"
        document = msgspec.json.decode(place.read_bytes(), type=dict[str, object])
        document["digest"] = inspect(wasm).digest.hex()
        msgspec.convert(document, Manifest)
        (_TARGET / f"{name}.wasm").write_bytes(wasm)
        place.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
