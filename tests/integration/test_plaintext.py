"""A task's plaintext is in memory while it is computed, and nowhere else (README.md 1.2, issue: sealed end to end).

A module that gives back what it gets is run and re-run by auditors with a marker in arguments and data. Then everything
that the run left is searched: block stores with their write-ahead files, segments of the consensus log, blobs, the
client's journal, and every log record at DEBUG with its fields.
"""

import base64
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgora.client import Journal
from edgora.telemetry.logs import JsonFormatter
from edgora.wire.inputs import TaskInput
from embedded import ECHO, Embedded, binary, own_module

MARKER = b"EDGORA PLAINTEXT " + os.urandom(24)
LIBRARIES = ("httpx2", "httpcore2", "asyncio", "web3", "urllib3")


def encodings(marker: bytes) -> dict[str, bytes]:
    """Ways in which octets are written down. base64 has three alignments; the ends depend on what stands beside."""
    found = {"raw": marker, "hex": marker.hex().encode(), "HEX": marker.hex().upper().encode()}
    for shift in range(3):
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            inner = encode(b"\0" * shift + marker + b"\0" * 3)
            found[f"{name} {shift}"] = inner[4 : (shift + len(marker)) // 3 * 4]
    found["escaped"] = repr(marker)[2:-1].encode()
    found["JSON"] = "".join(f"\\u{octet:04x}" for octet in marker[-24:]).encode()
    return found


def search(folder: Path, wanted: dict[str, bytes]) -> list[tuple[str, str]]:
    """(file, encoding) of every find."""
    return [
        (str(path.relative_to(folder)), name)
        for path in sorted(folder.rglob("*")) if path.is_file()
        for data in [path.read_bytes()]
        for name, octets in wanted.items() if octets in data
    ]  # fmt: skip


class EveryRecord(logging.Handler):
    """Formatted as nodes do it, and beside that every field of the record as it is, whatever its level."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.DEBUG)
        self._file = path.open("ab")
        self.setFormatter(JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self._file.write(f"{self.format(record)}\n{vars(record)!r}\n".encode(errors="replace"))

    def close(self) -> None:
        self._file.close()
        super().close()


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, bytes]]]:
    """The run folder after a task was computed, audited and paid; and octets that must be in it."""
    folder = tmp_path_factory.mktemp("run")
    handler, root = EveryRecord(folder / "logs.jsonl"), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    levels = {name: logging.getLogger(name).level for name in LIBRARIES}
    try:
        with Embedded("market.audit_bps=10000", "market.audit_max_ms=5000", folder=folder) as platform:
            journal = Journal(folder / "ue.journal")
            keys = platform.funded()
            order = own_module(ECHO, MARKER + b" as data")
            order = type(order)(**{
                **{name: getattr(order, name) for name in order.__slots__},
                "plaintext": TaskInput(MARKER + b" as an argument", MARKER + b" as data").pack(),
            })  # fmt: skip
            with platform.client(keys, journal=journal) as ue:
                ticket = ue.submit(order)
                answer = ue.deliver(ticket)
                assert answer.output.count(MARKER) == 2, "it really went through the module"
                assert ue.finish(ticket.task).state == "SETTLED"
                logging.getLogger("edgora.test").debug("the task is over", extra={"task": ticket.task})
                events = platform.get(f"/v1/tasks/0x{ticket.task.hex()}/why").json()
                assert events["state"] == "SETTLED"
            audited = platform.get("/metrics").text
            assert 'edgora_events_total{type="Verdict"}' in audited, "auditors opened it, too"
            sealed = platform.get(f"/v1/tasks/0x{ticket.task.hex()}/result").json()["envelope"]["ciphertext"]
            journal.close()
            ciphertext = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
            yield folder, {"sealed result": ciphertext, "module": binary(ECHO), "offer": ticket.offer.input_digest}
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        for name, was in levels.items():
            logging.getLogger(name).setLevel(was)
        handler.close()


def test_no_plaintext_is_left_anywhere(left: tuple[Path, dict[str, bytes]]) -> None:
    folder, _ = left
    assert search(folder, encodings(MARKER)) == []
    assert search(folder, encodings(MARKER[-24:])) == []


def test_the_search_looks_where_things_are_kept(left: tuple[Path, dict[str, bytes]]) -> None:
    """Positive control 1: what the platform does keep of this task is found, in each kind of file."""
    folder, kept = left
    found = search(folder, kept)
    files = {name: {Path(file).parts[0] for file, what in found if what == name} for name in kept}
    assert len(files["sealed result"] & {f"node{i}" for i in range(4)}) >= 3, "executor and f+1 holders"
    assert files["module"] & {f"node{i}" for i in range(4)}
    stores = {Path(file).name.split(".")[0] for file, what in found if what == "offer"}
    assert "blocks" in stores, found
    assert any("consensus" in file for file, what in found if what == "offer")
    kinds = {path.suffix or path.name for path in folder.rglob("*") if path.is_file()}
    assert {".sqlite", ".sqlite-wal", ".jsonl", ".journal"} <= kinds
    log = (folder / "logs.jsonl").read_bytes()
    assert b'"level": "DEBUG"' in log
    assert b"result filed" in log


def test_the_search_finds_every_encoding(left: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    """Positive control 2: a plaintext that somebody did leave would be seen, however it was written."""
    around = b"x" * 7 + MARKER + b"y" * 5
    leaks = {
        "raw": around, "hex": around.hex().encode(), "HEX": around.hex().upper().encode(), "base64": base64.b64encode(around),
        "base64url": base64.urlsafe_b64encode(around), "escaped": repr(around).encode(),
        "JSON": "".join(f"\\u{octet:04x}" for octet in around).encode(),
    }  # fmt: skip
    for name, data in leaks.items():
        (tmp_path / name).write_bytes(data)
    seen = search(tmp_path, encodings(MARKER))
    assert {file for file, _ in seen} == set(leaks)
    for shift in range(3):
        (tmp_path / f"shifted {shift}").write_bytes(base64.b64encode(b"z" * shift + MARKER))
        assert f"shifted {shift}" in {file for file, _ in search(tmp_path, encodings(MARKER))}
