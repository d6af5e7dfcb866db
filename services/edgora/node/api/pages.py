"""Pages of other origins that may read this API (WHATWG Fetch, CORS): the board, and whoever the operator names.

Rule 1: reading only. A page gets the public resources and the event stream; what changes something needs a signature
that no page of ours makes, or is for development only.
Rule 2: only /v1. An origin that is not named gets no header at all, and a browser keeps the answer from its page.
"""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Pages"]

_KEEP_S = 600
"""How long a browser need not ask again whether it may send Last-Event-ID."""


class Pages:
    """ASGI middleware: answers for /v1 carry the CORS headers of the origins that may read it."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        self._app = app
        self._readable = CORSMiddleware(
            app, allow_origins=list(origins), allow_methods=["GET"], allow_headers=["Last-Event-ID"],
            expose_headers=["Retry-After"], max_age=_KEEP_S,
        )  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        readable = scope["type"] == "http" and scope["path"].startswith("/v1/")
        await (self._readable if readable else self._app)(scope, receive, send)
