"""What a proposal must be before anybody votes for it, and how a primary makes one (ledger.md 3, 6, 7)."""

import pytest

from edgora.crypto.sign import SigningKey
from edgora.ledger.config import LedgerConfig, Params
from edgora.wire.hashing import EMPTY_ROOT, merkle_root
from edgora.wire.ledger import Block, Kind, Phase, SignedTx
from edgora.wire.pbft import (
    Commit,
    GetBlocks,
    GetBody,
    Prepare,
    PrePrepare,
    PutBlocks,
    PutBody,
    PutCertificate,
    ViewChange,
    WalTip,
)  # fmt: skip
from unit.ledger.harness import CLIENTS, DOMAIN, KEYS, START, Cluster, Solo, persisted, sent


def offered(solo, *txs, **changes):
    """What a backup does with a proposal of these transactions under a header with these changes."""
    header = solo.forge.header(txs=txs, **changes)
    return solo.recv(0, solo.forge.pre_prepare(0, header, txs))


def refused_at_once(effects):
    """No vote, the primary loses credit, and its view is left."""
    return not sent(effects, Prepare) and bool(effects.faults) and bool(sent(effects, ViewChange))


def test_a_sound_proposal_with_transactions_is_accepted():
    solo = Solo(1)
    assert sent(offered(solo, solo.tx(0, b"a=1"), solo.tx(1, b"b=1")), Prepare)


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 2}, {"parent": bytes(32)}, {"epoch": 1}, {"proposer": KEYS[2].address}, {"next_epoch": b"\1" * 32},
        {"time_ms": START - 1_000}, {"time_ms": START - 5_000}, {"exec_height": 1}, {"tx_count": 1},
        {"tx_root": bytes(32)}, {"state_root": bytes(32)}, {"receipt_root": bytes(32)}, {"receipt_count": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_a_header_that_is_wrong_in_one_field_gets_no_vote(changes):
    solo = Solo(1)
    effects = offered(solo, **changes)
    assert not sent(effects, Prepare)
    assert sent(offered(Solo(1)), Prepare)  # and it is that field


@pytest.mark.parametrize(
    "make",
    [
        lambda s: [s.tx(0, b"x" * 17_000)],
        lambda s: [s.tx(0, b"a=1", kind=99)],
        lambda s: [s.tx(0, b"a=1", valid_until=0)],
        lambda s: [s.tx(0, b"a=1", valid_until=5_002)],
        lambda s: [s.tx(0, b"a=1", seq=0)] * 2,
        lambda s: [SignedTx(s.tx(0, b"a=1").tx, SigningKey.derived("thief").sign(bytes(32)))],
        lambda s: [SignedTx(s.tx(0, b"a=1").tx, bytes(65))],
    ],
    ids=["size", "kind", "expired", "too far", "twice", "forged", "malformed"],
)
def test_a_block_with_one_bad_transaction_ends_the_view(make):
    solo = Solo(1)
    assert refused_at_once(offered(solo, *make(solo)))


def test_too_many_transactions_or_octets_end_the_view():
    solo = Solo(1, block_txs=3)
    assert refused_at_once(offered(solo, *[solo.tx(i, b"a=1") for i in range(4)]))
    solo = Solo(1, block_octets=2_000)
    assert refused_at_once(offered(solo, *[solo.tx(i, b"a=" + bytes(1_000)) for i in range(4)]))


def test_a_business_rule_never_makes_a_block_invalid():
    """Gap, stranger, unknown order: decided by execution, not by validity."""
    solo = Solo(1)
    stranger = SigningKey.derived("stranger")
    tx = solo.tx(0, b"a=1").tx
    foreign = type(tx)(tx.kind, stranger.address, 0, 0, 100, b"")
    txs = [solo.tx(1, b"?"), solo.tx(2, b"a=1", seq=7), SignedTx(foreign, stranger.sign(foreign.digest(DOMAIN)))]
    assert sent(offered(solo, *txs), Prepare)


def test_a_transaction_of_the_uncommitted_chain_below_may_not_come_again():
    solo = Solo(1)
    signed = solo.tx(0, b"a=1")
    first = solo.forge.header(txs=[signed])
    solo.recv(0, solo.forge.pre_prepare(0, first, [signed]))
    second = solo.forge.header(first, txs=[signed])
    assert refused_at_once(solo.recv(0, solo.forge.pre_prepare(0, second, [signed])))


# ---- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "accepted"), [(-2_000, True), (-2_001, False), (2_000, True), (2_001, False)])
def test_the_time_of_a_first_proposal_is_near_the_clock(offset, accepted):
    solo = Solo(1)
    solo.world.now += 60_000
    assert bool(sent(offered(solo, time_ms=solo.world.now + offset), Prepare)) is accepted


def test_a_parent_ahead_of_the_clock_is_followed_by_one_millisecond():
    solo = Solo(1)
    parent = solo.forge.header(time_ms=START + 2_000)
    assert sent(solo.recv(0, solo.forge.pre_prepare(0, parent)), Prepare)
    solo.world.now -= 500  # our clock was set back: the parent is beyond its tolerance now
    too_fast = solo.forge.header(parent, time_ms=START + 2_002)
    assert not sent(solo.recv(0, solo.forge.pre_prepare(0, too_fast)), Prepare)
    other = Solo(1)
    assert sent(other.recv(0, other.forge.pre_prepare(0, parent)), Prepare)
    other.world.now -= 500
    assert sent(other.recv(0, other.forge.pre_prepare(0, other.forge.header(parent, time_ms=START + 2_001))), Prepare)


def test_a_proposal_from_the_future_is_accepted_when_the_clock_gets_there():
    solo = Solo(1)
    assert not sent(offered(solo, time_ms=START + 2_500), Prepare)
    [vote] = sent(solo.recv(2, solo.forge.prepare(2, 0, solo.forge.header(time_ms=START + 2_500)), at=600), Prepare)
    assert vote.height == 1


# ---- results ---------------------------------------------------------------------------------------------------------


def test_a_backup_executes_what_the_proposal_certifies_before_it_votes():
    solo = Solo(1)
    low = solo.forge.header()
    solo.recv(0, solo.forge.pre_prepare(0, low))
    twin = Solo(1)
    twin.recv(0, twin.forge.pre_prepare(0, low))
    executed = solo.forge.certificate(Phase.COMMIT, 0, low)
    twin.recv(2, PutCertificate(0, executed))
    high = solo.forge.header(low, exec_height=1, state_root=twin.status.state_root)
    without = solo.recv(0, solo.forge.pre_prepare(0, high))
    assert not sent(without, Prepare)  # waits: nothing proves yet that height 1 is committed
    assert solo.status.waiting.code == "prepare"
    other = Solo(1)
    other.recv(0, other.forge.pre_prepare(0, low))
    effects = other.recv(0, other.forge.pre_prepare(0, high, executed=executed))
    assert [e.block.header for e in effects.executed] == [low]
    assert [vote.height for vote in sent(effects, Prepare)] == [2]


def test_unequal_results_in_a_proposal_get_no_vote_and_no_trust():
    solo = Solo(1)
    assert refused_at_once(offered(solo, state_root=b"\x09" * 32))
    assert solo.status.halted is None  # one Byzantine primary cannot stop correct replicas for good


def test_unequal_results_under_a_quorum_stop_the_replica_for_good():
    solo = Solo(1)
    header = solo.forge.header(state_root=b"\x09" * 32)
    certificate = solo.forge.certificate(Phase.COMMIT, 0, header)
    solo.recv(2, PutCertificate(0, certificate))
    [question] = [send for send in solo.fire("fetch").send if isinstance(send.message, GetBlocks)]
    effects = solo.recv(question.dest, PutBlocks(0, (Block(header, ()),), (), certificate))
    assert "gives state" in effects.alarm
    assert solo.status.waiting.code == "halted"
    after = solo.forge.header()
    assert not solo.recv(0, solo.forge.pre_prepare(0, after)).send


# ---- the primary -----------------------------------------------------------------------------------------------------


def proposals(cluster):
    seen = {}
    for _, _, message in cluster.sent:
        if isinstance(message, PrePrepare):
            seen[message.view, message.header.height] = message
    return [seen[key] for key in sorted(seen)]


def test_an_idle_primary_waits_the_batch_delay_for_company():
    solo = Solo(0)
    for i in range(3):
        solo.world.now += 1
        assert not sent(solo.submit(solo.tx(i, b"a=1")), PrePrepare)
    [message] = sent(solo.fire("propose"), PrePrepare)
    assert len(message.txs) == 3
    assert solo.world.now == START + 1 + 5  # five milliseconds after the first one


def test_a_busy_primary_keeps_the_block_gap():
    solo = Solo(0)
    solo.submit(solo.tx(0, b"a=1"))
    solo.fire("propose")
    first = solo.world.now
    solo.submit(solo.tx(1, b"a=1"))
    solo.fire("propose")
    assert solo.world.now == first + 25


def test_a_full_batch_closes_at_once_and_the_window_bounds_the_pipeline():
    solo = Solo(0, block_txs=1, window=3)
    heights = [m.header.height for i in range(6) for m in sent(solo.submit(solo.tx(i, b"a=1")), PrePrepare)]
    assert heights == [1, 2, 3]
    assert solo.status.waiting.code in {"prepare", "window"}


def test_octets_close_a_batch_too():
    solo = Solo(0, block_octets=20_000)
    for i in range(3):
        solo.submit(solo.tx(i, b"a=" + bytes(9_000)))
    messages = [m for log in solo.log for m in sent(log, PrePrepare)]
    assert [len(m.txs) for m in messages] == [2] or [len(m.txs) for m in messages] == [1, 1]


def test_results_are_sealed_by_an_empty_block_and_then_all_is_silent():
    cluster = Cluster(4)
    cluster.order_all(1)
    cluster.run(2_000)
    sizes = [len(m.txs) for m in proposals(cluster)]
    assert sizes == [1, 0]
    assert proposals(cluster)[1].header.exec_height == 1
    assert proposals(cluster)[1].header.receipt_count == 1


def test_each_receipt_lies_under_exactly_one_header():
    cluster = Cluster(4, block_txs=2)
    cluster.order_all(17)
    cluster.run(1_000)
    executed = cluster.nodes[0].executed
    receipts = {e.block.header.height: [r.struct_hash() for r in e.receipts] for e in executed}
    below, named = 0, 0
    for e in executed:
        header = e.block.header
        leaves = [leaf for height in range(below + 1, header.exec_height + 1) for leaf in receipts[height]]
        assert (merkle_root(leaves), len(leaves)) == (header.receipt_root, header.receipt_count)
        below, named = header.exec_height, named + len(leaves)
    assert named == 17
    assert executed[0].block.header.receipt_root == EMPTY_ROOT


def test_an_overdue_wake_up_is_met_by_a_block_of_its_time():
    cluster = Cluster(4)
    wake = START + 4_000
    cluster.submit(1, cluster.tx(0, b"wake %d" % wake))
    cluster.run(8_000)
    assert all(b"woken" in node.app.state for node in cluster.nodes.values())
    times = [e.block.header.time_ms for e in cluster.nodes[0].executed]
    assert any(wake <= time <= wake + 200 for time in times)
    assert not any(START + 1_500 < time < wake for time in times)  # silent in between


def test_a_primary_that_ignores_a_wake_up_is_replaced_although_it_orders_other_things():
    """It stops header time: without this no deadline would ever pass."""
    cluster = Cluster(4, timeout_ms=500)
    wake = START + 1_000
    cluster.submit(1, cluster.tx(0, b"wake %d" % wake))
    cluster.run(500)
    cluster.nodes[0].app.wake_at = lambda: None  # the primary's application hides it
    cluster.nodes[0].replica._core.chain.wake_at = None
    cluster.run(4_000)
    assert cluster.nodes[1].status().view >= 1
    assert b"woken" in cluster.nodes[1].app.state


def test_header_times_grow_even_if_the_primary_is_faster_than_the_clock():
    cluster = Cluster(4, delay=0, block_txs=1)
    cluster.order_all(20)
    times = [e.block.header.time_ms for e in cluster.nodes[2].executed]
    assert times == sorted(set(times))


# ---- compact proposals -----------------------------------------------------------------------------------------------


def test_compact_proposals_carry_hashes_and_are_completed_from_the_pool():
    cluster = Cluster(4, compact=True)
    cluster.order_all(8)
    full = [m for m in proposals(cluster) if m.header.tx_count]
    assert full
    assert all(not m.txs and len(m.hashes) == m.header.tx_count for m in full)
    assert not any(isinstance(message, GetBody) for _, _, message in cluster.sent)


def test_a_compact_proposal_that_the_pool_cannot_complete_is_fetched_once():
    solo = Solo(1, compact=True)
    signed = solo.tx(0, b"a=1")
    header = solo.forge.header(txs=[signed])
    message = solo.forge.pre_prepare(0, header, (), hashes=(signed.tx.digest(DOMAIN),))
    effects = solo.recv(0, message)
    assert [(s.dest, s.message) for s in effects.send if isinstance(s.message, GetBody)] == [
        (0, GetBody(0, header.hash))
    ]
    assert not sent(solo.recv(2, solo.forge.prepare(2, 0, header)), GetBody)  # one question under way
    assert sent(solo.recv(0, PutBody(0, Block(header, (signed,)))), Prepare)


# ---- votes -----------------------------------------------------------------------------------------------------------


def test_votes_are_verified_lazily_and_a_bad_one_costs_its_sender():
    solo = Solo(1)
    header = solo.forge.header()
    bad = Prepare(0, 0, 1, header.hash, KEYS[0].sign(bytes(32)))
    assert not solo.recv(2, bad).faults  # nobody needed it yet
    effects = solo.recv(0, solo.forge.pre_prepare(0, header))
    assert [(f.peer, f.reason) for f in effects.faults] == [(2, "a vote with a bad signature")]
    assert not sent(effects, Commit)
    assert sent(solo.recv(3, solo.forge.prepare(3, 0, header)), Commit)


def test_votes_of_different_views_never_form_one_certificate():
    solo = Solo(2)
    header = solo.forge.header()
    solo.recv(0, solo.forge.pre_prepare(0, header))
    solo.recv(3, solo.forge.prepare(3, 1, header))  # a vote of the next view, kept
    assert not any(persisted(log, WalTip) for log in solo.log)
    solo.recv(0, solo.forge.commit(0, 0, header))
    solo.recv(1, solo.forge.commit(1, 0, header))
    assert not solo.recv(3, solo.forge.commit(3, 1, header)).executed


def test_a_commit_certificate_holds_exactly_a_quorum_of_signatures():
    cluster = Cluster(7)
    cluster.order_all(4)
    for executed in cluster.nodes[0].executed:
        if executed.certificate is not None:
            assert len(executed.certificate.signatures) == 5


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"validators": ()}, "0 validators"),
        ({"validators": (KEYS[0].address,) * 4}, "twice"),
        ({"index": 4}, "index 4"),
        ({"params": Params(window=17)}, "window 17"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(changes, text):
    world = Solo(0).world
    with pytest.raises(ValueError, match=text):
        world.config(0, **changes)


def test_a_key_that_is_not_the_validators_is_refused():
    solo = Solo(0)
    with pytest.raises(ValueError, match="not that of validator"):
        type(solo.replica)(solo.world.config(0), CLIENTS[0], solo.app)
    assert isinstance(solo.world.config(0), LedgerConfig)
    assert Kind.NOOP == 9
