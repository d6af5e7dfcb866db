"""What the TCR figures are made of; the items themselves run in CI with --quick."""

import numpy as np
import pytest

from edgora.lab.reproduce.item import Setting
from edgora.lab.reproduce.tcr import fig3, methods, sweeps
from edgora.lab.reproduce.tcr.convergence import Convergence, Step
from edgora.lab.reproduce.tcr.table2 import PAPER, exponent


def said(_line: str) -> None:
    """A silent note."""


def test_intervals_are_students():
    found = methods.spread([1.0, 2.0, 3.0, 4.0])
    assert found.mean == 2.5
    # t(0.975, 3) = 3.182446, s = 1.290994
    assert found.half == pytest.approx(3.182446 * 1.290994 / 2.0, rel=1e-6)
    assert methods.spread([7.0]).half == 0.0


def test_a_growth_exponent_is_the_slope_in_logarithms():
    times = {(10, 2): 2.0 * 10**1.5, (20, 3): 2.0 * 20**1.5, (30, 4): 2.0 * 30**1.5}
    assert exponent(times) == pytest.approx(1.5)
    assert exponent(PAPER) == pytest.approx(5.4, abs=0.1)


def test_a_run_is_valued_by_the_model():
    e = methods.instance(0, (("N", 6), ("M", 2)))
    made = methods.run("gucaa", e)
    terms = e.model.terms(made.plan)
    assert (made.tcr, made.T, made.E, made.cost) == (terms.tcr, terms.T, terms.E, terms.C)
    assert made.tcr == pytest.approx(0.5449099471532, rel=1e-12)
    assert sweeps.repriced(made) == pytest.approx(made.tcr)  # its weights are (0.5, 0.5) already


def test_runs_of_shared_points_are_made_once():
    methods.warm()
    first = methods.compare(0, (("N", 3), ("M", 2)))
    assert methods.compare(0, (("N", 3), ("M", 2))) is first
    assert set(first) == set(methods.METHODS)
    best_baseline = max(first[name].tcr for name in methods.METHODS if name != "priced")
    assert first["priced"].tcr >= best_baseline * (1 - 1e-6)
    lines = list(methods.rows("fig6", "delegate", "3x2", 0, first, 9.0))
    assert all(len(line) == len(methods.COLUMNS) for line in lines)
    assert [line[10] for line in lines if line[3] == "priced"] == [9.0]


def test_convergence_is_read_off_the_steps():
    steps = [Step(v, v + 1, 0.0, 0.0) for v in (50.0, 20.0, 10.2, 10.05, 10.0)]
    found = Convergence(steps, [1.0, 2.0, 2.5, 2.5001, 2.5001])
    assert found.settled == 3
    assert found.stops == 4
    assert Convergence(steps, [1.0, 2.0, 3.0]).stops is None


@pytest.mark.slow
def test_the_map_shows_every_user_and_server():
    made = fig3(Setting(quick=True), said)
    assert len(made.rows) == 23
    assert all(len(row) == len(made.columns) for row in made.rows)
    users = [row for row in made.rows if row[1] == "user"]
    assert np.array(users)[:, 5].astype(int).max() <= 2


@pytest.mark.slow
def test_a_quick_sweep_has_every_method_at_every_point():
    made = sweeps.fig9(Setting(quick=True), said)
    points = {(row[2], row[3]) for row in made.rows}
    assert points == {(w, name) for w in (0.1, 0.5, 0.9) for name in methods.METHODS}
    assert "energy" in made.paragraph
