"""The page around the views: policy, manners, reconnection, and nothing that anybody wrote becomes markup."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import Page, Route, expect

import markup_policies
from board_platform import BoardPlatform
from browser.audit import findings, overflow
from embedded import spin

pytestmark = pytest.mark.browser

ROUTES = ("city", "task", "ledger", "block", "market", "round", "servers", "try")
THEMES = ("light", "dark")


def address(platform: BoardPlatform, route: str) -> str:
    """Of a view, with an id where it needs one."""
    tail = ""
    if route == "task":
        tail = "/" + next(t["id"] for t in platform.json("/v1/tasks")["items"] if t["state"] == "SETTLED")
    elif route == "block":
        tail = f"/{platform.json('/v1/blocks?limit=1')['items'][0]['height']}"
    elif route == "round":
        tail = f"/{platform.json('/v1/allocations?limit=1')['items'][0]['round']}"
    return f"{platform.url}/#/{route}{tail}"


def shown(page: Page, url: str) -> None:
    """Go there and wait until the view has its data."""
    page.goto(url)
    filled(page)


def filled(page: Page) -> None:
    """Wait until the view has its data: nothing on it says that it is still reading."""
    expect(page.locator("#view h1")).to_be_visible()
    expect(page.locator("#view h1")).not_to_have_text("This view cannot be shown")
    expect(page.locator("#view")).not_to_contain_text(re.compile(r"\b(Loading the view|Reading|Asking the node)\b"))
    expect(page.locator("#foot-height")).to_have_text(re.compile(r"^[\d,\u202f\u00a0 .']+$"))
    expect(page.locator("#view h1")).to_be_visible()  # the view's own by now: the first may have been the empty page's


# ---- the policy ------------------------------------------------------------------------------------------------------


def test_the_policy_holds_in_the_browser(platform: BoardPlatform, page: Page, watched) -> None:
    watched.expect("Content Security Policy")
    page.goto(platform.url)
    tried = page.evaluate("""async () => {
      const script = document.createElement("script");
      script.textContent = "window.ran = true";
      document.body.append(script);
      document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.ran = true'><p style='color: red' id=styled>x</p>");
      const reached = await fetch("http://127.0.0.1:9/", { mode: "no-cors" }).then(() => "reached", (error) => error.name);
      return { ran: window.ran === true, reached, red: getComputedStyle(document.getElementById("styled")).color === "rgb(255, 0, 0)" };
    }""")
    assert tried == {"ran": False, "reached": "TypeError", "red": False}
    assert watched.said, "the browser reports what it stopped"
    watched.expect("404")  # the picture named x


def test_it_reads_nothing_but_board_and_nodes(platform: BoardPlatform, page: Page) -> None:
    """`watched` fails on a foreign host; here: what is asked of our own."""
    asked: list[tuple[str, str]] = []
    page.on("request", lambda request: asked.append((request.method, request.url)))
    shown(page, address(platform, "city"))
    assert {method for method, _ in asked} == {"GET"}
    own = {url.removeprefix(platform.url).split("?")[0] for _, url in asked if url.startswith(platform.url)}
    assert all(path in {"/", "/board.json"} or path.startswith("/static/") for path in own), own
    nodes = {re.sub(r"^http://[^/]+", "", url) for _, url in asked if not url.startswith(platform.url)}
    assert nodes
    assert all(path.startswith("/v1/") for path in nodes), nodes


# ---- manners ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
def test_every_view_is_readable_by_everyone(
    platform: BoardPlatform, page: Page, shot: Callable[[str], Path], route: str
) -> None:
    found = {}
    for theme in THEMES:
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        shown(page, address(platform, route))
        found[theme] = findings(page)
        shot(f"{route}-{theme}")
    page.set_viewport_size({"width": 360, "height": 740})
    shown(page, address(platform, route))
    found["phone"] = overflow(page)
    shot(f"{route}-phone")
    assert found == {"light": [], "dark": [], "phone": []}


def test_the_theme_button_wins_over_the_system_and_is_remembered(platform: BoardPlatform, page: Page) -> None:
    page.emulate_media(color_scheme="light")
    shown(page, address(platform, "servers"))
    paper = "getComputedStyle(document.body).backgroundColor"
    day = page.evaluate(paper)
    page.locator("#theme").click()
    night = page.evaluate(paper)
    assert night != day
    page.reload()
    filled(page)
    assert page.evaluate(paper) == night
    assert findings(page) == []


def test_the_keyboard_reaches_every_view_and_shows_where_it_is(platform: BoardPlatform, page: Page) -> None:
    shown(page, address(platform, "city"))
    where = """() => {
      const el = document.activeElement;
      const style = getComputedStyle(el);
      return { text: el.textContent.trim(), href: el.getAttribute("href"), visible: el.matches(":focus-visible")
        && ((style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none") };
    }"""
    page.keyboard.press("Tab")
    first = page.evaluate(where)
    assert first["text"] == "Skip to content"
    assert first["visible"]
    reached = {}
    for _ in range(12):
        page.keyboard.press("Tab")
        focused = page.evaluate(where)
        assert focused["visible"], f"nobody sees that {focused} has the focus"
        reached[focused["href"]] = focused["text"]
    assert {"#/city", "#/ledger", "#/market", "#/servers", "#/try"} <= reached.keys()
    page.locator("nav a[href='#/ledger']").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#/ledger$"))
    expect(page.locator("main")).to_be_focused()
    expect(page.locator("nav a[aria-current=page]")).to_have_text("Ledger")
    expect(page.locator("#announcer")).to_contain_text("Ledger")
    page.go_back()
    expect(page.locator("nav a[aria-current=page]")).to_have_text("City")


def test_an_address_that_is_none_is_said_and_stays_text(platform: BoardPlatform, page: Page) -> None:
    for tail in ("nowhere", "%3Cimg%20src=x%20onerror=window.ran=1%3E", "toString", "__proto__"):
        page.goto(f"{platform.url}/#/{tail}")
        expect(page.get_by_role("heading", level=1)).to_have_text("This view cannot be shown")
        expect(page.get_by_role("link", name="Go to the city view")).to_be_visible()
    assert page.evaluate("document.images.length === 0 && window.ran === undefined")


# ---- a platform with hostile words and nodes that stop ----------------------------------------------------------------


@pytest.fixture(scope="module")
def own_platform() -> Iterator[BoardPlatform]:
    """Two of the four policies carry markup in their name and in their errors; nodes are stopped here, too."""
    policies = [markup_policies.FAILS, markup_policies.NAME, "greedy-global", "greedy-global"]
    servers = [{"policy": name, "x_m": 100.0 * i, "y_m": 50.0 * i} for i, name in enumerate(policies)]
    quick = ("fleet.tasks=5", "plan.cancelled=0", "market.audit_bps=0", "name=<b>bold</b>")
    with BoardPlatform(f"servers={msgspec.json.encode(servers).decode()}", *quick) as running:
        running.play()
        yield running


def test_words_of_a_stranger_stay_words(own_platform: BoardPlatform, page: Page) -> None:
    """A task carries digests and numbers alone; free text comes with proposals, refusals and names. All of it hostile."""
    rounds = own_platform.json("/v1/allocations?limit=200")["items"]
    told = [r["round"] for r in rounds if markup_policies.FAILING in str(r["skipped"])]
    proposed = [r["round"] for r in rounds if markup_policies.HOSTILE in str(r["proposals"])]
    assert told, "node 0 says that its policy failed, or was late, and names it"
    task = next(r["pairs"][0]["task"] for r in rounds if r["pairs"])
    for tail in (*(f"round/{n}" for n in (told + proposed)[:6]), "market", f"task/{task}", "city", "ledger", "servers"):
        shown(page, f"{own_platform.url}/#/{tail}")
        strange = page.evaluate("""() => ({
          ran: window.ran !== undefined, scripts: [...document.scripts].filter((s) => !s.src).length,
          made: document.querySelectorAll("main img[src=x], main script").length })""")
        assert strange == {"ran": False, "scripts": 0, "made": 0}, tail
    shown(page, f"{own_platform.url}/#/round/{told[0]}")
    expect(page.locator("main")).to_contain_text(markup_policies.FAILING)
    expect(page.locator("#scenario")).to_have_text("<b>bold</b>")


def test_a_node_that_dies_is_left_and_one_that_comes_back_is_told_of(
    own_platform: BoardPlatform, page: Page, watched, shot: Callable[[str], Path]
) -> None:
    watched.expect(
        r"ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INCOMPLETE_CHUNKED_ENCODING|EMPTY_RESPONSE|SOCKET_NOT_CONNECTED)"
    )
    shown(page, f"{own_platform.url}/#/city")
    mark, banner = page.locator("#link-state"), page.locator("#banner")
    expect(mark).to_have_text("node 0")
    own_platform.stop_node(0)
    try:
        expect(mark).not_to_have_text("node 0")
        expect(banner).to_contain_text(re.compile(r"node 0\b"))
        shot("node-0-stopped")
        # What happens now reaches the page through another node: a task that was sent after the switch is on it.
        with own_platform.client(nodes=own_platform.urls[1:]) as ue:
            ticket = ue.submit(spin())
            page.goto(f"{own_platform.url}/#/task/0x{ticket.task.hex()}")
            ue.deliver(ticket)
            ended = ue.finish(ticket.task)
        assert ended.state == "SETTLED"
        expect(page.locator("main")).to_contain_text(re.compile("paid|settled", re.IGNORECASE))
    finally:
        own_platform.start_node(0)
    expect(banner).to_contain_text(re.compile(r"node 0\b.*\b(back|again)\b"))
    expect(mark).not_to_have_text("connecting")


def test_with_no_node_left_it_says_so_and_comes_back_by_itself(
    own_platform: BoardPlatform, page: Page, watched
) -> None:
    watched.expect(r"ERR_|Failed to fetch")
    shown(page, f"{own_platform.url}/#/ledger")
    for index in range(4):
        own_platform.stop_node(index)
    try:
        expect(page.locator("#link-state")).to_have_text("no node answers")
        expect(page.locator("#banner")).to_be_visible()
    finally:
        for index in range(4):
            own_platform.start_node(index)
    expect(page.locator("#link-state")).to_have_text(re.compile(r"^node \d$"))
    height = own_platform.json("/v1/status")["committed_height"]
    with own_platform.client() as ue:
        ue.compute(spin())
    page.wait_for_function(
        "(before) => Number(document.getElementById('foot-height').textContent.replace(/\\D/g, '')) > before",
        arg=height,
    )


def test_a_page_that_came_before_the_nodes_loads_again_once_they_are_known(platform: BoardPlatform, page: Page) -> None:
    """Its policy named none, so it could read none: in containers the board is up first."""
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) == 1:
            route.fulfill(json={**platform.board(), "nodes": []})
        else:
            route.continue_()

    loads: list[str] = []
    page.on("request", lambda r: loads.append(r.url) if r.is_navigation_request() else None)
    page.route("**/board.json", answer)
    shown(page, address(platform, "servers"))
    assert len(loads) == 2
