"""All pairs at prices: every user's surplus on every server, the bound F7, and the prices that make it least.

With a price lam_m for the bandwidth and mu_m for the clock of every server,

    D(lam, mu) = sum_m (lam_m B_m + mu_m F_m) + sum_n max_m U_nm,   U_nm = max over (b, g1, g2) of V - lam b - mu (g1+g2)

is at least the server part of every decision (F7), and U_nm is bounded from above by the tangent of V at any point.

`descend` makes D small. D has kinks where a user is indifferent between servers, and at its least many are. So the
maximum over servers is first taken softly, at a temperature T: T log sum exp(U/T) is smooth, its gradient is the excess
of every budget over what users take, each split over servers by its softmax, and its Hessian is known from the pairs'
Newton system. Newton follows the minimum while T falls by steps to where it no longer matters; the pairs' own points
move along with the prices, so one look at all pairs is one step. A dozen looks suffice, at any size.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.dpe.newton import (
    GAIN_2,
    GAIN_B,
    ROWS,
    TAKEN_B,
    TAKEN_F,
    WORTH,
)  # fmt: skip
from edgora.allocator.dpe.pairs import ETA, G_STAR, Pairs, log_snr_at

__all__ = ["Look", "Market", "descend"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_WARM, _COLD, _FALL = 0.03, 1e-3, 0.25
"""Temperature at first and at last, relative to the mean worth of a pair, and its fall from stage to stage."""
_LOOKS, _STAGE = 60, 4
"""Most looks in all, and on one stage."""
_STILL = 4e-3
"""Relative gradient that ends a stage."""
_ABSENT = 1e-12
"""Least part of a user that counts: products of smaller ones are subnormal, and slow."""
_NEAR = 40.0
"""Surplus below a user's best, in heats, from which a pair is left out of the next stage's looks..."""
_MANY, _MUCH = 2000, 0.6
"""...where there are this many pairs, and at most this part of them is left."""
_STRIDE = 0.4
"""Furthest step of a price's logarithm."""
_REACH = 0.35
"""How far a pair's point follows in a look, as part of Newton's furthest step: the first prices are far off, and one
that starves at them takes dozens of steps to come back."""
_FADE = -3.0
"""Furthest fall of a clock's price: where clocks are plenty it goes towards 0."""
_LEAST_STRIDE = 1e-9
"""Keeps a quotient finite."""
_HALVINGS = 3
"""How often a step is shortened before it is taken whatever it does: while points still settle, D is not yet itself."""
_UNTHREADED = 1 << 17
"""Multiplications of a product that OpenBLAS still does in one thread; it calls others from some 400,000 on."""
_TIGHT = 1e-11
"""Relative looseness of a tangent bound that is good enough."""
_CERTIFYING, _PATIENCE = 60, 10
"""Most Newton steps for tight tangents, and those before damping."""


class Look(NamedTuple):
    """What one look at all pairs shows."""

    surplus: Floats
    """V - lam b - mu (g1+g2) at the pairs' points (N, M): U but for what Newton still moves."""
    resources: float
    """sum (lam B + mu F)."""

    @property
    def bound(self) -> float:
        """D with `surplus` for U."""
        return self.resources + float(self.surplus.max(axis=1).sum())


class Market:
    """Prices, and the points of the pairs that are looked at: all of them, or those that still matter."""

    columns: Indices
    """The pairs that are looked at; of them:"""
    rows: Floats
    point: Floats
    server: Indices
    probed: Floats
    """What the last look saw."""
    _spare: Floats
    """What the look before it saw."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        share = max(pairs.N / pairs.M, 1.0)
        self.servers = np.tile(np.arange(pairs.M), pairs.N)
        """Of all pairs."""
        self.B, self.F = pairs.B[self.servers], pairs.F[self.servers]
        root = np.sqrt(pairs.rows[ETA])
        self.points = np.empty((3, pairs.N * pairs.M))
        """Of all pairs; those that are looked at are ahead of it until `widen`."""
        self.points[0] = log_snr_at(self.B / share, pairs.rows)
        self.points[1:] = np.minimum(root / root.sum(axis=0) * self.F / share, 0.97 * pairs.rows[G_STAR])
        self.lam, self.mu = np.zeros(pairs.M), np.zeros(pairs.M)
        self._watch(np.arange(pairs.N * pairs.M), pairs.rows, self.points)
        self._probe()
        gain = self.probed[GAIN_B : GAIN_2 + 1].reshape(3, pairs.N, pairs.M).mean(axis=1)
        self.lam = np.maximum(gain[0] * share / pairs.B, 1e-300)
        self.mu = np.maximum((gain[1] + gain[2]) * share / pairs.F, 1e-300)
        self.scale = float(self.probed[WORTH].mean())

    def look(self) -> Look:
        """The pairs' surplus at the prices and points as they are; minus infinity where a pair is not looked at."""
        self.probed, self._spare = self._spare, self.probed
        self._probe()
        taken = self.lam[self.server] * self.probed[TAKEN_B] + self.mu[self.server] * self.probed[TAKEN_F]
        surplus = np.full(self.pairs.N * self.pairs.M, -np.inf)
        surplus[self.columns] = self.probed[WORTH] - taken
        resources = float(self.lam @ self.pairs.B + self.mu @ self.pairs.F)
        return Look(surplus.reshape(self.pairs.N, self.pairs.M), resources)

    def shown(self, count: int) -> Floats:
        """The first rows of the last look as tables (count, N, M), 0 where a pair is not looked at."""
        if len(self.columns) == self.points.shape[1]:
            return self.probed[:count].reshape(count, self.pairs.N, self.pairs.M)
        table = np.zeros((count, self.points.shape[1]))
        table[:, self.columns] = self.probed[:count]
        return table.reshape(count, self.pairs.N, self.pairs.M)

    def move(self, dlam: Floats, dmu: Floats) -> None:
        """Move the prices, and with them every pair's point by one Newton step; after a look."""
        self.pairs.kernels.advance(
            self.rows, self.probed, self.point, dlam[self.server], dmu[self.server], self._reach, self._still, False
        )  # fmt: skip
        self.lam, self.mu = self.lam + dlam, self.mu + dmu

    def back(self, lam: Floats, mu: Floats, point: Floats) -> None:
        """Return to where the last move began; one look came after it."""
        self.lam, self.mu = lam, mu
        self.point[:] = point
        self.probed, self._spare = self._spare, self.probed

    def narrow(self, keep: NDArray[np.bool_]) -> bool:
        """Look from now on at these pairs only (N, M), if that saves much; whether it does."""
        kept = np.flatnonzero(keep.ravel()[self.columns])
        if len(self.columns) < _MANY or len(kept) > _MUCH * len(self.columns):
            return False
        self.points[:, self.columns] = self.point
        probed = self.probed.take(kept, axis=1)
        self._watch(self.columns[kept], self.rows.take(kept, axis=1), self.point.take(kept, axis=1))
        self.probed = probed
        return True

    def widen(self) -> None:
        """Look at all pairs again."""
        if len(self.columns) < self.points.shape[1]:
            self.points[:, self.columns] = self.point
            self._watch(np.arange(self.points.shape[1]), self.pairs.rows, self.points)

    def certified(self, margin: float) -> tuple[Floats, float]:
        """Proven upper bounds on every U (N, M), and on D with them.

        They are tight to rounding where they come within `margin` of the user's best. Every Newton step bounds its
        pairs anew, so the least bound is kept, and pairs that are tight or far below drop out.
        """
        pairs = self.pairs
        self.widen()
        priced = self.look()
        best = np.repeat(priced.surplus.max(axis=1), pairs.M)
        upper = self._tangents(np.arange(pairs.N * pairs.M), self.point, self.probed)
        loose = self._loose(upper, priced.surplus.ravel(), best - margin)
        rows, point, probed = pairs.rows, self.point, self.probed
        columns = np.arange(len(upper))
        reach, course = np.ones(len(upper)), np.zeros(len(upper))
        for step in range(_CERTIFYING):
            if not len(loose):
                break
            columns, reach, course = columns[loose], reach[loose], course[loose]
            rows, point, probed = (table.take(loose, axis=1) for table in (rows, point, probed))
            lam, mu, nothing = self.lam[self.servers[columns]], self.mu[self.servers[columns]], np.zeros(len(columns))
            pairs.kernels.advance(rows, probed, point, nothing, nothing, reach, course, step >= _PATIENCE)
            pairs.kernels.probe(rows, pairs.w_t, point, lam, mu, probed)
            upper[columns] = np.fmin(upper[columns], self._tangents(columns, point, probed))
            surplus = probed[WORTH] - lam * probed[TAKEN_B] - mu * probed[TAKEN_F]
            loose = self._loose(upper[columns], surplus, best[columns] - margin)
        table = upper.reshape(pairs.N, pairs.M)
        return table, priced.resources + float(table.max(axis=1).sum())

    def _tangents(self, columns: Indices, point: Floats, probed: Floats) -> Floats:
        """The greatest surplus that the tangent of V allows each of these pairs, within its server's budgets."""
        gain_b, gain_1, gain_2 = probed[GAIN_B : GAIN_2 + 1]
        server = self.servers[columns]
        lam, mu = self.lam[server], self.mu[server]
        clocks = np.minimum(self.F[columns], self.pairs.rows[G_STAR, columns])
        upper = probed[WORTH] - gain_b - gain_1 - gain_2
        upper += self.B[columns] * np.maximum(gain_b / probed[TAKEN_B] - lam, 0.0)
        upper += clocks * np.maximum(gain_1 / point[1] - mu, 0.0)
        upper += clocks * np.maximum(gain_2 / point[2] - mu, 0.0)
        return np.where(np.isfinite(upper), upper, np.inf)

    def _loose(self, upper: Floats, surplus: Floats, least: Floats) -> Indices:
        return np.flatnonzero((upper > least) & ~(upper - surplus <= _TIGHT * self.scale))

    def _watch(self, columns: Indices, rows: Floats, point: Floats) -> None:
        self.columns, self.rows, self.point, self.server = columns, rows, point, self.servers[columns]
        self.probed = np.empty((ROWS, len(columns)))
        self._spare = np.empty((ROWS, len(columns)))
        self._reach, self._still = np.full(len(columns), _REACH), np.zeros(len(columns))

    def _probe(self) -> None:
        self.pairs.kernels.probe(
            self.rows, self.pairs.w_t, self.point, self.lam[self.server], self.mu[self.server], self.probed
        )


class _Soft(NamedTuple):
    """D with a soft maximum, at one temperature."""

    value: float
    split: Floats
    """How each user is split over the servers (N, M)."""
    gradient: Floats
    """With respect to the logarithms of lam and mu (2 M,)."""
    heat: float

    @classmethod
    def of(cls, market: Market, priced: Look, heat: float) -> "_Soft":
        pairs = market.pairs
        best = priced.surplus.max(axis=1, keepdims=True)
        split = np.exp((priced.surplus - best) / heat)
        split[split < _ABSENT] = 0.0
        total = split.sum(axis=1, keepdims=True)
        split /= total
        taken = market.shown(2)
        gradient = np.concatenate((
            market.lam * (pairs.B - (split * taken[0]).sum(axis=0)),
            market.mu * (pairs.F - (split * taken[1]).sum(axis=0)),
        ))  # fmt: skip
        return cls(priced.resources + float(best.sum() + heat * np.log(total).sum()), split, gradient, heat)

    def steepness(self) -> float:
        """Length of the gradient relative to D."""
        return float(np.sqrt(self.gradient @ self.gradient)) / self.value

    def newton(self, market: Market) -> Floats:
        """The step to the minimum, in logarithms of the prices."""
        M, lam, mu = market.pairs.M, market.lam, market.mu
        b, f, h_bb, h_bf, h_ff = market.shown(5)
        b, f = b * lam, f * mu
        weighted = np.concatenate((self.split * b, self.split * f), axis=1)
        hessian = _gram(weighted) / -self.heat
        each, both = np.arange(M), np.arange(2 * M)
        hessian[each, each] += (self.split * (b * b / self.heat + h_bb * (lam * lam))).sum(axis=0)
        cross = (self.split * (b * f / self.heat + h_bf * (lam * mu))).sum(axis=0)
        hessian[each, each + M] += cross
        hessian[each + M, each] += cross
        hessian[each + M, each + M] += (self.split * (f * f / self.heat + h_ff * (mu * mu))).sum(axis=0)
        hessian[both, both] += np.maximum(self.gradient, 0.0) + 1e-12 * np.trace(hessian)
        return np.asarray(np.linalg.solve(hessian, -self.gradient), dtype=np.float64)


def _gram(table: Floats) -> Floats:
    """table' table, in parts that are too small for BLAS to call its threads: they cost more than they save."""
    parts = math.ceil(table.size * table.shape[1] / _UNTHREADED)
    gram: Floats = sum((part.T @ part for part in np.array_split(table, parts)), np.zeros(2 * table.shape[1:]))
    return gram


class _Held(NamedTuple):
    """Where a step began."""

    value: float
    slope: float
    """Of the soft D along the step."""
    step: Floats
    lam: Floats
    mu: Floats
    point: Floats

    def too_far(self, value: float) -> bool:
        return value > self.value + 1e-3 * abs(self.slope) + 1e-9 * abs(self.value)


@np.errstate(all="ignore")  # what no user wants has a price that vanishes
def descend(market: Market, over: Callable[[], bool] = lambda: False) -> list[float]:
    """Move the prices to where D is least, or until it is over; D at every look."""
    M = market.pairs.M
    heat, coldest = _WARM * market.scale, _COLD * market.scale
    held: _Held | None = None
    on_stage = halved = 0
    seen: list[float] = []
    while len(seen) < _LOOKS and not (seen and over()):
        priced = market.look()
        seen.append(priced.bound)
        soft = _Soft.of(market, priced, heat)
        if held is not None and len(seen) > 3 and held.too_far(soft.value) and halved < _HALVINGS:
            halved += 1
            held = held._replace(step=0.3 * held.step)
            market.back(held.lam, held.mu, held.point)
        else:
            on_stage, halved = on_stage + 1, 0
            if soft.steepness() < _STILL or on_stage >= _STAGE:
                if heat <= coldest:
                    break
                heat, on_stage = max(heat * _FALL, coldest), 0
                market.narrow(priced.surplus > priced.surplus.max(axis=1, keepdims=True) - _NEAR * heat)
                soft = _Soft.of(market, priced, heat)
            step = soft.newton(market)
            np.maximum(step, _FADE, out=step)
            step *= min(1.0, _STRIDE / max(float(np.abs(step[:M]).max()), float(step.max()), _LEAST_STRIDE))
            slope = float(soft.gradient @ step)
            held = _Held(soft.value, slope, step, market.lam, market.mu, market.point.copy())
        market.move(held.lam * np.expm1(held.step[:M]), held.mu * np.expm1(held.step[M:]))
    market.widen()
    return seen
