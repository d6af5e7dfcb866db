"""What a seed means: every choice of a simulated schedule, printable and replayable (ledger.md 19).

A seed expands to an `Options` value by one PRNG; nothing else steers a run, so the printed options explain it and the
seed repeats it. Faults are planned up front as a list, so that a shrinker can drop them one by one.

The fault budget: at most one replica is Byzantine (its identity; a twin counts as one), any number may crash and come
back with their disk or pause or be cut off in the safety phase, and in the liveness phase Byzantine and dead replicas
together are at most f.
"""

import random
from typing import Literal

import msgspec

from edgora.wire.ledger import faulty

__all__ = ["BEHAVIOURS", "FAULT_KINDS", "NEMESES", "Fault", "Options", "expand"]

App = Literal["counter", "market"]

BEHAVIOURS = (
    "equivocate", "silent_primary", "few_backups", "selective_commit", "stale_view_change", "forged_view_change",
    "huge_views", "garbage", "bad_blocks", "withhold", "lying_sync", "foreign", "malleate", "slow_drip", "twin",
)  # fmt: skip
"""What a Byzantine replica may do; each is one method of `byzantine.Behaviour`, `twin` is a second correct instance."""

FAULT_KINDS = (
    "crash",
    "crash_all",
    "pause",
    "split",
    "one_way",
    "flap",
    "slow_disk",
    "starve",
    "old_votes_last",
    "few_commits",
)

NEMESES = ("first_commit", "first_prepare", "persist_send", "view_change", "new_view")
"""Moments at which a nemesis crashes or cuts off the replica that just did this."""


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """One planned misfortune. Masks are bit sets of validator indices."""

    at_ms: int
    kind: str
    """One of FAULT_KINDS, or "nemesis:" and one of NEMESES: waits for its moment from at_ms on, strikes once."""
    mask: int
    ms: int
    """How long it lasts; for a crash, until the restart."""
    strike: str = ""
    """Of a nemesis: "crash" or "cut"."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule. Times in ms of virtual time, rates per mille."""

    seed: int
    app: App = "counter"
    n: int = 4
    window: int = 4
    block_txs: int = 20
    checkpoint_every: int = 32
    timeout_ms: int = 1_000
    timeout_cap_ms: int = 16_000
    drop: int = 0
    duplicate: int = 0
    delay_ms: tuple[int, int] = (1, 10)
    burst: int = 0
    """Per mille of messages that take up to 600 ms whatever delay_ms says: deep reordering."""
    skew_ms: tuple[int, ...] = ()
    """Clock offset by validator."""
    drift_ppm: tuple[int, ...] = ()
    sync_ms: tuple[int, int] = (0, 3)
    verify_ms: int = 0
    """0: signatures are checked within the step; else answers take up to so long."""
    clients: int = 3
    ops_per_s: int = 6
    stranger: bool = False
    """Whether some clients misbehave: repeated, skipped, expired and unknown sequence numbers and senders."""
    safety_ms: int = 15_000
    byzantine: int | None = None
    behaviours: tuple[str, ...] = ()
    dead: tuple[int, ...] = ()
    """Crashed before the liveness phase and never back."""
    faults: tuple[Fault, ...] = ()

    @property
    def calm(self) -> bool:
        """Nothing goes wrong at all: message counts must then stay within ledger.md 19 P10."""
        return not (self.drop or self.duplicate or self.burst or self.faults or self.dead or self.byzantine is not None)


def _some(rng: random.Random, n: int, least: int = 1) -> int:
    """A random set of at least `least` and fewer than n validators, as a mask."""
    return sum(1 << i for i in rng.sample(range(n), rng.randint(least, n - 1)))


def _fault(rng: random.Random, n: int, until_ms: int) -> Fault:
    at = rng.randrange(200, until_ms)
    one = 1 << rng.randrange(n)
    kind = rng.choices(
        [
            "crash",
            "crash_all",
            "pause",
            "split",
            "one_way",
            "flap",
            "slow_disk",
            "starve",
            "old_votes_last",
            "few_commits",
            "nemesis",
        ],
        [4, 1, 1, 3, 2, 1, 1, 1, 1, 2, 5],
    )[0]
    match kind:
        case "crash":
            return Fault(at, kind, _some(rng, n) if rng.random() < 0.2 else one, rng.choice((50, 400, 2_000, 6_000)))
        case "crash_all":
            return Fault(at, kind, (1 << n) - 1, rng.randint(20, 2_000))
        case "pause":
            return Fault(at, kind, one, rng.choice((300, 3_000, 10_000)))
        case "split" | "one_way" | "flap":
            return Fault(at, kind, _some(rng, n), rng.choice((300, 1_500, 4_000, 8_000)))
        case "slow_disk":
            return Fault(at, kind, one, rng.choice((1_000, 5_000)))
        case "starve" | "old_votes_last" | "few_commits":
            return Fault(at, kind, one, rng.choice((500, 2_000, 5_000)))
        case _:
            strike = rng.choice(("crash", "cut"))
            return Fault(at, f"nemesis:{rng.choice(NEMESES)}", 0, rng.choice((200, 1_500, 4_000)), strike)


def expand(seed: int, app: App = "counter") -> Options:
    """The schedule of a seed."""
    rng = random.Random(f"options:{seed}")
    n = rng.choices((4, 5, 7), (6, 2, 1))[0]
    safety_ms = rng.choice((4_000, 7_000, 10_000))
    if rng.random() < 0.05:
        return Options(seed=seed, app=app, n=n, safety_ms=safety_ms, ops_per_s=10)
    hard = rng.random() < 0.3
    low = rng.choice((1, 1, 5, 20))
    byzantine = rng.randrange(n) if rng.random() < 0.5 else None
    behaviours = tuple(sorted(rng.sample(BEHAVIOURS, rng.randint(1, 3)))) if byzantine is not None else ()
    spare = faulty(n) - (byzantine is not None)
    alive = [i for i in range(n) if i != byzantine]
    dead = tuple(sorted(rng.sample(alive, spare))) if spare and rng.random() < 0.4 else ()
    faults = [_fault(rng, n, safety_ms) for _ in range(rng.choice((0, 2, 4, 6, 10)))]
    return Options(
        seed=seed,
        app=app,
        n=n,
        window=rng.choice((1, 2, 4, 4, 8)),
        block_txs=rng.choice((1, 5, 20)),
        checkpoint_every=rng.choice((8, 16, 32)),
        drop=rng.choice((0, 10, 50, 200)) if hard else rng.choice((0, 0, 10)),
        duplicate=rng.choice((0, 0, 20, 100)),
        delay_ms=(low, low + rng.choice((3, 20, 100, 580) if hard else (3, 20))),
        burst=rng.choice((0, 0, 5, 30)),
        skew_ms=tuple(rng.randint(-700, 700) if rng.random() < 0.5 else 0 for _ in range(n)),
        drift_ppm=tuple(rng.randint(-500, 500) if rng.random() < 0.5 else 0 for _ in range(n)),
        sync_ms=(0, rng.choice((0, 2, 20, 100))),
        verify_ms=rng.choice((0, 0, 0, 4)),
        clients=rng.randint(2, 4),
        ops_per_s=rng.choice((4, 6, 9)),
        stranger=rng.random() < 0.5,
        safety_ms=safety_ms,
        byzantine=byzantine,
        behaviours=behaviours,
        dead=dead,
        faults=tuple(sorted(faults, key=lambda f: f.at_ms)),
    )
