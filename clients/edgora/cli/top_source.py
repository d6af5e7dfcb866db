"""Where `edgora top` looks: one node at a time, and the next one when it dies.

Rule 1: whoever answers is named; a change of node is said in a sentence, with its cause.
Rule 2: other nodes are learnt from the key documents of GET /v1/servers (public_url), so one --node is enough.
Rule 3: nothing here is checked against certificates: this shows what nodes say. `edgora verify` checks.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import httpx2
import msgspec

from edgora.cli.top_model import UNDER_WAY, NodeView, Picture
from edgora.client.aio import node_urls
from edgora.wire import rest
from edgora.wire.errors import EdgoraError, NotFound, Refused, Unavailable

__all__ = ["TIMEOUT_S", "Watch"]

T = TypeVar("T")
TIMEOUT_S = 3.0
"""A node that takes longer for one answer counts as dead for this look."""
PAGE, ROUNDS, LATELY, BATCHES = 50, 12, 20, 3
MOST_NODES = 64
SAID = 5


class Watch:
    """`look` again and again; it stays with a node until that one fails."""

    def __init__(self, http: httpx2.AsyncClient, nodes: Sequence[str], timeout_s: float = TIMEOUT_S) -> None:
        """nodes: base URLs, asked in turn. Raises Refused for what is no http(s) URL."""
        self._http, self._timeout_s = http, timeout_s
        self._nodes: list[str] = list(dict.fromkeys(node_urls(nodes)))
        self._servers: dict[str, int] = {}
        self._current: str | None = None
        self.says: deque[str] = deque(maxlen=SAID)

    @property
    def nodes(self) -> Sequence[str]:
        """All that are known by now, those given first."""
        return tuple(self._nodes)

    async def look(self) -> Picture:
        """What the nodes say now. Raises Unavailable if none of them answers."""
        picture = await self._from_some_node(self._picture)
        return msgspec.structs.replace(picture, says=tuple(self.says))  # a change of node is known only now

    async def get(self, path: str, kind: type[T]) -> T:
        """One resource, from the first node that answers. Raises what a node refuses it with."""

        async def ask(url: str) -> T:
            return await self._ask(url, path, kind)

        return await self._from_some_node(ask)

    # ---- which node

    async def _from_some_node(self, ask: Callable[[str], Coroutine[Any, Any, T]]) -> T:
        """The answer of the current node, or of the next one in turn; says so when it changes."""
        first = self._current or self._nodes[0]
        start = self._nodes.index(first)
        failures: list[str] = []
        for url in [*self._nodes[start:], *self._nodes[:start]]:
            try:
                answer = await ask(url)
            except Unavailable as error:
                failures.append(f"{url} {error.detail}")
                continue
            if url != self._current:
                if failures:
                    self.says.append(f"{'; '.join(failures)}: asking {url} now")
                self._current = url
            return answer
        raise Unavailable(
            f"no node answers: {'; '.join(failures)}", field="node", fix="give the URL of a running node with --node"
        )

    # ---- asking

    async def _ask(self, url: str, path: str, kind: type[T]) -> T:
        try:
            reply = await self._http.get(url + path, timeout=self._timeout_s)
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise Unavailable(f"does not answer ({type(error).__name__})") from None
        if reply.status_code != 200:
            raise _problem(reply)
        try:
            return msgspec.json.decode(reply.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unavailable(f"answers {path} with something else than expected ({error})") from None

    async def _picture(self, url: str) -> Picture:
        asked = [
            asyncio.ensure_future(self._ask(url, f"/v1/tasks?limit={PAGE}&state={state}", rest.TaskPage))
            for state in UNDER_WAY
        ]
        try:
            info, servers, lately, rounds, batches = await asyncio.gather(
                self._ask(url, "/v1/info", rest.Info), self._ask(url, "/v1/servers", rest.ServerList),
                self._ask(url, f"/v1/tasks?limit={LATELY}", rest.TaskPage),
                self._ask(url, f"/v1/allocations?limit={ROUNDS}", rest.AllocationPage),
                self._ask(url, f"/v1/batches?limit={BATCHES}", rest.BatchPage),
            )  # fmt: skip
            pages = await asyncio.gather(*asked)
        finally:
            for page in asked:
                page.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        # A task may change its state between two pages: the later word about it counts.
        under_way = {task.id: task for page in pages for task in page.items}
        views = dict(zip(self._nodes, await self._views(self._nodes), strict=True))
        self._servers[url] = info.server
        learnt = self._learn(servers)
        views |= dict(zip(learnt, await self._views(learnt), strict=True))
        return Picture(
            node=url, info=info, servers=servers, lately=lately.items, rounds=rounds.items, batches=batches.items,
            under_way=sorted(under_way.values(), key=lambda task: (task.opened_ms, task.id)),
            nodes=list(views.values()), says=(),
        )  # fmt: skip

    async def _views(self, urls: Sequence[str]) -> list[NodeView]:
        return list(await asyncio.gather(*map(self._view, urls)))

    def _learn(self, servers: rest.ServerList) -> list[str]:
        """Nodes that nobody gave us; one that was given under another name is not asked twice."""
        learnt, known = [], set(self._servers.values())
        for server in servers.items:
            if server.keys is None or len(self._nodes) >= MOST_NODES:
                continue
            try:
                (other,) = node_urls(server.keys.public_url)
            except Refused:
                continue
            if other not in self._nodes and server.id not in known:
                self._nodes.append(other)
                learnt.append(other)
            if other in self._nodes:
                self._servers[other] = server.id
        return learnt

    async def _view(self, url: str) -> NodeView:
        try:
            status = await self._ask(url, "/v1/status", rest.Status)
        except EdgoraError as error:
            return NodeView(url=url, server=self._servers.get(url), status=None, problem=error.detail)
        self._servers[url] = status.server
        return NodeView(url=url, server=status.server, status=status, problem=None)


def _problem(reply: httpx2.Response) -> EdgoraError:
    """404 and bad requests are answers; whatever else is not 200 makes the next node be asked."""
    try:
        told = msgspec.json.decode(reply.content, type=rest.Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Unavailable(f"answers HTTP {reply.status_code}")
    if reply.status_code == 404:
        return NotFound(told.detail, field=told.field, fix=told.fix)
    if reply.status_code in {400, 422}:
        return Refused(told.detail, field=told.field, fix=told.fix)
    return Unavailable(f"answers HTTP {reply.status_code}: {told.detail}")
