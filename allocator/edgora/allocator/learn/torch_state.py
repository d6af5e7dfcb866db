"""A torch module's and an Adam's numbers as arrays, and back: for checkpoints, and for policies that run in numpy.

Importing this module imports torch. Everything a learner draws comes from its own numpy generator, torch's is used once
to make initial weights; so weights, Adam's moments and numpy's generators are all the state there is.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgora.allocator.learn.weights import Arrays

__all__ = ["adam_arrays", "deterministic", "layers", "module_arrays", "restore_adam", "restore_module"]


def deterministic(seed: int) -> None:
    """One thread, and initial weights that follow from the seed."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    torch.manual_seed(seed)


def module_arrays(prefix: str, module: nn.Module) -> dict[str, NDArray[Any]]:
    """Every parameter and buffer."""
    return {f"{prefix}/{name}": tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


def restore_module(prefix: str, module: nn.Module, arrays: Arrays) -> None:
    module.load_state_dict({name: torch.from_numpy(arrays[f"{prefix}/{name}"].copy()) for name in module.state_dict()})


def adam_arrays(prefix: str, adam: torch.optim.Adam) -> dict[str, NDArray[Any]]:
    """Both moments and the step count of every parameter; nothing before the first step."""
    found: dict[str, NDArray[Any]] = {}
    for place, moments in adam.state_dict()["state"].items():
        for name, tensor in moments.items():
            found[f"{prefix}/{place}/{name}"] = tensor.detach().numpy().copy()
    return found


def restore_adam(prefix: str, adam: torch.optim.Adam, arrays: Arrays) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key in arrays:
        if key.startswith(f"{prefix}/"):
            _, place, name = key.rsplit("/", 2)
            state.setdefault(int(place), {})[name] = torch.from_numpy(np.array(arrays[key]))
    adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})


def layers(prefix: str, module: nn.Module) -> Mapping[str, NDArray[Any]]:
    """The linear layers of a module in order, under `network.Perceptron`'s names."""
    found: dict[str, NDArray[Any]] = {}
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    for place, part in enumerate(linear):
        found[f"{prefix}.{place}.weight"] = part.weight.detach().numpy().copy()
        found[f"{prefix}.{place}.bias"] = part.bias.detach().numpy().copy()
    return found
