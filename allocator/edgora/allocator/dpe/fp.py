"""The resource step of DAUR: bandwidth, power and clocks by fractional programming (dpe.md 6, Lemma 3).

Association, shares and splits are fixed. With A = c D and B = cost_s the sum of A/B is raised by minimising
sum omega B, omega = alpha beta = A/B^2 at the last point: A/B is convex in B, so it lies above its tangent. In B only
the transfer energy p D / r is not convex; it is replaced by

    z (p D)^2 + 1/(4 z r^2),   z = 1/(2 p D r) at the last point

which lies above it and touches it there. Every solve therefore starts at the last point's value, and the sum of A/B
never falls (Lemma 3).

The program is written in the paper's own ratios: b/B_m, p/P_n, f/F_m and y = r over the last point's rate, so its
numbers have the same size whatever the units. The rate is jointly concave in (b, p), a relative entropy:

    r ln 2 / B_m = b ln(1 + k p/b) = b ln s - rel_entr(b, (b + k p)/s),   k = g P_n / (N0 B_m), s = max(k, 1)
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy
import numpy as np
from numpy.typing import NDArray

from edgora.allocator.conic.program import Program, Solved, Solver
from edgora.allocator.dpe.model import Decision, Model

__all__ = ["Resourced", "allocate", "program", "within"]

cp: Any = cvxpy  # partly typed
Floats = NDArray[np.float64]
Servers = NDArray[np.int64]

_START_POWER = 0.9
"""Part of P_n at which the first solve is tangent: inside, so that both directions are open."""
_LEAST = 1e-9
"""Least part of a budget for a user that is worth nothing: C5, C7 and C9 ask for more than 0."""


@dataclass(frozen=True, slots=True)
class Resourced:
    """What the step found."""

    decision: Decision
    """The best point: the last one, but for rounding where a channel is hopeless."""
    server_parts: list[float]
    """Sum of A/B: at the start, then after every solve; never falls."""
    surrogates: list[float]
    """Least value of each solve's surrogate, relative to its value at the solve's start: never above 1."""
    solves: list[Solved]


@functools.lru_cache(maxsize=32)
def program(users: int, servers: int) -> Program:
    """The resource program of one size, compiled once."""
    b, p, f, y, slower, longer = (cp.Variable(users, name=name) for name in ("b", "p", "f", "y", "slower", "longer"))
    names = ("rate", "entropy", "noise", "signal", "air_t", "air_e", "power_e", "clock_t", "clock_e")
    rate, entropy, noise, signal, air_t, air_e, power_e, clock_t, clock_e = (
        cp.Parameter(users, name=name, nonneg=True) for name in names
    )
    served = cp.Parameter((servers, users), name="served", nonneg=True)
    cost = (
        air_t @ slower
        + clock_t @ longer
        + cp.sum(cp.multiply(air_e, cp.square(slower)))
        + cp.sum(cp.multiply(power_e, cp.square(p)))
        + cp.sum(cp.multiply(clock_e, cp.square(f)))
    )
    constraints = [
        cp.inv_pos(y) <= slower,
        cp.inv_pos(f) <= longer,
        cp.multiply(rate, y)
        <= cp.multiply(entropy, b) - cp.rel_entr(b, cp.multiply(noise, b) + cp.multiply(signal, p)),
        p <= 1,  # C9
        served @ b <= 1,  # C6
        served @ f <= 1,  # C8
    ]
    return Program(cp.Problem(cp.Minimize(cost), constraints), careful=True)


def allocate(
    model: Model,
    start: Decision,
    *,
    solver: Solver,
    tolerance: float | None,
    rounds: int = 12,
    still: float = 1e-6,
    over: Callable[[], bool] = bool,
) -> Resourced:
    """Resources for the association, shares and splits of `start`, from equal shares of every server.

    Ends when the sum of A/B moves by at most `still`, relative, after `rounds` solves, or when `over` says so.
    Raises ProgramError.
    """
    e, m = model.instance, start.assoc
    if not e.c_s[np.arange(e.N), m].any():  # nothing to share out by
        return Resourced(start, [0.0], [], [])
    compiled = program(e.N, e.M)
    served = (m == np.arange(e.M)[:, None]).astype(np.float64)
    crowd = np.bincount(m, minlength=e.M)[m]
    now = Decision(
        m, start.phi, start.gamma, e.B[m] / crowd, _START_POWER * e.p_max, start.fu, e.fs_max[m] / crowd
    )  # fmt: skip
    snr = np.take_along_axis(model.snr_hz, m[:, None], axis=1)[:, 0] * e.p_max / e.B[m]
    scale = np.maximum(snr, 1.0)
    offloaded = start.phi * e.d
    a = e.c_s[np.arange(e.N), m] * offloaded
    split, rest = start.gamma, 1.0 - start.gamma
    seconds = offloaded * (e.eta_s[m] / split + e.omega_b * e.eta_b[m] / rest) / e.fs_max[m]
    joules = e.kappa_s[m] * offloaded * (e.eta_s[m] * split**2 + e.omega_b * e.eta_b[m] * rest**2) * e.fs_max[m] ** 2
    best, parts, surrogates, solves = now, [model.server_part(now)], [], []
    for _ in range(rounds):
        terms = model.terms(now)
        omega = a / terms.cost_s**2
        present = math.fsum(omega * (terms.cost_s - e.w_t * e.t_chain[m]))  # what the surrogate is at the last point
        omega /= present
        half_energy = 0.5 * e.w_e * omega * terms.e_ut
        solved = compiled.solve(
            solver,
            tolerance=tolerance,
            served=served,
            rate=terms.rate * math.log(2.0) / e.B[m],
            entropy=np.log(scale),
            noise=1.0 / scale,
            signal=snr / scale,
            air_t=e.w_t * omega * terms.t_ut,
            air_e=half_energy,
            power_e=half_energy / (now.p / e.p_max) ** 2,
            clock_t=e.w_t * omega * seconds,
            clock_e=e.w_e * omega * joules,
        )
        solves.append(solved)
        surrogates.append(solved.value)
        point = solved.values
        now = within(
            model, Decision(m, start.phi, start.gamma, point["b"] * e.B[m], point["p"] * e.p_max, start.fu,
                            point["f"] * e.fs_max[m])
        )  # fmt: skip
        parts.append(model.server_part(now))
        if parts[-1] >= max(parts[:-1]):
            best = now
        if abs(parts[-1] - parts[-2]) <= still * abs(parts[-1]) or over():
            break
    return Resourced(best, parts, surrogates, solves)


def within(model: Model, decision: Decision) -> Decision:
    """The decision with its resources scaled into the budgets: a solver meets C6, C8 and C9 up to its tolerance."""
    e, m = model.instance, decision.assoc
    b = np.maximum(decision.b, _LEAST * e.B[m])
    fs = np.maximum(decision.fs, _LEAST * e.fs_max[m])
    b = b / np.maximum(np.bincount(m, weights=b, minlength=e.M) / e.B, 1.0)[m]
    fs = fs / np.maximum(np.bincount(m, weights=fs, minlength=e.M) / e.fs_max, 1.0)[m]
    p = np.clip(decision.p, _LEAST * e.p_max, e.p_max)
    return Decision(m, decision.phi, decision.gamma, b, p, decision.fu, fs)
