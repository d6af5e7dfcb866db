"""What a DPE instance means: delays, energies, ratios, constraints (dpe.md 4).

Every number that is reported about a decision comes from here: a decision is audited (C3-C10; C1 and C2 hold by the
form of `assoc`) and then valued by the formulas below, never by its solver's own count.

    user part     sum of c_n ratio_u,n: depends on the users' clocks alone (F1)
    server part   sum of c_nm ratio_s,n: what association, bandwidths, powers and server clocks decide
    DPE           their sum, the objective
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.dpe.instance import Instance

__all__ = ["TOLERANCE", "Audit", "Decision", "Model", "Terms"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

TOLERANCE = 1e-6
"""Of every constraint, relative to its bound; absolute for the shares (dpe.md 4)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Who is served where and with what; every array (N,)."""

    assoc: Indices
    """a(n), the user's server, 0..M-1."""
    phi: Floats
    """Offloaded share of the data."""
    gamma: Floats
    """Part of `fs` that processes; the rest builds the block."""
    b: Floats
    """Bandwidth towards a(n), Hz."""
    p: Floats
    """Transmit power, W."""
    fu: Floats
    """The user's own clock, cycle/s."""
    fs: Floats
    """Clock that a(n) gives the user, cycle/s."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Equations (1)-(13) at a decision; every array (N,), seconds, joules and weighted sums of both."""

    rate: Floats
    t_up: Floats
    e_up: Floats
    t_ut: Floats
    e_ut: Floats
    t_sp: Floats
    e_sp: Floats
    t_sg: Floats
    e_sg: Floats
    cost_u: Floats
    cost_s: Floats
    user: Floats
    """c_n ratio_u,n."""
    server: Floats
    """c_n,a(n) ratio_s,n."""

    @property
    def user_part(self) -> float:
        return math.fsum(self.user)

    @property
    def server_part(self) -> float:
        return math.fsum(self.server)

    @property
    def dpe(self) -> float:
        """The objective, (14)."""
        return math.fsum((*self.user, *self.server))


@dataclass(frozen=True, slots=True)
class Audit:
    """Whether a decision is allowed, and how far it is from each limit."""

    feasible: bool
    slack: dict[str, Floats]
    """By constraint: per user, but C6 and C8 per server; negative beyond the limit."""
    violations: tuple[str, ...]
    """One sentence each; empty exactly when feasible."""


class Model:
    """The formulas of one instance."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    # ---- what the facts F1, F4 and F6 fix ----------------------------------------------------------------------------

    @cached_property
    def best_fu(self) -> Floats:
        """F1: the user's best clock, min(fu_max, (w_t / (2 w_e kappa_u))^(1/3)), cycle/s (N,)."""
        e = self.instance
        return np.minimum(e.fu_max, _best_clock(e.w_t, e.w_e, e.kappa_u))

    @cached_property
    def user_part(self) -> float:
        """F1: the user part of DPE at the best clocks, the same for every association and share."""
        return math.fsum(self.user_terms(self.best_fu))

    @cached_property
    def g_star(self) -> Floats:
        """F6: the clock above which a part of a server's work only gets dearer, cycle/s (M,); inf where none does."""
        e = self.instance
        return _best_clock(e.w_t, e.w_e, e.kappa_s)

    @cached_property
    def gamma0(self) -> Floats:
        """F6: the split of the clock that is best for delay alone (M,)."""
        e = self.instance
        processing, block = np.sqrt(e.eta_s), np.sqrt(e.omega_b * e.eta_b)
        split: Floats = processing / (processing + block)
        return split

    @cached_property
    def snr_hz(self) -> Floats:
        """c_nm = g_nm / N0: signal-to-noise ratio per W over 1 Hz (N,M)."""
        snr: Floats = self.instance.gain / self.instance.N0
        return snr

    # ---- value -------------------------------------------------------------------------------------------------------

    def user_terms(self, fu: Floats) -> Floats:
        """c_n ratio_u,n at these clocks, by continuity also at phi = 1 (A3) (N,)."""
        e = self.instance
        ratio: Floats = e.c_u / (e.eta_u * (e.w_t / fu + e.w_e * e.kappa_u * fu**2))
        return ratio

    def rate(self, decision: Decision) -> Floats:
        """Equation (1), bit/s (N,)."""
        snr_hz = np.take_along_axis(self.snr_hz, decision.assoc[:, None], axis=1)[:, 0]
        rate: Floats = decision.b * np.log1p(snr_hz * decision.p / decision.b) / math.log(2.0)
        return rate

    def terms(self, decision: Decision) -> Terms:
        """Equations (1)-(13) and both ratios of every user. Resources of users with D > 0 must be positive."""
        e, x, m = self.instance, decision, decision.assoc
        offloaded = x.phi * e.d
        with np.errstate(all="ignore"):  # an inadmissible decision may divide by 0; what has no number is audited
            local, g1, g2 = e.d - offloaded, x.gamma * x.fs, (1.0 - x.gamma) * x.fs
            processing, block = offloaded * e.eta_s[m], offloaded * e.omega_b * e.eta_b[m]
            rate = self.rate(x)
            t_up, e_up = local * e.eta_u / x.fu, e.kappa_u * local * e.eta_u * x.fu**2
            t_ut = offloaded / rate
            e_ut = x.p * t_ut
            t_sp, e_sp = processing / g1, e.kappa_s[m] * processing * g1**2
            t_sg, e_sg = block / g2, e.kappa_s[m] * block * g2**2
            cost_u = e.w_t * t_up + e.w_e * e_up
            cost_s = e.w_t * (t_ut + t_sp + t_sg + e.t_chain[m]) + e.w_e * (e_ut + e_sp + e_sg)
            server = np.where(offloaded > 0.0, e.c_s[np.arange(e.N), m] * offloaded / cost_s, 0.0)
            user = self.user_terms(x.fu)
        return Terms(rate, t_up, e_up, t_ut, e_ut, t_sp, e_sp, t_sg, e_sg, cost_u, cost_s, user, server)

    def dpe(self, decision: Decision) -> float:
        """The objective, (14)."""
        return self.terms(decision).dpe

    def server_part(self, decision: Decision) -> float:
        return self.terms(decision).server_part

    # ---- constraints -------------------------------------------------------------------------------------------------

    def audit(self, decision: Decision) -> Audit:
        """C3-C10 with the tolerance of dpe.md 4; a comparison with NaN counts as broken."""
        e, x = self.instance, decision
        crowd_b = np.bincount(x.assoc, weights=x.b, minlength=e.M)
        crowd_f = np.bincount(x.assoc, weights=x.fs, minlength=e.M)
        checks = (
            ("C3", "phi", np.minimum(x.phi - e.phi_min, e.phi_max - x.phi), np.full(e.N, TOLERANCE)),
            ("C4", "gamma", np.minimum(x.gamma, 1.0 - x.gamma), None),
            ("C5", "b", x.b, None),
            ("C6", "bandwidth of server", e.B - crowd_b, TOLERANCE * e.B),
            ("C7", "fs", x.fs, None),
            ("C8", "clock of server", e.fs_max - crowd_f, TOLERANCE * e.fs_max),
            ("C9", "p", np.minimum(e.p_max - x.p, np.where(x.p > 0.0, np.inf, -np.inf)), TOLERANCE * e.p_max),
            ("C10", "fu", np.minimum(e.fu_max - x.fu, np.where(x.fu > 0.0, np.inf, -np.inf)), TOLERANCE * e.fu_max),
        )
        violations = []
        for constraint, what, slack, allowed in checks:
            good = slack > 0.0 if allowed is None else slack >= -allowed  # strict where the bound itself is no value
            violations += [
                f"{constraint} is broken: {what} {int(at)} is beyond its limit by {-slack[at]:.6g}"
                for at in np.flatnonzero(~good)[:3]
            ]
        slacks = {constraint: slack for constraint, _, slack, _ in checks}
        return Audit(not violations, slacks, tuple(violations))

    # ---- decisions that solvers start from ---------------------------------------------------------------------------

    def average(self, assoc: Indices, phi: float, gamma: Floats | float) -> Decision:
        """Every server's bandwidth and clock in equal shares, full power, the users' clocks at their maximum.

        `gamma` is one number, or one per server.
        """
        e = self.instance
        crowd = np.bincount(assoc, minlength=e.M)[assoc]
        split = np.broadcast_to(np.asarray(gamma, dtype=np.float64), (e.M,))[assoc]
        return Decision(
            assoc, np.full(e.N, phi), split, e.B[assoc] / crowd, e.p_max.copy(), e.fu_max.copy(),
            e.fs_max[assoc] / crowd,
        )  # fmt: skip

    def gucaa(self) -> Indices:
        """Users in index order, each to a server with the fewest users so far, ties by gain (dpe.md 7)."""
        e = self.instance
        assoc, crowd = np.zeros(e.N, dtype=np.int64), np.zeros(e.M, dtype=np.int64)
        for n in range(e.N):
            least = np.flatnonzero(crowd == crowd.min())
            assoc[n] = least[np.argmax(e.gain[n, least])]
            crowd[assoc[n]] += 1
        return assoc


def _best_clock(w_t: float, w_e: float, kappa: Floats) -> Floats:
    """Where w_t/f + w_e kappa f^2 is least: (w_t / (2 w_e kappa))^(1/3); inf where energy costs nothing."""
    with np.errstate(divide="ignore"):
        clock: Floats = np.cbrt(w_t / (2.0 * w_e * kappa))
    return clock
