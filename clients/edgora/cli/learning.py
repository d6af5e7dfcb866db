"""Learners from the command line: train one, evaluate a policy (README.md 2).

`train` writes policy.npz, log.jsonl and checkpoint.npz into its folder. Ctrl-C, or a kill, leaves a checkpoint, and the
same command goes on from it to the same policy. `evaluate` plays a policy.npz, a solver or `module:object` on one
environment for each seed, beside the floor and the bound on the same slots. Exit codes as everywhere: 0 ok (also when
stopped by Ctrl-C), 1 failed, 2 bad usage or input.
"""

import math
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from edgora.cli.allocate import Json, Seed, Settings, interruptible, registry_for, settings_of
from edgora.cli.output import fail, progress, show, table
from edgora.cli.papers import one_thread
from edgora.wire.errors import EdgoraError, Refused

if TYPE_CHECKING:
    from edgora.allocator.learn import Progress

__all__ = ["app_commands", "seed_range"]

_PROGRESS_S = 0.5
"""Least seconds between two lines of progress."""
_MOST_SEEDS = 100_000

ProblemName = Annotated[str, typer.Argument(metavar="PROBLEM", help="baas or privacy")]


def app_commands(app: typer.Typer) -> None:
    """Register train and evaluate."""
    app.command()(train)
    app.command()(evaluate)


def train(
    problem: ProblemName,
    algo: Annotated[str, typer.Option("--algo", metavar="NAME", help="One of the problem's learners.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the policy, the log and the checkpoint go.")],
    seed: Seed = 0,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train a policy; Ctrl-C leaves a checkpoint, and the same command goes on from it."""
    one_thread()
    registry = registry_for("train")
    try:
        learning = registry.learning(problem)
        chosen = settings_of(settings)
        with interruptible(stoppable=True) as stop:
            trained = learning.train(algo, out, seed, chosen, _reporter(), stop.is_set)
    except EdgoraError as error:
        fail(error, as_json=as_json)
    if as_json:
        show(trained)
        return
    figures = ", ".join(f"{name} {value:.4g}" for name, value in trained.figures.items())
    if trained.finished:
        typer.echo(f"{algo}: {trained.slots} slots, {trained.updates} updates, {trained.cpu_s:.1f} s CPU; {figures}")
        typer.echo(f"policy written to {trained.policy}")
    else:
        typer.echo(f"{algo}: stopped after {trained.slots} slots ({figures}); the same command goes on from here")


def evaluate(
    problem: ProblemName,
    policy: Annotated[
        str, typer.Option("--policy", metavar="FILE|NAME", help="A policy.npz, a solver, or module:object.")
    ],
    seeds: Annotated[str, typer.Option("--seeds", metavar="A..B", help="Environment seeds, both ends played.")],
    settings: Settings = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE.npz", help="Where every slot is written.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Play a policy on unseen layouts: means with 95 % intervals, and its score between floor and bound."""
    one_thread()
    registry = registry_for("evaluate")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's policy is found from the working directory
    try:
        found = registry.evaluate(
            problem, policy, seed_range(seeds), settings=settings_of(settings), trace=trace, note=_reporter()
        )
    except EdgoraError as error:
        fail(error, as_json=as_json)
    if as_json:
        show(found)
        return
    rows = [(name, _cell(value.mean), _interval(value.low, value.high)) for name, value in found.metrics.items()]
    if found.score is not None:
        rows.append(("score", _cell(found.score.mean), _interval(found.score.low, found.score.high)))
    rows += [(name, _cell(value), "") for name, value in found.scale.items()]
    first, last = found.seeds
    table(
        f"{problem} {found.policy}, seeds {first}..{last}, {found.slots} slots each, {found.decision_ms:.3f} ms CPU a decision",
        ["", "mean", "95 % interval"], rows,
    )  # fmt: skip
    if found.trace is not None:
        typer.echo(f"trace written to {found.trace}")


def seed_range(text: str) -> range:
    """`A..B` with both ends, or one seed."""
    match = re.fullmatch(r"(\d{1,18})(?:\.\.(\d{1,18}))?", text)
    if match is None:
        raise Refused(f"--seeds {text}: must be A..B or one integer", field="--seeds")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 <= last - first < _MOST_SEEDS:
        raise Refused(f"--seeds {text}: must hold 1..{_MOST_SEEDS} seeds", field="--seeds")
    return range(first, last + 1)


def _cell(value: float) -> str:
    return f"{value:.4f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f} .. {high:.4f}"


class _Report(Protocol):
    """Hears an `edgora.allocator.learn.Progress`, which is not imported here: verbs load what they need when they run."""

    def __call__(self, moment: "Progress", /) -> None: ...


def _reporter() -> _Report:
    """Lines of progress on stderr, on a terminal only."""
    said = -math.inf

    def report(moment: "Progress", /) -> None:
        nonlocal said
        now = time.monotonic()
        if progress.is_terminal and (now - said >= _PROGRESS_S or moment.done >= moment.total):
            said = now
            figures = "".join(f"  {name} {value:.4g}" for name, value in moment.figures.items())
            share = 100.0 * moment.done / max(moment.total, 1)
            progress.print(f"{share:5.1f} %  {moment.done:,} of {moment.total:,} slots{figures}", markup=False)

    return report
