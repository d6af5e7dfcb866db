"""One embedded platform for the modules whose tests leave it as they found it: each test is a UE of its own."""

from collections.abc import Iterator

import pytest

from edgora.client import Wallet
from embedded import Embedded


@pytest.fixture(scope="session")
def platform() -> Iterator[Embedded]:
    with Embedded() as running:
        yield running


@pytest.fixture(scope="session")
def rich(platform: Embedded) -> Wallet:
    """A UE with money, for tests that do not look at its account."""
    return platform.funded(10**17)
