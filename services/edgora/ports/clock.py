"""Time as a port: the only clock that a node's driver and services may read (ledger.md 1).

Instants are Unix time in integer milliseconds. An implementation never goes backward; it may run slower than real time
after the machine's clock was set back, and it may jump forward (a suspended machine), which the core expects.
"""

from collections.abc import Callable
from typing import Protocol

from edgora.wire.units import Millis

__all__ = ["Alarm", "Clock"]


class Alarm(Protocol):
    """A pending call; asyncio's TimerHandle is one."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    def now_ms(self) -> Millis: ...

    def call_at(self, deadline_ms: int, call: Callable[[], None]) -> Alarm:
        """Run call in the event loop at or after deadline_ms, never before this method returned."""
        ...
