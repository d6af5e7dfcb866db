"""Money of one task: what it may cost, what it does cost, who gets how much (market.md 6, contracts.md 2).

All amounts are wei and exact: fuel x price x 1000. The split gives the source the floor of its share and the executor
the rest, so that the two always add up to the amount.
"""

from edgora.wire.market import Offer, OfferFlag
from edgora.wire.settlement import split
from edgora.wire.units import Fuel, GweiPerMfuel, Wei, amount

__all__ = [
    "MAX_WEI",
    "auditable",
    "gwei_down",
    "gwei_up",
    "lock_lane",
    "maximum",
    "penalty_shares",
    "price_of",
    "split",
]

MAX_WEI = 2**96 - 1
GWEI = 10**9


def maximum(offer: Offer) -> Wei:
    """What the offer may cost: its whole fuel limit at its price. Below 2^90 within the limits of market.md 8."""
    return amount(Fuel(offer.fuel_limit), GweiPerMfuel(offer.price))


def price_of(offer: Offer, fuel_used: int) -> Wei:
    """What this much certified work costs."""
    return amount(Fuel(fuel_used), GweiPerMfuel(offer.price))


def penalty_shares(pay: int, agreeing: int) -> tuple[int, int]:
    """(share of each agreeing auditor by floor, burnt remainder) of one lost dispute."""
    share = pay // agreeing if agreeing else 0
    return share, pay - share * agreeing


def auditable(offer: Offer) -> bool:
    return bool(offer.flags & OfferFlag.AUDITABLE)


def lock_lane(offer: Offer) -> bool:
    return bool(offer.flags & OfferFlag.LOCK_LANE)


def gwei_down(wei: int) -> int:
    """For a sentence about what is there."""
    return wei // GWEI


def gwei_up(wei: int) -> int:
    """For a sentence about what is needed."""
    return -(-wei // GWEI)
