"""The shipped kernels from a user's side: files and options in, orders out, results back into files.

| kernel     | file                                                    | options                       | result |
| sobel      | a picture                                               |                               | PNG    |
| blur       | a picture                                               | radius                        | PNG    |
| matmul     | JSON {"a": [[...]], "b": [[...]]}, or empty: drawn      | m, k, n, seed                 | JSON   |
| hashpuzzle | the header, any octets                                  | bits, start, max_tries        | JSON   |
| nftcheck   | JSON {root, token, owner, index, count, path, metadata} |                               | JSON   |
| spin       | not read                                                | rounds, seed                  | JSON   |
| cachemiss  | not read                                                | pages, steps, seed            | JSON   |

What a call costs at most follows from its arguments (wire.kernels), so an order made here never runs out of fuel.
`checks.verify_output` recomputes a result without WASM.
"""

import hashlib
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from edgora.client.images import Raster, photo
from edgora.client.orders import Order
from edgora.wire.errors import NotFound, Refused, WireError
from edgora.wire.hashing import keccak, merkle_path, merkle_root
from edgora.wire.inputs import TaskInput
from edgora.wire.kernels import Manifest, Value, load, names

__all__ = [
    "Option", "demo_input", "from_kernel_output", "order_for_input", "order_for_kernel", "order_for_module",
    "to_kernel_input",
]  # fmt: skip

Option = str | int
"""As a command line or a program gives it; text is read as a decimal or 0x-hex number."""

Options = Mapping[str, Option]
_T = TypeVar("_T")

_MAGIC: Final = b"\x00asm"
_SIDE: Final = 2048


# ---- orders ----------------------------------------------------------------------------------------------------------


def order_for_kernel(kernel: str, file: bytes, options: Options) -> Order:
    """An order for a shipped kernel. Raises NotFound, or Refused naming the option or the file's member at fault."""
    return order_for_input(kernel, to_kernel_input(kernel, file, options))


def order_for_input(kernel: str, plaintext: bytes) -> Order:
    """An order for a ready plaintext, with the limits that are enough for it."""
    loaded = load(kernel)
    task, manifest = TaskInput.unpack(plaintext), loaded.manifest
    values = manifest.unpack(task.args)
    octets = len(task.data)
    return Order(
        module=loaded.wasm,
        plaintext=plaintext,
        fuel_limit=manifest.fuel_limit(octets, values),
        output_octets=manifest.output_octets(octets, values),
        memory_pages=manifest.memory_pages(octets, values),
        label=kernel,
    )


def order_for_module(
    module: bytes, data: bytes, options: Options, *, fuel_limit: int, output_octets: int, memory_pages: int
) -> Order:
    """An order for a module of one's own. Its option `args` are the arguments, split at blanks for a WASI command."""
    if not module.startswith(_MAGIC):
        raise Refused("the module is not a WebAssembly binary", field="module", fix="assemble text to .wasm first")
    unknown = sorted(set(options) - {"args"})
    if unknown:
        raise Refused(f"a module of one's own has the option args only, not {unknown[0]}", field=unknown[0])
    args = b"\0".join(word.encode() for word in str(options.get("args", "")).split())
    return Order(
        module=module, plaintext=TaskInput(args, data).pack(), fuel_limit=fuel_limit, output_octets=output_octets,
        memory_pages=memory_pages,
    )  # fmt: skip


# ---- files to inputs -------------------------------------------------------------------------------------------------


def to_kernel_input(kernel: str, file: bytes, options: Options) -> bytes:
    """Plaintext of a task: the kernel's arguments and data from a user's file and options."""
    manifest = load(kernel).manifest
    args, data = _READERS[kernel](manifest, file, {name: _number(name, value) for name, value in options.items()})
    return TaskInput(args, data).pack()


def _number(name: str, value: Option) -> int:
    try:
        return int(value, 0) if isinstance(value, str) else value
    except ValueError:
        raise Refused(f"{name} is {value!r}; a whole number is needed", field=name) from None


_Input = tuple[bytes, bytes]


def _picture(manifest: Manifest, file: bytes, options: Mapping[str, int]) -> _Input:
    return _raster_input(manifest, Raster.from_file(file), options)


def _raster_input(manifest: Manifest, raster: Raster, options: Mapping[str, int]) -> _Input:
    taken = {"width", "height", "channels"} & set(options)
    if taken:
        raise Refused(f"{min(taken)} follows from the picture", field=min(taken))
    values = {"width": raster.width, "height": raster.height, "channels": raster.channels, **options}
    if manifest.name == "blur":
        radius = values.setdefault("radius", min(4, raster.width - 1, raster.height - 1))
        if radius >= min(raster.width, raster.height):
            raise Refused(f"radius {radius} needs a picture larger than that on both sides", field="radius")
    return manifest.pack(values), raster.samples


class _Product(msgspec.Struct, forbid_unknown_fields=True):
    a: list[list[float]]
    b: list[list[float]]


def _matrices(manifest: Manifest, file: bytes, options: Mapping[str, int]) -> _Input:
    if not file:
        return _drawn_matrices(manifest, options)
    if options:
        raise Refused("the sizes follow from the file", field=min(options))
    product = _document(file, _Product)
    m, k = _shape(product.a, "a")
    rows, n = _shape(product.b, "b")
    if rows != k:
        raise Refused(f"a has {k} columns, b has {rows} rows; they must be as many", field="b")
    data = b"".join(struct.pack(f"<{len(row)}d", *row) for row in (*product.a, *product.b))
    return manifest.pack({"m": m, "k": k, "n": n}), data


def _shape(matrix: list[list[float]], name: str) -> tuple[int, int]:
    columns = len(matrix[0]) if matrix else 0
    if not 1 <= len(matrix) <= _SIDE or not 1 <= columns <= _SIDE or any(len(row) != columns for row in matrix):
        raise Refused(f"{name} must be a list of equally long rows, 1 to {_SIDE} each way", field=name)
    if not all(math.isfinite(x) for row in matrix for x in row):
        raise Refused(f"{name} holds a number that is not finite", field=name)
    return len(matrix), columns


def _drawn_matrices(manifest: Manifest, options: Mapping[str, int]) -> _Input:
    sizes = {"m": 64, "k": 64, "n": 64, **options}
    seed = sizes.pop("seed", 0)
    args = manifest.pack(sizes)
    octets = _stream("matmul", seed, 4 * sizes["k"] * (sizes["m"] + sizes["n"]))
    doubles = [x / 2**31 for (x,) in struct.iter_unpack("<i", octets)]
    return args, struct.pack(f"<{len(doubles)}d", *doubles)


def _header(manifest: Manifest, file: bytes, options: Mapping[str, int]) -> _Input:
    bits = options.get("bits", 12)
    # e^-8: one puzzle in 3,000 is not solved within eight times the expected tries
    tries = min(8 << min(bits, 37), 1 << 40)
    return manifest.pack({"max_tries": tries, **options}), file


class _Token(msgspec.Struct, forbid_unknown_fields=True):
    root: str
    token: str
    owner: str
    index: int
    count: int
    path: list[str]
    metadata: str


def _token(manifest: Manifest, file: bytes, options: Mapping[str, int]) -> _Input:
    if options:
        raise Refused("all of a token's proof stands in the file", field=min(options))
    token = _document(file, _Token)
    path = [_hex(f"path[{i}]", text, 32) for i, text in enumerate(token.path)]
    values: dict[str, Value] = {
        "root": _hex("root", token.root, 32), "token": _hex("token", token.token, 32),
        "owner": _hex("owner", token.owner, 20), "index": token.index, "count": token.count, "levels": len(path),
    }  # fmt: skip
    return manifest.pack(values), b"".join(path) + token.metadata.encode()


def _nothing(manifest: Manifest, _file: bytes, options: Mapping[str, int]) -> _Input:
    return manifest.pack(options), b""


_READERS: Final[dict[str, Callable[[Manifest, bytes, Mapping[str, int]], _Input]]] = {
    "sobel": _picture,
    "blur": _picture,
    "matmul": _matrices,
    "hashpuzzle": _header,
    "nftcheck": _token,
    "spin": _nothing,
    "cachemiss": _nothing,
}


def _document(file: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(file, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"the file is not the JSON that is needed: {error}", field="FILE") from None


def _hex(name: str, text: str, octets: int) -> bytes:
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != octets:
        raise Refused(f"{name} must be {octets} octets in hex", field=name)
    return value


# ---- outputs to files ------------------------------------------------------------------------------------------------


def from_kernel_output(kernel: str, output: bytes) -> tuple[bytes, str]:
    """A result as a file's content and the suffix that fits it; the output itself for a module that is not ours.

    Raises WireError if it is no result of that kernel.
    """
    if kernel in {"sobel", "blur"}:
        return Raster.from_octets(output).to_png(), ".png"
    if kernel not in names():
        return output, ".bin"
    return msgspec.json.format(msgspec.json.encode(_described(kernel, output)), indent=2) + b"\n", ".json"


def _described(kernel: str, output: bytes) -> dict[str, object]:
    try:
        if kernel == "matmul":
            m, n = struct.unpack_from("<II", output)
            flat = struct.unpack(f"<{m * n}d", output[8:])
            return {"m": m, "n": n, "c": [list(flat[i : i + n]) for i in range(0, m * n, n)]}
        if kernel == "hashpuzzle":
            found, tries, nonce, digest = struct.unpack("<IQQ32s", output)
            return {"found": bool(found), "tries": tries, "nonce": nonce, "digest": digest.hex()}
        if kernel == "nftcheck":
            valid, metadata, leaf, root = struct.unpack("<B32s32s32s", output)
            return {"valid": bool(valid), "metadata_hash": metadata.hex(), "leaf": leaf.hex(), "root": root.hex()}
        (value,) = struct.unpack("<Q", output)
    except struct.error:
        raise WireError(f"{len(output)} octets are no result of {kernel}") from None
    return {"value": value}


# ---- demos -----------------------------------------------------------------------------------------------------------


def demo_input(kernel: str, seed: int) -> bytes:
    """A small plaintext that repeats for a seed: what simulated UEs send."""
    if kernel not in _DEMOS:
        raise NotFound(f"no kernel {kernel!r}; there are {', '.join(names())}", field="kernel")
    args, data = _DEMOS[kernel](load(kernel).manifest, seed)
    return TaskInput(args, data).pack()


def _stream(label: str, seed: int, octets: int) -> bytes:
    return hashlib.shake_256(f"{label} {seed}".encode()).digest(octets)


def _demo_picture(manifest: Manifest, seed: int) -> _Input:
    """A part of the shipped photo, 96 x 72."""
    whole = Raster.from_file(photo())
    x, y = struct.unpack("<II", _stream("crop", seed, 8))
    return _raster_input(manifest, whole.crop(x % (whole.width - 95), y % (whole.height - 71), 96, 72), {})


def _demo_token(manifest: Manifest, seed: int) -> _Input:
    """One of 13 tokens; every fourth proof is a forged one."""
    tokens = [_stream("token", 13 * seed + i, 52) for i in range(13)]
    documents = [f'{{"name": "Token {i}", "seed": {seed}}}'.encode() for i in range(13)]
    leaves = [token + keccak(document) for token, document in zip(tokens, documents, strict=True)]
    at = seed % 13
    document = b'{"name": "forged"}' if seed % 4 == 3 else documents[at]
    path = merkle_path(leaves, at)
    return _token_input(manifest, merkle_root(leaves), tokens[at], at, path, document)


def _token_input(
    manifest: Manifest, root: bytes, token: bytes, index: int, path: Sequence[bytes], document: bytes
) -> _Input:
    values: dict[str, Value] = {
        "root": root, "token": token[:32], "owner": token[32:], "index": index, "count": 13, "levels": len(path),
    }  # fmt: skip
    return manifest.pack(values), b"".join(path) + document


_DEMOS: Final[dict[str, Callable[[Manifest, int], _Input]]] = {
    "sobel": _demo_picture,
    "blur": _demo_picture,
    "matmul": lambda manifest, seed: _drawn_matrices(manifest, {"m": 48, "k": 48, "n": 48, "seed": seed}),
    "hashpuzzle": lambda manifest, seed: _header(manifest, _stream("header", seed, 80), {"bits": 10}),
    "nftcheck": _demo_token,
    "spin": lambda manifest, seed: (manifest.pack({"rounds": 500_000, "seed": seed % 2**64}), b""),
    "cachemiss": lambda manifest, seed: (manifest.pack({"pages": 64, "steps": 200_000, "seed": seed % 2**64}), b""),
}
