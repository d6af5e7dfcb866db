"""Builders of offline-checkable proofs (ledger.md 8, 15). Pure: from stored blocks to wire structures.

`headers` are consecutive: the first one is what the proof hangs on, each next one a child, and `certificate` is a
commit certificate of the last one. What they give is checked by `crypto.proof` with the epoch's validators alone.
"""

from collections.abc import Sequence

from edgora.ledger.tree import FrozenState, bucket_of
from edgora.wire.hashing import merkle_path
from edgora.wire.ledger import Block, Certificate, Header, Receipt, ReceiptProof, TxProof
from edgora.wire.state_proof import StateProof

__all__ = ["prove_receipt", "prove_tx", "prove_value"]


def prove_tx(
    block: Block, hashes: Sequence[bytes], index: int, headers: Sequence[Header], certificate: Certificate
) -> TxProof:
    """Transaction `index` stands in the block; hashes are those of the block's transactions, headers[0] is its own."""
    leaves = [name + signed.signature for name, signed in zip(hashes, block.txs, strict=True)]
    return TxProof(block.txs[index], index, tuple(merkle_path(leaves, index)), tuple(headers), certificate)


def prove_receipt(
    receipts: Sequence[Receipt], place: int, headers: Sequence[Header], certificate: Certificate
) -> ReceiptProof:
    """Receipt `place` of all those under headers[0], which are those of blocks parent.execHeight + 1 .. execHeight."""
    leaves = [receipt.struct_hash() for receipt in receipts]
    return ReceiptProof(receipts[place], place, tuple(merkle_path(leaves, place)), tuple(headers), certificate)


def prove_value(state: FrozenState, key: bytes, headers: Sequence[Header], certificate: Certificate) -> StateProof:
    """The value of a key, or its absence, in the state after headers[0].exec_height, which is what `state` must be."""
    number = bucket_of(key)
    return StateProof(key, headers[0].exec_height, state.pairs(number), state.path(number), tuple(headers), certificate)
