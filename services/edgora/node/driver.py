"""The shell around one replica: it performs what the core asks for, in the order that the core relies on (ledger.md 1).

Rule 1: the core is stepped by one task only. Frames, timers, finished checks and client transactions wait in one inbox
        and are taken one by one; consensus goes before sync, sync before gossip and clients, none starves.
Rule 2: what a step sends, publishes or answers leaves when the records of this and all earlier steps are durable, and
        leaves in the order of the steps. One sync covers all steps that were taken while the one before it ran; the
        core goes on stepping meanwhile.
Rule 3: a snapshot is stored after the blocks up to its height and before the messages of its own step. Segments that a
        compaction replaces go after the snapshot that stands for them is durable.
Rule 4: after a failed write or sync nothing leaves any more. There is no second try: the process ends and reads its
        disk anew (ledger.md 12).

Three threads besides the loop: one writes and syncs the log, one fills the block store, and a small pool checks
signatures, where the native code releases the interpreter lock. No clock but the injected one is read.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from edgora.crypto.sign import recover
from edgora.ledger.effects import (
    ALL,
    Answer,
    Boot,
    ClientTx,
    DurableState,
    Effects,
    Executed,
    Fault,
    Input,
    Recv,
    Send,
    SnapshotImage,
    TimerFired,
    Verified,
    Verify,
    ViewLeft,
)
from edgora.ledger.status import ReplicaStatus
from edgora.node.inbox import Frame, Inbox
from edgora.ports.clock import Alarm, Clock
from edgora.ports.consensus import Admission, CheckpointView, PeerHandler, ViewStep
from edgora.ports.log import Log
from edgora.ports.store import BlockStore, StoredBlock
from edgora.ports.transport import Transport
from edgora.wire.codec import encode
from edgora.wire.errors import EdgoraError, Unavailable, WireError
from edgora.wire.ledger import SignedTx
from edgora.wire.pbft import Lane, decode_message, encode_message, lane_of

__all__ = ["Core", "Driver"]

_log = logging.getLogger(__name__)

_SLICE = 8
"""Inputs between two turns of the event loop: a burst delays neither a vote nor the end of a sync by more."""
_CHECKS_A_JOB = 256
_CHECKS_AT_ONCE = 4
"""So few signatures are checked on the spot: a thread hop costs as much as two of them."""
_STORE_GROUP = 32
_STORE_BACKLOG = 256
"""Executed blocks that may wait for the block store; then the core pauses."""
_STEPS = 64
_CHECKPOINTS = 16
_CREDIT = 10
_CREDIT_PER_S = 1.0


class Core(Protocol):
    """`ledger.replica.Replica`, or a test's stand-in."""

    def step(self, now_ms: int, event: Input) -> Effects: ...

    def status(self, now_ms: int) -> ReplicaStatus: ...


class _Held(NamedTuple):
    """What a step wants to let out, and the log index that must be durable first."""

    upto: int
    effects: Effects
    first: int
    """Log index of the step's first record."""


class _StoreJob(NamedTuple):
    """Work for the block store, in order: a block, a snapshot and what waits for it, or a compaction."""

    executed: Executed | None = None
    snapshot: SnapshotImage | None = None
    send: Sequence[Send] = ()
    drop_before: int | None = None


class Driver:
    """Runs one replica over its ports. It is the transport's `Receiver`."""

    def __init__(
        self,
        core: Core,
        *,
        clock: Clock,
        transport: Transport,
        log: Log,
        store: BlockStore,
        on_alarm: Callable[[str], None],
        check_threads: int = 2,
    ) -> None:
        """on_alarm is told the reason when the replica stops voting for good; it should dump the state."""
        self._core = core
        self._clock = clock
        self._transport = transport
        self._log = log
        self._store = store
        self._on_alarm = on_alarm
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done with the error once the driver can do no more; cancelled by `stop`."""
        self.handler: PeerHandler | None = None
        """Our API half's answers to other nodes."""
        self.alarm: str | None = None
        self.view_changes = 0
        self.steps: deque[ViewStep] = deque(maxlen=_STEPS)
        """Views that the replica left and entered, the last ones."""
        self.checkpoints: deque[CheckpointView] = deque(maxlen=_CHECKPOINTS)
        """Checkpoints that became stable here, the last ones."""
        self.stored_height = store.height()
        self.progress_ms: int = clock.now_ms()
        """When the last block was stored here."""
        self._inbox = Inbox()
        self._timers: dict[str, Alarm] = {}
        self._held: deque[_Held] = deque()
        self._appended = self._durable = log.end
        self._want_sync = False
        self._flushing = False
        self._store_jobs: deque[_StoreJob] = deque()
        self._store_wake = asyncio.Event()
        self._store_room = asyncio.Event()
        self._store_room.set()
        self._height_changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._checks: deque[Verify] = deque()
        self._checking = 0
        self._check_threads = check_threads
        self._waiting: dict[bytes, list[asyncio.Future[Admission]]] = {}
        self._credit: dict[int, tuple[float, int]] = {}
        self._log_thread = ThreadPoolExecutor(1, "edgora-log")
        self._store_thread = ThreadPoolExecutor(1, "edgora-store")
        self._check_pool = ThreadPoolExecutor(check_threads, "edgora-check")
        self._tasks: list[asyncio.Task[None]] = []

    # ---- life --------------------------------------------------------------------------------------------------------

    async def start(self, state: DurableState) -> None:
        """Boot the core from its disk and go. Returns when the transport is up."""
        self._step(Boot(state))
        self._release()
        self._tasks = [asyncio.ensure_future(self._guarded(work)) for work in (self._run(), self._fill())]
        await self._transport.start(self, state.boot_nonce)

    async def stop(self) -> None:
        """Stop without a word, as a crash would, but leave no thread and no task behind."""
        self.failed.cancel()
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._transport.stop()
        self._abandon(Unavailable("the consensus process is stopping"))
        loop = asyncio.get_running_loop()
        for pool in (self._log_thread, self._store_thread, self._check_pool):
            await loop.run_in_executor(None, pool.shutdown)
        self._log.close()

    def _fail(self, error: BaseException) -> None:
        """Nothing leaves any more; whoever runs us ends the process."""
        if not self.failed.done():
            _log.critical("the replica stops: %s", error)
            self.failed.set_exception(error)
            self.failed.exception()  # whoever awaits it hears it; nobody has to
        self._held.clear()
        self._abandon(Unavailable(f"consensus has failed here: {error}"))
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def _abandon(self, error: EdgoraError) -> None:
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)
        self._waiting.clear()
        if not self._height_changed.done():
            self._height_changed.set_exception(error)
            self._height_changed.exception()

    async def _guarded(self, work: Coroutine[object, object, None]) -> None:
        try:
            await work
        except Exception as error:
            self._fail(error)

    # ---- inputs ------------------------------------------------------------------------------------------------------

    async def received(self, peer: int, lane: Lane, data: bytes) -> None:
        await self._inbox.put_frame(peer, lane, data)

    async def asked(self, peer: int, request: bytes) -> bytes:
        if self.handler is None:
            raise Unavailable("the API half of this node is not up")
        return await self.handler(peer, request)

    async def submit(self, tx: SignedTx, tx_hash: bytes) -> Admission:
        """Hand a transaction whose signature was checked to the core; its answer leaves like all else."""
        if self.failed.done():
            raise Unavailable("consensus has stopped here")
        if self.alarm is not None:
            return Admission(admitted=False, reason="ALARM")
        answer: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        if not self._inbox.put_client(ClientTx(tx, tx_hash)):
            return Admission(admitted=False, reason="POOL_FULL")
        self._waiting.setdefault(tx_hash, []).append(answer)
        return await answer

    async def heights(self) -> AsyncIterator[int]:
        """Stored heights, newest only if the reader is slow; the present one first."""
        seen = -1
        while True:
            if self.stored_height > seen:
                seen = self.stored_height
                yield seen
            else:
                await asyncio.shield(self._height_changed)

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def status(self) -> ReplicaStatus:
        return self._core.status(self._clock.now_ms())

    # ---- stepping ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._inbox.ready()
            await self._store_room.wait()
            for _ in range(_SLICE):
                item = self._inbox.take()
                if item is None:
                    break
                if isinstance(item, Frame):
                    self._frame(item)
                else:
                    self._step(item)
                self._release()
            else:
                await asyncio.sleep(0)

    def _frame(self, frame: Frame) -> None:
        try:
            message = decode_message(frame.data)
        except WireError as error:
            self._fault(Fault(frame.peer, error.detail))
            return
        self._step(Recv(frame.peer, message))

    def _step(self, event: Input) -> None:
        effects = self._core.step(self._clock.now_ms(), event)
        first = self._appended
        if effects.persist:
            self._appended = self._log.append(effects.persist, compacted=effects.compacted)
        self._want_sync |= effects.sync
        self._note(effects)
        if effects.send or effects.executed or effects.answers or effects.snapshot or effects.compacted:
            self._held.append(_Held(self._appended, effects, first))
        for timer in effects.timers:
            self._arm(timer.name, timer.deadline_ms)
        for verify in effects.verify:
            self._check(verify)
        for fault in effects.faults:
            self._fault(fault)
        for evidence in effects.evidence:
            _log.error("evidence of offence %d against validator %d", evidence.offence, evidence.accused)
        if effects.alarm is not None and self.alarm is None:
            self.alarm = effects.alarm
            _log.critical("voting has stopped for good: %s", effects.alarm)
            self._on_alarm(effects.alarm)

    def _note(self, effects: Effects) -> None:
        """Remember what people ask about later: views and checkpoints."""
        now = self._clock.now_ms()
        for move in effects.views:
            if isinstance(move, ViewLeft):
                self.view_changes += 1
                self.steps.append(ViewStep(now, False, move.wanted, move.primary, move.view, move.why, ()))
            else:
                self.steps.append(ViewStep(now, True, move.view, move.primary, None, "", move.asked))
        if effects.stable is not None:
            body = effects.stable.body
            signers = tuple(effects.stable.signers())
            self.checkpoints.append(CheckpointView(now, body.height, body.block_hash, body.state_root, signers))

    def _arm(self, name: str, deadline_ms: int | None) -> None:
        armed = self._timers.pop(name, None)
        if armed is not None:
            armed.cancel()
        if deadline_ms is not None:
            self._timers[name] = self._clock.call_at(deadline_ms, lambda: self._inbox.put_own(TimerFired(name)))

    def _fault(self, fault: Fault) -> None:
        """A peer has ten faults, and one more a second; then its links are cut for a while (ledger.md 16)."""
        credit, since = self._credit.get(fault.peer, (float(_CREDIT), self._clock.now_ms()))
        now = self._clock.now_ms()
        credit = min(float(_CREDIT), credit + (now - since) / 1000 * _CREDIT_PER_S) - 1
        _log.warning("validator %d: %s", fault.peer, fault.reason)
        if credit < 0:
            self._transport.cut(fault.peer, fault.reason)
            credit = float(_CREDIT)
        self._credit[fault.peer] = (credit, now)

    # ---- signature checks --------------------------------------------------------------------------------------------

    def _check(self, verify: Verify) -> None:
        if len(verify.items) <= _CHECKS_AT_ONCE:
            self._inbox.put_own(_checked(verify))
            return
        self._checks.append(verify)
        self._dispatch_checks()

    def _dispatch_checks(self) -> None:
        """Give idle threads what waits: one job takes many small requests, so load makes jobs longer, not more."""
        while self._checks and self._checking < self._check_threads:
            job = [self._checks.popleft()]
            while self._checks and sum(len(v.items) for v in job) < _CHECKS_A_JOB:
                job.append(self._checks.popleft())
            self._checking += 1
            done = asyncio.get_running_loop().run_in_executor(self._check_pool, _check_all, job)
            done.add_done_callback(self._job_done)

    def _job_done(self, done: asyncio.Future[list[Verified]]) -> None:
        self._checking -= 1
        if done.cancelled() or self.failed.done():
            return
        error = done.exception()
        if error is not None:
            self._fail(error)
            return
        for verified in done.result():
            self._inbox.put_own(verified)
        self._dispatch_checks()

    # ---- leaving -----------------------------------------------------------------------------------------------------

    def _release(self) -> None:
        """Let out what may leave, and have the disk work if more could."""
        while self._held and self._held[0].upto <= self._durable:
            self._let_out(self._held.popleft())
        if (self._held or self._want_sync) and not self._flushing and self._durable < self._appended:
            self._want_sync = False
            self._flushing = True
            done = asyncio.get_running_loop().run_in_executor(self._log_thread, self._log.flush)
            done.add_done_callback(self._flushed)

    def _flushed(self, done: asyncio.Future[int]) -> None:
        self._flushing = False
        if done.cancelled() or self.failed.done():
            return
        error = done.exception()
        if error is not None:
            self._fail(error)
            return
        self._durable = done.result()
        try:
            self._release()
        except Exception as fault:
            self._fail(fault)

    def _let_out(self, held: _Held) -> None:
        effects = held.effects
        for answer in effects.answers:
            for future in self._waiting.pop(answer.hash, ()):
                if not future.done():
                    future.set_result(Admission(admitted=answer.admitted, reason=_reason(answer)))
        self._store_jobs.extend(_StoreJob(executed=executed) for executed in effects.executed)
        if effects.snapshot is not None:
            self._store_jobs.append(_StoreJob(snapshot=effects.snapshot, send=effects.send))
        else:
            self._send(effects.send)
        if effects.compacted:
            self._store_jobs.append(_StoreJob(drop_before=held.first))
        if self._store_jobs:
            self._store_wake.set()
        if len(self._store_jobs) > _STORE_BACKLOG:
            self._store_room.clear()

    def _send(self, sends: Sequence[Send]) -> None:
        for send in sends:
            data = encode_message(send.message)
            lane = lane_of(send.message)
            if send.dest == ALL:
                for peer in self._transport.peers:
                    self._transport.send(peer, lane, data)
            else:
                self._transport.send(send.dest, lane, data)

    # ---- the block store ---------------------------------------------------------------------------------------------

    async def _fill(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._store_wake.wait()
            self._store_wake.clear()
            jobs = list(self._store_jobs)
            self._store_jobs.clear()
            for first in range(0, len(jobs), _STORE_GROUP):
                group = jobs[first : first + _STORE_GROUP]
                await loop.run_in_executor(self._store_thread, self._store_all, group)
                self._stored(group)
            self._store_room.set()

    def _store_all(self, jobs: Sequence[_StoreJob]) -> None:
        """In the store's thread: one transaction a block."""
        for job in jobs:
            if job.executed is not None:
                block, certificate, receipts, events, root = job.executed
                self._store.append(StoredBlock(block, certificate, receipts, root), [encode(e) for e in events])
            if job.snapshot is not None:
                self._store.save_snapshot(job.snapshot)
            if job.drop_before is not None:
                self._log.drop_before(job.drop_before)

    def _stored(self, jobs: Sequence[_StoreJob]) -> None:
        height = self.stored_height
        for job in jobs:
            if job.executed is not None:
                height = max(height, job.executed.block.header.height)
            self._send(job.send)
        if height > self.stored_height:
            self.stored_height = height
            self.progress_ms = self._clock.now_ms()
            changed, self._height_changed = self._height_changed, asyncio.get_running_loop().create_future()
            changed.set_result(None)


def _reason(answer: Answer) -> str:
    """The pool's word as `ports.consensus.Admission` spells it."""
    return "" if answer.admitted else {"GAP": "LANE_GAP"}.get(answer.reason.upper(), answer.reason.upper())


def _checked(verify: Verify) -> Verified:
    return Verified(verify.token, tuple(recover(digest, signature) == who for who, digest, signature in verify.items))


def _check_all(job: Sequence[Verify]) -> list[Verified]:
    return [_checked(verify) for verify in job]
