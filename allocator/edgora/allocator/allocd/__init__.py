"""The allocator service: rounds in from the bus, proposals out, within a hard time budget (market.md 4).

One worker serves one (node, policy). It holds no key and no state that matters: it may be stopped, killed, slow or
wrong at any moment, and the market falls back to its built-in greedy with a reason that is visible.

    worker    takes rounds, watches the clock, publishes `Proposed` or `Skipped` with a reason
    engine    where the policy computes: a thread (embedded) or a child process (the service)
    child     the child process's side
    planner   plans of the UEs' resources (tcr, dpe), and each server's shares of them on the bus
    plan_child  the process that solves one
    jobs      long runs: queue, processes, records and events on disk (jobs_files, jobs_folder, jobs_child, jobs_routes)
    app       health, readiness, status, metrics and plans over HTTP
    __main__  `python -m edgora.allocator.allocd`
"""

from edgora.allocator.allocd.engine import Engine, ProcessEngine, ThreadEngine
from edgora.allocator.allocd.planner import Planner, solve_in_child, solve_in_thread
from edgora.allocator.allocd.worker import AllocatorWorker, WorkerStatus

__all__ = [
    "AllocatorWorker", "Engine", "Planner", "ProcessEngine", "ThreadEngine", "WorkerStatus", "solve_in_child",
    "solve_in_thread",
]  # fmt: skip
