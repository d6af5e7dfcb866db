"""What pages of other origins may read, and positions of UEs, which only such a page shows."""

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from api.world import Platform
from edgora.node.positions import MOST

pytestmark = pytest.mark.asyncio(loop_scope="module")
BOARD = "http://127.0.0.1:8080"
OTHER = "http://127.0.0.1:8081"
CORS = "access-control-"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[httpx2.AsyncClient]:
    """A node that lets the board's pages read it."""
    async with Platform(live=False, settings={"cors_origins": (BOARD,)}) as running:
        yield running.clients[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def closed() -> AsyncIterator[httpx2.AsyncClient]:
    """A node of a production chain without a board."""
    async with Platform(live=False, settings={"development": False}) as running:
        yield running.clients[0]


def cors(answer: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith(CORS)}


async def preflight(
    node: httpx2.AsyncClient, path: str, method: str, headers: str = "", origin: str = BOARD
) -> httpx2.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        asked["Access-Control-Request-Headers"] = headers
    return await node.options(path, headers=asked)


async def test_the_named_origin_reads_v1_and_only_that(node: httpx2.AsyncClient) -> None:
    for path in ("/v1/info", "/v1/servers", "/v1/tasks/0x" + "00" * 32):  # a refusal is readable, too
        answer = await node.get(path, headers={"Origin": BOARD})
        assert answer.headers[CORS + "allow-origin"] == BOARD
        assert "Origin" in answer.headers["vary"]
        assert CORS + "allow-credentials" not in answer.headers
    for path in ("/metrics", "/healthz", "/openapi.json"):
        assert cors(await node.get(path, headers={"Origin": BOARD})) == {}


async def test_no_other_origin_gets_a_header(node: httpx2.AsyncClient, closed: httpx2.AsyncClient) -> None:
    for origin in (OTHER, "null", "http://127.0.0.1:8080.evil.test", BOARD + "/", "https://127.0.0.1:8080"):
        answer = await node.get("/v1/info", headers={"Origin": origin})
        assert answer.status_code == 200
        assert CORS + "allow-origin" not in answer.headers
        refused = await preflight(node, "/v1/events", "GET", "last-event-id", origin)
        assert refused.status_code >= 400
        assert CORS + "allow-origin" not in refused.headers
    assert cors(await closed.get("/v1/info", headers={"Origin": BOARD})) == {}


async def test_a_preflight_allows_reading_and_resuming_and_nothing_that_writes(node: httpx2.AsyncClient) -> None:
    resumed = await preflight(node, "/v1/events", "GET", "last-event-id")
    assert resumed.status_code == 200
    assert resumed.headers[CORS + "allow-origin"] == BOARD
    assert "last-event-id" in resumed.headers[CORS + "allow-headers"].lower()
    assert resumed.headers[CORS + "allow-methods"] == "GET"
    for path, method in (("/v1/tasks", "POST"), ("/v1/dev/positions", "PUT"), ("/v1/dev/faucet", "POST")):
        assert (await preflight(node, path, method)).status_code == 400
    assert (await preflight(node, "/v1/info", "GET", "authorization")).status_code == 400


def place(number: int, x_m: float = 1.0) -> dict[str, object]:
    return {"ue": f"0x{number:040x}", "x_m": x_m, "y_m": 2.5}


async def test_positions_are_kept_by_ue_the_newest_word(node: httpx2.AsyncClient) -> None:
    assert (await node.get("/v1/positions")).json() == {"items": []}
    told = await node.put("/v1/dev/positions", json={"items": [place(1), place(2)]})
    assert told.status_code == 200
    await node.put("/v1/dev/positions", json={"items": [place(1, -40.25)]})
    assert (await node.get("/v1/positions")).json()["items"] == [place(2), place(1, -40.25)]


async def test_positions_are_bounded_and_the_oldest_go_first(node: httpx2.AsyncClient) -> None:
    for start in range(0, MOST, 256):
        answer = await node.put("/v1/dev/positions", json={"items": [place(1_000 + start + i) for i in range(256)]})
        assert answer.status_code == 200
    await node.put("/v1/dev/positions", json={"items": [place(9_999)]})
    items = (await node.get("/v1/positions")).json()["items"]
    assert len(items) == MOST
    assert items[-1] == place(9_999)
    assert place(1_000) not in items
    assert place(1_001) in items


@pytest.mark.parametrize(
    "body",
    [
        '{"items": [{"ue": "0x12", "x_m": 0, "y_m": 0}]}',
        '{"items": [{"ue": "0x' + "00" * 20 + '", "x_m": NaN, "y_m": 0}]}',
        '{"items": [{"ue": "0x' + "00" * 20 + '", "x_m": 1e7, "y_m": 0}]}',
        '{"items": [{"ue": "0x' + "00" * 20 + '", "x_m": "0", "y_m": 0}]}',
        '{"items": [{"ue": "0x' + "00" * 20 + '", "x_m": 0}]}',
        '{"items": [{"ue": "0x' + "00" * 20 + '", "x_m": 0, "y_m": 0, "name": "<script>"}]}',
        '{"items": {}}',
        '{"items": [' + ",".join(['{"ue": "0x' + "00" * 20 + '", "x_m": 0, "y_m": 0}'] * 257) + "]}",
    ],
)  # fmt: skip
async def test_a_bad_report_is_refused_by_its_field(node: httpx2.AsyncClient, body: str) -> None:
    answer = await node.put("/v1/dev/positions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"].startswith("items")


async def test_positions_are_for_development_only(closed: httpx2.AsyncClient) -> None:
    answer = await closed.put("/v1/dev/positions", json={"items": [place(1)]})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await closed.get("/v1/positions")).json() == {"items": []}
