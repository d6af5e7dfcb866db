"""What the fleet asks for: a shipped kernel on an input drawn from a seed, and how its result is checked."""

from collections.abc import Callable
from typing import NamedTuple

from edgora.client import Order
from edgora.client.checks import verify_output
from edgora.client.kernels import demo_input, order_for_input

__all__ = ["Work", "air_bits", "draw_work"]

_WRAPPING = 2_048
"""Octets that travel with a sealed input or result: keys, offer, header."""


class Work(NamedTuple):
    kernel: str
    order: Order
    check: Callable[[bytes], bool]
    """Whether an output is right, recomputed without the sandbox."""


def air_bits(octets: int) -> float:
    """What an input or a result of this length is on the air: sealed, in base64, within JSON (README.md, Sealing)."""
    return 8.0 * (_WRAPPING + 4.0 * octets / 3.0)


def draw_work(kernel: str, seed: int) -> Work:
    """A task of this kernel that repeats for a seed."""
    plaintext = demo_input(kernel, seed)

    def check(output: bytes) -> bool:
        return verify_output(kernel, plaintext, output)

    return Work(kernel, order_for_input(kernel, plaintext), check)
