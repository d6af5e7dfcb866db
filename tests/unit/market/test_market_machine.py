"""The market as a whole: random operation lists against invariants and model, restore, determinism (market.md 10)."""

import random
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from edgora.lab.market_load import MarketLoad
from edgora.market.duties import audits_owed, draw_due, runs_owed
from edgora.market.reasons import sentence, why
from edgora.wire.codec import encode, to_u96
from edgora.wire.hashing import keccak
from edgora.wire.ledger import BlockContext, Kind
from edgora.wire.market import Cancel, ChainFact, Deposited, OfferFlag, ResultCode, TaskState
from unit.market.model import Model
from unit.market.world import TEST_PARAMS, World


def step(world, load, rng, *, most_ms=400):
    """One block of what everybody would send now, at most one transaction a lane."""
    orders = {}
    for order in load.orders(world.market, world.now_ms):
        orders.setdefault((order.key.address, order.lane), order)
    txs = [world.tx(order.key, order.kind, order.payload) for order in orders.values()]
    gap = rng.choice((20, 50, 100, most_ms)) if rng.random() < 0.98 else rng.choice((5_000, 60_000, 700_000))
    wake = world.market.wake_at()
    if wake is not None and rng.random() < 0.9:
        gap = max(1, min(gap, wake - world.now_ms))
    world.block(*txs, after_ms=gap)
    return txs


def variant(seed):
    """Parameters and sizes that a seed stands for."""
    rng = random.Random(seed)
    servers = rng.choice((4, 4, 5, 7))
    params = replace(
        TEST_PARAMS, audit_bps=rng.choice((500, 5_000, 10_000)), floor_bps=rng.choice((10_000, 5_000)),
        prefer=rng.choice(("", "load")), proposal_ms=rng.choice((50, 150, 400)), file_ms=30_000,
        lambda_bps=rng.choice((1_000, 3_333, 3_333, 10_000)),
    )  # fmt: skip
    return rng, World(ready=False, params=params, servers=servers), rng.choice((3.0, 10.0, 40.0))


def run(seed, blocks, with_model=True):
    rng, world, rate = variant(seed)
    load = MarketLoad(world.consortium, seed, tasks_per_s=rate)
    model = Model(world.market) if with_model else None
    for number in range(blocks):
        load.stopped = number > 0.7 * blocks
        txs = step(world, load, rng)
        if model is not None:
            found = model.observe(txs, world.applied)
            assert not found, "\n".join(found)
        wake = world.market.wake_at()
        assert wake is None or wake > world.now_ms, "asks for a block that it has had"
    return world


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_under_load_with_f_liars_all_invariants_hold_and_the_model_agrees(seed):
    world = run(seed, 180)
    assert any(task.state == TaskState.SETTLED for task in world.market.tasks())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
def test_many_long_loads(seed):
    run(seed, 800)


def test_every_admitted_task_ends_settled_or_refunded_and_says_why():
    """Load stops, everybody stays honest about what is under way: a day later nothing is unfinished."""
    rng, world, rate = variant(7)
    load = MarketLoad(world.consortium, 7, tasks_per_s=rate)
    opened, ended = set(), set()
    for number in range(800):
        load.stopped = number > 150
        step(world, load, rng, most_ms=400 if number < 250 else 20_000)
        for event in world.applied.events:
            name = type(event).__name__
            if name == "TaskOpened":
                opened.add(event.offer_id)
            if name in {"TaskSettled", "TaskRefunded"}:
                assert event.offer_id not in ended
                ended.add(event.offer_id)
        for task in list(world.market.tasks())[-5:]:
            reasons = why(world.market, task.offer_id, world.now_ms)
            assert reasons
            assert all("(" not in sentence(reason) for reason in reasons)
        if number > 250 and opened == ended:
            break
    assert opened == ended
    assert len(opened) > 20


def twin_run(seed, blocks):
    """A replica that is restored from its own snapshot again and again beside one that is not."""
    rng, world, rate = variant(seed)
    world.watch = None
    load = MarketLoad(world.consortium, seed, tasks_per_s=rate)
    twin, state = world.consortium.market(), dict(world.market.snapshot())
    for _ in range(blocks):
        txs = step(world, load, rng)
        if rng.random() < 0.2:
            snapshot = dict(twin.snapshot())
            twin = world.consortium.market()
            twin.restore(snapshot)
            assert dict(twin.snapshot()) == snapshot
        block = BlockContext(
            world.height, world.now_ms, keccak(b"block %d" % world.height), world.consortium.keys[0].address
        )
        applied = twin.apply(block, txs)
        assert list(applied.outcomes) == list(world.applied.outcomes)
        assert dict(applied.writes) == dict(world.applied.writes)
        assert list(applied.events) == list(world.applied.events)
        assert twin.wake_at() == world.market.wake_at()
        for key, value in applied.writes.items():
            if value is None:
                del state[key]
            else:
                state[key] = value
        assert state == dict(world.market.snapshot())


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_writes_add_up_to_the_snapshot_and_a_restored_replica_behaves_identically(seed):
    twin_run(seed, 150)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200, 210))
def test_restore_many(seed):
    twin_run(seed, 600)


def test_a_block_that_changes_nothing_leaves_no_trace():
    world = World(ready=False)
    world.block()
    assert dict(world.applied.writes) == {}
    assert world.market.wake_at() is None
    world = World()
    world.advertise()
    world.block(after_ms=1_000)
    assert (dict(world.applied.writes), list(world.applied.events)) == ({}, [])


_TRACE = """
import random, sys
sys.path.insert(0, sys.argv[1])
from unit.market.test_market_machine import variant, step
from edgora.lab.market_load import MarketLoad
from edgora.wire.codec import encode, to_u96
from edgora.wire.hashing import keccak
rng, world, rate = variant(21)
world.watch = None
load = MarketLoad(world.consortium, 21, tasks_per_s=rate)
trace = b""
for _ in range(60):
    step(world, load, rng)
    done = world.applied
    parts = [done.outcomes, sorted(done.writes.items()), [(type(e).__name__, e) for e in done.events]]
    trace = keccak(trace + encode(parts))
print(trace.hex())
"""


def test_equal_blocks_give_equal_roots_whatever_the_process_or_hash_seed(request):
    """J7."""
    tests = str(request.config.rootpath / "tests")
    traces = {
        subprocess.run(
            [sys.executable, "-c", _TRACE, tests],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "77")
    }
    assert len(traces) == 1


# ---- random operation lists -------------------------------------------------------------------------------------------------


class MarketMachine(RuleBasedStateMachine):
    """UEs, servers and one lying validator in any order, with time that creeps or jumps. Model and J1-J8 beside it."""

    @initialize(audit_bps=st.sampled_from((0, 5_000, 10_000)), floor_bps=st.sampled_from((0, 10_000)))
    def start(self, audit_bps, floor_bps):
        self.world = World(params=replace(TEST_PARAMS, audit_bps=audit_bps, floor_bps=floor_bps))
        self.model = Model(self.world.market)
        self.observed = self.world.block
        self.world.block = self.block
        self.ues = []
        self.world.advertise()
        for wei in (10**18, 2 * 10**12):
            self.ues.append(self.world.funded_ue(wei))

    def block(self, *txs, after_ms=50):
        outcomes = self.observed(*txs, after_ms=after_ms)
        found = self.model.observe(txs, self.world.applied)
        assert not found, "\n".join(found)
        return outcomes

    @rule(
        who=st.integers(0, 1), source=st.integers(0, 3), price=st.sampled_from((40, 100, 100, 1_000)),
        fuel=st.sampled_from((10**6, 10**6, 4 * 10**8, 3 * 10**9)),
        ahead=st.sampled_from((3_000, 60_000, 60_000, 3_600_000)), flags=st.sampled_from((0, 1, 1, 2, 3)),
    )  # fmt: skip
    def submit(self, who, source, price, fuel, ahead, flags):
        w, ue = self.world, self.ues[who]
        w.see_chain()
        offer = w.offer(
            ue, source=source, price=price, fuel_limit=fuel, flags=flags, deadline_ms=w.now_ms + ahead, input_octets=100
        )
        if flags & OfferFlag.LOCK_LANE:
            until = (w.market.core.end_ms(offer.deadline_ms) + w.market.params.margin_ms) // 1000 + 1
            w.attest(w.chain.open(ue.address, ue.offer_id(offer), fuel * price * 1000, until))
            w.send(ue.key, Kind.TASK, ue.task(offer, None))
        else:
            w.send(ue.key, Kind.TASK, ue.task(offer, ue.voucher_for(w.market, offer)))

    @rule(number=st.integers(0, 3), ask=st.sampled_from((30, 50, 70)), capacity=st.sampled_from((0, 10**8, 10**10, 10**10)),
          slots=st.sampled_from((1, 4)), speed=st.sampled_from((10**6, 10**8, 10**8)))  # fmt: skip
    def advertise(self, number, ask, capacity, slots, speed):
        w = self.world
        w.block(w.advert_tx(number, ask=ask, capacity=capacity, slots=slots, speed=speed), after_ms=101)

    @precondition(lambda self: self.world.market.book() is not None)
    @rule(number=st.integers(0, 3), lie=st.sampled_from((0, 0, 1, 10**9)), data=st.data())
    def propose(self, number, lie, data):
        w = self.world
        book = w.market.book()
        places = st.sampled_from([None, *book.table.ids])
        count = min(len(book.table.instance.tasks), 6)
        pairs = [
            (j, s) for j, s in enumerate(data.draw(st.lists(places, min_size=count, max_size=count))) if s is not None
        ]
        if data.draw(st.booleans()):
            pairs = list(book.greedy.pairs)
        value = sum(book.table.W[j][book.table.place[s]] for j, s in pairs)
        seller = w.seller(number)
        w.send(seller.key, Kind.ALLOCATION, seller.proposal(w.market, pairs, max(0, value + lie)), after_ms=1)

    @precondition(lambda self: self.world.market.core.state.assigned)
    @rule(pick=st.integers(0, 99), code=st.sampled_from([ResultCode.OK] * 9 + list(ResultCode)), output=st.sampled_from((b"output", b"lie")),
          fuel=st.sampled_from((0, 1, 10**9)), holders=st.sampled_from((1, 2, 2, 2, 3)),
          seen=st.sampled_from((0, -1_000, 10**6)))  # fmt: skip
    def file(self, pick, code, output, fuel, holders, seen):
        w = self.world
        owed = [(seller, duty) for seller in w.consortium.sellers for duty in runs_owed(w.market, seller.id)]
        seller, duty = owed[pick % len(owed)]
        filing = seller.result(
            duty.offer_id, seen_ms=max(0, w.now_ms + seen), holders=w.others(seller.id, holders), code=code,
            fuel_used=min(fuel, duty.offer.fuel_limit), output=output,
        )  # fmt: skip
        w.send(seller.key, Kind.RESULT_HASH, filing)

    @precondition(lambda self: self.world.market.core.state.done)
    @rule(pick=st.integers(0, 99), code=st.sampled_from((ResultCode.OK, ResultCode.OK, ResultCode.NO_KEY, ResultCode.WALL)),
          output=st.sampled_from((b"output", b"output", b"lie")), fuel=st.sampled_from((0, 1, 10**9)))  # fmt: skip
    def audit(self, pick, code, output, fuel):
        w = self.world
        owed = [(seller, duty) for seller in w.consortium.sellers for duty in audits_owed(w.market, seller.id)]
        if owed:
            seller, duty = owed[pick % len(owed)]
            filing = seller.audit(duty.offer_id, code=code, fuel_used=min(fuel, duty.offer.fuel_limit), output=output)
            w.send(seller.key, Kind.RESULT_HASH, filing)

    @precondition(lambda self: self.world.market.core.state.assigned)
    @rule(lies=st.booleans())
    def everybody_files(self, lies):
        """Honest work, but for server 0 if it lies; then whoever is drawn audits honestly."""
        w = self.world
        for seller in w.consortium.sellers:
            for duty in runs_owed(w.market, seller.id):
                output = b"lie" if lies and seller.id == 0 else b"output"
                filing = seller.result(
                    duty.offer_id, seen_ms=w.now_ms, holders=w.others(seller.id, 2), fuel_used=10**6, output=output
                )
                w.send(seller.key, Kind.RESULT_HASH, filing, after_ms=1)

    @precondition(lambda self: self.world.market.core.state.done)
    @rule()
    def everybody_audits(self):
        w = self.world
        for seller in w.consortium.sellers:
            for duty in audits_owed(w.market, seller.id):
                w.send(seller.key, Kind.RESULT_HASH, seller.audit(duty.offer_id, fuel_used=10**6), after_ms=1)

    @precondition(lambda self: self.world.market.core.state.done)
    @rule()
    def draw(self):
        w = self.world
        for seller in w.consortium.sellers:
            if draw_due(w.market, seller.id):
                w.send(seller.key, Kind.DRAW, seller.draw(w.market, w.height))

    @rule(pick=st.integers(0, 99), who=st.integers(0, 1), rare=st.integers(0, 5))
    def cancel(self, pick, who, rare):
        w = self.world
        tasks = list(w.market.tasks(TaskState.OPEN, TaskState.ASSIGNED))
        if tasks and not rare:
            w.send(self.ues[who].key, Kind.CANCEL, Cancel(tasks[pick % len(tasks)].offer_id), after_ms=1)

    @precondition(lambda self: self.world.market.batch() is not None)
    @rule()
    def settle(self):
        self.world.settle()

    @rule(number=st.integers(0, 3), wei=st.sampled_from((1, 10**18)))
    def lie_about_the_chain(self, number, wei):
        """One validator alone attests what never happened."""
        fake = ChainFact(keccak(b"never %d" % self.world.height), 0, 0, Deposited(self.ues[0].address, to_u96(wei)))
        self.world.attest(fake, by=(number,))

    @rule(ms=st.sampled_from((1, 1, 150, 150, 2_001, 5_001, 21_000, 90_000, 700_000)))
    def time_passes(self, ms):
        self.world.block(after_ms=ms)

    @rule(ms=st.sampled_from((500, 500, 500, 500, 500, 30_000)))
    def time_passes_as_asked(self, ms):
        self.world.run(ms)

    @invariant()
    def wake_is_ahead(self):
        if hasattr(self, "world"):
            wake = self.world.market.wake_at()
            assert wake is None or wake > self.world.now_ms


TestMarketMachine = MarketMachine.TestCase
TestMarketMachine.settings = settings(
    max_examples=40, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(Kind)), st.binary(max_size=200), st.integers(0, 4))
def test_no_octets_break_the_machine(kind, octets, sender):
    """Fuzz of payloads: any bytes of anybody give one outcome, and a refused one leaves no trace."""
    world = fuzz_world()
    key = world.consortium.keys[sender] if sender < 4 else world.consortium.ue(1).key
    before = world.market.snapshot()
    outcome = world.send(key, kind, octets, after_ms=1)
    if outcome.code:
        assert world.market.snapshot() == before
    assert encode(outcome)


_WORLDS = []


def fuzz_world():
    if not _WORLDS:
        world = World()
        world.advertise()
        world.funded_ue()
        _WORLDS.append(world)
    return _WORLDS[0]
