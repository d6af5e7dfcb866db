"""Data processing efficiency of users and edge servers (dpe.md): one room for one source paper.

instance     the arrays of section 2, the generator of section 3, the files of section 12
model        section 4: delays, energies, ratios, audit
solution     section 12: a solution, built from a decision and scored against its instance
problem      what the registry and the CLI call
"""

from edgora.allocator.dpe.instance import DrawSettings, Instance, draw, made
from edgora.allocator.dpe.model import Audit, Decision, Model, Terms

__all__ = ["Audit", "Decision", "DrawSettings", "Instance", "Model", "Terms", "draw", "made"]
