"""WASI commands: stdin, stdout, arguments, exit, and a world without time, chance, files and network."""

import struct

import pytest

from edgora.compute import wasi
from edgora.compute.engine import assemble
from edgora.compute.module import Form, inspect
from edgora.wire.market import ResultCode

R = ResultCode
SHAPES = {
    "fd_read": "i32 i32 i32 i32", "fd_write": "i32 i32 i32 i32", "proc_exit": "i32", "args_get": "i32 i32",
    "args_sizes_get": "i32 i32", "environ_get": "i32 i32", "environ_sizes_get": "i32 i32", "random_get": "i32 i32",
    "clock_time_get": "i32 i64 i32", "clock_res_get": "i32 i32", "fd_fdstat_get": "i32 i32", "fd_close": "i32",
    "path_open": "i32 i32 i32 i32 i32 i64 i64 i32 i32", "fd_prestat_get": "i32 i32", "sched_yield": "",
    "poll_oneoff": "i32 i32 i32 i32", "sock_send": "i32 i32 i32 i32 i32", "fd_seek": "i32 i64 i32 i32",
    "fd_filestat_get": "i32 i32", "proc_raise": "i32",
}  # fmt: skip


def command(body, *imports, head=""):
    """A WASI command with these imports; $n and $i are i32 locals, `$say` writes memory from..from+count to stdout."""
    lines = [
        f'(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {SHAPES[name]})'
        f"{'' if name == 'proc_exit' else ' (result i32)'}))"
        for name in dict.fromkeys(("fd_write", *imports))
    ]
    return f"""(module {" ".join(lines)} (memory (export "memory") 4) {head}
      (func $say (param $from i32) (param $count i32) (result i32)
        (i32.store (i32.const 60000) (local.get $from)) (i32.store (i32.const 60004) (local.get $count))
        (call $fd_write (i32.const 1) (i32.const 60000) (i32.const 1) (i32.const 60008)))
      (func (export "_start") (local $n i32) (local $i i32) {body}))"""


def answers(*calls):
    """Body that calls each, collects the errnos at 0 and writes them to stdout."""
    stores = [f"(i32.store (i32.const {4 * i}) {call})" for i, call in enumerate(calls)]
    return " ".join((*stores, f"(drop (call $say (i32.const 0) (i32.const {4 * len(calls)})))"))


def words(output):
    return list(struct.unpack(f"<{len(output) // 4}I", output))


COPY = """(i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 1000))
  (loop $more
    (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (local.set $n (i32.load (i32.const 8)))
    (if (local.get $n) (then (drop (call $say (i32.const 1024) (local.get $n))) (br $more))))"""


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 54_321])
def test_stdin_to_stdout(run, size):
    data = bytes(i * 7 % 251 for i in range(size))
    outcome = run(command(COPY, "fd_read"), data)
    assert (outcome.code, outcome.output) == (R.OK, data)


def test_arguments_are_split_at_nul(run):
    body = """(drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
      (drop (call $args_get (i32.const 8) (i32.const 100)))
      (drop (call $say (i32.const 0) (i32.const 8)))
      (drop (call $say (i32.load (i32.const 12)) (i32.const 12)))"""
    output = run(command(body, "args_sizes_get", "args_get"), args=b"--fast\0x=1").output
    assert words(output[:8]) == [3, len(b"task\0--fast\0x=1\0")]
    assert output[8:19] == b"--fast\0x=1\0"


def test_there_is_no_environment(run):
    body = """(i32.store (i32.const 0) (i32.const 7)) (i32.store (i32.const 4) (i32.const 7))
      (drop (call $environ_sizes_get (i32.const 0) (i32.const 4)))
      (drop (call $environ_get (i32.const 0) (i32.const 4)))
      (drop (call $say (i32.const 0) (i32.const 8)))"""
    assert words(run(command(body, "environ_sizes_get", "environ_get")).output) == [0, 0]


def test_the_clock_stands_still_at_the_epoch(run):
    body = """(i64.store (i32.const 0) (i64.const -1))
      (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 0)))
      (drop (call $clock_res_get (i32.const 0) (i32.const 8)))
      (i32.store (i32.const 16) (call $clock_time_get (i32.const 4) (i64.const 0) (i32.const 0)))
      (i32.store (i32.const 20) (call $clock_res_get (i32.const 4) (i32.const 0)))
      (drop (call $say (i32.const 0) (i32.const 24)))"""
    output = run(command(body, "clock_time_get", "clock_res_get")).output
    assert struct.unpack("<QQII", output) == (0, 1, 28, 28)


def test_random_octets_follow_from_module_and_input(run):
    body = """(drop (call $random_get (i32.const 0) (i32.const 50)))
      (drop (call $random_get (i32.const 50) (i32.const 14)))
      (drop (call $say (i32.const 0) (i32.const 64)))"""
    wat = command(body, "random_get")
    first = run(wat, b"input").output
    assert first == run(wat, b"input").output
    others = {
        run(wat, b"other").output,
        run(wat, b"input", args=b"a").output,
        run(command(f"(nop) {body}", "random_get"), b"input").output,
    }
    assert len({first, *others}) == 4
    assert first[50:] not in first[:50]
    assert len(set(first)) > 30


@pytest.mark.parametrize(("status", "code"), [(0, R.OK), (1, R.TRAP), (255, R.TRAP)])
def test_exit_status_decides(run, status, code):
    body = f"(drop (call $say (i32.const 0) (i32.const 3))) (call $proc_exit (i32.const {status}))"
    outcome = run(command(body, "proc_exit", head='(data (i32.const 0) "out")'))
    assert outcome.code is code
    assert outcome.output == (b"out" if code is R.OK else b"")
    assert (f"exit status {status}" in outcome.reason) == (code is R.TRAP)
    assert 0 < outcome.fuel_used < 2 * wasi.HOST_CALL


def test_nothing_runs_after_exit(run):
    body = "(call $proc_exit (i32.const 0)) (drop (call $say (i32.const 0) (i32.const 3)))"
    assert run(command(body, "proc_exit")).output == b""


def test_a_trap_is_a_trap(run):
    outcome = run(command("(drop (call $say (i32.const 0) (i32.const 3))) unreachable"))
    assert (outcome.code, outcome.reason, outcome.output) == (R.TRAP, "unreachable", b"")
    assert wasi.HOST_CALL < outcome.fuel_used < 1.3 * wasi.HOST_CALL


def test_files_and_network_are_not_there(run):
    zeros = {"i32": "(i32.const 9)", "i64": "(i64.const 0)"}

    def call(name):
        return f"(call ${name} {' '.join(zeros[t] for t in SHAPES[name].split())})"

    names = ["path_open", "fd_prestat_get", "sock_send", "poll_oneoff", "fd_seek", "fd_filestat_get", "proc_raise",
             "fd_close", "sched_yield"]  # fmt: skip
    outcome = run(command(answers(*map(call, names)), *names))
    assert words(outcome.output) == [76, 8, 76, 58, 70, 76, 58, 0, 0]


def test_descriptors_other_than_the_three_are_bad(run):
    calls = [
        "(call $fd_read (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 8))",
        "(call $fd_write (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 8))",
        "(call $fd_fdstat_get (i32.const 3) (i32.const 100))",
        "(call $fd_fdstat_get (i32.const 1) (i32.const 100))",
    ]
    assert words(run(command(answers(*calls), "fd_read", "fd_fdstat_get")).output) == [8, 8, 8, 0]


def test_stdout_is_no_terminal(run):
    body = """(drop (call $fd_fdstat_get (i32.const 1) (i32.const 0)))
      (drop (call $fd_fdstat_get (i32.const 0) (i32.const 24)))
      (drop (call $say (i32.const 0) (i32.const 48)))"""
    output = run(command(body, "fd_fdstat_get")).output
    assert struct.unpack("<QQQQQQ", output) == (0, 64, 0, 0, 2, 0)


def test_stderr_is_swallowed(run):
    body = """(i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 50))
      (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
      (drop (call $say (i32.const 8) (i32.const 4)))"""
    assert words(run(command(body)).output) == [50]


BAD = 0x3FFFD  # two octets before the end of four pages
FAR = -16


@pytest.mark.parametrize("at", [BAD, FAR])
def test_pointers_outside_the_memory_are_faults_not_failures(run, at):
    calls = [
        f"(call $fd_read (i32.const 0) (i32.const {at}) (i32.const 1) (i32.const 8))",
        f"(call $fd_read (i32.const 0) (i32.const 1000) (i32.const 1) (i32.const {at}))",
        f"(call $fd_write (i32.const 1) (i32.const {at}) (i32.const 1) (i32.const 8))",
        f"(call $random_get (i32.const {at}) (i32.const 100))",
        f"(call $clock_time_get (i32.const 0) (i64.const 0) (i32.const {at}))",
        f"(call $args_sizes_get (i32.const {at}) (i32.const 512))",
        f"(call $args_get (i32.const 512) (i32.const {at}))",
        f"(call $fd_fdstat_get (i32.const 0) (i32.const {at}))",
        f"(call $environ_sizes_get (i32.const 512) (i32.const {at}))",
    ]
    names = [
        "fd_read",
        "random_get",
        "clock_time_get",
        "args_sizes_get",
        "args_get",
        "fd_fdstat_get",
        "environ_sizes_get",
    ]
    outcome = run(command(answers(*calls), *names), b"data")
    assert (outcome.code, words(outcome.output)) == (R.OK, [21] * len(calls))


def test_a_vector_that_points_outside_is_a_fault(run):
    body = """(i32.store (i32.const 100) (i32.const 0x3fff0)) (i32.store (i32.const 104) (i32.const 17))
      (i32.store (i32.const 0) (call $fd_read (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 8)))
      (i32.store (i32.const 4) (call $fd_write (i32.const 1) (i32.const 100) (i32.const 1) (i32.const 8)))
      (i32.store (i32.const 8) (call $fd_read (i32.const 0) (i32.const 100) (i32.const 1025) (i32.const 8)))
      (i32.store (i32.const 12) (call $fd_write (i32.const 1) (i32.const 100) (i32.const -1) (i32.const 8)))
      (drop (call $say (i32.const 0) (i32.const 16)))"""
    assert words(run(command(body, "fd_read"), bytes(17)).output) == [21, 21, 28, 28]


# ---- bounds ----------------------------------------------------------------------------------------------------------

FLOOD = "(loop $l (drop (call $say (i32.const 0) (i32.const 1000))) (br $l))"


def test_a_flood_of_output_ends_the_run_with_its_fuel(run):
    outcome = run(command(FLOOD), output=10_500)
    assert (outcome.code, outcome.output) == (R.OUTPUT, b"")
    each = wasi.HOST_CALL + wasi.HOST_VECTOR + 1000
    assert 10 * each < outcome.fuel_used < 12 * each
    assert outcome.fuel_used == run(command(FLOOD), output=10_500, fuel=10**6).fuel_used


def test_output_at_the_limit_is_fine(run):
    assert run(command("(drop (call $say (i32.const 0) (i32.const 100)))"), output=100).code is R.OK
    assert run(command("(drop (call $say (i32.const 0) (i32.const 101)))"), output=100).code is R.OUTPUT


def test_host_calls_are_charged(run):
    calm, busy = (
        run(command(f"{'(drop (call $sched_yield))' * n} (drop (call $clock_res_get (i32.const 0) (i32.const 0)))" * n,
                    "sched_yield", "clock_res_get"))
        for n in (1, 10)
    )  # fmt: skip
    assert busy.fuel_used - calm.fuel_used >= 9 * wasi.HOST_CALL


@pytest.mark.parametrize("fuel", [2_000, 10_500, 50_000, 200_500])
def test_a_host_call_without_fuel_ends_the_run(run, fuel):
    outcome = run(command(FLOOD), fuel=fuel, output=1 << 20)
    assert (outcome.code, outcome.fuel_used, outcome.output) == (R.OUT_OF_FUEL, fuel, b"")


def test_a_run_that_ignores_the_missing_fuel_still_ends_so(run):
    outcome = run(command("(drop (call $random_get (i32.const 0) (i32.const 200000)))", "random_get"), fuel=100_000)
    assert (outcome.code, outcome.fuel_used) == (R.OUT_OF_FUEL, 100_000)


def test_an_endless_command_runs_out_of_fuel_or_time(run):
    endless = command("(loop $l (br $l))")
    assert run(endless, fuel=10_000).code is R.OUT_OF_FUEL
    assert run(endless, fuel=10**12, wall=20).code is R.WALL


def test_a_wrong_signature_does_not_link(run):
    wat = """(module (import "wasi_snapshot_preview1" "fd_close" (func (param i64) (result i32)))
      (memory (export "memory") 1) (func (export "_start")))"""
    outcome = run(wat)
    assert (outcome.code, outcome.fuel_used) == (R.BAD_MODULE, 0)
    assert "link" in outcome.reason


def test_all_of_preview_1_links(run):
    """Every function with the signature that the adapter and the world give it."""
    served = {"args_get", "args_sizes_get", "environ_get", "environ_sizes_get", "clock_res_get", "clock_time_get",
              "fd_fdstat_get", "fd_read", "fd_write", "random_get"}  # fmt: skip
    exported = set(
        inspect(
            assemble(
                wasi.ADAPTER.replace("(module", '(module (memory (export "memory") 0) (func (export "_start"))', 1)
            )
        ).exports
    )
    assert served | exported - {"memory", "_start", wasi.EXIT_CODE} == wasi.FUNCTIONS
    assert len(wasi.FUNCTIONS) == 46


def test_a_command_is_a_command():
    assert inspect(assemble(command(""))).form is Form.WASI
