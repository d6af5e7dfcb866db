"""Was the result computed right? Each kernel's output recomputed in plain Python, without WASM.

Rule 1: nothing here shares code with a kernel; a fault in one does not hide in the other.
Rule 2: work is bounded to some seconds. Large pictures are checked at places, and large products by a projection, that
        follow from the output itself: who forges a result cannot know them before the forgery is complete.
"""

import hashlib
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from edgora.wire.errors import NotFound, Refused
from edgora.wire.hashing import keccak, merkle_leaf
from edgora.wire.inputs import TaskInput
from edgora.wire.kernels import Value, load, names

__all__ = ["verify_output"]

_WORK: Final = 2_000_000
"""Elementary steps that one check may take, about a second."""

_MASK: Final = 2**64 - 1
_FACTOR, _SUMMAND = 6_364_136_223_846_793_005, 1_442_695_040_888_963_407


def verify_output(kernel: str, plaintext: bytes, output: bytes) -> bool:
    """Whether output is what the kernel must give for this plaintext.

    Raises NotFound for a kernel that is not ours, Refused for a call that is too long to recompute here.
    """
    if kernel not in _CHECKS:
        raise NotFound(f"no kernel {kernel!r}; there are {', '.join(names())}", field="kernel")
    task = TaskInput.unpack(plaintext)
    return _CHECKS[kernel](load(kernel).manifest.unpack(task.args), task.data, output)


_Values = Mapping[str, Value]


def _int(values: _Values, name: str) -> int:
    value = values[name]
    assert isinstance(value, int)
    return value


def _octets(values: _Values, name: str) -> bytes:
    value = values[name]
    assert isinstance(value, bytes)
    return value


# ---- pictures --------------------------------------------------------------------------------------------------------


def _places(output: bytes, count: int, most: int) -> Iterator[int]:
    """All of `count` places, or `most` of them drawn from the output's hash."""
    if count <= most:
        yield from range(count)
        return
    seed = keccak(output)
    for block in range(-(-most // 4)):
        for (word,) in struct.iter_unpack("<Q", hashlib.sha256(seed + block.to_bytes(4, "big")).digest()):
            yield word % count


def _sobel(values: _Values, data: bytes, output: bytes) -> bool:
    w, h, channels = (_int(values, name) for name in ("width", "height", "channels"))
    if output[:12] != struct.pack("<III", w, h, 1) or len(output) != 12 + w * h:
        return False

    def luma(x: int, y: int) -> int:
        x, y = min(max(x, 0), w - 1), min(max(y, 0), h - 1)
        if channels == 1:
            return data[y * w + x]
        at = 3 * (y * w + x)
        return (77 * data[at] + 150 * data[at + 1] + 29 * data[at + 2]) >> 8

    def gradient(x: int, y: int) -> int:
        gx = gy = 0
        for near, weight in ((-1, 1), (0, 2), (1, 1)):
            gx += weight * (luma(x + 1, y + near) - luma(x - 1, y + near))
            gy += weight * (luma(x + near, y + 1) - luma(x + near, y - 1))
        return min(255, math.isqrt(gx * gx + gy * gy))

    return all(output[12 + i] == gradient(i % w, i // w) for i in _places(output, w * h, _WORK // 24))


def _blur(values: _Values, data: bytes, output: bytes) -> bool:
    w, h, channels, r = (_int(values, name) for name in ("width", "height", "channels", "radius"))
    if output[:12] != struct.pack("<III", w, h, channels) or len(output) != 12 + len(data):
        return False
    area = (2 * r + 1) ** 2

    def mean(at: int) -> int:
        x, channel = at // channels % w, at % channels
        columns = [channels * min(max(x + dx, 0), w - 1) + channel for dx in range(-r, r + 1)]
        y = at // channels // w
        rows = [channels * w * min(max(y + dy, 0), h - 1) for dy in range(-r, r + 1)]
        return (sum(data[row + column] for row in rows for column in columns) + area // 2) // area

    return all(output[12 + i] == mean(i) for i in _places(output, len(data), max(64, _WORK // area)))


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _matmul(values: _Values, data: bytes, output: bytes) -> bool:
    m, k, n = (_int(values, name) for name in ("m", "k", "n"))
    if output[:8] != struct.pack("<II", m, n) or len(output) != 8 + 8 * m * n:
        return False
    numbers = struct.unpack(f"<{k * (m + n)}d", data)
    a = [numbers[i : i + k] for i in range(0, m * k, k)]
    b = [numbers[i : i + n] for i in range(m * k, len(numbers), n)]
    flat = struct.unpack(f"<{m * n}d", output[8:])
    c = [flat[i : i + n] for i in range(0, m * n, n)]
    return _equal_product(a, b, c) if m * k * n <= _WORK else _projected(a, b, c, keccak(output))


_Rows = list[tuple[float, ...]]


def _equal_product(a: _Rows, b: _Rows, c: _Rows) -> bool:
    """Bit by bit: the kernel adds in the order of k, and so does this."""
    columns = list(zip(*b, strict=True))
    for row, got in zip(a, c, strict=True):
        for column, value in zip(columns, got, strict=True):
            total = 0.0
            for x, y in zip(row, column, strict=True):
                total += x * y
            if total != value:
                return False
    return True


def _projected(a: _Rows, b: _Rows, c: _Rows, seed: bytes) -> bool:
    """Freivalds: A (B x) = C x for a vector x of the output's own hash, within rounding.

    A sum of k products is off by at most k * 2^-53 of the sum of their sizes; four times that is allowed.
    """
    n = len(b[0])
    x = [1.0 + w for (w,) in struct.iter_unpack("<H", hashlib.shake_256(seed).digest(2 * n))]

    def times(rows: _Rows, vector: list[float]) -> list[float]:
        return [math.fsum(map(float.__mul__, row, vector)) for row in rows]

    bx = times(b, x)
    sizes = times([tuple(map(abs, row)) for row in a], times([tuple(map(abs, row)) for row in b], x))
    pairs = zip(times(a, bx), times(c, x), sizes, strict=True)
    return all(abs(want - got) <= len(b) * 2.0**-51 * size for want, got, size in pairs)


def _hashpuzzle(values: _Values, data: bytes, output: bytes) -> bool:
    bits, start, most = (_int(values, name) for name in ("bits", "start", "max_tries"))
    if len(output) != 52:
        return False
    found, tries, nonce, digest = struct.unpack("<IQQ32s", output)
    if not 1 <= tries <= most or nonce != (start + tries - 1) & _MASK:
        return False
    head = hashlib.sha256(data)

    def solves(number: int) -> tuple[bool, bytes]:
        attempt = head.copy()
        attempt.update(number.to_bytes(8, "big"))
        octets = attempt.digest()
        return int.from_bytes(octets[:8], "big") < 1 << (64 - bits), octets

    solved, octets = solves(nonce)
    if found not in {0, 1} or octets != digest or solved != (found == 1) or (not solved and tries != most):
        return False
    # an earlier nonce that solves it, or any one behind "not found", would be a wrong result: all or a sample
    return not any(solves((start + i) & _MASK)[0] for i in _places(output, tries - 1, _WORK // 10))


def _nftcheck(values: _Values, data: bytes, output: bytes) -> bool:
    levels, index, count = (_int(values, name) for name in ("levels", "index", "count"))
    path = [data[i : i + 32] for i in range(0, 32 * levels, 32)]
    metadata = keccak(data[32 * levels :])
    leaf = merkle_leaf(_octets(values, "token") + _octets(values, "owner") + metadata)
    node, fits = bytes(leaf), index < count
    while fits and count > 1:
        if index % 2 or index + 1 < count:
            if not path:
                fits = False
                break
            sibling = path.pop(0)
            node = keccak(b"\x01" + (sibling + node if index % 2 else node + sibling))
        index, count = index // 2, (count + 1) // 2
    valid = fits and not path and node == _octets(values, "root")
    return output == bytes((valid,)) + metadata + leaf + node


# ---- loads -----------------------------------------------------------------------------------------------------------


def _bounded(name: str, steps: int) -> int:
    if steps > 5 * _WORK:
        raise Refused(f"{steps} {name} are too many to recompute here; at most {5 * _WORK} are", field=name)
    return steps


def _spin(values: _Values, _data: bytes, output: bytes) -> bool:
    x = _int(values, "seed")
    for _ in range(_bounded("rounds", _int(values, "rounds"))):
        x = (x * _FACTOR + _SUMMAND) & _MASK
        x ^= x >> 33
    return output == struct.pack("<Q", x)


def _cachemiss(values: _Values, _data: bytes, output: bytes) -> bool:
    x, lines = _int(values, "seed"), _int(values, "pages") << 10
    for _ in range(_bounded("steps", _int(values, "steps"))):
        x = ((x + 64 * ((x >> 32) * lines >> 32)) * _FACTOR + _SUMMAND) & _MASK
    return output == struct.pack("<Q", x)


_CHECKS: Final[dict[str, Callable[[_Values, bytes, bytes], bool]]] = {
    "sobel": _sobel,
    "blur": _blur,
    "matmul": _matmul,
    "hashpuzzle": _hashpuzzle,
    "nftcheck": _nftcheck,
    "spin": _spin,
    "cachemiss": _cachemiss,
}
