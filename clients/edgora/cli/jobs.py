"""Long runs on an allocator: `edgora jobs submit|list|show|watch|cancel|resume|fetch|remove|serve`.

The verbs speak to the REST of an allocator (`/jobs`); its documents are what --json prints. Progress goes to stderr.
Exit codes: 0 ok, 1 the allocator cannot be reached or the watched job did not finish, 2 bad usage or a refused request.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec
import typer

from edgora.cli.allocate import Json, Seed, Settings, settings_of
from edgora.cli.learning import seed_range
from edgora.cli.output import fail, missing_extra, progress, show, table
from edgora.wire.errors import Conflict, EdgoraError, NotFound, Refused, TooMany, Unavailable

if TYPE_CHECKING:
    import httpx2

__all__ = ["app_commands"]

Document = dict[str, Any]

_TIMEOUT_S = 180.0
"""A submission is checked by the libraries that will run it, and a cancelled job writes its checkpoint first."""
_SILENT_S = 60.0
"""A stream says something every 15 s."""
_PAUSE_S = 1.0
_ENDED = frozenset({"finished", "failed", "cancelled", "interrupted"})

Allocator = Annotated[
    str, typer.Option("--allocator", metavar="URL", envvar="EDGORA_ALLOCATOR", help="The allocator that takes jobs.")
]
JobId = Annotated[str, typer.Argument(metavar="ID")]
Watch = Annotated[bool, typer.Option("--watch", help="Follow it to its end.")]
_HERE = "http://127.0.0.1:8190"

jobs = typer.Typer(name="jobs", help="Long runs on an allocator: train, evaluate, solve.", no_args_is_help=True)
submit = typer.Typer(name="submit", help="Queue a long run.", no_args_is_help=True)
jobs.add_typer(submit)


def app_commands(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(jobs)


@submit.command()
def train(
    problem: Annotated[str, typer.Argument(metavar="PROBLEM", help="baas or privacy")],
    algo: Annotated[str, typer.Option("--algo", metavar="NAME", help="One of the problem's learners.")],
    seed: Seed = 0, settings: Settings = None, watch: Watch = False, allocator: Allocator = _HERE,
    as_json: Json = False,
) -> None:  # fmt: skip
    """As `edgora train`; the policy is a file of the job."""
    request = {"kind": "train", "problem": problem, "algo": algo, "seed": seed}
    _submit(allocator, request, settings, watch=watch, as_json=as_json)


@submit.command()
def evaluate(
    problem: Annotated[str, typer.Argument(metavar="PROBLEM", help="baas or privacy")],
    policy: Annotated[str, typer.Option("--policy", metavar="NAME|job:ID", help="A solver, or a training job's.")],
    seeds: Annotated[str, typer.Option("--seeds", metavar="A..B", help="Environment seeds, both ends played.")],
    settings: Settings = None,
    trace: Annotated[bool, typer.Option("--trace", help="Also leave trace.npz.")] = False,
    watch: Watch = False, allocator: Allocator = _HERE, as_json: Json = False,
) -> None:  # fmt: skip
    """As `edgora evaluate`."""
    try:
        played = seed_range(seeds)
    except EdgoraError as error:
        fail(error, as_json=as_json)
    request = {
        "kind": "evaluate", "problem": problem, "policy": policy, "seeds": [played[0], played[-1]], "trace": trace,
    }  # fmt: skip
    _submit(allocator, request, settings, watch=watch, as_json=as_json)


@submit.command()
def solve(
    problem: Annotated[str, typer.Argument(metavar="PROBLEM", help="mta, tcr, dpe, baas or privacy")],
    solver: Annotated[str, typer.Option("--solver", metavar="NAME", help="One of the problem's solvers.")],
    instance: Annotated[Path | None, typer.Option("--instance", metavar="FILE", help="Without it one is drawn.")] = None,
    draw_seed: Annotated[int, typer.Option("--draw-seed", min=0, metavar="N", help="Of the drawn instance.")] = 0,
    draw: Annotated[
        list[str] | None, typer.Option("--draw", metavar="KEY=VALUE", help="What the drawn instance is made with.")
    ] = None,
    seed: Seed = 0,
    time_limit: Annotated[float | None, typer.Option("--time-limit", metavar="S")] = None,
    settings: Settings = None,
    trace: Annotated[bool, typer.Option("--trace", help="Also leave trace.npz (baas, privacy).")] = False,
    watch: Watch = False, allocator: Allocator = _HERE, as_json: Json = False,
) -> None:  # fmt: skip
    """As `edgora draw` and `edgora solve`."""
    request: Document = {
        "kind": "solve", "problem": problem, "solver": solver, "seed": seed, "time_limit_s": time_limit, "trace": trace,
        "draw_seed": draw_seed,
    }  # fmt: skip
    try:
        request["draw"] = settings_of(draw)
        if instance is not None:
            request["instance"] = msgspec.json.decode(instance.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        fail(Refused(f"--instance {instance} cannot be read: {error}", field="--instance"), as_json=as_json)
    except EdgoraError as error:
        fail(error, as_json=as_json)
    _submit(allocator, request, settings, watch=watch, as_json=as_json)


@jobs.command("list")
def listing(
    state: Annotated[str | None, typer.Option("--state", help="queued, running, finished, failed, ...")] = None,
    allocator: Allocator = _HERE, as_json: Json = False,
) -> None:  # fmt: skip
    """All jobs, newest first."""
    found = _asked(allocator, "GET", "/jobs" if state is None else f"/jobs?state={state}", as_json=as_json)
    if as_json:
        show(found)
        return
    rows = [
        (j["id"], j["request"]["kind"], j["request"]["problem"], j["state"], _share(j), j["why"])
        for j in found["items"]
    ]
    table(f"jobs at {allocator}", ["id", "kind", "problem", "state", "done", "why"], rows)


@jobs.command("show")
def one(job: JobId, allocator: Allocator = _HERE, as_json: Json = False) -> None:
    """A job as it stands."""
    _told(_asked(allocator, "GET", f"/jobs/{job}", as_json=as_json), as_json=as_json)


@jobs.command()
def watch(job: JobId, allocator: Allocator = _HERE, as_json: Json = False) -> None:
    """Follow a job to its end; exit 1 if that is not `finished`."""
    _watch(allocator, job, as_json=as_json)


@jobs.command()
def cancel(job: JobId, allocator: Allocator = _HERE, as_json: Json = False) -> None:
    """End a job, with its checkpoint."""
    _told(_asked(allocator, "POST", f"/jobs/{job}/cancel", as_json=as_json), as_json=as_json)


@jobs.command()
def resume(job: JobId, watch: Watch = False, allocator: Allocator = _HERE, as_json: Json = False) -> None:
    """Queue a job again that ended without finishing: a training goes on from its checkpoint."""
    found = _asked(allocator, "POST", f"/jobs/{job}/resume", as_json=as_json)
    if watch:
        _watch(allocator, job, as_json=as_json)
    else:
        _told(found, as_json=as_json)


@jobs.command()
def fetch(
    job: JobId,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.")],
    names: Annotated[list[str] | None, typer.Option("--file", metavar="NAME", help="Only this one; repeat for more.")] = None,
    allocator: Allocator = _HERE, as_json: Json = False,
) -> None:  # fmt: skip
    """Download the files that a job left."""
    found = _asked(allocator, "GET", f"/jobs/{job}", as_json=as_json)
    written: list[str] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _client(allocator) as http:
            written.extend(
                str(_download(http, job, name, out)) for name in names or [file["name"] for file in found["files"]]
            )
    except OSError as error:
        fail(Refused(f"--out {out} cannot be written: {error}", field="--out"), as_json=as_json)
    except EdgoraError as error:
        fail(error, as_json=as_json)
    if as_json:
        show({"id": job, "files": written})
    else:
        typer.echo("\n".join(written) or "the job has left no file yet")


@jobs.command()
def remove(job: JobId, allocator: Allocator = _HERE, as_json: Json = False) -> None:
    """Forget a job that has ended, and its files."""
    _asked(allocator, "DELETE", f"/jobs/{job}", as_json=as_json)
    if as_json:
        show({"id": job, "removed": True})
    else:
        typer.echo(f"{job} is forgotten")


@jobs.command()
def serve(
    folder: Annotated[Path, typer.Option("--folder", metavar="DIR", help="Where jobs are kept.")],
    host: Annotated[str, typer.Option(help="Where it listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 is not a choice: clients must know it.", min=1, max=65_535)] = 8190,
    running: Annotated[int, typer.Option("--running", min=1, max=64, help="Jobs at a time.")] = 1,
    memory_mb: Annotated[int, typer.Option("--memory-mb", min=256, help="Memory of each.")] = 2048,
) -> None:
    """Take jobs on this machine until Ctrl-C, without a platform."""
    try:
        from edgora.allocator.allocd.__main__ import main
    except ImportError as error:
        missing_extra("jobs serve", "node,solve", error)
    progress.print(f"jobs: http://{host}:{port}/jobs", highlight=False)
    asked = ["--jobs", str(folder), "--host", host, "--port", str(port), "--jobs-running", str(running)]
    raise typer.Exit(main([*asked, "--jobs-memory-mb", str(memory_mb)]))


# ---- how an allocator is asked ---------------------------------------------------------------------------------------


def _submit(allocator: str, request: Document, settings: list[str] | None, *, watch: bool, as_json: bool) -> None:
    try:
        request["settings"] = settings_of(settings)
    except EdgoraError as error:
        fail(error, as_json=as_json)
    found = _asked(allocator, "POST", "/jobs", request, as_json=as_json)
    if watch:
        progress.print(f"job {found['id']}", markup=False, highlight=False)
        _watch(allocator, found["id"], as_json=as_json)
    else:
        _told(found, as_json=as_json)


def _client(allocator: str) -> "httpx2.Client":
    import httpx2

    return httpx2.Client(base_url=allocator.rstrip("/"), timeout=_TIMEOUT_S)


def _asked(allocator: str, verb: str, path: str, body: Document | None = None, *, as_json: bool) -> Document:
    """The allocator's answer; exits where there is none, or where it refuses."""
    import httpx2

    try:
        with _client(allocator) as http:
            reply = http.request(verb, path, json=body) if body is not None else http.request(verb, path)
        if reply.status_code >= 400:
            raise _error(allocator, reply.status_code, reply.content)
        return {} if reply.status_code == 204 else msgspec.json.decode(reply.content, type=Document)
    except (httpx2.HTTPError, httpx2.InvalidURL, msgspec.DecodeError, UnicodeDecodeError) as error:
        _away(allocator, error, as_json=as_json)
    except EdgoraError as error:
        fail(error, as_json=as_json)


def _away(allocator: str, error: Exception, *, as_json: bool) -> NoReturn:
    detail = f"the allocator at {allocator} does not answer: {type(error).__name__}: {error}"
    fix = "start one that takes jobs: edgora jobs serve --folder DIR, or edgora allocators --jobs DIR"
    fail(Unavailable(detail, field="--allocator", fix=fix), as_json=as_json)


def _error(allocator: str, status: int, content: bytes) -> EdgoraError:
    """The refusal in an answer."""
    problem = msgspec.json.decode(content, type=Document)
    detail, field, fix = str(problem.get("detail", problem)), problem.get("field"), problem.get("fix")
    if status == 404 and field is None:
        fix = "start it with --jobs DIR, or name another with --allocator"
        return Refused(f"the allocator at {allocator} takes no jobs", field="--allocator", fix=fix)
    if status == 429:
        return TooMany(detail, retry_after_s=int(problem.get("retry_after_s") or 1), field=field, fix=fix)
    kinds: dict[int, type[EdgoraError]] = {404: NotFound, 409: Conflict}
    return kinds.get(status, Refused if status < 500 else Unavailable)(detail, field=field, fix=fix)


def _watch(allocator: str, job: str, *, as_json: bool) -> None:
    """Progress on stderr until the end, over broken connections; then the job."""
    after, failures = 0, 0
    while True:
        try:
            for event in _events(allocator, job, after):
                after, failures = event, 0
        except EdgoraError as error:
            if not isinstance(error, Unavailable) or failures >= 5:
                fail(error, as_json=as_json)
            failures += 1
            time.sleep(_PAUSE_S)
            continue
        found = _asked(allocator, "GET", f"/jobs/{job}", as_json=as_json)
        if found["state"] in _ENDED:
            break
    _told(found, as_json=as_json)
    if found["state"] != "finished":
        raise typer.Exit(1)


def _events(allocator: str, job: str, after: int) -> Iterator[int]:
    """Tell a stream's events; each one's number. Raises EdgoraError."""
    import httpx2

    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
    try:
        with (
            httpx2.Client(base_url=allocator.rstrip("/"), timeout=_SILENT_S) as http,
            http.stream("GET", f"/jobs/{job}/events", headers=headers) as reply,
        ):
            if reply.status_code >= 400:
                raise _error(allocator, reply.status_code, reply.read())
            for line in reply.iter_lines():
                if line.startswith("data:"):
                    event = msgspec.json.decode(line[5:], type=Document)
                    _say(event)
                    yield int(event["id"])
    except (httpx2.HTTPError, httpx2.InvalidURL, msgspec.DecodeError) as error:
        raise Unavailable(f"the allocator at {allocator} does not answer: {error}", field="--allocator") from None


def _say(event: Document) -> None:
    step = event.get("progress")
    if step is None:
        line = f"{event['state']}: {event['why']}"
    else:
        figures = "".join(f"  {name} {value:.4g}" for name, value in step["figures"].items())
        line = f"{_part(step)}{figures}"
    progress.print(line, markup=False, highlight=False, soft_wrap=True)


def _part(step: Document) -> str:
    return f"{100.0 * step['done'] / step['total']:5.1f} %" if step["total"] else f"{step['done']}"


def _share(job: Document) -> str:
    return _part(job["progress"]).strip() if job["progress"] else ""


def _told(job: Document, *, as_json: bool) -> None:
    if as_json:
        show(job)
        return
    typer.echo(f"{job['id']}  {job['state']}: {job['why']}")
    for file in job["files"]:
        typer.echo(f"  {file['name']}  {file['octets']:,} octets")


def _download(http: "httpx2.Client", job: str, name: str, out: Path) -> Path:
    """One file, whole or not at all. Raises EdgoraError, OSError."""
    import httpx2

    path = out / Path(name).name
    temporary = path.with_name(f".{path.name}.part")
    try:
        with http.stream("GET", f"/jobs/{job}/files/{name}") as reply:
            if reply.status_code >= 400:
                raise _error(str(http.base_url), reply.status_code, reply.read())
            with temporary.open("wb") as file:
                for chunk in reply.iter_bytes():
                    file.write(chunk)
        temporary.replace(path)
    except httpx2.HTTPError as error:
        raise Unavailable(f"{name} could not be fetched: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    if sys.stderr.isatty():
        progress.print(f"{path}", markup=False)
    return path
