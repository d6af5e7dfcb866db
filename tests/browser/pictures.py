"""Take the pictures of docs/board.md anew: `PYTHONPATH=tests python -m browser.pictures docs/images/board`.

A platform of its own with the scenario of the demo's size, tasks on their way while the pictures are taken; light theme,
1280 x 800, reduced to 128 colours so that a page of documents stays light.
"""

import argparse
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from board_platform import BoardPlatform
from browser import chromium
from embedded import spin

SETTINGS = (
    "name=city", "fleet.ues=8", "fleet.tasks=40", "fleet.rate_per_s=1.2", "plan.cancelled=1", "plan.expired=1",
    "faults.allowed=true",
)  # fmt: skip
PLACED = 12
"""Rounds and tasks enough for curves and tables."""


def _keep(page: Page, path: Path) -> None:
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    sys.stdout.write(f"{path}: {path.stat().st_size:,} octets\n")


def _show(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("#view h1")).to_be_visible()
    page.wait_for_load_state("load")


def take(folder: Path) -> None:
    """All of them."""
    folder.mkdir(parents=True, exist_ok=True)
    with BoardPlatform(*SETTINGS) as platform, sync_playwright() as play:
        browser = chromium.launch(play.chromium)
        context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light", locale="en-GB")
        page = context.new_page()
        _show(page, f"{platform.url}/#/city")
        playing = platform.start_playing()
        page.wait_for_function(
            f"async () => (await (await fetch('{platform.urls[0]}/v1/tasks?limit=200')).json()).items.length >= {PLACED}",
            timeout=120_000,
        )
        _keep(page, folder / "city.png")
        playing.result(240)
        tasks = platform.json("/v1/tasks?limit=200")["items"]
        paid = [t for t in tasks if t["state"] == "SETTLED"]
        forwarded = [t for t in paid if t["executor"] != t["offer"]["source"]] or paid
        rounds = platform.json("/v1/allocations?limit=200")["items"]
        busy = max(rounds, key=lambda r: (sum(p["accepted"] for p in r["proposals"]), r["tasks"]))
        for name, tail, wait in (
            ("task", f"task/{forwarded[0]['id']}", "Timeline"),
            ("round", f"round/{busy['round']}", "proposals"),
            ("market", "market", "utility"),
            ("ledger", "ledger", "voted"),
            ("servers", "servers", "reputation"),
            ("try", "try", "edgora submit"),
        ):
            _show(page, f"{platform.url}/#/{tail}")
            expect(page.locator("main")).to_contain_text(wait, ignore_case=True, timeout=20_000)
            _keep(page, folder / f"{name}.png")
        _show(page, f"{platform.url}/#/faults")
        with platform.client() as ue:
            ticket = ue.submit(spin())
            platform.break_node(1, "kill")
            ue.finish(ticket.task)
        expect(page.locator("main")).to_contain_text("killed")
        _keep(page, folder / "faults.png")
        for index in (2, 3):
            platform.break_node(index, "pause")
        _show(page, f"{platform.url}/#/ledger")
        expect(page.locator("#banner")).to_contain_text("3 of 4 votes are needed", timeout=20_000)
        _keep(page, folder / "no-quorum.png")
        for index in (1, 2, 3):
            platform.break_node(index, "heal")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the board's pictures.")
    parser.add_argument("folder", type=Path)
    take(parser.parse_args().folder)


if __name__ == "__main__":
    main()
