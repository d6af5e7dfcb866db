"""A convex program: written once with named parameters, compiled once, solved many times.

Rule 1: no solve is ever worse than it says. Infeasible, unbounded and failed solves raise a typed error that carries
the solver's status; a solve that reached only its solver's reduced accuracy says `almost solved`.
Rule 2: no solver stands in for another. One that is not installed is refused by name.
Rule 3: a program is disciplined in its parameters (DPP), so that compiling it once is enough; `compilations` counts.

Theory of operation. cvxpy turns a DPP program into an affine map from its parameters to the data (P, q, A, b) of a
cone program

    minimise 1/2 x'Px + q'x  subject to  A x + s = b, s in a product of cones

That map is made once for each solver and then applied by one sparse product a matrix (`cone_data`); Clarabel gets the
data directly, which skips the milliseconds that `cvxpy.Problem.solve` takes around it and changes nothing in the
answer. Entries that happen to be zero are kept, so the pattern of the data never changes.

Clarabel is asked for one thread: results then repeat digit for digit, and CPU time is what a solve costs.
"""

import importlib.util
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import cvxpy as cp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgora.allocator.conic.cone_data import ConeData
from edgora.wire.errors import EdgoraError, Refused

__all__ = [
    "MOST_PAIRS", "SOLVERS", "Program", "ProgramError", "ProgramFailed", "ProgramInfeasible", "ProgramUnbounded", "Solved", "Solver",
    "Step", "compilable", "require",
]  # fmt: skip

Floats = NDArray[np.float64]

Solver = Literal["clarabel", "scs", "mosek"]
SOLVERS: tuple[Solver, ...] = ("clarabel", "scs", "mosek")

_MODULE: Mapping[str, str] = {"clarabel": "clarabel", "scs": "scs", "mosek": "mosek"}


MOST_PAIRS = 6_000
"""Most pairs of a user and a server that a program with a parameter for each is compiled for: at half of it compiling
takes 4 GB, and at 20,000 it does not end."""


class ProgramError(EdgoraError):
    """A solve that has no answer. `solver_status` is the solver's own word for it."""

    def __init__(self, detail: str, *, solver: str, solver_status: str) -> None:
        super().__init__(detail)
        self.solver, self.solver_status = solver, solver_status


class ProgramInfeasible(ProgramError):
    """No point meets the constraints."""

    code: ClassVar[str] = "program_infeasible"


class ProgramUnbounded(ProgramError):
    """The objective has no bound."""

    code: ClassVar[str] = "program_unbounded"


class ProgramFailed(ProgramError):
    """The solver gave up: its arithmetic, its iterations or its time ran out."""

    code: ClassVar[str] = "program_failed"


@dataclass(frozen=True, slots=True)
class Step:
    """One interior-point iteration, in the program's own sense of objective."""

    primal: float
    dual: float
    primal_residual: float
    dual_residual: float


@dataclass(frozen=True, slots=True)
class Solved:
    """What a solve found and how."""

    solver: str
    status: str
    """`solved`, or `almost solved`: within the solver's reduced tolerances only."""
    value: float
    """Objective of the program as written: the maximum of a maximisation."""
    values: Mapping[str, Floats]
    """The point, by variable name."""
    iterations: int
    primal_residual: float | None
    """Relative residual of the constraints; None where the solver does not tell."""
    dual_residual: float | None
    cpu_s: float
    """Process CPU seconds of this solve, compilation included where it came first."""
    attempts: int = 1
    """How often the solver was asked: a careful program is asked again where its arithmetic stalled."""
    steps: Sequence[Step] = field(default=(), repr=False)
    """The solver's iterations; only Clarabel tells them, and only when asked to trace."""

    def record(self) -> dict[str, object]:
        """What goes into a solution's `info`."""
        return {
            "solver": self.solver,
            "status": self.status,
            "value": self.value,
            "iterations": self.iterations,
            "primal_residual": self.primal_residual,
            "dual_residual": self.dual_residual,
            "cpu_s": self.cpu_s,
            "attempts": self.attempts,
        }


@dataclass(frozen=True, slots=True)
class _Point:
    """A solver's answer in the cone program's own variables and sense."""

    status: str
    x: Floats
    value: float
    iterations: int
    primal_residual: float | None
    dual_residual: float | None
    steps: Sequence[tuple[float, float, float, float]] = ()
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class _Limits:
    max_iter: int | None
    tolerance: float | None
    time_limit_s: float | None
    trace: bool
    careful: bool
    refined: bool


@dataclass(frozen=True, slots=True)
class _Compiled:
    """The map from parameters to cone data, and what does not change between solves."""

    solver: Any
    """cvxpy's interface of the solver."""
    data: ConeData
    columns: int
    """Of the cone program."""
    dims: Any
    cones: Any
    """The cones in Clarabel's own objects; None for another solver."""
    place: Mapping[str, tuple[int, tuple[int, ...]]]
    """First column and shape of each variable."""


class Program:
    """A cvxpy problem with named parameters and variables.

    Variables must be plain (no attribute such as `nonneg` or `symmetric`: write the constraint), so that the cone
    program's columns are the variables themselves.

    `careful` is for a program of many exponential cones whose variables are all near 1 already: Clarabel then takes
    the data as they are, since its own scaling loses digits in such cones, and goes at most nine tenths of the way to
    the cones' boundary, where longer steps now and then stall. Where it stalls all the same it is asked again with
    other steps, and `attempts` says how often.

    `refined` is iterative refinement of Clarabel's linear systems. Where PSD blocks make them dense it takes up to half
    of the time, and at tolerances above 1e-8 it buys nothing.
    """

    def __init__(self, problem: cp.Problem, *, careful: bool = False, refined: bool = True) -> None:
        assert problem.is_dpp(), "the program is not disciplined in its parameters"
        for variable in problem.variables():
            assert not any(variable.attributes.values()), f"variable {variable.name()} has an attribute"
        self.problem: Any = problem  # cvxpy is partly typed
        self.compilations = 0
        self._careful, self._refined = careful, refined
        self._parameters = {parameter.name(): parameter for parameter in problem.parameters()}
        self._names = [variable.name() for variable in problem.variables()]
        assert len(set(self._names)) == len(self._names), "two variables share a name"
        assert len(self._parameters) == len(problem.parameters()), "two parameters share a name"
        self._compiled: dict[str, _Compiled] = {}
        self._given: dict[str, ArrayLike] = {}
        self._latest: _Compiled | None = None
        self._sign = -1.0 if isinstance(problem.objective, cp.Maximize) else 1.0

    def solve(
        self,
        solver: Solver = "clarabel",
        max_iter: int | None = None,
        *,
        tolerance: float | None = None,
        time_limit_s: float | None = None,
        trace: bool = False,
        **values: ArrayLike,
    ) -> Solved:
        """Solve at these parameter values; parameters not named keep their last value.

        tolerance, max_iter and time_limit_s are the solver's own defaults where None. Raises ProgramInfeasible,
        ProgramUnbounded, ProgramFailed, and Refused for a solver that is unknown or not installed.
        """
        require(solver)
        began = time.process_time()
        self._given |= values
        missing = self._parameters.keys() - self._given.keys()
        assert not missing, f"parameters without a value: {', '.join(sorted(missing))}"
        limits = _Limits(max_iter, tolerance, time_limit_s, trace, self._careful, self._refined)
        compiled = self._compile(solver)
        compiled.data.set(values if compiled is self._latest else self._given)
        self._latest = compiled
        point = self._mosek(limits) if solver == "mosek" else _RUN[solver](compiled, limits)
        found = {
            name: point.x[first : first + int(np.prod(shape, dtype=np.int64))].reshape(shape, order="F")
            for name, (first, shape) in compiled.place.items()
        }
        return Solved(
            solver=solver,
            status=point.status,
            value=self._sign * point.value,
            values=found,
            iterations=point.iterations,
            primal_residual=point.primal_residual,
            dual_residual=point.dual_residual,
            cpu_s=time.process_time() - began,
            attempts=point.attempts,
            steps=[Step(self._sign * p, self._sign * d, rp, rd) for p, d, rp, rd in point.steps],
        )

    def compile(self, solver: Solver = "clarabel") -> None:
        """Compile for this solver now, so that no solve pays for it. Raises Refused."""
        require(solver)
        self._compile(solver)

    def _compile(self, solver: str) -> _Compiled:
        """The cone program for this solver, made on its first use."""
        compiled = self._compiled.get(solver)
        if compiled is None:
            self.compilations += 1
            data, chain, _ = self.problem.get_problem_data(solver.upper(), enforce_dpp=True, canon_backend="SCIPY")
            cone_map: Any = data["param_prob"]
            place = {
                variable.name(): (cone_map.var_id_to_col[variable.id], variable.shape)
                for variable in self.problem.variables()
            }
            dims = data["dims"]
            cones = _cones(dims) if solver == "clarabel" else None
            columns = int(cone_map.x.size)
            compiled = self._compiled[solver] = _Compiled(chain.solver, ConeData(cone_map), columns, dims, cones, place)
        return compiled

    def _mosek(self, limits: _Limits) -> _Point:
        """MOSEK by way of cvxpy, which knows its task format."""
        for name, value in self._given.items():
            self._parameters[name].value = np.asarray(value, dtype=np.float64)
        options: dict[str, Any] = {"MSK_IPAR_NUM_THREADS": 1}
        if limits.max_iter is not None:
            options["MSK_IPAR_INTPNT_MAX_ITERATIONS"] = limits.max_iter
        if limits.time_limit_s is not None:
            options["MSK_DPAR_OPTIMIZER_MAX_TIME"] = limits.time_limit_s
        if limits.tolerance is not None:
            for gap in ("PFEAS", "DFEAS", "REL_GAP"):
                options[f"MSK_DPAR_INTPNT_CO_TOL_{gap}"] = limits.tolerance
        try:
            self.problem.solve("MOSEK", mosek_params=options, enforce_dpp=True)
        except cp.SolverError as error:
            raise ProgramFailed(f"mosek: {error}", solver="mosek", solver_status="failed") from error
        _judge("mosek", str(self.problem.status), _CVXPY_STATUS)
        x = np.zeros(self._compiled["mosek"].columns)
        for variable in self.problem.variables():
            first, _ = self._compiled["mosek"].place[variable.name()]
            x[first : first + variable.size] = np.asarray(variable.value).ravel(order="F")
        worst = max((float(np.max(constraint.violation())) for constraint in self.problem.constraints), default=0.0)
        stats = self.problem.solver_stats
        status = _CVXPY_STATUS[str(self.problem.status)][1]
        return _Point(status, x, self._sign * float(self.problem.value), int(stats.num_iters), worst, None)


def require(solver: str) -> None:
    """Refuse a solver that is unknown or not installed, by name."""
    if solver not in SOLVERS:
        raise Refused(f"no convex solver {solver!r}: use one of {', '.join(SOLVERS)}", field="solver")
    if importlib.util.find_spec(_MODULE[solver]) is None:
        detail = f"solver {solver} is not installed: use clarabel, or install {solver}"
        raise Refused(detail, field="solver", fix=f"pip install {solver}")


def compilable(users: int, servers: int) -> None:
    """Refuse an instance whose program, with a parameter for each pair, is too large to compile."""
    if users * servers > MOST_PAIRS:
        detail = f"N={users} x M={servers} are {users * servers} pairs: convex programs are compiled for {MOST_PAIRS} at most"
        raise Refused(detail, field="N", fix="take priced, which compiles none, or a smaller instance")


_Verdict = tuple[type[ProgramError] | None, str]
"""The error that a solver's status is, if it is one, and our word for it."""

_CLARABEL_STATUS: Mapping[str, _Verdict] = {
    "Solved": (None, "solved"),
    "AlmostSolved": (None, "almost solved"),
    "PrimalInfeasible": (ProgramInfeasible, "infeasible"),
    "AlmostPrimalInfeasible": (ProgramInfeasible, "almost infeasible"),
    "DualInfeasible": (ProgramUnbounded, "unbounded"),
    "AlmostDualInfeasible": (ProgramUnbounded, "almost unbounded"),
    "MaxIterations": (ProgramFailed, "iteration limit"),
    "MaxTime": (ProgramFailed, "time limit"),
    "NumericalError": (ProgramFailed, "numerical error"),
    "InsufficientProgress": (ProgramFailed, "insufficient progress"),
}

_STALLED = ("InsufficientProgress", "NumericalError")
_CAREFUL_STEPS = (0.9, 0.8, 0.95)
"""Of the way to the cones' boundary, by attempt."""

_SCS_STATUS: Mapping[str, _Verdict] = {
    "1": (None, "solved"),
    "2": (ProgramFailed, "iteration or time limit"),
    "-1": (ProgramUnbounded, "unbounded"),
    "-6": (ProgramUnbounded, "almost unbounded"),
    "-2": (ProgramInfeasible, "infeasible"),
    "-7": (ProgramInfeasible, "almost infeasible"),
    "-3": (ProgramFailed, "undecided"),
    "-4": (ProgramFailed, "numerical error"),
}

_CVXPY_STATUS: Mapping[str, _Verdict] = {
    cp.OPTIMAL: (None, "solved"),
    cp.OPTIMAL_INACCURATE: (None, "almost solved"),
    cp.INFEASIBLE: (ProgramInfeasible, "infeasible"),
    cp.INFEASIBLE_INACCURATE: (ProgramInfeasible, "almost infeasible"),
    cp.UNBOUNDED: (ProgramUnbounded, "unbounded"),
    cp.UNBOUNDED_INACCURATE: (ProgramUnbounded, "almost unbounded"),
}


def _judge(solver: str, status: str, verdicts: Mapping[str, _Verdict]) -> str:
    """Our word for a status with an answer; raises the error that any other is."""
    error, word = verdicts.get(status, (ProgramFailed, f"status {status}"))
    if error is not None:
        raise error(f"{solver} ended with: {word}", solver=solver, solver_status=word)
    return word


def _clarabel(compiled: _Compiled, limits: _Limits) -> _Point:
    import clarabel  # type: ignore[import-untyped]  # none are published

    p, q, offset, a, b = compiled.data.at()
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    if limits.careful:
        settings.equilibrate_enable = False
        settings.max_step_fraction = settings.linesearch_backtrack_step = _CAREFUL_STEPS[0]
    settings.presolve_enable = False  # nothing here is infinite
    settings.chordal_decomposition_enable = False  # a lift is decomposed where it is written, not behind its back
    settings.iterative_refinement_enable = limits.refined
    if limits.max_iter is not None:
        settings.max_iter = limits.max_iter
    if limits.time_limit_s is not None:
        settings.time_limit = limits.time_limit_s
    if limits.tolerance is not None:
        settings.tol_feas = settings.tol_gap_abs = settings.tol_gap_rel = limits.tolerance
    steps: list[tuple[float, float, float, float]] = []

    def look(info: Any) -> bool:
        steps.append((info.cost_primal + offset, info.cost_dual + offset, info.res_primal, info.res_dual))
        return False

    attempts = 0
    for step in _CAREFUL_STEPS if limits.careful else (None,):
        attempts += 1
        if step is not None:
            settings.max_step_fraction = step
        solver = clarabel.DefaultSolver(p, q, a, b, compiled.cones, settings)
        if limits.trace:
            steps.clear()
            solver.set_termination_callback(look)
        answer = solver.solve()
        if str(answer.status) not in _STALLED:
            break
    status = _judge("clarabel", str(answer.status), _CLARABEL_STATUS)
    value = float(answer.obj_val + offset)
    x = np.asarray(answer.x)
    return _Point(status, x, value, int(answer.iterations), float(answer.r_prim), float(answer.r_dual), steps, attempts)


def _cones(dims: Any) -> list[Any]:
    """Clarabel's cones in the order of cvxpy's rows."""
    from cvxpy.reductions.solvers.conic_solvers import clarabel_conif

    interface: Any = clarabel_conif  # untyped
    cones: list[Any] = interface.dims_to_solver_cones(dims)
    return cones


def _scs(compiled: _Compiled, limits: _Limits) -> _Point:
    p, q, offset, a, b = compiled.data.at()
    data = {"A": a, "b": b, "c": q, "dims": compiled.dims}
    if p.nnz:
        data["P"] = p
    options: dict[str, Any] = {"max_iters": limits.max_iter or 100_000}
    if limits.time_limit_s is not None:
        options["time_limit_secs"] = limits.time_limit_s
    if limits.tolerance is not None:
        options["eps"] = limits.tolerance
    answer = compiled.solver.solve_via_data(data, warm_start=False, verbose=False, solver_opts=options)
    info = answer["info"]
    status = _judge("scs", str(info["status_val"]), _SCS_STATUS)
    value = float(info["pobj"] + offset)
    x = np.asarray(answer["x"])
    return _Point(status, x, value, int(info["iter"]), float(info["res_pri"]), float(info["res_dual"]))


_RUN = {"clarabel": _clarabel, "scs": _scs}
