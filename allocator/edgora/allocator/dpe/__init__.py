"""Data processing efficiency of users and edge servers (dpe.md): one room for one source paper.

instance     the arrays of section 2, the generator of section 3, the files of section 12
model        section 4: delays, energies, ratios, audit
solution     section 12: a solution, built from a decision and scored against its instance
problem      what the registry and the CLI call

The platform's own solvers, from the ground up:

pairs        what a user costs on a server: constants of every pair, the air curve
newton       one step towards the best resources at given prices, for many pairs; arrays, or loops for numba
continuous   F3-F6: the optimum of a fixed association, with its certificate
market       F7: the prices that make the bound least
listing      F9: associations by rising loss at those prices, each group of users solved once
priced       prices, then the associations that they leave open, to a proof
exact        F8: all partitions of up to 12 users

The paper's:

association  the lifted quadratic program and its roundings
fp           the resource step by fractional programming
daur         both in turns; aauco
baselines    rucaa, gucaa, gucro
"""

from edgora.allocator.dpe.instance import DrawSettings, Instance, draw, made
from edgora.allocator.dpe.model import Audit, Decision, Model, Terms

__all__ = ["Audit", "Decision", "DrawSettings", "Instance", "Model", "Terms", "draw", "made"]
