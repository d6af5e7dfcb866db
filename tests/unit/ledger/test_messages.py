"""One wire form per message, and handlers that survive whatever f peers can encode (ledger.md 2, 16, 19)."""

import random
import typing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.ledger.effects import Recv
from edgora.wire.errors import WireError
from edgora.wire.ledger import Block, CheckpointBody, Phase
from edgora.wire.pbft import (
    MAX_FRAME,
    CheckpointCertificate,
    CheckpointVote,
    Evidence,
    GetBlocks,
    GetBody,
    GetChunk,
    Lane,
    Message,
    PutBlocks,
    PutBody,
    PutCertificate,
    PutChunk,
    SignedViewChange,
    SignedVote,
    SnapshotOffer,
    Status,
    TxGossip,
    WalCommit,
    WalRecord,
    decode_message,
    decode_record,
    encode_message,
    encode_record,
    lane_of,
)  # fmt: skip
from unit.ledger.harness import KEYS, Cluster, Solo

SOLO = Solo(1)
FORGE = SOLO.forge
CHAIN = FORGE.chain(2)
TX = SOLO.tx(0, b"a=1")
COMMIT = FORGE.certificate(Phase.COMMIT, 1, CHAIN[0])
TIP = FORGE.certificate(Phase.PREPARE, 2, CHAIN[1])
CHANGE = FORGE.view_change(3, 5, COMMIT, TIP, CHAIN[1:])
BODY = CheckpointBody(0, 128, CHAIN[0].hash, bytes(32))
SIGNATURE = KEYS[0].sign(bytes(32))

SAMPLES = {
    sample.__class__: sample
    for sample in (
        TxGossip(0, (TX,)), FORGE.pre_prepare(0, CHAIN[0], [TX], COMMIT), FORGE.prepare(1, 0, CHAIN[0]),
        FORGE.commit(1, 0, CHAIN[0]), CHANGE, FORGE.new_view(5, [CHANGE]), CheckpointVote(0, BODY, SIGNATURE),
        Status(0, 1, True, 7, 5, bytes(32), 0, 3, 99, False),
        Evidence(0, 2, 3, SignedVote(FORGE.vote(Phase.COMMIT, 1, CHAIN[0]), SIGNATURE), SignedViewChange(CHANGE.body, SIGNATURE)),
        GetBlocks(0, 9), PutBlocks(0, (Block(CHAIN[0], (TX,)),), (CHAIN[1],), COMMIT), GetBody(0, bytes(32)),
        PutBody(0, Block(CHAIN[0], ())), PutCertificate(0, COMMIT), GetChunk(0, 128, 4_000),
        SnapshotOffer(0, CheckpointCertificate(BODY, 7, (SIGNATURE,) * 3), CHAIN[0], (CHAIN[1],), COMMIT, bytes(131_072)),
        PutChunk(0, 128, 17, (((b"a", b"1"), (b"b", b"2")), ())),
    )
}  # fmt: skip
KINDS = typing.get_args(Message)


def test_there_is_a_sample_of_every_message():
    assert set(SAMPLES) == set(KINDS)
    tags = [kind.__struct_config__.tag for kind in KINDS]
    assert sorted(tags) == list(range(1, len(KINDS) + 1))
    tags = [kind.__struct_config__.tag for kind in typing.get_args(WalRecord)]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_round_trips_and_names_kind_and_epoch_first(kind):
    data = encode_message(SAMPLES[kind])
    assert decode_message(data) == SAMPLES[kind]
    raw = msgspec.msgpack.decode(data)
    assert raw[:2] == [kind.__struct_config__.tag, 0]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_anything_but_the_one_wire_form_is_refused(kind):
    data = encode_message(SAMPLES[kind])
    raw = msgspec.msgpack.decode(data)
    for wrong in (
        [*raw, None], raw[:-1], [99, *raw[1:]], [raw[0], -1, *raw[2:]], [raw[0], 2**64 - 1, *raw[2:-1]], {"tag": raw},
    ):  # fmt: skip
        with pytest.raises(WireError):
            decode_message(msgspec.msgpack.encode(wrong))
    with pytest.raises(WireError):
        decode_message(data + b"\xc0")
    long_epoch = bytes((data[0],)) + bytes((data[1],)) + b"\xcc\x00" + data[3:]  # 0 as a two-octet integer
    with pytest.raises(WireError):
        decode_message(long_epoch)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.randoms(use_true_random=False))
def test_a_mutated_message_is_refused_or_is_another_value(kind, rng):
    data = bytearray(encode_message(SAMPLES[kind]))
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(min(len(data), 400))] ^= 1 << rng.randrange(8)
    try:
        message = decode_message(bytes(data))
    except WireError:
        return
    assert encode_message(message) == data


@given(st.binary(max_size=200))
def test_garbage_is_refused(data):
    with pytest.raises(WireError):
        decode_message(data)


def test_a_frame_over_4_mib_is_refused_before_it_is_read():
    with pytest.raises(WireError, match="octets"):
        decode_message(bytes(MAX_FRAME + 1))


def test_records_are_as_strict_as_messages():
    data = encode_record(WalCommit(0, COMMIT))
    assert decode_record(data) == WalCommit(0, COMMIT)
    for place in range(len(data)):
        try:
            assert decode_record(data[:place] + bytes((data[place] ^ 4,)) + data[place + 1 :]) != WalCommit(0, COMMIT)
        except WireError:
            continue


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_votes_never_share_a_queue_with_bulk(kind):
    bulk = {TxGossip, Evidence, GetBlocks, PutBlocks, GetBody, PutBody, GetChunk, PutChunk, SnapshotOffer}
    assert (lane_of(SAMPLES[kind]) == Lane.CONSENSUS) is (kind not in bulk)


# ---- handlers --------------------------------------------------------------------------------------------------------


def distorted(rng, value):
    """A structurally valid neighbour of a message: some fields replaced by others of their type."""
    if isinstance(value, bool):
        return rng.random() < 0.5
    if isinstance(value, int):
        return rng.choice([value, value, value + 1, max(0, value - 1), 0, 1, 2**8 - 1, 2**32, 2**63])
    if isinstance(value, bytes):
        return rng.choice([value, value, value, rng.randbytes(len(value)), bytes(len(value))])
    if isinstance(value, tuple):
        items = [distorted(rng, item) for item in value]
        return tuple(items[: rng.randint(0, len(items))] if rng.random() < 0.2 else items * rng.choice([1, 1, 1, 2]))
    if isinstance(value, msgspec.Struct):
        changes = {f: distorted(rng, getattr(value, f)) for f in value.__struct_fields__ if rng.random() < 0.5}
        return msgspec.structs.replace(value, **changes)
    return value


def signed_again(rng, message, peer):
    """Where it can, the peer signs what it made up: a Byzantine peer can."""
    domain = SOLO.world.config(0).domain
    match message:
        case CheckpointVote(epoch, body):
            return CheckpointVote(epoch, body, KEYS[peer].sign(body.digest(domain)))
        case _ if hasattr(message, "vote") and rng.random() < 0.8:
            try:
                vote = (
                    message.vote() if message.__class__.__name__ != "PrePrepare" else message.vote(message.header.hash)
                )
                return msgspec.structs.replace(message, signature=KEYS[peer].sign(vote.digest(domain)))
            except ValueError:
                return message
        case _ if message.__class__.__name__ == "ViewChange":
            try:
                return msgspec.structs.replace(
                    message, signer=peer, signature=KEYS[peer].sign(message.body.digest(domain))
                )
            except ValueError:
                return message
    return message


@pytest.mark.parametrize("seed", range(8))
def test_no_message_of_one_byzantine_peer_harms_a_replica(seed):
    """Structurally valid nonsense from peer 3: no exception, no commit, no move, bounded state, then business as usual."""
    rng = random.Random(seed)
    solo = Solo(1, checkpoint_interval=4)
    for _ in range(250):
        message = signed_again(rng, distorted(rng, SAMPLES[rng.choice(KINDS)]), 3)
        try:
            data = encode_message(message)
            message = decode_message(data)
        except (WireError, OverflowError, msgspec.ValidationError):
            continue
        effects = solo.recv(3, message)
        assert effects.alarm is None
        assert not effects.executed
        if rng.random() < 0.2:
            solo.world.now += 40
    assert solo.status.height == 0
    assert solo.status.view in {0, 1}  # its own heartbeat timer may not fire by itself here
    core = solo.replica._core
    assert core.votes.slots() <= 2 * 3 * core.params.buffer
    assert len(core.chain.known) + len(core.chain.headers) + len(core.view.proposals) <= 64
    assert all(item.accused == 3 for item in core.evidence)


def test_a_cluster_with_a_babbling_member_goes_on():
    rng = random.Random(5)
    cluster = Cluster(4, block_txs=2)

    def babble(src, _dest, message):
        if src == 3 and rng.random() < 0.4:
            wild = signed_again(rng, distorted(rng, message), 3)
            try:
                for dest in (0, 1, 2):
                    cluster.step(dest, Recv(3, decode_message(encode_message(wild))))
            except (WireError, OverflowError):
                pass
        return False

    cluster.lose = babble
    names = [cluster.submit(1, cluster.tx(0, b"a=%d" % i)) for i in range(12)]
    assert cluster.run(20_000, lambda: all(cluster.executed_at(cluster.nodes[i], names[-1]) for i in range(3)))
    assert {node.status().halted for node in cluster.nodes.values()} == {None}
