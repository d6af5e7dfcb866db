"""Schemathesis over the served OpenAPI document: no 5xx, no status or body that the document does not name.

The platform runs in a thread of its own behind a real HTTP server; examples are derandomised and bounded.
"""

import asyncio
import threading
from collections.abc import Iterator

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.world import Platform

STREAMS = "/v1/events"
"""Never ends by itself; tests/api/test_api_stream.py has it."""
EXAMPLES = 10


@schemathesis.serializer("application/wasm", "application/msgpack")
def _octets(_: object, value: object) -> dict[str, bytes]:
    """Whatever was drawn, as octets."""
    return {"data": value if isinstance(value, bytes) else repr(value).encode()}


class _Served(threading.Thread):
    """A platform and node 0's HTTP server, in a loop of its own."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ready = threading.Event()
        self.port = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self.error = error
        finally:
            self.ready.set()

    async def _serve(self) -> None:
        async with Platform() as platform:
            ue = await platform.funded_ue()
            task = await ue.submit()
            await platform.until(lambda: platform.state(task) == "SETTLED")
            config = uvicorn.Config(platform.nodes[0].app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
            self.server = uvicorn.Server(config)
            self.server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            serving = asyncio.ensure_future(self.server._serve())
            while not self.server.started and not serving.done():
                await asyncio.sleep(0.01)
            self.port = self.server.servers[0].sockets[0].getsockname()[1]
            self.ready.set()
            await serving

    def stop(self) -> None:
        self.server.should_exit = True
        self.join(20)


@pytest.fixture(scope="module")
def schema() -> Iterator[schemathesis.schemas.BaseSchema]:
    served = _Served()
    served.start()
    assert served.ready.wait(60)
    if served.error is not None:
        raise served.error
    yield schemathesis.openapi.from_url(f"http://127.0.0.1:{served.port}/openapi.json")
    served.stop()


def test_nothing_undocumented_happens(schema: schemathesis.schemas.BaseSchema) -> None:
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path == STREAMS:
            continue

        @seed(7)
        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=checks, timeout=20)

        check()
        tried += 1
    assert tried >= 30
