"""docs/allocators/own_policy.md is executed as it stands: its policies solve files and act on the live platform."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "allocators" / "own_policy.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files."""
    made = tmp_path_factory.mktemp("own")
    [policies], [scenario] = blocks("python"), blocks("toml")
    (made / "my_policies.py").write_text(policies)
    (made / "mine.toml").write_text(scenario)
    return made


def run(folder: Path, command: str) -> str:
    verb, *arguments = command.split()
    assert verb == "edgora"
    # -P keeps the working directory out of the path, as an installed `edgora` does: the CLI must put it there itself.
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from edgora.cli import main; main()", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=280, check=False, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_example_is_as_short_as_it_says() -> None:
    [policies] = blocks("python")
    code = [line for line in policies.splitlines() if line.strip() and not line.strip().startswith(('"""', "#"))]
    assert len(code) <= 20


def test_on_instances(folder: Path) -> None:
    commands = blocks("sh")[0].strip().splitlines()
    for command in commands:
        run(folder, command)
    for problem, policy in (("mta", "my_policies:LeastChoice"), ("tcr", "my_policies:Strongest")):
        solved = msgspec.json.decode((folder / f"{problem}-solved.json").read_bytes())
        assert solved["solver"] == policy
        assert solved["objective"] > 0


def test_on_the_live_platform(folder: Path) -> None:
    report: dict[str, Any] = msgspec.json.decode(run(folder, blocks("sh")[1].strip()))
    assert (report["good"], report["settled"]) == (True, 6)
    assert {wave["policy"] for wave in report["waves"]} == {"tcr:my_policies:Strongest"}
    assert [wave["why"] for wave in report["waves"]] == [""] * len(report["waves"])
    assert all(0 < plan["phi"] <= 1 and plan["speed"] > 0 for plan in report["plans"])
    won = [row for row in report["rounds"] if row["winner"] == "my_policies:LeastChoice"]
    assert won, [row["why"] for row in report["rounds"]]
    assert all("prefers its policy" in row["why"] for row in won)
