"""One call of a kernel as two: a part for a server and a part for the device itself, and their results as one.

    matmul        rows of A with all of B                             rows of the product, one part below the other
    sobel, blur   strips of rows, each with the rows around its cut   the strips without those rows

The parts are calls of the same kernel, so they run in the same sandbox, and what is merged equals, octet for octet,
what one call would have given: `checks.verify_output` cannot tell them apart. A row beyond a cut is in both parts
(1 for sobel, the radius for blur), so the parts' work adds up to a little more than the whole.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from edgora.wire.errors import WireError
from edgora.wire.inputs import TaskInput
from edgora.wire.kernels import Manifest, Value, load, names

__all__ = ["Halves", "SplitRefused", "split", "splittable"]


class SplitRefused(ValueError):
    """This call cannot be split; says why."""


@dataclass(frozen=True, slots=True)
class Halves:
    """Two calls that make one."""

    remote: bytes
    """Plaintext of the server's part, the upper rows."""
    local: bytes
    """Plaintext of the device's part."""
    share: float
    """Of the rows that the server computes."""
    merge: Callable[[bytes, bytes], bytes]
    """The outputs of remote and local as the output of the whole. Raises WireError if they are not such outputs."""


def splittable(kernel: str) -> bool:
    """Whether calls of this kernel can be split at all."""
    return kernel in names() and load(kernel).manifest.splittable


def split(kernel: str, plaintext: bytes, share: float) -> Halves:
    """Give the server about this share of a call's rows, at least one, and leave the device at least one.

    Raises SplitRefused for a kernel or a call without parts.
    """
    if not splittable(kernel):
        raise SplitRefused(f"{kernel} cannot be split")
    task = TaskInput.unpack(plaintext)
    manifest = load(kernel).manifest
    values = {name: value for name, value in manifest.unpack(task.args).items() if isinstance(value, int)}
    rows = values["m" if kernel == "matmul" else "height"]
    if rows < 2:
        raise SplitRefused(f"a {kernel} of one row cannot be split")
    cut = min(max(round(share * rows), 1), rows - 1)
    return _SPLITTERS[kernel](manifest, values, task.data, cut)


def _call(manifest: Manifest, values: Mapping[str, Value], data: bytes) -> bytes:
    return TaskInput(manifest.pack(values), data).pack()


def _matmul(manifest: Manifest, values: Mapping[str, int], data: bytes, cut: int) -> Halves:
    m, k, n = values["m"], values["k"], values["n"]
    a, b = data[: 8 * m * k], data[8 * m * k :]
    upper, lower = a[: 8 * cut * k], a[8 * cut * k :]

    def merge(remote: bytes, local: bytes) -> bytes:
        body = _body(remote, struct.pack("<II", cut, n), 8 * cut * n)
        body += _body(local, struct.pack("<II", m - cut, n), 8 * (m - cut) * n)
        return struct.pack("<II", m, n) + body

    return Halves(
        _call(manifest, {**values, "m": cut}, upper + b), _call(manifest, {**values, "m": m - cut}, lower + b),
        cut / m, merge,
    )  # fmt: skip


def _strips(manifest: Manifest, values: Mapping[str, int], data: bytes, cut: int) -> Halves:
    width, height, channels = values["width"], values["height"], values["channels"]
    halo = values.get("radius", 1)
    stride = width * channels
    below, above = min(cut + halo, height), max(cut - halo, 0)
    out = channels if manifest.name == "blur" else 1

    def merge(remote: bytes, local: bytes) -> bytes:
        upper = _body(remote, struct.pack("<III", width, below, out), width * below * out)
        lower = _body(local, struct.pack("<III", width, height - above, out), width * (height - above) * out)
        body = upper[: width * cut * out] + lower[width * (cut - above) * out :]
        return struct.pack("<III", width, height, out) + body

    return Halves(
        _call(manifest, {**values, "height": below}, data[: stride * below]),
        _call(manifest, {**values, "height": height - above}, data[stride * above :]),
        cut / height, merge,
    )  # fmt: skip


def _body(output: bytes, header: bytes, octets: int) -> bytes:
    """What follows the header of a part's output."""
    if not output.startswith(header) or len(output) != len(header) + octets:
        raise WireError(f"{len(output)} octets are not the output of a part of {octets}")
    return output[len(header) :]


_SPLITTERS: Final[dict[str, Callable[[Manifest, Mapping[str, int], bytes, int], Halves]]] = {
    "matmul": _matmul,
    "sobel": _strips,
    "blur": _strips,
}
