"""The one tree of errors that cross a boundary.

EdgoraError
|-- Refused          the caller's input is at fault: names the field, the value and the fix; 4xx
|   |-- WireError        bytes that are not a canonical structure
|   |-- BadSignature     nobody, or somebody else, signed
|   |-- Forbidden        a page of another site, or a request that none of our own pages makes
|   |-- TooLarge         over a limit of ledger.md 16 or market.md 8
|   |-- NotFound         no such thing, or not any more
|   |-- Conflict         contradicts what is already here
|   |-- TooMany          a rate or pool limit; retry_after_s says when
|   `-- RuleRefused      the ledger executed the transaction and its rule said no; carries the receipt's code
|-- Unavailable      this node cannot serve it now, another may; 503
|   `-- Unknown          a wait ran out: the outcome is unknown, send the identical bytes again; 504
`-- Broken           our own fault: a divergence, a failed sync, a corrupt file; the process stops

The API renders each as problem+json (RFC 9457) with the stable `code`; the CLI exits with 2 for Refused, else 1.
"""

from typing import ClassVar

__all__ = [
    "BadSignature", "Broken", "Conflict", "EdgoraError", "Forbidden", "NotFound", "Refused", "RuleRefused", "TooLarge", "TooMany",
    "Unavailable", "Unknown", "WireError",
]  # fmt: skip


class EdgoraError(Exception):
    """An error with a stable code that a person can act on.

    detail is one sentence: what was wrong, with which value, what to do. field is the path of the input at fault.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, detail: str, *, field: str | None = None, fix: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.fix = fix


class Refused(EdgoraError):
    code = "bad_request"
    status = 400


class WireError(Refused):
    code = "bad_encoding"


class BadSignature(Refused):
    code = "bad_signature"
    status = 401


class Forbidden(Refused):
    code = "forbidden"
    status = 403


class TooLarge(Refused):
    code = "too_large"
    status = 413


class NotFound(Refused):
    code = "not_found"
    status = 404


class Conflict(Refused):
    code = "conflict"
    status = 409


class TooMany(Refused):
    code = "too_many"
    status = 429

    def __init__(self, detail: str, *, retry_after_s: int, field: str | None = None, fix: str | None = None) -> None:
        super().__init__(detail, field=field, fix=fix)
        self.retry_after_s = retry_after_s


class RuleRefused(Refused):
    """A receipt with a code other than 0. `rule` is the enum's name, e.g. VOUCHER_SHORT."""

    code = "rule_refused"
    status = 422

    def __init__(self, detail: str, *, rule: str, field: str | None = None, fix: str | None = None) -> None:
        super().__init__(detail, field=field, fix=fix)
        self.rule = rule


class Unavailable(EdgoraError):
    code = "unavailable"
    status = 503


class Unknown(Unavailable):
    code = "unknown"
    status = 504


class Broken(EdgoraError):
    code = "broken"
