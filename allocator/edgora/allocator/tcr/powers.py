"""Part 2 of DASHF: bandwidths, powers and clocks at a fixed association, by fractional programming (tcr.md 7.3).

With (assoc, phi, gamma, y) fixed, V - y C is concave but for the transfer energies p D / R(b, p). At the last point
(p0, R0), with e0 = p0 D / R0,

    p D / R  <=  (e0 / 2) ((p / p0)^2 + (R0 / R)^2)      equal in value and gradient at (p0, R0)

Replacing both energies by these bounds leaves a convex program; its solution is the next (p0, R0). One program serves
every association and iteration: what depends on them are its parameters.

Rule: within one climb neither the surrogate's value nor V - y C falls, and V - y C >= surrogate (7.4). It is asserted
to the convex solver's accuracy.

Theory of operation. Units are Mbit, MHz, GHz and W. The rate enters as r = R / R0 through the relative-entropy cone,
r R0 <= b log2(1 + g p / b); its inverse u >= 1 / r is one second-order cone and serves both the delay D/R = (D/R0) u
and the energy's (R0/R)^2 = u^2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy
import numpy as np
from numpy.typing import NDArray

from edgora.allocator.conic.program import Program, Solved, Solver
from edgora.allocator.radio import shannon
from edgora.allocator.tcr.instance import Instance
from edgora.allocator.tcr.model import Decision

__all__ = ["Climb", "Powers"]

cp: Any = cvxpy  # partly typed

Floats = NDArray[np.float64]

_MEGA, _GIGA = 1e6, 1e9
_START = 0.9
"""Of the start's server powers (7.3)."""
_SLACK = 1e-5
"""Relative fall that is put down to the convex solver's accuracy; `almost solved` reaches ten times that."""


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

        def per_user(*names: str) -> dict[str, Any]:
            return {name: cp.Parameter(n, name=name, nonneg=True) for name in names}

        k = per_user(
            "1/g", "ru", "rd", "per_b", "per_ps", "per_fs", "base", "user_cycles", "server_cycles", "up", "down", "chain",
            "q_pu", "q_up", "q_ps", "q_down", "q_fu", "q_fs",
        )  # fmt: skip
        log_gain = cp.Parameter(n, name="log g")
        member = cp.Parameter((e.M, n), name="member", nonneg=True)
        weight = cp.Parameter(name="delay", nonneg=True)
        v = {name: cp.Variable(n, name=name) for name in ("b", "pu", "ps", "fu", "fs", "r_up", "r_down")}
        inverse = {name: cp.Variable(n, name=f"1/{name}") for name in ("r_up", "r_down", "fu", "fs")}
        delay = cp.Variable(name="T")

        user = cp.multiply(k["user_cycles"], inverse["fu"])
        server = cp.multiply(k["server_cycles"], inverse["fs"]) + cp.multiply(k["down"], inverse["r_down"]) + k["chain"]
        upload = cp.multiply(k["up"], inverse["r_up"])
        if p.ut_on_user:
            user += upload
        else:
            server += upload
        if p.fin_on_server:
            server += cp.multiply(cp.Parameter(n, name="result_cycles", nonneg=True), inverse["fu"])
        rows = [
            member @ v["b"] <= e.B / _MEGA,
            member @ v["ps"] <= e.ps_max,
            member @ v["fs"] <= e.fs_max / _GIGA,
            v["pu"] <= e.pu_max,
            v["fu"] <= e.fu_max / _GIGA,
            user <= delay,
            server <= delay,
            *(_inverse(v[name], inverse[name]) for name in inverse),
        ]
        for power, ratio, rate in (("pu", "r_up", "ru"), ("ps", "r_down", "rd")):
            heard = cp.multiply(k["1/g"], v["b"]) + v[power]
            nats = cp.multiply(log_gain, v["b"]) - cp.rel_entr(v["b"], heard)
            rows.append(cp.multiply(k[rate], v[ratio]) <= nats / np.log(2.0))
        squares = (
            ("q_pu", v["pu"]), ("q_up", inverse["r_up"]), ("q_ps", v["ps"]), ("q_down", inverse["r_down"]),
            ("q_fu", v["fu"]), ("q_fs", v["fs"]),
        )  # fmt: skip
        energy = cp.sum([cp.sum(cp.multiply(k[name], cp.square(of))) for name, of in squares])
        share = (
            k["base"] + cp.multiply(k["per_b"], v["b"]) + cp.multiply(k["per_ps"], v["ps"])
            + cp.multiply(k["per_fs"], v["fs"])
        )  # fmt: skip
        trust = p.v1 * cp.sum(cp.log(share))
        self.program = Program(cp.Problem(cp.Maximize(trust - weight * delay - energy), rows))

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
        e, p = self.instance, self.instance.params
        fixed = self._fixed(start, y)
        decision, pu, ps = start, start.pu, start.ps * _START
        surrogate: list[float] = []
        worth: list[float] = []
        done: list[Solved] = []
        gain = e.gain[np.arange(e.N), start.assoc] / p.N0
        for _ in range(solves):
            rates = shannon(decision.b, gain * pu / decision.b), shannon(decision.b, gain * ps / decision.b)
            solved = self.program.solve(solver, **fixed, **self._tangent(start.phi, y, (pu, ps), rates))
            point = self._within(start, solved)
            terms = e.model.terms(point)
            value = terms.trust - y * terms.C
            slack = _SLACK * (10.0 if solved.status == "almost solved" or solver == "scs" else 1.0) * (1 + abs(value))
            assert value >= solved.value - slack, f"the surrogate {solved.value} is above V - yC, {value}"
            if surrogate:
                assert solved.value >= surrogate[-1] - slack, (
                    f"the surrogate fell from {surrogate[-1]} to {solved.value}"
                )
                assert value >= worth[-1] - slack, f"V - yC fell from {worth[-1]} to {value}"
            decision, pu, ps = point, point.pu, point.ps
            surrogate.append(solved.value)
            worth.append(value)
            done.append(solved)
            if len(surrogate) > 1 and abs(surrogate[-1] - surrogate[-2]) <= tol * abs(surrogate[-1]):
                break
            if over():
                break
        return Climb(decision, surrogate, worth, done)

    def _fixed(self, at: Decision, y: float) -> dict[str, Any]:
        """Parameters that stay the same during a climb."""
        e, p, a = self.instance, self.instance.params, at.assoc
        data = at.phi * e.d
        result = p.omega_r * data
        block_cycles = p.omega_b * e.eta_b[a]
        own = (e.d - data) * e.eta_u + result * e.eta_r
        member = np.zeros((e.M, e.N))
        member[a, np.arange(e.N)] = 1.0
        squared = e.kappa_s[a] * data * (e.eta_s[a] * at.gamma**2 + block_cycles * (1.0 - at.gamma) ** 2)
        late = {"result_cycles": result * e.eta_r / _GIGA} if p.fin_on_server else {}
        g = e.gain[np.arange(e.N), a] / (p.N0 * _MEGA)
        return {
            "delay": y * p.w_t, "member": member, "1/g": 1.0 / g, "log g": np.log(g),
            "per_b": p.v2 * _MEGA / e.B[a], "per_ps": p.v2 / e.ps_max[a], "per_fs": p.v2 * _GIGA / e.fs_max[a],
            "base": 1.0 + p.v2 * e.score[a], "user_cycles": own / _GIGA,
            "server_cycles": data * (e.eta_s[a] / at.gamma + block_cycles / (1.0 - at.gamma)) / _GIGA,
            "chain": e.model.t_chain[a], **late,
            "q_fu": y * p.w_e * e.kappa_u * own * _GIGA**2, "q_fs": y * p.w_e * squared * _GIGA**2,
        }  # fmt: skip

    def _tangent(
        self, phi: Floats, y: float, power: tuple[Floats, Floats], rate: tuple[Floats, Floats]
    ) -> dict[str, Any]:
        """Parameters of the surrogate at the last powers and rates."""
        e, p = self.instance, self.instance.params
        bits = phi * e.d, p.omega_r * phi * e.d
        half = [0.5 * y * p.w_e * watt * bit / speed for watt, bit, speed in zip(power, bits, rate, strict=True)]
        return {
            "ru": rate[0] / _MEGA, "rd": rate[1] / _MEGA, "up": bits[0] / rate[0], "down": bits[1] / rate[1],
            "q_pu": half[0] / power[0] ** 2, "q_up": half[0], "q_ps": half[1] / power[1] ** 2, "q_down": half[1],
        }  # fmt: skip

    def _within(self, start: Decision, solved: Solved) -> Decision:
        """A solve's point in SI units, brought within caps and budgets: it may exceed them by the solver's tolerance."""
        e, a, found = self.instance, start.assoc, solved.values
        amounts = {}
        for name, budget, unit in (("b", e.B, _MEGA), ("ps", e.ps_max, 1.0), ("fs", e.fs_max, _GIGA)):
            own = np.maximum(found[name] * unit, budget[a] * 1e-12)
            used = np.bincount(a, weights=own, minlength=e.M)
            amounts[name] = own * np.minimum(1.0, budget / np.maximum(used, budget))[a]
        pu, fu = np.maximum(found["pu"], e.pu_max * 1e-12), np.maximum(found["fu"] * _GIGA, e.fu_max * 1e-12)
        return Decision(
            assoc=a,
            phi=start.phi,
            gamma=start.gamma,
            pu=np.minimum(pu, e.pu_max),
            fu=np.minimum(fu, e.fu_max),
            **amounts,
        )


def _inverse(x: Any, u: Any) -> Any:
    """x u >= 1, x >= 0, u >= 0, entry by entry, as ||(2, x - u)|| <= x + u."""
    return cp.SOC(x + u, cp.vstack([np.full(x.size, 2.0), x - u]))
