"""Verbs of the laboratory: demo, bench, gas; with those of `papers`."""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgora.cli.output import console, fail, missing_extra, progress, show, table
from edgora.cli.papers import bench_allocator, bench_env, reproduce
from edgora.wire.errors import EdgoraError

if TYPE_CHECKING:
    from edgora.lab.report import Report
    from edgora.ue.records import FleetRun

__all__ = ["app_commands"]

ScenarioFile = Annotated[
    Path | None, typer.Option("--scenario", help="Scenario file (TOML). Default: the built-in city.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Override a scenario value: a.b=value; repeat for more.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def demo(
    scenario: ScenarioFile = None, settings: Settings = None,
    keep: Annotated[Path | None, typer.Option("--keep", help="Keep the run folder here (ledgers, keys). Default: a temporary one.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Keep the platform and its live page open until Ctrl-C (scenario: ports.board, 8080).")] = False,
    rate: Annotated[float | None, typer.Option("--rate", help="With --serve: tasks a minute, up to 600. Default: 30.")] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Run the whole platform in this process: four nodes, a fleet, real sealed tasks, certified payment."""
    try:
        from edgora.lab.demo import SERVED_PER_MINUTE, run_demo, run_serving
    except ImportError as error:
        missing_extra("demo", "lab", error)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's policy is found from the working directory
    try:
        if serve:
            _served(
                run_serving(scenario, settings or [], keep, progress, SERVED_PER_MINUTE if rate is None else rate),
                as_json=as_json,
            )
            return
        report = run_demo(scenario, settings or [], keep, progress)
    except EdgoraError as error:
        fail(error, as_json=as_json)
    if as_json:
        show({**_plain(report), "good": report.good})
    else:
        print_report(report)
    if not report.good:
        raise typer.Exit(1)


def _served(run: "FleetRun", *, as_json: bool) -> None:
    """What came of a platform that was kept open; exit 1 if a task ended neither settled nor refunded."""
    ends = Counter(record.state for record in run.records)
    ended = ends["SETTLED"] + ends["REFUNDED"]
    if as_json:
        show(
            {
                "tasks": len(run.records),
                "settled": ends["SETTLED"],
                "refunded": ends["REFUNDED"],
                "wall_ms": run.wall_ms,
            }
        )
    else:
        console.print(f"{ended} of {len(run.records)} tasks ended settled or refunded in {run.wall_ms / 1000:.0f} s")
    if ended != len(run.records):
        raise typer.Exit(1)


def _plain(report: "Report") -> dict[str, object]:
    import msgspec

    fields: dict[str, object] = msgspec.structs.asdict(report)
    return fields


def print_report(report: "Report") -> None:
    """The summary for people."""
    table("latency, ms", ["stage", "tasks", "p50", "p99", "from .. to"], [
        (x.stage, x.tasks, x.p50, x.p99, x.what) for x in report.latency_ms
    ])  # fmt: skip
    table("rounds", ["round", "tasks", "winner", "Gwei", "greedy", "optimum", "share", "taken, refused, late", "why"], [
        (r.round, r.tasks, r.winner, f"{r.value / 1e9:.0f}", f"{r.greedy / 1e9:.0f}",
         f"{r.optimum / 1e9:.0f}{'' if r.proven else ' (bound)'}", f"{100 * r.value / r.optimum:.2f} %" if r.optimum else "-",
         f"{r.proposals}, {r.refused}, {r.late}", r.why) for r in report.rounds
    ])  # fmt: skip
    silent = [(r.round, words) for r in report.rounds if not r.proposals for words in r.skipped]
    if silent:
        table("rounds without a proposal", ["round", "why"], silent)
    print_plans(report)
    print_privacy(report)
    m = report.money
    table("money, wei", ["what", "by the ledger", "on the chain", ""], [
        (what, ledger, chain, "equal" if ledger == chain else "NOT EQUAL") for what, (ledger, chain) in m.checks.items()
    ])  # fmt: skip
    share = f"{100 * report.utility / report.optimum:.2f} % of the proven optimum" if report.optimum else "no round"
    console.print(
        f"{report.tasks} tasks: {report.settled} settled, {report.refunded} refunded ({report.refunds_planned} planned), "
        f"{report.verified} results recomputed and right; utility {report.utility} wei, {share}; "
        f"{report.gas.get('per_settled_task', 0):.0f} gas a task in {report.gas['settled_batches']:.0f} batches on {report.chain}; "
        f"{report.height} blocks, {report.wall_s} s",
        highlight=False,
    )
    for problem in report.problems:
        console.print(f"PROBLEM: {problem}", style="red", markup=False)


def print_plans(report: "Report") -> None:
    """The allocation policy's waves, and what each UE was given and met; nothing without a policy."""
    if not report.waves:
        return
    table("waves", ["wave", "at ms", "policy", "objective", "bound", "status", "s", "UEs", "tasks", "at source", "split", "why"], [
        (w.wave, w.at_ms, w.policy, _number(w.objective), _number(w.bound), w.status, w.solver_s, w.ues, w.tasks, w.at_source,
         w.split, w.why) for w in report.waves
    ])  # fmt: skip
    table("plan (planned / met; ms of the tasks that came)", [
        "wave", "UE", "server", "tasks", "phi", "MHz", "up, down mW", "up, down Mbit/s", "Mfuel/s", "own Mfuel/s", "upload",
        "run", "download", "local", "total",
    ], [
        (p.wave, p.ue, p.server, f"{p.tasks} ({p.at_source} there)", _both(p.phi, p.phi_met, 3), f"{p.bandwidth_hz / 1e6:.2f}",
         f"{p.power_up_uw / 1e3:.1f}, {p.power_down_uw / 1e3:.0f}", f"{p.rate_up / 1e6:.1f}, {p.rate_down / 1e6:.1f}",
         _both(p.speed / 1e6, None if p.speed_met is None else p.speed_met / 1e6, 1), f"{p.local_speed / 1e6:.1f}",
         *(_both(p.planned_ms.get(part), p.met_ms.get(part), 0) for part in ("upload", "run", "download", "local", "total")))
        for p in report.plans
    ])  # fmt: skip
    told = sorted({(p.ue, words) for p in report.plans for words in p.reasons})
    if told:
        table("not as it was solved", ["UE", "why"], told)


def print_privacy(report: "Report") -> None:
    """What a UE that mines decided, beside what other policies would have come to; nothing where nobody mines."""
    if not report.mined:
        return
    table("mining: what is sent and what is kept", [
        "UE", "slot", "new kb", "waiting kb", "channel", "load", "decision", "privacy", "cost", "mJ", "ms (model)", "ms (met)",
    ], [
        (s.ue, s.number, f"{s.new_kb:.0f}", f"{s.waiting_kb:.0f}", "good" if s.good else "bad", s.level,
         "sent" if s.sent else "kept", f"{s.privacy:.3f}", f"{s.cost:.1f}", f"{s.energy_mj:.1f}", f"{s.latency_ms:.1f}",
         "-" if s.met_ms is None else f"{s.met_ms:.0f}") for s in report.mined
    ])  # fmt: skip
    table("privacy, means a slot, on the same data and channel", [
        "policy", "slots", "sent", "reward", "privacy", "cost", "mJ", "ms",
    ], [
        (m.policy, m.slots, f"{100 * m.sent:.0f} %", f"{m.reward:.2f}", f"{m.privacy:.3f}", f"{m.cost:.2f}",
         f"{m.energy_mj:.1f}", f"{m.latency_ms:.1f}") for m in report.privacy
    ])  # fmt: skip


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _both(planned: float | None, met: float | None, digits: int) -> str:
    return " / ".join("-" if x is None else f"{x:.{digits}f}" for x in (planned, met))


def gas(as_json: Json = False) -> None:
    """Gas of every contract function, from receipts of a fresh anvil."""
    try:
        from edgora.lab.gas import measure_on_fresh_anvil as measure
    except ImportError as error:
        missing_extra("gas", "lab", error)
    try:
        with progress.status("measuring on anvil"):
            found = measure()
    except EdgoraError as error:
        fail(error, as_json=as_json)
    if as_json:
        show(found)
    else:
        table(
            "gas",
            ["what", "gas"],
            [(name, f"{value:,}") for name, value in found.items()],
        )


bench_app = typer.Typer(help="Measure, never assert: figures for docs/benchmarks.md.", no_args_is_help=True)


@bench_app.command("spine")
def bench_spine(
    tasks: Annotated[int, typer.Option(help="Tasks of each mode.")] = 40,
    mode: Annotated[list[str] | None, typer.Option(help="embedded, processes; repeat for more. Default: both.")] = None,
    as_json: Json = False,
) -> None:
    """What trust costs: tasks/s and latency by stage, embedded and in processes, beside the kernel called directly."""
    try:
        from edgora.lab.bench import bench_spine as measure
    except ImportError as error:
        missing_extra("bench", "lab", error)
    try:
        found = measure(tasks, mode or ["embedded", "processes"], progress)
    except EdgoraError as error:
        fail(error, as_json=as_json)
    if as_json:
        show(found)
        return
    for run in found.modes:
        table(f"{run.mode}: {run.tasks_per_s:.2f} tasks/s", ["stage", "tasks", "p50 ms", "p99 ms", "from .. to"], [
            (x.stage, x.tasks, x.p50, x.p99, x.what) for x in run.latency_ms
        ])  # fmt: skip
    table("the same kernels called directly", ["kernel", "direct ms", "through the platform ms", "times"], [
        (d.kernel, d.direct_ms, d.platform_ms, d.ratio) for d in found.direct
    ])  # fmt: skip


def app_commands(app: typer.Typer) -> None:
    """Register the verbs of this module."""
    app.command()(demo)
    app.command()(gas)
    bench_app.command("allocator")(bench_allocator)
    bench_app.command("env")(bench_env)
    app.command()(reproduce)
    app.add_typer(bench_app, name="bench")
