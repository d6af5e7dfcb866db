"""The log in real files: torn tails, damage, failed syncs, the lock (ledger.md 12, 21.7, 21.8)."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgora.adapters.wal_files import DataDirectory, WalFiles, write_file
from edgora.wire.errors import Broken, Conflict
from edgora.wire.hashing import EMPTY_ROOT, keccak
from edgora.wire.ledger import Block, Header
from edgora.wire.pbft import WalAccepted, WalBlock, WalRecord

SEGMENT = 4096


def accepted(height: int) -> WalRecord:
    return WalAccepted(0, 0, height, keccak(bytes((height % 256,))), b"\x1b" * 65)


def block(height: int) -> WalRecord:
    head = Header(0, height, bytes(32), EMPTY_ROOT, 0, 0, bytes(32), EMPTY_ROOT, 0, bytes(32), height, bytes(20))
    return WalBlock(0, Block(head, ()))


def opened(folder: Path) -> WalFiles:
    return WalFiles(folder, SEGMENT)


def fill(folder: Path, count: int) -> list[WalRecord]:
    """A log of so many records, flushed one by one."""
    log = opened(folder)
    records = [accepted(i) if i % 2 else block(i) for i in range(count)]
    for index, record in enumerate(records):
        assert log.append([record]) == index + 1
        assert log.flush() == index + 1
    log.close()
    return records


def last_segment(folder: Path) -> Path:
    return max(folder.glob("*.wal"))


def content_end(path: Path) -> int:
    return len(path.read_bytes().rstrip(b"\0"))


def test_what_was_flushed_comes_back_in_order_across_segments(tmp_path: Path) -> None:
    records = fill(tmp_path, 60)
    assert len(list(tmp_path.glob("*.wal"))) > 2
    assert all(p.stat().st_size == SEGMENT for p in tmp_path.glob("*.wal"))
    log = opened(tmp_path)
    assert list(log.records) == records
    assert log.append([accepted(7)]) == 61
    assert log.flush() == 61
    log.close()
    assert list(opened(tmp_path).records) == [*records, accepted(7)]


def test_one_flush_covers_all_that_was_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    log.append([accepted(0)])
    log.flush()
    syncs = []
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    for height in range(1, 6):
        log.append([accepted(height)])
    assert log.flush() == 6
    assert log.flush() == 6
    assert len(syncs) == 1
    log.close()


def test_what_was_not_flushed_is_gone_after_a_crash(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append([accepted(0)])
    log.flush()
    log.append([accepted(1)])
    log.close()
    assert list(opened(tmp_path).records) == [accepted(0)]


@pytest.mark.parametrize("how", ["zeroed", "garbage", "truncated"])
def test_a_tail_torn_at_any_octet_is_cut_and_the_log_goes_on(tmp_path: Path, how: str) -> None:
    """P3: the last record torn at each of its octets boots to the records before it."""
    whole = tmp_path / "whole"
    records = fill(whole, 5)
    source = last_segment(whole)
    image = source.read_bytes()
    end = content_end(source)
    fill(tmp_path / "shorter", 4)
    start = content_end(last_segment(tmp_path / "shorter"))
    assert start < end
    for cut in range(start, end, 7):
        folder = tmp_path / f"{how}{cut}"
        folder.mkdir()
        tail = {"zeroed": bytes(len(image) - cut), "garbage": b"\xa5" * (end - cut), "truncated": b""}[how]
        (folder / source.name).write_bytes(image[:cut] + tail)
        log = opened(folder)
        assert list(log.records) == records[:4], cut
        log.append([accepted(99)])
        log.flush()
        log.close()
        assert list(opened(folder).records) == [*records[:4], accepted(99)], cut


def test_a_segment_that_was_created_and_never_synced_is_dropped(tmp_path: Path) -> None:
    records = fill(tmp_path, 20)
    next_name = f"{20:020d}.wal"
    (tmp_path / next_name).write_bytes(bytes(SEGMENT))
    log = opened(tmp_path)
    assert list(log.records) == records
    assert not (tmp_path / next_name).exists()
    log.append([accepted(1)] * 30)
    log.flush()
    log.close()
    assert len(opened(tmp_path).records) == 50


def test_damage_before_valid_records_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    path = last_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(Broken, match="damaged at octet"):
        opened(tmp_path)
    assert path.read_bytes() == bytes(data)


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, 60)
    sorted(tmp_path.glob("*.wal"))[1].unlink()
    with pytest.raises(Broken, match="records are missing"):
        opened(tmp_path)


def test_damage_in_an_older_segment_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, 60)
    path = min(tmp_path.glob("*.wal"))
    data = path.read_bytes()
    cut = content_end(path) - 3
    path.write_bytes(data[:cut] + bytes(len(data) - cut))
    with pytest.raises(Broken, match="later segments exist"):
        opened(tmp_path)


def test_compaction_opens_a_segment_and_frees_the_older_ones(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append([accepted(i) for i in range(40)])
    log.flush()
    before = set(tmp_path.glob("*.wal"))
    assert log.append([accepted(200), accepted(201)], compacted=True) == 42
    log.flush()
    assert before < set(tmp_path.glob("*.wal"))
    log.drop_before(40)
    assert {int(p.stem) for p in tmp_path.glob("*.wal")} == {40}
    log.append([accepted(202)])
    log.flush()
    log.close()
    assert list(opened(tmp_path).records) == [accepted(200), accepted(201), accepted(202)]


def test_the_open_segment_is_never_dropped(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append([accepted(0)])
    log.flush()
    log.drop_before(1)
    log.append([accepted(1)])
    assert log.flush() == 2
    log.close()
    assert len(opened(tmp_path).records) == 2


@pytest.mark.parametrize("call", ["fdatasync", "pwrite", "short", "posix_fallocate"])
def test_after_a_failed_write_or_sync_nothing_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Ledger.md 12: never retry an fsync, never go on."""
    log = opened(tmp_path)
    if call != "posix_fallocate":
        log.append([accepted(0)])
        log.flush()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    if call == "short":
        real = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:-1], offset))
    else:
        monkeypatch.setattr(os, call, fail)
    log.append([accepted(1)])
    with pytest.raises(Broken, match="cannot be made durable"):
        log.flush()
    monkeypatch.undo()
    log.append([accepted(2)])
    with pytest.raises(Broken, match="closed for good"):
        log.flush()
    log.close()


# ---- the directory ---------------------------------------------------------------------------------------------------


def test_a_directory_is_used_by_one_instance(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path / "data")
    with pytest.raises(Conflict, match=f"in use by process {os.getpid()}"):
        DataDirectory(tmp_path / "data")
    first.close()
    DataDirectory(tmp_path / "data").close()


def test_another_process_holds_the_lock_until_it_ends(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from edgora.adapters.wal_files import DataDirectory\n"
        "held = DataDirectory(Path(sys.argv[1])); print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Conflict, match=f"process {other.pid}") as refused:
            DataDirectory(tmp_path)
        assert "never copy" in (refused.value.fix or "")
        other.kill()
        other.wait()
        DataDirectory(tmp_path).close()


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "alarm.bin"
    for content in (b"one", b"another one"):
        write_file(path, content)
        assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
