"""One stack for all container tests of a session: it is dear to start, and what the tests leave on it is part of them."""

import os
from collections.abc import Iterator

import pytest

from e2e.stack import Stack, engine_answers


@pytest.fixture(scope="session")
def engine() -> None:
    """Skips where no engine answers; with EDGORA_REQUIRE_DOCKER=1 that is a failure."""
    if not engine_answers():
        if os.environ.get("EDGORA_REQUIRE_DOCKER") == "1":
            pytest.fail("no container engine with compose answers, and EDGORA_REQUIRE_DOCKER=1 asks for one")
        pytest.skip("no container engine with compose answers")


@pytest.fixture(scope="session")
def stack(engine: None, request: pytest.FixtureRequest) -> Iterator[Stack]:
    stack = Stack()
    good = False
    try:
        stack.build()
        stack.compose("up", "--detach", timeout_s=600)
        good = True
        yield stack
    finally:
        if not good or request.session.testsfailed:
            print(f"\nlogs of the stack: {stack.save_logs()}")
        stack.down()
