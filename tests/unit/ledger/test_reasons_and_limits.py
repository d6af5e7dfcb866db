"""Every wait has a reason with its numbers, everything kept is bounded, equal inputs give equal effects (ledger.md 1, 16)."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgora.crypto.proof import check_certificate, check_state_proof, check_tx_proof
from edgora.ledger import proofs, status
from edgora.ledger.config import Params
from edgora.ledger.effects import Recv, ViewEntered, ViewLeft
from edgora.ledger.executor import Executor
from edgora.ledger.tree import StateTree
from edgora.wire.codec import encode
from edgora.wire.ledger import Phase
from edgora.wire.pbft import (
    CheckpointVote,
    Commit,
    GetBlocks,
    NewView,
    Prepare,
    PrePrepare,
    PutBlocks,
    PutCertificate,
    TxGossip,
    ViewChange,
)  # fmt: skip
from unit.ledger.harness import CLIENTS, DOMAIN, KEYS, START, Cluster, Registers, Solo, sent, standing

VALIDATORS = [key.address for key in KEYS[:4]]


# ---- reasons ---------------------------------------------------------------------------------------------------------


def test_why_a_block_waits_is_told_phase_by_phase_with_who_is_silent():
    solo = Solo(1)
    reasons = []

    def note():
        waiting = solo.status.waiting
        assert waiting.sentence()
        reasons.append((waiting.code, waiting.numbers.get("have"), waiting.silent))

    note()
    solo.submit(solo.tx(0, b"a=1"))
    note()
    header = solo.forge.header()
    solo.recv(0, solo.forge.pre_prepare(0, header))
    note()
    solo.recv(3, solo.forge.prepare(3, 0, header))
    note()
    solo.recv(0, solo.forge.commit(0, 0, header))
    note()
    solo.gives_up("progress")
    note()
    solo.recv(0, solo.forge.view_change(0, 1))
    assert solo.status.left_because == "no commit although something is due"
    assert reasons == [
        ("idle", None, ()), ("proposal", None, ()), ("prepare", 2, (2, 3)), ("commit", 1, (0, 2, 3)), ("commit", 2, (2, 3)),
        ("view_change", 1, (0, 2, 3)),
    ]  # fmt: skip
    votes = solo.status.votes
    assert (votes.height, votes.prepared, votes.committed) == (1, (), ())  # of the view asked for
    solo.recv(2, solo.forge.view_change(2, 1))  # the third of three: as its primary we found view 1 at once
    moves = [move for effects in solo.log for move in effects.views]
    assert moves == [ViewLeft(0, 1, 1, "no commit although something is due"), ViewEntered(1, 1, (0, 1, 2))]


def test_sentences_carry_their_numbers():
    reason = status.WaitReason("prepare", {"height": 7, "have": 2, "need": 3}, (3,))
    assert reason.sentence() == "height 7: 2 of 3 PREPARE; silent: 3"
    for code, text in status._SENTENCES.items():
        names = dict.fromkeys(("height", "view", "have", "need", "primary", "behind", "target", "exec_height", "executed", "stable", "waiting", "in_flight", "window"), 1)  # fmt: skip
        assert status.WaitReason(code, names).sentence() == text.format(**names)


def test_a_primary_says_what_it_waits_for():
    solo = Solo(0, window=1, block_txs=1)
    solo.submit(solo.tx(0, b"a=1"))
    assert solo.status.waiting.code == "prepare"
    other = Solo(0)
    other.submit(other.tx(0, b"a=1"))
    assert (other.status.waiting.code, other.status.waiting.numbers) == ("batch", {"waiting": 1})


def test_a_sealing_primary_says_so():
    cluster = Cluster(4, seal_delay_ms=5_000)
    cluster.order_all(1)
    cluster.run(30)
    assert cluster.nodes[0].status().waiting.code == "seal"
    assert (cluster.nodes[0].status().height, cluster.nodes[0].status().certified) == (1, 0)


def test_signature_work_under_way_is_a_reason():
    solo = Solo(1)
    signed = solo.tx(0, b"a=1")
    header = solo.forge.header(txs=[signed])
    effects = solo.replica.step(solo.world.now, Recv(0, solo.forge.pre_prepare(0, header, [signed])))
    assert len(effects.verify) == 1
    assert solo.status.waiting.code == "signatures"


def test_peers_are_shown_with_the_age_of_what_we_know():
    solo = Solo(1)
    solo.recv(3, standing(view=2, active=False))
    solo.world.now += 250
    [peer] = solo.status.peers
    assert (peer.index, peer.view, peer.active, peer.age_ms) == (3, 2, False, 250)


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_votes_are_kept_for_near_views_and_heights_only():
    solo = Solo(1)
    keep = solo.world.params.buffer
    for view in range(5):
        for height in (0, 1, keep, keep + 1, 5_000):
            header = solo.forge.header(height=height)
            solo.recv(2, solo.forge.prepare(2, view, header))
            solo.recv(2, solo.forge.commit(2, view, header))
    core = solo.replica._core
    kept = sorted((phase, view, height) for phase, view, height in core.votes._slots)
    assert kept == [(p, v, h) for p in (Phase.PREPARE, Phase.COMMIT) for v in (0, 1) for h in (1, keep)]


def test_proposals_are_kept_one_a_place():
    solo = Solo(1, n=4)
    for i in range(40):
        solo.recv(0, solo.forge.pre_prepare(0, solo.forge.header(time_ms=START + i, height=9)))
        solo.recv(1, solo.forge.pre_prepare(1, solo.forge.header(time_ms=START + i, height=9)))
    assert len(solo.replica._core.view.proposals) == 1


def test_gossip_under_verification_is_bounded():
    solo = Solo(1)
    for i in range(400):
        solo.replica.step(solo.world.now, Recv(3, TxGossip(0, (solo.tx(i % 8, b"a=1", lane=i % 16, seq=i // 128),))))
    assert len(solo.replica._core.verifying) == 256


def test_messages_of_another_epoch_or_of_nobody_are_dropped():
    solo = Solo(1)
    header = solo.forge.header(epoch=3)
    for peer, message in [(0, GetBlocks(3, 1)), (1, GetBlocks(0, 1)), (9, GetBlocks(0, 1)), (-1, GetBlocks(0, 1))]:
        assert not solo.step(Recv(peer, message)).send
    certificate = solo.forge.certificate(Phase.COMMIT, 0, header)
    assert solo.recv(2, PutCertificate(0, certificate)).faults  # of an epoch whose validators nobody knows


def test_a_peer_behind_is_repaired_at_most_once_an_interval():
    solo = Solo(1)
    header = solo.forge.header()
    solo.recv(0, solo.forge.pre_prepare(0, header))
    behind = standing()
    assert not sent(solo.recv(3, behind), Prepare)  # it is on its way
    assert len(sent(solo.recv(3, behind, at=900), Prepare)) == 1
    assert not sent(solo.recv(3, behind, at=901), Prepare)
    assert len(sent(solo.recv(3, behind, at=1_500), Prepare)) == 1


@pytest.mark.parametrize("n", [4, 7])
def test_a_fault_free_block_costs_at_most_4_n_squared_messages(n):
    cluster = Cluster(n, block_txs=5)
    cluster.order_all(30)
    cluster.run(400)
    assert len(cluster.sent) <= 4 * n * n * max(cluster.heights())
    votes = [m for _, _, m in cluster.sent if isinstance(m, (PrePrepare, Prepare, Commit))]
    assert len(votes) <= 2 * n * (n - 1) * max(cluster.heights())


# ---- repair of losses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [PrePrepare, Prepare, Commit, ViewChange, NewView, CheckpointVote, TxGossip, PutBlocks]
)
def test_the_loss_of_every_first_message_of_a_kind_is_repaired(kind):
    cluster = Cluster(4, checkpoint_interval=4, block_txs=1)
    seen = set()

    def first_is_lost(src, dest, message):
        key = (src, dest, type(message), getattr(message, "height", getattr(message, "view", 0)))
        return isinstance(message, kind) and not (key in seen or seen.add(key))

    cluster.lose = first_is_lost
    names = [cluster.submit(i % 4, cluster.tx(i, b"a=1")) for i in range(6)]
    if kind in {ViewChange, NewView}:
        cluster.crash(0)
    live = [i for i in range(4) if i in cluster.nodes]
    wanted = [n for i, n in enumerate(names) if i % 4 in live]
    assert cluster.run(40_000, lambda: all(cluster.executed_at(cluster.nodes[i], n) for i in live for n in wanted))
    assert cluster.run(10_000, lambda: len({cluster.nodes[i].height for i in live}) == 1)


# ---- proofs ----------------------------------------------------------------------------------------------------------


def test_transactions_and_values_are_provable_from_what_a_replica_published():
    cluster = Cluster(4)
    name = cluster.submit(1, cluster.tx(0, b"door=open"))
    cluster.run(1_500)
    executed = cluster.nodes[2].executed
    first = executed[0]
    hashes = [r.tx_hash for r in first.receipts]
    place = hashes.index(name)
    proof = proofs.prove_tx(first.block, hashes, place, [first.block.header], first.certificate)
    assert check_tx_proof(proof, VALIDATORS, DOMAIN) is None
    seal = executed[1]
    core = cluster.nodes[2].replica._core
    state = StateTree(_state_after(cluster, first.block.header.height)).freeze()
    assert state.root == seal.block.header.state_root == first.state_root
    for key, value in ((b"door", b"open"), (b"window", None)):
        known = proofs.prove_value(state, key, [seal.block.header], seal.certificate)
        assert known.value == value
        assert check_state_proof(known, VALIDATORS, DOMAIN) is None
    assert check_certificate(core.chain.best, VALIDATORS, DOMAIN) is None


def _state_after(cluster, height):
    """The whole state after a height, by running the published blocks once more."""
    executor = Executor(Registers([key.address for key in CLIENTS]), VALIDATORS, Params())
    for e in cluster.nodes[2].executed[:height]:
        executor.execute(e.block.header, e.block.header.hash, e.block.txs, [r.tx_hash for r in e.receipts])
    return executor.freeze().merged()


# ---- determinism -----------------------------------------------------------------------------------------------------


def trace():
    """Digest of everything that a lively cluster does."""
    cluster = Cluster(4, checkpoint_interval=4, block_txs=2)
    digest = hashlib.sha256()
    real = cluster.step

    def traced(index, event):
        effects = real(index, event)
        digest.update(f"{index} {cluster.now}".encode())
        for part in (effects.persist, [tuple(s) for s in effects.send], [tuple(t) for t in effects.timers],
                     [tuple(v) for v in effects.verify], [tuple(a) for a in effects.answers]):  # fmt: skip
            digest.update(encode(part))
        return effects

    cluster.step = traced
    for i in range(12):
        cluster.submit(i % 4, cluster.tx(i % 8, b"+n%d" % i, lane=i % 3))
        cluster.run(3)
    disk = cluster.crash(0)
    cluster.run(4_000)
    cluster.start(0, disk)
    cluster.order_all(6, at=0)
    return digest.hexdigest()


@pytest.mark.parametrize("hash_seed", ["0", "1", "31337"])
def test_equal_inputs_give_equal_effects_in_every_process(hash_seed):
    folder = Path(__file__).parents[2]
    script = "from unit.ledger.test_reasons_and_limits import trace; print(trace())"
    env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == trace()
