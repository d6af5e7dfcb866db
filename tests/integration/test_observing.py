"""Watching a running platform: one trace a task, `edgora top` against what REST says, and when nodes die under it."""

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from typer.testing import CliRunner

from edgora.cli import app
from edgora.client.images import photo
from edgora.ports.tracing import PARENT, Stage, span_id
from edgora.wire import rest
from embedded import Embedded, spin

PATIENT = ("--timeout", "30")
"""Four nodes share one interpreter here, and a busy machine is no dead node."""
SLACK_MS = 50
"""Ledger time is a proposer's, spans of a duty are the server's: one machine here, but two readings of its clock."""


@dataclass
class Traced:
    """One task that was submitted with the command line, and every span of the run."""

    task: str
    spans: list[dict[str, Any]]


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Embedded, Path]]:
    """A platform that writes its spans to a file; every task is audited."""
    spans = tmp_path_factory.mktemp("traces") / "spans.jsonl"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("EDGORA_TRACE", "file")
        environment.setenv("EDGORA_TRACE_FILE", str(spans))
        with Embedded("market.audit_bps=10000") as running:
            yield running, spans


@pytest.fixture(scope="module")
def home(observed: tuple[Embedded, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with a funded key and a picture."""
    folder = tmp_path_factory.mktemp("home")
    observed[0].funded(10**17).save(folder / "ue.key")
    (folder / "photo.png").write_bytes(photo())
    return folder


@pytest.fixture(scope="module")
def traced(observed: tuple[Embedded, Path], home: Path) -> Traced:
    """`edgora submit` from start to payment."""
    platform, spans = observed
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("EDGORA_HOME", str(home))
        environment.chdir(home)
        nodes = [word for url in platform.urls for word in ("--node", url)]
        arguments = ["submit", "photo.png", "--kernel", "sobel", "--out", "edges.png", "--settled", "--json", *nodes]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    task = msgspec.json.decode(done.stdout)["task"]

    def told() -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in spans.read_bytes().splitlines()]

    until(lambda: any(s["name"] == "task" for s in of_task(told(), task)), "the source's last word")
    return Traced(task, told())


def of_task(spans: list[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    return [span for span in spans if span["attributes"]["edgora.task"] == task]


def until(ask: Callable[[], object], what: str, within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not ask():
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        time.sleep(0.05)


# ---- traces ------------------------------------------------------------------------------------------------------------


def test_one_trace_from_client_to_chain(observed: tuple[Embedded, Path], traced: Traced) -> None:
    platform, _ = observed
    mine = of_task(traced.spans, traced.task)
    shown = msgspec.json.decode(platform.get(f"/v1/tasks/{traced.task}").content, type=rest.Task)
    assert {span["context"]["trace_id"] for span in mine} == {"0x" + shown.trace_id}
    assert {span["name"] for span in mine} == {stage.value for stage in Stage}, "every stage of the tree"
    services = {span["name"]: (span["resource"]["attributes"]["service.name"], span["resource"]["attributes"]["service.instance.id"]) for span in mine}  # fmt: skip
    assert services["client.submit"] == services["client.deliver"] == ("client", "cli")
    assert services["task"] == services["source.store"] == ("node", str(shown.offer.source))
    assert services["execute"] == services["runner.run"] == ("node", str(shown.executor))
    assert services["allocator.solve"][0] == "allocator"
    auditors = {s["resource"]["attributes"]["service.instance.id"] for s in mine if s["name"] == "audit"}
    assert auditors
    assert str(shown.executor) not in auditors

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
    mine = of_task(traced.spans, traced.task)
    first: dict[str, dict[str, Any]] = {}
    for span in sorted(mine, key=lambda s: s["start_time"]):
        first.setdefault(span["name"], span)
    begins = [first[name]["start_time"] for name in (
        "client.submit", "source.store", "ledger.order", "market.round", "execute", "execute.fetch", "runner.run",
        "execute.hold", "execute.file", "audit", "settle", "chain.settle",
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


def test_traces_keep_the_secrets(traced: Traced, observed: tuple[Embedded, Path]) -> None:
    """Names and integers only: no octets longer than a digest."""
    for line in observed[1].read_text().splitlines():
        values = msgspec.json.decode(line)["attributes"].values()
        assert all(len(value) <= 66 for value in values if isinstance(value, str))


def test_ids_follow_from_the_task_alone(traced: Traced) -> None:
    root = next(span for span in of_task(traced.spans, traced.task) if span["name"] == "task")
    assert root["context"]["span_id"] == f"0x{span_id(bytes.fromhex(traced.task[2:]), Stage.TASK, ()):016x}"


# ---- top ---------------------------------------------------------------------------------------------------------------


def top(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["top", "--once", "--json", *PATIENT, *arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return msgspec.json.decode(done.stdout)


def test_top_says_what_rest_says(observed: tuple[Embedded, Path], traced: Traced) -> None:
    platform, _ = observed
    told = top("--node", platform.urls[1])
    assert told["node"] == platform.urls[1]
    ended = {row["id"]: row for row in told["tasks"]["ended"]}
    shown = msgspec.json.decode(platform.get(f"/v1/tasks/{traced.task}").content, type=rest.Task)
    row = ended[traced.task]
    assert (row["state"], row["why"], row["kernel"], row["executor"]) == ("SETTLED", shown.why, "sobel", shown.executor)
    assert row["amount_wei"] == shown.amount
    listed = msgspec.json.decode(platform.get("/v1/servers", 1).content, type=rest.ServerList)
    assert [(s["id"], s["earned_wei"], s["done"]) for s in told["servers"]] == [
        (s.id, s.earned, s.reputation.done) for s in listed.items
    ]
    page = msgspec.json.decode(platform.get("/v1/allocations?limit=12", 1).content, type=rest.AllocationPage)
    by_round = {r["round"]: r for r in told["rounds"]}
    assert by_round
    for found in page.items:
        if found.round in by_round and found.closed_ms is not None:
            seen = by_round[found.round]
            assert (seen["winner"], seen["value_wei"], seen["greedy_wei"], seen["bound_wei"]) == (
                found.winner,
                found.value,
                found.greedy_value,
                found.bound,
            )
    status = msgspec.json.decode(platform.get("/v1/status", 1).content, type=rest.Status)
    assert (told["ledger"]["quorum"], told["ledger"]["view"]) == (status.quorum, status.view)
    assert [voter["index"] for voter in told["ledger"]["voters"]] == [0, 1, 2, 3]
    assert {node["url"] for node in told["ledger"]["nodes"]} == set(platform.urls), "the others were learnt from node 1"


def test_a_task_under_way_is_shown_with_its_reason(observed: tuple[Embedded, Path]) -> None:
    platform, _ = observed
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
    observed: tuple[Embedded, Path], traced: Traced, home: Path, monkeypatch: pytest.MonkeyPatch, page: str, least: int
) -> None:
    """Each command as it stands, but for the task's id and where this platform listens. Containers are tested elsewhere."""
    platform, _ = observed
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
    return [line for line in lines if line.strip() and not line.startswith("docker ")]


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


def test_the_live_screen_follows_keys_and_survives_its_node(observed: tuple[Embedded, Path]) -> None:
    """Last in this module: it stops nodes."""
    platform, _ = observed
    edgora = (sys.executable, "-c", "from edgora.cli import main; main()")
    terminal = Terminal(*edgora, "top", "--node", platform.urls[3], "--every", "0.2", *PATIENT, rows=40, columns=140)
    try:
        terminal.until("SERVERS")
        assert "\x1b[?1049h" in terminal.seen, "the alternate screen: the user's own lines stay as they were"
        terminal.press("s")
        terminal.until("[s] show servers")
        platform.run(platform.cluster.nodes[3].stop())
        terminal.until(f"{platform.urls[3]} does not answer")
        terminal.until("3 of 4 nodes answer")
        terminal.press("q")
        terminal.until("\x1b[?1049l")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.close()
    told = top("--node", platform.urls[3], "--node", platform.urls[0])
    assert told["node"] == platform.urls[0]
    assert f"{platform.urls[3]} does not answer" in told["says"][0]
    assert [node["problem"] is None for node in told["ledger"]["nodes"] if node["url"] != platform.urls[3]] == [
        True
    ] * 3
    assert top("--node", platform.urls[3], code=1)["error"]["code"] == "unavailable"
