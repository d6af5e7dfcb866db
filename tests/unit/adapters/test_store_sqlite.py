"""The block store on SQLite: what was stored is what is read, by the writer and by another process."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgora.adapters.sqlite_store import SqliteReader, SqliteStore
from edgora.ledger.effects import SnapshotImage
from edgora.ports.store import StoredBlock
from edgora.wire.errors import Broken
from edgora.wire.hashing import EMPTY_ROOT, keccak
from edgora.wire.ledger import Block, Certificate, Header, LedgerCode, Phase, Receipt, SignedTx, Tx, Vote

GENESIS = keccak(b"genesis")


def header(height: int) -> Header:
    return Header(
        0, height, bytes(32), EMPTY_ROOT, 0, 0, bytes(32), EMPTY_ROOT, 0, bytes(32), 1_000 + height, bytes(20)
    )


def certificate(height: int, phase: Phase = Phase.COMMIT) -> Certificate:
    return Certificate(Vote(phase, 0, 0, height, header(height).hash), 0b111, (bytes(65),) * 3)


def stored(height: int, txs: list[tuple[bytes, int]] | None = None, *, certified: bool = True) -> StoredBlock:
    """A block whose receipts are (transaction hash, code)."""
    receipts = tuple(Receipt(h, height, i, code, b"out") for i, (h, code) in enumerate(txs or []))
    body = tuple(SignedTx(Tx(9, bytes(20), 0, i, 99, h), bytes(65)) for i, (h, _) in enumerate(txs or []))
    return StoredBlock(
        Block(header(height), body), certificate(height) if certified else None, receipts, keccak(b"root")
    )


@pytest.fixture
def store(tmp_path: Path):
    with SqliteStore(tmp_path / "blocks.sqlite", GENESIS) as made:
        yield made


def test_a_fresh_store_is_at_genesis(store: SqliteStore) -> None:
    assert store.height() == 0
    assert store.block(0) is None
    assert store.snapshot() is None
    assert store.certificate_from(0) is None
    assert list(store.events(0, 10)) == []


def test_blocks_headers_receipts_and_places_come_back(store: SqliteStore) -> None:
    one, two = keccak(b"1"), keccak(b"2")
    blocks = [stored(1, [(one, 0), (two, 17)]), stored(2), stored(3, certified=False)]
    for block in blocks:
        store.append(block, [])
    assert [store.block(h) for h in (1, 2, 3)] == blocks
    assert store.height() == 3
    assert [h.height for h in store.headers(2, 9)] == [2, 3]
    assert store.place_of(two) == (1, 1)
    assert store.place_of(keccak(b"3")) is None


def test_a_height_that_is_there_is_left_alone(store: SqliteStore) -> None:
    first = stored(1, [(keccak(b"1"), 0)])
    store.append(first, [b"event"])
    store.append(stored(1, certified=False), [b"other", b"events"])
    assert store.block(1) == first
    assert [e.data for e in store.events(0, 9)] == [b"event"]


def test_events_have_the_same_ids_whatever_was_skipped_before(store: SqliteStore, tmp_path: Path) -> None:
    for height in (1, 2, 3):
        store.append(stored(height), [bytes((height,)), bytes((height, height))])
    with SqliteStore(tmp_path / "other.sqlite", GENESIS) as late:
        late.append(stored(3), [bytes((3,)), bytes((3, 3))])
        assert list(late.events(0, 9)) == list(store.events(0, 99))[4:]
    page = store.events(0, 4)
    assert [e.data for e in page] == [b"\1", b"\1\1", b"\2", b"\2\2"]
    assert [(e.height, e.time_ms) for e in store.events(page[-1].id, 4)] == [(3, 1_003)] * 2
    ids = [e.id for e in store.events(0, 99)]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("refusal", [LedgerCode.SEQ_GAP, LedgerCode.UNKNOWN_SENDER, LedgerCode.TOO_MANY_LANES])
def test_the_place_of_a_transaction_is_where_it_was_executed(store: SqliteStore, refusal: LedgerCode) -> None:
    tx = keccak(b"tx")
    store.append(stored(1, [(tx, refusal)]), [])
    assert store.place_of(tx) == (1, 0)
    store.append(stored(2, [(keccak(b"x"), 0), (tx, 0)]), [])
    assert store.place_of(tx) == (2, 1)
    store.append(stored(3, [(tx, LedgerCode.DUPLICATE)]), [])
    assert store.place_of(tx) == (2, 1)


def test_a_business_refusal_is_an_execution(store: SqliteStore) -> None:
    tx = keccak(b"tx")
    store.append(stored(1, [(tx, 20)]), [])
    store.append(stored(2, [(tx, LedgerCode.DUPLICATE)]), [])
    assert store.place_of(tx) == (1, 0)


def test_certificates_are_found_above_a_height_and_may_come_later(store: SqliteStore) -> None:
    for height in (1, 2, 3):
        store.append(stored(height, certified=height == 3), [])
    assert store.certificate_from(1) == (3, certificate(3))
    store.add_certificate(certificate(2))
    assert store.certificate_from(1) == (2, certificate(2))
    assert store.certificate_from(4) is None
    for wrong in (certificate(1, Phase.PREPARE), certificate(9)):
        with pytest.raises(ValueError, match="no stored block"):
            store.add_certificate(wrong)


def test_the_newest_two_snapshots_are_kept(store: SqliteStore) -> None:
    for height in (128, 256, 384):
        state = {bytes((i,)): bytes((height % 251, i)) for i in (3, 1, 2)}
        store.save_snapshot(SnapshotImage(header(height), keccak(b"r"), state, installed=height == 384))
    newest = store.newest_snapshot()
    assert newest is not None
    assert (newest.header, newest.installed, dict(newest.state)) == (
        header(384),
        True,
        {bytes((i,)): bytes((133, i)) for i in (1, 2, 3)},
    )
    assert store.snapshot() == (384, newest.state)
    assert [row[0] for row in store._all("SELECT height FROM snapshots ORDER BY height")] == [256, 384]


def test_blocks_and_snapshots_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "blocks.sqlite"
    with SqliteStore(path, GENESIS) as store:
        store.append(stored(1), [b"e"])
        store.save_snapshot(SnapshotImage(header(1), keccak(b"r"), {b"k": b"v"}))
    with SqliteStore(path, GENESIS) as store:
        assert store.height() == 1
        assert store.snapshot() == (1, {b"k": b"v"})


def test_another_process_reads_while_we_write(store: SqliteStore, tmp_path: Path) -> None:
    store.append(stored(1), [b"e"])
    program = (
        "import sys; from pathlib import Path; from edgora.adapters.sqlite_store import SqliteReader\n"
        "reader = SqliteReader(Path(sys.argv[1]), bytes.fromhex(sys.argv[2]))\n"
        "print(reader.height(), flush=True); input(); print(reader.height(), reader.events(0, 9)[-1].data)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "blocks.sqlite"), GENESIS.hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        store.append(stored(2), [b"f"])
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "2 b'f'\n"
    assert other.returncode == 0


def test_a_reader_cannot_write(store: SqliteStore, tmp_path: Path) -> None:
    with SqliteReader(tmp_path / "blocks.sqlite", GENESIS) as reader:
        assert not hasattr(reader, "append")
        with pytest.raises(Exception, match="readonly"):
            reader._all("DELETE FROM blocks")


def test_a_file_of_another_genesis_schema_or_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "blocks.sqlite"
    SqliteStore(path, GENESIS).close()
    with pytest.raises(Broken, match="another genesis"):
        SqliteStore(path, keccak(b"other"))
    with SqliteStore(path, GENESIS) as store:
        store._write.execute("PRAGMA user_version = 2")
    with pytest.raises(Broken, match="schema version 2"):
        SqliteStore(path, GENESIS)
    (tmp_path / "text").write_text("this is no database, whatever its name says" * 100)
    with pytest.raises(Broken, match="cannot be opened"):
        SqliteStore(tmp_path / "text", GENESIS)
    with pytest.raises(Broken, match="cannot be read"):
        SqliteReader(tmp_path / "missing", GENESIS)


def test_a_failed_write_is_broken_and_leaves_nothing_half_done(store: SqliteStore) -> None:
    store.append(stored(1), [])
    store._write.execute("DROP TABLE events")
    with pytest.raises(Broken, match="block 2"):
        store.append(stored(2, [(keccak(b"tx"), 0)]), [b"event"])
    assert store.height() == 1
    assert store.place_of(keccak(b"tx")) is None


def test_a_damaged_snapshot_is_refused(store: SqliteStore) -> None:
    store.save_snapshot(SnapshotImage(header(1), keccak(b"r"), {b"k": b"v"}))
    (image,) = store._one("SELECT image FROM snapshots")
    store._write.execute("UPDATE snapshots SET image = ?", (image[:-40] + b"\0" + image[-39:],))
    with pytest.raises(Broken, match="damaged"):
        store.newest_snapshot()
