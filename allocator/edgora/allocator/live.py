"""From a round of the market to the assignment table and back (market.md 4).

Everything the ledger will check is computed here as the ledger computes it: in integers, from the instance alone.

    weight_ij = max(fuelLimit_j, ceil(min(capacity_i, credit_i) / slots_i))     room_i = min(capacity_i, credit_i) - used_i
    T_ij      = ceil(1000 fuelLimit_j / speed_i) + (i != o) ceil(1000 inputOctets_j / uplink_o)
                + ceil(1000 outputOctets_j / uplink_i)                                                              ms
    ok_ij     = price_j >= ask_i  and  weight_ij <= room_i  and  now + T_ij + slack <= deadline_j,
                o live where i != o, and i not excluded for j
    W_ij      = 1000 fuelLimit_j (price_j - ask_i) - (i != o) forward_o ceil(inputOctets_j / 1024)                 wei

The same formulas as `market.rules.round_table`, vectorised: a full round of 256 tasks and 64 servers takes 4 ms
instead of 60, which would be the whole budget. A property test holds the two together.

Solvers see W / max W in floats; their plan is completed with what else fits (pairs with W = 0 earn nothing but serve
a user, and more pairs win ties), its value is recomputed in integers and its bound rounded up. A proposal that the
ledger would refuse is never sent: `propose` answers with the reason instead.
"""

import time
from fractions import Fraction
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.mta.table import REJECTED, Plan, Table, completed
from edgora.allocator.search import Found
from edgora.market.rules import MAX_POLICY_OCTETS
from edgora.wire.codec import encode, to_u128
from edgora.wire.errors import EdgoraError, Refused
from edgora.wire.hashing import keccak
from edgora.wire.market import Allocation, Instance, Reason
from edgora.wire.units import Digest

__all__ = ["LivePolicy", "LiveRound", "propose"]

_BOUND_UP = Fraction(1_000_000_001, 1_000_000_000)
"""Factor on a float bound before it is rounded up to wei (market.md 4)."""
_RESOLUTION = 10**9
"""Plans closer than this share of their value are one to a solver in floats."""
_OVERHEAD = 0.15
"""Share of the budget kept back for sending the answer, beside the time to check and complete the plan."""


class LivePolicy(Protocol):
    """A policy as `registry.policy` gives it."""

    name: str

    def propose(self, instance: object, budget_s: float) -> Found: ...


class LiveRound:
    """A round's instance as arrays: servers i by id, tasks j in arrival order."""

    def __init__(self, instance: Instance) -> None:
        for server in instance.servers:
            if not (server.speed and server.slots and server.uplink):
                detail = f"server {server.id} of round {instance.round} has speed, slots or uplink 0"
                raise Refused(detail, field="servers")
        self.instance = instance
        self.digest: Digest = keccak(encode(instance))
        tasks, servers = instance.tasks, instance.servers
        index = {server.id: i for i, server in enumerate(servers)}
        source = np.array([index.get(task.source, REJECTED) for task in tasks], dtype=np.int64)
        fuel = np.array([task.fuel_limit for task in tasks], dtype=np.int64)
        held = np.array([min(server.capacity, server.credit) for server in servers], dtype=np.int64)
        slots = np.array([server.slots for server in servers], dtype=np.int64)
        used = np.array([server.used for server in servers], dtype=np.int64)

        self.weight: NDArray[np.int64] = np.maximum(fuel[None, :], _ceil(held, slots)[:, None])
        """Fuel that the pair takes of the server's room (n,m)."""
        self.room: NDArray[np.int64] = held - used
        """Fuel each server can still take on (n,); negative after a loss of credit."""
        self.home: Plan = source
        """Server that holds each task's input (m,), REJECTED where it is not in the round."""
        own = np.arange(len(servers))[:, None] == source[None, :]
        self.time_ms: NDArray[np.int64] = self._times(own, source, fuel)
        """T_ij (n,m); of a remote pair whose source is not live, without the forwarding."""
        price = np.array([task.price for task in tasks], dtype=np.int64)
        ask = np.array([server.ask for server in servers], dtype=np.int64)
        deadline = np.array([task.deadline_ms for task in tasks], dtype=np.int64)
        self.ok: NDArray[np.bool_] = (
            (price[None, :] >= ask[:, None])
            & (self.weight <= self.room[:, None])
            & (instance.now_ms + self.time_ms + instance.slack_ms <= deadline[None, :])
            & (own | (source >= 0)[None, :])
        )
        """Whether the market accepts the pair (n,m)."""
        for j, task in enumerate(tasks):
            self.ok[[index[i] for i in task.excluded if i in index], j] = False
        self.worth: NDArray[np.int64] | NDArray[np.object_] = self._worth(own, source, fuel, price, ask)
        """W_ij in wei (n,m), exact: Python integers where 64 bits do not hold them."""

    def _times(self, own: NDArray[np.bool_], source: NDArray[np.int64], fuel: NDArray[np.int64]) -> NDArray[np.int64]:
        tasks, servers = self.instance.tasks, self.instance.servers
        speed = np.array([server.speed for server in servers], dtype=np.int64)
        uplink = np.array([server.uplink for server in servers], dtype=np.int64)
        inputs = np.array([task.input_octets for task in tasks], dtype=np.int64)
        outputs = np.array([task.output_octets for task in tasks], dtype=np.int64)
        forward = np.zeros(len(tasks), dtype=np.int64)
        known = source >= 0
        forward[known] = _ceil(1000 * inputs[known], uplink[source[known]])
        compute = _ceil(1000 * fuel[None, :], speed[:, None])
        answer = _ceil(1000 * outputs[None, :], uplink[:, None])
        times: NDArray[np.int64] = compute + np.where(own, 0, forward[None, :]) + answer
        return times

    def _worth(
        self,
        own: NDArray[np.bool_],
        source: NDArray[np.int64],
        fuel: NDArray[np.int64],
        price: NDArray[np.int64],
        ask: NDArray[np.int64],
    ) -> NDArray[np.int64] | NDArray[np.object_]:
        tasks, servers = self.instance.tasks, self.instance.servers
        cost = [
            0 if o < 0 else servers[o].forward * -(-task.input_octets // 1024)
            for task, o in zip(tasks, source.tolist(), strict=True)
        ]
        most = 1000 * max((t.fuel_limit for t in tasks), default=0) * max([*price.tolist(), *ask.tolist(), 0])
        kind: type[Any] = np.int64 if most + max(cost, default=0) < 2**63 else np.object_
        margin: Any = price.astype(kind)[None, :] - ask.astype(kind)[:, None]
        worth: NDArray[np.int64] | NDArray[np.object_]
        worth = 1000 * fuel.astype(kind)[None, :] * margin - np.where(own, 0, np.array(cost, dtype=kind)[None, :])
        return worth

    @cached_property
    def wanted(self) -> NDArray[np.bool_]:
        """Pairs that the market accepts and that lose no money."""
        wanted: NDArray[np.bool_] = self.ok & (self.worth >= 0).astype(bool)
        return wanted

    @cached_property
    def scale(self) -> int:
        """Max W over the wanted pairs, in wei; 1 if it is 0."""
        wanted = self.worth[self.wanted]
        return max(1, int(wanted.max())) if len(wanted) else 1

    @cached_property
    def table(self) -> Table:
        """What solvers see: W / max W in floats, weights and room in exact integers."""
        value = self.worth.astype(np.float64) / float(self.scale)
        room = np.maximum(self.room, 0)  # below 0, too, nothing fits
        return Table(value, self.weight, room, self.wanted, self.home)

    @cached_property
    def greedy(self) -> Plan:
        """The market's built-in plan, the floor of every proposal: all wanted pairs, best first, what fits."""
        return self.complete(np.full(len(self.instance.tasks), REJECTED, dtype=np.int64))

    def complete(self, plan: Plan) -> Plan:
        """The plan with every rejected task served that still can be, by the rule of the built-in greedy."""
        return completed(plan, self.worth, self.weight, self.table.left(plan), self.wanted)

    def value(self, plan: Plan) -> int:
        """Wei that the plan is worth, exactly."""
        tasks = np.flatnonzero(plan != REJECTED)
        return sum(self.worth[plan[tasks], tasks].tolist())

    def pairs(self, plan: Plan) -> tuple[tuple[int, int], ...]:
        """(task index, server id), ascending."""
        return tuple((j, self.instance.servers[i].id) for j, i in enumerate(plan.tolist()) if i != REJECTED)

    def bound(self, found: float, value: int) -> int:
        """A float bound of the table in wei, rounded up, never below a value that was reached."""
        return max(value, -int(-Fraction(found) * self.scale * _BOUND_UP // 1))


def propose(instance: Instance, policy: LivePolicy, budget_s: float, *, floor_bps: int = 10_000) -> Allocation | Reason:
    """One policy's proposal for a round, or why it makes none. Takes about budget_s seconds of wall time, or less.

    floor_bps is the market's: a proposal worth less than this share of the built-in greedy's would be refused.
    """
    started = time.monotonic()
    if len(policy.name.encode()) > MAX_POLICY_OCTETS:
        return Reason("FAILED", f"{policy.name}: name over {MAX_POLICY_OCTETS} octets", (instance.round,))
    try:
        live = LiveRound(instance)
        if not live.wanted.any():
            return Reason("EMPTY", policy.name, (instance.round, len(instance.tasks), len(instance.servers)))
        begun = time.monotonic()
        floor = live.value(live.greedy)
        # What follows the policy's answer costs about what greedy did: one more pass over the pairs.
        reserve_s = budget_s * _OVERHEAD + (time.monotonic() - begun)
        left_s = started + budget_s - reserve_s - time.monotonic()
        found = policy.propose(live, max(left_s, 0.0))
    except EdgoraError as error:
        return Reason("FAILED", f"{policy.name}: {error.detail}"[:300], (instance.round,))
    if not _in_range(found.plan, live) or not live.table.allows(found.plan):
        return Reason("NOT_ALLOWED", policy.name, (instance.round,))
    plan = live.complete(found.plan)
    value = live.value(plan)
    if 0 < floor - value <= floor // _RESOLUTION:  # a solver in floats cannot tell the two apart
        plan, value = live.greedy, floor
    if value * 10_000 < floor * floor_bps:
        return Reason("BELOW_FLOOR", policy.name, (instance.round, value * 1_000_000 // floor, floor_bps * 100))
    return Allocation(
        round=instance.round,
        digest=live.digest,
        pairs=live.pairs(plan),
        value=to_u128(value),
        bound=None if found.bound is None else to_u128(live.bound(found.bound, value)),
        policy=policy.name,
        solver_ms=min(int((time.monotonic() - started) * 1000.0), 2**32 - 1),
    )


def _in_range(plan: Plan, live: LiveRound) -> bool:
    tasks, servers = len(live.instance.tasks), len(live.instance.servers)
    return plan.shape == (tasks,) and bool(((plan >= REJECTED) & (plan < servers)).all())


def _ceil(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """ceil(a / b) of integers."""
    quotient: NDArray[np.int64] = -(-a // b)
    return quotient
