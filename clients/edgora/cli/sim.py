"""`edgora sim`: the ledger under seeded faults (ledger.md 19, 20 G5).

Exit codes: 0 every property held, 1 at least one did not (each failure comes with one command that repeats it), 2 bad
usage.
"""

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from edgora.cli.output import fail, missing_extra, progress, show
from edgora.wire.errors import Refused

if TYPE_CHECKING:
    from edgora.lab.sim.campaign import Job, Outcome
    from edgora.lab.sim.options import App

__all__ = ["app_commands"]

_PROGRESS_S = 2.0
"""Least seconds between two lines of progress."""

_SHOWN = 5
"""Failures that are printed in full."""

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def app_commands(app: typer.Typer) -> None:
    """Register sim."""
    app.command()(sim)


def sim(
    seeds: Annotated[str, typer.Option(metavar="A..B", help="Long schedules, both ends included.")] = "",
    scenarios: Annotated[str, typer.Option(metavar="A..B", help="Phase-aware scenarios.")] = "",
    jobs: Annotated[int, typer.Option(min=0, metavar="N", help="Processes; 0: one a core.")] = 0,
    application: Annotated[
        str, typer.Option("--app", metavar="counter|market", help="What the ledger executes.")
    ] = "counter",
    real_crypto: Annotated[bool, typer.Option("--real-crypto", help="secp256k1 instead of the registry stub.")] = False,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Drop faults from the first failing seed while it fails.")
    ] = False,
    replay_verbose: Annotated[
        bool, typer.Option("--replay-verbose", help="Tell the story of each schedule on stderr.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the PBFT core under seeded faults and check what it promises."""
    try:
        from edgora.lab.sim import campaign as lab
    except ImportError as error:
        missing_extra("sim", "node", error)
    try:
        app_name = _application(application)
        if not seeds and not scenarios:
            seeds = "0..99"
        work = lab.jobs_of("seed", _numbers(seeds, "seeds"), app_name, real_crypto=real_crypto)
        work += lab.jobs_of("scenario", _numbers(scenarios, "scenarios"), real_crypto=real_crypto)
    except Refused as error:
        fail(error, as_json=as_json)
    if replay_verbose:
        outcomes = [
            lab.run_job(job, tell=lambda line: progress.print(line, highlight=False, markup=False)) for job in work
        ]
        seconds = sum(outcome.seconds for outcome in outcomes)
    else:
        started = time.monotonic()
        outcomes = _run(work, jobs or os.cpu_count() or 1)
        seconds = time.monotonic() - started
    failures = [outcome for outcome in outcomes if outcome.rule]
    if shrink and failures and failures[0].job.generator == "seed":
        small = lab.shrink(failures[0].job, failures[0].rule, lambda line: progress.print(f"shrunk to {line}"))
        progress.print(f"smallest options that still break {failures[0].rule}: {lab.described(small)}", markup=False)
    _report(outcomes, seconds, as_json=as_json)
    if failures:
        raise typer.Exit(1)


def _application(name: str) -> "App":
    if name == "market":
        return "market"
    if name == "counter":
        return "counter"
    raise Refused(f"application {name!r} is not known; counter and market are", field="app")


def _numbers(text: str, field: str) -> range:
    """A..B with both ends, or one number."""
    if not text:
        return range(0)
    first, dots, last = text.partition("..")
    try:
        low, high = int(first), int(last) if dots else int(first)
    except ValueError:
        raise Refused(f"{text!r} is not A..B", field=field) from None
    if not 0 <= low <= high:
        raise Refused(f"{text!r}: A..B needs 0 <= A <= B", field=field)
    return range(low, high + 1)


def _run(work: "list[Job]", workers: int) -> "list[Outcome]":
    from edgora.lab.sim import campaign as lab

    outcomes: list[Outcome] = []
    shown, said = 0, time.monotonic()
    for outcome in lab.campaign(work, min(workers, len(work))):
        outcomes.append(outcome)
        if outcome.rule and shown < _SHOWN:
            shown += 1
            _explain(outcome)
        if time.monotonic() - said > _PROGRESS_S:
            said = time.monotonic()
            broken = sum(bool(o.rule) for o in outcomes)
            progress.print(f"{len(outcomes)} of {len(work)} schedules, {broken} with a finding", highlight=False)
    return outcomes


def _explain(outcome: "Outcome") -> None:
    """A failure: what, where everybody stood, under which options, and how to repeat it."""
    progress.print(f"{outcome.rule}: {outcome.detail}", style="red", markup=False, highlight=False)
    for state in outcome.states:
        progress.print(f"  {state}", markup=False, highlight=False)
    progress.print(f"  options {outcome.options}", markup=False, highlight=False, soft_wrap=True)
    progress.print(f"  repeat with: {outcome.job.command()}", markup=False, highlight=False)


def _report(outcomes: "list[Outcome]", seconds: float, *, as_json: bool) -> None:
    from edgora.lab.sim import campaign as lab

    document: dict[str, object] = {}
    for kind, name in (("seed", "seeds"), ("scenario", "scenarios")):
        part = [outcome for outcome in outcomes if outcome.job.generator == kind]
        if part:
            share = seconds * sum(o.seconds for o in part) / max(sum(o.seconds for o in outcomes), 1e-9)
            document[name] = lab.summarise(part, share)
    document["failures"] = [
        {"rule": o.rule, "detail": o.detail, "options": o.options, "states": o.states, "repeat": o.job.command()}
        for o in sorted(outcomes, key=lambda o: o.job)
        if o.rule
    ]
    if len(outcomes) == 1:
        document["trace"] = outcomes[0].trace
    if as_json:
        show(document)
        return
    for name in ("seeds", "scenarios"):
        figures = document.get(name)
        if isinstance(figures, lab.Summary):
            typer.echo(
                f"{figures.schedules} {name}: {figures.events_median} events in the median (least {figures.events_min}), "
                f"{figures.blocks_total} blocks, {figures.views_total} view changes, {figures.answered_total} answers; "
                f"{figures.forks} forks, {figures.lost_commits} lost commits, {figures.stuck} stuck, {figures.other} other; "
                f"{figures.seconds:.1f} s, {figures.rate_per_minute:.0f} a minute"
            )
