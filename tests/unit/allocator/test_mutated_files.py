"""A thousand damaged instance and solution files through the command line: refused by field, never a traceback."""

import json
from collections import Counter
from pathlib import Path

import click.testing
import pytest
from typer.testing import CliRunner

from damage import mutations
from edgora.cli import app

CHEAP = {
    "mta": ("greedy", ["n=3", "m=5"]),
    "tcr": ("gucaa", ["N=4", "M=2"]),
    "dpe": ("gucaa", ["N=4", "M=2"]),
    "baas": ("greedy", ["U=4", "M=2"]),
}
INSTANCES, SOLUTIONS = 150, 105
"""Of each problem: 1,020 files in all."""


def edgora(*arguments: object) -> click.testing.Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("problem", CHEAP)
def test_damaged_files_are_refused_by_field_or_read(problem: str, tmp_path: Path) -> None:
    solver, settings = CHEAP[problem]
    instance, solution, damaged, out = (tmp_path / name for name in ("instance", "solution", "damaged", "out"))
    options = [part for setting in settings for part in ("--set", setting)]
    assert edgora("draw", problem, "--seed", 3, *options, "--out", instance).exit_code == 0
    solve = ("solve", problem, "--solver", solver, "--out", out, "--json", "--instance")
    assert edgora(*solve, instance).exit_code == 0
    solution.write_bytes(out.read_bytes())
    score = ("score", problem, "--instance", instance, "--json", "--solution")
    assert edgora(*score, solution).exit_code == 0

    ends: Counter[tuple[str, int]] = Counter()
    for verb, whole, count in ((solve, instance, INSTANCES), (score, solution, SOLUTIONS)):
        for data in mutations(count, 11, json.loads(whole.read_bytes())):
            damaged.write_bytes(data)
            ended = edgora(*verb, damaged)
            assert ended.exception is None or isinstance(ended.exception, SystemExit), (data, ended.exception)
            assert "Traceback" not in ended.output
            ends[verb[0], ended.exit_code] += 1
            if ended.exit_code == 2:
                error = json.loads(ended.stdout)["error"]
                assert error["field"], data
                assert error["detail"].isprintable()
    assert set(ends) <= {("solve", 0), ("solve", 2), ("score", 0), ("score", 1), ("score", 2)}
    assert ends["solve", 2] > INSTANCES // 2
    assert ends["score", 2] > SOLUTIONS // 3
