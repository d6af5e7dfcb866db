"""Blocks, headers, transactions, proofs, state, evidence (ledger.md 18)."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from edgora.node.api.node import DEFAULT_LIMIT, Cursor, Hash, Height, Limit, Node
from edgora.node.api.problems import errors
from edgora.wire import rest

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["ledger"])
StateKey = Annotated[str, Path(pattern="^0x([0-9a-f]{2}){1,256}$", description="key of the state tree, 0x-hex")]


@router.get("/tx/{hash}")
async def get_tx(hash: Hash, node: Node) -> rest.TxStatus:
    """How far a transaction has come; UNKNOWN if it is in no block here."""
    return node.ledger.status(hash)


@router.get("/tx/{hash}/proof", responses=errors(404, 503))
async def get_tx_proof(hash: Hash, node: Node) -> rest.Proof:
    """That a transaction stands in a certified block."""
    return node.ledger.tx_proof(hash)


@router.get("/receipt/{hash}/proof", responses=errors(404, 503))
async def get_receipt_proof(hash: Hash, node: Node) -> rest.Proof:
    """That a transaction's receipt stands under a certified header."""
    return node.ledger.receipt_proof_body(hash)


@router.get("/blocks")
async def list_blocks(node: Node, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT) -> rest.BlockPage:
    """Blocks, newest first."""
    return node.ledger.blocks(cursor, limit)


@router.get("/blocks/{height}", responses=errors(404))
async def get_block(height: Height, node: Node) -> rest.Block:
    """A block with its transactions and receipts."""
    return node.ledger.block(height)


@router.get("/headers")
async def list_headers(
    node: Node, from_: Annotated[int, Query(alias="from", ge=0, le=2**53)], to: Annotated[int, Query(ge=0, le=2**53)]
) -> rest.HeaderList:
    """Headers of heights from..to, both included, at most 256."""
    return node.ledger.headers(from_, to)


@router.get("/epochs/{epoch}", responses=errors(404))
async def get_epoch(epoch: Height, node: Node) -> rest.EpochInfo:
    """Validators and parameters of an epoch."""
    return node.ledger.epoch(epoch)


@router.get("/state/{key}", responses=errors(503, 504))
async def get_state(
    key: StateKey, node: Node, read: Annotated[Literal["local", "certified", "linear"], Query()] = "local"
) -> rest.StateValue:
    """A value of the replicated state; certified reads carry a proof."""
    return await node.ledger.state(key, read, node.clock.now_ms())


@router.get("/evidence")
async def list_evidence(node: Node) -> rest.EvidenceList:
    """Evidence of misbehaviour: on the ledger, and held by this node's replica."""
    return await node.ledger.evidence()


@router.get("/views", responses=errors(503))
async def list_views(node: Node) -> rest.ViewHistory:
    """Which views this validator left, why, and which it entered; newest first."""
    return await node.ledger.views()


@router.get("/checkpoints", responses=errors(503))
async def list_checkpoints(node: Node) -> rest.CheckpointList:
    """States that a quorum signed, as they became stable here; newest first."""
    return await node.ledger.checkpoints()
