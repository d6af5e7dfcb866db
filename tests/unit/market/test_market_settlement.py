"""Batches: when they freeze, what they hold, how they are certified, settled, skipped (market.md 6, contracts.md 6, 9)."""

import pytest
from msgspec.structs import replace

from edgora.crypto.sign import recover
from edgora.market.duties import refundable_locks, settlement_duty
from edgora.wire.codec import from_u96
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Kind
from edgora.wire.market import BatchSettled, Code, ResultCode, SettlementPayload, TaskState, code_name
from edgora.wire.market_events import BatchClosed, BatchFrozen, TaskEnded, TaskRequeued, TaskSettled
from edgora.wire.settlement import (
    BURN,
    MAX_PAYLOAD,
    Batch,
    Voucher,
    decode_payload,
    line_amount,
    lock_key,
    payload_gas,
    task_root,
)
from unit.market.world import TEST_PARAMS, World

SLOW_BATCH = replace(TEST_PARAMS, batch_ms=60_000, margin_ms=600_000)


@pytest.fixture
def world():
    """A world in which something is always under way, so that no batch freezes for idleness."""
    return busy(SLOW_BATCH)


def busy(params, **fields):
    w = World(params=params)
    w.ue = w.funded_ue(10**19)
    w.waiting = w.submit(w.ue, price=40, source=3, flags=0, deadline_ms=w.now_ms + 3_000_000)
    w.advertise(**fields)  # for more than it bids
    w.advertise(3, ask=10**6)
    return w


def final(w, ue=None, **fields):
    w.see_chain()
    offer_id = w.assigned(ue or w.ue, **{"source": 3, "flags": 0, "deadline_ms": w.now_ms + 100_000, **fields})
    assert w.file(offer_id).code == 0
    assert w.task(offer_id).state in {TaskState.FINAL, TaskState.CERTIFIED}
    return offer_id


def frozen(w) -> BatchFrozen | None:
    return next((e for e in reversed(w.events) if isinstance(e, BatchFrozen)), None)


# ---- freezing ------------------------------------------------------------------------------------------------------------


def test_a_batch_freezes_when_nothing_is_under_way():
    w = World()
    w.advertise()
    offer_id = w.assigned(w.funded_ue(), flags=0)
    assert w.market.batch() is None
    w.file(offer_id)
    assert frozen(w).reason.code == "IDLE"
    assert w.task(offer_id).batch == 1


def test_a_batch_freezes_batch_ms_after_the_oldest_ended(world):
    final(world)
    oldest = world.now_ms
    assert world.market.batch() is None
    final(world)
    world.run(oldest + 59_999 - world.now_ms)
    assert world.market.batch() is None
    world.run(1)
    assert frozen(world).reason.code == "AGE"
    assert frozen(world).lines == 2


def test_a_batch_freezes_once_100_wait():
    w = busy(replace(SLOW_BATCH, credit0=10**14), slots=10_000, capacity=10**14)
    ids = []
    for _ in range(20):
        ids += [w.submit(w.ue, source=3, flags=0, deadline_ms=w.now_ms + 100_000) for _ in range(5)]
    w.run_until(lambda: all(w.task(x).state == TaskState.ASSIGNED for x in ids))
    for x in ids[:-1]:
        w.file(x)
    assert w.market.batch() is None
    assert len(list(w.market.queue())) == 99
    w.file(ids[-1])
    assert (frozen(w).reason.code, frozen(w).lines) == ("FULL", 100)
    assert len(list(w.market.queue())) == 0


def test_a_batch_freezes_half_a_margin_before_the_first_money_expires():
    """Only a line that was skipped comes so close: batch_ms is part of what a voucher must outlive."""
    w = busy(replace(TEST_PARAMS, batch_ms=600_000))
    ue = w.funded_ue()
    w.see_chain()
    offer = w.offer(ue, source=3, flags=0, deadline_ms=w.now_ms + 2_000)
    half = w.market.params.margin_ms // 2
    until_s = -(-(w.market.core.end_ms(offer.deadline_ms) + 2 * half) // 1000)
    offer_id = w.accepted(ue.key, Kind.TASK, ue.task(offer, ue.voucher(10**18, until_s)))
    w.until_state(offer_id, TaskState.ASSIGNED)
    assert w.file(offer_id).code == 0
    w.run(600_000)
    assert frozen(w).reason.code == "AGE"
    w.run(until_s * 1000 - half - 1_000 - w.now_ms)
    assert skip(w, ue)[-1].code == 0
    assert w.task(offer_id).state == TaskState.FINAL
    assert w.market.wake_at() == until_s * 1000 - half
    w.run_until(lambda: w.market.batch() is not None)
    assert (frozen(w).reason.code, w.now_ms) == ("EXPIRY", until_s * 1000 - half)


def test_a_skipped_line_whose_voucher_is_about_to_end_is_unpayable():
    w = busy(replace(TEST_PARAMS, batch_ms=600_000))
    offer_id = final(w)
    w.run(600_000)
    until_s = w.market.account(w.ue.address).voucher.valid_until_s
    w.run(until_s * 1000 - w.market.params.margin_ms // 2 - w.now_ms)
    skip(w, w.ue)
    ended = [e for e in w.events if isinstance(e, TaskEnded)]
    assert [(e.offer_id, e.state) for e in ended if e.state == TaskState.UNPAYABLE] == [(offer_id, TaskState.UNPAYABLE)]
    assert w.market.task(offer_id) is None  # an hour after its deadline, and at its end


def test_one_batch_at_a_time(world):
    first = final(world)
    world.run(60_000)
    assert world.market.batch().record.id == 1
    second = final(world)
    world.run(100_000)
    assert world.task(second).batch == 0
    world.settle()
    assert world.task(first).state == TaskState.SETTLED
    assert world.market.batch().record.id == 2


# ---- what a batch holds ---------------------------------------------------------------------------------------------------


def test_the_payload_pays_each_line_from_its_ues_voucher_or_lock(world):
    other = world.funded_ue()
    ids = [final(world), final(world, other), final(world)]
    locked = world.submit_locked(other, source=3, flags=2, deadline_ms=world.now_ms + 100_000)
    world.until_state(locked, TaskState.ASSIGNED)
    world.file(locked)
    world.run(60_000)
    view = world.market.batch()
    payload = decode_payload(view.record.payload, 4)
    vouchers = [world.market.account(u.address).voucher for u in (world.ue, other)]
    assert [(s.signature, s.cap) for s in payload.sections] == [(v.signature, from_u96(v.cap)) for v in vouchers]
    for section, ue in zip(payload.sections, (world.ue, other), strict=True):
        digest = Voucher(section.cap, section.valid_until).digest(world.consortium.market_domain)
        assert recover(digest, section.signature) == ue.address
    assert [len(s.lines) for s in payload.sections] == [2, 1]
    assert [lock.key for lock in payload.locks] == [lock_key(other.address, locked)]
    ids_of = [server.id for server in payload.servers]
    for task_id, line in zip([ids[0], ids[2]], payload.sections[0].lines, strict=True):
        task = world.task(task_id)
        assert (ids_of[line.receiver], ids_of[line.executor]) == (3, task.executor)
        assert line_amount(line) == 5_000_000 * 100 * 1000
    assert sum(s.desired_ms for s in payload.servers) == 4_000
    assert payload.penalties == ()


def test_the_digest_names_chain_contract_number_leaves_and_payload(world):
    final(world)
    world.run(60_000)
    view = world.market.batch()
    record = view.record
    assert task_root(view.leaves) == record.task_root
    batch = Batch(31_337, world.genesis.market_address, 1, record.task_root, keccak(record.payload))
    assert record.hash == batch.struct_hash()
    leaf, task = view.leaves[0], world.task(record.lines[0])
    assert (leaf.offer, leaf.ue, leaf.receiver, leaf.executor) == (task.offer_id, task.offer.ue, 3, task.executor)
    assert (leaf.fuel, leaf.price, leaf.desired_ms) == (5_000_000, 100, 1_000)
    assert leaf.actual_ms == max(1, task.result.done_ms - task.assigned_ms)
    assert leaf.result_digest == task.result.filing.result_digest
    assert (frozen(world).octets, frozen(world).gas) == (
        len(record.payload),
        payload_gas(decode_payload(record.payload, 4)),
    )


def test_tasks_without_pay_enter_the_server_table_and_nothing_else():
    w = busy(SLOW_BATCH)
    w.advertise(1, 2, ask=10**6)
    offer_id = w.assigned(w.ue, source=3, flags=0, desired_ms=500)
    executor = w.task(offer_id).executor
    w.file(offer_id, code=ResultCode.WALL, fuel_used=0)
    assert w.task(offer_id).cause == TaskState.FAILED
    w.run(60_000)
    payload = decode_payload(w.market.batch().record.payload, 4)
    assert [tuple(server) for server in payload.servers] == [(executor, 500, 2_000)]
    assert (payload.sections, payload.locks) == ((), ())
    w.settle()
    assert w.market.batch() is None


def test_penalties_of_disputes_travel_with_the_batch():
    w = World(params=replace(TEST_PARAMS, audit_bps=10_000, audit_pay=1_001))
    w.advertise()
    w.advertise(3, ask=10**6)
    offer_id = w.assigned(w.funded_ue(), source=3)
    w.file(offer_id, output=b"lie")
    w.draw(offer_id)
    executor, auditors = w.task(offer_id).executor, w.auditors(offer_id)
    for number in auditors:
        w.file_audit(offer_id, number)
    payload = decode_payload(w.market.batch().record.payload, 4)
    place = {i: server.id for i, server in enumerate(payload.servers)} | {BURN: None}
    assert {(p.server, place[p.beneficiary], p.wei) for p in payload.penalties} == {
        (executor, auditors[0], 500), (executor, auditors[1], 500), (executor, None, 1),
    }  # fmt: skip
    assert payload.sections == ()
    w.settle()


def test_a_batch_holds_255_lines_a_ue_and_the_rest_waits():
    w = busy(replace(SLOW_BATCH, credit0=10**14), slots=10_000, capacity=10**14)
    w.watch = None  # hundreds of tasks; the checker runs again at the end
    more = w.funded_ue(10**19)
    first = final(w)
    w.run(60_000)
    assert w.market.batch() is not None  # while this one is unsettled, the queue grows
    ids = []
    for k in range(260):
        ids.append(w.submit(w.ue if k != 100 else more, source=3, flags=0, deadline_ms=w.now_ms + 200_000))
        if k % 50 == 49:
            w.run(1_000)
    w.run_until(lambda: all(w.task(x).state == TaskState.ASSIGNED for x in ids))
    for x in ids:
        w.file(x)
    w.settle()
    assert w.task(first).state == TaskState.SETTLED
    payload = decode_payload(w.market.batch().record.payload, 4)
    assert [len(s.lines) for s in payload.sections] == [255, 1]
    assert len(list(w.market.queue())) == 4
    assert len(w.market.batch().record.payload) <= MAX_PAYLOAD
    w.settle()
    w.run(60_000)
    assert len(w.market.batch().record.lines) == 4


def test_latency_sums_of_a_batch_stay_below_2_to_the_31():
    w = busy(replace(SLOW_BATCH, credit0=10**14), slots=10_000, capacity=10**14)
    w.watch = None
    w.advertise(1, 2, ask=10**6)
    blocker = final(w)
    w.run(60_000)
    assert w.task(blocker).batch == 1
    per_task = 3_600_000  # 4 x this for each late one: 149 of them fit below 2^31
    ids = []
    for k in range(160):
        ids.append(w.submit(w.ue, source=3, flags=0, desired_ms=per_task, deadline_ms=w.now_ms + 300_000))
        if k % 40 == 39:
            w.run(500)
    w.run_until(lambda: all(w.task(x).state == TaskState.ASSIGNED for x in ids))
    for x in ids:
        w.file(x, code=ResultCode.WALL, fuel_used=0)
    w.settle()
    payload = decode_payload(w.market.batch().record.payload, 4)
    row = next(server for server in payload.servers if server.actual_ms)
    assert row.actual_ms == (2**31 - 1) // (4 * per_task) * 4 * per_task
    assert len(list(w.market.queue())) == 160 - row.actual_ms // (4 * per_task)


# ---- certification -------------------------------------------------------------------------------------------------------


def test_any_validator_certifies_by_equality_and_the_output_is_the_digest(world):
    offer_id = final(world)
    nothing = SettlementPayload(1, bytes(32))
    keys = world.consortium.keys
    assert world.send(keys[0], Kind.SETTLEMENT, nothing).code == Code.NO_BATCH
    world.run(60_000)
    record = world.market.batch().record
    right = SettlementPayload(1, record.hash)
    assert world.send(world.ue.key, Kind.SETTLEMENT, right).code == Code.NOT_A_VALIDATOR
    for wrong in (SettlementPayload(2, record.hash), SettlementPayload(1, bytes(32))):
        assert world.send(keys[0], Kind.SETTLEMENT, wrong).code == Code.WRONG_BATCH
    assert world.task(offer_id).state == TaskState.FINAL
    duty = settlement_duty(world.market)
    assert (duty.payload, duty.certify, duty.first) == (right, True, 1)
    outcome = world.send(keys[2], Kind.SETTLEMENT, duty.payload)
    assert (outcome.code, outcome.output) == (0, record.hash)
    assert world.task(offer_id).state == TaskState.CERTIFIED
    assert not settlement_duty(world.market).certify
    assert world.send(keys[3], Kind.SETTLEMENT, right).code == Code.BATCH_CERTIFIED


def test_a_batch_is_certified_again_in_a_later_epoch_with_the_same_output(world):
    offer_id = final(world)
    world.run(60_000)
    first = world.certify()
    world.attest(world.chain.advance_epoch(1, world.height + 1))
    assert settlement_duty(world.market).certify
    again = world.certify(by=1)
    assert (again.code, again.output) == (0, first.output)
    assert world.task(offer_id).state == TaskState.CERTIFIED
    assert world.certify().code == Code.BATCH_CERTIFIED
    record = world.market.batch().record
    fact = world.chain.settle(record.id, record.task_root, record.payload, world.now_s())
    world.attest(fact)
    assert world.task(offer_id).state == TaskState.SETTLED


# ---- settled, skipped ------------------------------------------------------------------------------------------------------


def test_a_settled_task_moves_what_it_cost_and_frees_the_rest(world):
    offer_id = final(world)
    before = world.market.account(world.ue.address)
    world.run(60_000)
    world.settle()
    after = world.market.account(world.ue.address)
    paid, maximum = 5_000_000 * 100 * 1000, 10_000_000 * 100 * 1000
    assert before.balance - after.balance == after.spent - before.spent == paid
    assert before.reserved - after.reserved == maximum
    assert world.task(offer_id).state == TaskState.SETTLED
    event = [e for e in world.events if isinstance(e, TaskSettled)][-1]
    assert (from_u96(event.paid), from_u96(event.free)) == (paid, maximum - paid)
    assert world.chain.accounts[world.ue.address].balance == after.balance
    assert world.chain.accounts[world.ue.address].spent == after.spent


def test_a_settled_lock_keeps_its_remainder_for_the_refund(world):
    ue = world.new_ue()
    offer_id = world.submit_locked(ue, source=3, flags=2, deadline_ms=world.now_ms + 100_000)
    world.until_state(offer_id, TaskState.ASSIGNED)
    world.file(offer_id)
    assert refundable_locks(world.market, world.now_s()) == []
    world.run(60_000)
    world.settle()
    assert world.task(offer_id).state == TaskState.SETTLED
    lock = world.market.lock(ue.address, offer_id)
    assert (lock.wei, lock.deadline_s) == (5_000_000 * 100 * 1000, 0)
    assert world.chain.locks[lock_key(ue.address, offer_id)] == (lock.wei, 0)
    assert refundable_locks(world.market, world.now_s()) == [lock]
    world.attest(world.chain.refund(ue.address, offer_id, world.now_s()))
    assert world.market.lock(ue.address, offer_id) is None
    assert world.task(offer_id).state == TaskState.SETTLED
    assert not world.market.knows(ue.address)


def test_a_lock_that_is_used_up_is_gone(world):
    ue = world.new_ue()
    offer_id = world.submit_locked(ue, source=3, flags=2, deadline_ms=world.now_ms + 100_000)
    world.until_state(offer_id, TaskState.ASSIGNED)
    world.file(offer_id, fuel_used=10_000_000)
    world.run(60_000)
    world.settle()
    assert world.market.lock(ue.address, offer_id) is None


def skip(world, *ues, locks=()):
    """The chain settles the batch and skips these."""
    record = world.market.batch().record
    assert world.certify().code == 0
    fact = BatchSettled(record.id, record.task_root, bytes(12), tuple(u.address for u in ues), tuple(locks))
    return world.attest(world.chain._fact(fact))


def test_a_skipped_section_queues_again_and_is_paid_by_the_next_batch(world):
    offer_id = final(world)
    world.run(60_000)
    reserved = world.market.account(world.ue.address).reserved
    assert skip(world, world.ue)[-1].code == 0
    assert world.task(offer_id).state == TaskState.FINAL
    assert [e.offer_id for e in world.events if isinstance(e, TaskRequeued)] == [offer_id]
    assert world.market.account(world.ue.address).reserved == reserved
    world.run(60_000)
    record = world.market.batch().record
    assert (record.id, record.lines) == (2, (offer_id,))
    assert all(server.desired_ms == 0 for server in decode_payload(record.payload, 4).servers)  # counted once
    world.chain.batch_id = 1
    world.settle()
    assert world.task(offer_id).state == TaskState.SETTLED


def test_a_skipped_section_whose_money_is_gone_is_unpayable(world):
    ue = world.funded_ue()
    offer_id = final(world, ue)
    world.run(60_000)
    world.attest(world.chain._fact(_exited(ue)))
    assert world.market.account(ue.address).balance == 0
    assert skip(world, ue)[-1].code == 0
    task = world.task(offer_id)
    assert (task.state, task.cause, task.reason.code) == (TaskState.REFUNDED, TaskState.UNPAYABLE, "UNPAYABLE")
    assert world.market.account(ue.address).reserved == 0
    assert [TaskState(e.state) for e in world.events if isinstance(e, TaskEnded)] == [TaskState.UNPAYABLE]


def _exited(ue):
    from edgora.wire.codec import to_u96
    from edgora.wire.market import Exited

    return Exited(ue.address, to_u96(10**18))


def test_a_skipped_lock_line_is_unpayable_and_waits_for_its_refund(world):
    ue = world.new_ue()
    offer_id = world.submit_locked(ue, source=3, flags=2, deadline_ms=world.now_ms + 100_000)
    world.until_state(offer_id, TaskState.ASSIGNED)
    world.file(offer_id)
    lock = world.market.lock(ue.address, offer_id)
    world.run(lock.deadline_s * 1000 + 1_000 - world.now_ms)
    assert skip(world, locks=[lock_key(ue.address, offer_id)])[-1].code == 0
    assert world.task(offer_id).state == TaskState.UNPAYABLE
    assert refundable_locks(world.market, world.now_s()) == [lock]
    world.attest(world.chain.refund(ue.address, offer_id, world.now_s()))
    assert world.task(offer_id).state == TaskState.REFUNDED


def test_a_lock_that_was_refunded_before_its_line_was_skipped_ends_at_once(world):
    ue = world.new_ue()
    offer_id = world.submit_locked(ue, source=3, flags=2, deadline_ms=world.now_ms + 100_000)
    world.until_state(offer_id, TaskState.ASSIGNED)
    world.file(offer_id)
    deadline_s = world.market.lock(ue.address, offer_id).deadline_s
    world.run(deadline_s * 1000 + 1_000 - world.now_ms)
    world.attest(world.chain.refund(ue.address, offer_id, world.now_s()))
    assert world.task(offer_id).state == TaskState.FINAL  # frozen: the chain decides
    assert skip(world, locks=[lock_key(ue.address, offer_id)])[-1].code == 0
    assert (world.task(offer_id).state, world.task(offer_id).cause) == (TaskState.REFUNDED, TaskState.UNPAYABLE)


def test_a_skipped_lock_line_that_can_still_be_paid_queues_again(world):
    ue = world.new_ue()
    offer_id = world.submit_locked(ue, source=3, flags=2, deadline_ms=world.now_ms + 100_000)
    world.until_state(offer_id, TaskState.ASSIGNED)
    world.file(offer_id)
    world.run(60_000)
    skip(world, locks=[lock_key(ue.address, offer_id)])
    assert world.task(offer_id).state == TaskState.FINAL
    world.chain.batch_id = 1
    world.run(60_000)
    world.settle()
    assert world.task(offer_id).state == TaskState.SETTLED


def test_a_remainders_refund_may_be_attested_before_its_settlement(world):
    ue = world.new_ue()
    offer_id = world.submit_locked(ue, source=3, flags=2, deadline_ms=world.now_ms + 100_000)
    world.until_state(offer_id, TaskState.ASSIGNED)
    world.file(offer_id)
    world.run(60_000)
    record = world.market.batch().record
    world.certify()
    settled = world.chain.settle(record.id, record.task_root, record.payload, world.now_s())
    refunded = world.chain.refund(ue.address, offer_id, world.now_s())
    world.attest(refunded)
    assert world.task(offer_id).state == TaskState.CERTIFIED
    world.attest(settled)
    assert world.task(offer_id).state == TaskState.SETTLED


def test_a_settlement_of_another_batch_is_no_fact(world):
    final(world)
    world.run(60_000)
    record = world.market.batch().record
    for wrong in (BatchSettled(2, record.task_root, bytes(12), (), ()), BatchSettled(1, bytes(32), bytes(12), (), ())):
        assert world.attest(world.chain._fact(wrong))[-1].code == Code.FACT_UNFIT
    good = BatchSettled(1, record.task_root, bytes(12), (), ())
    assert world.attest(world.chain._fact(good))[-1].code == Code.FACT_UNFIT  # not certified yet
    assert world.market.batch() is not None
    assert not [e for e in world.events if isinstance(e, BatchClosed)]


# ---- back-pressure -------------------------------------------------------------------------------------------------------


def test_no_new_task_while_settlement_is_behind():
    w = busy(replace(TEST_PARAMS, batch_ms=3_000))
    final(w)
    ended = w.now_ms
    limit = w.market.params.margin_ms // 2 + 3_000
    w.run(ended + limit - w.now_ms - 200)
    w.see_chain()
    ue = w.funded_ue()
    w.see_chain()
    offer = w.offer(ue)
    payload = ue.task(offer, ue.voucher_for(w.market, offer))
    in_time = w.block(w.tx(ue.key, Kind.TASK, payload), after_ms=max(1, ended + limit - w.now_ms))[0]
    assert code_name(in_time.code) == "OK"
    offer = w.offer(ue)
    payload = ue.task(offer, ue.voucher_for(w.market, offer))
    behind = w.send(ue.key, Kind.TASK, payload, after_ms=1)
    assert code_name(behind.code) == "SETTLEMENT_BEHIND"
    w.settle()
    w.see_chain()
    offer = w.offer(ue)
    assert w.send(ue.key, Kind.TASK, ue.task(offer, ue.voucher_for(w.market, offer))).code == 0
