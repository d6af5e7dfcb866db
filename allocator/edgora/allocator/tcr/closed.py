"""The closed form of phi = 0: nothing is offloaded, servers only lend trust (tcr.md F6).

Each server's budgets are shared equally, so k users on server m earn f_m(k) = k v1 ln(1 + v2 (3/k + q_m)), concave in
k: the best loads are the N greatest of all increments. Every user computes alone at fu = W/T, and the best T is where
the cost's slope vanishes, or a limit. Where propagation times differ, the slowest server that is used limits T: each
such time is tried as the greatest allowed.
"""

import numpy as np

from edgora.allocator.tcr.instance import Instance
from edgora.allocator.tcr.model import Decision
from edgora.allocator.tcr.newton import Ints, options_of

__all__ = ["local_only"]


def local_only(instance: Instance) -> Decision | None:
    """The best decision with phi = 0 for all users; None where phi_min forbids it."""
    e, p = instance, instance.params
    if p.phi_min > 0.0:
        return None
    best: tuple[float, Decision] | None = None
    for limit in np.unique(e.model.t_chain).tolist():
        servers = np.flatnonzero(e.model.t_chain <= limit)
        chosen = _computed_locally(e, np.repeat(servers, _loads(e, servers)), limit)
        value = e.model.terms(chosen).tcr
        if best is None or value > best[0]:
            best = value, chosen
    return None if best is None else best[1]


def _loads(e: Instance, servers: Ints) -> Ints:
    """Users on each of these servers that earn the most trust."""
    p, k = e.params, np.arange(1, e.N + 1)
    worth = np.zeros((len(servers), e.N + 1))
    worth[:, 1:] = k * p.v1 * np.log1p(p.v2 * (3.0 / k + e.score[servers, None]))
    rise = np.diff(worth, axis=1).ravel()
    taken = np.argsort(-rise, kind="stable")[: e.N]
    return np.bincount(taken // e.N, minlength=len(servers))


def _computed_locally(e: Instance, assoc: Ints, chain: float) -> Decision:
    work = e.d * e.eta_u
    w_t = options_of(e).w_t
    ideal = np.cbrt(2.0 * e.params.w_e * float((e.kappa_u * work**3).sum()) / w_t)
    T = max(chain, float((work / e.fu_max).max()), float(ideal))
    even = e.model.even(assoc, np.zeros(e.N))
    return Decision(
        assoc=assoc, phi=even.phi, gamma=even.gamma, b=even.b, pu=even.pu, ps=even.ps, fu=work / T, fs=even.fs
    )
