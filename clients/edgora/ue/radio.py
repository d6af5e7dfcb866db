"""A UE's radio link as an HTTP transport: octets take the time that the shared radio model gives them.

The only thing in a run that is simulated. Everything that the UE sends or receives passes here, requests and answers
alike; event streams are not paced (their octets are few and arrive when they happen).
"""

import asyncio
import math
from collections.abc import Mapping, Sequence

import httpx2

from edgora.allocator.radio import Channel
from edgora.ue.plan import nearest

__all__ = ["RadioTransport", "rates"]


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

    def __init__(self, inner: httpx2.AsyncBaseTransport, bits_per_s: float) -> None:
        self._inner = inner
        self._rate = bits_per_s
        self._up = asyncio.Lock()
        self._down = asyncio.Lock()
        self.sent = 0
        self.received = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send after the air time of the body; answer after the air time of what came back."""
        body = await request.aread()
        self.sent += len(body)
        await self._air(self._up, len(body))
        response = await self._inner.handle_async_request(request)
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            return response
        content = await response.aread()
        await response.aclose()
        self.received += len(content)
        await self._air(self._down, len(content))
        kept = [(k, v) for k, v in response.headers.raw if k.lower() not in {b"content-encoding", b"transfer-encoding"}]
        return httpx2.Response(response.status_code, headers=kept, content=content, request=request)

    async def _air(self, direction: asyncio.Lock, octets: int) -> None:
        if octets:
            async with direction:
                await asyncio.sleep(8 * octets / self._rate)

    async def aclose(self) -> None:
        await self._inner.aclose()
