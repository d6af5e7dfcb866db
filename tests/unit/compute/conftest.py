"""What tests of the compute room share: one sandbox that compiles in this process, and modules from text."""

import pytest

from edgora.compute.engine import assemble, compile_module
from edgora.compute.limits import Limits
from edgora.compute.module import module_digest
from edgora.compute.sandbox import Sandbox
from edgora.wire.inputs import TaskInput


@pytest.fixture(scope="session")
def sandbox():
    return Sandbox(compiler=compile_module)


@pytest.fixture(scope="session")
def run(sandbox):
    """run(module, data, ...) -> Outcome; module is WAT or a binary."""

    def runs(module, data=b"", *, args=b"", fuel=10**9, pages=64, output=1 << 16, wall=30_000, stop=None):
        wasm = assemble(module) if isinstance(module, str) else module
        limits = Limits(fuel, pages, output, wall)
        return sandbox.run(wasm, TaskInput(args, data).pack(), limits, digest=module_digest(wasm), stop=stop)

    return runs
