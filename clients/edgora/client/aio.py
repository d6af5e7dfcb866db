"""The asynchronous client: performs the steps of `flow` with asyncio and httpx2, and decides nothing."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx2
import msgspec

from edgora.client import flow, orders, session
from edgora.client.flow import Delivery, Ticket
from edgora.client.journal import ENDED, MemoryJournal
from edgora.client.orders import Order, Quote
from edgora.client.steps import (
    Done,
    Entropy,
    Flow,
    Follow,
    Http,
    Note,
    Now,
    OpenLock,
    Pause,
    Reply,
    Step,
    Tell,
    Unreachable,
)
from edgora.client.trust import hex0x, unhex
from edgora.client.wallet import Wallet
from edgora.wire import rest
from edgora.wire.errors import EdgoraError, Refused, RuleRefused, Unavailable

__all__ = ["AsyncClient", "node_urls"]

T = TypeVar("T")
_STREAM_END_PAUSE_S = 0.2


def node_urls(nodes: str | Sequence[str]) -> list[str]:
    """Base URLs without a slash at the end. Refuses what is no http(s) URL."""
    urls = [u.rstrip("/") for u in ([nodes] if isinstance(nodes, str) else nodes)]
    for url in urls or [""]:
        if not url.startswith(("http://", "https://")):
            raise Refused(f"node {url!r} is no URL", field="node", fix="give it as http://127.0.0.1:8100")
    return urls


class _Stream:
    """One server-sent stream, read by a task into a queue so that a wait can be given up without losing an event."""

    def __init__(self, http: httpx2.AsyncClient, url: str, after: int) -> None:
        self.url = url
        self.queue: asyncio.Queue[rest.Event | Unreachable | None] = asyncio.Queue(1024)
        self._task = asyncio.create_task(self._read(http, after))

    async def _read(self, http: httpx2.AsyncClient, after: int) -> None:
        try:
            timeout = httpx2.Timeout(10.0, read=60.0)
            headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
            async with http.stream("GET", self.url, headers=headers, timeout=timeout) as response:
                if response.status_code != 200:
                    await self.queue.put(Unreachable(f"HTTP {response.status_code}"))
                    return
                async for sent in httpx2.EventSource(response):
                    if sent.data:
                        await self.queue.put(msgspec.json.decode(sent.data, type=rest.Event))
            await self.queue.put(None)
        except (httpx2.HTTPError, httpx2.StreamError, msgspec.DecodeError, UnicodeDecodeError) as error:
            await self.queue.put(Unreachable(f"{type(error).__name__}: {error}"))

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class AsyncClient:
    """A UE: keys, a few nodes to ask, and the consortium that it trusts.

    nodes: base URLs, asked in turn; the first is the nearby one that inputs go to. wallet: fresh keys if None.
    genesis_id: 0x-hex, insisted on; None trusts the first answer and says so through on_progress. journal: where a
    crash is survived (`client.Journal(path)`); in memory if None. open_lock: calls the contract's `open` for orders
    with lock=True. inside: whether we run in the deployment's own network.
    on_done: hears of submissions and deliveries that are over, with their times.
    """

    def __init__(
        self,
        nodes: str | Sequence[str],
        wallet: Wallet | None = None,
        *,
        genesis_id: str | None = None,
        journal: MemoryJournal | None = None,
        on_progress: Callable[[Tell], None] | None = None,
        open_lock: Callable[[OpenLock], Awaitable[None]] | None = None,
        http: httpx2.AsyncClient | None = None,
        inside: bool = False,
        on_done: Callable[[Done], None] | None = None,
    ) -> None:
        pinned = None if genesis_id is None else unhex(genesis_id)
        self.session = session.Session(node_urls(nodes), wallet or Wallet.generate(), pinned, inside=inside)
        self.journal = journal or MemoryJournal()
        self._progress, self._done = on_progress, on_done
        self._open_lock = open_lock
        self._http = http or httpx2.AsyncClient()
        self._owns_http = http is None
        self._signing = asyncio.Lock()  # one lane, one voucher: orders of one wallet are signed one after the other

    # ---- verbs ---------------------------------------------------------------------------------------------------

    async def connect(self) -> rest.Info:
        """Learn and pin the consortium. Called by the other verbs when it was not."""
        return await self._drive(session.connect(self.session))

    async def quote(self, order: Order) -> Quote:
        """What the order would be offered as; signs nothing."""
        return await self._run(orders.quote(self.session, order))

    async def submit(
        self, order: Order, agreed: Quote | None = None, remark: Mapping[str, str] | None = None
    ) -> Ticket:
        """Put the order on the ledger; returns when its TASK is executed with code 0. remark: for the journal."""
        began = _wall_ms()
        async with self._signing:
            ticket = await self._run(flow.submit(self.session, order, agreed, remark))
        self._tell("submit", ticket.task, began)
        return ticket

    async def deliver(self, ticket: Ticket, patience_ms: int = 600_000) -> Delivery:
        """Wait for the result, check its certificate and proofs, open it."""
        began = _wall_ms()
        try:
            delivery = await self._run(flow.deliver(self.session, ticket, patience_ms))
        except EdgoraError as error:
            self._tell("deliver", ticket.task, began, error.detail)
            raise
        self._tell("deliver", ticket.task, began)
        return delivery

    async def compute(self, order: Order) -> Delivery:
        """submit, then deliver."""
        return await self.deliver(await self.submit(order))

    async def finish(self, task: bytes, patience_ms: int = 600_000) -> rest.Task:
        """Wait until the task is SETTLED or REFUNDED."""
        return await self._run(flow.finish(self.session, task, patience_ms))

    async def cancel(self, task: bytes) -> rest.Task:
        """Cancel an OPEN task."""
        async with self._signing:
            return await self._run(flow.cancel(self.session, task))

    async def fund(self, wei: int) -> rest.Account:
        """Deposit from the development faucet."""
        return await self._run(flow.fund(self.session, wei))

    async def resume(self) -> list[Ticket]:
        """Tickets of the journal's tasks that did not end; submissions that may not have arrived are sent again."""
        tickets = []
        for task, fields in self.journal.tasks().items():
            if fields["stage"] in ENDED or "submission" not in fields:
                continue
            if fields["stage"] == "signed":
                try:
                    await self._run(flow.post_again(self.session, task, fields["submission"].encode()))
                except RuleRefused as refused:  # final for these bytes, and no reason to give up the other tasks
                    self.journal.note(task, "refused", {"rule": refused.rule, "why": refused.detail})
                    continue
            tickets.append(flow.ticket_of(task, fields))
        return tickets

    async def account(self) -> rest.Account:
        return await self._run(session.account(self.session))

    async def servers(self) -> Sequence[rest.Server]:
        return await self._run(session.servers(self.session))

    async def task(self, task: bytes) -> rest.Task:
        return await self._run(session.get(self.session, f"/v1/tasks/{hex0x(task)}", rest.Task))

    async def why(self, task: bytes) -> rest.Why:
        return await self._run(session.get(self.session, f"/v1/tasks/{hex0x(task)}/why", rest.Why))

    async def get(self, path: str, kind: type[T]) -> T:
        """Any resource of wire.rest by its path."""
        return await self._run(session.get(self.session, path, kind))

    async def aclose(self) -> None:
        if self._owns_http:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _tell(self, verb: Literal["submit", "deliver"], task: bytes, began_ms: int, error: str | None = None) -> None:
        if self._done is not None:
            self._done(Done(verb, task, began_ms, _wall_ms(), error))

    # ---- steps ---------------------------------------------------------------------------------------------------

    async def _run(self, steps: Flow[T]) -> T:
        if self.session.trust is None:
            await self.connect()
        return await self._drive(steps)

    async def _drive(self, steps: Flow[T]) -> T:
        streams: dict[str, _Stream] = {}
        answer: Any = None
        try:
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration as done:
                    result: T = done.value
                    return result
                answer = await self._perform(step, streams)
        finally:
            steps.close()
            for stream in streams.values():
                await stream.close()

    async def _perform(self, step: Step, streams: dict[str, _Stream]) -> Any:
        match step:
            case Http():
                return await self._send(step)
            case Follow():
                return await self._next_event(step, streams)
            case Pause(ms):
                await asyncio.sleep(ms / 1000)
            case Now():
                return time.monotonic_ns() // 1_000_000
            case Entropy(octets):
                return os.urandom(octets)
            case Note(task, stage, fields):
                self.journal.note(task, stage, fields)
            case OpenLock():
                if self._open_lock is None:
                    raise Unavailable(
                        "this client was given no way to call the contract", field="lock", fix="pass open_lock="
                    )
                await self._open_lock(step)
            case Tell():
                if self._progress is not None:
                    self._progress(step)
        return None

    async def _send(self, step: Http) -> Reply | Unreachable:
        headers = {**step.headers, **({"Content-Type": step.content_type} if step.body is not None else {})}
        try:
            reply = await self._http.request(
                step.method, step.url, content=step.body, headers=headers, timeout=step.timeout_ms / 1000
            )
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            return Unreachable(f"{type(error).__name__}: {error}")
        return Reply(reply.status_code, reply.content, dict(reply.headers))

    async def _next_event(self, step: Follow, streams: dict[str, _Stream]) -> rest.Event | Unreachable | None:
        stream = streams.get(step.url)
        if stream is None:
            stream = streams[step.url] = _Stream(self._http, step.url, step.after)
        try:
            event = await asyncio.wait_for(stream.queue.get(), step.wait_ms / 1000)
        except TimeoutError:
            return None
        if not isinstance(event, rest.Event):
            await streams.pop(step.url).close()
            if event is None:
                await asyncio.sleep(_STREAM_END_PAUSE_S)
        return event
