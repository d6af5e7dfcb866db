"""How fast this machine runs the shipped kernels, and how tight their fuel bounds are."""

import random
import time
from typing import Final

from edgora.compute.engine import ENGINE, compile_module
from edgora.compute.limits import MAX_FUEL, MAX_MEMORY_PAGES, MAX_OUTPUT, Limits
from edgora.compute.sandbox import Sandbox
from edgora.wire.inputs import TaskInput
from edgora.wire.kernels import Value, load
from edgora.wire.units import Fuel, Millis, Octets

__all__ = ["table"]

_TOKEN: Final[dict[str, Value]] = {
    "root": bytes(32), "token": bytes(32), "owner": bytes(20), "index": 0, "count": 1 << 20, "levels": 20,
}  # fmt: skip
_CALLS: Final[tuple[tuple[str, dict[str, Value], int], ...]] = (
    ("sobel", {"width": 1920, "height": 1080, "channels": 3}, 1920 * 1080 * 3),
    ("blur", {"width": 1920, "height": 1080, "channels": 3, "radius": 8}, 1920 * 1080 * 3),
    ("matmul", {"m": 512, "k": 512, "n": 512}, 2 * 8 * 512 * 512),
    ("hashpuzzle", {"bits": 64, "start": 0, "max_tries": 50_000}, 80),
    ("nftcheck", _TOKEN, 20 * 32 + 4_000_000),
    ("spin", {"rounds": 50_000_000, "seed": 1}, 0),
    ("cachemiss", {"pages": 960, "steps": 2_000_000, "seed": 1}, 0),
)


def table() -> str:
    """One line a kernel: fuel used, its bound, wall time, fuel/s, time to compile; best of three runs."""
    sandbox = Sandbox()
    limits = Limits(Fuel(MAX_FUEL), MAX_MEMORY_PAGES, Octets(MAX_OUTPUT), Millis(120_000))
    lines = [ENGINE, f"{'kernel':<12}{'fuel':>16}{'bound':>16}{'ms':>9}{'fuel/s':>10}{'compile ms':>12}"]
    for name, values, octets in _CALLS:
        kernel = load(name)
        data = random.Random(1).randbytes(octets)  # noqa: S311 - filler, not a secret
        plaintext = TaskInput(kernel.manifest.pack(values), data).pack()
        begin = time.perf_counter()
        compile_module(kernel.wasm)
        compiled = time.perf_counter() - begin
        sandbox.prepare(kernel.wasm)
        walls, fuel = [], 0
        for _ in range(3):
            begin = time.perf_counter()
            fuel = sandbox.run(kernel.wasm, plaintext, limits, digest=kernel.digest).fuel_used
            walls.append(time.perf_counter() - begin)
        wall, bound = min(walls), kernel.manifest.fuel_limit(octets, values)
        lines.append(f"{name:<12}{fuel:>16,}{bound:>16,}{1e3 * wall:>9.1f}{fuel / wall:>10.1e}{1e3 * compiled:>12.1f}")
    return "\n".join(lines) + "\n"
