"""Learned policies, and the policy.npz that holds one: they run in numpy, without torch.

A file is arrays and a header with `problem`, `kind`, the system that the policy was trained for and its `grid`, which a
table must share with the instance that it plays. Five kinds:

    network     a perceptron over `features`: a value for each of a miner's 2^M decisions, or for M > 4 two for each
                stream
    residual    the same perceptron, whose values are added to the slot's own rewards, known before acting, times `scale`
    streams     Q (K, buffers, 2, 1 or 3, 2): values of staying and going by a stream's D1, D0, g and, with 3, level
    chances     (K, buffers, 2, 3): chances to offload by D1, D0, g, level
    afterstate  W (buffers, 2, 3): what a stream's buffer is worth after the slot, already discounted; decided with the
                slot's exact rewards
"""

import base64
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.learn.network import Perceptron
from edgora.allocator.learn.weights import Arrays, read, write
from edgora.allocator.privacy.coupling import Stakes, alone, flips, own_rewards, stakes
from edgora.allocator.privacy.features import features, width
from edgora.allocator.privacy.instance import Instance
from edgora.allocator.privacy.model import Bits, Floats, Ints, State
from edgora.allocator.privacy.policies import Policy, Table
from edgora.wire.errors import Refused

__all__ = [
    "MAX_JOINT",
    "Afterstate",
    "Network",
    "Residual",
    "Streams",
    "actions_to_bits",
    "header",
    "known",
    "load",
    "of",
    "packed",
    "shipped",
    "unpacked",
]

MAX_JOINT = 4
"""Most streams whose decisions are enumerated; beyond, one two-valued head a stream (privacy.md 3)."""


def actions_to_bits(actions: Ints, M: int) -> Bits:
    """Bit m of a miner's action is x of its stream m (..., M)."""
    return (actions[..., None] >> np.arange(M) & 1).astype(np.bool_)


class Network:
    """Greedy decisions of a perceptron."""

    def __init__(self, instance: Instance, perceptron: Perceptron) -> None:
        outputs = 2**instance.M if instance.M <= MAX_JOINT else 2 * instance.M
        if (perceptron.inputs, perceptron.outputs) != (width(instance), outputs):
            detail = (
                f"policy: maps {perceptron.inputs} features to {perceptron.outputs} values, {instance.N} miners of"
                f" {instance.M} streams need {width(instance)} to {outputs}"
            )
            raise Refused(detail, field="policy")
        self._instance, self._perceptron = instance, perceptron

    def act(self, state: State) -> Bits:
        M = self._instance.M
        values = self._perceptron(features(state, self._instance))
        if M > MAX_JOINT:
            heads = values.reshape(*values.shape[:2], M, 2)
            return heads[..., 1] > heads[..., 0]
        return actions_to_bits(values.argmax(axis=2), M)


class Residual:
    """Greedy decisions of known rewards plus a perceptron."""

    def __init__(self, instance: Instance, perceptron: Perceptron, scale: float) -> None:
        Network(instance, perceptron)  # refuses what does not fit
        self._instance, self._perceptron, self._scale = instance, perceptron, np.float32(scale)

    def act(self, state: State) -> Bits:
        M = self._instance.M
        rewards = known(state, self._instance)
        values = self._perceptron(features(state, self._instance)).reshape(rewards.shape) + self._scale * rewards
        if M > MAX_JOINT:
            return values[..., 1] > values[..., 0]
        return actions_to_bits(values[:, :, 0].argmax(axis=2), M)


def known(state: State, instance: Instance) -> NDArray[np.float32]:
    """Rewards of each miner's decisions with the other miners ignored (B,N,1,2^M); for M > 4 of each stream's (B,N,M,2)."""
    slot = stakes(instance.model, state)
    if instance.M > MAX_JOINT:
        return np.stack([slot.stay, slot.stay + slot.gain], axis=3).astype(np.float32)
    return own_rewards(slot)[:, :, None].astype(np.float32)


class Streams:
    """Greedy decisions of one table that all streams share."""

    def __init__(self, instance: Instance, Q: Floats) -> None:
        c = instance.constants
        if not instance.tabular or Q.shape not in {(c.K, round(c.B / c.grid) + 1, 2, n, 2) for n in (1, 3)}:
            raise Refused(
                f"policy: its table of shape {Q.shape} is of another grid than the instance's", field="policy"
            )
        self._c, self.Q = c, Q

    def places(self, state: State) -> tuple[Ints, Ints, Ints, Ints]:
        """Where each stream stands in the table."""
        c = self._c
        level = np.where(self.Q.shape[3] == 3, state.level, 0)[:, None, None]
        return (
            np.rint((state.D1 - c.D1_lo) / c.grid).astype(np.int64), np.rint(state.D0 / c.grid).astype(np.int64),
            *np.broadcast_arrays(state.g[:, :, None], level),
        )  # type: ignore[return-value]  # fmt: skip  # the two arrays have no length in their type

    def act(self, state: State) -> Bits:
        values = self.Q[self.places(state)]
        return values[..., 1] > values[..., 0]


class Afterstate:
    """The best decision by exact rewards plus what each stream's buffer is worth afterwards."""

    def __init__(self, instance: Instance, W: Floats) -> None:
        c = instance.constants
        if not instance.tabular or W.shape != (round(c.B / c.grid) + 1, 2, 3):
            raise Refused(
                f"policy: its values of shape {W.shape} are of another grid than the instance's", field="policy"
            )
        self._instance, self.W = instance, W

    def slot(self, state: State) -> Stakes:
        """The slot's stakes with continuations."""
        kept = np.rint(self._instance.model.left(state.D0 + state.D1) / self._instance.constants.grid).astype(np.int64)
        g, level = state.g[:, :, None], state.level[:, None, None]
        found = stakes(self._instance.model, state)
        return replace(found, gain=found.gain + self.W[0, g, level] - self.W[kept, g, level])

    def decide(self, slot: Stakes) -> Bits:
        return alone(slot) if self._instance.N == 1 else flips(slot)

    def act(self, state: State) -> Bits:
        return self.decide(self.slot(state))


def header(kind: str, instance: Instance, **more: object) -> dict[str, object]:
    """Header of a policy file, but for the run that `learn.run` adds."""
    return {
        "problem": "privacy", "version": 1, "kind": kind, "N": instance.N, "M": instance.M, "beta": instance.beta,
        "grid": _grid(instance), **more,
    }  # fmt: skip


def _grid(instance: Instance) -> list[float]:
    """What a table's places mean, kb."""
    c = instance.constants
    return [c.D1_lo, c.D1_hi, c.B, c.grid]


def of(arrays: Arrays, head: Mapping[str, object], instance: Instance) -> Policy:
    """The policy in a file's arrays. Raises Refused where it does not fit the instance."""
    if head.get("problem") != "privacy":
        raise Refused(f"policy: is of problem {head.get('problem')!r}, not of privacy", field="policy")
    if head.get("kind") not in {"network", "residual"} and head.get("grid") != _grid(instance):
        detail = (
            f"policy: is a table for {head.get('grid')} kb (D1_lo, D1_hi, B, grid), the instance has {_grid(instance)}"
        )
        raise Refused(detail, field="policy")
    match head.get("kind"):
        case "network":
            return Network(instance, Perceptron.of(arrays, "q"))
        case "residual":
            scale = head.get("scale")
            if not isinstance(scale, float) or not 0.0 < scale < 1e6:
                raise Refused(f"policy: scale {scale!r} is no positive number", field="policy")
            return Residual(instance, Perceptron.of(arrays, "q"), scale)
        case "streams":
            return Streams(instance, _array(arrays, "Q"))
        case "afterstate":
            return Afterstate(instance, _array(arrays, "W"))
        case "chances":
            table, c = _array(arrays, "chances"), instance.constants
            if not instance.tabular or table.shape != (c.K, round(c.B / c.grid) + 1, 2, 3):
                raise Refused(f"policy: its table of shape {table.shape} is of another grid", field="policy")
            return Table(instance, table)
        case kind:
            raise Refused(f"policy: kind {kind!r} is not known", field="policy")


SHIPPED = Path(__file__).parent / "weights"
"""Policies that ship with the package; `weights/README.md` has the commands that made them."""


def shipped(algo: str, instance: Instance) -> Policy | None:
    """The policy of this algorithm that ships with the package, where there is one for the instance's N and M."""
    path = SHIPPED / f"{algo}-{instance.N}x{instance.M}.npz"
    return load(path, instance)[0] if path.is_file() else None


def load(path: Path, instance: Instance) -> tuple[Policy, dict[str, Any]]:
    """The policy in a file and its header. Raises Refused."""
    arrays, head = read(path, "policy")
    return of(arrays, head, instance), head


def packed(arrays: Arrays, head: Mapping[str, object]) -> str:
    """A policy file as text, for solutions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.npz"
        write(path, arrays, head)
        return base64.b64encode(path.read_bytes()).decode()


def unpacked(text: str, instance: Instance) -> Policy:
    """The policy in `packed` text. Raises Refused."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused("info.weights is not base64", field="info.weights") from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.npz"
        path.write_bytes(data)
        return load(path, instance)[0]


def _array(arrays: Arrays, name: str) -> Floats:
    found: NDArray[Any] | None = arrays.get(name)
    if found is None or not np.issubdtype(found.dtype, np.floating) or not np.isfinite(found).all():
        raise Refused(f"policy: no finite array {name}", field="policy")
    return found.astype(np.float64)
