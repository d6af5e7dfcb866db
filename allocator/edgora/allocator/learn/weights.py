"""Arrays and a JSON header in one .npz: policies and checkpoints, readable anywhere, never pickled.

Whatever a file holds, the only way out of `read` is arrays and a header, or Refused naming the file.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.wire.errors import Refused

__all__ = ["Arrays", "read", "write"]

Arrays = Mapping[str, NDArray[Any]]

_HEADER = "header"


def write(path: Path, arrays: Arrays, header: Mapping[str, object]) -> None:
    """Write the file whole or not at all. The header is JSON; integers of any size, as random generators have."""
    text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{_HEADER: text, **arrays})
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read(path: Path, what: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and header of a file; `what` names it in refusals."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop(_HEADER).tobytes())
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        MemoryError,
    ) as error:
        detail = f"{what} {path} cannot be read: {type(error).__name__}: {error}"
        raise Refused(detail[:400], field="policy" if what == "policy" else "--out") from None
    if not isinstance(header, dict):
        raise Refused(f"{what} {path} has no header", field="policy" if what == "policy" else "--out")
    return arrays, header
