"""`edgora top` as text: panels of rows that fit the terminal, whatever its size.

A panel knows a wide form (a table) and a narrow one (two lines a row). Where the terminal is too low, the longest panels
give lines up first and say how many. Nothing is told by colour alone.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from edgora.cli.top_model import (
    ENDED,
    Panel,
    Picture,
    RoundRow,
    TaskRow,
    plain,
    round_rows,
    server_rows,
    short,
    span,
    task_rows,
    token,
    voter_rows,
)

__all__ = ["KEYS", "Screen"]

KEYS: Mapping[str, Panel] = {"t": Panel.TASKS, "r": Panel.ROUNDS, "l": Panel.LEDGER, "s": Panel.SERVERS}
NARROW = 84
"""Below so many columns rows take two lines."""
LEAST_LINES = 4
"""What every panel keeps: title, heading, one row, and what was left out."""
_STYLES = {"OPEN": "yellow", "ASSIGNED": "cyan", "SETTLED": "green", "CERTIFIED": "green", "FINAL": "green"}


class Screen:
    """Everything that is shown, drawn anew at the terminal's size of the moment."""

    def __init__(self, panels: Collection[Panel], *, whole: bool) -> None:
        """whole: nothing is left out for lack of lines."""
        self.panels = set(panels)
        self.whole = whole
        self.picture: Picture | None = None
        self.trouble: str | None = None
        """Why there is no newer picture."""

    def toggle(self, panel: Panel) -> None:
        """Show a panel, or no longer; the last one stays."""
        self.panels = (self.panels ^ {panel}) or self.panels

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = console.render_lines(Group(*self._head()), options.update(height=None), pad=False)
        shown = [panel for panel in Panel if panel in self.panels]
        parts: list[list[list[Segment]]] = []
        if self.picture is not None:
            narrow = options.max_width < NARROW
            drawn = [Group(*_PANELS[panel](self.picture, narrow)) for panel in shown]
            parts = [console.render_lines(part, options.update(height=None), pad=False) for part in drawn]
        foot = [] if self.whole else console.render_lines(self._foot(), options.update(height=None), pad=False)[:1]
        room = None if self.whole else max(0, options.size.height - len(head) - len(foot) - len(parts))
        lines = list(head)
        for part, count in zip(parts, _shares([len(part) for part in parts], room), strict=True):
            lines += [[], *_cut(part, count)]
        lines += foot
        for number, line in enumerate(lines if self.whole else lines[: options.size.height]):
            if number:
                yield Segment.line()
            yield from line
        if self.whole:
            yield Segment.line()

    def _head(self) -> Iterable[Text]:
        picture = self.picture
        if picture is not None:
            answering = sum(view.status is not None for view in picture.nodes)
            title = Text(f"edgora top  server {picture.info.server} at {plain(picture.node)}  ", style="bold")
            title.append(
                f"height {picture.info.height:,}  ledger {_clock(picture.info.header_time_ms)}  here {_clock(_now_ms())}  "
                f"{answering} of {len(picture.nodes)} nodes answer", style="not bold",
            )  # fmt: skip
            yield title
            for said in list(picture.says)[-2:]:
                yield Text(f"! {plain(said)}", style="yellow")
        if self.trouble is not None:
            yield Text(f"!! {plain(self.trouble)}", style="bold red")
            if picture is not None:
                yield Text(f"!! what follows was so at {_clock(picture.info.time_ms)}", style="red")
        elif picture is None:
            yield Text("asking ...")

    def _foot(self) -> Text:
        words = "  ".join(
            f"[{key}] {'hide' if panel in self.panels else 'show'} {panel}" for key, panel in KEYS.items()
        )
        return Text(f"{words}  [q] quit", style="dim", no_wrap=True, overflow="ellipsis")


def _shares(wanted: Sequence[int], room: int | None) -> list[int]:
    """How many lines each panel gets: as many as it wants, the longest give up first."""
    given = list(wanted)
    if room is None or not given:
        return given
    while sum(given) > room:
        longest = max(range(len(given)), key=given.__getitem__)
        if given[longest] <= LEAST_LINES:
            break
        given[longest] -= 1
    return given


def _cut(part: list[list[Segment]], count: int) -> list[list[Segment]]:
    if len(part) <= count:
        return part
    return [*part[: count - 1], [Segment(f"... {len(part) - count + 1} more lines")]]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _clock(ms: int) -> str:
    """An instant in the viewer's zone."""
    return time.strftime("%H:%M:%S", time.localtime(ms / 1000))


# ---- panels ----------------------------------------------------------------------------------------------------------


def _grid(*columns: str, right: str = "") -> Table:
    """A borderless table; the named columns are aligned to the right, the last one takes what is left."""
    grid = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for place, name in enumerate(columns):
        last = place == len(columns) - 1
        grid.add_column(
            Text(name), justify="right" if name in right.split() else "left", no_wrap=not last,
            ratio=1 if last else None, overflow="fold" if last else "ellipsis",
        )  # fmt: skip
    return grid


def _title(panel: Panel, words: str) -> Text:
    return Text.assemble((panel.upper(), "bold reverse"), "  ", words)


def _state(state: str) -> Text:
    return Text(state, style=_STYLES.get(state, "red" if state in ENDED else "magenta"))


def _where(row: TaskRow) -> str:
    return f"{row.source}>{'?' if row.executor is None else row.executor}"


def _tasks(picture: Picture, narrow: bool) -> Iterable[RenderableType]:
    now = picture.info.time_ms
    rows = task_rows(picture.under_way, now)
    ended = task_rows((task for task in picture.lately if task.state in ENDED), now)
    waiting = f"{len(rows)} under way" + (f", oldest since {span(rows[0].age_ms)}" if rows else "")
    yield _title(Panel.TASKS, f"{waiting}; {len(ended)} of the newest {len(picture.lately)} have ended")
    everything = [*rows, *ended[:5]]
    if not everything:
        yield Text("no task yet: `edgora submit FILE --kernel sobel` makes one", style="dim")
        return
    if narrow:
        for row in everything:
            yield Text.assemble(
                short(row.id), " ", _state(row.state), f" {span(row.age_ms)} {row.kernel} {_where(row)}"
            )
            yield Text(f"  {row.why}")
        return
    grid = _grid("task", "state", "age", "kernel", "from>to", "fuel limit", "gwei/Mfuel", "why", right="age gwei/Mfuel")
    for row in everything:
        grid.add_row(
            short(row.id), _state(row.state), span(row.age_ms), row.kernel, _where(row), f"{row.fuel_limit:,}",
            str(row.price), Text(row.why),
        )  # fmt: skip
    yield grid


def _bound(row: RoundRow) -> str:
    if row.value_wei is None or row.bound_wei is None:
        return "no bound"
    bound, value = int(row.bound_wei), int(row.value_wei)
    return "optimal" if value >= bound else f"{100 * value / bound:.2f} % of bound"


def _worth(row: RoundRow) -> str:
    if row.value_wei is None or row.greedy_wei is None:
        return "-"
    greedy = int(row.greedy_wei)
    return f"{100 * (int(row.value_wei) - greedy) / greedy:+.2f} %" if greedy else "+0.00 %"


def _rounds(picture: Picture, narrow: bool) -> Iterable[RenderableType]:
    rows = round_rows(picture.rounds)
    refused = sum(len(row.refused) for row in rows)
    yield _title(Panel.ROUNDS, f"the newest {len(rows)}; {refused} proposals refused" if rows else "none yet")
    if not rows:
        return
    grid = (
        None
        if narrow
        else _grid("round", "placed", "winner", "by", "worth", "vs greedy", "bound", "why", right="round")
    )
    for row in rows:
        winner = row.winner or "open"
        by = (
            "-"
            if row.winner is None
            else "built-in"
            if row.winner_validator is None
            else f"validator {row.winner_validator}"
        )
        notes = Text("\n").join(Text(note) for note in (row.verdict, *row.refused, *row.skipped))
        placed = f"{row.placed}/{row.tasks}"
        if grid is None:
            yield Text(f"{row.round} {placed} {winner} ({by}) {_worth(row)} {_bound(row)}")
            yield Text.assemble("  ", Text("; ").join(notes.split("\n")))
        else:
            worth = "-" if row.value_wei is None else f"{int(row.value_wei) // 10**9:,} gwei"
            grid.add_row(str(row.round), placed, winner, by, worth, _worth(row), _bound(row), notes)
    if grid is not None:
        yield grid


def _ledger(picture: Picture, narrow: bool) -> Iterable[RenderableType]:
    status = picture.status
    where = "" if status is None else (
        f"height {status.committed_height:,}, view {status.view}, primary {status.primary}, "
        f"{status.votes} of {status.quorum} votes for {status.next_height:,}: "
    )  # fmt: skip
    yield _title(Panel.LEDGER, where + picture.sentence)
    if not picture.info.chain_seen:
        yield Text("no quorum of validators sees the chain: tasks that vouchers pay are not admitted", style="yellow")
    for batch in picture.batches[:1]:
        yield Text(f"batch {batch.id} of {batch.lines} receipts is {batch.state}: {plain(batch.reason.sentence)}")
    rows = voter_rows(picture)
    grid = (
        None if narrow else _grid("validator", "is", "voted", "heard", "height", "view", "its own word", right="height")
    )
    for row in rows:
        is_ = ("primary" if row.primary else "backup") if row.connected else "silent"
        voted = "yes" if row.voted else "no"
        heard = "-" if row.heard_ms is None else span(row.heard_ms)
        if grid is None:
            yield Text(f"{row.index} {is_} height {row.height:,} voted {voted} heard {heard}\n  {row.waits_for}")
        else:
            grid.add_row(
                str(row.index), Text(is_, style="" if row.connected else "bold red"), voted, heard, f"{row.height:,}",
                str(row.view), Text(row.waits_for),
            )  # fmt: skip
    if grid is not None and rows:
        yield grid


def _servers(picture: Picture, narrow: bool) -> Iterable[RenderableType]:
    rows = server_rows(picture.servers.items)
    yield _title(Panel.SERVERS, f"{sum(row.live for row in rows)} of {len(rows)} take work")
    numbers = "tasks load ask earned score done late failed disputed"
    grid = None if narrow else _grid("server", "live", *numbers.split(), "speed", right=numbers)
    for row in rows:
        load = "no advert" if row.room is None else f"{100 * row.used // row.room} %" if row.room else "full"
        tasks = f"{row.tasks}/{row.slots}" if row.slots is not None else str(row.tasks)
        live, score = "yes" if row.live else "no", "-" if row.score is None else f"{row.score:.2f}"
        if grid is None:
            yield Text(
                f"{row.id} {'live' if row.live else 'not live'} {tasks} tasks, load {load}, ask {row.ask or '-'}"
            )
            yield Text(
                f"  earned {token(row.earned_wei)}, score {score}, {row.done} done {row.late} late {row.failed} failed "
                f"{row.disputed} disputed"
            )
        else:
            grid.add_row(
                str(row.id), live, tasks, load, str(row.ask or "-"), token(row.earned_wei), score, str(row.done), str(row.late),
                str(row.failed), str(row.disputed), "-" if row.speed is None else f"{row.speed:,} fuel/s and slot",
            )  # fmt: skip
    if grid is not None:
        yield grid


_PANELS: Mapping[Panel, Callable[[Picture, bool], Iterable[RenderableType]]] = {
    Panel.TASKS: _tasks, Panel.ROUNDS: _rounds, Panel.LEDGER: _ledger, Panel.SERVERS: _servers,
}  # fmt: skip
