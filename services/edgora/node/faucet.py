"""Play money on development chains: the deployer's account pays a deposit for whoever asks, within a budget."""

from collections.abc import Callable

from edgora.crypto.sign import SigningKey
from edgora.node.api.edge import Buckets
from edgora.node.views import hex_of, unhex
from edgora.ports.chain import Chain
from edgora.wire import rest
from edgora.wire.errors import NotFound, Refused

__all__ = ["Faucet"]

PER_SECOND, BURST = 2, 64


class Faucet:
    """One node's faucet; closed without a key."""

    def __init__(self, chain: Chain, key: SigningKey | None, most_wei: int, clock_s: Callable[[], float]) -> None:
        self._chain, self._key, self._most = chain, key, most_wei
        self._calls = Buckets(PER_SECOND, BURST, clock_s, "faucet calls")

    async def give(self, order: rest.FaucetOrder) -> rest.FaucetReceipt:
        """Deposit for an address; returns once the chain has mined it."""
        if self._key is None:
            raise NotFound("this node has no faucet", fix="deposit with a transaction of your own: depositFor(address)")
        wei = int(order.wei)
        if not 0 < wei <= self._most:
            raise Refused(f"wei {wei} is not within 1..{self._most}", field="wei", fix="ask for less, or again")
        self._calls.take("all")
        mined = await self._chain.deposit_for(self._key, unhex(order.address, "address"), wei)
        return rest.FaucetReceipt(address=order.address, wei=str(wei), chain_tx=hex_of(mined.tx_hash))
