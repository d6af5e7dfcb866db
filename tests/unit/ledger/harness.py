"""A deterministic cluster of real replicas on a perfect network: virtual time, one event queue, disks in memory.

Messages take `delay` ms, go through the real codec, and can be dropped by a filter. Disks hold exactly what the
effects persisted; `restart` boots a new replica from them through the real log format. Faults beyond that are the
simulator's business.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence

import msgspec

from edgora.crypto.sign import SigningKey, recover
from edgora.ledger.config import LedgerConfig, Params, genesis_header
from edgora.ledger.effects import (
    ALL,
    Answer,
    Boot,
    ClientTx,
    DurableState,
    Effects,
    Executed,
    Recv,
    SnapshotImage,
    TimerFired,
    Verified,
)  # fmt: skip
from edgora.ledger.replica import Replica
from edgora.ledger.snapshot import decode_snapshot, encode_snapshot
from edgora.ledger.tree import StateTree
from edgora.ledger.wal import LogCursor, scan
from edgora.wire.application import Applied, Outcome
from edgora.wire.eip712 import Domain
from edgora.wire.hashing import EMPTY_ROOT, keccak, merkle_root
from edgora.wire.ledger import (
    BlockContext,
    Certificate,
    Header,
    Kind,
    OrderedTx,
    Phase,
    SignedTx,
    Tx,
    Vote,
    faulty,
    quorum,
)  # fmt: skip
from edgora.wire.pbft import (
    Commit,
    Message,
    NewView,
    NewViewBody,
    Prepare,
    PrePrepare,
    Status,
    ViewChange,
    ViewChangeBody,
    decode_message,
    encode_message,
    view_changes_hash,
)  # fmt: skip

GENESIS_ID = keccak(b"test genesis")
DOMAIN = Domain.ledger(7, GENESIS_ID)
START = 1_700_000_000_000
KEYS = [SigningKey.derived(f"validator {i}") for i in range(7)]
CLIENTS = [SigningKey.derived(f"client {i}") for i in range(8)]


class Noted(msgspec.Struct, frozen=True):
    """Event of the test application."""

    key: bytes
    value: bytes


class Registers:
    """key=value payloads set a register; "wake T" asks to be woken at T; "+key" counts executions."""

    def __init__(self, known: Sequence[bytes]) -> None:
        self.state: dict[bytes, bytes] = {b"known/" + address: b"" for address in known}
        self.blocks: list[tuple[int, int]] = []

    def apply(self, block: BlockContext, txs: Sequence[OrderedTx]) -> Applied:
        writes: dict[bytes, bytes | None] = {}
        outcomes, events = [], []
        wake = self.state.get(b"wake")
        if wake is not None and int(wake) <= block.time_ms:
            writes[b"wake"] = None
            writes[b"woken"] = b"%d" % block.height
            events.append(Noted(b"woken", wake))
        for ordered in txs:
            payload = ordered.tx.payload
            if payload.startswith(b"wake "):
                writes[b"wake"] = payload[5:]
            elif payload.startswith(b"+"):
                count = int(writes.get(payload[1:]) or self.state.get(payload[1:]) or b"0") + 1
                writes[payload[1:]] = b"%d" % count
            elif b"=" in payload:
                key, value = payload.split(b"=", 1)
                writes[key] = value
                events.append(Noted(key, value))
            else:
                outcomes.append(Outcome(16))
                continue
            outcomes.append(Outcome(0, payload[:4]))
        for key, value in writes.items():
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value
        self.blocks.append((block.height, block.time_ms))
        return Applied(outcomes, writes, events)

    def knows(self, sender: bytes) -> bool:
        return b"known/" + sender in self.state

    def wake_at(self) -> int | None:
        wake = self.state.get(b"wake")
        return None if wake is None else int(wake)

    def snapshot(self) -> Mapping[bytes, bytes]:
        return dict(self.state)

    def restore(self, state: Mapping[bytes, bytes]) -> None:
        self.state = dict(state)

    def precheck(self, tx: OrderedTx) -> Outcome:
        return Outcome(0)


class Disk:
    """What survives a crash."""

    def __init__(self) -> None:
        self.segments: dict[int, bytearray] = {}
        self.cursor = LogCursor(segment_octets=2**20)
        self.snapshot: bytes | None = None
        self.boots = 0

    def write(self, effects: Effects) -> None:
        if effects.snapshot is not None:
            self.snapshot = encode_snapshot(effects.snapshot)
        if effects.compacted:
            self.cursor.segment = None  # these records replace all others: they start a segment of their own
        writes = self.cursor.place(effects.persist)
        for segment, offset, data in writes:
            self.segments.setdefault(segment, bytearray())[offset:] = data
        if effects.compacted:
            for old in [s for s in self.segments if s < writes[0].segment]:
                del self.segments[old]

    def read(self) -> DurableState:
        found = scan([(first, bytes(data)) for first, data in sorted(self.segments.items())], 2**20)
        self.cursor = found.cursor
        self.boots += 1
        image: SnapshotImage | None = None if self.snapshot is None else decode_snapshot(self.snapshot)
        return DurableState(image, found.records, self.boots)


class Node:
    def __init__(self, cluster: "Cluster", index: int, disk: Disk) -> None:
        self.cluster, self.index, self.disk = cluster, index, disk
        self.app = Registers([key.address for key in CLIENTS])
        self.config = cluster.config(index)
        self.replica = Replica(self.config, KEYS[index], self.app)
        self.timers: dict[str, int] = {}
        self.executed: list[Executed] = []
        self.answers: list[Answer] = []
        self.faults: list[str] = []
        self.evidence: list[object] = []
        self.alarm: str | None = None
        self.life = disk.boots + 1

    @property
    def height(self) -> int:
        return self.replica.status(self.cluster.now).height

    def status(self):
        return self.replica.status(self.cluster.now)

    def chain(self) -> dict[int, bytes]:
        return {e.block.header.height: e.block.header.hash for e in self.executed}


Filter = Callable[[int, int, Message], bool]


class Cluster:
    """n replicas. `lose(src, dest, message) -> bool` drops a message."""

    def __init__(self, n: int = 4, delay: int = 1, **params: object) -> None:
        self.n, self.delay, self.now = n, delay, START
        self.params = Params(**params)
        self.genesis = genesis_header(GENESIS_ID, START - 1_000)
        self.queue: list[tuple[int, int, int, int, object]] = []
        self.order = 0
        self.lose: Filter = lambda _src, _dest, _message: False
        self.sent: list[tuple[int, int, Message]] = []
        self.commits: dict[int, bytes] = {}
        self.nodes: dict[int, Node] = {}
        self.seqs: dict[tuple[int, int], int] = {}
        for index in range(n):
            self.start(index)

    def config(self, place: int, **changes: object) -> LedgerConfig:
        fields = {
            "validators": tuple(key.address for key in KEYS[: self.n]), "index": place, "domain": DOMAIN,
            "genesis": self.genesis, "params": self.params,
        }  # fmt: skip
        return LedgerConfig(**(fields | changes))

    # ---- life and death ----

    def start(self, index: int, disk: Disk | None = None) -> Node:
        node = Node(self, index, disk or Disk())
        self.nodes[index] = node
        self.step(index, Boot(node.disk.read()))
        return node

    def crash(self, index: int) -> Disk:
        return self.nodes.pop(index).disk

    def restart(self, index: int) -> Node:
        return self.start(index, self.crash(index))

    # ---- turning the crank ----

    def step(self, index: int, event: object) -> Effects:
        node = self.nodes[index]
        effects = node.replica.step(self.now, event)
        node.disk.write(effects)
        for timer in effects.timers:
            if timer.deadline_ms is None:
                node.timers.pop(timer.name, None)
            else:
                node.timers[timer.name] = timer.deadline_ms
                self._push(max(timer.deadline_ms, self.now), index, ("timer", timer.name, timer.deadline_ms))
        for dest, message in effects.send:
            data = encode_message(message)
            for peer in range(self.n) if dest == ALL else (dest,):
                if peer != index:
                    self.sent.append((index, peer, message))
                    if not self.lose(index, peer, message):
                        self._push(self.now + self.delay, peer, ("message", index, data))
        for work in effects.verify:
            ok = tuple(recover(digest, signature) == who for who, digest, signature in work.items)
            self._push(self.now, index, ("verified", Verified(work.token, ok), node.life))
        for executed in effects.executed:
            header = executed.block.header
            assert self.commits.setdefault(header.height, header.hash) == header.hash, f"fork at {header.height}"
        node.executed += effects.executed
        node.answers += effects.answers
        node.faults += [fault.reason for fault in effects.faults]
        node.evidence += effects.evidence
        node.alarm = effects.alarm or node.alarm
        return effects

    def _push(self, at: int, index: int, what: object) -> None:
        self.order += 1
        heapq.heappush(self.queue, (at, self.order, index, 0, what))

    def run(self, ms: int, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass. True as soon as `until` holds; without it, at the end."""
        end = self.now + ms
        while self.queue and self.queue[0][0] <= end:
            if until is not None and until():
                return True
            at, _, index, _, what = heapq.heappop(self.queue)
            self.now = max(self.now, at)
            node = self.nodes.get(index)
            if node is None:
                continue
            match what:
                case ("timer", name, deadline):
                    if node.timers.get(name) == deadline:
                        del node.timers[name]
                        self.step(index, TimerFired(name))
                case ("message", src, data):
                    self.step(index, Recv(src, decode_message(data)))
                case ("verified", verified, life) if life == node.life:
                    self.step(index, verified)
        self.now = end if until is None else self.now
        return until is None or until()

    # ---- clients ----

    def tx(self, client: int, payload: bytes, lane: int = 0, seq: int | None = None, **changes: object) -> SignedTx:
        if seq is None:
            seq = self.seqs.get((client, lane), 0)
            self.seqs[client, lane] = seq + 1
        fields = {
            "kind": Kind.TASK, "sender": CLIENTS[client].address, "lane": lane, "seq": seq, "valid_until": 4_000,
            "payload": payload,
        }  # fmt: skip
        tx = Tx(**(fields | changes))
        return SignedTx(tx, CLIENTS[client].sign(tx.digest(DOMAIN)))

    def submit(self, at: int, signed: SignedTx) -> bytes:
        name = signed.tx.digest(DOMAIN)
        self.step(at, ClientTx(signed, name))
        return name

    def order_all(self, count: int, at: int = 1, client: int = 0) -> None:
        """Submit and wait until every live node has executed the last one."""
        names = [self.submit(at, self.tx(client, b"r%d=%d" % (i % 5, i))) for i in range(count)]
        assert self.run(20_000, lambda: all(self.executed_at(node, names[-1]) for node in self.nodes.values()))

    @staticmethod
    def executed_at(node: Node, name: bytes) -> bool:
        return any(receipt.tx_hash == name for e in node.executed for receipt in e.receipts)

    def heights(self) -> list[int]:
        return [self.nodes[i].height for i in sorted(self.nodes)]


class Forge:
    """Everything that n validators can sign, for tests that play all of them but one.

    `parent` headers default to the genesis; empty blocks execute to nothing but book-keeping, so results named by a
    forged header are those of the genesis (execHeight 0) unless a test says otherwise.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.n = cluster, cluster.n
        self.q = quorum(cluster.n)

    def header(
        self, above: Header | None = None, txs: Sequence[SignedTx] = (), view: int = 0, **changes: object
    ) -> Header:
        above = above or self.cluster.genesis
        replica = Registers([key.address for key in CLIENTS])
        fields = {
            "epoch": 0, "height": above.height + 1, "parent": above.hash,
            "tx_root": merkle_root([t.tx.digest(DOMAIN) + t.signature for t in txs]), "tx_count": len(txs),
            "exec_height": 0, "state_root": StateTree(replica.state).root, "receipt_root": EMPTY_ROOT,
            "receipt_count": 0, "next_epoch": bytes(32), "time_ms": max(above.time_ms + 1, self.cluster.now),
            "proposer": KEYS[view % self.n].address,
        }  # fmt: skip
        return Header(**(fields | changes))

    def chain(self, length: int, view: int = 0, salt: int = 0) -> list[Header]:
        headers: list[Header] = []
        for _ in range(length):
            above = headers[-1] if headers else self.cluster.genesis
            headers.append(self.header(above, view=view, time_ms=max(above.time_ms + 1, self.cluster.now) + salt))
        return headers

    def vote(self, phase: Phase, view: int, header: Header) -> Vote:
        return Vote(phase, header.epoch, view, header.height, header.hash)

    def certificate(self, phase: Phase, view: int, header: Header, signers: Sequence[int] | None = None) -> Certificate:
        vote = self.vote(phase, view, header)
        chosen = tuple(range(self.q)) if signers is None else signers
        return Certificate(vote, sum(1 << i for i in chosen), tuple(KEYS[i].sign(vote.digest(DOMAIN)) for i in chosen))

    def pre_prepare(
        self,
        view: int,
        header: Header,
        txs: Sequence[SignedTx] = (),
        executed: Certificate | None = None,
        **changes: object,
    ) -> PrePrepare:
        vote = self.vote(Phase.PREPARE, view, header)
        message = PrePrepare(0, view, header, tuple(txs), (), KEYS[view % self.n].sign(vote.digest(DOMAIN)), executed)
        return msgspec.structs.replace(message, **changes)

    def prepare(self, signer: int, view: int, header: Header) -> Prepare:
        vote = self.vote(Phase.PREPARE, view, header)
        return Prepare(0, view, header.height, header.hash, KEYS[signer].sign(vote.digest(DOMAIN)))

    def commit(self, signer: int, view: int, header: Header) -> Commit:
        vote = self.vote(Phase.COMMIT, view, header)
        return Commit(0, view, header.height, header.hash, KEYS[signer].sign(vote.digest(DOMAIN)))

    def view_change(
        self, signer: int, new_view: int, commit: Certificate | None = None, tip: Certificate | None = None,
        headers: Sequence[Header] = (), **changes: object,
    ) -> ViewChange:  # fmt: skip
        low = (0, 0, self.cluster.genesis.hash) if commit is None else _place(commit)
        high = (0, 0, bytes(32)) if tip is None else _place(tip)
        body = ViewChangeBody(0, new_view, *low, *high)
        body = msgspec.structs.replace(body, **changes)
        return ViewChange(0, signer, body, commit, tip, tuple(headers), KEYS[signer].sign(body.digest(DOMAIN)))

    def new_view(self, view: int, changes: Sequence[ViewChange], signer: int | None = None) -> NewView:
        body = NewViewBody(0, view, view_changes_hash(tuple(changes), DOMAIN))
        key = KEYS[view % self.n if signer is None else signer]
        return NewView(0, view, tuple(changes), key.sign(body.digest(DOMAIN)))


def _place(certificate: Certificate) -> tuple[int, int, bytes]:
    vote = certificate.vote
    return vote.view, vote.height, vote.block_hash


class Solo:
    """One replica under test; the test is everybody else. Verification is answered within the step."""

    def __init__(
        self, index: int = 1, n: int = 4, disk: Disk | None = None, config: dict | None = None, **params: object
    ) -> None:
        self.world = Cluster.__new__(Cluster)
        self.world.n, self.world.now, self.world.params = n, START, Params(**params)
        self.world.genesis = genesis_header(GENESIS_ID, START - 1_000)
        self.world.seqs = {}
        self.forge = Forge(self.world)
        self.index, self.disk = index, disk or Disk()
        self.app = Registers([key.address for key in CLIENTS])
        self.replica = Replica(self.world.config(index, **(config or {})), KEYS[index], self.app)
        self.all = Effects()
        self.log: list[Effects] = []
        self.step(Boot(self.disk.read()))

    @property
    def status(self):
        return self.replica.status(self.world.now)

    def step(self, event: object, at: int | None = None) -> Effects:
        """One input and everything that its verification work sets off, as one Effects."""
        if at is not None:
            self.world.now = START + at
        effects = self.replica.step(self.world.now, event)
        self.disk.write(effects)
        self.log.append(effects)
        for work in effects.verify:
            ok = tuple(recover(digest, signature) == who for who, digest, signature in work.items)
            later = self.step(Verified(work.token, ok))
            for field in ("persist", "send", "executed", "answers", "timers", "faults", "evidence"):
                setattr(effects, field, getattr(effects, field) + getattr(later, field))
            effects.alarm = effects.alarm or later.alarm
            effects.sync = effects.sync or later.sync
        return effects

    def recv(self, peer: int, message: Message, at: int | None = None) -> Effects:
        return self.step(Recv(peer, decode_message(encode_message(message))), at)

    def fire(self, name: str) -> Effects:
        """Let the timer of this name fire at its deadline. Fails if it is not armed."""
        deadline = self.status.timers[name]
        self.world.now = max(deadline, self.world.now)
        return self.step(TimerFired(name))

    def gives_up(self, name: str) -> Effects:
        """Let this timer fire where f others suspect the primary already: the replica leaves its view."""
        while self.status.timers["status"] < self.status.timers[name]:
            self.fire("status")  # a longer silence would be taken for a pause of the replica
        now = self.status
        others = [i for i in range(self.world.n) if i not in (self.index, now.primary)]
        for peer in others[: faulty(self.world.n)]:
            self.recv(peer, standing(now.view, now.height, suspects=True))
        effects = self.fire(name)
        assert self.status.view == now.view + 1
        return effects

    def tx(self, *args: object, **changes: object) -> SignedTx:
        return Cluster.tx(self.world, *args, **changes)

    def submit(self, signed: SignedTx) -> Effects:
        return self.step(ClientTx(signed, signed.tx.digest(DOMAIN)))

    def reborn(self) -> "Solo":
        """The same replica after a crash, from what its disk holds."""
        fresh = Solo.__new__(Solo)
        fresh.__dict__.update(self.__dict__)
        fresh.app = Registers([key.address for key in CLIENTS])
        fresh.replica = Replica(self.world.config(self.index), KEYS[self.index], fresh.app)
        fresh.log = []
        fresh.step(Boot(self.disk.read()))
        return fresh


def standing(view: int = 0, height: int = 0, active: bool = True, suspects: bool = False, nonce: int = 5) -> Status:
    """The STATUS of a peer that has committed and accepted up to this height."""
    return Status(0, view, active, height, height, bytes(32), 0, 0, nonce, suspects)


def sent(effects: Effects, kind: type) -> list:
    """The messages of one kind that a step sends."""
    return [send.message for send in effects.send if isinstance(send.message, kind)]


def persisted(effects: Effects, kind: type) -> list:
    return [record for record in effects.persist if isinstance(record, kind)]
