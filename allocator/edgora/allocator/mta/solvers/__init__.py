"""The solvers of mta.md 13, one file each, by the name that `--solver` takes.

A solver is an immutable record of its options (the keys that `--set` takes) with one method. Most work on the
assignment table and so serve paper instances and live rounds alike; those that reproduce the paper's words, and may
break C1 or C2 as the paper's do, need the model of a paper instance.
"""

from typing import Protocol, runtime_checkable

from edgora.allocator.mta.model import Model
from edgora.allocator.mta.solvers.associated import Associated
from edgora.allocator.mta.solvers.exact import Exact
from edgora.allocator.mta.solvers.greedy import Greedy
from edgora.allocator.mta.solvers.greedy_global import GreedyGlobal
from edgora.allocator.mta.solvers.greedy_naive import GreedyNaive
from edgora.allocator.mta.solvers.priced import Priced
from edgora.allocator.mta.solvers.qlearning import QLearning
from edgora.allocator.mta.solvers.qlearning_paper import QLearningPaper
from edgora.allocator.mta.solvers.random_feasible import RandomFeasible
from edgora.allocator.mta.solvers.random_naive import RandomNaive
from edgora.allocator.mta.table import Table
from edgora.allocator.search import Found, Search

__all__ = ["PAPER_SOLVERS", "TABLE_SOLVERS", "PaperSolver", "TableSolver"]


@runtime_checkable
class TableSolver(Protocol):
    """Works on the assignment table; every plan that it returns is allowed."""

    @property
    def default_limit_s(self) -> float | None:
        """Wall seconds it takes without `--time-limit`; None: it ends by its own rule."""
        ...

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions whose versions its results depend on."""
        ...

    def on_table(self, table: Table, search: Search) -> Found: ...


@runtime_checkable
class PaperSolver(Protocol):
    """Works on a paper instance; where it is no `TableSolver` as well, its plan may break C1 or C2."""

    @property
    def default_limit_s(self) -> float | None: ...

    @property
    def libraries(self) -> tuple[str, ...]: ...

    def on_paper(self, model: Model, search: Search) -> Found: ...


TABLE_SOLVERS: dict[str, type[TableSolver]] = {
    "random": RandomFeasible,
    "greedy": Greedy,
    "greedy-global": GreedyGlobal,
    "associated": Associated,
    "exact": Exact,
    "priced": Priced,
    "qlearning": QLearning,
}

PAPER_SOLVERS: dict[str, type[PaperSolver]] = {
    "random-naive": RandomNaive,
    "greedy-naive": GreedyNaive,
    "qlearning-paper": QLearningPaper,
}
