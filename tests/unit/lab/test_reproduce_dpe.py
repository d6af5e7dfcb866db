"""The DPE figures: what stands in their rows is what the solvers say, and the words follow from the rows."""

import importlib

import numpy as np
import pytest

from edgora.allocator import solve
from edgora.allocator.dpe import draw
from edgora.lab.reproduce import Setting
from edgora.lab.reproduce.dpe import fig4, fig5, fig6
from edgora.lab.reproduce.dpe.comparison import Curve, mean_curve
from edgora.lab.reproduce.dpe.methods import COLUMNS, METHODS, PAPER, spread

QUICK = Setting(quick=True)


def silent(_):
    pass


def test_a_spread_is_students_interval():
    made = spread([1.0, 2.0, 3.0, 4.0])
    assert made.mean == 2.5
    assert made.half == pytest.approx(3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2, rel=1e-6)
    assert (made.low, made.high) == (1.0, 4.0)
    assert spread([5.0]).half == 0.0


def test_a_network_that_ended_earlier_stays_where_it_was():
    curve = mean_curve([Curve([1.0, 2.0], [0.1, 0.2]), Curve([3.0], [0.3])])
    assert curve.dpe == [2.0, 2.5]
    assert curve.cpu_s == pytest.approx([0.2, 0.25])


def test_the_chain_names_code_that_exists():
    made = fig4(QUICK, silent)
    for *_, names in made.rows:
        for name in names.split():
            parts = name.split(".")
            module = importlib.import_module("edgora.allocator." + ".".join(parts[:2]))
            found = module
            for part in parts[2:]:
                found = getattr(found, part)
            assert callable(found)


def test_the_methods_of_fig5_are_the_solvers_own_values():
    made = fig5(QUICK, silent)
    assert made.columns == COLUMNS
    rows = {(seed, method): value for item, _, method, seed, value, *_ in made.rows if item == "fig5c"}
    assert len(rows) == 2 * len(METHODS)
    for seed in range(2):
        instance = draw(seed)
        for method in METHODS:
            solver = "exact" if method == "optimum" else method
            assert rows[seed, method] == pytest.approx(solve("dpe", solver, instance).objective, rel=1e-9)
        assert rows[seed, "daur"] <= rows[seed, "optimum"] * (1 + 1e-9)
    assert [float(line.paper) for line in made.printed[:5]] == list(PAPER.values())
    for part in ("fig5a", "fig5b"):
        trace = [value for item, *_, value, _, _ in made.rows if item == part]
        assert abs(trace[-1] - trace[-2]) < 1e-4 * abs(trace[-1])


def test_the_curves_of_fig6_rise_with_every_resource_solve():
    made = fig6(QUICK, silent)
    for method in ("daur", "gucro"):
        for seed in range(2):
            curve = [(x, value, cpu_s) for _, x, name, s, value, _, cpu_s in made.rows if (name, s) == (method, seed)]
            assert [x for x, *_ in curve] == list(range(1, len(curve) + 1))
            assert (np.diff([value for _, value, _ in curve]) >= -1e-6).all()
            assert (np.diff([cpu_s for *_, cpu_s in curve]) > 0).all()
