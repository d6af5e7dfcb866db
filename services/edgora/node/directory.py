"""Key documents of all servers, as this node could obtain them (README.md, Sealing).

A document is believed only if its hash is the metaHash that the ledger's state names for that server; an outdated one
is asked for again. Positions come along; they are the servers' own words.
"""

import asyncio
import logging

from edgora.crypto.keys import SealingPublicKey
from edgora.node.follower import Follower
from edgora.node.peers import Peers
from edgora.wire.codec import decode
from edgora.wire.errors import EdgoraError, Unavailable
from edgora.wire.hashing import keccak
from edgora.wire.metadata import ServerMetadata

__all__ = ["Directory"]

_log = logging.getLogger("edgora.directory")
RETRY_S = 1.0


class Directory:
    """Server id to document. `run` fills it and keeps it fresh."""

    def __init__(self, own: int, document: ServerMetadata, position_mm: tuple[int, int] | None, follower: Follower,
                 peers: Peers) -> None:  # fmt: skip
        self._follower, self._peers = follower, peers
        self._documents: dict[int, ServerMetadata] = {own: document}
        self._positions: dict[int, tuple[int, int] | None] = {own: position_mm}
        self._asked: set[int] = set()
        """Servers whose answer `run` waits for."""

    def get(self, server: int) -> ServerMetadata | None:
        """The document of a server, if we have the certified one."""
        found, known = self._documents.get(server), self._follower.market.server(server)
        return found if found is not None and known is not None and found.hash == known.meta_hash else None

    def position_mm(self, server: int) -> tuple[int, int] | None:
        return self._positions.get(server)

    async def sealing_key(self, server: int) -> SealingPublicKey:
        """The RSA key of a server, asked for if we do not have it. Raises Unavailable."""
        found = self.get(server) or await self._ask(server)
        try:
            return SealingPublicKey(found.rsa_spki)
        except EdgoraError as error:
            raise Unavailable(f"server {server} certifies a key that is not usable: {error.detail}") from None

    async def _ask(self, server: int) -> ServerMetadata:
        known = self._follower.market.server(server)
        if known is None:
            raise Unavailable(f"there is no server {server}")
        told = await self._peers.describe(server)
        if keccak(told.document) != known.meta_hash:
            raise Unavailable(f"server {server} shows a key document that is not the certified one")
        document = decode(told.document, ServerMetadata)
        self._documents[server], self._positions[server] = document, told.position_mm
        return document

    async def run(self) -> None:
        """Ask for what is missing, every second until nothing is; a server that keeps us waiting delays no other."""
        async with asyncio.TaskGroup() as questions:
            while True:
                for server in self._follower.market.servers():
                    if self.get(server.id) is None and server.id not in self._asked:
                        self._asked.add(server.id)
                        questions.create_task(self._try(server.id))
                await asyncio.sleep(RETRY_S)

    async def _try(self, server: int) -> None:
        try:
            await self._ask(server)
        except EdgoraError as error:
            _log.debug("no key document yet", extra={"server": server, "detail": error.detail})
        finally:
            self._asked.discard(server)
