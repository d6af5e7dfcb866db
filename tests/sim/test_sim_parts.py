"""The simulator's own parts: a checker that cannot fail proves nothing, so each is shown what it must refuse."""

import random

import pytest

from edgora.lab.sim.conduct import Conduct, Frontier
from edgora.lab.sim.disk import Disk
from edgora.lab.sim.history import Operation, check_history
from edgora.lab.sim.host import Clock
from edgora.lab.sim.network import Network
from edgora.lab.sim.options import Options, expand
from edgora.lab.sim.reference import state_root_of
from edgora.lab.sim.registry import RealRegistry, StubRegistry
from edgora.lab.sim.violation import Violation
from edgora.ledger.tree import StateTree
from edgora.wire.ledger import Certificate, Phase, Receipt, SignedTx, Tx, Vote, faulty
from edgora.wire.pbft import (
    Commit,
    NewView,
    Prepare,
    ViewChange,
    ViewChangeBody,
    WalAccepted,
    WalNewView,
    WalTip,
    WalView,
)

ZERO = bytes(32)
SIG = bytes(65)


def accepted(view, height, name):
    return WalAccepted(0, view, height, name, SIG)


def tip(view, height, name):
    return WalTip(0, Certificate(Vote(Phase.PREPARE, 0, view, height, name), 7, (SIG,) * 3), SIG)


# ---- disk ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segment_octets", [2_048, 64 * 2**20])
def test_a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest(segment_octets):
    lost = kept = 0
    for seed in range(60):
        rng = random.Random(seed)
        disk = Disk(random.Random(f"disk {seed}"), segment_octets)
        written = []
        for i in range(rng.randint(1, 30)):
            records = [accepted(0, 10 * i + k, rng.randbytes(32)) for k in range(rng.randint(1, 3))]
            disk.append(records, None, compacted=False)
            written += records
            if rng.random() < 0.4:
                disk.sync(disk.written)
        synced = disk.synced
        disk.crash()
        _, records = disk.boot()
        assert list(records) == written[: len(records)]
        assert len(records) >= synced
        lost += len(records) < len(written)
        kept += len(records) > synced
    assert lost > 5  # the suffix was cut in some runs
    assert kept > 5  # and survived in part in others


def test_a_disk_goes_on_after_a_crash():
    disk = Disk(random.Random(1))
    first, second = accepted(0, 1, ZERO), accepted(0, 2, ZERO)
    disk.append([first], None, compacted=False)
    disk.sync(disk.written)
    disk.crash()
    disk.append([second], None, compacted=False)
    disk.sync(disk.written)
    disk.crash()
    assert disk.boot()[1] == (first, second)


def test_a_sync_covers_what_was_there_when_it_started():
    disk = Disk(random.Random(1))
    disk.append([accepted(0, 1, ZERO)], None, compacted=False)
    position = disk.written
    disk.append([accepted(0, 2, ZERO)], None, compacted=False)
    assert disk.sync(position) == [accepted(0, 1, ZERO)]
    assert disk.synced == 1


def test_compaction_drops_older_segments_only_once_durable():
    disk = Disk(random.Random(1))
    old, new = accepted(0, 1, ZERO), accepted(0, 2, ZERO)
    disk.append([old], None, compacted=False)
    disk.sync(disk.written)
    disk.append([new], None, compacted=True)
    assert disk.boot()[1] == (old, new)
    disk.sync(disk.written)
    assert disk.boot()[1] == (new,)


# ---- conduct ---------------------------------------------------------------------------------------------------------


def conduct(*records, asked=0):
    """asked: the highest view that correct replicas have asked for."""
    frontier = Frontier()
    frontier.view = asked
    book = Conduct(0, frontier)
    for record in records:
        book.durable(record)
    return book


def test_a_vote_needs_its_record_on_the_disk():
    with pytest.raises(Violation, match="P4"):
        conduct().sends(Prepare(0, 0, 1, ZERO, SIG))
    conduct(accepted(0, 1, ZERO)).sends(Prepare(0, 0, 1, ZERO, SIG))
    with pytest.raises(Violation, match="P4"):
        conduct(accepted(0, 1, ZERO)).sends(Commit(0, 0, 1, ZERO, SIG))
    with pytest.raises(Violation, match="NEW_VIEW"):
        conduct(accepted(3, 1, ZERO)).sends(Prepare(0, 3, 1, ZERO, SIG))


def test_two_hashes_at_one_place_are_an_offence():
    other = b"\1" * 32
    book = conduct(accepted(0, 1, ZERO), accepted(0, 1, other))
    book.sends(Prepare(0, 0, 1, ZERO, SIG))
    book.sends(Prepare(0, 0, 1, ZERO, SIG))
    with pytest.raises(Violation, match="two hashes"):
        book.sends(Prepare(0, 0, 1, other, SIG))


def view_change(new_view, tip_view, tip_height):
    body = ViewChangeBody(0, new_view, 0, 0, ZERO, tip_view, tip_height, ZERO)
    return ViewChange(0, 0, body, None, None, (), SIG)


def test_a_view_change_must_not_forget_a_commit_vote():
    left = view_change(1, 0, 2)
    book = conduct(accepted(0, 2, ZERO), tip(0, 2, ZERO), WalView(0, left))
    book.sends(Commit(0, 0, 2, ZERO, SIG))
    book.sends(left)
    with pytest.raises(Violation, match="voted COMMIT"):
        book.sends(view_change(1, 0, 1))


def test_a_view_that_was_left_gets_no_new_vote():
    left = view_change(2, 0, 0)
    entered = WalNewView(0, NewView(0, 1, (), SIG))
    book = conduct(accepted(1, 1, ZERO), accepted(1, 2, ZERO), WalView(0, left), entered, asked=1)
    book.sends(Prepare(0, 1, 1, ZERO, SIG))
    book.sends(left)
    book.sends(Prepare(0, 1, 1, ZERO, SIG))  # the same octets again are no new vote
    with pytest.raises(Violation, match="left for view 2"):
        book.sends(Prepare(0, 1, 2, ZERO, SIG))


def test_nobody_asks_for_a_view_that_only_a_liar_can_have_named():
    change = view_change(3, 0, 0)
    conduct(WalView(0, change), asked=2).sends(change)
    with pytest.raises(Violation, match="leaves for 3, no correct one had asked for more than 1"):
        conduct(WalView(0, change), asked=1).sends(change)


# ---- histories -------------------------------------------------------------------------------------------------------


def operation(name, invoked, answered=None, receipt=None):
    made = Operation(SignedTx(Tx(2, bytes(20), 0, 0, 9, name), SIG), name.ljust(32, b"."), invoked, honest=True)
    made.answered_ms, made.receipt = answered, receipt
    return made


def at(name, height):
    return Receipt(name.ljust(32, b"."), height, 0, 0, b"")


def test_a_history_in_real_time_order_passes():
    a, b = at(b"a", 1), at(b"b", 2)
    check_history([operation(b"a", 0, 5, a), operation(b"b", 6, 9, b)], {a.tx_hash: a, b.tx_hash: b})


def test_an_answer_that_travels_back_in_time_is_found():
    a, b = at(b"a", 2), at(b"b", 1)  # a was answered before b was invoked, but b stands first
    with pytest.raises(Violation, match="P6"):
        check_history([operation(b"a", 0, 5, a), operation(b"b", 6, None)], {a.tx_hash: a, b.tx_hash: b})


def test_an_answer_that_no_block_holds_is_found():
    with pytest.raises(Violation, match="no committed block"):
        check_history([operation(b"a", 0, 5, at(b"a", 1))], {})


def test_another_answer_than_the_order_gives_is_found():
    with pytest.raises(Violation, match="the order gives"):
        check_history([operation(b"a", 0, 5, at(b"a", 1))], {at(b"a", 1).tx_hash: at(b"a", 2)})


def test_unknown_results_may_be_there_or_not():
    a = at(b"a", 1)
    check_history([operation(b"a", 0), operation(b"b", 0)], {a.tx_hash: a})


def test_the_same_bytes_again_are_the_same_operation():
    a = at(b"a", 2)
    check_history([operation(b"a", 0, 5, a), operation(b"a", 9, 12, a)], {a.tx_hash: a})


# ---- the rest --------------------------------------------------------------------------------------------------------


def test_a_seed_always_means_the_same_schedule_within_the_fault_budget():
    for seed in range(300):
        options = expand(seed)
        assert options == expand(seed)
        assert (options.byzantine is not None) + len(options.dead) <= faulty(options.n)
        assert options.byzantine not in options.dead
        assert all(0 <= fault.at_ms < options.safety_ms for fault in options.faults)


@pytest.mark.parametrize("registry", [StubRegistry(), RealRegistry()])
def test_a_signature_counts_for_its_signer_and_digest_only(registry):
    key, other = registry.key("a"), registry.key("b")
    digest = b"\7" * 32
    signature = key.sign(digest)
    assert registry.recover(digest, signature) == key.address
    assert registry.recover(b"\6" * 32, signature) != key.address
    assert registry.recover(digest, other.sign(digest)) == other.address
    assert registry.recover(digest, SIG) == bytes(20)
    assert key.sign(digest) == signature


def test_a_stub_signature_cannot_be_made_without_the_key():
    registry = StubRegistry()
    signature = registry.key("a").sign(b"\1" * 32)
    forged = signature[:20] + b"\2" * 32 + signature[52:]
    assert registry.recover(b"\2" * 32, forged) == bytes(20)


def test_cuts_sever_and_heal():
    network = Network(Options(seed=1))
    message = Prepare(0, 0, 1, ZERO, SIG)
    network.split(0b0011, 100)
    assert network.fates(0, 0, 2, message) == ()
    assert network.fates(0, 0, 1, message)
    assert network.fates(100, 0, 2, message)
    network.one_way(0b0001, 300)
    assert network.fates(200, 0, 2, message) == ()
    assert network.fates(200, 2, 0, message)
    network.heal()
    assert network.fates(200, 0, 2, message)


def test_a_skewed_clock_finds_the_first_instant_of_a_deadline():
    for offset, drift in ((0, 0), (-700, 500), (650, -500)):
        clock = Clock(offset, drift)
        for deadline in range(5_000, 5_400, 7):
            now = clock.when(deadline)
            assert clock.local(now) >= deadline
            assert clock.local(now - 1) < deadline


def test_the_reference_state_root_is_the_trees():
    rng = random.Random(5)
    state = {rng.randbytes(rng.randint(1, 40)): rng.randbytes(rng.randint(0, 40)) for _ in range(500)}
    assert state_root_of(state) == StateTree(state).root
    assert state_root_of({}) == StateTree().root
