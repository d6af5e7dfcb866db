"""Every error of the API is a problem document (RFC 9457) with a stable code, the field at fault and what to do.

wire.errors is the only tree; here it is put on the wire. What a framework refuses by itself (a path that is not there,
a wrong method, a body that does not fit its type) is turned into the same form. Nothing a client sends may end in 500.
"""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from edgora.wire.errors import EdgoraError, RuleRefused, TooMany
from edgora.wire.rest import Problem

__all__ = ["PROBLEM_JSON", "also", "errors", "from_validation", "install", "problem", "problem_response"]

PROBLEM_JSON = "application/problem+json"
_log = logging.getLogger("edgora.api")
_encoder = msgspec.json.Encoder()

_FIXES = {
    "missing": "add the field",
    "unexpected_keyword_argument": "remove the field; this version does not know it",
    "extra_forbidden": "remove the field; this version does not know it",
    "json_invalid": "send well-formed JSON in UTF-8",
    "string_pattern_mismatch": "write octets as lower-case 0x-hex of the right length, wei as a decimal string",
    "int_type": "send a JSON integer, without quotes",
    "int_parsing": "give a decimal integer",
    "string_type": "send a JSON string",
    "dataclass_type": "send a JSON object",
    "list_type": "send a JSON array",
    "literal_error": "use one of the values that the message names",
}


_BY_CODE = {
    "bad_encoding": "build it with the SDK, or see /openapi.json for what the field may be",
    "bad_module": "export one memory named memory, and either alloc and run, or _start",
    "unavailable": "try again in a moment, or use another node",
}
"""What to do where the error itself does not say it."""


def problem(error: EdgoraError) -> Problem:
    """The document for an error."""
    return Problem(
        type=f"urn:edgora:problem:{error.code}",
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        code=error.code,
        detail=error.detail,
        field=error.field,
        fix=error.fix or _BY_CODE.get(error.code),
        rule=error.rule if isinstance(error, RuleRefused) else None,
        retry_after_s=error.retry_after_s if isinstance(error, TooMany) else None,
    )


def problem_response(document: Problem, headers: Mapping[str, str] | None = None) -> Response:
    extra = dict(headers or {})
    if document.retry_after_s is not None:
        extra["Retry-After"] = str(document.retry_after_s)
    return Response(_encoder.encode(document), document.status, extra, PROBLEM_JSON)


def _plain(status: int, code: str, detail: str, *, field: str | None = None, fix: str | None = None) -> Problem:
    return Problem(
        type=f"urn:edgora:problem:{code}", title=HTTPStatus(status).phrase, status=status, code=code, detail=detail,
        field=field, fix=fix,
    )  # fmt: skip


async def _edgora(_: Request, error: Exception) -> Response:
    if not isinstance(error, EdgoraError):
        raise error
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warning("request failed", extra={"code": error.code, "detail": error.detail})
    return problem_response(problem(error))


def _path_of(location: Sequence[Any]) -> str:
    """`offer.fuel_limit` for a body's field, `query.limit` for a parameter."""
    names = [str(part) for part in location] or ["body"]
    return ".".join(names[1:]) if names[0] == "body" and len(names) > 1 else ".".join(names)


def from_validation(found: Sequence[Any]) -> Problem:
    """The document for pydantic's list of errors: the first one, by the path of its field."""
    first = found[0]
    kind, message = str(first["type"]), str(first["msg"])
    field = "body" if kind == "json_invalid" else _path_of(first["loc"])
    where = "the body is not JSON" if kind == "json_invalid" else f"{field}: {message}"
    fix = _FIXES.get(kind, "see /openapi.json for what the field may be")
    return _plain(400, "bad_request", where, field=field, fix=fix)


async def _validation(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return problem_response(from_validation(error.errors()))


_STATUS = {
    404: ("not_found", "no such path", "see /openapi.json for the paths"),
    405: ("method_not_allowed", "this path does not take that method", "see the Allow header"),
}


async def _http(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code, detail, fix = _STATUS.get(error.status_code, ("bad_request", str(error.detail), None))
    return problem_response(_plain(error.status_code, code, detail, fix=fix), error.headers)


async def _unexpected(_: Request, error: Exception) -> Response:
    _log.error("unexpected error", exc_info=error)
    return problem_response(_plain(500, "internal", "this node failed; its log says why", fix="try another node"))


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that may answer these, each a problem document."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def also(status: int, model: type, description: str) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that may also answer with this status and body."""
    return {status: {"model": model, "description": description}}


def install(app: FastAPI) -> None:
    """Make every error of the application a problem document."""
    app.add_exception_handler(EdgoraError, _edgora)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
