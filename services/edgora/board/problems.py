"""Errors of the board's own routes, as the nodes answer theirs: problem+json with a stable code (RFC 9457)."""

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edgora.wire.errors import EdgoraError
from edgora.wire.rest import Problem

__all__ = ["answer_problem"]


async def answer_problem(_: Request, error: Exception) -> Response:
    """Exception handler for typed errors and for what the framework refuses by itself."""
    if isinstance(error, EdgoraError):
        status, code, detail, fix = error.status, error.code, error.detail, error.fix
    else:
        assert isinstance(error, HTTPException)
        status, code, detail, fix = error.status_code, f"http_{error.status_code}", error.detail, None
    document = Problem(
        type=f"urn:edgora:problem:{code}", title=detail, status=status, code=code, detail=detail,
        field=error.field if isinstance(error, EdgoraError) else None, fix=fix,
    )  # fmt: skip
    return Response(msgspec.json.encode(document), status, media_type="application/problem+json")
