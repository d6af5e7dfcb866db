"""RUCAA, GUCAA and GUCRO: the figures of dpe.md 7 and 11, and what holds for any instance."""

import dataclasses

import numpy as np
import pytest

from edgora.allocator import solve
from edgora.allocator.dpe import Instance, draw
from edgora.allocator.dpe.baselines import Gucaa, Gucro, Rucaa
from edgora.allocator.search import Search
from edgora.wire.errors import Refused

GENERATED = [
    (0, {"N": 8, "M": 2}, 65.84942681, 66.93167523, 70.93187430),
    (1, {"N": 10, "M": 2}, 83.06359512, 82.27008696, 86.85712416),
    (2, {"N": 8, "M": 3, "c_mixed": True}, 30.95550218, 29.63510459, 31.58581598),
]


@pytest.mark.parametrize(("seed", "settings", "rucaa", "gucaa", "gucro"), GENERATED)
def test_the_generated_vectors(seed, settings, rucaa, gucaa, gucro):
    instance = draw(seed, settings)
    for solver, expected in (("rucaa", rucaa), ("gucaa", gucaa), ("gucro", gucro)):
        solution = solve("dpe", solver, instance)
        assert solution.objective == pytest.approx(expected, rel=1e-8), solver
        assert solution.bound is None


def test_the_means_over_twenty_networks():
    models = [draw(seed).model for seed in range(20)]
    means = [
        np.mean([model.dpe(solver.solve(model, Search()).plan) for model in models])
        for solver in (Rucaa(), Gucaa(), Gucro())
    ]
    assert [round(float(mean), 2) for mean in means] == [81.22, 82.15, 86.70]


def test_average_resources_are_average():
    model = draw(3, {"N": 7, "M": 3}).model
    for solver in (Rucaa(), Gucaa()):
        plan = solver.solve(model, Search()).plan
        e, m = model.instance, plan.assoc
        crowd = np.bincount(m, minlength=e.M)[m]
        assert plan.b == pytest.approx(e.B[m] / crowd)
        assert plan.fs == pytest.approx(e.fs_max[m] / crowd)
        assert (plan.p == e.p_max).all()
        assert (plan.fu == e.fu_max).all()
        assert (plan.phi == 0.5).all()
        assert (plan.gamma == 0.5).all()


def test_greedy_crowds_differ_by_one_at_most_and_the_first_user_takes_the_best_gain():
    for seed in range(10):
        model = draw(seed, {"N": 11, "M": 4}).model
        assoc = Gucaa().solve(model, Search()).plan.assoc
        crowd = np.bincount(assoc, minlength=4)
        assert crowd.max() - crowd.min() <= 1
        assert assoc[0] == model.instance.gain[0].argmax()


def test_random_associations_follow_both_seeds():
    def drawn(instance: Instance, seed: int) -> list[int]:
        return Rucaa().solve(instance.model, Search(seed)).plan.assoc.tolist()

    one, unseeded = draw(4, {"N": 40}), dataclasses.replace(draw(0, {"N": 40}), seed=None)
    assert drawn(one, 1) == drawn(one, 1)
    assert drawn(one, 0) != drawn(one, 1)
    assert drawn(one, 0) != drawn(draw(5, {"N": 40}), 0)
    assert drawn(unseeded, 0) == drawn(draw(0, {"N": 40}), 0)


@pytest.mark.parametrize("settings", [{"phi_min": 0.7}, {"phi_max": 0.3}])
def test_half_moves_into_the_range_of_phi(settings):
    for solver in ("rucaa", "gucaa", "gucro"):
        assert solve("dpe", solver, draw(0, settings)).objective is not None


def test_the_resource_program_comes_close_to_the_optimum_and_never_above():
    for seed in range(4):
        model = draw(seed, {"N": 12, "M": 3}).model
        best = model.dpe(Gucro().solve(model, Search()).plan)
        found = Gucro(resources="fp").solve(model, Search())
        value = model.dpe(found.plan)
        assert model.audit(found.plan).feasible
        assert 0.995 * best <= value <= best * (1 + 1e-9)
        assert {"status", "iterations", "primal_residual", "dual_residual", "cpu_s"} <= found.info["solves"][0].keys()


def test_options_are_strict():
    for settings, field in (
        ({"resources": "average"}, "resources"),
        ({"solver": "sdpt3"}, "solver"),
        ({"x": 1}, "x"),
        ({"solver": "scs"}, "solver"),
    ):
        with pytest.raises(Refused) as refused:
            solve("dpe", "gucro", draw(0), settings=settings)
        assert refused.value.field == field
