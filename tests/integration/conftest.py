"""One embedded platform for the modules whose tests leave it as they found it: each test is a UE of its own.

Its nodes and allocators write the spans of every task to a file, so that tracing is on under all of these tests.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgora.client import Wallet
from embedded import Embedded


@pytest.fixture(scope="session")
def spans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the platform's spans go, one a line."""
    return tmp_path_factory.mktemp("traces") / "spans.jsonl"


@pytest.fixture(scope="session")
def platform(spans: Path) -> Iterator[Embedded]:
    running = Embedded()
    with pytest.MonkeyPatch.context() as environment:  # read when the nodes start
        environment.setenv("EDGORA_TRACE", "file")
        environment.setenv("EDGORA_TRACE_FILE", str(spans))
        running.__enter__()
    try:
        yield running
    finally:
        running.__exit__()


@pytest.fixture(scope="session")
def rich(platform: Embedded) -> Wallet:
    """A UE with money, for tests that do not look at its account."""
    return platform.funded(10**17)
