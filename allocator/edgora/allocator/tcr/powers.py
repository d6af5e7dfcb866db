"""Part 2 of DASHF: bandwidths, powers and clocks at a fixed association, by fractional programming (tcr.md 7.3).

With (assoc, phi, gamma, y) fixed, V - y C is concave but for the transfer energies p D / R(b, p). At the last point
(p0, R0), with e0 = p0 D / R0,

    p D / R  <=  (e0 / 2) ((p / p0)^2 + (R0 / R)^2)      equal in value and gradient at (p0, R0)

Replacing both energies by these bounds leaves a convex program; its solution is the next (p0, R0). One program serves
every association and iteration: what depends on them are its parameters.

Rule: within one climb neither the surrogate's value nor V - y C falls, and V - y C >= surrogate (7.4). A solve that
breaks this by more than the convex solver's accuracy has failed, whatever the solver says of it.

Theory of operation. Every variable is a ratio to its value at the last point, so all are near 1 and the interior-point
solver meets no units. With s = h p0 / (N0 b0) and the ratios b, p, r = R / R0, r R0 <= R(b, p) reads

    ln(1 + s) r  <=  ln(1 + s) b - rel_entr(b, (b + s p) / (1 + s))

whose cone is at (0, 1, 1) at the last point, whatever s is. u >= 1 / r is one second-order cone that serves both the
delay D/R = (D/R0) u and the energy (R0/R)^2 = u^2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cvxpy
import numpy as np
from numpy.typing import NDArray

from edgora.allocator.conic.program import Program, ProgramFailed, Solved, Solver, compilable
from edgora.allocator.tcr.instance import Instance
from edgora.allocator.tcr.model import Decision

__all__ = ["Climb", "Powers"]

cp: Any = cvxpy  # partly typed

Floats = NDArray[np.float64]

_START = 0.9
"""Of the start's server powers (7.3)."""
_STRETCH = 10.0
"""The program's objective is this many times the surrogate over v1: single users' energies then count beside its digits."""
_ACCURACY = 1e-6
"""Asked of Clarabel, of the stretched objective: V - y C goes to 0 as Dinkelbach's loop converges, as a difference of
terms of order 10, so this is about 1e-8 of them."""
_LEAST = 1e-12
"""Of a cap or budget: amounts are positive."""
_SLACK = 1e-5
"""Of the trust: fall that is put down to the accuracy of the convex solver; ten times that if it says `almost solved`."""


@dataclass(frozen=True, slots=True)
class Climb:
    """One part 2: where it ended, and how it went, one entry a solve."""

    decision: Decision
    surrogate: Sequence[float]
    worth: Sequence[float]
    """V - y C of each solve's decision, by the model."""
    solves: Sequence[Solved]


class Powers:
    """Part 2 of one instance: compiled on the first solve, then fed with everything else."""

    def __init__(self, instance: Instance) -> None:
        self.instance = e = instance
        p, n = e.params, e.N
        compilable(n, e.M)
        k = {
            name: cp.Parameter(n, name=name, nonneg=True)
            for name in (
                "noise_up", "noise_down", "signal_up", "signal_down", "rho_up", "rho_down", "t_local", "t_server",
                "t_up", "t_down", "t_chain", "e_up", "e_down", "e_fu", "e_fs", "v", "v_b", "v_ps", "v_fs", "part_pu",
                "part_fu",
            )
        }  # fmt: skip
        part = {name: cp.Parameter((e.M, n), name=f"part_{name}", nonneg=True) for name in ("b", "ps", "fs")}
        weight = cp.Parameter(name="weight", nonneg=True)
        v = {name: cp.Variable(n, name=name) for name in ("b", "pu", "ps", "fu", "fs", "up", "down")}
        inverse = {name: cp.Variable(n, name=f"1/{name}") for name in ("up", "down", "fu", "fs")}
        delay = cp.Variable(name="T")

        user = cp.multiply(k["t_local"], inverse["fu"])
        server = (
            cp.multiply(k["t_server"], inverse["fs"]) + cp.multiply(k["t_down"], inverse["down"]) + k["t_chain"]
        )  # fmt: skip
        upload = cp.multiply(k["t_up"], inverse["up"])
        if p.ut_on_user:
            user += upload
        else:
            server += upload
        if p.fin_on_server:
            server += cp.multiply(cp.Parameter(n, name="t_fin", nonneg=True), inverse["fu"])
        rows = [
            *(part[name] @ v[name] <= 1 for name in part),
            *(cp.multiply(k[f"part_{name}"], v[name]) <= 1 for name in ("pu", "fu")),
            user <= delay,
            server <= delay,
            *(_inverse(v[name], inverse[name]) for name in inverse),
        ]
        for power, way in (("pu", "up"), ("ps", "down")):
            heard = cp.multiply(k[f"noise_{way}"], v["b"]) + cp.multiply(k[f"signal_{way}"], v[power])
            # the cone itself, b exp(x / b) <= heard, saves the variable that rel_entr would add
            rows.append(cp.ExpCone(cp.multiply(k[f"rho_{way}"], v[way] - v["b"]), v["b"], heard))
        squares = (
            ("e_up", v["pu"]), ("e_up", inverse["up"]), ("e_down", v["ps"]), ("e_down", inverse["down"]),
            ("e_fu", v["fu"]), ("e_fs", v["fs"]),
        )  # fmt: skip
        energy = cp.sum([cp.sum(cp.multiply(k[name], cp.square(of))) for name, of in squares])
        share = k["v"] + cp.sum([cp.multiply(k[f"v_{name}"], v[name]) for name in ("b", "ps", "fs")])
        worth = cp.sum(cp.log(share)) - weight * delay - energy
        self.program = Program(cp.Problem(cp.Maximize(_STRETCH * worth), rows), careful=True)

    def climb(
        self,
        start: Decision,
        y: float,
        solves: int,
        tol: float,
        solver: Solver = "clarabel",
        over: Callable[[], bool] = lambda: False,
    ) -> Climb:
        """At most `solves` surrogates from a start (association, phi, gamma; its sums may exceed the budgets).

        Ends when the surrogate's value changes by less than `tol` relatively, or when `over` says so; at least one
        solve is done. Raises the errors of `Program.solve`.
        """
        e, v1, accuracy = self.instance, self.instance.params.v1, _ACCURACY if solver == "clarabel" else None
        decision = replace(start, ps=start.ps * _START)
        surrogate: list[float] = []
        worth: list[float] = []
        done: list[Solved] = []
        for _ in range(solves):
            solved = self.program.solve(solver, tolerance=accuracy, **self._at(decision, y / v1))
            solved = replace(solved, value=solved.value * v1 / _STRETCH)
            point = self._within(decision, solved)
            terms = e.model.terms(point)
            value = terms.trust - y * terms.C
            rough = solved.status == "almost solved" or solver == "scs"
            slack = _SLACK * (10.0 if rough else 1.0) * (v1 + terms.trust)
            last = (surrogate[-1], worth[-1]) if worth else (-np.inf, -np.inf)
            for lower, higher, wrong in (
                (solved.value, value, "the surrogate is above V - yC"),
                (last[0], solved.value, "the surrogate fell"),
                (last[1], value, "V - yC fell"),
            ):
                if not higher >= lower - slack:
                    detail = f"{solver} ended with: {solved.status}, but {wrong}: {lower} against {higher}"
                    raise ProgramFailed(detail, solver=solver, solver_status=solved.status)
            decision = point
            surrogate.append(solved.value)
            worth.append(value)
            done.append(solved)
            if len(surrogate) > 1 and abs(surrogate[-1] - surrogate[-2]) <= tol * abs(surrogate[-1]):
                break
            if over():
                break
        return Climb(decision, surrogate, worth, done)

    def _at(self, at: Decision, y: float) -> dict[str, Any]:
        """The program's parameters: the surrogate at a point, in ratios to it; y in units of v1."""
        e, p, a, users = self.instance, self.instance.params, at.assoc, np.arange(self.instance.N)
        terms = e.model.terms(at)
        unit = terms.T
        snr_up, snr_down = (e.gain[users, a] * power / (p.N0 * at.b) for power in (at.pu, at.ps))
        data, block = at.gamma * at.fs, (1.0 - at.gamma) * at.fs
        bits = at.phi * e.d
        own = (e.d - bits) * e.eta_u + p.omega_r * bits * e.eta_r
        computed = e.kappa_s[a] * bits * (e.eta_s[a] * data**2 + p.omega_b * e.eta_b[a] * block**2)
        shares = {"b": at.b / e.B[a], "ps": at.ps / e.ps_max[a], "fs": at.fs / e.fs_max[a]}
        values: dict[str, Any] = {
            "weight": y * p.w_t * unit, "noise_up": 1.0 / (1.0 + snr_up), "noise_down": 1.0 / (1.0 + snr_down),
            "signal_up": snr_up / (1.0 + snr_up), "signal_down": snr_down / (1.0 + snr_down),
            "rho_up": np.log1p(snr_up), "rho_down": np.log1p(snr_down),
            "t_local": own / at.fu / unit, "t_server": (terms.t_sp + terms.t_sg) / unit, "t_up": terms.t_ut / unit, "t_down": terms.t_st / unit,
            "t_chain": terms.t_chain / unit, "e_up": 0.5 * y * p.w_e * at.pu * terms.t_ut,
            "e_down": 0.5 * y * p.w_e * at.ps * terms.t_st, "e_fu": y * p.w_e * e.kappa_u * own * at.fu**2,
            "e_fs": y * p.w_e * computed, "v": 1.0 + p.v2 * e.score[a], "part_pu": at.pu / e.pu_max,
            "part_fu": at.fu / e.fu_max,
        }  # fmt: skip
        if p.fin_on_server:
            values["t_fin"] = terms.t_fin / unit
        for name, share in shares.items():
            values[f"v_{name}"] = p.v2 * share
            values[f"part_{name}"] = np.zeros((e.M, e.N))
            values[f"part_{name}"][a, users] = share
        return values

    def _within(self, at: Decision, solved: Solved) -> Decision:
        """A solve's point in SI units, brought within caps and budgets: it may exceed them by the solver's tolerance."""
        e, a = self.instance, at.assoc
        amounts = {}
        for name, budget in (("b", e.B), ("ps", e.ps_max), ("fs", e.fs_max)):
            own = np.maximum(solved.values[name] * getattr(at, name), budget[a] * _LEAST)
            used = np.bincount(a, weights=own, minlength=e.M)
            amounts[name] = own * np.minimum(1.0, budget / np.maximum(used, budget))[a]
        for name, most in (("pu", e.pu_max), ("fu", e.fu_max)):
            amounts[name] = np.clip(solved.values[name] * getattr(at, name), most * _LEAST, most)
        return replace(at, **amounts)


def _inverse(x: Any, u: Any) -> Any:
    """x u >= 1, x >= 0, u >= 0, entry by entry, as ||(2, x - u)|| <= x + u."""
    return cp.SOC(x + u, cp.vstack([np.full(x.size, 2.0), x - u]))
