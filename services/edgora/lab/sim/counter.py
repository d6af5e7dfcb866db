"""A small replicated application whose every answer can be foretold: registers, counters, alarms (ledger.md 19, P6).

Operations name an 8-octet key. Each answer carries the value after the operation, so a history of answers fixes the
order in which operations took effect; alarms exercise `wake_at` and the seal rule, refusals exercise codes that consume
a sequence number, `ENROL` the rule on unknown senders.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum

import msgspec

from edgora.wire.application import Applied, Outcome
from edgora.wire.codec import U8, U32, U64, decode
from edgora.wire.errors import WireError
from edgora.wire.ledger import BlockContext, LedgerCode, OrderedTx
from edgora.wire.units import Millis

__all__ = ["LIMIT", "OVER_LIMIT", "AlarmRang", "CounterApp", "CounterOp", "Do"]

LIMIT = 1_000_000
"""A counter never passes this; an addition that would is refused."""

OVER_LIMIT = 16
"""Receipt code: the addition would pass LIMIT."""

_RUNG = b"n/rung"


class Do(IntEnum):
    ADD = 0
    PUT = 1
    READ = 2
    ALARM = 3
    """Ring `amount` ms after the block's time."""
    ENROL = 4
    """Make the address in `key` a known sender."""


class CounterOp(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Payload of a transaction to this application."""

    do: U8
    key: bytes
    amount: U32


class AlarmRang(msgspec.Struct, frozen=True, array_like=True, tag=True):
    due_ms: U64
    height: U64


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")


class CounterApp:
    """The `Application` of the simulator's default load."""

    def __init__(self, known: Iterable[bytes]) -> None:
        self._founders = frozenset(known)
        self._state: dict[bytes, bytes] = {}
        self._alarms: list[int] = []

    def knows(self, sender: bytes) -> bool:
        return sender in self._founders or b"s/" + sender in self._state

    def wake_at(self) -> Millis | None:
        return Millis(self._alarms[0]) if self._alarms else None

    def snapshot(self) -> Mapping[bytes, bytes]:
        return dict(self._state)

    def restore(self, state: Mapping[bytes, bytes]) -> None:
        self._state = dict(state)
        self._alarms = sorted(int.from_bytes(k[2:10], "big") for k in state if k.startswith(b"a/"))

    def precheck(self, tx: OrderedTx) -> Outcome:
        try:
            decode(tx.tx.payload, CounterOp)
        except WireError:
            return Outcome(LedgerCode.BAD_PAYLOAD)
        return Outcome(0)

    def apply(self, block: BlockContext, txs: Sequence[OrderedTx]) -> Applied:
        writes: dict[bytes, bytes | None] = {}
        events: list[msgspec.Struct] = []
        outcomes = [self._run(block, tx, index, writes) for index, tx in enumerate(txs)]
        while self._alarms and self._alarms[0] <= block.time_ms:
            self._ring(block, writes, events)
        return Applied(outcomes, writes, events)

    def _get(self, key: bytes) -> int:
        return int.from_bytes(self._state.get(key, b""), "big")

    def _put(self, key: bytes, value: bytes, writes: dict[bytes, bytes | None]) -> None:
        self._state[key] = writes[key] = value

    def _run(self, block: BlockContext, tx: OrderedTx, index: int, writes: dict[bytes, bytes | None]) -> Outcome:
        try:
            op = decode(tx.tx.payload, CounterOp)
        except WireError:
            return Outcome(LedgerCode.BAD_PAYLOAD)
        key = b"n/" + op.key
        value = self._get(key)
        if op.do == Do.ADD:
            if value + op.amount > LIMIT:
                return Outcome(OVER_LIMIT, _number(value))
            value += op.amount
        elif op.do == Do.PUT:
            value = op.amount
        elif op.do == Do.READ:
            return Outcome(0, _number(value))
        elif op.do == Do.ALARM:
            due = block.time_ms + op.amount
            self._put(b"a/" + _number(due) + _number(block.height) + index.to_bytes(4, "big"), b"\x01", writes)
            self._alarms = sorted([*self._alarms, due])
            return Outcome(0, _number(due))
        elif op.do == Do.ENROL and len(op.key) == 20:
            self._put(b"s/" + op.key, b"\x01", writes)
            return Outcome(0, _number(1))
        else:
            return Outcome(LedgerCode.BAD_PAYLOAD)
        self._put(key, _number(value), writes)
        return Outcome(0, _number(value))

    def _ring(self, block: BlockContext, writes: dict[bytes, bytes | None], events: list[msgspec.Struct]) -> None:
        due = self._alarms.pop(0)
        key = min(k for k in self._state if k.startswith(b"a/" + _number(due)))
        del self._state[key]
        writes[key] = None
        self._put(_RUNG, _number(self._get(_RUNG) + 1), writes)
        events.append(AlarmRang(due, block.height))
