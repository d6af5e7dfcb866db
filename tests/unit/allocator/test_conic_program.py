import cvxpy as cp
import numpy as np
import pytest

from edgora.allocator.conic import program
from edgora.allocator.conic.program import Program, ProgramFailed, ProgramInfeasible, ProgramUnbounded
from edgora.wire.errors import EdgoraError, Refused


def entropy() -> Program:
    """Exponential cones, a linear row and a PSD block; two parameters; a maximum with a constant offset."""
    x = cp.Variable(3, name="x")
    s = cp.Variable((2, 2), name="s")
    c = cp.Parameter(3, name="c")
    room = cp.Parameter(name="room", nonneg=True)
    rows = [cp.sum(x) <= room, s >> 0, s[0, 1] == s[1, 0], s[0, 0] == 1, s[1, 1] == 2, s[0, 1] >= x[0]]
    return Program(cp.Problem(cp.Maximize(c @ x + cp.sum(cp.log(x)) + 7), rows))


def quadratic() -> Program:
    x = cp.Variable(2, name="x")
    at = cp.Parameter(2, name="at")
    return Program(cp.Problem(cp.Minimize(cp.sum_squares(x - at)), [x >= 0, cp.sum(x) == 1]))


@pytest.mark.parametrize("solver", ["clarabel", "scs"])
@pytest.mark.parametrize("make", [entropy, quadratic])
def test_a_solve_equals_cvxpys_own(solver, make):
    ours, theirs = make(), make().problem
    rng = np.random.default_rng(3)
    for _ in range(4):
        values = {p.name(): rng.uniform(0.5, 2.0, p.shape) for p in theirs.parameters()}
        for p in theirs.parameters():
            p.value = values[p.name()]
        expected = theirs.solve(solver="CLARABEL")
        solved = ours.solve(solver, tolerance=1e-8, **values)
        assert solved.status == "solved"
        assert solved.value == pytest.approx(expected, rel=1e-6, abs=1e-6)
        for variable in theirs.variables():
            # the PSD block is not unique, and is not needed here
            if variable.name() == "x":
                assert solved.values["x"] == pytest.approx(variable.value, abs=1e-4)


def test_a_program_is_compiled_once_for_each_solver():
    ours = entropy()
    for k in range(5):
        ours.solve(c=[1.0, 2.0, 3.0 + k], room=1.0)
    assert ours.compilations == 1
    ours.solve("scs")
    ours.solve("scs", c=[0.0, 0.0, 0.0])  # entries that become zero do not change the form
    ours.solve("clarabel")
    assert ours.compilations == 2


def test_parameters_not_named_keep_their_value():
    ours = quadratic()
    first = ours.solve(at=[0.2, 0.4])
    assert ours.solve().value == first.value


def test_a_solve_repeats_digit_for_digit_whatever_was_solved_between():
    ours = entropy()
    first = ours.solve(c=[1.0, 2.0, 3.0], room=1.0)
    ours.solve(c=[9.0, 2.0, 3.0], room=0.1)
    again = ours.solve(c=[1.0, 2.0, 3.0], room=1.0)
    assert again.value == first.value
    assert np.array_equal(again.values["x"], first.values["x"])


def test_what_a_solve_tells():
    solved = entropy().solve(trace=True, c=[1.0, 2.0, 3.0], room=1.0)
    assert solved.iterations > 0
    assert solved.primal_residual < 1e-6
    assert solved.dual_residual < 1e-6
    assert len(solved.steps) == solved.iterations + 1
    assert solved.steps[-1].primal == pytest.approx(solved.value)
    assert set(solved.record()) == {
        "solver", "status", "value", "iterations", "primal_residual", "dual_residual", "cpu_s", "attempts",
    }  # fmt: skip
    by_scs = entropy().solve("scs", c=[1.0, 2.0, 3.0], room=1.0)
    assert by_scs.iterations > 0
    assert by_scs.primal_residual < 1e-3


@pytest.mark.parametrize("solver", ["clarabel", "scs"])
def test_no_answer_is_a_typed_error(solver):
    x = cp.Variable(name="x")
    low = cp.Parameter(name="low")
    high = cp.Parameter(name="high")
    slope = cp.Parameter(name="slope")
    bounded = Program(cp.Problem(cp.Minimize(slope * x), [x >= low, x <= high]))
    with pytest.raises(ProgramInfeasible) as infeasible:
        bounded.solve(solver, low=1.0, high=0.0, slope=1.0)
    assert infeasible.value.solver_status == "infeasible"
    assert infeasible.value.solver == solver
    half = Program(cp.Problem(cp.Minimize(slope * x), [x >= low]))
    with pytest.raises(ProgramUnbounded) as unbounded:
        half.solve(solver, low=0.0, slope=-1.0)
    assert unbounded.value.solver_status == "unbounded"
    with pytest.raises(ProgramFailed) as cut:
        entropy().solve(solver, max_iter=3 if solver == "clarabel" else 30, c=[1.0, 2.0, 3.0], room=1.0)
    assert "limit" in cut.value.solver_status
    for error in (infeasible, unbounded, cut):
        assert isinstance(error.value, EdgoraError)


def test_reduced_accuracy_is_visible():
    # Farther than doubles reach: Clarabel then keeps to its reduced tolerances and says so.
    solved = entropy().solve(tolerance=1e-17, c=[1.0, 2.0, 3.0], room=1.0)
    assert solved.status == "almost solved"
    assert solved.value == pytest.approx(entropy().solve(c=[1.0, 2.0, 3.0], room=1.0).value, abs=1e-3)


def test_a_solver_that_is_not_there_is_refused_by_name(monkeypatch):
    with pytest.raises(Refused, match="no convex solver 'gurobi'"):
        entropy().solve("gurobi", c=[1.0, 2.0, 3.0], room=1.0)
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Refused, match="mosek is not installed") as refused:
        entropy().solve("mosek", c=[1.0, 2.0, 3.0], room=1.0)
    assert refused.value.field == "solver"


def test_programs_that_would_be_compiled_each_time_are_refused():
    x = cp.Variable(2, name="x")
    p = cp.Parameter(2, name="p", nonneg=True)
    with pytest.raises(AssertionError, match="disciplined"):
        Program(cp.Problem(cp.Minimize(cp.sum(cp.multiply(cp.square(p), cp.square(x))))))
    with pytest.raises(AssertionError, match="attribute"):
        Program(cp.Problem(cp.Minimize(cp.sum(cp.Variable(2, nonneg=True, name="y")))))
