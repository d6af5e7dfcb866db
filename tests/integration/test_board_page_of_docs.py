"""docs/board.md is executed as it stands: the first command serves a platform, the others speak with it.

Addresses are this platform's, and the fleet is told to be slow; nothing else differs from the page.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from edgora.client.images import photo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PAGE = (Path(__file__).parents[2] / "docs" / "board.md").read_text()
BIN = Path(sys.executable).parent


def block(name: str) -> list[str]:
    """The commands of the fenced block that is marked with this name."""
    marked = re.search(rf"<!-- executed by [\w/.]+: {name} -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
    assert marked is not None
    return [line.partition(" #")[0].strip() for line in marked[1].splitlines() if line.strip()]


class Served(NamedTuple):
    board: str
    nodes: list[str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page's own command, on free ports, until it says where the board is; Ctrl-C ends it."""
    (command,) = block("serve")
    words = command.split()
    assert words[0] == "edgora"
    quiet = ["--set", "ports.board=0", "--set", "ports.api=0", "--set", "fleet.ues=2", "--rate", "6"]
    log = (tmp_path_factory.mktemp("served") / "log").open("w+")
    process = subprocess.Popen([BIN / words[0], *words[1:], *quiet], stdout=log, stderr=subprocess.PIPE, text=True)
    said: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if line.startswith("board: "):
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert ready.wait(200)
        words_said = "".join(said)
        board = re.search(r"^board: (http://\S+);", words_said, re.MULTILINE)
        assert board is not None, words_said
        yield Served(board[1], re.findall(r"^node \d: (http://\S+)", words_said, re.MULTILINE))
        process.send_signal(signal.SIGINT)
        assert process.wait(150) == 0, "".join(said)
        log.seek(0)
        assert re.search(r"(\d+) of \1 tasks ended settled or refunded", log.read())
    finally:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):  # it stops its chain itself, if it is let
            if process.poll() is None:
                process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(60)
        log.close()


def test_the_commands_of_the_page(served: Served, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(photo())
    environment = {
        **os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "EDGORA_HOME": str(tmp_path / "home"), "HOME": str(tmp_path),
    }  # fmt: skip
    for command in block("commands"):
        ours = command.replace("http://127.0.0.1:8080", served.board)
        for index, url in enumerate(served.nodes):
            ours = ours.replace(f"http://127.0.0.1:81{index}0", url)
        done = subprocess.run(
            ["sh", "-c", ours], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=150, check=False
        )
        assert done.returncode == 0, f"{ours}\n{done.stdout}{done.stderr}"
        if "--json" in ours or ours.startswith("curl"):
            assert json.loads(done.stdout)
    assert (tmp_path / "edges.png").stat().st_size > 0


def test_the_board_serves_its_page_and_the_nodes_answer_it(served: Served) -> None:
    page = httpx2.get(served.board, timeout=30)
    assert page.status_code == 200
    told = httpx2.get(f"{served.board}/board.json", timeout=30).json()
    assert [node["url"] for node in told["nodes"]] == served.nodes
    for url in served.nodes:
        answer = httpx2.get(f"{url}/v1/positions", headers={"Origin": served.board}, timeout=30)
        assert answer.headers["access-control-allow-origin"] == served.board
        assert len(answer.json()["items"]) == 2, "the fleet told where its UEs stand"


def test_pictures_are_there_and_light() -> None:
    named = re.findall(r"!\[[^\]]+\]\((images/board/[\w-]+\.png)\)", PAGE)
    assert len(named) >= 5
    for name in named:
        file = Path(__file__).parents[2] / "docs" / name
        assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert file.stat().st_size < 200_000, name
