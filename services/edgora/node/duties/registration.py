"""Being a server on the contract: right code, right id (ledger.md 22, contracts.md 7, 13).

Node i registers itself when i servers are there, so ids on the chain are the genesis's. Another code at the contract's
address, or another id for our signer, means that this is not our deployment: the node stops.
"""

import asyncio
import logging

from edgora.node.duties.post import Post
from edgora.wire.errors import Broken, EdgoraError, RuleRefused
from edgora.wire.metadata import ServerMetadata

__all__ = ["Registration"]

_log = logging.getLogger("edgora.duty.registration")
LOOK_S = 0.5
GWEI = 10**9


class Registration:
    """Registers this server once."""

    name = "registration"

    def __init__(self, post: Post, document: ServerMetadata, code_hash: bytes | None) -> None:
        self._post, self._document, self._code_hash = post, document, code_hash
        self.says = "not started"

    async def run(self) -> None:
        """Wait for the contract, register when it is our turn, then rest."""
        while not await self._try():  # noqa: ASYNC110 - a chain is polled; it tells nobody
            await asyncio.sleep(LOOK_S)
        await asyncio.Event().wait()

    async def _try(self) -> bool:
        try:
            return await self.check() and await self._registered()
        except Broken:
            raise
        except EdgoraError as error:
            self.says = f"the chain is not reached: {error.detail}"
            return False

    async def check(self) -> bool:
        """Whether the contract stands there with the expected code. Raises Broken for other code or another chain."""
        post = self._post
        chain_id = await post.chain.chain_id()
        if chain_id != post.genesis.chain_id:
            raise Broken(f"the chain has id {chain_id}, the genesis document names {post.genesis.chain_id}")
        found = await post.chain.code_hash(post.genesis.market_address)
        if found is None:
            self.says = f"waits for the contract at 0x{post.genesis.market_address.hex()}"
            return False
        if self._code_hash is not None and found != self._code_hash:
            raise Broken(
                f"the contract's code hash is 0x{found.hex()}, the deployment says 0x{self._code_hash.hex()}: "
                "this is another contract or another version"
            )
        return True

    async def _registered(self) -> bool:
        post, signer = self._post, self._post.keys.signer
        number = await post.chain.server_of(signer.address)
        if number is not None:
            if number != post.index:
                raise Broken(f"the chain knows our signer as server {number}, the genesis document as {post.index}")
            self.says = f"registered as server {number}"
            return True
        count = await post.chain.server_count()
        if count > post.index:
            raise Broken(f"{count} servers are registered and we, server {post.index}, are not: id taken by another")
        if count < post.index:
            self.says = f"waits for server {count} to register first"
            return False
        stake = post.genesis.min_stake_gwei * GWEI
        try:
            await post.chain.register(signer, signer.address, self._document.hash, stake)
        except RuleRefused as error:
            self.says = f"the contract refuses our registration: {error.rule}"
            _log.warning("registration refused", extra={"rule": error.rule, "detail": error.detail})
            return False
        _log.info("registered", extra={"server": post.index})
        return False
