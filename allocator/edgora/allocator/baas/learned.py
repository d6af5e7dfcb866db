"""Trained policies of BaaS, run in numpy: what a policy.npz decides, without torch.

    form "pair"    a scorer of (UE, server) pairs and one of blocks, whatever U and M (pair-q, struct-ddqn)
    form "flat"    the paper's additive heads on a concatenated state: V + sum q(u, m) + sum h(m, level) (dqn, ddqn)
    form "table"   the shared table of independent servers (qlearning)

Files are checked when they are read: what does not fit is Refused, never an exception of numpy's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.baas import features
from edgora.allocator.baas.features import Floats32
from edgora.allocator.baas.matching import fill, match
from edgora.allocator.baas.model import Choice, Floats, Slots, caps
from edgora.allocator.learn import weights
from edgora.allocator.learn.weights import Arrays
from edgora.wire.errors import Refused

__all__ = ["BlockScorer", "LearnedPolicy", "PairPolicy", "PairScorer", "load_policy"]


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
        power = fill(self.blocks(slots), caps(slots.params, slots.Y), slots.params.H)
        return Choice(match(self.scores(slots)), power)


def _expected(arrays: Arrays, name: str, shape: tuple[int | None, ...]) -> Floats32:
    array: NDArray[Any] | None = arrays.get(name)
    if array is None or array.ndim != len(shape) or array.dtype.kind != "f":
        raise Refused(f"policy: no numbers of {len(shape)} dimensions called {name}", field="policy")
    if any(want is not None and have != want for have, want in zip(array.shape, shape, strict=True)):
        raise Refused(f"policy: {name} has shape {array.shape}, must have {shape}", field="policy")
    if not np.isfinite(array).all():
        raise Refused(f"policy: {name} holds a number that is not finite", field="policy")
    return array.astype(np.float32)


_FORMS = {"pair": PairPolicy}
