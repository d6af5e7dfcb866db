"""Every solver of BaaS by name, as an immutable record of its options that becomes a `Policy`.

A policy sees the slots of any number of copies and decides all of them; solving an instance, live evaluation and the
figures of the paper use the same object. Learned policies are read from a policy.npz; `pair-q` and `struct-ddqn` bring
weights of their own.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Protocol

import msgspec

from edgora.allocator.baas.baselines import Greedy, Random
from edgora.allocator.baas.exact import best
from edgora.allocator.baas.ga import Genetic
from edgora.allocator.baas.learned import LearnedPolicy, load_policy
from edgora.allocator.baas.model import Choice, Slots
from edgora.allocator.files import LARGEST, number
from edgora.wire.errors import Refused

__all__ = [
    "SOLVERS", "WEIGHTS", "ExactSolver", "GaSolver", "GreedySolver", "LearnedSolver", "Policy", "PricedSolver",
    "RandomSolver", "Solver",
]  # fmt: skip

WEIGHTS = Path(__file__).parent / "weights"
"""Policies that ship with the package; `weights/README.md` has the commands that made them."""


class Policy(Protocol):
    """What decides."""

    def decide(self, slots: Slots) -> Choice: ...


class Solver(Protocol):
    """A solver with its options: an immutable msgspec Struct."""

    default_limit_s: ClassVar[float | None]
    """Wall seconds it takes without `--time-limit`; None: it ends by its own rule."""
    libraries: ClassVar[tuple[str, ...]]
    """Distributions whose versions its results depend on."""

    def policy(self, seed: int) -> Policy:
        """The policy, new and seeded."""
        ...


class RandomSolver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`random`."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def policy(self, seed: int) -> Policy:
        return Random(seed)


class GreedySolver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`greedy`."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def policy(self, seed: int) -> Policy:  # noqa: ARG002  # it draws nothing
        return Greedy()


class GaSolver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ga`."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    population: Annotated[int, msgspec.Meta(ge=2, le=10_000)] = 50
    generations: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 60
    mutation: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.05
    """For each gene."""

    def policy(self, seed: int) -> Policy:
        return Genetic(seed, self.population, self.generations, self.mutation)


class _Optimum:
    def __init__(self, theta: float | None) -> None:
        self._theta = theta

    def decide(self, slots: Slots) -> Choice:
        return best(slots, slots.params.theta if self._theta is None else self._theta)


class ExactSolver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`exact`."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "scipy")

    def policy(self, seed: int) -> Policy:  # noqa: ARG002  # it draws nothing
        return _Optimum(0.0)


class PricedSolver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`priced`."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "scipy")

    theta: float | None = None
    """Token/s for each second under the desired time; null: the instance's."""

    def policy(self, seed: int) -> Policy:  # noqa: ARG002  # it draws nothing
        if self.theta is not None:
            number("theta", self.theta, 0.0, LARGEST)
        return _Optimum(self.theta)


class LearnedSolver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A learner's policy."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "scipy")
    algo: ClassVar[str]

    file: str | None = None
    """A policy.npz that `edgora train` wrote; null: the weights that ship with the package, where there are any."""

    def policy(self, seed: int) -> LearnedPolicy:
        shipped = WEIGHTS / f"{self.algo}.npz"
        if self.file is None and not shipped.exists():
            raise Refused(
                f"{self.algo} ships no weights: train it, and name its policy.npz",
                field="file", fix=f"edgora train baas --algo {self.algo} --out DIR, then --set file=DIR/policy.npz",
            )  # fmt: skip
        found = load_policy(shipped if self.file is None else Path(self.file), seed)
        if found.name != self.algo:
            raise Refused(f"file {self.file} holds a policy of {found.name}, not of {self.algo}", field="file")
        return found


class PairQSolver(LearnedSolver, frozen=True):
    """`pair-q`."""

    algo = "pair-q"


class StructDdqnSolver(LearnedSolver, frozen=True):
    """`struct-ddqn`."""

    algo = "struct-ddqn"


class QlearningSolver(LearnedSolver, frozen=True):
    """`qlearning`."""

    algo = "qlearning"


class DqnSolver(LearnedSolver, frozen=True):
    """`dqn`."""

    algo = "dqn"


class DdqnSolver(LearnedSolver, frozen=True):
    """`ddqn`."""

    algo = "ddqn"


class DqnNoAllocSolver(LearnedSolver, frozen=True):
    """`dqn-no-alloc`."""

    algo = "dqn-no-alloc"


class DqnNoSelectSolver(LearnedSolver, frozen=True):
    """`dqn-no-select`."""

    algo = "dqn-no-select"


class DdqnNoAllocSolver(LearnedSolver, frozen=True):
    """`ddqn-no-alloc`."""

    algo = "ddqn-no-alloc"


class DdqnNoSelectSolver(LearnedSolver, frozen=True):
    """`ddqn-no-select`."""

    algo = "ddqn-no-select"


SOLVERS: dict[str, type[Solver]] = {
    "random": RandomSolver,
    "greedy": GreedySolver,
    "ga": GaSolver,
    "exact": ExactSolver,
    "priced": PricedSolver,
    "qlearning": QlearningSolver,
    "dqn": DqnSolver,
    "ddqn": DdqnSolver,
    "dqn-no-alloc": DqnNoAllocSolver,
    "dqn-no-select": DqnNoSelectSolver,
    "ddqn-no-alloc": DdqnNoAllocSolver,
    "ddqn-no-select": DdqnNoSelectSolver,
    "pair-q": PairQSolver,
    "struct-ddqn": StructDdqnSolver,
}
"""By name."""
