"""The verb `board`: the live page over a running platform's nodes."""

from typing import Annotated

import typer

from edgora.cli.output import fail, missing_extra, progress
from edgora.wire.errors import EdgoraError

__all__ = ["app_commands"]


def board(
    node: Annotated[
        list[str] | None, typer.Option("--node", help="Base URL of a node; further ones are learned from it.")
    ] = None,
    listen: Annotated[str, typer.Option("--listen", help="host:port of the page.")] = "127.0.0.1:8080",
    inside: Annotated[
        bool,
        typer.Option(
            "--inside", help="The URLs are of the deployment's own network: browsers get the nodes' public ones."
        ),
    ] = False,
    scenario: Annotated[str, typer.Option("--scenario", help="Name shown on the page.")] = "",
    faults: Annotated[str, typer.Option("--faults", help="Base URL of the sidecar for faults; none: no fault panel.")] = "",
) -> None:  # fmt: skip
    """Serve the live page until Ctrl-C. Nodes answer it if EDGORA_CORS_ORIGINS names its origin."""
    try:
        from edgora.board.app import listen_at, run_board
        from edgora.board.settings import BoardSettings, board_origins
    except ImportError as error:
        missing_extra("board", "node", error)
    try:
        host, port = listen_at(listen)
        settings = BoardSettings(
            nodes=tuple(node or ["http://127.0.0.1:8100"]), inside=inside, host=host, port=port, scenario=scenario,
            faults=faults,
        )  # fmt: skip
        progress.print(f"board: {board_origins(host, port)[0]}; Ctrl-C ends it", highlight=False)
        run_board(settings)
    except EdgoraError as error:
        fail(error, as_json=False)


def app_commands(app: typer.Typer) -> None:
    """Register the verbs of this module."""
    app.command()(board)
