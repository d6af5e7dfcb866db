"""What an MTA instance means: derived quantities, constraints, utilities, rewards (mta.md 3-6).

Every number that is reported about a plan comes from here: a plan is audited (length, index range, C1, C2) and then
valued by the formulas below, never by its solver's own count. Comparisons are `<=` with a relative tolerance of 1e-9.

    settled utility   the objective: what the servers earn together; the fee is a transfer and cancels
    literal utility   the paper's printed sum, which also pays the origins of rejected tasks; reproduction only
    reward sum        what the paper plots: table entries of the chosen actions; not the objective
    settlement        a plan's admissible part, task by task in arrival order; compares plans that break a constraint

Arrays are (n,m) with server first, computed on first use and kept. What a plan is worth is computed from its own pairs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.mta.instance import Instance
from edgora.allocator.mta.table import REJECTED, Plan, Table
from edgora.allocator.radio import shannon

__all__ = ["TOLERANCE", "Audit", "Model"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]

TOLERANCE = 1e-9
"""Relative tolerance of C1 and C2 (mta.md 4)."""

_ROOM_TOLERANCE = 0.99 * TOLERANCE
"""Room of the table: below TOLERANCE by more than the rounding of any sum of weights, so that what a table allows
always passes the audit, which adds up mu_ij instead of D_j."""

_BLOCK_PAIRS = 1 << 15
"""Pairs of a block of the table."""
_EXACT = 2**53
"""Up to here doubles hold every integer."""


@dataclass(frozen=True, slots=True)
class Audit:
    """Whether a plan is allowed, how far it is from each limit, and why not."""

    feasible: bool
    capacity_slack: Floats
    """mu_i - sum_j mu_ij x_ij, cycles (n,); empty if the plan has no valid shape."""
    deadline_slack: Floats
    """tau_j - T_ij, time units (m,); NaN where the task is rejected."""
    violations: tuple[str, ...]
    """One sentence each; empty exactly when feasible."""


class Pairs:
    """Quantities of pairs (servers[.], tasks[.]), element by element of the two index arrays as they broadcast.

    One set of formulas for the whole (n,m) grid, for a block of it, and for the pairs of one plan.
    """

    def __init__(self, model: "Model", servers: Indices, tasks: Indices) -> None:
        self._model, self._e = model, model.instance
        self._i, self._j = servers, tasks

    @cached_property
    def cycles(self) -> Floats:
        """mu_ij = D_j theta_i. By the product first: integer data can then meet a deadline exactly."""
        return self._e.theta[self._i] * self._e.size[self._j]

    @cached_property
    def compute_energy(self) -> Floats:
        """Ecomp_ij = alpha_i mu_ij f_i^2, in money."""
        energy: Floats = self._e.arch[self._i] * self.cycles * (self._e.freq**2)[self._i]
        return energy

    @cached_property
    def compute_time(self) -> Floats:
        """Tcomp_ij = mu_ij / f_i."""
        return self.cycles / self._e.freq[self._i]

    @cached_property
    def own(self) -> Bools:
        """Whether i is the origin of j."""
        own: Bools = self._i == self._e.origin[self._j]
        return own

    @cached_property
    def time(self) -> Floats:
        """T_ij: computing, and sending unless the origin executes."""
        return self.compute_time + np.where(self.own, 0.0, self._model.send_time[self._j])

    @cached_property
    def feasible(self) -> Bools:
        """Whether the pair alone meets capacity and deadline."""
        fits = _within(self.cycles, self._e.capacity[self._i])
        return fits & _within(self.time, self._e.deadline[self._j])

    @cached_property
    def payment(self) -> Floats:
        """p_j mu_ij, what the user pays if i executes j."""
        payment: Floats = self._e.price[self._j] * self.cycles
        return payment

    @cached_property
    def value(self) -> Floats:
        """W_ij, what executing j on i adds to the settled utility."""
        return self.payment - self.compute_energy - np.where(self.own, 0.0, self._model.send_energy[self._j])

    @cached_property
    def reward(self) -> Floats:
        """R_ij of Algorithm 1 (mta.md 6), T_ij taken as if 1_ij = 1."""
        fee = self._e.fee
        consolation = fee * self.payment - self._model.send_energy[self._j]
        own = np.where(self.feasible, self.payment - self.compute_energy, consolation)
        other = np.where(self.feasible, (1.0 - fee) * self.payment - self.compute_energy, 0.0)
        reward: Floats = np.where(self.own, own, other)
        return reward


class Model:
    """The formulas of one instance."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._grid = self.pairs(np.arange(instance.n)[:, None], np.arange(instance.m)[None, :])

    def pairs(self, servers: Indices, tasks: Indices) -> Pairs:
        return Pairs(self, servers, tasks)

    # ---- section 3 ---------------------------------------------------------------------------------------------------

    @cached_property
    def rate(self) -> Floats:
        """r_i = B_i log2(1 + H_i G_i / delta^2), data units per time unit (n,)."""
        e = self.instance
        return shannon(e.bandwidth, e.power * e.gain / e.noise**2)

    @cached_property
    def send_time(self) -> Floats:
        """Tcomm_j = D_j / r_o(j): sent by the origin only (m,)."""
        return self.instance.size / self.rate[self.instance.origin]

    @cached_property
    def send_energy(self) -> Floats:
        """Ecomm_j = H_o(j) Tcomm_j, in money (m,)."""
        energy: Floats = self.instance.power[self.instance.origin] * self.send_time
        return energy

    @property
    def cycles(self) -> Floats:
        return self._grid.cycles

    @property
    def compute_energy(self) -> Floats:
        return self._grid.compute_energy

    @property
    def compute_time(self) -> Floats:
        return self._grid.compute_time

    @property
    def own(self) -> Bools:
        return self._grid.own

    @property
    def time(self) -> Floats:
        return self._grid.time

    # ---- sections 4, 5 -----------------------------------------------------------------------------------------------

    @property
    def feasible(self) -> Bools:
        return self._grid.feasible

    @property
    def payment(self) -> Floats:
        return self._grid.payment

    @property
    def value(self) -> Floats:
        return self._grid.value

    @property
    def reward(self) -> Floats:
        return self._grid.reward

    @cached_property
    def table(self) -> Table:
        """The instance as an assignment table: weight D_j on every server, room mu_i / theta_i (mta.md 9).

        The formulas of `Pairs`, in the same order of operations, filled in place a few servers at a time: what it takes
        to compute a value stays in the processor's cache. Every pair is remote first; the origins' own then replace theirs.
        """
        e = self.instance
        value, feasible = np.empty((e.n, e.m)), np.empty((e.n, e.m), dtype=np.bool_)
        height = max(1, _BLOCK_PAIRS // max(1, e.m))
        cycles, scratch = np.empty((min(height, e.n), e.m)), np.empty((min(height, e.n), e.m))
        capacity, deadline = e.capacity * (1.0 + TOLERANCE), e.deadline * (1.0 + TOLERANCE)
        for at in range(0, e.n, height):
            rows = slice(at, min(at + height, e.n))
            block, fits = value[rows], feasible[rows]
            mu, other = cycles[: len(block)], scratch[: len(block)]
            np.multiply(e.theta[rows, None], e.size, out=mu)
            np.multiply(e.price, mu, out=block)
            np.multiply(e.arch[rows, None], mu, out=other)
            other *= (e.freq**2)[rows, None]
            block -= other
            block -= self.send_energy
            np.divide(mu, e.freq[rows, None], out=other)
            other += self.send_time
            np.less_equal(other, deadline, out=fits)
            fits &= mu <= capacity[rows, None]
        every = np.arange(e.m)
        at_home = self.pairs(e.origin, every)
        value[e.origin, every], feasible[e.origin, every] = at_home.value, at_home.feasible
        room = e.capacity * (1.0 + _ROOM_TOLERANCE) / e.theta
        if bool((e.size == np.floor(e.size)).all()) and math.fsum(e.size) <= _EXACT:
            total = int(e.size.sum())
            whole = np.minimum(np.floor(room), total).astype(np.int64)  # more room than all tasks need changes nothing
            return Table(value, e.size.astype(np.int64), whole, feasible)
        return Table(value, e.size, room, feasible)

    # ---- a plan ------------------------------------------------------------------------------------------------------

    def audit(self, plan: Sequence[int] | Plan) -> Audit:
        """Check length, index range, C1 and C2."""
        e, nothing = self.instance, np.empty(0)
        entries = np.asarray(plan)
        if entries.shape != (e.m,):
            return Audit(False, nothing, nothing, (f"plan has shape {entries.shape}: must hold {e.m} entries",))
        if e.m and entries.dtype.kind not in "iu":
            return Audit(False, nothing, nothing, (f"plan holds {entries.dtype}: must hold integers",))
        wrong = np.flatnonzero((entries < REJECTED) | (entries >= e.n))
        if len(wrong):
            at = int(wrong[0])
            sentence = f"plan[{at}] is {int(entries[at])}: must be within -1..{e.n - 1}"
            return Audit(False, nothing, nothing, (sentence,))
        a = entries.astype(np.int64)
        tasks = np.flatnonzero(a != REJECTED)
        chosen = self.pairs(a[tasks], tasks)
        used: Floats = np.bincount(a[tasks], weights=chosen.cycles, minlength=e.n).astype(np.float64)
        needed = np.full(e.m, np.nan)
        needed[tasks] = chosen.time
        over = np.flatnonzero(~_within(used, e.capacity))
        late = tasks[~_within(needed[tasks], e.deadline[tasks])]
        violations = [
            f"C1: server {i} would run {used[i]:.12g} cycles of {e.capacity[i]:.12g}" for i in over.tolist()
        ] + [
            f"C2: task {j} would take {needed[j]:.12g} on server {a[j]}, allowed {e.deadline[j]:.12g}"
            for j in late.tolist()
        ]
        return Audit(not violations, e.capacity - used, e.deadline - needed, tuple(violations))

    def settled_utility(self, plan: Plan) -> float:
        """U(a), the objective, of a plan that passes the audit."""
        return math.fsum(self._chosen(plan).value)

    def literal_utility(self, plan: Plan) -> float:
        """U_lit(a): every origin of a task that it does not execute gets lambda p_j mu_oj - Ecomm_j, done or not."""
        every = np.arange(self.instance.m)
        at_home, chosen = self.pairs(self.instance.origin, every), self._chosen(plan)
        consolation = self.instance.fee * at_home.payment - self.send_energy
        paid = np.where(chosen.own, 1.0, 1.0 - self.instance.fee) * chosen.payment - chosen.compute_energy
        own = np.flatnonzero(plan == self.instance.origin)
        return math.fsum(np.concatenate((consolation, paid, -consolation[own])))

    def reward_sum(self, plan: Plan) -> float:
        """TS(a): rewards of the chosen actions, whether or not they can be executed."""
        return math.fsum(self._chosen(plan).reward)

    def _chosen(self, plan: Plan) -> Pairs:
        """The plan's pairs, in task order."""
        tasks = np.flatnonzero(plan != REJECTED)
        return self.pairs(plan[tasks], tasks)

    def settle(self, plan: Plan) -> Plan:
        """The admissible part: in arrival order, a task is admitted when its pair is feasible and still fits."""
        e = self.instance
        admitted = np.full(e.m, REJECTED, dtype=np.int64)
        used = [0.0] * e.n
        chosen, tasks = self._chosen(plan), np.flatnonzero(plan != REJECTED)
        for j, i, feasible, cycles in zip(
            tasks.tolist(), plan[tasks].tolist(), chosen.feasible.tolist(), chosen.cycles.tolist(), strict=True
        ):
            after = used[i] + cycles
            if feasible and after <= e.capacity[i] * (1.0 + TOLERANCE):
                admitted[j], used[i] = i, after
        return admitted

    def server_utility(self, plan: Plan) -> Floats:
        """What each server earns in the settled sense (n,); adds up to the settled utility."""
        e = self.instance
        chosen, tasks = self._chosen(plan), np.flatnonzero(plan != REJECTED)
        fee = np.where(chosen.own, 0.0, e.fee * chosen.payment)
        earned = np.bincount(plan[tasks], weights=chosen.payment - fee - chosen.compute_energy, minlength=e.n)
        sent = np.where(chosen.own, 0.0, self.send_energy[tasks])
        brokered = np.bincount(e.origin[tasks], weights=fee - sent, minlength=e.n)
        return (earned + brokered).astype(np.float64)


def _within(amount: Floats, limit: Floats) -> Bools:
    """Amount <= limit, with the relative tolerance of mta.md 4; limits are >= 0."""
    within: Bools = amount <= limit * (1.0 + TOLERANCE)
    return within
