"""The command line: `edgora VERB`. Verbs load what they need when they run, so the client starts without the server."""

import signal
import sys

import typer

from edgora.cli import allocate, board, faults, jobs, laboratory, learning, operations, sim, tasks, top
from edgora.cli.output import progress

__all__ = ["app", "main"]

app = typer.Typer(
    name="edgora",
    help="Edge servers trade compute and nobody has to be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for room in (tasks, laboratory, operations, board, faults, top, allocate, learning, jobs, sim):
    room.app_commands(app)


@app.command()
def version() -> None:
    """Version of Edgora."""
    from importlib.metadata import version as installed

    typer.echo(installed("edgora"))


def _terminated(*_: object) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a script; SIGTERM still ends it
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)  # with whatever handler an event loop has set


def main() -> None:
    """Entry point. Typed errors exit in their verb; what arrives here is a bug or Ctrl-C.

    SIGTERM is taken as Ctrl-C, so that a verb that started processes stops them; verbs that serve have their own handlers.
    """
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except KeyboardInterrupt:
        progress.print("edgora: interrupted", style="red")
        sys.exit(1)
