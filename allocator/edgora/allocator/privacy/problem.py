"""PRIV as the registry and the CLI see a problem: draw, files, solve, score; and its learners.

A solver is an immutable record of its options, the keys that `--set` takes, with one method. It is imported when it is
asked for, so that rules and plans start without torch. Beside its options every solver takes `trace`, where the slots
of one environment under its policy are written (privacy.md 3).
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Protocol

import numpy as np

from edgora.allocator.privacy import instance as instances
from edgora.allocator.privacy import solution as solutions
from edgora.allocator.privacy.evaluation import checked, trace
from edgora.allocator.privacy.instance import Instance
from edgora.allocator.privacy.model import Bits, State
from edgora.allocator.privacy.policies import Chances, Constant, Plan, Policy, Table
from edgora.allocator.privacy.simulation import Simulation
from edgora.allocator.privacy.solution import Score, Solution
from edgora.allocator.search import Found, Search
from edgora.allocator.solvers import Traced, traced_of
from edgora.wire.errors import Refused

__all__ = ["LEARNERS", "PRIVACY", "RULES", "SOLVERS", "PrivacyProblem", "Solver", "planned", "trainable"]


class Solver(Protocol):
    """A solver with its options: an immutable msgspec Struct."""

    default_limit_s: ClassVar[float | None]
    """Wall seconds it takes without `--time-limit`; None: it ends by its own rule."""
    libraries: ClassVar[tuple[str, ...]]
    """Distributions whose versions its results depend on."""

    def solve(self, instance: Instance, search: Search) -> Found:
        """A `Plan`. Learners train for the instance's slots, and stop early with what they know."""
        ...


_ROOM = "edgora.allocator.privacy"
RULES: Mapping[str, str] = {
    "NO": f"{_ROOM}.planning:NothingOut",
    "EO": f"{_ROOM}.planning:EverythingOut",
    "random": f"{_ROOM}.planning:Random",
    "inverse": f"{_ROOM}.planning:InverseOnly",
    "myopic": f"{_ROOM}.planning:MyopicBest",
    "VI": f"{_ROOM}.planning:VI",
    "RVI": f"{_ROOM}.planning:RVI",
    "lookahead": f"{_ROOM}.planning:Lookahead",
}
"""Solvers that learn nothing: their policy follows from the instance."""
LEARNERS: Mapping[str, str] = {
    "RLO": f"{_ROOM}.rlo:Rlo",
    "DRLO": f"{_ROOM}.drlo:Drlo",
    "CMDP": f"{_ROOM}.cmdp:Cmdp",
    "RL-privacy": f"{_ROOM}.rl_privacy:RlPrivacy",
    "afterstate": f"{_ROOM}.afterstate:Afterstate",
    "ddqn-vec": f"{_ROOM}.ddqn_vec:DdqnVec",
}
SOLVERS: Mapping[str, str] = {**RULES, **LEARNERS}
"""Where each solver lives."""


class PrivacyProblem:
    """See `registry.Problem`."""

    name = "privacy"
    solvers = tuple(sorted(SOLVERS))

    @property
    def learning(self) -> "object":
        """Training and evaluation: see `learn.problem.Learning`."""
        from edgora.allocator.privacy.learning import LEARNING

        return LEARNING

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
        return solutions.build(_privacy(instance), solver, seed, found, wall_s, cpu_s)

    def solver(self, name: str, settings: Mapping[str, object]) -> Traced:
        """The solver of this name with its options. Raises NotFound for the name, Refused for an option or a library."""
        solver = traced_of(self.name, SOLVERS, name, settings)
        trainable(solver.libraries, name, "solver")
        return solver

    def search(self, solver: Traced, instance: object, search: Search) -> Found:
        room = _privacy(instance)
        found: Found = solver.solver.solve(room, search)
        if solver.trace is None:
            return found
        trace(planned(found), room, room.seed or 0, room.slots, solver.trace)
        return replace(found, info={**found.info, "trace": str(solver.trace)})

    def nothing(self, instance: object) -> Found:  # noqa: ARG002  # any instance's
        """What is always allowed: everything on the device."""
        return Found(Plan(Constant(offload=False)), status="interrupted")

    def foreign(self, answer: object, instance: object) -> Found:
        """What a user's policy answered: a `Plan`, anything with `act(state)`, or for one stream a table of chances.

        A mapping or an object may hold it as `policy`. What acts is tried on the first slot.
        """
        room = _privacy(instance)
        if isinstance(answer, Found):
            answer = answer.plan
        if isinstance(answer, Plan):
            return Found(answer)
        if isinstance(answer, Mapping):
            answer = answer.get("policy")
        elif hasattr(answer, "policy"):
            answer = answer.policy
        if isinstance(answer, Policy):
            checked(answer, Simulation(room, 1, 0).state)
            return Found(Plan(answer if isinstance(answer, Chances) else _Foreign(answer)))
        c = room.constants
        shape = (c.K, round(c.B / c.grid) + 1, 2, 3)
        try:
            table = np.asarray(answer, dtype=np.float64)
        except (TypeError, ValueError):
            table = np.empty(0)
        if room.M != 1 or not room.tabular or table.shape != shape or not ((table >= 0.0) & (table <= 1.0)).all():
            detail = "must answer something with act(state), or for one stream a table of chances by D1, D0, g, level"
            raise Refused(detail, field="policy")
        return Found(Plan(Table(room, table)))


class _Foreign:
    """A user's policy: what it raises in a later slot is its own failure, by its name."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def act(self, state: State) -> Bits:
        try:
            return self._policy.act(state)
        except Exception as error:
            kind = type(self._policy)
            detail = f"policy {kind.__module__}:{kind.__qualname__} raised {type(error).__name__}: {error}"
            raise Refused(detail, field="policy") from error


def trainable(libraries: Sequence[str], name: str, field: str) -> None:
    """Raise Refused, with what to install, where a learner's library is missing."""
    if "torch" in libraries and importlib.util.find_spec("torch") is None:
        detail = f"{name} trains with torch, which is not installed; trained policies run without it"
        raise Refused(detail, field=field, fix='pip install "edgora[learn]"')


def planned(found: Found) -> Policy:
    """The policy in what a solver found."""
    assert isinstance(found.plan, Plan)
    return found.plan.policy


def _privacy(instance: object) -> Instance:
    if not isinstance(instance, Instance):
        raise Refused(f"privacy needs a privacy instance, not a {type(instance).__name__}")
    return instance


PRIVACY = PrivacyProblem()
