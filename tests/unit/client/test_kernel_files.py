"""Files in, orders out, results back: codecs of the shipped kernels and their plain checks."""

import io
import json
import struct

import pytest
from PIL import Image

from edgora.client import images
from edgora.client.checks import verify_output
from edgora.client.data import make_photo
from edgora.client.images import MAX_SAMPLES, Raster, photo
from edgora.client.kernels import (
    demo_input,
    from_kernel_output,
    order_for_input,
    order_for_kernel,
    order_for_module,
    to_kernel_input,
)
from edgora.compute.limits import Limits
from edgora.compute.module import module_digest
from edgora.compute.sandbox import Sandbox
from edgora.wire import kernels
from edgora.wire.errors import NotFound, Refused, TooLarge, WireError
from edgora.wire.hashing import keccak, merkle_path, merkle_root
from edgora.wire.inputs import TaskInput


@pytest.fixture(scope="module")
def compute():
    """Run an order as an executor would, under the order's own limits."""
    sandbox = Sandbox()

    def runs(order):
        limits = Limits(order.fuel_limit, order.memory_pages, order.output_octets, 60_000)
        outcome = sandbox.run(order.module, order.plaintext, limits, digest=module_digest(order.module))
        assert (outcome.code.name, outcome.reason) == ("OK", "")
        return outcome.output

    return runs


def picture(mode, size=(7, 5), color=None, form="PNG", **options):
    file = io.BytesIO()
    Image.new(mode, size, color if color is not None else 0).save(file, form, **options)
    return file.getvalue()


# ---- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "channels", "sample"),
    [
        (picture("RGB", color=(1, 2, 3)), 3, b"\x01\x02\x03"),
        (picture("L", color=77), 1, b"\x4d"),
        (picture("1", color=1), 1, b"\xff"),
        (picture("P", color=0), 3, b"\x00\x00\x00"),
        (picture("RGBA", color=(9, 8, 7, 255)), 3, b"\x09\x08\x07"),
        (picture("RGBA", color=(0, 0, 0, 0)), 3, b"\xff\xff\xff"),
        (picture("LA", color=(50, 255)), 1, b"\x32"),
        (picture("I;16", color=0x8001), 1, b"\x80"),
        (picture("CMYK", form="JPEG", quality=100), 3, b"\xff\xff\xff"),
        (picture("RGB", color=(255, 255, 255), form="BMP"), 3, b"\xff\xff\xff"),
    ],
)
def test_pictures_become_rasters(file, channels, sample):
    raster = Raster.from_file(file)
    assert (raster.width, raster.height, raster.channels) == (7, 5, channels)
    assert raster.samples == sample * 35


def test_a_raster_survives_png():
    raster = Raster(3, 2, 3, bytes(range(18)))
    assert Raster.from_file(raster.to_png()) == raster
    gray = Raster(3, 2, 1, bytes(range(6)))
    assert Raster.from_file(gray.to_png()) == gray


def test_a_turned_photo_stands_upright():
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    raster = Raster.from_file(file.getvalue())
    assert (raster.width, raster.height) == (2, 4)


@pytest.mark.parametrize("file", [b"", b"not a picture", picture("RGB")[:40], b"<svg/>"])
def test_what_is_no_picture_is_refused(file):
    with pytest.raises(Refused) as failure:
        Raster.from_file(file)
    assert failure.value.field == "FILE"


def test_too_large_a_picture_is_refused_before_it_is_decoded(monkeypatch):
    file = picture("RGB", (3000, 2000))
    monkeypatch.setattr(images, "_flat", lambda *_: pytest.fail("decoded"))
    with pytest.raises(TooLarge, match="3000 x 2000"):
        Raster.from_file(file)
    assert MAX_SAMPLES < 3000 * 2000 * 3


@pytest.mark.parametrize(
    "octets", [b"", bytes(12), struct.pack("<III", 2, 2, 2) + bytes(8), struct.pack("<III", 2, 2, 1) + bytes(3)]
)
def test_octets_that_are_no_raster_are_refused(octets):
    with pytest.raises(WireError):
        Raster.from_octets(octets)


def test_the_shipped_photo_is_what_its_script_makes():
    shipped, made = Raster.from_file(photo()), Raster.from_file(make_photo.png())
    assert shipped == made
    assert (shipped.width, shipped.height, shipped.channels) == (320, 240, 3)
    assert len(photo()) < 60_000


# ---- orders and results ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "options"), [("sobel", {}), ("blur", {"radius": "3"})])
def test_a_photo_goes_through_a_picture_kernel(compute, kernel, options):
    order = order_for_kernel(kernel, photo(), options)
    assert order.label == kernel
    output = compute(order)
    assert verify_output(kernel, order.plaintext, output)
    content, suffix = from_kernel_output(kernel, output)
    assert suffix == ".png"
    made = Raster.from_file(content)
    assert (made.width, made.height, made.channels) == (320, 240, 1 if kernel == "sobel" else 3)
    assert made.samples == output[12:]


def test_matrices_from_json(compute):
    file = json.dumps({"a": [[1, 2], [3, 4], [5, 6]], "b": [[10], [0.5]]}).encode()
    output = compute(order_for_kernel("matmul", file, {}))
    content, suffix = from_kernel_output("matmul", output)
    assert suffix == ".json"
    assert json.loads(content) == {"m": 3, "n": 1, "c": [[11.0], [32.0], [53.0]]}


def test_matrices_are_drawn_if_there_is_no_file(compute):
    order = order_for_kernel("matmul", b"", {"m": 5, "k": "6", "n": 7, "seed": 1})
    assert verify_output("matmul", order.plaintext, compute(order))
    assert to_kernel_input("matmul", b"", {"seed": 1}) == to_kernel_input("matmul", b"", {"seed": "0x1"})
    assert to_kernel_input("matmul", b"", {"seed": 1}) != to_kernel_input("matmul", b"", {"seed": 2})


def test_a_header_is_solved(compute):
    order = order_for_kernel("hashpuzzle", b"block 7", {"bits": "9"})
    output = compute(order)
    assert verify_output("hashpuzzle", order.plaintext, output)
    document = json.loads(from_kernel_output("hashpuzzle", output)[0])
    assert document["found"]
    assert int(document["digest"], 16) < 1 << (256 - 9)


def test_a_token_is_checked(compute):
    leaves = [bytes([i]) * 52 + keccak(b"doc") for i in range(3)]
    file = {
        "root": "0x" + merkle_root(leaves).hex(), "token": "0x" + "02" * 32, "owner": "02" * 20, "index": 2, "count": 3,
        "path": [step.hex() for step in merkle_path(leaves, 2)], "metadata": "doc",
    }  # fmt: skip
    order = order_for_kernel("nftcheck", json.dumps(file).encode(), {})
    output = compute(order)
    assert verify_output("nftcheck", order.plaintext, output)
    document = json.loads(from_kernel_output("nftcheck", output)[0])
    assert document["valid"]
    assert document["root"] == merkle_root(leaves).hex()


@pytest.mark.parametrize("kernel", ["spin", "cachemiss"])
def test_loads_need_no_file(compute, kernel):
    order = order_for_kernel(kernel, b"ignored", {"seed": 5, **({"rounds": 99} if kernel == "spin" else {"steps": 99})})
    output = compute(order)
    assert verify_output(kernel, order.plaintext, output)
    assert json.loads(from_kernel_output(kernel, output)[0])["value"] == int.from_bytes(output, "little")


@pytest.mark.parametrize("kernel", kernels.names())
def test_demos_run_within_their_limits_and_are_right(compute, kernel):
    plaintext = demo_input(kernel, 3)
    assert plaintext == demo_input(kernel, 3)
    assert plaintext != demo_input(kernel, 4)
    output = compute(order_for_input(kernel, plaintext))
    assert verify_output(kernel, plaintext, output)
    from_kernel_output(kernel, output)


@pytest.mark.parametrize("kernel", kernels.names())
def test_a_forged_result_is_noticed(compute, kernel):
    plaintext = demo_input(kernel, 8)
    output = bytearray(compute(order_for_input(kernel, plaintext)))
    output[-1] ^= 1
    assert not verify_output(kernel, plaintext, bytes(output))
    assert not verify_output(kernel, plaintext, bytes(output[:-1]))
    assert not verify_output(kernel, plaintext, b"")


def test_a_puzzle_that_skips_a_solution_is_noticed(compute):
    plaintext = to_kernel_input("hashpuzzle", b"header", {"bits": 3, "max_tries": 500})
    first = struct.unpack_from("<IQQ", compute(order_for_input("hashpuzzle", plaintext)))
    task = TaskInput.unpack(plaintext)
    later = kernels.load("hashpuzzle").manifest.pack({"bits": 3, "start": first[2] + 1, "max_tries": 500})
    _, _, nonce, digest = struct.unpack(
        "<IQQ32s", compute(order_for_input("hashpuzzle", TaskInput(later, task.data).pack()))
    )
    assert not verify_output("hashpuzzle", plaintext, struct.pack("<IQQ32s", 1, nonce + 1, nonce, digest))


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "file", "options", "field"),
    [
        ("sobel", photo(), {"width": 5}, "width"),
        ("sobel", photo(), {"radius": 5}, "radius"),
        ("blur", photo(), {"radius": "wide"}, "radius"),
        ("blur", photo(), {"radius": 65}, "radius"),
        ("blur", picture("RGB", (3, 3)), {"radius": 3}, "radius"),
        ("matmul", b"{}", {}, "FILE"),
        ("matmul", b"[", {}, "FILE"),
        ("matmul", b'{"a": [[1]], "b": [[1]], "c": 1}', {}, "FILE"),
        ("matmul", b'{"a": [], "b": [[1]]}', {}, "a"),
        ("matmul", b'{"a": [[1, 2], [3]], "b": [[1], [1]]}', {}, "a"),
        ("matmul", b'{"a": [[1, 2]], "b": [[1]]}', {}, "b"),
        ("matmul", b'{"a": [[1]], "b": [[1]]}', {"m": 1}, "m"),
        ("matmul", b"", {"m": 4096}, "m"),
        ("hashpuzzle", b"", {"bits": 65}, "bits"),
        ("nftcheck", b"{}", {}, "FILE"),
        ("nftcheck", b"{}", {"index": 1}, "index"),
        ("spin", b"", {"steps": 1}, "steps"),
    ],
)
def test_bad_files_and_options_are_refused_by_name(kernel, file, options, field):
    with pytest.raises(Refused) as failure:
        to_kernel_input(kernel, file, options)
    assert failure.value.field == field


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(Refused):
        to_kernel_input("matmul", b'{"a": [[1e999]], "b": [[1]]}', {})


def test_bad_hex_in_a_token_is_refused_by_place():
    file = {
        "root": "00" * 32,
        "token": "00" * 32,
        "owner": "00" * 20,
        "index": 0,
        "count": 2,
        "path": ["zz"],
        "metadata": "",
    }
    with pytest.raises(Refused) as failure:
        to_kernel_input("nftcheck", json.dumps(file).encode(), {})
    assert failure.value.field == "path[0]"


def test_unknown_kernels_are_not_found():
    for attempt in (
        lambda: to_kernel_input("mandelbrot", b"", {}),
        lambda: demo_input("mandelbrot", 1),
        lambda: verify_output("mandelbrot", b"", b""),
    ):
        with pytest.raises(NotFound):
            attempt()


@pytest.mark.parametrize("kernel", kernels.names())
def test_octets_that_are_no_result_are_refused(kernel):
    with pytest.raises(WireError):
        from_kernel_output(kernel, b"\x01\x02\x03")


def test_modules_of_ones_own():
    order = order_for_module(
        b"\0asm\x01\0\0\0", b"stdin", {"args": "--fast x=1"}, fuel_limit=5, output_octets=6, memory_pages=7
    )
    assert (order.fuel_limit, order.output_octets, order.memory_pages, order.label) == (5, 6, 7, "")
    assert TaskInput.unpack(order.plaintext) == TaskInput(b"--fast\0x=1", b"stdin")
    assert from_kernel_output("", b"raw") == (b"raw", ".bin")
    with pytest.raises(Refused, match="binary"):
        order_for_module(b"(module)", b"", {}, fuel_limit=5, output_octets=6, memory_pages=7)
    with pytest.raises(Refused, match="args only"):
        order_for_module(b"\0asm", b"", {"radius": 3}, fuel_limit=5, output_octets=6, memory_pages=7)
