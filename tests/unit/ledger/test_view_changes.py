"""The chained view change: what counts, what is chosen, what must be voted on first (ledger.md 10)."""

import msgspec
import pytest

from edgora.ledger.views import base_of
from edgora.wire.ledger import Block, Phase, faulty
from edgora.wire.pbft import (
    Commit,
    Evidence,
    GetBody,
    NewView,
    Prepare,
    PrePrepare,
    PutBody,
    PutCertificate,
    Status,
    ViewChange,
    WalNewView,
)  # fmt: skip
from unit.ledger.harness import KEYS, START, Cluster, Solo, persisted, sent, standing

# ---- what a VIEW_CHANGE must be --------------------------------------------------------------------------------------


def good_parts(solo):
    low, high = solo.forge.chain(2)
    commit = solo.forge.certificate(Phase.COMMIT, 1, low)
    tip = solo.forge.certificate(Phase.PREPARE, 2, high)
    return low, high, commit, tip


def bad_changes():
    def case(name, make):
        return pytest.param(make, id=name)

    def resigned(solo, change, **changes):
        body = msgspec.structs.replace(change.body, **changes)
        key = KEYS[change.signer]
        return msgspec.structs.replace(change, body=body, signature=key.sign(body.digest(solo.world.config(0).domain)))

    def base(solo):
        _, high, commit, tip = good_parts(solo)
        return solo.forge.view_change(3, 5, commit, tip, [high])

    swap = msgspec.structs.replace
    yield case("another's signature", lambda s: swap(base(s), signature=solo_sign(2)))
    yield case("commit not certified", lambda s: swap(base(s), commit=None))
    yield case(
        "commit of too few",
        lambda s: swap(base(s), commit=s.forge.certificate(Phase.COMMIT, 1, good_parts(s)[0], [0, 1])),
    )
    yield case(
        "commit is a prepare certificate",
        lambda s: swap(base(s), commit=s.forge.certificate(Phase.PREPARE, 1, good_parts(s)[0])),
    )
    yield case("commit names another block", lambda s: resigned(s, base(s), commit_hash=bytes(32)))
    yield case(
        "commit of a later view",
        lambda s: s.forge.view_change(3, 1, s.forge.certificate(Phase.COMMIT, 1, good_parts(s)[0])),
    )
    yield case("tip without certificate", lambda s: swap(base(s), tip=None))
    yield case(
        "tip of too few", lambda s: swap(base(s), tip=s.forge.certificate(Phase.PREPARE, 2, good_parts(s)[1], [0, 1]))
    )
    yield case(
        "tip is a commit certificate",
        lambda s: swap(base(s), tip=s.forge.certificate(Phase.COMMIT, 2, good_parts(s)[1])),
    )
    yield case(
        "tip of the view asked for", lambda s: s.forge.view_change(3, 2, None, good_parts(s)[3], s.forge.chain(2))
    )
    yield case(
        "tip not above the commit",
        lambda s: s.forge.view_change(
            3, 5, good_parts(s)[2], s.forge.certificate(Phase.PREPARE, 2, good_parts(s)[0]), []
        ),
    )
    yield case("headers missing", lambda s: swap(base(s), headers=()))
    yield case("headers do not link", lambda s: swap(base(s), headers=(good_parts(s)[0],)))
    yield case("one header too many", lambda s: swap(base(s), headers=tuple(s.forge.chain(2))))
    yield case("headers without a tip", lambda s: swap(s.forge.view_change(3, 5), headers=tuple(s.forge.chain(1))))
    yield case("mixed views in a certificate", lambda s: swap(base(s), tip=mixed(s)))
    yield case("wrong genesis", lambda s: resigned(s, s.forge.view_change(3, 5), commit_hash=b"\1" * 32))


def solo_sign(signer):
    return KEYS[signer].sign(bytes(32))


def mixed(solo):
    """A certificate whose last signature is over the same block in another view."""
    high = good_parts(solo)[1]
    right, wrong = solo.forge.certificate(Phase.PREPARE, 2, high), solo.forge.certificate(Phase.PREPARE, 1, high)
    return msgspec.structs.replace(right, signatures=(*right.signatures[:2], wrong.signatures[2]))


@pytest.mark.parametrize("make", list(bad_changes()))
def test_an_unsound_view_change_counts_for_nothing(make):
    solo = Solo(2)
    change = make(solo)
    assert [f.peer for f in solo.recv(3, change).faults] == [3]
    solo.recv(1, solo.forge.view_change(1, change.body.new_view))
    assert (solo.status.view, solo.status.active) == (0, True)  # one sound one is not f + 1


def test_the_sound_view_change_behind_those_cases_counts():
    solo = Solo(2)
    _, high, commit, tip = good_parts(solo)
    assert not solo.recv(3, solo.forge.view_change(3, 5, commit, tip, [high])).faults
    assert sent(solo.recv(1, solo.forge.view_change(1, 5)), ViewChange)[0].body.new_view == 5


def test_headers_longer_than_the_buffer_are_unsound():
    solo = Solo(2, window=1)
    headers = solo.forge.chain(4)
    tip = solo.forge.certificate(Phase.PREPARE, 0, headers[3])
    assert solo.recv(3, solo.forge.view_change(3, 1, None, tip, headers)).faults
    shorter = solo.forge.certificate(Phase.PREPARE, 0, headers[2])
    assert not solo.recv(3, solo.forge.view_change(3, 1, None, shorter, headers[:3])).faults


def test_of_each_signer_only_the_highest_view_change_is_kept():
    solo = Solo(2)
    solo.recv(3, solo.forge.view_change(3, 4))
    solo.recv(3, solo.forge.view_change(3, 2))
    [change] = sent(solo.recv(1, solo.forge.view_change(1, 9)), ViewChange)
    assert change.body.new_view == 4


def test_a_view_change_under_another_name_is_refused():
    solo = Solo(2)
    assert solo.recv(3, solo.forge.view_change(1, 4)).faults


# ---- what a NEW_VIEW must be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda s: s.forge.new_view(1, [s.forge.view_change(i, 1) for i in (0, 1)]),
        lambda s: s.forge.new_view(1, [s.forge.view_change(i, 1) for i in (0, 1, 2, 3)]),
        lambda s: s.forge.new_view(1, [s.forge.view_change(i, 1) for i in (1, 0, 3)]),
        lambda s: s.forge.new_view(1, [s.forge.view_change(i, 1) for i in (0, 0, 3)]),
        lambda s: s.forge.new_view(1, [s.forge.view_change(i, 2) for i in (0, 1, 3)]),
        lambda s: s.forge.new_view(1, [s.forge.view_change(i, 1) for i in (0, 1, 3)], signer=3),
    ],
    ids=["too few", "too many", "unordered", "twice", "of another view", "by another"],
)
def test_an_unsound_new_view_is_refused(make):
    solo = Solo(2)
    effects = solo.recv(1, make(solo))
    assert effects.faults
    assert solo.status.view == 0


def test_a_new_view_proves_itself_whoever_delivers_it_and_moves_a_voting_replica():
    solo = Solo(2)
    message = solo.forge.new_view(9, [solo.forge.view_change(i, 9) for i in (0, 1, 3)])
    effects = solo.recv(3, message)
    assert persisted(effects, WalNewView)
    assert effects.sync
    assert (solo.status.view, solo.status.active) == (9, True)
    assert not solo.recv(3, message).persist  # once
    old = solo.forge.new_view(5, [solo.forge.view_change(i, 5) for i in (0, 1, 3)])
    assert not solo.recv(1, old).persist


# ---- the base --------------------------------------------------------------------------------------------------------


def test_the_base_is_the_greatest_candidate_by_view_then_height():
    solo = Solo(0)
    forge = solo.forge
    chain = forge.chain(4)
    old_high = forge.view_change(0, 9, None, forge.certificate(Phase.PREPARE, 2, chain[3]), chain)
    new_low = forge.view_change(1, 9, None, forge.certificate(Phase.PREPARE, 3, chain[1]), chain[:2])
    commit = forge.view_change(2, 9, forge.certificate(Phase.COMMIT, 3, chain[0]))
    base = base_of([old_high, new_low, commit])
    assert (base.view, base.height, base.hash, base.is_tip) == (3, 2, chain[1].hash, True)
    assert base_of([old_high, commit]).hash == chain[0].hash
    assert not base_of([old_high, commit]).is_tip
    assert base_of([forge.view_change(i, 9) for i in range(3)]).height == 0


def test_a_commit_certificate_of_the_tip_makes_the_base_committed():
    solo = Solo(0)
    forge = solo.forge
    [header] = forge.chain(1)
    tip = forge.view_change(0, 9, None, forge.certificate(Phase.PREPARE, 2, header), [header])
    commit = forge.view_change(2, 9, forge.certificate(Phase.COMMIT, 2, header))
    assert not base_of([tip, commit]).is_tip


def test_the_first_vote_in_a_view_is_for_exactly_the_base_at_its_own_height():
    """The trap: going bottom-up, (new view, low) would outrank (old view, high) and abandon a committed block."""
    solo = Solo(3)
    chain = solo.forge.chain(3)
    for header in chain:
        solo.recv(0, solo.forge.pre_prepare(0, header))
    tip = solo.forge.certificate(Phase.PREPARE, 0, chain[2])
    changes = [
        solo.forge.view_change(0, 1, None, tip, chain),
        solo.forge.view_change(1, 1),
        solo.forge.view_change(2, 1),
    ]
    solo.recv(1, solo.forge.new_view(1, changes))
    for ancestor in chain[:2]:
        assert not solo.recv(1, solo.forge.pre_prepare(1, ancestor)).send
    [vote] = sent(solo.recv(1, solo.forge.pre_prepare(1, chain[2])), Prepare)
    assert (vote.view, vote.height, vote.block_hash) == (1, 3, chain[2].hash)
    for signer in (1, 2):
        solo.recv(signer, solo.forge.prepare(signer, 1, chain[2]))
    effects = [solo.recv(signer, solo.forge.commit(signer, 1, chain[2])) for signer in (1, 2)][-1]
    assert [e.block.header for e in effects.executed] == chain  # the ancestors commit with it


def test_the_new_primary_reproposes_the_base_unchanged():
    solo = Solo(1)
    chain = solo.forge.chain(3)
    for header in chain:
        solo.recv(0, solo.forge.pre_prepare(0, header))
    tip = solo.forge.certificate(Phase.PREPARE, 0, chain[1])
    solo.recv(0, solo.forge.view_change(0, 1, None, tip, chain[:2]))
    effects = solo.recv(2, solo.forge.view_change(2, 1))
    assert [m.header for m in sent(effects, PrePrepare)] == [chain[1]]
    [message] = sent(effects, NewView)
    assert len(message.view_changes) == 3


def test_missing_bodies_of_the_base_are_fetched_by_hash_from_holders_one_at_a_time():
    solo = Solo(2)
    chain = solo.forge.chain(2)
    tip = solo.forge.certificate(Phase.PREPARE, 0, chain[1], signers=[0, 1, 3])
    changes = [
        solo.forge.view_change(0, 1, None, tip, chain),
        solo.forge.view_change(1, 1),
        solo.forge.view_change(3, 1),
    ]
    effects = solo.recv(1, solo.forge.new_view(1, changes))
    asked = [m.block_hash for m in sent(effects, GetBody)]
    assert asked == [chain[0].hash]
    effects = solo.recv(1, solo.forge.pre_prepare(1, chain[1]))
    assert not sent(effects, Prepare)  # its ancestor is not here
    assert not sent(effects, GetBody)  # one question under way
    effects = solo.fire("fetch")
    [send] = [s for s in effects.send if isinstance(s.message, GetBody)]
    wrong = solo.recv(send.dest, PutBody(0, Block(chain[0], (solo.tx(0, b"a=1"),))))
    assert wrong.faults
    effects = solo.recv(send.dest, PutBody(0, Block(chain[0], ())))
    assert [vote.block_hash for vote in sent(effects, Prepare)] == [chain[1].hash]


def test_a_base_that_is_committed_here_needs_no_vote_and_its_certificate_is_shared():
    solo = Solo(2)
    chain = solo.forge.chain(2)
    solo.recv(0, solo.forge.pre_prepare(0, chain[0]))
    solo.recv(3, PutCertificate(0, solo.forge.certificate(Phase.COMMIT, 0, chain[0])))
    assert solo.status.height == 1
    tip = solo.forge.certificate(Phase.PREPARE, 0, chain[0])
    changes = [solo.forge.view_change(i, 1, None, tip, chain[:1]) for i in (0, 1, 3)]
    effects = solo.recv(1, solo.forge.new_view(1, changes))
    assert [m.certificate.vote.height for m in sent(effects, PutCertificate)] == [1]
    following = solo.forge.header(chain[0], view=1)
    assert sent(solo.recv(1, solo.forge.pre_prepare(1, following)), Prepare)


# ---- leaving ---------------------------------------------------------------------------------------------------------


def test_a_replica_cut_off_alone_asks_votes_on_when_it_is_back_and_has_left_no_view():
    """A VIEW_CHANGE is a promise for ever: sent alone, it would keep its sender from voting until others leave too."""
    cluster = Cluster(4)
    cluster.order_all(2)
    cluster.lose = lambda src, dest, _message: 3 in (src, dest)
    cluster.run(30_000)
    assert (cluster.nodes[3].status().view, cluster.nodes[3].status().active) == (0, True)
    cluster.lose = lambda *_: False
    cluster.run(2_000)
    cluster.crash(2)  # from here on each of the three is needed
    cluster.order_all(3)
    assert {node.status().view for node in cluster.nodes.values()} == {0}


@pytest.mark.parametrize("n", [4, 7])
def test_f_plus_1_that_suspect_the_primary_leave_and_one_fewer_does_not(n):
    solo = Solo(2, n)
    others = [i for i in range(n) if i not in (0, 2)][: faulty(n)]
    for peer in others[:-1]:
        solo.recv(peer, standing(suspects=True))
    effects = solo.fire("heartbeat")
    assert [message.suspects for message in sent(effects, Status)] == [True]
    assert not sent(effects, ViewChange)
    solo.recv(others[-1], standing(view=1, suspects=True))  # of another view: it counts for nothing here
    assert solo.status.active
    effects = solo.recv(others[-1], standing(suspects=True))
    assert [change.body.new_view for change in sent(effects, ViewChange)] == [1]
    assert solo.status.left_because == "the primary is silent"


def test_who_has_left_counts_among_those_who_suspect():
    solo = Solo(2)
    assert not sent(solo.fire("heartbeat"), ViewChange)
    assert sent(solo.recv(3, solo.forge.view_change(3, 9)), ViewChange)[0].body.new_view == 1


def test_who_has_just_suspected_follows_a_peer_that_left_on_its_word_and_later_no_more():
    for after, follows in ((1_500, True), (3_500, False)):
        solo = Solo(2)
        solo.fire("heartbeat")
        ended = solo.world.now - START
        solo.recv(0, standing())
        for later in range(500, after, 500):  # the primary goes on speaking
            solo.recv(0, standing(), at=ended + later)
        left = sent(solo.recv(3, solo.forge.view_change(3, 1), at=ended + after), ViewChange)
        assert [change.body.new_view for change in left] == [1] * follows


def test_a_new_view_that_does_not_come_is_given_up_with_f_others():
    solo = Solo(3)
    solo.recv(0, solo.forge.view_change(0, 1))
    solo.recv(2, solo.forge.view_change(2, 1))
    while solo.status.timers["status"] < solo.status.timers["view"]:
        assert not any(message.suspects for message in sent(solo.fire("status"), Status))
    assert [message.suspects for message in sent(solo.fire("view"), Status)] == [True]
    assert solo.status.view == 1
    [change] = sent(solo.recv(2, standing(view=1, active=False, suspects=True)), ViewChange)
    assert change.body.new_view == 2


def test_the_primary_s_voice_ends_the_suspicion_and_all_are_told():
    solo = Solo(2)
    solo.fire("heartbeat")
    effects = solo.recv(0, standing())
    assert [message.suspects for message in sent(effects, Status)] == [False]
    assert not sent(solo.recv(3, standing(suspects=True)), ViewChange)
    assert sent(solo.fire("heartbeat"), ViewChange)


def test_a_commit_ends_the_suspicion_that_nothing_is_ordered():
    solo = Solo(2)
    [header] = solo.forge.chain(1)
    solo.recv(0, solo.forge.pre_prepare(0, header))
    solo.fire("progress")
    assert "progress" not in solo.status.timers
    effects = solo.recv(3, PutCertificate(0, solo.forge.certificate(Phase.COMMIT, 0, header)))
    assert [message.suspects for message in sent(effects, Status)] == [False]
    assert not sent(solo.recv(3, standing(suspects=True)), ViewChange)


def test_a_replica_never_votes_in_a_view_that_it_left():
    solo = Solo(2)
    chain = solo.forge.chain(2)
    solo.recv(0, solo.forge.pre_prepare(0, chain[0]))
    solo.gives_up("heartbeat")
    assert solo.status.view == 1
    late = [solo.recv(1, solo.forge.prepare(1, 0, chain[0])), solo.recv(3, solo.forge.prepare(3, 0, chain[0]))]
    late.append(solo.recv(0, solo.forge.pre_prepare(0, chain[1])))
    assert not any(sent(effects, (Prepare, Commit)) for effects in late)


def test_a_replica_that_left_alone_still_sees_commits_of_the_view_it_left():
    solo = Solo(2)
    [header] = solo.forge.chain(1)
    solo.recv(0, solo.forge.pre_prepare(0, header))
    solo.gives_up("heartbeat")
    for signer in (0, 1, 3):
        effects = solo.recv(signer, solo.forge.commit(signer, 0, header))
    assert [e.block.header for e in effects.executed] == [header]


def test_view_changes_are_repeated_every_second_byte_for_byte():
    solo = Solo(2)
    first = sent(solo.gives_up("heartbeat"), ViewChange)
    assert sent(solo.fire("resend"), ViewChange) == first
    assert solo.world.now >= START + 2_000


def test_a_peer_in_an_older_view_is_sent_what_we_entered_ours_with():
    solo = Solo(2)
    message = solo.forge.new_view(1, [solo.forge.view_change(i, 1) for i in (0, 1, 3)])
    solo.recv(1, message)
    effects = solo.recv(3, standing(), at=900)
    assert [(s.dest, s.message) for s in effects.send if isinstance(s.message, NewView)] == [(3, message)]
    assert not sent(solo.recv(3, standing()), NewView)  # at most once an interval
    assert sent(solo.recv(0, solo.forge.view_change(0, 1)), NewView)


def test_transactions_of_an_abandoned_block_are_ordered_again():
    cluster = Cluster(4)
    cluster.lose = lambda src, _dest, message: src != 0 and isinstance(message, (Prepare, Commit))
    name = cluster.submit(0, cluster.tx(0, b"a=1"))
    cluster.run(500)
    cluster.crash(0)
    cluster.lose = lambda *_: False
    assert cluster.run(8_000, lambda: all(cluster.executed_at(node, name) for node in cluster.nodes.values()))


def test_a_vote_that_its_signer_forgot_in_a_later_view_change_is_evidence():
    solo = Solo(2)
    [header] = solo.forge.chain(1)
    solo.recv(0, solo.forge.pre_prepare(0, header))
    solo.recv(3, solo.forge.commit(3, 0, header))
    effects = solo.recv(3, solo.forge.view_change(3, 1))
    [item] = effects.evidence
    assert item.accused == 3
    assert [type(m) for m in sent(effects, Evidence)] == [Evidence]
    honest = solo.forge.view_change(1, 1, None, solo.forge.certificate(Phase.PREPARE, 0, header), [header])
    solo.recv(1, solo.forge.commit(1, 0, header))
    assert not solo.recv(1, honest).evidence


def test_evidence_that_proves_nothing_costs_its_sender():
    solo, other = Solo(2), Solo(2)
    [header] = solo.forge.chain(1)
    other.recv(0, other.forge.pre_prepare(0, header))
    other.recv(3, other.forge.commit(3, 0, header))
    [item] = other.recv(3, other.forge.view_change(3, 1)).evidence
    for wrong in (
        msgspec.structs.replace(item, accused=1), msgspec.structs.replace(item, offence=1),
        msgspec.structs.replace(item, offence=3), msgspec.structs.replace(item, second=item.first),
        msgspec.structs.replace(item, accused=9),
    ):  # fmt: skip
        effects = solo.recv(1, wrong)
        assert effects.faults
        assert not effects.evidence


def test_a_pause_re_arms_timers_instead_of_firing_them():
    solo = Solo(2)
    solo.submit(solo.tx(0, b"a=1"))
    solo.recv(3, standing(suspects=True))
    solo.world.now += 60_000  # SIGSTOP, or a laptop lid
    assert not sent(solo.fire("progress"), ViewChange)
    assert solo.status.timers["progress"] == solo.world.now + 1_000
    assert sent(solo.fire("progress"), ViewChange)


def test_a_clock_that_is_set_back_delays_no_timer():
    solo = Solo(2)
    solo.submit(solo.tx(0, b"a=1"))
    solo.world.now += 400
    solo.recv(3, standing())
    solo.world.now -= 3_600_000
    solo.recv(3, standing())
    assert solo.status.timers["progress"] == solo.world.now + 600
    assert sent(solo.gives_up("progress"), ViewChange)


def test_the_inclusion_timer_notices_a_censored_transaction():
    cluster = Cluster(4, timeout_ms=400, batch_delay_ms=1, block_gap_ms=5)
    victim = cluster.tx(1, b"victim=1")
    honest = cluster.nodes[0].replica._core.pool
    add = honest.add
    honest.add = lambda signed, *rest, **kw: (
        add(signed, *rest, **kw) if signed != victim else None
    )  # the primary's pool
    name = cluster.submit(1, victim)

    def busy():
        cluster.submit(2, cluster.tx(0, b"a=1"))
        return cluster.run(100, lambda: all(cluster.executed_at(n, name) for n in cluster.nodes.values()))

    assert any(busy() for _ in range(80))
    assert cluster.nodes[1].status().view >= 1
