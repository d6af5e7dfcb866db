"""What stands in for the chain and for the sandbox of a node under test.

`FakeChain` is the chain's port over lab.market_actors.DevChain: a block a call, never reorganised, down when told so.
`EchoRunner` is the runner's port without a machine: it gives the data back, reversed, or ends as the task's arguments
say.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from api.instant_ledger import FastClock
from edgora.compute.limits import Outcome
from edgora.compute.module import ModuleInfo, inspect
from edgora.crypto.sign import SigningKey
from edgora.lab.market_actors import Consortium, DevChain
from edgora.ports.chain import AccountView, ChainBlock, FoundFact, HeadView, LockView, Mined
from edgora.ports.runner import Job
from edgora.wire.codec import to_u96
from edgora.wire.errors import RuleRefused, Unavailable
from edgora.wire.hashing import keccak
from edgora.wire.inputs import TaskInput
from edgora.wire.market import BatchSettled, ChainFact, ResultCode, ServerRegistered
from edgora.wire.units import Fuel, Millis

__all__ = ["CODE", "WASM", "EchoRunner", "FakeChain"]

CODE = keccak(b"contract")
WASM = bytes.fromhex(
    # (module (memory (export "memory") 1) (func (export "alloc") (param i32) (result i32) i32.const 0)
    #         (func (export "run") (param i32 i32) (result i64) i64.const 0))
    "0061736d01000000010c0260017f017f60027f7f017e03030200010503010001071803066d656d6f72790200"
    "05616c6c6f6300000372756e00010a0b02040041000b040042000b"
)


class FakeChain:
    """ports.chain.Chain as far as a node uses it, over DevChain: a block a call, never reorganised."""

    def __init__(self, consortium: Consortium, clock: FastClock) -> None:
        self.genesis, self.clock = consortium.genesis, clock
        self.dev = DevChain(consortium)
        self.market = self.genesis.market_address
        self.registered: dict[bytes, int] = {}
        self.found: list[FoundFact] = []
        self.number = 1
        self.code = CODE
        self.settled: list[tuple[int, int]] = []
        """(batch id, server index of the relayer) of every settle that went through."""
        self.proofs: list[Any] = []
        self.down = False

    def _up(self) -> None:
        if self.down:
            raise Unavailable("the chain is not reached")

    def _hash(self, number: int) -> bytes:
        return keccak(b"chain block %d" % number)

    def put(self, fact: ChainFact | None) -> Mined:
        """Mine a fact of DevChain in a block of its own."""
        if fact is None:
            raise RuleRefused("reverted", rule="Reverted")
        self.number += 1
        placed = msgspec.structs.replace(fact, block_hash=self._hash(self.number), tx_index=0, log_index=0)
        self.found.append(FoundFact(self.number, placed))
        return Mined(keccak(placed.block_hash), self.number, placed.block_hash, 0, 50_000, None)

    async def chain_id(self) -> int:
        self._up()
        return self.genesis.chain_id

    async def latest(self) -> ChainBlock:
        self._up()
        return ChainBlock(self.number, self._hash(self.number), self.clock.now_ms() // 1000)

    async def block(self, number: int) -> ChainBlock | None:
        self._up()
        return ChainBlock(number, self._hash(number), 0) if number <= self.number else None

    async def code_hash(self, address: bytes) -> bytes | None:
        self._up()
        return self.code if address == self.market else None

    async def events(self, from_block: int, to_block: int) -> Sequence[FoundFact]:
        self._up()
        return [item for item in self.found if from_block <= item.block_number <= to_block]

    async def server_of(self, signer: bytes) -> int | None:
        self._up()
        return self.registered.get(signer)

    async def server_count(self) -> int:
        return len(self.registered)

    async def register(self, key: SigningKey, owner: bytes, meta_hash: bytes, stake: int) -> Mined:
        number = len(self.registered)
        self.registered[key.address] = number
        fact = ServerRegistered(number, owner, key.address, meta_hash, to_u96(stake))
        return self.put(ChainFact(bytes(32), 0, 0, fact))

    async def deposit_for(self, key: SigningKey, ue: bytes, wei: int) -> Mined:
        self._up()
        return self.put(self.dev.deposit(ue, wei))

    async def settle(self, key: SigningKey, batch_id: int, task_root: bytes, payload: bytes, proof: Any) -> Mined:
        self._up()
        fact = self.dev.settle(batch_id, task_root, payload, self.clock.now_ms() // 1000)
        if fact is None:
            raise RuleRefused("out of order", rule="SettlementOutOfOrder")
        self.proofs.append(proof)
        self.settled.append((batch_id, self.registered[key.address]))
        assert isinstance(fact.fact, BatchSettled)
        return self.put(fact)

    async def refund(self, key: SigningKey, ue: bytes, offer: bytes) -> Mined:
        self._up()
        return self.put(self.dev.refund(ue, offer, self.clock.now_ms() // 1000))

    async def account(self, ue: bytes) -> AccountView:
        found = self.dev._account(ue)
        return AccountView(found.balance, found.spent, found.exit_at_s, 0)

    async def lock_of(self, key: bytes) -> LockView:
        return LockView(*self.dev.locks.get(key, (0, 0)))

    async def head(self) -> HeadView:
        return HeadView(bytes(20), 0, self.dev.batch_id)

    async def close(self) -> None:
        pass


class EchoRunner:
    """A sandbox that gives the data back, reversed. args say how else a run ends: b"trap", b"wall", b"hang"."""

    slots = 2

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.begun = asyncio.Event()
        self.closed = False

    async def run(self, job: Job) -> Outcome:
        self.jobs.append(job)
        self.begun.set()
        task = TaskInput.unpack(job.plaintext)
        if task.args == b"hang":
            await asyncio.Event().wait()
        if task.args == b"wall":
            return Outcome(ResultCode.WALL, b"", Fuel(0), Millis(1), "wall")
        if task.args == b"trap":
            return Outcome(ResultCode.TRAP, b"", Fuel(77), Millis(1), "trap")
        return Outcome(ResultCode.OK, task.data[::-1], Fuel(1_000 + len(task.data)), Millis(1))

    async def prepare(self, wasm: bytes) -> ModuleInfo:
        return inspect(wasm)

    def knows(self, digest: bytes) -> bool:
        return False

    async def close(self) -> None:
        self.closed = True
