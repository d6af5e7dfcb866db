"""What this node answers other nodes' API halves (wire.peer, ledger.md 17).

Rule 1: bulk leaves only for a reason that stands on the ledger: an assignment, a drawn audit, a filed result. This half
may lag behind the asking one by some blocks, so a reason that is not there yet is waited for, briefly.
Rule 2: an input leaves with its key sealed anew to the caller's certified RSA key and to nobody else.
Rule 3: Held is signed after the sealed result is on disk.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from edgora.crypto.seal import Envelope, SealError, reseal
from edgora.market import duties
from edgora.node.duties.post import Post
from edgora.node.peers import decode_request
from edgora.node.records import InputRecord, ResultRecord
from edgora.ports.blobs import Room
from edgora.wire.codec import decode, encode
from edgora.wire.errors import EdgoraError, NotFound, Refused, TooLarge, Unavailable
from edgora.wire.market import Held
from edgora.wire.metadata import ServerMetadata
from edgora.wire.peer import (
    CHUNK,
    Answer,
    Chunk,
    Describe,
    Description,
    GetInput,
    GetModule,
    GetResult,
    HoldResult,
    InputAnswer,
    Kept,
    Refusal,
    Request,
    ResultAnswer,
)  # fmt: skip

__all__ = ["Holds"]

LAG_S = 2.0
"""How long a reason may take to reach our state after it reached the caller's."""
PARTIAL = 64
"""Results that may be on their way to us at a time."""
MAX_RESULT = 17 * 1024 * 1024


class _Partial:
    __slots__ = ("data", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.data = bytearray()


class Holds:
    """The peer handler."""

    def __init__(self, post: Post, document: ServerMetadata) -> None:
        self._post = post
        self._document = encode(document)
        self._partial: OrderedDict[tuple[bytes, int], _Partial] = OrderedDict()

    async def answer(self, caller: int, data: bytes) -> bytes:
        """Answer one request; a refusal is an answer, too."""
        try:
            return encode(await self._answer(caller, decode_request(data)))
        except EdgoraError as error:
            return encode(Refusal(error.code, error.detail))

    async def _answer(self, caller: int, request: Request) -> Answer:
        match request:
            case Describe():
                return Description(self._document, self._post.directory.position_mm(self._post.index))
            case GetModule():
                return await self._module(request)
            case GetInput():
                return await self._input(caller, request)
            case HoldResult():
                return await self._hold(caller, request)
            case GetResult():
                return await self._result(request)

    async def _once(self, holds: Callable[[], bool], refusal: str) -> None:
        """Wait until our state gives the reason. Raises Refused."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LAG_S
        while not holds():
            left = deadline - loop.time()
            if left <= 0:
                raise Refused(refusal)
            await self._post.moved_or(left)

    async def _module(self, request: GetModule) -> Chunk:
        data = await asyncio.to_thread(self._post.blobs.get, Room.MODULES, request.digest)
        if data is None:
            raise NotFound(f"module 0x{request.digest.hex()} is not here")
        return Chunk(len(data), data[request.offset : request.offset + CHUNK])

    async def _input(self, caller: int, request: GetInput) -> InputAnswer:
        post, offer_id = self._post, request.offer_id
        reason = f"server {caller} has neither an assignment nor an audit of this task"
        await self._once(lambda: duties.may_fetch_input(post.market, offer_id, caller), reason)
        data = await asyncio.to_thread(post.blobs.get, Room.INPUTS, offer_id)
        if data is None:
            raise NotFound(f"the input of task 0x{offer_id.hex()} is not here")
        record = decode(data, InputRecord)
        ciphertext = record.envelope.ciphertext
        head = b""
        if request.offset == 0:
            key = await post.directory.sealing_key(caller)
            bare = msgspec.structs.replace(record.envelope, ciphertext=b"")
            try:
                head = encode(await asyncio.to_thread(reseal, bare, post.keys.sealing, key, record.offer.key_commit))
            except SealError as error:
                raise Unavailable(error.detail) from None
        piece = ciphertext[request.offset : request.offset + CHUNK]
        return InputAnswer(head, len(ciphertext), piece, record.result_key)

    async def _hold(self, caller: int, request: HoldResult) -> Kept:
        post, offer_id = self._post, request.offer_id
        reason = f"server {caller} is not the executor of this task"
        await self._once(lambda: duties.may_hold_result(post.market, offer_id, caller), reason)
        whole = self._collected(caller, request)
        if whole is None:
            return Kept(post.index, 0, None)
        envelope = decode(whole, Envelope)
        if envelope.cipher_digest != request.cipher_digest:
            raise Refused("the sealed result is not the announced one")
        record = encode(ResultRecord(offer_id, request.code, request.result_digest, envelope))
        await asyncio.to_thread(post.blobs.put, Room.RESULTS, offer_id, record)
        seen_ms = post.clock.now_ms()
        held = Held(offer_id, request.result_digest, request.cipher_digest, seen_ms)
        return Kept(post.index, seen_ms, post.keys.signer.sign(held.digest(post.genesis.ledger_domain())))

    def _collected(self, caller: int, request: HoldResult) -> bytes | None:
        """The whole sealed result once its last chunk is here."""
        if request.total > MAX_RESULT or len(request.data) > CHUNK:
            raise TooLarge(f"a result of {request.total} octets in chunks of {len(request.data)}")
        name = (request.offer_id, caller)
        if request.offset == 0:
            self._partial.pop(name, None)
            if len(self._partial) >= PARTIAL:
                self._partial.popitem(last=False)  # the oldest one: its executor has likely given up
            self._partial[name] = _Partial(request.total)
        partial = self._partial.get(name)
        if partial is None or partial.total != request.total or len(partial.data) != request.offset:
            raise Refused(f"chunk at {request.offset} is out of order; start again at 0")
        partial.data += request.data
        if len(partial.data) < partial.total:
            return None
        del self._partial[name]
        if len(partial.data) > partial.total:
            raise Refused(f"{len(partial.data)} octets of an announced {partial.total}")
        return bytes(partial.data)

    async def _result(self, request: GetResult) -> ResultAnswer:
        post, offer_id = self._post, request.offer_id
        await self._once(lambda: duties.may_serve_result(post.market, offer_id), "this task's result is not served")
        data = await asyncio.to_thread(post.blobs.get, Room.RESULTS, offer_id)
        if data is None:
            raise NotFound(f"the result of task 0x{offer_id.hex()} is not here")
        record = decode(data, ResultRecord)
        whole = encode(record.envelope)
        piece = whole[request.offset : request.offset + CHUNK]
        return ResultAnswer(len(whole), piece, record.code, record.result_digest)
