"""Commit latency of four consensus nodes in one process, idle, then committed transactions per second.

    python tests/load/consensus_latency.py [memory|tls] [transactions]

Hosts differ and neighbours disturb, so two anchors are printed beside the figures: the median fdatasync of a short
append on the same disk, and a plain interpreter loop (ledger.md 20).
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from consortium import SMALL_SEGMENTS, Consortium, Wires
from edgora.node.consensus import ConsensusNode
from edgora.wire.ledger import SignedTx

LANES = 12


def anchors(folder: Path) -> str:
    path = folder / "anchor"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(descriptor, 0, 2**20)
    os.fsync(descriptor)
    syncs = []
    for number in range(100):
        os.pwrite(descriptor, bytes(500), 500 * number)
        began = time.perf_counter()
        os.fdatasync(descriptor)
        syncs.append((time.perf_counter() - began) * 1000)
    os.close(descriptor)
    began = time.perf_counter()
    total = 0
    for number in range(1_000_000):
        total += number
    return f"fdatasync {statistics.median(syncs):.2f} ms, a million additions {(time.perf_counter() - began) * 1000:.0f} ms"


async def commit(node: ConsensusNode, tx: SignedTx, tx_hash: bytes) -> None:
    """Submit and wait until this node has stored the block that holds it."""
    while not (await node.consensus.submit(tx, tx_hash)).admitted:
        await asyncio.sleep(0.01)
    async for _ in node.consensus.heights():
        if node.store.place_of(tx_hash) is not None:
            return


async def run(kind: str, count: int, folder: Path) -> None:
    consortium = Consortium(4)
    wires = Wires(consortium, kind)
    await wires.reserve()
    nodes = [
        ConsensusNode(
            consortium.genesis, i, consortium.signing[i], consortium.link[i], folder / str(i), wires.links(i),
            wires.clock, consortium.application(), segment_octets=16 * SMALL_SEGMENTS,
        )
        for i in range(4)
    ]  # fmt: skip
    for node in nodes:
        await node.start()
    while not all(voter.connected for voter in (await nodes[0].consensus.status()).voters):
        await asyncio.sleep(0.01)

    took = []
    cpu = time.process_time()
    for seq in range(count):
        tx, tx_hash = consortium.tx(seq)
        began = time.perf_counter()
        await commit(nodes[seq % 4], tx, tx_hash)
        took.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.1)
    cpu = (time.process_time() - cpu) * 1000 / count
    cuts = statistics.quantiles(took, n=100)
    print(
        f"{kind}, idle: p50 {cuts[49]:.1f} ms, p90 {cuts[89]:.1f}, p99 {cuts[98]:.1f}; {cpu:.1f} ms of CPU, 4 replicas"
    )

    made = [consortium.tx(seq, lane=1 + lane) for seq in range(10 * count // LANES) for lane in range(LANES)]
    turns = asyncio.Semaphore(200)

    async def one(number: int, tx: SignedTx, tx_hash: bytes) -> None:
        async with turns:
            await commit(nodes[number % 4], tx, tx_hash)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one(number, *signed) for number, signed in enumerate(made)))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"{kind}, 200 clients: {len(made) / seconds:.0f} tx/s, {cpu * 1000 / len(made):.2f} ms of CPU a transaction")
    for node in nodes:
        await node.stop()


def main() -> None:
    kind = sys.argv[1] if len(sys.argv) > 1 else "memory"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    with tempfile.TemporaryDirectory() as folder:
        print(anchors(Path(folder)))
        asyncio.run(run(kind, count, Path(folder)))


if __name__ == "__main__":
    main()
