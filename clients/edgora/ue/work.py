"""What the fleet asks for: a shipped kernel on an input drawn from a seed, and how its result is checked."""

from collections.abc import Callable
from typing import NamedTuple

from edgora.client import Order
from edgora.client.checks import verify_output
from edgora.client.kernels import demo_input, order_for_input

__all__ = ["Work", "draw_work"]


class Work(NamedTuple):
    kernel: str
    order: Order
    check: Callable[[bytes], bool]
    """Whether an output is right, recomputed without the sandbox."""


def draw_work(kernel: str, seed: int) -> Work:
    """A task of this kernel that repeats for a seed."""
    plaintext = demo_input(kernel, seed)

    def check(output: bytes) -> bool:
        return verify_output(kernel, plaintext, output)

    return Work(kernel, order_for_input(kernel, plaintext), check)
