"""What a client must not forget: one JSON line a step, durable before the step has consequences.

A client that crashed reads it again and goes on: it re-sends the identical signed bytes (the ledger executes them once)
and can still check and open the result. The journal holds no plaintext and no content key; of the input's key it keeps
the result salt only, from which the key does not follow. The file has mode 0600.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgora.wire.errors import Refused

__all__ = ["ENDED", "Journal", "MemoryJournal"]

ENDED = frozenset(("settled", "refunded", "refused"))
"""Stages after which nothing is left to do. refused: the ledger executed the transaction and said no."""


class MemoryJournal:
    """A journal that dies with the process: tests, fleets."""

    def __init__(self) -> None:
        self._tasks: dict[bytes, dict[str, Any]] = {}

    def note(self, task: bytes, stage: str, fields: Mapping[str, Any]) -> None:
        self._tasks.setdefault(task, {}).update(fields, stage=stage)

    def task(self, task: bytes) -> dict[str, Any] | None:
        """All fields noted so far, newest winning, with the last `stage`."""
        return self._tasks.get(task)

    def tasks(self) -> dict[bytes, dict[str, Any]]:
        """Every task, oldest first."""
        return dict(self._tasks)


class Journal(MemoryJournal):
    """A journal in a file. A torn last line (a crash while writing) is cut off; any other damage is refused."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                entry = msgspec.json.decode(line, type=dict[str, Any])
                task = bytes.fromhex(entry.pop("task")[2:])
                super().note(task, entry.pop("stage"), entry)
            except (msgspec.DecodeError, KeyError, ValueError, TypeError) as error:
                raise Refused(
                    f"journal {path}, line {number}: {error}; move the file away to start anew", field="journal"
                ) from None
        if whole < len(data):
            os.ftruncate(self._handle, whole)

    def note(self, task: bytes, stage: str, fields: Mapping[str, Any]) -> None:
        line = msgspec.json.encode({"task": "0x" + task.hex(), "stage": stage, **fields}) + b"\n"
        os.write(self._handle, line)
        os.fsync(self._handle)
        super().note(task, stage, fields)

    def close(self) -> None:
        os.close(self._handle)
