"""The board's server: strict headers on every answer, only its own files, and nodes as their key documents name them."""

import asyncio
import re
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from edgora.board import BoardNode, BoardNodes, BoardSettings, board_origins
from edgora.board.app import STATIC, build_board, listen_at, main
from edgora.board.nodes import Learned
from edgora.wire.errors import Refused, Unavailable

GIVEN = ("http://127.0.0.1:8100", "http://127.0.0.1:8110/")


def server(number: int, public_url: str | None) -> Any:
    """As much of a rest.Server as the board reads."""
    return SimpleNamespace(id=number, keys=None if public_url is None else SimpleNamespace(public_url=public_url))


def said(*servers: Any, development: bool = True) -> Any:
    async def ask() -> Learned:
        return Learned(servers=servers, development=development)

    return ask


def directives(policy: str) -> dict[str, list[str]]:
    return {name: words for name, *words in (part.split() for part in policy.split(";"))}


@pytest.fixture
async def browser() -> AsyncIterator[httpx2.AsyncClient]:
    settings = BoardSettings(nodes=GIVEN, scenario="city")
    board = build_board(settings, BoardNodes(settings, said()))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(board), base_url="http://127.0.0.1:8080") as client:
        yield client


async def test_every_answer_carries_the_strict_headers(browser: httpx2.AsyncClient) -> None:
    paths = ["/", "/board.json", "/healthz", "/nothing-here", "/static/nothing", "/faults"]
    paths += [f"/static/{file.relative_to(STATIC).as_posix()}" for file in STATIC.rglob("*") if file.is_file()]
    assert len(paths) > 10
    for path in paths:
        headers = (await browser.get(path)).headers
        found = directives(headers["content-security-policy"])
        assert found["default-src"] == ["'none'"], path
        assert found["script-src"] == found["style-src"] == ["'self'"], path
        assert found["connect-src"] == ["'self'", "http://127.0.0.1:8100", "http://127.0.0.1:8110"], path
        assert found["base-uri"] == found["form-action"] == found["frame-ancestors"] == ["'none'"], path
        assert "unsafe" not in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer", path
        assert "access-control-allow-origin" not in headers, path


async def test_files_have_a_type_and_a_validator_that_spares_the_second_load(browser: httpx2.AsyncClient) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/static/js/main.js", "text/javascript"),
        ("/static/css/board.css", "text/css"),
    ):
        first = await browser.get(path)
        assert first.headers["content-type"].split(";")[0] == kind
        assert first.headers["cache-control"] == "no-cache"
        again = await browser.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert "content-security-policy" in again.headers


async def test_nothing_but_the_page_is_served(browser: httpx2.AsyncClient) -> None:
    for path in (
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/app.py",
        "/static",
        "/static/js/",
    ):
        answer = await browser.get(path)
        assert answer.status_code in {307, 404}, path
        assert b"import" not in answer.content
    missing = await browser.get("/nothing")
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.json()["code"] == "http_404"
    for method in ("POST", "PUT", "DELETE"):
        assert (await browser.request(method, "/board.json")).status_code == 405
    assert (await browser.get("/faults")).status_code == 404, "no fault panel unless the scenario allows it"


async def test_it_answers_under_its_own_names_only(browser: httpx2.AsyncClient) -> None:
    for host in ("127.0.0.1:8080", "localhost:8080", "[::1]:8080"):
        assert (await browser.get("/", headers={"Host": host})).status_code == 200
    for host in ("evil.test", "127.0.0.1.evil.test:8080", ""):
        assert (await browser.get("/", headers={"Host": host})).status_code == 400


async def test_the_page_is_told_the_nodes(browser: httpx2.AsyncClient) -> None:
    told = (await browser.get("/board.json")).json()
    assert told["nodes"] == [{"index": 0, "url": "http://127.0.0.1:8100"}, {"index": 1, "url": "http://127.0.0.1:8110"}]
    assert (told["scenario"], told["faults"], told["development"]) == ("city", False, False)


# ---- learning --------------------------------------------------------------------------------------------------------


async def test_further_nodes_are_learned_from_key_documents_by_id() -> None:
    nodes = BoardNodes(
        BoardSettings(nodes=GIVEN[:1]),
        said(server(2, "https://edge.test"), server(0, "http://localhost:9"), server(3, None), server(1, "http://[::1]:7")),
    )  # fmt: skip
    await nodes.learn()
    assert nodes.nodes == (
        BoardNode(index=0, url="http://localhost:9"), BoardNode(index=1, url="http://[::1]:7"),
        BoardNode(index=2, url="https://edge.test"),
    )  # fmt: skip
    assert nodes.development


async def test_inside_names_are_not_told_to_a_browser() -> None:
    nodes = BoardNodes(
        BoardSettings(nodes=("http://node0:8000",), inside=True), said(server(0, "http://127.0.0.1:8100"))
    )
    assert nodes.nodes == ()
    await nodes.learn()
    assert [node.url for node in nodes.nodes] == ["http://127.0.0.1:8100"]


@pytest.mark.parametrize(
    "url",
    [
        "http://a.test; script-src *", "http://a.test https://b.test", "http://a.test/path", "javascript:alert(1)",
        "http://user@a.test", "http://*", "http://*.test", "http://a.test\r\nX: y", "'unsafe-inline'", "http://", "",
        "http://a.test\n",
    ],
)  # fmt: skip
async def test_a_public_url_cannot_write_into_the_policy(url: str) -> None:
    settings = BoardSettings(nodes=GIVEN[:1])
    nodes = BoardNodes(settings, said(server(0, GIVEN[0]), server(1, url)))
    await nodes.learn()
    assert [node.url for node in nodes.nodes] == [GIVEN[0]]
    with pytest.raises(Refused, match="base URL"):
        BoardSettings(nodes=(url,))


async def test_a_platform_that_comes_up_later_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgora.board.nodes.SOON_S", 0)
    tries = []

    async def ask() -> Learned:
        tries.append(1)
        if len(tries) < 3:
            raise Unavailable("nobody is up yet")
        return Learned(servers=[server(0, "http://127.0.0.1:8100")], development=False)

    nodes = BoardNodes(BoardSettings(nodes=("http://node0:8000",), inside=True), ask)
    learning = asyncio.create_task(nodes.run())
    await nodes.learned.wait()
    learning.cancel()
    assert [node.url for node in nodes.nodes] == ["http://127.0.0.1:8100"]


# ---- settings --------------------------------------------------------------------------------------------------------


def test_origins_are_what_a_browser_sends() -> None:
    assert board_origins("127.0.0.1", 8080) == ("http://127.0.0.1:8080", "http://localhost:8080")
    assert board_origins("0.0.0.0", 9) == ("http://127.0.0.1:9", "http://localhost:9")
    assert board_origins("edge.test", 80) == ("http://edge.test:80",)
    assert board_origins("fe80::1", 81) == ("http://[fe80::1]:81",)


@pytest.mark.parametrize("text", ["8080", ":8080", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:٣"])
def test_a_listen_address_is_host_and_port(text: str) -> None:
    with pytest.raises(Refused, match="host:port"):
        listen_at(text)
    assert listen_at("[::1]:8080") == ("::1", 8080)


def test_a_refused_start_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--listen", "127.0.0.1:0"]) == 2
    assert "--node http://127.0.0.1:8100" in capsys.readouterr().err


# ---- what is shipped -------------------------------------------------------------------------------------------------


def test_the_page_asks_no_other_host_and_holds_nothing_inline() -> None:
    """The policy would stop it at run time; here it is found in any view, mounted or not."""
    for file in [*STATIC.rglob("*.js"), *STATIC.rglob("*.css"), *STATIC.rglob("*.html")]:
        text = file.read_text()
        # XML namespaces are names, not addresses; nodes on this machine are examples.
        found = [
            url for url in re.findall(r"https?://[^\s\"'`<>)]+", text)
            if not url.startswith(("http://www.w3.org/", "http://127.0.0.1"))
        ]  # fmt: skip
        assert found == [], file
        assert "innerHTML" not in text, file
        assert "insertAdjacentHTML" not in text, file
        assert "document.write" not in text, file
        assert not re.search(r"\beval\(|new Function\(", text), file
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\son\w+=|\sstyle=", page)
    assert re.findall(r"<script(?![^>]*\ssrc=)", page) == []
