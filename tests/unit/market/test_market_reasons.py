"""Why: what a task waits for at each station of its life, and sentences for every reason and every code (market.md 7)."""

import re

import pytest
from msgspec.structs import replace

from edgora.market.reasons import NODE_CODES, sentence, server_reason, why
from edgora.wire.codec import encode
from edgora.wire.ledger import Kind, LedgerCode
from edgora.wire.market import Cancel, Code, Reason, ResultCode, TaskState, refusal_numbers, refusal_sentence
from unit.market.world import TEST_PARAMS, World


def reasons(world, offer_id):
    return [reason.code for reason in why(world.market, offer_id, world.now_ms)]


def words(world, offer_id):
    return "; ".join(sentence(reason) for reason in why(world.market, offer_id, world.now_ms))


def test_an_open_task_says_what_is_missing():
    w = World()
    ue = w.funded_ue()
    offer_id = w.submit(ue, flags=0, source=3, deadline_ms=w.now_ms + 3_000_000)
    assert words(w, offer_id) == "no server has a live advert"
    w.advertise(ask=150)
    assert words(w, offer_id) == "every ask is above its price of 100 gwei/Mfuel, the lowest is 150"
    w.block(w.advert_tx(0, ask=60), w.advert_tx(3, capacity=0, ask=150), after_ms=100)
    assert words(w, offer_id).startswith("no live server may take it")
    w.block(w.advert_tx(0, ask=60, capacity=10**6), w.advert_tx(3, ask=150), after_ms=100)
    assert words(w, offer_id) == "no server has room for 10,000,000 fuel now"
    w.advertise(0, ask=60, slots=1)
    assert reasons(w, offer_id) == ["ROUND_OPEN"]
    w.run(40)
    assert words(w, offer_id) == "round 1 is open since 40 ms with 0 proposals"
    w.until_state(offer_id, TaskState.ASSIGNED)
    second = w.submit(ue, flags=0, source=3)
    first = w.task(offer_id)
    assert words(w, second) == (
        f"no server has room for 10,000,000 fuel now, the first room is expected at {first.assigned_ms + first.expected_ms}"
    )
    w.file(offer_id)
    w.run_until(lambda: w.market.round_state() is None and w.task(second).state == TaskState.ASSIGNED)
    assert reasons(w, second) == ["RUNNING"]


def test_between_rounds_a_task_waits_for_the_next_one():
    w = World(params=replace(TEST_PARAMS, round_ms=5_000))
    w.advertise()
    ue = w.funded_ue()
    w.assigned(ue, flags=0)
    offer_id = w.submit(ue, flags=0)
    assert words(w, offer_id) == "the next round opens within 4,950 ms"


def test_a_running_task_says_how_far_it_should_be():
    w = World()
    w.advertise()
    offer_id = w.assigned(w.funded_ue(), flags=0, fuel_limit=100_000_000)
    executor = w.task(offer_id).executor
    assert sentence(why(w.market, offer_id, w.now_ms + 250)[0]) == (
        f"server {executor} runs it, about 25,000,000 of 100,000,000 fuel"
    )
    assert why(w.market, offer_id, w.now_ms + 10**6)[0].numbers[1] == 100_000_000


def test_a_result_waits_for_draw_audit_batch_and_chain():
    w = World(params=replace(TEST_PARAMS, audit_bps=10_000))
    w.advertise()
    ue = w.funded_ue()
    idle = w.submit(ue, flags=0, price=49 + 1, source=1)
    w.until_state(idle, TaskState.ASSIGNED)
    offer_id = w.assigned(ue)
    w.file(offer_id)
    audit = w.task(offer_id).audit
    assert words(w, offer_id) == f"server {audit.witness} draws by {audit.draw_by_ms} whether it is audited"
    w.draw(offer_id)
    named = ", ".join(str(a) for a in w.auditors(offer_id))
    assert words(w, offer_id) == f"it is audited by server {named} until {w.task(offer_id).audit.ends_ms}"
    w.file_audit(offer_id, w.auditors(offer_id)[0])
    assert words(w, offer_id) == f"its receipt is one of 1 that wait for a batch, at the latest at {w.now_ms + 3_000}"
    w.run(3_000)
    assert words(w, offer_id) == "batch 1 is frozen and waits for its certificate"
    later = w.assigned(ue, flags=0)
    w.file(later)
    w.certify()
    assert words(w, offer_id) == "batch 1 is certified and waits for the chain"
    assert reasons(w, later) == ["BATCH_BEFORE"]
    w.run(11_000)
    assert reasons(w, offer_id) == ["BATCH_ON_ITS_WAY", "CHAIN_NOT_SEEN_SINCE"]
    record = w.market.batch().record
    w.attest(w.chain.settle(record.id, record.task_root, record.payload, w.now_s()))
    assert words(w, offer_id) == "paid by batch 1"


def test_an_end_without_pay_says_why():
    w = World()
    w.advertise()
    ue = w.new_ue()
    offer_id = w.submit_locked(ue, flags=2)
    w.accepted(ue.key, Kind.CANCEL, Cancel(offer_id), 1)
    deadline_s = w.market.lock(ue.address, offer_id).deadline_s
    assert words(w, offer_id) == f"cancelled by its UE; its lock waits for the refund, possible after {deadline_s} s"
    w.advertise(1, 2, 3, ask=10**6)
    failed = w.assigned(w.funded_ue(), flags=0)
    w.file(failed, code=ResultCode.WALL, fuel_used=0)
    assert words(w, failed) == "failed: server 0 ran out of wall time"
    assert why(w.market, b"x" * 32, w.now_ms) == []


def test_a_server_says_why_it_gets_no_work():
    w = World(ready=False)
    assert "not registered" in server_reason(w.market, w.server(0))
    w = World()
    assert server_reason(w.market, w.server(0)) == "it has no live advert"
    w.advertise()
    assert server_reason(w.market, w.server(0)) == ""
    w.advertise(0, capacity=0)
    assert server_reason(w.market, w.server(0)) == "it has withdrawn"
    w.advertise(0)
    w.advertise(1, 2, 3, ask=10**6)
    offer_id = w.assigned(w.funded_ue(), flags=0)
    w.run_until(lambda: w.task(offer_id).state == TaskState.REFUNDED)
    assert "new advert" in server_reason(w.market, w.server(0))
    w.attest(w.chain.unbond(0, 1))
    assert "leaving" in server_reason(w.market, w.server(0))


@pytest.mark.parametrize("code", [*Code, *LedgerCode])
def test_every_code_has_one_sentence_with_its_values(code):
    numbers = (1_234_567, 2, 3, 4)
    text = refusal_sentence(code, numbers)
    assert text == sentence(Reason(code.name, "", numbers))
    assert "refused with code" not in text
    assert not re.search(r"[{}]", text)
    assert refusal_numbers(encode(numbers)) == numbers


def test_what_nobody_knows_is_shown_as_it_is():
    assert sentence(Reason("SOMETHING_NEW", "", (1,))) == "SOMETHING_NEW (1,)"
    assert refusal_sentence(999) == "refused with code 999"
    assert refusal_sentence(Code.OFFER_SEEN, (1, 2, 3)).startswith("this very offer")
    assert refusal_sentence(Code.FUEL_LIMIT) == f"refused with code {int(Code.FUEL_LIMIT)}"
    assert refusal_numbers(b"\xc1") == refusal_numbers(b"") == ()
    for code in NODE_CODES:
        assert sentence(Reason(code, "", (1, 3))).endswith((
            "votes", "octets", "servers", "a slot", "a slot gives", "in time"
        ))  # fmt: skip
