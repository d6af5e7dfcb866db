"""What routes are given: the node behind this API."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Path, Query, Request

from edgora.node.api.edge import Buckets
from edgora.node.gateway import Gateway
from edgora.node.ledger_reads import LedgerReads
from edgora.node.positions import Positions
from edgora.node.queries import MAX_PAGE, PAGE, Queries
from edgora.node.service import Service
from edgora.node.settings import NodeSettings
from edgora.node.stream import EventStreams
from edgora.ports.clock import Clock
from edgora.wire import rest

__all__ = ["Address", "Cursor", "Hash", "Height", "Limit", "Node", "NodeApi", "TimeoutMs"]


@dataclass(frozen=True, slots=True)
class NodeApi:
    service: Service
    queries: Queries
    ledger: LedgerReads
    gateway: Gateway
    streams: EventStreams
    clock: Clock
    settings: NodeSettings
    version: str
    development: bool
    txs: Buckets
    """Transactions, by source and by sender."""
    positions: Positions
    faucet: Callable[[rest.FaucetOrder], Awaitable[rest.FaucetReceipt]]
    status: Callable[[], Awaitable[rest.Status]]
    ready: Callable[[], Awaitable[rest.Health]]
    metrics: Callable[[], Awaitable[bytes]]


def _node(request: Request) -> NodeApi:
    return cast(NodeApi, request.app.state.node)


Node = Annotated[NodeApi, Depends(_node)]
Hash = Annotated[str, Path(pattern="^0x[0-9a-f]{64}$", description="32 octets, 0x-hex")]
Address = Annotated[str, Path(pattern="^0x[0-9a-f]{40}$", description="20 octets, 0x-hex")]
Height = Annotated[int, Path(ge=0, le=2**53)]
Cursor = Annotated[str | None, Query(pattern="^[0-9]{1,19}$", description="`cursor` of the page before")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
TimeoutMs = Annotated[int, Query(ge=1, le=60_000, description="how long to wait for the receipt")]
DEFAULT_LIMIT = PAGE
DEFAULT_TIMEOUT_MS = 15_000
