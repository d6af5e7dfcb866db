"""Blocks, receipts, events and snapshots in one SQLite file: `ports.store` (ledger.md 12).

One writer, the consensus process; any number of readers, also in other processes, through write-ahead logging. A block
is one transaction, so whatever a reader sees is whole, and the applied height is durable exactly with its effects.

Blocks are committed without a sync of their own: the replica's log has them, and after a loss of power it executes
them again from the newest snapshot. A snapshot is what that log may be cut at, so it is synced, and in SQLite's
write-ahead log that makes every block before it durable too.
"""

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from edgora.ledger.effects import SnapshotImage
from edgora.ledger.snapshot import decode_snapshot, encode_snapshot
from edgora.ports.store import StoredBlock, StoredEvent
from edgora.wire.codec import decode, encode
from edgora.wire.errors import Broken
from edgora.wire.ledger import Block, Certificate, Header, LedgerCode, Phase, Receipt, SignedTx

__all__ = ["SqliteReader", "SqliteStore"]

_SCHEMA_VERSION = 1
_EVENTS_A_BLOCK = 65_536
_NOT_RUN = (LedgerCode.DUPLICATE, LedgerCode.SEQ_GAP, LedgerCode.UNKNOWN_SENDER, LedgerCode.TOO_MANY_LANES)
"""Receipts of transactions that were ordered but not executed: a later place of the same bytes counts instead."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE blocks (
    height INTEGER PRIMARY KEY, hash BLOB NOT NULL, header BLOB NOT NULL, txs BLOB NOT NULL, receipts BLOB NOT NULL,
    state_root BLOB NOT NULL, certificate BLOB
);
CREATE INDEX certified ON blocks (height) WHERE certificate IS NOT NULL;
CREATE TABLE txs (hash BLOB PRIMARY KEY, height INTEGER NOT NULL, place INTEGER NOT NULL, code INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE events (
    id INTEGER PRIMARY KEY, height INTEGER NOT NULL, time_ms INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE snapshots (height INTEGER PRIMARY KEY, image BLOB NOT NULL);
"""


class SqliteReader:
    """`BlockReader` on the file that a consensus process writes. Safe to use from several threads."""

    def __init__(self, path: Path, genesis_id: bytes) -> None:
        """Raises Broken if there is no such file, or it is of another genesis or schema."""
        try:
            self._read = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
            (version,) = self._read.execute("PRAGMA user_version").fetchone()
            if version != _SCHEMA_VERSION:
                raise Broken(f"{path} has schema version {version}, this build reads {_SCHEMA_VERSION}")
            found = self._read.execute("SELECT value FROM meta WHERE key = 'genesis'").fetchone()
        except sqlite3.Error as error:
            raise Broken(f"{path} cannot be read as a block store: {error}") from error
        if found is None or found[0] != genesis_id:
            raise Broken(f"{path} belongs to another genesis: use a data directory of its own for each consortium")
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._read.close()

    def _all(self, query: str, *values: object) -> list[Any]:
        with self._lock:
            return self._read.execute(query, values).fetchall()

    def _one(self, query: str, *values: object) -> Any:
        rows = self._all(query, *values)
        return rows[0] if rows else None

    def height(self) -> int:
        return int(self._one("SELECT coalesce(max(height), 0) FROM blocks")[0])

    def block(self, height: int) -> StoredBlock | None:
        row = self._one("SELECT header, txs, certificate, receipts, state_root FROM blocks WHERE height = ?", height)
        if row is None:
            return None
        header, txs, certificate, receipts, state_root = row
        return StoredBlock(
            Block(decode(header, Header), decode(txs, tuple[SignedTx, ...])),
            None if certificate is None else decode(certificate, Certificate),
            decode(receipts, tuple[Receipt, ...]),
            state_root,
        )

    def headers(self, first: int, last: int) -> Sequence[Header]:
        rows = self._all("SELECT header FROM blocks WHERE height BETWEEN ? AND ? ORDER BY height", first, last)
        return [decode(row[0], Header) for row in rows]

    def certificate_from(self, height: int) -> tuple[int, Certificate] | None:
        row = self._one(
            "SELECT height, certificate FROM blocks WHERE height >= ? AND certificate IS NOT NULL"
            " ORDER BY height LIMIT 1",
            height,
        )
        return None if row is None else (row[0], decode(row[1], Certificate))

    def place_of(self, tx_hash: bytes) -> tuple[int, int] | None:
        row = self._one("SELECT height, place FROM txs WHERE hash = ?", tx_hash)
        return None if row is None else (row[0], row[1])

    def events(self, after: int, limit: int) -> Sequence[StoredEvent]:
        rows = self._all("SELECT id, height, time_ms, data FROM events WHERE id > ? ORDER BY id LIMIT ?", after, limit)
        return [StoredEvent(*row) for row in rows]

    def snapshot(self) -> tuple[int, Mapping[bytes, bytes]] | None:
        newest = self.newest_snapshot()
        return None if newest is None else (newest.header.height, newest.state)

    def newest_snapshot(self) -> SnapshotImage | None:
        """Raises Broken if its content is damaged."""
        row = self._one("SELECT image FROM snapshots ORDER BY height DESC LIMIT 1")
        return None if row is None else decode_snapshot(row[0])


class SqliteStore(SqliteReader):
    """`BlockStore`: a reader that also has the one writing connection. Writes may come from one thread at a time."""

    def __init__(self, path: Path, genesis_id: bytes) -> None:
        """Opens or makes the file. Raises Broken if it is of another genesis or schema, or cannot be written."""
        try:
            self._write = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._write.execute("PRAGMA journal_mode = WAL")
            self._write.execute("PRAGMA synchronous = NORMAL")
            (version,) = self._write.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._write.executescript(
                    f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION};"
                    f"INSERT INTO meta VALUES ('genesis', x'{genesis_id.hex()}'); COMMIT;"
                )
        except sqlite3.Error as error:
            raise Broken(f"{path} cannot be opened as a block store: {error}") from error
        super().__init__(path, genesis_id)

    def close(self) -> None:
        super().close()
        self._write.close()

    def append(self, stored: StoredBlock, events: Sequence[bytes]) -> None:
        """Raises Broken if the database refuses: the process must stop, its log has the block."""
        header = stored.block.header
        if len(events) > _EVENTS_A_BLOCK:
            raise Broken(f"block {header.height} has {len(events)} events; ids hold {_EVENTS_A_BLOCK}")
        try:
            self._write.execute("BEGIN IMMEDIATE")
            try:
                self._insert(header, stored, events)
            except BaseException:
                self._write.execute("ROLLBACK")
                raise
            self._write.execute("COMMIT")
        except sqlite3.Error as error:
            raise Broken(f"block {header.height} cannot be stored: {error}") from error

    def _insert(self, header: Header, stored: StoredBlock, events: Sequence[bytes]) -> None:
        height = header.height
        certificate = None if stored.certificate is None else encode(stored.certificate)
        row = (
            height,
            header.hash,
            encode(header),
            encode(stored.block.txs),
            encode(stored.receipts),
            stored.state_root,
        )
        cursor = self._write.execute(
            "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", (*row, certificate)
        )
        if cursor.rowcount == 0:
            return
        self._write.executemany(
            "INSERT INTO txs VALUES (?, ?, ?, ?) ON CONFLICT (hash) DO UPDATE SET height = excluded.height,"
            f" place = excluded.place, code = excluded.code WHERE code IN ({', '.join('?' * len(_NOT_RUN))})",
            [(r.tx_hash, height, r.index, r.code, *_NOT_RUN) for r in stored.receipts],
        )
        first = height * _EVENTS_A_BLOCK
        self._write.executemany(
            "INSERT INTO events VALUES (?, ?, ?, ?)",
            [(first + place, height, header.time_ms, data) for place, data in enumerate(events)],
        )

    def add_certificate(self, certificate: Certificate) -> None:
        """Fill in a commit certificate that came later. Raises ValueError if it is not for the stored block."""
        vote = certificate.vote
        found = self._one("SELECT hash FROM blocks WHERE height = ?", vote.height)
        if vote.phase != Phase.COMMIT or found is None or found[0] != vote.block_hash:
            raise ValueError(f"no stored block is committed by a certificate of height {vote.height}")
        self._write.execute(
            "UPDATE blocks SET certificate = ? WHERE height = ? AND certificate IS NULL",
            (encode(certificate), vote.height),
        )

    def save_snapshot(self, image: SnapshotImage) -> None:
        content = encode_snapshot(image)
        try:
            self._write.execute("PRAGMA synchronous = FULL")
            self._write.execute("BEGIN IMMEDIATE")
            self._write.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?)", (image.height, content))
            self._write.execute(
                "DELETE FROM snapshots WHERE height NOT IN (SELECT height FROM snapshots ORDER BY height DESC LIMIT 2)"
            )
            self._write.execute("COMMIT")
            self._write.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as error:
            raise Broken(f"the snapshot of height {image.height} cannot be stored: {error}") from error
