"""The board in a real Chromium, against the embedded platform with a seeded scenario.

    platform   a running platform with its board, four nodes and a small fleet whose tasks have ended; one for all
               files. Look, do not disturb.
    own_platform   the same, made for one module: its nodes may be stopped, its market upset.
    page       a fresh page (dark or light as the system says, 1280 x 800). It fails its test on any console error, uncaught
               exception, breach of the Content-Security-Policy or request to a host that is neither board nor node.
    shot       `shot("name")` keeps run/browser/name.png

Everything is awaited by an event or by playwright's own waiting; nothing sleeps. Playwright is the blocking one, so
the tests here are plain functions.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from board_platform import SHOTS, BoardPlatform
from browser import chromium

TIMEOUT_MS = 15_000


@pytest.fixture(scope="session")
def platform() -> Iterator[BoardPlatform]:
    with BoardPlatform() as running:
        running.play()
        yield running


@pytest.fixture(scope="module")
def own_platform() -> Iterator[BoardPlatform]:
    with BoardPlatform() as running:
        running.play()
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if chromium.found() is None:
        pytest.fail("no chromium found: apt-get install chromium", pytrace=False)
    with sync_playwright() as play:
        running = chromium.launch(play.chromium)
        yield running
        running.close()


class Watched:
    """What a page complained of. `expect` names what a test provokes on purpose."""

    def __init__(self, page: Page, allowed: Callable[[str], bool]) -> None:
        self.said: list[str] = []
        self._expected: list[re.Pattern[str]] = []
        self._allowed = allowed
        page.on(
            "console", lambda m: m.type in {"error", "warning"} and self._note(f"console {m.type}: {m.text} ({_at(m)})")
        )
        page.on("pageerror", lambda e: self._note(f"uncaught: {e}"))
        page.on("request", lambda r: self._request(r.url))

    def _note(self, words: str) -> None:
        self.said.append(words)

    def _request(self, url: str) -> None:
        if urlsplit(url).scheme not in {"data", "blob"} and not self._allowed(url):
            self._note(f"request to a foreign host: {url}")

    def expect(self, pattern: str) -> None:
        self._expected.append(re.compile(pattern))

    @property
    def complaints(self) -> list[str]:
        return [words for words in self.said if not any(p.search(words) for p in self._expected)]


def _at(message: Any) -> str:
    place: dict[str, Any] = message.location
    return f"{place.get('url', '')}:{place.get('lineNumber', 0)}"


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 800}, timezone_id="Europe/Vienna", locale="en-GB")
    made.set_default_timeout(TIMEOUT_MS)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page; not yet at an address: `page.goto(platform.url + "/#/city")`."""
    made = context.new_page()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def watched(page: Page, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """Fails the test at its end for whatever the page complained of and the test did not expect."""
    used = "own_platform" if "own_platform" in request.fixturenames else "platform"
    running: BoardPlatform = request.getfixturevalue(used)
    hosts = {urlsplit(url).netloc for url in (running.url, *running.urls)}
    watching = Watched(page, lambda url: urlsplit(url).netloc in hosts)
    yield watching
    assert watching.complaints == []


@pytest.fixture
def shot(page: Page) -> Callable[[str], Path]:
    """Keep a picture of the page as it is now."""

    def keep(name: str) -> Path:
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{name}.png"
        page.screenshot(path=path)
        return path

    return keep
