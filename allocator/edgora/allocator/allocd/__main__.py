"""`python -m edgora.allocator.allocd --redis URL --node I --policy NAME [--solve-ms N] [--jobs DIR]`, or `--jobs DIR` alone.

With --jobs it also takes long runs over REST; alone, it takes nothing else, and needs no bus. Exit codes: 0 after SIGINT or SIGTERM, 1 if it failed, 2 for bad usage or a policy that cannot be served.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvicorn

from edgora.adapters.redis_bus import RedisBus
from edgora.allocator.allocd.app import Metrics, create_app
from edgora.allocator.allocd.engine import ProcessEngine
from edgora.allocator.allocd.jobs import Jobs, Limits
from edgora.allocator.allocd.jobs_routes import create_jobs_app
from edgora.allocator.allocd.planner import Planner, solve_in_child
from edgora.allocator.allocd.worker import AllocatorWorker
from edgora.telemetry.tracing import from_environment, open_tracing
from edgora.wire.errors import EdgoraError, Refused, Unavailable


class _Server(uvicorn.Server):
    """uvicorn under our own signal handlers: the worker ends first, then the server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m edgora.allocator.allocd", description="Serve one policy to one node."
    )
    parser.add_argument("--redis", metavar="URL", help="redis://host:port/0")
    parser.add_argument("--prefix", default="edgora", help="of the streams' names")
    parser.add_argument("--node", type=int, help="server id of the node")
    parser.add_argument("--policy", help="a solver of mta, or module:object")
    parser.add_argument("--solve-ms", type=int, metavar="N", help="cap on the budget that rounds bring")
    parser.add_argument("--floor-bps", type=int, default=10_000, help="the market's floor_bps")
    parser.add_argument("--seed", type=int, default=0, help="the policy's seed")
    parser.add_argument(
        "--allocation", default="", help="the user's policy that plans may be asked of, tcr:module:object"
    )
    parser.add_argument("--host", default="127.0.0.1", help="of /healthz, /readyz, /status, /metrics and /plan")
    parser.add_argument("--port", type=int, default=8190)
    parser.add_argument("--jobs", type=Path, metavar="DIR", help="take long runs as jobs, and keep them here")
    limits = Limits()
    parser.add_argument("--jobs-running", type=int, default=limits.running, metavar="N", help="jobs at a time")
    parser.add_argument("--jobs-memory-mb", type=int, default=limits.memory_mb, metavar="N", help="memory of each")
    settings = parser.parse_args(arguments)
    serving = [settings.redis is not None, settings.node is not None, settings.policy is not None]
    if not (all(serving) or (settings.jobs is not None and not any(serving))):
        parser.error("give --redis, --node and --policy to serve a node, or --jobs alone to take jobs")
    if settings.jobs_running < 1 or settings.jobs_memory_mb < LEAST_MEMORY_MB:
        parser.error(f"--jobs-running must be at least 1, --jobs-memory-mb at least {LEAST_MEMORY_MB}")
    return settings


LEAST_MEMORY_MB = 256
"""What a job's libraries take by themselves."""


@contextlib.asynccontextmanager
async def _jobs(settings: argparse.Namespace) -> AsyncIterator[Jobs | None]:
    if settings.jobs is None:
        yield None
        return
    jobs = Jobs(settings.jobs, Limits(running=settings.jobs_running, memory_mb=settings.jobs_memory_mb))
    await jobs.open()
    try:
        yield jobs
    finally:
        await jobs.close()


async def serve(settings: argparse.Namespace) -> None:
    """Serve until a signal. Raises EdgoraError."""
    async with _jobs(settings) as jobs:
        if settings.redis is None and jobs is not None:
            await _serve_jobs(settings, jobs)
        else:
            await _serve_rounds(settings, jobs)


async def _serve_jobs(settings: argparse.Namespace, jobs: Jobs) -> None:
    app = create_jobs_app(jobs)
    server = _Server(uvicorn.Config(app, host=settings.host, port=settings.port, log_level="warning"))
    enough = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, enough.set)
    serving, stop = asyncio.create_task(_listen(server)), asyncio.create_task(enough.wait())
    await asyncio.wait((serving, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    await jobs.close()  # ends the open streams, too
    server.should_exit = True
    await serving


async def _serve_rounds(settings: argparse.Namespace, jobs: Jobs | None) -> None:
    bus = RedisBus(settings.redis, prefix=settings.prefix)
    engine = ProcessEngine(settings.policy, seed=settings.seed, floor_bps=settings.floor_bps)
    metrics = Metrics(settings.policy, settings.node)
    spans = open_tracing("allocator", str(settings.node), from_environment(os.environ))
    worker = AllocatorWorker(
        bus, settings.node, engine,
        solve_ms=settings.solve_ms, consumer=f"{socket.gethostname()}-{os.getpid()}", observe=metrics.observe,
        tracing=spans,
    )  # fmt: skip
    app = create_app(lambda: worker.status, metrics, Planner(bus, solve_in_child, own=settings.allocation), jobs)
    server = _Server(uvicorn.Config(app, host=settings.host, port=settings.port, log_level="warning"))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, worker.stop)
    working, serving = asyncio.create_task(worker.run()), asyncio.create_task(_listen(server))
    try:
        await asyncio.wait((working, serving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        worker.stop()
        if jobs is not None:
            await jobs.close()  # ends the open streams, too
        server.should_exit = True
        ended = await asyncio.gather(working, serving, return_exceptions=True)
        await bus.close()
        spans.close()
    for error in ended:
        if isinstance(error, BaseException):
            raise error


async def _listen(server: _Server) -> None:
    try:
        await server.serve()
    except SystemExit:  # uvicorn's answer to a port in use; it has logged which
        raise Unavailable(f"cannot listen on {server.config.host}:{server.config.port}") from None


def main(arguments: list[str]) -> int:
    settings = _arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        asyncio.run(serve(settings))
    except EdgoraError as error:
        sys.stderr.write(f"allocd: {error.detail}\n")
        return 2 if isinstance(error, Refused) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
