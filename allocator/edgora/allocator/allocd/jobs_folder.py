"""A job on disk: what survives the service.

    ID/job.json       the `Job`, replaced whole
    ID/events.jsonl   its events, one a line; only ever appended to
    ID/log            what the job's process wrote to stderr in its newest attempt
    ID/lock           held by the process that works in `files`
    ID/files/         what the job leaves; only these are given out

Rule 1: the record is written before the event that tells of it, so a crash between both costs an event, and `open`
adds it. A torn last line of the events is cut.
Rule 2: one process at a time works in `files`: whoever starts a job while the process of a service that died is still
writing its checkpoint waits for the lock.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from edgora.allocator.allocd.jobs_files import ID, File, Job, JobEvent
from edgora.wire.errors import Broken, NotFound, Refused, Unavailable

__all__ = ["Folder", "exclusive", "folders"]

_LOG_TAIL = 2_000


class Folder:
    """One job's place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = path / "files"
        self.log = path / "log"
        self._events = path / "events.jsonl"

    @classmethod
    def make(cls, root: Path) -> "Folder":
        """An empty one with a new id. Raises Unavailable where nothing can be written."""
        folder = cls(root / secrets.token_hex(8))
        try:
            folder.files.mkdir(parents=True)
        except OSError as error:
            raise Unavailable(f"no folder for the job can be made: {error}") from None
        return folder

    @property
    def id(self) -> str:
        return self.path.name

    def load(self) -> Job:
        """The record, and what only its events hold: their number and the progress. Raises Broken."""
        try:
            job = msgspec.json.decode((self.path / "job.json").read_bytes(), type=Job)
        except (OSError, msgspec.DecodeError) as error:
            raise Broken(f"job {self.id} has no record that can be read: {error}") from None
        events = self._mended()
        progress = job.progress
        for event in events:
            progress = event.progress or (None if event.state == "queued" else progress)
        return msgspec.structs.replace(job, event=events[-1].id if events else 0, progress=progress)

    def save(self, job: Job) -> None:
        """Replace the record: whole or not at all, and on disk."""
        write_whole(self.path / "job.json", msgspec.json.encode(msgspec.structs.replace(job, files=())))

    def append(self, event: JobEvent) -> None:
        with self._events.open("ab") as file:
            file.write(msgspec.json.encode(event) + b"\n")

    def events(self, offset: int) -> tuple[list[JobEvent], int]:
        """Events from this octet on, and where the next ones will stand."""
        try:
            with self._events.open("rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return [], 0
        whole = data[: data.rfind(b"\n") + 1]
        return [msgspec.json.decode(line, type=JobEvent) for line in whole.splitlines()], offset + len(whole)

    def newest_state(self) -> str | None:
        """What the events told last."""
        told = [event.state for event in self.events(0)[0] if event.type == "state"]
        return told[-1] if told else None

    def listing(self) -> tuple[File, ...]:
        """What the job has left so far: regular files, hidden and temporary ones excluded."""
        try:
            entries = sorted(os.scandir(self.files), key=lambda entry: entry.name)
        except FileNotFoundError:
            return ()
        found = []
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):  # replaced while we look
                    found.append(File(entry.name, entry.stat(follow_symlinks=False).st_size))
        return tuple(found)

    def file(self, name: str) -> Path:
        """The path of a listed file. Raises NotFound."""
        if name not in {file.name for file in self.listing()}:
            raise NotFound(f"job {self.id} has no file {name[:100]!r}", field="path.name", fix="see `files` of the job")
        return self.files / name

    def complaint(self) -> str:
        """The end of what the process wrote to stderr, one line."""
        with contextlib.suppress(OSError):
            lines = self.log.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip().splitlines()
            return lines[-1][:300] if lines else ""
        return ""

    def remove(self) -> None:
        shutil.rmtree(self.path)

    def _mended(self) -> list[JobEvent]:
        """All events; a torn line is cut off."""
        events, end = self.events(0)
        if self._events.exists() and self._events.stat().st_size != end:
            os.truncate(self._events, end)
        return events


def folders(root: Path) -> Iterator[Folder]:
    """Every job's folder under a root; a submission that never ended is cleared away."""
    for path in sorted(root.iterdir()):
        if path.is_dir() and ID.fullmatch(path.name):
            if (path / "job.json").exists():
                yield Folder(path)
            else:
                shutil.rmtree(path)


@contextlib.contextmanager
def exclusive(path: Path, *, wait: bool) -> Iterator[IO[bytes]]:
    """Hold a lock file; it is free when we end, however we end. Raises Refused where it is held and we do not wait."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Refused(
                f"another allocator serves {path.parent}", field="--jobs", fix="choose another folder"
            ) from None
        yield file


def write_whole(path: Path, data: bytes) -> None:
    """The file whole or not at all, and on disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
