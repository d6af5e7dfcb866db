"""The edge of the API: how much one source may send, how fast, and how long a body may take (ledger.md 16).

Rule 1: a body is bounded before any of it is parsed, by its declared length and by what really arrives.
Rule 2: the memory for sources is bounded; the least recently seen one is forgotten first.
Rule 3: no clock of its own: the caller passes a monotonic one, so tests need not wait.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgora.node.api.problems import problem, problem_response
from edgora.wire.errors import EdgoraError, Refused, TooLarge, TooMany

__all__ = ["BodyRule", "Buckets", "Edge"]

_SOURCES = 4_096
BODY_SECONDS = 30.0
"""A body that takes longer is a client that only holds a connection."""


class SlowBody(Refused):
    code = "slow_body"
    status = 408


class _Bucket:
    __slots__ = ("at_s", "tokens")

    def __init__(self, tokens: float, at_s: float) -> None:
        self.tokens = tokens
        self.at_s = at_s


class Buckets:
    """One token bucket for each key: `rate` tokens a second up to `burst`."""

    def __init__(self, rate: int, burst: int, clock_s: Callable[[], float], name: str) -> None:
        self._rate, self._burst, self._clock, self._name = rate, burst, clock_s, name
        self._buckets: OrderedDict[str | bytes, _Bucket] = OrderedDict()

    def take(self, key: str | bytes, count: int = 1) -> None:
        """Spend tokens. Raises TooMany with the time after which as many will be there."""
        now = self._clock()
        bucket = self._buckets.pop(key, None) or _Bucket(float(self._burst), now)
        self._buckets[key] = bucket
        if len(self._buckets) > _SOURCES:
            self._buckets.popitem(last=False)
        bucket.tokens = min(float(self._burst), bucket.tokens + (now - bucket.at_s) * self._rate)
        bucket.at_s = now
        need = min(count, self._burst)
        if bucket.tokens < need:
            wait = max(1, -int(-(need - bucket.tokens) // self._rate))
            raise TooMany(
                f"over {self._rate} {self._name} per second from this source or sender", retry_after_s=wait,
                fix=f"wait {wait} s and send the identical request again",
            )  # fmt: skip
        bucket.tokens -= count


class BodyRule(NamedTuple):
    """Paths that match may have bodies of so many octets."""

    path: re.Pattern[str]
    octets: int


class Edge:
    """ASGI middleware: rate by source, then the whole body read within bounds and handed on in one piece."""

    def __init__(self, app: ASGIApp, *, rules: Sequence[BodyRule], default_octets: int, requests: Buckets) -> None:
        self._app, self._rules, self._default, self._requests = app, rules, default_octets, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        try:
            self._requests.take(client[0] if client else "local")
            body = await self._body(scope, receive) if scope["method"] not in ("GET", "HEAD", "OPTIONS") else None
        except EdgoraError as error:
            await problem_response(problem(error), {"Connection": "close"})(scope, receive, send)
            return
        if body is None:
            await self._app(scope, receive, send)
            return
        pending: list[bytes] = [body]

        async def replay() -> Message:
            if pending:
                return {"type": "http.request", "body": pending.pop(), "more_body": False}
            return await receive()

        await self._app(scope, replay, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        limit = next((rule.octets for rule in self._rules if rule.path.fullmatch(scope["path"])), self._default)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        octets = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused("the client left before its body was complete", field="body")
                    part: bytes = message.get("body", b"")
                    octets += len(part)
                    if octets > limit:
                        raise _too_large(limit)
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise SlowBody(f"the body took over {BODY_SECONDS:.0f} s", field="body", fix="send it faster") from None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the body has more than {limit} octets", field="body", fix=f"send at most {limit} octets to this path"
    )
