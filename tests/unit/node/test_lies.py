"""What a liar's mouth says, against the rules that catch it; and that an honest word passes unchanged."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgora.compute.limits import Limits, Outcome
from edgora.crypto.sign import SigningKey, recover
from edgora.market.rules import Refusal, check_proposal, greedy, instance_digest, round_table
from edgora.node.lies import EquivocatingLinks, FalsifyingRunner, LieFile, chosen_lie, false_plans
from edgora.ports.faults import Lie
from edgora.ports.runner import Job
from edgora.ports.transport import LinkView
from edgora.wire.eip712 import Domain
from edgora.wire.errors import Refused
from edgora.wire.hashing import merkle_root
from edgora.wire.ledger import Header
from edgora.wire.market import Code, Instance, LiveServer, OpenTask, ResultCode
from edgora.wire.pbft import Commit, Lane, Message, PrePrepare, decode_message, encode_message
from edgora.wire.units import Fuel, Millis, ModuleDigest, Octets

KEY = SigningKey.derived("liar")
DOMAIN = Domain.ledger(1, bytes(32))


# ---- equivocation


@dataclass
class Line:
    """A transport that keeps what it was given."""

    peers: Sequence[int] = (0, 2, 3)
    sent: list[tuple[int, Lane, bytes]] = field(default_factory=list)

    async def start(self, receiver: object, boot_nonce: int) -> None: ...
    async def stop(self) -> None: ...
    async def call(self, peer: int, request: bytes, timeout_ms: int) -> bytes:
        return request

    def send(self, peer: int, lane: Lane, data: bytes) -> None:
        self.sent.append((peer, lane, data))

    def cut(self, peer: int, reason: str) -> None: ...
    def links(self) -> Sequence[LinkView]:
        return ()


def proposal(height: int, parent: bytes) -> PrePrepare:
    empty = merkle_root([])
    header = Header(
        0, height, parent, empty, 0, height - 1, bytes(32), empty, 0, bytes(32), 1_000 + height, KEY.address
    )
    made = PrePrepare(0, 5, header, (), (), bytes(65), None)
    return msgspec.structs.replace(made, signature=KEY.sign(made.vote(header.struct_hash()).digest(DOMAIN)))


def say(links: EquivocatingLinks, message: Message) -> None:
    for peer in links.peers:
        links.send(peer, Lane.CONSENSUS, encode_message(message))


def test_each_backup_is_shown_a_chain_of_its_own_under_the_liars_signature() -> None:
    line = Line()
    links = EquivocatingLinks(line, KEY, DOMAIN, lambda: Lie.EQUIVOCATE)
    first = proposal(9, b"p" * 32)
    second = proposal(10, first.header.struct_hash())
    say(links, first)
    say(links, second)
    seen: dict[int, list[PrePrepare]] = {}
    for peer, _, data in line.sent:
        message = decode_message(data)
        assert isinstance(message, PrePrepare)
        seen.setdefault(peer, []).append(message)
    assert set(seen) == {0, 2, 3}
    for lower, upper in seen.values():
        assert lower.header.parent == b"p" * 32
        assert upper.header.parent == lower.header.struct_hash(), "each chain holds together by itself"
        assert upper.header.time_ms > lower.header.time_ms
        for told in (lower, upper):
            assert recover(told.vote(told.header.struct_hash()).digest(DOMAIN), told.signature) == KEY.address
    assert len({lower.header.struct_hash() for lower, _ in seen.values()} | {first.header.struct_hash()}) == 4


def test_nothing_else_is_touched_and_an_honest_node_says_what_it_means() -> None:
    line, lie = Line(), None
    links = EquivocatingLinks(line, KEY, DOMAIN, lambda: lie)
    words = encode_message(proposal(9, bytes(32)))
    links.send(2, Lane.CONSENSUS, words)
    lie = Lie.FALSE_RESULT
    links.send(2, Lane.CONSENSUS, words)
    lie = Lie.EQUIVOCATE
    vote = encode_message(Commit(0, 5, 9, bytes(32), bytes(65)))
    links.send(2, Lane.CONSENSUS, vote)
    links.send(2, Lane.GOSSIP, b"whatever")
    assert [data for _, _, data in line.sent] == [words, words, vote, b"whatever"]


# ---- false plans


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    servers = tuple(
        LiveServer(i, draw(st.integers(1, 10**8)), 2 * 10**9, draw(st.integers(1, 4)), draw(st.integers(1, 60)), 10**6, 10**3, 2 * 10**9, draw(st.integers(0, 2 * 10**9)))
        for i in draw(st.sets(st.integers(0, 9), min_size=1, max_size=4).map(sorted))
    )  # fmt: skip
    tasks = tuple(
        OpenTask(bytes([n]) * 32, bytes(20), draw(st.sampled_from(servers)).id, draw(st.integers(1, 10**9)), draw(st.integers(1, 80)), 10_000, 1_000, 1_000, draw(st.integers(1, 100_000)), ())
        for n in range(draw(st.integers(1, 4)))
    )  # fmt: skip
    return Instance(3, 1_000, 500, tasks, servers)


@given(instances(), st.integers(0, 9))
def test_every_false_plan_is_refused_for_what_it_is(instance: Instance, own: int) -> None:
    table, digest = round_table(instance), instance_digest(instance)
    worth = greedy(table).value
    codes = []
    for plan in false_plans(instance, own):
        with pytest.raises(Refusal) as refused:
            check_proposal(table, digest, plan, greedy_value=worth, floor_bps=10_000, accepted={})
        codes.append(refused.value.code)
    assert codes[0] is Code.VALUE_WRONG
    assert codes[1] in {Code.PAIR_NOT_OK, Code.ROOM_EXCEEDED, Code.SERVER_NOT_IN_ROUND}


# ---- false results


@dataclass
class Honest:
    outcome: Outcome
    slots: int = 2

    async def run(self, _: Job) -> Outcome:
        return self.outcome


def job() -> Job:
    limits = Limits(Fuel(10), 1, Octets(10), Millis(10))
    return Job(ModuleDigest(bytes(32)), None, b"", limits, 1)


@pytest.mark.parametrize(("output", "false"), [(b"abc", b"ab\x9c"), (b"", b"\x00")])
async def test_an_output_is_wrong_in_one_octet(output: bytes, false: bytes) -> None:
    honest = Outcome(ResultCode.OK, output, Fuel(7), Millis(3))
    told = await FalsifyingRunner(Honest(honest), lambda: Lie.FALSE_RESULT).run(job())  # type: ignore[arg-type]
    assert (told.code, told.output, told.fuel_used) == (ResultCode.OK, false, 7)


@pytest.mark.parametrize("lie", [None, Lie.EQUIVOCATE, Lie.FALSE_ALLOCATION])
async def test_otherwise_results_pass_as_they_are(lie: Lie | None) -> None:
    good = Outcome(ResultCode.OK, b"abc", Fuel(7), Millis(3))
    assert await FalsifyingRunner(Honest(good), lambda: lie).run(job()) is good  # type: ignore[arg-type]
    trap = Outcome(ResultCode.TRAP, b"", Fuel(7), Millis(3))
    assert await FalsifyingRunner(Honest(trap), lambda: Lie.FALSE_RESULT).run(job()) is trap  # type: ignore[arg-type]


# ---- the switch


def test_the_file_names_the_lie_and_outlives_a_restart(tmp_path: Path) -> None:
    switch = LieFile(tmp_path / "lie")
    assert switch() is None
    for lie in Lie:
        switch.choose(lie)
        assert LieFile(tmp_path / "lie")() is lie
    switch.choose(None)
    switch.choose(None)
    assert switch() is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "lie").write_text("flattery\n")
    assert switch() is None, "a word that we do not know is no lie"


def test_lies_by_name() -> None:
    assert chosen_lie("none") is None
    assert chosen_lie("equivocate") is Lie.EQUIVOCATE
    with pytest.raises(Refused) as refused:
        chosen_lie("flattery")
    assert refused.value.field == "lie"
