"""Proven upper bounds of what a user can earn alone on a server, at given T, y and prices (tcr.md F7, F3).

What is bounded is w = max of V - y w_e E - prices * shares over phi, powers, clocks and bandwidth with T_u, T_s <= T.
It is not concave: server power has several local optima. Theory of operation:

1. T_u <= T and T_s <= T are priced too, with multipliers zu, zs >= 0, and V is replaced by a tangent of slope s in the
   sum of shares. Any zu, zs, s give a valid bound; those that fit give the exact one at a given (phi, b, ps). The clocks
   and the upload's spectral efficiency then separate, each a concave problem of one variable with a closed form or a
   monotone Newton iteration.
2. What is left is affine in phi, so the ends of an interval of phi suffice. In (log b, log ps) all costs are convex:
   their tangents lie below them. The trust terms, linear in b and ps, are bounded by chords. A box of (phi, log b,
   log ps) so has a bound with an error of second order in its size.
3. Branch and bound over boxes, all users and servers at once. The cap on g1 + g2 (not on each) is left out: the bound stays
   valid without it.

Each leaf's bound is a line in T (slope zu + zs): a set of leaves bounds w for every T, not only for that of the call.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import lambertw

from edgora.allocator.tcr.instance import Instance
from edgora.allocator.tcr.newton import Floats, Ints, constants, options_of

__all__ = ["Leaves", "Pairs", "Places"]

_FIRST = (2, 3)
"""Parts into which log b and log ps are cut at first."""
_TUNES = (8, 4)
"""Rounds that fit multipliers of first boxes, and of boxes cut from others."""
_NEWTON = 7
_IN_TIME = 1.0 + 3e-4
"""Delay, in parts of T, up to which the middle of a box counts as a place that a user could take."""
_MOST = 250
"""Boxes a pair on average: a search that needs more stops where it is."""


@dataclass(slots=True)
class Leaves:
    """Bounds that hold together: w of a user is at most the greatest of its leaves' lines at T."""

    user: Ints
    bound: Floats
    """At the T of the call."""
    slope: Floats
    """Per second of T."""
    places: "Places"
    """What users could choose: all middles of boxes that keep T."""

    def most(self, users: int) -> Floats:
        """The bound of each user at the T of the call (N,)."""
        greatest = np.full(users, -np.inf)
        np.maximum.at(greatest, self.user, self.bound)
        return greatest

    @classmethod
    def joined(cls, parts: "list[Leaves]") -> "Leaves":
        """Leaves of different users together."""
        places = [part.places for part in parts]
        return cls(
            np.concatenate([part.user for part in parts]), np.concatenate([part.bound for part in parts]),
            np.concatenate([part.slope for part in parts]),
            Places(
                np.concatenate([p.user for p in places]), np.concatenate([p.server for p in places]),
                np.concatenate([p.value for p in places]), np.concatenate([p.shares for p in places], axis=1),
            ),
        )  # fmt: skip


@dataclass(slots=True)
class Places:
    """Points that keep T, with what they are worth: no bounds, but what a bound can at best come down to."""

    user: Ints
    server: Ints
    value: Floats
    shares: Floats
    """Of b, ps, fs (3, L)."""


@dataclass(slots=True)
class _Boxes:
    pair: Ints
    low: Floats
    """phi, log b, log ps (3, L)."""
    high: Floats
    z: Floats
    """zu, zs per second, and s (3, L)."""

    def pick(self, at: Ints) -> "_Boxes":
        return _Boxes(self.pair[at], self.low[:, at], self.high[:, at], self.z[:, at])


@dataclass(slots=True)
class _Judged:
    bound: Floats
    value: Floats
    """What the middle earns; -inf where it does not keep T with the clocks that fit its multipliers."""
    shares: Floats
    cut: Ints
    """The side along which the box is best cut."""


class Pairs:
    """Users on servers: all pairs that are bounded together."""

    def __init__(self, instance: Instance, users: Ints, servers: Ints) -> None:
        self.o, self.users, self.servers, self.N = options_of(instance), users, servers, instance.N
        self.P = constants(instance, users, servers)
        self.P[16] = instance.params.phi_min

    def bounds(
        self, T: float, y: float, prices: Floats, *, tolerance: float, upto: float, over: Callable[[], bool] = bool
    ) -> Leaves:
        """Leaves whose greatest bound exceeds what some point of it earns by about `tolerance` at most, in trust.

        prices (3, M). The lines hold for all T up to `upto`, at least T: places that cannot keep that are left out.
        A search that is `over` leaves the boxes as they are: their bounds hold all the same.
        Needs phi_min, omega_r, w_t and w_e above 0.
        """
        rent = prices[:, self.servers]
        boxes = self._first(upto, y)
        tunes = _TUNES[0]
        leaves: list[tuple[Ints, Floats, Floats]] = []
        seen: list[tuple[Ints, Floats, Floats]] = []
        best = np.full(self.N, -np.inf)
        total = 0
        while len(boxes.pair):
            judged = self._judge(boxes, T, y, rent, tunes, upto)
            total += len(boxes.pair)
            owner = self.users[boxes.pair]
            np.maximum.at(best, owner, judged.value)
            # A user's bound need not be closer than what its best place is worth.
            open_ = judged.bound > best[owner] + tolerance
            if total > _MOST * len(self.users) or over():
                open_[:] = False
            closed, again = np.flatnonzero(~open_), np.flatnonzero(open_)
            leaves.append((boxes.pair[closed], judged.bound[closed], boxes.z[:2, closed].sum(axis=0)))
            there = np.flatnonzero(np.isfinite(judged.value))
            seen.append((boxes.pair[there], judged.value[there], judged.shares[:, there]))
            boxes = _cut(boxes.pick(again), judged.cut[again])
            tunes = _TUNES[1]
        pair, bound, slope = (np.concatenate(rows) for rows in zip(*leaves, strict=True))
        at = np.concatenate([row[0] for row in seen])
        places = Places(
            self.users[at], self.servers[at], np.concatenate([row[1] for row in seen]),
            np.concatenate([row[2] for row in seen], axis=1),
        )  # fmt: skip
        return Leaves(self.users[pair], bound, slope, places)

    def _first(self, upto: float, y: float) -> _Boxes:
        """Boxes that hold all places where the download alone ends before `upto`."""
        P = self.P
        left = upto - P[14]
        with np.errstate(all="ignore"):
            need = P[16] * P[1] / left  # nats per second and hertz of the whole band
            least_power = np.expm1(need) / P[3]
        able = np.flatnonzero((left > 0.0) & (least_power < 1.0))
        low, high = np.full(len(able), -80.0), np.zeros(len(able))
        for _ in range(60):
            middle = 0.5 * (low + high)
            enough = np.exp(middle) * np.log1p(P[3, able] * np.exp(-middle)) >= need[able]
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        edges_b = [low + (0.0 - low) * i / _FIRST[0] for i in range(_FIRST[0] + 1)]
        floor = np.log(least_power[able])
        edges_p = [floor * (1.0 - i / _FIRST[1]) for i in range(_FIRST[1] + 1)]
        parts = []
        for i in range(_FIRST[0]):
            for j in range(_FIRST[1]):
                lows = np.stack((P[16, able], edges_b[i], edges_p[j]))
                highs = np.stack((P[17, able], edges_b[i + 1], edges_p[j + 1]))
                z = np.empty((3, len(able)))
                z[0] = z[1] = 0.1 * y * self.o.w_t
                z[2] = self.o.v1 * self.o.v2 / (P[15, able] + 0.5 * self.o.v2)
                parts.append(_Boxes(able, lows, highs, z))
        return _Boxes(
            np.concatenate([p.pair for p in parts]), np.concatenate([p.low for p in parts], axis=1),
            np.concatenate([p.high for p in parts], axis=1), np.concatenate([p.z for p in parts], axis=1),
        )  # fmt: skip

    def _judge(self, boxes: _Boxes, T: float, y: float, rent: Floats, tunes: int, upto: float) -> _Judged:
        """Bound each box; fits its multipliers in place."""
        o, P, r = self.o, self.P[:, boxes.pair], rent[:, boxes.pair]
        middle = 0.5 * (boxes.low + boxes.high)
        x, p = middle[1], middle[2]
        b, ps = np.exp(x), np.exp(p)
        nats = np.log1p(P[3] * np.exp(p - x))
        a = P[3] * np.exp(p - x) / ((1.0 + P[3] * np.exp(p - x)) * nats)
        down = P[1] / (b * nats)  # seconds per phi
        left = T - P[14]
        most_nats = np.log1p(P[2] * np.exp(-boxes.low[1]))  # full power at the box's least bandwidth

        def parts(phi: Floats, z: Floats, b: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
            """Best clocks and efficiency at these multipliers."""
            zu, zs, s = z
            on_upload = o.on_user * zu + (1.0 - o.on_user) * zs
            c = y * P[4] / P[2]
            free: Floats = 1.0 + np.asarray(lambertw((on_upload / (b * c) - 1.0) / np.e)).real
            n: Floats = np.clip(free, 1e-9, most_nats)
            fu: Floats = np.cbrt(
                (zu * P[10] * (1.0 - P[11] * phi) + zs * o.on_server * phi * P[13])
                / (2.0 * y * P[12] * (1.0 - P[11] * phi) + 1e-300)
            )
            fu = np.clip(fu, 1e-12, 1.0)
            g = _clocks(s - r[2], zs * phi * P[6:8], y * phi * P[8:10])
            return n, fu, g, on_upload, c

        z = boxes.z
        first = boxes.low[0]
        # Multipliers are fitted to the middle, or to the best corner where the middle cannot keep T at all.
        least = P[6:8].sum(axis=0)
        b_most, ps_most = np.exp(boxes.high[1]), np.exp(boxes.high[2])
        soonest = P[1] / (b_most * np.log1p(P[3] * ps_most / b_most))
        late = first * (least + down) > 0.98 * left
        at_b, at_ps, at_down = np.where(late, b_most, b), np.where(late, ps_most, ps), np.where(late, soonest, down)
        dearest = 1.5 * y * o.w_t  # at the best T, all users' multipliers add up to y w_t
        for _ in range(tunes):
            n, fu, g, _on, _c = parts(first, z, at_b)
            up = P[0] / (at_b * n)
            t_user = P[10] * (1.0 - P[11] * first) / fu + o.on_user * first * up
            t_server = first * (
                (P[6:8] / g).sum(axis=0) + at_down + (1.0 - o.on_user) * up + o.on_server * P[13] / fu
            )  # fmt: skip
            z[0] = np.minimum(z[0] * np.clip(t_user / T, 0.2, 5.0) ** 2.5, dearest)
            z[1] = np.minimum(z[1] * np.clip(t_server / np.maximum(left, 1e-3 * T), 0.2, 5.0) ** 2.0, dearest)
            z[2] = o.v1 * o.v2 / (P[15] + o.v2 * (at_b + at_ps + g.sum(axis=0)))
        in_time = ~late & (t_user <= T * _IN_TIME) & (t_server <= left * _IN_TIME)
        never = first * (least + soonest) > upto - P[14]
        zu, zs, s = z
        keep = o.v1 * np.log(o.v1 * o.v2 / s) - o.v1 + s * P[15] / o.v2 + zu * T + zs * left
        kb, kp = s - r[0], s - r[1]
        width = boxes.high - boxes.low
        # Trust of b and ps: chords where convex, tangents where concave, both as (value, slope) in the middle.
        vb, sb = _upper_line(kb, boxes.low[1], boxes.high[1], b)
        vp, sp = _upper_line(kp, boxes.low[2], boxes.high[2], ps)

        def at(phi: Floats) -> tuple[Floats, Floats, Floats, Floats]:
            n, fu, g, on_upload, c = parts(phi, z, b)
            local = 1.0 - P[11] * phi
            clocks = (zu * P[10] * local + zs * o.on_server * phi * P[13]) / fu + y * P[12] * local * fu * fu
            data = ((s - r[2]) * g - zs * phi * P[6:8] / g - y * phi * P[8:10] * g * g).sum(axis=0)
            upload = phi * P[0] * (c * np.expm1(n) / n + on_upload / (b * n))
            energy, time = y * phi * P[5] * ps * down, zs * phi * down
            rest = keep - clocks + data - upload - energy - time
            slope_x = phi * P[0] * on_upload / (b * n) + (1.0 - a) * (energy + time)
            slope_p = a * time - (1.0 - a) * energy
            reach = 0.5 * (np.abs(slope_x + sb) * width[1] + np.abs(slope_p + sp) * width[2])
            return rest + vb + vp + reach, rest + kb * b + kp * ps, g.sum(axis=0), upload + energy + time

        low_bound, value, g, costs = at(first)
        high_bound = at(boxes.high[0])[0]
        over = np.stack((
            np.where(width[0] > 1e-9, np.maximum(high_bound - low_bound, 0.0), 0.0),
            (np.abs(kb) * b + costs) * width[1] ** 2 / 8.0, (np.abs(kp) * ps + costs) * width[2] ** 2 / 8.0,
        ))  # fmt: skip
        cut = over.argmax(axis=0)
        value -= zu * (T - t_user) + zs * (left - t_server)
        bound = np.where(never, -np.inf, np.maximum(low_bound, high_bound))
        return _Judged(bound, np.where(in_time, value, -np.inf), np.stack((b, ps, g)), cut)


def _upper_line(k: Floats, low: Floats, high: Floats, middle: Floats) -> tuple[Floats, Floats]:
    """A line in t above k e^t on [low, high], as value in the middle and slope; `middle` is e^t there."""
    chord = k * (np.exp(high) - np.exp(low)) / (high - low)
    at_middle = k * 0.5 * (np.exp(high) + np.exp(low))
    return np.where(k > 0.0, at_middle, k * middle), np.where(k > 0.0, chord, k * middle)


def _clocks(k: Floats, time: Floats, energy: Floats) -> Floats:
    """The best g in (0, 1] of k g - time / g - energy g^2, for data and block (2, L).

    The slope's root is the one positive root of 2 energy g^3 - k g^2 - time; from above, Newton's iteration descends to
    it without passing it.
    """
    energy = np.maximum(energy, 1e-12 * (np.abs(k) + time) + 1e-300)
    g = np.maximum(np.maximum(k, 0.0) / energy, np.cbrt(time / energy))
    g = np.where(k < 0.0, np.minimum(np.cbrt(0.5 * time / energy), np.sqrt(time / np.maximum(-k, 1e-300))), g)
    g = np.maximum(g, 1e-150)
    for _ in range(_NEWTON):
        g = g - (2.0 * energy * g**3 - k * g * g - time) / np.maximum(6.0 * energy * g * g - 2.0 * k * g, 1e-300)
    best: Floats = np.minimum(g, 1.0)
    return best


def _cut(boxes: _Boxes, side: Ints) -> _Boxes:
    """Both halves of each box along its side; phi is cut near its low end, where the best place is."""
    here = np.arange(len(side))
    low, high = boxes.low[side, here], boxes.high[side, here]
    middle = np.where(side == 0, low + 0.25 * (high - low), 0.5 * (low + high))
    left_high, right_low = boxes.high.copy(), boxes.low.copy()
    left_high[side, here], right_low[side, here] = middle, middle
    return _Boxes(
        np.concatenate((boxes.pair, boxes.pair)), np.concatenate((boxes.low, right_low), axis=1),
        np.concatenate((left_high, boxes.high), axis=1), np.concatenate((boxes.z, boxes.z), axis=1),
    )  # fmt: skip
