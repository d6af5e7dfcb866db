"""Spans into OpenTelemetry, and what a node's ledger tells of a task's trace. For composition roots only.

`open_tracing` gives NO_TRACING unless EDGORA_TRACE asks for more; only then is OpenTelemetry imported (extra `trace`).

    EDGORA_TRACE=off    default
    EDGORA_TRACE=otlp   OTLP over HTTP to EDGORA_TRACE_ENDPOINT (default http://127.0.0.1:4318), in a thread, in batches;
                        what a collector that is away cannot take is dropped, a task never waits for it
    EDGORA_TRACE=file   one JSON object a line, appended to EDGORA_TRACE_FILE, at once

Ids and parents follow from the task (ports.tracing), so spans are made ready and whole, when they are over: there is no
current span, no context, no sampling decision to carry along.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec

from edgora.ports.tracing import NO_TRACING, Span, Stage, Tracing, parent_id, span_id, trace_id
from edgora.wire.codec import from_u128
from edgora.wire.errors import Refused
from edgora.wire.market import TaskState
from edgora.wire.market_events import (
    RoundClosed,
    RoundOpened,
    TaskEnded,
    TaskFinal,
    TaskOpened,
    TaskRefunded,
    TaskSettled,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

__all__ = ["Exporter", "LedgerSpans", "TraceSettings", "client_span", "from_environment", "open_tracing"]

K = TypeVar("K")
V = TypeVar("V")
_log = logging.getLogger("edgora.trace")
KINDS: Final = ("off", "otlp", "file")
ENDPOINT: Final = "http://127.0.0.1:4318"
_FOLLOWED = 20_000
"""Tasks, and rounds, that are followed at once; older ones are forgotten."""
STALE_MS = 60_000
"""What ended longer ago is caught up with, not happening: it was told before, by us or another run of us."""


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """Where spans go."""

    kind: str = "off"
    endpoint: str = ENDPOINT
    """Base URL of an OTLP/HTTP collector."""
    file: Path | None = None


def from_environment(environ: Mapping[str, str]) -> TraceSettings:
    """EDGORA_TRACE, EDGORA_TRACE_ENDPOINT, EDGORA_TRACE_FILE."""
    file = environ.get("EDGORA_TRACE_FILE")
    return TraceSettings(
        environ.get("EDGORA_TRACE", "off") or "off",
        environ.get("EDGORA_TRACE_ENDPOINT", ENDPOINT),
        Path(file) if file else None,
    )


class Closable(Tracing, Protocol):
    def close(self) -> None:
        """Hand over what is kept; nothing is taken afterwards."""
        ...


class _Off:
    on = False

    def span(self, span: Span) -> None:
        NO_TRACING.span(span)

    def close(self) -> None:
        """Nothing is open."""


def open_tracing(service: str, instance: str, settings: TraceSettings) -> Closable:
    """A sink of one process's spans. Raises Refused for an unknown kind, or if what it needs is not installed."""
    if settings.kind == "off":
        return _Off()
    if settings.kind not in KINDS:
        raise Refused(
            f"trace {settings.kind!r} is none of {', '.join(KINDS)}", field="trace", fix="set EDGORA_TRACE=off"
        )
    try:
        return Exporter(service, instance, _processor(settings))
    except ImportError as error:
        raise Refused(
            f"trace {settings.kind} needs OpenTelemetry, {error.name} is missing", field="trace",
            fix="pip install 'edgora[trace]', or set EDGORA_TRACE=off",
        ) from None  # fmt: skip


def _processor(settings: TraceSettings) -> "SpanProcessor":
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor

    if settings.kind == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        if not settings.endpoint.startswith(("http://", "https://")):
            raise Refused(
                f"trace endpoint {settings.endpoint!r} is no URL", field="trace_endpoint", fix=f"give it as {ENDPOINT}"
            )
        return BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{settings.endpoint.rstrip('/')}/v1/traces", timeout=2))
    if settings.file is None:
        raise Refused("trace file needs a path", field="trace_file", fix="set EDGORA_TRACE_FILE")
    try:
        out = settings.file.open("a", encoding="utf-8")
    except OSError as error:
        raise Refused(f"trace file {settings.file}: {error.strerror}", field="trace_file") from None

    class _Lines(ConsoleSpanExporter):
        def shutdown(self) -> None:
            out.close()

    return SimpleSpanProcessor(_Lines(out=out, formatter=lambda span: f"{span.to_json(indent=None)}\n"))


class Exporter:
    """Spans of one process, made into OpenTelemetry's and handed to a processor."""

    on = True

    def __init__(self, service: str, instance: str, processor: "SpanProcessor") -> None:
        from opentelemetry.sdk.resources import Resource

        self._processor = processor
        self._resource = Resource(
            {"service.namespace": "edgora", "service.name": service, "service.instance.id": instance}
        )
        self._closed = False

    def span(self, span: Span) -> None:
        """Never raises: a trace is not worth a task."""
        if self._closed:
            return
        try:
            self._processor.on_end(self._made(span))
        except Exception:
            _log.exception("a span was lost", extra={"task": span.task, "stage": str(span.stage)})

    def _made(self, span: Span) -> "ReadableSpan":
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        def context(number: int) -> SpanContext:
            return SpanContext(trace_id(span.task), number, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

        above = parent_id(span)
        return ReadableSpan(
            span.stage.value, context(span_id(span.task, span.stage, span.which)), None if above is None else context(above),
            self._resource, {"edgora.task": "0x" + span.task.hex(), **{f"edgora.{k}": v for k, v in span.attributes.items()}},
            kind=SpanKind.INTERNAL, status=Status(StatusCode.OK) if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=span.begin_ms * 1_000_000, end_time=max(span.begin_ms, span.end_ms) * 1_000_000,
        )  # fmt: skip

    def close(self) -> None:
        """Send what is kept, and stop the thread. What is told afterwards is dropped."""
        if not self._closed:
            self._closed = True
            self._processor.shutdown()


_CLIENT: Final = {"submit": Stage.SUBMIT, "deliver": Stage.DELIVER}


def client_span(sink: Tracing, done: tuple[str, bytes, int, int, str | None]) -> None:
    """A client's word (client.Done: verb, task, begin, end, error) as a span."""
    verb, task, began_ms, ended_ms, error = done
    sink.span(Span(task, _CLIENT[verb], began_ms, ended_ms, error=error))


# ---- what the ledger tells -------------------------------------------------------------------------------------------


class _Story(msgspec.Struct):
    """What is known of a task whose source we are. Instants in ms."""

    begin_ms: int
    final_ms: int | None = None


class LedgerSpans:
    """A node's tracing: passes spans on, and adds those that follow from the ledger's events for tasks we are source of.

    Every node sees every event; the source tells of its own tasks, so each span is told once.
    """

    def __init__(self, sink: Tracing, server: int, now_ms: Callable[[], int]) -> None:
        self._sink, self._server, self._now_ms = sink, server, now_ms
        self._stories: OrderedDict[bytes, _Story] = OrderedDict()
        self._rounds: OrderedDict[int, tuple[int, list[bytes]]] = OrderedDict()
        """Open rounds: when they were opened, and which of our tasks are in."""

    @property
    def on(self) -> bool:
        return self._sink.on

    def span(self, span: Span) -> None:
        """Pass it on; a task begins with the first word that its source hears of it."""
        if not self.on:
            return
        if span.stage is Stage.STORE and span.error is None:
            self._story(span.task, span.begin_ms)
        self._sink.span(span)

    def block(self, events: Iterable[tuple[int, msgspec.Struct]]) -> None:
        """Events of a block that was applied, each with its header time in ms."""
        if self.on:
            for time_ms, event in events:
                self._event(time_ms, event)

    def _event(self, time_ms: int, event: msgspec.Struct) -> None:
        match event:
            case TaskOpened() if event.offer.source == self._server:
                self._story(event.offer_id, time_ms)
            case RoundOpened():
                mine = [task.offer_id for task in event.instance.tasks if task.offer_id in self._stories]
                _keep(self._rounds, event.instance.round, (time_ms, mine))
            case RoundClosed():
                self._round_closed(time_ms, event)
            case TaskFinal() if event.offer_id in self._stories:
                self._stories[event.offer_id].final_ms = time_ms
            case TaskEnded() if event.offer_id in self._stories:
                self._stories[event.offer_id].final_ms = None
            case TaskSettled() if event.offer_id in self._stories:
                begun = self._stories[event.offer_id].final_ms
                if begun is not None:
                    self._tell(Span(event.offer_id, Stage.SETTLE, begun, time_ms, attributes={"batch": event.batch_id}))
                self._ended(event.offer_id, time_ms, TaskState.SETTLED)
            case TaskRefunded() if event.offer_id in self._stories:
                self._ended(event.offer_id, time_ms, TaskState.REFUNDED)
            case _:
                pass

    def _story(self, task: bytes, begin_ms: int) -> None:
        if task not in self._stories:
            _keep(self._stories, task, _Story(begin_ms))

    def _round_closed(self, time_ms: int, event: RoundClosed) -> None:
        opened_ms, mine = self._rounds.pop(event.round, (time_ms, []))
        went = {choice.offer_id: choice.server for choice in event.choices}
        whole = Span(
            b"", Stage.ROUND, opened_ms, time_ms, (event.round,),
            {"round": event.round, "policy": event.policy, "proposals": len(event.accepted), "refused": len(event.refused),
             "value_gwei": from_u128(event.value) // 10**9, "greedy_gwei": from_u128(event.greedy) // 10**9},
        )  # fmt: skip
        for task in mine:
            server = went.get(task)
            placed: dict[str, str | int | bool] = {"placed": server is not None}
            if server is not None:
                placed["executor"] = server
            self._tell(replace(whole, task=task, attributes={**whole.attributes, **placed}))

    def _ended(self, task: bytes, time_ms: int, state: TaskState) -> None:
        story = self._stories.pop(task)
        self._tell(
            Span(task, Stage.TASK, story.begin_ms, time_ms, attributes={"state": state.name, "source": self._server})
        )

    def _tell(self, span: Span) -> None:
        if self._now_ms() - span.end_ms <= STALE_MS:
            self._sink.span(span)


def _keep(table: "OrderedDict[K, V]", key: K, value: V) -> None:
    table[key] = value
    while len(table) > _FOLLOWED:
        table.popitem(last=False)
