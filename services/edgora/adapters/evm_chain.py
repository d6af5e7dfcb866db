"""An EVM inside this process (py-evm by eth-tester): the chain of the demo where no anvil is found.

Blocks follow wall time (house.md 6): transactions that wait are mined together, at most one block a second, and the
block's time is wall time, never ahead of it. While nobody sends, `latest` mines an empty block once the newest is
`idle_block_s` old, so that chain time passes without a task in the background. The EVM itself runs in a thread.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from eth.exceptions import Revert as EvmRevert
from eth.vm.spoof import SpoofTransaction
from eth_tester.backends.pyevm.main import PyEVMBackend
from eth_utils.exceptions import ValidationError as EvmRefused

from edgora.adapters.contract_chain import ContractChain, Log, Reverted, signed_transaction
from edgora.crypto.sign import SigningKey
from edgora.ports.chain import ChainBlock, Mined
from edgora.wire.errors import Refused
from edgora.wire.hashing import keccak

__all__ = ["EvmChain"]

_BLOCK_GAS = 2**40
"""So that any number of waiting transactions, each with its full limit, fits one block."""
_TX_GAS = 2**24
"""EIP-7825's cap; what is not used is not paid."""
_FEE_WEI = 2 * 10**9
_NOBODY = bytes(20)


class _Waiting(NamedTuple):
    sender: bytes
    raw: bytes
    done: "asyncio.Future[Mined]"


class EvmChain(ContractChain):
    """`ports.chain.Chain` on py-evm. `funded`: wei of addresses at genesis."""

    def __init__(
        self,
        market: bytes,
        funded: Mapping[bytes, int],
        *,
        idle_block_s: int = 2,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(market)
        self._clock = clock
        self._sleep = sleep
        self._idle_block_s = idle_block_s
        genesis = PyEVMBackend.generate_genesis_params({"gas_limit": _BLOCK_GAS, "timestamp": int(clock()) - 1})
        state = {a: {"balance": wei, "nonce": 0, "code": b"", "storage": {}} for a, wei in funded.items()}
        self._backend = PyEVMBackend(genesis_parameters=genesis, genesis_state=state)
        self._chain_id: int = self._backend.chain.chain_id
        self._evm = asyncio.Lock()
        """Whoever holds it may touch the backend, which is not made for two at a time."""
        self._waiting: list[_Waiting] = []
        self._nonces: dict[bytes, int] = {}
        self._miner: asyncio.Task[None] | None = None

    async def close(self) -> None:
        if self._miner is not None:
            self._miner.cancel()
            await asyncio.gather(self._miner, return_exceptions=True)
        for waiting in self._waiting:
            waiting.done.cancel()

    async def _run(self, function: Callable[..., Any], *arguments: object) -> Any:
        async with self._evm:
            return await asyncio.to_thread(function, *arguments)

    # ---- the chain itself

    async def chain_id(self) -> int:
        return self._chain_id

    async def latest(self) -> ChainBlock:
        newest = await self._run(self._newest)
        if not self._waiting and int(self._clock()) - newest.time_s >= self._idle_block_s:
            newest = await self._run(self._mine_empty)
        block: ChainBlock = newest
        return block

    async def block(self, number: int) -> ChainBlock | None:
        block: ChainBlock | None = await self._run(self._block_at, number)
        return block

    async def balance(self, address: bytes) -> int:
        return int(await self._run(self._backend.get_balance, address))

    async def _code(self, address: bytes) -> bytes:
        return bytes(await self._run(self._backend.get_code, address))

    # ---- primitives of ContractChain

    async def _call(self, data: bytes) -> bytes:
        result: bytes = await self._run(self._execute, data)
        return result

    async def _logs(self, from_block: int, to_block: int) -> Sequence[Log]:
        logs: list[Log] = await self._run(self._read_logs, from_block, to_block)
        return logs

    async def _submit(self, key: SigningKey, to: bytes | None, data: bytes, wei: int) -> asyncio.Future[Mined]:
        nonce = self._nonces.get(key.address)
        if nonce is None:
            nonce = int(await self._run(self._backend.get_nonce, key.address))
        fields = {
            "type": 2, "chainId": self._chain_id, "nonce": nonce, "value": wei, "data": data, "gas": _TX_GAS,
            "maxFeePerGas": _FEE_WEI, "maxPriorityFeePerGas": 0,
        }  # fmt: skip
        if to is not None:
            fields["to"] = to
        waiting = _Waiting(key.address, signed_transaction(key, fields), asyncio.get_running_loop().create_future())
        self._nonces[key.address] = nonce + 1
        self._waiting.append(waiting)
        if self._miner is None or self._miner.done():
            self._miner = asyncio.create_task(self._mine_waiting())
        return waiting.done

    # ---- mining

    async def _mine_waiting(self) -> None:
        while self._waiting:
            newest = await self._run(self._newest)
            ahead = newest.time_s + 1 - self._clock()
            if ahead > 0:
                await self._sleep(ahead)
                continue
            batch, self._waiting = self._waiting, []
            for waiting, outcome in zip(batch, await self._run(self._mine_batch, batch), strict=True):
                if isinstance(outcome, Refused):
                    # It was never in a block: what this sender signed after it has a gap in front of it.
                    self._nonces.pop(waiting.sender, None)
                if waiting.done.done():
                    continue  # whoever waited gave up
                if isinstance(outcome, Mined):
                    waiting.done.set_result(outcome)
                else:
                    waiting.done.set_exception(outcome)

    def _mine_batch(self, batch: Sequence[_Waiting]) -> list[Mined | Reverted | Refused]:
        chain = self._backend.chain
        self._set_time()
        builder = chain.get_transaction_builder()
        applied: list[tuple[Any, Any] | Refused] = []
        for waiting in batch:
            try:
                _, receipt, computation = chain.apply_transaction(builder.decode(waiting.raw))
            except EvmRefused as error:
                applied.append(Refused(f"the chain refused the transaction: {error}"))
            else:
                applied.append((receipt, computation))
        self._backend.mine_blocks(1)
        block = self._newest()
        outcomes: list[Mined | Reverted | Refused] = []
        index, before = 0, 0
        for waiting, result in zip(batch, applied, strict=True):
            if isinstance(result, Refused):
                outcomes.append(result)
                continue
            receipt, computation = result
            gas, before = receipt.gas_used - before, receipt.gas_used
            if computation.is_error:
                outcomes.append(Reverted(_returned(computation)))
            else:
                created = computation.msg.storage_address if computation.msg.is_create else None
                outcomes.append(Mined(keccak(waiting.raw), block.number, block.hash, index, gas, created))
            index += 1
        return outcomes

    def _mine_empty(self) -> ChainBlock:
        self._set_time()
        self._backend.mine_blocks(1)
        return self._newest()

    def _set_time(self) -> None:
        self._backend.chain.set_header_timestamp(max(self._newest().time_s + 1, int(self._clock())))

    # ---- reads, in the EVM's thread

    def _newest(self) -> ChainBlock:
        header = self._backend.chain.get_canonical_head()
        return ChainBlock(header.block_number, header.hash, header.timestamp)

    def _block_at(self, number: int) -> ChainBlock | None:
        if not 0 <= number <= self._newest().number:
            return None
        header = self._backend.chain.get_canonical_block_header_by_number(number)
        return ChainBlock(header.block_number, header.hash, header.timestamp)

    def _execute(self, data: bytes) -> bytes:
        chain = self._backend.chain
        unsigned = chain.create_unsigned_transaction(
            nonce=0, gas_price=0, gas=_TX_GAS, to=self.market, value=0, data=data
        )
        with chain.get_vm(chain.get_canonical_head()).in_costless_state() as state:
            computation = state.costless_execute_transaction(SpoofTransaction(unsigned, from_=_NOBODY))
        if computation.is_error:
            raise Reverted(_returned(computation))
        return bytes(computation.output)

    def _read_logs(self, from_block: int, to_block: int) -> list[Log]:
        chain = self._backend.chain
        logs = []
        for number in range(from_block, min(to_block, self._newest().number) + 1):
            block = chain.get_canonical_block_by_number(number)
            log_index = 0
            for tx_index, receipt in enumerate(block.get_receipts(chain.chaindb)):
                for log in receipt.logs:
                    if log.address == self.market:
                        topics = tuple(topic.to_bytes(32, "big") for topic in log.topics)
                        logs.append(Log(number, block.hash, tx_index, log_index, topics, log.data))
                    log_index += 1
        return logs


def _returned(computation: Any) -> bytes:
    """Octets of a revert; an error of the EVM itself (out of gas) returns none."""
    return bytes(computation.output) if isinstance(computation.error, EvmRevert) else b""
