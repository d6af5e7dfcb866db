"""Problem and solver names to code: one table for `solve`, the CLI, sweeps and live rounds.

A solver is named by the problem's own name for it (mta.md 13) or as `module:object`, a user's policy: any object, or
class without constructor arguments, with

    propose(instance, budget_s) -> solution

where a solution is a plan, or anything with `plan` and optionally `bound`. A policy that reads only `instance.table`
runs unchanged on paper instances and in live rounds. The same call serves both: a live round has no symbols of a
paper, so solvers that need them refuse it by name.

In rounds of the market `baas:SOLVER` and `baas:module:object` are policies of BaaS, which see a round as slots of theirs
(baas_rounds).

Problems are imported on first use; without the `solve` extra they are refused with what to install.
"""

import dataclasses
import importlib
import importlib.metadata
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from edgora.allocator.files import written_later
from edgora.allocator.learn.problem import Evaluation, Learning, Note, silent
from edgora.allocator.search import Found, Search
from edgora.wire.errors import EdgoraError, NotFound, Refused

__all__ = [
    "PROBLEMS", "Chosen", "Policy", "PolicyError", "Problem", "evaluate", "learning", "policy", "problem", "solve",
    "versions",
]  # fmt: skip

PROBLEMS: Mapping[str, str] = {
    "mta": "edgora.allocator.mta.problem:MTA",
    "tcr": "edgora.allocator.tcr.problem:TCR",
    "dpe": "edgora.allocator.dpe.problem:DPE",
    "privacy": "edgora.allocator.privacy.problem:PRIVACY",
    "baas": "edgora.allocator.baas.problem:BAAS",
}
"""Where each problem lives."""

FOREIGN_BUDGET_S = 60.0
"""budget_s of a user's policy in `solve` where no time limit is given."""

Instance = Any
"""A problem's own instance, solution or score: the registry hands them through and looks at none of their fields."""


class PolicyError(EdgoraError):
    """A user's policy raised, or answered something that is not a solution."""

    code = "policy_failed"


class Policy(Protocol):
    def propose(self, instance: Instance, budget_s: float) -> object: ...


class Solver(Protocol):
    """A problem's own solver with its options."""

    @property
    def default_limit_s(self) -> float | None:
        """Wall seconds it takes where no limit is given; None: it ends by its own rule."""
        ...

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions whose versions its results depend on."""
        ...


class Problem(Protocol):
    """What a problem's room offers."""

    name: str
    solvers: tuple[str, ...]

    def draw(self, seed: int, settings: Mapping[str, object]) -> Instance: ...
    def load_instance(self, data: bytes) -> Instance: ...
    def dump_instance(self, instance: Instance) -> bytes: ...
    def load_solution(self, data: bytes, instance: Instance) -> Any: ...
    def dump_solution(self, solution: Any) -> bytes: ...
    def score(self, instance: Instance, solution: Any) -> Any: ...

    def solver(self, name: str, settings: Mapping[str, object]) -> Any: ...

    def search(self, solver: Any, instance: Instance, search: Search) -> Found:
        """Run a solver."""
        ...

    def nothing(self, instance: Instance) -> Found:
        """The least plan that is always allowed: what remains of a search that was cut off before it had any."""
        ...

    def foreign(self, answer: object, instance: Instance) -> Found:
        """A user policy's answer as a plan. Raises Refused."""
        ...

    def solution(self, instance: Instance, solver: str, seed: int, found: Found, wall_s: float, cpu_s: float) -> Any:
        """Audit and value a plan."""
        ...


class Chosen:
    """A solver with its options, or a user's policy, behind one face; itself a `Policy`, whose answers are plans."""

    def __init__(
        self, room: Problem, name: str, seed: int, settings: Mapping[str, object], user: Policy | None
    ) -> None:
        self._room, self._seed, self._user = room, seed, user
        self.name = name
        self._solver: Solver | None = None
        if user is None:
            self._solver = room.solver(name, settings)
        elif settings:
            raise Refused(f"{name} is a user's policy and takes no settings", field=next(iter(settings)))
        self.libraries = self._solver.libraries if self._solver else ()

    @property
    def stoppable(self) -> bool:
        """Whether it looks at the search's stop and deadline; a user's policy knows its budget only."""
        return self._solver is not None

    def limit_s(self, asked: float | None) -> float | None:
        if asked is not None:
            return asked
        return self._solver.default_limit_s if self._solver else FOREIGN_BUDGET_S

    def search(self, instance: Instance, search: Search) -> Found:
        if self._user is None:
            return self._room.search(self._solver, instance, search)
        budget_s = search.left_s()
        try:
            answer = self._asked(self._user, instance, budget_s if math.isfinite(budget_s) else FOREIGN_BUDGET_S)
            return self._room.foreign(answer, instance)
        except Refused as error:
            raise PolicyError(f"policy {self.name} {error.detail}", field=error.field) from error
        except Exception as error:  # a user's code may raise anything
            raise PolicyError(f"policy {self.name} raised {type(error).__name__}: {error}") from error

    def _asked(self, user: Policy, instance: Instance, budget_s: float) -> object:
        """The user's answer; a problem whose instances have several slots asks for one slot at a time."""
        ask: Callable[[Policy, Instance, float], object] | None = getattr(self._room, "ask", None)
        return user.propose(instance, budget_s) if ask is None else ask(user, instance, budget_s)

    def propose(self, instance: Instance, budget_s: float) -> Found:
        """A plan within about budget_s of wall time. Raises PolicyError, Refused."""
        return self.search(instance, Search(self._seed, time.monotonic() + budget_s))


def problem(name: str) -> Problem:
    """The problem of this name. Raises NotFound, or Refused where its libraries are not installed."""
    place = PROBLEMS.get(name)
    if place is None:
        raise NotFound(f"no problem {name!r}: use one of {', '.join(sorted(PROBLEMS))}", field="problem")
    module, _, attribute = place.partition(":")
    try:
        room: Problem = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        detail = f"problem {name} needs the library {missing}: install edgora with its `solve` extra"
        raise Refused(detail, field="problem", fix='pip install "edgora[solve]"') from error
    return room


def policy(problem_name: str, name: str, *, seed: int = 0, settings: Mapping[str, object] | None = None) -> Chosen:
    """A policy for live rounds and sweeps: a solver's name, or `module:object`; `baas:` before either plays rounds as slots."""
    if problem_name == "mta" and name.startswith("baas:"):
        inner = name.removeprefix("baas:")
        return Chosen(_baas_rounds(), name, seed, settings or {}, _imported(inner) if ":" in inner else None)
    user = _imported(name) if ":" in name else None
    return Chosen(problem(problem_name), name, seed, settings or {}, user)


def _baas_rounds() -> Any:
    problem("baas")  # refused by name where its libraries are not installed
    return importlib.import_module("edgora.allocator.baas_rounds").BAAS_ROUNDS


def solve(
    problem_name: str,
    solver: str | Policy,
    instance: Instance,
    *,
    seed: int = 0,
    time_limit_s: float | None = None,
    settings: Mapping[str, object] | None = None,
    stopped: Callable[[], bool] | None = None,
    report: Callable[[float, float | None], None] | None = None,
) -> Any:
    """Solve an instance and return the audited solution.

    `stopped` is asked now and then, and ends the search with the best plan so far. For a caller who gives it,
    KeyboardInterrupt does the same to a policy that cannot be asked; for any other it passes on, so that a loop over
    instances ends at Ctrl-C instead of taking a plan that was cut off for a result. `report` hears worth and bound of each improvement. Raises NotFound for a name,
    Refused for a setting or an instance that does not fit, PolicyError for a user's policy.
    """
    room = problem(problem_name)
    if not 0 <= seed < 2**63:
        raise Refused(f"seed is {seed}: must be within 0..2^63-1", field="seed")
    if isinstance(solver, str):
        chosen = policy(problem_name, solver, seed=seed, settings=settings)
    else:
        chosen = Chosen(room, f"{type(solver).__module__}:{type(solver).__qualname__}", seed, settings or {}, solver)
    limit_s = chosen.limit_s(time_limit_s)
    search = Search(seed, None if limit_s is None else time.monotonic() + limit_s)
    search.stopped, search.report = stopped or search.stopped, report or search.report
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        found = chosen.search(instance, search)
    except KeyboardInterrupt:
        if stopped is None:
            raise
        found = search.best or room.nothing(instance)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = dataclasses.replace(found, info={**found.info, "versions": versions(chosen.libraries)})
    return room.solution(instance, chosen.name, seed, found, wall, cpu)


def learning(problem_name: str) -> Learning:
    """The learners of a problem. Raises NotFound, or Refused where the problem has none."""
    found: Learning | None = getattr(problem(problem_name), "learning", None)
    if found is None:
        raise Refused(f"{problem_name} has no learners: use `edgora solve`", field="problem")
    return found


def evaluate(
    problem_name: str,
    name: str,
    seeds: range,
    *,
    settings: Mapping[str, object] | None = None,
    trace: Path | None = None,
    note: Note = silent,
) -> Evaluation:
    """Play a policy, named as a file, a solver or `module:object`, on one environment for each seed."""
    room = learning(problem_name)
    if trace is not None:
        written_later(trace, "--trace")
    chosen = _imported(name) if ":" in name and not Path(name).exists() else name
    return room.evaluate(chosen, seeds, settings or {}, trace, note)


def versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """Versions that a result depends on: ours and those of the solver's libraries."""
    return {name: importlib.metadata.version(name) for name in ("edgora", *libraries)}


def _imported(name: str) -> Policy:
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        made = found() if isinstance(found, type) else found
    except Exception as error:  # so may a user's module while it is imported
        raise NotFound(f"no policy {name!r}: {type(error).__name__}: {error}", field="solver") from error
    if not callable(getattr(made, "propose", None)):
        raise Refused(f"policy {name} has no method propose(instance, budget_s)", field="solver")
    user: Policy = made
    return user
