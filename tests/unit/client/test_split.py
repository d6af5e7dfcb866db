"""A call in two parts gives, octet for octet, what the whole call gives: for every kernel that says it can be split."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.client.checks import verify_output
from edgora.client.kernels import demo_input, order_for_input
from edgora.client.split import SplitRefused, split, splittable
from edgora.compute.limits import Limits
from edgora.compute.sandbox import Sandbox
from edgora.wire import kernels
from edgora.wire.errors import WireError
from edgora.wire.inputs import TaskInput
from edgora.wire.market import ResultCode
from edgora.wire.units import Fuel, Millis, Octets

SANDBOX = Sandbox()


def run(kernel: str, plaintext: bytes) -> bytes:
    order = order_for_input(kernel, plaintext)
    limits = Limits(Fuel(order.fuel_limit), order.memory_pages, Octets(order.output_octets), Millis(60_000))
    loaded = kernels.load(kernel)
    outcome = SANDBOX.run(loaded.wasm, plaintext, limits, digest=loaded.digest)
    assert outcome.code is ResultCode.OK, outcome.reason
    return outcome.output


def call(kernel: str, data: bytes, **values: int) -> bytes:
    return TaskInput(kernels.load(kernel).manifest.pack(values), data).pack()


def same_in_parts(kernel: str, plaintext: bytes, share: float) -> None:
    halves = split(kernel, plaintext, share)
    assert 0 < halves.share < 1
    merged = halves.merge(run(kernel, halves.remote), run(kernel, halves.local))
    assert merged == run(kernel, plaintext)
    assert verify_output(kernel, plaintext, merged)


shares = st.floats(0, 1)
quick = settings(max_examples=40, deadline=None)


@quick
@given(st.integers(2, 9), st.integers(1, 6), st.integers(1, 6), shares, st.randoms(use_true_random=False))
def test_rows_of_a_product(m: int, k: int, n: int, share: float, draw) -> None:
    numbers = [draw.uniform(-9, 9) for _ in range(k * (m + n))]
    same_in_parts("matmul", call("matmul", struct.pack(f"<{len(numbers)}d", *numbers), m=m, k=k, n=n), share)


@quick
@given(st.integers(1, 9), st.integers(2, 12), st.sampled_from([1, 3]), shares, st.randoms(use_true_random=False))
def test_strips_of_edges(width: int, height: int, channels: int, share: float, draw) -> None:
    data = draw.randbytes(width * height * channels)
    same_in_parts("sobel", call("sobel", data, width=width, height=height, channels=channels), share)


@quick
@given(st.data(), st.integers(2, 12), st.integers(2, 12), st.sampled_from([1, 3]), shares)
def test_strips_of_a_blur_with_any_radius(choose, width: int, height: int, channels: int, share: float) -> None:
    radius = choose.draw(st.integers(1, min(width, height) - 1))
    data = choose.draw(st.randoms(use_true_random=False)).randbytes(width * height * channels)
    plaintext = call("blur", data, width=width, height=height, channels=channels, radius=radius)
    same_in_parts("blur", plaintext, share)


@pytest.mark.parametrize("name", kernels.names())
def test_a_kernel_is_split_exactly_where_its_manifest_says_so(name: str) -> None:
    plaintext = demo_input(name, 3)
    if splittable(name):
        halves = split(name, plaintext, 0.75)
        assert halves.share == pytest.approx(0.75, abs=0.02)
        assert len(halves.remote) < len(plaintext)
        assert len(halves.local) < len(halves.remote)
        same_in_parts(name, plaintext, 0.75)
    else:
        with pytest.raises(SplitRefused, match=name):
            split(name, plaintext, 0.75)


def test_one_row_and_foreign_kernels_are_refused() -> None:
    with pytest.raises(SplitRefused, match="one row"):
        split("sobel", call("sobel", b"abc", width=3, height=1, channels=1), 0.5)
    with pytest.raises(SplitRefused, match="my-own cannot"):
        split("my-own", b"", 0.5)


def test_outputs_of_other_parts_do_not_merge() -> None:
    plaintext = demo_input("sobel", 1)
    halves = split("sobel", plaintext, 0.5)
    remote, local = run("sobel", halves.remote), run("sobel", halves.local)
    for wrong in (b"", remote[:-1], remote + b"\0", run("sobel", plaintext)):
        with pytest.raises(WireError):
            halves.merge(wrong, local)
        with pytest.raises(WireError):
            halves.merge(remote, wrong)
