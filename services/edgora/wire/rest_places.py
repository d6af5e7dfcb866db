"""Where UEs stand (wire.rest): told by a fleet on development chains, kept by no ledger.

A UE's position is nobody's business in production: offers carry none. A drawn fleet tells the nodes, so that a map can
show who sends where.
"""

from dataclasses import dataclass
from typing import Annotated

import msgspec

from edgora.wire.rest_shapes import STRICT, Hex20, Shape

__all__ = ["Position", "PositionList", "PositionReport"]

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
