"""Newton steps of the barrier method for resources, many users at a time (tcr.md 9.1).

Theory of operation. For a given server, a user has seven variables, in this order:

    0 phi   1 log fu/fmax   2 log pu/pmax   3 log g1/F   4 log g2/F   5 log b/B   6 log ps/P

where g1 = gamma fs and g2 = (1 - gamma) fs. At fixed phi all delays and energies are convex in the logarithms; only
-V and the products with phi are not. What couples users is the system delay (tau = log T) and each server's three
budgets. `columns` factors a user's own 7x7 block of the condensed primal-dual system and solves it for five right-hand
sides: the gradient, the column of tau, the columns of the three budgets. What remains for the caller is a 3x3 system a
server and one number an association (Schur complement).

Three things keep steps long:
    - the magnitude of each component of the Lagrangian's gradient is added to the diagonal: it bounds steps to about
      one in the logarithm and vanishes at the solution, where convergence is quadratic as before;
    - pivots that are not positive are replaced by their magnitude, so every direction descends; the variables in which
      the problem can be non-convex, b and ps, come last: their pivots are curvatures with all others at their best;
    - shares move linearly, not in their logarithms (`moved`): budgets are linear then, and never overshot.

Everything is elementwise arithmetic on rows of equal length, one entry a user.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.tcr.instance import Instance

__all__ = [
    "FLOOR",
    "Columns",
    "Floats",
    "Ints",
    "Options",
    "Worth",
    "columns",
    "constants",
    "moved",
    "options_of",
    "values",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FLOOR = 1e-4
"""Least phi of the iteration where phi_min is lower; phi = 0 has a closed form of its own (F6)."""

_LN2 = float(np.log(2.0))
_OF_SHARE = [2, 2, 0, 1]
"""Budget of g1, g2, b, ps."""
_TINY = 1e-14
"""Least pivot."""


@dataclass(frozen=True, slots=True)
class Options:
    """What all users share."""

    v1: float
    v2: float
    on_user: float
    """1: the upload counts in T_u, 0: in T_s."""
    on_server: float
    """1: the result's handling counts in T_s too."""
    w_t: float
    """1/s; a vanishing weight is lifted to 1e-9 w_e, so that T stays finite."""


def options_of(instance: Instance) -> Options:
    p = instance.params
    return Options(p.v1, p.v2, float(p.ut_on_user), float(p.fin_on_server), max(p.w_t, 1e-9 * p.w_e))


def constants(instance: Instance, users: Ints, servers: Ints) -> Floats:
    """The rows P (19, K) for these users on these servers; seconds and joules at full use of everything.

    0, 1 up- and download at 1 nat/s/Hz; 2, 3 their snr; 4, 5 w_e times their powers; 6, 7 data and block at F; 8, 9 w_e
    times their joules; 10 the whole task at fmax; 11 the part of it that phi = 1 saves; 12 w_e times its joules; 13 the
    result at fmax; 14 t_chain; 15 1 + v2 q; 16, 17 range of phi; 18 whether phi is free (0, 1; 0 here).
    """
    e, p = instance, instance.params
    h, d = e.gain[users, servers], e.d[users]
    B, PS, F = e.B[servers], e.ps_max[servers], e.fs_max[servers]
    pmax, fmax = e.pu_max[users], e.fu_max[users]
    P = np.empty((19, len(users)))
    P[0], P[1] = d * _LN2 / B, p.omega_r * d * _LN2 / B
    P[2], P[3] = h * pmax / (p.N0 * B), h * PS / (p.N0 * B)
    P[4], P[5] = p.w_e * pmax, p.w_e * PS
    data, block = d * e.eta_s[servers], d * p.omega_b * e.eta_b[servers]
    P[6], P[7] = data / F, block / F
    P[8], P[9] = p.w_e * e.kappa_s[servers] * F**2 * data, p.w_e * e.kappa_s[servers] * F**2 * block
    P[10] = d * e.eta_u[users] / fmax
    P[11] = 1.0 - p.omega_r * e.eta_r[users] / e.eta_u[users]
    P[12] = p.w_e * e.kappa_u[users] * fmax**2 * d * e.eta_u[users]
    P[13] = p.omega_r * d * e.eta_r[users] / fmax
    P[14] = e.model.t_chain[servers]
    P[15] = 1.0 + p.v2 * e.score[servers]
    P[16], P[17], P[18] = max(p.phi_min, FLOOR * p.phi_max), p.phi_max, 0.0
    return P


def moved(X: Floats, dX: Floats) -> Floats:
    """X after a step: shares move linearly, clocks and powers of users in their logarithms; needs dX[3:] > -1."""
    new = X + dX
    new[3:] = X[3:] + np.log1p(dX[3:])
    return new


@dataclass(slots=True)
class Worth:
    """What a point is worth; rows (.., K)."""

    energy: Floats
    """w_e E."""
    trust: Floats
    """V."""
    shares: Floats
    """Shares of b, ps, fs (3, K)."""
    log_delay: Floats
    """log T_u, log T_s (2, K)."""
    logs: Floats
    """Sum of the logarithms of the slacks; -inf where a limit is passed."""


def values(o: Options, P: Floats, X: Floats, tau: Floats) -> Worth:
    """The worth of a point; tau (K,) only enters `logs`."""
    phi, ex = X[0], np.exp(X[1:])
    nats = np.log1p(P[2:4] * ex[1::4] / ex[4])
    unit = P[0:2] / (ex[4] * nats)
    work = P[6:8] / ex[2:4]
    part = 1.0 - P[11] * phi
    clocks = ex[2:4]
    slow = 1.0 / ex[0]
    energy = phi * ((P[4:6] * ex[1::4] * unit).sum(axis=0) + (P[8:10] * clocks * clocks).sum(axis=0))
    energy += P[12] * part * ex[0] * ex[0]
    shares = np.stack((ex[4], ex[5], ex[2] + ex[3]))
    trust = o.v1 * np.log(P[15] + o.v2 * shares.sum(axis=0))
    T = np.empty((2, len(phi)))
    T[0] = P[10] * part * slow + phi * (o.on_user * unit[0])
    T[1] = phi * (work[0] + work[1] + unit[1] + (1.0 - o.on_user) * unit[0] + o.on_server * P[13] * slow) + P[14]
    log_delay = np.log(T)
    slack = np.empty((6, len(phi)))
    slack[:2] = tau - log_delay
    slack[2:4] = -X[1:3]
    free = P[18] > 0.0
    slack[4], slack[5] = np.where(free, phi - P[16], 1.0), np.where(free, P[17] - phi, 1.0)
    inside = slack.min(axis=0) > 0.0
    logs = np.where(inside, np.log(np.where(inside, slack, 1.0)).sum(axis=0), -np.inf)
    return Worth(energy, trust, shares, log_delay, logs)


@dataclass(slots=True)
class Columns:
    """A user's factored block."""

    S: Floats
    """H^-1 [gradient, tau, b, ps, fs] (7, 5, K)."""
    A: Floats
    """Shares: derivatives of the budgets of b, ps and fs (in g1, g2): rows g1, g2, b, ps (4, K)."""
    B: Floats
    """Column of tau (7, K)."""
    gradient: Floats
    """Of the merit without budgets (7, K)."""
    G: Floats
    """d log T_u, d log T_s (2, 7, K)."""
    c: Floats
    """Slacks of log T (2, K)."""
    bounds: Floats
    """Slacks of fu, pu, phi_min, phi_max (4, K)."""
    phi_slope: Floats
    """Derivative of the Lagrangian in phi (K,): below 0 where offloading more pays."""


def columns(
    o: Options, P: Floats, X: Floats, Z: Floats, tau: Floats, prices: Floats, y: Floats, mu: Floats,
    rent: Floats | None = None,
) -> Columns:  # fmt: skip
    """Factor every user's block.

    Z (6, K): multipliers of T_u, T_s, fu, pu, phi_min, phi_max; prices (3, K): of the budgets; rent (3, K): what
    shares cost beside that.
    """
    K = X.shape[1]
    phi, ex, k = X[0], np.exp(X[1:]), P[11]
    snr = P[2:4] * ex[1::4] / ex[4]
    nats = np.log1p(snr)
    above = 1.0 + snr
    a = snr / (above * nats)  # elasticity of the rates in power
    bent = a * (1.0 / above - a)  # its slope
    unit = P[0:2] / (ex[4] * nats)  # seconds per phi
    t = phi * unit
    joule = P[4:6] * ex[1::4] * unit
    et = phi * joule
    slow, fast = 1.0 / ex[0], ex[0] * ex[0]
    local, local_phi = P[10] * slow * (1.0 - k * phi), k * P[10] * slow
    el, el_phi = P[12] * fast * (1.0 - k * phi), k * P[12] * fast
    work_phi = P[6:8] / ex[2:4]
    work = phi * work_phi
    ej_phi = P[8:10] * ex[2:4] * ex[2:4]
    ej = phi * ej_phi
    fin_phi = o.on_server * P[13] * slow
    other = 1.0 - o.on_user
    moved_phi = work_phi[0] + work_phi[1] + unit[1] + other * unit[0] + fin_phi

    T = np.empty((2, K))
    T[0], T[1] = local + o.on_user * t[0], phi * moved_phi + P[14]
    c = tau - np.log(T)
    ta, tb = a * t, (1.0 - a) * t  # minus the slopes of the transfer times in power and bandwidth
    G = np.zeros((2, 7, K))
    G[0, 0], G[0, 1], G[0, 2], G[0, 5] = o.on_user * unit[0] - local_phi, -local, -o.on_user * ta[0], -o.on_user * tb[0]
    G[1, 0], G[1, 1], G[1, 2], G[1, 3:5] = moved_phi, -phi * fin_phi, -other * ta[0], -work
    G[1, 5], G[1, 6] = -tb[1] - other * tb[0], -ta[1]
    G /= T[:, None]

    shares = ex[2:6]
    w = (o.v1 * o.v2) * shares / (P[15] + o.v2 * shares.sum(axis=0))
    ee = (1.0 - a) * et  # slopes of the transfer energies in power, and minus those in bandwidth
    lagrangian = np.empty((7, K))
    lagrangian[0], lagrangian[1], lagrangian[2] = joule.sum(axis=0) + ej_phi.sum(axis=0) - el_phi, 2.0 * el, ee[0]
    lagrangian[3:5], lagrangian[5], lagrangian[6] = 2.0 * ej, -ee[0] - ee[1], ee[1]
    lagrangian *= y
    lagrangian[3:] -= w
    free = P[18]
    is_free = free > 0.0
    bounds = np.empty((4, K))
    bounds[:2] = -X[1:3]
    bounds[2], bounds[3] = np.where(is_free, phi - P[16], 1.0), np.where(is_free, P[17] - phi, 1.0)
    push = mu / c
    force = mu / bounds
    gradient = lagrangian + push[0] * G[0] + push[1] * G[1]
    gradient[1:3] += force[:2]
    gradient[0] = free * (gradient[0] - force[2] + force[3])
    if rent is not None:
        prices = prices + rent
        gradient[3:] += rent[_OF_SHARE] * shares
    lagrangian += Z[0] * G[0] + Z[1] * G[1]
    phi_slope = lagrangian[0].copy()
    lagrangian[0] -= Z[4] - Z[5]
    lagrangian[1:3] += Z[2:4]
    priced = prices[_OF_SHARE] * shares
    lagrangian[3:] += priced

    # Second derivatives: y E - V + z log T + prices, and the condensed constraints.
    curved, tight = Z[:2] / T, Z[:2] / c
    rank = tight - Z[:2]
    M = np.empty((7, 12, K))  # [H | right-hand sides]
    H = M[:, :7]
    np.multiply((rank[0] * G[0])[:, None], G[0], out=H)
    H += (rank[1] * G[1])[:, None] * G[1]
    H[3:, 3:] += (w * (1.0 / o.v1))[:, None] * w
    up = curved[0] * o.on_user + curved[1] * other
    weight = np.stack((up, curved[1]))
    he = y * et * ((1.0 - a) ** 2 - bent)
    tbb, tbp, tpp = weight * ((1.0 - a) * tb - bent * t), weight * (a * tb + bent * t), weight * (a * ta - bent * t)
    H[1, 1] += 4.0 * y * el + curved[0] * local + curved[1] * phi * fin_phi + Z[2] / bounds[0]
    H[2, 2] += he[0] + tpp[0] + Z[3] / bounds[1]
    cross = tbp[0] - he[0]
    H[2, 5] += cross
    H[5, 2] += cross
    H[3, 3] += 4.0 * y * ej[0] + curved[1] * work[0]
    H[4, 4] += 4.0 * y * ej[1] + curved[1] * work[1]
    H[5, 5] += he[0] + he[1] + tbb[0] + tbb[1]
    cross = tbp[1] - he[1]
    H[5, 6] += cross
    H[6, 5] += cross
    H[6, 6] += he[1] + tpp[1]
    some_free = bool(is_free.any())
    size = np.abs(lagrangian)
    priced -= w
    for i in range(3, 7):
        H[i, i] += priced[i - 3] + size[i]
    H[1, 1] += size[1]
    H[2, 2] += size[2]
    if some_free:
        by = np.empty((6, K))
        by[0] = -2.0 * y * el_phi + curved[0] * local_phi - curved[1] * fin_phi
        by[1] = y * (1.0 - a[0]) * joule[0] - up * a[0] * unit[0]
        by[2:4] = 2.0 * y * ej_phi - curved[1] * work_phi
        by[4] = -(y * (1.0 - a) * joule + weight * (1.0 - a) * unit).sum(axis=0)
        by[5] = y * (1.0 - a[1]) * joule[1] - curved[1] * a[1] * unit[1]
        H[0, 1:] = free * (H[0, 1:] + by)
        H[1:, 0] = H[0, 1:]
        H[0, 0] = np.where(is_free, H[0, 0] + size[0] + Z[4] / bounds[2] + Z[5] / bounds[3], 1.0)
    B = -(tight[0] * G[0] + tight[1] * G[1])
    B[0] *= free
    M[:, 7], M[:, 8] = gradient, B
    M[:, 9:] = 0.0
    M[5, 9], M[6, 10], M[3:5, 11] = shares[2], shares[3], shares[:2]

    first = 0 if some_free else 1
    for i in range(first, 7):
        pivot = np.maximum(np.abs(M[i, i]), _TINY)
        M[i, i] = pivot
        if i < 6:
            M[i + 1 :, i + 1 :] -= (M[i + 1 :, i] / pivot)[:, None] * M[i, i + 1 :]
    S = M[:, 7:]
    S[6] /= M[6, 6]
    for i in range(6, first, -1):
        S[first:i] -= M[first:i, i][:, None] * S[i]
        S[i - 1] /= M[i - 1, i - 1]
    if not some_free:
        S[0] = 0.0
    return Columns(S, shares, B, gradient, G, c, bounds, phi_slope)
