"""A UE's radio link as an HTTP transport: octets take the time that the shared radio model gives them.

The only thing in a run that is simulated. Everything that the UE sends or receives passes here, requests and answers
alike; event streams are not paced (their octets are few and arrive when they happen).
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence

import httpx2

from edgora.allocator.radio import Channel
from edgora.ue.plan import nearest

__all__ = ["Aired", "RadioTransport", "rates"]

Aired = Callable[[httpx2.Request, bool, float], None]
"""Hears of each transmission when it is over: for which request, whether up, and how many seconds it was on the air."""


def rates(
    channel: Channel, power_w: float, ues: Sequence[tuple[float, float]], servers: Mapping[int, tuple[float, float]]
) -> list[float]:
    """Bits per second of each UE to its nearest server, the band shared evenly among the UEs of a server."""
    homes = [nearest(place, servers)[0] for place in ues]
    shares = [1.0 / homes.count(home) for home in homes]
    gains = [
        float(channel.path_loss.gain(math.dist(place, servers[home]))) for place, home in zip(ues, homes, strict=True)
    ]
    return [float(channel.rate(power_w, gain, share)) for gain, share in zip(gains, shares, strict=True)]


class RadioTransport(httpx2.AsyncBaseTransport):
    """Delays requests and answers by octets x 8 / rate, one transmission at a time in each direction."""

    def __init__(
        self, inner: httpx2.AsyncBaseTransport, up_bits_s: float, down_bits_s: float | None = None,
        aired: Aired | None = None,
    ) -> None:  # fmt: skip
        """down_bits_s: as up if None."""
        self._inner = inner
        self._aired = aired
        self.up_bits_s = up_bits_s
        self.down_bits_s = up_bits_s if down_bits_s is None else down_bits_s
        self.fading = 1.0
        """Share of the rates that the channel gives now."""
        self._up = asyncio.Lock()
        self._down = asyncio.Lock()
        self.sent = 0
        self.received = 0

    def tune(self, up_bits_s: float, down_bits_s: float) -> None:
        """New rates from the next transmission on; one that is on the air ends at its own."""
        self.up_bits_s, self.down_bits_s = up_bits_s, down_bits_s

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send after the air time of the body; answer after the air time of what came back."""
        body = await request.aread()
        self.sent += len(body)
        await self._air(request, len(body), up=True)
        response = await self._inner.handle_async_request(request)
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            return response
        content = await response.aread()
        await response.aclose()
        self.received += len(content)
        await self._air(request, len(content), up=False)
        kept = [(k, v) for k, v in response.headers.raw if k.lower() not in {b"content-encoding", b"transfer-encoding"}]
        return httpx2.Response(response.status_code, headers=kept, content=content, request=request)

    async def _air(self, request: httpx2.Request, octets: int, *, up: bool) -> None:
        if octets:
            async with self._up if up else self._down:
                seconds = 8 * octets / (self.fading * (self.up_bits_s if up else self.down_bits_s))
                await asyncio.sleep(seconds)
            if self._aired is not None:
                self._aired(request, up, seconds)

    async def aclose(self) -> None:
        await self._inner.aclose()
