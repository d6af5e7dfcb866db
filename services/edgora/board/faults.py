"""The fault panel's two routes, over whoever carries the acts out (ports.faults).

    GET  /faults   {"nodes": [{"index": 0, "state": "up", "lie": null, "since_ms": ...}, ...]}
    POST /faults   {"node": 0, "act": "kill|pause|cut|lie|heal", "lie": "equivocate|false_allocation|false_result"}

Rule 1: they exist only where a composition root was given a `Faults`, which the scenario must allow.
Rule 2: only our own page or a script may act. A page of another site cannot set the header without asking first, which
nobody here answers, and its Origin gives it away; so a visitor's browser is not turned against the platform.

The sidecar that acts for containers serves the same two routes to the board, and to nobody else (`fault_service`).
"""

from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgora.board.problems import answer_problem
from edgora.ports.faults import FaultList, FaultOrder, Faults
from edgora.wire.errors import EdgoraError, Forbidden, Refused, TooLarge

__all__ = ["HEADER", "fault_routes", "fault_service"]

HEADER = "X-Edgora-Board"
"""Set to 1 by our own page and by scripts that mean it."""
_ORDER_OCTETS = 1_024
_orders = msgspec.json.Decoder(FaultOrder)


def fault_routes(faults: Faults) -> list[Route]:
    """What `build_board` adds to the page's own routes."""

    async def shown(_: Request) -> Response:
        return _json(FaultList(nodes=tuple(await faults.nodes())))

    async def acted(request: Request) -> Response:
        _own(request)
        return _json(await faults.act(await _order(request)))

    return [Route("/faults", shown, methods=["GET"]), Route("/faults", acted, methods=["POST"])]


def fault_service(faults: Faults, names: list[str]) -> Starlette:
    """The sidecar's application; it answers only under its own names."""

    async def healthz(_: Request) -> Response:
        return _json({"ok": True, "detail": "up"})

    return Starlette(
        routes=[Route("/healthz", healthz), *fault_routes(faults)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)],
        exception_handlers={HTTPException: answer_problem, EdgoraError: answer_problem},
    )


def _json(document: object) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json", headers={"Cache-Control": "no-store"})


def _own(request: Request) -> None:
    if request.headers.get(HEADER) != "1":
        raise Forbidden(f"{HEADER} is missing", field=HEADER, fix=f"send the header {HEADER}: 1")
    origin = request.headers.get("origin")
    if origin is None:
        return  # no browser: those name the page's origin with every POST
    found = urlsplit(origin)
    if (found.scheme, found.netloc) != (request.url.scheme, request.headers.get("host")):
        raise Forbidden(f"a page of {origin} may not break our nodes", field="Origin", fix="use the board's own page")


async def _order(request: Request) -> FaultOrder:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _ORDER_OCTETS:
            raise TooLarge(f"a fault order has at most {_ORDER_OCTETS} octets", field="body")
    try:
        return _orders.decode(bytes(body))
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        sentence, _, path = str(error).partition(" - at ")
        field = path.strip("`$.") or "body"
        raise Refused(
            f"{field}: {sentence}", field=field, fix='send {"node": 0, "act": "kill|pause|cut|lie|heal"}'
        ) from None
