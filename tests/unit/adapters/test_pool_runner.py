"""The pool runner: slots, pace, cancelling, closing. Time is the test's own."""

import asyncio

import pytest

from edgora.adapters.pool_runner import PoolRunner
from edgora.compute.engine import assemble, compile_module
from edgora.compute.limits import Limits, Outcome
from edgora.compute.module import BadModule, module_digest
from edgora.compute.sandbox import Sandbox
from edgora.ports.runner import Job, Runner
from edgora.wire import kernels
from edgora.wire.errors import Unavailable
from edgora.wire.inputs import TaskInput
from edgora.wire.market import ResultCode

SPIN = kernels.load("spin")
ENDLESS = assemble("""(module (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (i32.const 8))
  (func (export "run") (param i32 i32) (result i64) (loop $l (br $l)) (i64.const 0)))""")


class VirtualTime:
    """A clock in seconds and a sleep that ends when the test says so."""

    def __init__(self):
        self.now = 0.0
        self.sleepers = []

    def clock(self):
        return self.now

    async def sleep(self, seconds):
        woken = asyncio.get_running_loop().create_future()
        entry = (self.now + seconds, woken)
        self.sleepers.append(entry)
        try:
            await woken
        finally:
            self.sleepers.remove(entry)

    async def sleeping(self, count):
        while len(self.sleepers) < count:
            await asyncio.sleep(0)

    def move(self, seconds):
        self.now += seconds
        for due, woken in self.sleepers:
            if due <= self.now and not woken.done():
                woken.set_result(None)


@pytest.fixture
def time():
    return VirtualTime()


@pytest.fixture
async def runner(time):
    made = PoolRunner(Sandbox(compiler=compile_module, clock=time.clock), 2, clock=time.clock, sleep=time.sleep)
    yield made
    await made.close()


def spin(rounds=1000, speed=1_000_000, seed=1):
    plaintext = TaskInput(SPIN.manifest.pack({"rounds": rounds, "seed": seed}), b"").pack()
    return Job(SPIN.digest, SPIN.wasm, plaintext, Limits(10**9, 4, 8, 60_000), speed)


def endless(speed=10**12):
    return Job(module_digest(ENDLESS), ENDLESS, TaskInput(b"", b"").pack(), Limits(10**12, 4, 8, 600_000), speed)


async def finished(runner, time, job):
    """Run a job that is due after at most a second."""
    task = asyncio.create_task(runner.run(job))
    await time.sleeping(1)
    time.move(1)
    return await task


def is_a_runner(runner: Runner) -> Runner:
    return runner


async def test_a_result_is_released_at_the_pace_of_its_speed(runner, time):
    job = asyncio.create_task(is_a_runner(runner).run(spin(1000, speed=10_000)))
    await time.sleeping(1)
    fuel = 20_099  # of 1000 rounds
    ((due, _),) = time.sleepers
    assert due == pytest.approx(-(-1000 * fuel // 10_000) / 1000)
    time.move(due - 0.001)
    await asyncio.sleep(0)
    assert not job.done()
    time.move(0.002)
    outcome = await job
    assert (outcome.code, outcome.fuel_used) == (ResultCode.OK, fuel)


async def test_a_run_that_took_longer_than_its_pace_is_released_at_once(time):
    class Slow:
        def run(self, *_, **__):
            time.now += 5.0
            return Outcome(code=ResultCode.OK, output=b"", fuel_used=1000, wall_ms=5000)

    runner = PoolRunner(Slow(), 1, clock=time.clock, sleep=time.sleep)
    assert (await runner.run(spin(speed=1000))).wall_ms == 5000
    assert time.sleepers == []
    await runner.close()


async def test_a_slot_is_busy_until_its_result_is_released(runner, time):
    jobs = [asyncio.create_task(runner.run(spin(1000, speed=10_000, seed=i))) for i in range(5)]
    for finished in (0, 2, 4):
        await time.sleeping(min(2, 5 - finished))
        assert sum(job.done() for job in jobs) == finished
        assert len(time.sleepers) <= 2
        time.move(10)
        await asyncio.sleep(0)
    outputs = {outcome.output for outcome in await asyncio.gather(*jobs)}
    assert len(outputs) == 5


async def test_a_cancelled_run_stops_and_frees_its_slot(runner, time):
    jobs = [asyncio.create_task(runner.run(endless())) for _ in range(2)]
    while len(runner._running) < 2:
        await asyncio.sleep(0)
    for job in jobs:
        job.cancel()
    for job in jobs:
        with pytest.raises(asyncio.CancelledError):
            await job
    assert (await finished(runner, time, spin(10))).code is ResultCode.OK


async def test_a_job_that_is_cancelled_in_its_queue_never_runs(runner, time):
    first = [asyncio.create_task(runner.run(spin(1000, speed=1000, seed=i))) for i in range(2)]
    await time.sleeping(2)
    waiting = asyncio.create_task(runner.run(endless()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    time.move(100)
    assert all(outcome.code is ResultCode.OK for outcome in await asyncio.gather(*first))


async def test_cancelling_while_paced_frees_the_slot(runner, time):
    jobs = [asyncio.create_task(runner.run(spin(1000, speed=1, seed=i))) for i in range(2)]
    await time.sleeping(2)
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
    assert (await finished(runner, time, spin(10))).code is ResultCode.OK


async def test_closing_stops_what_runs_and_takes_nothing_more(time):
    runner = PoolRunner(Sandbox(compiler=compile_module), 1)
    running = asyncio.create_task(runner.run(endless()))
    waiting = asyncio.create_task(runner.run(spin()))
    while not runner._running:
        await asyncio.sleep(0)
    await runner.close()
    for job in (running, waiting):
        with pytest.raises(Unavailable):
            await job
    with pytest.raises(Unavailable):
        await runner.run(spin())


async def test_every_end_is_an_outcome(runner):
    bad = Job(bytes(32), None, b"", Limits(10, 1, 1, 1), 1)
    assert (await runner.run(bad)).code is ResultCode.BAD_INPUT
    unknown = Job(bytes(32), None, TaskInput(b"", b"").pack(), Limits(10, 1, 1, 1), 1)
    assert (await runner.run(unknown)).code is ResultCode.UNAVAILABLE


async def test_prepared_modules_run_by_digest(runner, time):
    digest = module_digest(ENDLESS)
    assert not runner.knows(digest)
    info = await runner.prepare(ENDLESS)
    assert info.digest == digest
    assert runner.knows(digest)
    job = Job(digest, None, TaskInput(b"", b"").pack(), Limits(1000, 4, 8, 60_000), 10**9)
    assert (await finished(runner, time, job)).code is ResultCode.OUT_OF_FUEL
    with pytest.raises(BadModule):
        await runner.prepare(b"\0asm\x01\0\0\0")


def test_a_job_does_not_show_its_input():
    job = Job(bytes(32), b"code", b"a secret input", Limits(1, 1, 1, 1), 1)
    assert "secret" not in repr(job)


def test_a_runner_has_at_least_one_slot():
    with pytest.raises(ValueError, match="0 slots"):
        PoolRunner(Sandbox(), 0)
