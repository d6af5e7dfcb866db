"""The allocator service over the memory bus and over Redis: every round has one answer, and never a late one."""

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from edgora.adapters.loopback import free_port
from edgora.adapters.memory_bus import MemoryBus
from edgora.adapters.redis_bus import RedisBus
from edgora.allocator.allocd import (
    AllocatorWorker,
    Planner,
    ProcessEngine,
    ThreadEngine,
    WorkerStatus,
    solve_in_thread,
)  # fmt: skip
from edgora.allocator.allocd.__main__ import main as service_main
from edgora.allocator.allocd.app import Metrics, create_app
from edgora.allocator.live import LiveRound
from edgora.allocator.registry import policy
from edgora.allocator.search import Found
from edgora.market import rules
from edgora.ports.bus import Answer, Bus, Proposed, RoundRequest, Skipped, answers_topic, rounds_topic
from edgora.wire.codec import decode, encode, from_u128
from edgora.wire.errors import Refused, Unavailable
from edgora.wire.market import Instance, LiveServer, OpenTask

NOW = 1_800_000_000_000


def a_round(number: int) -> Instance:
    tasks = tuple(OpenTask(bytes(32), bytes(20), 0, 5, 3 + j, 64, 1, 1, NOW + 10**6, ()) for j in range(4))
    servers = tuple(LiveServer(i, 10**6, 10 + 5 * i, 3, 1, 10**6, 0, 10**12, 0) for i in range(2))
    return Instance(number, NOW, 500, tasks, servers)


async def ask(bus: Bus, number: int, *, sent_ms: int = 1_000, budget_ms: int = 60_000) -> None:
    await bus.publish(rounds_topic(3), encode(RoundRequest(a_round(number), sent_ms, budget_ms)))


async def answers(bus: Bus, count: int) -> list[Answer]:
    heard: list[Answer] = []
    for _ in range(20):  # a bus may cut a long wait
        if len(heard) == count:
            return heard
        taken = await bus.take(answers_topic(3), "node", "test", limit=count, wait_ms=5_000)
        heard += [decode(delivery.data, Answer) for delivery in taken]
        await bus.ack(answers_topic(3), "node", [delivery.id for delivery in taken])
    pytest.fail(f"{count} answers were expected, {heard} came")


class Gate:
    """A policy that answers when it is let."""

    name = "gate"

    def __init__(self) -> None:
        self.open, self.entered = threading.Event(), threading.Event()

    def propose(self, instance: object, budget_s: float) -> Found:
        assert isinstance(instance, LiveRound)
        self.entered.set()
        self.open.wait(30)
        return Found(instance.greedy)


class Fails:
    name = "fails"

    def propose(self, instance: object, budget_s: float) -> Found:
        raise ZeroDivisionError("by my policy")


@contextlib.asynccontextmanager
async def serving(worker: AllocatorWorker) -> AsyncIterator[AllocatorWorker]:
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await task


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    made = MemoryBus()
    yield made
    await made.close()


def thread(name: str) -> ThreadEngine:
    return ThreadEngine(policy("mta", name))


async def test_a_round_is_answered_with_what_the_market_accepts(bus: MemoryBus) -> None:
    async with serving(AllocatorWorker(bus, 3, thread("greedy-global"), now_ms=lambda: 1_000)) as worker:
        for number in (4, 5):
            await ask(bus, number)
            (answer,) = await answers(bus, 1)
            assert isinstance(answer, Proposed)
            assert answer.node == 3
            market = rules.round_table(a_round(number))
            value = rules.check_proposal(
                market, rules.instance_digest(a_round(number)), answer.allocation,
                greedy_value=rules.greedy(market).value, floor_bps=10_000, accepted={},
            )  # fmt: skip
            assert value == from_u128(answer.allocation.value)
        assert (worker.status.rounds, worker.status.proposed, worker.status.last_round) == (2, 2, 5)
        assert worker.status.ready
    assert not worker.status.ready


async def test_two_policies_of_a_node_each_answer(bus: MemoryBus) -> None:
    first = AllocatorWorker(bus, 3, thread("greedy-global"), now_ms=lambda: 1_000)
    second = AllocatorWorker(bus, 3, thread("exact"), now_ms=lambda: 1_000)
    async with serving(first), serving(second):
        await ask(bus, 4)
        told = await answers(bus, 2)
    assert {a.allocation.policy for a in told if isinstance(a, Proposed)} == {"greedy-global", "exact"}


async def test_a_late_answer_is_dropped_and_the_next_round_hears_why(bus: MemoryBus) -> None:
    gate = Gate()
    async with serving(AllocatorWorker(bus, 3, ThreadEngine(gate), now_ms=lambda: 1_000)) as worker:
        await ask(bus, 4, budget_ms=20)
        (late,) = await answers(bus, 1)
        assert isinstance(late, Skipped)
        assert (late.policy, late.round, late.reason.code, late.reason.numbers) == ("gate", 4, "LATE", (4, 20))
        assert gate.entered.is_set()
        await ask(bus, 5)
        (busy,) = await answers(bus, 1)
        assert isinstance(busy, Skipped)
        assert (busy.reason.code, busy.reason.numbers[0]) == ("BUSY", 5)
        gate.open.set()
        while worker._engine.busy_ms() is not None:  # the overdue thread ends by itself
            await asyncio.sleep(0.001)
        await ask(bus, 6)
        (answer,) = await answers(bus, 1)
        assert isinstance(answer, Proposed)
        assert answer.allocation.round == 6
        assert worker.status.skipped == {"LATE": 1, "BUSY": 1}


async def test_a_round_that_waited_too_long_is_not_computed(bus: MemoryBus) -> None:
    await ask(bus, 4, sent_ms=1_000, budget_ms=60)
    async with serving(AllocatorWorker(bus, 3, ThreadEngine(Fails()), now_ms=lambda: 1_060)):
        (answer,) = await answers(bus, 1)
    assert isinstance(answer, Skipped)
    assert (answer.reason.code, answer.reason.numbers) == ("LATE_ARRIVAL", (4, 60, 60))


async def test_the_workers_own_cap_holds(bus: MemoryBus) -> None:
    await ask(bus, 4, sent_ms=1_000, budget_ms=60_000)
    async with serving(AllocatorWorker(bus, 3, ThreadEngine(Fails()), solve_ms=40, now_ms=lambda: 1_050)):
        (answer,) = await answers(bus, 1)
    assert isinstance(answer, Skipped)
    assert (answer.reason.code, answer.reason.numbers) == ("LATE_ARRIVAL", (4, 50, 40))


async def test_of_a_backlog_only_the_newest_is_computed(bus: MemoryBus) -> None:
    for number in (4, 5, 6):
        await ask(bus, number, sent_ms=1_000 + number)
    async with serving(AllocatorWorker(bus, 3, thread("greedy-global"), now_ms=lambda: 1_010)):
        told = await answers(bus, 3)
    assert [(a.round, a.reason.code, a.reason.numbers) for a in told if isinstance(a, Skipped)] == [
        (4, "SUPERSEDED", (4, 6)), (5, "SUPERSEDED", (5, 6)),
    ]  # fmt: skip
    assert isinstance(told[2], Proposed)


async def test_a_policy_that_fails_is_named(bus: MemoryBus) -> None:
    async with serving(AllocatorWorker(bus, 3, ThreadEngine(Fails()), now_ms=lambda: 1_000)):
        await ask(bus, 4)
        (answer,) = await answers(bus, 1)
    assert isinstance(answer, Skipped)
    assert answer.reason.code == "FAILED"
    assert "ZeroDivisionError('by my policy')" in answer.reason.subject


async def test_a_repeated_entry_is_answered_once_and_garbage_not_at_all(bus: MemoryBus) -> None:
    async with serving(AllocatorWorker(bus, 3, thread("greedy-global"), now_ms=lambda: 1_000)) as worker:
        await bus.publish(rounds_topic(3), b"\x93garbage")
        await ask(bus, 4)
        await answers(bus, 1)
        await ask(bus, 4)
        await ask(bus, 5)
        (answer,) = await answers(bus, 1)
        assert isinstance(answer, Proposed)
        assert answer.allocation.round == 5
        assert (worker.status.rounds, worker.status.unreadable) == (2, 1)


async def test_a_worker_that_stops_leaves_its_entry_to_a_successor() -> None:
    bus = MemoryBus(stale_ms=0)
    taken = await bus.take(rounds_topic(3), "greedy-global", "crashed", limit=1, wait_ms=0)
    assert taken == []
    await ask(bus, 4)
    assert len(await bus.take(rounds_topic(3), "greedy-global", "crashed", limit=1, wait_ms=0)) == 1
    async with serving(AllocatorWorker(bus, 3, thread("greedy-global"), now_ms=lambda: 1_000)):
        (answer,) = await answers(bus, 1)
    assert isinstance(answer, Proposed)


async def test_an_unreachable_bus_is_waited_for() -> None:
    class Flaky(MemoryBus):
        failures = 1

        async def take(self, *args: object, **options: object) -> list[object]:
            if self.failures and args[0] == rounds_topic(3):
                self.failures -= 1
                raise Unavailable("redis cannot be reached: refused")
            return await super().take(*args, **options)

    bus = Flaky()
    worker = AllocatorWorker(bus, 3, thread("greedy-global"), now_ms=lambda: 1_000)
    assert worker.status.bus_problem == "not reached yet"
    async with serving(worker):
        await ask(bus, 4)
        (answer,) = await answers(bus, 1)
    assert isinstance(answer, Proposed)
    assert worker.status.bus_problem is None


# ---- the child process -------------------------------------------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's policy, as the working directory."""
    (tmp_path / "mine.py").write_text(
        textwrap.dedent("""
            import os, time
            print("a policy may print")

            class Greedy:
                def propose(self, instance, budget_s):
                    print("and say what it does")
                    table = instance.table
                    if table.m > 2:
                        return table.fill(table.rejected())
                    return [-1] * table.m

            class Hangs:
                def propose(self, instance, budget_s):
                    if instance.table.m > 2:
                        time.sleep(3600)
                    return instance.greedy

            class Dies:
                def propose(self, instance, budget_s):
                    if instance.table.m > 2:
                        os._exit(7)
                    return instance.greedy
        """)
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextlib.asynccontextmanager
async def running(engine: ProcessEngine) -> AsyncIterator[ProcessEngine]:
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def test_a_child_answers_and_its_prints_do_no_harm(workplace: Path) -> None:
    async with running(ProcessEngine("mine:Greedy")) as engine:
        for number in (1, 2):
            answer = await engine.solve(a_round(number), 30_000)
            assert answer.round == number  # type: ignore[union-attr]
            assert engine.busy_ms() is None


async def test_a_child_that_hangs_is_killed_and_replaced(bus: MemoryBus, workplace: Path) -> None:
    engine = ProcessEngine("mine:Hangs", grace_ms=1)
    async with serving(AllocatorWorker(bus, 3, engine, now_ms=lambda: 1_000)):
        await ask(bus, 4, budget_ms=10)
        (late,) = await answers(bus, 1)
        assert isinstance(late, Skipped)
        assert late.reason.code == "LATE"
        await ask(bus, 5)
        (busy,) = await answers(bus, 1)
        assert isinstance(busy, Skipped)
        assert busy.reason.code == "BUSY"
        while engine.busy_ms() is not None:
            await asyncio.sleep(0.01)
        assert engine.lost == 1


async def test_a_child_that_dies_is_a_reason_and_is_replaced(bus: MemoryBus, workplace: Path) -> None:
    engine = ProcessEngine("mine:Dies")
    async with serving(AllocatorWorker(bus, 3, engine, now_ms=lambda: 1_000)):
        await ask(bus, 4)
        (answer,) = await answers(bus, 1)
        assert isinstance(answer, Skipped)
        assert (answer.reason.code, answer.reason.subject) == (
            "FAILED",
            "mine:Dies: the process of policy mine:Dies ended",
        )
        while engine.busy_ms() is not None:
            await asyncio.sleep(0.01)
        assert engine.lost == 1


@pytest.mark.parametrize("name", ["nothing", "mine:Missing"])
async def test_a_policy_that_cannot_be_served_is_refused(workplace: Path, name: str) -> None:
    with pytest.raises(Refused, match=f"policy {name} cannot be served: .*{name.partition(':')[0]}"):
        await ProcessEngine(name).start()


# ---- the service ---------------------------------------------------------------------------------------------------------


def test_the_small_rest() -> None:
    status = WorkerStatus("exact", 3)
    metrics = Metrics("exact", 3)
    client = TestClient(create_app(lambda: status, metrics, Planner(MemoryBus(), solve_in_thread)))
    assert client.get("/healthz").json() == {"status": "alive"}
    waiting = client.get("/readyz")
    assert (waiting.status_code, waiting.json()) == (503, {"ready": False, "engine": False, "bus": "not reached yet"})
    status.engine_ready, status.bus_problem = True, None
    assert client.get("/readyz").status_code == 200
    allocation = _allocation()
    metrics.observe(Proposed(3, allocation))
    metrics.observe(Skipped(3, "exact", 5, rules.Reason("LATE", "exact", (5, 60))))
    status.skipped["LATE"] += 1
    assert client.get("/status").json()["skipped"] == {"LATE": 1}
    lines = client.get("/metrics").text.splitlines()
    assert 'edgora_allocd_answers_total{node="3",outcome="proposed",policy="exact"} 1.0' in lines
    assert 'edgora_allocd_answers_total{node="3",outcome="LATE",policy="exact"} 1.0' in lines
    assert 'edgora_allocd_solver_seconds_sum{node="3",policy="exact"} 0.012' in lines
    assert 'edgora_allocd_ready{node="3",policy="exact"} 1.0' in lines


def _allocation() -> rules.Allocation:
    return rules.Allocation(1, bytes(32), (), bytes(16), None, "exact", 12)


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    server = subprocess.Popen(
        [
            binary,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert any("Ready to accept connections" in line for line in server.stdout)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(10)
        server.stdout.close()


async def is_ready(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx2.TransportError:
        return False


async def test_the_service_from_the_command_line(redis_url: str, tmp_path: Path) -> None:
    """Process, Redis, a round, its answer, health, SIGTERM: exit 0."""
    import time

    port, log = free_port(), tmp_path / "log"
    with log.open("wb") as stderr:
        service = subprocess.Popen(
            [
                sys.executable, "-m", "edgora.allocator.allocd", "--redis", redis_url, "--node", "3", "--policy", "exact",
                "--solve-ms", "20000", "--port", str(port),
            ],
            stderr=stderr,
        )  # fmt: skip
    bus = RedisBus(redis_url)
    try:
        # A budget counts from sent_ms, so the round is asked once the service says that it is ready.
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", transport=httpx2.AsyncHTTPTransport()
        ) as client:
            while not await is_ready(client):
                assert service.poll() is None, log.read_text()
                await asyncio.sleep(0.1)
        await ask(bus, 4, sent_ms=time.time_ns() // 10**6)
        (answer,) = await answers(bus, 1)
        assert isinstance(answer, Proposed), log.read_text()
        assert answer.allocation.bound is not None
        assert 0 <= from_u128(answer.allocation.bound) - from_u128(answer.allocation.value) <= 1
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/status")).json()["proposed"] == 1
    finally:
        await bus.close()
        service.send_signal(signal.SIGTERM)
        code = service.wait(20)
    assert code == 0, log.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "nothing"], "no solver 'nothing'"),
        (["--policy", "exact", "--redis", "ftp://x"], "redis url"),
        (["--policy", "exact", "--node", "x"], "invalid int value"),
        ([], "--policy"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_exits_with_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["--redis", "redis://127.0.0.1:1/0", "--node", "0", "--port", str(free_port())]
    try:
        code = service_main([*base, *arguments])
    except SystemExit as usage:  # argparse's way
        code = int(str(usage.code))
    assert code == 2
    assert said in capsys.readouterr().err


def test_a_port_in_use_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        base = ["--redis", "redis://127.0.0.1:1/0", "--node", "0", "--policy", "greedy-global"]
        assert service_main([*base, "--port", port]) == 1
    assert f"allocd: cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_warm_up_makes_even_exact_search() -> None:
    from edgora.allocator.allocd.child import WARM_UP

    live = LiveRound(WARM_UP)
    table = live.table
    assert table.priced_bound(np.zeros(table.n)) > table.worth(table.fill(table.rejected()))
