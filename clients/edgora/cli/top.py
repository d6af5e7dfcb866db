"""Verbs that watch: `edgora top`, the platform at a terminal, and `edgora why`, one task's reason in words.

Neither needs a key: they read what every node tells everybody. `top` draws on a terminal; anywhere else, and with --once,
it prints one picture and ends. Exit codes: 0 there was a picture, 1 no node answered, 2 bad usage or no such task.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Annotated, Any, TypeVar

import httpx2
import typer
from rich.live import Live

from edgora.cli.output import console, fail, progress, show
from edgora.cli.top_model import Panel, document, plain
from edgora.cli.top_screen import KEYS, Screen
from edgora.cli.top_source import TIMEOUT_S, Watch
from edgora.client.trust import unhex
from edgora.wire import rest
from edgora.wire.errors import EdgoraError, NotFound, Refused, Unavailable

__all__ = ["app_commands"]

T = TypeVar("T")

Node = Annotated[
    list[str] | None,
    typer.Option(
        "--node", help="Base URL of a node; repeat for more. Others are learnt from it, and asked when it dies."
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, help="Seconds after which a node that has not answered counts as dead.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
_DEFAULT_NODES = [f"http://127.0.0.1:81{i}0" for i in range(4)]
_RECENT = 200
"""Among so many of the newest tasks a beginning of an id is enough."""
_WHOLE_ID = 66


def _run(work: Coroutine[Any, Any, T], *, as_json: bool) -> T:
    try:
        return asyncio.run(work)
    except EdgoraError as error:
        fail(error, as_json=as_json)


# ---- top -------------------------------------------------------------------------------------------------------------


def top(
    node: Node = None,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    panels: Annotated[
        str, typer.Option("--panels", help=f"Which to show, comma separated: {', '.join(Panel)}.")
    ] = ",".join(Panel),
    timeout: Timeout = TIMEOUT_S,
    every: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two looks.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Tasks and why they wait, rounds, ledger, servers: live. Keys t, r, l, s show and hide panels, q quits.

    With --json (implies --once) everything in one document. Exit 1 if no node answers.
    """
    terminal = console.is_terminal and not console.is_dumb_terminal

    async def run() -> None:
        shown = _panels(panels)
        async with httpx2.AsyncClient() as http:
            watch = Watch(http, node or _DEFAULT_NODES, timeout)
            if as_json:
                show(document(await watch.look()))
            elif once or not terminal:
                if not once:
                    progress.print("edgora top: this is no terminal, so here is one picture", markup=False)
                screen = Screen(shown, whole=True)
                screen.picture = await watch.look()
                console.print(screen, end="")
            else:
                await _live(watch, Screen(shown, whole=False), every)

    with contextlib.suppress(KeyboardInterrupt) if terminal and not once and not as_json else contextlib.nullcontext():
        _run(run(), as_json=as_json)


def _panels(given: str) -> list[Panel]:
    names = [name.strip() for name in given.split(",") if name.strip()]
    unknown = sorted(set(names) - set(Panel))
    if unknown or not names:
        raise Refused(
            f"--panels: {unknown[0] if unknown else 'nothing'} is no panel",
            field="panels",
            fix=f"choose from {', '.join(Panel)}",
        )
    return [Panel(name) for name in names]


async def _live(watch: Watch, screen: Screen, every_s: float) -> None:
    """Draw until q. A node that dies, or all of them, is told on the screen; nothing ends it but the user."""
    with Live(screen, console=console, screen=True, auto_refresh=False) as live:

        async def look() -> None:
            while True:
                try:
                    screen.picture = await watch.look()
                    screen.trouble = None
                except Unavailable as error:
                    screen.trouble = f"{error.detail}; trying again"
                live.refresh()
                await asyncio.sleep(every_s)

        looking = asyncio.ensure_future(look())
        reading = asyncio.ensure_future(_obey(screen, live))
        try:
            await asyncio.wait((looking, reading), return_when=asyncio.FIRST_COMPLETED)
            for done in (looking, reading):
                if done.done():
                    done.result()
        finally:
            for task in (looking, reading):
                task.cancel()
            await asyncio.gather(looking, reading, return_exceptions=True)


async def _obey(screen: Screen, live: Live) -> None:
    """Do what the keys say; returns when it is time to quit."""
    async for key in _keys():
        if key in {"q", "Q"}:
            return
        if key in KEYS:
            screen.toggle(KEYS[key])
        live.refresh()
    await asyncio.Event().wait()  # no keyboard: only a signal ends it


async def _keys() -> AsyncIterator[str]:
    """Keys as they are pressed; nothing where stdin is no terminal or the system has no termios."""
    try:
        import termios
        import tty
    except ImportError:
        return
    if not sys.stdin.isatty():
        return
    handle = sys.stdin.fileno()
    loop = asyncio.get_running_loop()
    pressed: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        for key in os.read(handle, 64).decode(errors="replace"):
            pressed.put_nowait(key)

    @contextlib.contextmanager
    def one_by_one() -> Iterator[None]:
        before = termios.tcgetattr(handle)
        tty.setcbreak(handle)
        loop.add_reader(handle, read)
        try:
            yield
        finally:
            loop.remove_reader(handle)
            termios.tcsetattr(handle, termios.TCSADRAIN, before)

    with one_by_one():
        while True:
            yield await pressed.get()


# ---- why -------------------------------------------------------------------------------------------------------------


def why(
    task: Annotated[str, typer.Argument(help="Task id, 0x-hex; of one of the newest tasks a unique beginning is enough.")],
    node: Node = None, timeout: Timeout = TIMEOUT_S, as_json: Json = False,
) -> None:  # fmt: skip
    """Why a task waits, or how it ended, and why that server: in words. Needs no key."""

    async def run() -> rest.Why:
        async with httpx2.AsyncClient() as http:
            watch = Watch(http, node or _DEFAULT_NODES, timeout)
            return await watch.get(f"/v1/tasks/{await _whole_id(watch, task.lower())}/why", rest.Why)

    found = _run(run(), as_json=as_json)
    if as_json:
        show(found)
        return
    console.print(f"{found.state}: {plain(found.sentence)}", markup=False, highlight=False, soft_wrap=True)
    if found.choice is not None and found.choice.server is not None:
        console.print(f"it went to server {found.choice.server}", highlight=False)
        for other in found.choice.alternatives:
            console.print(
                f"  not to {other.server}: {plain(other.reason.sentence)}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


async def _whole_id(watch: Watch, text: str) -> str:
    if len(text) == _WHOLE_ID:
        unhex(text)
        return text
    if not text.startswith("0x") or not all(mark in "0123456789abcdef" for mark in text[2:]):
        raise Refused(f"{text} is no task id", field="task", fix="give 0x and hexadecimal digits")
    page = await watch.get(f"/v1/tasks?limit={_RECENT}", rest.TaskPage)
    found = [known.id for known in page.items if known.id.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise Refused(f"{text} begins {len(found)} of the newest tasks; give more of it", field="task")
    raise NotFound(
        f"none of the newest {len(page.items)} tasks begins with {text}", field="task", fix="give the whole id"
    )


def app_commands(app: typer.Typer) -> None:
    """Register the verbs of this module."""
    app.command()(top)
    app.command()(why)
