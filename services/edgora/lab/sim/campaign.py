"""Many simulated schedules: run, counted, failures explained and shrunk (ledger.md 19, 20 G5).

A failure is printed with its seed, its options and one command that repeats it. Runs are independent, so a campaign
spreads them over processes; their results do not depend on how many there are.
"""

import multiprocessing
import signal
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from edgora.lab.sim.options import App, Fault, Options, expand
from edgora.lab.sim.registry import RealRegistry, Registry, StubRegistry
from edgora.lab.sim.scenarios import Scenario, ScenarioWorld, draw
from edgora.lab.sim.world import World

__all__ = ["Job", "Outcome", "Summary", "campaign", "described", "jobs_of", "run_job", "shrink", "summarise"]

FORK, LOST, STUCK = "P1", "P3", "P5"


class Job(NamedTuple):
    """One schedule to run."""

    generator: Literal["seed", "scenario"]
    number: int
    app: App = "counter"
    real_crypto: bool = False

    def command(self) -> str:
        """What repeats this schedule alone."""
        flag = "--seeds" if self.generator == "seed" else "--scenarios"
        extra = ("" if self.app == "counter" else f" --app {self.app}") + (" --real-crypto" if self.real_crypto else "")
        return f"edgora sim {flag} {self.number}..{self.number}{extra}"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a schedule came to; small enough to cross a process border."""

    job: Job
    events: int
    blocks: int
    views: int
    answered: int
    seconds: float
    trace: str
    rule: str = ""
    """The property that broke; empty if none. RAISED: the core raised an exception."""
    detail: str = ""
    options: str = ""
    states: tuple[str, ...] = ()


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign in figures."""

    schedules: int
    events_min: int
    events_median: int
    events_total: int
    blocks_min: int
    blocks_total: int
    views_total: int
    answered_total: int
    forks: int
    lost_commits: int
    stuck: int
    other: int
    seconds: float
    rate_per_minute: float


def jobs_of(
    generator: Literal["seed", "scenario"], numbers: Sequence[int], app: App = "counter", *, real_crypto: bool = False
) -> list[Job]:
    return [Job(generator, number, app, real_crypto) for number in numbers]


def world_of(job: Job, options: Options | None = None) -> World:
    """The world that a job runs in; options, if given, replace those of its seed."""
    registry: Registry = RealRegistry() if job.real_crypto else StubRegistry()
    if job.generator == "scenario":
        return ScenarioWorld(draw(job.number), registry)
    options = options or expand(job.number, job.app)
    if options.app == "market":
        from edgora.lab.sim.market import MarketWorldLoad

        return World(options, registry, MarketWorldLoad(options, registry))
    return World(options, registry)


def described(options: Options | Scenario) -> str:
    """Options as one line of JSON."""
    return msgspec.json.encode(options).decode()


def run_job(job: Job, options: Options | None = None, tell: Callable[[str], None] | None = None) -> Outcome:
    """Run one schedule to its end or its first finding; `tell` gets its story line by line."""
    world = world_of(job, options)
    world.tell = tell
    text = described(world.scenario if isinstance(world, ScenarioWorld) else world.options)
    started = time.perf_counter()
    try:
        report = world.run()
    except Exception:
        trail = traceback.format_exc(limit=-6)
        return Outcome(
            job=job, events=world.events, blocks=world.height, views=world.views, answered=0,
            seconds=time.perf_counter() - started, trace="", rule="RAISED", detail=trail, options=text,
        )  # fmt: skip
    found = report.violation
    return Outcome(
        job=job, events=report.events, blocks=report.blocks, views=report.views, answered=report.answered,
        seconds=report.seconds, trace=report.trace, rule=found.rule if found else "",
        detail=found.detail if found else "", options=text if found else "", states=report.states,
    )  # fmt: skip


def campaign(jobs: Sequence[Job], workers: int) -> Iterator[Outcome]:
    """Outcomes as they come; in order where one process does all."""
    if workers <= 1:
        yield from map(run_job, jobs)
        return
    with multiprocessing.get_context("fork").Pool(workers, _leave_signals_to_the_parent) as pool:
        yield from pool.imap_unordered(run_job, jobs, chunksize=max(1, min(16, len(jobs) // (8 * workers))))


def _leave_signals_to_the_parent() -> None:
    """In a worker: Ctrl-C is the parent's business, which ends its workers by SIGTERM; they must not catch that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def summarise(outcomes: Sequence[Outcome], seconds: float) -> Summary:
    """Figures over at least one outcome."""
    events, blocks = [o.events for o in outcomes], [o.blocks for o in outcomes]
    rules = [o.rule for o in outcomes if o.rule]
    known = {FORK, LOST, STUCK}
    return Summary(
        schedules=len(outcomes), events_min=min(events), events_median=int(statistics.median(events)),
        events_total=sum(events), blocks_min=min(blocks), blocks_total=sum(blocks),
        views_total=sum(o.views for o in outcomes), answered_total=sum(o.answered for o in outcomes),
        forks=rules.count(FORK), lost_commits=rules.count(LOST), stuck=rules.count(STUCK),
        other=sum(rule not in known for rule in rules), seconds=round(seconds, 3),
        rate_per_minute=round(60 * len(outcomes) / max(seconds, 1e-9), 1),
    )  # fmt: skip


# ---- shrinking -------------------------------------------------------------------------------------------------------


def shrink(job: Job, rule: str, progress: Callable[[str], None] = lambda _: None) -> Options:
    """The smallest options found that still break the same property: faults, lies and noise dropped one by one."""
    best = expand(job.number, job.app)

    def fails(options: Options) -> bool:
        return run_job(job, options).rule == rule

    changed = True
    while changed:
        changed = False
        for smaller in _smaller(best):
            if fails(smaller):
                best, changed = smaller, True
                progress(
                    f"{len(best.faults)} faults, behaviours {best.behaviours}, drop {best.drop}, {best.safety_ms} ms"
                )
                break
    return best


def _smaller(options: Options) -> Iterator[Options]:
    """Options with one thing less, the largest steps first."""
    replace = msgspec.structs.replace
    faults: tuple[Fault, ...] = options.faults
    if len(faults) > 1:
        half = len(faults) // 2
        yield replace(options, faults=faults[:half])
        yield replace(options, faults=faults[half:])
    for i in range(len(faults)):
        yield replace(options, faults=faults[:i] + faults[i + 1 :])
    for behaviour in options.behaviours:
        yield replace(options, behaviours=tuple(b for b in options.behaviours if b != behaviour))
    if options.byzantine is not None and not options.behaviours:
        yield replace(options, byzantine=None)
    if options.dead:
        yield replace(options, dead=())
    noises: list[dict[str, object]] = [
        {"drop": 0}, {"duplicate": 0}, {"burst": 0}, {"skew_ms": ()}, {"drift_ppm": ()}, {"sync_ms": (0, 0)},
        {"verify_ms": 0}, {"stranger": False}, {"delay_ms": (1, 4)},
    ]  # fmt: skip
    for change in noises:
        smaller = replace(options, **change)
        if smaller != options:
            yield smaller
    if options.safety_ms > 1_000:
        yield replace(options, safety_ms=options.safety_ms // 2)
