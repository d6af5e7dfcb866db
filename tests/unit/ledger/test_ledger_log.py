"""The log format: what survives, what is cut, what is refused (ledger.md 12)."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.crypto.sign import SigningKey
from edgora.ledger.crc32c import crc32c
from edgora.ledger.effects import SnapshotImage
from edgora.ledger.snapshot import decode_snapshot, encode_snapshot
from edgora.ledger.wal import HEADER_OCTETS, LogCursor, frame, scan
from edgora.wire.errors import Broken
from edgora.wire.ledger import Block
from edgora.wire.pbft import WalAccepted, WalBlock, WalLinks, encode_record
from unit.ledger.harness import GENESIS_ID, Cluster, genesis_header

SEGMENT = 4_096
SIGNATURE = SigningKey.derived("log").sign(bytes(32))


def accepted(height):
    return WalAccepted(0, 3, height, bytes([height % 256]) * 32, SIGNATURE)


def written(records, segment_octets=SEGMENT, groups=1):
    """Segments after appending the records in groups, as a disk would hold them."""
    cursor, files = LogCursor(segment_octets=segment_octets), {}
    for first in range(0, len(records), groups):
        for segment, offset, data in cursor.place(records[first : first + groups]):
            content = files.setdefault(segment, bytearray())
            assert offset == len(content)
            content += data
    return [(first, bytes(data)) for first, data in sorted(files.items())]


def bitwise_crc32c(data):
    """The definition: reflected polynomial 0x1EDC6F41, one bit at a time."""
    register = 0xFFFFFFFF
    for octet in data:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_crc32c_has_the_published_check_values():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720 B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@settings(max_examples=25, deadline=None)
@given(st.integers(1_000, 5_000), st.randoms(use_true_random=False))
def test_crc32c_of_long_data_follows_the_definition(length, random):
    data = random.randbytes(length)
    assert crc32c(data) == bitwise_crc32c(data)


@given(st.lists(st.integers(0, 500), max_size=60), st.integers(1, 9))
def test_what_is_appended_is_read_again_across_segments(heights, groups):
    records = [accepted(height) for height in heights]
    found = scan(written(records, groups=groups), SEGMENT)
    assert list(found.records) == records
    assert list(found.indices) == list(range(len(records)))
    assert (found.cursor.next_index, found.torn) == (len(records), 0)


def test_appending_goes_on_where_a_scan_ended():
    first = written([accepted(h) for h in range(7)])
    found = scan(first, SEGMENT)
    files = {segment: bytearray(data) for segment, data in first}
    for segment, offset, data in found.cursor.place([accepted(h) for h in range(7, 60)]):
        files.setdefault(segment, bytearray())[offset:] = data
    again = scan([(s, bytes(d)) for s, d in sorted(files.items())], SEGMENT)
    assert [r.height for r in again.records] == list(range(60))
    assert len(files) > 1


def test_preallocated_zeros_after_the_last_record_are_a_clean_end():
    [(first, data)] = written([accepted(h) for h in range(5)])
    found = scan([(first, data + bytes(1_000))], SEGMENT)
    assert (len(found.records), found.torn, found.cursor.offset) == (5, 0, len(data))


@pytest.mark.parametrize("padding", [0, 300])
def test_truncation_at_every_octet_of_the_last_64_records_cuts_the_torn_tail_only(padding):
    # mostly the smallest record there is, so that every octet of 64 of them can be tried
    records = [accepted(h) if h % 16 == 7 else WalLinks(h, ()) for h in range(70)]
    [(first, data)] = written(records, 2**20)
    ends = [HEADER_OCTETS]
    for index, record in enumerate(records):
        ends.append(ends[-1] + len(frame(index, record)))
    assert ends[-1] == len(data)
    for cut in range(ends[6], len(data) + 1):
        found = scan([(first, data[:cut] + bytes(padding))], 2**20)
        whole = sum(1 for end in ends[1:] if end <= cut)
        # a frame whose lost octets were zeros is whole again with padding: nothing is lost then, and nothing invented
        assert len(found.records) in ({whole} if not padding else {whole, whole + 1})
        assert list(found.records) == records[: len(found.records)]
        assert found.cursor.offset == ends[len(found.records)]


def test_garbage_in_the_tail_is_cut_and_measured():
    [(first, data)] = written([accepted(h) for h in range(5)])
    found = scan([(first, data + b"\x07garbage" * 9)], SEGMENT)
    assert (len(found.records), found.torn) == (5, 72)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 18), st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_record_with_valid_ones_after_it_is_refused(index, place, flip):
    records = [accepted(h) for h in range(20)]
    [(first, data)] = written(records, 2**20)
    start = HEADER_OCTETS + sum(len(frame(i, records[i])) for i in range(index))
    place = start + place % len(frame(index, records[index]))
    damaged = data[:place] + bytes((data[place] ^ flip,)) + data[place + 1 :]
    with pytest.raises(Broken, match="damaged at octet"):
        scan([(first, damaged)], 2**20)


def test_a_missing_record_is_seen_by_its_index():
    records = [accepted(h) for h in range(6)]
    [(first, data)] = written(records)
    start = HEADER_OCTETS + len(frame(0, records[0]))
    without = data[:start] + data[start + len(frame(1, records[1])) :]
    with pytest.raises(Broken, match="holds record 2 where 1 is due"):
        scan([(first, without)], SEGMENT)


def test_a_missing_segment_is_refused():
    files = written([accepted(h) for h in range(80)])
    assert len(files) > 2
    with pytest.raises(Broken, match="records are missing"):
        scan([files[0], *files[2:]], SEGMENT)


def test_damage_in_an_older_segment_is_refused_even_in_its_tail():
    files = written([accepted(h) for h in range(80)])
    first, data = files[0]
    with pytest.raises(Broken, match="later segments exist"):
        scan([(first, data[:-3]), *files[1:]], SEGMENT)


def test_a_segment_that_was_never_synced_is_an_empty_tail():
    files = written([accepted(h) for h in range(40)])
    last, data = files[-1]
    for torn in (b"", bytes(500), data[:9]):
        found = scan([*files[:-1], (last, torn)], SEGMENT)
        assert found.cursor.next_index == last
        assert found.cursor.segment is None
        [write] = found.cursor.place([accepted(1)])
        assert (write.segment, write.offset) == (last, 0)


def test_a_wrong_header_before_valid_records_is_refused():
    [(first, data)] = written([accepted(h) for h in range(4)])
    with pytest.raises(Broken, match="wrong header"):
        scan([(first, b"EDGORAW2" + data[8:])], SEGMENT)


def test_a_log_that_lost_its_oldest_segments_reads_from_where_it_starts():
    files = written([accepted(h) for h in range(80)])
    found = scan(files[2:], SEGMENT)
    assert found.indices[0] == files[2][0]
    assert [r.height for r in found.records] == list(range(files[2][0], 80))


def test_a_block_sized_record_round_trips():
    cluster = Cluster(4)
    txs = tuple(cluster.tx(0, b"x" * 900) for _ in range(40))
    block = Block(genesis_header(GENESIS_ID, 5), txs)
    found = scan(written([WalBlock(0, block)], 2**20), 2**20)
    assert found.records == (WalBlock(0, block),)
    assert len(encode_record(WalBlock(0, block))) > 36_000


# ---- the snapshot file ----

IMAGE = SnapshotImage(genesis_header(GENESIS_ID, 5), bytes(32), {b"b": b"2", b"a": b"1", b"": b""}, installed=True)


def test_a_snapshot_file_round_trips():
    image = decode_snapshot(encode_snapshot(IMAGE))
    assert image == IMAGE
    assert (image.height, image.block_hash) == (0, IMAGE.header.hash)


def test_every_flipped_octet_of_a_snapshot_file_is_found():
    data = encode_snapshot(IMAGE)
    for place in range(len(data)):
        with pytest.raises(Broken):
            decode_snapshot(data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :])


def test_records_of_another_type_under_a_valid_checksum_are_no_records():
    record = accepted(1)
    data = bytearray(frame(0, record))
    data[8] = 2 + 1  # the type octet says WalTip, the payload WalAccepted
    data[4:8] = crc32c(bytes(data[8:])).to_bytes(4, "big")
    header = written([record])[0][1][:HEADER_OCTETS]
    found = scan([(0, header + bytes(data))], SEGMENT)
    assert found.records == ()
    assert found.torn == len(data)
    assert msgspec.structs.astuple(record)[2] == 1
