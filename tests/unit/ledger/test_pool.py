"""The pool: the door, lanes, expiry, and what a primary takes (ledger.md 6, 7, 8, 16)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.crypto.sign import SigningKey
from edgora.ledger.config import Params
from edgora.ledger.executor import Executor
from edgora.ledger.pool import Admission, Pool, Selection
from edgora.wire.codec import encode
from edgora.wire.ledger import SignedTx, Tx
from edgora.wire.pbft import PrePrepare, TxGossip
from unit.ledger.harness import CLIENTS, DOMAIN, KEYS, START, Cluster, Forge, Registers, Solo, sent


class Bench:
    def __init__(self, **params):
        self.world = Cluster(1)
        self.params = Params(**params)
        self.executor = Executor(Registers([k.address for k in CLIENTS]), [k.address for k in KEYS[:4]], self.params)
        self.pool = Pool(self.params, self.executor)
        self.header = self.world.genesis
        self.now = START

    def add(self, client, seq, lane=0, payload=b"a=1", **changes):
        signed = self.world.tx(client, payload, lane=lane, seq=seq, **changes)
        return self.put(signed), signed

    def put(self, signed):
        octets = len(encode(signed))
        return self.pool.add(signed, signed.tx.digest(DOMAIN), octets, self.now, self.header.height + 1)

    def order(self, *txs):
        hashes = [t.tx.digest(DOMAIN) for t in txs]
        self.header = Forge(self.world).header(self.header, txs=txs)
        result = self.executor.execute(self.header, self.header.hash, list(txs), hashes)
        return result, self.pool.executed(txs, hashes, self.now, self.header.height)

    def names(self, selection):
        return [(e.signed.tx.sender == CLIENTS[0].address, e.signed.tx.lane, e.signed.tx.seq) for e in selection.batch]


def test_the_door_answers_each_case_by_name():
    bench = Bench(pool_per_sender=6, lanes_per_sender=2)
    [first] = [signed for answer, signed in [bench.add(0, 0)] if answer is Admission.ADMITTED]
    assert bench.put(first) is Admission.KNOWN
    assert bench.add(0, 0, payload=b"b=2")[0] is Admission.CONFLICT
    assert bench.add(0, 64)[0] is Admission.ADMITTED
    assert bench.add(0, 65)[0] is Admission.GAP
    assert bench.add(1, 0, payload=b"x" * 17_000)[0] is Admission.TOO_LARGE
    assert bench.add(1, 0, kind=12)[0] is Admission.BAD_KIND
    assert bench.add(1, 0, valid_until=0)[0] is Admission.EXPIRED
    assert bench.add(1, 0, valid_until=5_002)[0] is Admission.TOO_FAR
    assert bench.add(1, 0, valid_until=5_001)[0] is Admission.ADMITTED
    for seq in range(1, 5):
        assert bench.add(0, seq)[0] is Admission.ADMITTED
    assert bench.add(0, 5)[0] is Admission.SENDER_FULL
    bench.order(first)
    assert bench.put(first) is Admission.DUPLICATE
    for lane in range(2):
        bench.order(bench.world.tx(2, b"a=1", lane=lane, seq=0))
    assert bench.add(2, 0, lane=7)[0] is Admission.TOO_MANY_LANES
    stranger = SigningKey.derived("stranger")
    tx = Tx(2, stranger.address, 0, 0, 100, b"")
    assert bench.put(SignedTx(tx, stranger.sign(tx.digest(DOMAIN)))) is Admission.UNKNOWN_SENDER


def test_a_full_pool_refuses_and_never_evicts():
    bench = Bench(pool_txs=3)
    admitted = [bench.add(client, 0)[0] for client in range(5)]
    assert admitted == [Admission.ADMITTED] * 3 + [Admission.POOL_FULL] * 2
    assert len(bench.pool) == 3
    bench = Bench(pool_octets=700)
    admitted = [bench.add(client, 0, payload=bytes(200))[0] for client in range(5)]
    assert admitted[:2] == [Admission.ADMITTED] * 2
    assert admitted[-1] is Admission.POOL_FULL
    assert bench.pool.octets <= 700


def test_only_the_head_of_a_lane_is_a_duty():
    bench = Bench()
    bench.add(0, 1)
    assert not bench.pool.ready
    _, second = bench.add(0, 0)
    assert list(bench.pool.ready) == [(CLIENTS[0].address, 0)]
    bench.order(second)
    assert list(bench.pool.ready) == [(CLIENTS[0].address, 0)]  # seq 1 is the head now


def test_expiry_is_told_and_frees_the_place():
    bench = Bench()
    bench.add(0, 0, valid_until=2)
    _, other = bench.add(1, 0)
    assert bench.order(other)[1] == []
    [(entry, why)] = bench.order()[1]
    assert (entry.signed.tx.valid_until, why) == (2, Admission.EXPIRED)
    assert (len(bench.pool), bench.pool.octets, bench.pool.ready) == (0, 0, {})
    assert bench.add(0, 0, valid_until=90)[0] is Admission.ADMITTED  # signed anew


def test_another_transaction_under_an_executed_number_leaves_as_duplicate():
    bench = Bench()
    bench.add(0, 0, payload=b"b=1")
    [(_, why)] = bench.order(bench.world.tx(0, b"a=1", seq=0))[1]
    assert why is Admission.DUPLICATE
    assert len(bench.pool) == 0


def test_a_selection_takes_lanes_in_order_of_arrival_and_numbers_in_sequence():
    bench = Bench(block_txs=10)
    for client, seq, lane in [(0, 2, 0), (1, 0, 5), (0, 0, 0), (0, 1, 0), (1, 2, 5), (0, 0, 1)]:
        bench.add(client, seq, lane)
    selection = Selection(bench.pool, bench.executor, bench.params, [])
    selection.fill(1)
    picked = bench.names(selection)
    assert set(picked) == {(True, 0, 0), (True, 0, 1), (True, 0, 2), (False, 5, 0), (True, 1, 0)}
    assert [p for p in picked if p[1] == 0] == [(True, 0, 0), (True, 0, 1), (True, 0, 2)]
    assert picked[0] == (False, 5, 0)  # the first that could run


def test_a_selection_leaves_out_what_is_in_flight_and_goes_on_after_it():
    bench = Bench()
    txs = [bench.add(0, seq)[1] for seq in range(4)]
    in_flight = [(t.tx.digest(DOMAIN), t) for t in txs[:2]]
    selection = Selection(bench.pool, bench.executor, bench.params, in_flight)
    selection.fill(1)
    assert [seq for _, _, seq in bench.names(selection)] == [2, 3]
    _, late = bench.add(0, 4)
    selection.fill(1)
    assert [seq for _, _, seq in bench.names(selection)] == [2, 3, 4]
    assert selection.close(1)[-1].signed == late
    selection.fill(1)
    assert not selection.batch


def test_a_selection_looks_again_at_a_lane_that_consumed_nothing():
    bench = Bench()
    _, head = bench.add(0, 0)
    selection = Selection(bench.pool, bench.executor, bench.params, [])
    selection.fill(1)
    selection.close(1)
    gap = bench.world.tx(1, b"a=1", seq=3)
    result, _ = bench.order(gap)
    selection.committed([gap.tx.digest(DOMAIN)], result.unconsumed)
    bench.add(1, 0)
    selection.fill(2)
    assert [(e.signed.tx.sender == CLIENTS[1].address, e.signed.tx.seq) for e in selection.batch] == [(True, 0)]
    assert head.tx.seq == 0


def test_what_expired_between_choice_and_proposal_is_left_out():
    bench = Bench()
    bench.add(0, 0, valid_until=3)
    bench.add(1, 0)
    selection = Selection(bench.pool, bench.executor, bench.params, [])
    selection.fill(3)
    assert len(selection.batch) == 2
    assert [e.signed.tx.sender for e in selection.close(4)] == [CLIENTS[1].address]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 6), st.booleans()), max_size=40))
def test_accounts_always_add_up_and_batches_are_executable(actions):
    """Whatever arrives and is ordered: counters match contents, and a batch runs without a gap or duplicate."""
    bench = Bench(pool_per_sender=9, lane_gap=5, block_txs=4)
    selection = Selection(bench.pool, bench.executor, bench.params, [])
    for client, lane, seq, order in actions:
        bench.add(client, seq, lane)
        if order:
            selection.fill(bench.header.height + 1)
            batch = selection.close(bench.header.height + 1)
            assert len(batch) <= 4
            result, _ = bench.order(*[e.signed for e in batch])
            assert all(receipt.code in (0, 16) for receipt in result.receipts)
            selection.committed([e.hash for e in batch], result.unconsumed)
        entries = list(bench.pool.entries())
        assert bench.pool.octets == sum(e.octets for e in entries)
        heads = {e.lane for e in entries if e.signed.tx.seq == bench.executor.next_seq(e.lane)}
        assert set(bench.pool.ready) == heads


def test_what_stands_behind_an_expired_number_is_not_proposed_into_a_gap():
    bench = Bench()
    bench.add(0, 0, valid_until=3)
    bench.add(0, 1)
    selection = Selection(bench.pool, bench.executor, bench.params, [])
    selection.fill(3)
    assert not selection.close(4)
    for _ in range(3):
        bench.order()  # now it has left the pool
    bench.add(0, 0, payload=b"b=1", valid_until=90)
    selection.fill(5)
    assert [(e.signed.tx.seq, e.signed.tx.valid_until) for e in selection.close(5)] == [(0, 90), (1, 4_000)]


# ---- through the replica ---------------------------------------------------------------------------------------------


def test_a_client_is_told_what_became_of_its_transaction():
    solo = Solo(1)
    signed = solo.tx(0, b"a=1")
    assert [(a.admitted, a.reason) for a in solo.submit(signed).answers] == [(True, "ADMITTED")]
    assert [(a.admitted, a.reason) for a in solo.submit(signed).answers] == [(True, "KNOWN")]
    gap = solo.tx(0, b"a=1", seq=99)
    assert [(a.admitted, a.reason) for a in solo.submit(gap).answers] == [(False, "GAP")]


def test_gossip_is_verified_before_it_is_pooled():
    solo = Solo(1)
    good, bad = solo.tx(0, b"a=1"), SignedTx(solo.tx(1, b"a=1").tx, CLIENTS[2].sign(bytes(32)))
    effects = solo.recv(3, TxGossip(0, (good, bad)))
    assert [len(work.items) for work in effects.verify] == [2]
    assert [f.peer for f in effects.faults] == [3]
    assert solo.status.pool == 1
    assert not solo.recv(2, TxGossip(0, (good,))).verify  # known


def test_gossip_goes_out_at_once_and_then_gathers_for_a_moment():
    solo = Solo(1)
    assert len(sent(solo.submit(solo.tx(0, b"a=1")), TxGossip)) == 1
    for client in range(1, 4):
        assert not sent(solo.submit(solo.tx(client, b"a=1")), TxGossip)
    [message] = sent(solo.fire("gossip"), TxGossip)
    assert len(message.txs) == 3


def test_a_transaction_verified_by_gossip_is_not_verified_again_in_a_block():
    solo = Solo(1)
    signed = solo.tx(0, b"a=1")
    solo.recv(3, TxGossip(0, (signed,)))
    header = solo.forge.header(txs=[signed])
    effects = solo.recv(0, solo.forge.pre_prepare(0, header, [signed]))
    assert not effects.verify
    malleated = SignedTx(signed.tx, _other_signature(signed))
    header = solo.forge.header(txs=[malleated])
    other = Solo(1)
    other.recv(3, TxGossip(0, (signed,)))
    effects = other.recv(0, other.forge.pre_prepare(0, header, [malleated]))
    assert [len(work.items) for work in effects.verify] == [1]  # the same transaction, but another signature


def _other_signature(signed):
    return signed.signature[:64] + bytes((signed.signature[64] ^ 7,))


def test_admission_control_sees_how_long_the_oldest_waits():
    solo = Solo(1)
    solo.submit(solo.tx(0, b"a=1"))
    solo.world.now += 700
    assert solo.status.oldest_wait_ms == 700


def test_a_primary_orders_a_lane_in_sequence_whatever_the_order_of_arrival():
    solo = Solo(0)
    txs = [solo.tx(0, b"a=%d" % i) for i in range(4)]
    for signed in reversed(txs):
        solo.submit(signed)
    [message] = sent(solo.fire("propose"), PrePrepare)
    assert list(message.txs) == txs


@pytest.mark.parametrize("name", list(Admission))
def test_every_answer_has_a_stable_name(name):
    assert name.name == name.value.upper()
