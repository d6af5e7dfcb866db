"""The clock never goes backward, whatever is done to the machine's."""

import asyncio

from edgora.adapters.system_clock import SystemClock

MS = 1_000_000


class Sources:
    def __init__(self) -> None:
        self.wall, self.steady = 1_000_000 * MS, 5 * MS

    def clock(self) -> SystemClock:
        return SystemClock(lambda: self.wall, lambda: self.steady)

    def pass_ms(self, ms: int) -> None:
        self.wall += ms * MS
        self.steady += ms * MS


def test_it_follows_the_wall_clock_and_its_jumps_forward() -> None:
    sources = Sources()
    clock = sources.clock()
    sources.pass_ms(250)
    assert clock.now_ms() == 1_000_250
    sources.wall += 3_600_000 * MS
    assert clock.now_ms() == 4_600_250


def test_set_back_it_runs_at_half_speed_until_they_meet() -> None:
    sources = Sources()
    clock = sources.clock()
    sources.wall -= 1_000 * MS
    seen = [clock.now_ms()]
    for _ in range(30):
        sources.pass_ms(100)
        seen.append(clock.now_ms())
    assert seen == sorted(seen)
    assert seen[10] - seen[0] == 500
    assert seen[-1] == sources.wall // MS


async def test_a_call_comes_at_or_after_its_deadline_and_not_if_cancelled() -> None:
    clock = SystemClock()
    rung = asyncio.Event()
    due = clock.now_ms() + 20
    never = clock.call_at(due, lambda: (_ for _ in ()).throw(AssertionError("cancelled")))
    never.cancel()
    clock.call_at(due, rung.set)
    await asyncio.wait_for(rung.wait(), 10)
    assert clock.now_ms() >= due
    late = asyncio.Event()
    clock.call_at(due - 1_000, late.set)
    assert not late.is_set()
    await asyncio.wait_for(late.wait(), 10)
