"""User selection and hash power on an edge that mines (baas.md): one room for one source paper.

params     the table of section 1
model      section 2: one slot, exactly, for many copies at once
stream     section 3: the normative random stream
batch      the environment, vectorised, in numpy alone;  env: the same for Gymnasium
instance, solution   the files of section 12
matching   the exact decoding: assignment and fractional knapsack
exact, baselines, ga                 solvers that know the model
pair_q, struct_ddqn, ddqn, qlearning   learners; one file each, torch only while they train
policies, learned                    solvers by name; trained policies in numpy
evaluate   common draws, intervals, score, trace
problem    what the registry and the CLI call
"""

from edgora.allocator.baas.instance import Instance, draw
from edgora.allocator.baas.model import Choice, Outcome, Slots, settle
from edgora.allocator.baas.params import Params
from edgora.allocator.baas.solution import Plan, Score, Solution

__all__ = ["Choice", "Instance", "Outcome", "Params", "Plan", "Score", "Slots", "Solution", "draw", "settle"]
