"""Who measures a client hears of what it has done, failures of deliveries included."""

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from edgora.client import AsyncClient, Client, Done, Wallet
from edgora.crypto.keys import SealingKey
from edgora.crypto.sign import SigningKey
from edgora.wire.errors import Unavailable

TASK = bytes(range(32))


@pytest.fixture(scope="module")
def wallet() -> Wallet:
    return Wallet(SigningKey(b"\x07" * 32), SealingKey.generate())


def refused(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("nobody is there", request=request)


def check(heard: list[Done]) -> None:
    (done,) = heard
    assert (done.verb, done.task) == ("deliver", TASK)
    assert done.began_ms <= done.ended_ms
    assert done.error is not None
    assert "http://nowhere.test" in done.error


def test_a_delivery_that_fails_is_told(wallet: Wallet) -> None:
    heard: list[Done] = []
    ticket: Any = SimpleNamespace(task=TASK)
    with httpx2.Client(transport=httpx2.MockTransport(refused)) as http:
        ue = Client("http://nowhere.test", wallet, http=http, on_done=heard.append)
        with pytest.raises(Unavailable):
            ue.deliver(ticket)
    check(heard)


def test_asynchronously_too(wallet: Wallet) -> None:
    heard: list[Done] = []
    ticket: Any = SimpleNamespace(task=TASK)

    async def run() -> None:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(refused)) as http:
            ue = AsyncClient("http://nowhere.test", wallet, http=http, on_done=heard.append)
            with pytest.raises(Unavailable):
                await ue.deliver(ticket)

    asyncio.run(run())
    check(heard)
