"""Health, readiness, metrics, and what is for development only: the faucet and the UEs' positions."""

from fastapi import APIRouter, Response

from edgora.node.api.node import Node
from edgora.node.api.problems import errors
from edgora.wire import rest
from edgora.wire.errors import NotFound

__all__ = ["router"]

router = APIRouter(tags=["operations"])
METRICS = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/healthz")
async def healthz() -> rest.Health:
    """Whether the process is up."""
    return rest.Health(ok=True, detail="up")


@router.get("/readyz", responses={503: {"model": rest.Health, "description": "not ready"}})
async def readyz(node: Node, response: Response) -> rest.Health:
    """Whether this node has an active view and is at most a window of blocks behind."""
    health = await node.ready()
    response.status_code = 200 if health.ok else 503
    return health


@router.get(
    "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
)
async def metrics(node: Node) -> Response:
    """Prometheus text format."""
    return Response(await node.metrics(), headers={"Content-Type": METRICS})


@router.get("/v1/positions")
async def list_positions(node: Node) -> rest.PositionList:
    """Where UEs stand, as a fleet told this node; the ledger does not know."""
    return node.positions.list()


@router.put("/v1/dev/positions", responses=errors(404, 413))
async def tell_positions(report: rest.PositionReport, node: Node) -> rest.PositionList:
    """Tell where UEs stand, for maps. On development chains only."""
    if not node.development:
        raise NotFound("this is no development chain", fix="nothing needs positions of UEs: leave them out")
    return node.positions.tell(report)


@router.post("/v1/dev/faucet", responses=errors(404, 413, 504))
async def faucet(order: rest.FaucetOrder, node: Node) -> rest.FaucetReceipt:
    """Deposit play money for an address. On development chains only."""
    if not node.development:
        raise NotFound(
            "this is no development chain", fix="deposit with a transaction of your own: depositFor(address)"
        )
    return await node.faucet(order)
