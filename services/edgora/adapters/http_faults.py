"""Faults through the two routes of a board, or of the sidecar behind it: `ports.faults.Faults` from further away."""

import httpx2
import msgspec

from edgora.ports.faults import FaultList, FaultOrder, NodeFault
from edgora.wire.errors import Conflict, EdgoraError, NotFound, Refused, Unavailable
from edgora.wire.rest import Problem

__all__ = ["HttpFaults"]

_TIMEOUT_S = 30.0
"""A container that is killed or started takes seconds on a busy machine."""
_ERRORS: dict[int, type[EdgoraError]] = {400: Refused, 404: NotFound, 409: Conflict}


class HttpFaults:
    """A board or a sidecar at a base URL."""

    def __init__(self, url: str, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        """transport: how it is reached; None for TCP."""
        self._url = f"{url.rstrip('/')}/faults"
        self._transport = transport

    async def nodes(self) -> tuple[NodeFault, ...]:
        return tuple(msgspec.json.decode(await self._ask("GET", None), type=FaultList).nodes)

    async def act(self, order: FaultOrder) -> NodeFault:
        return msgspec.json.decode(await self._ask("POST", msgspec.json.encode(order)), type=NodeFault)

    async def _ask(self, method: str, body: bytes | None) -> bytes:
        # A connection each: acts are rare, and a kept one may be dead after a restart of the sidecar.
        async with httpx2.AsyncClient(transport=self._transport, timeout=_TIMEOUT_S, trust_env=False) as http:
            try:
                reply = await http.request(method, self._url, content=body, headers={"X-Edgora-Board": "1"})
            except httpx2.HTTPError as error:
                raise Unavailable(
                    f"{self._url} does not answer: {type(error).__name__}",
                    fix="in containers, start the platform with the profile `faults`",
                ) from None
        if reply.status_code == 200:
            return bytes(reply.content)
        try:
            told = msgspec.json.decode(reply.content, type=Problem)
        except (msgspec.DecodeError, msgspec.ValidationError):
            raise Unavailable(f"{self._url} answered {reply.status_code}") from None
        if told.code == "http_404":  # no such route: the board was given nobody to carry faults out
            raise Refused("this platform's scenario does not allow faults", field="faults.allowed")
        raise _ERRORS.get(reply.status_code, Unavailable)(told.detail, field=told.field, fix=told.fix)
