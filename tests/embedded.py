"""The embedded platform for tests: a `Cluster` on a thread with an event loop of its own.

    with Embedded("market.audit_bps=0") as platform:
        with platform.client() as ue:                   # the blocking client, in the test's own thread
            ue.compute(order_for_kernel("sobel", photo(), {}))
        platform.run(platform.cluster.nodes[3].stop())   # what must happen in the platform's loop

The chain, the links' bus and the runners belong to that loop; tests may be blocking or have loops of their own. No
pytest in here.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2

from edgora.adapters.anvil_chain import AnvilChain
from edgora.client import AsyncClient, Client, Order, Ticket, Wallet
from edgora.client.kernels import order_for_kernel, order_for_module
from edgora.client.steps import OpenLock
from edgora.compute.engine import assemble
from edgora.crypto.keys import SealingKey
from edgora.crypto.sign import SigningKey
from edgora.lab.chain import fund
from edgora.lab.cluster import Cluster
from edgora.lab.demo import DEMO_SETTINGS, wait_live
from edgora.lab.scenario import load
from edgora.wire.hashing import keccak

T = TypeVar("T")
START_S = 120.0
QUICK = ("market.batch_ms=1000", "market.audit_bps=0", "fleet.tasks=1", "plan.cancelled=0", "plan.expired=0")
"""Over the demo's settings: batches at once, no audits; tests that want them say so."""

ECHO = """
(module
  (memory (export "memory") 16)
  (global $top (mut i32) (i32.const 1024))
  (func (export "alloc") (param $n i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $top))
    (global.set $top (i32.add (global.get $top) (local.get $n)))
    (local.get $at))
  (func (export "run") (param $at i32) (param $n i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32)) (i64.extend_i32_u (local.get $n)))))
"""
"""Gives its plaintext back."""


@cache
def sealing_key() -> SealingKey:
    """RSA keys are slow to make: one for every UE of the test run."""
    return SealingKey.generate()


def wallet() -> Wallet:
    """A UE that nobody knows yet."""
    return Wallet(SigningKey(os.urandom(32)), sealing_key())


@cache
def binary(wat: str) -> bytes:
    return assemble(wat)


def spin(rounds: int = 20_000, **changes: int) -> Order:
    """A task that costs next to nothing."""
    return replace(order_for_kernel("spin", b"", {"rounds": rounds}), **changes)


def own_module(wat: str, data: bytes = b"", **limits: int) -> Order:
    """An order for a module of the test's own, given as text."""
    limits = {"fuel_limit": 10_000_000, "output_octets": 65_536, "memory_pages": 32, **limits}
    return order_for_module(binary(wat), data, {}, **limits)


class Embedded:
    """A running platform in this process."""

    def __init__(
        self, *settings: str, folder: Path | None = None, quick: bool = True, board: int | None = None
    ) -> None:
        """board: port of the live page; none without it."""
        plan = load(None, [*DEMO_SETTINGS, *(QUICK if quick else ()), *settings])
        self.cluster = Cluster(plan, folder, board)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="embedded platform", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.run(self._start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.run(self.cluster.stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(30)
            self._loop.close()

    async def _start(self) -> None:
        await self.cluster.start()
        await wait_live(list(self.cluster.urls.values()))

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = START_S) -> T:
        """Have the platform's loop do something and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    # ---- what tests look at

    @property
    def urls(self) -> list[str]:
        return list(self.cluster.urls.values())

    @property
    def genesis_id(self) -> str:
        return "0x" + self.cluster.running_ground.genesis.id.hex()

    @property
    def genesis(self) -> Any:
        return self.cluster.running_ground.genesis

    @property
    def chain(self) -> Any:
        """The contract's port; its calls belong into `run`."""
        return self.cluster.chain.chain

    def get(self, path: str, node: int = 0) -> httpx2.Response:
        return httpx2.get(self.urls[node] + path, timeout=60)

    # ---- UEs

    def client(self, keys: Wallet | None = None, nodes: Sequence[str] | None = None, **how: Any) -> Client:
        """A blocking client that has pinned this consortium."""
        how.setdefault("genesis_id", self.genesis_id)
        return Client(list(nodes or self.urls), keys or wallet(), **how)

    def async_client(self, keys: Wallet | None = None, nodes: Sequence[str] | None = None, **how: Any) -> AsyncClient:
        how.setdefault("genesis_id", self.genesis_id)
        return AsyncClient(list(nodes or self.urls), keys or wallet(), **how)

    def funded(self, wei: int = 10**16) -> Wallet:
        """A UE with a deposit that the ledger knows."""
        keys = wallet()
        with self.client(keys) as ue:
            ue.fund(wei)
        return keys

    def funded_all(self, count: int, wei: int = 10**16) -> list[Wallet]:
        """So many of them, funded side by side."""

        async def fund_all() -> list[Wallet]:
            async with contextlib.AsyncExitStack() as stack:
                ues = [await stack.enter_async_context(self.async_client()) for _ in range(count)]
                await asyncio.gather(*(ue.fund(wei) for ue in ues))
                return [ue.session.wallet for ue in ues]

        return asyncio.run(fund_all())

    def give_ether(self, address: bytes, wei: int = 10**18) -> None:
        """Coins for gas and locks, as a development chain gives them away."""

        async def give() -> None:
            remote = AnvilChain(self.cluster.chain.url, self.genesis.market_address)
            try:
                await fund(remote, [(address, wei)])
            finally:
                await remote.close()

        self.run(give())

    def lock_opener(self, keys: Wallet) -> Any:
        """The callback of a blocking client that opens locks on the contract."""

        def open_lock(step: OpenLock) -> None:
            self.run(self.chain.open(keys.signing, step.offer, step.deadline_s, step.wei))

        return open_lock


def hexed(ticket: Ticket) -> str:
    return "0x" + ticket.task.hex()


def digest_of(wat: str) -> str:
    return "0x" + keccak(binary(wat)).hex()
