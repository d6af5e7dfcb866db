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
from edgora.allocator.dpe.newton import (
    GAIN_2,
    GAIN_B,
    OFF,
    ROWS,
    SUMS,
    TAKEN_B,
    WORTH,
)  # fmt: skip
from edgora.allocator.dpe.pairs import ETA, G_STAR, TAU, C, Pairs, log_snr_at

__all__ = ["Continuous", "Groups", "Solved", "Warm", "continuous", "decision", "solve_groups"]

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
_STIFF = 1e-12
"""Least response of a group to a price, relative: where all members are at their least, the price still falls."""
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


class Warm(NamedTuple):
    """Points and prices: where Newton starts, and where it ends."""

    point: Floats
    """l, g1, g2 of every member (3, members)."""
    lam: Floats
    """Price of bandwidth by group."""
    mu: Floats
    """Price of the clock by group; 0 where C8 is slack."""


class Solved(NamedTuple):
    """The optimum of each group; arrays by group, but `b` and the point by member."""

    b: Floats
    at: Warm
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
    lam, mu = np.zeros(e.M), np.zeros(e.M)
    lam[groups.server], mu[groups.server] = solved.at.lam, solved.at.mu
    return Continuous(
        decision(model, groups, solved), float(solved.worth.sum()), float(solved.bound.sum()),
        float(solved.residual.max()), lam, mu, solved.steps,
    )  # fmt: skip


def decision(model: Model, groups: Groups, solved: Solved) -> Decision:
    """The groups of an association and their optimum as a decision."""
    e = model.instance
    users, servers = np.divmod(groups.columns, e.M)
    assoc = np.zeros(e.N, dtype=np.int64)
    assoc[users] = servers
    b, p, fs, gamma = (np.zeros(e.N) for _ in range(4))
    log_snr, g1, g2 = solved.at.point
    b[users], fs[users], gamma[users] = solved.b, g1 + g2, g1 / (g1 + g2)
    p[users] = np.minimum(e.p_max[users], np.expm1(log_snr) * solved.b / model.snr_hz[users, servers])
    return Decision(assoc, np.full(e.N, e.phi_max), gamma, b, p, model.best_fu.copy(), fs)


class _Active:
    """The groups that Newton still works on, compacted as others converge."""

    def __init__(self, pairs: Pairs, groups: Groups, warm: Warm | None) -> None:
        self.pairs = pairs
        self.rows = np.take(pairs.rows, groups.columns, axis=1)
        self.start, self.server = groups.start, groups.server
        self.size = np.diff(groups.start, append=len(groups.columns))
        self.reach, self.course = np.ones(len(groups.columns)), np.zeros(len(groups.columns))
        self._shape()
        stands = self.slack[self.of]
        if warm is None:
            self.point = np.empty((3, len(self.of)))
            self.point[0] = log_snr_at((self.B / self.size)[self.of], self.rows)
            root = np.sqrt(self.rows[ETA])
            clocks = root / root.sum(axis=0) * (self.F / self.size)[self.of]
            self.point[1:] = np.minimum(clocks, 0.97 * self.rows[G_STAR])  # below g*, where V still bends
            self.lam = self.mu = np.zeros(0)
        else:
            self.point, self.lam, self.mu = warm.point.copy(), warm.lam, np.where(self.slack, 0.0, warm.mu)
        self.point[1:, stands] = self.rows[G_STAR, stands]

    def _shape(self) -> None:
        pairs = self.pairs
        self.of = np.repeat(np.arange(len(self.start)), self.size)
        self.B, self.F = pairs.B[self.server], pairs.F[self.server]
        self.slack = 2.0 * self.size * pairs.g_star[self.server] <= self.F
        self.any_slack = bool(self.slack.any())
        self.probed = np.empty((ROWS, len(self.of)))

    def only(self, keep: NDArray[np.bool_]) -> None:
        """Leave the other groups out."""
        members = np.flatnonzero(keep[self.of])
        self.rows, self.point = np.take(self.rows, members, axis=1), np.take(self.point, members, axis=1)
        self.reach, self.course = self.reach[members], self.course[members]
        self.lam, self.mu, self.server, self.size = self.lam[keep], self.mu[keep], self.server[keep], self.size[keep]
        self.start = np.cumsum(self.size) - self.size
        self._shape()

    def step(self, *, damped: bool) -> Floats:
        """One Newton step of all groups; the greatest relative KKT residual of each before it.

        Damped, a member whose step turns back against the last one goes less far from then on.
        """
        of, probed, w_t = self.of, self.probed, self.pairs.w_t
        if not len(self.lam):  # first prices: what the members' marginal values are worth in total
            nothing = np.zeros(len(of))
            self.pairs.kernels.probe(self.rows, w_t, self.point, nothing, nothing, probed)
            gains = np.add.reduceat(probed[GAIN_B : GAIN_2 + 1], self.start, axis=1)
            self.lam = gains[0] / self.B
            self.mu = np.where(self.slack, 0.0, np.maximum(gains[1] + gains[2], 0.0) / self.F)
        lam, mu = self.lam, self.mu
        self.pairs.kernels.probe(self.rows, w_t, self.point, lam[of], mu[of], probed)
        used_b, used_f, h_bb, h_bf, h_ff, t_b, t_f = np.add.reduceat(probed[SUMS], self.start, axis=1)
        over_b, over_f = used_b - self.B, used_f - self.F
        t_b += over_b
        t_f += over_f
        h_bb += _STIFF * self.B / lam
        h_ff += _STIFF * self.F / (mu + _STIFF)
        determinant = h_bb * h_ff - h_bf * h_bf
        dlam, dmu = (t_b * h_ff - t_f * h_bf) / determinant, (t_f * h_bb - t_b * h_bf) / determinant
        if self.any_slack:
            dlam, dmu = np.where(self.slack, t_b / h_bb, dlam), np.where(self.slack, 0.0, dmu)
            over_f = np.where(self.slack, 0.0, over_f)
        dlam = np.minimum(np.maximum(dlam, -0.8 * lam), 4.0 * lam)
        dmu = np.minimum(np.maximum(dmu, -0.8 * mu), 4.0 * mu)
        off: Floats = np.maximum.reduceat(probed[OFF], self.start)
        off = np.maximum(off, np.maximum(np.abs(over_b) / self.B, np.abs(over_f) / self.F))
        self.pairs.kernels.advance(self.rows, probed, self.point, dlam[of], dmu[of], self.reach, self.course, damped)
        self.lam, self.mu = lam + dlam, mu + dmu
        return off

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
def solve_groups(pairs: Pairs, groups: Groups, warm: Warm | None = None) -> Solved:
    """The optimum of every group."""
    active = _Active(pairs, groups, warm)
    count = len(groups.start)
    lam, mu, point = np.empty(count), np.empty(count), np.empty((3, len(groups.columns)))
    which, members = np.arange(count), np.arange(len(groups.columns))
    steps = 0
    while True:
        steps += 1
        unfinished = ~(active.step(damped=steps > _PATIENCE) <= TOLERANCE)
        left = int(unfinished.sum())
        if left == 0 or steps == LIMIT or 2 * left <= len(which):
            point[:, members], lam[which], mu[which] = active.point, active.lam, active.mu
            if left == 0:
                return _settled(pairs, groups, active if len(which) == count else None, Warm(point, lam, mu), steps)
            members, which = members[unfinished[active.of]], which[unfinished]
            active.only(unfinished)
            if steps == LIMIT:
                break
    eased = _Active(pairs, Groups(groups.columns[members], active.start, active.server), None)
    point[:, members] = eased.ease()
    lam[which], mu[which] = eased.lam, eased.mu
    return _settled(pairs, groups, None, Warm(point, lam, mu), steps)


def _settled(pairs: Pairs, groups: Groups, active: _Active | None, at: Warm, steps: int) -> Solved:
    """Put a point into both budgets exactly, and value and certify it."""
    if active is None:
        active = _Active(pairs, groups, at)
    of, start, B, F, probed, point = active.of, active.start, active.B, active.F, active.probed, at.point
    pairs.kernels.probe(active.rows, pairs.w_t, point, at.lam[of], at.mu[of], probed)
    used_b, used_f = np.add.reduceat(probed[:2], start, axis=1)
    scale_b, scale_f = B / used_b, np.minimum(1.0, F / used_f)
    if max(np.abs(scale_b - 1.0).max(), 1.0 - scale_f.min()) > _ROUNDING:  # Newton gave up on a group
        point = point.copy()
        point[0] = log_snr_at(probed[TAKEN_B] * scale_b[of], active.rows)
        point[1:] *= scale_f[of]
        pairs.kernels.probe(active.rows, pairs.w_t, point, at.lam[of], at.mu[of], probed)
        used_b, used_f = np.add.reduceat(probed[:2], start, axis=1)
        scale_b, scale_f = B / used_b, np.minimum(1.0, F / used_f)
    # What is left to move is rounding: to first order the worth follows the gains.
    scale_b, scale_f = scale_b[of], scale_f[of]
    worth, gain_b, gain_1, gain_2 = probed[WORTH : GAIN_2 + 1]
    gains = gain_b + gain_1 + gain_2
    moved = worth + gain_b * (scale_b - 1.0) + (gain_1 + gain_2) * (scale_f - 1.0)
    rates = np.maximum.reduceat(
        np.array([gain_b / probed[TAKEN_B], np.maximum(gain_1 / point[1], gain_2 / point[2])]), start, axis=1
    )
    total, bare = np.add.reduceat(np.array([moved, worth - gains]), start, axis=1)
    off_b = np.abs(gain_b - at.lam[of] * probed[TAKEN_B])
    off_g = np.maximum(np.abs(gain_1 - at.mu[of] * point[1]), np.abs(gain_2 - at.mu[of] * point[2]))
    residual = np.maximum.reduceat(np.maximum(off_b, off_g), start) / (at.lam * B + at.mu * F)
    bound = rates[0] * B + np.maximum(rates[1], 0.0) * F + bare
    return Solved(
        probed[TAKEN_B] * scale_b, Warm(np.vstack((point[:1], point[1:] * scale_f)), at.lam, at.mu), total,
        np.maximum(bound, total), residual, steps,
    )  # fmt: skip
