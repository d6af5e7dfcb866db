"""Four consensus processes of the product, their links over TLS, their clients over Unix sockets (house.md 6)."""

import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consortium import Consortium, Wires, write_files
from edgora.adapters.sqlite_store import SqliteReader
from edgora.crypto.sign import SigningKey
from edgora.node.consensus_link import SocketConsensus
from edgora.wire.codec import encode
from edgora.wire.errors import Unavailable
from edgora.wire.ledger import Kind, SignedTx, Tx, tx_hash
from edgora.wire.market import Cancel

LIMIT_S = 40


class Processes:
    """`python -m edgora.node.consensus` once a validator."""

    def __init__(self, folder: Path, consortium: Consortium, files: list[Path]) -> None:
        self.folder = folder
        self.consortium = consortium
        self.files = files
        self.running: dict[int, asyncio.subprocess.Process] = {}
        self.links: dict[int, SocketConsensus] = {}

    async def start(self, index: int) -> None:
        self.running[index] = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edgora.node.consensus", "--config", str(self.files[index]),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def end(self, index: int, number: signal.Signals) -> tuple[int, str]:
        process = self.running.pop(index)
        process.send_signal(number)
        return await self.ended(process)

    @staticmethod
    async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
        async with asyncio.timeout(LIMIT_S):
            _, said = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()

    async def link(self, index: int) -> SocketConsensus:
        if index not in self.links:
            self.links[index] = await SocketConsensus.open(self.folder / f"s{index}.sock")
        return self.links[index]

    async def close(self) -> None:
        for link in self.links.values():
            await link.close()
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()

    def cancel(self, seq: int) -> tuple[SignedTx, bytes]:
        """A CANCEL of a task that is not there, by validator 0: executed, refused by the market, in the ledger."""
        key = self.consortium.signing[0]
        tx = Tx(Kind.CANCEL, key.address, 0, seq, 4_000, encode(Cancel(bytes(32))))
        digest = tx_hash(tx, self.consortium.domain)
        return SignedTx(tx, key.sign(digest)), digest

    async def commit(self, index: int, seq: int) -> tuple[int, int]:
        """Submit to a node until it admits, wait until it has stored the block; (height, index)."""
        link = await self.link(index)
        tx, digest = self.cancel(seq)
        async with asyncio.timeout(LIMIT_S):
            while True:
                if self.running[index].returncode is not None:
                    raise AssertionError(await self.ended(self.running[index]))
                with contextlib.suppress(Unavailable):
                    admission = await link.submit(tx, digest)
                    assert admission.admitted or admission.reason == "DUPLICATE", admission
                    break
        path = self.folder / f"data{index}" / "blocks.sqlite"
        with SqliteReader(path, self.consortium.genesis.id) as reader:
            async with asyncio.timeout(LIMIT_S):
                async for _ in link.heights():
                    place = reader.place_of(digest)
                    if place is not None:
                        return place
        raise AssertionError


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    consortium = Consortium(4, timeout_ms=1_000)
    wires = Wires(consortium, "tls")
    await wires.reserve()
    made = Processes(tmp_path, consortium, write_files(consortium, tmp_path, wires.endpoints))
    for index in range(4):
        await made.start(index)
    yield made
    await made.close()


async def test_four_processes_commit_through_their_sockets_and_survive_kills(processes: Processes) -> None:
    for seq in range(8):
        await processes.commit(seq % 4, seq)
    mode = stat.S_IMODE((processes.folder / "s0.sock").stat().st_mode)
    assert mode == 0o600

    # API halves ask each other through both processes.
    async def answer(server: int, request: bytes) -> bytes:
        return bytes((server,)) + request

    (await processes.link(2)).serve(answer)
    async with asyncio.timeout(LIMIT_S):
        while True:
            with contextlib.suppress(Unavailable):
                assert await (await processes.link(1)).call(2, b"hello", 5_000) == b"\x01hello"
                break
            await asyncio.sleep(0.01)
    with pytest.raises(Unavailable):
        await (await processes.link(1)).call(3, b"nobody serves there", 5_000)

    # One is killed without warning; the rest goes on; it comes back under the same link and catches up.
    assert (await processes.end(2, signal.SIGKILL))[0] == -signal.SIGKILL
    await processes.commit(1, 8)
    await processes.start(2)
    await processes.commit(2, 9)
    assert await (await processes.link(1)).call(2, b"again", 5_000) == b"\x01again"

    # The heights of a link go on over the restart, and all agree on what was committed.
    top = min([(await (await processes.link(i)).status()).executed_height for i in range(4)])
    hashes = set()
    for index in range(4):
        with SqliteReader(
            processes.folder / f"data{index}" / "blocks.sqlite", processes.consortium.genesis.id
        ) as reader:
            hashes.add(tuple(header.hash for header in reader.headers(1, top)))
    assert len(hashes) == 1

    # A clean stop says nothing and leaves no socket.
    status, said = await processes.end(3, signal.SIGTERM)
    assert (status, [line for line in said.splitlines() if "ERROR" in line or "Traceback" in line]) == (0, [])
    assert not (processes.folder / "s3.sock").exists()


@pytest.mark.slow
async def test_a_paused_process_drops_its_backlog_and_catches_up(processes: Processes) -> None:
    """Ledger.md 21.9: SIGSTOP for longer than the links' patience, under load."""
    await processes.commit(0, 0)
    await processes.commit(3, 1)
    processes.running[3].send_signal(signal.SIGSTOP)
    began = asyncio.get_running_loop().time()
    seq = 2
    while asyncio.get_running_loop().time() - began < 8:
        await processes.commit(seq % 3, seq)
        seq += 1
    assert not (await (await processes.link(0)).status()).voters[3].connected
    processes.running[3].send_signal(signal.SIGCONT)
    height = (await (await processes.link(0)).status()).committed_height
    async with asyncio.timeout(LIMIT_S):
        async for stored in (await processes.link(3)).heights():
            if stored >= height:
                break
    await processes.commit(3, seq)


async def test_a_second_process_on_one_data_directory_is_refused(processes: Processes) -> None:
    await processes.commit(0, 0)
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgora.node.consensus", "--config", str(processes.files[0]),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    status, said = await processes.ended(second)
    assert status == 2
    assert f"in use by process {processes.running[0].pid}" in said
    assert "never copy a data directory" in said
    await processes.commit(0, 1)


async def test_a_validator_that_was_killed_before_its_first_vote_starts_again(tmp_path: Path) -> None:
    consortium = Consortium(4, timeout_ms=1_000)
    wires = Wires(consortium, "tls")
    await wires.reserve()
    alone = Processes(tmp_path, consortium, write_files(consortium, tmp_path, wires.endpoints))

    async def answers() -> None:
        link = await alone.link(0)
        async with asyncio.timeout(LIMIT_S):
            while alone.running[0].returncode is None:
                with contextlib.suppress(Unavailable):
                    await link.status()
                    return
        raise AssertionError(await alone.ended(alone.running.pop(0)))

    await alone.start(0)
    try:
        await answers()  # and without the others it has nothing to vote for
        assert not list((tmp_path / "data0" / "wal").glob("*.wal"))
        await alone.end(0, signal.SIGKILL)
        alone.files[0].write_text(alone.files[0].read_text() + "\nrequire_log = true\n")
        await alone.links.pop(0).close()
        await alone.start(0)
        await answers()
    finally:
        await alone.close()


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("index = 9", "index"),
        ('signer_key_file = "link1.key"', "signing key is of"),
        ('link_key_file = "signer1.key"', "link key is not the one"),
        ('genesis_file = "missing.bin"', "missing.bin cannot be read"),
        ("surprise = 1", "surprise"),
        ("require_log = true", "has no log"),
    ],
)
async def test_settings_that_cannot_work_are_refused_by_name(tmp_path: Path, broken: str, why: str) -> None:
    consortium = Consortium(4)
    wires = Wires(consortium, "tls")
    await wires.reserve()
    file = write_files(consortium, tmp_path, wires.endpoints)[1]
    name = broken.split(" ", 1)[0]
    lines = [line for line in file.read_text().splitlines() if not line.startswith(name + " ")]
    file.write_text("\n".join([*lines, broken]))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgora.node.consensus", "--config", str(file), stderr=asyncio.subprocess.PIPE
    )
    status, said = await Processes.ended(process)
    assert status in (1, 2)
    assert why in said
    assert "Traceback" not in said
    assert SigningKey.derived("validator 1").secret.hex() not in said + os.linesep
