"""TCR as the registry and the CLI see a problem: draw, files, solve, score.

A solver is an immutable record of its options, the keys that `--set` takes, with one method. It is imported when it is
asked for, so that the platform's own solvers start without the convex ones' libraries.
"""

from collections.abc import Mapping
from typing import ClassVar, Protocol

from edgora.allocator.search import Found, Search
from edgora.allocator.solvers import answered, solver_of
from edgora.allocator.tcr import instance as instances
from edgora.allocator.tcr import solution as solutions
from edgora.allocator.tcr.instance import Instance
from edgora.allocator.tcr.model import Decision
from edgora.allocator.tcr.solution import Score, Solution
from edgora.wire.errors import Refused

__all__ = ["SOLVERS", "TCR", "Solver", "TcrProblem"]


class Solver(Protocol):
    """A solver with its options: an immutable msgspec Struct."""

    default_limit_s: ClassVar[float | None]
    """Wall seconds it takes without `--time-limit`; None: it ends by its own rule."""
    libraries: ClassVar[tuple[str, ...]]
    """Distributions whose versions its results depend on."""

    def solve(self, instance: Instance, search: Search) -> Found:
        """The best `Decision` within the search's limits; offers better ones to `search.keep` as it finds them."""
        ...


_ROOM = "edgora.allocator.tcr"
SOLVERS: Mapping[str, str] = {
    "priced": f"{_ROOM}.priced:Priced",
    "exact": f"{_ROOM}.exact:Exact",
    "dashf": f"{_ROOM}.dashf:Dashf",
    "rucaa": f"{_ROOM}.baselines:Rucaa",
    "gucaa": f"{_ROOM}.baselines:Gucaa",
    "aauco": f"{_ROOM}.aauco:Aauco",
    "gucro": f"{_ROOM}.gucro:Gucro",
    "gucro-exact": f"{_ROOM}.priced:GucroExact",
}
"""Where each solver lives."""


class TcrProblem:
    """See `registry.Problem`."""

    name = "tcr"
    solvers = tuple(sorted(SOLVERS))

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
        return solutions.build(_tcr(instance), solver, seed, found, wall_s, cpu_s)

    def solver(self, name: str, settings: Mapping[str, object]) -> Solver:
        """The solver of this name with its options. Raises NotFound for the name, Refused for an option."""
        solver: Solver = solver_of(self.name, SOLVERS, name, settings)
        return solver

    def search(self, solver: Solver, instance: object, search: Search) -> Found:
        return solver.solve(_tcr(instance), search)

    def nothing(self, instance: object) -> Found:
        """What is always allowed: GUCAA's association with everything shared equally."""
        model = _tcr(instance).model
        return Found(model.even(model.spread()), status="interrupted")

    def foreign(self, answer: object, instance: object) -> Found:
        """What a user's policy answered: a Decision or Solution, anything with `plan` and `bound`, or a mapping."""
        room = _tcr(instance)
        if isinstance(answer, Found) and isinstance(answer.plan, Decision):
            solutions.decision(answer.plan, room)
            return answer
        plan, bound = answered(answer)
        return Found(solutions.decision(plan, room), bound)


def _tcr(instance: object) -> Instance:
    if not isinstance(instance, Instance):
        raise Refused(f"tcr needs a tcr instance, not a {type(instance).__name__}")
    return instance


TCR = TcrProblem()
