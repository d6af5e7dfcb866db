"""All timers of a replica, as functions of its state (ledger.md 10, 11).

`update` runs at the end of each step: it derives every deadline from what is due and tells the driver what changed.
`on_timer` acts on one that fired. Nothing else sets a view-change timer, so a timer can only run while its reason
exists: nothing to order means nothing to time out.

| timer | runs while | fires |
|---|---|---|
| progress | a duty is outstanding in an active view; from the last commit, or for an overdue wake-up from that | suspect |
| inclusion | a ready transaction waits although later ones were executed | suspect |
| heartbeat | the view is active; primary: since it last spoke; backup: since it last heard the primary | speak; suspect |
| view | q view changes for our next view are here | suspect |
| resend | the view is not active | send the VIEW_CHANGE again |
| status | always | STATUS to all, own waiting transactions again |
| propose, fetch, gossip | set by `proposing`, `sync`, `gossip` | just a step: those look again |

To suspect is to tell all peers at once and to leave the view as soon as f of them suspect too (`views`, rule 0). What
ends the wait - a commit, the primary's voice, its NEW_VIEW, a pause of our own - ends the suspicion.
"""

from edgora.ledger import gossip, proposing, sync
from edgora.ledger.effects import ALL
from edgora.ledger.state import Core

__all__ = ["clock_leapt", "duties", "heartbeat_interval", "on_heartbeat", "on_timer", "update"]

_MISSED = 4
"""Heartbeats that a backup lets pass, and that calm the back-off."""
_PATIENCE = {
    "progress": "no commit although something is due",
    "inclusion": "a transaction is left out",
    "heartbeat": "the primary is silent",
    "view": "no NEW_VIEW",
}
"""Timers whose end makes a replica suspect the primary, and what it then says."""
_BINDS = 3
"""For so many repetitions of a VIEW_CHANGE who suspected follows a peer that may have left on its word."""


def heartbeat_interval(core: Core) -> int:
    return min(core.params.timeout_ms // 4, 250)


def duties(core: Core) -> bool:
    """Whether something must lead to a commit: ready transactions, results to seal, a base or block in flight."""
    view, chain = core.view, core.chain
    return bool(
        core.pool.ready
        or proposing.seal_due(core, chain.head) is not None
        or view.pending_base is not None
        or view.last_height > chain.head.height
    )


def _progress_deadline(core: Core) -> int | None:
    """When the present view has failed to commit what is due; None while nothing is."""
    view, timers, chain = core.view, core.timers, core.chain
    if not view.active or not core.may_sign:
        return None
    if sync.behind_target(core) > chain.head.height:
        timers.progress_since = None  # others commit: what we miss is the blocks, not the primary
        return None
    if not duties(core):
        timers.progress_since = None
    elif timers.progress_since is None:
        timers.progress_since = core.now
    since = timers.progress_since
    wake = chain.wake_at
    if wake is not None and chain.head.time_ms < wake:
        overdue = max(wake + core.shift, view.entered_ms, timers.rearmed_ms)
        since = overdue if since is None else min(since, overdue)
    return None if since is None else since + core.timeout_ms


def _inclusion_deadline(core: Core) -> int | None:
    if not core.view.active or not core.may_sign:
        return None
    oldest = core.pool.oldest_ready()
    if oldest is None or oldest[0].arrival > core.pool.last_executed_arrival:
        return None
    since = max(oldest[1], core.view.entered_ms, core.timers.rearmed_ms)
    return since + core.params.inclusion_factor * core.timeout_ms


def _heartbeat_deadline(core: Core) -> int | None:
    if not core.view.active or not core.may_sign or not core.peers:
        return None
    interval = heartbeat_interval(core)
    if core.is_primary:
        return core.timers.heartbeat_ms + interval
    return core.timers.heartbeat_ms + max(_MISSED * interval, core.timeout_ms)


def update(core: Core) -> None:
    """Derive all deadlines anew, and tell the peers if we have begun or ceased to suspect the primary."""
    view, timers, params = core.view, core.timers, core.params
    waits = not view.active and core.may_sign
    since = timers.new_view_since
    for name, deadline in (
        ("progress", _progress_deadline(core)),
        ("inclusion", _inclusion_deadline(core)),
        ("heartbeat", _heartbeat_deadline(core)),
        ("view", since + core.timeout_ms if waits and since is not None else None),
        ("resend", timers.resent_ms + params.resend_view_change_ms if waits else None),
        ("status", timers.status_ms + params.status_interval_ms if core.peers else None),
    ):
        if name in timers.overdue:
            if deadline is not None and deadline <= core.now:
                continue  # it has fired, and nothing has ended the wait
            del timers.overdue[name]
        core.set_timer(name, deadline)
    for why in timers.overdue.values():
        timers.suspicion = core.now + _BINDS * params.resend_view_change_ms, why
    if timers.told != bool(timers.overdue):
        timers.told = not timers.told
        _speak(core)


def on_timer(core: Core, name: str) -> None:
    """Act on a timer that fired; one that is not due (moved or cancelled meanwhile) does nothing."""
    deadline = core.timers.armed.get(name)
    if deadline is None or deadline > core.now:
        return
    del core.timers.armed[name]
    match name:
        case "heartbeat" if core.is_primary:
            _speak(core)
            _calm(core)
        case "progress" | "inclusion" | "heartbeat" | "view":
            core.timers.overdue[name] = _PATIENCE[name]
        case "resend":
            core.timers.resent_ms = core.now
            if core.view.own_change is not None:
                core.send(ALL, core.view.own_change)
        case "status":
            core.timers.status_ms = core.now
            _speak(core)
            gossip.repeat(core)
        case _:
            pass  # the step itself is what was asked for


def _speak(core: Core) -> None:
    core.send(ALL, sync.own_status(core))
    if core.is_primary:
        core.timers.heartbeat_ms = core.now


def on_heartbeat(core: Core) -> None:
    """The active view's primary has spoken."""
    core.timers.heartbeat_ms = core.now
    _calm(core)


def _calm(core: Core) -> None:
    """Forget the back-off after some heartbeats of an idle view. While something is due only a commit does that."""
    if duties(core):
        core.view.heartbeats = 0
        return
    core.view.heartbeats += 1
    if core.view.heartbeats >= _MISSED:
        core.view.failures = 0


def clock_leapt(core: Core, by_ms: int) -> None:
    """We were paused, or the clock was set forward: what would have fired meanwhile waits its full time again."""
    timers = core.timers
    timers.rearmed_ms = core.now
    timers.heartbeat_ms += by_ms
    if timers.progress_since is not None:
        timers.progress_since = core.now
    if timers.new_view_since is not None:
        timers.new_view_since = core.now
    update(core)
