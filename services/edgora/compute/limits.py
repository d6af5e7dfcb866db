"""What a run may use, and how it can end (market.md 5 and 8).

Fuel is the unit of work and of price. The other limits bound what fuel does not: memory, output, and wall time, which
is the only one that depends on the machine, so a run that it ended is not paid.
"""

from dataclasses import dataclass, field
from typing import Final

from edgora.wire.errors import Refused, TooLarge
from edgora.wire.market import ResultCode
from edgora.wire.units import Fuel, Millis, Octets

__all__ = [
    "COMPILE_MEMORY", "COMPILE_MS", "MAX_FUEL", "MAX_INPUT", "MAX_MEMORY_PAGES", "MAX_MODULE", "MAX_OUTPUT",
    "MAX_TABLES", "MAX_TABLE_ELEMENTS", "MAX_WALL_MS", "PAGE", "Limits", "Outcome",
]  # fmt: skip

PAGE: Final = 65_536
MAX_FUEL: Final = 10**12
MAX_MEMORY_PAGES: Final = 1024
MAX_INPUT: Final = 16 * 1024 * 1024
MAX_OUTPUT: Final = 16 * 1024 * 1024
MAX_MODULE: Final = 4 * 1024 * 1024
MAX_WALL_MS: Final = 3_600_000
MAX_TABLES: Final = 8
MAX_TABLE_ELEMENTS: Final = 100_000
"""In one table; 8 octets each."""
COMPILE_MS: Final = Millis(10_000)
"""Wall time in which a module must compile, else it is a bad one."""
COMPILE_MEMORY: Final = 2 * 1024**3
"""Address space of a compilation."""


@dataclass(frozen=True, slots=True)
class Limits:
    """An offer's limits and the wall time that its executor gives it. Raises TooLarge or Refused naming the field."""

    fuel: Fuel
    memory_pages: int
    output_octets: Octets
    wall_ms: Millis

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("fuel", self.fuel, 1, MAX_FUEL),
            ("memory_pages", self.memory_pages, 0, MAX_MEMORY_PAGES),
            ("output_octets", self.output_octets, 0, MAX_OUTPUT),
            ("wall_ms", self.wall_ms, 1, MAX_WALL_MS),
        ):
            if value < least:
                raise Refused(f"{name} is {value}; at least {least} is needed", field=name)
            if value > most:
                raise TooLarge(f"{name} is {value}; at most {most} may be", field=name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    code, output and fuel_used are the same wherever and however often the run is repeated if the code is a paid one
    (wire.market.PAID_CODES). The output is empty unless the code is OK; fuel_used is 0 unless the code is a paid one.
    """

    code: ResultCode
    output: bytes = field(repr=False)
    fuel_used: Fuel
    wall_ms: Millis
    reason: str = ""
    """For people: what ended the run. Never part of what is agreed on, and never taken from the input."""
