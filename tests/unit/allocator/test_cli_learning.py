"""`edgora train` and `edgora evaluate`: folders, one JSON document, exit codes, Ctrl-C and going on (README.md 2)."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click.testing
import numpy as np
import pytest
from typer.testing import CliRunner

from edgora.cli import app

TRAIN = (
    "train",
    "baas",
    "--algo",
    "pair-q",
    "--set",
    "slots=200",
    "--set",
    "copies=20",
    "--set",
    "U=6",
    "--set",
    "M=3",
)
PAGE = (Path(__file__).parents[3] / "docs" / "allocators" / "baas.md").read_text()


def edgora(*arguments: object) -> click.testing.Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def test_train_and_evaluate(tmp_path: Path) -> None:
    out, trace = tmp_path / "run", tmp_path / "trace.npz"
    trained = edgora(*TRAIN, "--out", out, "--seed", 3, "--json")
    assert trained.exit_code == 0, trained.output
    told = json.loads(trained.stdout)
    assert (told["finished"], told["seed"], told["policy"]) == (True, 3, str(out / "policy.npz"))
    assert sorted(file.name for file in out.iterdir()) == ["checkpoint.npz", "log.jsonl", "policy.npz"]
    small = ("--set", "U=6", "--set", "M=3", "--set", "slots=20")
    played = edgora(
        "evaluate", "baas", "--policy", out / "policy.npz", "--seeds", "5..8", *small, "--trace", trace, "--json"
    )
    assert played.exit_code == 0, played.output
    found = json.loads(played.stdout)
    assert (found["policy"], found["seeds"], found["slots"]) == ("pair-q", [5, 8], 20)
    assert found["score"]["low"] < found["score"]["mean"] < found["score"]["high"]
    with np.load(trace) as file:
        assert file["assign"].shape == (80, 3)
    text = edgora("evaluate", "baas", "--policy", "priced", "--seeds", "5", *small)
    assert text.exit_code == 0
    assert "utility" in text.stdout
    assert edgora(*TRAIN, "--out", out, "--seed", 3).stdout.startswith("pair-q: 200 slots")


def test_the_pages_policy_runs_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [policy] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    [command] = re.findall(r"^edgora (evaluate .*heaviest:Heaviest.*)$", PAGE, re.MULTILINE)
    Path("heaviest.py").write_text(policy)
    played = edgora(*command.split(), "--set", "slots=5", "--json")
    assert played.exit_code == 0, played.output
    found = json.loads(played.stdout)
    assert found["metrics"]["served"]["mean"] == 10
    assert found["score"]["mean"] > 0.3
    assert edgora("draw", "baas", "--set", "slots=3", "--out", "slots.json").exit_code == 0
    solve = ("solve", "baas", "--solver", "heaviest:Heaviest", "--instance", "slots.json", "--out", "plan.json")
    assert edgora(*solve).exit_code == 0
    assert edgora("score", "baas", "--instance", "slots.json", "--solution", "plan.json").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("train", "baas", "--algo", "pair-q", "--out", "{dir}/a", "--set", "u=3"), 2, "u"),
        (("train", "baas", "--algo", "ppo", "--out", "{dir}/a"), 2, "--algo"),
        (("train", "mta", "--algo", "ddqn", "--out", "{dir}/a"), 2, "problem"),
        (("train", "chess", "--algo", "ddqn", "--out", "{dir}/a"), 2, "problem"),
        (("train", "baas", "--algo", "pair-q", "--out", "{dir}/file"), 2, "--out"),
        (("train", "baas", "--algo", "pair-q", "--out", "{dir}/a", "--set", "slots=0"), 2, "slots"),
        (("train", "baas", "--algo", "pair-q", "--out", "{dir}/a", "--set", "obs=paper"), 2, "obs"),
        (("evaluate", "baas", "--policy", "nobody", "--seeds", "1"), 2, "--policy"),
        (("evaluate", "baas", "--policy", "{dir}/none.npz", "--seeds", "1"), 2, "policy"),
        (("evaluate", "baas", "--policy", "{dir}/file", "--seeds", "1"), 2, "policy"),
        (("evaluate", "baas", "--policy", "no.such:thing", "--seeds", "1"), 2, "solver"),
        (("evaluate", "baas", "--policy", "exact", "--seeds", "x"), 2, "--seeds"),
        (("evaluate", "baas", "--policy", "exact", "--seeds", "5..1"), 2, "--seeds"),
        (("evaluate", "baas", "--policy", "exact", "--seeds", "0..9999999"), 2, "--seeds"),
        (("evaluate", "baas", "--policy", "exact", "--seeds", "1", "--set", "k_T=x"), 2, "k_T"),
        (("evaluate", "baas", "--policy", "exact", "--seeds", "1", "--set", "slots=2", "--trace", "{dir}/no/t.npz"), 2, "--trace"),
        # Before any work: before the policy is imported, before the instance is read.
        (("evaluate", "privacy", "--policy", "no.such:thing", "--seeds", "1", "--trace", "{dir}/no/t.npz"), 2, "--trace"),
        (("evaluate", "privacy", "--policy", "no.such:thing", "--seeds", "1", "--trace", "{dir}"), 2, "--trace"),
        (("solve", "baas", "--solver", "exact", "--instance", "{dir}/no", "--out", "{dir}/o", "--trace", "{dir}/no/t.npz"), 2, "--trace"),
        (("evaluate", "baas", "--policy", "exact"), 2, "--seeds"),
    ],
    ids=lambda value: " ".join(value[:6]) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_bad_input_exits_2_and_names_it(tmp_path: Path, arguments: tuple[str, ...], code: int, named: str) -> None:
    (tmp_path / "file").write_text("x")
    ended = edgora(*(argument.replace("{dir}", str(tmp_path)) for argument in arguments), "--json")
    assert ended.exit_code == code, ended.output
    if ended.stdout:
        assert json.loads(ended.stdout)["error"]["field"] == named
    else:
        assert named in ended.output


def test_ctrl_c_leaves_a_checkpoint_and_the_command_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-c",
        "from edgora.cli import main; main()",
        *TRAIN[:4],
        "--out",
        str(out),
        "--set",
        "slots=400000",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        log = out / "log.jsonl"
        deadline = time.monotonic() + 120
        while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)  # the file of another process
        running.send_signal(signal.SIGINT)
        stdout, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    told = json.loads(stdout)
    assert (told["finished"], told["policy"]) == (False, None)
    assert 0 < told["slots"] < 400_000
    assert (out / "checkpoint.npz").exists()
    refused = edgora("train", "baas", "--algo", "pair-q", "--out", out, "--set", "slots=300", "--json")
    assert refused.exit_code == 2
    assert "slots" in json.loads(refused.stdout)["error"]["detail"]
