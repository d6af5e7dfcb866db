"""Crash and restart: what was voted for, committed or acknowledged survives; nothing is ever signed twice (ledger.md 12)."""

import pytest

from edgora.ledger.effects import Boot, DurableState, TimerFired
from edgora.ledger.replica import Replica
from edgora.ledger.wal import HEADER_OCTETS, frame, scan
from edgora.wire.errors import Broken
from edgora.wire.ledger import Block, Phase
from edgora.wire.pbft import (
    CheckpointVote,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    PutCertificate,
    Status,
    ViewChange,
    WalAccepted,
    WalBlock,
    WalCommit,
    WalTip,
)  # fmt: skip
from unit.ledger.harness import CLIENTS, KEYS, Cluster, Disk, Registers, Solo, sent

SIGNED = (PrePrepare, Prepare, Commit, ViewChange, NewView, CheckpointVote)


def promises(messages):
    """place -> what was signed there, for every message that may be signed once only."""
    found = {}
    for message in messages:
        if isinstance(message, PrePrepare):
            place, what = ("prepare", message.view, message.header.height), message.header.hash
        elif isinstance(message, (Prepare, Commit)):
            place, what = (type(message).__name__.lower(), message.view, message.height), message.block_hash
        elif isinstance(message, ViewChange):
            place, what = ("view", message.body.new_view), message.body
        elif isinstance(message, CheckpointVote):
            place, what = ("checkpoint", message.body.height), message.body
        else:
            continue
        assert found.setdefault(place, what) == what, f"signed twice: {place}"
    return found


def test_a_fresh_replica_starts_at_the_genesis_and_says_where_it_stands():
    solo = Solo(1)
    [status] = sent(solo.log[0], Status)
    assert (status.view, status.height, status.nonce) == (0, 0, 1)
    assert not any(sent(solo.log[0], kind) for kind in SIGNED)


def test_the_first_input_is_boot():
    solo = Solo(1)
    fresh = type(solo.replica)(solo.world.config(1), KEYS[1], Registers([]))
    assert fresh.status(0).waiting.code == "booting"
    with pytest.raises(ValueError, match="is Boot"):
        fresh.step(0, TimerFired("status"))


def test_every_promise_is_repeated_byte_for_byte_after_a_restart():
    solo = Solo(2)
    chain = solo.forge.chain(3)
    for header in chain:
        solo.recv(0, solo.forge.pre_prepare(0, header))
    for header in chain[:2]:
        solo.recv(1, solo.forge.prepare(1, 0, header))
    said = [m for log in solo.log for kind in (Prepare, Commit) for m in sent(log, kind)]
    again = solo.reborn()
    repeated = [m for kind in (Prepare, Commit) for m in sent(again.log[0], kind)]
    assert repeated == said or sorted(map(repr, repeated)) == sorted(map(repr, said))
    assert (again.status.accepted, again.status.tip_height) == (3, 2)


def test_a_primary_repeats_its_proposals_and_goes_on_above_them():
    solo = Solo(0, block_txs=1)
    for i in range(2):
        solo.submit(solo.tx(i, b"a=1"))
    said = [m for log in solo.log for m in sent(log, PrePrepare)]
    again = solo.reborn()
    assert [m.header for m in sent(again.log[0], PrePrepare)] == [m.header for m in said]
    assert [m.signature for m in sent(again.log[0], PrePrepare)] == [m.signature for m in said]
    [message] = sent(again.submit(solo.tx(2, b"a=1")), PrePrepare)
    assert message.header.height == 3


def test_a_replica_that_was_leaving_its_view_goes_on_leaving_it():
    solo = Solo(2)
    said = sent(solo.gives_up("heartbeat"), ViewChange)
    again = solo.reborn()
    assert sent(again.log[0], ViewChange) == said
    assert (again.status.view, again.status.active) == (1, False)
    assert not sent(again.recv(0, again.forge.pre_prepare(0, again.forge.header())), Prepare)


def test_view_base_and_votes_of_a_later_view_survive():
    solo = Solo(2)
    chain = solo.forge.chain(2)
    solo.recv(0, solo.forge.pre_prepare(0, chain[0]))
    tip = solo.forge.certificate(Phase.PREPARE, 0, chain[0])
    solo.recv(1, solo.forge.new_view(1, [solo.forge.view_change(i, 1, None, tip, chain[:1]) for i in (0, 1, 3)]))
    waiting = solo.reborn()
    assert waiting.status.waiting.code == "base"
    assert waiting.log[0].executed == []
    waiting.recv(1, solo.forge.pre_prepare(1, chain[0]))
    voted = waiting.reborn()
    assert voted.status.waiting.code == "prepare"
    following = solo.forge.header(chain[0], view=1)
    assert sent(voted.recv(1, solo.forge.pre_prepare(1, following)), Prepare)


def test_committed_blocks_come_again_for_the_database_but_execute_once_each():
    cluster = Cluster(4, block_txs=2)
    cluster.order_all(10)
    before = cluster.nodes[1].chain()
    state = cluster.nodes[1].app.state
    node = cluster.restart(1)
    assert node.chain() == before
    assert node.app.state == state
    assert [height for height, _ in node.app.blocks] == sorted(before)


def test_a_certificate_whose_block_is_missing_does_not_hide_lower_ones():
    solo = Solo(1)
    chain = solo.forge.chain(2)
    solo.recv(0, solo.forge.pre_prepare(0, chain[0]))
    solo.recv(2, PutCertificate(0, solo.forge.certificate(Phase.COMMIT, 0, chain[0])))
    far = solo.forge.header(height=30)
    solo.recv(2, PutCertificate(0, solo.forge.certificate(Phase.COMMIT, 0, far)))
    again = solo.reborn()
    assert again.status.height == 1
    assert again.status.waiting.code == "syncing"


def test_all_replicas_killed_at_once_come_back_and_order_again():
    cluster = Cluster(4, checkpoint_interval=8, block_txs=1)
    for _ in range(4):
        for i in range(5):
            cluster.submit(i % 4, cluster.tx(i, b"a=1"))
        cluster.run(7)  # in the middle of everything
        disks = [cluster.crash(i) for i in range(4)]
        for i in range(4):
            cluster.start(i, disks[i])
    cluster.order_all(5, client=7)
    for i in range(4):
        promises(m for src, _, m in cluster.sent if src == i)


def test_a_snapshot_with_another_root_than_it_claims_is_refused():
    cluster = Cluster(4, checkpoint_interval=4, block_txs=1)
    cluster.order_all(6)
    disk = cluster.crash(1)
    durable = disk.read()
    rotten = durable.snapshot._replace(state={**durable.snapshot.state, b"x": b"rot"})
    solo = Solo(1, checkpoint_interval=4)
    fresh = type(solo.replica)(solo.world.config(1), KEYS[1], Registers([]))
    with pytest.raises(Broken, match="another state root"):
        fresh.step(solo.world.now, Boot(DurableState(rotten, durable.records, 1)))


def test_a_log_block_with_another_body_is_refused():
    solo = Solo(1)
    record = WalBlock(0, Block(solo.forge.header(), (solo.tx(0, b"a=1"),)))
    fresh = type(solo.replica)(solo.world.config(1), KEYS[1], Registers([]))
    with pytest.raises(Broken, match="body is not its header's"):
        fresh.step(solo.world.now, Boot(DurableState(None, (record,), 1)))


def test_an_accepted_record_without_its_body_is_refused():
    solo = Solo(1)
    solo.recv(0, solo.forge.pre_prepare(0, solo.forge.header()))
    records = tuple(r for r in solo.disk.read().records if isinstance(r, WalAccepted))
    fresh = type(solo.replica)(solo.world.config(1), KEYS[1], Registers([]))
    with pytest.raises(Broken, match="does not hold it"):
        fresh.step(solo.world.now, Boot(DurableState(None, records, 2)))


def history(checkpoint_interval=100):
    """The log of replica 2 after a life with commits, a view change and blocks in flight, and what it had sent."""
    cluster = Cluster(4, checkpoint_interval=checkpoint_interval, block_txs=1)
    cluster.order_all(5)
    cluster.crash(0)
    cluster.order_all(4, at=2)
    cluster.lose = lambda _src, _dest, message: isinstance(message, Commit)
    for i in range(3):
        cluster.submit(2, cluster.tx(i + 1, b"b=1"))
    cluster.run(60)
    return cluster


def test_a_log_cut_after_any_record_boots_to_a_state_that_contradicts_nothing_sent_before():
    cluster = history()
    disk = cluster.crash(2)
    [(first, data)] = sorted(disk.segments.items())
    found = scan([(first, bytes(data))], 2**20)
    config = cluster.config(2)
    heights, tips = [], []
    for count in range(len(found.records) + 1):
        replica = Replica(config, KEYS[2], Registers([key.address for key in CLIENTS]))
        kept = found.records[:count]
        effects = replica.step(cluster.now, Boot(DurableState(None, kept, 9)))
        status = replica.status(cluster.now)
        promised = promises(send.message for send in effects.send)
        accepted = {(r.view, r.height): r.block_hash for r in kept if isinstance(r, WalAccepted)}
        for (kind, *place), what in promised.items():
            if kind == "prepare":
                assert accepted[tuple(place)] == what
            if kind == "commit":
                assert any(
                    (r.certificate.vote.view, r.certificate.vote.height) == tuple(place)
                    for r in kept
                    if isinstance(r, WalTip)
                )
        heights.append(status.height)
        tips.append((status.tip_view, status.tip_height))
        certified = max((r.certificate.vote.height for r in kept if isinstance(r, WalCommit)), default=0)
        assert status.height == certified
    assert heights == sorted(heights)
    assert tips == sorted(tips)
    assert heights[-1] >= 9
    assert tips[-1] > (1, 9)


@pytest.mark.slow
def test_a_log_truncated_at_every_octet_of_its_last_64_records_boots_safely_or_refuses():
    """P3, through the whole replica: the records that survive are a prefix, and every prefix was tried above."""
    cluster = history()
    disk = cluster.crash(2)
    [(first, data)] = sorted(disk.segments.items())
    data = bytes(data)
    found = scan([(first, data)], 2**20)
    assert len(found.records) >= 40
    start = HEADER_OCTETS + sum(len(frame(i, r)) for i, r in zip(found.indices[:-64], found.records[:-64], strict=True))
    last = ()
    for cut in range(start, len(data) + 1):
        records = scan([(first, data[:cut])], 2**20).records
        assert records == found.records[: len(records)]
        assert len(records) >= len(last)
        last = records
    assert last == found.records


@pytest.mark.parametrize("interval", [4, 100])
def test_restarts_at_every_step_of_a_replicas_life_never_sign_twice(interval):
    """Replica 2 is killed after each of its steps in turn; its promises of all its lives must agree."""
    for kill_at in range(3, 60, 7):
        _life_with_restarts(interval, kill_at)


def _life_with_restarts(interval, kill_at):
    cluster = Cluster(4, checkpoint_interval=interval, block_txs=1)
    steps = 0
    real = cluster.step

    def counted(index, event):
        nonlocal steps
        effects = real(index, event)
        if index == 2:
            steps += 1
            if steps % kill_at == 0 and not isinstance(event, Boot):
                cluster.restart(2)
        return effects

    cluster.step = counted
    names = [cluster.submit(1, cluster.tx(0, b"a=%d" % i)) for i in range(8)]
    assert cluster.run(30_000, lambda: all(cluster.executed_at(cluster.nodes[i], names[-1]) for i in (0, 1, 3)))
    cluster.run(500)
    promises(m for src, _, m in cluster.sent if src == 2)


def test_a_restart_after_a_compaction_finds_everything_above_the_checkpoint():
    cluster = Cluster(4, checkpoint_interval=4, block_txs=1)
    cluster.crash(0)
    cluster.order_all(10, at=2)  # in view 1, entered long before the last compaction
    cluster.run(100)
    before = {i: node.status() for i, node in cluster.nodes.items()}
    for i in (1, 2, 3):
        after = cluster.restart(i).status()
        assert (after.view, after.active) == (1, True)
        assert after.height == before[i].height
        assert after.checkpoint == before[i].checkpoint == 8
        assert (after.tip_view, after.tip_height) >= (before[i].tip_view, before[i].tip_height)
        assert after.state_root == before[i].state_root
    cluster.order_all(3, at=2)
    assert isinstance(cluster.nodes[1].disk, Disk)


def test_a_block_committed_by_a_descendant_that_is_known_by_header_only_stays_committed():
    """Found by the simulator (scenario 688): the header came in a NEW_VIEW, the certificate by votes."""
    solo = Solo(2)
    chain = solo.forge.chain(2)
    solo.recv(0, solo.forge.pre_prepare(0, chain[0]))
    tip = solo.forge.certificate(Phase.PREPARE, 0, chain[1])
    changes = [
        solo.forge.view_change(0, 1, None, tip, chain),
        *(solo.forge.view_change(i, 1) for i in (1, 3)),
    ]
    solo.recv(1, solo.forge.new_view(1, changes))
    solo.gives_up("heartbeat")  # the base's body never comes
    for signer in (0, 1, 3):
        effects = solo.recv(signer, solo.forge.commit(signer, 1, chain[1]))
    assert [e.block.header for e in effects.executed] == [chain[0]]
    assert effects.sync
    assert solo.reborn().status.height == 1


def test_an_own_checkpoint_vote_counts_again_after_a_restart():
    cluster = Cluster(4, checkpoint_interval=4, block_txs=1)
    cluster.crash(3)  # so that all three votes are needed
    cluster.lose = lambda _src, _dest, message: isinstance(message, CheckpointVote)
    cluster.order_all(5)
    cluster.run(50)
    assert {node.status().checkpoint for node in cluster.nodes.values()} == {0}
    for i in range(3):
        cluster.restart(i)
    cluster.lose = lambda *_: False
    assert cluster.run(3_000, lambda: {node.status().checkpoint for node in cluster.nodes.values()} == {4})
