"""How good a policy is: exactly for one miner with one stream, else on common draws (privacy.md 8).

A run of many miners is `copies` systems side by side for `slots` slots after `settling` slots that are not counted:
a device that clears as much as arrives fills its buffers over tens of slots, and an average that starts with empty
ones would flatter every policy that waits. Policies given the same seed meet the same draws.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgora.allocator.privacy.exact import Averages, best_average, miner
from edgora.allocator.privacy.instance import Instance
from edgora.allocator.privacy.model import Bits, Floats, State
from edgora.allocator.privacy.policies import Chances, Policy, Uniform, lookahead
from edgora.allocator.privacy.simulation import Simulation
from edgora.wire.errors import Refused

__all__ = ["Played", "decisions", "exactly", "is_exact", "play", "score", "trace", "verify_trace"]

COPIES = 128
"""Systems side by side."""
SETTLING = 100
"""Slots before counting starts."""
SLOTS = 250
"""Counted slots: 128 x 250 x 5 miners are 160,000 miner-slots."""


@dataclass(frozen=True, slots=True)
class Played:
    """Averages over a run, and its spread."""

    averages: Averages
    power: float
    """Energy of the whole system in a slot over 47.5 ms, the reference busy time, W."""
    late: int
    """Streams past the deadline."""
    copies: Floats
    """Mean reward of each copy (copies,): the copies are independent."""
    backlogged: float
    """Share of slots that left work at the server."""

    def error(self) -> float:
        """Standard error of the mean reward."""
        n = len(self.copies)
        return float(self.copies.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def is_exact(instance: Instance) -> bool:
    """Whether policies are evaluated without sampling."""
    c = instance.constants
    finishes = 1000.0 * (c.D1_hi + c.B) * c.X <= c.F  # the server never has a backlog
    return instance.N == 1 and instance.M == 1 and instance.tabular and finishes


def decisions(policy: Policy, instance: Instance) -> Floats:
    """One miner, one stream: the chance to offload in every state, by (D1, D0, g, level)."""
    tables = miner(instance)
    states = tables.states
    found = policy.chances(states) if isinstance(policy, Chances) else checked(policy, states).astype(np.float64)
    return found[:, 0, 0].reshape(tables.shape)


def exactly(table: Floats, instance: Instance) -> Averages:
    """Long-run averages of a table of chances to offload."""
    tables = miner(instance)
    return tables.averages(tables.table(np.asarray(table, dtype=np.float64)))


def checked(policy: Policy, state: State) -> Bits:
    """A policy's decision, refused by name where it is not one."""
    x = np.asarray(policy.act(state))
    if x.shape != state.D1.shape or x.dtype.kind not in "biuf" or not np.isin(x, (0, 1)).all():
        detail = f"must decide 0 or 1 for {state.D1.shape} streams, decided {x.dtype} of shape {x.shape}"
        raise Refused(detail, field="x")
    return x.astype(np.bool_)


def play(
    policy: Policy, instance: Instance, seed: int, *, copies: int = COPIES, slots: int = SLOTS, settling: int = SETTLING
) -> Played:
    """Play a policy on the draws of a seed."""
    simulation = Simulation(instance, copies, seed)
    for _ in range(settling):
        simulation.step(checked(policy, simulation.state))
    sums, reward, late, backlogged = np.zeros(4), np.zeros(copies), 0, 0.0
    for _ in range(slots):
        outcome = simulation.step(checked(policy, simulation.state))
        sums += (outcome.P.mean(), outcome.cost.mean(), outcome.E.sum(axis=2).mean(), outcome.L.mean())
        reward += outcome.reward.mean(axis=1)
        late += int(outcome.late.sum())
        backlogged += float((outcome.backlog > 0.0).mean())
    privacy, cost, energy, latency = (sums / slots).tolist()
    averages = Averages(float(reward.mean()) / slots, privacy, cost, energy, latency)
    power = energy * instance.N / instance.constants.L_0
    return Played(averages, power, late, reward / slots, backlogged / slots)


def score(
    instance: Instance, seed: int, *, copies: int = COPIES, slots: int = SLOTS, settling: int = SETTLING
) -> tuple[float, float]:
    """Average rewards that score 0 and 1: random and the best, or for many miners `lookahead`, on the same draws."""
    if is_exact(instance):
        tables = miner(instance)
        half = np.full(len(tables.states.level), 0.5)
        return tables.averages(tables.table(half)).reward, best_average(instance)
    floor, best = (
        play(policy, instance, seed, copies=copies, slots=slots, settling=settling).averages.reward
        for policy in (Uniform(seed), lookahead(instance))
    )
    return floor, best


def trace(policy: Policy, instance: Instance, seed: int, slots: int, path: Path) -> None:
    """Consecutive slots of one environment, as privacy.md 3 lays a trace out."""
    simulation = Simulation(instance, 1, seed)
    rows: dict[str, list[object]] = {name: [] for name in ("D1", "D0", "x", "g", "reward", "q")}
    for _ in range(slots):
        state = simulation.state
        x = checked(policy, state)
        outcome = simulation.step(x)
        for name, value in (
            ("D1", state.D1[0]), ("D0", state.D0[0]), ("x", x[0]), ("g", state.g[0]), ("reward", outcome.reward[0]),
            ("q", state.level[0]),
        ):  # fmt: skip
            rows[name].append(value)
    arrays = {name: np.array(values, dtype=np.float64) for name, values in rows.items()}
    scalars = {"N": instance.N, "M": instance.M, "beta": instance.beta, "wP": instance.w_P}
    try:
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **{n: np.float64(v) for n, v in scalars.items()}, **arrays)
    except OSError as error:
        raise Refused(f"--trace {path} cannot be written: {error}", field="--trace") from None


def verify_trace(path: Path, instance: Instance) -> float:
    """Greatest difference between a trace and what the model makes of its states and decisions: rewards and buffers."""
    model = instance.model
    try:
        with np.load(path, allow_pickle=False) as file:
            rows = {name: np.asarray(file[name], dtype=np.float64) for name in ("D1", "D0", "x", "g", "reward", "q")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise Refused(f"trace {path} cannot be read: {error}", field="trace") from None
    streams, shape = (len(rows["q"]), instance.N, instance.M), (len(rows["q"]), instance.N)
    for name, rows_of in rows.items():
        if rows_of.shape != (streams if name in {"D1", "D0", "x"} else shape[:1] if name == "q" else shape):
            raise Refused(f"trace: {name} has shape {rows_of.shape}", field="trace")
    T, backlog, worst = len(rows["q"]), np.zeros(1), 0.0
    for t in range(T):
        level = rows["q"][t : t + 1].astype(np.int64)
        state = State(
            rows["D1"][t : t + 1], rows["D0"][t : t + 1], rows["g"][t : t + 1].astype(np.int64), level, backlog
        )
        outcome = model.slot(state, rows["x"][t : t + 1] > 0.5)
        worst = max(worst, float(np.abs(outcome.reward[0] - rows["reward"][t]).max()))
        if t + 1 < T:
            worst = max(worst, float(np.abs(outcome.D0[0] - rows["D0"][t + 1]).max()))
        backlog = outcome.backlog
    return worst
