"""Every committed answer has a proof that stands alone (ledger.md 8, 19 P7).

Proofs are built from what the replicas published and handed to the product's offline check; then one bit is flipped
somewhere, and the check must refuse. Certificates are part of no hash, so a flip inside one that leaves another valid
certificate (none of ours does) would not be a failure; flips go through every part in turn.
"""

import random
from typing import TYPE_CHECKING

from edgora.crypto.proof import check_receipt_proof, check_tx_proof
from edgora.lab.sim.violation import Violation
from edgora.wire.codec import decode, encode
from edgora.wire.errors import WireError
from edgora.wire.hashing import merkle_path
from edgora.wire.ledger import Certificate, Header, Receipt, ReceiptProof, TxProof

if TYPE_CHECKING:
    from edgora.lab.sim.world import World

__all__ = ["check_proofs", "receipt_proof", "tx_proof"]

SAMPLES = 3
FLIPS = 4


def _chain(world: "World", height: int) -> tuple[tuple[Header, ...], Certificate] | None:
    """Headers from this height up to the first one that a certificate signs."""
    for top in range(height, world.height + 1):
        certificate = world.agreement.certificates.get(top)
        if certificate is not None:
            return tuple(world.reference.headers[height : top + 1]), certificate
    return None


def tx_proof(world: "World", receipt: Receipt) -> TxProof | None:
    """Inclusion of the transaction that this receipt is about; None while no certificate covers it."""
    chain = _chain(world, receipt.height)
    if chain is None:
        return None
    txs = world.agreement.bodies[receipt.height].block.txs
    leaves = [tx.tx.digest(world.domain) + tx.signature for tx in txs]
    path = tuple(merkle_path(leaves, receipt.index))
    return TxProof(txs[receipt.index], receipt.index, path, *chain)


def receipt_proof(world: "World", receipt: Receipt) -> ReceiptProof | None:
    """The receipt under a certified header; None while no header certifies its block's results."""
    headers = world.reference.headers
    top = next((h.height for h in headers[receipt.height + 1 :] if h.exec_height >= receipt.height), None)
    chain = None if top is None else _chain(world, top)
    if top is None or chain is None:
        return None
    first, last = headers[top - 1].exec_height + 1, headers[top].exec_height
    row = [r for height in range(first, last + 1) for r in world.reference.receipts[height]]
    leaf = row.index(receipt)
    return ReceiptProof(receipt, leaf, tuple(merkle_path([r.struct_hash() for r in row], leaf)), *chain)


def check_proofs(world: "World") -> None:
    """P7 for a sample of what clients were told, always with the last answer."""
    rng = random.Random(f"proofs:{world.options.seed}")
    answered = [operation.receipt for operation in world.load.operations if operation.receipt is not None]
    for receipt in [*rng.sample(answered, min(SAMPLES, len(answered))), *answered[-1:]]:
        _check(world, rng, receipt)


def _check(world: "World", rng: random.Random, receipt: Receipt) -> None:
    name = receipt.tx_hash.hex()[:12]
    recover = world.registry.recover
    of_tx, of_receipt = tx_proof(world, receipt), receipt_proof(world, receipt)
    if of_tx is None:
        raise Violation("P7", f"no certificate covers block {receipt.height} of the answered {name}")
    if of_receipt is None:
        raise Violation("P7", f"no certified header holds the receipt of {name}, block {receipt.height}")
    faults = (
        check_tx_proof(of_tx, world.validators, world.domain, 0, recover),
        check_receipt_proof(of_receipt, world.validators, world.domain, 0, recover),
    )
    for fault in faults:
        if fault is not None:
            raise Violation("P7", f"the proof of {name} is refused: {fault}")
    for _ in range(FLIPS):
        false_tx = _flipped(rng, encode(of_tx))
        try:
            if check_tx_proof(decode(false_tx, TxProof), world.validators, world.domain, 0, recover) is None:
                raise Violation("P7", f"a transaction proof with a flipped bit passes: {false_tx.hex()}")
        except (WireError, ValueError):
            pass
        false_receipt = _flipped(rng, encode(of_receipt))
        try:
            if (
                check_receipt_proof(decode(false_receipt, ReceiptProof), world.validators, world.domain, 0, recover)
                is None
            ):
                raise Violation("P7", f"a receipt proof with a flipped bit passes: {false_receipt.hex()}")
        except (WireError, ValueError):
            pass


def _flipped(rng: random.Random, data: bytes) -> bytes:
    where = rng.randrange(8 * len(data))
    changed = bytearray(data)
    changed[where // 8] ^= 1 << where % 8
    return bytes(changed)
