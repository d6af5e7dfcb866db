"""Multi-layer perceptrons in numpy: what a trained torch network computes, without torch.

Layers are float32 arrays `PREFIX.0.weight` (out, in), `PREFIX.0.bias` (out,), `PREFIX.1.weight`, ...; ReLU between
them, nothing after the last. `torch_state.layers` writes exactly these names.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.learn.weights import Arrays
from edgora.wire.errors import Refused

__all__ = ["Perceptron"]

Floats32 = NDArray[np.float32]


class Perceptron:
    """ReLU layers and a linear one."""

    def __init__(self, layers: Sequence[tuple[Floats32, Floats32]]) -> None:
        """`layers` are (weight, bias)."""
        self.layers = [(np.ascontiguousarray(weight.T), bias) for weight, bias in layers]

    @classmethod
    def of(cls, arrays: Arrays, prefix: str) -> "Perceptron":
        """The layers of this prefix. Raises Refused where they do not fit each other."""
        layers: list[tuple[Floats32, Floats32]] = []
        width: int | None = None
        while (name := f"{prefix}.{len(layers)}.weight") in arrays:
            weight, bias = arrays[name], arrays.get(f"{prefix}.{len(layers)}.bias")
            fits = weight.ndim == 2 and bias is not None and bias.shape == weight.shape[:1]
            if not fits or bias is None or (width is not None and weight.shape[1] != width):
                raise Refused(f"policy: {name} does not fit its neighbours", field="policy")
            width = weight.shape[0]
            layers.append((weight.astype(np.float32), bias.astype(np.float32)))
        if not layers:
            raise Refused(f"policy: no layers {prefix}.*", field="policy")
        return cls(layers)

    @property
    def inputs(self) -> int:
        return int(self.layers[0][0].shape[0])

    @property
    def outputs(self) -> int:
        return int(self.layers[-1][0].shape[1])

    def __call__(self, x: NDArray[np.floating]) -> Floats32:
        """(..., inputs) -> (..., outputs)."""
        hidden: Floats32 = np.asarray(x, dtype=np.float32)
        for weight, bias in self.layers[:-1]:
            hidden = np.maximum(hidden @ weight + bias, np.float32(0.0))
        weight, bias = self.layers[-1]
        return hidden @ weight + bias
