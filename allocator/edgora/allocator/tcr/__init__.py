"""Trust-cost ratio of users on servers that also keep a chain (tcr.md): one room for one source paper.

instance   the symbols of section 2, the generator of section 3, the profiles, the files of section 13
model      sections 4 and 5: delays, energies, trust, constraints, audit
solution   section 13: a solution, built from a decision and scored against its instance
problem    what the registry and the CLI call
"""

from edgora.allocator.tcr.instance import Instance, draw
from edgora.allocator.tcr.model import Audit, Decision, Model, Terms
from edgora.allocator.tcr.solution import Score, Solution

__all__ = ["Audit", "Decision", "Instance", "Model", "Score", "Solution", "Terms", "draw"]
