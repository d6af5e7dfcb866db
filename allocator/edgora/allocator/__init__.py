"""Who computes what: allocation problems, their solvers, and the service that allocates live rounds.

    draw, files      mta.instance       a paper's instance for a seed, and its strict JSON form
    value, audit     mta.model          what a plan is worth, and whether it is allowed
    one inner form   mta.table          the assignment table that paper instances and live rounds share
    solve            registry           problem + solver name (or `module:object`) -> solution
    live             live, allocd       round instance of the market -> proposal, under a time budget

`solve` is looked up on first use, so importing the package loads neither NumPy nor a solver.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgora.allocator.registry import solve

__all__ = ["solve"]


def __getattr__(name: str) -> object:
    if name == "solve":
        from edgora.allocator import registry

        return registry.solve
    raise AttributeError(f"module 'edgora.allocator' has no attribute {name!r}")
