"""Audits: who draws, who is drawn, what f+1 equal filings decide, and what happens when they do not (market.md 5)."""

import pytest
from msgspec.structs import replace

from edgora.market.draws import AuditChain
from edgora.market.duties import audits_owed, draw_due, may_fetch_input, reseals_owed
from edgora.wire.codec import from_u96
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Kind
from edgora.wire.market import Code, Draw, ResultCode, ResultHash, TaskState, code_name
from edgora.wire.market_events import AuditDrawn, AuditMissed, DrawMissed, ServerNotLive, Verdict
from unit.market.world import TEST_PARAMS, World

ALWAYS = replace(TEST_PARAMS, audit_bps=10_000)
NEVER = replace(TEST_PARAMS, audit_bps=0)


def code(outcome) -> str:
    return code_name(outcome.code)


def made(params=ALWAYS, servers=4, source=None, **fields):
    """A world with one DONE task, run by another server than its source (the last one, which is too dear)."""
    w = World(params=params, servers=servers)
    source = servers - 1 if source is None else source
    w.advertise()
    w.advertise(source, ask=10**6)
    w.ue = w.funded_ue()
    w.id = w.assigned(w.ue, source=source, **fields)
    w.executor = w.task(w.id).executor
    assert w.executor != source
    return w


def done(params=ALWAYS, servers=4, **fields):
    w = made(params, servers)
    assert w.file(w.id, **fields).code == 0
    assert w.task(w.id).state == TaskState.DONE
    return w


def audited(params=ALWAYS, servers=4, **fields):
    """Drawn: its auditors have to file."""
    w = done(params, servers, **fields)
    assert w.draw(w.id).code == 0
    assert w.auditors(w.id)
    return w


def last(world, kind):
    return [e for e in world.events if isinstance(e, kind)][-1]


# ---- the draw ------------------------------------------------------------------------------------------------------------


def test_the_witness_follows_from_the_offer_id_among_live_servers_without_executor_and_source():
    seen = set()
    for nonce in range(12):
        w = made(nonce=10_000 + nonce)
        w.file(w.id)
        witness = w.task(w.id).audit.witness
        place = int.from_bytes(keccak(w.id), "big") % 4
        while place in {w.executor, 3}:
            place = (place + 1) % 4
        assert witness == place
        seen.add(witness)
    assert len(seen) > 1


def test_a_draw_below_the_share_makes_the_task_final_at_once():
    w = done(NEVER)
    witness = w.task(w.id).audit.witness
    assert [t.offer_id for t in draw_due(w.market, witness)] == [w.id]
    tip = w.server(witness).tip
    assert w.draw(w.id).code == 0
    assert w.task(w.id).state == TaskState.FINAL
    assert keccak(w.server(witness).tip) == tip
    assert not last(w, AuditDrawn).audited
    assert draw_due(w.market, witness) == []


def test_the_share_is_decided_by_preimage_block_and_offer():
    """r = H(p || blockHash || offerId), audited iff r mod 10^4 < audit_bps."""
    outcomes = set()
    for nonce in range(8):
        w = made(replace(TEST_PARAMS, audit_bps=5_000), nonce=20_000 + nonce)
        w.file(w.id)
        result, witness = w.task(w.id).result, w.task(w.id).audit.witness
        preimage = w.seller(witness).draw(w.market, w.height).preimage
        r = int.from_bytes(keccak(preimage + keccak(b"block %d" % result.height) + w.id), "big")
        w.draw(w.id)
        assert (w.task(w.id).state == TaskState.DONE) == (r % 10_000 < 5_000)
        outcomes.add(w.task(w.id).state)
        if w.task(w.id).state == TaskState.DONE:
            order = [(r + i) % 4 for i in range(4)]
            free = [i for i in order if i not in {w.executor, 3}]
            assert w.auditors(w.id) == free  # only two others exist; the source is not needed
    assert len(outcomes) == 2


def test_one_draw_serves_all_results_up_to_its_height_in_ledger_order():
    w = World(params=NEVER)
    w.advertise()
    w.advertise(3, ask=10**6)
    ue = w.funded_ue()
    waiting = {}
    while max((len(v) for v in waiting.values()), default=0) < 3:
        offer_id = w.assigned(ue, source=3)
        w.file(offer_id)
        waiting.setdefault(w.task(offer_id).audit.witness, []).append((offer_id, w.height))
    witness, found = max(waiting.items(), key=lambda item: len(item[1]))
    alive = [x for x in found if w.now_ms + 100 <= w.task(x[0]).audit.draw_by_ms]
    assert len(alive) >= 2
    seller = w.seller(witness)
    up_to = alive[-2][1]
    assert w.send(seller.key, Kind.DRAW, seller.draw(w.market, up_to)).code == 0
    states = [w.task(x).state for x, _ in alive]
    assert states == [TaskState.FINAL] * (len(alive) - 1) + [TaskState.DONE]


def test_a_draw_opens_the_tip_and_names_executed_blocks_only():
    w = done()
    witness = w.task(w.id).audit.witness
    seller = w.seller(witness)
    good = seller.draw(w.market, w.height)
    assert code(w.send(seller.key, Kind.DRAW, Draw(b"p" * 32, w.height))) == "BAD_PREIMAGE"
    assert code(w.send(w.seller(w.executor).key, Kind.DRAW, good)) == "BAD_PREIMAGE"
    assert code(w.send(w.ue.key, Kind.DRAW, good)) == "NOT_A_SERVER"
    assert code(w.send(seller.key, Kind.DRAW, replace(good, up_to=w.height + 1))) == "UP_TO"
    assert w.send(seller.key, Kind.DRAW, replace(good, up_to=w.height)).code == 0


def test_a_shown_preimage_is_used_up_even_if_no_result_waited():
    w = World()
    w.advertise()
    seller = w.seller(2)
    draw = seller.draw(w.market, w.height)
    assert w.send(seller.key, Kind.DRAW, draw).code == 0
    assert w.server(2).tip == draw.preimage
    assert code(w.send(seller.key, Kind.DRAW, draw)) == "BAD_PREIMAGE"
    assert seller.draw(w.market, w.height).preimage != draw.preimage


def test_without_a_draw_in_time_the_block_decides_and_the_witness_is_not_live():
    w = done(NEVER)
    witness = w.task(w.id).audit.witness
    due = w.task(w.id).audit.draw_by_ms
    assert w.market.wake_at() == due + 1
    w.run(due - w.now_ms)
    assert w.task(w.id).audit.number == 0
    w.run(1)
    assert w.task(w.id).audit.number == 1  # audited whatever the share
    assert last(w, DrawMissed).witness == witness
    assert last(w, ServerNotLive).reason.code == "DRAW_MISSED"
    assert not w.market.is_live(w.server(witness))
    seed = int.from_bytes(keccak(keccak(b"block %d" % w.height) + w.id), "big")
    order = [(seed + i) % 4 for i in range(4)]
    assert w.auditors(w.id)[0] == next(i for i in order if i not in {w.executor, 3, witness})
    seller = w.seller(witness)
    assert w.send(seller.key, Kind.DRAW, seller.draw(w.market, w.height)).code == 0  # too late to matter
    assert w.task(w.id).audit.number == 1


def test_a_late_draw_decides_nothing():
    w = done(NEVER)
    seller = w.seller(w.task(w.id).audit.witness)
    draw = seller.draw(w.market, w.height)
    due = w.task(w.id).audit.draw_by_ms
    outcome = w.block(w.tx(seller.key, Kind.DRAW, draw), after_ms=due + 1 - w.now_ms)[0]
    assert outcome.code == 0
    assert w.task(w.id).audit.number == 1


# ---- the auditors --------------------------------------------------------------------------------------------------------


def test_auditors_have_a_time_that_fits_the_task_and_room_for_it():
    w = audited()
    auditors = w.auditors(w.id)
    assert sorted(auditors) == sorted({0, 1, 2} - {w.executor})
    for number in auditors:
        duty = audits_owed(w.market, number)[0]
        assert (duty.offer_id, duty.executor) == (w.id, w.executor)
        assert duty.by_ms == w.now_ms + 5_000  # min(4 x 100 + 5,000, audit_max_ms)
        assert w.server(number).used == 500_000_000
        assert may_fetch_input(w.market, w.id, number)
    assert reseals_owed(w.market, w.executor) == [(w.id, a) for a in auditors]
    assert w.file_audit(w.id, auditors[0]).code == 0
    assert w.task(w.id).state == TaskState.FINAL  # f+1 = 2 agree
    assert all(w.server(i).used == 0 for i in range(4))
    assert reseals_owed(w.market, w.executor) == []


def test_servers_too_slow_for_the_audit_time_are_not_drawn():
    w = made()
    others = [i for i in (0, 1, 2) if i != w.executor]
    w.advertise(others[0], speed=10**6)  # 10 s where 5 s are the most
    w.advertise(others[1], speed=2 * 10**6)  # exactly 5 s
    w.file(w.id)
    w.draw(w.id)
    assert w.auditors(w.id) == [others[1], 3]  # and then the source, since nobody else is there


def test_the_source_audits_only_while_nobody_else_is_there_and_the_executor_never():
    w = made()
    others = [i for i in (0, 1, 2) if i != w.executor]
    w.advertise(*others, capacity=0)
    w.file(w.id)
    assert w.task(w.id).audit.witness is None
    w.run_until(lambda: w.task(w.id).audit.number == 1)
    assert w.auditors(w.id) == [3]


@pytest.mark.parametrize(
    "lie",
    [
        {"output": b"other"},
        {"fuel_used": 4_999_999},
        {"code": ResultCode.TRAP},
    ],
)
def test_an_executor_against_the_auditors_is_disputed_and_fined(lie):
    w = audited(**lie)
    before = w.server(w.executor)
    for number in w.auditors(w.id):
        assert w.file_audit(w.id, number).code == 0
    task, server = w.task(w.id), w.server(w.executor)
    assert (task.cause, task.state, task.reason.code) == (TaskState.DISPUTED, TaskState.REFUNDED, "LOST_DISPUTE")
    assert (server.disputed, server.credit) == (1, before.credit // 2)
    assert server.actual_ms - before.actual_ms == 4 * task.offer.desired_ms
    assert w.market.account(w.ue.address).reserved == 0
    verdict = last(w, Verdict)
    assert (verdict.upheld, verdict.against) == (False, (w.executor,))
    assert len(verdict.agreeing) == 2
    assert sum(from_u96(p.wei) for p in verdict.penalties) == w.market.params.audit_pay
    assert {p.to for p in verdict.penalties} == set(verdict.agreeing)


def test_an_auditor_against_the_verdict_pays_and_the_remainder_is_burnt():
    """7 servers, f = 2: three must agree; of four auditors three say the same as the executor, one lies."""
    params = replace(ALWAYS, file_ms=30_000, auditors=4, audit_pay=1_001)
    w = audited(params, servers=7)
    liar, *honest = w.auditors(w.id)
    assert len(honest) == 3
    w.file_audit(w.id, liar, output=b"lie")
    assert w.file_audit(w.id, honest[0]).code == 0
    assert w.task(w.id).state == TaskState.DONE
    assert w.file_audit(w.id, honest[1]).code == 0
    assert w.task(w.id).state == TaskState.FINAL
    verdict = last(w, Verdict)
    assert (verdict.upheld, verdict.against, set(verdict.agreeing)) == (True, (liar,), {w.executor, *honest[:2]})
    fines = sorted((p.to if p.to is not None else -1, from_u96(p.wei)) for p in verdict.penalties)
    assert fines == sorted([(honest[0], 500), (honest[1], 500), (-1, 1)])
    assert w.server(liar).disputed == 1
    assert w.server(liar).actual_ms == 0  # it was not its task
    assert code(w.file_audit(w.id, honest[2])) == "AUDIT_CLOSED"


def test_who_may_file_an_audit_and_how():
    w = audited()
    auditor = w.auditors(w.id)[0]
    assert code(w.file_audit(w.id, 3)) == "NOT_YOURS"
    seller = w.seller(auditor)
    full = seller.result(w.id, seen_ms=w.now_ms, holders=[3])
    assert code(w.send(seller.key, Kind.RESULT_HASH, full)) == "AUDIT_FORM"
    assert code(w.file_audit(w.id, auditor, fuel_used=10_000_001)) == "FUEL_OVER"
    assert code(w.file_audit(w.id, auditor, code=10)) == "RESULT_CODE"
    assert w.file_audit(w.id, auditor, output=b"lie").code == 0
    assert code(w.file_audit(w.id, auditor)) == "RESULT_GIVEN"
    assert w.task(w.id).state == TaskState.DONE


def test_the_time_of_an_auditor_is_kept_to_the_millisecond():
    w = audited()
    number = w.auditors(w.id)[0]
    by_ms = audits_owed(w.market, number)[0].by_ms
    w.block(after_ms=by_ms - w.now_ms - 1)
    seller = w.seller(number)
    filing = w.tx(seller.key, Kind.RESULT_HASH, seller.audit(w.id))
    assert w.block(filing, after_ms=2)[0].code == Code.AUDIT_CLOSED
    assert {e.auditor for e in w.events if isinstance(e, AuditMissed)} >= {number}
    assert not w.market.is_live(w.server(number))


def test_a_missed_audit_leads_to_a_second_draw_and_then_to_an_end_without_fault():
    w = audited()
    first = w.auditors(w.id)
    w.run_until(lambda: w.task(w.id).audit.number == 2)
    assert {e.auditor for e in w.events if isinstance(e, AuditMissed)} == set(first)
    assert w.auditors(w.id) == [3]  # only the source is live beside the executor
    assert last(w, AuditDrawn).number == 2
    before = w.server(w.executor)
    w.run_until(lambda: w.task(w.id).state == TaskState.REFUNDED)
    task, server = w.task(w.id), w.server(w.executor)
    assert (task.cause, task.reason.code) == (TaskState.DISPUTED, "NO_VERDICT")
    assert (server.credit, server.disputed) == (before.credit, 0)
    assert not [e for e in w.events if isinstance(e, Verdict)]
    assert all(w.server(i).used == 0 for i in range(4))


def test_a_second_draw_may_still_find_a_verdict():
    w = audited()
    auditors = w.auditors(w.id)
    for number in auditors:  # one lies, one could not look
        w.file_audit(
            w.id, number, code=ResultCode.UNAVAILABLE if number == auditors[0] else ResultCode.OK, output=b"lie"
        )
    assert w.task(w.id).audit.number == 2
    assert w.auditors(w.id) == [3]
    assert w.file_audit(w.id, 3).code == 0
    assert w.task(w.id).state == TaskState.FINAL
    assert last(w, Verdict).against == (auditors[1],)  # who could not look is not fined


def test_f_plus_1_without_a_key_are_the_executors_fault_without_a_fine():
    w = audited()
    before = w.server(w.executor)
    one, two = w.auditors(w.id)
    assert w.file_audit(w.id, one, code=ResultCode.NO_KEY).code == 0
    assert w.task(w.id).state == TaskState.DONE
    assert w.file_audit(w.id, two, code=ResultCode.NO_KEY).code == 0
    task, server = w.task(w.id), w.server(w.executor)
    assert (task.cause, task.reason.code) == (TaskState.DISPUTED, "NO_KEY")
    assert (server.credit, server.disputed) == (before.credit // 2, 1)
    assert all(not entry.penalties for entry in w.market.queue())


def test_one_no_key_and_one_agreeing_auditor_uphold_the_result():
    w = audited()
    one, two = w.auditors(w.id)
    w.file_audit(w.id, one, code=ResultCode.NO_KEY)
    w.file_audit(w.id, two)
    assert w.task(w.id).state == TaskState.FINAL
    assert last(w, Verdict).against == ()


def test_a_draw_that_finds_nobody_waits_for_somebody_to_come():
    w = made()
    others = [i for i in range(4) if i != w.executor]
    w.advertise(*others, capacity=0)
    w.file(w.id)
    w.run_until(lambda: w.task(w.id).audit.number == 1)
    assert w.auditors(w.id) == []
    ends = w.task(w.id).audit.ends_ms
    assert ends == w.now_ms + 5_000
    w.advertise(*others)
    w.run_until(lambda: w.task(w.id).audit.number == 2)
    assert w.now_ms == ends + 1
    w.file_audit(w.id, w.auditors(w.id)[0])
    assert w.task(w.id).state == TaskState.FINAL


def test_without_any_live_server_nobody_is_witness():
    w = made()
    w.advertise(capacity=0)
    w.file(w.id)
    assert w.task(w.id).audit.witness is None


def test_ledger_time_that_jumps_ends_an_audit_when_the_task_must_be_resolved():
    """J6: after an outage there is no time left for auditors, so nobody is charged and nobody at fault."""
    w = done()
    deadline = w.task(w.id).offer.deadline_ms
    resolved = deadline + 20_000 + 2 * (2_000 + 5_000)
    w.block(after_ms=resolved - w.now_ms)
    assert (w.task(w.id).cause, w.task(w.id).reason.code) == (TaskState.DISPUTED, "NO_VERDICT")


def test_an_auditors_room_counts_for_its_next_tasks():
    w = audited()
    number = w.auditors(w.id)[0]
    w.advertise(*(i for i in (0, 1, 2) if i != number), ask=10**6)
    ids = [w.submit(w.ue, source=3, flags=0, deadline_ms=w.now_ms + 100_000) for _ in range(4)]
    w.run(1_000)
    assert [w.task(x).state for x in ids].count(TaskState.ASSIGNED) == 3  # of four slots one is the audit's


def test_filings_of_strangers_to_the_task_change_nothing():
    w = audited()
    before = w.market.snapshot()
    filing = ResultHash(w.id, ResultCode.OK, bytes(32), 1)
    assert code(w.send(w.seller(3).key, Kind.RESULT_HASH, filing, 1)) == "NOT_YOURS"
    assert w.market.snapshot() == before


def test_an_audit_chain_finds_its_place_from_the_tip_alone():
    chain = AuditChain(b"s" * 32, 5)
    tips = [chain.first_tip]
    while (preimage := AuditChain(b"s" * 32, 5).preimage(tips[-1])) is not None:
        assert keccak(preimage) == tips[-1]
        assert chain.preimage(tips[-1]) == preimage
        tips.append(preimage)
    assert len(tips) == 6
    assert tips[-1] == b"s" * 32
    assert chain.preimage(tips[2]) == tips[3]  # going back is no matter
    assert chain.preimage(b"x" * 32) is None
    assert chain.preimage(tips[0]) == tips[1]
    assert [chain.left(tip) for tip in tips] == [5, 4, 3, 2, 1, 0]
