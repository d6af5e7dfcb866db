"""The papers' figures and the allocators' goals: `edgora reproduce`, `edgora bench allocator`, `edgora bench env`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from edgora.cli.output import fail, missing_extra, progress, show, table
from edgora.wire.errors import EdgoraError

__all__ = ["bench_allocator", "bench_env", "one_thread", "reproduce"]

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


def reproduce(
    item: Annotated[
        str, typer.Argument(metavar="ITEM", help="mta.fig2, tcr.table2, ...; mta, tcr, dpe, baas, privacy; all")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where CSV, PNG, SVG and JSON are written.")],
    quick: Annotated[bool, typer.Option("--quick", help="Fewer seeds and points; seconds instead of minutes.")] = False,
    as_json: Json = False,
) -> None:
    """Make a paper's table or figure again: data, drawing, the printed figures beside ours, and what holds."""
    one_thread()
    try:
        from edgora.lab.reproduce.item import Setting, items
        from edgora.lab.reproduce.item import reproduce as make
    except ImportError as error:
        missing_extra("reproduce", "lab", error)
    made = []
    try:
        for name in items(item):
            progress.print(f"{name} ...", markup=False)
            made.append(make(name, out, Setting(quick), lambda line: progress.print(f"  {line}", markup=False)))
    except EdgoraError as error:
        fail(error, as_json=as_json)
    except ImportError as error:
        missing_extra("reproduce", "solve", error)
    if as_json:
        show({"items": made, "out": str(out)})
        return
    for document in made:
        typer.echo(
            f"\n{document.item}: {document.title} ({document.cpu_s:g} s CPU)\n{document.how}\n{document.paragraph}"
        )
        if document.printed:
            table("printed figures", ["", "the paper", "here"], [(p.what, p.paper, p.ours) for p in document.printed])
    typer.echo(f"written to {out}")


def bench_allocator(
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PROBLEM", help="mta, tcr, dpe, baas, privacy; repeat for more."),
    ] = None,
    growth: Annotated[
        bool, typer.Option("--growth/--no-growth", help="Time against size for every solver as well.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where growth.csv, .png and .svg are written.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Every figure of the allocators' goals, beside its goal, and time against size; CPU seconds, one thread."""
    one_thread()
    try:
        from edgora.lab.goals.growth import draw_growth, measure_growth
        from edgora.lab.goals.measured import PROBLEMS, run_goals
    except ImportError as error:
        missing_extra("bench", "lab", error)

    def note(line: str) -> None:
        progress.print(line, markup=False, highlight=False)

    try:
        found = run_goals(only or PROBLEMS, note)
        curves = measure_growth(only or PROBLEMS, note) if growth else []
        files = draw_growth(curves, out) if out is not None and curves else []
    except EdgoraError as error:
        fail(error, as_json=as_json)
    except ImportError as error:
        missing_extra("bench", "solve", error)
    if as_json:
        figures = [{**_plain(figure), "holds": figure.holds} for figure in found.figures]
        show({
            "machine": found.machine, "cpu_s": found.cpu_s, "reached": found.reached, "figures": figures, "growth": curves,
            "files": files,
        })  # fmt: skip
        return
    table(f"{found.reached} of {len(found.figures)} goals reached on {found.machine}", ["goal", "what", "measured", "goal", ""], [
        (f"{f.problem} {f.goal}", f.what, f"{f.value:.5g} {f.unit}", f"{f.sense} {f.limit:g} {f.unit}", "" if f.holds else "falls short")
        for f in found.figures
    ])  # fmt: skip
    if curves:
        table("CPU seconds by users x servers; growth exponent", ["problem", "solver", "seconds", "exponent", "ended"], [
            (c.problem, c.solver, ", ".join(f"{p.users}x{p.servers}: {p.cpu_s:.3g}" for p in c.points),
             "-" if c.exponent is None else f"{c.exponent:g}", c.ended) for c in curves
        ])  # fmt: skip


def bench_env(as_json: Json = False) -> None:
    """How many slots a second the learners' environments play, vectorised, observations included; one thread."""
    one_thread()
    try:
        import gymnasium  # noqa: F401  # the environments' own library, not of the `lab` extra

        from edgora.lab.bench_env import measure_environments
    except ImportError as error:
        missing_extra("bench env", "learn", error)
    found = list(measure_environments(lambda line: progress.print(line, markup=False, highlight=False)))
    if as_json:
        show({"environments": found})
        return
    table("slots per CPU second, one thread", ["environment", "settings", "batch", "slots/s", "goal"], [
        (speed.env, ", ".join(f"{key}={value}" for key, value in speed.settings.items()), str(speed.batch),
         f"{speed.slots_per_s:,.0f}", "" if speed.goal is None else f">= {speed.goal:,.0f}")
        for speed in found
    ])  # fmt: skip


def _plain(figure: object) -> dict[str, object]:
    import msgspec

    fields: dict[str, object] = msgspec.to_builtins(figure)
    return fields


def one_thread() -> None:
    """Before numpy and the solvers are imported: they read these once."""
    for name in _THREADS:
        os.environ.setdefault(name, "1")
