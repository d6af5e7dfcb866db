"""Rounds: when they open and close, which plan wins and why, what becomes of proposals (market.md 4)."""

import pytest
from msgspec.structs import replace

from edgora.market.reasons import sentence
from edgora.wire.codec import decode, encode, from_u128, to_u128
from edgora.wire.ledger import Kind
from edgora.wire.market import Allocation, Cancel, Code, TaskState, code_name
from edgora.wire.market_events import Event, ProposalRefused, RoundClosed, RoundOpened
from unit.market.world import TEST_PARAMS, World


def opened(world) -> RoundOpened:
    return [e for e in world.events if isinstance(e, RoundOpened)][-1]


def closed(world) -> RoundClosed:
    return [e for e in world.events if isinstance(e, RoundClosed)][-1]


def value(world, pairs) -> int:
    table = world.market.book().table
    return sum(table.W[j][table.place[s]] for j, s in pairs)


def propose(world, number, pairs, *, worth=None, after_ms=1, policy="test", bound=None):
    seller = world.seller(number)
    allocation = seller.proposal(world.market, pairs, value(world, pairs) if worth is None else worth, policy)
    return world.send(seller.key, Kind.ALLOCATION, replace(allocation, bound=bound), after_ms)


@pytest.fixture
def world():
    """Two equal tasks; servers 0 and 1 have room for one each, 1 is cheaper; 2 and 3 sell nothing."""
    w = World()
    w.advertise(0, slots=1)
    w.advertise(1, slots=1, ask=40)
    w.advertise(2, 3, ask=10_000)
    ue = w.funded_ue()
    w.ids = [w.submit(ue), w.submit(ue)]
    w.run_until(lambda: w.market.round_state() is not None)
    return w


def test_a_round_opens_round_ms_after_the_last_close_and_closes_proposal_ms_later():
    w = World()
    w.advertise()
    ue = w.funded_ue()
    first = w.submit(ue)
    assert w.market.round_state() is not None  # nothing was closed for long: it opens with the block
    assert w.market.wake_at() == w.now_ms + 150
    w.run(149)
    assert w.task(first).state == TaskState.OPEN
    w.run(1)
    assert w.task(first).state == TaskState.ASSIGNED
    close = w.now_ms
    second = w.submit(ue)
    assert w.market.wake_at() == close + 200
    w.run_until(lambda: w.market.round_state() is not None)
    assert w.now_ms == close + 200
    w.run_until(lambda: w.task(second).state == TaskState.ASSIGNED)
    assert w.now_ms == close + 350
    assert [w.task(x).round for x in (first, second)] == [1, 2]


def test_nothing_placeable_asks_for_no_block_and_opens_no_round():
    w = World()
    w.advertise(0, ask=290)  # forwarding to it costs more than the work brings
    w.advertise(2, ask=301)  # the source is too dear
    offer_id = w.submit(w.funded_ue(), price=300, fuel_limit=1_000, input_octets=10**6, source=2)
    assert w.market.round_state() is None
    assert w.market.wake_at() == w.task(offer_id).offer.deadline_ms - 500 - 2 + 1  # to expire, nothing else
    w.advertise(2, ask=300)
    assert w.market.round_state() is not None


def test_the_snapshot_holds_what_is_placeable_in_arrival_order_and_every_live_server(world):
    event = opened(world)
    assert [t.offer_id for t in event.instance.tasks] == world.ids[:1]  # the second came after the opening
    assert [s.id for s in event.instance.servers] == [0, 1, 2, 3]
    assert event.instance.now_ms == event.closes_ms == world.market.wake_at()
    assert decode(encode(event), Event) == event


def test_adverts_do_not_change_an_open_round(world):
    world.advertise(0, 1, capacity=0)
    world.until_state(world.ids[0], TaskState.ASSIGNED)
    assert world.task(world.ids[0]).executor == 1


def test_32_tasks_a_ue_and_256_in_all():
    w = World(params=replace(TEST_PARAMS, round_ms=5_000, credit0=10**12), watched=False)
    w.advertise(capacity=10**12, slots=1000)
    starter = w.funded_ue()
    w.submit(starter)
    w.run(200)  # the first round is over, the next opens in five seconds
    ues = [w.funded_ue() for _ in range(9)]
    for ue in ues:
        for _ in range(33):
            w.see_chain()
            offer = w.offer(ue, flags=0, fuel_limit=1_000)
            w.accepted(ue.key, Kind.TASK, ue.task(offer, ue.voucher_for(w.market, offer)), 1)
            if w.market.round_state() is not None:
                break
    w.run_until(lambda: w.market.round_state() is not None)
    assert len(ues) * 33 > 256
    found = w.market.round_state().instance.tasks
    per_ue = {ue.address: sum(t.ue == ue.address for t in found) for ue in ues}
    assert max(per_ue.values()) <= 32
    assert len(found) <= 256


def test_every_validators_proposal_ends_the_round_at_once():
    w = World()
    w.advertise()
    ue = w.funded_ue()
    offer_id = w.submit(ue)
    for number in range(4):
        assert w.task(offer_id).state == TaskState.OPEN
        assert propose(w, number, [(0, number)]).code == (0 if number in {0} else Code.BELOW_FLOOR)
    world = World(params=replace(TEST_PARAMS, floor_bps=0))
    world.advertise()
    offer_id = world.submit(world.funded_ue())
    for number in range(4):
        assert world.task(offer_id).state == TaskState.OPEN
        assert propose(world, number, [(0, number)]).code == 0
    assert world.task(offer_id).state == TaskState.ASSIGNED
    assert world.now_ms < opened(world).closes_ms


def test_without_proposals_greedy_wins_and_the_event_says_so(world):
    world.until_state(world.ids[0], TaskState.ASSIGNED)
    event = closed(world)
    assert (event.winner, event.policy, event.bound) == (None, "greedy", None)
    assert event.value == event.greedy
    choice = event.choices[0]
    assert (choice.offer_id, choice.server) == (world.ids[0], 1)
    assert [a.server for a in choice.alternatives] == [0, 2, 3]
    assert [a.reason.code for a in choice.alternatives] == ["LESS_VALUE", "ASK_ABOVE_PRICE", "ASK_ABOVE_PRICE"]
    assert from_u128(choice.alternatives[0].value) == 500 * 10**9
    assert sentence(choice.alternatives[0].reason) == "worth 500 gwei there, 590 gwei where it went"


def test_a_better_plan_wins_over_greedy_and_names_its_bound():
    """Greedy gives the dear task the cheap server; the other way round is worth more in sum."""
    w = World()
    ue = w.funded_ue()
    w.see_chain()
    for fuel, source in ((1_000_000_000, 0), (990_000_000, 1)):
        w.submit(ue, fuel_limit=fuel, source=source, flags=0, input_octets=16 * 2**20, deadline_ms=w.now_ms + 600_000)
    cheap = w.advert_tx(1, slots=1, ask=40, forward=2 * 10**9)
    w.block(w.advert_tx(0, slots=1, ask=50, forward=10**6), cheap)
    greedy = w.market.book().greedy
    best = [(0, 0), (1, 1)]
    assert greedy.pairs == ((0, 1), (1, 0))
    assert value(w, best) > greedy.value
    low, high = to_u128(greedy.value - 1), to_u128(value(w, best) + 10)
    assert propose(w, 2, best, bound=high).code == 0
    assert propose(w, 3, [(0, 0)], bound=low).code == Code.BELOW_FLOOR
    w.run(150)
    event = closed(w)
    assert (event.winner, event.policy) == (2, "test")
    assert from_u128(event.value) == value_of(event) > from_u128(event.greedy)
    assert event.bound == high
    assert [part.reason.code for part in event.refused] == ["BELOW_FLOOR"]


def value_of(event: RoundClosed) -> int:
    return max(from_u128(part.value) for part in event.accepted)


def test_a_bound_below_the_winners_value_is_dropped_and_counted(world):
    best = world.market.book().greedy
    assert propose(world, 0, best.pairs, bound=to_u128(best.value - 1)).code == 0
    world.run(200)
    event = closed(world)
    assert (event.bound, event.bounds_dropped) == (None, 1)
    assert event.winner is None  # equal value, equal pairs: greedy counts as first


def test_more_pairs_win_at_equal_value_and_then_the_earlier_proposal():
    w = World(params=replace(TEST_PARAMS, floor_bps=0, round_ms=1_000))
    w.advertise(0, slots=2, ask=50)
    w.advertise(1, slots=2, ask=100)
    ue = w.funded_ue()
    w.submit(ue)
    w.run(200)
    ids = [w.submit(ue, source=1, price=100, fuel_limit=10**6), w.submit(ue, source=0)]
    w.run_until(lambda: w.market.round_state() is not None)
    index = {t.offer_id: j for j, t in enumerate(w.market.round_state().instance.tasks)}
    worthless, worthy = index[ids[0]], index[ids[1]]
    assert value(w, [(worthless, 1)]) == 0
    fewer, more = [(worthy, 0)], sorted([(worthy, 0), (worthless, 1)])
    assert value(w, fewer) == value(w, more)
    assert propose(w, 2, fewer, policy="fewer").code == 0
    assert propose(w, 3, more, policy="more").code == 0
    w.run(200)
    assert closed(w).policy in {"more", "greedy"}
    assert sum(c.server is not None for c in closed(w).choices) == 2


def test_a_preferred_policy_wins_over_larger_values():
    w = World(params=replace(TEST_PARAMS, floor_bps=5_000, prefer="mine"))
    w.advertise(0, slots=1)
    w.advertise(1, slots=1, ask=40)
    offer_id = w.submit(w.funded_ue())
    assert propose(w, 2, [(0, 1)], policy="theirs").code == 0
    assert propose(w, 3, [(0, 0)], policy="mine").code == 0
    w.until_state(offer_id, TaskState.ASSIGNED)
    event = closed(w)
    assert (event.winner, event.policy, w.task(offer_id).executor) == (3, "mine", 0)
    assert from_u128(event.value) < from_u128(event.greedy)


def test_a_preferred_policy_below_the_floor_is_refused_all_the_same():
    w = World(params=replace(TEST_PARAMS, floor_bps=9_000, prefer="mine"))
    w.advertise(0, slots=1)
    w.advertise(1, slots=1, ask=40)
    w.submit(w.funded_ue())
    assert code_name(propose(w, 3, [(0, 0)], policy="mine").code) == "BELOW_FLOOR"


def test_pairs_whose_task_is_gone_are_dropped_at_the_close(world):
    assert propose(world, 0, [(0, 1)]).code == 0
    ue = next(u for u in (world.consortium.ue(1),) if u.address == world.task(world.ids[0]).offer.ue)
    world.accepted(ue.key, Kind.CANCEL, Cancel(world.ids[0]), 1)
    world.run(200)
    event = next(e for e in world.events if isinstance(e, RoundClosed))
    assert (from_u128(event.value), event.accepted[0].dropped, event.choices[0].server) == (0, 1, None)
    assert world.task(world.ids[0]).cause == TaskState.CANCELLED


def test_pairs_that_have_become_too_slow_are_dropped_at_the_close():
    w = World()
    w.advertise(0, speed=10**6)  # 10 s for 10 Mfuel
    w.advertise(1, speed=10**9)
    ue = w.funded_ue()
    w.advertise(1, capacity=0, speed=10**9)
    offer_id = w.submit(ue, flags=0, deadline_ms=w.now_ms + 50 + 500 + 10_001 + 150 + 100)
    assert w.market.round_state() is not None
    w.block(after_ms=151 + 100)  # 101 ms after the round should have closed
    assert closed(w).choices[0].server is None
    assert w.task(offer_id).state == TaskState.OPEN


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"round": 99}, Code.WRONG_ROUND),
        ({"digest": b"x" * 32}, Code.WRONG_DIGEST),
        ({"value": to_u128(1)}, Code.VALUE_WRONG),
        ({"pairs": ((0, 2),), "value": bytes(16)}, Code.PAIR_NOT_OK),
        ({"policy": ""}, Code.POLICY_NAME),
    ],
)
def test_a_refused_proposal_is_counted_with_its_reason(world, change, code):
    seller = world.seller(0)
    good = seller.proposal(world.market, [(0, 1)], value(world, [(0, 1)]))
    assert world.send(seller.key, Kind.ALLOCATION, replace(good, **change), 1).code == code
    world.run(200)
    counted = [part.reason.code for part in closed(world).refused]
    assert counted == ([] if code == Code.WRONG_ROUND else [code.name])
    assert [e.reason.code for e in world.events if isinstance(e, ProposalRefused)] == counted


def test_four_tries_and_one_accepted_proposal_a_validator(world):
    for _ in range(4):
        assert propose(world, 0, [(0, 1)], worth=1).code == Code.VALUE_WRONG
    assert propose(world, 0, [(0, 1)]).code == Code.TOO_MANY_TRIES
    assert propose(world, 2, [(0, 1)]).code == 0
    assert propose(world, 2, [(0, 1)]).code == Code.ALREADY_ACCEPTED
    assert propose(world, 3, [(0, 1)]).code == Code.DUPLICATE_PLAN


def test_only_validators_propose_and_only_while_a_round_is_open(world):
    ue = world.funded_ue()
    allocation = Allocation(1, b"d" * 32, (), bytes(16), None, "p", 1)
    assert world.send(ue.key, Kind.ALLOCATION, allocation, 1).code == Code.NOT_A_VALIDATOR
    world.run_until(lambda: world.market.round_state() is None)
    assert world.send(world.seller(0).key, Kind.ALLOCATION, allocation, 1).code == Code.NO_ROUND


def test_room_is_used_until_the_result_is_filed(world):
    first = world.ids[0]
    world.until_state(first, TaskState.ASSIGNED)
    assert world.server(1).used == world.task(first).weight == 2 * 10**9  # one slot of all the credit
    world.until_state(world.ids[1], TaskState.ASSIGNED)
    assert world.task(world.ids[1]).executor == 0  # the cheaper one is full
    assert world.file(first).code == 0
    assert world.server(1).used == 0


def test_events_of_a_round_encode_and_decode(world):
    propose(world, 0, [(0, 1)])
    world.run(200)
    for event in world.events:
        assert decode(encode(event), Event) == event
