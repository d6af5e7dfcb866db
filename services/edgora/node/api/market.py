"""Servers, rounds, batches, and what the platform is."""

from typing import Annotated

from fastapi import APIRouter, Path

from edgora.node.api.node import DEFAULT_LIMIT, Cursor, Height, Limit, Node
from edgora.node.api.problems import errors
from edgora.wire import rest

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["market"])
ServerId = Annotated[int, Path(ge=0, le=65_535)]


@router.get("/info")
async def get_info(node: Node) -> rest.Info:
    """What a client needs before its first offer."""
    limits = node.settings.limits
    return node.queries.info(node.version, node.development, limits.tx_per_s, limits.tx_burst)


@router.get("/servers")
async def list_servers(node: Node) -> rest.ServerList:
    """All servers with keys, adverts, load and reputation."""
    return node.queries.servers()


@router.get("/servers/{id}", responses=errors(404))
async def get_server(id: ServerId, node: Node) -> rest.Server:
    """One server."""
    return node.queries.server(id)


@router.get("/allocations")
async def list_allocations(node: Node, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT) -> rest.AllocationPage:
    """Rounds of allocation, newest first."""
    return node.queries.allocations(cursor, limit)


@router.get("/allocations/{round}", responses=errors(404))
async def get_allocation(round: Height, node: Node) -> rest.Allocation:
    """One round with its instance, proposals, refusals and alternatives."""
    return node.queries.allocation(round)


@router.get("/batches")
async def list_batches(node: Node, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT) -> rest.BatchPage:
    """Settlement batches, newest first."""
    return node.queries.batches(cursor, limit)


@router.get("/batches/{id}", responses=errors(404))
async def get_batch(id: Height, node: Node) -> rest.Batch:
    """One settlement batch."""
    return node.queries.batch(id)


@router.get("/status", responses=errors(503))
async def get_status(node: Node) -> rest.Status:
    """Why consensus waits, in words and numbers."""
    return await node.status()
