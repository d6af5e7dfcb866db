"""Trained policies of BaaS, run in numpy: what a policy.npz decides, without torch.

    form "pair"    a scorer of (UE, server) pairs and one of blocks, whatever U and M (pair-q, struct-ddqn)
    form "flat"    the paper's additive heads on a concatenated state: V + sum q(u, m) + sum h(m, level) (dqn, ddqn)
    form "table"   the shared table of independent servers (qlearning)

Files are checked when they are read: what does not fit is Refused, never an exception of numpy's.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.baas import features
from edgora.allocator.baas.baselines import random_matching
from edgora.allocator.baas.features import Floats32
from edgora.allocator.baas.matching import fill, match
from edgora.allocator.baas.model import IDLE, Choice, Floats, Ints, Slots
from edgora.allocator.baas.params import LEVELS
from edgora.allocator.learn import weights
from edgora.allocator.learn.network import Perceptron
from edgora.allocator.learn.weights import Arrays
from edgora.wire.errors import Refused

__all__ = [
    "ACTIONS", "STATES", "BlockScorer", "FlatPolicy", "LearnedPolicy", "PairPolicy", "PairScorer", "TablePolicy",
    "greedy_heads", "load_policy", "table_choice", "table_states",
]  # fmt: skip


class LearnedPolicy(Protocol):
    """A policy that was trained."""

    @property
    def name(self) -> str:
        """Its algorithm."""
        ...

    def decide(self, slots: Slots) -> Choice:
        """Raises Refused where it cannot play these params."""
        ...


def load_policy(path: Path, seed: int = 0) -> LearnedPolicy:
    """The policy in a file; `seed` is for those that draw. Raises Refused."""
    arrays, header = weights.read(path, "policy")
    if header.get("problem") != "baas":
        raise Refused(f"policy {path} is one of {header.get('problem')}, not of baas", field="policy")
    form = header.get("form")
    made = _FORMS.get(form) if isinstance(form, str) else None
    if made is None:
        raise Refused(f"policy {path} has no form that is known here: {form!r}", field="policy")
    try:
        return made(arrays, header, seed)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"policy {path} does not hold what form {form} needs: {type(error).__name__}: {error}"
        raise Refused(detail[:400], field="policy") from None


class PairScorer:
    """Scores of every pair: a linear part, and ReLU units over the sum of a UE's, a server's and a pair's embedding.

    A unit is a pass over (U,M), so nothing of the size U M units is ever made: at 1000 x 100 a pass stays in the cache
    (baas.md 9).
    """

    def __init__(self, arrays: Arrays, outputs: int) -> None:
        """`pair.{ue,server,pair}` (units + outputs, features), `pair.bias`, `pair.out` (outputs, units)."""
        self._out = _expected(arrays, "pair.out", (outputs, None))
        width = self._out.shape[1] + outputs
        self._ue = _expected(arrays, "pair.ue", (width, features.UE))
        self._server = _expected(arrays, "pair.server", (width, features.SERVER))
        self._pair = _expected(arrays, "pair.pair", (width, features.PAIR))
        self._bias = _expected(arrays, "pair.bias", (width,))

    def __call__(self, slots: Slots) -> list[Floats32]:
        """One (B,U,M) for each output."""
        by_ue = features.ues(slots) @ self._ue.T + self._bias
        by_server = features.servers(slots) @ self._server.T
        execution, upload = features.pairs(slots)
        outputs, units = self._out.shape

        def embedded(at: int) -> Floats32:
            total: Floats32 = execution * self._pair[at, 0]
            if upload is not None:
                total += upload * self._pair[at, 1]
            total += by_ue[:, :, at, None]
            total += by_server[:, None, :, at]
            return total

        scores = [embedded(units + k) for k in range(outputs)]
        for at in range(units):
            unit = embedded(at)
            np.maximum(unit, 0.0, out=unit)
            for k in range(outputs):
                scores[k] += unit * self._out[k, at]
        return scores


class BlockScorer:
    """The value of a server's block to whoever gives it hash power; only the order matters to the knapsack."""

    def __init__(self, arrays: Arrays) -> None:
        """`block.in` (units + 1, features), `block.bias`, `block.out` (1, units)."""
        self._out = _expected(arrays, "block.out", (1, None))
        width = self._out.shape[1] + 1
        self._in = _expected(arrays, "block.in", (width, features.BLOCK))
        self._bias = _expected(arrays, "block.bias", (width,))

    def __call__(self, slots: Slots) -> Floats:
        """(B,M)."""
        hidden = features.blocks(slots) @ self._in.T + self._bias
        units = self._out.shape[1]
        scores = np.maximum(hidden[..., :units], 0.0) @ self._out[0] + hidden[..., units]
        return np.asarray(scores, dtype=np.float64)


class PairPolicy:
    """Decodes learned scores as `exact` decodes true ones: a matching and a knapsack.

    pair-q predicts worth and seconds of a pair, and pays theta for a second under the desired time, as `priced` does.
    struct-ddqn predicts what a pair adds to the return, reputation included.
    """

    def __init__(self, arrays: Arrays, header: Mapping[str, Any], _seed: int = 0) -> None:
        self.name = str(header["algo"])
        self._outputs = int(header["outputs"])
        if self._outputs not in {1, 2}:
            raise Refused(f"policy: outputs is {self._outputs}, must be 1 or 2", field="policy")
        self.theta = float(header["theta"])
        self.pairs, self.blocks = PairScorer(arrays, self._outputs), BlockScorer(arrays)

    def scores(self, slots: Slots) -> Floats32:
        """What serving each pair is worth (B,U,M)."""
        found = self.pairs(slots)
        if self._outputs == 1:
            return found[0]
        worth, seconds = found
        if self.theta:
            worth = worth + np.float32(self.theta) * (slots.tau.astype(np.float32)[:, :, None] - seconds)
        return worth

    def decide(self, slots: Slots) -> Choice:
        if slots.params.obs != "full":
            raise Refused(f"{self.name} needs obs=full: it looks at demands", field="obs")
        power = fill(self.blocks(slots), slots.cap, slots.params.H)
        return Choice(match(self.scores(slots)), power)


class FlatPolicy:
    """The paper's network: greedy in additive heads, exactly."""

    def __init__(self, arrays: Arrays, header: Mapping[str, Any], seed: int = 0) -> None:
        """`seed` is of the random matching of `no-select`."""
        self.name, self._ablation = str(header["algo"]), str(header["ablation"])
        self._shape = (int(header["U"]), int(header["M"]), str(header["profile"]), str(header["obs"]))
        self.network = Perceptron.of(arrays, "net")
        self._rng = np.random.default_rng(seed)

    def decide(self, slots: Slots) -> Choice:
        params = slots.params
        if (params.U, params.M, params.profile, params.obs) != self._shape:
            U, M, profile, obs = self._shape
            detail = (
                f"{self.name} was trained for U={U} M={M} profile={profile} obs={obs}: a flat network fits no other"
            )
            raise Refused(detail, field="policy")
        heads = self.network(features.flat(slots))
        if heads.shape[1] != 1 + params.U * params.M + params.M * len(LEVELS):
            raise Refused(f"policy: {heads.shape[1]} outputs do not fit U={params.U} M={params.M}", field="policy")
        assign, level = greedy_heads(heads, slots, self._ablation, self._rng)
        return Choice(assign, np.asarray(LEVELS)[level])


def greedy_heads(heads: Floats32, slots: Slots, ablation: str, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """UE and level of each server that maximise V + sum q + sum h over legal actions, each (B,M).

    `no-alloc` asks for the level of 60, `no-select` serves a random matching, from `rng`.
    """
    U, M = slots.params.U, slots.params.M
    if ablation == "no-select":
        assign = random_matching(rng, slots.copies, U, M)
    else:
        assign = match(heads[:, 1 : 1 + U * M].reshape(-1, U, M))
    if ablation == "no-alloc":
        return assign, np.full_like(assign, LEVELS.index(60.0))
    return assign, heads[:, 1 + U * M :].reshape(-1, M, len(LEVELS)).argmax(axis=2)


FIFTHS = 5
ACTIONS = FIFTHS * len(LEVELS)
"""A fifth of the free UEs x a level."""
_REPUTATION_CUTS, _BLOCK_BINS, _SPEED_BINS = (0.9, 1.3), 4, 3
STATES = (len(_REPUTATION_CUTS) + 1) * _BLOCK_BINS * _SPEED_BINS


def table_states(slots: Slots) -> Ints:
    """State of each server (B,M): bins of its reputation, block and speed."""
    params = slots.params

    def binned(values: Floats, low: float, high: float, bins: int) -> Ints:
        share = (values - low) / (high - low) if high > low else np.zeros_like(values)
        return np.clip(share * bins, 0, bins - 1).astype(np.int64)

    reputation = np.digitize(slots.Y, _REPUTATION_CUTS)
    block = binned(slots.b, params.b_lo, params.b_hi, _BLOCK_BINS)
    speed = binned(slots.f, params.f_lo, params.f_hi, _SPEED_BINS)
    states: Ints = (reputation * _BLOCK_BINS + block) * _SPEED_BINS + speed
    return states


def table_choice(slots: Slots, actions: Ints) -> Choice:
    """What the servers' actions (B,M) mean: in index order each takes the heaviest UE of a fifth of the free ones."""
    fifth, level = np.divmod(actions, len(LEVELS))
    demand = slots.d * slots.xi
    assign = np.full(actions.shape, IDLE, dtype=np.int64)
    rows = np.arange(slots.copies)
    for m in range(min(slots.params.M, slots.params.U)):  # every server takes one, so U - m are free in every copy
        lightest_first = np.argsort(demand, axis=1, kind="stable")
        free = slots.params.U - m
        place = np.ceil(free * (fifth[:, m] + 1) / FIFTHS).astype(np.int64) - 1
        assign[:, m] = lightest_first[rows, place]
        demand[rows, assign[:, m]] = np.inf  # taken: behind all free ones
    return Choice(assign, np.asarray(LEVELS)[level])


class TablePolicy:
    """Each server's best action by the shared table."""

    def __init__(self, arrays: Arrays, header: Mapping[str, Any], _seed: int = 0) -> None:
        self.name = str(header["algo"])
        self._table = _expected(arrays, "table", (STATES, ACTIONS))

    @staticmethod
    def arrays_of(table: Floats) -> dict[str, Floats32]:
        return {"table": table.astype(np.float32)}

    def decide(self, slots: Slots) -> Choice:
        if slots.params.obs != "full":
            raise Refused(f"{self.name} needs obs=full: it looks at demands and blocks", field="obs")
        return table_choice(slots, self._table[table_states(slots)].argmax(axis=2))


def _expected(arrays: Arrays, name: str, shape: tuple[int | None, ...]) -> Floats32:
    array: NDArray[Any] | None = arrays.get(name)
    if array is None or array.ndim != len(shape) or array.dtype.kind != "f":
        raise Refused(f"policy: no numbers of {len(shape)} dimensions called {name}", field="policy")
    if any(want is not None and have != want for have, want in zip(array.shape, shape, strict=True)):
        raise Refused(f"policy: {name} has shape {array.shape}, must have {shape}", field="policy")
    if not np.isfinite(array).all():
        raise Refused(f"policy: {name} holds a number that is not finite", field="policy")
    return array.astype(np.float32)


_FORMS: Mapping[str, Callable[[Arrays, Mapping[str, Any], int], LearnedPolicy]] = {
    "pair": PairPolicy, "flat": FlatPolicy, "table": TablePolicy,
}  # fmt: skip
