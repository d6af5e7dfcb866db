"""Market, rounds and servers: what the views show equals the nodes' REST, what the plots draw equals their CSV."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from board_platform import BoardPlatform

pytestmark = pytest.mark.browser
PAID = {"FINAL", "CERTIFIED", "SETTLED"}


def plot(page: Page, title: str) -> Locator:
    return page.locator("figure.plot", has=page.locator("figcaption", has_text=title))


def drawn(figure: Locator, shape: str) -> Locator:
    """The first of a plot's shapes. The legend beside the drawing has the same shapes before there is any data."""
    return figure.locator(f".plot-canvas {shape}").first


def data_of(page: Page, figure: Locator) -> list[dict[str, str]]:
    """The plot's CSV, as a reader who clicks its link gets it."""
    with page.expect_download() as saved:
        figure.get_by_role("link", name="data as CSV").click()
    text = Path(saved.value.path()).read_text()
    return list(csv.DictReader(io.StringIO(text)))


def everything(platform: BoardPlatform, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        found = platform.json(f"{path}?limit=200{cursor}")
        items += found["items"]
        if found["cursor"] is None:
            return items
        cursor = f"&cursor={found['cursor']}"


def gwei(wei: str) -> str:
    whole, rest = divmod(int(wei), 10**9)
    return f"{whole:,}" + (f".{rest:09d}".rstrip("0") if rest else "") + " gwei"


def values_along(figure: Locator) -> list[str]:
    """What the keyboard reads from a plot, from its first value to its last."""
    slider = figure.get_by_role("slider")
    slider.focus()
    slider.press("Home")
    count = int(slider.get_attribute("aria-valuemax") or 0) + 1
    found = []
    for _ in range(count):
        found.append(slider.get_attribute("aria-valuetext") or "")
        slider.press("ArrowRight")
    return found


def test_rounds_show_the_winner_against_greedy_and_the_bound(
    platform: BoardPlatform, page: Page, shot: Callable[[str], Path]
) -> None:
    page.goto(f"{platform.url}/#/market")
    closed = [r for r in everything(platform, "/v1/allocations") if r["closed_ms"] is not None]
    assert closed
    for truth in closed[:8]:
        row = page.locator(f'.rounds tr[data-round="{truth["round"]}"] td')
        expect(row.nth(4)).to_have_text(gwei(truth["value"]))
        expect(row.nth(8)).to_have_text(truth["verdict"]["sentence"])
        by = truth["winner_validator"]
        expect(row.nth(3)).to_have_text("greedy (built in)" if by is None else f"{truth['winner']}, by node {by}")
        value, greedy = int(truth["value"]), int(truth["greedy_value"])
        if value == greedy:
            expect(row.nth(5)).to_have_text("equal")
        elif greedy:
            more = 10_000 * abs(value - greedy) // greedy
            sign = "+" if value > greedy else "-"
            expect(row.nth(5)).to_have_text(f"{sign}{more // 100}.{more % 100:02d} %")
        if truth["bound"] is None:
            expect(row.nth(6)).to_have_text("no bound")
        refused = sum(not p["accepted"] for p in truth["proposals"])
        expect(row.nth(7)).to_have_text(f"{len(truth['proposals']) - refused} accepted, {refused} refused")
    shot("market")


def test_utility_is_plotted_as_it_was(platform: BoardPlatform, page: Page) -> None:
    page.goto(f"{platform.url}/#/market")
    expect(page.locator(".rounds tr[data-round]").first).to_be_visible()
    figure = plot(page, "Utility of each round")
    closed = [r for r in reversed(everything(platform, "/v1/allocations")) if r["closed_ms"] is not None]
    rows = data_of(page, figure)
    assert [int(row["round"]) for row in rows] == [r["round"] for r in closed]
    for row, truth in zip(rows, closed, strict=True):
        assert (row["value_wei"], row["greedy_wei"]) == (truth["value"], truth["greedy_value"])
        assert row["bound_wei"] == (truth["bound"] or "")
        assert row["winner"] == truth["winner"]
        for proposal in truth["proposals"]:
            if proposal["accepted"]:
                assert int(row[f"{proposal['policy']}_wei"]) >= int(proposal["value"])
    read = values_along(figure)
    assert len(read) == len({r["closed_ms"] for r in closed})
    for words, truth in zip(read, closed, strict=False):
        assert f"greedy (built in) {shown(int(truth['greedy_value']) / 1e9)} gwei" in words
    figure.get_by_text("values as a table").click()
    cells = figure.locator("table tbody tr").first.locator("td").all_inner_texts()
    assert cells[:4] == [rows[0][name] for name in ("round", "closed_ms", "winner", "value_wei")]


def shown(value: float) -> str:
    """A figure as the plots write it: five significant digits, four and a letter from 100,000 on."""
    if value >= 100_000:
        for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
            if value >= size:
                return f"{float(f'{value / size:.4g}'):,g}{letter}"
    return f"{float(f'{value:.5g}'):,}".removesuffix(".0")


def test_refused_proposals_and_silent_allocators_give_their_reason(platform: BoardPlatform, page: Page) -> None:
    page.goto(f"{platform.url}/#/market")
    wanted = []
    for truth in everything(platform, "/v1/allocations"):
        wanted += [(truth["round"], p["validator"], p["reason"]) for p in truth["proposals"] if not p["accepted"]]
    for node in range(4):
        for truth in platform.json("/v1/allocations?limit=20", node)["items"]:
            wanted += [(truth["round"], node, skip["reason"]) for skip in truth["skipped"]]
    assert wanted, "four nodes with one policy propose equal plans, and all but one are refused"
    wanted.sort(key=lambda item: -item[0])
    newest = [item for item in wanted if item[0] > wanted[0][0] - 5][:10]
    for number, node, reason in newest:
        row = (
            page.locator(".refused tr")
            .filter(has=page.locator(f'a[href="#/round/{number}"]'))
            .filter(has_text=f"node {node}")
        )
        expect(row.filter(has_text=reason["sentence"]).first).to_be_visible()


def test_spending_and_gas_equal_tasks_and_batches(
    platform: BoardPlatform, page: Page, shot: Callable[[str], Path]
) -> None:
    page.goto(f"{platform.url}/#/market")
    spending = plot(page, "UEs' spending")
    expect(drawn(spending, "rect.plot-bar")).to_be_attached()
    sums: dict[str, tuple[int, int]] = {}
    for task in everything(platform, "/v1/tasks"):
        count, charged = sums.get(task["offer"]["ue"], (0, 0))
        sums[task["offer"]["ue"]] = (count + 1, charged + (int(task["amount"]) if task["state"] in PAID else 0))
    rows = {row["ue"]: row for row in data_of(page, spending)}
    assert {ue: (int(row["tasks"]), int(row["charged_wei"])) for ue, row in rows.items()} == sums
    largest = min(sums, key=lambda ue: (-sums[ue][1], ue))  # of equal ones the lower address comes first
    values = values_along(spending)
    assert values[0].startswith(largest[:6])
    slider = spending.get_by_role("slider")
    slider.press("Home")
    box = slider.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + box["height"] / 2)
    expect(slider).to_have_attribute("aria-valuetext", values[-1])
    page.mouse.move(box["x"] - 5, box["y"] + box["height"] / 2)
    expect(slider).to_have_attribute("aria-valuetext", values[0])

    gas = plot(page, "Gas of settling")
    batches = {b["id"]: b for b in everything(platform, "/v1/batches") if b["lines"]}
    used: dict[int, int] = {}
    for node in range(4):
        for batch in platform.json("/v1/batches?limit=200", node)["items"]:
            if batch["gas_used"] is not None:
                used[batch["id"]] = batch["gas_used"]
    assert used, "some node of this process settled every batch"
    told = {int(row["batch"]): row for row in data_of(page, gas)}
    assert {n: int(row["gas_by_model"]) for n, row in told.items()} == {n: b["gas"] for n, b in batches.items()}
    assert {n: int(row["gas_used"]) for n, row in told.items() if row["gas_used"]} == {
        n: g for n, g in used.items() if n in batches
    }
    first = min(batches)
    assert f"by the model {shown(batches[first]['gas'] / batches[first]['lines'])} gas" in values_along(gas)[0]
    gas.scroll_into_view_if_needed()
    shot("market-money")


def test_a_round_tells_its_proposals_and_alternatives(
    platform: BoardPlatform, page: Page, shot: Callable[[str], Path]
) -> None:
    rounds = [r for r in everything(platform, "/v1/allocations") if r["closed_ms"] is not None and r["choices"]]
    truth = platform.json(f"/v1/allocations/{max(rounds, key=lambda r: len(r['choices']))['round']}")
    page.goto(f"{platform.url}/#/round/{truth['round']}")
    expect(page.locator(".verdict")).to_have_text(truth["verdict"]["sentence"])
    proposals = page.get_by_role("region", name="All that were ordered").locator("tbody tr")
    expect(proposals).to_have_count(len(truth["proposals"]))
    for index, proposal in enumerate(truth["proposals"]):
        expect(proposals.nth(index)).to_contain_text(f"node {proposal['validator']}")
        expect(proposals.nth(index)).to_contain_text(
            gwei(proposal["value"]) if proposal["accepted"] else proposal["reason"]["sentence"]
        )
    for choice in truth["choices"]:
        place = page.locator(".choice").filter(has=page.locator(f'a[href="#/task/{choice["task"]}"]'))
        expect(place).to_contain_text(
            "went nowhere" if choice["server"] is None else f"went to server {choice['server']}"
        )
        for index, other in enumerate(choice["alternatives"]):
            row = place.locator("tbody tr").nth(index)
            expect(row).to_contain_text(f"server {other['server']}")
            expect(row).to_contain_text(other["reason"]["sentence"])
    expect(page.get_by_role("region", name="Tasks, in order of arrival").locator("tbody tr")).to_have_count(
        truth["tasks"]
    )
    expect(page.get_by_role("region", name="Servers").locator("tbody tr")).to_have_count(truth["servers"])
    compared = {row["plan"]: row["value_wei"] for row in data_of(page, plot(page, "Utility of the plans"))}
    assert compared["greedy (built in)"] == truth["greedy_value"]
    shot("round")


def test_servers_show_load_earnings_and_reputation(
    platform: BoardPlatform, page: Page, shot: Callable[[str], Path]
) -> None:
    page.goto(f"{platform.url}/#/servers")
    truth = platform.json("/v1/servers")["items"]
    for server in truth:
        row = page.locator(f'.servers tr[data-server="{server["id"]}"] td')
        expect(row.nth(1)).to_have_text("live" if server["live"] else "not live: gets no new work")
        expect(row.nth(8)).to_have_text(gwei(server["earned"]))
        score = server["reputation"]["score"]
        expect(row.nth(9)).to_have_text("no task yet" if score is None else f"{score:.3f}")
    earned = data_of(page, plot(page, "Earned"))
    assert {int(row["server"]): row["earned_wei"] for row in earned} == {s["id"]: s["earned"] for s in truth}
    ends = data_of(page, plot(page, "How tasks ended there"))
    for row, server in zip(ends, truth, strict=True):
        assert {name: int(row[name]) for name in ("done", "late", "failed", "disputed")} == {
            name: server["reputation"][name] for name in ("done", "late", "failed", "disputed")
        }
    held = plot(page, "Tasks held")
    expect(drawn(held, "path.plot-line")).to_be_attached()
    last = values_along(held)[-1]
    for server in truth:
        if f"server {server['id']} " in last:
            assert f"server {server['id']} {server['tasks']}" in last, "the curve ends where the server is now"
    shot("servers")


def test_plots_keep_their_text_readable_on_a_phone(
    platform: BoardPlatform, page: Page, shot: Callable[[str], Path]
) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{platform.url}/#/market")
    figure = plot(page, "Utility of each round")
    expect(drawn(figure, "path.plot-line")).to_be_attached()
    box = figure.locator("svg").first.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 360
    heights = [b["height"] for t in figure.locator("text.plot-tick").all() if (b := t.bounding_box())]
    assert min(heights) >= 10
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    shot("market-phone")
