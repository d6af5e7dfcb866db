"""Part 1 of DASHF: who is served where and how much is offloaded, with all resources fixed (tcr.md 7.2).

The resources of ALL pairs are fixed, connected or not (`Pairs`), and gamma is 1/2 (A7). What remains is a QCQP in
(phi, x) and the system delay T; its lift without the rank is a semidefinite program (`conic.lift`), its solution is
rounded by the Hungarian method, and with x fixed the QCQP is a linear program in phi and T.

The rounding does not know the objective, so what leaves this step may be worth less than what entered it (7.4, 7.5).
"""

from dataclasses import dataclass, replace
from typing import Any

import cvxpy
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from edgora.allocator.conic.lift import Kind, Lift, Lifted, Tight
from edgora.allocator.conic.program import Program, ProgramFailed, Solved, Solver, compilable
from edgora.allocator.conic.rounding import crowd, hungarian
from edgora.allocator.radio import shannon
from edgora.allocator.tcr.instance import Instance
from edgora.allocator.tcr.model import Decision

__all__ = ["LEAST_PHI", "Association", "Coefficients", "Pairs", "Placed", "offload"]

cp: Any = cvxpy  # partly typed

Floats = NDArray[np.float64]
Users = NDArray[np.int64]

LEAST_PHI = 1e-3
"""phi is kept at least here: at 0 the transfer terms of part 2 vanish and no user could come back (7.0)."""
_GAMMA = 0.5
_KEPT = 1.0 - 1e-6
"""Of the last values of a connected pair, so that the present association stays strictly within the budgets (7.2)."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """What each pair of user and server would use; fu is the user's own."""

    b: Floats
    """Hz (N,M)."""
    pu: Floats
    """W (N,M)."""
    ps: Floats
    """W (N,M)."""
    fs: Floats
    """cycle/s (N,M)."""
    fu: Floats
    """cycle/s (N,)."""

    @classmethod
    def nominal(cls, e: Instance) -> "Pairs":
        """Every pair at the L-th part of its server's budgets, pu and fu at their caps; L = ceil(N/M)."""
        part, rows = 1.0 / crowd(e.N, e.M), np.ones((e.N, 1))
        return cls(
            rows * (e.B * part), np.outer(e.pu_max, np.ones(e.M)), rows * (e.ps_max * part), rows * (e.fs_max * part),
            e.fu_max.copy(),
        )  # fmt: skip

    def with_connected(self, decision: Decision) -> "Pairs":
        """These, but connected pairs keep what a decision gave them, and each user its clock."""
        users = np.arange(len(decision.assoc))
        kept = {"fu": decision.fu * _KEPT}
        for name in ("b", "pu", "ps", "fs"):
            kept[name] = getattr(self, name).copy()
            kept[name][users, decision.assoc] = getattr(decision, name) * _KEPT
        return Pairs(**kept)

    def with_users(self, decision: Decision) -> "Pairs":
        """These, but each user keeps its power and clock of a decision, whatever server it would go to."""
        return replace(self, pu=np.outer(decision.pu, np.ones(self.pu.shape[1])), fu=decision.fu)

    def chosen(self, assoc: Users, phi: Floats) -> Decision:
        """The decision that takes one pair of each user; its sums may exceed the servers' budgets."""
        at = np.arange(len(assoc)), assoc
        gamma = np.full(len(assoc), _GAMMA)
        return Decision(assoc, phi, gamma, self.b[at], self.pu[at], self.ps[at], self.fu, self.fs[at])


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The QCQP's numbers (7.2); per phi where it says so."""

    e: Floats
    """Energy of the pair per phi, J (N,M)."""
    t_user: Floats
    """tA: the user's delay per phi, s (N,M)."""
    t_server: Floats
    """tB: the server's delay per phi, s (N,M)."""
    c0: Floats
    """Local delay at phi = 0, s (N,)."""
    c1: Floats
    """What phi takes off it, s (N,)."""
    e0: Floats
    """Local energy at phi = 0, J (N,)."""
    e1: Floats
    """What phi takes off it, J (N,)."""
    v: Floats
    """Trust of the pair (N,M)."""

    @classmethod
    def of(cls, e: Instance, pairs: Pairs) -> "Coefficients":
        p = e.params
        d, fu = e.d[:, None], pairs.fu
        snr = e.gain / (p.N0 * pairs.b)
        upload = d / shannon(pairs.b, snr * pairs.pu)
        download = p.omega_r * d / shannon(pairs.b, snr * pairs.ps)
        data, block = _GAMMA * pairs.fs, (1.0 - _GAMMA) * pairs.fs
        block_cycles = p.omega_b * e.eta_b
        energy = pairs.pu * upload + pairs.ps * download + e.kappa_s * d * (e.eta_s * data**2 + block_cycles * block**2)
        late = (1 - p.ut_on_user) * upload + p.fin_on_server * (p.omega_r * e.d * e.eta_r / fu)[:, None]
        c0, c1 = e.d * e.eta_u / fu, e.d * (e.eta_u - p.omega_r * e.eta_r) / fu
        share = pairs.b / e.B + pairs.ps / e.ps_max + pairs.fs / e.fs_max + e.score
        return cls(
            e=energy, t_user=p.ut_on_user * upload,
            t_server=d * (e.eta_s / data + block_cycles / block) + download + late,
            c0=c0, c1=c1, e0=e.kappa_u * fu**3 * c0, e1=e.kappa_u * fu**3 * c1, v=p.v1 * np.log1p(p.v2 * share),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Placed:
    """What part 1 decided."""

    assoc: Users
    phi: Floats
    relaxed: Lifted
    solved: Solved
    """The semidefinite program's solve; its value bounds V - y C of part 1 alone from above (A11)."""
    fractional: int
    """Users without an x of at least 0.99 before rounding."""


class Association:
    """Part 1 of one instance: compiled on the first solve, then fed with y and pairs."""

    def __init__(self, instance: Instance, lift: Kind = "blocks", tight: Tight = 1) -> None:
        self.instance = e = instance
        p = e.params
        compilable(e.N, e.M)
        self.low = max(p.phi_min, min(LEAST_PHI, p.phi_max))
        self.lift = Lift(e.N, e.M, self.low, p.phi_max, lift, tight)
        shape = (e.N, e.M)
        delay = cp.Variable(name="T")
        self._per = {name: cp.Parameter(shape, name=name) for name in ("energy", "trust", "t_user", "t_server")}
        self._own = {name: cp.Parameter(e.N, name=name) for name in ("saved", "c0", "c1")}
        self._share = {name: cp.Parameter(shape, name=name) for name in ("b", "ps", "fs")}
        weight = cp.Parameter(name="delay", nonneg=True)
        phi, x, product = self.lift.phi, self.lift.x, self.lift.product
        self.worth = (
            cp.sum(cp.multiply(self._per["trust"], x)) - cp.sum(cp.multiply(self._per["energy"], product))
            + self._own["saved"] @ phi - weight * delay
        )  # fmt: skip
        rows = [
            *self.lift.constraints,
            *(cp.sum(cp.multiply(share, x), axis=0) <= 1 for share in self._share.values()),
            self._own["c0"]
            - cp.multiply(self._own["c1"], phi)
            + cp.sum(cp.multiply(self._per["t_user"], product), axis=1)
            <= delay,
            cp.sum(cp.multiply(self._per["t_server"], product), axis=1) + x @ e.model.t_chain <= delay,
        ]
        self.program = Program(cp.Problem(cp.Maximize(self.worth), rows), refined=lift == "full")

    def relax(self, y: float, k: Coefficients, pairs: Pairs, solver: Solver = "clarabel", **options: Any) -> Solved:
        """The semidefinite program at these numbers. `options` are `Program.solve`'s. Raises its errors.

        Its value leaves out the local energy at phi = 0, a constant: subtract y w_e sum e0 for V - y C.
        """
        e, p = self.instance, self.instance.params
        return self.program.solve(
            solver, delay=y * p.w_t, energy=y * p.w_e * k.e, saved=y * p.w_e * k.e1, trust=k.v, t_user=k.t_user,
            t_server=k.t_server, c0=k.c0, c1=k.c1, b=pairs.b / e.B, ps=pairs.ps / e.ps_max, fs=pairs.fs / e.fs_max,
            **options,
        )  # fmt: skip

    def place(self, y: float, pairs: Pairs, solver: Solver = "clarabel") -> Placed:
        """Relax, round, and offload: who is served where, and how much."""
        k = Coefficients.of(self.instance, pairs)
        solved = self.relax(y, k, pairs, solver)
        relaxed = self.lift.read(solved.values)
        assoc = hungarian(relaxed.x)
        phi = offload(self.instance, y, k, assoc, self.low)
        return Placed(assoc, phi, relaxed, solved, int((relaxed.x.max(axis=1) < 0.99).sum()))


def offload(e: Instance, y: float, k: Coefficients, assoc: Users, low: float) -> Floats:
    """phi of every user at a fixed association: the linear program that the QCQP then is, in (phi, T)."""
    p, at = e.params, (np.arange(e.N), assoc)
    cost = np.append(y * p.w_e * (k.e[at] - k.e1), y * p.w_t)
    user, server = k.t_user[at] - k.c1, k.t_server[at]
    rows = np.zeros((2 * e.N, e.N + 1))
    rows[at[0], at[0]], rows[e.N + at[0], at[0]], rows[:, -1] = user, server, -1.0
    limits = np.concatenate((-k.c0, -e.model.t_chain[assoc]))
    bounds = [(low, p.phi_max)] * e.N + [(0.0, None)]
    found = linprog(cost, A_ub=rows, b_ub=limits, bounds=bounds, method="highs")
    if found.x is None:  # T is free upwards, so a solution always exists
        raise ProgramFailed(f"highs ended with: {found.message}", solver="highs", solver_status=str(found.status))
    phi: Floats = np.clip(found.x[:-1], low, p.phi_max)
    return phi
