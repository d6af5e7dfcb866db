"""Exactly once, and what results look like (ledger.md 3, 8)."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgora.crypto.sign import SigningKey
from edgora.ledger.config import Params
from edgora.ledger.executor import PREFIX, Executor
from edgora.wire.application import Applied, Outcome
from edgora.wire.errors import Broken
from edgora.wire.hashing import merkle_root
from edgora.wire.ledger import Kind, LedgerCode, SignedTx, Tx
from unit.ledger.harness import CLIENTS, DOMAIN, KEYS, Cluster, Forge, Registers

CODE = LedgerCode


class Bench:
    """One executor that is fed blocks of transactions."""

    def __init__(self, application=None, **params):
        self.app = application or Registers([key.address for key in CLIENTS])
        self.executor = Executor(self.app, [key.address for key in KEYS[:4]], Params(**params))
        self.world = Cluster(1)
        self.headers = [self.world.genesis]

    def run(self, *txs, exec_height=0):
        signed = [SignedTx(tx, bytes(65)) if isinstance(tx, Tx) else tx for tx in txs]
        header = Forge(self.world).header(self.headers[-1], txs=signed, exec_height=exec_height)
        self.headers.append(header)
        return self.executor.execute(header, header.hash, signed, [s.tx.digest(DOMAIN) for s in signed])

    def codes(self, *txs, **kwargs):
        return [receipt.code for receipt in self.run(*txs, **kwargs).receipts]

    def tx(self, client, seq, payload=b"+n", lane=0, **changes):
        return self.world.tx(client, payload, lane=lane, seq=seq, **changes)


def test_a_lane_runs_its_sequence_numbers_in_order_each_once():
    bench = Bench()
    assert bench.codes(bench.tx(0, 0), bench.tx(0, 1)) == [0, 0]
    assert bench.codes(bench.tx(0, 1)) == [CODE.DUPLICATE]
    assert bench.codes(bench.tx(0, 3)) == [CODE.SEQ_GAP]
    assert bench.codes(bench.tx(0, 3), bench.tx(0, 2), bench.tx(0, 3, b"+n ")) == [CODE.SEQ_GAP, 0, 0]
    assert bench.app.state[b"n"] == b"3"


def test_lanes_do_not_hold_each_other_up():
    bench = Bench()
    assert bench.codes(bench.tx(0, 5, lane=1), bench.tx(0, 0, lane=2), bench.tx(1, 0, lane=1)) == [CODE.SEQ_GAP, 0, 0]
    assert bench.executor.next_seq((CLIENTS[0].address, 2)) == 1
    assert bench.executor.next_seq((CLIENTS[0].address, 1)) == 0


def test_a_refused_order_consumes_its_sequence_number():
    bench = Bench()
    assert bench.codes(bench.tx(0, 0, b"nonsense")) == [16]
    assert bench.codes(bench.tx(0, 0)) == [CODE.DUPLICATE]
    assert bench.codes(bench.tx(0, 1)) == [0]


def test_a_stranger_stores_nothing():
    bench = Bench()
    stranger = SigningKey.derived("stranger").address
    root = bench.executor.state_root
    [receipt] = bench.run(Tx(Kind.TASK, stranger, 0, 0, 100, b"+n")).receipts
    assert receipt.code == CODE.UNKNOWN_SENDER
    assert b"n" not in bench.app.state
    assert bench.executor.next_seq((stranger, 0)) == 0
    keys = bench.executor.freeze().merged()
    assert not any(stranger in key for key in keys)
    assert root != bench.executor.state_root  # the receipt itself is book-keeping that the next header repeats


def test_a_sender_has_16_lanes_and_a_validator_any_number():
    bench = Bench()
    assert bench.codes(*[bench.tx(0, 0, lane=i) for i in range(18)]) == [0] * 16 + [CODE.TOO_MANY_LANES] * 2
    assert bench.codes(bench.tx(0, 1, lane=3)) == [0]
    validator = [Tx(Kind.NOOP, KEYS[1].address, lane, 0, 100, b"") for lane in range(40)]
    assert bench.codes(*validator) == [0] * 40


@pytest.mark.parametrize(
    ("kind", "code"), [(Kind.NOOP, CODE.OK), (Kind.RECONFIG, CODE.BAD_PAYLOAD), (Kind.EVIDENCE, CODE.BAD_PAYLOAD)]
)
def test_kinds_of_the_ledger_never_reach_the_application(kind, code):
    bench = Bench()
    assert bench.codes(bench.tx(0, 0, kind=kind)) == [code]
    assert b"n" not in bench.app.state
    assert bench.codes(bench.tx(0, 0)) == [CODE.DUPLICATE]  # consumed all the same


def test_every_output_starts_with_the_kind_of_its_transaction():
    bench = Bench()
    txs = [bench.tx(0, 0, b"a=1"), bench.tx(0, 1, b"nonsense"), bench.tx(0, 9), bench.tx(0, 2, kind=Kind.NOOP)]
    outputs = [receipt.output for receipt in bench.run(*txs).receipts]
    assert outputs == [b"\0\2a=1", b"\0\2", b"\0\2", b"\0\x09"]


def test_receipts_name_transaction_height_and_place():
    bench = Bench()
    bench.run()
    txs = [bench.tx(0, 0), bench.tx(1, 0)]
    receipts = bench.run(*txs).receipts
    assert [(r.tx_hash, r.height, r.index) for r in receipts] == [
        (t.tx.digest(DOMAIN), 2, i) for i, t in enumerate(txs)
    ]


def test_an_empty_block_is_a_result_only_if_the_application_does_something():
    bench = Bench()
    assert not bench.run().substantial
    assert bench.run(bench.tx(0, 0)).substantial
    bench.app.state[b"wake"] = b"1"
    assert bench.run().substantial


def test_receipts_of_a_range_are_those_of_its_blocks_in_order():
    bench = Bench()
    receipts = [r for i in range(4) for r in bench.run(bench.tx(0, 2 * i), bench.tx(0, 2 * i + 1)).receipts]
    leaves = [r.struct_hash() for r in receipts]
    assert bench.executor.receipts_between(0, 4) == (merkle_root(leaves), 8)
    assert bench.executor.receipts_between(1, 3) == (merkle_root(leaves[2:6]), 4)
    assert bench.executor.receipts_between(2, 2) == (merkle_root([]), 0)
    assert bench.executor.receipts_between(2, 9) is None
    bench.executor.forget_below(3)
    assert bench.executor.receipts_between(1, 3) is None
    assert bench.executor.root_after(2) is None


def test_an_executor_from_a_snapshot_continues_exactly_as_the_original():
    bench = Bench()
    for i in range(3):
        bench.run(bench.tx(0, i), bench.tx(1, i), exec_height=max(0, i - 1))
    state, root = bench.executor.freeze().merged(), bench.executor.state_root
    other = Bench()
    other.headers = list(bench.headers)
    other.executor.restore(bench.headers[3], state, root)
    assert other.app.state == bench.app.state
    for above in (1, 2):
        assert other.executor.receipts_between(above, 3) == bench.executor.receipts_between(above, 3)
    assert [other.executor.root_after(h) for h in (2, 3)] == [bench.executor.root_after(h) for h in (2, 3)]
    txs = [bench.tx(0, 3), bench.tx(1, 2), bench.tx(2, 0)]
    assert other.run(*txs, exec_height=3) == bench.run(*txs, exec_height=3)
    assert other.executor.state_root == bench.executor.state_root


@pytest.mark.parametrize(
    ("applied", "text"),
    [
        (Applied([], {}, []), "answered 0 of 1"),
        (Applied([Outcome(0)], {PREFIX + b"lane/": b""}, []), "which is the ledger's"),
    ],
)
def test_an_application_that_breaks_its_contract_stops_the_process(applied, text):
    app = Registers([key.address for key in CLIENTS])
    bench = Bench(app)
    app.apply = lambda *_: applied
    with pytest.raises(Broken, match=text):
        bench.run(bench.tx(0, 0))


class ExactlyOnce(RuleBasedStateMachine):
    """Any blocks whatever: each (sender, lane, seq) has an effect at most once, in order, and the tree agrees."""

    def __init__(self):
        super().__init__()
        self.bench = Bench()
        self.ran = {}
        self.salt = 0

    @rule(orders=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 4)), max_size=5))
    def block(self, orders):
        txs = []
        for client, lane, seq in orders:
            self.salt += 1
            txs.append(self.bench.tx(client, seq, b"+%d/%d " % (client, lane) + b"%d" % self.salt, lane=lane))
        result = self.bench.run(*txs)
        for (client, lane, seq), receipt in zip(orders, result.receipts, strict=True):
            done = self.ran.setdefault((client, lane), 0)
            expected = 0 if seq == done else CODE.DUPLICATE if seq < done else CODE.SEQ_GAP
            assert receipt.code == expected
            self.ran[client, lane] = done + (receipt.code == 0)

    @invariant()
    def lanes_match(self):
        state = self.bench.executor.freeze().merged()
        stored = {k: int.from_bytes(v, "big") for k, v in state.items() if k.startswith(PREFIX + b"lane/")}
        for (client, lane), done in self.ran.items():
            key = PREFIX + b"lane/" + CLIENTS[client].address + lane.to_bytes(4, "big")
            assert stored.get(key, 0) == done == self.bench.executor.next_seq((CLIENTS[client].address, lane))


ExactlyOnce.TestCase.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
test_exactly_once = ExactlyOnce.TestCase
