"""Runs of bare modules: every way to end, what it is charged, and that it repeats."""

import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.compute.engine import ENGINE, assemble, compile_module
from edgora.compute.execution import Stop, Stopped
from edgora.compute.limits import Limits
from edgora.compute.module import module_digest
from edgora.compute.sandbox import Sandbox
from edgora.wire.inputs import TaskInput
from edgora.wire.market import PAID_CODES, ResultCode

R = ResultCode
ALLOC = '(func (export "alloc") (param i32) (result i32) (i32.const 1024))'


def module(body, *, head="", memory='(memory (export "memory") 2)', alloc=ALLOC):
    """A bare module whose run is `body`; locals 0 and 1 are pointer and length, $n an i64, $i an i32."""
    return f"""(module {memory} {head} {alloc}
      (func $run (export "run") (param i32 i32) (result i64) (local $n i64) (local $i i32) {body}))"""


ECHO = module("(i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1)))")
LOOP = "(loop $l (br $l))"
COUNT = """(loop $l (local.set $n (i64.add (local.get $n) (i64.const 1)))
  (br_if $l (i64.lt_u (local.get $n) (i64.const 100000))))"""


# ---- good ends -------------------------------------------------------------------------------------------------------


def test_args_and_data_stand_in_one_buffer(run):
    outcome = run(ECHO, b" and data", args=b"args")
    assert (outcome.code, outcome.output, outcome.reason) == (R.OK, b"args and data", "")
    assert outcome.fuel_used > 0


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=60_000))
def test_any_input_comes_back_from_echo(run, data):
    assert run(ECHO, data, pages=2).output == data


def test_an_empty_input_and_output_are_fine(run):
    outcome = run(ECHO)
    assert (outcome.code, outcome.output) == (R.OK, b"")


def test_fuel_repeats_and_follows_the_work(run):
    used = {run(module(f"{COUNT} (i64.const 0)")).fuel_used for _ in range(5)}
    assert len(used) == 1
    once = used.pop()
    assert once > 5 * 100_000
    twice = run(module(f"{COUNT} (local.set $n (i64.const 0)) {COUNT.replace('$l', '$k')} (i64.const 0)")).fuel_used
    assert 1.9 * once < twice < 2.1 * once


def test_the_fuel_that_was_used_is_enough(run):
    wat = module(f"{COUNT} (i64.const 0)")
    used = run(wat).fuel_used
    again = run(wat, fuel=used)
    assert (again.code, again.fuel_used) == (R.OK, used)
    assert run(wat, fuel=used // 2).code is R.OUT_OF_FUEL


def test_runs_share_nothing(run):
    wat = module(
        """(global.set $g (i32.add (global.get $g) (i32.const 1)))
           (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (global.get $g)))
           (i64.const 4)""",
        head="(global $g (mut i32) (i32.const 0))",
    )
    assert [run(wat).output for _ in range(3)] == [struct.pack("<I", 1)] * 3


def test_runs_in_parallel_threads_agree(run):
    wat = module(f"{COUNT} (i32.store (i32.const 0) (local.get 1)) (i64.const 4)")
    jobs = [bytes(i) for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        together = [(o.output, o.fuel_used) for o in pool.map(lambda data: run(wat, data), jobs)]
    alone = [(o.output, o.fuel_used) for o in (run(wat, data) for data in jobs)]
    assert together == alone


def test_nans_are_canonical(run):
    wat = module(
        """(f64.store (i32.const 0) (f64.add (f64.reinterpret_i64 (i64.const 0x7ff8dead0000beef)) (f64.const 1)))
           (f32.store (i32.const 8) (f32.sqrt (f32.const -1)))
           (i64.const 12)"""
    )
    assert run(wat).output == struct.pack("<QI", 0x7FF8000000000000, 0x7FC00000)


def test_simd_and_relaxed_simd_run(run):
    wat = module(
        """(v128.store (i32.const 0)
             (i8x16.relaxed_swizzle
               (i8x16.add (v128.const i8x16 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16) (i8x16.splat (i32.const 1)))
               (v128.const i8x16 15 255 128 16 0 1 2 3 4 5 6 7 8 9 10 11)))
           (i64.const 16)"""
    )
    # indices out of range select zero in the deterministic form, on every processor
    assert run(wat).output == bytes((17, 0, 0, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13))


def test_a_start_function_runs_and_is_metered(run):
    plain = module("(i64.const 4)")
    started = module(
        "(i64.const 4)", head=f"(func $s (local $n i64) {COUNT} (i32.store (i32.const 0) (i32.const 9))) (start $s)"
    )
    assert run(started).output == struct.pack("<I", 9)
    assert run(started).fuel_used > run(plain).fuel_used + 500_000


# ---- traps -----------------------------------------------------------------------------------------------------------


def test_unreachable_is_a_trap_charged_exactly(run):
    early, late = run(module("unreachable")), run(module(f"{COUNT} unreachable"))
    assert early.code is late.code is R.TRAP
    assert early.reason == "unreachable"
    assert 0 < early.fuel_used < 100
    assert late.fuel_used == run(module(f"{COUNT} unreachable")).fuel_used > 500_000


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("(i64.div_u (i64.const 1) (i64.sub (local.get $n) (i64.const 100000)))", "integer division by zero"),
        ("(i64.div_s (i64.const 0x8000000000000000) (i64.const -1))", "integer overflow"),
        ("(i64.load (i32.const 0x7fffffff))", "memory out of bounds"),
        ("(i64.trunc_f64_s (f64.const nan))", "bad conversion to integer"),
        ("(call_indirect (type $t) (i32.const 0)) (i64.const 0)", "indirect call to null"),
        ("(call_indirect (type $t) (i32.const 9)) (i64.const 0)", "table out of bounds"),
        ("(call_indirect (type $t) (i32.const 1)) (i64.const 0)", "bad signature"),
        ("(memory.fill (i32.const 0) (i32.const 0) (i32.const -1)) (i64.const 0)", "memory out of bounds"),
        ("(call $run (local.get 0) (local.get 1))", "stack overflow"),
    ],
)
def test_other_faults_are_charged_the_whole_limit(run, fault, reason):
    """The engine forgets its counter at a fault (wasmtime#13802): work before it must not become free."""
    wat = module(
        f"{COUNT} {fault}",
        head="(type $t (func)) (func $other (result i32) (i32.const 0)) (table 2 funcref) (elem (i32.const 1) $other)",
    )
    outcome = run(wat, fuel=10**10)
    assert (outcome.code, outcome.reason, outcome.fuel_used, outcome.output) == (R.TRAP, reason, 10**10, b"")


def test_a_result_outside_the_memory_is_a_trap(run):
    outcome = run(module("(i64.const 0x0001ffff00000002)"))
    assert (outcome.code, outcome.output) == (R.TRAP, b"")
    assert "outside" in outcome.reason
    assert run(module("(i64.const 0x0001fffe00000002)")).code is R.OK


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_an_endless_loop_runs_out_of_fuel(run):
    outcome = run(module(f"{LOOP} (i64.const 0)"), fuel=12_345)
    assert (outcome.code, outcome.fuel_used, outcome.output) == (R.OUT_OF_FUEL, 12_345, b"")


@pytest.mark.parametrize("where", ["alloc", "start"])
def test_loops_before_run_are_bounded_too(run, where):
    endless = f"(func $e {LOOP})"
    wat = (
        module("(i64.const 0)", alloc=f'(func (export "alloc") (param i32) (result i32) {LOOP} (i32.const 0))')
        if where == "alloc"
        else module("(i64.const 0)", head=f"{endless} (start $e)")
    )
    assert run(wat, fuel=10_000).code is R.OUT_OF_FUEL


def test_wall_time_ends_a_run_unpaid(run):
    outcome = run(module(f"{LOOP} (i64.const 0)"), fuel=10**12, wall=30)
    assert (outcome.code, outcome.fuel_used) == (R.WALL, 0)
    assert outcome.wall_ms >= 30


def test_more_pages_than_the_offer_has_are_refused_at_the_start(run):
    wat = module("(i64.const 0)", memory='(memory (export "memory") 65)')
    outcome = run(wat, pages=64)
    assert (outcome.code, outcome.fuel_used) == (R.MEMORY, 0)
    assert run(wat, pages=65).code is R.OK


GROW = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))"


def test_a_memory_bomb_stops_at_the_ceiling(run):
    outcome = run(module(f"{GROW} unreachable"), pages=40)
    assert outcome.code is R.MEMORY
    assert 0 < outcome.fuel_used < 10_000
    survivor = run(module(f"{GROW} (i32.store (i32.const 0) (memory.size)) (i64.const 4)"), pages=40)
    assert (survivor.code, survivor.output) == (R.OK, struct.pack("<I", 40))


def test_the_module_s_own_maximum_counts_too(run):
    wat = module(
        f"{GROW} (i32.store (i32.const 0) (memory.size)) (i64.const 4)", memory='(memory (export "memory") 2 5)'
    )
    assert run(wat, pages=40).output == struct.pack("<I", 5)


@pytest.mark.parametrize("answer", ["0", "131072", "-1"])
def test_no_room_for_the_input_is_a_matter_of_memory(run, answer):
    wat = module("(i64.const 0)", alloc=f'(func (export "alloc") (param i32) (result i32) (i32.const {answer}))')
    outcome = run(wat, b"data")
    assert outcome.code is R.MEMORY
    assert "room" in outcome.reason


def test_a_table_bomb_grows_no_further_than_allowed(run):
    wat = module(
        """(drop (table.grow 0 (ref.null func) (i32.const 99999)))
           (i32.store (i32.const 0) (table.grow 0 (ref.null func) (i32.const 1)))
           (i32.store (i32.const 4) (table.size 0)) (i64.const 8)""",
        head="(table 1 funcref)",
    )
    assert run(wat).output == struct.pack("<iI", -1, 100_000)


def test_output_at_the_limit_and_one_beyond(run):
    assert run(ECHO, bytes(100), output=100).code is R.OK
    outcome = run(ECHO, bytes(101), output=100)
    assert (outcome.code, outcome.output) == (R.OUTPUT, b"")
    assert outcome.fuel_used == run(ECHO, bytes(101)).fuel_used


def test_a_claim_of_4_gib_of_output_copies_nothing(run):
    assert run(module("(i64.const 0x00000000ffffffff)")).code is R.OUTPUT


# ---- what never runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    ['(data (i32.const 131070) "abc")', "(func $f) (table 2 funcref) (elem (i32.const 1) $f $f)"],
)
def test_segments_that_do_not_fit_are_a_bad_module(run, head):
    outcome = run(module("(i64.const 0)", head=head))
    assert (outcome.code, outcome.fuel_used) == (R.BAD_MODULE, 0)


@pytest.mark.parametrize(
    "plaintext", [b"", b"\x91\xc4\x00", b"\x92\xc4\x00\xa0", b"\x92\xc4\x00\xc5\x00\x01x", b"\xff"]
)
def test_a_plaintext_that_is_no_task_input(sandbox, plaintext):
    wasm = assemble(ECHO)
    outcome = sandbox.run(wasm, plaintext, Limits(10, 10, 10, 10), digest=module_digest(wasm))
    assert (outcome.code, outcome.fuel_used) == (R.BAD_INPUT, 0)


def test_bad_modules_are_outcomes_not_errors(run):
    for wasm in (b"", b"\0asm\x01\0\0\0", assemble("(module)"), assemble('(module (import "env" "x" (func)))')):
        outcome = run(wasm)
        assert (outcome.code, outcome.fuel_used) == (R.BAD_MODULE, 0)
        assert outcome.reason


def test_a_type_error_is_a_bad_module(run):
    outcome = run(module("(i32.const 0)"))
    assert outcome.code is R.BAD_MODULE
    assert "not a valid module" in outcome.reason


def test_a_module_under_another_name_is_refused(sandbox):
    outcome = sandbox.run(assemble(ECHO), TaskInput(b"", b"").pack(), Limits(10, 10, 10, 10), digest=bytes(32))
    assert outcome.code is R.BAD_MODULE


def test_a_module_can_be_run_by_digest_once_it_is_known():
    fresh, wasm = Sandbox(compiler=compile_module), assemble(ECHO)
    digest, task, limits = module_digest(wasm), TaskInput(b"", b"hello").pack(), Limits(10**6, 10, 10, 1000)
    assert not fresh.knows(digest)
    assert fresh.run(None, task, limits, digest=digest).code is R.UNAVAILABLE
    assert fresh.prepare(wasm) == digest
    assert fresh.knows(digest)
    assert fresh.run(None, task, limits, digest=digest).output == b"hello"


def test_unpaid_ends_charge_nothing_and_give_nothing(run):
    ends = [run(b""), run(module(f"{LOOP} (i64.const 0)"), fuel=10**12, wall=5)]
    for outcome in ends:
        assert outcome.code not in PAID_CODES
        assert (outcome.fuel_used, outcome.output) == (0, b"")


# ---- stopping --------------------------------------------------------------------------------------------------------


def test_a_run_is_stopped_from_another_thread(run):
    stop = Stop()
    started = threading.Event()

    def runs():
        started.set()
        run(module(f"{LOOP} (i64.const 0)"), fuel=10**12, wall=60_000, stop=stop)

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(runs)
        started.wait()
        stop.stop()
        with pytest.raises(Stopped):
            work.result()


def test_a_run_that_was_stopped_before_it_began_does_not_run(run):
    stop = Stop()
    stop.stop()
    with pytest.raises(Stopped):
        run(module(f"{LOOP} (i64.const 0)"), fuel=10**12, wall=60_000, stop=stop)


def test_stopping_one_run_leaves_others_alone(run):
    stop, wat = Stop(), module(f"{COUNT} (i64.const 0)")
    with ThreadPoolExecutor(2) as pool:
        endless = pool.submit(run, module(f"{LOOP} (i64.const 0)"), fuel=10**12, stop=stop)
        others = [pool.submit(run, wat).result() for _ in range(5)]
        stop.stop()
        with pytest.raises(Stopped):
            endless.result()
    assert {o.code for o in others} == {R.OK}


def test_stopping_after_the_end_is_nothing(run):
    stop = Stop()
    assert run(ECHO, b"x", stop=stop).output == b"x"
    stop.stop()


# ---- nothing breaks it -----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_mangled_module_ends_somehow_and_repeats(run, data):
    wasm = bytearray(assemble(module(f"{COUNT} (i64.const 8)", head='(data (i32.const 0) "12345678")')))
    for _ in range(data.draw(st.integers(1, 3))):
        wasm[data.draw(st.integers(8, len(wasm) - 1))] = data.draw(st.integers(0, 255))
    first, second = (run(bytes(wasm), b"xy", fuel=10**7) for _ in range(2))
    assert (first.code, first.output, first.fuel_used) == (second.code, second.output, second.fuel_used)
    assert first.fuel_used <= 10**7


def test_the_engine_is_named_with_version_target_and_configuration():
    name, version, target, digest = ENGINE.split()
    assert name == "wasmtime"
    assert version[0].isdigit()
    assert target
    assert len(bytes.fromhex(digest)) == 8
