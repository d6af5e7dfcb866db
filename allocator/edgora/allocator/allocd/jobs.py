"""Long runs as jobs: queued, a few at a time, each in a process of its own, kept on disk (README.md 2, house.md 2).

    queued -> running -> finished
                      -> failed        the run said why
                      -> cancelled     somebody asked for it; also of a queued one
                      -> interrupted   the service stopped, or was killed, or the process died
    failed, cancelled, interrupted -> queued   on `resume`

A training goes on from its checkpoint to the weights of a run that was never interrupted; an evaluation or a search,
which keeps nothing on its way, starts over with the same seed and draws.

Rule 1: nothing is queued before a process of its own has checked the request (`jobs_child check`).
Rule 2: everything a job was told or told is on disk before it is answered. After a crash, whatever was running is
interrupted and what was queued runs.
Rule 3: every number is bounded: jobs running, waiting and kept, octets kept, events of a job, streams.
"""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgora.allocator.allocd.jobs_child import GRACE_S, Said, Verdict
from edgora.allocator.allocd.jobs_files import (
    ENDED,
    EvaluateJob,
    Job,
    JobEvent,
    JobList,
    JobRequest,
    JobState,
    SolveJob,
    Step,
    TrainJob,
    label,
)  # fmt: skip
from edgora.allocator.allocd.jobs_folder import Folder, exclusive, folders, write_whole
from edgora.wire.errors import Broken, Conflict, EdgoraError, NotFound, Refused, TooMany, Unavailable
from edgora.wire.rest import Problem

__all__ = ["Jobs", "Limits"]

_log = logging.getLogger(__name__)

_CHECK_S = 120.0
"""What a check may take: its start, its libraries, a drawn instance."""
_LINE = 1_048_576
"""Longest line of a job's process."""
_FINENESS = 1_000
"""Of a run of known length: at most so many events of progress in an attempt."""
_MOST_ATTEMPTS = 100
_KEEPALIVE_S = 15.0
_MOST_CHECKS = 8
"""Requests that may wait for their check, one being checked at a time."""
_MODULE = "edgora.allocator.allocd.jobs_child"
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""A job's figures do not depend on the machine's cores, and live rounds keep theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    running: int = 1
    waiting: int = 32
    kept: int = 256
    """Jobs altogether."""
    kept_octets: int = 4 * 2**30
    """Of all folders, as far as a new job is taken."""
    memory_mb: int = 2_048
    """Of a job's process."""
    streams: int = 64


@dataclass(slots=True, eq=False)
class _Held:
    """A job in memory."""

    folder: Folder
    job: Job
    task: asyncio.Task[None] | None = None
    """Runs its process."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    end: JobState = "interrupted"
    """What it becomes when it is stopped."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    noted: int = -1
    """Progress of this attempt that was told last, in parts of `_FINENESS`."""


class Jobs:
    """All jobs of one folder. `open` before anything else, `close` at the end."""

    def __init__(self, root: Path, limits: Limits | None = None, *, now_ms: Callable[[], int] | None = None) -> None:
        self._root, self.limits = root, limits or Limits()
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self._held: dict[str, _Held] = {}
        self._queue: deque[str] = deque()
        self._checking, self._checks = asyncio.Lock(), 0
        self._lock = ExitStack()
        self._closing = False
        self._streams = 0

    async def open(self) -> None:
        """Take the folder up: interrupted is what ran, queued jobs go on. Raises Refused where it cannot be used."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(exclusive(self._root / "lock", wait=False))
        except OSError as error:
            raise Refused(f"--jobs {self._root} cannot be used: {error}", field="--jobs") from None
        waiting = []
        for folder in folders(self._root):
            try:
                job = folder.load()
            except Broken as error:
                _log.warning("passed over: %s", error.detail)
                continue
            held = self._held[folder.id] = _Held(folder, job)
            if job.state == "running":
                await self._become(held, "interrupted", "the allocator ended while it ran: it can be resumed")
            elif folder.newest_state() != job.state:
                await self._tell(held, self._event(held, state=job.state, why=job.why, error=job.error))
            if held.job.state == "queued":
                waiting.append(held)
        self._queue.extend(h.folder.id for h in sorted(waiting, key=lambda h: h.job.queued_ms))
        self._start()

    async def close(self) -> None:
        """Stop what runs, with its checkpoint; it is interrupted. Queued jobs stay queued."""
        self._closing = True
        tasks = [held.task for held in self._held.values() if held.task is not None]
        for held in self._held.values():
            held.stop.set()
            async with held.changed:
                held.changed.notify_all()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._lock.close()

    # ---- what is asked ----

    async def submit(self, request: JobRequest) -> Job:
        """Check a request and queue it. Raises Refused by field, TooMany, Unavailable."""
        self._admit()
        if self._checks >= _MOST_CHECKS:
            raise TooMany(f"{self._checks} requests are being checked", retry_after_s=5, field="job")
        self._checks += 1
        try:
            async with self._checking:
                await self._check(request)
        finally:
            self._checks -= 1
        self._admit()
        folder = Folder.make(self._root)
        if isinstance(request, SolveJob) and request.instance is not None:
            write_whole(folder.files / "instance.json", msgspec.json.encode(request.instance) + b"\n")
            request = msgspec.structs.replace(request, instance={"file": "instance.json"})
        now = self._now_ms()
        job = Job(id=folder.id, request=request, state="queued", why="", submitted_ms=now, queued_ms=now)
        held = self._held[folder.id] = _Held(folder, job)
        await self._enqueue(held)
        self._start()
        return self.job(folder.id)

    def job(self, name: str) -> Job:
        """A job as it stands. Raises NotFound."""
        return self._now(self._find(name))

    def listing(self, state: JobState | None = None) -> JobList:
        """All jobs, or those in a state; newest first."""
        jobs = [self._now(held) for held in self._held.values() if state in {None, held.job.state}]
        jobs.sort(key=lambda job: (job.submitted_ms, job.id), reverse=True)
        return JobList(tuple(jobs), self._running, len(self._queue), self.limits.running, self.limits.kept)

    async def cancel(self, name: str) -> Job:
        """End a job, with its checkpoint; returns when it has ended. Raises NotFound, Conflict."""
        held = self._find(name)
        if name in self._queue:
            self._queue.remove(name)
            await self._become(held, "cancelled", "cancelled before it was started: it can be resumed")
        elif held.task is not None:
            held.end = "cancelled"
            held.stop.set()
            await asyncio.shield(held.task)
        else:
            raise Conflict(f"job {name} is {held.job.state}: nothing to cancel", field="path.id")
        return self.job(name)

    async def resume(self, name: str) -> Job:
        """Queue a job again that ended without finishing. Raises NotFound, Conflict, TooMany."""
        held = self._find(name)
        if held.job.state not in ENDED or held.job.state == "finished":
            fix = "watch it" if held.job.state != "finished" else "its files hold the result; submit a new job"
            raise Conflict(f"job {name} is {held.job.state}: nothing to resume", field="path.id", fix=fix)
        if held.job.attempts >= _MOST_ATTEMPTS:
            raise Conflict(f"job {name} was started {held.job.attempts} times: submit a new one", field="path.id")
        if len(self._queue) >= self.limits.waiting:
            raise TooMany(f"{len(self._queue)} jobs wait already", retry_after_s=30, field="job")
        held.job = msgspec.structs.replace(
            held.job, queued_ms=self._now_ms(), ended_ms=None, error=None, result=None, progress=None
        )
        await self._enqueue(held)
        self._start()
        return self.job(name)

    def remove(self, name: str) -> None:
        """Forget a job that has ended, and its files. Raises NotFound, Conflict."""
        held = self._find(name)
        if held.job.state not in ENDED:
            raise Conflict(f"job {name} is {held.job.state}: cancel it first", field="path.id")
        del self._held[name]
        held.folder.remove()

    def file(self, name: str, file: str) -> Path:
        """Where a file of a job lies. Raises NotFound."""
        return self._find(name).folder.file(file)

    def over(self, name: str, after: int) -> bool:
        """Whether a stream that resumes there has nothing to tell any more. Raises NotFound."""
        held = self._find(name)
        return held.job.state in ENDED and held.job.event <= after

    def admit_stream(self, name: str) -> None:
        """Whether one more reader of events may come. Raises NotFound, TooMany."""
        self._find(name)
        if self._streams >= self.limits.streams:
            raise TooMany(f"{self._streams} streams are open already", retry_after_s=10, field="events")

    async def events(self, name: str, after: int) -> AsyncIterator[JobEvent | None]:
        """A job's events beyond one, until it has ended; None now and then while nothing happens. Raises NotFound."""
        held = self._find(name)
        self._streams += 1
        try:
            offset = read = 0
            while True:
                told, offset = held.folder.events(offset)
                for event in told:
                    read = event.id
                    if read > after:
                        yield event
                async with held.changed:
                    if held.job.event > read:
                        continue
                    if held.job.state in ENDED or self._closing:
                        return
                    silent = not await _within(held.changed.wait(), _KEEPALIVE_S)
                if silent:
                    yield None
        finally:
            self._streams -= 1

    # ---- how a job runs ----

    @property
    def _running(self) -> int:
        return sum(held.task is not None for held in self._held.values())

    def _start(self) -> None:
        while self._queue and self._running < self.limits.running and not self._closing:
            held = self._held[self._queue.popleft()]
            held.stop, held.end, held.noted = asyncio.Event(), "interrupted", -1
            held.task = asyncio.create_task(self._run(held), name=f"job {held.folder.id}")

    async def _run(self, held: _Held) -> None:
        try:
            held.job = msgspec.structs.replace(
                held.job, attempts=held.job.attempts + 1, started_ms=self._now_ms(), ended_ms=None
            )
            await self._become(held, "running", label(held.job.request))
            said, status = await self._attempt(held)
            await self._conclude(held, said, status)
        except Exception as error:
            _log.exception("job %s was lost", held.folder.id)
            with contextlib.suppress(OSError):
                await self._become(held, "interrupted", f"the allocator lost it: {error}"[:300])
        finally:
            held.task = None
            self._start()

    async def _attempt(self, held: _Held) -> tuple[Said | None, int]:
        """Run the process to its end; how it said it ended, and its exit status."""
        with held.folder.log.open("wb") as log:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", _MODULE, "run", str(held.folder.path.resolve()), str(self.limits.memory_mb),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, limit=_LINE,
                env={**os.environ, **_ONE_THREAD}, start_new_session=True,
            )  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        hearing = asyncio.create_task(self._hear(held, child.stdout))
        stopping = asyncio.create_task(held.stop.wait())
        try:
            await asyncio.wait((hearing, stopping), return_when=asyncio.FIRST_COMPLETED)
            child.stdin.close()  # the wish to stop, or nobody is there to hear it
            async with asyncio.timeout(GRACE_S + 5.0):
                said = await hearing
                return said, await child.wait()
        except TimeoutError:
            return None, -9
        finally:
            hearing.cancel()
            stopping.cancel()
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()

    async def _hear(self, held: _Held, lines: asyncio.StreamReader) -> Said | None:
        """Tell a process's progress until it ends; its last word, if it had one."""
        while line := await lines.readline():
            said = msgspec.json.decode(line, type=Said)
            if said.progress is None:
                return said
            await self._progress(held, said.progress)
        return None

    async def _conclude(self, held: _Held, said: Said | None, status: int) -> None:
        if said is None:
            how = f"signal {-status}" if status < 0 else f"status {status}"
            complaint = held.folder.complaint()
            why = f"its process ended with {how}" + (f": {complaint}" if complaint else "")
            end = held.end if held.stop.is_set() else "interrupted"
            await self._become(held, end, f"{why}; it can be resumed")
            return
        held.job = msgspec.structs.replace(held.job, result=said.result, error=said.problem)
        if said.problem is not None:
            await self._become(held, "failed", said.problem.detail)
        elif said.finished:
            await self._become(held, "finished", _summary(held.job))
        elif held.end == "cancelled":
            await self._become(held, "cancelled", f"cancelled{_place(held.job)}: it can be resumed")
        else:
            await self._become(held, "interrupted", f"the allocator was stopped{_place(held.job)}: it can be resumed")

    async def _check(self, request: JobRequest) -> None:
        """In a process of its own, which is killed when it overruns. Raises what a job would."""
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE, "check", str(self._root.resolve()), str(self.limits.memory_mb),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**os.environ, **_ONE_THREAD},
            start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_CHECK_S):
                answer, _ = await child.communicate(msgspec.json.encode(request))
            verdict = msgspec.json.decode(answer, type=Verdict)
        except TimeoutError:
            raise Refused(
                f"checking the request took more than {_CHECK_S:.0f} s", field="job", fix="ask for less"
            ) from None
        except msgspec.DecodeError:
            detail = f"the process that checks requests ended with status {child.returncode}"
            raise Unavailable(detail, field="job") from None
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        if verdict.problem is not None:
            raise _error_of(verdict.problem)

    # ---- records and events ----

    def _find(self, name: str) -> _Held:
        held = self._held.get(name)
        if held is None:
            raise NotFound(f"no job {name}", field="path.id", fix="see GET /jobs")
        return held

    def _now(self, held: _Held) -> Job:
        why = held.job.why
        if held.folder.id in self._queue:
            before = self._queue.index(held.folder.id)
            why = (
                f"waits for {self._running} running and {before} queued before it; {self.limits.running} run at a time"
            )
        return msgspec.structs.replace(held.job, why=why, files=held.folder.listing())

    def _admit(self) -> None:
        """Whether there is room for one more job. Raises TooMany, Conflict."""
        if self._closing:
            raise Unavailable("the allocator is stopping")
        if len(self._queue) >= self.limits.waiting:
            raise TooMany(f"{len(self._queue)} jobs wait already", retry_after_s=30, field="job")
        remove = "DELETE /jobs/{id} of some that have ended"
        if len(self._held) >= self.limits.kept:
            raise Conflict(f"{len(self._held)} jobs are kept already", field="job", fix=remove)
        octets = sum(file.octets for held in self._held.values() for file in held.folder.listing())
        if octets >= self.limits.kept_octets:
            raise Conflict(f"the jobs' files have {octets} octets already", field="job", fix=remove)

    async def _enqueue(self, held: _Held) -> None:
        await self._become(held, "queued", "waits to be started")
        self._queue.append(held.folder.id)

    async def _become(self, held: _Held, state: JobState, why: str) -> None:
        """Change the state: on disk first, then told."""
        ended = self._now_ms() if state in ENDED else None
        held.job = msgspec.structs.replace(held.job, state=state, why=why, ended_ms=ended)
        held.folder.save(held.job)
        await self._tell(held, self._event(held, state=state, why=why, error=held.job.error))

    async def _progress(self, held: _Held, step: Step) -> None:
        held.job = msgspec.structs.replace(held.job, progress=step)
        # A search tells each improvement, of which nobody knows how many come: twice as many for each event.
        place = step.done * _FINENESS // step.total if step.total else step.done.bit_length()
        if place > held.noted:
            held.noted = place
            await self._tell(held, self._event(held, progress=step))

    def _event(
        self, held: _Held, *, state: JobState | None = None, why: str | None = None, progress: Step | None = None,
        error: Problem | None = None,
    ) -> JobEvent:  # fmt: skip
        kind: Literal["state", "progress"] = "state" if progress is None else "progress"
        return JobEvent(
            held.job.event + 1, self._now_ms(), kind, state=state, why=why, progress=progress, error=error
        )  # fmt: skip

    async def _tell(self, held: _Held, event: JobEvent) -> None:
        held.folder.append(event)
        async with held.changed:
            held.job = msgspec.structs.replace(held.job, event=event.id)
            held.changed.notify_all()


async def _within(waiting: Coroutine[Any, Any, object], seconds: float) -> bool:
    """Whether it came in time."""
    try:
        await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        return False
    return True


def _summary(job: Job) -> str:
    """What a finished job came to."""
    result = job.result or {}
    match job.request:
        case TrainJob():
            return f"trained in {result.get('slots')} slots, {result.get('cpu_s')} s CPU"
        case EvaluateJob():
            score = (result.get("score") or {}).get("mean")
            return "evaluated" if score is None else f"score {score:.4f}"
        case SolveJob():
            return f"objective {result.get('objective')}"


def _place(job: Job) -> str:
    step = job.progress
    return "" if step is None or not step.total else f" at {step.done} of {step.total} slots"


_TREE: dict[str, type[EdgoraError]] = {kind.code: kind for kind in (Refused, NotFound, Conflict, Unavailable)}


def _error_of(problem: Problem) -> EdgoraError:
    """The error that a process met: a name that does not exist is the request's fault, not a missing page."""
    kind = _TREE.get(problem.code, Refused if problem.status < 500 else Unavailable)  # HTTP's classes
    return (Refused if kind is NotFound else kind)(problem.detail, field=problem.field, fix=problem.fix)
