"""ADVERT and TASK: every refusal, and every limit at its edge and one beyond (market.md 3, 8; contracts.md 9)."""

import pytest
from msgspec.structs import replace

from edgora.crypto.sign import SigningKey
from edgora.lab.market_actors import ordered
from edgora.market.receipts import maximum
from edgora.market.records import Server, Task
from edgora.market.state import account_key, lock_record_key, server_key, task_key
from edgora.wire.codec import decode, encode, to_u96
from edgora.wire.errors import Broken
from edgora.wire.ledger import Kind, LedgerCode
from edgora.wire.market import (
    Cancel,
    ChainFact,
    Code,
    Head,
    MarketParams,
    OfferFlag,
    TaskPayload,
    TaskState,
    VoucherPart,
    code_name,
    refusal_numbers,
    refusal_sentence,
)
from edgora.wire.settlement import lock_key
from unit.market.world import START_MS, TEST_PARAMS, World

HOUR = 3_600_000
LOCK = OfferFlag.LOCK_LANE


def refused(outcome, code, *numbers):
    assert code_name(outcome.code) == code_name(code)
    if numbers:
        assert refusal_numbers(outcome.output) == numbers
    sentence = refusal_sentence(outcome.code, refusal_numbers(outcome.output))
    assert "{" not in sentence
    assert "refused with code" not in sentence


@pytest.fixture
def world():
    w = World()
    w.advertise()
    return w


# ---- ADVERT ------------------------------------------------------------------------------------------------------------


def advert(world, number=0, tip=False, after_ms=200, **fields):
    seller = world.seller(number)
    until = fields.pop("until_ms", world.now_ms + HOUR - 1_000)
    return world.send(seller.key, Kind.ADVERT, seller.advert(until_ms=until, tip=tip, **fields), after_ms)


def test_an_advert_makes_a_server_live_until_it_ends(world):
    assert advert(world, until_ms=world.now_ms + 1_000).code == 0
    assert world.market.is_live(world.server(0))
    world.run(799)
    assert world.market.is_live(world.server(0))
    world.run(1)
    assert not world.market.is_live(world.server(0))


@pytest.mark.parametrize("field", ["speed", "slots", "ask", "uplink"])
def test_nothing_that_divides_or_sells_may_be_zero(world, field):
    refused(advert(world, **{field: 0}), Code.ADVERT_ZERO)
    assert advert(world, **{field: 1}).code == 0


def test_capacity_zero_withdraws(world):
    assert advert(world, capacity=0).code == 0
    assert not world.market.is_live(world.server(0))


def test_an_advert_ends_within_the_hour_ahead(world):
    refused(advert(world, until_ms=world.now_ms + 200), Code.ADVERT_UNTIL)
    refused(advert(world, until_ms=world.now_ms + 200 + HOUR + 1), Code.ADVERT_UNTIL)
    assert advert(world, until_ms=world.now_ms + 200 + HOUR).code == 0
    assert advert(world, until_ms=world.now_ms + 201).code == 0


def test_one_advert_per_server_and_100_ms(world):
    assert advert(world).code == 0
    refused(advert(world, after_ms=99), Code.ADVERT_TOO_SOON, 99)
    assert advert(world, after_ms=1).code == 0


def test_only_registered_servers_that_stay_may_advertise():
    w = World(ready=False)
    refused(advert(w), Code.SERVER_UNREGISTERED, 0)
    w.chain.register_all()
    for fact in w.chain.facts:
        w.attest(fact)
    refused(advert(w), Code.TIP_MISSING)
    assert advert(w, tip=True).code == 0
    w.attest(w.chain.unbond(0, w.now_s() + 1))
    assert not w.market.is_live(w.server(0))
    refused(advert(w), Code.SERVER_UNBONDING, 0)
    refused(w.send(w.new_ue().key, Kind.ADVERT, w.seller(0).advert(until_ms=w.now_ms + 1_000)), Code.NOT_A_SERVER)


def test_a_tip_is_not_renewed_while_a_result_waits_for_it(world):
    ue = world.funded_ue()
    offer_id = world.assigned(ue)
    world.file(offer_id)
    witness = world.task(offer_id).audit.witness
    world.seller(witness).renew_chain()
    refused(advert(world, witness, tip=True), Code.TIP_BUSY, 1)
    assert advert(world, witness, tip=False).code == 0  # the offer itself may change
    world.run_until(lambda: world.task(offer_id).audit.number == 1)
    assert advert(world, witness, tip=True).code == 0


# ---- TASK: limits of section 8 -----------------------------------------------------------------------------------------


def submit(world, ue, *, wei=None, **fields):
    world.see_chain()
    offer = world.offer(ue, **fields)
    voucher = None
    if not offer.flags & LOCK:
        voucher = ue.voucher_for(world.market, offer)
    return world.send(ue.key, Kind.TASK, ue.task(offer, voucher))


@pytest.mark.parametrize(
    ("field", "edge", "beyond", "code"),
    [
        ("fuel_limit", 1, 0, Code.FUEL_LIMIT),
        ("fuel_limit", 10**12, 10**12 + 1, Code.FUEL_LIMIT),
        ("desired_ms", 1, 0, Code.DESIRED_TIME),
        ("desired_ms", 3_600_000, 3_600_001, Code.DESIRED_TIME),
        ("input_octets", 1, 0, Code.INPUT_SIZE),
        ("input_octets", 2**24, 2**24 + 1, Code.INPUT_SIZE),
        ("output_octets", 2**24, 2**24 + 1, Code.OUTPUT_SIZE),
        ("memory_pages", 1024, 1025, Code.MEMORY),
        ("flags", 1, 5, Code.FLAGS),
        ("flags", 0, 128, Code.FLAGS),
        ("source", 3, 4, Code.SOURCE_UNKNOWN),
    ],
)
def test_limits_of_an_offer(field, edge, beyond, code):
    world = World(params=replace(TEST_PARAMS, credit0=2 * 10**12, audit_max_ms=5_000))
    world.advertise(speed=10**12, capacity=2 * 10**12)
    ue = world.funded_ue(10**20)
    assert submit(world, ue, **{field: edge}).code == 0
    refused(submit(world, ue, **{field: beyond}), code)


def test_a_deadline_is_at_most_an_hour_ahead_and_can_be_met(world):
    ue = world.funded_ue()
    world.see_chain()
    now = world.now_ms + 100  # the time of the block that will hold it
    least = 500 + 100 + 1  # slack, 10 Mfuel at 100 Mfuel/s, 1,024 octets out at 10 MB/s
    refused(submit(world, ue, deadline_ms=now + HOUR + 1), Code.DEADLINE_TOO_FAR, now + HOUR + 1, now + HOUR)
    now = world.now_ms + 100
    assert submit(world, ue, deadline_ms=now + HOUR).code == 0
    now = world.now_ms + 100
    refused(submit(world, ue, deadline_ms=now + least - 1), Code.DEADLINE_TOO_SOON, now + least - 1, now + least)
    now = world.now_ms + 100
    assert submit(world, ue, deadline_ms=now + least).code == 0


def test_256_open_tasks_a_ue_and_not_one_more():
    world = World(watched=False)
    ue = world.funded_ue()
    first = None
    for _ in range(256):  # nobody advertises, so all stay open
        offer_id = world.submit(ue, fuel_limit=1, flags=0)
        first = first or offer_id
    refused(submit(world, ue, fuel_limit=1, flags=0), Code.UE_TASKS_FULL, 256)
    other = world.funded_ue()
    assert submit(world, other, fuel_limit=1, flags=0).code == 0
    world.accepted(ue.key, Kind.CANCEL, Cancel(first))
    assert submit(world, ue, fuel_limit=1, flags=0).code == 0


@pytest.mark.slow
def test_10_000_open_tasks_and_not_one_more():
    world = World(watched=False)
    ues = [world.funded_ue() for _ in range(40)]
    for i in range(10_000):
        ue = ues[i % 40]
        world.submit(ue, fuel_limit=1, flags=0, deadline_ms=START_MS + HOUR // 2)
    refused(submit(world, ues[0], fuel_limit=1, flags=0), Code.TASKS_FULL, 10_000)


def test_an_offer_counts_once(world):
    ue = world.funded_ue()
    offer = world.offer(ue)
    payload = ue.task(offer, ue.voucher_for(world.market, offer))
    assert world.send(ue.key, Kind.TASK, payload).output == ue.offer_id(offer)
    refused(world.send(ue.key, Kind.TASK, payload), Code.OFFER_SEEN)


def test_only_the_ue_itself_can_place_its_offer(world):
    ue, thief = world.funded_ue(), world.funded_ue()
    offer = world.offer(ue)
    refused(world.send(thief.key, Kind.TASK, ue.task(offer, ue.voucher_for(world.market, offer))), Code.WRONG_UE)


def test_stored_must_be_the_sources_word_for_this_very_offer(world):
    ue = world.funded_ue()
    offer, other = world.offer(ue, source=1), world.offer(ue, source=1)
    good = ue.task(offer, ue.voucher_for(world.market, offer))
    elsewhere = ue.task(other, None).stored
    refused(world.send(ue.key, Kind.TASK, replace(good, stored=elsewhere)), Code.STORED_INVALID, 1)
    refused(world.send(ue.key, Kind.TASK, replace(good, stored=bytes(65))), Code.STORED_INVALID)
    assert world.send(ue.key, Kind.TASK, good).code == 0


# ---- TASK: what no server would do ---------------------------------------------------------------------------------------


def test_a_price_below_every_ask_is_answered_with_the_least_that_is_placeable(world):
    ue = world.funded_ue()
    # at the source the ask itself is enough; elsewhere 10 KiB x 10^9 wei over 10^7 fuel x 1000 wei would be added
    refused(submit(world, ue, price=49), Code.PRICE_TOO_LOW, 49, 50)
    assert submit(world, ue, price=50).code == 0
    world.run(2_000)
    advert(world, 0, ask=1_000)
    refused(submit(world, ue, price=49, source=0), Code.PRICE_TOO_LOW, 49, 51)


def test_a_price_is_not_judged_while_nobody_sells():
    world = World()
    assert submit(world, world.funded_ue(), price=1, flags=0).code == 0


def test_more_fuel_than_any_live_server_may_hold_is_answered_with_what_fits(world):
    ue = world.funded_ue()
    for number in range(3):
        advert(world, number, capacity=10**6)
    refused(submit(world, ue, fuel_limit=2_000_000_001, flags=0), Code.FUEL_TOO_LARGE, 2_000_000_001, 2_000_000_000)
    assert submit(world, ue, fuel_limit=2_000_000_000, flags=0, deadline_ms=world.now_ms + 100_000).code == 0


def test_an_auditable_task_needs_f_plus_1_servers_that_could_rerun_it(world):
    ue = world.funded_ue()
    for number in range(3):
        advert(world, number, speed=10**5)
    refused(submit(world, ue, fuel_limit=500_001), Code.NOT_AUDITABLE, 1, 2)  # 5,001 ms on three of four
    assert submit(world, ue, fuel_limit=500_000).code == 0
    assert submit(world, ue, fuel_limit=500_001, flags=0).code == 0


# ---- TASK: escrow ----------------------------------------------------------------------------------------------------------


def with_voucher(world, ue, *, cap=None, until_s=None, offer=None, see=True):
    if see:
        world.see_chain()
    offer = offer or world.offer(ue)
    voucher = ue.voucher_for(world.market, offer)
    cap = cap if cap is not None else int.from_bytes(voucher.cap, "big")
    return world.send(ue.key, Kind.TASK, ue.task(offer, ue.voucher(cap, until_s or voucher.valid_until_s)))


def test_the_deposit_must_cover_what_is_reserved_and_this(world):
    ue = world.new_ue()
    cost = maximum(world.offer(ue))
    world.attest(world.chain.deposit(ue.address, 2 * cost - 1))
    assert with_voucher(world, ue).code == 0
    assert world.market.account(ue.address).reserved == cost
    refused(with_voucher(world, ue), Code.DEPOSIT_SHORT)
    world.attest(world.chain.deposit(ue.address, 1))
    assert with_voucher(world, ue).code == 0
    assert world.market.account(ue.address).reserved == 2 * cost
    refused(with_voucher(world, world.new_ue()), Code.DEPOSIT_SHORT, 0, cost // 10**9)


def test_the_voucher_must_cover_spent_reserved_and_this(world):
    ue = world.funded_ue()
    cost = maximum(world.offer(ue))
    refused(with_voucher(world, ue, cap=cost - 1), Code.VOUCHER_SHORT)
    assert with_voucher(world, ue, cap=cost).code == 0
    refused(with_voucher(world, ue, cap=2 * cost - 1), Code.VOUCHER_SHORT)
    assert with_voucher(world, ue, cap=2 * cost).code == 0


def test_the_voucher_outlives_the_task_and_ends_before_an_exit_could(world):
    p = world.market.params
    ue = world.funded_ue()
    offer = world.offer(ue)
    payable = offer.deadline_ms + p.file_ms + 2 * (p.draw_ms + p.audit_max_ms) + p.batch_ms + p.margin_ms
    first = -(-payable // 1000)
    refused(with_voucher(world, ue, offer=offer, until_s=first - 1), Code.VOUCHER_TOO_EARLY, first - 1, first)
    assert with_voucher(world, ue, offer=offer, until_s=first).code == 0
    other = world.funded_ue()
    last = (world.now_ms + 100 + p.exit_delay_s * 1000 - p.margin_ms) // 1000
    refused(with_voucher(world, other, until_s=last + 1), Code.VOUCHER_TOO_LATE, last + 1, last)
    assert with_voucher(world, other, until_s=last).code == 0


def test_a_new_voucher_never_ends_earlier_while_a_task_is_unfinished(world):
    ue = world.funded_ue()
    offer_id = world.submit(ue)
    kept = world.market.account(ue.address).voucher
    refused(with_voucher(world, ue, until_s=kept.valid_until_s - 1), Code.VOUCHER_SHORT)
    assert world.market.account(ue.address).voucher == kept
    world.accepted(ue.key, Kind.CANCEL, Cancel(offer_id))
    assert with_voucher(world, ue, until_s=kept.valid_until_s - 1).code == 0


def test_a_voucher_is_signed_by_the_ue(world):
    ue, other = world.funded_ue(), world.funded_ue()
    offer = world.offer(ue)
    voucher = other.voucher_for(world.market, offer)
    refused(world.send(ue.key, Kind.TASK, ue.task(offer, voucher)), Code.VOUCHER_SIGNATURE)
    refused(world.send(ue.key, Kind.TASK, ue.task(offer, None)), Code.VOUCHER_MISSING)
    wide = VoucherPart(to_u96(2**96 - 1), voucher.valid_until_s, voucher.signature)
    refused(world.send(ue.key, Kind.TASK, ue.task(offer, wide)), Code.VOUCHER_SIGNATURE)


def test_no_voucher_task_while_an_exit_is_pending(world):
    ue = world.funded_ue()
    fact = world.chain.request_exit(ue.address, world.now_s())
    world.attest(fact)
    refused(with_voucher(world, ue), Code.EXIT_PENDING, fact.fact.when_s)


def test_no_voucher_task_while_the_chain_is_out_of_sight(world):
    ue, p = world.funded_ue(), world.market.params
    world.see_chain()
    world.run(p.margin_ms // 2 - 50)
    assert with_voucher(world, ue, see=False).code == 0
    refused(with_voucher(world, ue, see=False), Code.CHAIN_NOT_SEEN, p.margin_ms // 2 + 50)
    for number in range(2):  # two of three that are needed
        key = world.consortium.keys[number]
        world.send(key, Kind.CHAIN_FACT, ChainFact(bytes(32), 0, 0, Head(9, world.now_s())))
    refused(with_voucher(world, ue, see=False), Code.CHAIN_NOT_SEEN)
    key = world.consortium.keys[3]
    world.send(key, Kind.CHAIN_FACT, ChainFact(bytes(32), 0, 0, Head(9, world.now_s())))
    assert with_voucher(world, ue, see=False).code == 0


def locked(world, ue, *, wei=None, deadline_s=None, flags=LOCK):
    """A lock of that much until then, attested, and the offer it is for."""
    offer = world.offer(ue, flags=flags)
    p = world.market.params
    end = offer.deadline_ms + p.file_ms + 2 * (p.draw_ms + p.audit_max_ms) + p.batch_ms + p.margin_ms
    fact = world.chain.open(ue.address, ue.offer_id(offer), wei or maximum(offer), deadline_s or -(-end // 1000))
    world.attest(fact)
    return offer, -(-end // 1000)


def test_a_lock_covers_the_maximum_for_long_enough(world):
    ue = world.new_ue()
    offer, needed = locked(world, ue)
    world.run(60_000)  # the lock lane does not ask when the chain was seen last
    assert world.send(ue.key, Kind.TASK, ue.task(world.offer(ue, flags=LOCK), None)).code == Code.LOCK_UNKNOWN
    offer, _ = locked(world, ue, wei=maximum(offer) - 1)
    refused(world.send(ue.key, Kind.TASK, ue.task(offer, None)), Code.LOCK_SHORT)
    offer, needed = locked(world, ue, deadline_s=1)
    refused(world.send(ue.key, Kind.TASK, ue.task(offer, None)), Code.LOCK_DEADLINE, 1, needed)
    offer, needed = locked(world, ue)
    voucher = ue.voucher_for(world.market, offer)
    refused(world.send(ue.key, Kind.TASK, ue.task(offer, voucher)), Code.VOUCHER_UNEXPECTED)
    assert world.send(ue.key, Kind.TASK, ue.task(offer, None)).code == 0
    assert world.market.knows(ue.address)
    assert not world.market.knows(world.new_ue().address)


def test_widths_are_never_left(world):
    """A balance near 2^96 reserves no sum beyond it."""
    ue = world.new_ue()
    world.attest(world.chain.deposit(ue.address, 2**96 - 1))
    refused(world.attest(world.chain.deposit(ue.address, 1))[-1], Code.FACT_UNFIT)
    assert with_voucher(world, ue).code == 0
    assert world.market.account(ue.address).balance == 2**96 - 1


def test_a_sum_beyond_96_bits_is_a_refusal(world):
    """No chain holds that much; a state in which somebody spent it shows that the sum is checked all the same."""
    ue = world.funded_ue()
    state = dict(world.market.snapshot())
    account = world.market.account(ue.address)._replace(spent=2**96 - 10)
    state[account_key(ue.address)] = encode(account.to_wire())
    world.market.restore(state)
    world.watch = None
    world.see_chain()
    voucher = ue.voucher(2**96 - 1, world.now_s() + 3_600)
    refused(world.send(ue.key, Kind.TASK, ue.task(world.offer(ue), voucher)), Code.OVERFLOW)


def test_records_stand_under_keys_that_a_certified_read_can_name(world):
    ue = world.new_ue()
    offer_id = world.submit_locked(ue)
    world.funded_ue()
    state = world.market.snapshot()
    assert decode(state[server_key(2)], Server).meta_hash == world.genesis.servers[2].meta_hash
    assert decode(state[task_key(offer_id)], Task).offer.ue == ue.address
    assert lock_record_key(lock_key(ue.address, offer_id)) in state
    with pytest.raises(Broken):
        world.market.restore({**state, b"m/?/": b""})


# ---- form --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [k for k in Kind if k not in {Kind.NOOP, Kind.RECONFIG, Kind.EVIDENCE}])
def test_octets_that_are_no_payload_change_nothing(world, kind):
    before = world.market.snapshot()
    for octets in (b"", b"\xc1", b"\x90", b"\x93\x01\x02\x03", bytes(300)):
        assert world.send(world.consortium.keys[0], kind, octets, after_ms=1).code == LedgerCode.BAD_PAYLOAD
    assert world.market.snapshot() == before


def test_a_noop_does_nothing_and_the_ledgers_kinds_are_not_ours(world):
    key = world.consortium.keys[0]
    assert world.send(key, Kind.NOOP, b"").code == 0
    refused(world.send(key, Kind.RECONFIG, b""), Code.KIND_UNSUPPORTED, 7)


def test_a_longer_form_of_the_same_payload_is_not_accepted(world):
    ue = world.funded_ue()
    offer = world.offer(ue)
    good = ordered(
        world.consortium.ledger_domain, ue.key, Kind.TASK, ue.task(offer, ue.voucher_for(world.market, offer))
    )
    assert world.block(world.tx(ue.key, Kind.TASK, good.tx.payload + b"\xc0"))[0].code == LedgerCode.BAD_PAYLOAD
    assert world.market.precheck(good).code == 0


def test_precheck_answers_what_execution_answers(world):
    ue = world.funded_ue()
    offer = world.offer(ue)
    for payload in (
        ue.task(offer, ue.voucher_for(world.market, offer)),
        TaskPayload(replace(offer, price=1), bytes(65), None),
        Cancel(b"x" * 32),
    ):
        kind = Kind.CANCEL if isinstance(payload, Cancel) else Kind.TASK
        tx = world.tx(ue.key, kind, payload)
        before = world.market.snapshot()
        advice = world.market.precheck(tx)
        assert world.market.snapshot() == before
        assert world.block(tx, after_ms=1)[0] == advice


# ---- CANCEL, EXPIRED -------------------------------------------------------------------------------------------------------


def test_a_ue_cancels_its_open_task_and_gets_its_money_back(world):
    ue, other = world.funded_ue(), world.funded_ue()
    offer_id = world.submit(ue)
    refused(world.send(other.key, Kind.CANCEL, Cancel(offer_id), 1), Code.NOT_YOUR_TASK)
    refused(world.send(ue.key, Kind.CANCEL, Cancel(b"x" * 32), 1), Code.TASK_UNKNOWN)
    world.accepted(ue.key, Kind.CANCEL, Cancel(offer_id), 1)
    assert world.task(offer_id).state == TaskState.REFUNDED
    assert world.task(offer_id).cause == TaskState.CANCELLED
    assert world.market.account(ue.address).reserved == 0
    refused(world.send(ue.key, Kind.CANCEL, Cancel(offer_id), 1), Code.NOT_OPEN)


def test_an_open_task_expires_when_no_known_server_could_make_it():
    world = World()
    world.advertise()
    ue = world.funded_ue()
    for number in range(4):
        advert(world, number, capacity=0)  # nobody sells, but their speeds are known
    offer_id = world.submit(ue)
    deadline = world.task(offer_id).offer.deadline_ms
    last = deadline - 500 - 101
    world.run(last - world.now_ms)
    assert world.task(offer_id).state == TaskState.OPEN
    assert world.market.wake_at() == last + 1
    world.run(1)
    assert world.task(offer_id).cause == TaskState.EXPIRED
    assert world.market.account(ue.address).reserved == 0
    assert world.market.wake_at() is None


def test_adverts_move_the_instant_of_expiry(world):
    ue = world.funded_ue()
    for number in range(4):
        advert(world, number, capacity=0)
    offer_id = world.submit(ue)
    for number in range(4):
        advert(world, number, capacity=0, speed=10**6)  # 10 s instead of 100 ms
    assert world.market.wake_at() == world.task(offer_id).offer.deadline_ms - 500 - 10_001 + 1


def test_a_lock_task_that_ended_waits_for_the_chains_refund(world):
    ue = world.new_ue()
    offer_id = world.submit_locked(ue)
    world.accepted(ue.key, Kind.CANCEL, Cancel(offer_id), 1)
    assert world.task(offer_id).state == TaskState.CANCELLED
    lock = world.market.lock(ue.address, offer_id)
    fact = world.chain.refund(ue.address, offer_id, lock.deadline_s + 1)
    world.attest(fact)
    assert world.task(offer_id).state == TaskState.REFUNDED
    assert world.market.lock(ue.address, offer_id) is None


def test_finished_tasks_leave_the_state_an_hour_after_their_deadline(world):
    ue = world.funded_ue()
    offer_id = world.submit(ue)
    offer = world.task(offer_id).offer
    world.accepted(ue.key, Kind.CANCEL, Cancel(offer_id), 1)
    world.run(offer.deadline_ms + world.market.params.keep_ms - world.now_ms)
    assert world.market.task(offer_id) is not None
    world.run(1)
    assert world.market.task(offer_id) is None
    world.see_chain()
    again = ue.task(offer, ue.voucher_for(world.market, offer))
    refused(world.send(ue.key, Kind.TASK, again), Code.DEADLINE_TOO_SOON)


# ---- parameters ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"file_ms": 19_999},
        {"lambda_bps": 10_001},
        {"floor_bps": 10_001},
        {"audit_bps": 10_001},
        {"auditors": 0},
        {"probe": 2_000_000_001},
        {"exit_delay_s": 40},
        {"draw_ms": 0},
        {"slack_ms": -1},
        {"round_ms": 0},
        {"batch_ms": 0},
    ],
)
def test_parameters_under_which_the_market_could_not_keep_its_word_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        World(params=replace(TEST_PARAMS, **change))
    World(params=MarketParams())


def test_a_stranger_is_told_from_a_known_sender(world):
    assert world.market.knows(world.consortium.keys[0].address)
    assert world.market.knows(world.funded_ue().address)
    assert not world.market.knows(SigningKey.derived("stranger").address)
