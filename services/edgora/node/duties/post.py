"""What every duty works with, and how duties are kept going.

A duty is an object with a name, a sentence that says what it last did or waits for, and a `run` that never returns. It
reads the followed state, so it owes after a restart what it owed before. One that fails is started again after a while:
whatever it did not finish is still owed.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

from edgora.market.machine import Market
from edgora.node.directory import Directory
from edgora.node.follower import Follower
from edgora.node.lanes import Lanes
from edgora.node.peers import Peers
from edgora.node.records import NodeKeys
from edgora.node.settings import NodeSettings
from edgora.ports.blobs import Blobs
from edgora.ports.bus import Bus
from edgora.ports.chain import Chain
from edgora.ports.clock import Clock
from edgora.ports.journal import Journal
from edgora.ports.runner import Runner
from edgora.ports.tracing import NO_TRACING, Tracing
from edgora.wire.errors import Broken, EdgoraError
from edgora.wire.genesis import Genesis

__all__ = ["Duty", "Post", "keep"]

_log = logging.getLogger("edgora.duty")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0


class Duty(Protocol):
    name: str
    says: str
    """What it last did or waits for; shown by /v1/status."""

    async def run(self) -> None:
        """Serve until cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class Post:
    """The node as its duties see it."""

    genesis: Genesis
    index: int
    keys: NodeKeys
    settings: NodeSettings
    clock: Clock
    follower: Follower
    lanes: Lanes
    peers: Peers
    directory: Directory
    blobs: Blobs
    runner: Runner
    chain: Chain
    bus: Bus
    journal: Journal
    tracing: Tracing = NO_TRACING

    @property
    def market(self) -> Market:
        """The followed state; a new object after a state transfer, so it is asked for each time."""
        return self.follower.market

    def ledger_ms(self) -> int:
        """Our clock, but never behind ledger time."""
        return max(self.clock.now_ms(), self.follower.header_time_ms)

    async def moved_or(self, seconds: float) -> None:
        """Wait for further blocks, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self.follower.moved()
        except TimeoutError:
            pass


async def keep(duty: Duty) -> None:
    """Run a duty for ever. Raises Broken: the node must stop then; whatever else fails is tried again."""
    pause = FIRST_PAUSE_S
    loop = asyncio.get_running_loop()
    while True:
        begun = loop.time()
        try:
            await duty.run()
        except Broken:
            raise
        except EdgoraError as error:
            duty.says = f"failed: {error.detail}; it is tried again"
            _log.warning("duty failed", extra={"duty": duty.name, "code": error.code, "detail": error.detail})
        except Exception as error:
            duty.says = f"failed: {type(error).__name__}; it is tried again"
            _log.exception("duty failed", extra={"duty": duty.name})
        pause = FIRST_PAUSE_S if loop.time() - begun > LONGEST_PAUSE_S else min(2 * pause, LONGEST_PAUSE_S)
        await asyncio.sleep(pause)
