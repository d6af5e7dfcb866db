"""The association step of DAUR: who is served where, and how much is offloaded (dpe.md 6).

With the resources of every pair held at its share, P3 is a quadratic program in x and phi. It is lifted (`conic.lift`),
its rank is dropped or brought back by a penalty (`conic.rank`), and the fractions are rounded to one server a user.

    maximise  sum_nm k_nm phi_n x_nm - k0_nm x_nm,   k = alpha (c d - beta (w_t tau + w_e e)),   k0 = alpha beta w_t t0

alpha = 1/B and beta = A/B, A = c D and B = cost_s, are the multipliers of the sum of ratios at the point where the step
starts (Lemma 2); tau and e are delay and energy of all d bits over the pair's share. User terms drop out: they are the
same for every share (F1).

The objective is in the unit of DPE, which with the default preference of 1e-6 a bit is Mbit per unit cost; the penalty
weight tau_w is given in the same unit.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cvxpy
import numpy as np
from numpy.typing import NDArray

from edgora.allocator.conic import rounding
from edgora.allocator.conic.bordered import Bordered
from edgora.allocator.conic.lift import Kind, Lift, Lifted, Tight, affordable
from edgora.allocator.conic.program import Program, Solved, Solver
from edgora.allocator.conic.rank import Alternated, alternate
from edgora.allocator.dpe.model import Model

__all__ = [
    "Associated", "Gains", "Rank", "Relaxation", "Rounding", "Shares", "Weights", "associate", "gains",
    "nominal", "relaxation", "rounded", "share_range",
]  # fmt: skip

cp: Any = cvxpy  # partly typed
Floats = NDArray[np.float64]
Servers = NDArray[np.int64]

Rank = Literal["keep", "drop"]
Rounding = Literal["hungarian", "random", "secondary", "rank1", "greedy"]
Weights = Literal["user", "whatif", "literal"]
"""Whose alpha and beta a pair takes: its user's present pair, its own as if connected, or the printed 0/0 (A7)."""

_LEAST_SHARE = 1e-3
"""phi may come back near 0, where alpha has a pole."""
_GREATEST = 100.0
"""The greatest coefficient of the full lift's objective: Clarabel takes 14 iterations at 20 users and 3 servers, and 17 at 1."""
_WHOLE = 0.999
"""phi above this part of phi_max is phi_max."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Resources of every pair, connected or not."""

    b: Floats
    """Hz (N,M)."""
    fs: Floats
    """cycle/s (N,M)."""
    p: Floats
    """W, the same towards every server (N,)."""
    gamma: Floats
    """Split of the clock, by server (M,)."""


@dataclass(frozen=True, slots=True)
class Gains:
    """Coefficients of the step's objective (N,M)."""

    k: Floats
    """Of phi_n x_nm."""
    k0: Floats
    """Of -x_nm."""

    def worth(self, product: Floats, x: Floats) -> float:
        """The step's objective at a point, relaxed or not."""
        return float(np.sum(self.k * product - self.k0 * x))


@dataclass(frozen=True, slots=True)
class Associated:
    """What the step found."""

    assoc: Servers
    phi: Floats
    lifted: Lifted
    rounds: Alternated
    gains: Gains


@dataclass(frozen=True, slots=True)
class Relaxation:
    """The lifted program of one size, compiled once."""

    lift: Lift
    program: Program
    penalised: "Relaxation | None" = None
    """The program for a rank penalty, where it is another."""
    greatest: float = 1.0
    """What the objective's greatest coefficient is scaled to."""

    def solve(
        self,
        gains: Gains,
        used: Shares,
        model: Model,
        weights: Floats | None,
        solver: Solver = "clarabel",
        tolerance: float | None = None,
        time_limit_s: float | None = None,
    ) -> tuple[Solved, Lifted, float]:
        """Maximise the gains less <weights, S>, where there are weights those of a rank penalty."""
        if self.penalised is not None and weights is not None and weights.any():
            return self.penalised.solve(gains, used, model, weights, solver, tolerance, time_limit_s)
        e = model.instance
        # The scale keeps small instances above the solvers' absolute tolerances; it changes no answer.
        scale = max(float(np.abs(gains.k).max()), float(np.abs(gains.k0).max())) / self.greatest or 1.0
        solved = self.program.solve(
            solver,
            tolerance=tolerance,
            time_limit_s=time_limit_s,
            worth=self.lift.coefficients(-gains.k0, gains.k, None if weights is None else -weights) / scale,
            band=used.b / e.B,
            clock=used.fs / e.fs_max,
        )
        lifted = self.lift.read(solved.values)
        return solved, lifted, gains.worth(lifted.product, lifted.x)


@functools.lru_cache(maxsize=32)
def relaxation(users: int, servers: int, low: float, high: float, kind: Kind, rlt: bool) -> Relaxation:
    """The lifted association program for one size and range of phi."""
    tight: Tight = 2 if rlt else 1
    plain = _relaxation(Lift(users, servers, low, high, kind, tight))
    if kind == "blocks":
        return plain
    penalised = _relaxation(Bordered(users, servers, low, high, tight))
    return dataclasses.replace(plain, penalised=penalised, greatest=_GREATEST)


def _relaxation(lift: Lift) -> Relaxation:
    """The program over a lift."""
    users, servers = lift.users, lift.servers
    worth = cp.Parameter(lift.entries.size, name="worth")
    band, clock = (cp.Parameter((users, servers), name=name, nonneg=True) for name in ("band", "clock"))
    constraints = [
        *lift.constraints,
        cp.sum(cp.multiply(band, lift.x), axis=0) <= 1,  # C6
        cp.sum(cp.multiply(clock, lift.x), axis=0) <= 1,  # C8
    ]
    return Relaxation(lift, Program(cp.Problem(cp.Maximize(worth @ lift.entries), constraints), refined=False))


def nominal(model: Model, p: Floats, gamma: Floats) -> Shares:
    """Every pair with the share of a server that has L = ceil(N/M) users."""
    e = model.instance
    places = rounding.crowd(e.N, e.M)
    shape = (e.N, e.M)
    return Shares(np.broadcast_to(e.B / places, shape), np.broadcast_to(e.fs_max / places, shape), p, gamma)


def gains(
    model: Model, assoc: Servers, phi: Floats, shares: Shares, weights: Weights, *, at: Shares | None = None
) -> Gains:
    """k and k0 over these shares, alpha and beta at the point (assoc, phi) with the resources `at`, or with the shares."""
    e = model.instance
    per_phi, fixed = _costs(model, shares), e.w_t * e.t_chain
    a = e.c_s * e.d[:, None] * phi[:, None]
    b = (per_phi if at is None else _costs(model, at)) * phi[:, None] + fixed
    alpha, beta = 1.0 / b, a / b
    users = np.arange(e.N)
    if weights == "user":
        alpha, beta = alpha[users, assoc][:, None], beta[users, assoc][:, None]
    elif weights == "literal":
        beta = np.where(assoc[:, None] == np.arange(e.M), beta, 0.0)
    return Gains(alpha * (e.c_s * e.d[:, None] - beta * per_phi), alpha * beta * fixed)


def _costs(model: Model, shares: Shares) -> Floats:
    """w_t tau + w_e e: delay and energy of all d bits of every pair over its share (N,M)."""
    e = model.instance
    g1, g2 = shares.gamma * shares.fs, (1.0 - shares.gamma) * shares.fs
    p, d = shares.p[:, None], e.d[:, None]
    air = np.log(2.0) / (shares.b * np.log1p(model.snr_hz * p / shares.b))  # seconds a bit
    tau = d * (air + e.eta_s / g1 + e.omega_b * e.eta_b / g2)
    energy = d * (p * air + e.kappa_s * (e.eta_s * g1**2 + e.omega_b * e.eta_b * g2**2))
    cost: Floats = e.w_t * tau + e.w_e * energy
    return cost


def associate(
    model: Model,
    assoc: Servers,
    phi: Floats,
    shares: Shares,
    *,
    kind: Kind,
    rank: Rank,
    rlt: bool,
    how: Rounding,
    weights: Weights,
    tau: float,
    rounds: int,
    solver: Solver,
    tolerance: float | None,
    rng: np.random.Generator,
    over: Callable[[], bool] = bool,
    at: Shares | None = None,
) -> Associated:
    """One association step from the point (assoc, phi). Raises ProgramError, and Refused for a lift that is too large."""
    e = model.instance
    low, high = e.phi_min, e.phi_max
    affordable(e.N, e.M, kind, solver)
    value = gains(model, assoc, phi, shares, weights, at=at)
    if e.M == 1:  # x = 1: no point of the relaxation is interior, and nothing is left to relax
        lifted = _alone(value, low, high)
        worth = value.worth(lifted.product, lifted.x)
        return Associated(np.zeros(e.N, dtype=np.int64), share_range(lifted.phi, low, high), lifted,
                          Alternated(lifted, [], [worth], [0.0], "rank one"), value)  # fmt: skip
    program = relaxation(e.N, e.M, low, high, kind, rlt)
    alternated = alternate(
        lambda penalty: program.solve(value, shares, model, penalty, solver, tolerance),
        tau,
        rounds=rounds if rank == "keep" else 0,
        over=over,
    )
    lifted = alternated.lifted
    return Associated(rounded(lifted, how, rng), share_range(lifted.phi, low, high), lifted, alternated, value)


def _alone(gains: Gains, low: float, high: float) -> Lifted:
    """The step with one server: linear in phi."""
    phi = np.where(gains.k[:, 0] > 0.0, high, low)
    one = np.ones_like(phi)
    y = np.stack((phi, one, one), axis=1)
    return Lifted(phi, one[:, None], phi[:, None], y[:, :, None] * y[:, None, :])


def rounded(lifted: Lifted, how: Rounding, rng: np.random.Generator) -> Servers:
    """One server a user, from the relaxation's point."""
    users, servers = lifted.x.shape
    match how:
        case "hungarian":
            return rounding.hungarian(lifted.x)
        case "random":
            return rounding.random(lifted.x, rng)
        case "secondary":
            return rounding.nearest(lifted.x)
        case "rank1":
            return rounding.largest(rounding.rank_one(lifted.matrices, users, servers))
        case "greedy":
            return rounding.greedy(lifted.x)


def share_range(phi: Floats, low: float, high: float) -> Floats:
    """The relaxation's shares within their range, away from the pole at 0, and phi_max where they nearly reach it."""
    least = min(high, max(low, _LEAST_SHARE))
    kept: Floats = np.where(phi > _WHOLE * high, high, np.clip(phi, least, high))
    return kept
