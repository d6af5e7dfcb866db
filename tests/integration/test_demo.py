"""`edgora demo`: the whole platform in a minute, and a report that adds up (or says what does not)."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from edgora.lab.report import Latency, Money, Report, RoundLine
from edgora.ue.miner import MinedSlot
from edgora.wire.kernels import names

DEMO_KERNELS = {"sobel", "blur", "matmul", "hashpuzzle", "nftcheck"}


def run_demo(*settings: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, the JSON document on stdout, and what went to stderr."""
    arguments = [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-c", "from edgora.cli import main; main()", "demo", "--json", *arguments],
        capture_output=True, text=True, timeout=280, env={**os.environ, "NO_COLOR": "1"}, check=False,
    )  # fmt: skip
    try:
        return done.returncode, msgspec.json.decode(done.stdout), done.stderr
    except msgspec.DecodeError:
        pytest.fail(f"status {done.returncode}, no single JSON document: {done.stdout[:300]!r}\n{done.stderr[-3000:]}")


def good(status: int, report: dict[str, Any], said: str) -> None:
    assert report["problems"] == []
    assert (status, report["good"]) == (0, True), said[-2000:]


def stage(report: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in report["latency_ms"] if row["stage"] == name)
    return found


def check_tasks(report: dict[str, Any], tasks: int, refunds: int) -> None:
    assert report["tasks"] == tasks
    assert report["settled"] == tasks - refunds
    assert report["refunded"] == report["refunds_planned"] == refunds
    assert report["verified"] == tasks - refunds, "each output was recomputed without the sandbox"
    assert len(report["records"]) == tasks
    assert Counter(record["state"] for record in report["records"]) == {"SETTLED": tasks - refunds, "REFUNDED": refunds}
    assert all(record["amount"] == 0 for record in report["records"] if record["state"] == "REFUNDED")
    assert all(record["fuel_used"] > 0 for record in report["records"] if record["state"] == "SETTLED")


def check_money(report: dict[str, Any]) -> None:
    money = report["money"]
    assert len(money["checks"]) >= 4
    assert all(ledger == chain for ledger, chain in money["checks"].values())
    assert money["charged"] == money["executors"] + money["sources"] > 0
    assert money["deposited"] == money["charged"] + money["returned_or_free"]
    paid = sum(told["amount"] for told in [*report["records"], *report["mined"]])
    assert paid == money["charged"]


def check_latencies(report: dict[str, Any], tasks: int) -> None:
    for name in ("admit", "order", "allocate", "run", "deliver", "certify", "settle", "total"):
        row = stage(report, name)
        assert 0 <= row["p50"] <= row["p99"], row
        assert row["what"]
        assert 0 < row["tasks"] <= tasks
    assert stage(report, "total")["p99"] > stage(report, "deliver")["p50"]


def check_privacy(report: dict[str, Any]) -> None:
    """A UE with hash puzzles decided slot by slot; its policy stands beside three others on the same data."""
    slots, lines = report["mined"], {line["policy"]: line for line in report["privacy"]}
    assert list(lines) == ["ddqn-vec", "NO", "EO", "myopic"]
    assert len(slots) == lines["ddqn-vec"]["slots"] == lines["NO"]["slots"] == 10
    puzzlers = {record["ue"] for record in report["records"] if record["kernel"] == "hashpuzzle"}
    assert {slot["ue"] for slot in slots} <= puzzlers
    for slot in slots:
        assert slot["verified"] or slot["puzzle_kb"] == 0, slot
        assert (slot["task"] is not None, slot["amount"] > 0) == (slot["sent"], slot["sent"])
    for name in ("privacy", "cost", "energy_mj", "latency_ms", "reward"):
        mean = sum(slot[name] for slot in slots) / len(slots)
        assert lines["ddqn-vec"][name] == pytest.approx(mean)
    assert (lines["NO"]["sent"], lines["EO"]["sent"]) == (0, 1)


def check_rounds(report: dict[str, Any]) -> None:
    assert report["rounds"]
    for row in report["rounds"]:
        assert row["greedy"] <= row["value"] <= row["optimum"]
        assert row["proven"], "HiGHS proves rounds of this size"
        assert row["why"], "the reason of the choice"
        assert row["proposals"] or row["refused"] or row["late"] or row["skipped"], (
            "nobody proposed, and nobody said why"
        )
        assert (row["winner"] == "greedy") == (row["winner_server"] is None)
    assert sum(row["value"] for row in report["rounds"]) == report["utility"] <= report["optimum"]
    assert sum(report["policies"].values()) == len(report["rounds"])


def test_the_demo_settles_everything_and_every_balance_adds_up() -> None:
    status, report, said = run_demo()
    good(status, report, said)
    check_tasks(report, 24, 2)
    assert set(report["kernels"]) == DEMO_KERNELS <= set(names())
    check_money(report)
    check_privacy(report)
    check_latencies(report, 24 + sum(slot["sent"] for slot in report["mined"]))
    check_rounds(report)
    assert report["gas"]["per_settled_task"] > 5_000
    assert report["gas"]["settled_batches"] == report["gas"]["batches"] >= 1
    assert report["gas"]["settle_total"] == pytest.approx(
        report["gas"]["settle_mean"] * report["gas"]["settled_batches"], rel=0.01
    )
    reasons = [record["reason"] for record in report["records"] if record["state"] == "REFUNDED"]
    assert any("cancelled by its UE" in reason for reason in reasons)
    assert any("expired" in reason for reason in reasons)
    assert "nodes live on" in said


def test_the_demo_needs_no_anvil() -> None:
    status, report, said = run_demo("chain.kind=evm", "fleet.tasks=6", "fleet.ues=3")
    good(status, report, said)
    assert report["chain"] == "evm"
    check_tasks(report, 6, 2)
    check_money(report)
    check_rounds(report)


@pytest.mark.parametrize(
    "setting",
    ["fleet.ues=0", "fleet.uess=3", "market.batch=3", 'servers=[{"policy": 7}]', "nonsense", "chain.kind=mainnet"],
)
def test_a_scenario_that_is_wrong_exits_2_and_names_the_field(setting: str) -> None:
    from typer.testing import CliRunner

    from edgora.cli import app

    refused = CliRunner().invoke(app, ["demo", "--json", "--set", setting])
    assert refused.exit_code == 2
    assert msgspec.json.decode(refused.stdout)["error"]["field"]
    assert "edgora: " in refused.stderr


# ---- the report's own verdict ------------------------------------------------------------------------------------------------


def a_report(**changes: Any) -> Report:
    fields: dict[str, Any] = {
        "scenario": "x", "seed": 1, "chain": "evm", "wall_s": 1.0, "height": 9, "tasks": 1, "settled": 1, "refunded": 0,
        "refunds_planned": 0, "verified": 1, "kernels": {"spin": 1},
        "latency_ms": [Latency(stage="run", tasks=1, p50=1.0, p99=1.0, what="")], "gas": {"settled_batches": 1.0},
        "rounds": [RoundLine(round=1, tasks=1, winner="greedy", winner_server=None, value=5, greedy=5, bound=5, optimum=5,
                             proven=True, proposals=1, refused=0, late=0, why="", skipped=[])],
        "utility": 5, "optimum": 5, "policies": {"greedy": 1}, "records": [], "problems": [],
        "money": Money(deposited=9, charged=4, returned_or_free=5, executors=3, sources=1, stakes=0, contract_balance=9,
                       checks={"all": (9, 9)}),
    }  # fmt: skip
    return Report(**{**fields, **changes})


def exit_status(report: Report, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    from typer.testing import CliRunner

    from edgora.cli import app
    from edgora.lab import demo

    def ready(*_: Any) -> Report:
        return report

    monkeypatch.setattr(demo, "run_demo", ready)
    told = CliRunner().invoke(app, ["demo"])
    return told.exit_code, told.stdout


def test_a_problem_makes_it_exit_1(monkeypatch: pytest.MonkeyPatch) -> None:
    fine, text = exit_status(a_report(), monkeypatch)
    assert fine == 0
    assert "1 settled" in text
    bad, text = exit_status(a_report(problems=["task 3 ended neither settled nor refunded"]), monkeypatch)
    assert bad == 1
    assert "PROBLEM: task 3 ended neither settled nor refunded" in text


def problems_of(
    records: Sequence[Any], money: Money | None = None, rounds: Sequence[RoundLine] = (), mined: Sequence[Any] = ()
) -> list[str]:
    from edgora.lab.report import _problems

    return _problems(records, mined, money or a_report().money, rounds)


def record(**changes: Any) -> Any:
    from edgora.ue.records import TaskRecord

    fields: dict[str, Any] = {
        "number": 3, "ue": 1, "kernel": "spin", "fate": "settle", "at_ms": 0, "state": "SETTLED", "code": "OK", "verified": True
    }  # fmt: skip
    return TaskRecord(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "OPEN"}, "neither settled nor refunded"),
        ({"state": "REFUNDED"}, "was refunded, which was not planned"),
        ({"fate": "cancel"}, "a refund was planned"),
        ({"verified": False}, "a wrong output"),
        ({"verified": None}, "verified None"),
        ({"code": "TRAP"}, "gave TRAP"),
    ],
)
def test_each_kind_of_bad_end_is_a_problem(changes: dict[str, Any], words: str) -> None:
    assert problems_of([record()]) == []
    [problem] = problems_of([record(**changes)])
    assert problem.startswith("task 3")
    assert words in problem


def test_money_and_values_that_cannot_be_are_problems() -> None:
    off = msgspec.structs.replace(a_report().money, checks={"account 7": (5, 4), "all": (9, 9)})
    assert problems_of([], off) == ["account 7: 5 wei by the ledger, 4 on the chain"]
    beyond = msgspec.structs.replace(a_report().rounds[0], value=6)
    assert "above its optimum" in problems_of([], None, [beyond])[0]


def test_a_mined_slot_whose_puzzle_came_to_nothing_is_a_problem() -> None:
    slot = MinedSlot(
        ue=2, number=4, at_ms=0, new_kb=10, waiting_kb=0, good=True, level=0, sent=True, privacy=0, cost=0, reward=0,
        energy_mj=1, latency_ms=5, puzzle_kb=10, verified=True,
    )  # fmt: skip
    assert problems_of([], mined=[slot]) == []
    [problem] = problems_of([], mined=[msgspec.structs.replace(slot, verified=False)])
    assert problem.startswith("slot 4 of mining UE 2")
