"""Where a browser reaches the nodes.

Rule 1: a URL from outside becomes part of a security header, so only a bare origin is taken, and a bounded number.
Rule 2: what was given stands until a node's list says better; a list that cannot be had changes nothing.

A node's certified key document carries a `public_url` beside the one inside its network: names of containers do not
resolve on the visitor's machine. The list of any node that answers is enough to learn all of them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from edgora.board.settings import BoardSettings, origin_of
from edgora.client import AsyncClient, Wallet
from edgora.wire import rest
from edgora.wire.errors import EdgoraError, Refused

__all__ = ["BoardNode", "BoardNodes", "Learned", "ask_nodes"]

_log = logging.getLogger("edgora.board")
_SERVERS = 64
SOON_S = 1.0
"""Until the first answer."""
LATER_S = 30.0
"""Afterwards: servers join seldom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardNode:
    index: int
    """Server id."""
    url: str
    """Its REST, as a browser on the visitor's machine reaches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a node said of the consortium."""

    servers: Sequence[rest.Server]
    development: bool


def ask_nodes(settings: BoardSettings) -> Callable[[], Awaitable[Learned]]:
    """A question that any of the nodes can answer. Each asking trusts anew: the platform may have been laid out again."""
    wallet: list[Wallet] = []

    async def ask() -> Learned:
        if not wallet:
            wallet.append(await asyncio.to_thread(Wallet.generate))
        async with AsyncClient(list(settings.nodes), wallet[0], inside=settings.inside) as visitor:
            info = await visitor.connect()
            return Learned(servers=await visitor.servers(), development=info.development)

    return ask


class BoardNodes:
    """The nodes as the page is told them. `run` keeps learning until it is cancelled."""

    def __init__(self, settings: BoardSettings, ask: Callable[[], Awaitable[Learned]] | None = None) -> None:
        given = [] if settings.inside else [origin_of(url) for url in settings.nodes]
        self._urls: dict[int, str] = dict(enumerate(given))
        self._ask = ask or ask_nodes(settings)
        self.development = False
        self.learned = asyncio.Event()
        """Set once a node has answered."""

    @property
    def nodes(self) -> tuple[BoardNode, ...]:
        return tuple(BoardNode(index=i, url=url) for i, url in sorted(self._urls.items()))

    async def learn(self) -> None:
        """Ask once. Raises EdgoraError if no node answers."""
        found = await self._ask()
        for server in found.servers[:_SERVERS]:
            if server.keys is not None:
                try:
                    self._urls[server.id] = origin_of(server.keys.public_url)
                except Refused as error:
                    _log.warning(
                        "a server's public URL is left out", extra={"server": server.id, "detail": error.detail}
                    )
        self.development = found.development
        self.learned.set()

    async def run(self) -> None:
        """Learn now, then again from time to time; patient with nodes that are not up yet."""
        while True:
            try:
                await self.learn()
            except EdgoraError as error:
                _log.info("no node has told its servers", extra={"detail": error.detail})
            await asyncio.sleep(LATER_S if self.learned.is_set() else SOON_S)
