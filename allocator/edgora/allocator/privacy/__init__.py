"""Privacy-aware offloading of mining tasks (privacy.md): one room for one source paper.

instance    symbols and constants of section 1, files of section 11
model       section 2: a slot's energies, delays, privacy and rewards
simulation  section 3: many systems, slot after slot, by the normative stream
env         Gymnasium and PettingZoo views of it (imports gymnasium; nothing else here does)
exact       one miner alone: value iteration, long-run averages of any policy
coupling    many miners: what their waits do, and the search for a joint decision
policies    rules and plans; planning, cmdp, rlo, drlo, rl_privacy, afterstate, ddqn_vec: solvers, one file each
trained     learned policies in policy.npz, without torch
evaluation  section 8: exact, or played on common draws; traces
problem     what the registry and the CLI call; learning: train and evaluate
"""

from edgora.allocator.privacy.instance import Instance, draw
from edgora.allocator.privacy.model import Model, Outcome, State
from edgora.allocator.privacy.policies import Plan, Policy
from edgora.allocator.privacy.solution import Score, Solution

__all__ = ["Instance", "Model", "Outcome", "Plan", "Policy", "Score", "Solution", "State", "draw"]
