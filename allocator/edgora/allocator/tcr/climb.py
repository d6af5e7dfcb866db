"""Local search over associations by price (tcr.md 9.2, F8).

Theory of operation. Users meet only through the delay T, the ratio y and three prices a server. `alone` says what each
user could earn on each of its strongest servers at the incumbent's prices; the differences rank all moves at once (the
rank correlation with re-solved moves is above 0.98). The best of them - bundles of many moves, single moves, swaps -
are re-solved together in one batch, and the best result becomes the incumbent. When nothing helps, the power modes are
tried: server power has many local optima, in each of which one user takes almost all of it (F5).
"""

from collections.abc import Iterator

import numpy as np

from edgora.allocator.search import Found, Search
from edgora.allocator.tcr.instance import Instance
from edgora.allocator.tcr.model import Decision
from edgora.allocator.tcr.newton import Floats, Ints
from edgora.allocator.tcr.resources import FINAL, Points, alone, decision, inside, settle

__all__ = ["Climb"]

_STRONGEST = 5
"""Servers a user is priced on."""
_SINGLES = 12
_SWAPS = 12
_PARTNERS = 4
"""Users of each side of two servers that are paired up for swaps."""
_BUNDLES_ONLY = 100
"""Above so many users only bundles are tried."""
_ROUGH = 1e-4
"""Last mu of trials."""
_TOGETHER = 20_000
"""Users of all associations of one batch: a step of it takes some hundredths of a second."""
_MODE_MU = 5e-3
"""First mu of power modes: low enough to stay in the start's own."""
_NEAR = 0.99
"""Part of the best value from which a point is worth the search of its power modes."""
_GAIN = 1e-6
"""Least relative improvement that counts."""
_SLACK = 0.01
"""How much longer than the incumbent's delay a priced user may take: room for the barrier."""


class Climb:
    """The search on one instance; every point it meets is offered to the caller's `Search`."""

    def __init__(self, instance: Instance, search: Search) -> None:
        self.instance, self.search = instance, search
        self.best: Decision | None = None
        self.value = -np.inf
        self.trials = self.steps = 0
        self.objectives: list[float] = []
        """Every improvement."""
        self._strong = np.argsort(-instance.gain, axis=1, kind="stable")[:, :_STRONGEST]
        self._tried: set[bytes] = set()

    def offer(self, chosen: Decision) -> None:
        """Remember a decision if the model finds it allowed and better than the best."""
        audit = self.instance.model.audit(chosen)
        if audit.feasible and audit.terms.tcr > self.value:
            self.best, self.value = chosen, audit.terms.tcr
            self.objectives.append(self.value)
            self.search.keep(Found(chosen, status="interrupted"), self.value)

    def settled(self, assoc: Ints, X: Floats | None = None, *, mu: float = 0.05, final: float = _ROUGH) -> Points:
        """Re-solve associations in one batch, or in several where one would take long; the best of them is offered.

        The points are those of the batches that the search had time for, at least one.
        """
        batch, done = max(1, _TOGETHER // assoc.shape[1]), []
        for first in range(0, len(assoc), batch):
            some = slice(first, first + batch)
            begun = None if X is None else X[:, some]
            points = settle(self.instance, assoc[some], begun, mu=mu, final=final, over=self.search.over)
            self.trials += len(points.assoc)
            self.steps += int(points.steps.sum())
            at = points.best()
            if points.value[at] > self.value:
                self.offer(decision(self.instance, points, at))
            done.append(points)
            if self.search.over():
                break
        return Points.joined(done)

    def starts(self, tightness: float = 1.3) -> Iterator[Ints]:
        """Strongest gain with at most `tightness` times the even load a server; GUCAA's; strongest gain."""
        e = self.instance
        cap = int(np.ceil(tightness * e.N / e.M))
        assoc, loads = np.full(e.N, -1), np.zeros(e.M, dtype=np.int64)
        for pair in np.argsort(-e.gain, axis=None, kind="stable").tolist():
            n, m = divmod(pair, e.M)
            if assoc[n] < 0 and loads[m] < cap:
                assoc[n], loads[m] = m, loads[m] + 1
        yield assoc
        yield e.model.spread()
        yield e.gain.argmax(axis=1)

    def follow(self, point: Points) -> Points:
        """Climb from a point; where that leads near the best value, try power modes, and climb again if they help."""
        point = self.climb(point)
        if point.value[0] > _NEAR * self.value:
            other = self.modes(point)
            if other.value[0] > point.value[0]:
                return self.climb(other)
        return point

    def disturbed(self, assoc: Ints, rng: np.random.Generator) -> Ints:
        """The association with some users on another of their strongest servers."""
        changed = assoc.copy()
        for n in rng.choice(len(assoc), max(1, len(assoc) // 8), replace=False):
            changed[n] = rng.choice(self._strong[n])
        return changed

    def climb(self, point: Points) -> Points:
        """Move while it pays; `point` holds one association."""
        while not self.search.over():
            trials = self._moves(point, self._gains(point))
            if not len(trials):
                break
            points = self.settled(trials)
            at = points.best()
            if points.value[at] <= point.value[0] * (1.0 + _GAIN):
                break
            point = points.pick(np.array([at]))
        return point

    def _gains(self, point: Points) -> Floats:
        """What each user would add on each of its strongest servers (N, S); -inf on its own."""
        e, assoc = self.instance, point.assoc[0]
        servers = np.concatenate((self._strong, assoc[:, None]), axis=1)
        users = np.repeat(np.arange(e.N), servers.shape[1])
        X = np.repeat(point.X[:, 0], servers.shape[1], axis=1)
        foreign = servers.ravel() != assoc[users]
        X[1:3] = np.minimum(X[1:3], -0.01)
        for row, value in ((1, -0.05), (2, -0.05), (3, -1.2), (4, -1.2), (5, -0.7), (6, -2.3)):
            X[row, foreign] = value
        rent = point.prices[:, 0][:, servers.ravel()]
        worth, _ = alone(
            e, users, servers.ravel(), X, tau=float(point.tau[0]) + _SLACK, y=float(point.value[0]), rent=rent,
            mu=0.02, final=_ROUGH,
        )  # fmt: skip
        worth = worth.reshape(servers.shape)
        gains: Floats = np.where(self._strong == assoc[:, None], -np.inf, worth[:, :-1] - worth[:, -1:])
        return gains

    def _moves(self, point: Points, gains: Floats) -> Ints:
        """Associations that are worth a trial and new."""
        e, assoc = self.instance, point.assoc[0]
        found: list[Ints] = []
        best = gains.argmax(axis=1)
        top = gains[np.arange(e.N), best]
        target = self._strong[np.arange(e.N), best]
        order = np.argsort(-top, kind="stable")
        order = order[np.isfinite(top[order])]
        limit = 1
        while True:  # bundles: at most `limit` users into and out of each server
            into, out = np.zeros(e.M, dtype=np.int64), np.zeros(e.M, dtype=np.int64)
            trial, full = assoc.copy(), True
            for n in order[top[order] > 0.0].tolist():
                m = target[n]
                if into[m] < limit and out[assoc[n]] < limit:
                    trial[n] = m
                    into[m] += 1
                    out[assoc[n]] += 1
                else:
                    full = False
            found.append(trial)
            if full:
                break
            limit *= 2
        if e.N <= _BUNDLES_ONLY:
            flat = np.argsort(-gains, axis=None, kind="stable")[:_SINGLES]
            for n, s in zip(*np.unravel_index(flat, gains.shape), strict=True):
                if np.isfinite(gains[n, s]):
                    trial = assoc.copy()
                    trial[n] = self._strong[n, s]
                    found.append(trial)
            found.extend(self._swaps(assoc, gains))
        fresh = []
        for trial in found:
            name = trial.astype(np.int16).tobytes()
            if name not in self._tried and (trial != assoc).any():
                self._tried.add(name)
                fresh.append(trial)
        return np.array(fresh, dtype=np.int64).reshape(len(fresh), e.N)

    def _swaps(self, assoc: Ints, gains: Floats) -> list[Ints]:
        """The best exchanges of two users between two servers."""
        e = self.instance
        by_server = np.full((e.N, e.M), -np.inf)
        np.put_along_axis(by_server, self._strong, gains, axis=1)
        ranked: list[tuple[float, int, int]] = []
        for m in range(e.M):
            here = np.flatnonzero(assoc == m)
            for other in range(m):
                there = np.flatnonzero(assoc == other)
                if not len(here) or not len(there):
                    continue
                to, back = by_server[here, other], by_server[there, m]
                ranked.extend(
                    (float(to[i] + back[j]), int(here[i]), int(there[j]))
                    for i in np.argsort(-to)[:_PARTNERS]
                    for j in np.argsort(-back)[:_PARTNERS]
                    if np.isfinite(to[i] + back[j])
                )
        ranked.sort(reverse=True)
        found = []
        for _, n, other_n in ranked[:_SWAPS]:
            trial = assoc.copy()
            trial[n], trial[other_n] = assoc[other_n], assoc[n]
            found.append(trial)
        return found

    def modes(self, point: Points) -> Points:
        """Let each other user take its server's power, as long as that pays."""
        while not self.search.over():
            X = self._mode_starts(point)
            if not X.shape[1]:
                break
            points = self.settled(np.repeat(point.assoc, X.shape[1], axis=0), X, mu=_MODE_MU)
            at = points.best()
            if points.value[at] <= point.value[0] * (1.0 + _GAIN):
                break
            point = points.pick(np.array([at]))
        return point

    def _mode_starts(self, point: Points) -> Floats:
        """The incumbent's variables, strictly inside, with another user at a server's power (7, A, N)."""
        assoc, inside = point.assoc[0], point.X[:, 0].copy()
        inside[1:3] = np.minimum(inside[1:3], -0.01)
        inside[3:] += np.log(0.98)
        starts = []
        for m in range(self.instance.M):
            here = np.flatnonzero(assoc == m)
            if len(here) < 2:
                continue
            shares = np.exp(inside[6, here])
            for n in here[np.arange(len(here)) != shares.argmax()]:
                X = inside.copy()
                rest = here[here != n]
                X[6, rest] = np.minimum(X[6, rest], np.log(0.12 / len(rest)))
                X[6, n] = np.log(0.85)
                starts.append(X)
        return np.stack(starts, axis=1) if starts else np.empty((7, 0, self.instance.N))

    def finish(self, point: Points) -> None:
        """Settle a point to convergence from where it is, and anew."""
        self.settled(point.assoc, inside(point.X), mu=_ROUGH, final=FINAL)
