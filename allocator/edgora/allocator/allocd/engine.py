"""Where a policy computes: beside the event loop, never in it.

An engine has one job at a time. A caller that cannot wait any longer cancels `solve`; the engine then stays busy until
the job has really ended. A thread cannot be ended from outside, so the service uses a child process, which is killed
when it overruns, and started anew; the embedded run, where every policy is trusted, uses a thread.
"""

import asyncio
import contextlib
import sys
import threading
import time
from dataclasses import dataclass
from typing import Protocol

from edgora.allocator.allocd.frames import Done, Hello, Job, frame, read_frame_async
from edgora.allocator.live import LivePolicy, propose
from edgora.wire.codec import decode, encode
from edgora.wire.errors import Refused, Unavailable
from edgora.wire.market import Allocation, Instance, Reason

__all__ = ["Engine", "ProcessEngine", "ThreadEngine"]

Outcome = Allocation | Reason

_RESPAWN_S = 1.0
"""Pause before another try to start a child that did not come up."""


class Engine(Protocol):
    policy: str
    """Name of the policy that it runs."""

    async def start(self) -> None:
        """Be ready for jobs. Raises Refused if the policy cannot be served, ever."""
        ...

    def busy_ms(self) -> int | None:
        """How long a job has been running, or None if the engine is free. `solve` only when it is free."""
        ...

    async def solve(self, instance: Instance, budget_ms: int) -> Outcome:
        """The policy's answer. May be cancelled; raises Unavailable if the computation was lost."""
        ...

    async def close(self) -> None: ...


class ThreadEngine:
    """Runs the policy in a thread of this process."""

    def __init__(self, policy: LivePolicy, *, floor_bps: int = 10_000) -> None:
        self.policy = policy.name
        self._policy, self._floor_bps = policy, floor_bps
        self._since: float | None = None

    async def start(self) -> None:
        """Nothing to start."""

    def busy_ms(self) -> int | None:
        since = self._since
        return None if since is None else int((time.monotonic() - since) * 1000.0)

    async def solve(self, instance: Instance, budget_ms: int) -> Outcome:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()

        def deliver(outcome: Outcome) -> None:
            if not answer.done():
                answer.set_result(outcome)

        def work() -> None:
            try:
                outcome = propose(instance, self._policy, budget_ms / 1000.0, floor_bps=self._floor_bps)
            except Exception as error:
                outcome = Reason("FAILED", f"{self.policy}: {error!r}"[:300], (instance.round,))
            self._since = None
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(deliver, outcome)

        self._since = time.monotonic()
        # A daemon: a policy that never ends must not hold the process at its exit.
        threading.Thread(target=work, name=f"policy-{self.policy}", daemon=True).start()
        return await answer

    async def close(self) -> None:
        """A running job is left to end by itself."""


@dataclass(slots=True)
class _Running:
    """The job that the child has; its future holds None if the child was lost."""

    number: int
    outcome: asyncio.Future[Outcome | None]
    overdue: asyncio.TimerHandle


class ProcessEngine:
    """Runs the policy in a child process; kills it `grace_ms` after a job's budget, and starts another whenever it ends."""

    def __init__(self, policy: str, *, seed: int = 0, floor_bps: int = 10_000, grace_ms: int = 1_000) -> None:
        self.policy = policy
        self._arguments = (policy, str(seed), str(floor_bps))
        self._grace_ms = grace_ms
        self._child: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._job: _Running | None = None
        self._jobs = 0
        self._since: float | None = time.monotonic()
        self.lost = 0
        """Child processes that ended, killed or by themselves, while the engine was open."""

    async def start(self) -> None:
        await self._spawn()
        self._supervisor = asyncio.create_task(self._supervise())

    def busy_ms(self) -> int | None:
        return None if self._since is None else int((time.monotonic() - self._since) * 1000.0)

    async def solve(self, instance: Instance, budget_ms: int) -> Outcome:
        child, loop = self._child, asyncio.get_running_loop()
        if child is None or child.stdin is None or self._since is not None:
            raise Unavailable(f"the process of policy {self.policy} is not free")
        self._jobs += 1
        self._since = time.monotonic()
        overdue = loop.call_later((budget_ms + self._grace_ms) / 1000.0, self._kill)
        job = self._job = _Running(self._jobs, loop.create_future(), overdue)
        child.stdin.write(frame(encode(Job(job.number, instance, budget_ms))))
        # Shielded: when the caller gives up, the job goes on until it ends or is killed, and the engine stays busy.
        outcome = await asyncio.shield(job.outcome)
        if outcome is None:
            raise Unavailable(f"the process of policy {self.policy} ended")
        return outcome

    async def close(self) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        self._kill()
        if self._child is not None:
            await self._child.wait()
        self._finish(None)

    async def _spawn(self) -> None:
        child = self._child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edgora.allocator.allocd.child", *self._arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert child.stdout is not None
        data = await read_frame_async(child.stdout)
        hello = None if data is None else decode(data, Hello)
        if hello is None or hello.refused is not None:
            code = await child.wait()
            detail = hello.refused if hello else f"its process ended with code {code}"
            raise Refused(f"policy {self.policy} cannot be served: {detail}", field="policy")
        self._since = None

    async def _supervise(self) -> None:
        while True:
            await self._read()
            self._finish(None)
            self._since = time.monotonic()
            self.lost += 1
            with contextlib.suppress(Refused):  # it was served before: try again, busy meanwhile
                await self._spawn()
            if self._since is not None:
                await asyncio.sleep(_RESPAWN_S)

    async def _read(self) -> None:
        """Deliver the child's answers until it ends."""
        assert self._child is not None
        assert self._child.stdout is not None
        while (data := await read_frame_async(self._child.stdout)) is not None:
            done = decode(data, Done)
            if self._job is not None and done.number == self._job.number:
                self._finish(done.allocation or done.reason)
                self._since = None
        await self._child.wait()

    def _finish(self, outcome: Outcome | None) -> None:
        job, self._job = self._job, None
        if job is not None:
            job.overdue.cancel()
            if not job.outcome.done():
                job.outcome.set_result(outcome)

    def _kill(self) -> None:
        if self._child is not None and self._child.returncode is None:
            self._child.kill()
