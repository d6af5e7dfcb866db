"""How fast a task runs here: its UE's computing share of this server, where a plan gave it one (market.md 4).

Shares come over the bus from whoever plans for the UEs (tcr, dpe). They are advice, never trusted further than this:

    no share, or one that has run out     the advertised speed
    above the advertised speed            the advertised speed: a slot gives no more
    too slow for the task's own times     as slow as the task still is filed in time (market.md 5)

So a wrong, old or forged share can make a task of this server slower, and nothing late. What a task was paced to, and
why, is a `Reason` that `why` shows while it runs.
"""

import asyncio
import logging
from dataclasses import dataclass

from edgora.node.duties.post import Post
from edgora.ports.bus import Shares, shares_topic
from edgora.wire.codec import decode
from edgora.wire.errors import Unavailable, WireError
from edgora.wire.market import Reason

__all__ = ["Pace", "Pacing", "pace"]

_log = logging.getLogger("edgora.duty.pacing")
GROUP = "node"
WAIT_MS, TAKE = 1_000, 16
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """What a run is paced to."""

    speed: int
    """fuel/s"""
    reason: Reason | None
    """Why not simply the advertised speed; None without a share."""


def pace(offer_id: bytes, share: int | None, advertised: int, fuel_limit: int, left_ms: int) -> Pace:
    """The speed of a task that may use so much fuel and must be computed within left_ms."""
    if share is None:
        return Pace(advertised, None)
    subject = offer_id.hex()
    if share > advertised:
        return Pace(advertised, Reason("PACED_FULL", subject, (advertised, share)))
    slowest = advertised if left_ms <= 0 else min(advertised, -(-1000 * fuel_limit // left_ms))
    if share < slowest:
        return Pace(slowest, Reason("PACED_UP", subject, (slowest, share)))
    return Pace(share, Reason("PACED", subject, (share, advertised)))


class Pacing:
    """The shares that this server was told last."""

    name = "pacing"

    def __init__(self, post: Post) -> None:
        self._post = post
        self.says = "no shares told: every task runs at the advertised speed"
        self._told = Shares(post.index, 0, 0, ())
        self._speeds: dict[bytes, int] = {}

    def share(self, ue: bytes) -> int | None:
        """fuel/s of this UE now; None: it has no share here."""
        if self._post.clock.now_ms() > self._told.until_ms:
            return None
        return self._speeds.get(ue)

    async def run(self) -> None:
        """Hear of shares until cancelled."""
        post = self._post
        topic = shares_topic(post.index)
        while True:
            try:
                taken = await post.bus.take(topic, GROUP, str(post.index), limit=TAKE, wait_ms=WAIT_MS)
                for delivery in taken:
                    self._hear(delivery.data)
                if taken:
                    await post.bus.ack(topic, GROUP, [delivery.id for delivery in taken])
            except Unavailable as error:
                self.says = f"the bus is not reached: {error.detail}"
                await asyncio.sleep(RETRY_S)

    def _hear(self, data: bytes) -> None:
        """The newest shares replace all others; a repetition changes nothing."""
        try:
            told = decode(data, Shares)
        except WireError as error:
            _log.warning("shares do not decode", extra={"octets": len(data), "detail": error.detail})
            return
        if told.node != self._post.index or told.issued_ms < self._told.issued_ms:
            return
        self._told = told
        self._speeds = {share.ue: share.speed for share in told.shares if share.speed}
        self.says = (
            f"{len(self._speeds)} UEs share this server: {sum(self._speeds.values()):,} fuel/s until {told.until_ms}"
        )
