"""`edgora demo`: the whole platform in one process, a fleet that loads it, and a summary that adds up.

A bundled photo is among the inputs; the results are recomputed without the sandbox; at the end every balance is read
from the contract. The run is good if each task ended settled, or refunded as planned, and no sum is off.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from edgora.client import AsyncClient
from edgora.lab.cluster import Cluster
from edgora.lab.report import Report, report_run
from edgora.lab.scenario import Scenario, load
from edgora.ue.fleet import run_fleet, until_interrupted
from edgora.ue.plan import MOST_MINUTES, draw_arrivals, lasting
from edgora.ue.records import FleetRun, TaskRecord
from edgora.wire.errors import Unavailable

__all__ = ["DEMO_SETTINGS", "run_demo", "run_scenario", "run_serving", "serve", "wait_live"]

DEMO_SETTINGS = (
    "name=demo", "market.batch_ms=3000", "market.audit_max_ms=5000", "market.margin_ms=20000", "market.proposal_ms=500",
    "market.solve_ms=150",
)  # fmt: skip
"""Quicker batches and audits than a consortium would agree on, so that a demo sees them happen, and time for proposals
to be ordered by four nodes that share one interpreter."""
_MINING = ("fleet.mining.policy=ddqn-vec",)
"""Of the built-in city: a UE with hash puzzles mines, and the report says what that gives away."""
_LIVE_S = 120.0
SERVED_PER_MINUTE = 30.0
"""Tasks while people watch: enough to see, and a laptop stays quiet."""


class _Board:
    """The live table: one line a task, newest stage last."""

    def __init__(self, progress: Console, total: int) -> None:
        self._progress = progress
        self._total = total
        self._records: dict[int, TaskRecord] = {}
        self._start = time.monotonic()
        self.live = Live(console=progress, refresh_per_second=4, transient=True) if progress.is_terminal else None

    def changed(self, record: TaskRecord) -> None:
        self._records[record.number] = record
        if self.live is not None:
            self.live.update(self._table())
        elif record.done:
            self._progress.print(
                f"{time.monotonic() - self._start:6.1f} s  task {record.number:2d}  UE {record.ue}  {record.kernel:<10} "
                f"{record.state:<9} {record.error or record.reason}",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip

    def _table(self) -> Table:
        ended = sum(r.done for r in self._records.values())
        grid = Table(
            title=f"{ended} of {self._total} tasks ended, {time.monotonic() - self._start:.0f} s", title_justify="left"
        )
        for name in ("task", "UE", "kernel", "from", "to", "state", "fuel", "wei", "seen"):
            grid.add_column(name)
        for r in sorted(self._records.values(), key=lambda r: r.number):
            stages = " ".join(f"{name} {ms}" for name, ms in list(r.seen_ms.items())[-3:])
            grid.add_row(
                str(r.number), str(r.ue), r.kernel, "-" if r.source is None else str(r.source),
                "-" if r.executor is None else str(r.executor), r.state, f"{r.fuel_used:,}", str(r.amount), stages,
            )  # fmt: skip
        return grid


async def wait_live(urls: Sequence[str]) -> None:
    """Wait until every server is registered, advertises and has shown its keys."""
    async with AsyncClient(urls) as visitor:
        end = time.monotonic() + _LIVE_S
        while time.monotonic() < end:
            try:
                listed = await visitor.servers()
                if len(listed) == len(urls) and all(s.live and s.keys is not None for s in listed):
                    return
            except Unavailable:
                pass
            await asyncio.sleep(0.05)
    raise Unavailable(f"not every server went live within {_LIVE_S:.0f} s", fix="look at GET /v1/status of each node")


async def run_scenario(scenario: Scenario, keep: Path | None, progress: Console) -> Report:
    """One embedded run of a scenario and its report."""
    began = time.monotonic()
    async with Cluster(scenario, keep) as cluster:
        await wait_live(list(cluster.urls.values()))
        progress.print(
            f"{len(cluster.nodes)} nodes live on {cluster.chain.kind} after {time.monotonic() - began:.1f} s: "
            f"{', '.join(cluster.urls.values())}", highlight=False,
        )  # fmt: skip
        arrivals = draw_arrivals(scenario.fleet, scenario.plan, scenario.seed)
        board = _Board(progress, len(arrivals))
        ground = cluster.running_ground
        with board.live if board.live is not None else nullcontext():
            run: FleetRun = await run_fleet(
                scenario.fleet, arrivals, scenario.seed, cluster.urls, cluster.places,
                genesis_id="0x" + ground.genesis.id.hex(), on_change=board.changed,
                planner=cluster.planner, on_done=cluster.on_done,
            )  # fmt: skip
        node = cluster.nodes[0]
        report = await report_run(
            ground.genesis, scenario.name, scenario.seed, cluster.chain.kind, cluster.chain.chain, node.consensus.store,
            run, cluster.chain.gas.summary, cluster.skipped(), cluster.paces(), scenario.fleet.mining,
        )  # fmt: skip
        report.wall_s = round(time.monotonic() - began, 1)
        return report


def run_demo(scenario: Path | None, settings: Sequence[str], keep: Path | None, progress: Console) -> Report:
    """The demo: the built-in city, or a scenario file, with overrides."""
    plan = load(scenario, settings if scenario is not None else [*DEMO_SETTINGS, *_MINING, *settings])
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    return asyncio.run(run_scenario(plan, keep, progress))


async def serve(scenario: Scenario, keep: Path | None, progress: Console, per_minute: float) -> FleetRun:
    """The embedded platform with its page and a task now and then, until Ctrl-C."""
    began = time.monotonic()
    fleet = lasting(scenario.fleet, per_minute, MOST_MINUTES)
    async with Cluster(scenario, keep, scenario.ports.board, own_ports=True) as cluster:
        await wait_live(list(cluster.urls.values()))
        progress.print(
            f"{len(cluster.nodes)} nodes live on {cluster.chain.kind} after {time.monotonic() - began:.1f} s"
        )
        for index, url in cluster.urls.items():
            progress.print(f"node {index}: {url}  (API: {url}/openapi.json)", highlight=False)
        progress.print(f"board: {cluster.board_url}; Ctrl-C ends it", highlight=False)

        def told(record: TaskRecord) -> None:
            if record.done and record.error is not None:
                progress.print(f"task {record.number}: {record.error}", markup=False, highlight=False)

        enough = until_interrupted(progress.print)
        run = await run_fleet(
            fleet, draw_arrivals(fleet, scenario.plan, scenario.seed), scenario.seed, cluster.urls, cluster.places,
            genesis_id="0x" + cluster.running_ground.genesis.id.hex(), on_change=told, planner=cluster.planner,
            enough=enough, on_done=cluster.on_done,
        )  # fmt: skip
        await enough.wait()
        return run


def run_serving(
    scenario: Path | None, settings: Sequence[str], keep: Path | None, progress: Console, per_minute: float
) -> FleetRun:
    """`edgora demo --serve`: the demo's city, kept open, with the board's fault panel."""
    plan = load(scenario, settings if scenario is not None else [*DEMO_SETTINGS, "faults.allowed=true", *settings])
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    return asyncio.run(serve(plan, keep, progress, per_minute))
