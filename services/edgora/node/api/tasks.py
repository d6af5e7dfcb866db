"""Inputs, tasks, results, modules: the life of a task as its UE sees it."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from edgora.node import views
from edgora.node.api.events import EVENT_STREAM, event_stream, resume_from
from edgora.node.api.node import DEFAULT_LIMIT, DEFAULT_TIMEOUT_MS, Address, Cursor, Hash, Limit, Node, TimeoutMs
from edgora.node.api.problems import also, errors
from edgora.wire import rest

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["tasks"])
WASM = "application/wasm"
_WASM_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {WASM: {"schema": {"type": "string", "format": "binary"}}}}
}
_WASM_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "the module", "content": {WASM: {"schema": {"type": "string", "format": "binary"}}}}
}


@router.put(
    "/inputs/{digest}", status_code=201, response_model=rest.StoredInput,
    responses=also(200, rest.StoredInput, "It was stored already") | errors(413, 422),
)  # fmt: skip
async def put_input(digest: Hash, upload: rest.InputUpload, node: Node, response: Response) -> rest.StoredInput:
    """Give the source a sealed input; it answers with its signed Stored once the ciphertext is on disk."""
    stored, fresh = await node.service.put_input(digest, upload)
    response.status_code = 201 if fresh else 200
    return stored


@router.post("/tasks", status_code=202, responses=errors(401, 409, 413, 422, 504))
async def open_task(
    body: rest.TaskSubmission, node: Node, request: Request, response: Response,
    timeout_ms: TimeoutMs = DEFAULT_TIMEOUT_MS,
    idempotency_key: Annotated[str | None, Header(max_length=128, pattern="^[ -~]+$")] = None,
) -> rest.TaskAccepted:  # fmt: skip
    """Put a signed offer on the ledger. 202 once its receipt has code 0; the same bytes again get the same answer."""
    node.txs.take(request.client.host if request.client else "local")
    node.txs.take(body.offer.ue)
    if idempotency_key is not None:
        node.service.remember(idempotency_key, body)
    accepted = await node.service.open_task(body, timeout_ms)
    response.headers["Location"] = accepted.location
    return accepted


@router.get("/tasks")
async def list_tasks(
    node: Node, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT,
    ue: Annotated[str | None, Query(pattern="^0x[0-9a-f]{40}$")] = None,
    state: Annotated[rest.TaskStateName | None, Query()] = None,
    server: Annotated[int | None, Query(ge=0, le=65_535, description="executor or source")] = None,
    kernel: Annotated[str | None, Query(pattern="^0x[0-9a-f]{64}$", description="module digest")] = None,
) -> rest.TaskPage:  # fmt: skip
    """Tasks that this node knows, newest first."""
    return node.queries.tasks(cursor=cursor, limit=limit, ue=ue, state=state, server=server, kernel=kernel)


@router.get("/tasks/{id}", responses=errors(404))
async def get_task(id: Hash, node: Node) -> rest.Task:
    """A task as of this node's height."""
    return node.queries.task(id)


@router.get("/tasks/{id}/why", responses=errors(404))
async def get_why(id: Hash, node: Node) -> rest.Why:
    """Why the task waits, or ended so, and why it went to this server."""
    return await node.service.why(id)


@router.get("/tasks/{id}/events", responses=EVENT_STREAM | errors(404), response_class=Response)
async def get_task_events(
    id: Hash, node: Node,
    last_event_id: Annotated[str | None, Header()] = None, after: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Response:  # fmt: skip
    """The task's events, from its first or from the given id on; the stream ends with the task."""
    offer_id = views.unhex(id, "id")
    node.streams.known(offer_id)
    start = resume_from(last_event_id, after)
    return event_stream(node, node.streams.of_task(offer_id, 0 if start is None else start))


@router.get("/tasks/{id}/result", responses=errors(404, 409))
async def get_result(id: Hash, node: Node) -> rest.SealedResult:
    """The sealed result, from this node's store or a holder's. Compare its digest with the certified receipt."""
    return await node.service.result(id)


@router.get("/tasks/{id}/proof", responses=errors(404))
async def get_proof(id: Hash, node: Node) -> rest.TaskProofs:
    """Receipts of the task's life that stand under certified headers."""
    return node.ledger.task_proofs(id)


@router.post("/tasks/{id}/cancel", responses=errors(401, 404, 409, 413, 422, 504))
async def cancel_task(
    id: Hash, order: rest.CancelOrder, node: Node, request: Request, timeout_ms: TimeoutMs = DEFAULT_TIMEOUT_MS
) -> rest.Task:
    """Take back a task that is still OPEN."""
    node.txs.take(request.client.host if request.client else "local")
    return await node.service.cancel(id, order, timeout_ms)


@router.get("/accounts/{address}")
async def get_account(address: Address, node: Node) -> rest.Account:
    """Deposit, reservations, kept voucher and lanes of an address; strangers have zeroes."""
    return node.queries.account(address)


@router.put(
    "/modules/{digest}", status_code=201, response_model=rest.Module, openapi_extra=_WASM_BODY,
    responses=also(200, rest.Module, "It was stored already") | errors(413, 422),
)  # fmt: skip
async def put_module(digest: Hash, node: Node, request: Request, response: Response) -> rest.Module:
    """Give this node a WASM module. It is validated and compiled before it is stored."""
    module, fresh = await node.service.put_module(digest, await request.body())
    response.status_code = 201 if fresh else 200
    return module


@router.get("/modules/{digest}", responses=_WASM_ANSWER | errors(404), response_class=Response)
async def get_module(digest: Hash, node: Node) -> Response:
    """A module's octets."""
    return Response(await node.service.module(digest), media_type=WASM, headers={"ETag": f'"{digest}"'})


@router.head("/modules/{digest}", responses={200: {"description": "it is here"}, 404: {"description": "it is not"}})
async def head_module(digest: Hash, node: Node) -> Response:
    """Whether this node has a module."""
    node.service.has_module(digest)
    return Response(media_type=WASM, headers={"ETag": f'"{digest}"'})
