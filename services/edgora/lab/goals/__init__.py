"""The allocators' goals, measured: one module a problem, one `Measured` for each figure of its spec's Goals section.

`edgora bench allocator` runs them and prints every figure beside its goal, also where it falls short. A module offers

    def measure(note: Callable[[str], None]) -> Iterator[Measured]

`note` hears what is being measured. Times are CPU seconds of this process (`time.process_time`), one thread.
"""

from edgora.lab.goals.measured import Measured, Note, run_goals

__all__ = ["Measured", "Note", "run_goals"]
