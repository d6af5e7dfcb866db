"""How every verb speaks: one JSON document on stdout with --json, else text; progress and errors on stderr.

Exit codes: 0 ok, 1 failed, 2 bad usage or bad input (README.md 2).
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from edgora.wire.errors import EdgoraError, Refused, RuleRefused

__all__ = ["console", "fail", "missing_extra", "progress", "show", "table"]

console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 150)
progress = Console(stderr=True)


def show(document: object) -> None:
    """The one JSON document on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table for people; numbers to the right."""
    grid = Table(title=title, title_justify="left", header_style="bold")
    filled = [[str(cell) for cell in row] for row in rows]
    for place, name in enumerate(columns):
        numeric = bool(filled) and all(
            row[place].replace(".", "").replace("-", "").replace(",", "").isdigit() for row in filled
        )
        grid.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in filled:
        grid.add_row(*row)
    console.print(grid)


def fail(error: EdgoraError, *, as_json: bool) -> NoReturn:
    """Say what went wrong, which field, and the fix; exit 2 for the caller's fault, 1 for ours."""
    if as_json:
        show({"error": {
            "code": error.code, "detail": error.detail, "field": error.field, "fix": error.fix,
            "rule": error.rule if isinstance(error, RuleRefused) else None,
        }})  # fmt: skip
    where = f" [{error.field}]" if error.field else ""
    progress.print(f"edgora: {error.detail}{where}", style="red", markup=False, soft_wrap=True)
    if error.fix:
        progress.print(f"fix: {error.fix}", markup=False, soft_wrap=True)
    raise typer.Exit(2 if isinstance(error, Refused) and not isinstance(error, RuleRefused) else 1)


def missing_extra(verb: str, extra: str, error: ImportError) -> NoReturn:
    """A verb whose dependencies are not installed."""
    progress.print(
        f"edgora {verb} needs more than the client ({error.name} is missing): pip install 'edgora[{extra}]'",
        markup=False,
    )
    raise typer.Exit(2)
