"""A proven upper bound of TCR over all decisions, by prices of everything that users share (tcr.md F7).

For prices per server, T and y, V - y C is at most

    D(T) = sum of prices + sum over users of max over servers of w - y w_t T

where w is what a user can earn alone (`pairs` bounds it by branch and bound). If D(T) <= 0 for all T, no decision
reaches a TCR above y. Theory of operation:

1. Good prices: from the incumbent's multipliers, by column generation. Each evaluation yields places that users could
   choose; the prices that are best against all places so far are a small linear program.
2. Certificates: leaves of the pair search at some T bound w at every T by lines, so each one bounds D at all T by a
   convex function. Between two points of a grid a convex function lies below the larger of its end values. The bound is
   the least y with which every interval is excluded by one of the certificates; new ones are added where it is worst.

Nothing rests on local solutions being global; prices and places of certificates only decide how close the bound is.
"""

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from edgora.allocator.search import Search
from edgora.allocator.tcr.instance import Instance
from edgora.allocator.tcr.model import Decision
from edgora.allocator.tcr.newton import Floats
from edgora.allocator.tcr.pairs import Leaves, Pairs, Places
from edgora.allocator.tcr.resources import settle, variables

__all__ = ["upper_bound"]

_ROUNDS = 8
"""Most evaluations for prices."""
_REACH = 0.15
"""How far prices may first move, in parts of themselves."""
_CERTIFICATES = 200
_CLOSE = 3e-4
"""Error of a user's bound that the pair search may leave, in parts of its trust."""
_FAR = 0.15
"""Relative distance from the incumbent's T from which certificates may be ten times rougher."""
_AROUND = 1.03
"""Up to how much longer delays the incumbent's certificate holds."""
_ENOUGH = 8e-4
"""Relative gap at which prices are good enough."""
_TOGETHER = 4000
"""Pairs that are searched at once: what bounds memory."""
_PLACES = 24
"""Places a user keeps from each evaluation."""


def upper_bound(instance: Instance, incumbent: Decision, search: Search) -> float | None:
    """The bound; None where a weight, phi_min or omega_r is 0, or the search ends before it is proven."""
    p = instance.params
    if min(p.w_t, p.w_e, p.phi_min, p.omega_r) <= 0.0:
        return None
    proof = _Proof(instance, incumbent, search)
    proof.seek_prices()
    return proof.certify()


class _Proof:
    def __init__(self, instance: Instance, incumbent: Decision, search: Search) -> None:
        self.instance, self.search = instance, search
        e = instance
        terms = e.model.terms(incumbent)
        self.value, self.T, self.cost, self.trust = terms.tcr, terms.T, terms.C, terms.trust
        point = settle(e, incumbent.assoc[None], variables(e, incumbent), mu=1e-4)
        self.prices = point.prices[:, 0]
        self.close = _CLOSE * terms.trust / e.N
        self.gap = np.inf
        step = max(1, _TOGETHER // e.M)
        self.pairs = [
            Pairs(e, np.repeat(np.arange(n, min(n + step, e.N)), e.M), np.tile(np.arange(e.M), min(step, e.N - n)))
            for n in range(0, e.N, step)
        ]

    def _leaves(self, T: float, y: float, prices: Floats, tolerance: float, upto: float) -> Leaves:
        return Leaves.joined(
            [
                pairs.bounds(T, y, prices, tolerance=tolerance * self.close, upto=upto, over=self.search.over)
                for pairs in self.pairs
            ]
        )

    def _shortest(self) -> float:
        """A time that no decision undercuts: every user's data and block take the whole clock of its best server."""
        e, p = self.instance, self.instance.params
        work = p.phi_min * e.d[:, None] * (e.eta_s + p.omega_b * e.eta_b) / e.fs_max + e.model.t_chain
        return float(work.min(axis=1).max())

    def seek_prices(self) -> None:
        """Lower D at the incumbent's T and y."""
        e, y = self.instance, self.value
        delay = y * e.params.w_t * self.T
        places: list[Places] = []
        prices, best, reach = self.prices, np.inf, _REACH
        for _ in range(_ROUNDS):
            if self.search.over():
                break
            leaves = self._leaves(self.T, y, prices, 2.0, self.T)
            d = float(prices.sum() + leaves.most(e.N).sum() - delay)
            places.append(_kept(leaves.places, prices, e.N))
            if d < best:
                best, self.prices, reach = d, prices, 1.5 * reach
            else:
                reach *= 0.4
            if best < _ENOUGH * self.trust:
                break
            prices, least = _best_prices(places, self.prices, reach, e.N)
            if best - (least - delay) < 0.05 * best:
                break
        self.gap = max(best, 0.0)

    def certify(self) -> float | None:
        """The least y, from that of the gap up, at which certificates exclude every T."""
        e, p = self.instance, self.instance.params
        y = self.value + max(self.gap, 0.5 * self.close) / self.cost
        longest = e.N * p.v1 * float(np.log1p(p.v2 * (3.0 + e.score.max()))) / (self.value * p.w_t)
        shortest = self._shortest()
        grid = np.unique(np.concatenate((
            np.geomspace(shortest, max(longest, 2.0 * self.T), 150), self.T * np.linspace(0.8, 1.25, 181)
        )))  # fmt: skip
        grid = grid[grid >= shortest]
        open_ = np.ones(len(grid) - 1, dtype=bool)
        T, upto, last = self.T, _AROUND * self.T, None
        for _ in range(_CERTIFICATES):
            if self.search.over():
                break
            need = self._needs(T, upto, y, grid)
            across = np.maximum(need[:-1], need[1:])
            if last is not None and across[last] > y:  # this certificate was made for that interval
                y = float(across[last])
            open_ &= across > y
            if not open_.any():
                return y
            last = int(np.flatnonzero(open_)[-1])
            T = upto = float(grid[last + 1])
        return None

    def _needs(self, T: float, upto: float, y: float, grid: Floats) -> Floats:
        """The y from which a certificate made at T excludes each T of the grid; infinite above `upto`."""
        e = self.instance
        rough = 10.0 if abs(T / self.T - 1.0) > _FAR else 1.0
        leaves = self._leaves(T, y, self.prices, rough, upto)
        order = np.argsort(leaves.user, kind="stable")
        user, bound, slope = leaves.user[order], leaves.bound[order], leaves.slope[order]
        at = np.flatnonzero(grid <= upto)
        need = np.full(len(grid), np.inf)
        if len(at) and len(np.unique(user)) == e.N:
            first = np.searchsorted(user, np.arange(e.N))
            lines = bound + slope * (grid[at, None] - T)
            most = np.maximum.reduceat(lines, first, axis=1).sum(axis=1)
            need[at] = (self.prices.sum() + most) / (e.params.w_t * grid[at])
        elif len(at):  # some user cannot keep `upto` at all
            need[at] = -np.inf
        return need


def _kept(places: Places, prices: Floats, users: int) -> Places:
    """The best places of each user, with their worth before prices."""
    order = np.lexsort((-places.value, places.user))
    first = np.searchsorted(places.user[order], np.arange(users))
    best = order[np.arange(len(order)) - first[places.user[order]] < _PLACES]
    shares, server = places.shares[:, best], places.server[best]
    gross = places.value[best] + (prices[:, server] * shares).sum(axis=0)
    return Places(places.user[best], server, gross, shares)


def _best_prices(columns: list[Places], centre: Floats, reach: float, users: int) -> tuple[Floats, float]:
    """Prices near `centre` with the least sum of prices and users' best places; and that sum."""
    user, server, gross = (np.concatenate([getattr(c, f) for c in columns]) for f in ("user", "server", "value"))
    shares = np.concatenate([c.shares for c in columns], axis=1)
    M = centre.shape[1]
    L = len(user)
    rows = np.tile(np.arange(L), 4)
    cols = np.concatenate((server, M + server, 2 * M + server, 3 * M + user))
    data = np.concatenate((shares.ravel(), np.ones(L)))
    A = csr_array((-data, (rows, cols)), shape=(L, 3 * M + users))
    c = np.ones(3 * M + users)
    flat = centre.ravel()
    low, high = np.full(3 * M + users, -np.inf), np.full(3 * M + users, np.inf)
    low[: 3 * M] = np.maximum(0.0, flat * (1.0 - reach))
    high[: 3 * M] = flat * (1.0 + reach) + 0.02 * reach * flat.max()
    limits = np.stack((low, high), axis=1)
    solved = linprog(c, A_ub=A, b_ub=-gross, bounds=limits, method="highs")  # type: ignore[call-overload]  # the stubs know no sparse A_ub
    if solved.x is None:
        return centre, np.inf
    return solved.x[: 3 * M].reshape(3, M), float(solved.fun)
