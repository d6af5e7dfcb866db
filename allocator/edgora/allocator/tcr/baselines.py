"""The baselines without optimisation (tcr.md 8): an association, and everything at its cap or shared equally."""

from typing import ClassVar

import msgspec
import numpy as np

from edgora.allocator.search import Found, Search
from edgora.allocator.tcr.instance import Instance

__all__ = ["Gucaa", "Rucaa"]


class Rucaa(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A random server for each user: seeded by the instance's seed (null: 0) and the solver's."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def solve(self, instance: Instance, search: Search) -> Found:
        rng = np.random.default_rng([instance.seed or 0, search.seed])
        return Found(instance.model.even(rng.integers(0, instance.M, instance.N)))


class Gucaa(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In index order the server with fewest users so far, ties by larger gain (A10)."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def solve(self, instance: Instance, search: Search) -> Found:  # noqa: ARG002 - draws nothing and ends by its own rule
        return Found(instance.model.even(instance.model.spread()))
