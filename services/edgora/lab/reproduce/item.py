"""What an item of a paper is, where each one lives, and how its files are written."""

import csv
import importlib
import io
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image

from edgora.wire.errors import NotFound, Refused

__all__ = ["ITEMS", "Cell", "Document", "Note", "Printed", "Reproduction", "Setting", "items", "reproduce"]

Cell = str | int | float | None
Note = Callable[[str], None]

ITEMS: Mapping[str, tuple[str, ...]] = {
    "mta": ("fig2", "fig3", "fig4"),
    "tcr": ("table2", "fig3", "fig4", "fig5", "fig6", "fig7", "fig8", "fig9"),
    "dpe": ("table2", "fig2", "fig3", "fig4", "fig5", "fig6", "fig7"),
    "baas": ("fig4", "fig5", "fig6", "fig7", "table2", "table3"),
    "privacy": ("fig4", "fig5", "fig6", "fig7", "table2", "table3"),
}
"""Items of each paper; item mta.fig2 is the function `fig2` of `edgora.lab.reproduce.mta`."""

_DPI = 120


@dataclass(frozen=True, slots=True)
class Setting:
    """How much work an item may do."""

    quick: bool = False
    """A few seconds instead of minutes: fewer seeds and points, the same code. Items say in `how` what they cut."""

    def seeds(self, full: int, quick: int = 2) -> range:
        """Instance seeds 0.. of a full or a quick run."""
        return range(quick if self.quick else full)


class Printed(msgspec.Struct, frozen=True):
    """A figure that the paper prints, and ours beside it."""

    what: str
    paper: str
    """As printed, or as read off; the paper's, on the paper's machine."""
    ours: str


@dataclass(frozen=True, slots=True)
class Reproduction:
    """An item, made again."""

    title: str
    how: str
    """One line: instances, seeds, settings, what is averaged."""
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    paragraph: str
    """What holds, what does not, and why."""
    figure: Any
    """A matplotlib Figure; axes with units."""
    printed: Sequence[Printed] = field(default_factory=tuple)


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """ITEM.json: everything of a reproduction but its rows and its drawing."""

    item: str
    title: str
    how: str
    quick: bool
    paragraph: str
    printed: Sequence[Printed]
    rows: int
    cpu_s: float
    wall_s: float
    machine: str
    files: Sequence[str] = ()


def items(asked: str) -> list[str]:
    """The items that a name stands for: "mta.fig2", "mta" or "mta.all", "all". Raises NotFound."""
    every = [f"{paper}.{name}" for paper, names in ITEMS.items() for name in names]
    paper = asked.removesuffix(".all")
    chosen = every if asked == "all" else [item for item in every if item == asked or item.startswith(f"{paper}.")]
    if not chosen or (asked not in {*chosen, paper, f"{paper}.all"}):
        raise NotFound(f"nothing to reproduce is called {asked!r}: use one of {', '.join(every)}, all", field="item")
    return chosen


def reproduce(item: str, out: Path, setting: Setting, note: Note) -> Document:
    """Run one item and write its CSV, PNG, SVG and JSON into `out`."""
    paper, _, name = item.partition(".")
    if name not in ITEMS.get(paper, ()):
        raise NotFound(f"nothing to reproduce is called {item!r}", field="item")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"--out {out} cannot be made: {error}", field="--out") from None
    make: Callable[[Setting, Note], Reproduction] = getattr(
        importlib.import_module(f"edgora.lab.reproduce.{paper}"), name
    )
    wall, cpu = time.perf_counter(), time.process_time()
    made = make(setting, note)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    files = [f"{item}.{suffix}" for suffix in ("csv", "png", "svg", "json")]
    (out / files[0]).write_text(_csv(made), encoding="utf-8")
    _png(made.figure, out / files[1])
    made.figure.savefig(out / files[2], metadata={"Date": None})
    document = Document(
        item=item, title=made.title, how=made.how, quick=setting.quick, paragraph=made.paragraph, printed=made.printed,
        rows=len(made.rows), cpu_s=round(cpu, 2), wall_s=round(wall, 2),
        machine=f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}", files=files,
    )  # fmt: skip
    (out / files[3]).write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    return document


def _png(figure: Any, path: Path) -> None:
    """The drawing in 256 colours: shaded intervals over each other take a third of the octets so."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=_DPI, format="png")
    colours = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    colours.save(path, optimize=True)


def _csv(made: Reproduction) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(made.columns)
    for row in made.rows:
        if len(row) != len(made.columns):
            raise ValueError(f"{made.title}: a row has {len(row)} cells, there are {len(made.columns)} columns")
        writer.writerow(["" if cell is None else f"{cell:.10g}" if isinstance(cell, float) else cell for cell in row])
    return text.getvalue()
