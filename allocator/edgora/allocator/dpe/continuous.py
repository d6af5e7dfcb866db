"""The continuous part: bandwidths, powers and clocks of a fixed association, to proven optimality (F3-F6).

Within one server, users compete for B and F alone, so the problem falls apart into one problem per server: a *group*
is a set of users on a server. Many groups are solved at once, as flat arrays with one entry a member: those of one
association, those of all candidate moves of a search, or all subsets of all servers.

A group's optimum is the only point at which, in logarithms, every member's marginal values equal the prices and both
budgets are used up (F5); where all clocks fit at g* (F6), mu = 0 and the clocks stand. `newton` knows how each member
follows the prices; the two prices follow from sums over the group.

Certificate: linearised at any point, with the greatest marginal values of the group as prices, F5 bounds the group's
worth from above. It is tight to rounding at the optimum and valid everywhere.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.dpe.model import Decision, Model
from edgora.allocator.dpe.newton import GAIN_2, GAIN_B, ROWS, TAKEN_B, WORTH
from edgora.allocator.dpe.pairs import ETA, G_STAR, TAU, C, Pairs, log_snr_at

__all__ = ["Continuous", "Groups", "Solved", "continuous", "decision", "solve_groups"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

TOLERANCE = 1e-9
"""Relative KKT residual of every member at which the last step is taken."""
LIMIT = 50
"""Newton steps; 4 to 9 are usual, 30 where users starve."""
_LEVELS, _EASING, _NEAR = 50, 6, 0.05
"""Of the slow walk for groups that are not done by then: its levels, most steps on each, residual that ends a level."""
_ROUNDING = 1e-8
"""Relative excess over a budget up to which a point counts as Newton's last."""
_FEW = 400
"""Up to this many members, groups that are done stay with the others: leaving them out costs more than it saves."""
_PATIENCE = 12
"""Steps before damping: a user that is worth almost nothing, along a ray on which V is almost linear, can otherwise
jump over its optimum and back for ever."""


class Groups(NamedTuple):
    """Sets of users, each on one server; members of a group stand together."""

    columns: Indices
    """Pair n M + m of every member."""
    start: Indices
    """Where each group begins."""
    server: Indices
    """The server of each group."""

    @classmethod
    def of(cls, assoc: Indices, servers: int) -> "Groups":
        """The groups of an association, by server; empty servers have none."""
        order = np.argsort(assoc, kind="stable")
        server, start = np.unique(assoc[order], return_index=True)
        return cls(order * servers + assoc[order], start, server)


class Solved(NamedTuple):
    """The optimum of each group; arrays by group, but `b` and `point` by member."""

    b: Floats
    point: Floats
    """l, g1, g2 of every member (3, members)."""
    prices: Floats
    """Of bandwidth, and of the clock: 0 where C8 is slack (2, groups)."""
    worth: Floats
    """Server part, at a point within both budgets."""
    bound: Floats
    """Certified upper bound on the server part."""
    residual: Floats
    """Of the KKT system, relative to the worth of the server's resources."""
    steps: int


@dataclass(frozen=True, slots=True)
class Continuous:
    """The best decision for an association."""

    decision: Decision
    worth: float
    """Server part."""
    bound: float
    """Certified upper bound on the server part of any decision with this association."""
    residual: float
    lam: Floats
    """Price of bandwidth (M,); 0 on empty servers."""
    mu: Floats
    """Price of the clock (M,)."""
    steps: int


def continuous(model: Model, assoc: Indices, pairs: Pairs | None = None) -> Continuous:
    """The optimal continuous variables of this association (F1, F2, F5)."""
    e = model.instance
    pairs = pairs or Pairs.of(model)
    groups = Groups.of(assoc, e.M)
    solved = solve_groups(pairs, groups)
    prices = np.zeros((2, e.M))
    prices[:, groups.server] = solved.prices
    return Continuous(
        decision(model, groups.columns, solved.b, solved.point), float(solved.worth.sum()), float(solved.bound.sum()),
        float(solved.residual.max()), prices[0], prices[1], solved.steps,
    )  # fmt: skip


def decision(model: Model, columns: Indices, b: Floats, point: Floats) -> Decision:
    """Every user's pair, bandwidth and point as a decision."""
    e = model.instance
    order = np.argsort(columns)  # by user: each has one pair
    users, assoc = np.divmod(columns[order], e.M)
    (log_snr, g1, g2), b = point[:, order], b[order]
    p = np.minimum(e.p_max, np.expm1(log_snr) * b / model.snr_hz[users, assoc])
    return Decision(assoc, np.full(e.N, e.phi_max), g1 / (g1 + g2), b, p, model.best_fu.copy(), g1 + g2)


class _Active:
    """The groups that Newton still works on, compacted as others converge."""

    def __init__(self, pairs: Pairs, groups: Groups, point: Floats | None, prices: Floats | None = None) -> None:
        self.pairs = pairs
        self.rows = pairs.rows.take(groups.columns, axis=1)
        self.start, self.server = groups.start, groups.server
        members = len(groups.columns)
        self.size = np.empty_like(groups.start)
        self.size[:-1], self.size[-1] = groups.start[1:] - groups.start[:-1], members - groups.start[-1]
        self.reach, self.course = np.ones(members), np.zeros(members)
        self._shape()
        self.prices = np.zeros((2, 0)) if prices is None else prices
        if point is None:
            self.point = np.empty((3, members))
            shares = (self.budgets / self.size)[:, self.of]
            self.point[0] = log_snr_at(shares[0], self.rows)
            root = np.sqrt(self.rows[ETA])
            clocks = root / (root[0] + root[1]) * shares[1]
            self.point[1:] = np.minimum(clocks, 0.97 * self.rows[G_STAR])  # below g*, where V still bends
        else:
            self.point = point.copy()
        if self.slack.any():
            stands = self.slack[self.of]
            self.point[1:, stands] = self.rows[G_STAR, stands]

    def _shape(self) -> None:
        self.of = np.repeat(np.arange(len(self.start)), self.size)
        self.budgets = self.pairs.budgets[:, self.server]
        self.slack = 2.0 * self.size * self.pairs.g_star[self.server] <= self.budgets[1]
        self.probed, self.moved = np.empty((ROWS, len(self.of))), np.empty((2, len(self.start)))
        self.off = np.empty(len(self.start))

    def only(self, keep: NDArray[np.bool_]) -> None:
        """Leave the other groups out."""
        members = np.flatnonzero(keep[self.of])
        self.rows, self.point = self.rows.take(members, axis=1), self.point.take(members, axis=1)
        self.reach, self.course = self.reach[members], self.course[members]
        self.prices, self.server, self.size = self.prices[:, keep], self.server[keep], self.size[keep]
        self.start = np.cumsum(self.size) - self.size
        self._shape()

    def step(self, *, damped: bool) -> Floats:
        """One Newton step of all groups; the greatest relative KKT residual of each before it.

        Damped, a member whose step turns back against the last one goes less far from then on.
        """
        kernels, of, probed = self.pairs.kernels, self.of, self.probed
        if not self.prices.size:  # first prices: what the members' marginal values are worth in total
            nothing = np.zeros(len(of))
            kernels.probe(self.rows, self.pairs.w_t, self.point, nothing, nothing, probed)
            gains = np.add.reduceat(probed[GAIN_B : GAIN_2 + 1], self.start, axis=1)
            gains[1] = np.where(self.slack, 0.0, np.maximum(gains[1] + gains[2], 0.0))
            self.prices = gains[:2] / self.budgets
        lam, mu = self.prices.take(of, axis=1)
        kernels.probe(self.rows, self.pairs.w_t, self.point, lam, mu, probed)
        kernels.balance(probed, self.start, self.budgets, self.slack, self.prices, self.moved, self.off)
        dlam, dmu = self.moved.take(of, axis=1)
        kernels.advance(self.rows, probed, self.point, dlam, dmu, self.reach, self.course, damped)
        self.prices = self.prices + self.moved
        return self.off

    def ease(self) -> Floats:
        """The point at which a slow walk ends: every user's cost starts far above its own and comes down by halves.

        High costs make V strictly concave and keep all users alive; starving ones then fade one after the other.
        """
        own = self.rows[TAU].copy()
        self.step(damped=False)
        above = 10.0 * self.rows[C] / self.probed[WORTH]
        for _ in range(_LEVELS):
            above *= 0.5
            self.rows[TAU] = own + above
            for _ in range(_EASING):
                if (self.step(damped=False) <= _NEAR).all():
                    break
        self.rows[TAU] = own
        for _ in range(LIMIT):
            if (self.step(damped=True) <= TOLERANCE).all():
                break
        return self.point


@np.errstate(all="ignore")  # both sides of every `where` are computed
def solve_groups(pairs: Pairs, groups: Groups, start: Floats | None = None) -> Solved:
    """The optimum of every group; `start`: the members' points to begin at, else equal shares."""
    active = _Active(pairs, groups, start)
    count, steps = len(groups.start), 0
    prices, point = np.empty((2, count)), np.empty((3, len(groups.columns)))
    which, members = np.arange(count), np.arange(len(groups.columns))
    while True:
        steps += 1
        done = active.step(damped=steps > _PATIENCE) <= TOLERANCE
        left = len(done) - int(np.count_nonzero(done))
        if left == 0 and len(which) == count:
            return _settled(active, groups.columns, active.prices, active.point, steps)
        if left == 0 or steps == LIMIT or (2 * left <= len(which) and len(members) > _FEW):
            point[:, members], prices[:, which] = active.point, active.prices
            if left == 0:
                break
            members, which = members[~done[active.of]], which[~done]
            active.only(~done)
            if steps == LIMIT:
                eased = _Active(pairs, Groups(groups.columns[members], active.start, active.server), None)
                point[:, members], prices[:, which] = eased.ease(), eased.prices
                break
    return _settled(_Active(pairs, groups, point, prices), groups.columns, prices, point, steps)


def _settled(active: _Active, columns: Indices, prices: Floats, point: Floats, steps: int) -> Solved:
    """Put a point into both budgets exactly, and value and certify it."""
    of, start, budgets, probed, pairs = active.of, active.start, active.budgets, active.probed, active.pairs
    lam, mu = prices.take(of, axis=1)
    for _ in range(2):
        pairs.kernels.probe(active.rows, pairs.w_t, point, lam, mu, probed)
        scale = budgets / np.add.reduceat(probed[:2], start, axis=1)
        np.minimum(scale[1], 1.0, out=scale[1])
        scale_b, scale_f = scale.take(of, axis=1)
        if np.abs(scale - 1.0)[:, ~active.slack].max(initial=0.0) <= _ROUNDING >= np.abs(scale[0] - 1.0).max():
            break
        # Newton gave up on a group.
        point = np.vstack((log_snr_at(probed[TAKEN_B] * scale_b, active.rows), point[1:] * scale_f))
    # What is left to move is rounding: to first order the worth follows the gains.
    worth, gain_b, gain_1, gain_2 = probed[WORTH : GAIN_2 + 1]
    gain_f = gain_1 + gain_2
    b, paid_1, paid_2 = probed[TAKEN_B], mu * point[1], mu * point[2]
    greatest = np.maximum.reduceat(
        np.array([
            gain_b / b,
            np.maximum(gain_1 / point[1], gain_2 / point[2]),
            np.maximum(np.abs(gain_b - lam * b), np.maximum(np.abs(gain_1 - paid_1), np.abs(gain_2 - paid_2))),
        ]), start, axis=1,
    )  # fmt: skip
    moved = worth + gain_b * (scale_b - 1.0) + gain_f * (scale_f - 1.0)
    wanted = None if pairs.wanted is None else pairs.wanted.take(columns)
    if wanted is not None:  # what is worth nothing was given a trifle, so that it has an optimum: it does not count
        moved *= wanted
    total, bare = np.add.reduceat(np.array([moved, worth - gain_b - gain_f]), start, axis=1)
    bound = greatest[0] * budgets[0] + np.maximum(greatest[1], 0.0) * budgets[1] + bare
    if wanted is not None:
        bound = np.where(np.maximum.reduceat(wanted, start) > 0.0, bound, 0.0)
    residual = greatest[2] / (prices * budgets).sum(axis=0)
    point = np.vstack((point[:1], point[1:] * scale_f))
    return Solved(b * scale_b, point, prices, total, np.maximum(bound, total), residual, steps)
