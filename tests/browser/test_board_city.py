"""The city against the REST truth: who stands where, which tasks are in view, what is filtered, what time is shown."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import combinations
from math import dist
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from board_platform import BoardPlatform
from edgora.wire.kernels import load, names

pytestmark = pytest.mark.browser
KERNELS = {f"0x{load(name).digest.hex()}": name for name in names()}

_COUNTS_AGREE = """() => {
    const listed = [...document.querySelectorAll('#city-tasks tbody tr')].map((row) => row.dataset.phase);
    return listed.length > 0 && [...document.querySelectorAll('button.phase')].every((button) =>
        Number(button.querySelector('.count').textContent) === listed.filter((name) => name === button.dataset.phase).length);
}"""
"""The number beside each state is that of its rows in the table."""


def _open(platform: BoardPlatform, page: Page, query: str = "") -> None:
    page.goto(f"{platform.url}/#/city{query}")
    expect(page.locator(".server")).to_have_count(len(platform.urls), timeout=30_000)
    expect(page.locator("#link-state")).to_have_text("node 0")


def _pause_at(page: Page, at_ms: int) -> None:
    """Through the slider, as a hand would: seconds after the beginning of the five minutes."""
    page.evaluate(
        """(at) => {
            const shown = Date.parse(document.querySelector('#foot-your-time').dateTime);
            const slider = document.querySelector('#city-slider');
            slider.value = String(300 - (shown - 1200 - at) / 1000);
            slider.dispatchEvent(new Event('input', { bubbles: true }));
        }""",
        at_ms,
    )
    expect(page.get_by_role("button", name="Resume live")).to_be_visible()


def _listed(page: Page) -> dict[str, str]:
    """Task id to state, as the table says."""
    found: list[tuple[str, str]] = page.eval_on_selector_all(
        "#city-tasks tbody tr", "rows => rows.map(row => [row.dataset.task, row.children[1].textContent])"
    )
    return dict(found)


def _tasks(platform: BoardPlatform) -> list[Any]:
    found: list[Any] = platform.json("/v1/tasks?limit=200")["items"]
    return found


def test_servers_and_ues_stand_where_they_say(platform: BoardPlatform, page: Page) -> None:
    _open(platform, page)
    senders = {task["offer"]["ue"] for task in _tasks(platform)}
    expect(page.locator(".ue")).to_have_count(len(senders))
    assert set(page.eval_on_selector_all(".ue", "all => all.map(one => one.dataset.id)")) == senders
    places: dict[str, list[float]] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('.server')].map((one) =>
            [one.dataset.id, one.getAttribute('transform').match(/[\\d.]+/g).map(Number)]))"""
    )
    told = {str(server["id"]): server["position_m"] for server in platform.json("/v1/servers")["items"]}
    assert places.keys() == told.keys()
    for axis in (0, 1):
        by_picture = sorted(places, key=lambda number: places[number][axis])
        by_metres = sorted(told, key=lambda number: told[number][axis])
        assert by_picture == by_metres
    expect(page.locator(".server[data-state=live]")).to_have_count(len(told))


def _hops(page: Page, task: str, last: str) -> Iterator[tuple[str, str]]:
    """On from change to change until the task is in the `last` phase: each phase that it came to, and the time shown."""
    row = page.locator(f'#city-tasks tr[data-task="{task}"]')
    phase = row.get_attribute("data-phase") if row.count() else None
    for _ in range(120):  # ten tasks change eight times each
        before = phase
        page.get_by_role("button", name="on to the next change").click()
        page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        phase = row.get_attribute("data-phase") if row.count() else None
        if phase is not None and phase != before:
            yield phase, page.locator("#city-at-ledger").inner_text()
        if phase == last:
            return
    pytest.fail(f"{task} never came to be {last}; it is {phase}")


def test_the_past_is_shown_as_it_was(platform: BoardPlatform, page: Page, shot: Callable[[str], Path]) -> None:
    """Stepped through a task's life again, each stage comes at the ledger's instant, with its names."""
    done = [task for task in _tasks(platform) if task["result"] is not None and task["assigned_ms"] is not None]
    task = max(done, key=lambda one: one["done_ms"] - one["assigned_ms"])
    _open(platform, page)
    _pause_at(page, task["opened_ms"] - 2_500)
    began = {}
    row = page.locator(f'#city-tasks tr[data-task="{task["id"]}"]')
    for phase, at in _hops(page, task["id"], "filed"):
        began[phase] = at
        if phase != "running":
            continue
        assert _listed(page)[task["id"]] == "running"
        expect(row).to_contain_text(KERNELS[task["offer"]["module_digest"]])
        expect(row).to_contain_text(f"server {task['executor']}")
        expect(row.get_by_role("link")).to_have_attribute("href", f"#/task/{task['id']}")
        assert page.locator(f'.city-tokens [data-id="{task["id"]}"]').get_attribute("data-phase") == "running"
        page.wait_for_function(_COUNTS_AGREE)
        shot("city-past")
    here = task["executor"] == task["offer"]["source"]
    assert list(began) == ["sealed", "ordered", "allocated", *([] if here else ["forwarded"]), "running", "filed"]
    for phase, key in (("ordered", "opened_ms"), ("allocated", "assigned_ms")):
        ledgers = datetime.fromtimestamp(task[key] // 100 / 10, UTC)
        assert began[phase] == f"{ledgers:%H:%M:%S}.{task[key] // 100 % 10} UTC", phase


def test_filters_show_what_fits_and_stand_in_the_address(platform: BoardPlatform, page: Page) -> None:
    _open(platform, page)
    tasks = {task["id"]: task for task in _tasks(platform)}
    settled = [task for task in tasks.values() if task["result"] is not None]
    _pause_at(page, min(task["done_ms"] for task in settled) + 1)
    shown = _listed(page)
    assert shown
    picked = tasks[next(iter(shown))]
    page.get_by_label("UE", exact=True).select_option(picked["offer"]["ue"])
    expect(page.locator("#city-tasks tbody tr")).to_have_count(
        sum(tasks[task]["offer"]["ue"] == picked["offer"]["ue"] for task in shown)
    )
    assert f"ue={picked['offer']['ue']}" in page.url
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#city-tasks tbody tr")).to_have_count(len(shown))
    page.get_by_label("Kernel").select_option(picked["offer"]["module_digest"])
    assert all(tasks[task]["offer"]["module_digest"] == picked["offer"]["module_digest"] for task in _listed(page))
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Server", exact=True).select_option(str(picked["offer"]["source"]))
    assert all(
        picked["offer"]["source"] in (tasks[task]["offer"]["source"], tasks[task]["executor"]) for task in _listed(page)
    )
    page.get_by_role("button", name="Show all").click()
    phases = "rows => rows.map(row => row.dataset.phase)"
    state = page.eval_on_selector_all("#city-tasks tbody tr", phases)[0]
    page.locator(f"button.phase[data-phase={state}]").click()
    expect(page.locator(f"button.phase[data-phase={state}]")).to_have_attribute("aria-pressed", "true")
    assert set(page.eval_on_selector_all("#city-tasks tbody tr", phases)) == {state}
    assert f"state={state}" in page.url


def test_keys_pause_step_and_go_live(platform: BoardPlatform, page: Page) -> None:
    _open(platform, page)
    page.get_by_role("heading", level=1).click()
    page.keyboard.press("Space")
    behind = page.locator("#city-behind")
    expect(behind).not_to_have_text("live")
    start = page.locator("#city-at").inner_text()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#city-at")).not_to_have_text(start)
    page.keyboard.press("Shift+ArrowLeft")
    landed = page.locator("#city-at").inner_text()
    page.keyboard.press("Shift+ArrowLeft")
    expect(page.locator("#city-at")).not_to_have_text(landed)
    page.keyboard.press("End")
    expect(behind).to_have_text("live")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_a_new_task_is_followed_to_its_payment(
    own_platform: BoardPlatform, page: Page, shot: Callable[[str], Path]
) -> None:
    """Live: the picture follows the ledger without a reload."""
    _open(own_platform, page)
    known = {task["id"] for task in _tasks(own_platform)}
    own_platform.play()
    fresh = next(task for task in _tasks(own_platform) if task["id"] not in known and task["state"] == "SETTLED")
    row = page.locator(f'#city-tasks tr[data-task="{fresh["id"]}"]')
    expect(row).to_contain_text(re.compile("paid|certified|final"))
    shot("city-live")
    # The second fleet drew the places of the first for UEs of its own: each of two at one place can be seen and picked.
    told = {one["ue"]: (one["x_m"], one["y_m"]) for one in own_platform.json("/v1/positions")["items"]}
    drawn: dict[str, list[float]] = page.eval_on_selector_all(
        ".ue",
        "all => Object.fromEntries(all.map(one => [one.dataset.id, one.getAttribute('transform').match(/[-\\d.]+/g).map(Number)]))",
    )
    pairs = [(a, b) for a, b in combinations(sorted(drawn), 2) if told[a] == told[b]]
    assert pairs
    assert min(dist(drawn[a], drawn[b]) for a, b in pairs) >= 40


def test_a_node_that_is_gone_is_said_and_left(own_platform: BoardPlatform, page: Page, watched: Any) -> None:
    watched.expect("ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|ERR_INCOMPLETE_CHUNKED")
    _open(own_platform, page)
    own_platform.stop_node(0)
    try:
        banner = page.locator("#banner")
        expect(banner).to_contain_text(re.compile(r"node 0 is gone since \d\d:\d\d:\d\d\.\d{3}: reading from node \d"))
        expect(page.locator("#link-state")).to_have_text(re.compile("node [123]"))
        expect(page.locator('.server[data-id="0"]')).to_have_attribute("data-state", "gone")
        height = page.locator("#foot-height").inner_text()
        assert int(height.replace(",", "")) <= own_platform.json("/v1/status", node=1)["committed_height"]
    finally:
        own_platform.start_node(0)
    expect(page.locator("#banner")).to_contain_text(re.compile(r"node 0 is back"))
