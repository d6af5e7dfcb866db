"""A UE's own processor: it runs its parts of split tasks in the same sandbox as servers do, paced to its clock.

One task at a time, each at the clock that the plan gave it; a run cannot be sliced, so it is paced as on a server
(ports.runner). The sandbox is shared by all UEs of a process: what they compile is the same few kernels.
"""

import time
from typing import NamedTuple

from edgora.adapters.pool_runner import PoolRunner
from edgora.client.kernels import order_for_input
from edgora.compute.limits import MAX_WALL_MS, Limits
from edgora.compute.sandbox import Sandbox
from edgora.ports.runner import Job
from edgora.wire.errors import Unavailable
from edgora.wire.kernels import load
from edgora.wire.market import ResultCode
from edgora.wire.units import Fuel, Millis, Octets

__all__ = ["Device", "LocalRun"]


class LocalRun(NamedTuple):
    output: bytes
    fuel_used: int
    ms: float
    """From its start to its end at the UE's pace, waiting for earlier parts included."""


class Device:
    """One UE's processor. Belongs to one event loop."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._runner = PoolRunner(sandbox, 1)

    async def run(self, kernel: str, plaintext: bytes, speed: int) -> LocalRun:
        """A part of a call of a shipped kernel at so many fuel/s. Raises Unavailable if it has no result."""
        begun = time.monotonic()
        order, loaded = order_for_input(kernel, plaintext), load(kernel)
        limits = Limits(
            Fuel(order.fuel_limit), order.memory_pages, Octets(order.output_octets), Millis(MAX_WALL_MS)
        )  # fmt: skip
        outcome = await self._runner.run(Job(loaded.digest, loaded.wasm, plaintext, limits, speed))
        if outcome.code is not ResultCode.OK:
            raise Unavailable(f"the UE's own part ended {outcome.code.name}: {outcome.reason}", field="local")
        return LocalRun(outcome.output, int(outcome.fuel_used), 1000.0 * (time.monotonic() - begun))

    async def close(self) -> None:
        await self._runner.close()
