"""Shipped kernels: binaries are what the sources give, results are right, bounds hold for every accepted input."""

import hashlib
import math
import random
import struct

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgora.client.checks import verify_output
from edgora.compute.engine import assemble
from edgora.compute.kernels import check, recipe, source
from edgora.compute.kernels.__main__ import main
from edgora.compute.limits import MAX_FUEL, MAX_MEMORY_PAGES, MAX_OUTPUT, Limits
from edgora.wire import kernels
from edgora.wire.errors import NotFound, Refused
from edgora.wire.hashing import keccak, merkle_path, merkle_root
from edgora.wire.inputs import TaskInput
from edgora.wire.market import ResultCode

R = ResultCode


@pytest.fixture(scope="session")
def call(sandbox):
    """call(name, values, data) -> Outcome under exactly the manifest's bounds, or under the widest ones."""

    def calls(name, values, data=b"", *, wide=False):
        kernel = kernels.load(name)
        manifest, octets = kernel.manifest, len(data)
        limits = Limits(
            MAX_FUEL if wide else manifest.fuel_limit(octets, values),
            MAX_MEMORY_PAGES if wide else manifest.memory_pages(octets, values),
            MAX_OUTPUT if wide else manifest.output_octets(octets, values),
            60_000,
        )
        return sandbox.run(kernel.wasm, TaskInput(manifest.pack(values), data).pack(), limits, digest=kernel.digest)

    return calls


def right(name, values, data, outcome):
    assert (outcome.code, outcome.reason) == (R.OK, "")
    plaintext = TaskInput(kernels.load(name).manifest.pack(values), data).pack()
    return verify_output(name, plaintext, outcome.output)


relaxed = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# ---- the recipe ------------------------------------------------------------------------------------------------------


def test_committed_binaries_are_what_their_sources_give():
    assert check() == []


def test_a_stale_binary_is_named(monkeypatch):
    monkeypatch.setattr(recipe, "binary", lambda name: assemble(source("spin" if name == "sobel" else name)))
    assert check() == ["sobel"]


def test_build_writes_binaries_and_digests_that_the_manifests_lack(monkeypatch, tmp_path):
    for name in kernels.names():
        manifest = (recipe._TARGET / f"{name}.json").read_text()
        (tmp_path / f"{name}.json").write_text(manifest.replace(kernels.load(name).manifest.digest, "00" * 32))
    committed = recipe._TARGET
    monkeypatch.setattr(recipe, "_TARGET", tmp_path)
    assert main(["build"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        p.name for p in committed.iterdir() if p.suffix in {".json", ".wasm"}
    }
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (committed / path.name).read_bytes()


def test_the_recipe_s_command_says_what_is_stale(monkeypatch, capsys):
    assert main(["check"]) == 0
    monkeypatch.setattr(recipe, "binary", lambda _: assemble(source("spin")))
    assert main(["check"]) == 1
    assert "sobel" in capsys.readouterr().err
    assert main(["bake"]) == 2


@pytest.mark.parametrize("name", kernels.names())
def test_manifests_name_their_binary(name):
    kernel = kernels.load(name)
    assert kernel.manifest.name == name
    assert kernel.digest == keccak(kernel.wasm)
    assert kernel.manifest.splittable == (name in {"blur", "matmul", "sobel"})
    arguments = {argument.name for argument in kernel.manifest.arguments}
    for bound in (kernel.manifest.fuel, kernel.manifest.output, kernel.manifest.memory):
        for term in bound.terms:
            assert set(term.of) <= arguments


def test_an_unknown_kernel_is_named_with_the_known_ones():
    with pytest.raises(NotFound, match="sobel"):
        kernels.load("../sobel")


# ---- arguments -------------------------------------------------------------------------------------------------------


def test_arguments_pack_little_endian_in_order_with_defaults():
    manifest = kernels.load("hashpuzzle").manifest
    packed = manifest.pack({"start": 2, "max_tries": 3})
    assert packed == struct.pack("<IQQ", 12, 2, 3)
    assert manifest.unpack(packed) == {"bits": 12, "start": 2, "max_tries": 3}
    assert manifest.arguments_octets == 20


@pytest.mark.parametrize(
    ("name", "values", "field"),
    [
        ("sobel", {"width": 1, "height": 1}, "channels"),
        ("sobel", {"width": 0, "height": 1, "channels": 1}, "width"),
        ("sobel", {"width": 1, "height": 1, "channels": 1, "depth": 8}, "depth"),
        ("blur", {"width": 9, "height": 9, "channels": 1, "radius": 65}, "radius"),
        (
            "nftcheck",
            {"root": b"short", "token": bytes(32), "owner": bytes(20), "index": 0, "count": 1, "levels": 0},
            "root",
        ),
        ("nftcheck", {"root": 7, "token": bytes(32), "owner": bytes(20), "index": 0, "count": 1, "levels": 0}, "root"),
        ("spin", {"rounds": b"many"}, "rounds"),
    ],
)
def test_bad_arguments_are_refused_by_name(name, values, field):
    with pytest.raises(Refused) as failure:
        kernels.load(name).manifest.pack(values)
    assert failure.value.field == field


def test_arguments_of_another_length_are_refused():
    with pytest.raises(Refused, match="12"):
        kernels.load("sobel").manifest.unpack(bytes(11))


# ---- pictures --------------------------------------------------------------------------------------------------------

sides = st.integers(1, 40)


@relaxed
@given(width=sides, height=sides, channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
@example(width=1, height=1, channels=1, seed=0)
@example(width=1, height=500, channels=3, seed=1)
@example(width=500, height=1, channels=1, seed=2)
def test_sobel_is_right_within_its_bounds(call, width, height, channels, seed):
    values = {"width": width, "height": height, "channels": channels}
    data = random.Random(seed).randbytes(width * height * channels)
    assert right("sobel", values, data, call("sobel", values, data))


@relaxed
@given(st.data(), st.integers(2, 40), st.integers(2, 40), st.sampled_from([1, 3]), st.integers(0, 99))
def test_blur_is_right_within_its_bounds(call, data, width, height, channels, seed):
    values = {
        "width": width, "height": height, "channels": channels,
        "radius": data.draw(st.integers(1, min(width, height) - 1)),
    }  # fmt: skip
    samples = random.Random(seed).randbytes(width * height * channels)
    assert right("blur", values, samples, call("blur", values, samples))


def test_blur_at_its_largest_radius(call):
    values = {"width": 70, "height": 66, "channels": 3, "radius": 64}
    data = random.Random(3).randbytes(70 * 66 * 3)
    assert right("blur", values, data, call("blur", values, data))


def test_pictures_of_the_largest_size_fit_memory_and_output(call):
    side = 2360  # 16.7 million samples, just below 16 MiB
    data = bytes(side * side * 3)
    edges = call("sobel", {"width": side, "height": side, "channels": 3}, data)
    assert (edges.code, len(edges.output)) == (R.OK, 12 + side * side)
    blurred = call("blur", {"width": side, "height": side, "channels": 3, "radius": 2}, data)
    assert (blurred.code, len(blurred.output)) == (R.OK, 12 + len(data))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("sobel", struct.pack("<III", 2, 2, 2)), ("sobel", struct.pack("<III", 0, 2, 1)),
        ("sobel", struct.pack("<III", 2, 3, 1)), ("sobel", struct.pack("<III", 65536, 65536, 1)),
        ("sobel", b""), ("blur", struct.pack("<IIII", 2, 2, 1, 0)), ("blur", struct.pack("<IIII", 2, 2, 1, 2)),
        ("blur", struct.pack("<IIII", 2, 2, 1, 65)), ("blur", struct.pack("<III", 2, 2, 1)),
        ("matmul", struct.pack("<III", 1, 0, 1)), ("matmul", struct.pack("<III", 2049, 1, 1)),
        ("matmul", struct.pack("<III", 1, 1, 1)), ("matmul", b""), ("hashpuzzle", struct.pack("<IQQ", 65, 0, 1)),
        ("hashpuzzle", struct.pack("<IQQ", 1, 0, 0)), ("hashpuzzle", b""), ("spin", b""), ("cachemiss", b""),
        ("cachemiss", struct.pack("<IQQ", 0, 1, 1)), ("cachemiss", struct.pack("<IQQ", 1001, 1, 1)),
        ("nftcheck", bytes(91)), ("nftcheck", bytes(92) + struct.pack("<I", 33)),
        ("nftcheck", bytes(92) + struct.pack("<I", 1)),
    ],
)  # fmt: skip
def test_arguments_that_a_kernel_does_not_take_end_at_unreachable(sandbox, name, args):
    kernel = kernels.load(name)
    data = b"" if name in {"hashpuzzle", "spin", "cachemiss"} or len(args) < 12 else bytes(4)
    outcome = sandbox.run(
        kernel.wasm, TaskInput(args, data).pack(), Limits(10**9, 1024, 1 << 20, 60_000), digest=kernel.digest
    )
    assert (outcome.code, outcome.reason) == (R.TRAP, "unreachable")
    assert outcome.fuel_used < 200


# ---- matrices --------------------------------------------------------------------------------------------------------


def doubles(*numbers):
    return struct.pack(f"<{len(numbers)}d", *numbers)


@relaxed
@given(m=st.integers(1, 14), k=st.integers(1, 14), n=st.integers(1, 14), seed=st.integers(0, 99))
def test_matmul_is_right_to_the_bit_within_its_bounds(call, m, k, n, seed):
    draw = random.Random(seed)
    values, data = {"m": m, "k": k, "n": n}, doubles(*(draw.uniform(-1e6, 1e6) for _ in range(k * (m + n))))
    assert right("matmul", values, data, call("matmul", values, data))


def test_matmul_by_hand(call):
    outcome = call("matmul", {"m": 2, "k": 3, "n": 1}, doubles(1, 2, 3, 4, 5, 6, 10, 100, 1000))
    assert outcome.output == struct.pack("<II", 2, 1) + doubles(3210, 6540)


def test_a_large_product_is_checked_by_projection(call):
    draw = random.Random(5)
    values = {"m": 130, "k": 140, "n": 150}
    data = doubles(*(draw.gauss(0, 1) for _ in range(140 * 280)))
    outcome = call("matmul", values, data)
    assert right("matmul", values, data, outcome)
    forged = bytearray(outcome.output)
    at = 8 + 8 * (77 * 150 + 33)
    forged[at : at + 8] = doubles(struct.unpack_from("<d", forged, at)[0] + 1e-6)
    plaintext = TaskInput(kernels.load("matmul").manifest.pack(values), data).pack()
    assert not verify_output("matmul", plaintext, bytes(forged))


# ---- hashes ----------------------------------------------------------------------------------------------------------


@relaxed
@given(header=st.binary(max_size=300), bits=st.integers(0, 9), start=st.integers(0, 2**64 - 1))
@example(header=bytes(47), bits=4, start=2**64 - 2)
@example(header=bytes(48), bits=4, start=0)
@example(header=bytes(55), bits=4, start=0)
@example(header=bytes(64), bits=4, start=0)
def test_hashpuzzle_finds_the_first_nonce_within_its_bounds(call, header, bits, start):
    values = {"bits": bits, "start": start, "max_tries": 8192}
    outcome = call("hashpuzzle", values, header)
    assert right("hashpuzzle", values, header, outcome)
    found, tries, nonce, digest = struct.unpack("<IQQ32s", outcome.output)
    assert found == 1
    assert digest == hashlib.sha256(header + nonce.to_bytes(8, "big")).digest()
    assert nonce == (start + tries - 1) % 2**64


def test_hashpuzzle_gives_up_and_says_so(call):
    for header in (b"h" * 10, b"h" * 50):
        values = {"bits": 64, "start": 9, "max_tries": 500}
        outcome = call("hashpuzzle", values, header)
        assert right("hashpuzzle", values, header, outcome)
        assert struct.unpack_from("<IQQ", outcome.output) == (0, 500, 508)


@relaxed
@given(st.data(), st.integers(1, 20), st.binary(max_size=700), st.integers(0, 3))
def test_nftcheck_agrees_with_the_ledgers_tree(call, data, count, document, forgery):
    draw = random.Random(count)
    tokens = [draw.randbytes(52) for _ in range(count)]
    at = data.draw(st.integers(0, count - 1))
    leaves = [token + keccak(document if i == at else b"") for i, token in enumerate(tokens)]
    root, path = merkle_root(leaves), merkle_path(leaves, at)
    genuine = True
    if forgery == 1:
        document, genuine = document + b"!", False
    elif forgery == 2:
        path, genuine = [*path, bytes(32)], False
    elif forgery == 3:
        at, genuine = at + count, False
    values = {
        "root": root, "token": tokens[at % count][:32], "owner": tokens[at % count][32:], "index": at, "count": count,
        "levels": len(path),
    }  # fmt: skip
    octets = b"".join(path) + document
    outcome = call("nftcheck", values, octets)
    assert right("nftcheck", values, octets, outcome)
    assert outcome.output[0] == genuine
    assert outcome.output[1:33] == keccak(document)


def test_nftcheck_with_a_path_that_is_too_short(call):
    leaves = [bytes(52) + keccak(b"")] * 4
    values = {"root": merkle_root(leaves), "token": bytes(32), "owner": bytes(20), "index": 1, "count": 4, "levels": 1}
    data = merkle_path(leaves, 1)[0]
    outcome = call("nftcheck", values, data)
    assert right("nftcheck", values, data, outcome)
    assert outcome.output[0] == 0


# ---- loads -----------------------------------------------------------------------------------------------------------


@relaxed
@given(rounds=st.integers(0, 3000), seed=st.integers(0, 2**64 - 1))
def test_spin_is_right_within_its_bounds(call, rounds, seed):
    values = {"rounds": rounds, "seed": seed}
    assert right("spin", values, b"", call("spin", values))


@settings(max_examples=25, deadline=None)
@given(pages=st.integers(1, 40), steps=st.integers(0, 2000), seed=st.integers(0, 2**64 - 1))
@example(pages=1000, steps=1, seed=1)
def test_cachemiss_is_right_within_its_bounds(call, pages, steps, seed):
    values = {"pages": pages, "steps": steps, "seed": seed}
    assert right("cachemiss", values, b"", call("cachemiss", values))


def test_calls_that_are_too_long_to_recompute_are_refused(call):
    plaintext = TaskInput(kernels.load("spin").manifest.pack({"rounds": 10**9}), b"").pack()
    with pytest.raises(Refused, match="rounds"):
        verify_output("spin", plaintext, bytes(8))


# ---- bounds are tight ------------------------------------------------------------------------------------------------


TYPICAL = {
    "sobel": ({"width": 320, "height": 240, "channels": 3}, 320 * 240 * 3),
    "blur": ({"width": 320, "height": 240, "channels": 3, "radius": 4}, 320 * 240 * 3),
    "matmul": ({"m": 64, "k": 64, "n": 64}, 8 * 64 * 128),
    "hashpuzzle": ({"bits": 64, "start": 0, "max_tries": 500}, 60),
    "nftcheck": (
        {"root": bytes(32), "token": bytes(32), "owner": bytes(20), "index": 0, "count": 1024, "levels": 10}, 2320,
    ),
    "spin": ({"rounds": 100_000, "seed": 1}, 0),
    "cachemiss": ({"pages": 100, "steps": 10_000, "seed": 1}, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", kernels.names())
def test_what_is_reserved_is_hardly_more_than_what_is_used(call, name):
    """A bound that is far too high would take a server's room from others; 10 % is the promise."""
    values, octets = TYPICAL[name]
    data = bytes(octets)
    outcome = call(name, values, data, wide=True)
    manifest = kernels.load(name).manifest
    assert outcome.code is R.OK
    assert outcome.fuel_used <= manifest.fuel_limit(octets, values) < 1.1 * outcome.fuel_used


@pytest.mark.parametrize("name", kernels.names())
def test_fuel_does_not_depend_on_the_content(call, name):
    """Bounds are linear in sizes because no branch looks at the data; a puzzle's end is the one exception."""
    values, octets = TYPICAL[name]
    used = {call(name, values, random.Random(seed).randbytes(octets)).fuel_used for seed in range(3)}
    spread = max(used) - min(used)
    assert spread == 0 or (name == "nftcheck" and math.isclose(max(used), min(used), rel_tol=0.01))
