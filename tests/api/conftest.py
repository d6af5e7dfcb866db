"""One platform for all tests of a module: they use UEs of their own, so they do not meet."""

from collections.abc import AsyncIterator

import pytest_asyncio

from api.world import Platform


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform() -> AsyncIterator[Platform]:
    async with Platform() as running:
        yield running
