"""Gas of the BaaS paper's two functions written plainly, measured on anvil (contracts.md 10, baas.md 7)."""

import asyncio

from edgora.adapters.anvil_chain import AnvilChain, start_anvil
from edgora.contracts import paper_trading
from edgora.wire.hashing import keccak

__all__ = ["measure_paper_trading"]

_PRICE_WEI = 10**15
_DEADLINE_S = 2_000_000_000
_PATIENCE_S, _POLL_S = 10.0, 0.01


def measure_paper_trading() -> tuple[int, int]:
    """Gas of CreationTrade and of Trading: the second trade of a user, so no counter is written for the first time.

    The paid server has an account already. Raises Unavailable where there is no anvil.
    """
    with start_anvil() as anvil:
        return asyncio.run(_measure(anvil.url))


async def _measure(url: str) -> tuple[int, int]:
    chain = AnvilChain(url, bytes(20))
    try:
        user, server = (await chain.rpc("eth_accounts"))[:2]
        deployed = await _sent(chain, {"from": user, "data": "0x" + paper_trading().bytecode.hex()})
        contract = deployed["contractAddress"]
        words = (int(server, 16), 24_000_000, 26_400_000_000, _PRICE_WEI, _DEADLINE_S)
        creation = {
            "from": user,
            "to": contract,
            "data": _call("creationTrade(address,uint256,uint256,uint256,uint256)", *words),
        }
        costs = []
        for trade in (1, 2):
            created = await _sent(chain, creation)
            paid = await _sent(
                chain,
                {"from": user, "to": contract, "value": hex(_PRICE_WEI), "data": _call("trading(uint256)", trade)},
            )
            costs.append((int(created["gasUsed"], 16), int(paid["gasUsed"], 16)))
        return costs[-1]
    finally:
        await chain.close()


async def _sent(chain: AnvilChain, transaction: dict[str, str]) -> dict[str, str]:
    """The receipt of a transaction from one of anvil's own accounts. anvil mines it at once, but answers before."""
    digest = await chain.rpc("eth_sendTransaction", transaction)
    receipt: dict[str, str] | None = None
    async with asyncio.timeout(_PATIENCE_S):
        while receipt is None:
            await asyncio.sleep(_POLL_S)
            receipt = await chain.rpc("eth_getTransactionReceipt", digest)
    if receipt["status"] != "0x1":
        raise RuntimeError(f"PaperTrading reverted: {transaction}")
    return receipt


def _call(signature: str, *words: int) -> str:
    return "0x" + keccak(signature.encode())[:4].hex() + b"".join(word.to_bytes(32, "big") for word in words).hex()
