"""Where a replica stands and why it waits: values, never log lines (market.md 7)."""

import msgspec

from edgora.wire.pbft import Evidence

__all__ = ["PeerStatus", "ReplicaStatus", "VoteStatus", "WaitReason"]


class WaitReason(msgspec.Struct, frozen=True):
    """Why consensus waits, with the numbers; `sentence` is the one place that words it."""

    code: str
    numbers: dict[str, int] = {}
    silent: tuple[int, ...] = ()
    """Validators whose vote or message is still missing."""

    def sentence(self) -> str:
        who = ", ".join(map(str, self.silent))
        text = _SENTENCES[self.code].format(**self.numbers)
        return f"{text}; silent: {who}" if who else text


_SENTENCES = {
    "idle": "nothing to order; height {height} is certified",
    "booting": "the log is not read yet",
    "halted": "results diverge at height {height}: voting has stopped for good",
    "observing": "this replica observes only; height {height}",
    "view_change": "leaving for view {view}: {have} of {need} view changes",
    "new_view": "waiting for the new primary {primary} of view {view}, {have} of {need} view changes are here",
    "syncing": "{behind} blocks behind height {target}",
    "snapshot": "fetching the state of height {height}: {have} of {need} buckets",
    "base": "view {view} starts by re-proposing height {height}: {have} of {need} votes",
    "proposal": "waiting for primary {primary} to propose height {height}",
    "prepare": "height {height}: {have} of {need} PREPARE",
    "commit": "height {height}: {have} of {need} COMMIT",
    "signatures": "height {height}: checking transaction signatures",
    "execution": "height {height} names results of {exec_height}, {executed} is executed here",
    "checkpoint": "height {height} is too far above the stable checkpoint {stable}",
    "seal": "the results of height {height} wait for a header that certifies them",
    "batch": "{waiting} transactions wait for the batch delay",
    "window": "{in_flight} blocks in flight, the window is {window}",
}


class VoteStatus(msgspec.Struct, frozen=True):
    """Votes seen for the next height in the present view."""

    height: int
    prepared: tuple[int, ...]
    committed: tuple[int, ...]
    silent: tuple[int, ...]
    """Who has sent neither."""


class PeerStatus(msgspec.Struct, frozen=True):
    index: int
    view: int
    active: bool
    height: int
    checkpoint: int
    age_ms: int


class ReplicaStatus(msgspec.Struct, frozen=True):
    index: int
    epoch: int
    view: int
    active: bool
    primary: int
    height: int
    """Committed and executed."""
    block_hash: bytes
    time_ms: int
    """Header time of the head."""
    state_root: bytes
    certified: int
    """Highest height whose results stand under a committed header."""
    accepted: int
    """Last height accepted in this view."""
    tip_view: int
    tip_height: int
    checkpoint: int
    """Last stable checkpoint."""
    pool: int
    pool_octets: int
    oldest_wait_ms: int
    """How long the longest-waiting executable transaction is pooled; admission control reacts to it."""
    timeout_ms: int
    """T with its present back-off."""
    timers: dict[str, int]
    """Armed timers and their deadlines."""
    votes: VoteStatus
    peers: tuple[PeerStatus, ...]
    waiting: WaitReason
    left_because: str
    """Why the previous view was left, while the present one is not active."""
    evidence: tuple[Evidence, ...]
    halted: str | None
