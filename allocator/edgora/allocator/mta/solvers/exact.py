"""Exact: the best plan with a proof, or the best plan and bound at the limit (mta.md 13).

1. A plan by `priced`'s steps, and the Lagrangian bound, which is that of column generation over server subsets
   (Dantzig-Wolfe); pairs whose loss exceeds the gap between the two are in no better plan and are left out.
2. Branch and bound over that bound, for a while: it proves the easiest of the small instances, and finds better plans.
3. Where pairs are few, servers merge into groups (`merging`) until the bound meets the best plan or the groups grow too large.
4. What is still open goes to HiGHS as a mixed-integer program over the pairs that are left. Where they are few, it goes on
   till it finds a better plan, with which servers merge anew:

    maximise sum W_ij x_ij,  sum_i x_ij <= 1 for each task,  sum_j w_ij x_ij <= room_i for each server,  x binary

   with the best plan as its start. Where pairs are few, a server of which few sets of tasks can be in a better
   plan (`subsets`) has a column for each set, and one row, sum_S y_S <= 1, in place of its knapsack; and each task has
   levels, z = sum of x_ij over the servers that are worth more to it than some drop in value. HiGHS branches on such a
   sum as on any variable: "not served this well" bounds a plan where "not this server" moves a task to its twin.

There is a plan and a bound at every moment; the search ends with a proof, at the time limit, or when its caller stops.

HiGHS computes in doubles with an absolute feasibility tolerance. So that its answer can be trusted: tasks' values are scaled
by a power of two (exactly) to below 1024; integer weights are divided by their common divisor, other weights by their
row's greatest, which only ever widens a row by 1e-9; every plan it offers is repaired against the table, exactly, and
the bound is never below the best plan's worth. The bound holds to 1e-9 relative.
"""

import dataclasses
import logging
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from edgora.allocator.mta.anytime import Anytime, ready
from edgora.allocator.mta.table import REJECTED, Plan, Table
from edgora.allocator.search import Found, Search, Status

__all__ = ["Exact"]

_log = logging.getLogger(__name__)

_SCALE_BITS = 10
"""The greatest value of one task lies in [2^9, 2^10)."""
_SPELL_S = 0.15
"""Seconds of improvement between two looks at the bound, for each 1,000 pairs of the core ..."""
_SPELL = 0.08
"""... but at most this share of the time."""
_SPELLS = 3
"""Most such spells, and most rounds of merging, each with a better plan."""
_TURNS = 3
"""Most turns of merging and HiGHS: a better plan that HiGHS finds brings much to merging, and a bound little to HiGHS."""
_LONG = 0.05
"""Share of the time for a better plan where merging leaves many pairs: HiGHS rarely finds one there."""
_FEW = 1_500
"""Pairs that are few enough to stop preparing, and for servers to merge."""
_NODES = 500
"""Nodes of the tree before servers merge, and after: less than 0.1 s at 20 x 50."""
_SETS = 300
"""Most sets of tasks that a server is given columns for ..."""
_SET_PAIRS = 500
"""... and most pairs in which this is done: at 20 x 200 it comes to nothing."""
_DROP = 0.02
"""Least relative drop in value between two levels of a task. With levels the hardest proofs at 20 x 50 take half the time."""
_GLANCE_S = 0.05
"""How often a waiting caller looks whether it was stopped."""
_OWN_LIMIT = 0.97
"""Share of the time that HiGHS is told: it then mostly ends by itself, with its last bound."""
_PROOF_ONLY = {
    "mip_heuristic_effort": 0.0,
    "mip_heuristic_run_feasibility_jump": False,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_root_reduced_cost": False,
    "mip_allow_restart": False,
    "mip_pscost_minreliable": 2,
}
"""What is wanted of HiGHS is a proof: the plan it starts from is nearly always the best, and its pairs are few already.
Its own search for plans, and a new presolve in the middle, took half of its time at 20 x 50. Most of what is left is
strong branching, of a variable until it has been tried eight times; twice gives as small a tree."""
_WHOLE = 2**20
"""Integer weights up to here go to HiGHS as they are: its knapsack cuts like integers; larger ones lose precision."""


@dataclass(frozen=True, slots=True)
class _Program:
    """The columns and rows that HiGHS sees. A column is one task for a server, or a whole set of them."""

    servers: NDArray[np.int64]
    """Of each column (c,)."""
    tasks: NDArray[np.int64]
    starts: NDArray[np.int64]
    """Column k is of tasks[starts[k] : starts[k + 1]]."""
    cost: NDArray[np.float64]
    scale: float
    """cost = sum of W over the column * scale."""
    coefficient: NDArray[np.float64]
    """Of each column in its server's row; 0 where the row is left out."""
    room: NDArray[np.float64]
    """Right-hand side of each server's row; infinite where the row is left out."""
    whole: Sequence[int]
    """Servers whose columns are sets."""
    levels: Sequence[NDArray[np.int64]] = ()
    """Columns at most one of which is in a plan: their sum is a column of its own, after the others."""

    @classmethod
    def of(cls, table: Table, sets: Mapping[int, NDArray[np.bool_]]) -> "_Program":
        """sets: of the servers that have a column for each set of tasks (k,m) that they may hold."""
        useful = table.feasible & (table.value > 0.0)
        scale = math.ldexp(1.0, _SCALE_BITS - math.frexp(float(table.value[useful].max(initial=1.0)))[1])
        weight, room = table.weights(), np.full(table.n, np.inf)
        servers, held, cost, coefficient = [], [], [], []
        for i in range(table.n):
            if i in sets:
                mine = [np.flatnonzero(row) for row in sets[i] if row.any()]
                share, room[i] = np.ones(len(mine)), 1.0
            else:
                tasks = np.flatnonzero(useful[i])
                mine, share = list(tasks[:, None]), np.zeros(len(tasks))
                if weight[i, tasks].sum() > table.room[i]:
                    share, room[i] = _row(weight[i, tasks], table.room[i])
            servers += [i] * len(mine)
            held += mine
            cost += [math.fsum(table.value[i, tasks]) * scale for tasks in mine]
            coefficient.append(share)
        starts = np.concatenate(([0], np.cumsum([len(tasks) for tasks in held]))).astype(np.int64)
        return cls(
            np.array(servers, dtype=np.int64), np.concatenate([np.zeros(0, dtype=np.int64), *held]), starts, np.array(cost), scale,
            np.concatenate(coefficient), room, tuple(sets),
        )  # fmt: skip

    def levelled(self, table: Table) -> "_Program":
        """With each task's columns by falling value, up to each drop and all of them, as levels."""
        column, levels = self.column(), []
        for task in np.unique(self.tasks):
            mine = column[self.tasks == task]
            value = table.value[self.servers[mine], task]
            order = np.argsort(-value, kind="stable")
            mine, value = mine[order], value[order]
            drops = np.flatnonzero(value[1:] < (1.0 - _DROP) * value[:-1]) + 1
            levels += [mine[:count] for count in (*drops, len(mine)) if count > 1]
        return dataclasses.replace(self, levels=levels)

    def plan(self, table: Table, chosen: NDArray[np.float64]) -> Plan:
        """The plan that a vector of column values means, made allowed and completed."""
        plan = table.rejected()
        for column in np.flatnonzero(chosen[: len(self.servers)] > 0.5).tolist():
            plan[self.tasks[self.starts[column] : self.starts[column + 1]]] = self.servers[column]
        if not table.allows(plan):
            plan = table.without_overload(plan)
        return table.fill(plan)

    def start(self, plan: Plan) -> list[float]:
        """The columns of a plan: its pairs, and where columns are sets the very sets that its servers hold."""
        column = self.column()
        serves = plan[self.tasks] == self.servers[column]
        held = np.bincount(column, weights=serves, minlength=len(self.servers))
        size = np.where(np.isin(self.servers, self.whole), _count(plan, self.servers), 1)
        chosen = ((held == np.diff(self.starts)) & (held == size)).astype(np.float64)
        return [*chosen.tolist(), *(float(chosen[level].sum()) for level in self.levels)]

    def column(self) -> NDArray[np.int64]:
        """The column of each entry of `tasks`."""
        return np.repeat(np.arange(len(self.servers)), np.diff(self.starts))


def _count(plan: Plan, servers: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many tasks a plan gives each of these servers."""
    counts = np.bincount(plan[plan != REJECTED], minlength=int(servers.max(initial=0)) + 1)
    return np.asarray(counts[servers], dtype=np.int64)


class _Run:
    """HiGHS at work on one program in a thread of its own, and the best that is known so far.

    HiGHS looks at its time limit and at our interrupt only between its own steps, and a step (presolve, a root LP) can
    be long. In its own thread, with the interpreter's lock released, it cannot make an answer late: the caller takes
    what is known when time is up, and the abandoned run ends at its next look.
    """

    def __init__(
        self, table: Table, program: _Program, start: Plan, bound: float, search: Search, *, to_better: bool
    ) -> None:
        """to_better: end as soon as there is a better plan."""
        self._table, self._program, self._search, self._to_better = table, program, search, to_better
        self.better = False
        self.best, self.worth, self.bound, self.nodes = start, table.worth(start), bound, 0
        self.status: Status = "time_limit"
        self._abandoned = False

    def run(self) -> None:
        """Return when HiGHS has ended or the search is over, whichever is first."""
        finished = threading.Event()
        # Not a daemon: a thread inside C++ must not meet the interpreter's end.
        threading.Thread(target=self._solve, args=(finished,), name="highs").start()
        while not finished.wait(min(_GLANCE_S, self._search.left_s())) and not self._search.over():
            pass
        if not finished.is_set():
            self._abandoned = True
            self.status = "interrupted" if self._search.stopped() else "time_limit"

    def _solve(self, finished: threading.Event) -> None:
        try:
            self._highs()
        except Exception:  # no caller could take it in this thread, and what is known so far still counts
            if not self._abandoned:
                self.status = "numerical"
                _log.exception("HiGHS failed; the best plan so far stands, without a proof")
        finally:
            finished.set()

    def _highs(self) -> None:
        import highspy as library  # only this solver needs it

        highspy: Any = library  # partly typed
        table, program = self._table, self._program
        if not len(program.servers):  # nothing is left that a better plan could hold
            self.bound, self.status = self.worth, "optimal"
            return
        highs = highspy.Highs()
        highs.silent()
        for option, setting in {
            "threads": 1,
            "random_seed": self._search.seed % 2**31,
            "time_limit": min(self._search.left_s() * _OWN_LIMIT, 1e6),
            "mip_rel_gap": 0.0,
            "mip_abs_gap": 0.0,
            "mip_feasibility_tolerance": 1e-9,
            "primal_feasibility_tolerance": 1e-9,
            **_PROOF_ONLY,
        }.items():
            highs.setOptionValue(option, setting)
        highs.passModel(_model(highspy, program, table))
        warm = highspy.HighsSolution()
        warm.col_value = program.start(self.best)
        highs.setSolution(warm)

        def offer(columns: object) -> None:
            plan = program.plan(table, np.asarray(columns, dtype=np.float64))
            worth = table.worth(plan)
            if worth > self.worth and not self._abandoned:
                self.best, self.worth, self.better = plan, worth, True
                self._search.keep(Found(plan, max(self.bound, worth), "interrupted"), worth)

        def improved(event: Any) -> None:
            offer(event.data_out.mip_solution)

        def look(event: Any) -> None:
            self.bound = min(self.bound, _upper(event.data_out.mip_dual_bound, program))
            if self._abandoned or self._search.stopped() or (self._to_better and self.better):
                event.interrupt()

        def look_in_simplex(event: Any) -> None:
            if self._abandoned or self._search.stopped():
                event.interrupt()

        highs.cbMipImprovingSolution += improved
        highs.cbMipInterrupt += look
        highs.cbSimplexInterrupt += look_in_simplex
        highs.run()

        if self._abandoned:
            return
        info = highs.getInfo()
        self.nodes = max(0, int(info.mip_node_count))
        statuses: dict[Any, Status] = {
            highspy.HighsModelStatus.kOptimal: "optimal",
            highspy.HighsModelStatus.kTimeLimit: "time_limit",
            highspy.HighsModelStatus.kInterrupt: "interrupted",
        }
        self.status = statuses.get(highs.getModelStatus(), "numerical")
        if self.status != "numerical":
            self.bound = min(self.bound, _upper(info.mip_dual_bound, program))
            if info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
                offer(highs.getSolution().col_value)


class Exact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    default_limit_s: ClassVar[float | None] = 60.0
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "highspy")

    def __post_init__(self) -> None:
        ready()

    def on_table(self, table: Table, search: Search) -> Found:
        anytime = Anytime(table, search, None)
        anytime.first()
        spell = min(_SPELL, _SPELL_S * anytime.pairs / 1_000.0 / max(anytime.horizon_s, 1e-9))
        for _ in range(_SPELLS):
            anytime.improve(anytime.share() + spell)
            anytime.tighten(anytime.share() + 4.0 * spell, converged=0.01)
            anytime.again()
            if anytime.over() or anytime.pairs <= _FEW:
                break
        anytime.improve(anytime.share() + spell)
        anytime.branch(0.9, nodes=_NODES)
        nodes = 0
        for turn in range(_TURNS):
            merging = self._merged(anytime, spell)
            if anytime.over():
                break
            table, few = anytime.reduced(), anytime.pairs <= _SET_PAIRS
            program = _Program.of(table, anytime.subsets(_SETS)).levelled(table) if few else _Program.of(table, {})
            again = few and merging and turn < _TURNS - 1
            run = _Run(table, program, anytime.plan, anytime.bound, search, to_better=again)
            run.run()
            nodes += run.nodes
            anytime.offer(run.best)
            anytime.bounded(run.bound)
            if again and run.better and not anytime.over():
                continue
            found = anytime.found()
            status: Status = "optimal" if anytime.proven else ("numerical" if run.status == "optimal" else run.status)
            return Found(found.plan, found.bound, status, {**found.info, "highs_nodes": nodes})
        found = anytime.found()
        return dataclasses.replace(found, info={**found.info, "highs_nodes": nodes}) if nodes else found

    @staticmethod
    def _merged(anytime: Anytime, spell: float) -> bool:
        """Merge servers, anew with each better plan that the pairs left lead to. Whether there was anything to merge."""
        merging = False
        for _ in range(_SPELLS):
            if not anytime.merge():
                break
            merging, worth = True, anytime.worth
            anytime.improve(anytime.share() + (spell if anytime.pairs <= _SET_PAIRS else max(spell, _LONG)))
            anytime.branch(0.9, nodes=_NODES)
            if anytime.over() or anytime.worth <= worth:
                break
        return merging


def _row(weight: NDArray[np.int64] | NDArray[np.float64], room: float) -> tuple[NDArray[np.float64], float]:
    """A server's row in a form that doubles hold well; never tighter than the table's."""
    if weight.dtype.kind == "i":
        divisor = int(np.gcd.reduce(weight))
        weight, room = weight // divisor, int(room) // divisor
        if int(weight.max()) <= _WHOLE:
            return weight.astype(np.float64), float(room)
    greatest = float(weight.max())
    return weight / greatest, float(room) / greatest


def _upper(dual_bound: float, program: _Program) -> float:
    """HiGHS's bound in the table's unit; infinite while it has none."""
    return dual_bound / program.scale if math.isfinite(dual_bound) else math.inf


def _model(highspy: Any, program: _Program, table: Table) -> Any:
    """Each column is in its tasks' rows and, unless left out, in its server's; a level's row says what it is the sum of."""
    columns, levels = len(program.servers), len(program.levels)
    limited = np.flatnonzero(np.isfinite(program.room))
    row_of_server = np.full(table.n, REJECTED)
    row_of_server[limited] = np.arange(len(limited))
    served, task_row = np.unique(program.tasks, return_inverse=True)
    sums = len(limited) + len(served) + np.arange(levels)
    counts = np.array([len(level) for level in program.levels], dtype=np.int64)
    entries = [
        (row_of_server[program.servers], np.arange(columns), program.coefficient),
        (len(limited) + task_row, program.column(), np.ones(len(task_row))),
        (
            np.repeat(sums, counts),
            np.concatenate([np.zeros(0, dtype=np.int64), *program.levels]),
            np.ones(counts.sum()),
        ),
        (sums, columns + np.arange(levels), np.full(levels, -1.0)),
    ]
    row, column, value = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    present = row != REJECTED
    shape = (len(limited) + len(served) + levels, columns + levels)
    matrix = scipy.sparse.csc_array((value[present], (row[present], column[present])), shape)

    lp = highspy.HighsLp()
    lp.num_row_, lp.num_col_ = shape
    lp.sense_ = highspy.ObjSense.kMaximize
    lp.col_cost_ = np.concatenate((program.cost, np.zeros(levels)))
    lp.col_lower_, lp.col_upper_ = np.zeros(shape[1]), np.ones(shape[1])
    lp.integrality_ = [highspy.HighsVarType.kInteger] * shape[1]
    lp.row_lower_ = np.concatenate((np.full(len(limited) + len(served), -highspy.kHighsInf), np.zeros(levels)))
    lp.row_upper_ = np.concatenate((program.room[limited], np.ones(len(served)), np.zeros(levels)))
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
    return lp
