"""What one server's API half asks another's, over the authenticated sync-class link (ledger.md 17, market.md 5).

Requests and answers are tagged MessagePack arrays in canonical form. Bulk travels in chunks of at most 1 MiB: the
caller asks for an offset and goes on until it has `total` octets. Who may have what is decided by the answering side
from its own ledger state: an input only for the executor that the task is assigned to or an auditor that was drawn
for it, a result to store only from the executor, a stored result only once its RESULT_HASH is on the ledger and while
the task is neither LATE nor DISPUTED. Modules and key documents are public.
"""

import msgspec

from edgora.wire.codec import B32, U8, U16, U32, U48

__all__ = [
    "CHUNK", "Answer", "Chunk", "Describe", "Description", "GetInput", "GetModule", "GetResult", "HoldResult",
    "InputAnswer", "Kept", "Refusal", "Request", "ResultAnswer",
]  # fmt: skip

CHUNK = 1024 * 1024
"""Octets of bulk in one answer or request."""


# ---- requests ----------------------------------------------------------------------------------------------------------


class Describe(msgspec.Struct, frozen=True, array_like=True, tag=0, forbid_unknown_fields=True):
    """Who are you? Answered by Description; believed only if the document's hash is the certified metaHash."""


class GetModule(msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    digest: B32
    offset: U32


class GetInput(msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """The sealed input, its key sealed anew to the caller's certified RSA key. Answered by InputAnswer."""

    offer_id: B32
    offset: U32


class HoldResult(msgspec.Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """The executor gives a sealed result (JWE in JSON) to keep, chunk by chunk in order."""

    offer_id: B32
    code: U8
    result_digest: B32
    cipher_digest: B32
    total: U32
    offset: U32
    data: bytes


class GetResult(msgspec.Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    offer_id: B32
    offset: U32


Request = Describe | GetModule | GetInput | HoldResult | GetResult

# ---- answers -----------------------------------------------------------------------------------------------------------


class Description(msgspec.Struct, frozen=True, array_like=True, tag=0, forbid_unknown_fields=True):
    document: bytes
    """Canonical ServerMetadata."""
    position_mm: tuple[int, int] | None
    """Where the server stands, in millimetres; informative."""


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    total: U32
    data: bytes


class InputAnswer(msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """head comes with offset 0 only, else it is empty: the JWE in JSON with an empty ciphertext and one recipient."""

    head: bytes
    total: U32
    """Octets of ciphertext."""
    data: bytes
    result_key: bytes
    """SPKI DER that the result is to be sealed to."""


class Kept(msgspec.Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """signature None: go on with the next chunk."""

    server: U16
    seen_ms: U48
    signature: bytes | None


class ResultAnswer(msgspec.Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """data is a part of the sealed result's JSON."""

    total: U32
    data: bytes
    code: U8
    result_digest: B32


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    """code as in wire.errors; detail is one sentence."""

    code: str
    detail: str


Answer = Description | Chunk | InputAnswer | Kept | ResultAnswer | Refusal
