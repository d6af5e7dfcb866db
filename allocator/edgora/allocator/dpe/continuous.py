"""The continuous part: bandwidths, powers and clocks of a fixed association, to proven optimality (F3-F6).

Within one server, users compete for B and F alone, so the problem falls apart into one problem per server: a *group*
is a set of users on a server. Many groups are solved at once, as flat arrays with one entry a member: those of one
association, those of all candidate moves of a search, or all subsets of all servers.

A group's optimum is the only point with (F5)

    b dV/db = lam b,   g1 dV/dg1 = mu g1,   g2 dV/dg2 = mu g2,   sum b = B,   sum g1+g2 = F

in logarithms of b, g1, g2; where all clocks fit at g* (F6), mu = 0 and the clocks stand. Newton: a member's Hessian is
diagonal minus rank one, so it is inverted in closed form, and the two prices follow from sums over the group. The
diagonal carries the member's own marginal values instead of the prices: the two agree at the optimum, and away from it
this form is positive semidefinite because V is concave, so no curvature is ever dropped (F10). Steps are cut to a
factor e^2 or e^-3, and no share falls below 1e-13 of its budget: what a user of no worth is left with.

Certificate: linearised at any point, with the greatest marginal values of the group as prices, F5 bounds the group's
worth from above. It is tight to rounding at the optimum and valid everywhere.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.dpe.model import Decision, Model
from edgora.allocator.dpe.pairs import ETA, G_STAR, KAPPA, L_MOST, TAU, C, Pairs, air, log_snr_at

__all__ = ["Continuous", "Groups", "Solved", "continuous", "solve_groups"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

TOLERANCE = 1e-9
"""KKT residual, relative to the worth of the group's resources, at which the last step is taken."""
LIMIT = 120
"""Newton steps; 4 to 9 are usual, 30 where users starve."""
_LEAST = 1e-25
"""Least share of a server's clock: far below what a user at its least bandwidth takes."""
_DOWN, _UP = -3.0, 2.0
"""Furthest step of a logarithm."""
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
    """Where Newton starts."""

    log_snr: Floats
    clocks: Floats
    """(2, members)."""
    lam: Floats
    mu: Floats


class Solved(NamedTuple):
    """The optimum of each group; arrays by member, or by group where said."""

    b: Floats
    log_snr: Floats
    clocks: Floats
    """g1 and g2 (2, members)."""
    lam: Floats
    """Price of bandwidth by group."""
    mu: Floats
    """Price of the clock by group; 0 where C8 is slack."""
    worth: Floats
    """Server part by group, at a point within both budgets."""
    bound: Floats
    """Certified upper bound on the group's server part."""
    residual: Floats
    """Of the KKT system by group, relative."""
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
    lam[groups.server], mu[groups.server] = solved.lam, solved.mu
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
    clock = solved.clocks[0] + solved.clocks[1]
    b[users], fs[users], gamma[users] = solved.b, clock, solved.clocks[0] / clock
    p[users] = np.minimum(e.p_max[users], np.expm1(solved.log_snr) * solved.b / model.snr_hz[users, servers])
    return Decision(assoc, np.full(e.N, e.phi_max), gamma, b, p, model.best_fu.copy(), fs)


class _Active:
    """The groups that Newton still works on, compacted as others converge."""

    def __init__(self, pairs: Pairs, groups: Groups, warm: Warm | None) -> None:
        self.pairs = pairs
        self.rows = pairs.rows[:, groups.columns]
        self.start, self.server = groups.start, groups.server
        self.size = np.diff(groups.start, append=len(groups.columns))
        self._shape()
        self.reach, self.course = np.ones(len(self.of)), np.zeros(len(self.of))
        if warm is None:
            self.log_snr = log_snr_at((self.B / self.size)[self.of], self.rows)
            root = np.sqrt(self.rows[ETA])
            clocks = root / root.sum(axis=0) * (self.F / self.size)[self.of]
            stands = self.g_star * np.where(self.slack[self.of], 1.0, 0.97)  # below it, where V still bends
            self.clocks = np.where(self.slack[self.of], stands, np.minimum(clocks, stands))
            self.lam = self.mu = np.zeros(0)
        else:
            self.log_snr, self.clocks = warm.log_snr, np.where(self.slack[self.of], self.g_star, warm.clocks)
            self.lam, self.mu = warm.lam, np.where(self.slack, 0.0, warm.mu)

    def _shape(self) -> None:
        pairs = self.pairs
        self.of = np.repeat(np.arange(len(self.start)), self.size)
        self.B, self.F = pairs.B[self.server], pairs.F[self.server]
        self.slack = 2.0 * self.size * pairs.g_star[self.server] <= self.F
        self.g_star = self.rows[G_STAR]
        self.least_clock = (self.F * _LEAST)[self.of]

    def only(self, keep: NDArray[np.bool_]) -> None:
        """Leave the other groups out."""
        members = keep[self.of]
        self.rows, self.log_snr, self.clocks = self.rows[:, members], self.log_snr[members], self.clocks[:, members]
        self.reach, self.course = self.reach[members], self.course[members]
        self.lam, self.mu, self.server, self.size = self.lam[keep], self.mu[keep], self.server[keep], self.size[keep]
        self.start = np.cumsum(self.size) - self.size
        self._shape()

    def step(self, *, damped: bool = False) -> Floats:
        """One Newton step of all groups; the KKT residual of each before it.

        Damped, a member whose step turns back against the last one goes less far from then on.
        """
        of, start, eta = self.of, self.start, self.rows[ETA]
        b, air_cost, air_slope, air_bend, sigma = air(self.log_snr, self.rows)
        clocks = self.clocks
        delay, energy = self.pairs.w_t / clocks, self.rows[KAPPA] * clocks * clocks
        cost, slope, bend = eta * (delay + energy), eta * (delay - 2.0 * energy), eta * (delay + 4.0 * energy)
        total = self.rows[TAU] + air_cost + cost[0] + cost[1]
        q = self.rows[C] / (total * total)  # dV/dK = -q
        gain_b, gain_g = q * air_slope, q * slope
        if not len(self.lam):
            sums = np.add.reduceat(np.array([gain_b, gain_g[0] + gain_g[1]]), start, axis=1)
            self.lam, self.mu = sums[0] / self.B, np.where(self.slack, 0.0, np.maximum(sums[1] / self.F, 0.0))
        lam, mu = self.lam, self.mu
        r_b, r_g = gain_b - lam[of] * b, gain_g - mu[of] * clocks
        d_b, d_g = q * air_bend + gain_b, q * bend + gain_g
        least = (self.log_snr >= self.rows[L_MOST]) & (r_b < 0.0)
        if least.any():  # these users keep their least bandwidth; what is left of their clocks still finds its place
            r_b, air_slope = np.where(least, 0.0, r_b), np.where(least, 0.0, air_slope)
            d_b = np.where(least, np.inf, d_b)
            least_g = (np.minimum(clocks[0], clocks[1]) <= self.least_clock * (1.0 + 1e-9)) & (r_g < 0.0)
            r_g, slope = np.where(least_g, 0.0, r_g), np.where(least_g, 0.0, slope)
            d_g = np.where(least_g, np.inf, d_g)
        w_b, w_g = air_slope / d_b, slope / d_g
        rank = 2.0 * q / total
        t = slope * w_g
        rank /= np.maximum(1.0 - rank * (air_slope * w_b + t[0] + t[1]), 1e-12)
        s_b, t = b * w_b, clocks * w_g
        s_g = t[0] + t[1]
        t = w_g * r_g
        s_r = w_b * r_b + t[0] + t[1]
        bd, gd = b / d_b, clocks / d_g
        t, u = clocks * gd, r_g * gd
        used_b, used_g, h_bb, h_bg, h_gg, t_b, t_g = np.add.reduceat(
            np.array([
                b, clocks[0] + clocks[1], b * bd + rank * s_b * s_b, rank * s_b * s_g, t[0] + t[1] + rank * s_g * s_g,
                r_b * bd + rank * s_b * s_r, u[0] + u[1] + rank * s_g * s_r,
            ]), start, axis=1,
        )  # fmt: skip
        t_b -= self.B - used_b
        t_g -= self.F - used_g
        determinant = h_bb * h_gg - h_bg * h_bg
        dlam = np.where(self.slack, t_b / h_bb, (t_b * h_gg - t_g * h_bg) / determinant)
        dmu = np.where(self.slack, 0.0, (t_g * h_bb - t_b * h_bg) / determinant)
        dlam = np.minimum(np.maximum(dlam, -0.8 * lam), 4.0 * lam)
        dmu = np.minimum(np.maximum(dmu, -0.8 * mu), 4.0 * mu)
        off_g = np.abs(r_g) / (eta * delay)
        off = np.maximum(np.abs(r_b) / gain_b, np.maximum(off_g[0], off_g[1]) / q)
        off = np.maximum(np.maximum.reduceat(off, start), np.abs(used_b / self.B - 1.0))
        off = np.maximum(off, np.where(self.slack, 0.0, np.abs(used_g / self.F - 1.0)))
        dlam_of, dmu_of = dlam[of], dmu[of]
        rank *= s_r - dlam_of * s_b - dmu_of * s_g
        du = (r_b - dlam_of * b) / d_b + w_b * rank
        dv = (r_g - dmu_of * clocks) / d_g + w_g * rank
        if damped:
            self.reach = np.minimum(np.where(dv[0] * self.course < 0.0, 0.4, 1.3) * self.reach, 1.0)
            self.course = dv[0]
        low, high = _DOWN * self.reach, _UP * self.reach
        du = np.minimum(np.maximum(du, low), high)
        dv = np.minimum(np.maximum(dv, low), high)
        self.log_snr = np.minimum(self.log_snr * np.exp(-sigma * du / self.log_snr), self.rows[L_MOST])
        self.clocks = np.minimum(clocks * np.exp(dv), self.g_star)
        below = np.minimum(self.clocks[0], self.clocks[1]) < self.least_clock
        if below.any():  # both at their least, split as is best for so slow a clock
            root = np.sqrt(eta)
            self.clocks = np.where(below, self.least_clock / root.min(axis=0) * root, self.clocks)
        self.lam, self.mu = lam + dlam, mu + dmu
        residual: Floats = off
        return residual


@np.errstate(all="ignore")  # both sides of every `where` are computed
def solve_groups(pairs: Pairs, groups: Groups, warm: Warm | None = None) -> Solved:
    """The optimum of every group."""
    active = _Active(pairs, groups, warm)
    count, members = len(groups.start), len(groups.columns)
    lam, mu = np.empty(count), np.empty(count)
    log_snr, clocks = np.empty(members), np.empty((2, members))
    which, size = np.arange(count), active.size.copy()
    steps = 0
    while True:
        steps += 1
        open_ = ~(active.step(damped=steps > _PATIENCE) <= TOLERANCE)
        left = int(open_.sum())
        if left == 0 or steps == LIMIT or 2 * left <= len(which):
            at = np.isin(np.arange(count), which)[np.repeat(np.arange(count), size)] if len(which) < count else ...
            log_snr[at], clocks[:, at] = active.log_snr, active.clocks
            lam[which], mu[which] = active.lam, active.mu
            if left == 0 or steps == LIMIT:
                break
            which = which[open_]
            active.only(open_)
    return _settled(pairs, groups, Warm(log_snr, clocks, lam, mu), steps)


def _settled(pairs: Pairs, groups: Groups, at: Warm, steps: int) -> Solved:
    """Put a point into both budgets exactly, and value and certify it."""
    rows, start = pairs.rows[:, groups.columns], groups.start
    size = np.diff(start, append=len(groups.columns))
    of = np.repeat(np.arange(len(start)), size)
    B, F = pairs.B[groups.server], pairs.F[groups.server]
    curve, clocks, eta = air(at.log_snr, rows), at.clocks, rows[ETA]
    fits = np.minimum(1.0, F / np.add.reduceat(clocks[0] + clocks[1], start))
    clocks = clocks * fits[of]
    scale = (B / np.add.reduceat(curve.b, start))[of]
    delay, energy = pairs.w_t / clocks, rows[KAPPA] * clocks * clocks
    cost, slope = eta * (delay + energy), eta * (delay - 2.0 * energy)
    # The bandwidths move by the last rounding only: to first order the air cost follows its slope.
    total = rows[TAU] + curve.cost - curve.slope * (scale - 1.0) + cost[0] + cost[1]
    worth = rows[C] / total
    q = worth / total
    gain_b, gain_g = q * curve.slope, q * slope
    b = curve.b * scale
    rates = np.maximum.reduceat(
        np.array([gain_b / b, np.maximum(gain_g[0] / clocks[0], gain_g[1] / clocks[1])]), start, axis=1
    )
    sums = np.add.reduceat(np.array([worth, gain_b + gain_g[0] + gain_g[1]]), start, axis=1)
    off_b = np.abs(gain_b - at.lam[of] * b)
    off_g = np.abs(gain_g - at.mu[of] * clocks).max(axis=0)
    residual = np.maximum.reduceat(np.maximum(off_b, off_g), start) / (at.lam * B + at.mu * F)
    bound = rates[0] * B + np.maximum(rates[1], 0.0) * F + sums[0] - sums[1]
    return Solved(b, at.log_snr, clocks, at.lam, at.mu, sums[0], np.maximum(bound, sums[0]), residual, steps)
