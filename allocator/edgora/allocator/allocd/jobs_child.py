"""The process of a job: `python -m edgora.allocator.allocd.jobs_child check ROOT MB | run FOLDER MB`.

`check` reads a request on stdin and answers a `Verdict` on stdout: it does all that the job would do before its first
slot, and nothing after. `run` works in FOLDER and says a `Said` a line. It stops, with a checkpoint where the job has
one, when stdin ends: the service asked for it, or is gone. What libraries print goes to stderr.

Nobody here is trusted to end: after `GRACE_S` the process ends itself. Memory and file sizes are limited by the
kernel, and live rounds on the same cores go first (nice).
"""

import contextlib
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from edgora.allocator.allocd.jobs_files import (
    EvaluateJob,
    Job,
    JobRequest,
    SolveJob,
    Step,
    TrainJob,
    document,
    problem_of,
    read_job,
    reference,
)  # fmt: skip
from edgora.allocator.allocd.jobs_folder import exclusive, write_whole
from edgora.allocator.learn.problem import Progress, Stopped
from edgora.wire.errors import EdgoraError, Refused
from edgora.wire.rest import Problem

__all__ = ["GRACE_S", "Said", "Verdict", "main", "verdict"]

GRACE_S = 30.0
"""From the wish to stop to the end, whatever the job is doing."""
_TELL_S = 0.2
"""Least seconds between two lines of progress."""
_LARGEST_FILE = 2**31


class Verdict(msgspec.Struct, frozen=True):
    """Whether a request can be run."""

    problem: Problem | None


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a running job: progress, or how it ended."""

    progress: Step | None = None
    finished: bool | None = None
    """False: it was stopped."""
    result: dict[str, Any] | None = None
    problem: Problem | None = None


class _Stopped(Exception):
    """Ends an evaluation, which has nothing to keep."""


class _Tell(Protocol):
    def __call__(self, step: Step, /) -> None: ...


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on a terminal is the service's to handle
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    memory = int(arguments[2]) * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
    if arguments[0] == "check":
        answers.write(msgspec.json.encode(verdict(sys.stdin.buffer.read(), Path(arguments[1]))))
        answers.flush()
        return 0
    os.nice(10)
    stop = threading.Event()
    threading.Thread(target=_listen, args=(stop,), daemon=True).start()

    def say(said: Said) -> None:
        try:
            answers.write(msgspec.json.encode(said) + b"\n")
            answers.flush()
        except BrokenPipeError:  # the service is gone; the end of stdin says so too
            stop.set()

    folder = Path(arguments[1])
    with exclusive(folder / "lock", wait=True):
        say(_ended(folder, say, stop.is_set))
    return 0


def _listen(stop: threading.Event) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    stop.set()
    time.sleep(GRACE_S)
    os._exit(3)


def verdict(data: bytes, root: Path) -> Verdict:
    """Whether the request in a body can be run, by doing all that comes before its first slot."""
    try:
        _check(read_job(data), root)
    except EdgoraError as error:
        return Verdict(problem_of(error))
    except MemoryError:
        return Verdict(problem_of(Refused("the job does not fit into memory", field="settings")))
    return Verdict(None)


def _check(request: JobRequest, root: Path) -> None:
    """All that can be wrong with a request. Raises EdgoraError."""
    from edgora.allocator import registry

    settings = _resolved(request.settings, root)
    match request:
        case TrainJob():
            # A training that is stopped before its first slot has looked at everything it was given.
            with tempfile.TemporaryDirectory() as folder, _under("settings", settings):
                _trained(request, Path(folder) / "run", settings, lambda _: None, lambda: True)
        case EvaluateJob():
            learning = registry.learning(request.problem)
            with _under("settings", settings):
                learning.check_evaluation(_policy(request, root), _seeds(request), settings)
        case SolveJob():
            room = registry.problem(request.problem)
            if request.trace and request.problem not in _TRACED:
                raise Refused(f"{request.problem} has no trace", field="trace", fix="use it with baas or privacy")
            with _under("settings", settings):
                registry.policy(request.problem, request.solver, seed=request.seed, settings=settings)
            if request.instance is None:
                with _under("draw", request.draw):
                    room.draw(request.draw_seed, dict(request.draw))
            else:
                with _below("instance"):
                    room.load_instance(msgspec.json.encode(request.instance))


_TRACED = ("baas", "privacy")


@contextlib.contextmanager
def _under(part: str, given: Mapping[str, object]) -> Iterator[None]:
    """Refusals name the request's field: `settings.U` where a verb says `U`, `algo` where it says `--algo`."""
    try:
        yield
    except Refused as error:
        name = (error.field or "").removeprefix("--")
        error.field = f"{part}.{name}" if name.partition("[")[0] in given else name or part
        raise


@contextlib.contextmanager
def _below(part: str) -> Iterator[None]:
    """Refusals name the field within a part of the request."""
    try:
        yield
    except Refused as error:
        error.field = f"{part}.{error.field}" if error.field not in {None, "$"} else part
        raise


def _ended(folder: Path, say: Any, stopped: Stopped) -> Said:
    """Run the job and say how it ended; whatever goes wrong is told and not raised."""
    said = 0.0

    def tell(step: Step) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _TELL_S or step.done >= step.total > 0:
            said = now
            say(Said(progress=step))

    try:
        job = msgspec.json.decode((folder / "job.json").read_bytes(), type=Job)
        match job.request:
            case TrainJob():
                return _train(job.request, folder, tell, stopped)
            case EvaluateJob():
                return _evaluate(job.request, folder, tell, stopped)
            case SolveJob():
                return _solve(job.request, folder, tell, stopped)
    except _Stopped:
        return Said(finished=False)
    except EdgoraError as error:
        return Said(problem=problem_of(error))
    except MemoryError:
        detail = "the job does not fit into the memory that this allocator gives to one"
        return Said(
            problem=problem_of(Refused(detail, field="settings", fix="ask for less: fewer copies, less memory"))
        )
    except Exception as error:
        import traceback

        traceback.print_exc()
        return Said(problem=problem_of(EdgoraError(f"{type(error).__name__}: {error}"[:300])))


def _trained(request: TrainJob, out: Path, settings: Mapping[str, object], note: Any, stopped: Stopped) -> Any:
    from edgora.allocator import registry

    return registry.learning(request.problem).train(request.algo, out, request.seed, settings, note, stopped)


def _train(request: TrainJob, folder: Path, tell: _Tell, stopped: Stopped) -> Said:
    def note(progress: Progress) -> None:
        tell(Step(done=progress.done, total=progress.total, figures=progress.figures))

    trained = _trained(request, folder / "files", _resolved(request.settings, folder.parent), note, stopped)
    result = document(trained)
    result["policy"] = "policy.npz" if trained.finished else None
    return Said(finished=trained.finished, result=result)


def _evaluate(request: EvaluateJob, folder: Path, tell: _Tell, stopped: Stopped) -> Said:
    from edgora.allocator import registry

    def note(progress: Progress) -> None:
        if stopped():
            raise _Stopped
        tell(Step(done=progress.done, total=progress.total, figures=progress.figures))

    settings, root = _resolved(request.settings, folder.parent), folder.parent
    trace = folder / "files" / "trace.npz" if request.trace else None
    found = registry.learning(request.problem).evaluate(_policy(request, root), _seeds(request), settings, trace, note)
    result = {**document(found), "policy": request.policy, "trace": None if trace is None else "trace.npz"}
    write_whole(folder / "files" / "evaluation.json", msgspec.json.encode(result) + b"\n")
    return Said(finished=True, result=result)


def _solve(request: SolveJob, folder: Path, tell: _Tell, stopped: Stopped) -> Said:
    from edgora.allocator import registry

    room, files = registry.problem(request.problem), folder / "files"
    held = files / "instance.json"
    if request.instance is None:
        write_whole(held, room.dump_instance(room.draw(request.draw_seed, dict(request.draw))))
    instance = room.load_instance(held.read_bytes())
    settings = _resolved(request.settings, folder.parent)
    if request.trace:
        settings["trace"] = str(files / "trace.npz")
    better = 0

    def report(worth: float, bound: float | None) -> None:
        nonlocal better
        better += 1
        figures = {"objective": worth} if bound is None else {"objective": worth, "bound": bound}
        tell(Step(done=better, total=0, figures=figures))

    solution = registry.solve(
        request.problem, request.solver, instance, seed=request.seed, time_limit_s=request.time_limit_s,
        settings=settings, stopped=stopped, report=report,
    )  # fmt: skip
    write_whole(files / "solution.json", room.dump_solution(solution))
    return Said(finished=not stopped(), result=_short(document(solution)))


def _short(solution: Mapping[str, Any]) -> dict[str, Any]:
    """A solution without its arrays, and without the place of its trace: what the job's page shows."""
    whole = {key: value for key, value in solution.items() if not isinstance(value, list) and key != "trace"}
    if isinstance(whole.get("info"), Mapping):
        whole["info"] = {k: v for k, v in whole["info"].items() if not isinstance(v, list | dict) and k != "trace"}
    return whole


def _seeds(request: EvaluateJob) -> range:
    return range(request.seeds[0], request.seeds[1] + 1)


def _policy(request: EvaluateJob, root: Path) -> str:
    job = reference(request.policy)
    return request.policy if job is None else str(_left(root, job, "policy"))


def _resolved(settings: Mapping[str, object], root: Path) -> dict[str, object]:
    """Settings with `job:ID` as that job's policy."""
    jobs = {key: reference(value) for key, value in settings.items()}
    return {
        key: value if (job := jobs[key]) is None else str(_left(root, job, f"settings.{key}"))
        for key, value in settings.items()
    }


def _left(root: Path, job: str, field: str) -> Path:
    """The policy that a job left. Raises Refused."""
    path = root / job / "files" / "policy.npz"
    if not path.is_file():
        raise Refused(
            f"{field} is job:{job}: that job has no policy.npz", field=field,
            fix="name a training job that is finished: GET /jobs?state=finished",
        )  # fmt: skip
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
