"""The simulated network: loss, duplicates, delays that reorder, partitions, and filters of the nemeses (ledger.md 19).

A message is bytes: encoded once by its sender, decoded by each receiver. `fates` says after how many ms which copies of
it arrive; a lost one has none. Every cut and filter ends by itself at its time; `heal` ends all of them at once.
"""

import random
from collections.abc import Callable

from edgora.lab.sim.options import Options
from edgora.wire.pbft import Commit, Message, Prepare, PrePrepare, PutBlocks, PutBody

__all__ = ["Filter", "Network"]

LATE_MS = (2_000, 5_000)
"""How late votes are while a nemesis holds them back; by then their view has often passed."""

Filter = Callable[[int, int, Message], bool]
"""(from, to, message): whether it may pass."""


class _Cut:
    """Messages from a side to another side are lost until a time; a flapping cut is open half of the time."""

    __slots__ = ("both", "mask", "period_ms", "until_ms")

    def __init__(self, mask: int, until_ms: int, *, both: bool, period_ms: int = 0) -> None:
        self.mask = mask
        self.until_ms = until_ms
        self.both = both
        self.period_ms = period_ms

    def severs(self, now_ms: int, source: int, target: int) -> bool:
        if self.period_ms and now_ms // self.period_ms % 2:
            return False
        inside, other = self.mask >> source & 1, self.mask >> target & 1
        return inside != other if self.both else bool(inside and not other)


class Network:
    """Decides what becomes of each message."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._rng = random.Random(f"network:{options.seed}")
        self._cuts: list[_Cut] = []
        self._late: list[tuple[int, int]] = []
        self._filters: list[tuple[int, Filter]] = []
        self._healed = False

    def heal(self) -> None:
        """From now on everything arrives, soon and once."""
        self._healed = True
        self._cuts, self._late, self._filters = [], [], []

    def split(self, mask: int, until_ms: int) -> None:
        self._cuts.append(_Cut(mask, until_ms, both=True))

    def one_way(self, mask: int, until_ms: int) -> None:
        """What the masked validators say is not heard by the others; they hear everything."""
        self._cuts.append(_Cut(mask, until_ms, both=False))

    def flap(self, mask: int, until_ms: int, period_ms: int) -> None:
        self._cuts.append(_Cut(mask, until_ms, both=True, period_ms=period_ms))

    def starve(self, mask: int, until_ms: int) -> None:
        """The masked validators get votes but no block bodies."""
        kinds = (PrePrepare, PutBlocks, PutBody)
        self._filters.append((until_ms, lambda _s, target, m: not (mask >> target & 1 and isinstance(m, kinds))))

    def few_commits(self, allowed: int, until_ms: int) -> None:
        """Only the allowed validators get COMMIT votes."""
        self._filters.append((until_ms, lambda _s, target, m: bool(allowed >> target & 1) or not isinstance(m, Commit)))

    def old_votes_last(self, mask: int, until_ms: int) -> None:
        """Votes to the masked validators arrive seconds late, mostly in another view."""
        self._late.append((mask, until_ms))

    def admit(self, rule: Filter, until_ms: int) -> None:
        """Any other filter."""
        self._filters.append((until_ms, rule))

    def fates(self, now_ms: int, source: int, target: int, message: Message) -> tuple[int, ...]:
        """Delays in ms of the copies that arrive; none if it is lost."""
        options, rng = self._options, self._rng
        if self._healed:
            return (rng.randint(1, 8),)
        if self._cuts:
            self._cuts = [cut for cut in self._cuts if cut.until_ms > now_ms]
            if any(cut.severs(now_ms, source, target) for cut in self._cuts):
                return ()
        if self._filters:
            self._filters = [item for item in self._filters if item[0] > now_ms]
            if not all(rule(source, target, message) for _, rule in self._filters):
                return ()
        if options.drop and rng.randrange(1_000) < options.drop:
            return ()
        delay = rng.randint(*options.delay_ms)
        if options.burst and rng.randrange(1_000) < options.burst:
            delay = rng.randint(1, 600)
        if self._late and isinstance(message, Prepare | Commit):
            self._late = [item for item in self._late if item[1] > now_ms]
            if any(mask >> target & 1 for mask, _ in self._late):
                delay = rng.randint(*LATE_MS)
        if options.duplicate and rng.randrange(1_000) < options.duplicate:
            return (delay, delay + rng.randint(0, 300))
        return (delay,)
