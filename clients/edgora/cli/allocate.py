"""Allocation problems from the command line: draw an instance, solve it, score a solution (README.md 2).

Every verb works on any problem of the registry; files are JSON. `solve` stops at Ctrl-C with the best plan so far,
writes it and exits 0. Exit codes: 0 ok, 1 the solution does not hold (score) or the policy failed (solve), 2 bad usage
or a refused file.
"""

import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Annotated, Protocol

import msgspec
import typer

from edgora.cli.output import fail, missing_extra, progress, show
from edgora.wire.errors import EdgoraError, Refused

__all__ = ["Json", "Seed", "Settings", "app_commands", "interruptible", "registry_for", "settings_of"]

_PROGRESS_S = 0.5
"""Least seconds between two lines of progress."""

ProblemName = Annotated[str, typer.Argument(metavar="PROBLEM", help="mta, tcr, dpe, baas or privacy")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="May be repeated; read as JSON, else as text.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
InstanceFile = Annotated[Path, typer.Option("--instance", metavar="FILE")]
OutFile = Annotated[Path, typer.Option("--out", metavar="FILE")]


def app_commands(app: typer.Typer) -> None:
    """Register draw, solve and score."""
    app.command()(draw)
    app.command()(solve)
    app.command()(score)


def draw(problem: ProblemName, out: OutFile, seed: Seed = 0, settings: Settings = None, as_json: Json = False) -> None:
    """Draw an instance of a problem."""
    registry = registry_for("draw")
    try:
        room = registry.problem(problem)
        chosen = settings_of(settings)
        instance = room.draw(seed, chosen)
        with _output(out) as write:
            write(room.dump_instance(instance))
    except EdgoraError as error:
        fail(error, as_json=as_json)
    if as_json:
        show({"problem": problem, "seed": seed, "settings": chosen, "out": str(out)})
    else:
        typer.echo(f"{problem} instance of seed {seed} written to {out}")


def solve(
    problem: ProblemName,
    instance: InstanceFile,
    out: OutFile,
    solver: Annotated[
        str, typer.Option("--solver", metavar="NAME", help="One of the problem's solvers, or module:object.")
    ],
    seed: Seed = 0,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", metavar="S", help="Wall seconds after the instance is read.")
    ] = None,
    settings: Settings = None,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE.npz", help="Where the slots of a run are written (baas, privacy)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Solve an instance; Ctrl-C writes the best so far."""
    registry = registry_for("solve")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's policy is found from the working directory
    try:
        room = registry.problem(problem)
        if time_limit is not None and not (math.isfinite(time_limit) and time_limit > 0.0):
            raise Refused(f"--time-limit is {time_limit}: must be above 0 seconds", field="--time-limit")
        chosen = settings_of(settings)
        if trace is not None:
            chosen["trace"] = str(trace)
        policy = registry.policy(
            problem, solver, seed=seed, settings=chosen
        )  # a wrong name fails before a file is read
        parsed = room.load_instance(_read(instance, "--instance"))
        with interruptible(stoppable=policy.stoppable) as stop, _output(out) as write:
            solution = registry.solve(
                problem, solver, parsed,
                seed=seed, time_limit_s=time_limit, settings=chosen, stopped=stop.is_set, report=_reporter(),
            )  # fmt: skip
            write(room.dump_solution(solution))
    except EdgoraError as error:
        fail(error, as_json=as_json)
    told = {key: value for key, value in msgspec.to_builtins(solution).items() if not isinstance(value, list)}
    if as_json:
        show({**told, "out": str(out)})
    else:
        objective = told["objective"]
        worth = "breaks a constraint" if objective is None else f"objective {objective:.6f}"
        bound = "" if told["bound"] is None else f", bound {told['bound']:.6f}"
        bound += "" if told.get("gap") is None else f", gap {100.0 * told['gap']:.4f} %"
        typer.echo(f"{solver}: {worth}{bound}, {told['wall_s']:.2f} s; written to {out}")


def score(
    problem: ProblemName,
    instance: InstanceFile,
    solution: Annotated[Path, typer.Option("--solution", metavar="FILE")],
    as_json: Json = False,
) -> None:
    """Recompute a solution's objective, every constraint's slack and every claim; exit 1 if something does not hold."""
    registry = registry_for("score")
    try:
        room = registry.problem(problem)
        parsed = room.load_instance(_read(instance, "--instance"))
        judged = room.score(parsed, room.load_solution(_read(solution, "--solution"), parsed))
    except EdgoraError as error:
        fail(error, as_json=as_json)
    if as_json:
        show(judged)
    else:
        worth = "not feasible" if judged.objective is None else f"feasible, objective {judged.objective:.6f}"
        typer.echo(f"{judged.solver}: {worth}")
        for constraint, slacks in judged.slack.items():
            used = [slack for slack in slacks if slack is not None]
            typer.echo(f"  least slack of {constraint}: {min(used):.6g}" if used else f"  no {constraint} is used")
        for sentence in judged.problems:
            typer.echo(f"  {sentence}")
    if not judged.holds:
        raise typer.Exit(1)


def registry_for(verb: str) -> ModuleType:
    """The registry, or an exit that names what to install for this verb."""
    try:
        from edgora.allocator import registry
    except ImportError as error:
        missing_extra(verb, "solve", error)
    return registry


def settings_of(pairs: list[str] | None) -> dict[str, object]:
    """`--set key=value` pairs; a value is JSON if it parses, else text."""
    settings: dict[str, object] = {}
    for pair in pairs or []:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise Refused(f"--set {pair}: must be key=value", field="--set")
        if key in settings:
            raise Refused(f"--set {key} is given twice", field=key)
        try:
            settings[key] = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            settings[key] = text
    return settings


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise Refused(f"{option} {path} cannot be read: {error}", field=option) from None


class _Write(Protocol):
    def __call__(self, data: bytes, /) -> None: ...


@contextmanager
def _output(path: Path) -> Iterator[_Write]:
    """A writer of the whole file at once. The place is tried before any work; an existing file stays whole until then."""
    try:
        if path.exists() and not path.is_file():  # a device or a pipe: nothing to replace
            with path.open("wb") as device:
                yield lambda data: _all(device.write(data))
            return
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except (OSError, ValueError) as error:
        raise Refused(f"--out {path} cannot be written: {error}", field="--out") from None
    temporary = Path(name)
    with os.fdopen(handle, "wb") as file:
        try:
            yield lambda data: _all(file.write(data))
            file.flush()
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _all(written: int) -> None:
    """Buffered binary files write all or raise; the count says nothing more."""


@contextmanager
def interruptible(*, stoppable: bool) -> Iterator[threading.Event]:
    """Ctrl-C sets the event; a second one, or the first for a policy that looks at no event, raises KeyboardInterrupt."""
    stop = threading.Event()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if stop.is_set() or not stoppable:
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


class _Report(Protocol):
    def __call__(self, worth: float, bound: float | None, /) -> None: ...


def _reporter() -> _Report:
    """Lines of progress, on a terminal only."""
    started, said = time.monotonic(), -math.inf

    def report(worth: float, bound: float | None, /) -> None:
        nonlocal said
        now = time.monotonic() - started
        if progress.is_terminal and now - said >= _PROGRESS_S:
            said = now
            limit = "" if bound is None else f"  bound {bound:,.3f}"
            progress.print(f"{now:6.1f} s  objective {worth:,.3f}{limit}", markup=False)

    return report
