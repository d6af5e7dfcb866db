"""The allocator service's small REST: is it alive, can it serve, what has it done.

GET /healthz   the process answers
GET /readyz    200 if the policy's process is up and the bus is reached, else 503 with what is missing
GET /status    counts and the last round, as JSON
GET /metrics   the same for Prometheus
POST /plan     a plan of the UEs' resources (plan_files.PlanRequest -> RadioPlan), told to the servers as it is answered
/jobs          long runs, where the service was given a folder for them (jobs_routes)
"""

from collections.abc import Callable

import msgspec
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from edgora.allocator.allocd.jobs import Jobs
from edgora.allocator.allocd.jobs_routes import install_problems, jobs_router
from edgora.allocator.allocd.planner import Planner
from edgora.allocator.allocd.worker import WorkerStatus
from edgora.allocator.plan_files import read_request
from edgora.ports.bus import Answer, Proposed
from edgora.wire.errors import TooLarge

__all__ = ["MAX_REQUEST_OCTETS", "Metrics", "create_app"]

MAX_REQUEST_OCTETS = 1_048_576
"""Of a plan request: some four times what 256 UEs and 64 servers take."""


class Metrics:
    """Prometheus series of one worker; `observe` is the worker's."""

    def __init__(self, policy: str, node: int) -> None:
        self.registry = CollectorRegistry()
        self._labels = {"policy": policy, "node": str(node)}
        names = list(self._labels)
        self._answers = Counter(
            "edgora_allocd_answers", "Rounds answered, by outcome: proposed or the reason's code.",
            [*names, "outcome"], registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "edgora_allocd_solver_seconds", "Wall seconds from a round to its proposal.", names,
            buckets=(0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.25, 0.5, 1.0), registry=self.registry,
        )  # fmt: skip
        self._ready = Gauge("edgora_allocd_ready", "1 while rounds can be served.", names, registry=self.registry)

    def observe(self, answer: Answer) -> None:
        if isinstance(answer, Proposed):
            self._answers.labels(**self._labels, outcome="proposed").inc()
            self._seconds.labels(**self._labels).observe(answer.allocation.solver_ms / 1000.0)
        else:
            self._answers.labels(**self._labels, outcome=answer.reason.code).inc()

    def exposition(self, *, ready: bool) -> bytes:
        self._ready.labels(**self._labels).set(ready)
        return generate_latest(self.registry)


async def _bounded(request: Request) -> bytes:
    """The body. Raises TooLarge as soon as it is longer than allowed."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REQUEST_OCTETS:
            raise TooLarge(f"a plan request has at most {MAX_REQUEST_OCTETS} octets", field="body")
    return body


def create_app(
    status: Callable[[], WorkerStatus], metrics: Metrics, planner: Planner, jobs: Jobs | None = None
) -> FastAPI:
    """The routes over one worker's status, the planner beside it, and the jobs of its folder."""
    app = FastAPI(title="Edgora allocator", docs_url=None, redoc_url=None)
    install_problems(app)
    if jobs is not None:
        app.include_router(jobs_router(jobs))

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz(response: Response) -> dict[str, object]:
        now = status()
        response.status_code = 200 if now.ready else 503
        return {"ready": now.ready, "engine": now.engine_ready, "bus": now.bus_problem or "reached"}

    @app.get("/status")
    async def state() -> dict[str, object]:
        now = status()
        return {
            "policy": now.policy,
            "node": now.node,
            "ready": now.ready,
            "rounds": now.rounds,
            "proposed": now.proposed,
            "skipped": dict(now.skipped),
            "unreadable": now.unreadable,
            "last_round": now.last_round,
            "last_solver_ms": now.last_solver_ms,
            "plans": planner.plans,
            "plan_fallbacks": planner.fallbacks,
            "last_plan": None if planner.last is None else planner.last.fallback or planner.last.status,
        }

    @app.get("/metrics")
    async def exposition() -> Response:
        return Response(metrics.exposition(ready=status().ready), media_type=CONTENT_TYPE_LATEST)

    @app.post("/plan")
    async def plan(request: Request) -> Response:
        made = await planner.plan(read_request(await _bounded(request)))
        return Response(msgspec.json.encode(made), media_type="application/json")

    return app
