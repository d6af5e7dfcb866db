"""Speed: what a server of r fuel/s is, and how fast this machine really is (market.md 9, peers.md 4).

A run cannot be sliced, so it is paced: its result is released at max(wall, fuel / r) after its start. Servers of
different speeds then live on one machine and repeat, as long as r is below what the machine does. That bound is
measured on the kernel that misses the cache with every load, with all slots busy: fuel/s of one machine varies
300-fold between kernels, and an advert that the worst kernel cannot hold would be late at a user's will.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from edgora.compute.limits import MAX_WALL_MS, Limits, Outcome
from edgora.compute.sandbox import Sandbox
from edgora.wire import kernels
from edgora.wire.errors import Unavailable
from edgora.wire.inputs import TaskInput
from edgora.wire.market import ResultCode
from edgora.wire.units import Fuel, Millis

__all__ = ["SlotSpeed", "calibrate", "release_ms"]

SlotSpeed = int
"""Fuel per second of one slot; an advert's `speed`."""

_MARGIN: Final = 4, 5
"""Advertised speed is 4/5 of the measured one: other processes want the machine too."""


def release_ms(fuel_used: Fuel, speed: SlotSpeed, wall_ms: Millis) -> Millis:
    """Milliseconds after a run's start at which a server of this speed gives the result out."""
    if speed <= 0:
        raise ValueError(f"speed is {speed} fuel/s; it must be positive")
    return Millis(max(wall_ms, -(-1000 * fuel_used // speed)))


def calibrate(
    sandbox: Sandbox, slots: int, *, steps: int = 2_000_000, clock: Callable[[], float] = time.perf_counter
) -> SlotSpeed:
    """Fuel/s that each of `slots` slots can promise here: the slowest of them, all busy, less a margin.

    Takes about 0.1 us a step, twice. Raises Unavailable if the kernel does not run.
    """
    kernel = kernels.load("cachemiss")
    speeds: list[float] = []

    def measure(count: int) -> None:
        values = {"pages": 960, "steps": count, "seed": 1}
        plaintext = TaskInput(kernel.manifest.pack(values), b"").pack()
        fuel, memory = kernel.manifest.fuel_limit(0, values), kernel.manifest.memory_pages(0, values)
        limits = Limits(fuel, memory, kernel.manifest.output_octets(0, values), Millis(MAX_WALL_MS))
        begin = clock()
        outcome: Outcome = sandbox.run(kernel.wasm, plaintext, limits, digest=kernel.digest)
        if outcome.code is ResultCode.OK:
            speeds.append(outcome.fuel_used / max(clock() - begin, 1e-9))

    measure(steps // 10)
    speeds.clear()
    threads = [threading.Thread(target=measure, args=(steps,)) for _ in range(slots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(speeds) < slots:
        raise Unavailable("the calibration kernel did not run to its end in every slot")
    return int(min(speeds)) * _MARGIN[0] // _MARGIN[1]
