"""P3: the log cut anywhere boots to a safe state (ledger.md 12, 19).

A replica's log is cut at octets of its last records, as a torn write cuts it. Each time the scan must find exactly the
whole records before the cut, and a replica that boots from them may say again what it said before, byte for byte, and
nothing else: no vote that was never cast, none for another block.
"""

import pytest

from edgora.lab.sim.load import CounterLoad
from edgora.lab.sim.options import Fault, Options
from edgora.lab.sim.world import EPOCH_MS, World
from edgora.ledger.effects import Boot, DurableState
from edgora.ledger.replica import Replica
from edgora.ledger.wal import LogCursor, scan
from edgora.wire.pbft import (
    CheckpointVote,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    ViewChange,
    WalAccepted,
    encode_message,
)

LAST = 64
SIGNED = (Prepare, Commit, ViewChange, CheckpointVote, PrePrepare, NewView)


class Listener(World):
    """A world that keeps the octets of all that machine 0 ever signed."""

    def __init__(self, options):
        self.said = set()
        super().__init__(options)

    def transmit(self, host, send):
        if host.index == 0 and isinstance(send.message, SIGNED):
            self.said.add(encode_message(stripped(send.message)))
        super().transmit(host, send)


def stripped(message):
    """What is signed of a message: certificates beside it are part of no hash, so equally good ones may differ."""
    if isinstance(message, PrePrepare):
        return Prepare(message.epoch, message.view, message.header.height, message.header.hash, message.signature)
    if isinstance(message, ViewChange):
        return ViewChange(message.epoch, message.signer, message.body, None, None, (), message.signature)
    return message


@pytest.fixture(scope="module")
def world():
    """Some seconds with two view changes, a restart and checkpoints; machine 0 ends with a long log."""
    faults = (
        Fault(1_000, "split", 0b0001, 2_500),  # the first primary is cut off
        Fault(3_700, "crash", 0b0001, 300),
        Fault(4_200, "split", 0b0010, 2_000),  # and so is the second
    )
    listener = Listener(Options(seed=3, faults=faults, checkpoint_every=64, ops_per_s=9))
    listener.start()
    listener.run_until(7_000)
    host = listener.machines[0][0]
    assert listener.run_until(30_000, lambda: len(host.disk.boot()[1]) > LAST + 20)
    assert isinstance(listener.load, CounterLoad)
    assert listener.views >= 2
    for record in host.disk.boot()[1]:  # signed and written, but perhaps still waiting for the disk
        if isinstance(record, WalAccepted):
            vote = Prepare(0, record.view, record.height, record.block_hash, record.signature)
            listener.said.add(encode_message(vote))
    return listener


def boot(world, snapshot, records):
    host = world.machines[0][0]
    replica = Replica(host.config, world.load.validators[0] if world.load.validators else world.registry.key("validator 0"),
                      world.load.application(), world.registry.recover)  # fmt: skip
    return replica, replica.step(EPOCH_MS + 40_000, Boot(DurableState(snapshot, tuple(records), 1)))


def test_every_prefix_of_the_log_boots_and_repeats_only_what_was_said(world):
    snapshot, records = world.machines[0][0].disk.boot()
    assert len(records) > LAST
    heights = []
    for kept in range(len(records) - LAST, len(records) + 1):
        replica, effects = boot(world, snapshot, records[:kept])
        for send in effects.send:
            if isinstance(send.message, SIGNED):
                assert encode_message(stripped(send.message)) in world.said
        heights.append(replica.status(EPOCH_MS + 40_000).height)
    assert heights == sorted(heights)  # a longer log never knows less
    assert heights[-1] == world.machines[0][0].height


def cuts(world, step):
    _, records = world.machines[0][0].disk.boot()
    cursor = LogCursor()
    (write,) = cursor.place(records[-LAST:])
    ends = []
    probe = LogCursor()
    for record in records[-LAST:]:
        (placed,) = probe.place([record])
        ends.append(placed.offset + len(placed.data))
    for cut in range(16, len(write.data) + 1, step):
        found = scan([(0, write.data[:cut] + bytes(40))])
        whole = sum(end <= cut for end in ends)
        # zeros behind the cut may complete a record that ends in zeros
        assert whole <= len(found.records) <= whole + 1
        assert found.records == records[-LAST:][: len(found.records)]


def test_a_cut_at_sampled_octets_keeps_exactly_the_whole_records(world):
    cuts(world, 211)


@pytest.mark.slow
def test_a_cut_at_every_octet_keeps_exactly_the_whole_records(world):
    cuts(world, 1)
