"""Instance, solution and settings input: strict, and every refusal names its field.

Rule 1: whatever bytes come in, the only way out is a value of the asked type or `wire.errors.Refused`.
Rule 2: a refusal is one line: the field with its index, the value or what was met, and what is expected.

msgspec does the parsing (unknown and missing fields, types, NaN, which JSON does not have); `numbers` checks shape
and range. One magnitude window, 1e-15 .. 1e15, holds for every positive quantity of every problem: with it no product
of the models' formulas can overflow or vanish, so no solver has to guard against infinities.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgora.wire.errors import Refused

__all__ = [
    "LARGEST", "SMALLEST", "indices", "number", "numbers", "read_json", "read_settings", "write_json", "written_later",
]  # fmt: skip

T = TypeVar("T")

SMALLEST = 1e-15
"""Least positive quantity that a file may hold."""
LARGEST = 1e15
"""Greatest quantity that a file may hold."""

_PATH = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_NAMED = re.compile(r"field `(?P<name>[^`]+)`")


def read_json(data: bytes, kind: type[T], what: str) -> T:
    """The `kind` in a JSON document; `what` names the document in refusals."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _refused(str(error), what) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        detail = f"{what} is not a JSON document: {error}"
        raise Refused(_line(detail), field="$") from None


def read_settings(settings: Mapping[str, object], kind: type[T], what: str) -> T:
    """The `kind` that `--set key=value` pairs describe; unknown keys, wrong types and ranges are refused by name."""
    try:
        return msgspec.convert(dict(settings), type=kind)
    except msgspec.ValidationError as error:
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(kind)) or "none"  # type: ignore[arg-type]  # kind is a Struct here
        raise _refused(str(error), what, f"; keys it takes: {known}") from None


def write_json(value: object) -> bytes:
    """The value as one line of JSON with a line end; floats read back to the same doubles."""
    return msgspec.json.encode(value) + b"\n"


def written_later(path: Path, field: str) -> Path:
    """The path of a file that long work will write. Raises Refused before the work if nothing can be written there."""
    try:
        if path.is_file() or path.is_dir():
            with path.open("ab"):
                return path
        if not path.exists():
            with tempfile.TemporaryFile(dir=path.parent):
                return path
    except (OSError, ValueError) as error:
        raise Refused(
            f"{field} {path} cannot be written: {error}", field=field, fix="name a file in a folder that is there"
        ) from None
    return path


def number(name: str, value: float, low: float, high: float) -> float:
    """A scalar within low..high."""
    if not low <= value <= high:
        raise Refused(f"{name} is {value!r}: must be within {low:g}..{high:g}", field=name)
    return float(value)


def numbers(name: str, values: Sequence[float], length: int, *, zero: bool) -> NDArray[np.float64]:
    """A read-only array of `length` quantities, each within the magnitude window, or 0 where `zero` allows it."""
    array = _sized(name, values, length, np.float64)
    if zero:
        bad = ~((array >= 0) & (array <= LARGEST))
        expected = f"within 0..{LARGEST:g}"
    else:
        bad = ~((array >= SMALLEST) & (array <= LARGEST))
        expected = f"within {SMALLEST:g}..{LARGEST:g}"
    _refuse_first(name, array, bad, expected)
    array.flags.writeable = False
    return array


def indices(name: str, values: Sequence[int], length: int, low: int, high: int) -> NDArray[np.int64]:
    """A read-only array of `length` integers within low..high."""
    _expect_length(name, values, length)
    try:
        array = np.array(values, dtype=np.int64)
    except OverflowError:
        raise Refused(f"{name} holds an integer beyond 64 bits: must be within {low}..{high}", field=name) from None
    _refuse_first(name, array, (array < low) | (array > high), f"within {low}..{high}")
    array.flags.writeable = False
    return array


def _sized(name: str, values: Sequence[float], length: int, dtype: type[np.float64]) -> NDArray[np.float64]:
    _expect_length(name, values, length)
    try:
        return np.array(values, dtype=dtype)
    except OverflowError:  # an integer of hundreds of digits
        raise Refused(f"{name} holds a number beyond {LARGEST:g}", field=name) from None


def _expect_length(name: str, values: Sequence[object], length: int) -> None:
    if len(values) != length:
        raise Refused(f"{name} has {len(values)} entries: must have {length}", field=name)


def _refuse_first(
    name: str, array: NDArray[np.float64] | NDArray[np.int64], bad: NDArray[np.bool_], expected: str
) -> None:
    if bad.any():
        at = int(np.argmax(bad))
        raise Refused(f"{name}[{at}] is {array[at].item()!r}: must be {expected}", field=f"{name}[{at}]")


def _refused(message: str, what: str, hint: str = "") -> Refused:
    match = _PATH.match(message)
    detail, path = (match["what"], match["path"] or "") if match else (message, "")
    named = _NAMED.search(detail)
    field = path.lstrip(".")
    if named:
        field = f"{field}.{named['name']}" if field else named["name"]
    sentence = f"{what}: {field or 'document'}: {detail[:1].lower()}{detail[1:]}{hint}"
    return Refused(_line(sentence), field=_line(field) or "$")


def _line(text: str) -> str:
    """One printable line of bounded length, whatever a file put into a message."""
    return "".join(c if c.isprintable() else "?" for c in text)[:400]
