"""`edgora up` and `edgora submit` as a person uses them: real processes, a photo, Ctrl-C, the same folder again."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgora.adapters.anvil_chain import find_anvil
from edgora.adapters.loopback import free_port
from edgora.client.images import photo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(find_anvil() is None, reason="no anvil binary is found"),
]

SCENARIOS = Path(__file__).parents[2] / "deploy" / "scenarios"
EDGORA = [sys.executable, "-c", "from edgora.cli import main; main()"]


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/readyz", timeout=3) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def platform(folder: Path, log: Path, *more: str) -> Iterator[tuple["subprocess.Popen[bytes]", list[str]]]:
    """`edgora up` with more arguments until the block ends; yields the process and the nodes' URLs."""
    with log.open("wb") as out:
        settings = ["--set", "ports.api=0", "--set", f"ports.chain={free_port()}", "--set", "ports.board=0"]
        if (folder / "scenario.json").exists():  # a folder keeps the scenario that it was laid out from
            settings[3] = f"ports.chain={json.loads((folder / 'scenario.json').read_bytes())['ports']['chain']}"
        process = subprocess.Popen([*EDGORA, "up", "--folder", str(folder), *settings, *more], stdout=out, stderr=out)
        try:
            end = time.monotonic() + 150
            while True:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                if (folder / "genesis.bin").exists():
                    homes = [folder / f"node{i}" / "endpoint.json" for i in range(4)]
                    urls = [json.loads(home.read_bytes())["public_url"] for home in homes]
                    if sum(map(ready, urls)) >= 3:
                        break
                time.sleep(0.3)
            yield process, urls
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise


def submit(urls: list[str], home: Path, out: Path) -> dict[str, object]:
    picture = home / "photo.png"
    picture.write_bytes(photo())
    nodes = [word for url in urls for word in ("--node", url)]
    command = [
        *EDGORA,
        "submit",
        str(picture),
        "--kernel",
        "sobel",
        "--out",
        str(out),
        "--yes",
        "--settled",
        "--json",
        *nodes,
    ]
    env = {**os.environ, "EDGORA_HOME": str(home)}
    done = subprocess.run(command, capture_output=True, timeout=200, env=env, check=False)
    assert done.returncode == 0, done.stderr.decode()
    document: dict[str, object] = json.loads(done.stdout)
    return document


def children(process: "subprocess.Popen[bytes]") -> list[int]:
    """Process ids of its direct children."""
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(word) for word in text.split()]


def test_up_submit_stop_and_up_again(tmp_path: Path) -> None:
    folder, home = tmp_path / "run", tmp_path / "home"
    home.mkdir()
    with platform(folder, tmp_path / "first.log") as (process, urls):
        first = submit(urls, home, tmp_path / "edges.png")
        assert first["state"] == "SETTLED"
        assert (tmp_path / "edges.png").read_bytes().startswith(b"\x89PNG")
        board = re.search(r"^board: (http://\S+)", (tmp_path / "first.log").read_text(), re.MULTILINE)
        assert board is not None
        with urllib.request.urlopen(f"{board[1]}/board.json", timeout=10) as answer:
            assert [node["url"] for node in json.load(answer)["nodes"]] == urls
        asked = urllib.request.Request(f"{urls[0]}/v1/info", headers={"Origin": board[1]})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == board[1]
        started = children(process)
        assert len(started) >= 10  # two of each node, the chain, and the board
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not any(Path(f"/proc/{child}").exists() for child in started)

    with platform(folder, tmp_path / "second.log") as (process, urls):
        env = {**os.environ, "EDGORA_HOME": str(home)}
        listed = subprocess.run(
            [*EDGORA, "tasks", "list", "--json", "--node", urls[3]],
            capture_output=True,
            timeout=60,
            env=env,
            check=True,
        )
        tasks = {task["task"]: task["state"] for task in json.loads(listed.stdout)["tasks"]}
        assert tasks == {first["task"]: "SETTLED"}
        second = submit(urls, home, tmp_path / "again.png")
        assert second["state"] == "SETTLED"
        assert second["certified_height"] > first["certified_height"]  # type: ignore[operator]
        assert (tmp_path / "again.png").read_bytes() == (tmp_path / "edges.png").read_bytes()


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="shares travel over Redis, which is not installed")
@pytest.mark.parametrize("problem", ["tcr", "dpe"])
def test_a_fleet_follows_the_plans_of_the_allocator_service(tmp_path: Path, problem: str) -> None:
    log, scenario = tmp_path / "up.log", ("--scenario", str(SCENARIOS / f"{problem}.toml"))
    small = ("fleet.tasks=6", "fleet.ues=3", "plan.cancelled=0", "plan.expired=0")
    settings = [word for setting in small for word in ("--set", setting)]
    with platform(tmp_path / "run", log, *scenario, *settings) as (_, urls):
        found = re.search(r"allocator: (http://[0-9.:]+)", log.read_text())
        assert found, log.read_text()
        nodes = [word for url in urls for word in ("--node", url)]
        done = subprocess.run(
            [*EDGORA, "fleet", *scenario, *settings, *nodes, "--allocator", found[1], "--json"],
            capture_output=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        run = json.loads(done.stdout)
        plans = [wave["plan"] for wave in run["waves"]]
        assert plans
        assert [(p["policy"], p["fallback"], p["untold"]) for p in plans] == [(f"{problem}:priced", "", "")] * len(
            plans
        )
        assert all(r["verified"] and r["state"] == "SETTLED" for r in run["records"])
        assert all(r["source"] == r["followed"]["server"] for r in run["records"])
        assert any(r["followed"]["phi_met"] < 1 and r["followed"]["local_fuel"] for r in run["records"])
        told = {p["server"] for p in plans[-1]["ues"]}
        for server, url in enumerate(urls):
            with urllib.request.urlopen(url + "/v1/status", timeout=10) as answer:
                says = json.loads(answer.read())["duties"]["pacing"]
            assert says.startswith("0 UEs") == (server not in told)
            assert "share this server" in says
