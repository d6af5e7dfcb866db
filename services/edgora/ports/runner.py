"""Where tasks are computed: a number of slots, each paced to the speed that the server advertises.

A job takes a slot from its start until its result is released, at max(wall, fuel / speed): the server that is modelled
is busy that long, whatever the machine underneath could do (peers.md 4). Cancelling the awaiting task stops the job.
"""

from dataclasses import dataclass, field
from typing import Protocol

from edgora.compute.limits import Limits, Outcome
from edgora.compute.meter import SlotSpeed
from edgora.compute.module import ModuleInfo
from edgora.wire.units import ModuleDigest

__all__ = ["Job", "Runner"]


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a module on an opened input."""

    digest: ModuleDigest
    wasm: bytes | None = field(repr=False)
    """None if the runner knows the module already."""
    plaintext: bytes = field(repr=False)
    """Canonical [args, data], as it came out of the envelope (wire.inputs)."""
    limits: Limits
    speed: SlotSpeed
    """fuel/s that this run is paced to."""


class Runner(Protocol):
    @property
    def slots(self) -> int:
        """Jobs that run side by side; others wait in order of arrival."""
        ...

    async def run(self, job: Job) -> Outcome:
        """Run a job and give its outcome out at the pace of its speed.

        Every end of a run is an Outcome. Raises wire.errors.Unavailable only if the runner is closed before the end.
        """
        ...

    async def prepare(self, wasm: bytes) -> ModuleInfo:
        """Check and compile a module, beside the slots. Raises compute.module.BadModule or wire.errors.Unavailable."""
        ...

    def knows(self, digest: ModuleDigest) -> bool:
        """Whether a job may leave wasm out."""
        ...

    async def close(self) -> None:
        """Stop what runs and take nothing more; returns when no thread of the runner is left."""
        ...
