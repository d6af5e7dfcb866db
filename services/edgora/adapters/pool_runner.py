"""The runner on a pool of threads (ports.runner).

A thread is enough: the sandbox gives the interpreter lock away while a module runs. A job holds one thread while it
computes and its slot until it is released, so pacing costs a slot but no thread. A cancelled job keeps its slot until
its thread has left the module, which takes one loop iteration of it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from edgora.compute.execution import Stop, Stopped
from edgora.compute.limits import Outcome
from edgora.compute.meter import release_ms
from edgora.compute.module import ModuleInfo
from edgora.compute.sandbox import Sandbox
from edgora.ports.runner import Job
from edgora.wire.errors import Unavailable
from edgora.wire.units import ModuleDigest

__all__ = ["PoolRunner"]


class PoolRunner:
    """`slots` jobs side by side in one process. Belongs to one event loop; the sandbox may be shared."""

    def __init__(
        self,
        sandbox: Sandbox,
        slots: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Tests give a clock and a sleep of their own, both in seconds."""
        if slots < 1:
            raise ValueError(f"{slots} slots; at least one is needed")
        self.slots = slots
        self._sandbox = sandbox
        self._clock = clock
        self._sleep = sleep
        self._free = asyncio.Semaphore(slots)
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="edgora-slot")
        self._running: set[Stop] = set()
        self._closed = False

    async def run(self, job: Job) -> Outcome:
        async with self._free:
            begin = self._clock()
            outcome = await self._compute(job)
            due = release_ms(outcome.fuel_used, job.speed, outcome.wall_ms) / 1000
            early = begin + due - self._clock()
            if early > 0:
                await self._sleep(early)
            return outcome

    async def _compute(self, job: Job) -> Outcome:
        if self._closed:
            raise Unavailable("the runner is closed")
        stop = Stop()
        self._running.add(stop)
        call = partial(self._sandbox.run, job.wasm, job.plaintext, job.limits, digest=job.digest, stop=stop)
        work = asyncio.get_running_loop().run_in_executor(self._pool, call)
        try:
            return await asyncio.shield(work)
        except Stopped:
            raise Unavailable("the runner was closed while the job ran") from None
        except asyncio.CancelledError:
            stop.stop()
            await asyncio.wait((work,))
            work.exception()  # Stopped, or None if it had just ended: either way nobody waits for it any more
            raise
        finally:
            self._running.discard(stop)

    async def prepare(self, wasm: bytes) -> ModuleInfo:
        info = await asyncio.to_thread(self._sandbox.check, wasm)
        await asyncio.to_thread(self._sandbox.prepare, wasm)
        return info

    def knows(self, digest: ModuleDigest) -> bool:
        return self._sandbox.knows(digest)

    async def close(self) -> None:
        self._closed = True
        for stop in self._running:
            stop.stop()
        await asyncio.to_thread(self._pool.shutdown)
