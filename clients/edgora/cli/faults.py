"""Verbs for faults on purpose: `break` (what the board's panel does), `faults` (the sidecar in containers), `node lie`."""

from pathlib import Path
from typing import Annotated

import typer

from edgora.cli.output import console, fail, missing_extra, progress, show, table
from edgora.wire.errors import EdgoraError, Refused

__all__ = ["app_commands", "node_commands"]

_NOT_ALLOWED = "set `allowed = true` under [faults] in the scenario; never where money is real"


def break_(
    node: Annotated[int | None, typer.Argument(help="Which node; none: show what was done to each.")] = None,
    act: Annotated[str | None, typer.Argument(help="kill, pause, cut, lie or heal.")] = None,
    lie: Annotated[str | None, typer.Argument(help="With lie: equivocate, false_allocation or false_result.")] = None,
    board: Annotated[str, typer.Option("--board", help="Base URL of the board.")] = "http://127.0.0.1:8080",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:  # fmt: skip
    """Break a node of a platform that allows it, or heal it; without arguments show what was done to each node."""
    import asyncio

    import msgspec

    from edgora.adapters.http_faults import HttpFaults
    from edgora.ports.faults import FaultOrder

    through = HttpFaults(board)
    try:
        if node is None:
            found = asyncio.run(through.nodes())
        else:
            try:
                order = msgspec.convert({"node": node, "act": act, "lie": lie}, FaultOrder)
            except msgspec.ValidationError as error:
                sentence, _, path = str(error).partition(" - at ")
                field = path.strip("`$.") or None
                raise Refused(f"{field}: {sentence}", field=field, fix="see `edgora break --help`") from None
            found = (asyncio.run(through.act(order)),)
    except EdgoraError as error:
        fail(error, as_json=as_json)
    if as_json:
        show({"nodes": found})
    else:
        table("faults", ["node", "state", "lie"], [(f.index, f.state, f.lie or "none") for f in found])


def faults(
    project: Annotated[str, typer.Option("--project", help="The compose project whose nodes may be broken.")],
    scenario: Annotated[Path, typer.Option("--scenario", help="Its scenario file, which must allow faults.")],
    socket: Annotated[Path, typer.Option("--socket", help="The container engine's socket.")] = Path("/var/run/docker.sock"),
    listen: Annotated[str, typer.Option("--listen", help="host:port for the board, on a network of their own.")] = "127.0.0.1:8090",
    name: Annotated[list[str] | None, typer.Option("--name", help="Host name under which it answers; repeat for more.")] = None,
) -> None:  # fmt: skip
    """Serve GET and POST /faults to the board: kill, pause, cut off, make lie, heal this project's nodes."""
    try:
        import asyncio

        import uvicorn

        from edgora.adapters.docker_faults import DockerFaults
        from edgora.adapters.system_clock import SystemClock
        from edgora.board.app import listen_at
        from edgora.board.faults import fault_service
        from edgora.lab.scenario import load
    except ImportError as error:
        missing_extra("faults", "node", error)

    async def serve(host: str, port: int) -> None:
        carried = DockerFaults(socket, project, SystemClock())
        app = fault_service(carried, name or ["127.0.0.1", "localhost"])
        try:
            await uvicorn.Server(uvicorn.Config(
                app, host=host, port=port, log_level="warning", access_log=False, server_header=False, lifespan="off",
                timeout_graceful_shutdown=2,
            )).serve()  # fmt: skip
        finally:
            await carried.close()

    try:
        plan = load(scenario)
        if not plan.faults.allowed:
            raise Refused(f"the scenario {plan.name!r} does not allow faults", field="faults.allowed", fix=_NOT_ALLOWED)
        host, port = listen_at(listen)
        progress.print(f"faults: nodes of project {project} can be broken through {host}:{port}", highlight=False)
        asyncio.run(serve(host, port))
    except EdgoraError as error:
        fail(error, as_json=False)


def lie(
    word: Annotated[str | None, typer.Argument(help="equivocate, false_allocation, false_result, or none.")] = None,
    home: Annotated[Path, typer.Option("--home", help="The node's own folder.")] = Path("/node"),
    folder: Annotated[Path, typer.Option("--folder", help="Where the genesis document and public files are.")] = Path("/genesis"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:  # fmt: skip
    """Make a node lie, or show which lie it tells. Refused unless the scenario that it was laid out for allows faults."""
    try:
        from edgora.lab.ground import read_genesis, read_scenario
        from edgora.lab.supervise import lie_file
        from edgora.node.lies import LieFile, chosen_lie
    except ImportError as error:
        missing_extra("node lie", "node", error)
    try:
        read_genesis(folder)  # says in words that this is no folder of a deployment
        plan = read_scenario(folder)
        if not plan.faults.allowed:
            raise Refused(f"the scenario {plan.name!r} does not allow faults", field="faults.allowed", fix=_NOT_ALLOWED)
        if not (home / "signer.key").exists():
            raise Refused(f"{home} is no node's folder", field="home", fix="give --home run/node0")
        switch = LieFile(lie_file(home))
        if word is not None:
            switch.choose(chosen_lie(word))
        now = switch()
    except EdgoraError as error:
        fail(error, as_json=as_json)
    if as_json:
        show({"lie": now})
    else:
        console.print(now or "none")


def app_commands(app: typer.Typer) -> None:
    """Register the verbs of this module."""
    app.command("break")(break_)
    app.command()(faults)


def node_commands(app: typer.Typer) -> None:
    """Register what is said under `node`."""
    app.command("lie")(lie)
