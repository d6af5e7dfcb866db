"""The driver performs effects in the order that the core relies on (ledger.md 1, 12; P4).

The core is scripted: each input names the effects of its step. Log, transport, store and clock are stand-ins whose
every move the test decides or sees.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from edgora.crypto.sign import SigningKey
from edgora.ledger.effects import (
    ALL,
    Answer,
    Boot,
    ClientTx,
    DurableState,
    Effects,
    Executed,
    Fault,
    Input,
    Recv,
    Send,
    SetTimer,
    SnapshotImage,
    TimerFired,
    Verified,
    Verify,
)
from edgora.ledger.status import ReplicaStatus
from edgora.node.driver import Driver
from edgora.node.inbox import Frame, Inbox
from edgora.ports.store import StoredBlock
from edgora.ports.transport import LinkView, Receiver
from edgora.wire.errors import Broken, Unavailable
from edgora.wire.hashing import EMPTY_ROOT, keccak
from edgora.wire.ledger import Block, Header, SignedTx, Tx
from edgora.wire.pbft import Commit, GetBody, Lane, TxGossip, WalAccepted, WalRecord, decode_message, encode_message

STATE = DurableState(None, (), 5)
TX = SignedTx(Tx(9, bytes(20), 0, 0, 99, b""), bytes(65))


def vote(number: int) -> Commit:
    return Commit(0, 0, number, bytes(32), bytes(65))


def record(number: int) -> WalRecord:
    return WalAccepted(0, 0, number, bytes(32), bytes(65))


def executed(height: int) -> Executed:
    head = Header(0, height, bytes(32), EMPTY_ROOT, 0, 0, bytes(32), EMPTY_ROOT, 0, bytes(32), height, bytes(20))
    return Executed(Block(head, ()), None, (), (), bytes(32))


def image(height: int) -> SnapshotImage:
    return SnapshotImage(executed(height).block.header, bytes(32), {b"k": b"v"})


class Script:
    """A core whose answers the test writes; what it was given stands in `inputs`."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.reply: Callable[[Input], Effects | None] = lambda _: None
        self.stepped = asyncio.Event()

    def step(self, now_ms: int, event: Input) -> Effects:
        self.inputs.append(event)
        self.stepped.set()
        return self.reply(event) or Effects()

    def status(self, now_ms: int) -> ReplicaStatus:
        raise NotImplementedError


class GatedLog:
    """A log whose syncs end when the test says so, and may fail."""

    def __init__(self, moves: list[Any]) -> None:
        self.moves = moves
        self.records: list[WalRecord] = []
        self.durable = 0
        self.flushes = 0
        self.free = threading.Event()
        self.free.set()
        self.began = threading.Event()
        self.error: Exception | None = None

    @property
    def end(self) -> int:
        return self.durable

    def append(self, records: Sequence[WalRecord], *, compacted: bool = False) -> int:
        self.records.extend(records)
        return len(self.records)

    def flush(self) -> int:
        upto = len(self.records)
        self.flushes += 1
        self.began.set()
        assert self.free.wait(20)
        if self.error is not None:
            raise self.error
        self.durable = upto
        return upto

    def drop_before(self, index: int) -> None:
        self.moves.append(("drop", index))

    def close(self) -> None:
        self.moves.append("closed")


class NotedTransport:
    peers = (1, 2, 3)

    def __init__(self, moves: list[Any]) -> None:
        self.moves = moves
        self.sent = asyncio.Event()
        self.on_send: Callable[[bytes], None] = lambda _: None
        self.receiver: Receiver | None = None

    async def start(self, receiver: Receiver, boot_nonce: int) -> None:
        self.receiver = receiver
        self.moves.append(("up", boot_nonce))

    def send(self, peer: int, lane: Lane, data: bytes) -> None:
        self.on_send(data)
        message = decode_message(data)
        self.moves.append(("send", peer, lane, message.height if isinstance(message, Commit) else message))
        self.sent.set()

    async def call(self, peer: int, request: bytes, timeout_ms: int) -> bytes:
        raise Unavailable("nobody")

    def cut(self, peer: int, reason: str) -> None:
        self.moves.append(("cut", peer))

    def links(self) -> list[LinkView]:
        return [LinkView(peer, True, 0, "", 0) for peer in (1, 2, 3)]

    async def stop(self) -> None:
        self.moves.append("down")


class NotedStore:
    def __init__(self, moves: list[Any]) -> None:
        self.moves = moves
        self.error: Exception | None = None

    def height(self) -> int:
        return 0

    def append(self, stored: StoredBlock, events: Sequence[bytes]) -> None:
        if self.error is not None:
            raise self.error
        self.moves.append(("block", stored.block.header.height))

    def save_snapshot(self, snapshot: SnapshotImage) -> None:
        self.moves.append(("snapshot", snapshot.height))


class ManualClock:
    def __init__(self) -> None:
        self.now = 1_000
        self.alarms: list[tuple[int, Callable[[], None], list[bool]]] = []

    def now_ms(self) -> int:
        return self.now

    def call_at(self, deadline_ms: int, call: Callable[[], None]) -> Any:
        cancelled = [False]
        self.alarms.append((deadline_ms, call, cancelled))

        class Handle:
            def cancel(self) -> None:
                cancelled[0] = True

        return Handle()

    def advance(self, to: int) -> None:
        self.now = to
        due = [a for a in self.alarms if a[0] <= to]
        self.alarms = [a for a in self.alarms if a[0] > to]
        for _, call, cancelled in due:
            if not cancelled[0]:
                call()


class Bench:
    """A driver among stand-ins. `moves` is everything that left it, in order."""

    def __init__(self, kind: type[Driver] = Driver) -> None:
        self.moves: list[Any] = []
        self.core, self.log = Script(), GatedLog(self.moves)
        self.transport, self.store, self.clock = NotedTransport(self.moves), NotedStore(self.moves), ManualClock()
        self.alarms: list[str] = []
        self.driver = kind(
            self.core,
            clock=self.clock,  # type: ignore[arg-type]
            transport=self.transport,
            log=self.log,
            store=self.store,  # type: ignore[arg-type]
            on_alarm=self.alarms.append,
        )

    async def receive(self, message: Any, peer: int = 1, lane: Lane = Lane.CONSENSUS) -> None:
        await self.driver.received(peer, lane, encode_message(message))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.001)

    def sends(self) -> list[int]:
        return [move[3] for move in self.moves if move[0] == "send" and move[1] == 1]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.driver.start(STATE)
    yield made
    made.log.free.set()
    await made.driver.stop()


def numbered(reply: Callable[[int], Effects]) -> Callable[[Input], Effects | None]:
    """A script for received votes, by their height."""
    return lambda event: reply(event.message.height) if isinstance(event, Recv) else None  # type: ignore[union-attr]


async def test_boot_comes_first_and_the_links_after_it(bench: Bench) -> None:
    assert bench.core.inputs == [Boot(STATE)]
    assert bench.moves == [("up", 5)]


async def test_a_send_waits_for_the_records_of_its_step(bench: Bench) -> None:
    bench.log.free.clear()
    bench.core.reply = numbered(lambda n: Effects(persist=[record(n)], sync=True, send=[Send(1, vote(n))]))
    await bench.receive(vote(1))
    await asyncio.to_thread(bench.log.began.wait, 10)
    assert bench.sends() == []
    bench.log.free.set()
    await bench.until(lambda: bench.sends() == [1])


async def test_the_core_steps_on_while_the_disk_works_and_one_sync_covers_all_of_it(bench: Bench) -> None:
    bench.log.free.clear()
    bench.core.reply = numbered(lambda n: Effects(persist=[record(n)], sync=True, send=[Send(1, vote(n))]))
    await bench.receive(vote(1))
    await asyncio.to_thread(bench.log.began.wait, 10)
    for number in range(2, 40):
        await bench.receive(vote(number))
    await bench.until(lambda: len(bench.core.inputs) == 40)
    assert bench.sends() == []
    bench.log.free.set()
    await bench.until(lambda: len(bench.sends()) == 39)
    assert bench.sends() == list(range(1, 40))
    assert bench.log.flushes == 2


async def test_a_step_that_writes_nothing_still_waits_for_those_before_it(bench: Bench) -> None:
    bench.log.free.clear()

    def reply(number: int) -> Effects:
        first = Effects(persist=[record(1)], sync=True)
        return first if number == 1 else Effects(send=[Send(1, vote(number))])

    bench.core.reply = numbered(reply)
    for number in (1, 2):
        await bench.receive(vote(number))
    await bench.until(lambda: len(bench.core.inputs) == 3)
    assert bench.sends() == []
    bench.log.free.set()
    await bench.until(lambda: bench.sends() == [2])


async def test_without_records_nothing_is_synced(bench: Bench) -> None:
    bench.core.reply = numbered(lambda n: Effects(send=[Send(ALL, vote(n)), Send(2, vote(n + 1))]))
    await bench.receive(vote(1))
    await bench.until(lambda: len(bench.moves) == 5)
    assert bench.moves[1:] == [("send", p, Lane.CONSENSUS, 1) for p in (1, 2, 3)] + [("send", 2, Lane.CONSENSUS, 2)]
    assert bench.log.flushes == 0


async def test_messages_travel_in_their_lanes(bench: Bench) -> None:
    fetch, gossip = GetBody(0, bytes(32)), TxGossip(0, (TX,))
    bench.core.reply = numbered(lambda _: Effects(send=[Send(1, gossip), Send(1, fetch)]))
    await bench.receive(vote(1))
    await bench.until(lambda: len(bench.moves) == 3)
    assert bench.moves[1:] == [("send", 1, Lane.GOSSIP, gossip), ("send", 1, Lane.SYNC, fetch)]


async def test_blocks_and_answers_leave_only_when_durable(bench: Bench) -> None:
    bench.log.free.clear()
    answer = Answer(b"h" * 32, True, "admitted")
    effects = Effects(persist=[record(1)], sync=True, executed=[executed(1)], answers=[answer])
    bench.core.reply = lambda event: effects if isinstance(event, ClientTx) else None
    heights = bench.driver.heights()
    assert await anext(heights) == 0
    admission = asyncio.ensure_future(bench.driver.submit(TX, b"h" * 32))
    following = asyncio.ensure_future(anext(heights))
    await asyncio.to_thread(bench.log.began.wait, 10)
    assert not admission.done()
    assert ("block", 1) not in bench.moves
    bench.log.free.set()
    assert (await asyncio.wait_for(admission, 10)).admitted
    assert await asyncio.wait_for(following, 10) == 1
    assert bench.driver.stored_height == 1


async def test_refusals_are_spelled_as_the_port_says(bench: Bench) -> None:
    for reason, code in (("GAP", "LANE_GAP"), ("pool_full", "POOL_FULL")):
        answer = Answer(b"h" * 32, False, reason)
        bench.core.reply = lambda event, a=answer: Effects(answers=[a]) if isinstance(event, ClientTx) else None
        assert (await bench.driver.submit(TX, b"h" * 32)).reason == code


async def test_the_same_transaction_twice_is_answered_twice(bench: Bench) -> None:
    answers = [Answer(b"h" * 32, True, "admitted")]
    bench.core.reply = lambda event: Effects(answers=answers) if isinstance(event, ClientTx) else None
    both = await asyncio.gather(*(bench.driver.submit(TX, b"h" * 32) for _ in range(2)))
    assert [a.admitted for a in both] == [True, True]


async def test_a_snapshot_lies_between_its_blocks_and_its_checkpoint(bench: Bench) -> None:
    def reply(number: int) -> Effects:
        if number == 1:
            return Effects(
                persist=[record(1)], sync=True, executed=[executed(128)], snapshot=image(128), send=[Send(1, vote(128))]
            )
        return Effects(persist=[record(2), record(3)], sync=True, compacted=True, send=[Send(1, vote(2))])

    bench.core.reply = numbered(reply)
    for number in (1, 2):
        await bench.receive(vote(number))
    await bench.until(lambda: len(bench.moves) == 6)
    order = [move for move in bench.moves[1:] if move != ("send", 1, Lane.CONSENSUS, 2)]
    assert order[:2] == [("block", 128), ("snapshot", 128)]
    assert set(order[2:]) == {("send", 1, Lane.CONSENSUS, 128), ("drop", 1)}
    assert 2 in bench.sends()


async def test_after_a_failed_sync_nothing_leaves_any_more(bench: Bench) -> None:
    """Ledger.md 12: crash now."""
    bench.log.error = Broken("the disk is gone")
    bench.core.reply = numbered(lambda n: Effects(persist=[record(n)], sync=True, send=[Send(1, vote(n))]))
    await bench.receive(vote(1))
    with pytest.raises(Broken, match="the disk is gone"):
        await asyncio.wait_for(asyncio.shield(bench.driver.failed), 10)
    bench.log.error = None
    bench.core.reply = numbered(lambda n: Effects(send=[Send(1, vote(n))]))
    await bench.receive(vote(2))
    for _ in range(20):
        await asyncio.sleep(0)
    assert bench.sends() == []
    assert bench.log.flushes == 1
    with pytest.raises(Unavailable):
        await bench.driver.submit(TX, bytes(32))
    with pytest.raises(Unavailable):
        async for _ in bench.driver.heights():
            pass


async def test_a_store_that_fails_stops_the_replica(bench: Bench) -> None:
    bench.store.error = Broken("disk full")
    bench.core.reply = numbered(lambda n: Effects(executed=[executed(n)]))
    await bench.receive(vote(1))
    with pytest.raises(Broken, match="disk full"):
        await asyncio.wait_for(asyncio.shield(bench.driver.failed), 10)


async def test_a_core_that_raises_stops_the_replica(bench: Bench) -> None:
    def reply(event: Input) -> Effects:
        raise ZeroDivisionError("a bug")

    bench.core.reply = reply
    await bench.receive(vote(1))
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(asyncio.shield(bench.driver.failed), 10)


async def test_timers_ring_once_unless_moved_or_cancelled(bench: Bench) -> None:
    timers = {
        1: [SetTimer("progress", 2_000), SetTimer("heartbeat", 2_000), SetTimer("seal", 1_500)],
        2: [SetTimer("progress", 3_000), SetTimer("heartbeat", None)],
    }
    bench.core.reply = numbered(lambda n: Effects(timers=timers[n]))
    for number in (1, 2):
        await bench.receive(vote(number))
    await bench.until(lambda: len(bench.core.inputs) == 3)
    for now in (1_999, 2_500, 3_000, 9_000):
        bench.clock.advance(now)
    await bench.until(lambda: len(bench.core.inputs) == 5)
    await asyncio.sleep(0)
    assert bench.core.inputs[3:] == [TimerFired("seal"), TimerFired("progress")]


@pytest.mark.parametrize("count", [1, 4, 5, 300])
async def test_signatures_are_checked_one_by_one(bench: Bench, count: int) -> None:
    key, digest = SigningKey.derived("a"), keccak(b"d")
    good = (key.address, digest, key.sign(digest))
    bad = (SigningKey.derived("b").address, digest, good[2])
    items = tuple(bad if i % 3 == 0 else good for i in range(count))
    bench.core.reply = numbered(lambda n: Effects(verify=[Verify(n, items), Verify(n + 1, items[:1])]))
    await bench.receive(vote(7))
    await bench.until(lambda: len(bench.core.inputs) == 4)
    found = {event.token: event.ok for event in bench.core.inputs[2:] if isinstance(event, Verified)}
    assert found == {7: tuple(i % 3 != 0 for i in range(count)), 8: (False,)}


async def test_an_alarm_is_told_once_and_clients_are_refused(bench: Bench) -> None:
    bench.core.reply = numbered(lambda n: Effects(alarm=f"results of {n} diverge"))
    for number in (1, 2):
        await bench.receive(vote(number))
    await bench.until(lambda: len(bench.core.inputs) == 3)
    assert bench.alarms == ["results of 1 diverge"]
    assert (await bench.driver.submit(TX, bytes(32))).reason == "ALARM"


async def test_a_peer_that_sends_rubbish_loses_its_links_in_the_end(bench: Bench) -> None:
    for _ in range(10):
        await bench.driver.received(2, Lane.CONSENSUS, b"rubbish")
    await bench.receive(vote(1), peer=1)
    await bench.until(lambda: len(bench.core.inputs) == 2)
    assert ("cut", 2) not in bench.moves
    await bench.driver.received(2, Lane.CONSENSUS, b"rubbish")
    await bench.until(lambda: ("cut", 2) in bench.moves)
    assert ("cut", 1) not in bench.moves


async def test_faults_that_the_core_finds_cost_credit_which_comes_back_with_time(bench: Bench) -> None:
    bench.core.reply = numbered(lambda _: Effects(faults=[Fault(3, "a bad signature")]))
    for number in range(30):
        bench.clock.now += 1_000
        await bench.receive(vote(number))
        await bench.until(lambda number=number: len(bench.core.inputs) == number + 2)
    assert ("cut", 3) not in bench.moves
    for number in range(11):
        await bench.receive(vote(number))
    await bench.until(lambda: ("cut", 3) in bench.moves)


async def test_stopping_leaves_no_waiter_behind() -> None:
    bench = Bench()
    await bench.driver.start(STATE)
    admission = asyncio.ensure_future(bench.driver.submit(TX, bytes(32)))
    following = asyncio.ensure_future(bench.driver.asked(1, b""))
    await asyncio.sleep(0)
    await bench.driver.stop()
    for waiting in (admission, following):
        with pytest.raises(Unavailable):
            await waiting
    assert bench.moves[-2:] == ["down", "closed"]


# ---- P4: a shim between core, log and transport ------------------------------------------------------------------------


class DurabilityShim:
    """Knows for each message the log index that must be durable before it leaves; independent of the driver."""

    def __init__(self, bench: Bench) -> None:
        self.required: dict[bytes, int] = {}
        self.violations: list[str] = []
        self.bench = bench
        bench.transport.on_send = self.sending

    def stepped(self, effects: Effects) -> Effects:
        after = len(self.bench.log.records) + len(effects.persist)
        for send in effects.send:
            self.required[encode_message(send.message)] = after
        return effects

    def sending(self, data: bytes) -> None:
        if self.bench.log.durable < self.required[data]:
            self.violations.append(f"{self.bench.log.durable} < {self.required[data]}")


class HastyDriver(Driver):
    """The mutant: sends before the sync."""

    def _release(self) -> None:
        for held in self._held:
            self._send(held.effects.send)
        super()._release()


async def drive_through_shim(kind: type[Driver]) -> list[str]:
    bench = Bench(kind)
    shim = DurabilityShim(bench)

    def reply(number: int) -> Effects:
        persist = [record(number)] * (number % 3)
        return shim.stepped(Effects(persist=persist, sync=bool(persist), send=[Send(1, vote(number))]))

    bench.core.reply = numbered(reply)
    await bench.driver.start(STATE)
    for number in range(1, 200):
        if number % 50 == 0:
            bench.log.free.clear()
        if number % 50 == 25:
            bench.log.free.set()
        await bench.receive(vote(number))
        await asyncio.sleep(0)
    bench.log.free.set()
    await bench.until(lambda: set(bench.sends()) == set(range(1, 200)))
    await bench.driver.stop()
    return shim.violations


async def test_no_message_leaves_before_its_records_are_durable() -> None:
    assert await drive_through_shim(Driver) == []


async def test_the_shim_catches_a_driver_that_sends_before_the_sync() -> None:
    assert await drive_through_shim(HastyDriver) != []


# ---- the inbox ---------------------------------------------------------------------------------------------------------


async def test_consensus_comes_before_sync_before_gossip_and_own_events_first() -> None:
    inbox = Inbox()
    inbox.put_client(ClientTx(TX, bytes(32)))
    for lane in reversed(Lane):
        await inbox.put_frame(1, lane, b"")
    inbox.put_own(TimerFired("t"))
    taken = [inbox.take() for _ in range(6)]
    assert taken == [
        TimerFired("t"), Frame(1, Lane.CONSENSUS, b""), Frame(1, Lane.SYNC, b""), ClientTx(TX, bytes(32)),
        Frame(1, Lane.GOSSIP, b""), None,
    ]  # fmt: skip


async def test_a_flood_of_votes_starves_nobody() -> None:
    inbox = Inbox()
    inbox.put_client(ClientTx(TX, bytes(32)))
    for _ in range(100):
        await inbox.put_frame(1, Lane.CONSENSUS, b"")
    assert ClientTx(TX, bytes(32)) in [inbox.take() for _ in range(10)]


async def test_a_peer_waits_behind_its_own_two_mebibytes_only() -> None:
    inbox = Inbox()
    await inbox.put_frame(1, Lane.SYNC, bytes(2**21))
    second = asyncio.ensure_future(inbox.put_frame(1, Lane.SYNC, b"more"))
    await asyncio.wait_for(inbox.put_frame(2, Lane.SYNC, b"another peer"), 10)
    await asyncio.wait_for(inbox.put_frame(1, Lane.CONSENSUS, b"another lane"), 10)
    assert not second.done()
    assert [inbox.take() for _ in range(2)] == [
        Frame(1, Lane.CONSENSUS, b"another lane"),
        Frame(1, Lane.SYNC, bytes(2**21)),
    ]
    await asyncio.wait_for(second, 10)


async def test_client_transactions_are_bounded() -> None:
    inbox = Inbox()
    taken = 0
    while inbox.put_client(ClientTx(TX, bytes(32))):
        taken += 1
    assert 10_000 <= taken < 100_000
    inbox.take()
    assert inbox.put_client(ClientTx(TX, bytes(32)))
