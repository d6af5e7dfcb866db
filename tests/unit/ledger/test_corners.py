"""Corners of the core that a cluster in good health never turns."""

import msgspec

from edgora.crypto.sign import recover
from edgora.ledger.effects import Boot, DurableState, Recv
from edgora.ledger.quorum import CertificateCheck
from edgora.wire.ledger import Block, Phase
from edgora.wire.pbft import (
    CheckpointVote,
    Evidence,
    GetBlocks,
    NewView,
    Prepare,
    PrePrepare,
    PutBlocks,
    PutBody,
    PutCertificate,
    SnapshotOffer,
    TxGossip,
    WalEvidence,
    WalStable,
)  # fmt: skip
from unit.ledger.harness import DOMAIN, KEYS, START, Cluster, Solo, sent, standing


def test_bodies_accepted_in_views_without_a_commit_are_kept_up_to_a_bound_the_oldest_go_first():
    """Any of them may turn out to be prepared; but views without end must not fill the memory."""
    solo = Solo(3, window=1)
    for view in range(60):
        if view:
            solo.recv(view % 4, solo.forge.new_view(view, [solo.forge.view_change(i, view) for i in (0, 1, 2)]))
        if view % 4 == 3:
            continue  # its own turn
        header = solo.forge.header(view=view, time_ms=START + view)
        assert sent(solo.recv(view % 4, solo.forge.pre_prepare(view, header)), Prepare)
    known = solo.replica._core.chain.known
    views = sorted(k.accepted_view for k in known.values())
    assert len(known) <= 16 * 3 + 1
    assert views[0] > 0 or len(views) == 45
    assert views[-1] == 58


def test_a_certified_fork_is_an_alarm():
    """Only more than f faulty replicas can make one; then we stop and say so."""
    solo = Solo(1)
    ours, theirs = solo.forge.chain(1), solo.forge.chain(2, salt=5)
    solo.recv(0, solo.forge.pre_prepare(0, ours[0]))
    solo.recv(0, PutCertificate(0, solo.forge.certificate(Phase.COMMIT, 0, ours[0])))
    tip = solo.forge.certificate(Phase.COMMIT, 3, theirs[1])
    solo.recv(2, PutCertificate(0, tip))
    [question] = [s for log in [*solo.log, solo.fire("fetch")] for s in log.send if isinstance(s.message, GetBlocks)]
    refused = solo.recv(question.dest, PutBlocks(0, tuple(Block(h, ()) for h in theirs), (), tip))
    assert refused.faults  # it does not continue our chain
    prepared = solo.forge.certificate(Phase.PREPARE, 4, theirs[1])
    changes = [solo.forge.view_change(i, 9, None, prepared, theirs) for i in (0, 2, 3)]
    solo.recv(2, PutCertificate(0, solo.forge.certificate(Phase.COMMIT, 5, theirs[1])))
    solo.recv(1, solo.forge.new_view(9, changes))
    assert solo.replica._core.chain.head_hash == ours[0].hash  # whatever they sign, nothing is rolled back


def test_a_prepared_base_with_other_results_than_ours_stops_the_replica():
    solo = Solo(2)
    header = solo.forge.header(state_root=b"\x05" * 32)
    tip = solo.forge.certificate(Phase.PREPARE, 0, header)
    solo.recv(1, solo.forge.new_view(1, [solo.forge.view_change(i, 1, None, tip, [header]) for i in (0, 1, 3)]))
    effects = solo.recv(1, solo.forge.pre_prepare(1, header))
    assert "prepared block" in effects.alarm
    assert not sent(effects, Prepare)


def test_a_new_primary_with_a_foreign_base_waits_for_its_body_and_then_reproposes_it():
    solo = Solo(1)
    header = solo.forge.header()
    tip = solo.forge.certificate(Phase.PREPARE, 0, header)
    solo.recv(0, solo.forge.view_change(0, 1, None, tip, [header]))
    effects = solo.recv(2, solo.forge.view_change(2, 1))
    assert sent(effects, NewView)
    assert not sent(effects, PrePrepare)
    [question] = [s for s in effects.send if type(s.message).__name__ == "GetBody"]
    effects = solo.recv(question.dest, PutBody(0, Block(header, ())))
    assert [m.header for m in sent(effects, PrePrepare)] == [header]


def test_an_observer_settles_checkpoints_by_the_others_votes():
    world = Solo(1, checkpoint_interval=2)
    chain = world.forge.chain(2)
    for header in chain:
        world.recv(0, world.forge.pre_prepare(0, header))
    world.recv(0, PutCertificate(0, world.forge.certificate(Phase.COMMIT, 0, chain[1])))
    [vote] = [m for log in world.log for m in sent(log, CheckpointVote)]
    observer = Solo(3, config={"voting": False}, checkpoint_interval=2)
    for signer in (0, 1, 2):  # they come before it has executed that far
        observer.recv(signer, CheckpointVote(0, vote.body, KEYS[signer].sign(vote.body.digest(DOMAIN))))
    assert observer.status.checkpoint == 0
    certificate = observer.forge.certificate(Phase.COMMIT, 0, chain[1])
    observer.recv(0, PutCertificate(0, certificate))
    [question] = [
        s for log in [*observer.log, observer.fire("fetch")] for s in log.send if isinstance(s.message, GetBlocks)
    ]
    effects = observer.recv(question.dest, PutBlocks(0, tuple(Block(h, ()) for h in chain), (), certificate))
    assert observer.status.checkpoint == 2
    assert effects.snapshot.height == 2
    assert (effects.stable.body, effects.stable.signers()) == (vote.body, [0, 1, 2])
    assert not sent(effects, CheckpointVote)


def test_blocks_without_certificates_of_their_own_are_served_with_links():
    cluster = Cluster(4, block_txs=1)
    cluster.order_all(6)
    core = cluster.nodes[0].replica._core
    for height in (2, 3, 4):
        del core.chain.certificates[height]
    core.params = msgspec.structs.replace(core.params, sync_octets=1)
    effects = cluster.nodes[0].replica.step(cluster.now, _get(2))
    [answer] = [s.message for s in effects.send]
    assert [b.header.height for b in answer.blocks] == [2]
    assert [h.height for h in answer.links] == [3, 4, 5]
    assert answer.certificate.vote.height == 5
    for height in range(5, cluster.nodes[0].height + 1):
        core.chain.certificates.pop(height, None)
    assert not cluster.nodes[0].replica.step(cluster.now, _get(2)).send  # nothing that proves it


def _get(first):
    return Recv(1, GetBlocks(0, first))


def test_much_gossip_is_cut_into_messages():
    solo = Solo(1, pool_per_sender=600, lane_gap=600)
    core = solo.replica._core
    big = [solo.tx(i % 8, b"a=" + bytes(15_000)) for i in range(80)]
    for signed in big:
        core.gossip.append(signed.tx.digest(DOMAIN))
        core.pool.add(signed, core.gossip[-1], 15_200, solo.world.now, 1)
    core.gossip.append(bytes(32))  # executed or expired meanwhile
    solo.world.now += 10
    messages = sent(solo.recv(0, standing()), TxGossip)
    assert len(messages) == 2
    assert sum(len(m.txs) for m in messages) == 80


def test_evidence_survives_restarts_and_compactions_once():
    solo = Solo(2, checkpoint_interval=2)
    first, second = solo.forge.header(), solo.forge.header(time_ms=START + 3)
    solo.recv(0, solo.forge.pre_prepare(0, first))
    [item] = solo.recv(0, solo.forge.pre_prepare(0, second)).evidence
    again = solo.reborn()
    assert again.status.evidence == (item,)
    fresh = type(solo.replica)(solo.world.config(2), KEYS[2], solo.app)
    fresh.step(START, Boot(DurableState(None, (WalEvidence(0, item), WalEvidence(0, item)), 1)))
    assert fresh.status(START).evidence == (item,)
    assert isinstance(item, Evidence)


def test_a_compaction_while_a_view_is_left_keeps_the_leaving():
    solo = Solo(2, checkpoint_interval=2)
    chain = solo.forge.chain(2)
    for header in chain:
        solo.recv(0, solo.forge.pre_prepare(0, header))
    solo.recv(0, PutCertificate(0, solo.forge.certificate(Phase.COMMIT, 0, chain[1])))
    solo.gives_up("heartbeat")
    own = solo.replica._core.checkpoints.own.body
    for signer in (0, 3):
        effects = solo.recv(signer, CheckpointVote(0, own, KEYS[signer].sign(own.digest(DOMAIN))))
    assert effects.compacted
    assert any(isinstance(record, WalStable) for record in effects.persist)
    after = solo.reborn().status
    assert (after.view, after.active, after.height, after.checkpoint) == (1, False, 2, 2)


def test_a_client_that_waits_is_told_when_its_transaction_expired_or_was_overtaken():
    solo = Solo(1)
    dying, overtaken = solo.tx(0, b"a=1", valid_until=2), solo.tx(1, b"a=1")
    rival = solo.tx(1, b"b=1", seq=0)
    solo.submit(dying)
    solo.submit(overtaken)
    chain = [solo.forge.header(txs=[rival])]
    chain.append(solo.forge.header(chain[0]))
    solo.recv(0, solo.forge.pre_prepare(0, chain[0], [rival]))
    solo.recv(0, solo.forge.pre_prepare(0, chain[1]))
    effects = solo.recv(0, PutCertificate(0, solo.forge.certificate(Phase.COMMIT, 0, chain[1])))
    told = {answer.hash: answer.reason for answer in effects.answers}
    assert told == {dying.tx.digest(DOMAIN): "EXPIRED", overtaken.tx.digest(DOMAIN): "DUPLICATE"}
    assert not any(answer.admitted for answer in effects.answers)


def test_a_state_transfer_keeps_what_was_accepted_above_it():
    """Never touch accepted or tip downward: a vote above the snapshot binds after it too."""
    cluster = Cluster(4, checkpoint_interval=8, block_txs=1, retained_octets=1)
    cluster.crash(3)
    cluster.order_all(40)
    cluster.run(1_500)
    [offer] = [s.message for s in cluster.nodes[0].replica.step(cluster.now, _get(1)).send]
    assert isinstance(offer, SnapshotOffer)
    node = cluster.start(3)
    core = node.replica._core
    waiting = cluster.tx(7, b"late=1")
    cluster.submit(3, waiting)
    cluster.run(10_000, lambda: node.status().height >= 40)
    assert cluster.run(5_000, lambda: cluster.executed_at(node, waiting.tx.digest(DOMAIN)))
    assert core.chain.tip is not None
    assert core.checkpoints.stable_height >= offer.header.height


def test_the_memory_of_good_certificates_is_bounded():
    check = CertificateCheck(DOMAIN, {0: tuple(k.address for k in KEYS[:4])}, recover)
    solo = Solo(1)
    good = solo.forge.certificate(Phase.COMMIT, 0, solo.forge.header())
    assert check.good(good, Phase.COMMIT)
    assert not check.good(good, Phase.PREPARE)
    for height in range(1_500):
        vote = msgspec.structs.replace(good.vote, height=height + 2)
        check.trust(msgspec.structs.replace(good, vote=vote))
    assert len(check._good) == 1_024
    assert check.good(good, Phase.COMMIT)  # forgotten, so checked again


def test_why_a_proposal_waits_for_execution_is_told():
    solo = Solo(1)
    low = solo.forge.header()
    solo.recv(0, solo.forge.pre_prepare(0, low))
    solo.recv(0, PutCertificate(0, solo.forge.certificate(Phase.COMMIT, 0, low)))
    ahead = solo.forge.header(low, time_ms=START + 9_000)  # its time is beyond our tolerance: it waits
    solo.recv(0, solo.forge.pre_prepare(0, ahead))
    assert solo.status.waiting.code == "execution"
