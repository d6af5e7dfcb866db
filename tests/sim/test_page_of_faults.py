"""docs/faults.md, "In a simulation": its commands are executed as they stand, but for fewer seeds of those that take long."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgora.cli import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text()


def commands() -> list[list[str]]:
    marked = re.search(r"<!-- executed by tests/sim/test_page_of_faults.py -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
    assert marked is not None
    return [shlex.split(line, comments=True) for line in marked[1].splitlines()]


def fewer(word: str) -> str:
    """The first two of a range: what the page runs for minutes is run for seconds."""
    return "0..1" if re.fullmatch(r"0\.\.\d+", word) else word


def test_the_simulations_of_the_page() -> None:
    ran = [words for program, *words in commands() if program == "edgora"]
    assert [words[:2] for words in ran] == [["sim", "--seeds"], ["sim", "--scenarios"], ["sim", "--seeds"]]
    for words in ran:
        done = CliRunner().invoke(app, [fewer(word) for word in words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        if "--json" in words:
            assert json.loads(done.stdout)["failures"] == []
        else:
            assert "0 forks, 0 lost commits, 0 stuck" in done.stdout


@pytest.mark.slow
def test_the_mutants_of_the_page() -> None:
    (words,) = [words for program, *words in commands() if program == "python"]
    done = subprocess.run(
        [sys.executable, *words, "--jobs", "1"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 with a finding" in done.stdout
