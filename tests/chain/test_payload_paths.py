"""I10: three readers of a payload agree: the contract's fast path, plain Solidity, and Python (contracts.md 12).

The same octets go to all three, sound ones and spoilt ones. Either all refuse at the same octet, or all find the same
amounts, and the fast path has credited exactly what plain Solidity adds up.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from chain.evm_world import LAMBDA_BPS, PHASES, STAKE, Refused, World, hexed, refusal_of
from chain.market_model import Model
from edgora.adapters.contract_chain import Interface
from edgora.contracts import build
from edgora.crypto.sign import SigningKey
from edgora.wire.hashing import keccak
from edgora.wire.settlement import (
    BURN,
    BadPayload,
    Line,
    LockLine,
    Payload,
    Penalty,
    Section,
    ServerRow,
    decode_payload,
    encode_payload,
    line_amount,
)

PLAIN = Path(__file__).parents[2] / "contracts" / "test" / "PlainPayload.sol"
SERVERS = 4


class Plain:
    """The plain reader on the same EVM."""

    def __init__(self, world: World) -> None:
        settings_ = {**build.SETTINGS, "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object"]}}}
        compiled = build.compile_sources({"test/PlainPayload.sol": PLAIN.read_text("utf-8")}, settings_)
        contract = compiled["contracts"]["test/PlainPayload.sol"]["PlainPayload"]
        self.abi = Interface(contract["abi"])
        self.world = world
        deployer = SigningKey.derived("plain deployer").address
        world.fund(deployer)
        self.address = world.evm.deploy(hexed(deployer), bytes.fromhex(contract["evm"]["bytecode"]["object"]))

    def read(self, payload: bytes, sections: list[bool], locks: list[bool]) -> tuple:
        data = self.abi.call("read", payload, SERVERS, LAMBDA_BPS, sections, locks)
        try:
            answer = self.world.evm.message_call(hexed(bytes(20)), self.address, data, is_static=True)
        except RuntimeError as error:
            found = bytes.fromhex(str(error).split("output: 0x")[1].split(" ")[0])
            raise Refused(self.abi.refusal(found).rule, (int.from_bytes(found[4:], "big"),)) from None
        return self.abi.result("read", answer)[0]


class Scene(NamedTuple):
    world: World
    model: Model
    plain: Plain
    ues: list[SigningKey]
    keys: list[bytes]


@cache
def scene() -> Scene:
    try:
        build.find_solc()
    except RuntimeError as missing:
        pytest.skip(str(missing))
    world = World()
    model = Model(world.domain, list(world.quorum.addresses), world.now)
    for key in world.quorum.keys:
        model.register(key.address, key.address, STAKE)
    ues = [world.ue(f"payload ue {index}", wei=2**90) for index in range(3)]
    for ue in ues:
        model.deposit(ue.address, 2**90)
    offers = [keccak(bytes([index])) for index in range(2)]
    keys = [world.lock(ues[0], offer, 10**9) for offer in offers]
    for offer in offers:
        model.open(ues[0].address, offer, world.now + 600, 10**9)
    return Scene(world, model, Plain(world), ues, keys)


def read_in_python(packed: bytes) -> tuple[Payload | None, int]:
    try:
        return decode_payload(packed, SERVERS), 0
    except BadPayload as bad:
        return None, bad.offset


numbers = st.one_of(st.integers(0, 4), st.integers(0, 2**48 - 1))


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    world, _, _, ues, keys = scene()
    ids = draw(st.lists(st.integers(0, SERVERS - 1), max_size=5))
    places = len(ids)
    rows = tuple(ServerRow(id, draw(st.integers(0, 9)), draw(st.integers(0, 9))) for id in ids)
    place = st.integers(0, max(0, places - 1))
    line = st.builds(Line, place, place, numbers, st.integers(0, 2**32 - 1))
    lines = st.lists(line, max_size=5 if places else 0)

    def section(lines_: list[Line], who: int, spoilt: bool) -> Section:
        made = world.section(ues[who], lines_, cap=2**96 - 1)
        return made._replace(signature=bytes(65)) if spoilt else made

    sections = draw(st.lists(st.builds(section, lines, st.integers(0, 2), st.booleans()), max_size=4))
    lock = st.builds(LockLine, st.sampled_from(keys), st.builds(Line, place, place, st.integers(0, 9), st.just(1)))
    locks = draw(st.lists(lock, max_size=3 if places else 0))
    burn = st.sampled_from([BURN, *range(places)])
    penalties = draw(st.lists(st.builds(Penalty, st.integers(0, SERVERS - 1), burn, st.just(0)), max_size=3))
    packed = encode_payload(Payload(rows, tuple(sections), tuple(locks), tuple(penalties)))
    match draw(st.sampled_from(["whole", "whole", "cut", "longer", "octet", "counts"])):
        case "cut":
            return packed[: draw(st.integers(0, len(packed)))]
        case "longer":
            return packed + draw(st.binary(max_size=90))
        case "octet":
            at = draw(st.integers(0, len(packed) - 1))
            return packed[:at] + draw(st.binary(min_size=1, max_size=1)) + packed[at + 1 :]
        case "counts":
            return draw(st.binary(min_size=6, max_size=6)) + packed[6:]
    return packed


@given(packed=payloads())
@settings(
    max_examples=250, deadline=None, derandomize=True, phases=PHASES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
def test_three_readers_agree(packed: bytes) -> None:
    world, model, plain, _, _ = scene()
    payload, offset = read_in_python(packed)
    if payload is None:
        for other in (lambda: plain.read(packed, [], []), lambda: world.settle(packed)):
            refused = refusal_of(other)
            assert refused is not None
            assert (refused.rule[-10:], refused.values) == ("BadPayload", (offset,))
        return
    assert encode_payload(payload) == packed
    before = [world.view("earned", id) for id in range(SERVERS)]
    world.settle(packed)
    settled = model.settle(world.batch_id, packed)
    assert [(name, values[1]) for name, values in world.logs if name.endswith("Skipped")] == settled.skipped
    credits, tasks, section_totals, lock_amounts = plain.read(packed, settled.sections, settled.locks)
    assert list(section_totals) == [sum(map(line_amount, section.lines)) for section in payload.sections]
    assert list(lock_amounts) == [line_amount(lock.line) for lock in payload.locks]
    earned = list(credits)
    for penalty, (_, taken) in zip(payload.penalties, world.named("ServerPenalised"), strict=True):
        if penalty.beneficiary != BURN:
            earned[penalty.beneficiary] += taken
    for id in range(SERVERS):
        after = world.view("earned", id)
        mine = [place for place, row in enumerate(payload.servers) if row.id == id]
        assert after[0] - before[id][0] == sum(earned[place] for place in mine)
        assert after[3] - before[id][3] == sum(tasks[place] for place in mine)
        assert after[0] == model.servers[id].earned
