"""MTA as the registry and the CLI see a problem: draw, files, solve, score."""

from collections.abc import Mapping

import numpy as np

from edgora.allocator.mta import instance as instances
from edgora.allocator.mta import solution as solutions
from edgora.allocator.mta.instance import Instance
from edgora.allocator.mta.solution import Score, Solution
from edgora.allocator.mta.solvers import PAPER_SOLVERS, TABLE_SOLVERS, PaperSolver, TableSolver
from edgora.allocator.mta.table import Table
from edgora.allocator.search import Found, Search
from edgora.allocator.solvers import answered, solver_of
from edgora.wire.errors import Refused

__all__ = ["MTA", "MtaProblem"]

Solver = TableSolver | PaperSolver


class MtaProblem:
    """See `registry.Problem`."""

    name = "mta"
    solvers = tuple(sorted((*TABLE_SOLVERS, *PAPER_SOLVERS)))

    def draw(self, seed: int, settings: Mapping[str, object]) -> Instance:
        return instances.draw(seed, settings)

    def load_instance(self, data: bytes) -> Instance:
        return instances.load(data)

    def dump_instance(self, instance: Instance) -> bytes:
        return instances.dump(instance)

    def load_solution(self, data: bytes, instance: Instance) -> Solution:
        return solutions.load(data, instance)

    def dump_solution(self, solution: Solution) -> bytes:
        return solutions.dump(solution)

    def score(self, instance: Instance, solution: Solution) -> Score:
        return solutions.score(instance, solution)

    def solution(self, instance: object, solver: str, seed: int, found: Found, wall_s: float, cpu_s: float) -> Solution:
        if not isinstance(instance, Instance):
            raise Refused(f"an mta solution is of an mta instance, not of a {type(instance).__name__}")
        return solutions.build(instance, solver, seed, found, wall_s, cpu_s)

    def solver(self, name: str, settings: Mapping[str, object]) -> Solver:
        """The solver of this name with its options. Raises NotFound for the name, Refused for an option."""
        solver: Solver = solver_of(self.name, {**TABLE_SOLVERS, **PAPER_SOLVERS}, name, settings)
        return solver

    def search(self, solver: Solver, instance: object, search: Search) -> Found:
        """Run a solver on a paper instance, or on anything else that has an assignment table, such as a live round."""
        if isinstance(solver, PaperSolver) and isinstance(instance, Instance):
            return solver.on_paper(instance.model, search)
        if isinstance(solver, TableSolver):
            return solver.on_table(self._table(instance), search)
        raise Refused(f"{type(solver).__name__} reproduces the paper and needs a paper instance, not a live round")

    def nothing(self, instance: object) -> Found:
        """The plan that is always allowed: reject every task."""
        return Found(self._table(instance).rejected(), status="interrupted")

    def foreign(self, answer: object, instance: object) -> Found:
        """What a user's policy answered, as a plan: a Solution, anything with `plan` and `bound`, or the bare plan."""
        if isinstance(answer, Found):
            return answer
        plan, bound = answered(answer)
        tasks = self._table(instance).m
        try:
            entries = np.asarray(plan)
        except ValueError:  # ragged nesting
            entries = np.empty((0, 0))
        if entries.shape != (tasks,) or (tasks and entries.dtype.kind not in "iu"):
            raise Refused(f"must answer a plan of {tasks} integers, answered {_shown(plan)}", field="plan")
        return Found(entries.astype(np.int64), bound)

    def _table(self, instance: object) -> Table:
        table = getattr(instance, "table", None)
        if not isinstance(table, Table):
            raise Refused(f"mta needs an instance with an assignment table, not a {type(instance).__name__}")
        return table


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


MTA = MtaProblem()
