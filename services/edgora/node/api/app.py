"""The ASGI application of a node: routers, edge, problem documents, and the OpenAPI document."""

import re
import time
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import Route

from edgora.node.api import events, ledger, market, operations, tasks
from edgora.node.api.edge import BodyRule, Buckets, Edge
from edgora.node.api.node import NodeApi
from edgora.node.api.pages import Pages
from edgora.node.api.problems import errors, install
from edgora.node.api.tx import OPENAPI_PATHS, SCHEMAS, PostTx, PostTxs
from edgora.node.service import MODULE_OCTETS

__all__ = ["build_app"]

_HEX = "0x[0-9a-f]*"
_BODIES = (
    BodyRule(re.compile(f"/v1/inputs/{_HEX}"), 23 * 1024 * 1024),  # 16 MiB in base64url, keys, offer
    BodyRule(re.compile(f"/v1/modules/{_HEX}"), MODULE_OCTETS),
    BodyRule(re.compile("/v1/tx"), 64 * 1024),
    BodyRule(re.compile("/v1/txs"), 8 * 1024 * 1024),
)
DEFAULT_BODY = 64 * 1024
_EVERYWHERE = (400, 429)
_WITH_BODY = (408,)


def build_app(node: NodeApi) -> FastAPI:
    """A node's API. One application a node; several may live in one process."""
    app = FastAPI(
        title="Edgora node", version=node.version, docs_url=None, redoc_url=None, redirect_slashes=False,
        description="Edge servers trade compute and nobody has to be trusted. Errors are problem documents (RFC 9457).",
        responses=errors(*_EVERYWHERE), separate_input_output_schemas=False,
    )  # fmt: skip
    app.state.node = node
    for room in (tasks, market, ledger, events, operations):
        app.include_router(room.router)
    app.router.routes += [
        Route("/v1/tx", PostTx(node), methods=["POST"]),
        Route("/v1/txs", PostTxs(node), methods=["POST"]),
    ]
    install(app)
    limits = node.settings.limits
    requests = Buckets(limits.requests_per_s, limits.request_burst, time.monotonic, "requests")
    app.add_middleware(Edge, rules=_BODIES, default_octets=DEFAULT_BODY, requests=requests)
    if node.settings.cors_origins:
        app.add_middleware(Pages, origins=node.settings.cors_origins)
    setattr(app, "openapi", lambda: _openapi(app))  # noqa: B010 - FastAPI's own way to extend the document
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document with the two plain routes in it, and without its own validation error, which never occurs."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for path, operations_ in document["paths"].items():
            for method, operation in operations_.items():
                _tidy(path, method, operation)
        document["paths"] |= OPENAPI_PATHS
        schemas = document["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        schemas |= SCHEMAS
        app.openapi_schema = document
    return app.openapi_schema


def _tidy(path: str, method: str, operation: dict[str, Any]) -> None:
    """Every status that can occur, and none that cannot."""
    responses = operation["responses"]
    content = responses.get("422", {}).get("content", {})
    if "application/json" in content:  # the framework's own, which we answer as 400
        del responses["422"]
    if method in {"post", "put"}:
        for status, answer in errors(*_WITH_BODY).items():
            responses[str(status)] = answer
    if path in {"/healthz", "/readyz", "/metrics"}:
        responses.pop("400", None)
