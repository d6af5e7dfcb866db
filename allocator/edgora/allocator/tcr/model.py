"""What a TCR instance means: rates, delays, energies, trust, constraints (tcr.md 4, 5).

Every number that is reported about a decision comes from here: a decision is audited and then valued by the formulas
below, never by its solver's own count. The system delay T is the least that satisfies C10 and C11.

    t_chain    what every task of a server waits until the other servers have its block and verified it
    terms      all delays, energies and trusts of one decision, user by user
    audit      the slack of each constraint, and the value if none is broken
    even       the baselines' resources of an association: everything at its cap or shared equally (tcr.md 8)
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.radio import shannon
from edgora.allocator.tcr.instance import Instance

__all__ = ["Audit", "Decision", "Model", "Terms"]

Floats = NDArray[np.float64]
Users = NDArray[np.int64]

_PHI_TOLERANCE = 1e-6
"""Absolute, of C3."""
_SHARE_TOLERANCE = 1e-6
"""Relative, of C5-C9."""


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What is chosen for each user, all of shape (N,)."""

    assoc: Users
    """a(n), the server of user n."""
    phi: Floats
    """Share of the task that is offloaded."""
    gamma: Floats
    """Part of fs that computes data; the rest makes the block."""
    b: Floats
    """Hz."""
    pu: Floats
    """W."""
    ps: Floats
    """W."""
    fu: Floats
    """cycle/s."""
    fs: Floats
    """cycle/s."""


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Everything that tcr.md 4 derives from a decision; arrays are (N,)."""

    Ru: Floats
    """Upload rate, bit/s."""
    Rd: Floats
    """Download rate, bit/s."""
    t_ut: Floats
    """Upload, s."""
    t_st: Floats
    """Download, s."""
    t_up: Floats
    """Local computing, s."""
    t_fin: Floats
    """The user's handling of the result, s."""
    t_sp: Floats
    """The server's computing of data, s."""
    t_sg: Floats
    """The server's making of the block, s."""
    t_chain: Floats
    """Propagation and verification of the block, s."""
    T_u: Floats
    """User's side, s."""
    T_s: Floats
    """Server's side, s."""
    E_u: Floats
    """J."""
    E_s: Floats
    """J."""
    V: Floats
    """Trust."""
    T: float
    """System delay, s."""
    E: float
    """Total energy, J."""
    trust: float
    """Sum of V."""
    C: float
    """Cost, w_t T + w_e E."""
    tcr: float
    """trust / C: the objective."""


@dataclass(frozen=True, slots=True)
class Audit:
    """Whether a decision is allowed, how far it is from each limit, and why not."""

    feasible: bool
    slack: dict[str, Floats]
    """Per constraint of tcr.md 5, in its own unit: C3, C4, C6, C8, `positive` (least of b, ps, fs), C10, C11 by user;
    C5, C7, C9 by server."""
    violations: tuple[str, ...]
    """One sentence each; empty exactly when feasible."""
    terms: Terms


class Model:
    """The formulas of one instance."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    @cached_property
    def t_chain(self) -> Floats:
        """S_b / slowest link out of m + slowest verification elsewhere, s (M,); 0 where a server is alone."""
        e = self.instance
        if e.M == 1:
            return np.zeros(1)
        self_excluded = np.eye(e.M, dtype=bool)
        slowest = np.where(self_excluded, np.inf, e.wire).min(axis=1)
        verify = np.where(self_excluded, -np.inf, np.broadcast_to(e.verify / e.fs_max, (e.M, e.M))).max(axis=1)
        chain: Floats = e.params.block_bits / slowest + verify
        return chain

    def terms(self, decision: Decision) -> Terms:
        """Delays, energies, trust and TCR of a decision whose resources are positive."""
        e, p, a = self.instance, self.instance.params, decision.assoc
        users = np.arange(e.N)
        h, phi, gamma = e.gain[users, a], decision.phi, decision.gamma
        b, pu, ps, fu, fs = decision.b, decision.pu, decision.ps, decision.fu, decision.fs
        with np.errstate(all="ignore"):  # values out of range are the audit's business
            D = phi * e.d
            R = p.omega_r * D
            Ru, Rd = shannon(b, h * pu / (p.N0 * b)), shannon(b, h * ps / (p.N0 * b))
            t_ut, t_st = _over(D, Ru), _over(R, Rd)
            local, result = (1.0 - phi) * e.d * e.eta_u, R * e.eta_r
            t_up, t_fin = _over(local, fu), _over(result, fu)
            g1, g2 = gamma * fs, (1.0 - gamma) * fs
            data, block = D * e.eta_s[a], D * p.omega_b * e.eta_b[a]
            t_sp, t_sg = _over(data, g1), _over(block, g2)
            t_chain = self.t_chain[a]
            T_u = t_up + t_fin + p.ut_on_user * t_ut
            T_s = t_sp + t_sg + t_st + t_chain + (1 - p.ut_on_user) * t_ut + p.fin_on_server * t_fin
            E_u = pu * t_ut + e.kappa_u * fu**2 * (local + result)
            E_s = ps * t_st + e.kappa_s[a] * (data * g1**2 + block * g2**2)
            V = p.v1 * np.log1p(p.v2 * (b / e.B[a] + ps / e.ps_max[a] + fs / e.fs_max[a] + e.score[a]))
            T, E, trust = float(np.max(np.maximum(T_u, T_s))), float(np.sum(E_u + E_s)), float(V.sum())
            C = p.w_t * T + p.w_e * E
            tcr = float(np.float64(trust) / C)
        return Terms(
            Ru=Ru, Rd=Rd, t_ut=t_ut, t_st=t_st, t_up=t_up, t_fin=t_fin, t_sp=t_sp, t_sg=t_sg, t_chain=t_chain,
            T_u=T_u, T_s=T_s, E_u=E_u, E_s=E_s, V=V, T=T, E=E, trust=trust, C=C, tcr=tcr,
        )  # fmt: skip

    def audit(self, decision: Decision) -> Audit:
        """Slacks of C3-C11 and what is broken; C1 and C2 hold by the form of a decision."""
        e, p, a = self.instance, self.instance.params, decision.assoc
        terms = self.terms(decision)
        with np.errstate(invalid="ignore"):  # endless delays on both sides
            late_u, late_s = terms.T - terms.T_u, terms.T - terms.T_s
        slack = {
            "C3": np.minimum(decision.phi - p.phi_min, p.phi_max - decision.phi),
            "C4": np.minimum(decision.gamma, 1.0 - decision.gamma),
            "C5": e.B - np.bincount(a, decision.b, e.M),
            "C6": np.minimum(e.pu_max - decision.pu, decision.pu),
            "C7": e.ps_max - np.bincount(a, decision.ps, e.M),
            "C8": np.minimum(e.fu_max - decision.fu, decision.fu),
            "C9": e.fs_max - np.bincount(a, decision.fs, e.M),
            "C10": late_u,
            "C11": late_s,
            "positive": np.minimum(np.minimum(decision.b, decision.ps), decision.fs),
        }
        checks = (
            ("C3", slack["C3"] >= -_PHI_TOLERANCE, f"phi must lie within {p.phi_min:g}..{p.phi_max:g}"),
            ("C4", slack["C4"] > 0.0, "gamma must lie strictly between 0 and 1"),
            ("C5", slack["C5"] >= -_SHARE_TOLERANCE * e.B, "the users' b exceed B"),
            ("C6", (e.pu_max * (1.0 + _SHARE_TOLERANCE) >= decision.pu) & (decision.pu > 0.0), "0 < pu <= pu_max"),
            ("C7", slack["C7"] >= -_SHARE_TOLERANCE * e.ps_max, "the users' ps exceed ps_max"),
            ("C8", (e.fu_max * (1.0 + _SHARE_TOLERANCE) >= decision.fu) & (decision.fu > 0.0), "0 < fu <= fu_max"),
            ("C9", slack["C9"] >= -_SHARE_TOLERANCE * e.fs_max, "the users' fs exceed fs_max"),
            ("positive", slack["positive"] > 0.0, "b, ps and fs must be positive"),
        )
        broken = []
        for name, good, rule in checks:
            if not good.all():
                at = int(np.argmin(good))
                who = f"server {at}" if len(good) == e.M and name in {"C5", "C7", "C9"} else f"user {at}"
                broken.append(f"{name} is broken at {who}: {rule} (slack {slack[name][at]:.6g})")
        if not broken and not (np.isfinite(terms.tcr) and np.isfinite(terms.C)):
            broken.append("the delay or the energy is beyond all numbers")
        return Audit(not broken, slack, tuple(broken), terms)

    def even(self, assoc: Users, phi: Floats | None = None) -> Decision:
        """The baselines' resources: gamma 1/2, pu and fu at their caps, b, ps and fs the budget by users there.

        phi defaults to max(1/2, phi_min), as far as phi_max allows.
        """
        e, p = self.instance, self.instance.params
        users = np.bincount(assoc, minlength=e.M)[assoc].astype(np.float64)
        everywhere = np.full(e.N, min(max(0.5, p.phi_min), p.phi_max))
        return Decision(
            assoc=assoc, phi=everywhere if phi is None else phi, gamma=np.full(e.N, 0.5), b=e.B[assoc] / users,
            pu=e.pu_max.copy(), ps=e.ps_max[assoc] / users, fu=e.fu_max.copy(), fs=e.fs_max[assoc] / users,
        )  # fmt: skip

    def spread(self) -> Users:
        """GUCAA's association: in index order the server with fewest users so far, ties by larger gain (A10)."""
        e = self.instance
        loads, assoc = np.zeros(e.M, dtype=np.int64), np.empty(e.N, dtype=np.int64)
        for n in range(e.N):
            fewest = np.flatnonzero(loads == loads.min())
            assoc[n] = fewest[np.argmax(e.gain[n, fewest])]
            loads[assoc[n]] += 1
        return assoc


def _over(work: Floats, speed: Floats) -> Floats:
    """work / speed, and 0 where there is no work, whatever the speed."""
    taken: Floats = np.where(work == 0.0, 0.0, work / np.where(work == 0.0, 1.0, speed))
    return taken
