"""Traces: ids that everybody agrees on, what the ledger's events tell, where spans go, and that off is really off."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgora.ports.tracing import NO_TRACING, PARENT, Span, Stage, parent_id, span_id, trace_id
from edgora.telemetry.tracing import STALE_MS, LedgerSpans, TraceSettings, client_span, from_environment, open_tracing
from edgora.wire.codec import to_u96, to_u128
from edgora.wire.errors import Refused
from edgora.wire.market import Instance, Offer, OpenTask, Reason, TaskState
from edgora.wire.market_events import (
    Choice,
    RoundClosed,
    RoundOpened,
    TaskEnded,
    TaskFinal,
    TaskOpened,
    TaskRefunded,
    TaskSettled,
)

TASK = bytes(range(32))
NOW = 1_700_000_000_000


class Sink:
    """Keeps what it is told."""

    def __init__(self, *, on: bool = True) -> None:
        self.on = on
        self.spans: list[Span] = []

    def span(self, span: Span) -> None:
        self.spans.append(span)


# ---- ids ---------------------------------------------------------------------------------------------------------------


@given(
    st.binary(min_size=32, max_size=32), st.sampled_from(Stage), st.lists(st.integers(0, 2**32), min_size=2, max_size=2)
)
def test_every_span_hangs_on_one_that_others_can_name(task: bytes, stage: Stage, numbers: list[int]) -> None:
    which = tuple(numbers)
    parent = parent_id(Span(task, stage, 0, 0, which))
    above = PARENT[stage]
    if above is None:
        assert parent is None
        assert stage is Stage.TASK
    else:
        kind, depth = above
        assert parent == span_id(task, kind, which[:depth])
        assert parent != span_id(task, stage, which)
    assert f"{trace_id(task):032x}" == task[:16].hex(), "as REST says it"


def test_spans_of_one_stage_differ_by_their_numbers_and_by_task() -> None:
    ids = {
        span_id(task, Stage.SOLVE, which) for task in (TASK, bytes(32)) for which in ((1, 2), (12,), (1, 3), (11, 2))
    }
    assert len(ids) == 8
    assert all(0 < number < 2**64 for number in ids)


# ---- what the ledger tells ---------------------------------------------------------------------------------------------


def offer(source: int) -> Offer:
    return Offer(
        bytes(20), 1, bytes(32), bytes(32), 9, 9, 1, 1_000, 20, 100, NOW + 9_000, bytes(32), bytes(32), source, 0
    )


def opened(source: int, task: bytes = TASK) -> TaskOpened:
    return TaskOpened(task, offer(source), to_u96(9))


def test_the_source_tells_a_task_from_its_first_word_to_its_payment() -> None:
    sink = Sink()
    spans = LedgerSpans(sink, 2, lambda: NOW)
    task = OpenTask(**open_task())
    instance = Instance(**{**instance_fields(), "round": 7, "tasks": (task,)})
    spans.span(Span(TASK, Stage.STORE, NOW - 900, NOW - 880))
    spans.block([(NOW - 800, opened(2)), (NOW - 700, RoundOpened(instance, bytes(32), NOW))])
    choice = Choice(TASK, 3, ())
    closed = RoundClosed(7, 1, "priced", to_u128(5 * 10**9), to_u128(4 * 10**9), None, 0, (), (), (choice,))
    spans.block([(NOW - 500, closed)])
    spans.block(
        [
            (NOW - 300, TaskFinal(TASK, to_u96(1), to_u96(0), to_u96(1))),
            (NOW, TaskSettled(TASK, 4, to_u96(1), to_u96(0))),
        ]
    )
    told = {span.stage: span for span in sink.spans}
    assert set(told) == {Stage.STORE, Stage.ROUND, Stage.SETTLE, Stage.TASK}
    root = told[Stage.TASK]
    assert (root.begin_ms, root.end_ms, root.attributes["state"]) == (NOW - 900, NOW, "SETTLED")
    lap = told[Stage.ROUND]
    assert (lap.which, lap.begin_ms, lap.end_ms) == ((7,), NOW - 700, NOW - 500)
    assert (lap.attributes["executor"], lap.attributes["value_gwei"], lap.attributes["policy"]) == (3, 5, "priced")
    assert (told[Stage.SETTLE].begin_ms, told[Stage.SETTLE].end_ms) == (NOW - 300, NOW)
    assert all(root.begin_ms <= span.begin_ms <= span.end_ms <= root.end_ms for span in sink.spans)


def open_task() -> dict[str, Any]:
    fields: dict[str, Any] = dict.fromkeys(OpenTask.__struct_fields__, 0)
    return fields | {"offer_id": TASK}


def instance_fields() -> dict[str, Any]:
    fields: dict[str, Any] = dict.fromkeys(Instance.__struct_fields__, 0)
    return fields | {"servers": ()}


def test_others_and_old_news_are_not_told() -> None:
    sink = Sink()
    spans = LedgerSpans(sink, 1, lambda: NOW)
    settled = TaskSettled(TASK, 4, to_u96(1), to_u96(0))
    spans.block([(NOW - 9, opened(2)), (NOW, settled)])
    assert not sink.spans, "its source is server 2"
    late = NOW - STALE_MS - 1
    spans.block([(late - 9, opened(1)), (late, settled)])
    assert not sink.spans, "caught up with after a restart"
    spans.block([(NOW - 9, opened(1)), (NOW, settled)])
    assert [span.stage for span in sink.spans] == [Stage.TASK]


def test_an_unpaid_end_closes_the_trace() -> None:
    sink = Sink()
    spans = LedgerSpans(sink, 1, lambda: NOW)
    ended = TaskEnded(TASK, int(TaskState.EXPIRED), Reason("EXPIRED", "", (1, 2)))
    spans.block([(NOW - 9, opened(1)), (NOW - 5, ended), (NOW, TaskRefunded(TASK, to_u96(9)))])
    (root,) = sink.spans
    assert (root.stage, root.attributes["state"]) == (Stage.TASK, "REFUNDED")


def test_nothing_is_followed_while_nobody_listens() -> None:
    sink = Sink(on=False)
    spans = LedgerSpans(sink, 1, lambda: NOW)
    spans.span(Span(TASK, Stage.STORE, NOW, NOW))
    spans.block([(NOW, opened(1)), (NOW, TaskSettled(TASK, 4, to_u96(1), to_u96(0)))])
    assert not spans.on
    assert not sink.spans


# ---- where spans go ----------------------------------------------------------------------------------------------------


def test_the_file_has_one_span_a_line(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    settings = from_environment({"EDGORA_TRACE": "file", "EDGORA_TRACE_FILE": str(path)})
    first, second = open_tracing("node", "1", settings), open_tracing("allocator", "0", settings)
    first.span(Span(TASK, Stage.RUN, 5_000, 5_250, (1,), {"fuel_used": 7, "code": "OK"}))
    second.span(Span(TASK, Stage.SOLVE, 6_000, 5_999, (3, 0), error="it was late"))
    client_span(first, ("submit", TASK, 1_000, 2_000, None))
    first.close()
    first.close()
    first.span(Span(TASK, Stage.HOLD, 1, 2, (1,)))
    second.close()
    run, solve, submit = map(json.loads, path.read_text().splitlines())
    assert {line["context"]["trace_id"] for line in (run, solve, submit)} == {"0x" + TASK[:16].hex()}
    assert run["parent_id"] == f"0x{span_id(TASK, Stage.EXECUTE, (1,)):016x}"
    assert run["attributes"] == {"edgora.task": "0x" + TASK.hex(), "edgora.fuel_used": 7, "edgora.code": "OK"}
    assert run["resource"]["attributes"] == {
        "service.namespace": "edgora",
        "service.name": "node",
        "service.instance.id": "1",
    }
    assert (run["start_time"], run["end_time"]) == ("1970-01-01T00:00:05.000000Z", "1970-01-01T00:00:05.250000Z")
    assert (solve["status"]["status_code"], solve["status"]["description"]) == ("ERROR", "it was late")
    assert solve["start_time"] == solve["end_time"], "two clocks: no span ends before it begins"
    assert submit["name"] == "client.submit"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """An OTLP/HTTP collector: its URL and what was posted."""
    posted: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", posted
    server.shutdown()
    thread.join()
    server.server_close()


def test_otlp_is_posted_to_the_collector(collector: tuple[str, list[tuple[str, bytes]]]) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    url, posted = collector
    tracing = open_tracing("node", "3", TraceSettings("otlp", url + "/"))
    tracing.span(Span(TASK, Stage.EXECUTE, 1_000, 3_000, (3,)))
    tracing.span(Span(TASK, Stage.RUN, 1_500, 2_500, (3,)))
    tracing.close()
    requests = []
    for path, body in posted:
        assert path == "/v1/traces"
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        requests.append(request)
    spans = [s for request in requests for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
    execute, run = spans
    assert execute.trace_id == run.trace_id == TASK[:16]
    assert run.parent_span_id == execute.span_id
    assert (run.start_time_unix_nano, run.end_time_unix_nano) == (1_500_000_000, 2_500_000_000)


def test_a_collector_that_is_away_costs_no_task() -> None:
    tracing = open_tracing("node", "3", TraceSettings("otlp", "http://127.0.0.1:9"))
    tracing.span(Span(TASK, Stage.EXECUTE, 1_000, 3_000, (3,)))  # no raise, no wait
    tracing.close()


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (TraceSettings("zipkin"), "trace"), (TraceSettings("otlp", "localhost:4318"), "trace_endpoint"),
        (TraceSettings("file"), "trace_file"), (TraceSettings("file", file=Path("/nowhere/at/all")), "trace_file"),
    ],
)  # fmt: skip
def test_settings_at_fault_are_named(settings: TraceSettings, field: str) -> None:
    with pytest.raises(Refused) as refused:
        open_tracing("node", "0", settings)
    assert refused.value.field == field


def test_what_is_not_installed_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(Refused) as refused:
        open_tracing("node", "0", TraceSettings("otlp"))
    assert "OpenTelemetry" in refused.value.detail
    assert "edgora[trace]" in (refused.value.fix or "")


def test_off_imports_nothing() -> None:
    """With the default nothing of OpenTelemetry is in the process (that only telemetry may load it the linter checks)."""
    code = (
        "import sys, edgora.cli, edgora.telemetry.metrics\n"
        "from edgora.telemetry.tracing import from_environment, open_tracing\n"
        "tracing = open_tracing('node', '0', from_environment({}))\n"
        "assert not tracing.on\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_no_tracing_takes_everything_and_keeps_nothing() -> None:
    assert not NO_TRACING.on
    NO_TRACING.span(Span(TASK, Stage.TASK, 0, 0))
