"""The ledger core under seeded faults: a bounded share of what `edgora sim` and `mutants.py` run in full (ledger.md 19)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from edgora.lab.sim import campaign
from edgora.lab.sim.options import Options, expand
from edgora.lab.sim.world import World

MUTANTS = Path(__file__).parent / "mutants.py"


def run(generator, numbers, **kind):
    """Outcomes of schedules; the assertion message is the command that repeats the first failure."""
    outcomes = [campaign.run_job(job) for job in campaign.jobs_of(generator, numbers, **kind)]
    for outcome in outcomes:
        assert not outcome.rule, f"{outcome.rule}: {outcome.detail}\nrepeat with: {outcome.job.command()}"
    return outcomes


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_long_schedules_keep_every_property(first):
    outcomes = run("seed", range(first, first + 10))
    assert all(outcome.events >= 1_000 for outcome in outcomes)
    assert all(outcome.blocks >= 20 for outcome in outcomes)


def test_found_seeds_stay_found():
    """209: a Byzantine primary ordered a lane out of order; the client has to fill the number anew."""
    run("seed", [209])


@pytest.mark.parametrize("first", range(0, 150, 50))
def test_phase_aware_scenarios_keep_every_property(first):
    outcomes = run("scenario", range(first, first + 50))
    assert sum(outcome.views for outcome in outcomes) > 100  # views really change


def test_the_market_keeps_its_promises_on_a_faulty_ledger():
    outcomes = run("seed", range(3), app="market")
    assert sum(outcome.answered for outcome in outcomes) > 100


def test_a_schedule_with_real_signatures():
    run("seed", [1], real_crypto=True)


def test_a_fault_free_run_is_frugal_and_never_changes_its_view():
    report = World(Options(seed=11, safety_ms=4_000, ops_per_s=20)).run()
    assert report.violation is None
    assert report.answered > 40


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_a_seed_gives_one_trace_in_every_process(hash_seed):
    """P9: same schedule, another process, another order of every set and of nothing that matters."""
    script = (
        "from edgora.lab.sim import campaign as c\n"
        "print(c.run_job(c.Job('seed', 7)).trace, c.run_job(c.Job('scenario', 7)).trace)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    here = [campaign.run_job(campaign.Job(kind, 7)).trace for kind in ("seed", "scenario")]
    assert done.stdout.split() == here
    assert here[0] != campaign.run_job(campaign.Job("seed", 8)).trace


def test_shrinking_keeps_the_failure_and_drops_the_rest(monkeypatch):
    """The shrinker is shown a world that fails iff its options still hold one crash."""
    job = next(
        j for j in campaign.jobs_of("seed", range(200)) if any(f.kind == "crash" for f in expand(j.number).faults)
    )

    def fake(_job, options=None, tell=None):
        broken = any(fault.kind == "crash" for fault in (options or expand(job.number)).faults)
        return campaign.Outcome(
            job=job, events=1, blocks=1, views=0, answered=0, seconds=0.0, trace="", rule="P1" if broken else ""
        )

    monkeypatch.setattr(campaign, "run_job", fake)
    small = campaign.shrink(job, "P1")
    assert [fault.kind for fault in small.faults] == ["crash"]
    assert small.byzantine is None
    assert small.drop == small.duplicate == small.burst == 0


def test_the_verb_prints_one_document_and_one_command_for_each_failure(monkeypatch):
    from typer.testing import CliRunner

    from edgora.cli import sim

    verb = typer.Typer()
    sim.app_commands(verb)
    clean = CliRunner().invoke(verb, ["--seeds", "5..5", "--scenarios", "0..1", "--jobs", "1", "--json"])
    document = json.loads(clean.stdout)
    assert clean.exit_code == 0
    assert document["failures"] == []
    assert document["seeds"]["schedules"] == 1
    assert document["scenarios"]["schedules"] == 2
    assert document["seeds"]["forks"] == document["seeds"]["lost_commits"] == document["seeds"]["stuck"] == 0
    assert CliRunner().invoke(verb, ["--seeds", "5..4"]).exit_code == 2
    assert CliRunner().invoke(verb, ["--app", "chess"]).exit_code == 2

    def broken(job, *_):
        return campaign.Outcome(
            job=job,
            events=1,
            blocks=1,
            views=0,
            answered=0,
            seconds=0.0,
            trace="",
            rule="P1",
            detail="two blocks",
            options="{}",
        )

    monkeypatch.setattr(campaign, "run_job", broken)
    failed = CliRunner().invoke(verb, ["--seeds", "5..5", "--jobs", "1", "--json"])
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["failures"][0]["repeat"] == "edgora sim --seeds 5..5"


@pytest.mark.parametrize("name", ["tip_not_reported", "send_before_sync", "base_not_enforced"])
def test_planted_bugs_are_caught(name):
    done = subprocess.run(
        [sys.executable, str(MUTANTS), "--hunt", name, "--scenarios", "300", "--seeds", "40"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found is not None
