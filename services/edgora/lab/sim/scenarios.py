"""Phase-aware scenarios (ledger.md 19): three to six views, each with a filter over (phase, height, receiver).

Blind noise almost never loses exactly the messages that matter. Here every view has a stage that says which receivers
get PREPARE and COMMIT of which height, above which height proposals are lost, who is cut off, who restarts when the
view ends. A stage lets its messages through for a short while, then the view falls silent and is left. In the end all
that was withheld is delivered, late and shuffled, everything heals, and the run is judged like a long one.
"""

import random
from typing import TYPE_CHECKING

import msgspec

from edgora.lab.sim.load import CounterLoad
from edgora.lab.sim.options import Options
from edgora.lab.sim.post import Envelope, on_side
from edgora.lab.sim.registry import Registry, StubRegistry
from edgora.lab.sim.violation import Violation
from edgora.lab.sim.world import Report, World
from edgora.ledger.config import Params
from edgora.wire.ledger import faulty
from edgora.wire.pbft import Commit, Message, NewView, Prepare, PrePrepare, Status, TxGossip, ViewChange

if TYPE_CHECKING:
    from edgora.lab.sim.host import Host

__all__ = ["Scenario", "ScenarioWorld", "Stage", "draw", "play"]

HEIGHTS = 4
"""Relative heights that a stage tells apart; all above count as the last."""

STAGE_MS = 40
"""How long a view may speak before it falls silent."""

TIMEOUT_MS = 100
LIMIT_MS = 6_000
"""Virtual time after which a scenario stops waiting for its views and heals."""


class Stage(msgspec.Struct, frozen=True, array_like=True):
    """What arrives in one view. Masks are bit sets of receivers.

    Tuples go by height above the lowest committed one as the stage starts, so that what the last views left in doubt
    has a place of its own.
    """

    txs: int
    """Transactions that wait as the view begins, at least."""
    propose_up_to: tuple[int, ...]
    """By receiver: the highest relative height whose proposal reaches it."""
    prepare_to: tuple[int, ...]
    commit_to: tuple[int, ...]
    cut: int
    """Cut off while the view speaks."""
    mute: int
    """Cut off once it has fallen silent: they take no part in leaving it."""
    new_view_to: int
    view_change_to: int
    sync: bool
    """Whether catching up (STATUS, fetches, certificates) works meanwhile."""
    restart: int
    twin_sides: int
    """Two bits a receiver: which of the twins, if there is one, it talks with."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario, printable and replayable by its number."""

    number: int
    n: int
    window: int
    stages: tuple[Stage, ...]
    byzantine: int | None
    behaviours: tuple[str, ...]
    block_txs: int
    late: bool
    """Whether what was withheld is delivered in the end; else it is lost."""
    load_first: bool
    """Whether the first stage starts above some committed blocks."""


def _mask(rng: random.Random, n: int, victim: int) -> int:
    """Receivers: nobody, one, all but one, everyone, or any. The one is often the scenario's victim."""
    everyone = (1 << n) - 1
    one = 1 << (victim if rng.random() < 0.6 else rng.randrange(n))
    return rng.choice((0, one, one, everyone & ~one, everyone, everyone, rng.randrange(1 << n)))


def _stage(rng: random.Random, n: int, victim: int, was_alone: bool) -> Stage:
    """One view. was_alone: the victim alone learnt something in the view before, and is now probably unheard."""
    everyone = (1 << n) - 1
    last = rng.choice((0, 0, 1)) if was_alone else rng.randrange(HEIGHTS)
    # Heights below the critical ones mostly go through; what matters is how the highest one, two or three end.
    critical = last + 1 - rng.choice((1, 1, 2, 2, 3))
    prepared = everyone if was_alone and rng.random() < 0.6 else _mask(rng, n, victim)
    committed = _mask(rng, n, victim) if rng.random() < 0.6 else 0
    prepare, commit = [0] * HEIGHTS, [0] * HEIGHTS
    for height in range(last + 1):
        if height >= critical:
            prepare[height], commit[height] = prepared, committed
        else:
            prepare[height] = everyone if rng.random() < 0.9 else _mask(rng, n, victim)
            commit[height] = everyone if rng.random() < 0.4 else _mask(rng, n, victim)
    propose = [last + 1 if rng.random() < 0.85 else rng.randint(0, HEIGHTS) for _ in range(n)]
    cut = mute = 0
    if rng.random() < (0.7 if was_alone else 0.2):
        cut = 1 << (victim if rng.random() < 0.9 else rng.randrange(n))
    if _alone(prepared, committed, victim):
        mute = 1 << victim if rng.random() < 0.7 else 0
    elif rng.random() < 0.5:
        mute = 1 << rng.choice([i for i in range(n) if i != victim])  # so that the victim's VIEW_CHANGE counts
    return Stage(
        txs=rng.choice((1, last + 1, HEIGHTS, HEIGHTS)),
        propose_up_to=tuple(propose),
        prepare_to=tuple(prepare),
        commit_to=tuple(commit),
        cut=cut,
        mute=mute,
        new_view_to=everyone if rng.random() < 0.9 else _mask(rng, n, victim),
        view_change_to=everyone if rng.random() < 0.9 else _mask(rng, n, victim),
        sync=rng.random() < 0.2,
        restart=rng.choice((0, 0, 0, 1 << rng.randrange(n), rng.randrange(1 << n))),
        twin_sides=rng.getrandbits(2 * n),
    )


def _alone(prepared: int, committed: int, victim: int) -> bool:
    """Whether only the victim learns how the highest heights end."""
    return (prepared == 1 << victim) or (committed == 1 << victim)


def _braid(rng: random.Random, n: int) -> list[Stage]:
    """Three views in which one replica alone sees a branch grow that the others leave, and then comes back with it.

    First it alone gets the certificates of the top heights. Then the others go on without it, a little. Then it is
    heard again while another one is not, so that what it holds must be weighed against what the others did.
    """
    everyone = (1 << n) - 1
    alone = rng.randrange(n)
    other = rng.choice([i for i in range(n) if i != alone])
    shared = rng.randint(0, 2)
    branch = rng.randint(1, HEIGHTS - shared)

    def stage(prepare: list[int], commit: list[int], *, cut: int, mute: int) -> Stage:
        up_to = tuple(len(prepare) for _ in range(n))
        row = [0] * HEIGHTS
        return Stage(
            HEIGHTS, up_to, tuple((prepare + row)[:HEIGHTS]), tuple((commit + row)[:HEIGHTS]), cut, mute,
            everyone, everyone, sync=False, restart=rng.choice((0, 0, 1 << rng.randrange(n))),
            twin_sides=rng.getrandbits(2 * n),
        )  # fmt: skip

    some = (0, 0, 1 << other, everyone)
    first = stage(
        [everyone] * shared + [1 << alone] * branch,
        [rng.choice((0, 1 << alone, everyone))] * shared + [rng.choice((0, 1 << alone))] * branch,
        cut=0, mute=1 << alone,
    )  # fmt: skip
    height = rng.randint(1, max(1, shared + branch - 1))
    second = stage([everyone] * height, [rng.choice(some)] * height, cut=1 << alone, mute=rng.choice((1 << other, 0)))
    height = rng.randint(1, HEIGHTS)
    third = stage(
        [everyone] * height,
        [rng.choice(some)] * height,
        cut=rng.choice((1 << other, 0)),
        mute=rng.choice((1 << other, 0)),
    )
    return [first, second, third]


def _stages(rng: random.Random, n: int) -> tuple[Stage, ...]:
    victim, alone = rng.randrange(n), False
    stages = _braid(rng, n) if rng.random() < 0.4 else []
    for _ in range(rng.randint(0, 2) if stages else rng.randint(3, 6)):
        stages.append(_stage(rng, n, victim, alone))
        alone = 1 << victim in {*stages[-1].prepare_to, *stages[-1].commit_to}
    return tuple(stages)


def draw(number: int) -> Scenario:
    """The scenario of a number."""
    rng = random.Random(f"scenario:{number}")
    n = rng.choices((4, 5, 7), (8, 1, 1))[0]
    byzantine: int | None = None
    behaviours: tuple[str, ...] = ()
    if rng.random() < 0.3:
        byzantine = rng.randrange(n)
        behaviours = rng.choice(
            (("twin",), ("twin",), ("equivocate",), ("stale_view_change",), ("forged_view_change",))
        )
    return Scenario(
        number=number,
        n=n,
        window=rng.choice((1, 2, 4, 4, 4, 8)),
        stages=_stages(rng, n),
        byzantine=byzantine,
        behaviours=behaviours,
        block_txs=rng.choice((1, 1, 1, 2)),
        late=rng.random() < 0.5,
        load_first=rng.random() < 0.3,
    )


class ScenarioWorld(World):
    """A world whose network follows the stages of a scenario."""

    def __init__(self, scenario: Scenario, registry: Registry | None = None) -> None:
        self.scenario = scenario
        self._healed = False
        self._stage_since: dict[int, int] = {}
        self._base: dict[int, int] = {}
        self._withheld: list[tuple[Host, int, Envelope]] = []
        options = Options(
            seed=scenario.number, n=scenario.n, window=scenario.window, block_txs=scenario.block_txs,
            timeout_ms=TIMEOUT_MS, timeout_cap_ms=2 * TIMEOUT_MS, delay_ms=(1, 3), sync_ms=(0, 0), clients=HEIGHTS,
            byzantine=scenario.byzantine, behaviours=scenario.behaviours, safety_ms=LIMIT_MS,
        )  # fmt: skip
        super().__init__(options, registry or StubRegistry())
        self.gate = self
        assert isinstance(self.load, CounterLoad)
        self._clients: CounterLoad = self.load
        self._view: int = 0

    def parameters(self) -> Params:
        """Short delays: a scenario is about which messages arrive, not about when."""
        return msgspec.structs.replace(
            super().parameters(), batch_delay_ms=1, block_gap_ms=1, seal_delay_ms=10, fetch_timeout_ms=100,
            resend_view_change_ms=150, status_interval_ms=200,
        )  # fmt: skip

    # ---- the filter ----------------------------------------------------------------------------------------------------

    def _stage(self, view: int) -> Stage:
        return self.scenario.stages[min(view, len(self.scenario.stages) - 1)]

    def _enter(self, view: int) -> None:
        """A view speaks for the first time: the stage before it is over."""
        self._view = view
        self._stage_since[view] = self.now
        self._base[view] = min(host.height for host in self.correct)
        self.note("stage", view)
        for host in self.doors:
            if view and self._stage(view - 1).restart >> host.index & 1 and host.up:
                self.at(self.now, self.misfortunes.crash, host, self.rng.randint(0, 30))
        self._clients.invoke(max(0, self._stage(view).txs - len(self._clients.unfinished())))

    def passes(self, host: "Host", receiver: "Host", message: Message) -> bool:
        """Whether the present stage lets this message through."""
        if self._healed or not self._stage_since:
            return True
        if isinstance(message, TxGossip):
            return False  # every client has told every machine
        current = self._stage(self._view)
        silent = self.now - self._stage_since[self._view] > STAGE_MS
        unheard = current.mute if silent else current.cut
        if (unheard >> receiver.index | unheard >> host.index) & 1 and not self._overdue():
            return False
        match message:
            case PrePrepare() | Prepare() | Commit():
                return self._vote_passes(receiver, message)
            case ViewChange():
                return bool(current.view_change_to >> receiver.index & 1) or self._overdue()
            case NewView():
                if message.view not in self._stage_since and message.view < len(self.scenario.stages):
                    self._enter(message.view)
                return bool(self._stage(message.view).new_view_to >> receiver.index & 1) or self._overdue()
            case Status(suspects=True):
                return True  # a view that has fallen silent is left
            case _:
                return current.sync

    def _overdue(self) -> bool:
        """A view change that a filter keeps from ending is let through in the end."""
        return self.now - self._stage_since.get(self._view, 0) > 6 * TIMEOUT_MS

    def _vote_passes(self, receiver: "Host", message: PrePrepare | Prepare | Commit) -> bool:
        view = message.view
        if view not in self._stage_since or self.now - self._stage_since[view] > STAGE_MS:
            return False
        stage = self._stage(view)
        height = message.header.height if isinstance(message, PrePrepare) else message.height
        relative = max(0, height - self._base[view] - 1)
        if isinstance(message, PrePrepare):
            return relative < stage.propose_up_to[receiver.index]
        masks = stage.prepare_to if isinstance(message, Prepare) else stage.commit_to
        return bool(masks[min(relative, HEIGHTS - 1)] >> receiver.index & 1)

    def withhold(self, host: "Host", receiver: "Host", envelope: Envelope) -> None:
        """Kept for the end, when everything is delivered."""
        if not isinstance(envelope.open(), TxGossip | Status):
            self._withheld.append((receiver, host.index, envelope))

    def twins_meet(self, twin: "Host", other: "Host") -> bool:
        sides = self._stage(self._view).twin_sides
        return self._healed or on_side(sides, twin, other)

    # ---- the run ---------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self.start()
        if self.scenario.load_first:
            self._healed = True
            self.run_until(10)
            self._clients.invoke(3)
            self.run_until(120)
            self._healed = False
        self._enter(0)
        last = len(self.scenario.stages) - 1
        self.run_until(self.now + LIMIT_MS, lambda: last in self._stage_since)
        self.run_until(self.now + STAGE_MS)
        self.heal()
        self._settle()
        self.check_end()

    def start(self) -> None:
        for host in self.doors:
            host.boot()
        self.post.start(50)
        self._clients.attach(self)

    def heal(self) -> None:
        self._healed = True
        super().heal()
        self.rng.shuffle(self._withheld)
        if not self.scenario.late:
            self._withheld = []
        for receiver, source, envelope in self._withheld:
            self.at(self.now + self.rng.randint(1, 60), self.post.deliver, receiver, source, envelope)
        self._withheld = []

    def _settle(self) -> None:
        """Liveness: everything that was invoked is answered, and everybody gets there."""
        self.run_until(self.now + 70)
        self._clients.invoke(1)
        patience = 20 * self.options.timeout_cap_ms

        if not self.run_until(self.now + patience, lambda: not self.load.unfinished() and self.settled):
            heights = {host.name: host.height for host in self.live}
            raise Violation(
                "P5", f"{len(self.load.unfinished())} answers are missing {patience} ms later; heights {heights}"
            )


def play(number: int, registry: Registry | None = None) -> Report:
    """Run one scenario."""
    scenario = draw(number)
    assert scenario.byzantine is None or faulty(scenario.n)
    return ScenarioWorld(scenario, registry).run()
