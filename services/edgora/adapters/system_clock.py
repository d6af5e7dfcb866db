"""The machine's clock as `ports.clock.Clock`: Unix time that never goes backward.

Readings follow the monotonic clock from an anchor. When the wall clock is ahead of that line (it was set forward), the
anchor moves at once; when it is behind (set back), time runs at half speed until they meet, so timers still fire and no
instant is seen twice.
"""

import asyncio
import time
from collections.abc import Callable

from edgora.ports.clock import Alarm
from edgora.wire.units import Millis

__all__ = ["SystemClock"]


class SystemClock:
    """Both sources are arguments, in nanoseconds, so that a test can set them."""

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, steady_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._now_ns = wall_ns()
        self._read_at = steady_ns()

    def now_ms(self) -> Millis:
        steady = self._steady_ns()
        passed, self._read_at = steady - self._read_at, steady
        wall = self._wall_ns()
        self._now_ns = max(wall, self._now_ns + passed // 2) if wall < self._now_ns + passed else wall
        return Millis(self._now_ns // 1_000_000)

    def call_at(self, deadline_ms: int, call: Callable[[], None]) -> Alarm:
        # Rounded up by a millisecond: the loop may wake a hair early, and a timer that fires before its deadline is lost.
        delay_ms = max(0, deadline_ms - self.now_ms() + 1)
        return asyncio.get_running_loop().call_later(delay_ms / 1000, call)
