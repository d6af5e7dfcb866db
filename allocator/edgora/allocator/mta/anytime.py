"""One anytime search on an assignment table: prices, a plan, a better plan, a tighter bound (mta.md 13).

`priced` and `exact` are two orders of the same steps, each of which can be cut short at any moment:

    first     prices and LP bound; a plan built from them, and its exchanges where many tasks weigh the same
    improve   ruin and rebuild with annealing
    tighten   the Lagrangian bound; pairs that no better plan holds leave the search
    select    plans near the bound, from servers' sets that cost least: better plans, a lower bound, and often a proof
    branch    branch and bound on what is left: better plans, and in the end a proof
    merge     servers become groups, whose bound is lower still, until it meets the best plan

How far the search has come is a share of its time, or, where a number of rounds is set, of that number: then no clock is
read but for an outer limit, and a seed gives the same plan again. A Lagrangian evaluation counts as _EVALUATION rounds,
a node of the tree as _NODE and a step of merging as _STEP, about what they cost.
"""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import COMPILED
from edgora.allocator.mta.blocks import members
from edgora.allocator.mta.branch import Branching
from edgora.allocator.mta.exchange import exchanged, worthwhile
from edgora.allocator.mta.lagrange import Lagrangian
from edgora.allocator.mta.merging import Merging
from edgora.allocator.mta.nearby import Nearby
from edgora.allocator.mta.prices import COLD, Core, Priced, colder, core_of, least, priced, refined
from edgora.allocator.mta.rebuild import Candidates, Rebuilder, build, candidates
from edgora.allocator.mta.table import REJECTED, Plan, Table, completed
from edgora.allocator.search import Found, Search, Status

__all__ = ["PROOF", "Anytime", "ready"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PROOF = 1e-9
"""Relative gap at which a plan counts as proven."""
_EVALUATION, _NODE, _STEP = 10, 30, 1_000
"""Cost of an evaluation of the Lagrangian, of a node, and of a step of merging, in rounds of rebuilding."""
_BATCH = 50
"""Rounds between two looks at the rounds left."""
_SLICE = 0.01
"""Share of the budget between two looks at the clock, and at most _SLICE_S seconds."""
_SLICE_S = 0.005
_HOT, _COLD = 0.007, 0.0002
"""First and last temperature as shares of the mean worth of an assigned task."""
_HORIZON_S = 60.0
"""The budget where none is given."""
_SHAKE, _SHAKE_FEW, _FEW_PAIRS = 0.03, 0.08, 2_000
"""How far a round's prices are shaken (mta.md 13); further where pairs are few: with 20 x 50 and 0.1 s that leaves three
quarters of the gap, with 50 x 500 it makes a third more."""
_NEAR = 48
"""Candidate tasks of a server beyond thrice what it holds, in large cores."""
_SMALL_PAIRS = 60_000
"""Up to here every pair whose regret is below the gap is a candidate."""
_TIGHT_PAIRS = 1_000_000
"""Largest core that the Lagrangian bound is computed for."""
_BRANCH_PAIRS = 2_500
"""Most pairs that a tree is searched over: its nodes must stay short."""
_MERGE_PAIRS = 1_500
"""Most pairs where servers' sets are listed, to be searched or merged; only compiled, it is quicker than a tree."""
_TRIES = 10
"""Regroupings without a better plan before plans near the bound are searched."""
_ROUGH, _FAIR, _EARLY = 3e-3, 5e-4, 0.4
"""Relative gap of a first plan of a large table from which on its prices, found on a sample, are made better: the latter
while less than _EARLY of the budget is spent."""
_FIRST_PLAN = 0.5
"""Share of the time that is left for the first plan."""
_EXCHANGES = 1.5
"""Time for a plan and its exchanges, in times of what building a plan took last."""
_COLDER, _COLDEST = 0.25, 1e-7
"""Where exchanges are worthwhile, prices are cooled by this from plan to plan, down to this."""
_OFFER = 16
"""Slices of improvement between two offers of the best plan so far: an offer is audited and completed."""


@cache
def ready() -> None:
    """Have every kernel compiled, or loaded, before a clock runs: solvers call it when they are made."""
    if not COMPILED:
        return
    ones = np.ones(2, dtype=np.int64)
    core = core_of(Table(np.array([[2.0, 1.0]]), ones, ones[:1], np.ones((1, 2), dtype=np.bool_)), np.arange(2))
    nu, plan = np.ones(1), np.array([0, REJECTED])
    least(core, nu)
    build(core, nu, np.zeros(1, dtype=np.int64))
    Rebuilder(core, nu, plan, candidates(core, nu, plan, 1.0, 1), 0).run(1, 1.0, _SHAKE)
    exchanged(core, nu, plan)
    lagrangian = Lagrangian(core, nu, 0.0, 3.0)
    lagrangian.run(1, 0.0)
    lagrangian.probe(0.0, lambda: False)
    Merging(lagrangian, 0.0, lambda: False).step(0.0)
    nearby = Nearby(lagrangian, core.value, 0, lambda: False)
    nearby.settle(0.0)
    nearby.widen(0.0)
    nearby.regroup(plan)
    Branching(core, core.value, np.zeros(2), nu, plan, 0.0, 3.0).run(1)


class Anytime:
    """The state of one search. `worth` and `bound` hold for the whole table at any moment."""

    def __init__(self, table: Table, search: Search, rounds: int | None) -> None:
        self.table, self._search, self._rounds = table, search, rounds
        self._spent = 0
        self._begun = search.clock()
        self.horizon_s = min(search.left_s(), _HORIZON_S) if search.deadline is None else search.left_s()
        """Seconds that shares are shares of."""
        self.plan: Plan = table.rejected()
        self.worth, self.bound = 0.0, float(table.value.max(initial=0.0)) * table.m
        self.rounds = self.evaluations = self.nodes = 0
        self._build_s: float | None = None
        """Seconds that building a plan from prices took last."""
        self._priced: Priced | None = None
        self._rebuilder: Rebuilder | None = None
        self._lagrangian: Lagrangian | None = None
        self._tight_core: Core | None = None
        self._branching: Branching | None = None

    # ---- how far ---------------------------------------------------------------------------------------------------

    def share(self) -> float:
        """Share of the budget that is spent."""
        if self._rounds is not None:
            return self._spent / self._rounds
        return min(1.0, (self._search.clock() - self._begun) / max(self.horizon_s, 1e-9))

    def over(self) -> bool:
        return self.proven or self.share() >= 1.0 or self._search.over()

    def _cut(self) -> bool:
        """Whether to end a step early; where the budget is rounds, which repeat digit for digit, only its caller can."""
        return self._search.over() if self._rounds is None else self._search.stopped()

    def _pricing(self) -> Search | None:
        """What cuts the search for prices short, in time for a plan."""
        if self._rounds is not None:
            return None
        deadline = self._search.deadline
        return dataclasses.replace(self._search, deadline=None if deadline is None else deadline - self._plan_s())

    def _plan_s(self) -> float:
        """Seconds to leave for a plan from prices and its exchanges."""
        return _FIRST_PLAN * self.horizon_s if self._build_s is None else _EXCHANGES * self._build_s

    def _time_to_build(self) -> bool:
        """Whether another plan from prices would be ready in time."""
        return not self.over() and (self._rounds is not None or self._search.left_s() >= (self._build_s or 0.0))

    @property
    def proven(self) -> bool:
        return self.bound <= self.worth * (1.0 + PROOF)

    def status(self) -> Status:
        if self.proven:
            return "optimal"
        if self._search.stopped():
            return "interrupted"
        return "time_limit" if self._search.left_s() <= 0.0 else "done"

    def found(self) -> Found:
        info = {"rounds": self.rounds, "evaluations": self.evaluations, "nodes": self.nodes}
        return Found(self.plan, self.worth if self.proven else self.bound, self.status(), info)

    def _in_slices(self, until: float, cost: int, work: Callable[[int], bool]) -> None:
        """Do work(k) in slices until the budget's share `until`, or until it says that it is done."""
        clock, slice_s = self._search.clock, min(_SLICE * self.horizon_s, _SLICE_S)
        size = 1 if self._rounds is None else max(1, _BATCH // cost)
        while self.share() < until and not self.over():
            before = clock()
            done = work(size)
            took = clock() - before
            self._spent += size * cost
            if self._rounds is None:
                size = max(1, min(2 * size, int(size * slice_s / max(took, 1e-7))))
            if done:
                return

    def after(self, share: float) -> float:
        """The share of the whole budget at which this share of what is left now will be spent."""
        spent = min(1.0, self.share())
        return spent + share * (1.0 - spent)

    # ---- steps -----------------------------------------------------------------------------------------------------

    def first(self) -> None:
        """Prices, bound, and a plan built from them; both again where the prices are of a sample and not good enough."""
        found = self._price(priced(self.table, self._pricing()))
        self._build(found)
        enough = _FAIR if self.share() < _EARLY else _ROUGH
        if found.sampled and self.bound - self.worth > enough * self.bound and self._time_to_build():
            cold = _COLDER * COLD if worthwhile(found.core) else COLD
            self._rebuild(self._price(refined(self.table, found, cold, self._pricing())))
        elif worthwhile(found.core) and not self.over():
            self._exchange(found, self._in_core(found.core))

    def cool(self, until: float) -> None:
        """Where exchanges are worthwhile: colder prices, a plan built from them and its exchanges, as often as there is time.

        Exchanges hardly change how much of each weight a server holds; a plan built anew from better prices does.
        """
        found, hot, took = self._priced, _COLDER * COLD, 0.0
        assert found is not None
        while worthwhile(found.core) and hot > _COLDEST and self._time_to_build():
            began, cold = self.share(), _COLDER * hot
            if began + took >= until:
                return
            found = self._price(colder(self.table, found, hot, cold, self._pricing()))
            self._rebuild(found)
            hot, took = cold, self.share() - began

    def _rebuild(self, found: Priced) -> None:
        """A plan from the prices and its exchanges, as far as there is time."""
        if self._time_to_build():
            plan = self._build(found)
            if worthwhile(found.core) and not self.over():
                self._exchange(found, plan)

    def _exchange(self, found: Priced, plan: Ints) -> None:
        self._offer(found.core, exchanged(found.core, found.nu, plan, self._cut))

    def _price(self, found: Priced) -> Priced:
        """Take these prices, and their bound."""
        self._priced, self.bound = found, min(self.bound, found.bound)
        return found

    def _build(self, found: Priced) -> Ints:
        """A plan of the core from the prices, offered."""
        began = self._search.clock()
        plan = build(found.core, found.nu, np.argsort(-found.nu, kind="stable"), self._cut)
        self._offer(found.core, plan)
        self._build_s = self._search.clock() - began
        return plan

    def improve(self, until: float) -> None:
        """Ruin and rebuild until the budget's share `until`, annealing from hot to cold."""
        assert self._priced is not None
        core = self._priced.core
        if not len(core.tasks) or self.over():
            return
        if self._rebuilder is None:
            plan = self._in_core(core)
            pairs = self._near(core, plan)
            self._rebuilder = Rebuilder(core, self._priced.nu, plan, pairs, self._search.seed)
        rebuilder = self._rebuilder
        scale = self.worth / max(1, int((self.plan != REJECTED).sum()))

        shake = _SHAKE_FEW if core.value.size <= _FEW_PAIRS else _SHAKE
        begin, slices = self.share(), 0

        def work(rounds: int) -> bool:
            nonlocal slices
            cooled = min(1.0, (self.share() - begin) / max(until - begin, 1e-9))
            temperature = scale * _HOT * (_COLD / _HOT) ** cooled
            rebuilder.run(rounds, temperature, shake)
            self.rounds += rounds
            slices += 1
            if slices % _OFFER == 0 or rebuilder.best_worth >= self.bound:
                offer()
            return False

        def offer() -> None:
            if rebuilder.best_worth > self.worth * (1.0 + PROOF):
                self._offer(core, rebuilder.best)

        self._in_slices(until, 1, work)
        offer()

    def tighten(self, until: float, converged: float) -> None:
        """Descend the Lagrangian bound till its steps are below `converged`; then leave out what cannot be better."""
        assert self._priced is not None
        if self.over():
            return
        if self._lagrangian is None:
            core = self._tight()
            if core is None:
                return
            self._tight_core = core
            self._lagrangian = Lagrangian(core, self._priced.nu, self.worth, self._priced.bound)
        lagrangian, core = self._lagrangian, self._tight_core
        assert core is not None

        def work(evaluations: int) -> bool:
            before = lagrangian.evaluations
            lagrangian.run(evaluations, self.worth)
            self.evaluations += lagrangian.evaluations - before
            self.bounded(lagrangian.bound)
            return lagrangian.step < converged

        self._in_slices(until, _EVALUATION, work)
        if not self.over() and lagrangian.evaluations >= lagrangian.probing:
            lagrangian.probe(self.worth, self._search.over)
            self._spent += _EVALUATION * int(np.isfinite(lagrangian.value).sum()) // max(1, len(core.room))
            self._keep_to(core)

    def _keep_to(self, core: Core) -> None:
        """Have plans rebuilt in the pairs that are left alone."""
        assert self._priced is not None
        assert self._lagrangian is not None
        if self._rebuilder is not None and core is self._priced.core:
            plan = self._in_core(core)
            self._rebuilder.restrict(_pairs(self._lagrangian.value, plan))
            self._rebuilder.restart(plan)

    def again(self) -> None:
        """Let `tighten` take long steps anew, with the better plan and the fewer pairs."""
        if self._lagrangian is not None:
            self._lagrangian.sharpen()

    def branch(self, until: float, nodes: int | None = None) -> None:
        """Branch and bound until the budget's share `until`, or for so many nodes more."""
        if self._lagrangian is None or self.over():
            return
        core, prices = self._tight_core, self._priced
        assert core is not None
        assert prices is not None
        if self._branching is None or self.worth > self._branching.worth * (1.0 + PROOF):
            lagrangian, plan = self._lagrangian, self._in_core(core)
            if self.pairs > _BRANCH_PAIRS:
                return
            self._branching = Branching(
                core, lagrangian.value, lagrangian.best_u, prices.nu, plan, self.worth, self.bound
            )
        branching = self._branching
        last = None if nodes is None else branching.nodes + nodes

        def work(count: int) -> bool:
            before = branching.nodes
            branching.run(count if last is None else min(count, last - before))
            self.nodes += branching.nodes - before
            if branching.worth > self.worth * (1.0 + PROOF):
                self._offer(core, branching.best)
                if self._rebuilder is not None and core is prices.core:
                    self._rebuilder.restart(self._in_core(core))
            self.bounded(branching.bound)
            return branching.done or (last is not None and branching.nodes >= last)

        self._in_slices(until, _NODE, work)

    @property
    def few(self) -> bool:
        """Whether pairs are so few that servers' sets can be listed, and there are kernels to do it."""
        return COMPILED and self.pairs <= _MERGE_PAIRS

    def select(self, until: float) -> None:
        """Search plans near the bound until the budget's share `until`."""
        lagrangian, core = self._lagrangian, self._tight_core
        if lagrangian is None or core is None or self.over() or not self.few:
            return
        nearby = Nearby(lagrangian, core.value, self._search.seed, lambda: self.over() or self.share() >= until)
        nearby.settle(self.worth)
        self.bounded(nearby.bound)
        self._regroup(nearby, core, until, _TRIES)
        while not nearby.done and self.share() < until and not self.over():
            plan = nearby.widen(self.worth)
            if plan is not None:
                self._offer(core, plan)
            self.bounded(nearby.bound)
        self._regroup(nearby, core, until)

    def _regroup(self, nearby: Nearby, core: Core, until: float, tries: int | None = None) -> None:
        """Have servers regrouped until the budget's share `until`, or so often without a better plan."""
        failed = 0
        while (tries is None or failed < tries) and self.share() < until and not self.over():
            plan, before = nearby.regroup(self._in_core(core)), self.worth
            if plan is not None:
                self._offer(core, plan)
            failed = 0 if self.worth > before else failed + 1

    def merge(self, until: float = 1.0) -> bool:
        """Merge servers into groups until the budget's share `until`, the bound meets the best plan, or groups grow too large.

        Returns whether there was anything to merge.
        """
        lagrangian, core = self._lagrangian, self._tight_core
        if lagrangian is None or core is None or self.over() or not self.few:
            return False
        merging = Merging(lagrangian, self.worth, lambda: self.over() or self.share() >= until)
        while self.share() < until and not self.over():
            before = self.worth
            self._offer(core, merging.step(self.worth))
            self._spent += _STEP
            self.bounded(merging.bound)
            if merging.stuck and self.worth <= before:
                break
        lagrangian.value[~merging.pairs()] = -np.inf
        self._keep_to(core)
        self._branching = None  # another tree has fewer pairs
        return True

    @property
    def pairs(self) -> int:
        """Pairs that a better plan can hold, as far as is known."""
        if self._lagrangian is not None:
            return int((self._lagrangian.value > 0.0).sum())
        assert self._priced is not None
        return int((self._priced.core.value > 0.0).sum())

    def reduced(self) -> Table:
        """The table with the pairs alone that a better plan can hold."""
        table, lagrangian, core = self.table, self._lagrangian, self._tight_core
        if lagrangian is None or core is None:
            return table
        feasible = np.zeros_like(table.feasible)
        feasible[:, core.tasks] = lagrangian.value > 0.0
        return Table(table.value, table.weight, table.room, feasible)

    def subsets(self, most: int) -> dict[int, NDArray[np.bool_]]:
        """What a better plan may have each server hold, sets of the table's tasks (k,m), where these are at most so many."""
        lagrangian, core = self._lagrangian, self._tight_core
        found: dict[int, NDArray[np.bool_]] = {}
        if lagrangian is not None and core is not None:
            for server, block in lagrangian.subsets(self.worth, most).items():
                found[server] = np.zeros((len(block), self.table.m), dtype=np.bool_)
                found[server][:, core.tasks] = members(block.tasks, len(core.tasks))
        return found

    # ---- between core and table ------------------------------------------------------------------------------------

    def _offer(self, core: Core, plan: Ints) -> None:
        """A plan of the core's tasks, completed with what else fits, if it is the best so far."""
        whole = self.table.rejected()
        whole[core.tasks] = plan
        if not self.table.allows(whole):  # real weights, added up in another order
            whole = self.table.without_overload(whole)
        whole = _completed(self.table, whole)
        self.offer(whole)

    def offer(self, plan: Plan) -> None:
        """An allowed plan of the table, kept if it is the best so far."""
        worth = self.table.worth(plan)
        if worth > self.worth or self._search.best is None:
            self.plan, self.worth = plan, worth
            self.bound = max(self.bound, worth)
            self._search.keep(Found(plan, self.bound, "interrupted"), worth)

    def bounded(self, bound: float) -> None:
        """A bound on the plans that use no excluded pair: the others are worth no more than the best."""
        self.bound = max(self.worth, min(self.bound, bound))

    def _in_core(self, core: Core) -> Ints:
        """The best plan on the core's tasks, less pairs that are of no use there."""
        plan = self.plan[core.tasks].copy()
        tasks = np.flatnonzero(plan != REJECTED)
        plan[tasks[core.value[plan[tasks], tasks] <= 0.0]] = REJECTED
        return plan

    def _near(self, core: Core, plan: Ints) -> Candidates:
        assert self._priced is not None
        cap = core.value.size if core.value.size <= _SMALL_PAIRS else _NEAR
        return candidates(core, self._priced.nu, plan, self._priced.bound - self.worth, cap)

    def _tight(self) -> Core | None:
        """The core and every other task that a better plan may hold; None where these are too many."""
        assert self._priced is not None
        core, outside = self._priced.core, self._priced.outside
        joining = np.flatnonzero(outside > -(self._priced.bound - self.worth))
        if (len(core.tasks) + len(joining)) * self.table.n > _TIGHT_PAIRS:
            return None
        if not len(joining):
            return core
        return core_of(self.table, np.sort(np.concatenate((core.tasks, joining))), core.room)


def _pairs(value: Floats, plan: Ints) -> Candidates:
    """All pairs that are left, and those of the plan."""
    left = value > 0.0
    tasks = np.flatnonzero(plan != REJECTED)
    left[plan[tasks], tasks] = True
    start = np.zeros(len(left) + 1, dtype=np.int64)
    np.cumsum(left.sum(axis=1), out=start[1:])
    return Candidates(start, np.nonzero(left)[1].astype(np.int64))


def _completed(table: Table, plan: Plan) -> Plan:
    """`Table.fill`, looking only at servers and tasks that can still matter: most of a large table cannot."""
    out = np.flatnonzero(plan == REJECTED)
    left = table.left(plan)
    if not len(out):
        return plan
    least = table.weight[out].min() if table.shared_weight else table.weight[:, out].min()
    open_ = np.flatnonzero(left >= least)
    if not len(open_):
        return plan
    block = np.ix_(open_, out)
    weight: Any = (
        table.weight[block] if not table.shared_weight else np.broadcast_to(table.weight[out], (len(open_), len(out)))
    )
    candidates_ = table.feasible[block] & (table.value[block] > 0.0) & (weight <= left[open_, None])
    if not candidates_.any():
        return plan
    useful = np.flatnonzero(candidates_.any(axis=0))
    sub = completed(
        np.full(len(useful), REJECTED, dtype=np.int64), table.value[np.ix_(open_, out[useful])], weight[:, useful],
        left[open_], candidates_[:, useful],
    )  # fmt: skip
    filled = plan.copy()
    filled[out[useful]] = np.where(sub == REJECTED, REJECTED, open_[sub])
    return filled
