"""One policy's worker: rounds from the bus, answers to the bus, nothing late.

For each round that is taken, exactly one of these is published, and then the entry acknowledged:

    Proposed                         a plan that the ledger should accept
    Skipped LATE_ARRIVAL             waited longer on the bus than its budget      (waited ms, budget ms)
            SUPERSEDED               a newer round is here                         (newer round)
            BUSY                     the engine has an overdue job, or restarts    (busy for ms)
            LATE                     no answer within the budget                   (budget ms)
            EMPTY BELOW_FLOOR        as `live.propose` says
            NOT_ALLOWED FAILED

Numbers start with the round's. The budget runs from the node's own `sent_ms`, and is hard: an answer that comes later
is dropped, since the round has closed. A crash between publishing and acknowledging repeats an answer; the node knows
rounds by number, and the worker itself knows instances it has answered by digest.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edgora.allocator.allocd.engine import Engine
from edgora.ports.bus import Answer, Bus, Delivery, Proposed, RoundRequest, Skipped, answers_topic, rounds_topic
from edgora.ports.tracing import NO_TRACING, Span, Stage, Tracing
from edgora.wire.codec import decode, encode
from edgora.wire.errors import EdgoraError, Unavailable, WireError
from edgora.wire.hashing import keccak
from edgora.wire.market import Allocation, Reason

__all__ = ["AllocatorWorker", "WorkerStatus"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_TAKEN = 16
"""Rounds taken at once: all but the newest are superseded."""
_WAIT_MS = 1_000
_RETRY_S = 0.5
"""Pause after the bus could not be reached."""
_REMEMBERED = 64
"""Instances whose repetition is recognised."""


@dataclass(slots=True)
class WorkerStatus:
    """What the worker has done and why it waits."""

    policy: str
    node: int
    engine_ready: bool = False
    bus_problem: str | None = "not reached yet"
    """Why the bus cannot be used now; None while it can."""
    rounds: int = 0
    proposed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """By reason code."""
    unreadable: int = 0
    """Entries that are no RoundRequest."""
    last_round: int | None = None
    last_solver_ms: int | None = None

    @property
    def ready(self) -> bool:
        return self.engine_ready and self.bus_problem is None


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class AllocatorWorker:
    """Serves one (node, policy). `run` until `stop`."""

    def __init__(
        self,
        bus: Bus,
        node: int,
        engine: Engine,
        *,
        solve_ms: int | None = None,
        consumer: str = "allocd",
        now_ms: Callable[[], int] = _wall_ms,
        observe: Callable[[Answer], None] | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """solve_ms caps the budget that rounds bring; observe hears every answer that is published."""
        self._bus, self._node, self._engine = bus, node, engine
        self._solve_ms, self._consumer, self._now_ms = solve_ms, consumer, now_ms
        self._observe, self._tracing = observe, tracing
        self._stopping = asyncio.Event()
        self._answered: deque[bytes] = deque(maxlen=_REMEMBERED)
        self.status = WorkerStatus(engine.policy, node)

    def stop(self) -> None:
        """End `run` after the round in hand."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve rounds until `stop`. Raises Refused if the policy cannot be served."""
        await self._engine.start()
        self.status.engine_ready = True
        try:
            while not self._stopping.is_set():
                try:
                    deliveries = await self._unless_stopped(self._take())
                    await self._serve(deliveries or [])
                    self.status.bus_problem = None
                except Unavailable as error:
                    self.status.bus_problem = error.detail
                    _log.warning("policy %s waits for the bus: %s", self._engine.policy, error.detail)
                    await self._unless_stopped(asyncio.sleep(_RETRY_S))
        finally:
            self.status.engine_ready = False
            await self._engine.close()

    async def _take(self) -> list[Delivery]:
        taken = await self._bus.take(
            rounds_topic(self._node), self._engine.policy, self._consumer, limit=_TAKEN, wait_ms=_WAIT_MS
        )
        return list(taken)

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of work, or None if `stop` came first: what was taken then is given out again, to a successor."""
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for pending in (task, stop):
                pending.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    async def _serve(self, deliveries: list[Delivery]) -> None:
        rounds = [(delivery, self._read(delivery)) for delivery in deliveries]
        newest = max((opened.sent_ms for _, opened in rounds if opened), default=0)
        for delivery, opened in rounds:
            if opened is not None:
                digest = keccak(encode(opened.instance))
                if digest not in self._answered:
                    newer = next((o.instance.round for _, o in rounds if o and o.sent_ms == newest), 0)
                    began = self._now_ms()
                    answer = await self._answer(opened, newer if opened.sent_ms < newest else None)
                    await self._publish(answer)
                    self._trace(opened, answer, began)
                    self._answered.append(digest)
            await self._bus.ack(rounds_topic(self._node), self._engine.policy, [delivery.id])

    def _read(self, delivery: Delivery) -> RoundRequest | None:
        try:
            return decode(delivery.data, RoundRequest)
        except WireError as error:
            self.status.unreadable += 1
            _log.warning("policy %s passes over an unreadable entry: %s", self._engine.policy, error.detail)
            return None

    async def _answer(self, opened: RoundRequest, newer: int | None) -> Allocation | Skipped:
        name, number = self._engine.policy, opened.instance.round
        self.status.rounds += 1
        self.status.last_round = number
        budget_ms = opened.budget_ms if self._solve_ms is None else min(opened.budget_ms, self._solve_ms)
        waited_ms = max(0, self._now_ms() - opened.sent_ms)
        if newer is not None:
            return self._skip(number, Reason("SUPERSEDED", name, (number, newer)))
        if waited_ms >= budget_ms:
            return self._skip(number, Reason("LATE_ARRIVAL", name, (number, waited_ms, budget_ms)))
        busy_ms = self._engine.busy_ms()
        if busy_ms is not None:
            return self._skip(number, Reason("BUSY", name, (number, busy_ms)))
        left_ms = budget_ms - waited_ms
        try:
            outcome = await asyncio.wait_for(self._engine.solve(opened.instance, left_ms), left_ms / 1000.0)
        except TimeoutError:
            return self._skip(number, Reason("LATE", name, (number, budget_ms)))
        except EdgoraError as error:
            return self._skip(number, Reason("FAILED", f"{name}: {error.detail}"[:300], (number,)))
        return outcome if isinstance(outcome, Allocation) else self._skip(number, outcome)

    def _trace(self, opened: RoundRequest, answer: Allocation | Skipped, began_ms: int) -> None:
        """What this policy made of a round, in the trace of each of its tasks."""
        if not self._tracing.on:
            return
        now, number = self._now_ms(), opened.instance.round
        placed = {}
        if isinstance(answer, Allocation):
            placed = {opened.instance.tasks[index].offer_id: server for index, server in answer.pairs}
        for task in opened.instance.tasks:
            what: dict[str, str | int | bool] = {"policy": self._engine.policy, "round": number, "node": self._node}
            what["outcome"] = "proposed" if isinstance(answer, Allocation) else answer.reason.code
            if task.offer_id in placed:
                what["executor"] = placed[task.offer_id]
            self._tracing.span(Span(task.offer_id, Stage.SOLVE, began_ms, now, (number, self._node), what))

    def _skip(self, number: int, reason: Reason) -> Skipped:
        return Skipped(self._node, self._engine.policy, number, reason)

    async def _publish(self, answer: Allocation | Skipped) -> None:
        message: Answer = Proposed(self._node, answer) if isinstance(answer, Allocation) else answer
        await self._bus.publish(answers_topic(self._node), encode(message))
        if isinstance(message, Proposed):
            self.status.proposed += 1
            self.status.last_solver_ms = message.allocation.solver_ms
        else:
            self.status.skipped[message.reason.code] += 1
            _log.info(
                "round %d: %s skips: %s %s", message.round, message.policy, message.reason.code, message.reason.numbers
            )
        if self._observe is not None:
            self._observe(message)
