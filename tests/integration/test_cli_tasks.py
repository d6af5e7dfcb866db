"""The CLI against a running platform: what it prints, what it writes, how it exits."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from edgora.cli import app
from edgora.client import Wallet
from edgora.client.images import Raster, photo
from embedded import ECHO, Embedded

Edgora = Callable[..., Result]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, rich: Wallet) -> Path:
    """A user's folder with a funded key."""
    folder = tmp_path_factory.mktemp("home")
    rich.save(folder / "ue.key")
    return folder


@pytest.fixture
def edgora(platform: Embedded, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Edgora:
    """`edgora(verb, ...)` in a folder of the test's own, with the platform's nodes where a verb takes them."""
    monkeypatch.setenv("EDGORA_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    nodes = [argument for url in platform.urls for argument in ("--node", url)]

    def run(*arguments: str, node: bool = True) -> Result:
        return CliRunner().invoke(app, [*arguments, *(nodes if node else ())], catch_exceptions=False)

    return run


def document(result: Result, code: int = 0) -> Any:
    """The one JSON document on stdout."""
    assert result.exit_code == code, result.output
    return msgspec.json.decode(result.stdout)


# ---- submit, verify ------------------------------------------------------------------------------------------------------


def test_submit_writes_result_and_proof_and_verify_checks_them(
    platform: Embedded, edgora: Edgora, tmp_path: Path
) -> None:
    (tmp_path / "photo.png").write_bytes(photo())
    done = edgora(
        "submit", "photo.png", "--kernel", "sobel", "--out", "edges.png", "--proof", "proof.json", "--settled", "--json"
    )
    told = document(done)
    assert (told["code"], told["state"], told["amount_wei"]) == ("OK", "SETTLED", told["cost_wei"])
    edges, source = Raster.from_file((tmp_path / "edges.png").read_bytes()), Raster.from_file(photo())
    assert (edges.width, edges.height, edges.channels) == (source.width, source.height, 1)
    for stage in ("stored", "ordered", "verified"):
        assert stage in done.stderr, "the timeline goes to stderr"

    pin = platform.genesis_id
    good = document(edgora("verify", "proof.json", "--genesis-id", pin, "--output", "edges.png", "--json", node=False))
    assert good["ok"]
    assert [check["name"] for check in good["checks"]][:3] == ["genesis", "offer", "task"]
    assert (
        edgora("verify", "proof.json", "--genesis-id", pin, "--output", "photo.png", "--json", node=False).exit_code
        == 1
    )
    other = "0x" + "ab" * 32
    assert document(edgora("verify", "proof.json", "--genesis-id", other, "--json", node=False), 1)["ok"] is False
    text = (tmp_path / "proof.json").read_text()
    at = text.index('"proof": "0x') + 400
    (tmp_path / "bent.json").write_text(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :])
    assert document(edgora("verify", "bent.json", "--json", node=False), 1)["ok"] is False
    assert "does NOT hold" in edgora("verify", "bent.json", node=False).stdout
    assert document(edgora("verify", "photo.png", "--json", node=False), 2)["error"]["field"] == "proof"
    assert edgora("verify", "nowhere.json", node=False).exit_code == 2


def test_a_module_in_text_form(edgora: Edgora, tmp_path: Path) -> None:
    (tmp_path / "echo.wat").write_text(ECHO)
    (tmp_path / "word").write_bytes(b"a word or two")
    done = edgora(
        "submit",
        "word",
        "--module",
        "echo.wat",
        "--fuel-limit",
        "100000",
        "--out",
        "back",
        "--proof",
        "p.json",
        "--json",
    )
    told = document(done)
    assert told["code"] == "OK"
    assert b"a word or two" in (tmp_path / "back").read_bytes()
    assert document(edgora("verify", "p.json", "--output", "back", "--json", node=False))["ok"]


def test_a_result_that_is_a_trap_exits_1_and_is_paid(edgora: Edgora, tmp_path: Path) -> None:
    trap = ECHO.replace("(i64.or", "(unreachable) (i64.or")
    (tmp_path / "trap.wat").write_text(trap)
    told = document(edgora("submit", "--module", "trap.wat", "--fuel-limit", "100000", "--json"), 1)
    assert told["code"] == "TRAP"
    assert told["fuel_used"] > 0
    assert told["out"] is None


def test_raw_output(edgora: Edgora, tmp_path: Path) -> None:
    told = document(
        edgora(
            "submit",
            "--kernel",
            "spin",
            "--arg",
            "rounds=10000",
            "--out",
            "raw",
            "--raw",
            "--proof",
            "p.json",
            "--json",
        )
    )
    assert (tmp_path / "raw").stat().st_size == told["output_octets"] == 8
    assert document(edgora("verify", "p.json", "--output", "raw", "--json", node=False))["ok"]


def test_for_people_it_shows_the_price_and_asks_before_it_signs(edgora: Edgora, home: Path) -> None:
    before = (home / "ue.journal").read_bytes() if (home / "ue.journal").exists() else b""
    asked = edgora("submit", "--kernel", "spin")
    assert asked.exit_code == 1, "nobody said yes"
    assert "maximum cost" in asked.stdout
    assert "sign and submit?" in asked.stderr
    assert ((home / "ue.journal").read_bytes() if before else b"") == before
    yes = edgora("submit", "--kernel", "spin", "--arg", "rounds=10000", "--yes")
    assert yes.exit_code == 0
    assert "certified by a quorum at height" in yes.stdout


def test_quote(edgora: Edgora) -> None:
    told = document(edgora("quote", "--kernel", "spin", "--max-price", "16", "--json"))
    assert (told["price_gwei_per_mfuel"], told["servers"]) == (16, 2)
    assert int(told["maximum_wei"]) == told["fuel_limit"] * 16 * 1000
    assert len(told["refusals"]) == 2
    people = edgora("quote", "--kernel", "spin")
    assert people.exit_code == 0
    assert "expected time" in people.stdout


# ---- tasks -----------------------------------------------------------------------------------------------------------------


def command(platform: Embedded, *arguments: str) -> list[str]:
    nodes = [argument for url in platform.urls for argument in ("--node", url)]
    return [sys.executable, "-c", "from edgora.cli import main; main()", *arguments, *nodes]


def killed_after(platform: Embedded, home: Path, pattern: str, *arguments: str) -> str:
    """Run a verb in a process of its own, kill it for good when its stderr says something; what it had said."""
    process = subprocess.Popen(
        command(platform, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "EDGORA_HOME": str(home), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    said = ""
    try:
        for line in process.stderr:
            said += line
            if re.search(pattern, line):
                return said
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
    raise AssertionError(said)


def test_a_submission_that_was_killed_is_fetched(
    platform: Embedded, edgora: Edgora, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "value.json"
    said = killed_after(
        platform,
        home,
        r"task  0x",
        "submit",
        "--kernel",
        "spin",
        "--arg",
        "rounds=5000000",
        "--out",
        str(out),
        "--json",
    )
    task = re.search(r"0x[0-9a-f]{64}", said.split("task  ")[-1])
    assert task is not None
    assert not out.exists()
    shown = document(edgora("tasks", "show", task[0][:16], "--json"))
    assert shown["task"]["id"] == task[0]
    assert shown["why"]["sentence"]
    told = document(edgora("tasks", "fetch", task[0][:16], "--proof", "p.json", "--json"))
    assert (told["task"], told["code"]) == (task[0], "OK")
    assert (told["out"], out.exists()) == (str(out), True), "where the first run wanted it"
    assert document(edgora("verify", "p.json", "--json", node=False))["ok"]
    listed = {row["task"]: row for row in document(edgora("tasks", "list", "--json"))["tasks"]}
    assert listed[task[0]]["label"] == "spin"
    assert task[0][:14] in edgora("tasks", "list").stdout


def test_an_open_task_is_cancelled_from_the_shell(platform: Embedded, edgora: Edgora, home: Path) -> None:
    said = killed_after(
        platform, home, r"task  0x", "submit", "--kernel", "spin", "--max-price", "12", "--deadline", "120", "--json"
    )
    task = re.findall(r"0x[0-9a-f]{64}", said)[-1]
    why = document(edgora("tasks", "show", task, "--json"))
    assert why["task"]["state"] == "OPEN"
    cancelled = document(edgora("tasks", "cancel", task, "--json"))
    assert (cancelled["state"], cancelled["amount"]) == ("REFUNDED", "0")
    again = document(edgora("tasks", "cancel", task, "--json"), 1)
    assert again["error"]["rule"] == "NOT_OPEN"
    fetched = document(edgora("tasks", "fetch", task, "--json"), 2)
    assert "ended without a result" in fetched["error"]["detail"]


# ---- refusals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("submit", "--json"), "kernel"),
        (("submit", "--kernel", "nothing", "--json"), "kernel"),
        (("submit", "nowhere.png", "--kernel", "sobel", "--json"), "FILE"),
        (("submit", "--kernel", "spin", "--arg", "rounds", "--json"), "arg"),
        (("submit", "--kernel", "spin", "--arg", "rounds=many", "--json"), "rounds"),
        (("submit", "--kernel", "spin", "--arg", "surprise=1", "--json"), "surprise"),
        (("submit", "--kernel", "spin", "--module", "x.wat", "--json"), "kernel"),
        (("submit", "--module", "nowhere.wasm", "--fuel-limit", "10", "--json"), "module"),
        (("submit", "--module", "x.wat", "--json"), "fuel-limit"),
        (("submit", "--kernel", "spin", "--out", "no/such/folder/x", "--json"), "out"),
        (("quote", "--kernel", "spin", "--max-price", "1", "--json"), "price"),
        (("quote", "--kernel", "spin", "--deadline", "7200", "--json"), "deadline"),
        (("quote", "--kernel", "spin", "--genesis-id", "0x" + "00" * 32, "--json"), "genesis_id"),
        (("tasks", "show", "0xabcdef", "--json"), "task"),
        (("tasks", "show", "0x" + "00" * 32, "--json"), "id"),
        (("tasks", "fetch", "0x" + "00" * 32, "--json"), "task"),
    ],
)
def test_bad_input_exits_2_and_names_the_field(edgora: Edgora, arguments: tuple[str, ...], field: str) -> None:
    error = document(edgora(*arguments), 2)["error"]
    assert error["field"] == field
    assert error["detail"]


def test_usage_errors_leave_stdout_empty(edgora: Edgora) -> None:
    for arguments in (("submit", "--surprise", "--json"), ("tasks", "show", "--json"), ("nothing",)):
        wrong = edgora(*arguments, node=False)
        assert (wrong.exit_code, wrong.stdout) == (2, "")


def test_a_node_that_is_away_exits_1(edgora: Edgora, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgora.client.session._ROUNDS", 1)
    away = ("--node", "http://127.0.0.1:9")
    error = document(edgora("quote", "--kernel", "spin", "--json", *away, node=False), 1)["error"]
    assert (error["code"], error["field"]) == ("unavailable", "node")
    assert document(edgora("status", "--json", *away, node=False), 1)["nodes"][0]["status"] is None
    assert (
        document(edgora("quote", "--kernel", "spin", "--json", "--node", "ftp://x", node=False), 2)["error"]["field"]
        == "node"
    )


def test_keys_are_made_private_and_loose_ones_refused(edgora: Edgora, tmp_path: Path) -> None:
    key = tmp_path / "new" / "ue.key"
    made = edgora("quote", "--kernel", "spin", "--key", str(key), "--json")
    assert made.exit_code == 0
    assert key.stat().st_mode & 0o777 == 0o600
    assert "made a key for 0x" in made.stderr
    key.chmod(0o644)
    loose = document(edgora("quote", "--kernel", "spin", "--key", str(key), "--json"), 2)["error"]
    assert (loose["field"], "chmod 600" in loose["fix"]) == ("key", True)


# ---- the platform itself ---------------------------------------------------------------------------------------------------


def test_status_says_why_consensus_waits(edgora: Edgora, platform: Embedded) -> None:
    told = document(edgora("status", "--json"))
    assert [node["url"] for node in told["nodes"]] == platform.urls
    assert all(node["sentence"] and node["status"]["quorum"] == 3 for node in told["nodes"])
    assert "consensus" in edgora("status").stdout


def test_doctor_looks_at_running_nodes(edgora: Edgora, platform: Embedded) -> None:
    found = document(edgora("doctor", "--slots", "0", "--port", "0", "--json"))
    assert found["ok"]
    names = {finding["name"] for finding in found["findings"]}
    assert {f"{what} {url}" for what in ("clock", "consensus") for url in platform.urls} <= names
