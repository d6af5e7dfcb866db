"""What a job is asked for and what is told about it: plain data, JSON on the wire and on disk.

    JobRequest   TrainJob, EvaluateJob or SolveJob, told apart by `kind`
    Job          state, progress, result or error, and the files that it left
    JobEvent     one line of a job's stream: a change of state, or progress

A request names no path and no code of the caller's: files are those of jobs (`job:ID` is another job's policy.npz),
and a `module:object` is for whoever runs the command on his own machine. Every list and number is bounded.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

import msgspec

from edgora.allocator.files import read_json
from edgora.wire.errors import EdgoraError, Refused, RuleRefused, TooMany
from edgora.wire.rest import Problem

__all__ = [
    "ENDED", "MAX_REQUEST_OCTETS", "EvaluateJob", "File", "Job", "JobEvent", "JobId", "JobList", "JobRequest",
    "JobState", "SolveJob", "Step", "TrainJob", "check_id", "document", "label", "problem_of", "read_job", "reference",
]  # fmt: skip

MAX_REQUEST_OCTETS = 16_777_216
"""Of a request: an instance of the greatest size in JSON has some 10^7 octets."""
MAX_SEEDS = 10_000

ID = re.compile(r"[0-9a-f]{16}")
_REFERENCE = re.compile(r"job:([0-9a-f]{16})")

Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$")]
Key = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Value = bool | int | float | Annotated[str, msgspec.Meta(max_length=200)] | None
Settings = Annotated[dict[Key, Value], msgspec.Meta(max_length=64)]
"""As `--set`."""
PolicyName = Annotated[str, msgspec.Meta(pattern=r"^(job:[0-9a-f]{16}|[A-Za-z0-9_-]{1,100})$")]
JobId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
JobState = Literal["queued", "running", "finished", "failed", "cancelled", "interrupted"]

ENDED: frozenset[JobState] = frozenset({"finished", "failed", "cancelled", "interrupted"})
"""States in which nothing happens any more; all but `finished` can be resumed."""


class TrainJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="train"):
    """`edgora train`: leaves policy.npz, log.jsonl, checkpoint.npz."""

    problem: Literal["baas", "privacy"]
    algo: Name
    seed: Seed = 0
    settings: Settings = {}


class EvaluateJob(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="evaluate"
):
    """`edgora evaluate`: leaves evaluation.json, and trace.npz on request."""

    problem: Literal["baas", "privacy"]
    policy: PolicyName
    """A solver's name, or `job:ID`: the policy that a finished training job left."""
    seeds: tuple[Seed, Seed]
    """First and last environment seed, both played."""
    settings: Settings = {}
    trace: bool = False

    def __post_init__(self) -> None:
        first, last = self.seeds
        if not 0 <= last - first < MAX_SEEDS:
            raise ValueError(f"seeds are {first}..{last}: must hold 1..{MAX_SEEDS} seeds")


class SolveJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="solve"):
    """`edgora draw`, unless an instance is given, and `edgora solve`: leaves instance.json and solution.json."""

    problem: Literal["mta", "tcr", "dpe", "baas", "privacy"]
    solver: Name
    seed: Seed = 0
    """The solver's."""
    time_limit_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None
    settings: Settings = {}
    """The solver's; `file` may be `job:ID`."""
    instance: dict[str, Any] | None = None
    """An instance file's document; null: one is drawn."""
    draw_seed: Seed = 0
    draw: Settings = {}
    """What the drawn instance is made with."""
    trace: bool = False
    """Also trace.npz, for baas and privacy."""


JobRequest = TrainJob | EvaluateJob | SolveJob


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job is."""

    done: int
    total: int
    """0: unknown."""
    figures: Mapping[str, float] = {}
    """What was last logged: reward, loss, ...; objective and bound of a solver."""


class File(msgspec.Struct, frozen=True):
    name: str
    octets: int


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One job as it stands."""

    id: JobId
    request: JobRequest
    """As asked; of a given instance only that it was given (its file has it)."""
    state: JobState
    why: str
    """One sentence: what it waits for, what it does, or how it ended."""
    attempts: int = 0
    """How often it was started."""
    submitted_ms: int
    queued_ms: int
    """Since when it has waited, of a queued one."""
    started_ms: int | None = None
    ended_ms: int | None = None
    progress: Step | None = None
    result: dict[str, Any] | None = None
    """What the verb's `--json` says; of a stopped training or search what there is."""
    error: Problem | None = None
    event: int = 0
    """Number of its newest event."""
    files: tuple[File, ...] = ()


class JobList(msgspec.Struct, frozen=True):
    """Newest first."""

    items: tuple[Job, ...]
    running: int
    queued: int
    most_running: int
    most_kept: int


class JobEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """id counts from 1 within a job; a stream resumes after any of them."""

    id: int
    at_ms: int
    type: Literal["state", "progress"]
    state: JobState | None = None
    why: str | None = None
    progress: Step | None = None
    error: Problem | None = None


def read_job(data: bytes) -> JobRequest:
    """The request in a body. Raises Refused by field."""
    try:
        request: JobRequest = read_json(data, cast("type[JobRequest]", JobRequest), "job")
    except Refused as error:
        seeds = error.field == "$" and "seeds are" in error.detail
        raise Refused(error.detail, field="seeds" if seeds else (error.field or "$").removesuffix("[...]")) from None
    for key in request.settings:
        value = request.settings[key]
        if key == "trace" or (key == "file" and not (isinstance(value, str) and _REFERENCE.fullmatch(value))):
            raise Refused(
                f"settings.{key} is {value!r}: a job names no path of this machine", field=f"settings.{key}",
                fix="set the job's own field trace to true" if key == "trace" else "give job:ID of a training job",
            )  # fmt: skip
    if isinstance(request, SolveJob) and request.instance is not None and (request.draw or request.draw_seed):
        raise Refused("an instance is given, so none is drawn: leave out draw and draw_seed", field="draw")
    return request


def reference(text: object) -> str | None:
    """The id in `job:ID`."""
    found = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
    return None if found is None else found[1]


def check_id(text: str) -> str:
    """The same id. Raises Refused for what cannot be one."""
    if ID.fullmatch(text) is None:
        raise Refused(f"{text[:40]!r} is no job's id: 16 hexadecimal digits", field="path.id")
    return text


def label(request: JobRequest) -> str:
    """What a job does, in a few words."""
    match request:
        case TrainJob():
            return f"train {request.problem} {request.algo}"
        case EvaluateJob():
            return f"evaluate {request.problem} {request.policy}"
        case SolveJob():
            return f"solve {request.problem} {request.solver}"


def problem_of(error: EdgoraError) -> Problem:
    """The problem document of an error (RFC 9457), as the nodes answer."""
    from http import HTTPStatus

    return Problem(
        type=f"urn:edgora:problem:{error.code}", title=HTTPStatus(error.status).phrase, status=error.status,
        code=error.code, detail=error.detail, field=error.field, fix=error.fix,
        rule=error.rule if isinstance(error, RuleRefused) else None,
        retry_after_s=error.retry_after_s if isinstance(error, TooMany) else None,
    )  # fmt: skip


def document(value: object) -> dict[str, Any]:
    """A Struct, dataclass or mapping as a JSON object."""
    found: dict[str, Any] = msgspec.to_builtins(value, str_keys=True)
    return found
