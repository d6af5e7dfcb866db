"""Four consensus nodes in one process, over memory and over TLS on loopback: real core, log, store and links."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from consortium import CLIENT, SMALL_SEGMENTS, Consortium, Wires
from edgora.adapters.sqlite_store import SqliteReader, SqliteStore
from edgora.adapters.wal_files import WalFiles
from edgora.crypto.proof import check_certificate
from edgora.crypto.sign import SigningKey
from edgora.lab.sim.counter import CounterApp, Do
from edgora.ledger.effects import Effects, Input, SnapshotImage
from edgora.node.consensus import ConsensusNode
from edgora.node.driver import Driver
from edgora.wire.application import Applied
from edgora.wire.codec import decode
from edgora.wire.errors import Broken, Conflict, Refused, Unavailable
from edgora.wire.ledger import BlockContext, Certificate, OrderedTx, SignedTx
from edgora.wire.pbft import encode_message

LIMIT_S = 40


class Cluster:
    """Nodes on data directories of their own; a stopped node's directory stays."""

    def __init__(self, folder: Path, kind: str, **params: int) -> None:
        self.folder = folder
        self.consortium = Consortium(4, **params)
        self.wires = Wires(self.consortium, kind)
        self.nodes: dict[int, ConsensusNode] = {}

    def make(self, index: int) -> ConsensusNode:
        return ConsensusNode(
            self.consortium.genesis, index, self.consortium.signing[index], self.consortium.link[index],
            self.folder / str(index), self.wires.links(index), self.wires.clock, self.consortium.application(),
            segment_octets=SMALL_SEGMENTS,
        )  # fmt: skip

    async def start(self, *indices: int) -> None:
        for index in indices:
            node = self.make(index)
            await node.start()
            self.nodes[index] = node

    async def stop(self, *indices: int) -> None:
        for index in indices:
            await self.nodes.pop(index).stop()

    async def stored(self, index: int, tx_hash: bytes) -> tuple[int, int]:
        """Wait until a node has executed a transaction."""
        node = self.nodes[index]
        async with asyncio.timeout(LIMIT_S):
            async for _ in node.consensus.heights():
                place = node.store.place_of(tx_hash)
                if place is not None:
                    return place
        raise AssertionError

    async def reach(self, index: int, height: int) -> None:
        async with asyncio.timeout(LIMIT_S):
            async for stored in self.nodes[index].consensus.heights():
                if stored >= height:
                    return

    async def connected(self, index: int) -> None:
        """Wait until a node has a link to every other one: a quorum may have decided before the slowest was up."""
        async with asyncio.timeout(LIMIT_S):
            while not all(v.connected for v in (await self.nodes[index].consensus.status()).voters):
                await asyncio.sleep(0.01)  # links come up without an event

    async def certified(self, index: int) -> Certificate:
        """The first commit certificate that a node stores: a block may be stored before a later one's covers it."""
        async with asyncio.timeout(LIMIT_S):
            while (found := self.nodes[index].store.certificate_from(1)) is None:
                await asyncio.sleep(0.01)  # no event tells of a certificate alone
        return found[1]

    async def send(self, index: int, tx: SignedTx, tx_hash: bytes) -> None:
        async with asyncio.timeout(LIMIT_S):
            while True:
                admission = await self.nodes[index].consensus.submit(tx, tx_hash)
                if admission.admitted:
                    return
                assert admission.reason == "POOL_FULL", admission
                await asyncio.sleep(0.05)  # as a client does that was told POOL_FULL

    def agree(self, *indices: int) -> None:
        """P1: equal headers and roots wherever two nodes store the same height."""
        top = min(self.nodes[i].store.height() for i in indices)
        for height in range(1, top + 1):
            found = [b for b in (self.nodes[i].store.block(height) for i in indices) if b is not None]
            assert len({(b.block.header.hash, b.state_root) for b in found}) <= 1, height


@pytest.fixture(params=["memory", "tls"])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path, request.param)
    await made.wires.reserve()
    yield made
    await made.stop(*list(made.nodes))


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path, "memory", checkpoint_every=8, timeout_ms=500)
    yield made
    await made.stop(*list(made.nodes))


async def test_four_nodes_commit_and_agree(cluster: Cluster) -> None:
    await cluster.start(0, 1, 2, 3)
    txs = [cluster.consortium.tx(seq) for seq in range(60)]
    for number, (tx, tx_hash) in enumerate(txs):
        await cluster.send(number % 4, tx, tx_hash)
    for index in range(4):
        places = [await cluster.stored(index, tx_hash) for _, tx_hash in txs]
        assert places == sorted(places)
    cluster.agree(0, 1, 2, 3)
    last = await cluster.stored(0, txs[-1][1])
    block = cluster.nodes[0].store.block(last[0])
    assert block is not None
    assert block.receipts[last[1]].output[-8:] == (60).to_bytes(8, "big")
    certificate = await cluster.certified(3)
    assert check_certificate(certificate, cluster.consortium.genesis.addresses, cluster.consortium.domain) is None


async def test_status_says_who_is_there_and_what_is_done(cluster: Cluster) -> None:
    await cluster.start(0, 1, 2, 3)
    tx, tx_hash = cluster.consortium.tx(0)
    await cluster.send(2, tx, tx_hash)
    await cluster.stored(2, tx_hash)
    status = await cluster.nodes[2].consensus.status()
    assert (status.own_index, status.validators, status.quorum, status.primary) == (2, 4, 3, 0)
    assert status.committed_height >= 1
    assert status.alarm is None
    assert [v.index for v in status.voters] == [0, 1, 2, 3]
    assert [v.address for v in status.voters] == list(cluster.consortium.genesis.addresses)
    await cluster.connected(2)


async def test_without_a_quorum_nothing_commits_and_status_says_why(embedded: Cluster) -> None:
    await embedded.start(0, 1)
    tx, tx_hash = embedded.consortium.tx(0)
    await embedded.send(0, tx, tx_hash)
    status = await embedded.nodes[0].consensus.status()
    assert status.waiting == "NO_QUORUM"
    assert status.committed_height == 0
    await embedded.start(2)
    await embedded.stored(0, tx_hash)


async def test_servers_ask_each_other_over_the_links(cluster: Cluster) -> None:
    await cluster.start(0, 1, 2, 3)

    async def answer(server: int, request: bytes) -> bytes:
        return bytes((server,)) + request

    await cluster.connected(0)
    with pytest.raises(Unavailable, match="API half"):
        await cluster.nodes[0].consensus.call(3, b"x", 5_000)
    cluster.nodes[3].consensus.serve(answer)
    assert await cluster.nodes[0].consensus.call(3, b"hello", 5_000) == b"\x00hello"
    assert await cluster.nodes[3].consensus.call(3, b"myself", 5_000) == b"\x03myself"


async def test_a_node_that_was_killed_catches_up_on_its_disk(cluster: Cluster) -> None:
    await cluster.start(0, 1, 2, 3)
    first = [cluster.consortium.tx(seq) for seq in range(10)]
    for tx, tx_hash in first:
        await cluster.send(0, tx, tx_hash)
    await cluster.stored(3, first[-1][1])
    await cluster.stop(3)
    second = [cluster.consortium.tx(seq) for seq in range(10, 30)]
    for tx, tx_hash in second:
        await cluster.send(1, tx, tx_hash)
    await cluster.stored(0, second[-1][1])
    await cluster.start(3)
    assert cluster.nodes[3].store.place_of(first[-1][1]) is not None
    await cluster.stored(3, second[-1][1])
    cluster.agree(0, 1, 2, 3)


async def test_a_primary_that_dies_is_replaced(embedded: Cluster) -> None:
    await embedded.start(0, 1, 2, 3)
    tx, tx_hash = embedded.consortium.tx(0)
    await embedded.send(1, tx, tx_hash)
    await embedded.stored(1, tx_hash)
    await embedded.stop(0)
    tx, tx_hash = embedded.consortium.tx(1)
    await embedded.send(2, tx, tx_hash)
    await embedded.stored(3, tx_hash)
    status = await embedded.nodes[3].consensus.status()
    assert status.view >= 1
    assert status.view_changes >= 1
    left, entered = status.steps[:2]
    assert (left.entered, left.left, left.view, left.primary) == (False, 0, 1, 1)
    assert left.why in {"no commit although something is due", "the primary is silent", "f + 1 others left"}
    assert (entered.entered, entered.view, entered.asked) == (True, 1, (1, 2, 3))
    assert left.at_ms <= entered.at_ms
    await embedded.start(0)
    await embedded.stored(0, tx_hash)
    embedded.agree(0, 1, 2, 3)


async def test_all_nodes_at_once_go_down_and_come_back(embedded: Cluster) -> None:
    await embedded.start(0, 1, 2, 3)
    txs = [embedded.consortium.tx(seq) for seq in range(20)]
    for tx, tx_hash in txs:
        await embedded.send(0, tx, tx_hash)
    place = await embedded.stored(0, txs[-1][1])
    await embedded.stop(0, 1, 2, 3)
    await embedded.start(0, 1, 2, 3)
    assert embedded.nodes[0].store.place_of(txs[-1][1]) == place
    tx, tx_hash = embedded.consortium.tx(20)
    await embedded.send(3, tx, tx_hash)
    height, index = await embedded.stored(2, tx_hash)
    block = embedded.nodes[2].store.block(height)
    assert block is not None
    assert block.receipts[index].output[-8:] == (21).to_bytes(8, "big")
    embedded.agree(0, 1, 2, 3)


async def test_checkpoints_free_the_log_and_a_late_node_takes_the_snapshot(embedded: Cluster) -> None:
    """P11: down for more than two checkpoints."""
    await embedded.start(0, 1, 2)
    for seq in range(40):
        tx, tx_hash = embedded.consortium.tx(seq)
        await embedded.send(0, tx, tx_hash)
        await embedded.stored(0, tx_hash)
    status = await embedded.nodes[0].consensus.status()
    assert status.stable_checkpoint >= 16
    snapshot = embedded.nodes[0].store.snapshot()
    assert snapshot is not None
    assert snapshot[0] % 8 == 0
    segments = {int(p.stem) for p in (embedded.folder / "0" / "wal").glob("*.wal")}
    assert 0 not in segments
    await embedded.start(3)
    await embedded.reach(3, status.committed_height)
    await embedded.stop(0)
    tx, tx_hash = embedded.consortium.tx(40)
    await embedded.send(3, tx, tx_hash)
    place = await embedded.stored(3, tx_hash)
    block = embedded.nodes[3].store.block(place[0])
    assert block is not None
    assert block.receipts[place[1]].output[-8:] == (41).to_bytes(8, "big")
    embedded.agree(1, 2, 3)


async def test_a_partition_heals(embedded: Cluster) -> None:
    await embedded.start(0, 1, 2, 3)
    network = embedded.wires.network
    for peer in (1, 2, 3):
        network.cut(0, peer)
    tx, tx_hash = embedded.consortium.tx(0)
    await embedded.send(1, tx, tx_hash)
    await embedded.stored(1, tx_hash)
    assert embedded.nodes[0].store.place_of(tx_hash) is None
    for peer in (1, 2, 3):
        network.mend(0, peer)
        network.delay(0, peer, 5)
    await embedded.stored(0, tx_hash)
    embedded.agree(0, 1, 2, 3)


# ---- disks that fail or lie --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [1, 30, 200, 2_000])
async def test_a_torn_tail_of_the_log_boots_and_goes_on(embedded: Cluster, torn: int) -> None:
    """P3 with real files: the end of the log is lost or garbled; the node comes back and agrees."""
    await embedded.start(0, 1, 2, 3)
    txs = [embedded.consortium.tx(seq) for seq in range(5)]
    for tx, tx_hash in txs:
        await embedded.send(0, tx, tx_hash)
    await embedded.stored(3, txs[-1][1])
    await embedded.stop(3)
    path = max((embedded.folder / "3" / "wal").glob("*.wal"))
    data = path.read_bytes()
    end = len(data.rstrip(b"\0"))
    torn = min(
        torn, end // 2
    )  # a busy machine orders all in one block, and the log is short; a tail is never all of it
    path.write_bytes(data[: end - torn] + os.urandom(min(torn, 7)) + bytes(len(data) - end + torn - min(torn, 7)))
    await embedded.start(3)
    tx, tx_hash = embedded.consortium.tx(5)
    await embedded.send(3, tx, tx_hash)
    await embedded.stored(3, tx_hash)
    embedded.agree(0, 1, 2, 3)


async def test_a_damaged_log_is_a_refusal_to_start(embedded: Cluster) -> None:
    await embedded.start(0, 1, 2, 3)
    tx, tx_hash = embedded.consortium.tx(0)
    await embedded.send(0, tx, tx_hash)
    await embedded.stored(3, tx_hash)
    await embedded.stop(3)
    path = min((embedded.folder / "3" / "wal").glob("*.wal"))
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(Broken, match="damaged"):
        await embedded.start(3)


async def test_a_lost_log_is_a_refusal_to_start(embedded: Cluster) -> None:
    """Ledger.md 12, 21.7: lost disk = lost identity."""
    await embedded.start(0, 1, 2, 3)
    tx, tx_hash = embedded.consortium.tx(0)
    await embedded.send(0, tx, tx_hash)
    await embedded.stored(3, tx_hash)
    await embedded.stop(3)
    for path in (embedded.folder / "3" / "wal").glob("*.wal"):
        path.unlink()
    with pytest.raises(Broken, match="no log") as refused:
        await embedded.start(3)
    assert "observer" in (refused.value.fix or "")


async def test_a_failed_sync_stops_one_node_and_the_others_go_on(
    embedded: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await embedded.start(0, 1, 2, 3)
    tx, tx_hash = embedded.consortium.tx(0)
    await embedded.send(0, tx, tx_hash)
    await embedded.stored(2, tx_hash)
    victim = embedded.nodes[2]
    real = WalFiles.flush

    def flush(log: WalFiles) -> int:
        if log._folder.parent.name == "2":
            raise Broken("the disk is gone")
        return real(log)

    monkeypatch.setattr(WalFiles, "flush", flush)
    tx, tx_hash = embedded.consortium.tx(1)
    await embedded.send(1, tx, tx_hash)
    with pytest.raises(Broken, match="the disk is gone"):
        await asyncio.wait_for(victim.failed(), LIMIT_S)
    with pytest.raises(Unavailable):
        await victim.consensus.submit(tx, tx_hash)
    await embedded.stored(0, tx_hash)
    await embedded.stop(2)
    monkeypatch.undo()
    await embedded.start(2)
    await embedded.stored(2, tx_hash)
    embedded.agree(0, 1, 2, 3)


async def test_a_crash_between_a_checkpoint_and_its_snapshot_loses_nothing(
    embedded: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says that the checkpoint was signed, the snapshot never became durable: the boot makes it again."""
    real = SqliteStore.save_snapshot
    crashed: list[int] = []

    def save(store: SqliteStore, image: SnapshotImage) -> None:
        if store is embedded.nodes[2].store and not crashed:
            crashed.append(image.height)
            raise Broken("power is gone")
        real(store, image)

    monkeypatch.setattr(SqliteStore, "save_snapshot", save)
    await embedded.start(0, 1, 2, 3)
    seq = 0
    while not crashed:
        tx, tx_hash = embedded.consortium.tx(seq)
        await embedded.send(0, tx, tx_hash)
        await embedded.stored(0, tx_hash)
        seq += 1
    with pytest.raises(Broken, match="power is gone"):
        await asyncio.wait_for(embedded.nodes[2].failed(), LIMIT_S)
    await embedded.stop(2)
    await embedded.start(2)
    tx, tx_hash = embedded.consortium.tx(seq)
    await embedded.send(0, tx, tx_hash)
    await embedded.stored(2, tx_hash)
    snapshot = embedded.nodes[2].store.snapshot()
    assert snapshot is not None
    assert snapshot[0] >= crashed[0]
    embedded.agree(0, 1, 2, 3)


async def test_a_replica_whose_results_diverge_stops_voting_and_dumps_its_state(embedded: Cluster) -> None:
    """Ledger.md 3: a divergence is never repaired silently."""

    class Wrong(CounterApp):
        def apply(self, block: BlockContext, txs: Sequence[OrderedTx]) -> Applied:
            done = super().apply(block, txs)
            return msgspec.structs.replace(done, writes={**done.writes, b"n/wrong": b"1"}) if txs else done

    await embedded.start(0, 1, 2)
    c = embedded.consortium
    node = ConsensusNode(
        c.genesis, 3, c.signing[3], c.link[3], embedded.folder / "3", embedded.wires.links(3), embedded.wires.clock,
        Wrong([CLIENT.address]), segment_octets=SMALL_SEGMENTS,
    )  # fmt: skip
    await node.start()
    embedded.nodes[3] = node
    seq = 0
    async with asyncio.timeout(LIMIT_S):
        while (await node.consensus.status()).alarm is None:
            tx, tx_hash = c.tx(seq)
            await embedded.send(0, tx, tx_hash)
            await embedded.stored(0, tx_hash)
            seq += 1
    assert (await node.consensus.status()).waiting == "ALARM"
    assert (await node.consensus.submit(*c.tx(seq))).reason == "ALARM"
    dumped = decode(
        (embedded.folder / "3" / "alarm.bin").read_bytes(), tuple[str, int, tuple[tuple[bytes, bytes], ...]]
    )
    assert b"n/n" in dict(dumped[2])
    tx, tx_hash = c.tx(seq)
    await embedded.send(1, tx, tx_hash)
    await embedded.stored(2, tx_hash)
    embedded.agree(0, 1, 2)


async def test_no_message_of_a_real_node_leaves_before_its_records_are_durable(
    embedded: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4 on the real core, log and links."""
    required: dict[tuple[int, bytes], int] = {}
    durable: dict[int, int] = {}
    violations: list[str] = []
    ours: set[int] = set()
    opened, step, flush, send = WalFiles.__init__, Driver._step, WalFiles.flush, Driver._send

    def watched_open(log: WalFiles, *arguments, **named) -> None:
        # Another platform may live in this process on a thread of its own: only logs opened from here on are judged.
        opened(log, *arguments, **named)
        ours.add(id(log))

    def watched_step(driver: Driver, event: Input) -> None:
        real = driver._core.step

        def noted(now_ms: int, given: Input) -> Effects:
            effects = real(now_ms, given)
            upto = driver._log.end + len(effects.persist)
            for item in effects.send:
                # Equal bytes may be sent again later: the first time is the one that must wait.
                required.setdefault((id(driver._log), encode_message(item.message)), upto)
            return effects

        driver._core.step = noted  # type: ignore[method-assign]
        try:
            step(driver, event)
        finally:
            driver._core.step = real  # type: ignore[method-assign]

    def watched_flush(log: WalFiles) -> int:
        durable[id(log)] = flush(log)
        return durable[id(log)]

    def watched_send(driver: Driver, sends: list) -> None:
        for item in sends if id(driver._log) in ours else ():
            need = required[id(driver._log), encode_message(item.message)]
            if durable.get(id(driver._log), 0) < need:
                violations.append(f"{type(item.message).__name__}: {durable.get(id(driver._log), 0)} < {need}")
        send(driver, sends)

    monkeypatch.setattr(WalFiles, "__init__", watched_open)
    monkeypatch.setattr(Driver, "_step", watched_step)
    monkeypatch.setattr(WalFiles, "flush", watched_flush)
    monkeypatch.setattr(Driver, "_send", watched_send)
    await embedded.start(0, 1, 2, 3)
    for seq in range(30):
        tx, tx_hash = embedded.consortium.tx(seq)
        await embedded.send(seq % 4, tx, tx_hash)
    await embedded.stored(0, tx_hash)
    await embedded.stop(0)
    tx, tx_hash = embedded.consortium.tx(30)
    await embedded.send(1, tx, tx_hash)
    await embedded.stored(2, tx_hash)
    assert len(required) > 50
    assert violations == []


# ---- identities --------------------------------------------------------------------------------------------------------


async def test_a_data_directory_serves_one_node(embedded: Cluster) -> None:
    await embedded.start(0)
    second = embedded.make(0)
    with pytest.raises(Conflict, match="in use"):
        await second.start()


async def test_keys_that_genesis_does_not_name_are_refused(embedded: Cluster) -> None:
    c = embedded.consortium
    for signing, link in ((SigningKey.derived("x"), c.link[0]), (c.signing[0], c.link[1])):
        with pytest.raises(Refused, match="genesis"):
            ConsensusNode(
                c.genesis, 0, signing, link, embedded.folder / "x", embedded.wires.links(0), embedded.wires.clock,
                c.application(),
            )  # fmt: skip


async def test_a_copied_data_directory_does_not_get_to_vote(embedded: Cluster, tmp_path: Path) -> None:
    """Ledger.md 21.15: the peers of the first instance refuse the second."""
    await embedded.start(0, 1, 2, 3)
    tx, tx_hash = embedded.consortium.tx(0)
    await embedded.send(0, tx, tx_hash)
    await embedded.stored(3, tx_hash)
    original = embedded.folder / "3"
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "wal").mkdir()
    for path in (original / "wal").iterdir():
        (copy / "wal" / path.name).write_bytes(path.read_bytes())
    c = embedded.consortium
    links = embedded.wires.links(3)
    twin = ConsensusNode(
        c.genesis, 3, c.signing[3], c.link[3], copy, links, embedded.wires.clock, c.application(),
        segment_octets=SMALL_SEGMENTS,
    )  # fmt: skip
    await twin.start()
    try:
        async with asyncio.timeout(LIMIT_S):
            while not all("second instance" in view.refused for view in links.links()):
                await asyncio.sleep(0.01)  # a refusal is no event either
        assert not any(view.connected for view in links.links())
    finally:
        await twin.stop()
    tx, tx_hash = c.tx(1)
    await embedded.send(3, tx, tx_hash)
    await embedded.stored(3, tx_hash)


async def test_an_observer_follows_and_does_not_vote(embedded: Cluster) -> None:
    await embedded.start(0, 1, 2)
    c = embedded.consortium
    node = ConsensusNode(
        c.genesis, 3, c.signing[3], c.link[3], embedded.folder / "3", embedded.wires.links(3), embedded.wires.clock,
        c.application(), observer=True, segment_octets=SMALL_SEGMENTS,
    )  # fmt: skip
    await node.start()
    embedded.nodes[3] = node
    tx, tx_hash = c.tx(0)
    await embedded.send(0, tx, tx_hash)
    # The observer hears every vote and may be the first to see the quorum: wait for each node.
    for index in range(4):
        await embedded.stored(index, tx_hash)
    embedded.agree(0, 1, 2, 3)
    for index in range(4):
        assert (await embedded.certified(index)).signers() == [0, 1, 2]


async def test_the_store_of_a_running_node_can_be_read_from_outside(embedded: Cluster) -> None:
    await embedded.start(0, 1, 2, 3)
    tx, tx_hash = embedded.consortium.tx(0, do=Do.ALARM, amount=20)
    await embedded.send(0, tx, tx_hash)
    await embedded.stored(0, tx_hash)
    with SqliteReader(embedded.folder / "0" / "blocks.sqlite", embedded.consortium.genesis.id) as reader:
        assert reader.place_of(tx_hash) == embedded.nodes[0].store.place_of(tx_hash)
        async with asyncio.timeout(LIMIT_S):
            async for _ in embedded.nodes[0].consensus.heights():
                if reader.events(0, 10):
                    break
    assert CLIENT.address == tx.tx.sender
