"""A UE's link takes the time that its rates give it, and its processor the time that its clock gives it."""

import asyncio

import httpx2
import pytest

from edgora.client.kernels import demo_input
from edgora.compute.sandbox import Sandbox
from edgora.ue.device import Device
from edgora.ue.radio import RadioTransport
from edgora.wire.errors import Unavailable
from edgora.wire.inputs import TaskInput
from edgora.wire.kernels import load

ANSWER = b"x" * 500


def linked(
    up: float, down: float | None = None
) -> tuple[httpx2.AsyncClient, RadioTransport, list[tuple[str, bool, float]]]:
    heard: list[tuple[str, bool, float]] = []
    radio = RadioTransport(
        httpx2.MockTransport(lambda _: httpx2.Response(200, content=ANSWER)), up, down,
        lambda request, is_up, seconds: heard.append((request.url.path, is_up, seconds)),
    )  # fmt: skip
    return httpx2.AsyncClient(transport=radio), radio, heard


async def test_each_direction_has_its_rate() -> None:
    http, radio, heard = linked(8e6, 4e6)
    reply = await http.put("http://node/v1/inputs/1", content=b"y" * 1_000)
    assert reply.content == ANSWER
    assert heard == [("/v1/inputs/1", True, 8 * 1_000 / 8e6), ("/v1/inputs/1", False, 8 * 500 / 4e6)]
    assert (radio.sent, radio.received) == (1_000, 500)


async def test_one_rate_is_both() -> None:
    _, radio, _ = linked(1e6)
    assert (radio.up_bits_s, radio.down_bits_s) == (1e6, 1e6)


async def test_new_rates_hold_from_the_next_transmission_on(monkeypatch: pytest.MonkeyPatch) -> None:
    http, radio, heard = linked(8e6)
    sleep = asyncio.sleep

    async def tuning(seconds: float) -> None:
        radio.tune(2e6, 1e6)  # while the request is on the air
        await sleep(seconds)

    monkeypatch.setattr("edgora.ue.radio.asyncio.sleep", tuning)
    await http.put("http://node/a", content=b"y" * 1_000)
    await http.put("http://node/b", content=b"y" * 1_000)
    assert [seconds for _, _, seconds in heard] == [1e-3, 8 * 500 / 1e6, 8 * 1_000 / 2e6, 8 * 500 / 1e6]


async def test_a_device_runs_its_parts_one_by_one_at_its_clock() -> None:
    device = Device(Sandbox())
    plaintext = demo_input("matmul", 1)
    alone = await device.run("matmul", plaintext, 10**12)
    speed = alone.fuel_used * 20  # a twentieth of a second each
    first, second = await asyncio.gather(*(device.run("matmul", plaintext, speed) for _ in range(2)))
    assert first.output == second.output == alone.output
    assert first.ms >= 50
    assert second.ms >= 100, "it waited for the first one"
    await device.close()
    with pytest.raises(Unavailable):
        await device.run("matmul", plaintext, 10**12)


async def test_a_part_without_a_result_is_an_error_with_its_code() -> None:
    device = Device(Sandbox())
    short = TaskInput(load("sobel").manifest.pack({"width": 4, "height": 4, "channels": 1}), b"too few").pack()
    with pytest.raises(Unavailable, match="the UE's own part ended TRAP"):
        await device.run("sobel", short, 10**9)
    await device.close()
