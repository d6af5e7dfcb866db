"""Client histories: what each client asked, when, and what it was told (ledger.md 19, P6).

An operation is invoked once, may be sent many times to many nodes (the identical bytes), and ends in an answer or stays
unknown. Since all operations go through one total order, linearizability is two checks: every answer is the one that
the order gives (the reference model's receipt), and an operation that was answered before another was invoked stands
before it in the order. Unknown results are allowed both ways: present or absent.

The same bytes signed again are the same operation, sent once more: what counts is when they were invoked first.
"""

from collections.abc import Iterable, Mapping

from edgora.lab.sim.violation import Violation
from edgora.wire.ledger import Receipt, SignedTx

__all__ = ["Operation", "check_history"]


class Operation:
    """One signed transaction in its client's eyes."""

    __slots__ = ("answered_ms", "given_up", "hash", "honest", "invoked_ms", "receipt", "sent_ms", "tx")

    def __init__(self, tx: SignedTx, tx_hash: bytes, invoked_ms: int, *, honest: bool) -> None:
        self.tx = tx
        self.hash = tx_hash
        self.invoked_ms = invoked_ms
        self.honest = honest
        """Whether its client expects it to be executed: right sender, next sequence number, live."""
        self.sent_ms = -1
        self.answered_ms: int | None = None
        self.receipt: Receipt | None = None
        self.given_up = False
        """Without an answer for good: expired and signed anew, or its place was taken by an earlier signature."""


def check_history(operations: Iterable[Operation], chain: Mapping[bytes, Receipt]) -> None:
    """P6 over all clients. `chain` holds the reference model's first receipt of each transaction by its hash."""
    placed: list[tuple[tuple[int, int], Operation]] = []
    invoked: dict[bytes, int] = {}
    for operation in operations:
        invoked.setdefault(operation.hash, operation.invoked_ms)
        receipt = chain.get(operation.hash)
        if operation.receipt is None:
            if receipt is not None:
                placed.append(((receipt.height, receipt.index), operation))
            continue
        if receipt is None:
            raise Violation("P6", f"answered {operation.hash.hex()[:12]} which no committed block holds")
        if receipt != operation.receipt:
            raise Violation("P6", f"answered {operation.receipt} where the order gives {receipt}")
        placed.append(((receipt.height, receipt.index), operation))
    placed.sort(key=lambda item: item[0], reverse=True)
    earliest_answer_above: tuple[int, Operation] | None = None
    for _, operation in placed:
        if earliest_answer_above is not None and earliest_answer_above[0] < invoked[operation.hash]:
            later = earliest_answer_above[1]
            raise Violation(
                "P6",
                f"{later.hash.hex()[:12]} was answered at {earliest_answer_above[0]} ms, before "
                f"{operation.hash.hex()[:12]} was invoked at {invoked[operation.hash]} ms, but is ordered behind it",
            )
        answered = operation.answered_ms
        if answered is not None and (earliest_answer_above is None or answered < earliest_answer_above[0]):
            earliest_answer_above = (answered, operation)
