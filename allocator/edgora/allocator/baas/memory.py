"""Transitions of the environment for learners from scalar rewards.

A slot is stored by its draws and history alone, float32; speeds and rates belong to a layout and are stored once for
each, so that 10^5 transitions of 20 x 10 take some 60 MB and not 240.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgora.allocator.baas.model import Floats, Ints, Outcome, Slots
from edgora.allocator.baas.params import Params
from edgora.allocator.learn.replay import Replay
from edgora.allocator.learn.weights import Arrays

__all__ = ["Memory", "Transitions"]

_BY_UE, _BY_SERVER = ("d", "xi", "tau"), ("b", "A", "B")


class Transitions(NamedTuple):
    """A sample: what was there, what was executed, what it earned, what came next."""

    slots: Slots
    assign: Ints
    power: Floats
    """MHash/s, as the learner wants to remember it: granted or asked for."""
    reward: Floats
    after: Slots


class Memory:
    """A ring of transitions."""

    def __init__(self, params: Params, capacity: int) -> None:
        self._params = params
        fields: dict[str, tuple[tuple[int, ...], DTypeLike]] = {}
        for side in ("", "next."):
            fields |= {side + name: ((params.U,), np.float32) for name in _BY_UE}
            fields |= {side + name: ((params.M,), np.float32) for name in _BY_SERVER}
        self._ring = Replay(capacity, {
            **fields, "layout": ((), np.int64), "assign": ((params.M,), np.int64), "power": ((params.M,), np.float64),
            "reward": ((), np.float64),
        })  # fmt: skip
        self._f: list[Floats] = []
        self._rate: list[Floats] = []
        self._episode = 0

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, episode: int, slots: Slots, outcome: Outcome, power: Floats, after: Slots) -> None:
        """One transition of every copy; `episode` counts the batch's, each with layouts of its own."""
        if episode != self._episode:
            self._episode = episode
            self._f.append(slots.f)
            if slots.rate is not None:
                self._rate.append(slots.rate)
        row = {name: getattr(slots, name) for name in (*_BY_UE, *_BY_SERVER)}
        row |= {f"next.{name}": getattr(after, name) for name in (*_BY_UE, *_BY_SERVER)}
        layout = (len(self._f) - 1) * slots.copies + np.arange(slots.copies)
        self._ring.add(**row, layout=layout, assign=outcome.assign, power=power, reward=outcome.reward)

    def sample(self, rng: np.random.Generator, size: int) -> Transitions:
        """Uniform with replacement."""
        found: dict[str, NDArray[Any]] = self._ring.sample(rng, size)
        copies = self._f[0].shape[0]
        episode, copy = np.divmod(found["layout"], copies)
        f = np.stack([self._f[e][c] for e, c in zip(episode, copy, strict=True)])
        rate = np.stack([self._rate[e][c] for e, c in zip(episode, copy, strict=True)]) if self._rate else None

        def slots(side: str) -> Slots:
            arrays = {name: found[side + name].astype(np.float64) for name in (*_BY_UE, *_BY_SERVER)}
            return Slots(params=self._params, f=f, rate=rate, **arrays)

        return Transitions(slots(""), found["assign"], found["power"], found["reward"], slots("next."))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, for a checkpoint."""
        held: dict[str, NDArray[Any]] = {f"memory.{name}": array for name, array in self._ring.arrays().items()}
        held["memory-f"] = np.array(self._f)
        if self._rate:
            held["memory-rate"] = np.array(self._rate)
        held["memory-episode"] = np.array(self._episode)
        return held

    def restore(self, arrays: Arrays) -> None:
        held: Mapping[str, NDArray[Any]] = {
            key.removeprefix("memory."): array for key, array in arrays.items() if key.startswith("memory.")
        }
        self._ring.restore(held)
        self._f = list(arrays["memory-f"])
        self._rate = list(arrays["memory-rate"]) if "memory-rate" in arrays else []
        self._episode = int(arrays["memory-episode"])
