"""Watching a running platform: one trace a task, `edgora top` against what REST says, and when nodes die under it."""

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import msgspec
import pytest
from typer.testing import CliRunner

from edgora.cli import app
from edgora.client import Wallet
from edgora.client.images import photo
from edgora.ports.tracing import PARENT, Stage, span_id
from edgora.ue.fleet import run_fleet
from edgora.ue.plan import draw_arrivals
from edgora.wire import rest
from embedded import Embedded, spin

T = TypeVar("T")
PATIENT = ("--timeout", "30")
"""Four nodes share one interpreter here, and a busy machine is no dead node."""
SLACK_MS = 50
"""Ledger time is a proposer's, spans of a duty are the server's: one machine here, but two readings of its clock."""


@dataclass
class Traced:
    """One task that was submitted with the command line, and all of its spans."""

    task: str
    spans: list[dict[str, Any]]
    """Of this task alone."""


@pytest.fixture(scope="module")
def home(rich: Wallet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with a funded key and a picture."""
    folder = tmp_path_factory.mktemp("home")
    rich.save(folder / "ue.key")
    (folder / "photo.png").write_bytes(photo())
    return folder


@pytest.fixture(scope="module")
def traced(platform: Embedded, spans: Path, home: Path) -> Traced:
    """`edgora submit` from start to payment."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("EDGORA_HOME", str(home))
        environment.setenv("EDGORA_TRACE", "file")
        environment.setenv("EDGORA_TRACE_FILE", str(spans))
        environment.chdir(home)
        nodes = [word for url in platform.urls for word in ("--node", url)]
        arguments = ["submit", "photo.png", "--kernel", "sobel", "--out", "edges.png", "--settled", "--json", *nodes]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    task = msgspec.json.decode(done.stdout)["task"]

    return Traced(task, whole(spans, task))


def whole(spans: Path, task: str) -> list[dict[str, Any]]:
    """All spans of a task, once its source has told its end."""

    def told() -> list[dict[str, Any]]:
        return of_task([msgspec.json.decode(line) for line in spans.read_bytes().splitlines()], task)

    until(lambda: any(span["name"] == "task" for span in told()), "the source's last word")
    return told()


def of_task(spans: list[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    return [span for span in spans if span["attributes"]["edgora.task"] == task]


def until(ask: Callable[[], object], what: str, within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not ask():
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        time.sleep(0.05)


# ---- traces ------------------------------------------------------------------------------------------------------------


def test_one_trace_from_client_to_chain(platform: Embedded, traced: Traced) -> None:
    mine = traced.spans
    shown = msgspec.json.decode(platform.get(f"/v1/tasks/{traced.task}").content, type=rest.Task)
    assert {span["context"]["trace_id"] for span in mine} == {"0x" + shown.trace_id}
    assert {span["name"] for span in mine} == {stage.value for stage in Stage} - {"audit"}, "every stage of the tree"
    services = {span["name"]: (span["resource"]["attributes"]["service.name"], span["resource"]["attributes"]["service.instance.id"]) for span in mine}  # fmt: skip
    assert services["client.submit"] == services["client.deliver"] == ("client", "cli")
    assert services["task"] == services["source.store"] == ("node", str(shown.offer.source))
    assert services["execute"] == services["runner.run"] == ("node", str(shown.executor))
    assert services["allocator.solve"][0] == "allocator"

    ids = [span["context"]["span_id"] for span in mine]
    assert len(set(ids)) == len(ids), "each span is told once"
    by_id = dict(zip(ids, mine, strict=True))
    for span in mine:
        above = PARENT[Stage(span["name"])]
        parent = span["parent_id"]
        assert (parent is None) == (above is None)
        if parent is not None:
            assert above is not None
            assert by_id[parent]["name"] == above[0].value, (
                f"{span['name']} hangs under {above[0].value}, which was told"
            )


def test_its_spans_are_in_order(traced: Traced) -> None:
    mine = traced.spans
    first: dict[str, dict[str, Any]] = {}
    for span in sorted(mine, key=lambda s: s["start_time"]):
        first.setdefault(span["name"], span)
    begins = [first[name]["start_time"] for name in (
        "client.submit", "source.store", "ledger.order", "market.round", "execute", "execute.fetch", "runner.run",
        "execute.hold", "execute.file", "settle", "chain.settle",
    )]  # fmt: skip
    instants = [milliseconds(text) for text in begins]
    assert all(a <= b + SLACK_MS for a, b in pairwise(instants)), begins
    for span in mine:
        assert milliseconds(span["start_time"]) <= milliseconds(span["end_time"])
        assert span["status"]["status_code"] == "OK", span
    run = first["runner.run"]["attributes"]
    assert run["edgora.code"] == "OK"
    assert run["edgora.fuel_used"] > 0
    assert first["task"]["attributes"]["edgora.state"] == "SETTLED"


def milliseconds(instant: str) -> float:
    """Of an ISO instant of today; only differences count."""
    clock = instant.partition("T")[2].rstrip("Z")
    hours, minutes, seconds = clock.split(":")
    return (int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * 1000


def test_traces_keep_the_secrets(traced: Traced) -> None:
    """Names and integers only: no octets longer than a digest."""
    for span in traced.spans:
        values = span["attributes"].values()
        assert all(len(value) <= 66 for value in values if isinstance(value, str))


def test_ids_follow_from_the_task_alone(traced: Traced) -> None:
    root = next(span for span in traced.spans if span["name"] == "task")
    assert root["context"]["span_id"] == f"0x{span_id(bytes.fromhex(traced.task[2:]), Stage.TASK, ()):016x}"


@pytest.mark.slow
def test_an_audit_is_part_of_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = tmp_path / "spans.jsonl"
    monkeypatch.setenv("EDGORA_TRACE", "file")
    monkeypatch.setenv("EDGORA_TRACE_FILE", str(spans))
    with Embedded("market.audit_bps=10000") as platform, platform.client(platform.funded()) as ue:
        delivery = ue.compute(spin())
        ue.finish(delivery.task)
        told = whole(spans, "0x" + delivery.task.hex())
    audits = [span for span in told if span["name"] == "audit"]
    auditors = {span["resource"]["attributes"]["service.instance.id"] for span in audits}
    assert len(auditors) == len(audits) >= 1
    assert str(delivery.executor) not in auditors
    assert all(span["attributes"]["edgora.executor"] == delivery.executor for span in audits)


@pytest.mark.slow
def test_a_fleet_tells_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `edgora demo` does it: the UEs' clients in one trace each with the platform."""
    spans = tmp_path / "spans.jsonl"
    monkeypatch.setenv("EDGORA_TRACE", "file")
    monkeypatch.setenv("EDGORA_TRACE_FILE", str(spans))
    with Embedded("fleet.ues=1", "fleet.tasks=2") as platform:
        cluster, plan = platform.cluster, platform.cluster.scenario
        arrivals = draw_arrivals(plan.fleet, plan.plan, plan.seed)
        run = platform.run(
            run_fleet(plan.fleet, arrivals, plan.seed, cluster.urls, cluster.places, on_done=cluster.on_done)
        )
    told = [msgspec.json.decode(line) for line in spans.read_bytes().splitlines()]
    for record in run.records:
        mine = {span["name"]: span["resource"]["attributes"] for span in of_task(told, record.task)}
        assert {Stage(name) for name in mine} >= {Stage.SUBMIT, Stage.DELIVER, Stage.STORE, Stage.SOLVE, Stage.TASK}
        assert (mine["client.submit"]["service.name"], mine["client.submit"]["service.instance.id"]) == (
            "client",
            "fleet",
        )


# ---- top ---------------------------------------------------------------------------------------------------------------


def top(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["top", "--once", "--json", *PATIENT, *arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return msgspec.json.decode(done.stdout)


def test_top_says_what_rest_says(platform: Embedded, traced: Traced) -> None:
    """The platform moves on between two questions: what only grows is between its value before and its value after."""

    def ask(path: str, kind: type[T]) -> T:
        return msgspec.json.decode(platform.get(path, 1).content, type=kind)

    before, servers = ask("/v1/status", rest.Status), ask("/v1/servers", rest.ServerList)
    told = top("--node", platform.urls[1])
    after, later = ask("/v1/status", rest.Status), ask("/v1/servers", rest.ServerList)
    assert told["node"] == platform.urls[1]
    assert before.view <= told["ledger"]["view"] <= after.view
    assert before.committed_height <= told["ledger"]["committed_height"] <= after.committed_height
    assert told["ledger"]["quorum"] == after.quorum
    assert [voter["index"] for voter in told["ledger"]["voters"]] == [0, 1, 2, 3]
    assert {node["url"] for node in told["ledger"]["nodes"]} == set(platform.urls), "the others were learnt from node 1"

    row = next(row for row in told["tasks"]["ended"] if row["id"] == traced.task)
    shown = ask(f"/v1/tasks/{traced.task}", rest.Task)
    assert (row["state"], row["why"], row["kernel"], row["executor"]) == ("SETTLED", shown.why, "sobel", shown.executor)
    assert row["amount_wei"] == shown.amount
    for was, said, became in zip(servers.items, told["servers"], later.items, strict=True):
        assert said["id"] == was.id
        assert int(was.earned) <= int(said["earned_wei"]) <= int(became.earned)
        assert was.reputation.done <= said["done"] <= became.reputation.done

    page = {found.round: found for found in ask("/v1/allocations?limit=50", rest.AllocationPage).items}
    closed = [said for said in told["rounds"] if said["closed_ms"] is not None]
    assert closed
    for said in closed:
        found = page[said["round"]]
        assert (said["winner"], said["value_wei"]) == (found.winner, found.value)
        assert (said["greedy_wei"], said["bound_wei"]) == (found.greedy_value, found.bound)
        assert len(said["refused"]) <= sum(not proposal.accepted for proposal in found.proposals)


def test_a_task_under_way_is_shown_with_its_reason(platform: Embedded) -> None:
    with platform.client(platform.funded()) as ue:
        rounds = 20_000 * 8_000 // max(1, ue.quote(spin(20_000)).expected_ms)
        task = "0x" + ue.submit(spin(rounds, auditable=False)).task.hex()

    def row() -> dict[str, Any]:
        return next(row for row in top("--node", platform.urls[0])["tasks"]["under_way"] if row["id"] == task)

    until(lambda: row()["state"] == "ASSIGNED", "an executor")
    shown = row()
    assert shown["kernel"] == "spin"
    assert f"server {shown['executor']} runs it, about" in shown["why"]
    done = CliRunner().invoke(app, ["why", task[:12], *PATIENT, "--node", platform.urls[0]], catch_exceptions=False)
    assert done.stdout.startswith("ASSIGNED: ")
    assert f"it went to server {shown['executor']}" in done.stdout
    assert done.stdout.count("  not to ") == 3, "what made each other server worse"


# ---- pages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "least"), [("why.md", 9), ("observing.md", 6)])
def test_commands_of_the_pages_work(
    platform: Embedded, traced: Traced, home: Path, monkeypatch: pytest.MonkeyPatch, page: str, least: int
) -> None:
    """Each command as it stands, but for the task's id and where this platform listens. Containers are tested elsewhere."""
    monkeypatch.setenv("EDGORA_HOME", str(home))
    monkeypatch.chdir(home)
    done = 0
    for line in commands((Path(__file__).parents[2] / "docs" / page).read_text()):
        here = line.replace("0x7f3a9c12", traced.task[:12]).replace("http://127.0.0.1:8100", platform.urls[0])
        words = shlex.split(here, comments=True)
        settings = dict(word.split("=", 1) for word in takewhile(lambda word: "=" in word, words))
        program, *arguments = words[len(settings) :]
        if program == "curl":
            reply = httpx2.get(arguments[-1], timeout=60)
            assert reply.status_code == 200, line
            assert reply.content, line
        else:
            assert program == "edgora", line
            nodes = [word for url in platform.urls for word in ("--node", url)] if "--node" not in arguments else []
            patient = PATIENT if arguments[0] in {"top", "why"} else ()
            with monkeypatch.context() as environment:
                for name, value in settings.items():
                    environment.setenv(name, value)
                ran = CliRunner().invoke(app, [*arguments, *nodes, *patient], catch_exceptions=False)
            assert ran.exit_code == 0, f"{line}: {ran.output}"
            assert ran.stdout.strip(), line
        done += 1
    assert done >= least


def commands(page: str) -> list[str]:
    """Lines of its shell blocks, joined where they are continued; those of containers left out."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.strip() and not re.match(r"(\w+=\S+ )*docker ", line)]


# ---- a terminal, and nodes that die ------------------------------------------------------------------------------------


class Terminal:
    """A process on a pseudo-terminal of a given size."""

    def __init__(self, *command: str, rows: int, columns: int) -> None:
        self._handle, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm", "EDGORA_TRACE": "off"}
        environment.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, env=environment, start_new_session=True
        )
        os.close(inner)
        self.seen = ""

    def until(self, words: str, within_s: float = 90) -> None:
        """Read until the words were drawn since the last call."""
        end = time.monotonic() + within_s
        fresh = ""
        while words not in fresh:
            assert time.monotonic() < end, f"not drawn within {within_s} s: {words!r}; drawn: {fresh[-3000:]!r}"
            if select.select([self._handle], [], [], 0.2)[0]:
                try:
                    fresh += os.read(self._handle, 65_536).decode(errors="replace")
                except OSError:
                    break
        self.seen += fresh
        assert words in fresh, fresh[-3000:]

    def press(self, keys: str) -> None:
        os.write(self._handle, keys.encode())

    def close(self) -> int:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        if self.process.poll() is None:
            self.process.kill()
        status = self.process.wait(10)
        os.close(self._handle)
        return status


class Door:
    """A way to a node that can be shut: the node is well, and to whoever comes this way it is dead."""

    def __init__(self, platform: Embedded, node: int) -> None:
        self._platform, self._target = platform, int(platform.urls[node].rpartition(":")[2])
        self._writers: list[asyncio.StreamWriter] = []
        self._server = platform.run(self._open())
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _open(self) -> asyncio.Server:
        return await asyncio.start_server(self._pass, "127.0.0.1", 0)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, inner_writer]
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pump(reader, inner_writer), self._pump(inner_reader, writer))

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    def shut(self) -> None:
        async def work() -> None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()

        self._platform.run(work())


def test_the_live_screen_follows_keys_and_survives_its_node(platform: Embedded) -> None:
    door = Door(platform, 3)
    edgora = (sys.executable, "-c", "from edgora.cli import main; main()")
    terminal = Terminal(*edgora, "top", "--node", door.url, "--every", "0.3", *PATIENT, rows=40, columns=140)
    try:
        terminal.until("SERVERS")
        assert "\x1b[?1049h" in terminal.seen, "the alternate screen: the user's own lines stay as they were"
        terminal.until("4 of 4 nodes answer")
        terminal.press("s")
        terminal.until("[s] show servers")
        door.shut()
        terminal.until(f"{door.url} does not answer")
        terminal.until("3 of 4 nodes answer")
        terminal.press("q")
        terminal.until("\x1b[?1049l")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.close()
        door.shut()
    told = top("--node", door.url, "--node", platform.urls[0])
    assert told["node"] == platform.urls[0]
    assert f"{door.url} does not answer" in told["says"][0]
    assert top("--node", door.url, code=1)["error"]["code"] == "unavailable"
