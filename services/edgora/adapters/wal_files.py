"""The replica's log in files (ledger.md 12). What the bytes mean is `ledger.wal`; here they become durable.

A data directory belongs to one process: it holds a lock on it, so the same identity cannot run twice on one machine.
Segments are preallocated, so an fdatasync of an append writes data and no file size; the directory is synced when a
segment appears or goes. After the first failed or short write or sync this object refuses everything: what the disk
then holds is unknown, and only a restart, which reads it, can tell.
"""

import fcntl
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from edgora.ledger.wal import SEGMENT_OCTETS, Write, scan
from edgora.wire.errors import Broken, Conflict
from edgora.wire.pbft import WalRecord

__all__ = ["DataDirectory", "WalFiles", "write_file"]

_SUFFIX = ".wal"
_BEGUN = "begun"


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes) -> None:
    """A whole file, durable and private (0600) when this returns; never half a file under that name."""
    fresh = path.with_name(path.name + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync_directory(path.parent)


def begin_log(folder: Path) -> None:
    """Mark, durably, that a log begins in this data directory: nobody has voted with what is in it yet.

    A validator that is killed before its first vote has a log without records. It may start again; one whose directory
    was lost may not (ledger.md 12), and has no such mark either.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not has_begun(folder):
        write_file(folder / _BEGUN, b"")


def has_begun(folder: Path) -> bool:
    """Whether a log was begun in this data directory."""
    return (folder / _BEGUN).exists()


class DataDirectory:
    """Sole use of a directory, from construction to `close` or the end of the process."""

    def __init__(self, path: Path) -> None:
        """Raises Conflict if another instance uses it."""
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            os.close(self._lock)
            raise Conflict(
                f"data directory {path} is in use by process {holder or 'unknown'}",
                fix="one validator key runs once: stop the other process, never copy a data directory to a second node",
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def close(self) -> None:
        """Give the directory back. Twice does no harm."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class WalFiles:
    """`ports.log.Log` in a folder of segment files."""

    def __init__(self, folder: Path, segment_octets: int = SEGMENT_OCTETS) -> None:
        """Reads the log. Raises Broken if it is damaged beyond a torn tail; nothing is changed then."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._octets = segment_octets
        found = sorted((int(path.stem), path) for path in folder.glob("*" + _SUFFIX))
        read = scan([(first, path.read_bytes()) for first, path in found], segment_octets)
        self.records: tuple[WalRecord, ...] = read.records
        """What the log held when it was opened, in order."""
        self._cursor = read.cursor
        self._firsts = [first for first, _ in found]
        self._mutex = threading.Lock()  # guards _waiting, _cursor and _firsts; never held while the disk works
        self._waiting: list[Write] = []
        self._open: tuple[int, int] | None = None  # (first index, descriptor) of the last segment
        self._broken = ""
        self._cut_tail(read.torn)
        self._settle()

    def _cut_tail(self, torn: int) -> None:
        cursor = self._cursor
        if self._firsts and cursor.segment != self._firsts[-1]:
            # The last segment was created and nothing in it became durable.
            self._path(self._firsts.pop()).unlink()
            _sync_directory(self._folder)
        elif torn and cursor.segment is not None:
            with self._path(cursor.segment).open("r+b") as file:
                file.seek(cursor.offset)
                file.write(bytes(torn))
                file.flush()
                os.fsync(file.fileno())

    def _settle(self) -> None:
        """Sync what was read: a process that died between write and sync left it to the page cache only."""
        if self._firsts:
            descriptor = os.open(self._path(self._firsts[-1]), os.O_RDWR)
            os.fsync(descriptor)
            os.close(descriptor)
            _sync_directory(self._folder)

    @property
    def end(self) -> int:
        with self._mutex:
            return self._cursor.next_index

    def _path(self, first: int) -> Path:
        return self._folder / f"{first:020d}{_SUFFIX}"

    def append(self, records: Sequence[WalRecord], *, compacted: bool = False) -> int:
        with self._mutex:
            if compacted:
                self._cursor.segment = None
            for write in self._cursor.place(records):
                if write.offset == 0:
                    self._firsts.append(write.segment)
                self._waiting.append(write)
            return self._cursor.next_index

    def flush(self) -> int:
        with self._mutex:
            writes, self._waiting = self._waiting, []
            upto = self._cursor.next_index
        if self._broken:
            raise Broken(f"the log is closed for good: {self._broken}")
        try:
            for write in writes:
                self._perform(write)
            if writes and self._open is not None:
                os.fdatasync(self._open[1])
        except OSError as error:
            self._broken = str(error)
            raise Broken(f"the log in {self._folder} cannot be made durable: {error}") from error
        return upto

    def _perform(self, write: Write) -> None:
        if write.offset == 0:
            self._leave_segment()
            path = self._path(write.segment)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            self._open = (write.segment, descriptor)
            os.posix_fallocate(descriptor, 0, max(self._octets, len(write.data)))
            os.fsync(descriptor)
            _sync_directory(self._folder)
        elif self._open is None:
            descriptor = os.open(self._path(write.segment), os.O_RDWR)
            self._open = (write.segment, descriptor)
        else:
            descriptor = self._open[1]
        written = os.pwrite(descriptor, write.data, write.offset)
        if written != len(write.data):
            raise OSError(f"{written} of {len(write.data)} octets were written")

    def _leave_segment(self) -> None:
        if self._open is not None:
            os.fdatasync(self._open[1])
            os.close(self._open[1])
            self._open = None

    def drop_before(self, index: int) -> None:
        with self._mutex:
            # A segment ends where the next one begins; the last one is always kept.
            gone = [first for first, end in zip(self._firsts, self._firsts[1:], strict=False) if end <= index]
            self._firsts = self._firsts[len(gone) :]
        for first in gone:
            self._path(first).unlink()
        if gone:
            _sync_directory(self._folder)

    def close(self) -> None:
        """Close the file. What was appended and not flushed is lost, as in a crash."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None
