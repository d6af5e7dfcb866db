"""The page around the views: headers, manners, reconnection."""

import pytest
from playwright.sync_api import Page, expect

from board_platform import BoardPlatform

pytestmark = pytest.mark.browser


def test_the_page_comes_up_without_a_complaint(platform: BoardPlatform, page: Page) -> None:
    page.goto(platform.url)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
