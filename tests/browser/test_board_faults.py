"""The fault panel: what it says before an act is what happens, and a paying user's task shows it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Locator, Page, expect

from board_platform import BoardPlatform
from edgora.client import Wallet
from embedded import spin

pytestmark = pytest.mark.browser

HEADER = {"X-Edgora-Board": "1"}
SLOW_MS = 45_000
"""For what follows from a fault: a time-out of consensus, a task's whole way."""


@pytest.fixture(scope="module")
def own_platform() -> Iterator[BoardPlatform]:
    with BoardPlatform("faults.allowed=true", "market.audit_bps=10000", "market.proposal_ms=1500") as running:
        yield running


@pytest.fixture(scope="module")
def payer(own_platform: BoardPlatform) -> Wallet:
    return own_platform.funded(10**17)


@pytest.fixture(autouse=True)
def healed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "own_platform" in request.fixturenames:
        platform: BoardPlatform = request.getfixturevalue("own_platform")
        for node in range(4):
            httpx2.post(f"{platform.url}/faults", json={"node": node, "act": "heal"}, headers=HEADER, timeout=60)


def faults(platform: BoardPlatform) -> dict[int, dict[str, Any]]:
    return {node["index"]: node for node in httpx2.get(f"{platform.url}/faults", timeout=10).json()["nodes"]}


def card(page: Page, node: int) -> Locator:
    return page.locator(f'.fault-card[data-node="{node}"]')


def do(page: Page, node: int, act: str, *, says: str, lie: str | None = None) -> None:
    """Ask for an act and agree to what the dialog says."""
    if lie is not None:
        card(page, node).get_by_role("combobox").select_option(lie)
    card(page, node).locator(f'button[data-act="{act}"]').click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(says)
    dialog.get_by_role("button", name="Heal it" if act == "heal" else "Do it").click()
    expect(dialog).to_be_hidden()


def backups(platform: BoardPlatform) -> list[int]:
    primary = platform.json("/v1/status")["primary"]
    return [node for node in (1, 2, 3) if node != primary]


def test_a_killed_node_and_a_paying_users_task(
    own_platform: BoardPlatform, payer: Wallet, page: Page, watched: Any, shot: Callable[[str], Path]
) -> None:
    watched.expect("ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY_RESPONSE")
    page.goto(own_platform.url + "/#/faults")
    expect(page.get_by_role("heading", level=1)).to_have_text("Faults")
    for node in range(4):
        expect(card(page, node).locator(".fault-state")).to_contain_text("up")
        expect(card(page, node).locator('button[data-act="heal"]')).to_be_disabled()
    expect(page.locator(".fault-card .tag:visible")).to_have_count(1)

    victim = backups(own_platform)[0]
    card(page, victim).locator('button[data-act="kill"]').click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("ends as in a crash")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert faults(own_platform)[victim]["state"] == "up", "looking at it does nothing"

    do(page, victim, "kill", says="the 3 others are enough for the 3 votes that a block needs")
    expect(card(page, victim).locator(".fault-state")).to_contain_text("killed")
    assert faults(own_platform)[victim]["state"] == "killed"
    expect(card(page, victim)).to_contain_text("does not answer since")
    expect(page.locator(".fault-sentence")).to_contain_text(f"silent: {victim}", timeout=SLOW_MS)

    alive = [url for node, url in enumerate(own_platform.urls) if node != victim]
    with own_platform.client(payer, nodes=alive) as ue:
        ticket = ue.submit(spin(source=0))
        row = page.locator(f'tr[data-task="0x{ticket.task.hex()}"]')
        expect(row).to_be_visible()
        expect(row.locator(".fault-why")).not_to_be_empty()
        shot("faults")
        ended = ue.finish(ticket.task)
    assert ended.state == "SETTLED"
    expect(row).to_contain_text("SETTLED")
    assert ended.executor is not None
    expect(row).to_contain_text(f"node {ended.executor}")

    second = backups(own_platform)[1] if backups(own_platform)[0] == victim else backups(own_platform)[0]
    do(page, second, "cut", says="Then 2 of 4 are faulty, more than the 1 that 4 nodes bear")
    expect(page.locator(".fault-sentence")).to_contain_text("3 are needed", timeout=SLOW_MS)
    do(page, second, "heal", says="becomes a correct node again")
    do(page, victim, "heal", says="Then all 4 nodes are correct")
    expect(card(page, victim).locator(".fault-state")).to_have_text("● up", timeout=SLOW_MS)
    expect(card(page, victim)).to_contain_text("Height", timeout=SLOW_MS)
    expect(page.locator(".fault-notes")).to_contain_text(f"you healed node {victim}")


def test_lies_show_in_what_the_others_noticed(own_platform: BoardPlatform, payer: Wallet, page: Page) -> None:
    page.goto(own_platform.url + "/#/faults")
    liar = backups(own_platform)[0]
    do(page, liar, "lie", lie="false_allocation", says="a plan that claims twice its worth")
    expect(card(page, liar).locator(".fault-state")).to_contain_text("up, and lying: proposes false plans")
    assert faults(own_platform)[liar]["lie"] == "false_allocation"
    with own_platform.client(payer) as ue:
        assert ue.finish(ue.submit(spin(source=0)).task).state == "SETTLED"
    notes = page.locator(".fault-notes")
    expect(notes).to_contain_text(f'the plan "false-value" of node {liar} was refused')
    told = [e for e in own_platform.json("/v1/allocations")["items"] if e["proposals"]]
    reasons = [p["reason"]["sentence"] for e in told for p in e["proposals"] if p["policy"] == "false-value"]
    expect(notes).to_contain_text(reasons[0])

    do(page, 3, "lie", lie="false_result", says="Only another run can tell")
    with own_platform.client(payer) as ue:
        ended = ue.finish(ue.submit(spin(source=0)).task)
    assert (ended.executor, ended.state) == (3, "REFUNDED"), "the cheapest server has it, and is caught"
    expect(notes).to_contain_text("node 3 filed something else")
    expect(notes).to_contain_text("ended without pay")


def test_it_fits_a_phone_and_is_named_for_a_reader(own_platform: BoardPlatform, page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(own_platform.url + "/#/faults")
    expect(card(page, 3)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for act in ("Kill", "Pause", "Cut off", "Make it lie", "Heal"):
        expect(page.get_by_role("button", name=f"{act}: node 2")).to_be_attached()
    nameless = page.eval_on_selector_all(
        "main button, main select", "all => all.filter(e => !(e.ariaLabel || e.textContent.trim())).length"
    )
    assert nameless == 0


def test_two_acts_of_two_people_meet_in_words(own_platform: BoardPlatform, page: Page, watched: Any) -> None:
    """What the page shows may be old: the refusal says so."""
    watched.expect("409")
    page.goto(own_platform.url + "/#/faults")
    node = backups(own_platform)[0]
    card(page, node).locator('button[data-act="cut"]').click()
    order = {"node": node, "act": "pause"}
    assert httpx2.post(f"{own_platform.url}/faults", json=order, headers=HEADER, timeout=60).status_code == 200
    with page.expect_response(lambda r: r.url.endswith("/faults") and r.request.method == "POST") as told:
        page.get_by_role("dialog").get_by_role("button", name="Do it").click()
    assert told.value.status == 409
    refusal = page.get_by_role("alert")
    expect(refusal).to_contain_text(f"node {node} is paused")
    expect(card(page, node).locator(".fault-state")).to_contain_text("paused")
    with page.expect_response(lambda r: r.url.endswith("/faults") and r.request.method == "GET"):
        pass  # the next look at the nodes
    expect(refusal).to_be_visible()
    do(page, node, "heal", says="becomes a correct node again")
    expect(refusal).to_be_hidden()


def test_where_it_is_not_allowed_the_page_explains(platform: BoardPlatform, page: Page) -> None:
    page.goto(platform.url + "/#/faults")
    expect(page.locator("main")).to_contain_text("does not allow nodes to be broken on purpose")
    expect(page.get_by_role("navigation").get_by_role("link", name="Faults")).to_have_count(0)
    assert httpx2.get(f"{platform.url}/faults", timeout=10).status_code == 404
    assert httpx2.get(f"{platform.url}/board.json", timeout=10).json()["faults"] is False
