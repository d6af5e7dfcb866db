"""A running batch and its generators as arrays and JSON, and back: the part of a checkpoint that all learners share."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.baas.batch import Batch
from edgora.allocator.baas.stream import Stream
from edgora.allocator.learn.weights import Arrays

__all__ = ["batch_arrays", "batch_state", "restore_batch"]

_FIELDS = ("d", "xi", "tau", "b", "f", "A", "B")


def batch_arrays(batch: Batch) -> dict[str, NDArray[Any]]:
    """The slot that is to be decided."""
    slots = batch.slots
    rate = {} if slots.rate is None else {"batch.rate": slots.rate}
    return {f"batch.{name}": getattr(slots, name) for name in _FIELDS} | rate


def batch_state(batch: Batch, stream: Stream) -> dict[str, object]:
    """Its clock, and where its generator is."""
    return {"clock": batch.clock, "episode": batch.episode, "stream": stream.rng.bit_generator.state}


def restore_batch(batch: Batch, stream: Stream, arrays: Arrays, state: Mapping[str, Any]) -> None:
    held: dict[str, Any] = {name: np.array(arrays[f"batch.{name}"]) for name in _FIELDS}
    batch.restore(replace(batch.slots, rate=arrays.get("batch.rate"), **held), state["clock"], state["episode"])
    stream.rng.bit_generator.state = state["stream"]
