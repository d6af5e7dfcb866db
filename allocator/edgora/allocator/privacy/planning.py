"""Solvers that plan or follow a rule, and learn nothing: NO, EO, random, inverse, myopic, VI, RVI, lookahead.

VI and RVI are exact for one miner whose tables fit (one stream, or two of the spec's): best discounted and best
long-run average reward. `lookahead` takes RVI's relative values into the joint decision of N miners.
"""

from typing import ClassVar

import msgspec

from edgora.allocator.privacy.exact import miner, relative_values
from edgora.allocator.privacy.instance import Instance
from edgora.allocator.privacy.policies import Constant, Inverse, Myopic, Plan, Planned, Uniform, lookahead
from edgora.allocator.search import Found, Search
from edgora.wire.errors import Refused

__all__ = ["RVI", "VI", "EverythingOut", "InverseOnly", "Lookahead", "MyopicBest", "NothingOut", "Random"]


class _Planner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Takes no options and ends by its own rule."""

    default_limit_s: ClassVar[float | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)


class NothingOut(_Planner, frozen=True):
    """NO: mine everything on the device."""

    def solve(self, instance: Instance, search: Search) -> Found:  # noqa: ARG002  # a rule looks at the slot only
        return Found(Plan(Constant(offload=False)))


class EverythingOut(_Planner, frozen=True):
    """EO: mine everything at the server."""

    def solve(self, instance: Instance, search: Search) -> Found:  # noqa: ARG002  # a rule looks at the slot only
        return Found(Plan(Constant(offload=True)))


class Random(_Planner, frozen=True):
    """A fair coin for every stream."""

    def solve(self, instance: Instance, search: Search) -> Found:  # noqa: ARG002  # a rule looks at the slot only
        return Found(Plan(Uniform(search.seed)))


class InverseOnly(_Planner, frozen=True):
    """x = 1 - g."""

    def solve(self, instance: Instance, search: Search) -> Found:  # noqa: ARG002  # a rule looks at the slot only
        return Found(Plan(Inverse()))


class MyopicBest(_Planner, frozen=True):
    """The best reward of the slot."""

    def solve(self, instance: Instance, search: Search) -> Found:  # noqa: ARG002  # ends by its own rule
        return Found(Plan(Myopic(instance)))


class VI(_Planner, frozen=True):
    """Best discounted reward of one miner, by value iteration with the instance's gamma."""

    libraries: ClassVar[tuple[str, ...]] = ("numpy", "scipy")

    def solve(self, instance: Instance, search: Search) -> Found:  # noqa: ARG002  # ends by its own rule
        _single(instance, "VI")
        gamma = instance.constants.gamma
        U = miner(instance).discounted(gamma)[1]
        return Found(Plan(Planned(instance, gamma * U)), status="optimal")


class RVI(_Planner, frozen=True):
    """Best average reward of one miner, by relative value iteration."""

    libraries: ClassVar[tuple[str, ...]] = ("numpy", "scipy")

    def solve(self, instance: Instance, search: Search) -> Found:  # noqa: ARG002  # ends by its own rule
        _single(instance, "RVI")
        return Found(Plan(Planned(instance, relative_values(instance)[1])), status="optimal")


class Lookahead(_Planner, frozen=True):
    """The flip search over exact rewards plus relative values of the one-miner optimum."""

    libraries: ClassVar[tuple[str, ...]] = ("numpy", "scipy")

    def solve(self, instance: Instance, search: Search) -> Found:  # noqa: ARG002  # ends by its own rule
        return Found(Plan(lookahead(instance)))


def _single(instance: Instance, name: str) -> None:
    if instance.N > 1:
        raise Refused(f"{name} is exact for one miner, the instance has {instance.N}: use lookahead", field="N")
