"""The board's page over HTTP: static files, /board.json and, where the scenario allows faults, the panel's routes.

Rule 1: nothing but the page comes from here; what it shows comes from the nodes.
Rule 2: no script, style, font or picture of another host, nothing inline, no frame: the Content-Security-Policy of
every answer says so and names the nodes as the only other places to connect to.
Rule 3: only a request for a name that the board was started under is answered, so that a page of another site cannot
reach it through a name that it has pointed here (DNS rebinding).

`python -m edgora.board.app --node URL... --listen HOST:PORT` runs it; `edgora board` is the same for people.
"""

import argparse
import asyncio
import importlib.metadata
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgora.adapters.http_faults import HttpFaults
from edgora.board.faults import fault_routes
from edgora.board.kernels import shipped_kernels
from edgora.board.nodes import BoardNodes
from edgora.board.problems import answer_problem
from edgora.board.settings import BoardSettings
from edgora.wire.errors import EdgoraError, Refused

__all__ = ["STATIC", "build_board", "main", "policy", "run_board"]

STATIC = Path(__file__).parent / "static"
VERSION = importlib.metadata.version("edgora")
_HEADERS = {
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}  # fmt: skip
_REVALIDATE = "no-cache"
"""Kept by the browser, asked for again by its validator: a newer board is seen at the next load."""


def policy(urls: Sequence[str]) -> str:
    """The Content-Security-Policy of a page that reads these nodes."""
    return "; ".join((
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:",
        " ".join(("connect-src 'self'", *urls)), "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    ))  # fmt: skip


class _Strict:
    """ASGI middleware: the headers of Rule 2 on every answer."""

    def __init__(self, app: ASGIApp, *, nodes: BoardNodes) -> None:
        self._app, self._nodes = app, nodes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers["Content-Security-Policy"] = policy([node.url for node in self._nodes.nodes])
                headers.setdefault("Cache-Control", _REVALIDATE)
            await send(message)

        await self._app(scope, receive, strict)


def build_board(settings: BoardSettings, nodes: BoardNodes, faults: Sequence[BaseRoute] = ()) -> Starlette:
    """The board's application. faults: routes of the fault panel; none unless the scenario allows it."""
    static = StaticFiles(directory=STATIC)
    shipped = shipped_kernels()

    async def page(request: Request) -> Response:
        return await static.get_response("index.html", request.scope)

    async def board(_: Request) -> Response:
        document = {
            "version": VERSION, "scenario": settings.scenario, "nodes": list(nodes.nodes), "faults": bool(faults),
            "development": nodes.development, "kernels": shipped,
        }  # fmt: skip
        return Response(
            msgspec.json.encode(document), media_type="application/json", headers={"Cache-Control": "no-store"}
        )

    async def healthz(_: Request) -> Response:
        return Response(msgspec.json.encode({"ok": True, "detail": "up"}), media_type="application/json")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        learning = asyncio.create_task(nodes.run())
        try:
            yield
        finally:
            learning.cancel()
            await asyncio.gather(learning, return_exceptions=True)

    names = ["127.0.0.1", "localhost", "[::1]", *({settings.host} - {"0.0.0.0", "::"})]
    return Starlette(
        routes=[
            Route("/", page), Route("/board.json", board), Route("/healthz", healthz), *faults, Mount("/static", static),
        ],
        middleware=[
            Middleware(_Strict, nodes=nodes),
            Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False),
        ],
        exception_handlers={HTTPException: answer_problem, EdgoraError: answer_problem},
        lifespan=lifespan,
    )  # fmt: skip


def run_board(settings: BoardSettings) -> None:
    """Serve until SIGINT or SIGTERM."""
    panel = fault_routes(HttpFaults(settings.faults)) if settings.faults else ()
    app = build_board(settings, BoardNodes(settings), panel)
    uvicorn.run(
        app, host=settings.host, port=settings.port, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=2,
    )  # fmt: skip


def listen_at(text: str) -> tuple[str, int]:
    """host and port of HOST:PORT. Raises Refused if it is none."""
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit()):
        raise Refused(f"{text!r} is no host:port", field="listen", fix="give --listen 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 after a signal, 2 for a refused start."""
    parser = argparse.ArgumentParser(prog="edgora.board.app", description="The live page over the nodes' REST.")
    parser.add_argument("--node", action="append", default=[], help="base URL of a node; once for each that is known")
    parser.add_argument("--listen", default="127.0.0.1:8080", help="host:port of the page")
    parser.add_argument("--scenario", default="", help="name shown on the page")
    parser.add_argument("--inside", action="store_true", help="the URLs are of the deployment's own network")
    parser.add_argument("--faults", default="", help="base URL of the sidecar for faults; none: no fault panel")
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        host, port = listen_at(given.listen)
        settings = BoardSettings(
            nodes=tuple(given.node), inside=given.inside, host=host, port=port, scenario=given.scenario,
            faults=given.faults,
        )  # fmt: skip
        run_board(settings)
    except EdgoraError as error:
        sys.stderr.write(f"{error.detail}\n" + (f"{error.fix}\n" if error.fix else ""))
        return 2 if isinstance(error, Refused) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
