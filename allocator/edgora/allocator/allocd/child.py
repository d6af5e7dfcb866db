"""The child process of the allocator service: one policy, one job at a time.

`python -m edgora.allocator.allocd.child POLICY SEED FLOOR_BPS`, jobs on stdin, answers on the original stdout. What
the policy prints goes to stderr, so a user's policy cannot break the frames. Before it says hello it solves a small
round, so that every import is done when the first budget runs.
"""

import os
import signal
import sys
import warnings
from typing import BinaryIO

from edgora.allocator.allocd.frames import Done, Hello, Job, frame, read_frame
from edgora.wire.codec import decode, encode
from edgora.wire.errors import EdgoraError
from edgora.wire.market import Instance, LiveServer, OpenTask, Reason

__all__ = ["WARM_UP", "main"]

WARM_UP = Instance(
    round=0,
    now_ms=0,
    slack_ms=0,
    tasks=tuple(OpenTask(bytes(32), bytes(20), 0, 2, 5 + j, 1, 1, 1, 2**40, ()) for j in range(2)),
    servers=tuple(LiveServer(i, 1, 2, 1, 1 + i, 1, 0, 2, 0) for i in range(2)),
)
"""Two tasks that both want the cheaper server, which has room for one: even `exact` has to search."""


def main(arguments: list[str]) -> int:
    name, seed, floor_bps = arguments[0], int(arguments[1]), int(arguments[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on a terminal is the parent's to handle
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's policy is found from the working directory
    try:
        from edgora.allocator.live import propose
        from edgora.allocator.registry import policy

        chosen = policy("mta", name, seed=seed)
        propose(WARM_UP, chosen, 1.0, floor_bps=floor_bps)
    except (EdgoraError, ImportError) as error:
        _say(answers, Hello(str(error)))
        return 2
    _say(answers, Hello(None))
    while (data := read_frame(jobs)) is not None:
        job = decode(data, Job)
        try:
            answer = propose(job.instance, chosen, job.budget_ms / 1000.0, floor_bps=floor_bps)
        except Exception as error:
            warnings.warn(f"policy {name} failed in round {job.instance.round}: {error!r}", stacklevel=1)
            answer = Reason("FAILED", f"{name}: {error!r}"[:300], (job.instance.round,))
        if isinstance(answer, Reason):
            _say(answers, Done(job.number, None, answer))
        else:
            _say(answers, Done(job.number, answer, None))
    return 0


def _say(answers: BinaryIO, message: Hello | Done) -> None:
    try:
        answers.write(frame(encode(message)))
        answers.flush()
    except BrokenPipeError:  # the service is gone: so is the reason to be here
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
