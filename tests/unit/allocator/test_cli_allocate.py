"""`edgora draw`, `solve` and `score`: files, exit codes, one JSON document, Ctrl-C (README.md 2)."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click.testing
import pytest
import typer
from typer.testing import CliRunner

from edgora.cli.allocate import app_commands

APP = typer.Typer()
app_commands(APP)


def edgora(*arguments: object) -> click.testing.Result:
    """Run a verb in this process; anything but an exit is a failure of the test."""
    result = CliRunner().invoke(APP, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    path = tmp_path / "instance.json"
    assert edgora("draw", "mta", "--seed", 7, "--set", "n=5", "--set", "m=12", "--out", path).exit_code == 0
    return path


def test_draw_solve_score(instance: Path, tmp_path: Path) -> None:
    out = tmp_path / "solution.json"
    solved = edgora("solve", "mta", "--solver", "exact", "--instance", instance, "--out", out, "--seed", 2, "--json")
    assert solved.exit_code == 0
    told = json.loads(solved.stdout)
    written = json.loads(out.read_bytes())
    assert told["objective"] == written["objective"]
    assert told["proven"] is True
    assert told["out"] == str(out)
    assert written["seed"] == 2
    scored = edgora("score", "mta", "--instance", instance, "--solution", out, "--json")
    assert scored.exit_code == 0
    document = json.loads(scored.stdout)
    assert document["objective"] == written["objective"]
    assert set(document["slack"]) == {"capacity", "deadline", "assignment"}
    assert edgora("score", "mta", "--instance", instance, "--solution", out).stdout.startswith("exact: feasible")


def test_draws_of_a_seed_are_equal_files(instance: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    edgora("draw", "mta", "--seed", 7, "--set", "n=5", "--set", "m=12", "--out", again)
    assert again.read_bytes() == instance.read_bytes()
    drawn = edgora("draw", "mta", "--set", "draw=real", "--out", again, "--json")
    assert json.loads(drawn.stdout) == {"problem": "mta", "seed": 0, "settings": {"draw": "real"}, "out": str(again)}
    assert json.loads(again.read_bytes())["params"]["draw"] == "real"


def test_a_plan_that_breaks_a_constraint_is_written_and_scores_1(instance: Path, tmp_path: Path) -> None:
    out = tmp_path / "naive.json"
    solved = edgora("solve", "mta", "--solver", "greedy-naive", "--instance", instance, "--out", out)
    assert solved.exit_code == 0
    scored = edgora("score", "mta", "--instance", instance, "--solution", out)
    assert scored.exit_code == 1
    assert "C1: server" in scored.stdout


def test_an_edited_claim_scores_1(instance: Path, tmp_path: Path) -> None:
    out = tmp_path / "solution.json"
    edgora("solve", "mta", "--solver", "greedy", "--instance", instance, "--out", out)
    document = json.loads(out.read_bytes())
    out.write_text(json.dumps({**document, "objective": document["objective"] + 1}))
    scored = edgora("score", "mta", "--instance", instance, "--solution", out, "--json")
    assert scored.exit_code == 1
    assert json.loads(scored.stdout)["problems"][0].startswith("objective is claimed")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["draw", "mta", "--out", "{out}", "--set", "q=1"], "q"),
        (["draw", "mta", "--out", "{out}", "--set", "n"], "--set"),
        (["draw", "mta", "--out", "{out}", "--set", "n=2", "--set", "n=3"], "n"),
        (["draw", "mta", "--out", "{out}", "--set", "n=1e400"], "n"),
        (["draw", "mta", "--out", "{out}", "--seed", "-1"], "--seed"),
        (["draw", "mta", "--out", "{out}", "--seed", "x"], "--seed"),
        (["draw", "mta", "--out", "{out}", "--seed", "99999999999999999999"], "seed"),
        (["draw", "knapsack", "--out", "{out}"], "problem"),
        (["draw", "mta", "--out", "{dir}/none/such.json"], "--out"),
        (["draw", "mta"], "--out"),
        (["solve", "mta", "--solver", "best", "--instance", "{in}", "--out", "{out}"], "solver"),
        (["solve", "mta", "--solver", "no:such", "--instance", "{in}", "--out", "{out}"], "solver"),
        (["solve", "mta", "--solver", "greedy", "--instance", "{in}", "--out", "{out}", "--set", "x=1"], "x"),
        (
            ["solve", "mta", "--solver", "greedy", "--instance", "{in}", "--out", "{out}", "--time-limit", "0"],
            "--time-limit",
        ),
        (
            ["solve", "mta", "--solver", "greedy", "--instance", "{in}", "--out", "{out}", "--time-limit", "nan"],
            "--time-limit",
        ),
        (["solve", "mta", "--solver", "greedy", "--instance", "{dir}/none", "--out", "{out}"], "--instance"),
        (["solve", "mta", "--solver", "greedy", "--instance", "{dir}", "--out", "{out}"], "--instance"),
        (["score", "mta", "--instance", "{in}", "--solution", "{dir}/none"], "--solution"),
        (["score", "mta", "--instance", "{in}", "--solution", "{in}"], "params"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_exits_2_and_names_it(instance: Path, tmp_path: Path, arguments: list[str], named: str) -> None:
    out = tmp_path / "out.json"
    places = {"{out}": str(out), "{dir}": str(tmp_path), "{in}": str(instance)}
    for mark, place in places.items():
        arguments = [argument.replace(mark, place) for argument in arguments]
    result = edgora(*arguments)
    assert result.exit_code == 2
    assert named in result.stderr
    assert result.stdout == ""
    assert not out.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"instance.json"}


def test_a_failing_policy_exits_1(instance: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_policy.py").write_text(
        "class P:\n    def propose(self, i, b):\n        raise RuntimeError('mine')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "out.json"
    result = edgora("solve", "mta", "--solver", "broken_policy:P", "--instance", instance, "--out", out, "--json")
    assert result.exit_code == 1
    assert "RuntimeError: mine" in result.stderr
    assert json.loads(result.stdout)["error"]["code"] == "policy_failed"
    assert not out.exists()


def test_an_existing_file_stays_whole_until_the_new_one_is(instance: Path, tmp_path: Path) -> None:
    before = instance.read_bytes()
    assert edgora("solve", "mta", "--solver", "greedy-naive", "--instance", instance, "--out", instance).exit_code == 0
    assert instance.read_bytes() != before
    assert {path.name for path in tmp_path.iterdir()} == {"instance.json"}


def damaged(document: dict[str, Any], k: int) -> bytes:
    """The k-th damaged copy: one field gone, odd, renamed or cut, or a broken byte."""
    odd: list[object] = [None, True, -1, 2**70, 1e308, "x", [], {}, [[1]], [None] * 12, [-2] * 12, [1e308] * 5, 0.5]
    fields = list(document)
    name = fields[k % len(fields)]
    kind = (k // len(fields)) % 5
    if kind == 0:
        return json.dumps({key: value for key, value in document.items() if key != name}).encode()
    if kind == 1:
        return json.dumps({**document, name: odd[k % len(odd)]}).encode()
    if kind == 2:
        return json.dumps({**document, f"{name}_": 1}).encode()
    text = json.dumps(document).encode()
    at = (k * 7919) % len(text)
    return text[:at] if kind == 3 else text[:at] + bytes([k % 256]) + text[at + 1 :]


def test_two_hundred_damaged_files_in_one_process(instance: Path, tmp_path: Path) -> None:
    """Every one is read or refused by name; nothing else ever comes out."""
    good = tmp_path / "good.json"
    edgora("solve", "mta", "--solver", "greedy", "--instance", instance, "--out", good)
    bad, out, codes = tmp_path / "bad.json", tmp_path / "out.json", Counter[int]()
    for k in range(100):
        bad.write_bytes(damaged(json.loads(instance.read_bytes()), k))
        result = edgora("solve", "mta", "--solver", "greedy-global", "--instance", bad, "--out", out)
        codes[result.exit_code] += 1
        bad.write_bytes(damaged(json.loads(good.read_bytes()), k))
        scored = edgora("score", "mta", "--instance", instance, "--solution", bad)
        codes[scored.exit_code] += 1
        for refused in (result, scored):
            assert refused.exit_code != 2 or refused.stderr.startswith("edgora: ")
            assert refused.stderr.count("\n") == (refused.exit_code == 2)
    assert set(codes) <= {0, 1, 2}
    assert codes[2] > 100


def test_ctrl_c_writes_the_best_so_far(tmp_path: Path) -> None:
    """A real process, a real SIGINT in the middle of HiGHS's work: exit 0 and a solution that holds."""
    instance, out = tmp_path / "big.json", tmp_path / "solution.json"
    edgora("draw", "mta", "--seed", 1, "--set", "n=40", "--set", "m=400", "--out", instance)
    arguments = ["solve", "mta", "--solver", "exact", "--instance", str(instance), "--out", str(out), "--json"]
    program = "from edgora.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".solution.json.*")):  # it is there exactly while the solver runs
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["info"]["status"] == "interrupted"
    assert edgora("score", "mta", "--instance", instance, "--solution", out).exit_code == 0
