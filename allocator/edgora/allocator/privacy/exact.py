"""One miner alone, exactly: value iteration, relative value iteration, and the long-run averages of any policy.

Theory. A slot's reward is known before acting; what is random is only what follows it. So everything is told by the
afterstates (D0', g, level), what waits on the device after the decision while channel and level are still this slot's:
31 x 2 x 3 = 186 for one stream instead of 2046 states. With U an afterstate's continuation,

    V(s) = max_a r(s,a) + discount U(after(s,a)),    U(u) = E[V(next state) | u],

and the expectation is a mean over new data, one 2x2 and one 3x3 matrix. The long-run averages of a policy follow from
the stationary distribution over afterstates; where a policy splits them into several closed classes, each is weighted
by the chance to end in it from the normative start (empty buffers, level 0).

Tables are exact only where every buffer lies on the grid (`Instance.tabular`), and where the server finishes each slot's
work, so that there is never a backlog. Both are checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy.sparse.csgraph import connected_components

from edgora.allocator.privacy.instance import CHAIN, Constants, Instance, Params
from edgora.allocator.privacy.model import Bits, Floats, Ints, State
from edgora.wire.errors import Refused

__all__ = ["Averages", "Miner", "best_average", "miner", "relative_values"]

MAX_STATES = 4_000_000
"""Most states of a table."""

MAX_DENSE = 1_000
"""Most afterstates of an evaluation by elimination, whose cost is cubic; beyond, by iteration."""

_PRECISION = 1e-11
"""Where value iteration ends: span or greatest change, relative to the scale of rewards."""


@dataclass(frozen=True, slots=True)
class Averages:
    """Long-run averages of a slot, per miner."""

    reward: float
    privacy: float
    cost: float
    energy: float
    """Sum over a miner's streams, J."""
    latency: float
    """Mean over streams, s."""


class Miner:
    """Tables of one miner with M streams; arrays of states have the axes D1 (M times), D0 (M times), g, level."""

    def __init__(self, instance: Instance) -> None:
        c = instance.constants
        if instance.N != 1:
            raise Refused(f"tables are of one miner, the instance has {instance.N}", field="N")
        if not instance.tabular:
            detail = f"grid is {c.grid:g}: tables need D1_lo, C and B to be multiples of it"
            raise Refused(detail, field="grid")
        self.instance, self.M = instance, instance.M
        self.buffers = round(c.B / c.grid) + 1
        """Values of D0: 0, grid, .., B."""
        self.shape = (c.K,) * self.M + (self.buffers,) * self.M + (2, 3)
        states = float(c.K * self.buffers) ** self.M * 6.0
        if states * 2.0**self.M > MAX_STATES:
            detail = f"M is {self.M}: a table of {states:.3g} states is beyond {MAX_STATES / 2**self.M:.3g}"
            raise Refused(detail, field="M")
        if self.M * 1000.0 * (c.D1_hi + c.B) * c.X > c.F:
            raise Refused("F leaves work over in some slots: tables know no backlog", field="F")
        self.actions = 2**self.M
        self.bits: Bits = (np.arange(self.actions)[:, None] >> np.arange(self.M) & 1).astype(np.bool_)
        """Which streams each action offloads (A,M): bit m of the action."""

    @cached_property
    def states(self) -> State:
        """Every state, as a batch of systems of one miner."""
        c, M = self.instance.constants, self.M
        axes = np.indices(self.shape).reshape(2 * M + 2, -1)
        kb = c.grid * axes.astype(np.float64).T
        return State(
            D1=(c.D1_lo + kb[:, :M])[:, None, :], D0=kb[:, None, M : 2 * M],
            g=axes[2 * M][:, None], level=axes[2 * M + 1], backlog=np.zeros(axes.shape[1]),
        )  # fmt: skip

    @cached_property
    def _slots(self) -> tuple[Mapping[str, Floats], Ints]:
        """Metrics (S,A) of every state and action, and the afterstate's index (S,A)."""
        c, states = self.instance.constants, self.states
        rows: dict[str, list[Floats]] = {name: [] for name in ("reward", "privacy", "cost", "energy", "latency")}
        after = []
        tail = 3 * states.g[:, 0] + states.level
        for bits in self.bits:
            outcome = self.instance.model.slot(states, np.broadcast_to(bits, states.D1.shape))
            for name, values in (
                ("reward", outcome.reward[:, 0]), ("privacy", outcome.P[:, 0]), ("cost", outcome.cost[:, 0]),
                ("energy", outcome.E.sum(axis=(1, 2))), ("latency", outcome.L.mean(axis=(1, 2))),
            ):  # fmt: skip
                rows[name].append(values)
            index = np.zeros(len(tail), dtype=np.int64)
            for m in range(self.M):
                index = index * self.buffers + np.rint(outcome.D0[:, 0, m] / c.grid).astype(np.int64)
            after.append(index * 6 + tail)
        return {name: np.stack(values, axis=1) for name, values in rows.items()}, np.stack(after, axis=1)

    @property
    def reward(self) -> Floats:
        """Reward of every state and action (S,A)."""
        return self._slots[0]["reward"]

    def metric(self, name: str) -> Floats:
        """reward, privacy, cost, energy or latency of every state and action (S,A)."""
        return self._slots[0][name]

    @property
    def after(self) -> Ints:
        """Index of the afterstate of every state and action (S,A)."""
        return self._slots[1]

    @cached_property
    def moves(self) -> Floats:
        """How (g, level) moves (6,6)."""
        sigma = self.instance.constants.sigma
        return np.kron(np.array([[sigma, 1.0 - sigma], [1.0 - sigma, sigma]]), np.array(CHAIN))

    def expect(self, values: Floats) -> Floats:
        """The mean of a function of states after each afterstate (U,)."""
        data = values.reshape(self.shape).mean(axis=tuple(range(self.M))).reshape(-1, 6)
        expected: Floats = (data @ self.moves.T).ravel()
        return expected

    def greedy(self, U: Floats, discount: float, reward: Floats | None = None) -> Ints:
        """Best action of every state for a continuation."""
        best: Ints = np.argmax((self.reward if reward is None else reward) + discount * U[self.after], axis=1)
        return best

    def discounted(self, discount: float, reward: Floats | None = None) -> tuple[Floats, Floats]:
        """Value iteration: V of every state and U of every afterstate, both to within 1e-9 of the scale of rewards."""
        gain = self.reward if reward is None else reward
        U = np.zeros(6 * self.buffers**self.M)
        enough = _PRECISION * max(1.0, float(np.abs(gain).max()))
        while True:
            V = (gain + discount * U[self.after]).max(axis=1)
            new = self.expect(V)
            if np.abs(new - U).max() <= enough:
                return V, new
            U = new

    def relative(self, reward: Floats | None = None, precision: float = _PRECISION) -> tuple[float, Floats]:
        """Relative value iteration: the best long-run average, to the precision from above, and U, 0 where all begins."""
        gain = self.reward if reward is None else reward
        sigma = self.instance.constants.sigma
        if sigma == 1.0:
            raise Refused("sigma is 1: a channel that never changes has no single best average", field="sigma")
        damping = 1.0 if sigma > 0.0 else 0.5  # a channel that always changes makes the chain periodic
        U = np.zeros(6 * self.buffers**self.M)
        enough = precision * max(1.0, float(np.abs(gain).max()))
        for _ in range(100_000):
            step = self.expect((gain + U[self.after]).max(axis=1)) - U
            low, high = float(step.min()), float(step.max())
            U += damping * step
            U -= U[0]
            if high - low <= enough:
                return high, U
        raise Refused("relative values do not converge: several closed classes", field="sigma")

    def table(self, policy: Ints | Floats | Bits) -> Floats:
        """Probability of each action in each state (S,A), from actions (S,) or, for M = 1, chances to offload (S,)."""
        flat = np.asarray(policy).ravel()
        if np.issubdtype(flat.dtype, np.floating):
            chances = flat.astype(np.float64)
            return np.stack([1.0 - chances, chances], axis=1)
        return np.eye(self.actions)[flat.astype(np.int64)]

    def occupancy(self, table: Floats) -> Floats:
        """Share of slots in each state (S,) under the probabilities (S,A), from the normative start."""
        count = 6 * self.buffers**self.M
        K = self.instance.constants.K**self.M
        if count > MAX_DENSE:
            return self._iterated(table, count, K)
        before = np.tile(np.arange(count), K)  # (D0, g, level) of each state: D1 are the slow axes
        chain = np.zeros((count, count))
        for action in range(self.actions):
            np.add.at(chain, (before, self.after[:, action]), table[:, action] / K)
        entered = np.zeros(count)
        entered[[0, 3]] = 0.5  # empty buffers, level 0, both channels alike
        step = (self.moves @ chain.reshape(-1, 6, count)).reshape(count, count)
        share = _long_run(step, entered @ chain)
        arriving = (share.reshape(-1, 6) @ self.moves).ravel() / K
        return np.tile(arriving, K)

    def _iterated(self, table: Floats, count: int, K: int) -> Floats:
        """The same by iteration of the lazy chain, whose limit is that of the mean distribution."""
        after = self.after.ravel()

        def arriving(share: Floats) -> Floats:
            return np.tile((share.reshape(-1, 6) @ self.moves).ravel() / K, K)

        def decided(states: Floats) -> Floats:
            return np.bincount(after, (states[:, None] * table).ravel(), count).astype(np.float64)

        states = np.zeros(len(table))
        states.reshape(K, count)[:, [0, 3]] = 0.5 / K
        share = decided(states)
        for _ in range(10_000):
            new = 0.5 * (share + decided(arriving(share)))
            change = float(np.abs(new - share).sum())
            share = new
            if change < 1e-12:
                break
        return arriving(share)

    def averages(self, table: Floats) -> Averages:
        """Long-run averages under the probabilities (S,A)."""
        weights = self.occupancy(table)[:, None] * table
        return Averages(
            *(float((weights * self.metric(name)).sum()) for name in ("reward", "privacy", "cost", "energy", "latency"))
        )


def _long_run(step: Floats, start: Floats) -> Floats:
    """Limit of the mean distribution of a Markov chain: closed classes, each by the chance to be absorbed in it."""
    count, label = connected_components(step > 0.0, directed=True, connection="strong")
    leaves = np.zeros(count, dtype=np.bool_)
    rows, columns = np.nonzero(step > 0.0)
    leaves[label[rows[label[rows] != label[columns]]]] = True
    share = np.zeros(len(start))
    transient = leaves[label]
    reached = start.copy()
    if transient.any():
        inner = step[np.ix_(transient, transient)]
        visits = np.linalg.solve(np.eye(len(inner)) - inner.T, start[transient])
        reached[~transient] += visits @ step[np.ix_(transient, ~transient)]
    for index in np.flatnonzero(~leaves):
        members = label == index
        weight = reached[members].sum()
        if weight > 0.0:
            closed = step[np.ix_(members, members)]
            system = np.vstack([(closed.T - np.eye(len(closed)))[1:], np.ones(len(closed))])
            right = np.zeros(len(closed))
            right[-1] = 1.0
            share[members] = weight * np.linalg.solve(system, right)
    return share


@lru_cache(maxsize=8)
def _miner(M: int, beta: float, w_P: float, constants: Constants) -> Miner:
    return Miner(Instance(None, 1, M, beta, w_P, 1, Params(), constants))


def miner(instance: Instance) -> Miner:
    """Tables of one of the instance's miners, alone; made once for each set of constants."""
    return _miner(instance.M, instance.beta, instance.w_P, instance.constants)


@lru_cache(maxsize=8)
def _relative(tables: Miner, precision: float) -> tuple[float, Floats]:
    average, U = tables.relative(precision=precision)
    U.flags.writeable = False
    return average, U


def relative_values(instance: Instance) -> tuple[float, Floats]:
    """Best average reward of one of the instance's miners alone, and the relative values of its afterstates.

    For M = 2 (5,766 afterstates, 700 thousand states) to 1e-7 of the rewards' scale, a second or two; computed once.
    """
    return _relative(miner(instance), _PRECISION if instance.M == 1 else 1e-7)


def best_average(instance: Instance) -> float:
    """The best long-run reward of one miner alone: for N > 1 an upper bound, others' waits being dropped."""
    return relative_values(instance)[0]
