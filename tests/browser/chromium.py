"""Debian's Chromium, found and started; it asks nobody but the pages that it is given. No pytest in here."""

import shutil

from playwright.sync_api import Browser, BrowserType

__all__ = ["found", "launch"]

_ARGUMENTS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def found() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


def launch(chromium: BrowserType) -> Browser:
    """A browser with a profile of its own; close it."""
    return chromium.launch(executable_path=found(), args=list(_ARGUMENTS), chromium_sandbox=False)
