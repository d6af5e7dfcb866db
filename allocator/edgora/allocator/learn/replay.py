"""A ring of transitions: the newest `capacity` are kept, and sampled uniformly with replacement.

A field is one array whose first axis is the place in the ring, so a batch is one `take` for each field and the whole
memory is a handful of arrays that a checkpoint can hold.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Replay"]

Row = NDArray[Any]


class Replay:
    """Transitions with the same fields."""

    def __init__(self, capacity: int, fields: Mapping[str, tuple[tuple[int, ...], DTypeLike]]) -> None:
        """`fields` gives each field's shape for one transition, and its dtype."""
        self.capacity = capacity
        self._fields: dict[str, Row] = {
            name: np.zeros((capacity, *shape), dtype=dtype) for name, (shape, dtype) in fields.items()
        }
        self._added = 0

    def __len__(self) -> int:
        """Transitions held."""
        return min(self._added, self.capacity)

    def add(self, **batch: Row) -> None:
        """Add transitions: every field with the same number of rows, at most `capacity`."""
        count = len(next(iter(batch.values())))
        places = (self._added + np.arange(count)) % self.capacity
        for name, field in self._fields.items():
            field[places] = batch[name]
        self._added += count

    def sample(self, rng: np.random.Generator, size: int) -> dict[str, Row]:
        """`size` transitions, uniform with replacement."""
        places = rng.integers(0, len(self), size)
        return {name: field[places] for name, field in self._fields.items()}

    def arrays(self) -> dict[str, Row]:
        """Everything it holds, for a checkpoint."""
        held = len(self)
        return {"added": np.array(self._added), **{name: field[:held] for name, field in self._fields.items()}}

    def restore(self, arrays: Mapping[str, Row]) -> None:
        """What `arrays` gave."""
        self._added = int(arrays["added"])
        for name, field in self._fields.items():
            field[: len(self)] = arrays[name]
