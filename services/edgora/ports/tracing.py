"""Spans of a task's trace: what happened to it when, told to whoever collects traces (off by default).

Rule 1: nothing is passed from process to process. The trace id is the first 16 octets of the task's id, and a span's id
        follows from the task, the stage and a few numbers, so client, nodes, allocators and runner agree on ids and
        parents without a word to each other, the ledger carries no context, and nothing is believed of a client.
Rule 2: telling is cheap, never waits and never raises. With `NO_TRACING` it is nothing at all.
Rule 3: a span carries no payload, key or signature; its attributes are names and integers.

The tree of a task; numbers in brackets tell spans of one stage apart:

    task                            source node       first word of it .. settled or refunded
    |-- client.submit               client            quote, seal, upload, sign .. TASK has code 0
    |-- source.store                source node       sealed input checked and kept, Stored signed
    |-- ledger.order [node]         the node asked    POST .. receipt
    |-- market.round [round]        source node       opened .. closed; what won
    |   `-- allocator.solve [round, node]   allocator  instance taken .. answer
    |-- execute [server]            executor          assigned .. RESULT_HASH has a receipt
    |   |-- execute.fetch [server]                    module and sealed input
    |   |-- runner.run [server]                       paced run in the sandbox
    |   |-- execute.hold [server]                     sealed, kept by f+1 others
    |   `-- execute.file [server]                     RESULT_HASH ordered
    |-- audit [server]              auditor           input fetched, the task run again
    |-- client.deliver              client            waited, fetched, checked, opened
    `-- settle                      source node       final .. settled
        `-- chain.settle [batch, node]   a node       `settle` sent to the contract .. mined

The client's stages are told by whoever composes a client (it sees wire and crypto only).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from edgora.wire.hashing import keccak

__all__ = ["NO_TRACING", "PARENT", "Span", "Stage", "Tracing", "parent_id", "span_id", "trace_id"]

Attribute = str | int | bool


class Stage(StrEnum):
    TASK = "task"
    SUBMIT = "client.submit"
    STORE = "source.store"
    ORDER = "ledger.order"
    ROUND = "market.round"
    SOLVE = "allocator.solve"
    EXECUTE = "execute"
    FETCH = "execute.fetch"
    RUN = "runner.run"
    HOLD = "execute.hold"
    FILE = "execute.file"
    AUDIT = "audit"
    DELIVER = "client.deliver"
    SETTLE = "settle"
    CHAIN = "chain.settle"


PARENT: Final[Mapping[Stage, tuple[Stage, int] | None]] = {
    Stage.TASK: None,
    **dict.fromkeys((Stage.SUBMIT, Stage.STORE, Stage.ORDER, Stage.ROUND, Stage.EXECUTE, Stage.AUDIT, Stage.DELIVER,
                     Stage.SETTLE), (Stage.TASK, 0)),
    Stage.SOLVE: (Stage.ROUND, 1),
    **dict.fromkeys((Stage.FETCH, Stage.RUN, Stage.HOLD, Stage.FILE), (Stage.EXECUTE, 1)),
    Stage.CHAIN: (Stage.SETTLE, 0),
}  # fmt: skip
"""Stage above, and how many of a span's numbers name that parent among its kind."""


@dataclass(frozen=True, slots=True)
class Span:
    """One stage of one task, over. Instants are Unix ms of the teller's clock, or ledger time for what the ledger did."""

    task: bytes
    """Offer id."""
    stage: Stage
    begin_ms: int
    end_ms: int
    which: tuple[int, ...] = ()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    error: str | None = None
    """Why it failed, in a sentence; None: it did not."""


class Tracing(Protocol):
    @property
    def on(self) -> bool:
        """Whether anybody listens: what costs more than a call is left out otherwise."""
        ...

    def span(self, span: Span) -> None:
        """Take note of a span that is over."""
        ...


class _NoTracing:
    on = False

    def span(self, span: Span) -> None:
        """Nobody listens."""


NO_TRACING: Final[Tracing] = _NoTracing()


def trace_id(task: bytes) -> int:
    """W3C trace id: the task's own id, cut (wire.rest.Task.trace_id is its hexadecimal form)."""
    return int.from_bytes(task[:16], "big")


def span_id(task: bytes, stage: Stage, which: tuple[int, ...]) -> int:
    """Eight octets, never zero."""
    name = f"{stage}/{','.join(map(str, which))}"
    return int.from_bytes(keccak(task + name.encode())[:8], "big") or 1


def parent_id(span: Span) -> int | None:
    """Id of the span above; None for the root."""
    above = PARENT[span.stage]
    return None if above is None else span_id(span.task, above[0], span.which[: above[1]])
