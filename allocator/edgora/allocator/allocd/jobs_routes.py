"""Jobs over REST.

POST   /jobs                     a JobRequest -> 201 Job, queued; 400 names the field, the value and the fix
GET    /jobs                     JobList; ?state=
GET    /jobs/{id}                Job
GET    /jobs/{id}/events         text/event-stream of JobEvent; Last-Event-ID or ?after resumes; ends with the job, then 204
POST   /jobs/{id}/cancel         Job, ended with its checkpoint; also of a queued one
POST   /jobs/{id}/resume         Job, queued again: it goes on from its checkpoint
GET    /jobs/{id}/files/{name}   one of the Job's `files`
DELETE /jobs/{id}                204; the job and its files are forgotten

Bodies are JSON and say so, which a page of another origin cannot do unasked. Errors are problem documents (RFC 9457).
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, StreamingResponse

from edgora.allocator.allocd.jobs import Jobs
from edgora.allocator.allocd.jobs_files import (
    MAX_REQUEST_OCTETS,
    Job,
    JobEvent,
    JobList,
    JobRequest,
    JobState,
    check_id,
    problem_of,
    read_job,
)  # fmt: skip
from edgora.wire.errors import EdgoraError, NotFound, Refused, TooLarge
from edgora.wire.rest import Problem

__all__ = ["create_jobs_app", "install_problems", "jobs_router"]

_PROBLEM_JSON = "application/problem+json"
_STREAM = "text/event-stream"
_FIX = "see /openapi.json for what the field may be"
_LONGEST_VALUE = 100

_REF = "#/components/schemas/{name}"
_SCHEMAS, _COMPONENTS = msgspec.json.schema_components([JobRequest, Job, JobList, JobEvent, Problem], ref_template=_REF)
_REQUEST, _JOB, _LIST, _EVENT, _PROBLEM = _SCHEMAS


def _content(media: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": {media: {"schema": dict(schema)}}}


def _answers(status: int, schema: Mapping[str, Any], *refusals: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route: what it answers, and the problems that it may answer instead."""
    return {
        status: {"description": "ok", **_content("application/json", schema)},
        **{refusal: {"description": "a problem", **_content(_PROBLEM_JSON, _PROBLEM)} for refusal in refusals},
    }


_OF_A_JOB = (400, 404)


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, dict(headers or {}), "application/json")


async def _body(request: Request) -> bytes:
    """The body, of a request that says it is JSON. Raises Refused, TooLarge as soon as it is longer than allowed."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused("the body must be JSON", field="header.Content-Type", fix="send Content-Type: application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REQUEST_OCTETS:
            raise TooLarge(f"a job's request has at most {MAX_REQUEST_OCTETS} octets", field="body")
    return bytes(body)


def jobs_router(jobs: Jobs) -> APIRouter:
    """The routes over one folder of jobs."""
    router = APIRouter(tags=["jobs"])

    @router.post(
        "/jobs", status_code=201, response_class=Response, responses=_answers(201, _JOB, 400, 409, 413, 429, 503),
        openapi_extra={"requestBody": {"required": True, **_content("application/json", _REQUEST)}},
    )  # fmt: skip
    async def submit(request: Request) -> Response:
        """Queue a long run."""
        body = await _body(request)
        try:
            job = await jobs.submit(read_job(body))
        except Refused as error:
            return _refusal(error, body)
        return _json(job, 201, {"Location": f"/jobs/{job.id}"})

    @router.get("/jobs", response_class=Response, responses=_answers(200, _LIST, 400))
    async def listing(state: Annotated[JobState | None, Query()] = None) -> Response:
        """All jobs, newest first."""
        return _json(jobs.listing(state))

    @router.get("/jobs/{id}", response_class=Response, responses=_answers(200, _JOB, *_OF_A_JOB))
    async def job(id: str) -> Response:
        """A job as it stands."""
        return _json(jobs.job(check_id(id)))

    @router.get(
        "/jobs/{id}/events", response_class=Response,
        responses={
            **_answers(204, {}, *_OF_A_JOB, 429),
            200: {"description": "id: event id; event: its type; data: a JobEvent", **_content(_STREAM, _EVENT)},
            204: {"description": "the job has ended, and everything was told"},
        },
    )  # fmt: skip
    async def events(
        id: str, last_event_id: Annotated[str | None, Header()] = None,
        after: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    ) -> Response:  # fmt: skip
        """What happens to a job, from the given event on, else from the first."""
        name, start = check_id(id), _resumed(last_event_id, after)
        if jobs.over(name, start):
            return Response(status_code=204)
        jobs.admit_stream(name)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_frames(jobs.events(name, start)), media_type=_STREAM, headers=headers)

    @router.post("/jobs/{id}/cancel", response_class=Response, responses=_answers(200, _JOB, *_OF_A_JOB, 409))
    async def cancel(id: str) -> Response:
        """End a job, with its checkpoint."""
        return _json(await jobs.cancel(check_id(id)))

    @router.post("/jobs/{id}/resume", response_class=Response, responses=_answers(200, _JOB, *_OF_A_JOB, 409, 429))
    async def resume(id: str) -> Response:
        """Queue a job again that ended without finishing."""
        return _json(await jobs.resume(check_id(id)))

    @router.get(
        "/jobs/{id}/files/{name}", response_class=Response,
        responses={
            **_answers(200, {}, *_OF_A_JOB),
            200: {"description": "the file", **_content("application/octet-stream", {"type": "string"})},
        },
    )  # fmt: skip
    async def file(id: str, name: str) -> Response:
        """A file that a job left."""
        path = jobs.file(check_id(id), name)
        return FileResponse(path, media_type="application/octet-stream", headers={"X-Content-Type-Options": "nosniff"})

    @router.delete(
        "/jobs/{id}", status_code=204, response_class=Response,
        responses={**_answers(204, {}, *_OF_A_JOB, 409), 204: {"description": "forgotten"}},
    )  # fmt: skip
    async def remove(id: str) -> Response:
        """Forget a job that has ended, and its files."""
        jobs.remove(check_id(id))
        return Response(status_code=204)

    return router


def create_jobs_app(jobs: Jobs) -> FastAPI:
    """Jobs alone, for a machine that trains and serves no node."""
    app = FastAPI(title="Edgora jobs", docs_url=None, redoc_url=None)
    install_problems(app)
    app.include_router(jobs_router(jobs))

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    return app


def install_problems(app: FastAPI) -> None:
    """Make every error of the application a problem document, and the jobs' types part of /openapi.json."""
    app.add_exception_handler(EdgoraError, _edgora)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, routes=app.routes)
            made.setdefault("components", {}).setdefault("schemas", {}).update(_COMPONENTS)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's way to extend it


async def _frames(events: AsyncIterator[JobEvent | None]) -> AsyncIterator[bytes]:
    async for event in events:
        if event is None:
            yield b": still here\n\n"
        else:
            yield b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.type.encode(), msgspec.json.encode(event))


def _resumed(last_event_id: str | None, after: int | None) -> int:
    """Where a reader goes on: the header that an EventSource sends wins over the query."""
    if last_event_id is None:
        return after or 0
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 20):  # of 64 bits
        raise Refused(
            f"Last-Event-ID {last_event_id[:40]!r} is no event's id", field="header.Last-Event-ID",
            fix="send the id of the last event that you saw, or leave the header out",
        )  # fmt: skip
    return min(int(last_event_id), 2**62)


# ---- problems --------------------------------------------------------------------------------------------------------


def _response(problem: Problem, **more: object) -> Response:
    """The document; `more` are extension members."""
    content = {**msgspec.to_builtins(problem), **more}
    headers = {} if problem.retry_after_s is None else {"Retry-After": str(problem.retry_after_s)}
    return Response(msgspec.json.encode(content), problem.status, headers, _PROBLEM_JSON)


def _refusal(error: Refused, body: bytes) -> Response:
    """The problem of a request, with the value at fault beside its field."""
    problem = problem_of(error)
    if problem.fix is None:
        problem = replace(problem, fix=_FIX)
    value = _value(body, problem.field)
    return _response(problem) if value is msgspec.UNSET else _response(problem, value=value)


def _value(body: bytes, field: str | None) -> object:
    """What the request holds there, if that is short enough to be shown."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.UNSET
    for part in (field or "").split("."):
        if not isinstance(found, dict) or part not in found:
            return msgspec.UNSET
        found = found[part]
    return found if len(msgspec.json.encode(found)) <= _LONGEST_VALUE else msgspec.UNSET


async def _edgora(_: Request, error: Exception) -> Response:
    if not isinstance(error, EdgoraError):
        raise error
    return _response(problem_of(error))


async def _validation(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return _response(problem_of(Refused(f"{field}: {first['msg']}", field=field, fix=_FIX)))


async def _http(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    missing = error.status_code == NotFound.status
    kind: type[EdgoraError] = NotFound if missing else Refused
    said = "no such path" if missing else str(error.detail)
    return _response(replace(problem_of(kind(said, fix="see /openapi.json for the paths")), status=error.status_code))
