"""docs/allocators.md names exactly the solvers that the registry has."""

import re
from pathlib import Path

import pytest

from edgora.allocator import registry

PAGE = (Path(__file__).parents[3] / "docs" / "allocators.md").read_text()


@pytest.mark.parametrize("problem", registry.PROBLEMS)
def test_the_table_has_every_solver_by_its_name(problem: str) -> None:
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| [{problem}](")]
    named = set(re.findall(r"`([\w-]+)`", row.split("|", 3)[3]))
    assert named == set(registry.problem(problem).solvers)
