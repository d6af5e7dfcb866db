"""One plan in a process of its own: `python -m edgora.allocator.allocd.plan_child`, a PlanRequest on stdin.

A RadioPlan on the original stdout and exit code 0; a `Declined` and 2 for a request that is wrong in itself. What the
policy prints goes to stderr. The process is the service's to kill: nothing that a policy does outlives its budget.
"""

import os
import signal
import sys

import msgspec

from edgora.allocator.plan_files import read_request
from edgora.wire.errors import Refused

__all__ = ["Declined", "main"]


class Declined(msgspec.Struct, frozen=True):
    """Why a request gets no plan."""

    detail: str
    field: str | None = None


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on a terminal is the service's to handle
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's policy is found from the working directory
    status, answer = 0, b""
    try:
        request = read_request(sys.stdin.buffer.read())
        from edgora.allocator.radio_plan import solve_plan

        answer = msgspec.json.encode(solve_plan(request))
    except Refused as error:
        status, answer = 2, msgspec.json.encode(Declined(error.detail, error.field))
    answers.write(answer)
    answers.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
