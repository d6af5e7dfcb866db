"""Certified settlements for tests: from validators' keys and a payload to what `settle` takes."""

from collections.abc import Sequence
from typing import NamedTuple

from edgora.crypto.sign import SigningKey
from edgora.lab.certified import Quorum
from edgora.wire.eip712 import Domain
from edgora.wire.hashing import EMPTY_ROOT
from edgora.wire.ledger import ReceiptProof
from edgora.wire.settlement import Batch, Payload, TaskLeaf, encode_payload, payload_hash, task_root

__all__ = ["Certified", "Quorum", "certify", "quorum_of"]


class Certified(NamedTuple):
    """A batch that a quorum certified: the arguments of `Chain.settle` behind the key."""

    batch_id: int
    task_root: bytes
    payload: bytes
    proof: ReceiptProof


def quorum_of(size: int, domain: Domain, *, label: str = "validator", epoch: int = 0) -> Quorum:
    """Validators whose keys follow from a label."""
    return Quorum(tuple(SigningKey.derived(f"{label} {index}") for index in range(size)), domain, epoch)


def certify(
    quorum: Quorum,
    chain_id: int,
    market: bytes,
    batch_id: int,
    payload: Payload | bytes,
    *,
    tasks: Sequence[TaskLeaf] = (),
    receipts: int = 1,
    leaf: int = 0,
    links: int = 0,
    view: int = 0,
) -> Certified:
    """What settling this payload as that batch needs."""
    packed = payload if isinstance(payload, bytes) else encode_payload(payload)
    root = task_root(tasks) if tasks else EMPTY_ROOT
    batch = Batch(chain_id, market, batch_id, root, payload_hash(packed))
    proof = quorum.settlement(batch, receipts=receipts, leaf=leaf, links=links, view=view)
    return Certified(batch_id, root, packed, proof)
