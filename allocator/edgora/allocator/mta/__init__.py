"""Multi-task allocation between edge servers (mta.md): one room for one source paper.

instance   the arrays of section 1, the generator of section 2, the files of section 14
model      sections 3-6: derived quantities, feasibility, utilities, rewards, settlement, audit
table      section 13: the assignment table that paper instances and live rounds share
solvers    section 13: one file a solver
solution   section 14: a solution, built from a plan and scored against its instance
problem    what the registry and the CLI call
"""

from edgora.allocator.mta.instance import Instance, draw, nested
from edgora.allocator.mta.model import Audit, Model
from edgora.allocator.mta.solution import Score, Solution
from edgora.allocator.mta.table import Table

__all__ = ["Audit", "Instance", "Model", "Score", "Solution", "Table", "draw", "nested"]
