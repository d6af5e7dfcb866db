"""Bulk in files: one folder a room, one file a key, written beside and renamed, so a crash leaves all or nothing."""

import os
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgora.ports.blobs import Room, Stored
from edgora.wire.errors import TooMany

__all__ = ["DEFAULT_QUOTA", "BlobFiles"]

GIB = 1024**3
DEFAULT_QUOTA: Mapping[Room, int] = {Room.MODULES: GIB, Room.INPUTS: 4 * GIB, Room.RESULTS: 4 * GIB}
"""Octets a room may hold: a disk that anybody can fill is a fault, not a service."""


class BlobFiles:
    """ports.blobs.Blobs over a folder. Safe to call from several threads."""

    def __init__(self, folder: Path, quota: Mapping[Room, int] = DEFAULT_QUOTA) -> None:
        self._folder = folder
        self._quota = quota
        self._lock = threading.Lock()
        self._used: dict[Room, int] = {}
        for room in Room:
            place = folder / room
            place.mkdir(parents=True, exist_ok=True)
            for torn in place.glob("*.part"):
                torn.unlink()
            self._used[room] = sum(file.stat().st_size for file in place.iterdir())

    def _path(self, room: Room, key: bytes) -> Path:
        return self._folder / room / key.hex()

    def put(self, room: Room, key: bytes, data: bytes) -> None:
        path = self._path(room, key)
        with self._lock:
            grown = self._used[room] + len(data) - (path.stat().st_size if path.exists() else 0)
            if grown > self._quota[room]:
                raise TooMany(
                    f"this node's store for {room} is full ({self._quota[room]} octets)",
                    retry_after_s=60, fix="use another node, or wait until ended tasks are cleared",
                )  # fmt: skip
            self._used[room] = grown
            handle, name = tempfile.mkstemp(suffix=".part", dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def get(self, room: Room, key: bytes) -> bytes | None:
        try:
            return self._path(room, key).read_bytes()
        except FileNotFoundError:
            return None

    def has(self, room: Room, key: bytes) -> bool:
        return self._path(room, key).exists()

    def delete(self, room: Room, key: bytes) -> None:
        path = self._path(room, key)
        with self._lock:
            try:
                octets = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                return
            self._used[room] -= octets

    def all(self, room: Room) -> Iterable[Stored]:
        for file in sorted((self._folder / room).iterdir()):
            if file.suffix != ".part":
                status = file.stat()
                yield Stored(bytes.fromhex(file.name), status.st_size, status.st_mtime_ns // 1_000_000)
