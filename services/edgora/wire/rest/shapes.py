"""Shapes and values that many REST resources share (wire.rest): hex, wei, envelopes, offers, problems, reasons."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

__all__ = [
    "B64",
    "STRICT",
    "U8",
    "U16",
    "U32",
    "U40",
    "U48",
    "U64",
    "Hex",
    "Hex20",
    "Hex32",
    "Hex65",
    "JweEnvelope",
    "JweRecipient",
    "JweRecipientHeader",
    "LedgerLevel",
    "OfferBody",
    "Problem",
    "ReasonBody",
    "Shape",
    "TaskStateName",
    "Text",
    "VoucherBody",
    "WaitLevel",
    "Wei",
]  # fmt: skip


class Shape:
    """A constraint that pydantic puts into its schema: same words as msgspec.Meta, without importing pydantic here."""

    def __init__(self, **limits: object) -> None:
        self.limits = limits

    def __get_pydantic_core_schema__(self, source: object, handler: Any) -> dict[str, object]:
        """Pydantic's hook: the plain type's schema, strict and with these limits."""
        schema: dict[str, object] = dict(handler(source))
        schema.update(self.limits, strict=True)
        return schema


def _hex(octets: int) -> str:
    return f"^0x[0-9a-f]{{{2 * octets}}}$"


_ANY = "^0x([0-9a-f]{2})*$"
_WEI = "^(0|[1-9][0-9]{0,38})$"
Hex = Annotated[str, msgspec.Meta(pattern=_ANY), Shape(pattern=_ANY)]
Hex20 = Annotated[str, msgspec.Meta(pattern=_hex(20)), Shape(pattern=_hex(20))]
Hex32 = Annotated[str, msgspec.Meta(pattern=_hex(32)), Shape(pattern=_hex(32))]
Hex65 = Annotated[str, msgspec.Meta(pattern=_hex(65)), Shape(pattern=_hex(65))]
Wei = Annotated[str, msgspec.Meta(pattern=_WEI), Shape(pattern=_WEI)]
Text = Annotated[str, Shape(max_length=4096)]
U8 = Annotated[int, msgspec.Meta(ge=0, le=2**8 - 1), Shape(ge=0, le=2**8 - 1)]
U16 = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1), Shape(ge=0, le=2**16 - 1)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1), Shape(ge=0, le=2**32 - 1)]
U40 = Annotated[int, msgspec.Meta(ge=0, le=2**40 - 1), Shape(ge=0, le=2**40 - 1)]
U48 = Annotated[int, msgspec.Meta(ge=0, le=2**48 - 1), Shape(ge=0, le=2**48 - 1)]
U64 = Annotated[int, msgspec.Meta(ge=0), Shape(ge=0, le=2**63 - 1)]
"""Counters: 64 bits on the ledger, 63 in JSON, where more would not survive every reader."""
B64 = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]*$"), Shape(pattern="^[A-Za-z0-9_-]*$")]
"""base64url without padding, as JWE demands."""

TaskStateName = Literal[
    "OPEN", "ASSIGNED", "DONE", "FINAL", "CERTIFIED", "SETTLED", "EXPIRED", "CANCELLED", "LATE", "FAILED", "DISPUTED",
    "UNPAYABLE", "REFUNDED",
]  # fmt: skip
LedgerLevel = Literal["UNKNOWN", "ADMITTED", "COMMITTED", "CERTIFIED"]
WaitLevel = Literal["admitted", "committed", "certified"]

STRICT = {"extra": "forbid"}
"""Requests refuse fields they do not know."""

# ---- errors and values that many share -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """RFC 9457. detail says what was wrong, with which value; fix says what to do."""

    type: str
    """urn:edgora:problem:<code>"""
    title: str
    status: int
    code: str
    """One of wire.errors: bad_request, bad_encoding, bad_signature, too_large, not_found, conflict, too_many,
    rule_refused, unavailable, unknown."""
    detail: str
    field: str | None = None
    """Path of the input at fault, e.g. offer.fuel_limit or query.limit."""
    fix: str | None = None
    rule: str | None = None
    """Name of the ledger's or the market's code when a receipt refused it."""
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonBody:
    """A reason as a value and as the sentence that every surface shows."""

    code: str
    subject: str
    numbers: list[int]
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JweRecipientHeader:
    __pydantic_config__ = STRICT
    alg: Literal["RSA-OAEP-256"]
    kid: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class JweRecipient:
    __pydantic_config__ = STRICT
    header: JweRecipientHeader
    encrypted_key: B64


@dataclass(frozen=True, slots=True, kw_only=True)
class JweEnvelope:
    """JWE General JSON serialisation (RFC 7516 7.2.1), A256GCM under RSA-OAEP-256 (README.md, Sealing)."""

    __pydantic_config__ = STRICT
    protected: B64
    aad: B64
    iv: B64
    ciphertext: B64
    tag: B64
    recipients: list[JweRecipient]


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferBody:
    """wire.market.Offer in JSON; same names, same order."""

    __pydantic_config__ = STRICT
    ue: Hex20
    nonce: U64
    module_digest: Hex32
    input_digest: Hex32
    input_octets: U32
    output_octets: U32
    memory_pages: U16
    fuel_limit: U48
    price: U32
    desired_ms: U32
    deadline_ms: U48
    result_key: Hex32
    key_commit: Hex32
    source: U16
    flags: U8


@dataclass(frozen=True, slots=True, kw_only=True)
class VoucherBody:
    __pydantic_config__ = STRICT
    cap: Wei
    valid_until_s: U40
    signature: Hex65
