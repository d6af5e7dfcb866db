"""Facts of the chain: quorum, equality, conflicts, bounds, order of effects (market.md 3, contracts.md 9)."""

import pytest
from msgspec.structs import replace

from edgora.market.duties import advert_due, head_due
from edgora.market.facts import MAX_PENDING
from edgora.wire.codec import decode, encode, to_u96
from edgora.wire.hashing import keccak
from edgora.wire.ledger import Kind
from edgora.wire.market import (
    ChainFact,
    Code,
    Deposited,
    EpochAdvanced,
    Exited,
    Head,
    OfferOpened,
    OfferRefunded,
    ServerMetaChanged,
    ServerRegistered,
    ServerSlashed,
    ServerUnbonding,
)
from edgora.wire.market_events import Event, FactApplied, FactConflict
from edgora.wire.settlement import lock_key
from unit.market.world import World


@pytest.fixture
def world():
    return World()


def attest(world, fact, *validators):
    return [o.code for o in world.attest(fact, validators)]


def at(number, fact, tx_index=0, log_index=0):
    return ChainFact(keccak(b"some block %d" % number), tx_index, log_index, fact)


def deposit(ue, wei=100):
    return Deposited(ue.address, to_u96(wei))


def test_a_fact_takes_effect_at_the_quorum_and_once(world):
    ue = world.new_ue()
    fact = world.chain.deposit(ue.address, 100)
    assert attest(world, fact, 0, 1) == [0, 0]
    assert world.market.account(ue.address) is None
    assert world.market.has_fact(fact, 0)
    assert not world.market.has_fact(fact, 2)
    assert attest(world, fact, 2) == [0]
    assert world.market.account(ue.address).balance == 100
    assert world.market.has_fact(fact, 3)
    assert attest(world, fact, 3, 0) == [0, 0]  # late ones change nothing
    assert world.market.account(ue.address).balance == 100
    assert sum(isinstance(e, FactApplied) and e.fact == fact.fact for e in world.events) == 1


def test_equal_means_block_transaction_log_and_content(world):
    ue = world.new_ue()
    base = at(1, deposit(ue))
    others = [
        at(2, deposit(ue)),
        at(1, deposit(ue), tx_index=1),
        at(1, deposit(ue), log_index=1),
        at(1, deposit(ue, 99)),
    ]
    attest(world, base, 0)
    for validator, other in zip((1, 2, 1, 3), others, strict=True):
        assert attest(world, other, validator) == [0]
    assert world.market.account(ue.address) is None
    assert attest(world, base, 1, 2) == [0, 0]
    assert world.market.account(ue.address).balance == 100


def test_a_validator_says_one_thing_about_a_place(world):
    ue = world.new_ue()
    assert attest(world, at(1, deposit(ue)), 0) == [0]
    assert attest(world, at(1, deposit(ue)), 0) == [Code.FACT_GIVEN]
    assert attest(world, at(1, deposit(ue, 99)), 0) == [Code.FACT_CONFLICT]
    attest(world, at(1, deposit(ue)), 1, 2)
    assert attest(world, at(1, deposit(ue, 99)), 3) == [Code.FACT_CONFLICT]
    conflicts = [e.server for e in world.events if isinstance(e, FactConflict)]
    assert conflicts == [0, 3]


def test_only_validators_attest(world):
    ue = world.funded_ue()
    assert world.send(ue.key, Kind.CHAIN_FACT, at(1, deposit(ue))).code == Code.NOT_A_VALIDATOR


def test_what_never_reaches_a_quorum_is_bounded_for_each_validator(world):
    victim = world.new_ue()
    honest = at(10_000, deposit(victim))
    attest(world, honest, 1)
    key = world.consortium.keys[0]
    flood = [at(i, deposit(victim, 10**20)) for i in range(MAX_PENDING + 10)]
    for first in range(0, len(flood), 50):
        world.block(*(world.tx(key, Kind.CHAIN_FACT, fact) for fact in flood[first : first + 50]))
    assert sum(world.market.has_fact(fact, 0) for fact in flood) == MAX_PENDING
    assert [world.market.has_fact(fact, 0) for fact in flood[:11]] == [False] * 10 + [True]
    assert world.market.has_fact(honest, 1)
    assert attest(world, honest, 2, 3) == [0, 0]
    assert world.market.account(victim.address).balance == 100


def test_the_effect_of_each_fact():
    world = World(ready=False)
    ue = world.new_ue()
    fact = world.chain.deposit(ue.address, 10**6)
    world.attest(fact)
    exit_ = world.chain.request_exit(ue.address, world.now_s())
    world.attest(exit_)
    assert world.market.account(ue.address).exit_at_s == exit_.fact.when_s
    world.attest(world.chain.finish_exit(ue.address, exit_.fact.when_s))
    account = world.market.account(ue.address)
    assert (account.balance, account.exit_at_s, account.spent) == (0, 0, 0)

    world.attest(at(1, OfferOpened(b"o" * 32, ue.address, to_u96(77), 123)))
    assert world.market.lock(ue.address, b"o" * 32).wei == 77
    world.attest(at(2, OfferRefunded(b"o" * 32, ue.address, to_u96(77))))
    assert world.market.lock(ue.address, b"o" * 32) is None
    assert attest(world, at(3, OfferRefunded(b"o" * 32, ue.address, to_u96(77))), 0, 1, 2)[-1] == Code.FACT_UNFIT

    genesis = world.genesis.servers[1]
    wrong = ServerRegistered(1, genesis.signer, b"x" * 20, bytes(32), bytes(12))
    assert attest(world, at(4, wrong), 0, 1, 2)[-1] == Code.FACT_UNFIT
    assert not world.server(1).registered
    world.attest(at(5, ServerRegistered(1, genesis.signer, genesis.signer, b"m" * 32, bytes(12))))
    assert (world.server(1).registered, world.server(1).meta_hash) == (True, b"m" * 32)
    world.attest(at(6, ServerMetaChanged(1, b"n" * 32)))
    assert world.server(1).meta_hash == b"n" * 32
    world.attest(at(7, ServerUnbonding(1, 5)))
    assert world.server(1).leaving
    world.attest(at(8, ServerSlashed(2, bytes(12))))
    assert world.server(2).leaving
    assert attest(world, at(9, ServerMetaChanged(9, bytes(32))), 0, 1, 2)[-1] == Code.FACT_UNFIT
    world.attest(at(10, EpochAdvanced(4, 99)))
    world.attest(at(11, EpochAdvanced(3, 50)))
    assert world.market.meta.chain_epoch == 4
    for event in world.events:
        assert decode(encode(event), Event) == event


def test_further_servers_join_up_to_64_and_sell_but_do_not_vote(world):
    stranger = world.new_ue().key
    joined = ServerRegistered(4, stranger.address, stranger.address, bytes(32), bytes(12))
    world.attest(at(1, joined))
    assert world.market.server_of(stranger.address).registered
    assert world.send(stranger, Kind.CHAIN_FACT, at(9, deposit(world.new_ue()))).code == Code.NOT_A_VALIDATOR
    again = replace(joined, id=5)
    assert attest(world, at(2, again), 0, 1, 2)[-1] == Code.FACT_UNFIT  # one signer, one server
    for number, code in ((63, 0), (64, Code.FACT_UNFIT)):
        key = world.new_ue().key
        fact = at(100 + number, replace(joined, id=number, signer=key.address))
        assert attest(world, fact, 0, 1, 2)[-1] == code


def test_a_debit_that_comes_before_its_deposit_is_made_up_for(world):
    """A liar attests later facts first; what the honest ones bring about is the same sum in the end."""
    ue = world.new_ue()
    world.attest(at(1, deposit(ue, 100)))
    world.attest(at(3, Exited(ue.address, to_u96(150))))
    account = world.market.account(ue.address)
    assert (account.balance, account.shortfall) == (0, 50)
    world.attest(at(2, deposit(ue, 50)))
    world.attest(at(4, deposit(ue, 7)))
    account = world.market.account(ue.address)
    assert (account.balance, account.shortfall) == (7, 0)


def test_a_lock_of_another_ue_is_another_lock(world):
    one, two = world.new_ue(), world.new_ue()
    world.attest(at(1, OfferOpened(b"o" * 32, one.address, to_u96(5), 1)))
    world.attest(at(2, OfferOpened(b"o" * 32, two.address, to_u96(6), 1)))
    assert [lock.wei for lock in world.market.locks()] == sorted(
        [5, 6], key=lambda wei: lock_key((one if wei == 5 else two).address, b"o" * 32)
    )


# ---- heads ---------------------------------------------------------------------------------------------------------------


def head(world, number, height=1):
    return world.send(world.consortium.keys[number], Kind.CHAIN_FACT, ChainFact(bytes(32), 0, 0, Head(height, 5)))


def test_the_chain_is_seen_by_the_qth_newest_head():
    w = World(ready=False)
    assert w.market.chain_seen_ms() == 0
    times = []
    for number in range(4):
        head(w, number, height=9 - number)  # heads need not agree
        times.append(w.now_ms)
        assert w.market.chain_seen_ms() == (times[number - 2] if number >= 2 else 0)
    head(w, 0)
    assert w.market.chain_seen_ms() == times[2]


def test_heads_are_due_every_quarter_of_a_margin_while_something_is_under_way():
    w = World()
    quarter = w.market.params.margin_ms // 4
    seen = w.now_ms
    assert not head_due(w.market, 0, seen + quarter - 1)
    assert not head_due(w.market, 0, seen + 600_000)  # nothing is under way
    assert head_due(w.market, 0, seen + quarter, posted_ms=seen)
    assert not head_due(w.market, 0, seen + quarter - 1, posted_ms=seen)
    ue = w.funded_ue()
    w.submit(ue, flags=0)
    assert head_due(w.market, 0, w.now_ms + quarter)


def test_a_newer_head_of_another_calls_for_the_own_one_but_not_for_ever():
    w = World()
    w.run(60_000)
    head(w, 2)
    assert [head_due(w.market, i, w.now_ms) for i in range(4)] == [True, True, False, True]
    for number in (0, 1, 3):
        head(w, number)
    assert not any(head_due(w.market, i, w.now_ms) for i in range(4))


def test_an_advert_is_due_when_it_ends_soon_or_the_server_is_not_live():
    w = World(ready=False)
    assert not advert_due(w.market, 0, w.now_ms, 1_000)  # not registered yet
    for fact in w.chain.register_all():
        w.attest(fact)
    assert advert_due(w.market, 0, w.now_ms, 1_000)
    w.advertise(0)
    ends = w.server(0).advert.until_ms
    assert not advert_due(w.market, 0, ends - 1_001, 1_000)
    assert advert_due(w.market, 0, ends - 1_000, 1_000)
    w.attest(w.chain.unbond(0, 1))
    assert not advert_due(w.market, 0, ends, 1_000)
