"""What a task is paced to: its UE's share, never beyond a slot, never so slow that the task's own times break."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgora.adapters.memory_bus import MemoryBus
from edgora.market.reasons import sentence
from edgora.node.duties.pacing import Pacing, pace
from edgora.ports.bus import Share, Shares, shares_topic
from edgora.wire.codec import encode

TASK = b"\7" * 32
UE, OTHER = b"\1" * 20, b"\2" * 20

speeds = st.integers(1, 2**48 - 1)


@given(st.none() | speeds, speeds, st.integers(1, 10**12), st.integers(-(10**6), 10**7))
def test_a_pace_is_a_slots_at_most_and_fast_enough_where_a_slot_is(
    share: int | None, advertised: int, fuel: int, left_ms: int
) -> None:
    chosen = pace(TASK, share, advertised, fuel, left_ms)
    assert 1 <= chosen.speed <= advertised
    assert chosen.speed == advertised or 1000 * fuel <= chosen.speed * left_ms, "a slower run still ends in time"
    assert (chosen.reason is None) == (share is None)
    if share is None or chosen.speed < share:
        assert chosen.speed == advertised
    elif chosen.speed > share and share + 1 <= advertised:
        assert 1000 * fuel > (chosen.speed - 1) * left_ms, "no faster than it must be"


@pytest.mark.parametrize(
    ("share", "left_ms", "speed", "words"),
    [
        (30, 10**6, 30, "it is paced to 30 fuel/s, its UE's share of this server, which advertises 100 a slot"),
        (150, 10**6, 100, "it is paced to the advertised 100 fuel/s: its UE's share, 150, is more than a slot gives"),
        (1, 20_000, 50, "it is paced to 50 fuel/s: at its UE's share, 1, it would not be filed in time"),
        (1, -5, 100, "it is paced to 100 fuel/s: at its UE's share, 1, it would not be filed in time"),
    ],
)  # fmt: skip
def test_why_it_is_not_simply_the_advertised_speed(share: int, left_ms: int, speed: int, words: str) -> None:
    chosen = pace(TASK, share, 100, 1_000, left_ms)
    assert chosen.speed == speed
    assert chosen.reason is not None
    assert sentence(chosen.reason) == words
    assert chosen.reason.subject == TASK.hex()


class Clock:
    ms = 1_000

    def now_ms(self) -> int:
        return self.ms


def shares(node: int, issued: int, until: int, **speeds: int) -> bytes:
    known = {"ue": UE, "other": OTHER}
    return encode(Shares(node, issued, until, tuple(Share(known[who], speed) for who, speed in speeds.items())))


async def heard(*messages: bytes) -> tuple[Pacing, Clock]:
    """A node's shares after these messages."""
    bus, clock = MemoryBus(), Clock()
    post: Any = SimpleNamespace(index=3, bus=bus, clock=clock)
    pacing = Pacing(post)
    for message in messages:
        await bus.publish(shares_topic(3), message)
    await bus.publish(shares_topic(3), shares(9, 0, 0))
    listening = asyncio.create_task(pacing.run())
    topic = bus._topics[shares_topic(3)]
    while not topic.groups or topic.groups["node"].seen < len(messages) + 1 or topic.groups["node"].pending:
        await asyncio.sleep(0)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    return pacing, clock


async def test_nothing_told_is_no_share() -> None:
    pacing, _ = await heard()
    assert pacing.share(UE) is None
    assert "advertised speed" in pacing.says


async def test_the_newest_shares_replace_all_others_until_they_run_out() -> None:
    pacing, clock = await heard(shares(3, 10, 5_000, ue=7, other=9), shares(3, 20, 2_000, ue=8))
    assert (pacing.share(UE), pacing.share(OTHER)) == (8, None)
    assert pacing.says == "1 UEs share this server: 8 fuel/s until 2000"
    clock.ms = 2_000
    assert pacing.share(UE) == 8
    clock.ms = 2_001
    assert pacing.share(UE) is None


async def test_old_foreign_unreadable_and_empty_shares_change_nothing() -> None:
    pacing, _ = await heard(
        shares(3, 20, 5_000, ue=8), shares(3, 19, 9_000, ue=1), shares(4, 30, 9_000, ue=2), b"\xc1",
        shares(3, 20, 5_000, ue=8, other=0),
    )  # fmt: skip
    assert (pacing.share(UE), pacing.share(OTHER)) == (8, None)


async def test_a_bus_that_is_away_is_said() -> None:
    bus = MemoryBus()
    await bus.close()
    post: Any = SimpleNamespace(index=3, bus=bus, clock=Clock())
    pacing = Pacing(post)
    listening = asyncio.create_task(pacing.run())
    while "not reached" not in pacing.says:
        await asyncio.sleep(0)
    assert pacing.share(UE) is None
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
