"""Catching up: by blocks, by snapshot, by certificate; from liars and in the presence of losses (ledger.md 9, 11)."""

import itertools

import msgspec
import pytest

from edgora.ledger.effects import Recv
from edgora.ledger.tree import StateTree
from edgora.wire.ledger import Block, CheckpointBody, Phase
from edgora.wire.pbft import (
    BUCKETS,
    CheckpointVote,
    GetBlocks,
    GetBody,
    GetChunk,
    PutBlocks,
    PutBody,
    PutCertificate,
    PutChunk,
    SnapshotOffer,
    WalCommit,
    WalStable,
)  # fmt: skip
from unit.ledger.harness import KEYS, Cluster, Disk, Solo, persisted, standing


def claim(solo, peer, height, **changes):
    status = standing(height=height, nonce=peer)
    return solo.recv(peer, msgspec.structs.replace(status, **changes))


def questions(effects, kind):
    return [(send.dest, send.message) for send in effects.send if isinstance(send.message, kind)]


# ---- noticing --------------------------------------------------------------------------------------------------------


def test_f_peers_that_claim_to_be_ahead_are_not_believed():
    solo = Solo(1)
    claim(solo, 3, 90)
    assert "fetch" not in solo.status.timers
    assert solo.status.waiting.code == "idle"


def test_f_plus_1_claims_start_one_question_after_a_moment_of_patience():
    solo = Solo(1)
    claim(solo, 3, 2)
    assert not questions(claim(solo, 2, 2), GetBlocks)
    assert solo.status.waiting.code == "syncing"
    [(peer, question)] = questions(solo.fire("fetch"), GetBlocks)
    assert question == GetBlocks(0, 1)
    assert peer in {2, 3}
    assert not questions(claim(solo, 0, 2), GetBlocks)  # one under way


def test_a_large_gap_needs_no_patience_and_one_certificate_is_enough():
    solo = Solo(1)
    far = solo.forge.header(height=40)
    effects = solo.recv(3, PutCertificate(0, solo.forge.certificate(Phase.COMMIT, 0, far)))
    assert len(questions(effects, GetBlocks)) == 1
    assert persisted(effects, WalCommit)


def test_an_answer_that_never_comes_moves_the_question_to_the_next_peer():
    solo = Solo(1)
    claim(solo, 0, 40)
    claim(solo, 2, 40)
    claim(solo, 3, 40)
    asked = [peer for log in solo.log for peer, _ in questions(log, GetBlocks)]
    for _ in range(5):
        before = solo.world.now
        asked += [peer for peer, _ in questions(solo.fire("fetch"), GetBlocks)]
        assert solo.world.now - before >= 100
    assert len(asked) == 6
    assert set(asked) == {0, 2, 3}
    assert all(a != b for a, b in itertools.pairwise(asked))


# ---- blocks ----------------------------------------------------------------------------------------------------------


def asking(solo, headers):
    """A replica that has just asked for blocks; returns (peer, certificate of the last header)."""
    certificate = solo.forge.certificate(Phase.COMMIT, 0, headers[-1])
    solo.recv(3, PutCertificate(0, certificate))
    [(peer, _)] = [q for log in [*solo.log, solo.fire("fetch")] for q in questions(log, GetBlocks)]
    return peer, certificate


def test_blocks_under_one_certificate_are_executed_in_order():
    solo = Solo(1)
    headers = solo.forge.chain(3)
    peer, certificate = asking(solo, headers)
    effects = solo.recv(peer, PutBlocks(0, tuple(Block(h, ()) for h in headers), (), certificate))
    assert [e.block.header for e in effects.executed] == headers
    assert [e.certificate is None for e in effects.executed] == [True, True, False]
    assert solo.status.waiting.code == "idle"


def test_part_of_a_chain_commits_by_the_headers_that_link_it_to_the_certificate():
    solo = Solo(1)
    headers = solo.forge.chain(5)
    peer, certificate = asking(solo, headers)
    effects = solo.recv(peer, PutBlocks(0, tuple(Block(h, ()) for h in headers[:2]), tuple(headers[2:]), certificate))
    assert [e.block.header.height for e in effects.executed] == [1, 2]
    assert [q for _, q in questions(effects, GetBlocks)] == [GetBlocks(0, 3)]
    assert solo.reborn().status.height == 2  # and it stays committed


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s, h, c: PutBlocks(0, (Block(h[0], ()), Block(h[2], ())), (), c),
        lambda s, h, c: PutBlocks(0, tuple(Block(x, ()) for x in h[:2]), (), c),
        lambda s, h, c: PutBlocks(0, (Block(h[0], (s.tx(0, b"a=1"),)), *(Block(x, ()) for x in h[1:])), (), c),
        lambda s, h, c: PutBlocks(
            0, tuple(Block(x, ()) for x in h), (), s.forge.certificate(Phase.COMMIT, 0, h[2], [0, 1])
        ),
        lambda s, h, c: PutBlocks(0, tuple(Block(x, ()) for x in h), (), s.forge.certificate(Phase.PREPARE, 0, h[2])),
        lambda s, h, c: PutBlocks(0, tuple(Block(x, ()) for x in s.forge.chain(3, salt=9)), (), c),
    ],
    ids=["hole", "short of the certificate", "another body", "too few signatures", "prepared only", "another chain"],
)
def test_blocks_that_do_not_hang_together_are_dropped_and_cost_their_sender(spoil):
    solo = Solo(1)
    headers = solo.forge.chain(3)
    peer, certificate = asking(solo, headers)
    effects = solo.recv(peer, spoil(solo, headers, certificate))
    assert [f.peer for f in effects.faults] == [peer]
    assert not effects.executed
    [(other, _)] = questions(solo.fire("fetch"), GetBlocks)
    assert other != peer
    good = PutBlocks(0, tuple(Block(h, ()) for h in headers), (), certificate)
    assert not solo.recv(peer, good).executed  # nobody asked it again
    assert len(solo.recv(other, good).executed) == 3


def test_unasked_blocks_and_bodies_are_ignored():
    solo = Solo(1)
    headers = solo.forge.chain(2)
    certificate = solo.forge.certificate(Phase.COMMIT, 0, headers[1])
    effects = solo.recv(2, PutBlocks(0, tuple(Block(h, ()) for h in headers), (), certificate))
    assert not effects.executed
    assert not solo.recv(2, PutBody(0, Block(headers[0], ()))).persist


def test_committed_blocks_and_bodies_are_served():
    cluster = Cluster(4, block_txs=2, sync_octets=700)
    cluster.order_all(9)
    cluster.run(1_000)
    effects = cluster.step(0, _from(1, GetBlocks(0, 2)))
    [(_, answer)] = questions(effects, PutBlocks)
    assert answer.blocks[0].header.height == 2
    assert len(answer.blocks) < cluster.nodes[0].height - 1  # bounded by octets
    assert answer.certificate.vote.block_hash == (answer.links or (answer.blocks[-1].header,))[-1].hash
    [(_, nothing)] = questions(cluster.step(0, _from(1, GetBlocks(0, 500))), PutBlocks)
    assert (nothing.blocks, nothing.certificate) == ((), None)
    block = cluster.nodes[0].executed[0].block
    [(_, body)] = questions(cluster.step(0, _from(1, GetBody(0, block.header.hash))), PutBody)
    assert body.block == block
    assert not cluster.step(0, _from(1, GetBody(0, bytes(32)))).send


def _from(peer, message):
    return Recv(peer, message)


# ---- checkpoints and snapshots ---------------------------------------------------------------------------------------


def pruned(blocks=40, **params):
    """A cluster whose early blocks are gone, one replica of which starts from nothing."""
    cluster = Cluster(4, checkpoint_interval=8, block_txs=1, retained_octets=1, **params)
    cluster.crash(3)
    cluster.order_all(blocks)
    cluster.run(1_500)
    return cluster


def test_a_fresh_replica_takes_the_stable_state_in_chunks_and_the_blocks_after_it():
    cluster = pruned(sync_octets=3_000)
    node = cluster.start(3)
    assert cluster.run(20_000, lambda: len(set(cluster.heights())) == 1)
    chunks = [m for _, _, m in cluster.sent if isinstance(m, PutChunk)]
    assert len(chunks) > 1
    assert node.app.state == cluster.nodes[0].app.state
    assert node.status().state_root == cluster.nodes[0].status().state_root
    assert min(node.chain()) > node.status().checkpoint - 8
    cluster.order_all(12, at=3)
    cluster.run(100)
    assert node.status().checkpoint == cluster.nodes[0].status().checkpoint
    cluster.restart(3)
    cluster.order_all(2, at=3)


def test_a_lying_snapshot_server_is_found_bucket_by_bucket_and_another_one_is_asked():
    cluster = pruned(sync_octets=3_000)
    lies = []

    def forge(src, dest, message):
        if src == 1 and isinstance(message, PutChunk) and dest == 3:
            lies.append(message)
            pairs = ((b"known/", b"stolen"), *message.buckets[0])
            forged = msgspec.structs.replace(message, buckets=(pairs, *message.buckets[1:]))
            cluster.step(3, _from(1, forged))
            return True
        return False

    cluster.lose = forge
    node = cluster.start(3)
    assert cluster.run(30_000, lambda: len(set(cluster.heights())) == 1)
    assert node.app.state == cluster.nodes[0].app.state
    assert len([fault for fault in node.faults if "forged" in fault]) == len(lies)


def test_a_lie_after_the_last_missing_bucket_spoils_nothing():
    """Seeds 701 and 833: the state was complete, nobody installed it, and the next question asked for no bucket."""
    cluster = pruned()
    lies = []

    def forge(src, dest, message):
        if dest == 3 and isinstance(message, PutChunk) and message.first + len(message.buckets) == BUCKETS:
            lies.append(message)
            more = msgspec.structs.replace(message, buckets=(*message.buckets, ((b"known/", b"stolen"),)))
            cluster.step(3, _from(src, more))
            return True
        return False

    cluster.lose = forge
    node = cluster.start(3)
    assert cluster.run(30_000, lambda: len(set(cluster.heights())) == 1)
    assert len(lies) == 1
    assert any("forged" in fault for fault in node.faults)
    assert node.app.state == cluster.nodes[0].app.state


def offered(cluster):
    [(_, offer)] = questions(cluster.step(0, _from(2, GetBlocks(0, 1))), SnapshotOffer)
    return offer


def spoilt_offers():
    swap = msgspec.structs.replace
    yield (
        "too few checkpoints",
        lambda o: swap(o, checkpoint=swap(o.checkpoint, bitmap=3, signatures=o.checkpoint.signatures[:2])),
    )
    yield (
        "another root",
        lambda o: swap(o, checkpoint=swap(o.checkpoint, body=swap(o.checkpoint.body, state_root=bytes(32)))),
    )
    yield "another header", lambda o: swap(o, header=swap(o.header, time_ms=1))
    yield "another bucket", lambda o: swap(o, bucket_hashes=bytes(32) + o.bucket_hashes[32:])
    yield "bad certificate", lambda o: swap(o, certificate=swap(o.certificate, signatures=(bytes(65),) * 3))
    yield "certificate of another", lambda o: swap(o, links=(o.header,))


@pytest.mark.parametrize(("name", "spoil"), list(spoilt_offers()))
def test_an_unsound_offer_is_refused(name, spoil):
    cluster = pruned()
    offer = offered(cluster)
    solo = Solo(3, checkpoint_interval=8)
    claim(solo, 0, 40)
    claim(solo, 1, 40)
    [(peer, _)] = [q for log in solo.log for q in questions(log, GetBlocks)]
    effects = solo.recv(peer, spoil(offer))
    assert effects.faults, name
    assert not questions(effects, GetChunk)
    assert questions(solo.recv(peer, offer), GetChunk)


def test_an_older_transfer_goes_on_with_the_buckets_that_did_not_change():
    cluster = pruned(sync_octets=1_200)
    lost = []
    cluster.lose = lambda _src, dest, m: isinstance(m, PutChunk) and dest == 3 and (lost.append(m) or len(lost) > 1)
    cluster.start(3)
    cluster.run(2_000)
    core = cluster.nodes[3].replica._core
    before = dict(core.sync.snapshot.buckets)
    first = core.sync.snapshot.offer.checkpoint.body.height
    names = [cluster.submit(0, cluster.tx(1, b"late=1")) for _ in range(20)]
    assert cluster.run(20_000, lambda: cluster.executed_at(cluster.nodes[0], names[-1]))
    cluster.run(3_000)
    assert core.sync.snapshot.offer.checkpoint.body.height > first
    assert len(before) > 1_000
    kept = set(before) & set(core.sync.snapshot.buckets)
    assert len(kept) > len(before) - 60
    cluster.lose = lambda *_: False
    assert cluster.run(20_000, lambda: len(set(cluster.heights())) == 1)


def test_the_snapshot_carries_what_the_very_next_header_must_repeat():
    """Cut the cluster so that a replica fresh from a snapshot is needed for the next block's quorum."""
    cluster = pruned(blocks=39)
    assert cluster.nodes[0].height == 40  # the head is the checkpoint itself
    node = cluster.start(3)
    assert cluster.run(20_000, lambda: node.status().height == cluster.nodes[0].height)
    cluster.crash(2)
    cluster.order_all(3, at=0)
    assert node.status().halted is None


def test_a_replica_whose_state_differs_from_a_stable_checkpoint_stops_for_good():
    cluster = Cluster(4, checkpoint_interval=4, block_txs=1)
    cluster.order_all(2)
    node = cluster.nodes[3]
    node.replica._core.executor._tree.write({b"bit": b"rot"})
    for i in range(6):
        cluster.submit(1, cluster.tx(0, b"a=%d" % i))
    cluster.run(1_000)
    assert node.alarm is not None
    assert node.status().halted is not None
    assert {cluster.nodes[i].status().halted for i in range(3)} == {None}


def test_checkpoint_votes_are_checked_counted_once_and_double_ones_are_evidence():
    cluster = Cluster(4, checkpoint_interval=4, block_txs=1)
    cluster.order_all(5)
    vote = next(m for src, _, m in cluster.sent if src == 2 and isinstance(m, CheckpointVote))
    solo = Solo(1, checkpoint_interval=4)
    assert solo.recv(2, msgspec.structs.replace(vote, signature=bytes(65))).faults
    assert not solo.recv(2, vote).faults
    body = msgspec.structs.replace(vote.body, state_root=bytes(32))
    other = CheckpointVote(0, body, KEYS[2].sign(body.digest(solo.world.config(0).domain)))
    effects = solo.recv(2, other)
    assert [item.accused for item in effects.evidence] == [2]
    odd = msgspec.structs.replace(vote.body, height=5)
    assert not solo.recv(2, CheckpointVote(0, odd, KEYS[2].sign(odd.digest(solo.world.config(0).domain)))).evidence


def test_far_future_checkpoint_votes_are_bounded():
    solo = Solo(1, checkpoint_interval=4)
    domain = solo.world.config(0).domain
    header = solo.forge.header()
    for height in range(4, 4_000, 4):
        body = CheckpointBody(0, height, header.hash, bytes(32))
        solo.recv(2, CheckpointVote(0, body, KEYS[2].sign(body.digest(domain))))
    assert len(solo.replica._core.checkpoints.votes) == 4


def test_nobody_runs_too_far_ahead_of_its_stable_checkpoint():
    cluster = Cluster(4, checkpoint_interval=2, block_txs=1)
    cluster.lose = lambda _src, _dest, message: isinstance(message, CheckpointVote)
    for i in range(40):
        cluster.submit(1, cluster.tx(i % 8, b"a=1"))
    cluster.run(3_000)
    assert max(cluster.heights()) <= 16
    reasons = {node.status().waiting.code for node in cluster.nodes.values()}
    assert "checkpoint" in reasons or "view_change" in reasons or "new_view" in reasons
    cluster.lose = lambda *_: False
    assert cluster.run(60_000, lambda: min(cluster.heights()) >= 40)


def test_a_stable_checkpoint_compacts_the_log_to_what_is_still_needed():
    cluster = Cluster(4, checkpoint_interval=8, block_txs=1)
    cluster.order_all(60)
    cluster.run(100)
    for node in cluster.nodes.values():
        records = node.disk.read().records
        assert len(node.disk.segments) == 1
        assert len(records) < 120
        assert [r.certificate.body.height for r in records if isinstance(r, WalStable)] == [node.status().checkpoint]


def test_memory_of_committed_blocks_is_bounded():
    cluster = Cluster(4, checkpoint_interval=4, block_txs=1, retained_octets=1_500)
    cluster.order_all(60)
    cluster.run(100)
    for node in cluster.nodes.values():
        core = node.replica._core
        assert len(core.chain.known) < 20
        assert len(core.executor._outcomes) < 20


def test_the_state_tree_and_the_application_hold_the_same_state():
    cluster = Cluster(4, block_txs=3)
    cluster.order_all(20)
    core = cluster.nodes[2].replica._core
    merged = core.executor.freeze().merged()
    assert {k: v for k, v in merged.items() if not k.startswith(b"\0ledger/")} == cluster.nodes[2].app.state
    assert StateTree(merged).root == cluster.nodes[2].status().state_root
    assert isinstance(cluster.nodes[2].disk, Disk)
