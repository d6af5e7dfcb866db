"""Take the pictures of docs/board.md anew: `PYTHONPATH=tests python -m browser.pictures docs/images/board`.

A platform of its own with the demo's city and thirty tasks; light theme, 1280 x 800, reduced to 256 colours so that a page
of documents stays light.
"""

import argparse
import re
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from board_platform import BoardPlatform
from browser import chromium
from edgora.client.images import photo
from embedded import spin

SETTINGS = (
    "name=city", "fleet.ues=7", "fleet.tasks=30", "fleet.rate_per_s=2", "plan.cancelled=1", "plan.expired=0",
    "faults.allowed=true", "market.proposal_ms=1500", "market.solve_ms=600",
)  # fmt: skip
"""Time for proposals beside a browser that draws."""


def _keep(page: Page, path: Path) -> None:
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    # Cover all colours, however few pixels have one: a mark's colour is not to turn into its neighbour's.
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    sys.stdout.write(f"{path}: {path.stat().st_size:,} octets\n")


def _show(page: Page, url: str) -> None:
    page.goto("about:blank")  # a page of its own, not a step within the last one: no focus was moved
    page.goto(url)
    expect(page.locator("#view h1")).to_be_visible()


def _busiest(tasks: list[dict[str, Any]]) -> int:
    """The instant (ms) at which most tasks were between their order and their result."""
    return max((t["opened_ms"] for t in tasks), key=lambda at: sum(
        t["opened_ms"] <= at < (t["done_ms"] or t["opened_ms"] + 1_000) for t in tasks
    ))  # fmt: skip


def take(folder: Path) -> None:
    """All of them."""
    folder.mkdir(parents=True, exist_ok=True)
    with BoardPlatform(*SETTINGS) as platform, sync_playwright() as play:
        browser = chromium.launch(play.chromium)
        context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light", locale="en-GB")
        page = context.new_page()
        platform.play()
        tasks = platform.json("/v1/tasks?limit=200")["items"]
        _show(page, f"{platform.url}/#/city")
        expect(page.locator("main")).to_contain_text("server 3")
        page.get_by_role("button", name="Pause").click()
        # The page steps back to the instant at which most was going on: the picture does not hang on when it is taken.
        page.locator("#city-slider").fill(page.evaluate(
            "(instant) => String(Math.round(10 * (300 - (Date.now() - 1_200 - instant) / 1_000)) / 10)", _busiest(tasks)
        ))  # fmt: skip
        expect(page.locator("#city-tasks-caption")).to_have_text(re.compile("^([3-9]|[1-9][0-9])"))
        _keep(page, folder / "city.png")
        paid = [t for t in tasks if t["state"] == "SETTLED"]
        forwarded = [t for t in paid if t["executor"] != t["offer"]["source"]] or paid
        rounds = platform.json("/v1/allocations?limit=200")["items"]
        busy = max(rounds, key=lambda r: (sum(p["accepted"] for p in r["proposals"]), r["tasks"]))
        for name, tail, wait in (
            ("task", f"task/{forwarded[0]['id']}", "text=Why this server"),
            ("round", f"round/{busy['round']}", "text=proven bound"),
            ("market", "market", "main a[href^='#/round/']"),
            ("ledger", "ledger", "main a[href^='#/block/']"),
            ("servers", "servers", "main td"),
            ("try", "try", "#try-command"),
        ):
            _show(page, f"{platform.url}/#/{tail}")
            if name == "try":
                page.locator("input[type=file]").first.set_input_files(
                    {"name": "photo.png", "mimeType": "image/png", "buffer": photo()}
                )
            expect(page.locator(wait).first).to_be_visible(timeout=30_000)
            _keep(page, folder / f"{name}.png")
        _show(page, f"{platform.url}/#/faults")
        with platform.client() as ue:
            ticket = ue.submit(spin())
            platform.break_node(1, "kill")
            ue.finish(ticket.task)
        expect(page.locator("main")).to_contain_text("killed")
        _keep(page, folder / "faults.png")
        platform.break_node(2, "pause")
        _show(page, f"{platform.url}/#/ledger")
        expect(page.locator("#standing")).to_contain_text("only 2 of 4 nodes are heard", timeout=40_000)
        _keep(page, folder / "no-quorum.png")
        for index in (1, 2):
            platform.break_node(index, "heal")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the board's pictures.")
    parser.add_argument("folder", type=Path)
    take(parser.parse_args().folder)


if __name__ == "__main__":
    main()
