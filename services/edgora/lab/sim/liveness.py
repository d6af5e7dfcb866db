"""What a healed consortium owes, and within which bounds (ledger.md 19: P5, P8, P10).

All bounds are multiples of T, the view-change timeout: the initial one of the options or, where patience is asked for,
the longest that a live machine has backed off to. Every check lets virtual time pass and raises `Violation` when what
it waits for does not come.
"""

from typing import TYPE_CHECKING

from edgora.lab.sim.violation import Violation
from edgora.wire.ledger import faulty

if TYPE_CHECKING:
    from edgora.lab.sim.host import Host
    from edgora.lab.sim.world import World

__all__ = ["check_caps", "check_drained", "check_message_count", "check_progress", "check_takeover", "check_together"]

NEW_BLOCKS = 5
PATIENCE = 20
"""P5: NEW_BLOCKS within PATIENCE times T."""

KILL_PATIENCE = 10
"""After the primary of a healthy consortium dies, the next blocks come within so many initial T: back-off was reset."""

RESTARTS_MS = 150
"""By then the machines that healing brings back have booted."""


def check_progress(world: "World") -> None:
    """P5: every live correct machine gets new blocks."""
    world.run_until(world.now + RESTARTS_MS)
    patience = _patience(world)
    goal = world.height + NEW_BLOCKS
    deadline = world.now + PATIENCE * patience
    if not world.run_until(deadline, lambda: all(host.height >= goal for host in world.live)):
        raise Violation("P5", f"height {goal} is not reached everywhere {PATIENCE} x {patience} ms after healing")


def check_together(world: "World") -> None:
    """P5: every live machine votes, in one active view, unless a liar talked one into leaving it."""
    if world.options.byzantine is not None:
        return
    deadline = world.now + PATIENCE * _patience(world)
    if not world.run_until(deadline, lambda: len(_views(world)) == 1):
        raise Violation("P5", f"views {sorted(_views(world))} side by side {PATIENCE} T after healing; one is left out")


def _views(world: "World") -> set[tuple[int, bool]]:
    """(view, active) of the live machines."""
    found = (host.replica.status(host.local_ms()) for host in world.live if host.replica is not None)
    return {(status.view, status.active) for status in found}


def check_takeover(world: "World") -> None:
    """With nobody else faulty, the death of the primary costs a bounded time: back-off was reset by progress."""
    options = world.options
    if options.byzantine is not None or options.dead or faulty(options.n) == 0:
        return
    witness = world.live[0]
    assert witness.replica is not None
    primary = world.machines[witness.replica.status(witness.local_ms()).primary][0]
    primary.crash()
    world.note("takeover", primary.name)
    goal = world.height + 2
    deadline = world.now + KILL_PATIENCE * options.timeout_ms
    if not world.run_until(deadline, lambda: all(host.height >= goal for host in world.live)):
        raise Violation("P5", f"height {goal} is not reached {KILL_PATIENCE} T after primary {primary.name} died")
    primary.boot()


def check_drained(world: "World") -> None:
    """P5 in the clients' eyes: once they ask nothing new, everything is answered and certified."""
    world.load.stop()
    deadline = world.now + 2 * PATIENCE * _patience(world)
    if not world.run_until(deadline, lambda: not world.load.unfinished() and world.settled):
        waiting = [o.hash.hex()[:12] for o in world.load.unfinished()]
        heights = {host.name: host.height for host in world.live}
        raise Violation("P5", f"clients still wait for {waiting}; heights {heights}")


def check_message_count(world: "World") -> None:
    """P10 of a run without faults: a block costs at most 4 n^2 messages."""
    limit = 4 * world.options.n**2
    if world.post.sent > limit * max(1, world.height):
        raise Violation("P10", f"{world.post.sent} messages for {world.height} blocks; {limit} a block are allowed")


def check_caps(world: "World") -> None:
    """P10 and P8 at any moment: pools stay within their caps, and nobody correct is accused."""
    for host in world.correct:
        if host.replica is not None:
            status = host.replica.status(host.local_ms())
            if status.pool > world.params.pool_txs or status.pool_octets > world.params.pool_octets:
                raise Violation("P10", f"replica {host.name} pools {status.pool} transactions")
            if len(status.evidence) and any(world.options.byzantine != e.accused for e in status.evidence):
                raise Violation("P8", f"replica {host.name} accuses a correct one: {status.evidence}")


def _patience(world: "World") -> int:
    """The longest T of a live correct machine, in ms."""
    return max(_timeout(world, host) for host in world.live)


def _timeout(world: "World", host: "Host") -> int:
    assert host.replica is not None
    return max(world.options.timeout_ms, host.replica.status(host.local_ms()).timeout_ms)
