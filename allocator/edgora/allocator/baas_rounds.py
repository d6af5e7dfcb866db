"""BaaS policies in live rounds: `baas:SOLVER`, or `baas:module:object` (market.md 4).

A round is played as slots of BaaS. In each, every server takes at most one of the tasks that are still open; slots
follow each other until none adds a task. What is not ok, or does not fit any more, is dropped here; what is left over
the market's own rule completes (`live.propose`).

    BaaS                         round
    UE u, server m               open task j, live server i
    W = d xi, f                  fuel limit, speed; scaled to the means of baas.md 1, so that weights learnt there apply
    T                            T_ij of the market, in that scale of time: what is not computing goes into the rate
    tau                          desired_ms
    b, A, B                      alike for all: live rounds have no blocks and tell no history
    hash power                   asked for, and dropped

Pairs that the market refuses look like a link over which nothing comes through. A value in wei takes no part in the
choice, so a scenario sets `prefer` to the policy's name, and `floor_bps` below what it costs (docs/allocators/live.md).
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.baas import solution as solutions
from edgora.allocator.baas.instance import of_slots
from edgora.allocator.baas.model import IDLE, Slots
from edgora.allocator.baas.params import Params
from edgora.allocator.baas.policies import SOLVERS
from edgora.allocator.learn.problem import Proposer
from edgora.allocator.live import LiveRound
from edgora.allocator.mta.table import REJECTED, Plan
from edgora.allocator.search import Found, Search, Status
from edgora.allocator.solvers import answered, solver_of
from edgora.wire.errors import Refused

__all__ = ["BAAS_ROUNDS", "PREFIX", "BaasRounds", "slot_of"]

PREFIX = "baas:"

_MEANS = {"work": 26.4, "data": 24.0, "speed": 5.0}
"""Gcycle, Mbit, Gcycle/s: means of what policies of BaaS are trained on."""
_BLOCK_KB = 5.5
_NEVER = 20.0
"""Seconds of a refused pair's upload, in mean seconds of the slot."""
_LEAST_S = 1e-6
"""Of an upload that takes no time: rates are finite."""

Decide = Callable[[Slots], NDArray[np.int64]]
"""UE of each server (M,), or IDLE."""


class BaasRounds:
    """What `registry.Chosen` asks of a problem's room, for rounds of the market."""

    def solver(self, name: str, settings: Mapping[str, object]) -> object:
        """Raises NotFound for the name, Refused for an option."""
        return solver_of("baas", SOLVERS, name.removeprefix(PREFIX), settings)

    def search(self, solver: object, instance: object, search: Search) -> Found:
        """Slot after slot, until nothing is added or the clock ends it."""
        live = _round(instance)
        policy = solver.policy(search.seed)  # type: ignore[attr-defined]  # a solver of baas.policies
        plan, status = _filled(live, lambda slots: policy.decide(slots).assign[0], search.over)
        return Found(plan, status=status)

    def ask(self, policy: Proposer, instance: object, budget_s: float) -> Plan:
        """A user's policy: asked for one slot at a time, as in `edgora solve baas`."""
        search = Search(0)
        search.deadline = search.clock() + budget_s

        def decide(slots: Slots) -> NDArray[np.int64]:
            one = of_slots(slots)
            answer, _ = answered(policy.propose(one, search.left_s()))
            return np.asarray(solutions.plan(answer, one).assign[0])

        return _filled(_round(instance), decide, search.over)[0]

    def foreign(self, answer: object, instance: object) -> Found:  # noqa: ARG002  # `ask` has looked at every slot
        return Found(answer)


def _filled(live: LiveRound, decide: Decide, over: Callable[[], bool]) -> tuple[Plan, Status]:
    table = live.table
    plan, left = table.rejected(), table.room.copy()
    weight = table.weights()
    while True:
        fits = table.feasible & (weight <= left[:, None])
        tasks = np.flatnonzero((plan == REJECTED) & fits.any(axis=0))
        if not len(tasks):
            return plan, "done"
        if over():
            return plan, "time_limit"
        added = 0
        for server, place in enumerate(decide(slot_of(live, tasks, fits)).tolist()):
            if place == IDLE or plan[tasks[place]] != REJECTED or not fits[server, tasks[place]]:
                continue
            plan[tasks[place]] = server
            left[server] -= weight[server, tasks[place]]
            added += 1
        if not added:
            return plan, "done"


def slot_of(live: LiveRound, tasks: NDArray[np.int64], fits: NDArray[np.bool_]) -> Slots:
    """These tasks and all servers as one slot; pairs that do not fit take `_NEVER`."""
    instance = live.instance
    work = np.array([instance.tasks[j].fuel_limit for j in tasks], dtype=np.float64)
    bits = np.array([8.0 * max(instance.tasks[j].input_octets, 1) for j in tasks])
    speed = np.array([server.speed for server in instance.servers], dtype=np.float64)
    desired = np.array([instance.tasks[j].desired_ms / 1000.0 for j in tasks])
    of_work, of_speed = _MEANS["work"] / work.mean(), _MEANS["speed"] / speed.mean()
    of_time = of_work / of_speed
    """Seconds of the slot in a second of the round."""
    d, f = bits * (_MEANS["data"] / bits.mean()), speed * of_speed
    total = of_time * live.time_ms[:, tasks].T / 1000.0
    computing = (work * of_work)[:, None] / f[None, :]
    upload = np.maximum(total - computing, _LEAST_S)
    upload[~fits[:, tasks].T] = _NEVER * max(float(computing.mean()), _LEAST_S)
    nothing = np.zeros((1, len(f)))
    return Slots(
        params=Params(U=len(tasks), M=len(f)), d=d[None], xi=(work * of_work / d)[None],
        tau=np.maximum(desired * of_time, _LEAST_S)[None], b=np.full((1, len(f)), _BLOCK_KB), f=f[None], A=nothing,
        B=nothing, rate=(d[:, None] / upload)[None],
    )  # fmt: skip


def _round(instance: object) -> LiveRound:
    if not isinstance(instance, LiveRound):
        raise Refused(f"baas:... proposes in live rounds, not for a {type(instance).__name__}", field="solver")
    return instance


BAAS_ROUNDS = BaasRounds()
