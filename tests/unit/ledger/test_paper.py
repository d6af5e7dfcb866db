"""One test per claim of Castro and Liskov, "Practical Byzantine Fault Tolerance" (OSDI 1999), its section in the name.

Where ledger.md deviates on purpose (chained blocks, signatures instead of MACs, client answers by certificate), the
test states our form of the claim.
"""

import pytest

from edgora.crypto.proof import check_certificate, check_receipt_proof
from edgora.ledger.effects import ALL
from edgora.ledger.proofs import prove_receipt
from edgora.wire.ledger import Phase, faulty, quorum
from edgora.wire.pbft import (
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    TxGossip,
    ViewChange,
    WalAccepted,
    WalBlock,
    WalNewView,
    WalTip,
    WalView,
)  # fmt: skip
from unit.ledger.harness import DOMAIN, KEYS, Cluster, Solo, persisted, sent

SIZES = pytest.mark.parametrize("n", [4, 5, 7])


# ---- 2, 3: model and properties -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 65))
def test_section_3_any_two_quorums_share_a_correct_replica_and_one_is_always_available(n):
    f, q = faulty(n), quorum(n)
    assert 3 * f < n
    assert 2 * q - n >= f + 1
    assert q <= n - f


@SIZES
def test_section_3_safety_all_correct_replicas_execute_the_same_blocks(n):
    cluster = Cluster(n)
    cluster.order_all(12)
    chains = [node.chain() for node in cluster.nodes.values()]
    assert all(chain == chains[0] for chain in chains)
    assert len({node.status().state_root for node in cluster.nodes.values()}) == 1


@SIZES
def test_section_3_liveness_with_f_replicas_dead(n):
    cluster = Cluster(n)
    for index in range(n - faulty(n), n):
        cluster.crash(index)
    cluster.order_all(5, at=0)


@SIZES
def test_section_3_no_progress_and_no_harm_with_more_than_f_dead(n):
    cluster = Cluster(n)
    for index in range(quorum(n) - 1, n):
        cluster.crash(index)
    cluster.submit(0, cluster.tx(0, b"a=1"))
    cluster.run(5_000)
    assert set(cluster.heights()) == {0}


# ---- 4.2: normal case -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 7])
def test_section_4_the_primary_of_view_v_is_v_mod_n(n):
    solo = Solo(0, n)
    assert [solo.world.config(0).primary(view) for view in range(2 * n)] == [*range(n), *range(n)]


def test_section_4_2_the_primary_multicasts_a_pre_prepare_with_the_requests():
    solo = Solo(0)
    signed = solo.tx(0, b"a=1")
    solo.submit(signed)
    effects = solo.fire("propose")
    [message] = sent(effects, PrePrepare)
    assert (message.view, message.header.height, message.txs) == (0, 1, (signed,))
    assert all(send.dest == ALL for send in effects.send)


def test_section_4_2_a_backup_accepts_a_sound_pre_prepare_and_multicasts_prepare():
    solo = Solo(1)
    header = solo.forge.header()
    effects = solo.recv(0, solo.forge.pre_prepare(0, header))
    [vote] = sent(effects, Prepare)
    assert (vote.view, vote.height, vote.block_hash) == (0, 1, header.hash)
    assert [type(r) for r in effects.persist] == [WalBlock, WalAccepted]  # before the send, durable
    assert effects.sync


def test_section_4_2_a_pre_prepare_of_another_view_or_signer_is_not_accepted():
    solo = Solo(1)
    header = solo.forge.header()
    assert not sent(solo.recv(2, solo.forge.pre_prepare(0, header)), Prepare)  # not the primary
    assert not sent(solo.recv(2, solo.forge.pre_prepare(2, header)), Prepare)  # not this view
    forged = solo.forge.pre_prepare(0, header, signature=KEYS[2].sign(bytes(32)))
    assert not sent(solo.recv(0, forged), Prepare)
    assert sent(solo.recv(0, solo.forge.pre_prepare(0, header)), Prepare)


def test_section_4_2_a_second_pre_prepare_for_the_same_view_and_number_is_not_accepted():
    solo = Solo(1)
    first, second = solo.forge.header(), solo.forge.header(time_ms=solo.world.now + 1)
    assert sent(solo.recv(0, solo.forge.pre_prepare(0, first)), Prepare)
    effects = solo.recv(0, solo.forge.pre_prepare(0, second))
    assert not sent(effects, Prepare)
    assert [item.accused for item in effects.evidence] == [0]


def test_section_4_2_sequence_numbers_beyond_the_high_water_mark_are_not_accepted():
    solo = Solo(1, window=1)
    headers = solo.forge.chain(5)
    accepted = [sent(solo.recv(0, solo.forge.pre_prepare(0, header)), Prepare) for header in headers]
    # results lag by at most W + 1 heights, so with nothing committed height 3 is one too many
    assert [len(votes) for votes in accepted] == [1, 1, 0, 0, 0]
    assert not solo.recv(0, solo.forge.pre_prepare(0, solo.forge.chain(20)[-1])).send  # beyond W_buf: dropped unread


@SIZES
def test_section_4_2_prepared_needs_a_quorum_of_matching_prepares(n):
    solo = Solo(1, n)
    header = solo.forge.header()
    effects = solo.recv(0, solo.forge.pre_prepare(0, header))  # the primary's and our own vote
    for signer in range(2, quorum(n) - 1):
        effects = solo.recv(signer, solo.forge.prepare(signer, 0, header))
        assert not sent(effects, Commit)
    if quorum(n) > 2:
        effects = solo.recv(quorum(n) - 1, solo.forge.prepare(quorum(n) - 1, 0, header))
    [vote] = sent(effects, Commit)
    assert vote.block_hash == header.hash
    [record] = persisted(effects, WalTip)
    assert effects.sync
    assert check_certificate(record.certificate, [k.address for k in KEYS[:n]], DOMAIN) is None


def test_section_4_2_prepares_that_name_another_block_do_not_count():
    solo = Solo(1)
    header, other = solo.forge.header(), solo.forge.header(time_ms=solo.world.now + 9)
    solo.recv(0, solo.forge.pre_prepare(0, header))
    assert not sent(solo.recv(2, solo.forge.prepare(2, 0, other)), Commit)
    assert sent(solo.recv(3, solo.forge.prepare(3, 0, header)), Commit)


@SIZES
def test_section_4_2_committed_local_needs_a_quorum_of_commits_and_then_executes(n):
    solo = Solo(1, n)
    header = solo.forge.header()
    solo.recv(0, solo.forge.pre_prepare(0, header))
    for signer in range(2, quorum(n)):
        solo.recv(signer, solo.forge.prepare(signer, 0, header))
    others = [signer for signer in range(n) if signer != 1][: quorum(n) - 1]
    for signer in others[:-1]:
        assert not solo.recv(signer, solo.forge.commit(signer, 0, header)).executed
    [executed] = solo.recv(others[-1], solo.forge.commit(others[-1], 0, header)).executed
    assert executed.block.header == header
    assert executed.certificate.vote.phase == Phase.COMMIT


def test_section_4_2_execution_follows_the_order_of_sequence_numbers():
    cluster = Cluster(4, block_txs=1)
    cluster.order_all(9)
    for node in cluster.nodes.values():
        assert [height for height, _ in node.app.blocks] == list(range(1, node.height + 1))


def test_section_4_2_messages_may_arrive_in_any_order():
    """Votes before the proposal, the second proposal before the first: nothing is lost."""
    solo = Solo(1)
    low, high = solo.forge.chain(2)
    for signer in (0, 2):
        solo.recv(signer, solo.forge.commit(signer, 0, high))
        solo.recv(signer, solo.forge.prepare(signer, 0, high))
    solo.recv(0, solo.forge.pre_prepare(0, high))
    assert solo.status.accepted == 0
    effects = solo.recv(0, solo.forge.pre_prepare(0, low))
    assert [vote.height for vote in sent(effects, Prepare)] == [1, 2]
    assert [e.block.header.height for e in effects.executed] == [1, 2]  # the higher certificate carries its ancestor


# ---- 4.1: the client -------------------------------------------------------------------------------------------------


def test_section_4_1_a_request_to_a_backup_reaches_all_replicas():
    solo = Solo(2)
    signed = solo.tx(0, b"a=1")
    effects = solo.submit(signed)
    assert sent(effects, TxGossip) == [TxGossip(0, (signed,))]
    assert [(a.admitted, a.reason) for a in effects.answers] == [(True, "ADMITTED")]


def test_section_4_1_the_answer_is_checkable_by_the_client_alone():
    cluster = Cluster(4)
    name = cluster.submit(2, cluster.tx(0, b"a=1"))
    cluster.run(2_000)
    node = cluster.nodes[3]
    headers = [e.block.header for e in node.executed]
    certificates = {e.block.header.height: e.certificate for e in node.executed}
    receipts = [r for e in node.executed for r in e.receipts]
    over = next(h for h in headers if h.exec_height >= receipts[0].height)
    proof = prove_receipt(receipts, 0, [over], certificates[over.height])
    assert proof.receipt.tx_hash == name
    assert check_receipt_proof(proof, [k.address for k in KEYS[:4]], DOMAIN) is None


def test_section_4_1_a_retransmitted_request_runs_once():
    cluster = Cluster(4)
    signed = cluster.tx(0, b"+count")
    for at in (0, 1, 2, 3):
        cluster.submit(at, signed)
    cluster.run(1_000)
    for at in (0, 1):
        cluster.submit(at, signed)
    cluster.run(1_000)
    assert {node.app.state[b"count"] for node in cluster.nodes.values()} == {b"1"}
    assert cluster.nodes[0].answers[-1].reason == "DUPLICATE"


# ---- 4.3: checkpoints ------------------------------------------------------------------------------------------------


@SIZES
def test_section_4_3_a_checkpoint_with_a_quorum_is_stable_and_lets_the_log_go(n):
    cluster = Cluster(n, checkpoint_interval=4, block_txs=1)
    cluster.order_all(13)
    cluster.run(50)
    assert {node.status().checkpoint for node in cluster.nodes.values()} == {12}
    for node in cluster.nodes.values():
        heights = [r.block.header.height for r in node.disk.read().records if isinstance(r, WalBlock)]
        assert min(heights, default=13) > 8


# ---- 4.4: view changes -----------------------------------------------------------------------------------------------


def test_section_4_4_a_backup_whose_timer_expires_stops_voting_and_multicasts_view_change():
    solo = Solo(1)
    solo.submit(solo.tx(0, b"a=1"))
    effects = solo.gives_up("progress")
    [change] = sent(effects, ViewChange)
    assert change.body.new_view == 1
    assert persisted(effects, WalView)
    assert effects.sync
    assert not sent(solo.recv(0, solo.forge.pre_prepare(0, solo.forge.header())), Prepare)


def test_section_4_4_the_view_change_carries_the_prepared_certificate():
    solo = Solo(2)
    header = solo.forge.header()
    solo.recv(0, solo.forge.pre_prepare(0, header))
    solo.recv(1, solo.forge.prepare(1, 0, header))
    [change] = sent(solo.gives_up("progress"), ViewChange)
    assert (change.body.tip_view, change.body.tip_height, change.body.tip_hash) == (0, 1, header.hash)
    assert change.headers == (header,)
    assert check_certificate(change.tip, [k.address for k in KEYS[:4]], DOMAIN) is None


@SIZES
def test_section_4_4_the_new_primary_needs_a_quorum_of_view_changes(n):
    solo = Solo(1, n)
    others = [signer for signer in range(n) if signer != 1]
    for signer in others[: quorum(n) - 2]:  # with f + 1 of them it joins, so its own is one of the q
        assert not sent(solo.recv(signer, solo.forge.view_change(signer, 1)), NewView)
    effects = solo.recv(others[quorum(n) - 2], solo.forge.view_change(others[quorum(n) - 2], 1))
    [message] = sent(effects, NewView)
    assert [change.signer for change in message.view_changes] == list(range(quorum(n)))
    assert persisted(effects, WalNewView)
    assert effects.sync
    assert (solo.status.view, solo.status.active) == (1, True)


def test_section_4_4_backups_check_the_new_view_and_enter():
    solo = Solo(2)
    changes = [solo.forge.view_change(s, 1) for s in (0, 1, 3)]
    effects = solo.recv(1, solo.forge.new_view(1, changes))
    assert persisted(effects, WalNewView)
    assert (solo.status.view, solo.status.active) == (1, True)
    header = solo.forge.header(view=1)
    assert sent(solo.recv(1, solo.forge.pre_prepare(1, header)), Prepare)


@SIZES
def test_section_4_4_what_committed_before_a_view_change_stays_in_place(n):
    cluster = Cluster(n)
    cluster.order_all(6)
    before = dict(cluster.commits)
    cluster.crash(0)
    cluster.order_all(4)
    assert {h: cluster.commits[h] for h in before} == before
    assert all(node.status().view > 0 for node in cluster.nodes.values())


def test_section_4_4_what_was_prepared_anywhere_in_the_quorum_is_proposed_again():
    solo = Solo(2)
    header = solo.forge.header()
    tip = solo.forge.certificate(Phase.PREPARE, 0, header)
    changes = [
        solo.forge.view_change(0, 1),
        solo.forge.view_change(1, 1, tip=tip, headers=[header]),
        solo.forge.view_change(3, 1),
    ]
    solo.recv(1, solo.forge.new_view(1, changes))
    assert solo.status.waiting.code == "base"
    [vote] = sent(solo.recv(1, solo.forge.pre_prepare(1, header)), Prepare)
    assert (vote.view, vote.block_hash) == (1, header.hash)


# ---- 4.5: liveness ---------------------------------------------------------------------------------------------------


def test_section_4_5_1_the_timer_doubles_from_view_to_view():
    solo = Solo(6, n=7, timeout_ms=1_000)
    solo.submit(solo.tx(0, b"a=1"))
    waits = []
    solo.gives_up("progress")
    for view in range(1, 6):
        for signer in range(5):
            solo.recv(signer, solo.forge.view_change(signer, view))
        waits.append(solo.status.timers["view"] - solo.world.now)
        solo.gives_up("view")
    assert waits == [2_000, 4_000, 8_000, 16_000, 16_000]


def test_section_4_5_1_the_timer_waits_for_a_quorum_of_view_changes():
    solo = Solo(3)
    solo.submit(solo.tx(0, b"a=1"))
    solo.gives_up("progress")
    assert "view" not in solo.status.timers
    solo.recv(0, solo.forge.view_change(0, 1))
    assert "view" not in solo.status.timers
    solo.recv(1, solo.forge.view_change(1, 1))
    assert "view" in solo.status.timers


@SIZES
def test_section_4_5_1_f_plus_1_view_changes_make_a_replica_join_the_smallest(n):
    solo = Solo(n - 1, n)
    views = [9, 3, 5][: faulty(n) + 1]
    effects = None
    for signer, view in enumerate(views):
        assert solo.status.active
        effects = solo.recv(signer, solo.forge.view_change(signer, view))
    [change] = sent(effects, ViewChange)
    assert change.body.new_view == min(views)


def test_section_4_5_1_f_replicas_cannot_force_a_view_change():
    solo = Solo(3)
    for view in (1, 50, 2**40):
        solo.recv(0, solo.forge.view_change(0, view))
    assert (solo.status.view, solo.status.active) == (0, True)


def test_section_4_5_1_a_faulty_primary_cannot_stop_the_system_for_long():
    cluster = Cluster(4)
    cluster.lose = lambda src, _dest, message: src == 0 and isinstance(message, PrePrepare)
    name = cluster.submit(1, cluster.tx(0, b"a=1"))
    assert cluster.run(5_000, lambda: all(cluster.executed_at(node, name) for node in cluster.nodes.values()))


# ---- 5.3: state transfer ---------------------------------------------------------------------------------------------


def test_section_5_3_a_replica_that_was_away_fetches_a_checkpoint_and_what_follows():
    cluster = Cluster(4, checkpoint_interval=8, block_txs=1)
    disk = cluster.crash(3)
    cluster.order_all(30)
    cluster.start(3, disk)
    assert cluster.run(10_000, lambda: len(set(cluster.heights())) == 1)
    assert cluster.nodes[3].app.state == cluster.nodes[0].app.state
    assert min(cluster.nodes[3].chain()) > 8  # the blocks below the snapshot were never executed
    cluster.order_all(3, at=3)
