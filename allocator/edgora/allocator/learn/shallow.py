"""One hidden layer of ReLU units beside a linear path, and Adam, in numpy: forward, gradient, step.

    y = out relu(in_h x + bias_h) + (in_y x + bias_y)

Scorers of pairs are this small, so autograd and its import would cost more than the arithmetic. The linear path lets
physics that is linear in the features be learned at once and hold outside of what was seen; the units learn the rest.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.learn.weights import Arrays

__all__ = ["Adam", "Shallow"]

Floats = NDArray[np.float64]
Gradients = dict[str, Floats]


class Shallow:
    """A network with its weights: `in` (units + outputs, inputs), `bias` (units + outputs,), `out` (outputs, units)."""

    def __init__(self, rng: np.random.Generator, inputs: int, units: int, outputs: int) -> None:
        """Units are drawn as He's; everything that reaches the output starts at 0, so the first answer is 0."""
        self.units = units
        into = np.zeros((units + outputs, inputs))
        into[:units] = rng.normal(0.0, np.sqrt(2.0 / inputs), (units, inputs))
        self.weights: Gradients = {
            "in": into, "bias": np.zeros(units + outputs), "out": np.zeros((outputs, units)),
        }  # fmt: skip
        if units:  # at 0 both the units and what reads them would stand still
            self.weights["out"][:] = rng.normal(0.0, 0.01, (outputs, units))

    def __call__(self, x: NDArray[np.floating[Any]]) -> Floats:
        """(n, inputs) -> (n, outputs)."""
        _, answer = self._forward(x)
        return answer

    def gradient(self, x: NDArray[np.floating[Any]], slope: Floats) -> Gradients:
        """Gradient of a loss whose derivative by the answers for `x` is `slope` (n, outputs)."""
        hidden, _ = self._forward(x)
        back = np.concatenate((slope @ self.weights["out"] * (hidden > 0.0), slope), axis=1)
        return {"in": back.T @ x, "bias": back.sum(axis=0), "out": slope.T @ hidden}

    def _forward(self, x: NDArray[np.floating[Any]]) -> tuple[Floats, Floats]:
        raw = x @ self.weights["in"].T + self.weights["bias"]
        hidden = np.maximum(raw[:, : self.units], 0.0)
        answer: Floats = hidden @ self.weights["out"].T + raw[:, self.units :]
        return hidden, answer

    def follow(self, other: "Shallow", share: float) -> None:
        """Move every weight by `share` of the way to another network's (Polyak averaging)."""
        for name, weight in self.weights.items():
            weight[...] += share * (other.weights[name] - weight)

    def arrays(self, prefix: str) -> dict[str, Floats]:
        return {f"{prefix}.{name}": weight.copy() for name, weight in self.weights.items()}

    def restore(self, prefix: str, arrays: Arrays) -> None:
        for name, weight in self.weights.items():
            weight[...] = arrays[f"{prefix}.{name}"]


class Adam:
    """Adam (Kingma and Ba 2015) over the weights of several networks."""

    def __init__(self, networks: Mapping[str, Shallow], first: float = 0.9, second: float = 0.999) -> None:
        self._networks, self._first, self._second = networks, first, second
        self._mean = {name: {k: np.zeros_like(w) for k, w in net.weights.items()} for name, net in networks.items()}
        self._square = {name: {k: np.zeros_like(w) for k, w in net.weights.items()} for name, net in networks.items()}
        self.steps = 0

    def step(self, gradients: Mapping[str, Gradients], rate: float) -> None:
        """Move the networks that have a gradient."""
        self.steps += 1
        rate *= np.sqrt(1.0 - self._second**self.steps) / (1.0 - self._first**self.steps)
        for name, by_weight in gradients.items():
            for key, gradient in by_weight.items():
                mean, square = self._mean[name][key], self._square[name][key]
                mean += (1.0 - self._first) * (gradient - mean)
                square += (1.0 - self._second) * (gradient * gradient - square)
                self._networks[name].weights[key] -= rate * mean / (np.sqrt(square) + 1e-8)

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {f"{prefix}.steps": np.array(self.steps)}
        for kind, moments in (("mean", self._mean), ("square", self._square)):
            for name, by_weight in moments.items():
                found |= {f"{prefix}.{kind}.{name}.{key}": value.copy() for key, value in by_weight.items()}
        return found

    def restore(self, prefix: str, arrays: Arrays) -> None:
        self.steps = int(arrays[f"{prefix}.steps"])
        for kind, moments in (("mean", self._mean), ("square", self._square)):
            for name, by_weight in moments.items():
                for key, value in by_weight.items():
                    value[...] = arrays[f"{prefix}.{kind}.{name}.{key}"]
