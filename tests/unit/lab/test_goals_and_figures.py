"""The frame of the allocators' goals and of the papers' figures: names, verdicts, files, the page made from them."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from edgora.cli import app
from edgora.lab.goals import Measured, run_goals
from edgora.lab.goals.growth import Point, _exponent, measure_growth
from edgora.lab.reproduce import ITEMS, Printed, Reproduction, Setting, items, reproduce
from edgora.lab.reproduce.item import Document
from edgora.lab.reproduce.page import page
from edgora.wire.errors import NotFound


def figure(value: float, sense: str = "<=", limit: float = 1.0) -> Measured:
    return Measured(problem="mta", goal="15", what="a figure", value=value, unit="s", sense=sense, limit=limit)


@pytest.mark.parametrize(
    ("value", "sense", "holds"),
    [(1.0, "<=", True), (1.1, "<=", False), (1.0, ">=", True), (0.9, ">=", False), (float("nan"), "<=", False)],
)
def test_a_figure_holds_or_it_does_not(value: float, sense: str, holds: bool) -> None:
    assert figure(value, sense).holds is holds


def test_goals_count_what_is_reached_and_say_each_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(measure=lambda note: iter([figure(0.5), figure(2.0)]))
    monkeypatch.setitem(sys.modules, "edgora.lab.goals.mta", fake)
    said: list[str] = []
    found = run_goals(["mta"], said.append)
    assert (found.reached, len(found.figures)) == (1, 2)
    assert [line.endswith("NOT reached") for line in said] == [False, True]


def test_an_unknown_problem_is_refused_by_name() -> None:
    with pytest.raises(NotFound, match="no allocation problem 'mtb'"):
        run_goals(["mtb"], print)


def test_names_of_items_stand_for_what_they_say() -> None:
    every = items("all")
    assert every == [f"{paper}.{name}" for paper, names in ITEMS.items() for name in names]
    assert items("mta") == items("mta.all") == ["mta.fig2", "mta.fig3", "mta.fig4"]
    assert items("tcr.table2") == ["tcr.table2"]
    for wrong in ("mta.fig9", "fig2", "", "mta.", "mta.fig"):
        with pytest.raises(NotFound):
            items(wrong)


@pytest.mark.parametrize("item", items("all"))
def test_every_item_that_is_named_is_there(item: str) -> None:
    import importlib

    paper, _, name = item.partition(".")
    assert callable(getattr(importlib.import_module(f"edgora.lab.reproduce.{paper}"), name))


def made(setting: Setting, note) -> Reproduction:
    note("one line")
    drawn = Figure()
    drawn.subplots().plot([1, 2], [3, 4])
    return Reproduction(
        title="A figure", how="Seeds 0..1.", columns=("x", "method", "y"), rows=[(1, "a,b", 0.1), (2, "c", None)],
        paragraph="It holds.", figure=drawn, printed=[Printed("at x = 1", "0.1", "0.1")],
    )  # fmt: skip


@pytest.fixture
def one_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "edgora.lab.reproduce.mta", SimpleNamespace(fig2=made))


@pytest.mark.usefixtures("one_item")
def test_an_item_leaves_four_files_and_the_page_is_made_of_them(tmp_path: Path) -> None:
    document = reproduce("mta.fig2", tmp_path / "new", Setting(quick=True), lambda _: None)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(document.files)
    rows = list(csv.reader((tmp_path / "new" / "mta.fig2.csv").open()))
    assert rows == [["x", "method", "y"], ["1", "a,b", "0.1"], ["2", "c", ""]]
    assert (tmp_path / "new" / "mta.fig2.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "new" / "mta.fig2.svg").read_text()
    read = msgspec.json.decode((tmp_path / "new" / "mta.fig2.json").read_bytes(), type=Document)
    assert read == document
    assert read.quick
    text = page(tmp_path / "new")
    assert "## mta.fig2: A figure" in text
    assert "It holds." in text
    assert "| at x = 1 | 0.1 | 0.1 |" in text
    assert "Not among the committed results: mta.fig3, " in text


@pytest.mark.usefixtures("one_item")
def test_the_command_writes_and_tells(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["reproduce", "mta.fig2", "--quick", "--out", str(tmp_path), "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["items"][0]["paragraph"] == "It holds."
    assert CliRunner().invoke(app, ["reproduce", "nothing", "--out", str(tmp_path)]).exit_code == 2
    blocked = tmp_path / "file"
    blocked.write_text("")
    told = CliRunner().invoke(app, ["reproduce", "mta.fig2", "--out", str(blocked)])
    assert told.exit_code == 2
    assert "--out" in told.stderr


def test_a_growth_exponent_is_the_slope_of_the_logarithms() -> None:
    assert _exponent([Point(n, 2, 0.01 * (2 * n) ** 1.5) for n in (10, 20, 80)]) == 1.5
    assert _exponent([Point(10, 2, 0.001), Point(20, 2, 0.002)]) is None, "overhead says nothing about growth"


def test_growth_times_every_solver_and_says_why_a_curve_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgora.lab.goals import growth

    small = growth._CASES["mta"]._replace(sizes=((5, 2), (8, 3)), limited={"priced": 0.05, "exact": 1.0})
    monkeypatch.setattr(growth, "_CASES", {"mta": small})
    curves = {curve.solver: curve for curve in measure_growth(["mta"], lambda _: None)}
    assert {"greedy", "greedy-global", "random", "exact"} <= set(curves)
    assert [(p.users, p.servers) for p in curves["greedy"].points] == [(5, 2), (8, 3)]
    monkeypatch.setattr(growth, "CAP_S", 0.0)
    curves = {curve.solver: curve for curve in measure_growth(["mta"], lambda _: None)}
    assert len(curves["greedy"].points) == 1
    assert "5 x 2 took" in curves["greedy"].ended
