"""An EVM node behind JSON-RPC (anvil, geth, anything that speaks it), and how to start anvil.

Transactions are signed here and sent raw: the node holds no key. The nonce is the node's pending count, read and used
under one lock a sender. Nothing is retried behind the caller's back: a send that nobody answered is Unknown.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from aiohttp import ClientError, ClientTimeout
from web3 import AsyncHTTPProvider
from web3.types import RPCEndpoint

from edgora.adapters.contract_chain import ContractChain, Log, Reverted, signed_transaction
from edgora.adapters.loopback import free_port
from edgora.crypto.sign import SigningKey
from edgora.ports.chain import ChainBlock, Mined
from edgora.wire.errors import Refused, Unavailable, Unknown
from edgora.wire.hashing import keccak

__all__ = ["Anvil", "AnvilChain", "find_anvil", "start_anvil"]

TIP_WEI = 10**9
_POLL_FIRST_S = 0.02
_POLL_MOST_S = 1.0


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _int(text: str) -> int:
    return int(text, 16)


class AnvilChain(ContractChain):
    """`ports.chain.Chain` over HTTP."""

    def __init__(self, url: str, market: bytes, *, call_timeout_s: float = 10, block_timeout_s: float = 120) -> None:
        super().__init__(market)
        self._url = url
        self._block_timeout_s = block_timeout_s
        self._provider = AsyncHTTPProvider(
            url, request_kwargs={"timeout": ClientTimeout(total=call_timeout_s)}, exception_retry_configuration=None
        )
        self._chain_id: int | None = None
        self._waiting: set[asyncio.Task[Mined]] = set()

    async def close(self) -> None:
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        await self._provider.disconnect()

    async def rpc(self, method: str, *params: object) -> Any:
        """One JSON-RPC call. Raises Reverted, Unavailable, or Refused with the node's words."""
        try:
            answer = await self._provider.make_request(RPCEndpoint(method), list(params))
        except (ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"the chain at {self._url} does not answer {method}: {error!r}") from error
        failure = cast("Mapping[str, Any] | None", answer.get("error"))
        if failure is None:
            return answer["result"]
        data = failure.get("data")
        if isinstance(data, str) and data.startswith("0x"):
            raise Reverted(_bytes(data))
        message = failure.get("message", "")
        if failure.get("code") == 3 or "revert" in message:
            raise Reverted(b"")
        raise Refused(f"the chain refused {method}: {message}")

    # ---- the chain itself

    async def chain_id(self) -> int:
        if self._chain_id is None:
            self._chain_id = _int(await self.rpc("eth_chainId"))
        return self._chain_id

    async def latest(self) -> ChainBlock:
        block = await self._block("latest")
        if block is None:
            raise Unavailable(f"the chain at {self._url} has no block yet")
        return block

    async def block(self, number: int) -> ChainBlock | None:
        return await self._block(hex(number))

    async def _block(self, which: str) -> ChainBlock | None:
        block = await self.rpc("eth_getBlockByNumber", which, False)
        if block is None:
            return None
        return ChainBlock(_int(block["number"]), _bytes(block["hash"]), _int(block["timestamp"]))

    async def balance(self, address: bytes) -> int:
        return _int(await self.rpc("eth_getBalance", _hex(address), "latest"))

    async def _code(self, address: bytes) -> bytes:
        return _bytes(await self.rpc("eth_getCode", _hex(address), "latest"))

    # ---- primitives of ContractChain

    async def _call(self, data: bytes) -> bytes:
        return _bytes(await self.rpc("eth_call", {"to": _hex(self.market), "data": _hex(data)}, "latest"))

    async def _logs(self, from_block: int, to_block: int) -> Sequence[Log]:
        window = {"address": _hex(self.market), "fromBlock": hex(from_block), "toBlock": hex(to_block)}
        logs = [
            Log(
                _int(log["blockNumber"]), _bytes(log["blockHash"]), _int(log["transactionIndex"]), _int(log["logIndex"]),
                tuple(map(_bytes, log["topics"])), _bytes(log["data"]),
            )
            for log in await self.rpc("eth_getLogs", window)
        ]  # fmt: skip
        return sorted(logs, key=lambda log: (log.block_number, log.log_index))

    async def _submit(self, key: SigningKey, to: bytes | None, data: bytes, wei: int) -> asyncio.Future[Mined]:
        call = {"from": _hex(key.address), "data": _hex(data), "value": hex(wei)}
        if to is not None:
            call["to"] = _hex(to)
        # Estimated on the pending block, so that a batch on top of one that waits is not refused for its order.
        estimate, nonce, head, chain_id = await asyncio.gather(
            self.rpc("eth_estimateGas", call, "pending"),
            self.rpc("eth_getTransactionCount", _hex(key.address), "pending"),
            self.rpc("eth_getBlockByNumber", "latest", False),
            self.chain_id(),
        )
        # An eighth above the estimate: the 1/64 that each call keeps back and a state that moved meanwhile.
        gas = _int(estimate) * 9 // 8
        fields = {
            "type": 2, "chainId": chain_id, "nonce": _int(nonce), "value": wei, "data": data, "gas": gas,
            "maxFeePerGas": 2 * _int(head["baseFeePerGas"]) + TIP_WEI, "maxPriorityFeePerGas": TIP_WEI,
        }  # fmt: skip
        if to is not None:
            fields["to"] = to
        raw = signed_transaction(key, fields)
        tx_hash = keccak(raw)
        try:
            await self.rpc("eth_sendRawTransaction", _hex(raw))
        except Unavailable as error:
            raise Unknown(f"transaction {tx_hash.hex()} was sent, nobody said whether it arrived") from error
        task = asyncio.create_task(self._mined(tx_hash, call))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return task

    async def _mined(self, tx_hash: bytes, call: Mapping[str, str]) -> Mined:
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + self._block_timeout_s, _POLL_FIRST_S
        while (receipt := await self._receipt(tx_hash)) is None:
            if loop.time() > end:
                raise Unknown(f"transaction {tx_hash.hex()} is in no block after {self._block_timeout_s} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _POLL_MOST_S)
        if _int(receipt["status"]) != 1:
            # The receipt does not say why; the same call on the state of that block does.
            await self.rpc("eth_call", call, receipt["blockNumber"])
            raise Reverted(b"")
        created = receipt.get("contractAddress")
        return Mined(
            tx_hash, _int(receipt["blockNumber"]), _bytes(receipt["blockHash"]), _int(receipt["transactionIndex"]),
            _int(receipt["gasUsed"]), _bytes(created) if created else None,
        )  # fmt: skip

    async def _receipt(self, tx_hash: bytes) -> Mapping[str, Any] | None:
        try:
            return cast("Mapping[str, Any] | None", await self.rpc("eth_getTransactionReceipt", _hex(tx_hash)))
        except Unavailable:
            # The transaction is out; a node that is away for a moment does not make it unsent.
            return None


# ---- starting anvil ----------------------------------------------------------------------------------------------------


def find_anvil() -> Path | None:
    """The anvil binary: $EDGORA_ANVIL, PATH, npm's native package at or above the working folder. None if nowhere.

    npm's launcher script is passed over: it leaves its child alive when it is killed.
    """
    if named := os.environ.get("EDGORA_ANVIL"):
        return Path(named)
    if (found := shutil.which("anvil")) and not Path(found).resolve().as_posix().endswith(".mjs"):
        return Path(found)
    system = {"linux": "linux", "darwin": "darwin", "win32": "win32"}.get(sys.platform, sys.platform)
    roots = [Path.cwd(), *Path.cwd().parents, *Path(__file__).resolve().parents]
    for root in roots:
        for binary in sorted(root.glob(f"node_modules/@foundry-rs/anvil-{system}-*/bin/anvil*")):
            return binary
    return None


class Anvil:
    """A running anvil on 127.0.0.1; leaving the `with` block ends it, by its own process id."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self._process = process
        self.url = url

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """End it and wait until it is gone; its state file, if any, is written on the way out."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _answers(url: str) -> bool:
    question = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}'
    request = urllib.request.Request(url, question, {"Content-Type": "application/json"})  # noqa: S310 - our own URL
    try:
        with urllib.request.urlopen(request, timeout=1) as answer:  # noqa: S310 - our own URL
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def start_anvil(
    *,
    binary: Path | None = None,
    port: int | None = None,
    block_time_s: int | None = None,
    timestamp_s: int | None = None,
    state: Path | None = None,
    arguments: Sequence[str] = (),
    timeout_s: float = 15,
) -> Anvil:
    """Start anvil and wait until it answers.

    block_time_s: also mine an empty block that often, so that chain time passes while nobody sends; transactions are
    mined at once either way. timestamp_s: time of the genesis block. state: kept in this file over restarts.
    Raises Unavailable with anvil's own words if it does not come up.
    """
    found = binary or find_anvil()
    if found is None:
        raise Unavailable("no anvil: set EDGORA_ANVIL, put anvil on PATH, or run `npm ci` in the project folder")
    for attempt in range(3):
        listen = port or free_port()
        command = [str(found), "--host", "127.0.0.1", "--port", str(listen), "--silent", *arguments]
        if block_time_s is not None:
            command += ["--block-time", str(block_time_s), "--mixed-mining"]
        if timestamp_s is not None:
            command += ["--timestamp", str(timestamp_s)]
        if state is not None:
            command += ["--state", str(state), "--state-interval", "1"]
        # A session of its own: Ctrl-C reaches us alone, and the chain ends after those who need it.
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        anvil = Anvil(process, f"http://127.0.0.1:{listen}")
        end = time.monotonic() + timeout_s
        while process.poll() is None and time.monotonic() < end:
            if _answers(anvil.url):
                return anvil
            time.sleep(0.02)
        anvil.stop()
        words = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
        # Another process may have taken the free port between our look and anvil's.
        if port is not None or attempt == 2:
            break
    raise Unavailable(f"{found} did not come up: {words or 'no answer'}")
