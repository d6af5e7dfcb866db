"""Results: pay and no pay by code, Held, lateness, tasks that go back to OPEN, credit and reputation (market.md 5, 6)."""

import pytest
from msgspec.structs import replace

from edgora.market.duties import may_fetch_input, may_hold_result, may_serve_result, runs_owed
from edgora.wire.codec import from_u96
from edgora.wire.ledger import Kind
from edgora.wire.market import Code, ResultCode, ResultHash, TaskState, code_name
from edgora.wire.market_events import CreditChanged, ResultFiled, ServerNotLive, TaskFinal, TaskReopened
from unit.market.world import PAID, TEST_PARAMS, UNPAID, World


@pytest.fixture
def world():
    """Servers 0, 1 and 2 run tasks whose source is 3, which itself is too dear."""
    w = World()
    w.advertise()
    w.advertise(3, ask=10**6)
    w.ue = w.funded_ue()
    return w


def plain(world, **fields):
    """An assigned task that nobody will audit."""
    return world.assigned(world.ue, flags=0, **{"source": 3, **fields})


def code(outcome) -> str:
    return code_name(outcome.code)


@pytest.mark.parametrize("result", PAID)
def test_paid_codes_are_paid_by_the_fuel_used_and_split_to_the_wei(world, result):
    offer_id = plain(world, price=333, fuel_limit=7_777_777)
    assert world.file(offer_id, code=result, fuel_used=3_333_331).code == 0
    assert world.task(offer_id).state == TaskState.FINAL  # no audit flag: final at once
    event = [e for e in world.events if isinstance(e, TaskFinal)][-1]
    amount = 3_333_331 * 333 * 1000
    assert from_u96(event.amount) == amount
    assert from_u96(event.source_share) == amount * 1000 // 10_000
    assert from_u96(event.source_share) + from_u96(event.executor_share) == amount


def test_lambda_dust_goes_to_the_executor():
    w = World(params=replace(TEST_PARAMS, lambda_bps=3_333))
    w.advertise()
    offer_id = w.assigned(w.funded_ue(), flags=0, price=51)
    w.file(offer_id, fuel_used=7)
    event = [e for e in w.events if isinstance(e, TaskFinal)][-1]
    assert (from_u96(event.source_share), from_u96(event.executor_share)) == (118_988, 357_000 - 118_988)


def test_only_the_executor_files_and_only_once(world):
    offer_id = plain(world)
    executor = world.task(offer_id).executor
    other = world.seller((executor + 1) % 4)
    filing = other.result(offer_id, seen_ms=world.now_ms, holders=world.others(other.id, 2))
    assert code(world.send(other.key, Kind.RESULT_HASH, filing)) == "NOT_YOURS"
    assert code(world.send(world.ue.key, Kind.RESULT_HASH, filing)) == "NOT_A_SERVER"
    unknown = replace(filing, offer_id=b"x" * 32)
    assert code(world.send(other.key, Kind.RESULT_HASH, unknown)) == "TASK_UNKNOWN"
    assert world.file(offer_id).code == 0
    assert code(world.file(offer_id)) == "RESULT_GIVEN"


def test_fuel_and_code_are_bounded(world):
    offer_id = plain(world, fuel_limit=1_000_000)
    assert code(world.file(offer_id, fuel_used=1_000_001)) == "FUEL_OVER"
    assert code(world.file(offer_id, fuel_used=1, code=10)) == "RESULT_CODE"
    assert code(world.file(offer_id, fuel_used=1, code=ResultCode.NO_KEY)) == "RESULT_CODE"
    assert world.file(offer_id, fuel_used=1_000_000).code == 0


# ---- Held --------------------------------------------------------------------------------------------------------------


def file(world, offer_id, **change):
    executor = world.task(offer_id).executor
    seller = world.seller(executor)
    good = seller.result(offer_id, seen_ms=world.now_ms, holders=world.others(executor, 3))
    return world.send(seller.key, Kind.RESULT_HASH, replace(good, **change))


def test_f_plus_1_others_must_hold_the_result(world):
    offer_id = plain(world)
    executor = world.task(offer_id).executor
    seller, others = world.seller(executor), world.others(executor, 3)
    good = seller.result(offer_id, seen_ms=world.now_ms, holders=others)
    mine = seller.held(offer_id, good.result_digest, good.cipher_digest, world.now_ms)
    another_digest = world.seller(others[1]).held(offer_id, b"d" * 32, good.cipher_digest, world.now_ms)
    another_cipher = world.seller(others[1]).held(offer_id, good.result_digest, b"c" * 32, world.now_ms)
    another_time = replace(good.held[1], seen_ms=world.now_ms + 1)
    another_name = replace(good.held[1], server=others[2])
    unknown = replace(good.held[1], server=60)
    for second in (None, good.held[0], mine, another_digest, another_cipher, another_time, another_name, unknown):
        held = (good.held[0],) if second is None else (good.held[0], second)
        outcome = file(world, offer_id, held=held)
        assert (code(outcome), world.task(offer_id).state) == ("HELD_SHORT", TaskState.ASSIGNED)
    assert code(file(world, offer_id, cipher_digest=None)) == "AUDIT_FORM"
    assert code(file(world, offer_id, held=good.held[:2])) == "OK"
    assert world.task(offer_id).result.holders == tuple(sorted(others[:2]))


def test_a_servers_second_word_does_not_count(world):
    offer_id = plain(world)
    executor = world.task(offer_id).executor
    good = world.seller(executor).result(offer_id, seen_ms=world.now_ms, holders=world.others(executor, 2))
    broken = replace(good.held[1], signature=bytes(65))
    assert code(file(world, offer_id, held=(good.held[0], broken, good.held[1]))) == "HELD_SHORT"


def test_done_is_when_the_last_holder_saw_it_but_not_later_than_the_block(world):
    offer_id = plain(world)
    executor = world.task(offer_id).executor
    a, b = world.others(executor, 2)
    seller = world.seller(executor)
    base = seller.result(offer_id, seen_ms=world.now_ms, holders=())
    start = world.now_ms

    def held(number, at):
        return world.seller(number).held(offer_id, base.result_digest, base.cipher_digest, at)

    world.run(3_000)  # a censoring primary
    filing = replace(base, held=(held(a, start + 70), held(b, start + 90)))
    assert world.send(seller.key, Kind.RESULT_HASH, filing).code == 0
    assert world.task(offer_id).result.done_ms == start + 90
    late = plain(world)
    executor = world.task(late).executor
    world.file(late, seen_ms=world.now_ms + 10**9)
    assert world.task(late).result.done_ms == world.now_ms


def test_unpaid_codes_need_no_holders(world):
    offer_id = plain(world)
    assert world.send(
        world.seller(world.task(offer_id).executor).key, Kind.RESULT_HASH,
        ResultHash(offer_id, ResultCode.BAD_INPUT, bytes(32), 0),
    ).code == 0  # fmt: skip


# ---- lateness ----------------------------------------------------------------------------------------------------------


def only(world, *numbers):
    """Everybody else is too dear, so that nobody else can take a task over."""
    world.advertise(*(i for i in range(4) if i not in numbers), ask=10**6)


def test_a_result_that_was_done_after_the_deadline_is_late(world):
    only(world, 0)
    offer_id = plain(world)
    deadline = world.task(offer_id).offer.deadline_ms
    world.run(deadline + 100 - world.now_ms)
    before = world.server(0)
    assert world.file(offer_id, seen_ms=deadline + 1).code == 0
    task, server = world.task(offer_id), world.server(0)
    assert (task.state, task.cause, task.reason.code) == (TaskState.REFUNDED, TaskState.LATE, "DONE_LATE")
    assert world.market.account(world.ue.address).reserved == 0
    assert (server.late, server.credit, server.used) == (1, before.credit // 2, 0)
    assert server.actual_ms - before.actual_ms == 4 * task.offer.desired_ms
    assert not world.market.is_live(server)
    assert not may_serve_result(world.market, offer_id)


def test_a_result_done_in_time_may_be_filed_until_file_ms_after_the_deadline(world):
    only(world, 0)
    offer_id = plain(world)
    deadline = world.task(offer_id).offer.deadline_ms
    world.run(deadline + world.market.params.file_ms - world.now_ms - 50)
    assert world.file(offer_id, seen_ms=deadline).code == 0
    assert world.task(offer_id).state == TaskState.FINAL
    assert may_serve_result(world.market, offer_id)


def test_after_file_ms_nothing_is_taken_and_the_task_is_late(world):
    only(world, 0)
    offer_id = plain(world)
    deadline = world.task(offer_id).offer.deadline_ms
    world.run(deadline + world.market.params.file_ms - world.now_ms)
    assert world.task(offer_id).state == TaskState.ASSIGNED
    assert code(world.file(offer_id, seen_ms=deadline)) == "FILING_CLOSED"
    assert (world.task(offer_id).cause, world.task(offer_id).reason.code) == (TaskState.LATE, "NOTHING_FILED")
    assert world.server(0).used == 0


def test_a_silent_executor_loses_the_task_to_another_one_once(world):
    offer_id = plain(world, deadline_ms=world.now_ms + 600_000)
    task = world.task(offer_id)
    first = task.executor
    due = task.assigned_ms + task.expected_ms + 500 + world.market.params.file_ms
    world.run(due - world.now_ms)
    assert world.task(offer_id).state == TaskState.ASSIGNED
    assert world.market.wake_at() == due + 1
    world.run(1)
    assert world.task(offer_id).state == TaskState.OPEN
    assert world.server(first).late == 1
    assert world.server(first).used == 0
    assert [e.reason.code for e in world.events if isinstance(e, TaskReopened)] == ["OVERDUE"]
    assert [(e.server, e.reason.code) for e in world.events if isinstance(e, ServerNotLive)] == [(first, "REOPENED")]
    second = world.until_state(offer_id, TaskState.ASSIGNED).executor
    assert second != first
    assert code(world.send(world.seller(first).key, Kind.RESULT_HASH, world.seller(first).result(
        offer_id, seen_ms=world.now_ms, holders=world.others(first, 2)))) == "NOT_YOURS"  # fmt: skip
    world.run(60_000)  # the second one is silent too: no third chance before the deadline's end
    assert world.task(offer_id).executor == second
    world.run_until(lambda: world.task(offer_id).state == TaskState.REFUNDED, 700_000)
    assert world.server(second).late == 1


def test_a_silent_executor_keeps_the_task_if_nobody_else_could_take_it(world):
    only(world, 0)
    offer_id = plain(world, deadline_ms=world.now_ms + 600_000)
    world.run(100_000)
    assert world.task(offer_id).state == TaskState.ASSIGNED
    assert world.server(0).late == 0
    assert world.file(offer_id).code == 0


# ---- codes that pay nothing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", UNPAID)
def test_a_first_unpaid_code_sends_the_task_to_another_server(world, result):
    offer_id = plain(world)
    first = world.task(offer_id).executor
    assert world.file(offer_id, code=result, fuel_used=0).code == 0
    assert world.task(offer_id).state == TaskState.OPEN
    assert world.task(offer_id).result is None
    late = result == ResultCode.WALL
    assert world.server(first).late == late
    assert world.server(first).credit == (10**9 if late else 2 * 10**9)
    assert not world.market.is_live(world.server(first))
    second = world.until_state(offer_id, TaskState.ASSIGNED).executor
    assert second != first
    assert world.file(offer_id, code=result, fuel_used=0).code == 0
    task = world.task(offer_id)
    assert (task.state, task.cause, task.reason.code) == (TaskState.REFUNDED, TaskState.FAILED, result.name)
    assert world.server(second).failed == 1
    assert world.market.account(world.ue.address).reserved == 0


@pytest.mark.parametrize("result", UNPAID)
def test_an_unpaid_code_fails_the_task_if_nobody_else_could_take_it(world, result):
    only(world, 0)
    offer_id = plain(world)
    assert world.file(offer_id, code=result, fuel_used=0).code == 0
    assert world.task(offer_id).cause == TaskState.FAILED
    assert world.server(0).used == 0


@pytest.mark.parametrize("result", [ResultCode.BAD_INPUT, ResultCode.BAD_MODULE])
def test_who_calls_a_good_task_bad_is_late(world, result):
    offer_id = plain(world)
    first = world.task(offer_id).executor
    world.file(offer_id, code=result, fuel_used=0)
    assert world.server(first).late == 0
    world.until_state(offer_id, TaskState.ASSIGNED)
    world.file(offer_id)
    assert world.task(offer_id).state == TaskState.FINAL
    assert world.server(first).late == 1
    assert world.server(first).credit == 10**9


def test_unavailable_is_nobodys_fault_but_bans_the_pair_for_ten_minutes(world):
    only(world, 0)
    offer_id = plain(world)
    assert world.file(offer_id, code=ResultCode.UNAVAILABLE, fuel_used=0).code == 0
    banned_at = world.now_ms
    assert (world.server(0).late, world.server(0).actual_ms) == (0, 0)
    world.advertise(0)
    world.advertise(3, ask=10**6)
    other_source = plain(world, source=2)
    assert world.task(other_source).executor == 0
    world.file(other_source)
    waiting = world.submit(world.ue, source=3, flags=0, deadline_ms=world.now_ms + 900_000)
    assert world.market.round_state() is None
    assert world.market.wake_at() == banned_at + 600_000
    world.run_until(lambda: world.task(waiting).state == TaskState.ASSIGNED, 700_000)
    assert world.now_ms == banned_at + 600_000 + 150


def test_bad_input_after_the_deadline_is_late_and_wall_time_fails(world):
    for result, cause in ((ResultCode.BAD_INPUT, TaskState.LATE), (ResultCode.WALL, TaskState.FAILED)):
        only(world, 0)
        world.advertise(0)  # it was not live after its fault
        offer_id = plain(world)
        world.run(world.task(offer_id).offer.deadline_ms + 100 - world.now_ms)
        world.file(offer_id, code=result, fuel_used=0)
        assert world.task(offer_id).cause == cause
        assert world.task(offer_id).state == TaskState.REFUNDED
    assert world.server(0).late == 2


# ---- credit and reputation -----------------------------------------------------------------------------------------------


def test_credit_grows_by_work_done_in_time_and_halves_down_to_the_probe():
    w = World(params=replace(TEST_PARAMS, probe=600_000_000))
    w.advertise()
    ue = w.funded_ue()
    w.advertise(1, 2, 3, ask=10**6)
    offer_id = w.assigned(ue, flags=0)
    w.file(offer_id, fuel_used=4_444_444)
    assert w.server(0).credit == 2 * 10**9 + 4_444_444
    start = w.now_ms
    for expected in (1_002_222_222, 600_000_000, 600_000_000):
        offer_id = w.assigned(ue, flags=0)
        w.file(offer_id, code=ResultCode.WALL, fuel_used=0)
        assert w.server(0).credit == expected
    last = w.now_ms
    assert last > start
    w.run(599_999)
    assert w.server(0).credit == 600_000_000
    w.run(1)
    assert w.server(0).credit == 2 * 10**9
    credits = [(e.reason.code, e.credit) for e in w.events if isinstance(e, CreditChanged)]
    assert credits[0] == ("DONE", 2_004_444_444)
    assert credits[-1] == ("RECOVERED", 2 * 10**9)


def test_reputation_sums_measure_from_the_assignment_to_done(world):
    offer_id = plain(world, desired_ms=777)
    executor = world.task(offer_id).executor
    assigned = world.task(offer_id).assigned_ms
    world.run(1_234)
    world.file(offer_id, seen_ms=assigned + 1_000)
    server = world.server(executor)
    assert (server.desired_ms, server.actual_ms, server.done) == (777, 1_000, 1)
    again = plain(world, desired_ms=777)
    executor = world.task(again).executor
    before = world.server(executor).actual_ms
    world.file(again, seen_ms=0)  # holders' clocks may be behind the ledger's: never less than a millisecond
    assert world.server(executor).actual_ms - before == 1


# ---- duties beside it ----------------------------------------------------------------------------------------------------


def test_the_state_says_who_runs_what_and_who_may_have_what(world):
    offer_id = plain(world, source=3)
    executor = world.task(offer_id).executor
    other = (executor + 1) % 4
    assert [duty.offer_id for duty in runs_owed(world.market, executor)] == [offer_id]
    assert runs_owed(world.market, other) == []
    assert may_fetch_input(world.market, offer_id, executor)
    assert not may_fetch_input(world.market, offer_id, other)
    assert may_hold_result(world.market, offer_id, executor)
    assert not may_hold_result(world.market, offer_id, other)
    assert not may_serve_result(world.market, offer_id)
    world.file(offer_id)
    assert may_serve_result(world.market, offer_id)
    assert not may_hold_result(world.market, offer_id, executor)
    assert not may_fetch_input(world.market, offer_id, executor)
    event = [e for e in world.events if isinstance(e, ResultFiled)][-1]
    assert (event.executor, event.witness, event.holders) == (executor, None, world.task(offer_id).result.holders)


def test_codes_that_a_client_may_meet_are_all_named():
    assert {code_name(c) for c in Code} == {c.name for c in Code}
    assert code_name(999) == "CODE_999"
