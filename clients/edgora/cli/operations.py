"""Verbs of an operator: genesis, deploy, node run|export|import, up, fleet, doctor, status."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer

from edgora.cli import faults
from edgora.cli.output import console, fail, missing_extra, progress, show, table
from edgora.telemetry.tracing import client_span, from_environment, open_tracing
from edgora.wire import rest
from edgora.wire.errors import EdgoraError, Refused, Unavailable

if TYPE_CHECKING:
    from edgora.lab.scenario import Scenario

__all__ = ["app_commands"]

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
ScenarioFile = Annotated[
    Path | None, typer.Option("--scenario", help="Scenario file (TOML). Default: the built-in city.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Override a scenario value: a.b=value; repeat for more.")
]
Folder = Annotated[Path, typer.Option("--folder", help="Where the genesis document and public files are.")]
Homes = Annotated[Path | None, typer.Option("--homes", help="Where node<i>/ and deployer/ are; default: the folder.")]

_WAIT_S = 120.0
_PORTS = (8080, 8100, 8110, 8120, 8130, 8545)


def _guard(verb: Callable[[], T], *, as_json: bool = False) -> T:
    try:
        return verb()
    except EdgoraError as error:
        fail(error, as_json=as_json)


def genesis(
    folder: Folder = Path("run"), homes: Homes = None, scenario: ScenarioFile = None, settings: Settings = None,
    network_url: Annotated[list[str] | None, typer.Option(help="REST inside the deployment's network: once, with {i} for the node and {port} for the scenario's port, or once a node.")] = None,
    public_url: Annotated[list[str] | None, typer.Option(help="REST for people on the host; as --network-url.")] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Draw keys and the genesis document once; doing it again changes nothing."""
    try:
        from edgora.lab.ground import Endpoint, lay_out
        from edgora.lab.scenario import load
    except ImportError as error:
        missing_extra("genesis", "node", error)

    def run() -> None:
        plan = load(scenario, settings or [])
        endpoints = [
            Endpoint(*urls)
            for urls in zip(_urls("network-url", network_url, plan), _urls("public-url", public_url, plan), strict=True)
        ]
        ground = lay_out(plan, endpoints, folder, time.time_ns() // 1_000_000, homes)
        document = {
            "genesis_id": "0x" + ground.genesis.id.hex(), "market_address": "0x" + ground.genesis.market_address.hex(),
            "validators": ["0x" + v.address.hex() for v in ground.genesis.validators], "folder": str(folder),
        }  # fmt: skip
        if as_json:
            show(document)
        else:
            console.print(f"consortium {document['genesis_id']} of {len(ground.nodes)} nodes in {folder}")

    _guard(run, as_json=as_json)


def _urls(option: str, given: list[str] | None, plan: "Scenario") -> list[str]:
    """One URL a node, from a pattern or from as many URLs."""
    patterns = given or ["http://127.0.0.1:{port}"]
    count = plan.consortium.nodes
    if len(patterns) not in {1, count}:
        raise Refused(
            f"--{option} is given {len(patterns)} times; give it once, or once for each of {count} nodes", field=option
        )
    try:
        return [
            patterns[i if len(patterns) > 1 else 0].format(i=i, port=plan.ports.api + i * plan.ports.api_step)
            for i in range(count)
        ]
    except (KeyError, IndexError, ValueError):
        raise Refused(f"--{option} {patterns[0]}: only {{i}} and {{port}} may stand in braces", field=option) from None


def deploy(
    folder: Folder = Path("run"), homes: Homes = None,
    rpc: Annotated[str, typer.Option("--rpc", help="JSON-RPC of the chain.")] = "http://127.0.0.1:8545",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Put the contract where the genesis document says and fund the validators' gas; idempotent."""
    try:
        from edgora.adapters.anvil_chain import AnvilChain
        from edgora.adapters.chain_deploy import write_deployment
        from edgora.lab import chain as chains
        from edgora.lab.ground import read_deployer_key, read_genesis
    except ImportError as error:
        missing_extra("deploy", "node,chain", error)

    async def run() -> None:
        document = read_genesis(folder)
        key = read_deployer_key(homes or folder, document)
        remote = AnvilChain(rpc, document.market_address)
        try:
            await _until(remote.latest)
            if document.chain_id == 31337:
                await chains.fund(remote, chains.accounts(document))
            deployment = await chains.deploy(remote, key, document)
        finally:
            await remote.close()
        if not (folder / "deployment.json").exists():
            write_deployment(folder / "deployment.json", deployment)
        if as_json:
            show(deployment)
        else:
            console.print(f"Settlement at {deployment.address}, code {deployment.code_hash}")

    _guard(lambda: asyncio.run(run()), as_json=as_json)


async def _until(ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Ask until it answers: services of a deployment start in any order."""
    end = time.monotonic() + _WAIT_S
    while True:
        try:
            return await ask()
        except Unavailable as error:
            if time.monotonic() > end:
                raise
            progress.print(f"waiting: {error.detail}", markup=False)
            await asyncio.sleep(1)


node_app = typer.Typer(help="One edge server.", no_args_is_help=True)


@node_app.command("run")
def node_run(
    index: Annotated[int, typer.Option("--index", help="Validator index.")],
    folder: Folder = Path("/genesis"),
    home: Annotated[Path, typer.Option("--home", help="The node's own folder: secrets and data.")] = Path("/node"),
    links: Annotated[str, typer.Option(help="host:port of every validator's links, comma separated.")] = "",
    link_bind: Annotated[str, typer.Option(help="host:port to listen on for links.")] = "127.0.0.1:7000",
    listen: Annotated[str, typer.Option(help="host:port of REST.")] = "127.0.0.1:8100",
    rpc: Annotated[str, typer.Option("--rpc", help="JSON-RPC of the chain.")] = "http://127.0.0.1:8545",
    redis: Annotated[str, typer.Option(help="Bus to the allocator; empty: none.")] = "",
    faucet_key: Annotated[Path | None, typer.Option(help="Development only: opens the faucet.")] = None,
) -> None:
    """Run a node's two processes until a signal."""
    try:
        from edgora.lab.ground import read_scenario
        from edgora.lab.supervise import NodePlan, node_children, run_children
    except ImportError as error:
        missing_extra("node run", "node,chain", error)

    def run() -> int:
        scenario = read_scenario(folder)
        plan = NodePlan(
            home=home, genesis=folder, index=index, links=links.split(","), link_bind=link_bind, listen=listen,
            chain_rpc=rpc, redis_url=redis, faucet_key=faucet_key,
            environment=scenario.server(index).environment(), faults=scenario.faults.allowed,
        )  # fmt: skip
        return asyncio.run(run_children(node_children(plan)))

    raise typer.Exit(_guard(run))


@node_app.command("export")
def node_export(
    home: Annotated[Path, typer.Option("--home", help="Folder of a stopped node.")],
    archive: Annotated[Path, typer.Argument(help="Archive to write (.tar.gz, mode 0600); - for stdout.")],
    as_json: Json = False,
) -> None:
    """Back up a stopped node: keys, log, ledger. Refused while any instance runs."""
    try:
        from edgora.lab.backup import export_node
    except ImportError as error:
        missing_extra("node export", "node", error)
    to_stdout = str(archive) == "-"
    files = _guard(lambda: export_node(home, sys.stdout.buffer if to_stdout else archive), as_json=as_json)
    if as_json and not to_stdout:
        show({"archive": str(archive), "files": files})
    else:
        said = progress if to_stdout else console
        said.print(f"{files} files of {home} in the archive: whoever has it is this node", highlight=False)


@node_app.command("import")
def node_import(
    archive: Annotated[Path, typer.Argument(help="Archive of `edgora node export`; - for stdin.")],
    home: Annotated[Path, typer.Option("--home", help="Empty folder to restore into.")],
    votes: Annotated[
        bool, typer.Option("--votes", help="This is the newest backup and the node ran nowhere since: let it vote.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Restore a node. Without --votes it only observes: from an older log it would vote twice for one height."""
    try:
        from edgora.lab.backup import import_node
    except ImportError as error:
        missing_extra("node import", "node", error)
    files = _guard(
        lambda: import_node(sys.stdin.buffer if str(archive) == "-" else archive, home, votes=votes), as_json=as_json
    )
    if as_json:
        show({"home": str(home), "files": files, "votes": votes})
    else:
        console.print(f"{files} files restored into {home}; the node {'votes' if votes else 'observes'}")


def allocators(
    scenario: ScenarioFile = None, settings: Settings = None,
    redis: Annotated[str, typer.Option(help="The bus.")] = "redis://127.0.0.1:6379/0",
    first_port: Annotated[int, typer.Option(help="Health, metrics and plans of node i's worker: this + i.")] = 8190,
    host: Annotated[str, typer.Option(help="Where they listen.")] = "127.0.0.1",
    jobs: Annotated[Path | None, typer.Option("--jobs", metavar="DIR", help="Also take long runs, at the first port.")] = None,
) -> None:  # fmt: skip
    """Run the allocator: one worker process and policy for each node of the scenario."""
    try:
        from edgora.lab.scenario import load
        from edgora.lab.supervise import allocator_children, run_children
    except ImportError as error:
        missing_extra("allocators", "node,solve", error)

    def run() -> int:
        plan = load(scenario, settings or [])
        return asyncio.run(
            run_children(
                allocator_children(plan, redis, [first_port + i for i in range(plan.consortium.nodes)], host, jobs)
            )
        )

    raise typer.Exit(_guard(run))


def fleet(
    scenario: ScenarioFile = None, settings: Settings = None,
    node: Annotated[list[str] | None, typer.Option("--node", help="Base URL of each server, in order of ids.")] = None,
    genesis_id: Annotated[str | None, typer.Option("--genesis-id", help="Consortium to insist on.")] = None,
    inside: Annotated[bool, typer.Option("--inside", help="We run in the deployment's own network.")] = False,
    allocator: Annotated[str, typer.Option(help="Base URL of an allocator, for a scenario with fleet.allocation.")] = "http://127.0.0.1:8190",
    rate: Annotated[float | None, typer.Option("--rate", envvar="EDGORA_FLEET_RATE", help="Tasks a minute, up to 600. Default: the scenario's.")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", envvar="EDGORA_FLEET_MINUTES", help="Keep going for so long, up to 1440; Ctrl-C ends it early and lets tasks under way end.")] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Load a running platform with the scenario's UEs; exit 1 if a task ended neither settled nor refunded."""
    try:
        from edgora.client import AsyncClient
        from edgora.lab.scenario import load
        from edgora.ue.fleet import run_fleet, until_interrupted
        from edgora.ue.plan import draw_arrivals, lasting
        from edgora.ue.records import TaskRecord
        from edgora.ue.waves import PlanService
    except ImportError as error:
        missing_extra("fleet", "solve", error)

    def told(record: TaskRecord) -> None:
        if record.done:
            progress.print(
                f"task {record.number:3d}  UE {record.ue}  {record.kernel:<10} {record.state:<9} {record.error or record.reason}",
                markup=False, highlight=False,
            )  # fmt: skip

    async def run() -> bool:
        plan = load(scenario, settings or [])
        ues = plan.fleet
        if rate is not None or minutes is not None:
            per_minute = 60 * ues.rate_per_s if rate is None else rate
            ues = lasting(ues, per_minute, ues.tasks / per_minute if minutes is None and per_minute else minutes or 0)
        urls = dict(enumerate(node or [f"http://127.0.0.1:81{i}0" for i in range(4)]))
        async with AsyncClient(list(urls.values()), genesis_id=genesis_id, inside=inside) as visitor:

            async def places() -> dict[int, tuple[float, float]]:
                listed = await visitor.servers()
                if not all(s.live and s.keys is not None for s in listed):
                    raise Unavailable("not every server is live yet")
                return {s.id: (s.position_m[0], s.position_m[1]) if s.position_m else (0.0, 0.0) for s in listed}

            found = await _until(places)
        arrivals = draw_arrivals(ues, plan.plan, plan.seed)
        with contextlib.closing(open_tracing("client", "fleet", from_environment(os.environ))) as spans:
            outcome = await run_fleet(
                ues, arrivals, plan.seed, urls, found, genesis_id=genesis_id, inside=inside, on_change=told,
                planner=PlanService(allocator), enough=None if minutes is None else until_interrupted(progress.print),
                on_done=partial(client_span, spans),
            )  # fmt: skip
        ended = sum(r.state in {"SETTLED", "REFUNDED"} for r in outcome.records)
        if as_json:
            show(outcome)
        else:
            console.print(
                f"{ended} of {len(outcome.records)} tasks ended settled or refunded in {outcome.wall_ms / 1000:.1f} s"
            )
        return ended == len(outcome.records)

    if not _guard(lambda: asyncio.run(run()), as_json=as_json):
        raise typer.Exit(1)


def doctor(
    node: Annotated[
        list[str] | None, typer.Option("--node", help="Also look at this running node; repeat for more.")
    ] = None,
    port: Annotated[
        list[int] | None,
        typer.Option("--port", help="Ports to look at. Default: the platform's, if no node or chain is given."),
    ] = None,
    rpc: Annotated[str | None, typer.Option("--rpc", help="Also look at this chain.")] = None,
    folder: Annotated[Path, typer.Option("--folder", help="Where data would live.")] = Path(),
    slots: Annotated[int, typer.Option(help="Slots to calibrate speed with; 0 skips it.")] = 2,
    as_json: Json = False,
) -> None:
    """Check ports, clock, chain, disk and engine, and calibrate the speed to advertise."""
    try:
        from edgora.lab.doctor import examine
        from edgora.lab.ground import read_genesis
    except ImportError as error:
        missing_extra("doctor", "lab", error)

    async def run() -> list[Any]:
        engine = read_genesis(folder).engine if (folder / "genesis.bin").exists() else None
        return list(await examine(
            ports=port if port is not None else [] if node or rpc else _PORTS, folder=folder, nodes=node or [],
            chain_rpc=rpc, slots=slots, genesis_engine=engine,
        ))  # fmt: skip

    with progress.status("examining"):
        found = _guard(lambda: asyncio.run(run()), as_json=as_json)
    if as_json:
        show({"ok": all(f.verdict != "bad" for f in found), "findings": found})
    else:
        table(
            "doctor",
            ["what", "verdict", "finding", "fix"],
            [(f.name, f.verdict, f.sentence, f.fix or "") for f in found],
        )
    if any(f.verdict == "bad" for f in found):
        raise typer.Exit(1)


def status(
    node: Annotated[list[str] | None, typer.Option("--node", help="Base URL; repeat for more.")] = None,
    as_json: Json = False,
) -> None:
    """Why consensus waits, in words, as each node sees it."""
    import httpx2

    rows: list[tuple[str, rest.Status | None, str]] = []
    for url in node or [f"http://127.0.0.1:81{i}0" for i in range(4)]:
        try:
            reply = httpx2.get(f"{url.rstrip('/')}/v1/status", timeout=3.0)
            found = msgspec.json.decode(reply.content, type=rest.Status)
            rows.append((url, found, found.sentence))
        except (httpx2.HTTPError, msgspec.DecodeError) as error:
            rows.append((url, None, f"does not answer: {type(error).__name__}"))
    if as_json:
        show({"nodes": [{"url": u, "status": s, "sentence": w} for u, s, w in rows]})
    else:
        table(
            "consensus",
            ["node", "height", "view", "why"],
            [(u, s.committed_height if s else "-", s.view if s else "-", w) for u, s, w in rows],
        )
    if not any(s for _, s, _ in rows):
        raise typer.Exit(1)


def up(
    folder: Folder = Path("run"), scenario: ScenarioFile = None, settings: Settings = None,
) -> None:  # fmt: skip
    """Run the platform as processes on 127.0.0.1 until Ctrl-C: anvil, four nodes, board, allocators (with Redis if found)."""
    try:
        from edgora.lab.processes import run_platform
    except ImportError as error:
        missing_extra("up", "lab", error)

    def run() -> int:
        if not folder.parent.exists():
            raise Refused(f"{folder.parent} is no folder", field="folder")
        return run_platform(folder, scenario, settings or [], progress)

    raise typer.Exit(_guard(run))


def app_commands(app: typer.Typer) -> None:
    """Register the verbs of this module."""
    for verb in (genesis, deploy, allocators, fleet, doctor, status, up):
        app.command()(verb)
    faults.node_commands(node_app)
    app.add_typer(node_app, name="node")
