"""DPE as the registry and the CLI see a problem: draw, files, solve, score."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol

from edgora.allocator.dpe import instance as instances
from edgora.allocator.dpe import solution as solutions
from edgora.allocator.dpe.instance import Instance
from edgora.allocator.dpe.model import Decision, Model
from edgora.allocator.dpe.solution import Score, Solution
from edgora.allocator.search import Found, Search
from edgora.allocator.solvers import answered, solver_of
from edgora.wire.errors import Refused

__all__ = ["DPE", "SOLVERS", "DpeProblem", "Solver"]

SOLVERS: Mapping[str, str] = {
    "rucaa": "edgora.allocator.dpe.baselines:Rucaa",
    "gucaa": "edgora.allocator.dpe.baselines:Gucaa",
    "aauco": "edgora.allocator.dpe.daur:Aauco",
    "gucro": "edgora.allocator.dpe.baselines:Gucro",
    "daur": "edgora.allocator.dpe.daur:Daur",
    "exact": "edgora.allocator.dpe.exact:Exact",
    "priced": "edgora.allocator.dpe.priced:Priced",
}
"""Where each solver of dpe.md 8 lives; imported when asked for, so that ours start without a convex solver."""


class Solver(Protocol):
    """An immutable record of options (the keys that `--set` takes) with one method."""

    default_limit_s: ClassVar[float | None]
    """Wall seconds it takes without `--time-limit`; None: it ends by its own rule."""
    libraries: ClassVar[tuple[str, ...]]
    """Distributions whose versions its results depend on."""

    def solve(self, model: Model, search: Search) -> Found:
        """A `Decision` as `Found.plan`, allowed by every constraint."""
        ...


@dataclass(frozen=True, slots=True)
class _Answer:
    """A user policy's decision that came as a mapping."""

    given: Mapping[str, object]

    def __getattr__(self, name: str) -> object:
        try:
            return self.given[name]
        except KeyError:
            raise AttributeError(name) from None


class DpeProblem:
    """See `registry.Problem`."""

    name = "dpe"
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
        return solutions.build(_dpe(instance), solver, seed, found, wall_s, cpu_s)

    def solver(self, name: str, settings: Mapping[str, object]) -> Solver:
        """The solver of this name with its options. Raises NotFound for the name, Refused for an option."""
        solver: Solver = solver_of(self.name, SOLVERS, name, settings)
        return solver

    def search(self, solver: Solver, instance: object, search: Search) -> Found:
        return solver.solve(_dpe(instance).model, search)

    def nothing(self, instance: object) -> Found:
        """A decision that is always allowed: GUCAA's association in equal shares, everything offloaded."""
        model = _dpe(instance).model
        return Found(model.average(model.gucaa(), model.instance.phi_max, model.gamma0), status="interrupted")

    def foreign(self, answer: object, instance: object) -> Found:
        """What a user's policy answered: a Solution, a `Decision` or mapping of its arrays, or `plan` and `bound`."""
        plan, bound = answered(answer)
        if isinstance(plan, Mapping):
            plan = _Answer({field.name: plan[field.name] for field in fields(Decision) if field.name in plan})
        return Found(solutions.checked(plan, _dpe(instance), "must answer a decision: "), bound)


def _dpe(instance: object) -> Instance:
    if not isinstance(instance, Instance):
        raise Refused(f"dpe needs a dpe instance, not a {type(instance).__name__}")
    return instance


DPE = DpeProblem()
