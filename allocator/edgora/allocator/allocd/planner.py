"""The allocation service for policies with another objective (market.md 4): plans for UEs, shares for servers.

A plan is solved beside the event loop, one at a time, in bounded time; then each server's computing shares go out on
the bus, where its node takes them to pace its runs. What the UEs do themselves (server, split, bandwidth, powers) is
the answer. The embedded run solves in a thread; the service in a child process, which is killed when it overruns.

Whatever goes wrong with the policy, the answer is still a plan: the nearest server, equal shares, and the reason.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable

import msgspec

from edgora.allocator.allocd.plan_child import Declined
from edgora.allocator.plan_files import PlanRequest, RadioPlan
from edgora.allocator.radio_plan import nearest_equal, solve_plan
from edgora.ports.bus import Bus, Share, Shares, shares_topic
from edgora.wire.codec import encode
from edgora.wire.errors import Refused, TooMany, Unavailable

__all__ = ["Planner", "Solve", "solve_in_child", "solve_in_thread"]

Solve = Callable[[PlanRequest], Awaitable[RadioPlan]]

GRACE_S = 10.0
"""What a child may take beyond the solver's budget: its start, its libraries' compilation, the audit."""


async def solve_in_thread(request: PlanRequest) -> RadioPlan:
    """For policies that are trusted to end. Raises Refused."""
    return await asyncio.to_thread(solve_plan, request)


async def solve_in_child(request: PlanRequest) -> RadioPlan:
    """In a process of its own; the fallback if that ends badly or not in time. Raises Refused."""
    begun = time.monotonic()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgora.allocator.allocd.plan_child", stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(request.budget_s + GRACE_S):
            answer, _ = await child.communicate(msgspec.json.encode(request))
    except TimeoutError:
        why = f"{request.policy} had no answer after {request.budget_s + GRACE_S:.0f} s and was ended"
        return nearest_equal(request, why, time.monotonic() - begun)
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    try:
        if child.returncode == 2:
            declined = msgspec.json.decode(answer, type=Declined)
            raise Refused(declined.detail, field=declined.field)
        return msgspec.json.decode(answer, type=RadioPlan)
    except msgspec.DecodeError:
        why = f"{request.policy} ended with status {child.returncode} and no plan"
        return nearest_equal(request, why, time.monotonic() - begun)


class Planner:
    """Plans on request, and tells the servers."""

    def __init__(
        self, bus: Bus, solve: Solve, *, own: str | None = None, now_ms: Callable[[], int] | None = None
    ) -> None:
        """own: the one user's policy (`tcr:module:object`) that may be asked for; None allows any.

        Whoever names a module has it imported here, so a service takes the name from its operator, not from a request.
        """
        self._bus, self._solve, self._own = bus, solve, own
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self._busy = asyncio.Lock()
        self.plans = 0
        self.fallbacks = 0
        self.last: RadioPlan | None = None

    async def plan(self, request: PlanRequest) -> RadioPlan:
        """A plan, told to its servers already.

        Raises Refused for a request that is wrong in itself, TooMany while another plan is made. Servers that could not
        be told go on as before, and the plan says so.
        """
        foreign = ":" in request.policy.partition(":")[2]
        if foreign and self._own is not None and request.policy != self._own:
            raise Refused(
                f"{request.policy} is a user's policy that this allocator was not started for", field="policy",
                fix="start it with a scenario whose fleet.allocation names the policy",
            )  # fmt: skip
        if self._busy.locked():
            raise TooMany("another plan is being made", retry_after_s=1, field="plan")
        async with self._busy:
            made = await self._solve(request)
            self.plans += 1
            self.fallbacks += bool(made.fallback)
            try:
                await self._tell(request, made)
            except Unavailable as error:
                made = msgspec.structs.replace(made, untold=error.detail)
            self.last = made
        return made

    async def _tell(self, request: PlanRequest, made: RadioPlan) -> None:
        now = self._now_ms()
        until = now + int(1000 * request.valid_s)
        for server in request.servers:
            shares = tuple(Share(bytes.fromhex(share.ue[2:]), share.speed) for share in made.at(server.id))
            message = Shares(server.id, now, until, shares)
            await self._bus.publish(shares_topic(server.id), encode(message))
