"""Mistakes that other systems made, one regression test each (ledger.md 21); the numbers are those of that list."""

from functools import partial

import pytest

from edgora.ledger.effects import Boot, TimerFired
from edgora.wire.ledger import Phase
from edgora.wire.pbft import (
    Commit,
    GetBlocks,
    NewView,
    Prepare,
    PrePrepare,
    PutBlocks,
    PutCertificate,
    Status,
    TxGossip,
    ViewChange,
    WalAccepted,
)  # fmt: skip
from unit.ledger.harness import KEYS, START, Cluster, Solo, sent, standing


def test_mistake_1_followers_know_what_a_hanging_primary_does_not_order():
    cluster = Cluster(4)
    cluster.lose = lambda src, _dest, message: src == 0 and isinstance(message, PrePrepare)
    name = cluster.submit(0, cluster.tx(0, b"a=1"))  # only the hanging primary was told
    assert cluster.run(10_000, lambda: all(cluster.executed_at(node, name) for node in cluster.nodes.values()))
    assert {node.status().view for node in cluster.nodes.values()} == {1}


def test_mistake_1_a_transaction_whose_gossip_was_lost_goes_out_again():
    cluster = Cluster(4)
    cluster.lose = lambda src, _dest, message: src == 3 and isinstance(message, TxGossip)
    name = cluster.submit(3, cluster.tx(0, b"a=1"))
    cluster.run(200)
    cluster.lose = lambda *_: False
    assert cluster.run(5_000, lambda: all(cluster.executed_at(node, name) for node in cluster.nodes.values()))


def test_mistake_2_a_block_that_comes_by_sync_and_by_votes_is_delivered_once():
    solo = Solo(1)
    headers = solo.forge.chain(2)
    for header in headers:
        solo.recv(0, solo.forge.pre_prepare(0, header))
        solo.recv(2, solo.forge.prepare(2, 0, header))
    solo.recv(2, standing(height=2))
    solo.recv(3, standing(height=2))
    asked = [m for log in [*solo.log, solo.fire("fetch")] for m in sent(log, GetBlocks)]
    assert [m.first for m in asked] == [1]
    certificate = solo.forge.certificate(Phase.COMMIT, 0, headers[1])
    for signer in (0, 2, 3):
        for header in headers:
            solo.recv(signer, solo.forge.commit(signer, 0, header))
    blocks = tuple(e.block for log in solo.log for e in log.executed)
    assert len(blocks) == 2
    for peer in (2, 3):
        assert not solo.recv(peer, PutBlocks(0, blocks, (), certificate)).executed
        assert not solo.recv(peer, PutCertificate(0, certificate)).executed
    assert [height for height, _ in solo.app.blocks] == [1, 2]


def test_mistake_3_a_block_in_flight_survives_the_view_change_and_is_checked():
    solo = Solo(2)
    header = solo.forge.header()
    solo.recv(0, solo.forge.pre_prepare(0, header))
    tip = solo.forge.certificate(Phase.PREPARE, 0, header)
    changes = [solo.forge.view_change(s, 1, tip=tip, headers=[header]) for s in (0, 1, 3)]
    solo.recv(1, solo.forge.new_view(1, changes))
    other = solo.forge.header(view=1)  # sound as a first proposal, but not the base
    effects = solo.recv(1, solo.forge.pre_prepare(1, other))
    assert not sent(effects, Prepare)
    assert [change.body.new_view for change in sent(effects, ViewChange)] == [2]
    again = solo.reborn()
    assert again.status.view == 2


def test_mistake_4_a_huge_view_number_drags_nobody():
    solo = Solo(2)
    for view in (2**63, 2**40, 7):
        solo.recv(3, solo.forge.view_change(3, view))
    assert (solo.status.view, solo.status.active) == (0, True)
    effects = solo.recv(1, solo.forge.view_change(1, 1))
    assert [change.body.new_view for change in sent(effects, ViewChange)] == [1]


def test_mistake_5_timeouts_double_up_to_a_cap_and_come_down_again():
    cluster = Cluster(4, timeout_ms=500, timeout_cap_ms=2_000)
    cluster.lose = lambda _src, _dest, message: isinstance(message, (PrePrepare, NewView))
    cluster.submit(1, cluster.tx(0, b"a=1"))
    cluster.run(30_000)
    assert {node.status().timeout_ms for node in cluster.nodes.values()} == {2_000}
    cluster.lose = lambda *_: False
    assert cluster.run(8_000, lambda: min(cluster.heights()) >= 1)
    assert {node.status().timeout_ms for node in cluster.nodes.values()} == {500}


def test_mistake_6_no_view_change_timer_runs_while_there_is_nothing_to_order():
    cluster = Cluster(4)
    cluster.order_all(3)
    cluster.run(3_000)  # seals
    heights = cluster.heights()
    for node in cluster.nodes.values():
        assert not {"progress", "inclusion", "view", "propose"} & set(node.status().timers)
        assert node.status().waiting.code == "idle"
    cluster.sent.clear()
    cluster.run(60_000)
    assert cluster.heights() == heights
    assert {type(message) for _, _, message in cluster.sent} == {Status}
    assert {node.status().view for node in cluster.nodes.values()} == {0}


def test_mistake_6_a_dead_primary_of_an_idle_ledger_is_noticed_by_its_heartbeat():
    cluster = Cluster(4)
    cluster.crash(0)
    cluster.run(4_000)
    assert {node.status().view for node in cluster.nodes.values()} == {1}


def test_mistake_7_a_restart_never_votes_twice_for_one_place():
    solo = Solo(1)
    first, second = solo.forge.header(), solo.forge.header(time_ms=START + 1)
    before = sent(solo.recv(0, solo.forge.pre_prepare(0, first)), Prepare)
    again = solo.reborn()
    assert sent(again.log[0], Prepare) == before  # byte for byte what it said
    assert not sent(again.recv(0, again.forge.pre_prepare(0, second)), Prepare)


def test_mistake_7_a_replica_that_lost_its_disk_observes_and_signs_nothing():
    cluster = Cluster(4)
    cluster.order_all(5)
    observer = Solo(3, config={"voting": False})
    header = observer.forge.header()
    signed = (Prepare, Commit, ViewChange, NewView)
    effects = observer.recv(0, observer.forge.pre_prepare(0, header))
    assert not any(sent(effects, kind) for kind in signed)
    for signer in (0, 1, 2):
        effects = observer.recv(signer, observer.forge.view_change(signer, 1))
        assert not any(sent(effects, kind) for kind in signed)
    assert observer.status.waiting.code == "observing"
    assert not {"progress", "heartbeat", "view"} & set(observer.status.timers)


def test_mistake_8_each_vote_is_in_the_log_of_the_step_that_sends_it():
    cluster = Cluster(4, block_txs=2)
    cluster.order_all(20)
    for node in cluster.nodes.values():
        records = node.disk.read().records
        accepted = {(r.view, r.height): r.block_hash for r in records if isinstance(r, WalAccepted)}
        for src, _, message in cluster.sent:
            if src == node.index and isinstance(message, Prepare):
                assert accepted[message.view, message.height] == message.block_hash


def test_mistake_9_a_paused_replica_drops_its_backlog_by_height_and_catches_up():
    cluster = Cluster(4, block_txs=1)
    held = []
    real = cluster.step

    def deaf(index, event):
        if index == 3 and cluster.now < START + 60_000:
            held.append(event)
            return None
        return real(index, event)

    cluster.step = deaf
    for _ in range(6):
        names = [cluster.submit(1, cluster.tx(0, b"a=1")) for _ in range(8)]
        assert cluster.run(5_000, partial(cluster.executed_at, cluster.nodes[1], names[-1]))
    cluster.now = START + 60_000
    node = cluster.nodes[3]
    for event in held:
        real(3, event)
        assert len(node.replica._core.votes._slots) <= 2 * 3 * (node.config.params.buffer + 1)
        assert node.status().view == 0  # the leap of the clock re-arms timers instead of firing them
    assert cluster.run(5_000, lambda: len(set(cluster.heights())) == 1)


def test_mistake_11_the_pool_is_not_checked_again_after_each_block():
    """A block costs what it holds, not what the pool holds."""
    solo = Solo(0, block_txs=20)
    looked_at = []
    pool = solo.replica._core.pool
    refusal = pool.refusal
    pool.refusal = lambda *args: looked_at.append(args) or refusal(*args)
    for i in range(60):
        solo.submit(solo.tx(i % 8, b"a=1"))
    admitted = len(looked_at)
    proposals = {m.header.height: m.header for log in solo.log for m in sent(log, PrePrepare)}
    while len(proposals) < 3:
        proposals |= {m.header.height: m.header for m in sent(solo.fire("propose"), PrePrepare)}
    for kind in (solo.forge.prepare, solo.forge.commit):
        for header in proposals.values():
            for signer in (1, 2):
                solo.recv(signer, kind(signer, 0, header))
    assert solo.status.height == 3
    assert solo.status.pool == 0
    assert len(looked_at) == admitted


def test_mistake_12_one_invalid_view_change_does_not_spoil_the_others():
    solo = Solo(1, n=4)
    header = solo.forge.header()
    good = solo.forge.certificate(Phase.PREPARE, 0, header)
    few = solo.forge.certificate(Phase.PREPARE, 0, header, signers=[0, 2])
    effects = solo.recv(3, solo.forge.view_change(3, 1, tip=few, headers=[header]))
    assert [f.reason for f in effects.faults] == ["an invalid VIEW_CHANGE"]
    solo.recv(0, solo.forge.view_change(0, 1))
    effects = solo.recv(2, solo.forge.view_change(2, 1, tip=good, headers=[header]))
    [message] = sent(effects, NewView)
    assert [change.signer for change in message.view_changes] == [0, 1, 2]


def test_mistake_12_a_good_certificate_in_a_bad_view_change_is_learnt():
    solo = Solo(1)
    header = solo.forge.header()
    solo.recv(0, solo.forge.pre_prepare(0, header))
    commit = solo.forge.certificate(Phase.COMMIT, 0, header)
    broken = solo.forge.view_change(3, 1, commit=commit, commit_view=0, tip_height=5)
    effects = solo.recv(3, broken)
    assert effects.faults
    assert [e.block.header for e in effects.executed] == [header]


def test_mistake_13_checkpoints_stand_at_fixed_heights_whatever_a_replica_executed_when():
    cluster = Cluster(4, checkpoint_interval=8, block_txs=1)
    cluster.lose = lambda _src, dest, message: dest == 3 and isinstance(message, (Commit, PutCertificate))
    cluster.order_all(3)
    cluster.lose = lambda *_: False
    cluster.order_all(20)
    cluster.run(2_000)
    assert {node.status().checkpoint for node in cluster.nodes.values()} == {cluster.nodes[0].height // 8 * 8}


def test_mistake_15_a_second_boot_is_refused():
    solo = Solo(1)
    with pytest.raises(ValueError, match="boots once"):
        solo.step(Boot(solo.disk.read()))


def test_mistake_15_two_machines_with_one_key_convict_themselves():
    """Twins of the primary propose different blocks for one place; whoever sees both keeps the proof."""
    solo = Solo(2)
    first, second = solo.forge.header(), solo.forge.header(time_ms=START + 3)
    solo.recv(0, solo.forge.pre_prepare(0, first))
    effects = solo.recv(0, solo.forge.pre_prepare(0, second))
    [item] = effects.evidence
    assert (item.accused, {item.first.vote.block_hash, item.second.vote.block_hash}) == (0, {first.hash, second.hash})
    receiver = Solo(3)
    assert receiver.recv(2, item).evidence == [item]
    assert not receiver.recv(2, item).evidence  # once
    assert KEYS[0].address == receiver.world.config(3).validators[item.accused]


def test_a_timer_that_fires_early_or_unarmed_does_nothing():
    solo = Solo(1)
    solo.submit(solo.tx(0, b"a=1"))
    for name in ("progress", "view", "inclusion", "resend", "nonsense"):
        assert not solo.step(TimerFired(name)).send
    assert solo.status.view == 0
