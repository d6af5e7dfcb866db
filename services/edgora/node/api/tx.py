"""POST /v1/tx and /v1/txs as plain ASGI applications (ledger.md 18).

The framework's request path alone costs as much CPU as all replicas' checks of one signature, so these two parse and
answer by themselves: canonical MessagePack of SignedTx (application/msgpack, x-msgpack or octet-stream), else JSON.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import msgspec
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edgora.node import views
from edgora.node.api.node import NodeApi
from edgora.node.api.problems import errors, from_validation, problem, problem_response
from edgora.node.gateway import Level, Ordered
from edgora.wire import rest
from edgora.wire.codec import decode
from edgora.wire.errors import EdgoraError, Refused, TooLarge
from edgora.wire.ledger import SignedTx

__all__ = ["MAX_TXS", "OPENAPI_PATHS", "SCHEMAS", "PostTx", "PostTxs"]

MAX_TXS = 256
DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS = 10_000, 60_000
_BINARY = frozenset(("application/msgpack", "application/x-msgpack", "application/octet-stream"))
_LEVELS: tuple[Level, ...] = ("admitted", "committed", "certified")
_one, _many = TypeAdapter(rest.TxOrder), TypeAdapter(rest.TxOrders)
_encoder = msgspec.json.Encoder()


class _Wait(NamedTuple):
    level: Level
    timeout_ms: int


def _wait(query: bytes) -> _Wait:
    """`wait` and `timeout_ms` of the query string. Raises Refused."""
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    unknown = sorted(set(given) - {"wait", "timeout_ms"})
    if unknown:
        raise Refused(
            f"unknown parameter {unknown[0]}", field=f"query.{unknown[0]}", fix="use wait and timeout_ms only"
        )
    level = next((known for known in _LEVELS if known == given.get("wait", ["committed"])[-1]), None)
    if level is None:
        raise Refused("wait is none of admitted, committed, certified", field="query.wait", fix="use one of these")
    timeout = given.get("timeout_ms", [str(DEFAULT_TIMEOUT_MS)])[-1]
    if not (timeout.isascii() and timeout.isdigit() and 1 <= int(timeout[:9]) <= MAX_TIMEOUT_MS):
        raise Refused(
            f"timeout_ms must be an integer within 1..{MAX_TIMEOUT_MS}", field="query.timeout_ms", fix="use one that is"
        )
    return _Wait(level, int(timeout))


def _outcome(ordered: Ordered) -> rest.TxOutcome:
    receipt = ordered.receipt
    return rest.TxOutcome(
        tx_hash=views.hex_of(ordered.tx_hash),
        level="ADMITTED" if receipt is None else "CERTIFIED" if ordered.certified else "COMMITTED",
        height=None if receipt is None else receipt.height, receipt=None if receipt is None else views.receipt(receipt),
    )  # fmt: skip


def _is_binary(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() in _BINARY


class _Handler:
    """An ASGI application for one path."""

    def __init__(self, node: NodeApi) -> None:
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ValidationError as error:
            response = problem_response(from_validation(error.errors()))
        except EdgoraError as error:
            response = problem_response(problem(error))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        raise NotImplementedError

    def _admit(self, request: Request, orders: Sequence[SignedTx]) -> None:
        """Spend the source's and each sender's share of transactions."""
        self._node.txs.take(request.client.host if request.client else "local", len(orders))
        for order in orders:
            self._node.txs.take(order.tx.sender)


class PostTx(_Handler):
    """One transaction; answers once the wait's level is reached."""

    async def _answer(self, request: Request) -> Response:
        wait, body = _wait(request.scope["query_string"]), await request.body()
        signed = decode(body, SignedTx) if _is_binary(request) else views.tx_of(_one.validate_json(body))
        self._admit(request, (signed,))
        tx_hash = self._node.gateway.check(signed)
        ordered = await self._node.gateway.order(signed, tx_hash, wait.level, wait.timeout_ms)
        status = 200 if ordered.receipt is not None else 202
        return Response(_encoder.encode(_outcome(ordered)), status, media_type="application/json")


class PostTxs(_Handler):
    """Up to 256 transactions, each with a result of its own; a refused one does not stop the others."""

    async def _answer(self, request: Request) -> Response:
        wait, body = _wait(request.scope["query_string"]), await request.body()
        if _is_binary(request):
            orders = list(decode(body, tuple[SignedTx, ...]))
        else:
            orders = [views.tx_of(order) for order in _many.validate_json(body).txs]
        if len(orders) > MAX_TXS:
            raise TooLarge(f"{len(orders)} transactions in one request", field="txs", fix=f"send at most {MAX_TXS}")
        self._admit(request, orders)
        items = await asyncio.gather(*(self._one(signed, wait) for signed in orders))
        return Response(_encoder.encode(rest.TxOutcomes(items=list(items))), media_type="application/json")

    async def _one(self, signed: SignedTx, wait: _Wait) -> rest.TxOutcome:
        gateway = self._node.gateway
        try:
            tx_hash = gateway.check(signed)
            return _outcome(await gateway.order(signed, tx_hash, wait.level, wait.timeout_ms))
        except EdgoraError as error:
            return rest.TxOutcome(
                tx_hash=views.hex_of(gateway.hash_of(signed)), level="UNKNOWN", height=None, receipt=None,
                problem=problem(error),
            )  # fmt: skip


# ---- their part of the OpenAPI document --------------------------------------------------------------------------------


def _schemas() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in (rest.TxOrder, rest.TxOrders, rest.TxOutcome, rest.TxOutcomes, rest.Problem):
        schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
        found |= schema.pop("$defs", {})
        found[kind.__name__] = schema
    return found


def _operation(name: str, summary: str, order: str, outcome: str, statuses: tuple[int, ...]) -> dict[str, Any]:
    def json_of(kind: str) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind}"}}}

    wait = {"type": "string", "enum": list(_LEVELS), "default": "committed"}
    timeout = {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS, "default": DEFAULT_TIMEOUT_MS}
    binary = {"application/msgpack": {"schema": {"type": "string", "format": "binary"}}}
    return {
        "post": {
            "tags": ["ledger"], "operationId": name, "summary": summary,
            "parameters": [
                {"name": "wait", "in": "query", "schema": wait}, {"name": "timeout_ms", "in": "query", "schema": timeout},
            ],
            "requestBody": {"required": True, "content": json_of(order) | binary},
            "responses": {
                "200": {"description": "the level that was asked for is reached", "content": json_of(outcome)},
                **{str(status): answer for status, answer in errors(*statuses).items()},
            },
        }
    }  # fmt: skip


SCHEMAS = _schemas()
_tx = _operation("post_tx", "Order one signed transaction", "TxOrder", "TxOutcome",
                 (400, 401, 408, 409, 413, 422, 429, 503, 504))  # fmt: skip
_tx["post"]["responses"]["202"] = _tx["post"]["responses"]["200"] | {"description": "admitted to one pool: no promise"}
OPENAPI_PATHS = {
    "/v1/tx": _tx,
    "/v1/txs": _operation("post_txs", "Order signed transactions", "TxOrders", "TxOutcomes", (400, 408, 413, 429, 503)),
}
