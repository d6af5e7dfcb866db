"""The outline of modules: forms, refusals, and that no octets break the reader."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.compute.engine import assemble, validate
from edgora.compute.module import BadModule, Form, inspect, module_digest
from edgora.wire import kernels
from edgora.wire.hashing import keccak

BARE = """(module (memory (export "memory") 2 9)
  (func (export "alloc") (param i32) (result i32) (i32.const 8))
  (func (export "run") (param i32 i32) (result i64) (i64.const 0)) {more})"""
COMMAND = """(module {more} (memory (export "memory") 1) (func (export "_start")))"""


def bare(more=""):
    return assemble(BARE.replace("{more}", more))


def test_a_bare_module_is_read():
    wasm = bare('(start 2) (func) (global (export "g") i32 (i32.const 1)) (table 5 funcref)')
    info = inspect(wasm)
    assert (info.form, info.memory_pages, info.has_start, info.imports) == (Form.BARE, 2, True, ())
    assert info.exports == ("memory", "alloc", "run", "g")
    assert info.digest == module_digest(wasm) == keccak(wasm)
    assert info.octets == len(wasm)


def test_a_wasi_command_is_read():
    text = COMMAND.replace(
        "{more}", '(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))'
    )
    info = inspect(assemble(text))
    assert (info.form, info.has_start) == (Form.WASI, False)
    assert info.imports == ("wasi_snapshot_preview1.fd_write",)


@pytest.mark.parametrize("name", kernels.names())
def test_shipped_kernels_are_bare_modules(name):
    assert inspect(kernels.load(name).wasm).form is Form.BARE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(module)", "one memory"),
        ('(module (memory 1) (func (export "_start")))', "export it"),
        ('(module (memory (export "memory") 1))', "exports alloc"),
        ('(module (memory (export "memory") 1) (func (export "_start") (param i32)))', "without parameters"),
        ('(module (memory (export "memory") 1025) (func (export "_start")))', "1025 pages"),
        (
            BARE.replace("(result i64) (i64.const 0)", "(result i32) (i32.const 0)").replace("{more}", ""),
            "exports run",
        ),
        (
            '(module (memory (export "memory") 1) (global (export "alloc") i32 (i32.const 0)))',
            "exports alloc",
        ),
        ('(module (memory (export "memory") 1) (table 100001 funcref) (func (export "_start")))', "tables"),
        ('(module (memory (export "memory") 1)' + "(table 1 funcref)" * 9 + '(func (export "_start")))', "tables"),
        ('(module (memory (export "memory") 1) (table 1 externref) (func (export "_start")))', "value type"),
        ('(module (memory (export "memory") 1 2 shared) (func (export "_start")))', "shared or 64-bit memory"),
        ('(module (memory (export "memory") i64 1) (func (export "_start")))', "shared or 64-bit memory"),
        ('(module (memory (export "memory") 1) (memory 1) (func (export "_start")))', "one memory"),
        ('(module (import "env" "memory" (memory 1)) (func (export "_start")))', "env.memory"),
        ('(module (import "env" "f" (func)) (memory (export "memory") 1) (func (export "_start")))', "env.f"),
        (
            '(module (import "wasi_snapshot_preview1" "path_teleport" (func)) (memory (export "memory") 1))',
            "path_teleport",
        ),
        ('(module (import "wasi_snapshot_preview1" "fd_close" (global i32)) (memory (export "memory") 1))', "fd_close"),
        (
            '(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32))) (memory (export "memory") 1))',
            "imports nothing",
        ),
        ('(module (tag) (memory (export "memory") 1) (func (export "_start")))', "section 13"),
        ('(module (type (struct)) (memory (export "memory") 1) (func (export "_start")))', "function types"),
    ],
)
def test_what_cannot_run_is_refused_with_its_reason(text, reason):
    with pytest.raises(BadModule, match=reason):
        inspect(assemble(text))


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "1.0 binary"),
        (b"(module)", "1.0 binary"),
        (b"\0asm\x0d\0\x01\0", "1.0 binary"),
        (b"\0asm\x01\0\0\0\x01", "middle of a section"),
        (b"\0asm\x01\0\0\0\x01\x7f", "middle of a section"),
        (b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\xff\x01", "32 bits"),
        (b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\x1f", "32 bits"),
        (b"\0asm\x01\0\0\0\x03\x01\x00\x01\x01\x00", "out of order"),
        (b"\0asm\x01\0\0\0\x01\x01\x00\x01\x01\x00", "doubled"),
        (b"\0asm\x01\0\0\0\x01\x02\x00\x00", "longer than its entries"),
        (b"\0asm\x01\0\0\0\x07\x05\x01\x01\xff\x00\x00", "UTF-8"),
        (b"\0asm\x01\0\0\0\x07\x05\x01\x01a\x09\x00", "no known kind"),
        (b"\0asm\x01\0\0\0\x07\x09\x02\x01a\x00\x00\x01a\x00\x00", "doubled"),
    ],
)
def test_broken_binaries_are_refused_with_their_reason(octets, reason):
    with pytest.raises(BadModule, match=reason):
        inspect(octets)


def test_a_module_over_4_mib_is_refused_unread():
    with pytest.raises(BadModule, match="4194305 octets"):
        inspect(bytes(4 * 1024 * 1024 + 1))
    wasm = bare()
    padding = 4 * 1024 * 1024 - len(wasm)
    size = padding - 5
    leb = bytes((size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21))
    custom = b"\x00" + leb + b"\x00" + bytes(size - 1)
    assert inspect(wasm + custom).octets == 4 * 1024 * 1024


def test_a_claim_of_millions_of_functions_is_refused_early():
    count = 3_000_000
    leb = bytes((count & 127 | 128, count >> 7 & 127 | 128, count >> 14 & 127 | 128, count >> 21))
    size = count + 4
    head = bytes((size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21))
    with pytest.raises(BadModule, match="over 200000"):
        inspect(b"\0asm\x01\0\0\0\x03" + head + leb + bytes(count))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_octets_make_the_reader_fail_otherwise(data):
    wasm = bytearray(data.draw(st.sampled_from([bare(), kernels.load("sobel").wasm, kernels.load("nftcheck").wasm])))
    for _ in range(data.draw(st.integers(1, 4))):
        wasm[data.draw(st.integers(8, len(wasm) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadModule):  # the only way to fail
        inspect(bytes(wasm))
        validate(bytes(wasm))


@pytest.mark.parametrize(
    "text",
    [
        "(module (memory 1) (func (result i32) (i64.const 1)))",
        "(module (memory 1 2 shared) (func (drop (i32.atomic.load (i32.const 0)))))",
        "(module (memory i64 1))",
        "(module (memory 1) (memory 1))",
        "(module (type (struct (field i32))))",
        "(module (tag))",
        "(module (memory 1 1 (pagesize 1)))",
        "(module (func (result i64 i64) (i64.add128 (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1))))",
    ],
)
def test_the_engine_refuses_what_is_switched_off(text):
    with pytest.raises(BadModule, match="not a valid module"):
        validate(assemble(text))


def test_text_that_is_none_is_refused():
    with pytest.raises(BadModule, match="text format"):
        assemble("(module (func (export")
