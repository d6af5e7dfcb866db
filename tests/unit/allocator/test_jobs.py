"""Jobs: refused by field, bounded, watched from anywhere, and a training that is killed, cancelled and resumed ends as
one that ran through."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from edgora.adapters.loopback import free_port
from edgora.allocator import registry
from edgora.allocator.allocd.__main__ import main as service_main
from edgora.allocator.allocd.jobs import Jobs, Limits
from edgora.allocator.allocd.jobs_child import verdict
from edgora.allocator.allocd.jobs_files import MAX_REQUEST_OCTETS, Job, JobEvent, read_job
from edgora.allocator.allocd.jobs_routes import create_jobs_app
from edgora.lab.scenario import Scenario
from edgora.lab.supervise import allocator_children
from edgora.wire.errors import Conflict, NotFound, Refused, TooMany

SMALL = {"U": 4, "M": 2, "copies": 4, "batch": 32, "log_slots": 20}
LONG = {"kind": "train", "problem": "baas", "algo": "pair-q", "seed": 3, "settings": {**SMALL, "slots": 1200}}
ENDLESS = {**LONG, "settings": {**SMALL, "slots": 4_000_000}}
QUICK = {
    "kind": "evaluate",
    "problem": "baas",
    "policy": "priced",
    "seeds": [5, 6],
    "settings": {"U": 4, "M": 2, "slots": 10},
}


def asked(request: dict[str, Any]) -> Any:
    return read_job(json.dumps(request).encode())


@contextlib.asynccontextmanager
async def opened(root: Path, **limits: int) -> AsyncIterator[Jobs]:
    jobs = Jobs(root, Limits(**limits))
    await jobs.open()
    try:
        yield jobs
    finally:
        await jobs.close()


async def until_end(jobs: Jobs, name: str) -> list[JobEvent]:
    return [event async for event in jobs.events(name, 0) if event is not None]


async def progressed(jobs: Jobs, name: str, after: int = 0) -> JobEvent:
    """The first event of progress beyond one."""
    async for event in jobs.events(name, after):
        if event is not None and event.progress is not None:
            return event
    pytest.fail("it ended without progress")


def logged(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "cpu_s"} for line in lines]


# ---- a life ----------------------------------------------------------------------------------------------------------


async def test_killed_cancelled_and_resumed_a_training_ends_as_if_it_had_run_through(tmp_path: Path) -> None:
    root = tmp_path / "jobs"
    port = free_port()
    service = subprocess.Popen(
        [sys.executable, "-m", "edgora.allocator.allocd", "--jobs", str(root), "--port", str(port)]
    )
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
            while not await _answers(http):
                await asyncio.sleep(0.1)
            made = await http.post("/jobs", json=LONG)
            assert made.status_code == 201, made.text
            name = made.json()["id"]
            assert made.headers["location"] == f"/jobs/{name}"
            async with http.stream("GET", f"/jobs/{name}/events") as stream:
                async for line in stream.aiter_lines():
                    if line == "event: progress":
                        break
    finally:
        service.send_signal(signal.SIGKILL)
        service.wait(10)
    async with opened(root) as jobs:
        killed = jobs.job(name)
        assert (killed.state, killed.attempts) == ("interrupted", 1)
        assert "the allocator ended while it ran" in killed.why
        assert killed.progress is not None
        assert killed.progress.done < killed.progress.total == 1200
        await jobs.resume(name)
        await progressed(jobs, name, killed.event)
        cancelled = await jobs.cancel(name)
        assert cancelled.state == "cancelled", cancelled
        assert cancelled.result is not None
        assert 0 < cancelled.result["slots"] < 1200
        assert [file.name for file in cancelled.files] == ["checkpoint.npz", "log.jsonl"]
    async with opened(root) as jobs:  # what was cancelled stays so
        assert jobs.job(name).state == "cancelled"
        await jobs.resume(name)
        events = await until_end(jobs, name)
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        states = [event.state for event in events if event.type == "state"]
        assert states == [
            "queued", "running", "interrupted", "queued", "running", "cancelled", "queued", "running", "finished",
        ]  # fmt: skip
        done = jobs.job(name)
        assert (done.state, done.attempts) == ("finished", 3)
        assert done.result is not None
        assert (done.result["policy"], done.result["slots"]) == ("policy.npz", 1200)
        assert jobs.over(name, done.event)
        with pytest.raises(Conflict, match="finished"):
            await jobs.resume(name)
    whole = tmp_path / "whole"
    registry.learning("baas").train("pair-q", whole, 3, LONG["settings"], lambda _: None, lambda: False)
    files = root / name / "files"
    assert (files / "policy.npz").read_bytes() == (whole / "policy.npz").read_bytes()
    assert logged(files) == logged(whole)


async def _answers(http: httpx2.AsyncClient) -> bool:
    try:
        return (await http.get("/healthz")).status_code == 200
    except httpx2.TransportError:
        return False


@pytest.mark.slow  # three starts of processes that take all libraries
async def test_one_runs_at_a_time_others_wait_and_a_restart_forgets_neither(tmp_path: Path) -> None:
    async with opened(tmp_path, waiting=1) as jobs:
        first, second = await jobs.submit(asked(ENDLESS)), await jobs.submit(asked(QUICK))
        assert "waits for 1 running and 0 queued before it" in second.why
        listed = jobs.listing()
        assert (listed.running, listed.queued, listed.most_running) == (1, 1, 1)
        assert [job.id for job in jobs.listing("queued").items] == [second.id]
        with pytest.raises(TooMany, match="1 jobs wait"):
            await jobs.submit(asked(QUICK))
        with pytest.raises(Conflict, match="cancel it first"):
            jobs.remove(second.id)
        assert (await jobs.cancel(second.id)).state == "cancelled"
        assert (await jobs.resume(second.id)).state == "queued"
        with pytest.raises(Refused, match="another allocator"):
            await Jobs(tmp_path).open()
        await progressed(jobs, first.id)
    with (tmp_path / second.id / "events.jsonl").open("ab") as torn:
        torn.write(b'{"id": 4, "at_')
    async with opened(tmp_path) as jobs:
        stopped = jobs.job(first.id)
        assert stopped.state == "interrupted"
        assert "the allocator was stopped at" in stopped.why
        events = await until_end(jobs, second.id)
        assert [event.state for event in events] == ["queued", "cancelled", "queued", "running", "finished"]
        assert [event.id for event in events] == [1, 2, 3, 4, 5]
        evaluation = json.loads(jobs.file(second.id, "evaluation.json").read_text())
        direct = registry.evaluate("baas", "priced", range(5, 7), settings=QUICK["settings"])
        assert evaluation["score"] == msgspec.to_builtins(direct.score)
        jobs.remove(second.id)
        with pytest.raises(NotFound):
            jobs.job(second.id)
        assert not (tmp_path / second.id).exists()
        await jobs.resume(first.id)
        await progressed(jobs, first.id, stopped.event)
        for process in _processes_of(tmp_path / first.id):  # as the kernel does where memory is short
            os.kill(process, signal.SIGKILL)
        await until_end(jobs, first.id)
        killed = jobs.job(first.id)
        assert (killed.state, killed.attempts, "signal 9" in killed.why) == ("interrupted", 2, True)


def _processes_of(folder: Path) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in place.read_bytes().split(b"\0"):
                found.append(int(place.parent.name))
    return found


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "mine"}, "kind"),
        ({"problem": "chess"}, "problem"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"algo": "a:b"}, "algo"),
        ({"out": "/etc"}, "out"),
        ({"settings": {"trace": "/etc/passwd"}}, "settings.trace"),
        ({"settings": {"file": "/etc/passwd"}}, "settings.file"),
        ({"settings": {"slots": [1]}}, "settings"),
        ({"settings": {f"k{i}": 1 for i in range(65)}}, "settings"),
        ({"kind": "evaluate", "policy": "mine:Policy", "seeds": [1, 2]}, "policy"),
        ({"kind": "evaluate", "policy": "../policy.npz", "seeds": [1, 2]}, "policy"),
        ({"kind": "evaluate", "policy": "exact", "seeds": [2, 1]}, "seeds"),
        ({"kind": "evaluate", "policy": "exact", "seeds": [0, 10_000]}, "seeds"),
        ({"kind": "solve", "solver": "exact", "time_limit_s": 0}, "time_limit_s"),
        ({"kind": "solve", "solver": "exact", "instance": {}, "draw": {"U": 5}}, "draw"),
    ],
    ids=str,
)
def test_a_request_of_the_wrong_form_names_its_field(change: dict[str, Any], field: str) -> None:
    request = {**LONG, **change}
    if request["kind"] not in {"train", "mine"}:
        request = {"kind": request["kind"], "problem": "baas", **change}
    with pytest.raises(Refused) as refused:
        asked(request)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({**LONG, "settings": {"slots": 0}}, "settings.slots"),
        ({**LONG, "settings": {"u": 3}}, "settings.u"),
        ({**LONG, "algo": "ppo"}, "algo"),
        ({**LONG, "problem": "privacy", "algo": "RLO", "settings": {"alpha": 7}}, "settings.alpha"),
        ({**QUICK, "policy": "job:0123456789abcdef"}, "policy"),
        ({**QUICK, "settings": {"k_T": "x"}}, "settings.k_T"),
        ({"kind": "solve", "problem": "mta", "solver": "nobody"}, "solver"),
        ({"kind": "solve", "problem": "mta", "solver": "qlearning", "draw": {"n": -1}}, "draw.n"),
        ({"kind": "solve", "problem": "mta", "solver": "qlearning", "settings": {"rounds": 1}}, "settings.rounds"),
        ({"kind": "solve", "problem": "mta", "solver": "qlearning", "trace": True}, "trace"),
        ({"kind": "solve", "problem": "baas", "solver": "exact", "instance": {"problem": "baas"}}, "instance.version"),
        ({"kind": "solve", "problem": "baas", "solver": "pair-q", "settings": {"file": "job:0123456789abcdef"}}, "settings.file"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_run_would_refuse_is_refused_before(tmp_path: Path, request_: dict[str, Any], field: str) -> None:
    problem = verdict(json.dumps(request_).encode(), tmp_path).problem
    assert problem is not None
    assert (problem.field, problem.status < 500) == (field, True), problem
    assert list(tmp_path.iterdir()) == []


@contextlib.asynccontextmanager
async def _client(jobs: Jobs) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(create_jobs_app(jobs))
    async with httpx2.AsyncClient(transport=transport, base_url="http://jobs", timeout=120) as http:
        yield http


async def test_the_rest(tmp_path: Path) -> None:
    room = registry.problem("baas")
    instance = room.draw(7, {"U": 4, "M": 2})
    given = json.loads(room.dump_instance(instance))
    request = {"kind": "solve", "problem": "baas", "solver": "exact", "instance": given, "trace": True}
    async with opened(tmp_path) as jobs, _client(jobs) as http:
        refused = await http.post("/jobs", json={**request, "settings": {"deep": 3}})
        told = refused.json()
        assert (refused.status_code, told["code"], told["field"], told["value"]) == (
            400,
            "bad_request",
            "settings.deep",
            3,
        )
        assert told["fix"]
        assert refused.headers["content-type"] == "application/problem+json"
        assert not [path for path in tmp_path.iterdir() if path.is_dir()]

        made = (await http.post("/jobs", json=request)).json()
        name = made["id"]
        assert made["request"]["instance"] == {"file": "instance.json"}
        stream = await http.get(f"/jobs/{name}/events")  # whole: it ends with the job
        assert stream.headers["content-type"].startswith("text/event-stream")
        frames = [
            dict(line.split(": ", 1) for line in frame.splitlines()) for frame in stream.text.split("\n\n") if frame
        ]
        assert [frame["id"] for frame in frames] == [str(i + 1) for i in range(len(frames))]
        events = [msgspec.json.decode(frame["data"], type=JobEvent) for frame in frames]
        assert [event.state for event in events if event.type == "state"] == ["queued", "running", "finished"]
        assert [frame["event"] for frame in frames] == [event.type for event in events]
        rest = await http.get(f"/jobs/{name}/events", headers={"Last-Event-ID": frames[0]["id"]})
        assert rest.text == stream.text.partition("\n\n")[2]
        assert (await http.get(f"/jobs/{name}/events?after={len(frames)}")).status_code == 204

        job = msgspec.json.decode((await http.get(f"/jobs/{name}")).content, type=Job)
        assert [file.name for file in job.files] == ["instance.json", "solution.json", "trace.npz"]
        assert job.result is not None
        assert str(tmp_path) not in (await http.get(f"/jobs/{name}")).text
        solution = room.load_solution((await http.get(f"/jobs/{name}/files/solution.json")).content, instance)
        assert room.score(instance, solution).feasible
        assert [item["id"] for item in (await http.get("/jobs?state=finished")).json()["items"]] == [name]

        for path, status, field in [
            ("/jobs/0123456789abcdef", 404, "path.id"),
            ("/jobs/../../etc", 404, None),
            ("/jobs/XYZ", 400, "path.id"),
            (f"/jobs/{name}/files/..%2F..%2Flock", 404, None),
            (f"/jobs/{name}/files/.instance.json.tmp", 404, "path.name"),
            (f"/jobs/{name}/events?after=-1", 400, "query.after"),
            ("/jobs?state=asleep", 400, "query.state"),
        ]:
            refused = await http.get(path)
            assert (refused.status_code, refused.json()["field"]) == (status, field), refused.text
        for body, kind, status, field in [
            (b"{}", "text/plain", 400, "header.Content-Type"),
            (b"{", "application/json", 400, "$"),
            (b" " * (MAX_REQUEST_OCTETS + 1), "application/json", 413, "body"),
        ]:
            refused = await http.post("/jobs", content=body, headers={"Content-Type": kind})
            assert (refused.status_code, refused.json()["field"]) == (status, field), refused.text
        wrong = await http.get(f"/jobs/{name}/events", headers={"Last-Event-ID": "x"})
        assert (wrong.status_code, wrong.json()["field"]) == (400, "header.Last-Event-ID")
        assert (await http.post(f"/jobs/{name}/cancel")).status_code == 409
        assert (await http.delete(f"/jobs/{name}")).status_code == 204
        assert (await http.get(f"/jobs/{name}")).status_code == 404
        described = (await http.get("/openapi.json")).json()
        assert described["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
        assert {"TrainJob", "Job", "JobEvent", "Problem"} <= set(described["components"]["schemas"])


# ---- who takes jobs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--redis", "redis://x", "--node", "0"],
        ["--jobs", "DIR", "--node", "0"],
        ["--jobs", "DIR", "--jobs-running", "0"],
        ["--jobs", "DIR", "--jobs-memory-mb", "10"],
    ],
    ids=" ".join,
)
def test_the_service_serves_a_node_or_takes_jobs_alone(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        service_main(arguments)
    assert ended.value.code == 2
    assert "--jobs" in capsys.readouterr().err


def test_of_a_platforms_allocators_the_first_takes_jobs(tmp_path: Path) -> None:
    children = allocator_children(Scenario(), "redis://x", [1, 2, 3, 4], jobs=tmp_path)
    takes = [child.arguments[child.arguments.index("--jobs") + 1] for child in children if "--jobs" in child.arguments]
    assert takes == [str(tmp_path)]
    assert "--jobs" in children[0].arguments
    assert not any("--jobs" in child.arguments for child in allocator_children(Scenario(), "redis://x", [1, 2, 3, 4]))
