"""BaaS as the registry and the CLI see a problem: draw, files, solve, score; `learning` is train and evaluate."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgora.allocator.baas import instance as instances
from edgora.allocator.baas import solution as solutions
from edgora.allocator.baas.evaluate import write_trace
from edgora.allocator.baas.exact import bound as slot_bound
from edgora.allocator.baas.exact import optimum
from edgora.allocator.baas.instance import Instance
from edgora.allocator.baas.learning import LEARNING
from edgora.allocator.baas.model import IDLE, settle
from edgora.allocator.baas.policies import SOLVERS
from edgora.allocator.baas.solution import Plan, Score, Solution
from edgora.allocator.learn.problem import Proposer
from edgora.allocator.search import Found, Search, Status
from edgora.allocator.solvers import Traced, answered, traced_of
from edgora.wire.errors import Refused

__all__ = ["BAAS", "BaasProblem"]

_UNASKED = 60.0
"""Hash power requested where nobody decided: the mean share, MHash/s."""


class BaasProblem:
    """See `registry.Problem`."""

    name = "baas"
    solvers = tuple(sorted(SOLVERS))
    learning = LEARNING

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
        return solutions.build(_baas(instance), solver, seed, found, wall_s, cpu_s)

    def solver(self, name: str, settings: Mapping[str, object]) -> Traced:
        """The solver of this name with its options, and `trace`, where the slots of a run go. Raises NotFound, Refused."""
        return traced_of(self.name, SOLVERS, name, settings)

    def search(self, solver: Traced, instance: object, search: Search) -> Found:
        """Decide slot after slot; reputation rolls on. Slots that the clock does not reach stay idle."""
        room = _baas(instance)
        policy = solver.solver.policy(search.seed)
        plan = _nothing(room)
        status: Status = "done"
        A, B = room.A, room.B
        ceiling = 0.0
        exact = type(solver.solver) is SOLVERS["exact"]
        for t in range(room.T):
            if t and search.over():
                status = "interrupted" if search.stopped() else "time_limit"
                break
            slots = room.slot(t, A, B)
            choice = policy.decide(slots)
            plan.assign[t], plan.request[t] = choice.assign[0], choice.request[0]
            outcome = settle(slots, choice)
            A, B = outcome.A[0], outcome.B[0]
            if exact:  # one slot: its optimum; several: what no history can exceed
                ceiling += float((optimum if room.T == 1 else slot_bound)(slots)[0])
        proven = exact and status == "done"
        if proven and room.T == 1:
            status = "optimal"
        info: dict[str, object] = {}
        if solver.trace is not None:
            _write_trace(room, plan, solver.trace)
            info["trace"] = str(solver.trace)
        return Found(plan, bound=ceiling / room.T if proven else None, status=status, info=info)

    def nothing(self, instance: object) -> Found:
        """Nobody is served, everybody asks for the mean share."""
        return Found(_nothing(_baas(instance)), status="interrupted")

    def ask(self, policy: Proposer, instance: object, budget_s: float) -> object:
        """A user's policy, slot after slot: it is asked for one slot at a time, with the history it has made."""
        room = _baas(instance)
        if not room.listed:
            return policy.propose(room, budget_s)
        plan, A, B = _nothing(room), room.A, room.B
        for t in range(room.T):
            slots = room.slot(t, A, B)
            one = instances.of_slots(slots, room.seed)
            answer = self.foreign(policy.propose(one, budget_s / room.T), one).plan
            plan.assign[t], plan.request[t] = answer.assign[0], answer.request[0]
            outcome = settle(slots, answer)
            A, B = outcome.A[0], outcome.B[0]
        return plan

    def foreign(self, answer: object, instance: object) -> Found:
        """What a user's policy answered: `assign` and `request` as attributes or keys, or in a `plan`, and a bound."""
        room = _baas(instance)
        inner, limit = answered(answer)
        return Found(solutions.plan(inner, room), limit)


def _nothing(instance: Instance) -> Plan:
    shape = (instance.T, instance.params.M)
    return Plan(np.full(shape, IDLE, dtype=np.int64), np.full(shape, _UNASKED))


def _write_trace(instance: Instance, plan: Plan, path: Path) -> None:
    outcomes = solutions.play(instance, plan)
    executed = {
        name: np.concatenate([getattr(o, name) for o in outcomes]) for name in ("rep", "hash", "assign", "reward")
    }
    seen = {name: getattr(instance, name) for name in ("d", "xi", "tau", "b", "f")}
    rate = {} if instance.rate is None else {"rate": instance.rate}
    try:
        write_trace(path, instance.params, {**seen, **rate, **executed, "start": np.arange(instance.T) == 0})
    except OSError as error:
        raise Refused(f"--trace {path} cannot be written: {error}", field="trace") from None


def _baas(instance: object) -> Instance:
    if not isinstance(instance, Instance):
        raise Refused(f"baas needs a baas instance, not a {type(instance).__name__}")
    return instance


BAAS = BaasProblem()
