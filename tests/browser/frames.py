"""How smoothly the city is drawn at sixty tasks a minute: `PYTHONPATH=tests python -m browser.frames --json`.

An embedded platform runs sixty tasks that arrive one a second, and Chromium draws the city meanwhile, on the same machine.
The page notes when each frame began and each task of its own thread that took over 50 ms (the browser's `longtask`). The
baseline is an empty page in the same browser while the same platform runs a second fleet: what the machine itself costs.
"""

import argparse
import itertools
import json
import sys
import threading
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

from board_platform import BoardPlatform
from browser import chromium

SETTINGS = (
    "name=frames", "fleet.ues=8", "fleet.tasks=60", "fleet.rate_per_s=1", "plan.cancelled=0", "plan.expired=0",
)  # fmt: skip

_WATCH = """() => {
    const seen = { frames: [], long: [], running: true };
    window.seen = seen;
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) seen.long.push(entry.duration);
    }).observe({ type: 'longtask' });
    const frame = (at) => {
        seen.frames.push(at);
        if (seen.running) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
}"""
_TOLD = "() => { window.seen.running = false; return { frames: window.seen.frames, long: window.seen.long }; }"


def _watched(page: Page, platform: BoardPlatform) -> dict[str, Any]:
    """What the page saw while the fleet's tasks came, went and were paid."""
    played = threading.Thread(target=platform.play)
    page.evaluate(_WATCH)
    played.start()
    while played.is_alive():
        page.evaluate("() => new Promise((drawn) => requestAnimationFrame(drawn))")
        played.join(1.0)
    told = page.evaluate(_TOLD)
    frames: list[float] = told["frames"]
    intervals = sorted(later - earlier for earlier, later in itertools.pairwise(frames))
    assert platform.fleet is not None
    seconds = (frames[-1] - frames[0]) / 1000.0
    return {
        "seconds": round(seconds, 1),
        "frames": len(frames),
        "frames_per_s": round((len(frames) - 1) / seconds, 2),
        "interval_ms": {
            "median": round(intervals[len(intervals) // 2], 2),
            "p99": round(intervals[len(intervals) * 99 // 100], 2),
            "longest": round(intervals[-1], 2),
        },
        "over_50_ms": sum(interval > 50.0 for interval in intervals),
        "long_tasks": len(told["long"]),
        "longest_task_ms": round(max(told["long"], default=0.0), 1),
    }


def measure() -> dict[str, Any]:
    """The city's frames and the empty page's."""
    with BoardPlatform(*SETTINGS) as platform, sync_playwright() as play:
        browser = chromium.launch(play.chromium)
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.goto(f"{platform.url}/#/city")
        expect(page.locator(".server")).to_have_count(len(platform.urls), timeout=30_000)
        city = _watched(page, platform)
        expect(page.locator("#city-tasks tbody tr").first).to_be_visible()
        page.goto("about:blank")
        empty = _watched(page, platform)
        browser.close()
    return {"tasks": 60, "tasks_per_min": 60, "city": city, "empty_page": empty}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the city's frames at sixty tasks a minute.")
    parser.add_argument("--json", action="store_true", help="one document on stdout")
    asked = parser.parse_args()
    found = measure()
    if asked.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for name in ("city", "empty_page"):
        one = found[name]
        interval = one["interval_ms"]
        sys.stdout.write(
            f"{name.replace('_', ' ')}: {one['frames_per_s']} frames/s over {one['seconds']} s; interval median"
            f" {interval['median']} ms, p99 {interval['p99']} ms, longest {interval['longest']} ms; {one['over_50_ms']} over"
            f" 50 ms; {one['long_tasks']} long tasks, longest {one['longest_task_ms']} ms\n"
        )


if __name__ == "__main__":
    main()
