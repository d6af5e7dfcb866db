"""Machine code: kept by digest, bounded, shared, and made within bounds."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgora.compute import cache as cache_module
from edgora.compute.cache import Artifact, ArtifactCache
from edgora.compute.compiler import compile_bounded
from edgora.compute.engine import assemble, compile_module
from edgora.compute.limits import Limits
from edgora.compute.module import BadModule, module_digest
from edgora.compute.sandbox import Sandbox
from edgora.wire import kernels
from edgora.wire.errors import Unavailable
from edgora.wire.inputs import TaskInput
from edgora.wire.market import ResultCode

WAT = """(module (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (i32.const 8))
  (func (export "run") (param i32 i32) (result i64) (i64.const 4)))"""


def artifact(size, fill=b"x"):
    return Artifact(False, False, 1, fill * size)


def digest(number):
    return bytes((number,)) * 32


def never():
    raise AssertionError("made a second time")


# ---- the cache -------------------------------------------------------------------------------------------------------


def test_an_artifact_is_made_once():
    cache = ArtifactCache(1000)
    made = cache.get_or_make(digest(1), lambda: artifact(10))
    assert cache.get_or_make(digest(1), never) == cache.get(digest(1)) == made
    assert cache.get(digest(2)) is None


def test_the_least_recently_used_goes_first():
    cache = ArtifactCache(30)
    for number in (1, 2, 3):
        cache.get_or_make(digest(number), lambda: artifact(10))
    cache.get(digest(1))
    cache.get_or_make(digest(4), lambda: artifact(10))
    assert [number for number in (1, 2, 3, 4) if cache.get(digest(number))] == [1, 3, 4]
    cache.get_or_make(digest(5), lambda: artifact(25))
    assert [number for number in (1, 2, 3, 4, 5) if cache.get(digest(number))] == [5]


def test_what_is_larger_than_the_cache_is_made_but_not_kept():
    cache = ArtifactCache(30)
    assert len(cache.get_or_make(digest(1), lambda: artifact(31)).code) == 31
    assert cache.get(digest(1)) is None


def test_many_who_ask_at_once_wait_for_one():
    cache, calls, gate = ArtifactCache(1000), [], threading.Event()

    def make():
        calls.append(threading.get_ident())
        gate.wait()
        return artifact(10)

    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit(cache.get_or_make, digest(1), make) for _ in range(6)]
        gate.set()
        assert {w.result().code for w in work} == {b"x" * 10}
    assert len(calls) == 1


def test_a_bad_module_is_remembered_and_other_failures_are_not():
    cache = ArtifactCache(1000)

    def bad():
        raise BadModule("too slow")

    def absent():
        raise Unavailable("not here")

    with pytest.raises(BadModule):
        cache.get_or_make(digest(1), bad)
    with pytest.raises(BadModule, match="too slow"):
        cache.get_or_make(digest(1), never)
    with pytest.raises(Unavailable):
        cache.get_or_make(digest(2), absent)
    assert cache.get_or_make(digest(2), lambda: artifact(1)).code == b"x"


def test_remembered_refusals_are_bounded(monkeypatch):
    monkeypatch.setattr(cache_module, "_REFUSALS", 2)
    cache = ArtifactCache(1000)

    def bad():
        raise BadModule("bad")

    for number in (1, 2, 3):
        with pytest.raises(BadModule):
            cache.get_or_make(digest(number), bad)
    assert cache.get_or_make(digest(1), lambda: artifact(1)).code == b"x"
    with pytest.raises(BadModule):
        cache.get(digest(3))


def test_a_folder_keeps_artifacts_across_restarts(tmp_path):
    first = ArtifactCache(1000, tmp_path).get_or_make(digest(1), lambda: Artifact(True, True, 7, b"code"))
    again = ArtifactCache(1000, tmp_path)
    assert again.get_or_make(digest(1), never) == first
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == [digest(1).hex()]


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_file_counts_as_absent_and_is_made_anew(tmp_path, damage):
    ArtifactCache(1000, tmp_path).get_or_make(digest(1), lambda: artifact(10, b"a"))
    (path,) = (path for folder in tmp_path.iterdir() for path in folder.iterdir())
    stored = path.read_bytes()
    path.write_bytes(stored[:-1] + b"z" if damage is None else damage)
    assert ArtifactCache(1000, tmp_path).get_or_make(digest(1), lambda: artifact(10, b"b")).code == b"b" * 10
    assert ArtifactCache(1000, tmp_path).get(digest(1)).code == b"b" * 10


def test_another_engine_finds_nothing(tmp_path, monkeypatch):
    ArtifactCache(1000, tmp_path).get_or_make(digest(1), lambda: artifact(10))
    monkeypatch.setattr(cache_module, "ENGINE", "wasmtime 51")
    assert ArtifactCache(1000, tmp_path).get(digest(1)) is None


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path):
    cache = ArtifactCache(1000, tmp_path)
    (folder,) = tmp_path.iterdir()
    folder.rmdir()
    assert cache.get_or_make(digest(1), lambda: artifact(10)).code == b"x" * 10


# ---- the sandbox with a cache ------------------------------------------------------------------------------------------


def run(sandbox, wasm, known=False):
    limits = Limits(10**6, 10, 10, 5_000)
    return sandbox.run(None if known else wasm, TaskInput(b"", b"").pack(), limits, digest=module_digest(wasm))


def test_a_restarted_sandbox_runs_from_the_folder(tmp_path):
    wasm = assemble(WAT)
    first = run(Sandbox(cache_folder=tmp_path, compiler=compile_module), wasm)
    second = run(Sandbox(cache_folder=tmp_path, compiler=never), wasm, known=True)
    assert first.code is second.code is ResultCode.OK
    assert (first.output, first.fuel_used) == (second.output, second.fuel_used)


def test_a_file_of_another_configuration_is_an_unavailable_module(tmp_path):
    wasm = assemble(WAT)
    ArtifactCache(1000, tmp_path).get_or_make(module_digest(wasm), lambda: artifact(10))
    outcome = run(Sandbox(cache_folder=tmp_path), wasm)
    assert (outcome.code, outcome.fuel_used) == (ResultCode.UNAVAILABLE, 0)


def test_shipped_kernels_compile_in_this_process():
    kernel = kernels.load("spin")
    sandbox = Sandbox(compiler=never)
    assert sandbox.prepare(kernel.wasm) == kernel.digest


# ---- the child -------------------------------------------------------------------------------------------------------


def test_the_child_makes_the_same_code_as_this_process():
    wasm = assemble(WAT)
    assert compile_bounded(wasm) == compile_module(wasm)
    assert run(Sandbox(), wasm).code is ResultCode.OK


def test_the_child_says_what_is_wrong():
    with pytest.raises(BadModule, match="not a valid module"):
        compile_bounded(assemble("(module (func (result i32) (i64.const 0)))"))


def leb(number):
    octets = b""
    while number > 127:
        octets, number = octets + bytes((number & 127 | 128,)), number >> 7
    return octets + bytes((number,))


def module_of(body, functions=1):
    """A guest of so many functions with one body; the first is its _start."""
    parts = {
        1: b"\x01\x60\x00\x00",
        3: leb(functions) + bytes(functions),
        5: b"\x01\x00\x01",
        7: b"\x02\x06memory\x02\x00\x06_start\x00\x00",
        10: leb(functions) + (leb(len(body)) + body) * functions,
    }
    return b"\0asm\x01\0\0\0" + b"".join(bytes((kind,)) + leb(len(part)) + part for kind, part in parts.items())


def locals_bomb(functions):
    """A few octets a function, 50,000 variables each: legal, tiny, and minutes of work for a compiler."""
    return module_of(b"\x01" + leb(50_000) + b"\x7f\x0b", functions)


def branches(count):
    """One function, so many times `if (x) x += 1`: 12 octets each, of which a compiler makes over 10 KiB."""
    return module_of(b"\x01\x01\x7f" + b"\x20\x00\x04\x40\x20\x00\x41\x01\x6a\x21\x00\x0b" * count + b"\x0b")


def test_a_compilation_bomb_is_killed_and_remembered():
    bomb = locals_bomb(5_000)
    assert len(bomb) < 50_000
    calls = []

    def compiler(wasm):
        calls.append(wasm)
        return compile_bounded(wasm, 800)

    sandbox = Sandbox(compiler=compiler)
    for _ in range(2):
        outcome = run(sandbox, bomb)
        assert (outcome.code, outcome.fuel_used) == (ResultCode.BAD_MODULE, 0)
        assert "within 800 ms" in outcome.reason
    assert len(calls) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no address space limit there")
def test_a_compilation_that_needs_too_much_memory_is_refused():
    limit = 512 * 2**20  # far above what the child takes before it compiles
    assert compile_bounded(branches(1), memory=limit)
    with pytest.raises(BadModule, match="within 512 MiB"):
        compile_bounded(branches(100_000), memory=limit)


def test_no_compiler_process_is_unavailable(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(Unavailable, match="no compiler process"):
        compile_bounded(assemble(WAT))
