"""Tell development nodes where the fleet's UEs stand, so that a map can show who sends where.

A convenience for people who watch: a node that is away, or that wants no positions, costs the fleet nothing. Nodes keep
them in memory, so a node that was restarted has forgotten them and is told again.
"""

import asyncio
from collections.abc import Mapping, Sequence

import httpx2
import msgspec

from edgora.wire import rest

__all__ = ["AGAIN_S", "tell_positions"]

AGAIN_S = 20.0
_TIMEOUT_S = 5.0
_REPORT = 256
"""Most positions in one report (wire.rest.development)."""


async def tell_positions(
    addresses: Sequence[str], places_m: Sequence[tuple[float, float]], urls: Mapping[int, str],
    transport: httpx2.AsyncBaseTransport | None = None,
) -> None:  # fmt: skip
    """Tell every node, again and again, until cancelled or until each of them has said that it wants none."""
    known = [rest.Position(ue=ue, x_m=x, y_m=y) for ue, (x, y) in zip(addresses, places_m, strict=True)]
    reports = [
        msgspec.json.encode(rest.PositionReport(items=known[at : at + _REPORT])) for at in range(0, len(known), _REPORT)
    ]
    open_to = set(urls.values())
    async with httpx2.AsyncClient(transport=transport, timeout=_TIMEOUT_S) as http:
        while True:
            told = await asyncio.gather(*(_tell(http, url, reports) for url in sorted(open_to)))
            open_to -= {url for url, wanted in zip(sorted(open_to), told, strict=True) if not wanted}
            if not open_to:
                return
            await asyncio.sleep(AGAIN_S)


async def _tell(http: httpx2.AsyncClient, url: str, reports: Sequence[bytes]) -> bool:
    """Whether it makes sense to tell this node again: not if it is no development node."""
    for report in reports:
        try:
            answer = await http.put(
                f"{url}/v1/dev/positions", content=report, headers={"Content-Type": "application/json"}
            )
        except httpx2.HTTPError:
            return True
        if answer.status_code == 404:
            return False
    return True
