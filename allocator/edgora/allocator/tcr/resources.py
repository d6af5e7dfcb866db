"""Best resources of given associations: a primal-dual barrier method over many associations at once (tcr.md 9.1).

Theory of operation. With the servers chosen, what is left is smooth: phi, bandwidth, powers and clocks. V - y C is
maximised with y = V/C renewed in every iteration (Dinkelbach), inside the barrier of all constraints; each point on
the way is feasible, so a search that is cut off still has an answer. A step solves one 7x7 block a user (`newton`),
one 3x3 system a server and one number an association; its cost is linear in users. The barrier's weight mu falls only
when its stage has converged: stages cut short end in worse local optima. It rises again where steps stay short, which
happens when a user's share collapses beside tight delays.

phi stays at phi_min (F4) unless its multiplier says that offloading more pays: `settle` then sets it free.

Columns of the working arrays are the users of all associations, ordered by association and server, so that every sum
over a server is one `reduceat`. Associations leave the batch when they have converged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.tcr.instance import Instance
from edgora.allocator.tcr.model import Decision
from edgora.allocator.tcr.newton import Floats, Ints, Worth, columns, constants, moved, options_of, values

__all__ = ["Points", "alone", "decision", "inside", "resettle", "settle", "start", "variables"]

Bools = NDArray[np.bool_]

COLD = 0.05
"""First mu of a cold start, in parts of `_unit`."""

FINAL = 1e-8
"""Last mu, likewise: the value is then within some 1e-8 of its limit."""

_WARM, _WARM_FINAL = 1e-3, 3e-6
"""First and last mu of `resettle`."""
_STEPS = 150
_STALLS = 4
"""Short steps in a row after which mu rises."""
_SHORT = 0.1
_RAISES = 3
"""How often mu may rise."""
_CENTRED = 0.4
"""A stage has converged where the next step promises less than this times mu a user."""
_EDGE = 0.995
"""Part of the way to the nearest limit that a step may go."""
_LONGEST = 3.0
"""Greatest step of any variable."""
_HALVINGS = 20
_BAND = 1e8
_LEAVE = 0.3
"""Share of converged associations at which they leave the batch."""
_PAYS = 1e-6
"""Slope of phi, in parts of a user's trust, from which it is set free."""
_MARGIN = 0.2
"""log T of a cold start above the greatest delay; less where mu is small: then z c = mu asks for less."""


@dataclass(slots=True, eq=False)
class Points:
    """Feasible resources of A associations, with their multipliers."""

    assoc: Ints
    """(A, N)"""
    X: Floats
    """Variables of `newton` (7, A, N)."""
    tau: Floats
    """log T (A,)."""
    prices: Floats
    """Multipliers of the budgets of b, ps, fs (3, A, M), in trust per whole budget; 0 where a server has no users."""
    value: Floats
    """TCR (A,)."""
    trust: Floats
    """sum V (A,)."""
    steps: Ints
    """Newton steps (A,)."""
    phi_slope: Floats
    """Derivative of V - y C in -phi (A, N): below 0 where a fixed phi should rise."""

    def best(self) -> int:
        return int(np.argmax(self.value))

    def pick(self, at: Ints) -> "Points":
        """The points of these associations."""
        return Points(
            self.assoc[at], self.X[:, at], self.tau[at], self.prices[:, at], self.value[at], self.trust[at],
            self.steps[at], self.phi_slope[at],
        )  # fmt: skip

    @classmethod
    def joined(cls, parts: "Sequence[Points]") -> "Points":
        """The points of several batches of one instance, in order."""
        if len(parts) == 1:
            return parts[0]
        wide = {name: np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("X", "prices")}
        flat = ("assoc", "tau", "value", "trust", "steps", "phi_slope")
        return cls(**wide, **{name: np.concatenate([getattr(part, name) for part in parts]) for name in flat})


def decision(instance: Instance, points: Points, at: int) -> Decision:
    """The decision of one of the points."""
    e, X, a = instance, points.X[:, at], points.assoc[at]
    g1, g2 = np.exp(X[3]), np.exp(X[4])
    return Decision(
        assoc=a.copy(), phi=X[0].copy(), gamma=g1 / (g1 + g2), b=e.B[a] * np.exp(X[5]), pu=e.pu_max * np.exp(X[2]),
        ps=e.ps_max[a] * np.exp(X[6]), fu=e.fu_max * np.exp(X[1]), fs=e.fs_max[a] * (g1 + g2),
    )  # fmt: skip


def variables(instance: Instance, chosen: Decision) -> Floats:
    """A decision's variables (7, 1, N), drawn strictly inside all limits: the start of a warm solve."""
    e, a = instance, chosen.assoc
    X = np.empty((7, 1, e.N))
    X[0] = chosen.phi
    X[1], X[2] = np.log(chosen.fu / e.fu_max), np.log(chosen.pu / e.pu_max)
    X[3], X[4] = np.log(chosen.gamma * chosen.fs / e.fs_max[a]), np.log((1.0 - chosen.gamma) * chosen.fs / e.fs_max[a])
    X[5], X[6] = np.log(chosen.b / e.B[a]), np.log(chosen.ps / e.ps_max[a])
    return inside(X)


def inside(X: Floats) -> Floats:
    """Variables (7, ..) a little inside the caps and budgets that they keep."""
    X = X.copy()
    X[1:3] = np.minimum(X[1:3], -1e-3)
    X[3:] += np.log(0.998)
    return X


def start(instance: Instance, assoc: Ints) -> Floats:
    """A cold start of each association (7, A, N): equal shares that leave a tenth, caps nearly reached, least phi."""
    A, N = assoc.shape
    seats = np.arange(A)[:, None] * instance.M + assoc
    users = np.bincount(seats.ravel(), minlength=A * instance.M)[seats].astype(np.float64)
    X = np.empty((7, A, N))
    X[0] = constants(instance, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))[16, 0]
    X[1:3] = -0.2
    X[3:5], X[5], X[6] = np.log(0.3 / users), np.log(0.9 / users), np.log(0.8 / users)
    return X


def settle(
    instance: Instance, assoc: Ints, X: Floats | None = None, *, mu: float = COLD, final: float = FINAL,
    over: Callable[[], bool] | None = None,
) -> Points:  # fmt: skip
    """The best resources near a start, for each association.

    X (7, A, N) must keep every budget and cap strictly; None is a cold start. phi starts fixed at its least value and
    is freed where that pays for some user. `over` is asked in every step and ends it early.
    """
    assoc = np.ascontiguousarray(assoc, dtype=np.int64)
    X, ask = start(instance, assoc) if X is None else X, over or _never
    users = np.broadcast_to(np.arange(assoc.shape[1]), assoc.shape)
    points = _Batch(instance, assoc, users, X, mu, None, final).run(ask)
    pays = points.phi_slope < -_PAYS * points.trust[:, None] / assoc.shape[1]
    again = np.flatnonzero(pays.any(axis=1))
    if len(again) and not ask():
        # All users of the association: where some offload more, others pay too.
        loose, free = _loosened(instance, points.X[:, again]), np.ones((len(again), assoc.shape[1]), dtype=bool)
        _put(points, again, _Batch(instance, assoc[again], users[again], loose, mu, free, final).run(ask))
    return points


def resettle(instance: Instance, chosen: Decision) -> Decision:
    """The best resources near a decision that was good before gains or sizes changed somewhat; association kept."""
    points = settle(instance, chosen.assoc[None], variables(instance, chosen), mu=_WARM, final=_WARM_FINAL)
    return decision(instance, points, 0)


def alone(
    instance: Instance, users: Ints, servers: Ints, X: Floats, *, tau: float, y: float, rent: Floats, mu: float = COLD,
    final: float = FINAL,
) -> tuple[Floats, Floats]:  # fmt: skip
    """What each user could earn alone on a server (tcr.md F7, F8), and its variables (7, K).

    The value is V - y w_e E - rent * shares, of shares within the server's budgets and delays within T = exp(tau);
    -inf where the start X (7, K) does not keep these strictly.
    """
    o = options_of(instance)
    w = values(o, constants(instance, users, servers), X, np.full(len(users), tau))
    able = np.isfinite(w.logs) & (w.shares < 1.0).all(axis=0)
    worth, best = np.full(len(users), -np.inf), X.copy()
    if able.any():
        args = (instance, users[able], servers[able], X[:, able], tau, y, rent[:, able], mu, None, final)
        points = _Pairs(*args).run(_never)
        worth[able], best[:, able] = points.value, points.X[:, :, 0]
    return worth, best


def _unit(instance: Instance) -> float:
    """Two thirds of what a user earns with an even share: the scale of mu."""
    e, p = instance, instance.params
    return p.v1 * float(np.log1p(p.v2 * (e.score.mean() + 3.0 * min(1.0, e.M / e.N)))) / 1.5


def _never() -> bool:
    return False


def _loosened(instance: Instance, X: Floats) -> Floats:
    """A start with phi a little above the least, and the other limits not quite reached."""
    X = X.copy()
    X[0] += 0.05 * (instance.params.phi_max - X[0])
    X[1:3] = np.minimum(X[1:3], -0.01)
    X[3:] += np.log(0.98)
    return X


def _put(points: Points, at: Ints, better: Points) -> None:
    """Replace those of `at` that are better."""
    wins = np.flatnonzero(better.value > points.value[at])
    into = at[wins]
    points.X[:, into], points.prices[:, into] = better.X[:, wins], better.prices[:, wins]
    for name in ("tau", "value", "trust", "phi_slope"):
        getattr(points, name)[into] = getattr(better, name)[wins]
    points.steps[at] += better.steps


class _Layout:
    """Where the users of a batch of associations stand."""

    def __init__(self, assoc: Ints, users: Ints) -> None:
        self.assoc, self.users = assoc, users
        self.A, self.N = A, N = assoc.shape
        order = np.argsort(assoc, axis=1, kind="stable")
        server = np.take_along_axis(assoc, order, axis=1)
        new = np.ones((A, N), dtype=bool)
        new[:, 1:] = server[:, 1:] != server[:, :-1]
        self.seat, self.server = order.ravel(), server.ravel()
        """Place in its association, and server, of each column."""
        self.user = np.take_along_axis(users, order, axis=1).ravel()
        self.of = np.repeat(np.arange(A), N)
        """Association of each column."""
        self.group = np.cumsum(new.ravel()) - 1
        """Group, that is a server with users in one association, of each column."""
        self.group_at = np.flatnonzero(new)
        self.group_of = self.group_at // N
        self.group_server = self.server[self.group_at]
        self.first_group = np.concatenate(([0], np.cumsum(new.sum(axis=1))[:-1]))

    def by_group(self, rows: Floats) -> Floats:
        sums: Floats = np.add.reduceat(rows, self.group_at, axis=-1)
        return sums

    def by_association(self, rows: Floats) -> Floats:
        sums: Floats = rows.reshape(*rows.shape[:-1], self.A, self.N).sum(axis=-1)
        return sums

    def most(self, row: Floats) -> Floats:
        """Greatest of each association's users."""
        greatest: Floats = row.reshape(self.A, self.N).max(axis=1)
        return greatest

    def groups_by_association(self, rows: Floats) -> Floats:
        sums: Floats = np.add.reduceat(rows, self.first_group, axis=-1)
        return sums

    def most_of_groups(self, row: Floats) -> Floats:
        greatest: Floats = np.maximum.reduceat(row, self.first_group)
        return greatest


@dataclass(slots=True)
class _Value:
    """A point of the batch, valued; the merit is y cost - trust - mu logs."""

    cost: Floats
    trust: Floats
    logs: Floats
    spare: Floats
    log_delay: Floats


class _Batch:
    """The working arrays of `settle`."""

    rent: Floats | None = None
    """What shares cost beside the budgets' prices (3, K)."""

    def __init__(
        self, instance: Instance, assoc: Ints, users: Ints, X: Floats, mu: float, free: Bools | None, final: float
    ) -> None:
        self.o, self.unit = options_of(instance), _unit(instance)
        mu, self.final = mu * self.unit, final * self.unit
        A, N = assoc.shape
        self.result = Points(
            assoc, np.empty((7, A, N)), np.empty(A), np.zeros((3, A, instance.M)), np.zeros(A), np.empty(A),
            np.zeros(A, dtype=np.int64), np.empty((A, N)),
        )  # fmt: skip
        self.index = np.arange(A)
        """Which of the result's associations are still in the batch."""
        lay = self.layout = _Layout(assoc, users)
        self.P = constants(instance, lay.user, lay.server)
        if free is not None:
            self.P[18] = free[lay.of, lay.seat]
        self.X = np.ascontiguousarray(X[:, lay.of, lay.seat])
        log_delay = values(self.o, self.P, self.X, np.zeros(len(lay.user))).log_delay
        self.tau = self._first_tau(lay.most(log_delay.max(axis=0)), mu / self.unit)
        self.mu = np.full(A, mu)
        self.short, self.raised = np.zeros(A, dtype=np.int64), np.zeros(A, dtype=np.int64)
        self.phi_slope = np.zeros(len(lay.user))
        self.value = self._valued(self.X, self.tau)
        loose = self.P[18] > 0.0
        slack = np.empty((6, len(lay.user)))
        slack[:2], slack[2:4] = self.tau[lay.of] - log_delay, -self.X[1:3]
        slack[4] = np.where(loose, self.X[0] - self.P[16], np.inf)
        slack[5] = np.where(loose, self.P[17] - self.X[0], np.inf)
        self.Z = mu / slack
        self.prices = mu / self.value.spare

    def run(self, over: Callable[[], bool]) -> Points:
        for step in range(_STEPS):
            with np.errstate(all="ignore"):  # what is not a number loses every comparison in `_search`
                done = self._step()
            if step + 1 == _STEPS or over():
                done[:] = True
            self.result.steps[self.index] += 1
            if done.all() or done.sum() > _LEAVE * len(done):
                self._leave(done)
                if not len(self.index):
                    break
        return self.result

    def _first_tau(self, slowest: Floats, mu: float) -> Floats:
        return slowest + min(_MARGIN, 20.0 * mu)

    def _y(self) -> Floats:
        return self.value.trust / self.value.cost

    def _valued(self, X: Floats, tau: Floats) -> _Value:
        lay = self.layout
        w = values(self.o, self.P, X, tau[lay.of])
        spare = 1.0 - lay.by_group(w.shares)
        good = spare.min(axis=0) > 0.0
        logs = np.where(good, np.log(np.where(good, spare, 1.0)).sum(axis=0), -np.inf)
        sums = lay.by_association(np.stack((w.energy, w.trust, w.logs)))
        cost, trust = self._priced(sums[0], sums[1], w, tau)
        return _Value(cost, trust, sums[2] + lay.groups_by_association(logs), spare, w.log_delay)

    def _priced(self, energy: Floats, trust: Floats, _w: Worth, tau: Floats) -> tuple[Floats, Floats]:
        return self.o.w_t * np.exp(tau) + energy, trust

    def _tau_step(self, y: Floats, own: Floats, side: Floats) -> tuple[Floats, Floats]:
        """Step of tau, and the merit's slope in it. own: sums over users of B.S0, B.SB, z/c, mu/c."""
        delay = y * self.o.w_t * np.exp(self.tau)
        slope = delay - own[3]
        curve = delay + own[2] - own[1] + side[1]
        return (own[0] + side[0] - slope) / np.maximum(np.abs(curve), 1e-12), slope

    def _step(self) -> Bools:
        """One Newton step of every association; says which have converged."""
        lay, v, mu, y = self.layout, self.value, self.mu, self._y()
        of, mu_group = lay.of, mu[lay.group_of]
        col = columns(
            self.o, self.P, self.X, self.Z, self.tau[of], self.prices[:, lay.group], y[of], mu[of], self.rent
        )  # fmt: skip
        self.phi_slope = col.phi_slope
        S, A = col.S, col.A
        reduced = np.empty((3, 5, len(of)))
        reduced[0], reduced[1], reduced[2] = A[2] * S[5], A[3] * S[6], A[0] * S[3] + A[1] * S[4]
        group = lay.by_group(reduced)
        rows = np.empty((4, len(of)))
        rows[:2] = np.einsum("ik,ijk->jk", col.B, S[:, :2])
        rows[2], rows[3] = (self.Z[:2] / col.c).sum(axis=0), (mu[of] / col.c).sum(axis=0)
        block = group[:, 2:].copy()
        for i in range(3):
            block[i, i] += v.spare[i] / self.prices[i]
        solved = _solve(block, np.stack((mu_group / self.prices - group[:, 0], group[:, 1]), axis=1))
        side = lay.groups_by_association(np.einsum("ig,ijg->jg", group[:, 1], solved))
        dtau, slope_tau = self._tau_step(y, lay.by_association(rows), side)
        new = solved[:, 0] - solved[:, 1] * dtau[lay.group_of]
        dprices = new - self.prices

        by = np.empty((5, len(of)))
        by[0], by[1], by[2:] = 1.0, dtau[of], new[:, lay.group]
        dX = -np.einsum("ijk,jk->ik", S, by)
        dslack = np.empty((6, len(of)))
        dslack[:2] = by[1] - np.einsum("tik,ik->tk", col.G, dX)
        dslack[2:4], dslack[4], dslack[5] = -dX[1:3], dX[0], -dX[0]
        slack = np.concatenate((col.c, col.bounds))
        dZ = (mu[of] - self.Z * dslack) / slack - self.Z
        dZ[4:] *= self.P[18]
        dshare = lay.by_group(np.stack((A[2] * dX[5], A[3] * dX[6], A[0] * dX[3] + A[1] * dX[4])))
        slope = (
            lay.by_association((col.gradient * dX).sum(axis=0)) + slope_tau * dtau
            + lay.groups_by_association((mu_group / v.spare * dshare).sum(axis=0))
        )  # fmt: skip

        closing = np.maximum((-dslack[2:] / slack[2:]).max(axis=0), (-dX[3:]).max(axis=0) / 0.95)
        closing = np.maximum(lay.most(closing), lay.most_of_groups((dshare / v.spare).max(axis=0)))
        longest = lay.most(np.abs(dX).max(axis=0))
        alpha = np.minimum(_EDGE / np.maximum(closing, _EDGE), _LONGEST / np.maximum(longest, _LONGEST))
        falling = (-dZ / np.where(self.Z > 0.0, self.Z, np.inf)).max(axis=0)
        falling = np.maximum(lay.most(falling), lay.most_of_groups((-dprices / self.prices).max(axis=0)))
        dual = _EDGE / np.maximum(falling, _EDGE)

        alpha = self._search(dX, dtau, alpha, slope, y)
        self.Z += dual[of] * dZ
        self.prices += dual[lay.group_of] * dprices
        self._recentre()
        small = -slope <= _CENTRED * mu * lay.N
        done: Bools = small & (mu <= self.final)
        self.short = np.where((alpha < _SHORT) & ~small, self.short + 1, 0)
        stuck = (self.short >= _STALLS) & (self.raised < _RAISES) & (mu < COLD * self.unit)
        self.raised += stuck
        self.short[stuck] = 0
        lower = np.maximum(0.99 * self.final, mu * np.minimum(0.2, np.sqrt(mu / self.unit)))
        self.mu = np.where(small, lower, np.where(stuck, np.minimum(COLD * self.unit, 30.0 * mu), mu))
        return done

    def _search(self, dX: Floats, dtau: Floats, alpha: Floats, slope: Floats, y: Floats) -> Floats:
        """Shorten each association's step until the merit falls, and take it."""
        v, of = self.value, self.layout.of
        allowed = y * v.cost - v.trust - self.mu * v.logs + 1e-11 * np.abs(v.trust)
        for _ in range(_HALVINGS):
            X, tau = moved(self.X, alpha[of] * dX), self.tau + alpha * dtau
            new = self._valued(X, tau)
            bad = ~(y * new.cost - new.trust - self.mu * new.logs <= allowed + 1e-4 * alpha * slope)
            if not bad.any():
                break
            alpha = np.where(bad, 0.5 * alpha, alpha)
        else:
            alpha = np.where(bad, 0.0, alpha)
            X, tau = moved(self.X, alpha[of] * dX), self.tau + alpha * dtau
            new = self._valued(X, tau)
        self.X, self.tau, self.value = X, tau, new
        return alpha

    def _recentre(self) -> None:
        """Keep multipliers within a wide band around the central path."""
        lay, v = self.layout, self.value
        centre = self.mu[lay.of] / np.concatenate((self.tau[lay.of] - v.log_delay, -self.X[1:3]))
        self.Z[:4] = np.clip(self.Z[:4], centre / _BAND, centre * _BAND)
        centre = self.mu[lay.group_of] / v.spare
        self.prices = np.clip(self.prices, centre / _BAND, centre * _BAND)

    def _worth(self) -> tuple[Floats, Floats]:
        """log T and value of each association: T is the greatest delay, not the barrier's."""
        log_delay = self.layout.most(self.value.log_delay.max(axis=0))
        energy = self.value.cost - self.o.w_t * np.exp(self.tau)
        return log_delay, self.value.trust / (energy + self.o.w_t * np.exp(log_delay))

    def _leave(self, done: Bools) -> None:
        """Write down those that are done and keep the rest."""
        lay, out, v = self.layout, self.result, self.value
        at, gone = self.index[done], done[lay.of]
        of, seat = self.index[lay.of[gone]], lay.seat[gone]
        out.X[:, of, seat] = self.X[:, gone]
        out.phi_slope[of, seat] = self.phi_slope[gone]
        groups = done[lay.group_of]
        out.prices[:, self.index[lay.group_of[groups]], lay.group_server[groups]] = self.prices[:, groups]
        tau, value = self._worth()
        out.trust[at], out.tau[at], out.value[at] = v.trust[done], tau[done], value[done]
        stay, kept, open_ = ~done, ~gone, ~groups
        self.index, self.tau, self.mu = self.index[stay], self.tau[stay], self.mu[stay]
        self.short, self.raised = self.short[stay], self.raised[stay]
        self.P, self.X, self.Z = self.P[:, kept], self.X[:, kept], self.Z[:, kept]
        self.prices = self.prices[:, open_]
        if self.rent is not None:
            self.rent = self.rent[:, kept]
        if len(self.index):
            self.value = _Value(v.cost[stay], v.trust[stay], v.logs[stay], v.spare[:, open_], v.log_delay[:, kept])
            self.layout = _Layout(lay.assoc[stay], lay.users[stay])


class _Pairs(_Batch):
    """Users alone, each on one server, at a given T, y and rent: an association of one user each."""

    def __init__(
        self, instance: Instance, users: Ints, servers: Ints, X: Floats, tau: float, y: float, rent: Floats, mu: float,
        free: Bools | None, final: float,
    ) -> None:  # fmt: skip
        self.given_tau, self.given_y, self.rent = tau, y, rent
        loose = None if free is None else free[:, None]
        super().__init__(instance, servers[:, None], users[:, None], X[:, :, None], mu, loose, final)

    def _first_tau(self, slowest: Floats, _mu: float) -> Floats:
        return np.full_like(slowest, self.given_tau)

    def _y(self) -> Floats:
        return np.full(self.layout.A, self.given_y)

    def _priced(self, energy: Floats, trust: Floats, w: Worth, _tau: Floats) -> tuple[Floats, Floats]:
        assert self.rent is not None
        return energy, trust - (self.rent * w.shares).sum(axis=0)

    def _tau_step(self, _y: Floats, own: Floats, _side: Floats) -> tuple[Floats, Floats]:
        return np.zeros(own.shape[1]), np.zeros(own.shape[1])

    def _worth(self) -> tuple[Floats, Floats]:
        return self.tau, self.value.trust - self.given_y * self.value.cost


def _solve(block: Floats, right: Floats) -> Floats:
    """block^-1 right for symmetric positive blocks (3, 3, G) and right sides (3, k, G); overwrites both."""
    for i in range(3):
        for j in range(i + 1, 3):
            factor = block[j, i] / block[i, i]
            block[j, i + 1 :] -= factor * block[i, i + 1 :]
            right[j] -= factor * right[i]
    for i in (2, 1, 0):
        for j in range(i + 1, 3):
            right[i] -= block[i, j] * right[j]
        right[i] /= block[i, i]
    return right
