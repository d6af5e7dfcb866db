"""What a UE wants computed, what it may cost, and where the input goes: decided before anything is signed."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgora.client.session import Session, answers, get, servers
from edgora.client.steps import Flow
from edgora.client.trust import hex0x
from edgora.wire import rest
from edgora.wire.errors import Refused, Unavailable
from edgora.wire.hashing import keccak
from edgora.wire.units import Wei, amount

__all__ = ["Order", "Quote", "module_name", "quote", "reach"]

_HASTE = 2
"""A task is desired within this multiple of the expected time."""
_PATIENCE_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A task before it is an offer.

    plaintext is what gets sealed (canonical [arguments, data]); module is the WASM, uploaded where the source does not
    have it. price in gwei/Mfuel, None for one that every live server accepts; max_price bounds that choice.
    desired_ms and patience_ms are durations; patience_ms runs until the deadline. source None is the best reachable.
    lock pays by a lock on the contract instead of deposit and voucher.
    """

    module: bytes
    plaintext: bytes
    fuel_limit: int
    output_octets: int
    memory_pages: int
    label: str = ""
    price: int | None = None
    max_price: int | None = None
    desired_ms: int | None = None
    patience_ms: int | None = None
    source: int | None = None
    auditable: bool = True
    lock: bool = False
    lane: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What an order would be offered as; nothing is signed yet."""

    source: int
    source_url: str
    fuel_limit: int
    price: int
    maximum: Wei
    """fuel_limit x price: the most that it can cost."""
    expected_ms: int
    """Of the quickest server that takes this price and has the room."""
    desired_ms: int
    deadline_ms: int
    """Unix instant."""
    servers: int
    """How many live servers take it at this price."""
    refusals: Sequence[str]
    """Why each other server does not."""


def reach(session: Session, server: rest.Server) -> str | None:
    """Base URL of a server from where we are; None while it has shown no key document."""
    if server.keys is None:
        return None
    return (server.keys.network_url if session.inside else server.keys.public_url).rstrip("/")


def _expected_ms(server: rest.Server, source: rest.Server, order: Order) -> int:
    """T of market.md 4 without the slack: compute, forward the input unless it is there, return the output."""
    assert server.advert is not None
    assert source.advert is not None
    run = -(-1000 * order.fuel_limit // server.advert.speed)
    back = -(-1000 * order.output_octets // server.advert.uplink)
    there = 0 if server.id == source.id else -(-1000 * len(order.plaintext) // source.advert.uplink)
    return run + back + there


def quote(session: Session, order: Order) -> Flow[Quote]:
    """Price, source, expected time and maximum cost of an order, from the servers' adverts now.

    Raises Unavailable if no server is live, Refused if none takes it within max_price or has the room.
    """
    info = yield from get(session, "/v1/info", rest.Info)
    listed = yield from servers(session)
    live = [s for s in listed if s.live and s.advert is not None and s.advert.capacity]
    if not live:
        raise Unavailable("no server has a live advert now; wait a few seconds and ask again", field="servers")
    source = yield from _source(session, live, order)
    assert source.advert is not None
    forward = -(-int(source.advert.forward) * -(-len(order.plaintext) // 1024) // (1000 * order.fuel_limit))
    price = order.price
    if price is None:
        price = max(s.advert.ask + (forward if s.id != source.id else 0) for s in live if s.advert is not None)
        if order.max_price is not None:
            price = min(price, order.max_price)
    takers: list[rest.Server] = []
    refusals: list[str] = []
    for s in live:
        assert s.advert is not None
        room = min(s.advert.capacity, s.credit)
        if s.advert.ask > price:
            refusals.append(f"server {s.id} asks {s.advert.ask} gwei/Mfuel, above {price}")
        elif order.fuel_limit > room:
            refusals.append(f"server {s.id} may hold {room} fuel at once, {order.fuel_limit} are needed")
        else:
            takers.append(s)
    if not takers:
        raise Refused(
            "no live server takes it: " + "; ".join(refusals), field="price", fix="raise the price or split the work"
        )
    expected = min(_expected_ms(s, source, order) for s in takers)
    desired = order.desired_ms or min(max(_HASTE * expected, 1_000), info.limits.desired_ms)
    patience = order.patience_ms or max(_PATIENCE_MS, 4 * desired)
    if patience > info.limits.deadline_ms:
        raise Refused(
            f"the deadline is {patience} ms ahead, at most {info.limits.deadline_ms} may be", field="deadline",
            fix="ask for less fuel or set an earlier deadline",
        )  # fmt: skip
    url = reach(session, source)
    assert url is not None
    return Quote(
        source=source.id, source_url=url, fuel_limit=order.fuel_limit, price=price,
        maximum=amount(order.fuel_limit, price), expected_ms=expected, desired_ms=desired,
        deadline_ms=info.time_ms + patience, servers=len(takers), refusals=refusals,
    )  # fmt: skip


def _source(session: Session, live: Sequence[rest.Server], order: Order) -> Flow[rest.Server]:
    """The order's own source, else the nearby server if it answers at once, else the least busy one that does.

    A node that has just started knows who is live before it has everybody's key document.
    An advert outlives its server by seconds; an upload to one that stands still would hang for minutes.
    """
    reachable = [s for s in live if reach(session, s) is not None]
    if order.source is not None:
        if all(s.id != order.source for s in live):
            raise Refused(
                f"server {order.source} is not live or has no capacity", field="source",
                fix="leave the choice to the client",
            )  # fmt: skip
        chosen = [s for s in reachable if s.id == order.source]
        if not chosen:
            raise Unavailable(
                f"the node we ask has no key document of server {order.source} yet", field="source",
                fix="ask again in a few seconds",
            )  # fmt: skip
        return chosen[0]
    if not reachable:
        raise Unavailable("no live server has published its key document yet", field="source")
    first = session.nodes[0].rstrip("/")
    for server in sorted(reachable, key=lambda s: (reach(session, s) != first, s.tasks, s.id)):
        if (yield from answers(session, reach(session, server) or "")):
            return server
    raise Unavailable(
        f"none of the {len(reachable)} live servers answers from here", field="source",
        fix="check the public URLs that GET /v1/servers shows, or ask again in a few seconds",
    )  # fmt: skip


def module_name(order: Order) -> str:
    """0x-hex digest of the order's module."""
    return hex0x(keccak(order.module))
