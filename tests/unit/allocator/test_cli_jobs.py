"""`edgora jobs`: the commands of docs/allocators/jobs.md as they stand there, and what the verbs refuse."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click.testing
import httpx2
import pytest
from typer.testing import CliRunner

from edgora.adapters.loopback import free_port
from edgora.cli import app

PAGE = (Path(__file__).parents[3] / "docs" / "allocators" / "jobs.md").read_text()
[BLOCK] = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [shlex.split(line, comments=True)[1:] for line in BLOCK.splitlines()]
SHOWN = "0123456789abcdef"
"""The id that the page shows."""


def edgora(*arguments: str) -> click.testing.Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def allocator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page's first command, on a free port."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGORA_ALLOCATOR", url)
    command = [sys.executable, "-c", "from edgora.cli import main; main()", *COMMANDS[0], "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as service:
        try:
            while service.poll() is None and not _answers(url):
                time.sleep(0.1)
            yield url
        finally:
            service.send_signal(signal.SIGTERM)
            assert service.wait(60) == 0


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz").status_code == 200
    except httpx2.TransportError:
        return False


def test_the_pages_commands_run_as_they_stand(allocator: str, tmp_path: Path) -> None:
    submitted = edgora(*COMMANDS[1], "--json")
    assert submitted.exit_code == 0, submitted.output
    name = json.loads(submitted.stdout)["id"]
    for shown in COMMANDS[2:]:
        command = [word.replace(SHOWN, name) for word in shown]
        ended = edgora(*command)
        assert ended.exit_code == 0, (command, ended.output)
        match command[1]:
            case "list":
                assert name in ended.stdout
            case "watch":
                assert ended.stdout.startswith(f"{name}  finished: trained in 400 slots")
                assert "running: train baas pair-q" in ended.stderr
                assert "100.0 %" in ended.stderr
            case "fetch":
                assert sorted(f.name for f in Path("run/pair-q").iterdir()) == [
                    "checkpoint.npz",
                    "log.jsonl",
                    "policy.npz",
                ]
            case "remove":
                assert edgora("jobs", "show", name).exit_code == 2
            case "submit":
                assert "finished: score 0." in ended.stdout
    refused = edgora("jobs", "submit", "train", "baas", "--algo", "pair-q", "--set", "u=3", "--json")
    assert refused.exit_code == 2
    assert json.loads(refused.stdout)["error"]["field"] == "settings.u"
    assert json.loads(edgora("jobs", "list", "--state", "queued", "--json").stdout)["items"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("submit", "train", "baas", "--algo", "pair-q", "--set", "u"), 2, "--set"),
        (("submit", "evaluate", "baas", "--policy", "exact", "--seeds", "5..1"), 2, "--seeds"),
        (("submit", "solve", "mta", "--solver", "exact", "--instance", "none.json"), 2, "--instance"),
        (("show", SHOWN), 1, "--allocator"),
        (("watch", SHOWN), 1, "--allocator"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_named(
    arguments: tuple[str, ...], code: int, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGORA_ALLOCATOR", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("edgora.cli.jobs._PAUSE_S", 0.0)
    ended = edgora("jobs", *arguments, "--json")
    assert ended.exit_code == code, ended.output
    assert json.loads(ended.stdout)["error"]["field"] == named
