"""Running a task, for its executor and its auditors alike: get module and input, open, run, digest.

Rule 1: the plaintext exists in memory only, from the opening to the end of the run; nothing here logs or stores it.
Rule 2: whatever keeps a task from being run is one of its result codes, told apart as market.md 5 demands: what could not
be fetched or opened for us is UNAVAILABLE, what is wrong for everybody is BAD_INPUT or BAD_MODULE.
"""

import asyncio
from dataclasses import dataclass, field

from edgora.compute.limits import MAX_WALL_MS, Limits, Outcome
from edgora.crypto.seal import KeyMismatch, NotRecipient, Opened, SealError, open_sealed, result_digest
from edgora.node.duties.post import Post
from edgora.node.records import InputRecord, context_of
from edgora.ports.blobs import Room
from edgora.ports.runner import Job
from edgora.wire.codec import decode, encode
from edgora.wire.errors import Refused, Unavailable
from edgora.wire.market import PAID_CODES, Offer, ResultCode
from edgora.wire.units import Fuel, Millis, ModuleDigest, Octets

__all__ = ["Ran", "Workbench"]

NO_DIGEST = bytes(32)
"""Result digest of a filing that has no input key to make one with."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended, as it is filed. output is empty unless code is OK."""

    code: ResultCode
    digest: bytes
    fuel_used: int
    output: bytes = field(default=b"", repr=False)
    detail: str = ""


class Workbench:
    """One node's way to run tasks."""

    def __init__(self, post: Post) -> None:
        self._post = post

    async def module(self, digest: bytes, servers: list[int]) -> bytes:
        """A module, from our store or from the first server that has it. Raises Unavailable."""
        post = self._post
        own = await asyncio.to_thread(post.blobs.get, Room.MODULES, digest)
        if own is not None:
            return own
        others = [server for server in servers if server != post.index]
        wasm = await post.peers.first_of(others, lambda server: post.peers.module(server, digest))
        await asyncio.to_thread(post.blobs.put, Room.MODULES, digest, wasm)
        return wasm

    async def sealed_input(self, offer_id: bytes, offer: Offer, servers: list[int]) -> InputRecord:
        """The sealed input with us as a recipient, from our store or a server that must give it. Raises Unavailable."""
        post = self._post
        own = await asyncio.to_thread(post.blobs.get, Room.INPUTS, offer_id)
        if own is not None:
            return decode(own, InputRecord)
        others = [server for server in servers if server != post.index]
        envelope, result_key = await post.peers.first_of(
            others, lambda server: post.peers.sealed_input(server, offer_id, offer.input_digest)
        )
        record = InputRecord(offer, envelope, result_key)
        await asyncio.to_thread(post.blobs.put, Room.INPUTS, offer_id, encode(record))
        return record

    async def run(self, record: InputRecord, wasm: bytes, wall_ms: int, speed: int) -> Ran:
        """Open, run, digest."""
        offer = record.offer
        try:
            opened = await asyncio.to_thread(self._open, record)
        except (NotRecipient, KeyMismatch) as error:
            return Ran(ResultCode.UNAVAILABLE, NO_DIGEST, 0, detail=error.detail)
        except (SealError, Refused) as error:
            return Ran(ResultCode.BAD_INPUT, NO_DIGEST, 0, detail=error.detail)
        try:
            outcome = await self._execute(offer, opened, wasm, wall_ms, speed)
        except Unavailable as error:
            return Ran(ResultCode.UNAVAILABLE, NO_DIGEST, 0, detail=error.detail)
        output = outcome.output if outcome.code is ResultCode.OK else b""
        fuel = outcome.fuel_used if outcome.code in PAID_CODES else 0
        digest = await asyncio.to_thread(result_digest, opened.key, int(outcome.code), output)
        return Ran(outcome.code, digest, fuel, output, outcome.reason)

    def _open(self, record: InputRecord) -> Opened:
        context = context_of(self._post.genesis, record.offer)
        return open_sealed(record.envelope, self._post.keys.sealing, context, record.offer.key_commit)

    async def _execute(self, offer: Offer, opened: Opened, wasm: bytes, wall_ms: int, speed: int) -> Outcome:
        limits = Limits(
            Fuel(offer.fuel_limit), offer.memory_pages, Octets(offer.output_octets),
            Millis(min(max(wall_ms, 1), MAX_WALL_MS)),
        )  # fmt: skip
        runner = self._post.runner
        digest = ModuleDigest(offer.module_digest)
        return await runner.run(Job(digest, None if runner.knows(digest) else wasm, opened.plaintext, limits, speed))
