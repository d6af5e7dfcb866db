"""TCR and DPE for a live fleet: association, split, bandwidth, powers and clocks of every UE from one policy (market.md 4).

A pure computation: request in, plan out. The request becomes an instance of the policy's problem over the shared radio
model; the registry solves it; the problem's own score audits the answer; integers come out.

    the papers                         here
    user n, data d_n                   UE, W_n / eta: its work in bits of the fleet's mean work a bit
    eta_u = eta_s = eta                total fuel / total bits of the UEs' next tasks; 1 fuel = 1 cycle
    F_m, kappa                         speed x slots of the advert; power at full clock / clock^3
    gain h_nm                          path loss over the distance, no fading
    S_b, omega_b eta_b, c_m            the request's costs of keeping the chain
    omega_r                            total output bits / total input bits

Both models have one work per bit for a server, while kernels differ a thousandfold in it. With d_n as above every UE's
work is exact, and so are total bits and, where all ask the same, each one's bits. What a plan expects of a task is
computed from the task's own bits and work.

A policy that fails, or whose answer breaks a constraint, costs its plan and nothing else: each UE then goes to its
nearest server at equal shares, and `fallback` says why.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgora.allocator import registry
from edgora.allocator.plan_files import PPM, Delays, PlanRequest, PlanServer, PlanUser, RadioPlan, UeShare
from edgora.allocator.radio import LogDistance, distances, shannon
from edgora.wire.errors import EdgoraError, Refused

__all__ = ["PROBLEMS", "instance_of", "nearest_equal", "solve_plan"]

PROBLEMS = ("tcr", "dpe")
"""Problems that a plan may be solved as."""

Floats = NDArray[np.float64]
_ETA_R = 1e-6
"""fuel per returned bit on the UE: opening a result is not metered work, and the models want a number above 0."""
_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class _Choice:
    """A decision of either problem; arrays (N,)."""

    assoc: NDArray[np.int64]
    phi: Floats
    gamma: Floats
    b: Floats
    pu: Floats
    ps: Floats
    fu: Floats
    fs: Floats


def _each(values: list[float]) -> Floats:
    return np.array(values, dtype=np.float64)


def _users(request: PlanRequest, of: Callable[[PlanUser], float]) -> Floats:
    return _each([of(user) for user in request.users])


def _servers(request: PlanRequest, of: Callable[[PlanServer], float]) -> Floats:
    return _each([of(server) for server in request.servers])


def _gains(request: PlanRequest) -> Floats:
    loss = LogDistance(request.radio.pl0_db, request.radio.pl1_db, request.radio.nearest_m)
    return loss.gain(distances([u.position_m for u in request.users], [s.position_m for s in request.servers]))


def _work_per_bit(request: PlanRequest) -> float:
    return sum(user.fuel for user in request.users) / sum(user.bits for user in request.users)


def _wires(request: PlanRequest) -> Floats:
    """bit/s between servers: what the slower of both uplinks carries; 0 on the diagonal."""
    uplink = 8.0 * _servers(request, lambda s: s.uplink)
    between: Floats = np.minimum(uplink[:, None], uplink[None, :])
    np.fill_diagonal(between, 0.0)
    return between


# ---- instances -------------------------------------------------------------------------------------------------------


def instance_of(request: PlanRequest) -> Any:
    """The instance of the policy's problem. Raises Refused naming what no model can take."""
    return {"tcr": _tcr, "dpe": _dpe}[_problem(request)](request)


def _problem(request: PlanRequest) -> str:
    name = request.policy.partition(":")[0]
    if name not in PROBLEMS:
        raise Refused(f"policy is {request.policy!r}: must be tcr:SOLVER or dpe:SOLVER", field="policy")
    return name


def _tcr(request: PlanRequest) -> Any:
    from edgora.allocator.tcr import instance as tcr

    costs, profile = request.costs, tcr.PROFILES["chain"]
    users, servers = len(request.users), len(request.servers)
    eta = _work_per_bit(request)
    omega_r = sum(user.output_bits for user in request.users) / sum(user.bits for user in request.users)
    same = profile.phi_min == request.phi_min
    params = tcr.Params(
        profile="chain" if same else "custom", N=users, M=servers, N0=request.radio.noise_w_per_hz,
        block_bits=8.0 * costs.block_octets, omega_b=costs.omega_b, omega_r=omega_r, w_t=costs.w_t, w_e=costs.w_e,
        v1=costs.v1, v2=costs.v2, phi_min=request.phi_min, phi_max=request.phi_max, ut_on_user=profile.ut_on_user,
        fin_on_server=profile.fin_on_server,
    )  # fmt: skip
    clock, fastest = _servers(request, lambda s: s.clock), _users(request, lambda u: u.clock)
    arrays = {
        "gain": _gains(request), "d": _users(request, lambda u: u.fuel) / eta,
        "score": _servers(request, lambda s: s.score), "B": _servers(request, lambda s: s.bandwidth_hz),
        "ps_max": _servers(request, lambda s: s.power_w), "fs_max": clock,
        "pu_max": _users(request, lambda u: u.power_w), "fu_max": fastest, "eta_u": np.full(users, eta),
        "eta_r": np.full(users, min(_ETA_R, eta / max(omega_r, 1.0))), "eta_s": np.full(servers, eta),
        "eta_b": np.full(servers, costs.eta_b), "kappa_u": _users(request, lambda u: u.compute_w) / fastest**3,
        "kappa_s": _servers(request, lambda s: s.compute_w) / clock**3, "wire": _wires(request),
        "verify": np.full(servers, costs.verify_fuel), "pos_u": [u.position_m for u in request.users],
        "pos_s": [s.position_m for s in request.servers],
    }  # fmt: skip
    return tcr.make(request.seed, params, arrays)


def _dpe(request: PlanRequest) -> Any:
    from edgora.allocator.dpe import instance as dpe

    costs = request.costs
    eta = _work_per_bit(request)
    clock, fastest = _servers(request, lambda s: s.clock), _users(request, lambda u: u.clock)
    return dpe.made(
        _gains(request), _users(request, lambda u: u.fuel) / eta, seed=request.seed, c_s=costs.c, c_u=costs.c,
        p_max=_users(request, lambda u: u.power_w), fu_max=fastest, eta_u=eta, eta_s=eta, eta_b=costs.eta_b,
        kappa_u=_users(request, lambda u: u.compute_w) / fastest**3, B=_servers(request, lambda s: s.bandwidth_hz),
        fs_max=clock, kappa_s=_servers(request, lambda s: s.compute_w) / clock**3, t_chain=_chain_s(request),
        N0=request.radio.noise_w_per_hz, omega_b=costs.omega_b, w_t=costs.w_t, w_e=costs.w_e,
        phi_min=request.phi_min, phi_max=request.phi_max,
    )  # fmt: skip


def _chain_s(request: PlanRequest) -> Floats:
    """Until the slowest other server has a server's block, and has verified it (dpe.md A4); 0 where it is alone."""
    if len(request.servers) == 1:
        return np.zeros(1)
    alone = np.eye(len(request.servers), dtype=bool)
    slowest: Floats = np.where(alone, np.inf, _wires(request)).min(axis=1)
    verify: Floats = request.costs.verify_fuel / _servers(request, lambda s: s.clock)
    others: Floats = np.where(alone, -np.inf, verify[None, :]).max(axis=1)
    waits: Floats = 8.0 * request.costs.block_octets / slowest + others
    return waits


# ---- solving ---------------------------------------------------------------------------------------------------------


def solve_plan(request: PlanRequest) -> RadioPlan:
    """The policy's plan, or the fallback with its reason.

    Raises Refused or NotFound for a request that is wrong in itself: no such policy or setting, numbers that no model
    takes.
    """
    problem, _, solver = request.policy.partition(":")
    instance = instance_of(request)
    registry.policy(problem, solver, seed=request.seed, settings=request.settings)
    begun = time.monotonic()
    try:
        solution = registry.solve(
            problem, solver, instance, seed=request.seed, time_limit_s=request.budget_s, settings=request.settings
        )
        score = registry.problem(problem).score(instance, solution)
    except (EdgoraError, ArithmeticError, ValueError, RuntimeError) as error:
        detail = error.detail if isinstance(error, EdgoraError) else f"{type(error).__name__}: {error}"
        return nearest_equal(request, f"{request.policy} failed: {detail}"[:300], time.monotonic() - begun)
    if not score.holds:
        sentence = f"{request.policy} broke the rules of {problem}: {'; '.join(score.problems)}"
        return nearest_equal(request, sentence[:300], time.monotonic() - begun)
    info = solution.info or {}
    return RadioPlan(
        policy=request.policy, ues=_shares(request, _chosen(request, instance, solution)),
        objective=solution.objective, bound=solution.bound, status=str(info.get("status", "done")),
        wall_s=solution.wall_s,
    )  # fmt: skip


def _chosen(request: PlanRequest, instance: Any, decided: Any) -> _Choice:
    """A decision of the policy's problem, with a download power where the problem has none: equal shares (dpe)."""
    assoc = np.asarray(decided.assoc, dtype=np.int64)
    arrays = {name: np.asarray(getattr(decided, name), dtype=np.float64) for name in ("phi", "gamma", "b", "fu", "fs")}
    if _problem(request) == "tcr":
        pu, ps = np.asarray(decided.pu, dtype=np.float64), np.asarray(decided.ps, dtype=np.float64)
    else:
        crowd = np.bincount(assoc, minlength=instance.M)[assoc]
        pu, ps = np.asarray(decided.p, dtype=np.float64), _servers(request, lambda s: s.power_w)[assoc] / crowd
    return _Choice(assoc=assoc, pu=pu, ps=ps, **arrays)


def nearest_equal(request: PlanRequest, reason: str, wall_s: float = 0.0) -> RadioPlan:
    """What holds without a policy: each UE at its nearest server (ties by id), everything there shared equally."""
    instance = instance_of(request)
    far = distances([u.position_m for u in request.users], [s.position_m for s in request.servers])
    by_id = np.argsort([s.id for s in request.servers], kind="stable")
    assoc = by_id[np.argmin(far[:, by_id], axis=1)].astype(np.int64)
    phi = min(max(0.5, request.phi_min), request.phi_max)
    model = instance.model
    if _problem(request) == "tcr":
        decision = model.even(assoc, np.full(instance.N, phi))
        objective = model.terms(decision).tcr
    else:
        decision = model.average(assoc, phi, model.gamma0)
        objective = model.dpe(decision)
    return RadioPlan(
        policy=request.policy, ues=_shares(request, _chosen(request, instance, decision)), objective=float(objective),
        bound=None, status="fallback", wall_s=wall_s, fallback=reason,
    )  # fmt: skip


# ---- from a decision to what is done ---------------------------------------------------------------------------------


def _shares(request: PlanRequest, choice: _Choice) -> tuple[UeShare, ...]:
    gains, chain = _gains(request), _chain_s(request)
    return tuple(_share(request, choice, n, gains[n], chain) for n in range(len(request.users)))


def _share(request: PlanRequest, choice: _Choice, n: int, gains: Floats, chain_s: Floats) -> UeShare:
    user, m = request.users[n], int(choice.assoc[n])
    server, gain = request.servers[m], float(gains[m])
    reasons: list[str] = []
    phi_ppm = min(max(round(float(choice.phi[n]) * PPM), 0), PPM)
    if not user.splittable and phi_ppm < PPM:
        reasons.append(f"phi {choice.phi[n]:.3f} becomes 1: its tasks cannot be split")
        phi_ppm = PPM
    data, block = choice.gamma[n] * choice.fs[n], (1.0 - choice.gamma[n]) * choice.fs[n]
    speed = max(1, int(data))
    if speed > server.speed:
        reasons.append(f"its share of {speed:,} fuel/s is more than a slot of server {server.id} gives")
        speed = server.speed
    band, up, down = (max(1, int(x)) for x in (choice.b[n], _MICRO * choice.pu[n], _MICRO * choice.ps[n]))
    noise = request.radio.noise_w_per_hz * band
    costs = request.costs
    bits = phi_ppm / PPM * user.bits
    share = UeShare(
        ue=user.ue, server=server.id, phi_ppm=phi_ppm, bandwidth_hz=band, power_up_uw=up, power_down_uw=down,
        rate_up=_rate(band, gain * up / _MICRO / noise), rate_down=_rate(band, gain * down / _MICRO / noise),
        speed=speed, local_speed=max(1, int(choice.fu[n])),
        chain_us=round(_MICRO * (float(chain_s[m]) + bits * costs.omega_b * costs.eta_b / float(block))),
        reasons=tuple(reasons), expected_ms=Delays(0.0, 0.0, 0.0, 0.0, 0.0),
    )  # fmt: skip
    return msgspec.structs.replace(share, expected_ms=share.delays(user.bits, user.fuel, user.output_bits))


def _rate(band: float, snr: float) -> int:
    return max(1, int(shannon(band, snr)))
