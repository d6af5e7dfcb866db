"""Typed calls to other nodes' API halves over `Consensus.call` (wire.peer).

Rule 1: whatever comes back is checked by the caller against a digest it knows from the ledger; a peer is not trusted.
Rule 2: a Refusal becomes Unavailable here, because another holder may well serve the same thing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from edgora.crypto.seal import Envelope
from edgora.ports.consensus import Consensus
from edgora.wire.codec import decode, encode
from edgora.wire.errors import Unavailable, WireError
from edgora.wire.hashing import keccak
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

__all__ = ["MAX_MODULE", "MAX_SEALED_RESULT", "Peers", "decode_answer", "decode_request"]

T = TypeVar("T")

MAX_MODULE = 4 * 1024 * 1024
MAX_CIPHER = 16 * 1024 * 1024
MAX_SEALED_RESULT = 17 * 1024 * 1024
"""A stored result record: ciphertext and its envelope."""
TIMEOUT_MS = 5_000
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def decode_request(data: bytes) -> Request:
    """Raises WireError for anything but one canonical request."""
    try:
        request = _requests.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"peer request: {error}") from None
    if encode(request) != data:
        raise WireError("peer request: not in canonical form")
    return request


def decode_answer(data: bytes) -> Answer:
    try:
        return _answers.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unavailable(f"a peer's answer does not decode: {error}") from None


class Peers:
    """The other nodes, as things that can be asked."""

    def __init__(self, consensus: Consensus) -> None:
        self._consensus = consensus

    async def _ask(self, server: int, request: Request, kind: type[T]) -> T:
        answer = decode_answer(await self._consensus.call(server, encode(request), TIMEOUT_MS))
        if isinstance(answer, Refusal):
            raise Unavailable(f"server {server} refuses: {answer.detail}")
        if not isinstance(answer, kind):
            raise Unavailable(f"server {server} answered with a {type(answer).__name__}")
        return answer

    async def _collect(self, part: Callable[[int], Awaitable[tuple[int, bytes]]], limit: int) -> bytes:
        """All chunks of a thing of unknown but bounded length."""
        data = bytearray()
        while True:
            total, piece = await part(len(data))
            if total > limit or len(data) + len(piece) > total or (not piece and len(data) < total):
                raise Unavailable(f"a peer announced {total} octets and sent {len(data) + len(piece)}")
            data += piece
            if len(data) == total:
                return bytes(data)

    async def describe(self, server: int) -> Description:
        return await self._ask(server, Describe(), Description)

    async def module(self, server: int, digest: bytes) -> bytes:
        """A module's octets, checked against its digest."""

        async def part(offset: int) -> tuple[int, bytes]:
            chunk = await self._ask(server, GetModule(digest, offset), Chunk)
            return chunk.total, chunk.data

        data = await self._collect(part, MAX_MODULE)
        if keccak(data) != digest:
            raise Unavailable(f"server {server} sent another module than {digest.hex()}")
        return data

    async def sealed_input(self, server: int, offer_id: bytes, input_digest: bytes) -> tuple[Envelope, bytes]:
        """The sealed input with one recipient, us, and the SPKI that the result is to be sealed to."""
        first = await self._ask(server, GetInput(offer_id, 0), InputAnswer)

        async def part(offset: int) -> tuple[int, bytes]:
            answer = first if offset == 0 else await self._ask(server, GetInput(offer_id, offset), InputAnswer)
            return answer.total, answer.data

        ciphertext = await self._collect(part, MAX_CIPHER)
        try:
            envelope = msgspec.structs.replace(decode(first.head, Envelope), ciphertext=ciphertext)
        except WireError as error:
            raise Unavailable(f"server {server}: {error.detail}") from None
        if envelope.cipher_digest != input_digest:
            raise Unavailable(f"server {server} sent another input than {input_digest.hex()}")
        return envelope, first.result_key

    async def hold(self, server: int, offer_id: bytes, code: int, result_digest: bytes, envelope: Envelope) -> Kept:
        """Give a sealed result to keep; the last chunk's answer carries the signature."""
        data, cipher_digest = encode(envelope), envelope.cipher_digest
        for offset in range(0, len(data), CHUNK):
            piece = data[offset : offset + CHUNK]
            request = HoldResult(offer_id, code, result_digest, cipher_digest, len(data), offset, piece)
            kept = await self._ask(server, request, Kept)
        if kept.signature is None:
            raise Unavailable(f"server {server} did not confirm the whole result")
        return kept

    async def sealed_result(self, server: int, offer_id: bytes, cipher_digest: bytes) -> tuple[Envelope, bytes]:
        """(envelope, result digest) from a holder, checked against the ledger's cipher digest."""
        digests: list[bytes] = []

        async def part(offset: int) -> tuple[int, bytes]:
            answer = await self._ask(server, GetResult(offer_id, offset), ResultAnswer)
            digests.append(answer.result_digest)
            return answer.total, answer.data

        data = await self._collect(part, MAX_SEALED_RESULT)
        try:
            envelope = decode(data, Envelope)
        except WireError as error:
            raise Unavailable(f"server {server}: {error.detail}") from None
        if envelope.cipher_digest != cipher_digest:
            raise Unavailable(f"server {server} sent another result than {cipher_digest.hex()}")
        return envelope, digests[0]

    async def first_of(self, servers: list[int], ask: Callable[[int], Awaitable[T]]) -> T:
        """What the first server that can serve says, asked one after the other. Raises Unavailable if none can."""
        told: list[str] = []
        for server in servers:
            try:
                return await ask(server)
            except Unavailable as error:
                told.append(error.detail)
                await asyncio.sleep(0)
        raise Unavailable("; ".join(told) or "no server holds it")
