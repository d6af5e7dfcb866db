"""The chain under a run: anvil where it is found, else the EVM in this process; funded, with our contract on it.

Ether for gas comes from the development chain itself (`anvil_setBalance`, or the genesis state of py-evm); no key of
anvil's published mnemonic is used for anything.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from edgora.adapters.anvil_chain import AnvilChain, find_anvil, start_anvil
from edgora.adapters.chain_deploy import Deployment, deploy_settlement
from edgora.crypto.sign import SigningKey
from edgora.lab.ground import Ground
from edgora.ports.chain import Chain, Mined
from edgora.wire.errors import Unavailable
from edgora.wire.genesis import Genesis
from edgora.wire.units import Wei

__all__ = ["EVM_CHAIN_ID", "GasMeter", "RunningChain", "chain_kind", "deploy", "fund", "open_chain"]

EVM_CHAIN_ID = 131277322940537
"""What eth-tester's py-evm calls itself."""
GAS_MONEY = Wei(100 * 10**18)
FAUCET_MONEY = Wei(10**6 * 10**18)


class GasMeter:
    """A chain that notes what each settlement cost; everything else passes through."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self.settlements: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    async def settle(self, *arguments: Any, **named: Any) -> Mined:
        mined = await self._chain.settle(*arguments, **named)
        self.settlements.append(mined.gas_used)
        return mined

    def summary(self) -> dict[str, float]:
        """Total and mean gas of the settlements that were mined."""
        total = float(sum(self.settlements))
        return {
            "settle_total": total,
            "settle_mean": round(total / len(self.settlements), 1) if self.settlements else 0.0,
        }


@dataclass(frozen=True, slots=True)
class RunningChain:
    """A chain with the contract on it. url is None for the in-process EVM."""

    chain: Chain
    gas: GasMeter
    kind: str
    url: str | None
    deployment: Deployment
    stop: Callable[[], None]

    async def close(self) -> None:
        await self.chain.close()
        self.stop()


def chain_kind(wanted: str) -> str:
    """Resolve: auto becomes anvil or evm, by what is found."""
    if wanted == "anvil" and find_anvil() is None:
        raise Unavailable(
            "no anvil binary is found", field="chain.kind", fix="run `npm ci`, set EDGORA_ANVIL, or take chain.kind=evm"
        )
    return ("anvil" if find_anvil() else "evm") if wanted == "auto" else wanted


async def fund(chain: AnvilChain, addresses: Sequence[tuple[bytes, int]]) -> None:
    """Give development ether; never takes any away."""
    for address, wei in addresses:
        if await chain.balance(address) < wei:
            await chain.rpc("anvil_setBalance", "0x" + address.hex(), hex(wei))


def accounts(genesis: Genesis) -> list[tuple[bytes, int]]:
    """Who pays gas: the deployer, which is also the faucet, and each validator."""
    return [(genesis.deployer, FAUCET_MONEY), *((v.address, GAS_MONEY) for v in genesis.validators)]


async def deploy(chain: Chain, deployer: SigningKey, genesis: Genesis) -> Deployment:
    """Put the contract where the genesis document says; idempotent."""
    return await deploy_settlement(
        chain, deployer, genesis.addresses, genesis.consortium_id, genesis.id, genesis.market.lambda_bps,
        genesis.market.exit_delay_s, genesis.min_stake_gwei * 10**9, genesis.unbond_delay_s,
    )  # fmt: skip


async def open_chain(kind: str, ground: Ground, port: int = 0) -> RunningChain:
    """Start a chain of this kind (anvil or evm), fund it, deploy."""
    market = ground.genesis.market_address
    if kind == "evm":
        from edgora.adapters.evm_chain import EvmChain  # py-evm is no part of a node's image

        chain: Chain = EvmChain(market, dict(accounts(ground.genesis)))
        gas = GasMeter(chain)
        return RunningChain(
            cast("Chain", gas), gas, kind, None, await deploy(chain, ground.deployer, ground.genesis), lambda: None
        )
    anvil = await asyncio.to_thread(
        start_anvil, port=port or None, arguments=("--chain-id", str(ground.genesis.chain_id)), block_time_s=2
    )
    try:
        remote = AnvilChain(anvil.url, market)
        await fund(remote, accounts(ground.genesis))
        gas = GasMeter(remote)
        deployment = await deploy(remote, ground.deployer, ground.genesis)
        return RunningChain(cast("Chain", gas), gas, kind, anvil.url, deployment, anvil.stop)
    except BaseException:
        anvil.stop()
        raise
