"""REST resources of development chains: where UEs stand, and the faucet (wire.rest has the table).

Positions are told by a fleet and kept by no ledger: a UE's place is nobody's business in production, and offers carry
none. A drawn fleet tells the nodes, so that a map can show who sends where. The faucet gives an address a deposit, so
that a first task needs no wallet with funds.
"""

from dataclasses import dataclass
from typing import Annotated

import msgspec

from edgora.wire.rest.shapes import STRICT, Hex20, Hex32, Shape, Wei

__all__ = ["FaucetOrder", "FaucetReceipt", "Position", "PositionList", "PositionReport"]

_METRES = 1e6
_REPORT = 256
"""Of about a hundred octets each: a report fits the default limit of a body."""
Metres = Annotated[
    float, msgspec.Meta(ge=-_METRES, le=_METRES), Shape(ge=-_METRES, le=_METRES, allow_inf_nan=False)
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    __pydantic_config__ = STRICT
    ue: Hex20
    x_m: Metres
    y_m: Metres


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionReport:
    """Body of PUT /v1/dev/positions: the newest word on each UE in it; those not in it stay."""

    __pydantic_config__ = STRICT
    items: Annotated[list[Position], msgspec.Meta(max_length=_REPORT), Shape(max_length=_REPORT)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionList:
    """What this node was told since it started; it forgets the UEs told longest ago first."""

    items: list[Position]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaucetOrder:
    __pydantic_config__ = STRICT
    address: Hex20
    wei: Wei = "1000000000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaucetReceipt:
    """The deposit was mined on the chain; the ledger knows it once q validators have attested it."""

    address: Hex20
    wei: Wei
    chain_tx: Hex32
