"""Clients of a simulated ledger: who asks what of whom, and what they take for an answer (ledger.md 8, 19).

A client keeps a few transactions in flight per lane, sends the identical bytes to another machine while it is not
answered, and signs a sequence number anew only once the old transaction can never be ordered any more. A misbehaving
client repeats, skips and garbles; none of that may change what the others see.
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from edgora.lab.sim.counter import CounterApp, CounterOp, Do
from edgora.lab.sim.history import Operation
from edgora.wire.application import Application, Applied
from edgora.wire.codec import encode
from edgora.wire.ledger import Kind, LedgerCode, OrderedTx, Receipt, SignedTx, Tx

if TYPE_CHECKING:
    from edgora.lab.sim.host import Host
    from edgora.lab.sim.registry import Signer
    from edgora.lab.sim.world import World

__all__ = ["CounterLoad", "Load"]

RETRY_MS = 1_500
IN_FLIGHT = 3
VALID_BLOCKS = 300
"""V_max of simulated ledgers; short, so that expiry happens."""


KINDS = (Kind.TASK,) * 8 + (Kind.NOOP, Kind.EVIDENCE)
"""Mostly one that the application runs; the ledger answers the other two itself."""


class Load(Protocol):
    """A source of transactions with the application that they are for."""

    operations: list[Operation]

    @property
    def validators(self) -> Sequence["Signer"] | None:
        """The validators' keys, where the application must know them; None leaves them to the world."""
        ...

    def application(self) -> Application:
        """A fresh instance in its genesis state."""
        ...

    def start(self, world: "World") -> None: ...
    def stop(self) -> None:
        """Invoke nothing new; go on asking for what is under way."""
        ...

    def published(self, host: "Host", receipts: Sequence[Receipt]) -> None:
        """A correct machine published a block's receipts."""
        ...

    def refused(self, host: "Host", tx_hash: bytes, reason: str) -> None:
        """A machine does not take, or dropped, a transaction."""
        ...

    def unfinished(self) -> list[Operation]:
        """What correct clients still wait for."""
        ...

    def check(self, txs: Sequence[OrderedTx], applied: Applied) -> None:
        """Application invariants after a block that the reference has just executed. Raises Violation."""
        ...


class _Lane:
    __slots__ = ("flying", "next_seq")

    def __init__(self) -> None:
        self.next_seq = 0
        self.flying: list[Operation] = []


class _Client:
    def __init__(self, signer: "Signer", lanes: int) -> None:
        self.signer = signer
        self.lanes = [_Lane() for _ in range(lanes)]


class CounterLoad:
    """Correct clients, and if wanted strangers, of the counter application."""

    def __init__(self, seed: int, clients: Sequence["Signer"], strangers: Sequence["Signer"], ops_per_s: int) -> None:
        self.operations: list[Operation] = []
        self.validators: Sequence[Signer] | None = None
        self._rng = random.Random(f"load:{seed}")
        self._clients = [_Client(signer, 1 + i % 2) for i, signer in enumerate(clients)]
        self._strangers = list(strangers)
        self._known = [s.address for s in (*clients, *strangers[1:])]  # strangers[0] is not known to the application
        self._gap_ms = 1_000 // ops_per_s
        self._waiting: dict[bytes, Operation] = {}
        self._asked: dict[bytes, set[str]] = {}
        self._stopped = False

    def application(self) -> Application:
        return CounterApp(self._known)

    def start(self, world: "World") -> None:
        self.attach(world)
        world.at(world.now + 1, self._tick)

    def attach(self, world: "World") -> None:
        """Know the world, invoke nothing by itself."""
        self._world = world
        world.at(world.now + RETRY_MS, self._retry)

    def invoke(self, count: int) -> None:
        """Have clients invoke so many operations now, each at every machine."""
        for i in range(count):
            client = self._clients[i % len(self._clients)]
            operation = self._next(client, 0)
            for host in self._world.doors:
                self._send(operation, host)

    def stop(self) -> None:
        self._stopped = True

    # ---- invoking ----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._stopped:
            return
        world, rng = self._world, self._rng
        world.at(world.now + rng.randint(1, 2 * self._gap_ms), self._tick)
        for _ in range(rng.choice((1, 1, 1, 4))):
            client = rng.choice(self._clients)
            number = rng.randrange(len(client.lanes))
            if len(client.lanes[number].flying) < IN_FLIGHT:
                self._send(self._next(client, number))
        if self._strangers and rng.random() < 0.3:
            self._misbehave(rng.choice(self._strangers))

    def _next(self, client: _Client, number: int) -> Operation:
        lane = client.lanes[number]
        operation = self._sign(client.signer, number, lane.next_seq, self._payload(), honest=True)
        lane.next_seq += 1
        lane.flying.append(operation)
        return operation

    def _payload(self) -> bytes:
        rng = self._rng
        do = rng.choices((Do.ADD, Do.PUT, Do.READ, Do.ALARM, Do.ENROL), (60, 10, 20, 5, 5))[0]
        if do == Do.ENROL:
            return encode(CounterOp(do, rng.randbytes(20), 0))
        amount = rng.choice((10, 400, 2_500)) if do == Do.ALARM else rng.randint(0, 400_000)
        return encode(CounterOp(do, rng.choice((b"x", b"y", b"zebra")), amount))

    def _sign(self, signer: "Signer", lane: int, seq: int, payload: bytes, *, honest: bool, life: int = 0) -> Operation:
        world = self._world
        until = world.height + (life or self._rng.choice((60, 150, 250)))
        tx = Tx(self._rng.choice(KINDS), signer.address, lane, seq, until, payload)
        digest = bytes(tx.digest(world.domain))
        operation = Operation(SignedTx(tx, signer.sign(digest)), digest, world.now, honest=honest)
        self.operations.append(operation)
        self._waiting[digest] = operation
        self._asked[digest] = set()
        return operation

    def _misbehave(self, signer: "Signer") -> None:
        rng = self._rng
        lane, seq = rng.choice((0, 0, 1, rng.randrange(40))), rng.choice((0, 0, 1, 2, 3, 70, 2**63))
        payload = rng.choice((self._payload(), b"", b"\xc1", rng.randbytes(12)))
        operation = self._sign(signer, lane, seq, payload, honest=False, life=rng.choice((1, 2, 5, 100, 2_000)))
        for _ in range(rng.randint(1, 3)):
            self._send(operation)

    # ---- asking and being answered --------------------------------------------------------------------------------------

    def _send(self, operation: Operation, door: "Host | None" = None) -> None:
        world = self._world
        host = door or self._rng.choice(world.doors)
        operation.sent_ms = world.now
        if not host.up:
            return
        asked = self._asked.get(operation.hash)
        if asked is None:
            return  # answered meanwhile
        asked.add(host.name)
        receipt = world.reference.first_receipt.get(operation.hash)
        if receipt is not None and receipt.height <= host.height:
            self._answer(operation, receipt)  # this machine's index has it already
            return
        host.submit(operation.tx, operation.hash)

    def published(self, host: "Host", receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            operation = self._waiting.get(receipt.tx_hash)
            if operation is not None and host.name in self._asked[receipt.tx_hash]:
                self._answer(operation, self._world.reference.first_receipt[receipt.tx_hash])

    def refused(self, host: "Host", tx_hash: bytes, reason: str) -> None:
        """Nothing to do: the client asks elsewhere when its patience ends."""

    def _answer(self, operation: Operation, receipt: Receipt) -> None:
        operation.answered_ms = self._world.now
        operation.receipt = receipt
        self._forget(operation)
        if operation.honest and receipt.code == LedgerCode.SEQ_GAP:
            # A faulty primary ordered it before its predecessor: nothing was consumed, and these bytes have that
            # receipt for good. The number must be filled, or all that follows in the lane waits for ever (ledger.md 8).
            self._renewed(operation)

    def _forget(self, operation: Operation) -> None:
        self._waiting.pop(operation.hash, None)
        self._asked.pop(operation.hash, None)
        for client in self._clients:
            for lane in client.lanes:
                if operation in lane.flying:
                    lane.flying.remove(operation)

    def _retry(self) -> None:
        world = self._world
        world.at(world.now + RETRY_MS // 3, self._retry)
        for operation in list(self._waiting.values()):
            if world.now - operation.sent_ms < RETRY_MS:
                continue
            tx, placed = operation.tx.tx, operation.hash in world.reference.first_receipt
            if not placed and tx.seq < world.reference.due(tx):
                # The same order under an earlier signature: ordered too early once, it was pooled again and ran.
                operation.given_up = True
                self._forget(operation)
            elif not placed and world.height > tx.valid_until:
                self._anew(operation)
            elif operation.honest:
                self._send(operation)

    def _anew(self, operation: Operation) -> None:
        """Expired for good: the sequence number is free for a new transaction."""
        operation.given_up = True
        self._forget(operation)
        renewed = self._renewed(operation)
        if renewed is not None:
            self._send(renewed)

    def _renewed(self, operation: Operation) -> Operation | None:
        """The same order signed anew for the same place of its lane; it is sent when the client's patience ends."""
        home = next((c for c in self._clients if c.signer.address == operation.tx.tx.sender), None)
        if home is None or not operation.honest:
            return None
        tx = operation.tx.tx
        renewed = self._sign(home.signer, tx.lane, tx.seq, tx.payload, honest=True)
        home.lanes[tx.lane].flying.append(renewed)
        return renewed

    def unfinished(self) -> list[Operation]:
        return [operation for operation in self._waiting.values() if operation.honest]

    def check(self, _txs: Sequence[OrderedTx], _applied: Applied) -> None:
        """Every rule of this application is in its receipts, which the reference compares anyway."""
