"""The blocking client: performs the steps of `flow` with httpx2 in the calling thread, and decides nothing."""

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx2
import msgspec

from edgora.client import flow, orders, session
from edgora.client.aio import node_urls
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
from edgora.wire.errors import EdgoraError, RuleRefused, Unavailable

__all__ = ["Client"]

T = TypeVar("T")
_STREAM_END_PAUSE_S = 0.2


class _Stream:
    """One server-sent stream, read by a daemon thread into a queue: a blocking read cannot be given up otherwise."""

    def __init__(self, http: httpx2.Client, url: str, after: int) -> None:
        self.queue: queue.Queue[rest.Event | Unreachable | None] = queue.Queue(1024)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        """Of the stream while it is open; afterwards the connection is the pool's."""
        threading.Thread(target=self._read, args=(http, url, after), daemon=True).start()

    def _read(self, http: httpx2.Client, url: str, after: int) -> None:
        end: Unreachable | None = None
        try:
            timeout = httpx2.Timeout(10.0, read=60.0)
            headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
            with http.stream("GET", url, headers=headers, timeout=timeout) as response:
                stream = response.extensions.get("network_stream")
                self._hold(None if stream is None else stream.get_extra_info("socket"))
                try:
                    end = self._events(response)
                finally:
                    self._hold(None)
        except (httpx2.HTTPError, httpx2.StreamError, msgspec.DecodeError, UnicodeDecodeError, RuntimeError) as error:
            end = Unreachable(f"{type(error).__name__}: {error}")
        self.queue.put(end)

    def _events(self, response: httpx2.Response) -> Unreachable | None:
        if response.status_code != 200:
            return Unreachable(f"HTTP {response.status_code}")
        if not self._closed.is_set():
            for sent in httpx2.EventSource(response):
                if self._closed.is_set():
                    break
                if sent.data:
                    self.queue.put(msgspec.json.decode(sent.data, type=rest.Event))
        return None

    def _hold(self, open_socket: socket.socket | None) -> None:
        with self._lock:
            self._socket = open_socket

    def close(self) -> None:
        """End the reader, too: it may be waiting for an event that is minutes away."""
        self._closed.set()
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):  # the node has closed it
                    self._socket.shutdown(socket.SHUT_RDWR)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Client:
    """A UE, blocking; the arguments are those of `AsyncClient`."""

    def __init__(
        self,
        nodes: str | Sequence[str],
        wallet: Wallet | None = None,
        *,
        genesis_id: str | None = None,
        journal: MemoryJournal | None = None,
        on_progress: Callable[[Tell], None] | None = None,
        open_lock: Callable[[OpenLock], None] | None = None,
        http: httpx2.Client | None = None,
        inside: bool = False,
        on_done: Callable[[Done], None] | None = None,
    ) -> None:
        pinned = None if genesis_id is None else unhex(genesis_id)
        self.session = session.Session(node_urls(nodes), wallet or Wallet.generate(), pinned, inside=inside)
        self.journal = journal or MemoryJournal()
        self._progress, self._done = on_progress, on_done
        self._open_lock = open_lock
        self._http = http or httpx2.Client()
        self._owns_http = http is None
        self._signing = threading.Lock()

    # ---- verbs ---------------------------------------------------------------------------------------------------

    def connect(self) -> rest.Info:
        """Learn and pin the consortium. Called by the other verbs when it was not."""
        return self._drive(session.connect(self.session))

    def quote(self, order: Order) -> Quote:
        """What the order would be offered as; signs nothing."""
        return self._run(orders.quote(self.session, order))

    def submit(self, order: Order, agreed: Quote | None = None, remark: Mapping[str, str] | None = None) -> Ticket:
        """Put the order on the ledger; returns when its TASK is executed with code 0. remark: for the journal."""
        began = _wall_ms()
        with self._signing:
            ticket = self._run(flow.submit(self.session, order, agreed, remark))
        self._tell("submit", ticket.task, began)
        return ticket

    def deliver(self, ticket: Ticket, patience_ms: int = 600_000) -> Delivery:
        """Wait for the result, check its certificate and proofs, open it."""
        began = _wall_ms()
        try:
            delivery = self._run(flow.deliver(self.session, ticket, patience_ms))
        except EdgoraError as error:
            self._tell("deliver", ticket.task, began, error.detail)
            raise
        self._tell("deliver", ticket.task, began)
        return delivery

    def compute(self, order: Order) -> Delivery:
        """submit, then deliver."""
        return self.deliver(self.submit(order))

    def finish(self, task: bytes, patience_ms: int = 600_000) -> rest.Task:
        """Wait until the task is SETTLED or REFUNDED."""
        return self._run(flow.finish(self.session, task, patience_ms))

    def cancel(self, task: bytes) -> rest.Task:
        """Cancel an OPEN task."""
        with self._signing:
            return self._run(flow.cancel(self.session, task))

    def fund(self, wei: int) -> rest.Account:
        """Deposit from the development faucet."""
        return self._run(flow.fund(self.session, wei))

    def resume(self) -> list[Ticket]:
        """Tickets of the journal's tasks that did not end; submissions that may not have arrived are sent again."""
        tickets = []
        for task, fields in self.journal.tasks().items():
            if fields["stage"] in ENDED or "submission" not in fields:
                continue
            if fields["stage"] == "signed":
                try:
                    self._run(flow.post_again(self.session, task, fields["submission"].encode()))
                except RuleRefused as refused:  # final for these bytes, and no reason to give up the other tasks
                    self.journal.note(task, "refused", {"rule": refused.rule, "why": refused.detail})
                    continue
            tickets.append(flow.ticket_of(task, fields))
        return tickets

    def account(self) -> rest.Account:
        return self._run(session.account(self.session))

    def servers(self) -> Sequence[rest.Server]:
        return self._run(session.servers(self.session))

    def task(self, task: bytes) -> rest.Task:
        return self._run(session.get(self.session, f"/v1/tasks/{hex0x(task)}", rest.Task))

    def why(self, task: bytes) -> rest.Why:
        return self._run(session.get(self.session, f"/v1/tasks/{hex0x(task)}/why", rest.Why))

    def get(self, path: str, kind: type[T]) -> T:
        """Any resource of wire.rest by its path."""
        return self._run(session.get(self.session, path, kind))

    def close(self) -> None:
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tell(self, verb: Literal["submit", "deliver"], task: bytes, began_ms: int, error: str | None = None) -> None:
        if self._done is not None:
            self._done(Done(verb, task, began_ms, _wall_ms(), error))

    # ---- steps ---------------------------------------------------------------------------------------------------

    def _run(self, steps: Flow[T]) -> T:
        if self.session.trust is None:
            self.connect()
        return self._drive(steps)

    def _drive(self, steps: Flow[T]) -> T:
        streams: dict[str, _Stream] = {}
        answer: Any = None
        try:
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration as done:
                    result: T = done.value
                    return result
                answer = self._perform(step, streams)
        finally:
            steps.close()
            for stream in streams.values():
                stream.close()

    def _perform(self, step: Step, streams: dict[str, _Stream]) -> Any:
        match step:
            case Http():
                return self._send(step)
            case Follow():
                return self._next_event(step, streams)
            case Pause(ms):
                time.sleep(ms / 1000)
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
                self._open_lock(step)
            case Tell():
                if self._progress is not None:
                    self._progress(step)
        return None

    def _send(self, step: Http) -> Reply | Unreachable:
        headers = {**step.headers, **({"Content-Type": step.content_type} if step.body is not None else {})}
        try:
            reply = self._http.request(
                step.method, step.url, content=step.body, headers=headers, timeout=step.timeout_ms / 1000
            )
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            return Unreachable(f"{type(error).__name__}: {error}")
        return Reply(reply.status_code, reply.content, dict(reply.headers))

    def _next_event(self, step: Follow, streams: dict[str, _Stream]) -> rest.Event | Unreachable | None:
        stream = streams.get(step.url)
        if stream is None:
            stream = streams[step.url] = _Stream(self._http, step.url, step.after)
        try:
            event = stream.queue.get(timeout=step.wait_ms / 1000)
        except queue.Empty:
            return None
        if not isinstance(event, rest.Event):
            streams.pop(step.url).close()
            if event is None:
                time.sleep(_STREAM_END_PAUSE_S)
        return event
