"""What trust costs: the same kernels through the whole platform and called directly (`edgora bench spine`).

A fleet with a very wide radio loads the platform, embedded and in processes. Stages are read where they are certain: the
UE's own marks (admit, order, deliver), ledger time (allocate, certify, settle), and the executors' histograms (transfer,
run, hold; percentiles interpolated within buckets a quarter wide). The direct call is the sandbox alone, in this process.
"""

import asyncio
import os
import platform
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx2
import msgspec
from rich.console import Console

from edgora.adapters.anvil_chain import start_anvil
from edgora.adapters.loopback import free_port
from edgora.adapters.sqlite_store import SqliteReader
from edgora.client.kernels import demo_input, order_for_input
from edgora.compute.limits import Limits
from edgora.compute.sandbox import Sandbox
from edgora.lab.cluster import Cluster
from edgora.lab.demo import DEMO_SETTINGS, wait_live
from edgora.lab.processes import lay_out_local, node_plans, prepare_chain, start_redis
from edgora.lab.report import Latency, latencies, percentile, read_events
from edgora.lab.scenario import Scenario, load
from edgora.lab.supervise import allocator_children, node_children, start_children, stop_children
from edgora.ports.store import BlockReader
from edgora.ue.fleet import run_fleet
from edgora.ue.plan import draw_arrivals
from edgora.ue.records import FleetRun, TaskRecord
from edgora.wire.errors import Refused
from edgora.wire.hashing import keccak
from edgora.wire.units import Fuel, Millis, ModuleDigest, Octets

__all__ = ["Direct", "ModeResult", "SpineResult", "bench_spine"]

_REPEATS = 5
_WALL_MS = 60_000
_RATE_PER_S = 200.0
"""All tasks arrive within a fraction of a second: the rate found is the platform's, not the arrivals'."""


class ModeResult(msgspec.Struct, kw_only=True):
    mode: str
    tasks: int
    tasks_per_s: float
    """Delivered and verified results per second, from the first arrival to the last delivery."""
    settled_per_s: float
    """Until the last payment was seen on the chain by a quorum."""
    failed: int
    latency_ms: list[Latency]


class Direct(msgspec.Struct, kw_only=True):
    """Medians, milliseconds. platform: arrival to verified result, under the benchmark's load."""

    kernel: str
    direct_ms: float
    platform_ms: float
    ratio: float
    fuel: int


class SpineResult(msgspec.Struct, kw_only=True):
    machine: str
    date: str
    load_average: float
    """When the run began: other work on the machine makes figures worse."""
    modes: list[ModeResult]
    direct: list[Direct]


def bench_spine(tasks: int, modes: Sequence[str], progress: Console) -> SpineResult:
    """Run each mode once over the same arrivals and call each kernel directly."""
    if tasks < 1:
        raise Refused(f"tasks is {tasks}; at least 1 is needed", field="tasks")
    for mode in modes:
        if mode not in {"embedded", "processes"}:
            raise Refused(f"no mode {mode!r}; there are embedded and processes", field="mode")
    began = os.getloadavg()[0]
    scenario = load(None, [
        *DEMO_SETTINGS, "name=bench", f"fleet.tasks={tasks}", f"fleet.rate_per_s={_RATE_PER_S}", "fleet.bandwidth_hz=1e10",
        "fleet.power_w=10", "plan.cancelled=0", "plan.expired=0",
    ])  # fmt: skip
    results, records = [], list[TaskRecord]()
    for mode in modes:
        progress.print(f"bench spine: {tasks} tasks, {mode}", highlight=False)
        run = asyncio.run(_embedded(scenario) if mode == "embedded" else _processes(scenario, progress))
        results.append(_mode(mode, *run))
        records += run[0].records
    return SpineResult(
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        date=time.strftime("%Y-%m-%d"), load_average=round(began, 2), modes=results, direct=_direct(records),
    )  # fmt: skip


_Run = tuple[FleetRun, Sequence[Latency], Sequence[Latency]]


async def _embedded(scenario: Scenario) -> _Run:
    async with Cluster(scenario) as cluster:
        await wait_live(list(cluster.urls.values()))
        arrivals = draw_arrivals(scenario.fleet, scenario.plan, scenario.seed)
        run = await run_fleet(scenario.fleet, arrivals, scenario.seed, cluster.urls, cluster.places)
        stages = await _executor_stages(list(cluster.urls.values()))
        return run, latencies(read_events(cluster.nodes[0].consensus.store), run.records), stages


async def _processes(scenario: Scenario, progress: Console) -> _Run:
    with tempfile.TemporaryDirectory(prefix="edgora-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        ground = lay_out_local(
            msgspec.structs.replace(scenario, ports=msgspec.structs.replace(scenario.ports, api=0)), folder
        )
        anvil = await asyncio.to_thread(
            start_anvil, block_time_s=2, arguments=("--chain-id", str(ground.genesis.chain_id))
        )
        stack.callback(anvil.stop)
        redis_url = await asyncio.to_thread(start_redis, stack)
        if redis_url is None:
            progress.print("no redis-server found: greedy wins every round", style="yellow")
        await prepare_chain(anvil.url, ground, folder)
        links = [free_port() for _ in ground.nodes]
        children = [c for p in node_plans(ground, folder, links, anvil.url, redis_url or "") for c in node_children(p)]
        if redis_url is not None:
            children += allocator_children(scenario, redis_url, [free_port() for _ in ground.nodes])
        running = await start_children(children)
        try:
            urls = {i: e.public_url for i, e in enumerate(ground.endpoints)}
            places = {i: (s.x_m, s.y_m) for i, s in ((i, scenario.server(i)) for i in urls)}
            await wait_live(list(urls.values()))
            arrivals = draw_arrivals(scenario.fleet, scenario.plan, scenario.seed)
            run = await run_fleet(scenario.fleet, arrivals, scenario.seed, urls, places)
            stages = await _executor_stages(list(urls.values()))
            store: BlockReader = SqliteReader(folder / "node0" / "consensus" / "blocks.sqlite", ground.genesis.id)
            return run, latencies(read_events(store), run.records), stages
        finally:
            await stop_children(running)


def _mode(mode: str, run: FleetRun, ledger: Sequence[Latency], executor: Sequence[Latency]) -> ModeResult:
    good = [r for r in run.records if r.verified]
    first = min(r.at_ms for r in run.records)
    delivered = max((r.at_ms + r.seen_ms["delivered"] for r in good), default=first)
    ended = [r.at_ms + r.seen_ms["ended"] for r in good if r.state == "SETTLED"]
    order = ("admit", "order", "allocate", "transfer", "run", "hold", "certify", "settle", "deliver", "total")
    # The ledger's own "run" spans transfer, run and hold; the executors' histograms take it apart.
    rows = {x.stage: x for x in [*(x for x in ledger if x.stage != "run"), *executor]}
    return ModeResult(
        mode=mode, tasks=len(run.records), tasks_per_s=round(1000 * len(good) / max(1, delivered - first), 2),
        settled_per_s=round(1000 * len(ended) / max(1, max(ended, default=first) - first), 2),
        failed=len(run.records) - len(good), latency_ms=[rows[stage] for stage in order if stage in rows],
    )  # fmt: skip


_BUCKET = re.compile(r'^edgora_executor_seconds_bucket\{le="([^"]+)",stage="(\w+)"\} ([\d.e+]+)$', re.MULTILINE)
_WORDS = {
    "transfer": "executor: module and sealed input fetched from the source",
    "run": "executor: opened, run in WASM, paced to the advertised speed",
    "hold": "executor: result sealed and kept by f+1 other servers",
}


async def _executor_stages(urls: Sequence[str]) -> list[Latency]:
    """p50 and p99 of the executors' stages, over the histograms of all nodes."""
    cumulative: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    async with httpx2.AsyncClient(timeout=10.0) as http:
        for url in urls:
            for edge, stage, count in _BUCKET.findall((await http.get(f"{url}/metrics")).text):
                cumulative[stage][float(edge)] += float(count)
    return [
        Latency(stage=stage, tasks=int(max(cumulative[stage].values())), p50=_within(cumulative[stage], 0.5),
                p99=_within(cumulative[stage], 0.99), what=words)
        for stage, words in _WORDS.items()
        if stage in cumulative and max(cumulative[stage].values())
    ]  # fmt: skip


def _within(cumulative: Mapping[float, float], share: float) -> float:
    """Milliseconds below which this share lies, linear within a bucket."""
    edges = sorted(cumulative)
    wanted, below, floor = share * cumulative[edges[-1]], 0.0, 0.0
    for edge in edges:
        count = cumulative[edge]
        if count >= wanted:
            top = floor if edge == float("inf") else edge
            return round(1000 * (floor + (top - floor) * (wanted - below) / max(count - below, 1e-9)), 1)
        below, floor = count, edge
    return round(1000 * floor, 1)


def _direct(records: Sequence[TaskRecord]) -> list[Direct]:
    """Each kernel of the run, called directly on one of its own inputs: median of a few calls, compiled already."""
    sandbox, found = Sandbox(), []
    delivered: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.verified:
            delivered[record.kernel].append(float(record.seen_ms["delivered"]))
    for kernel in sorted(delivered):
        plaintext = demo_input(kernel, 1)
        order = order_for_input(kernel, plaintext)
        limits = Limits(Fuel(order.fuel_limit), order.memory_pages, Octets(order.output_octets), Millis(_WALL_MS))
        digest = ModuleDigest(keccak(order.module))
        sandbox.prepare(order.module)
        times, fuel = [], 0
        for _ in range(_REPEATS):
            start = time.perf_counter()
            fuel = sandbox.run(order.module, plaintext, limits, digest=digest).fuel_used
            times.append(1000 * (time.perf_counter() - start))
        direct, through = statistics.median(times), percentile(delivered[kernel], 0.5)
        found.append(Direct(
            kernel=kernel, direct_ms=round(direct, 3), platform_ms=through, ratio=round(through / direct, 1), fuel=fuel
        ))  # fmt: skip
    return found
