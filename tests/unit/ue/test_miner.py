"""A UE that mines: the model's figures for what is decided, real puzzles for what is sent and kept, policies beside it."""

import asyncio
import textwrap
from pathlib import Path

import numpy as np
import pytest

from edgora.allocator.privacy.instance import draw
from edgora.allocator.privacy.simulation import Simulation
from edgora.compute.sandbox import Sandbox
from edgora.ue.device import Device
from edgora.ue.miner import BESIDE, KERNEL, Puzzle, Sent, beside, mine, prepared, puzzle
from edgora.ue.plan import Mining
from edgora.wire.errors import NotFound, Unavailable
from edgora.wire.inputs import TaskInput


class Site:
    """A radio, a busy server, and one sandbox for both sides."""

    def __init__(self, device: Device, loads: list[float], *, away: bool = False) -> None:
        self.device, self.loads, self.away = device, loads, away
        self.fading, self.asked = 1.0, 0
        self.sent: list[Puzzle] = []
        self.kept: list[Puzzle] = []
        self.shares: list[float] = []

    def fade(self, share: float) -> None:
        self.fading = share
        self.shares.append(share)

    def share(self) -> float:
        return self.fading

    async def load(self) -> float:
        self.asked += 1
        return self.loads[(self.asked - 1) % len(self.loads)]

    async def send(self, work: Puzzle) -> Sent:
        if self.away:
            raise Unavailable("no server is live", field="servers")
        self.sent.append(work)
        run = await self.device.run(KERNEL, work.plaintext, 10**9)
        return Sent(f"0x{len(self.sent):064x}", 17, run.output)

    async def compute(self, work: Puzzle) -> bytes:
        self.kept.append(work)
        return (await self.device.run(KERNEL, work.plaintext, 10**9)).output


def kb(work: Puzzle) -> float:
    return len(TaskInput.unpack(work.plaintext).data) / 125


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox()


async def run(mining: Mining, sandbox: Sandbox, seed: int = 3, **more: object) -> tuple[list, Site]:
    device = Device(sandbox)
    site = Site(device, [0.1, 0.5, 0.9], **more)  # type: ignore[arg-type]
    try:
        return await mine(mining, prepared(mining), 4, seed, site, asyncio.Event()), site
    finally:
        await device.close()


async def test_slots_are_the_models_and_puzzles_are_real(sandbox: Sandbox) -> None:
    mining = Mining(policy="ddqn-vec", slots=12, slot_ms=10, bits=2)
    slots, site = await run(mining, sandbox)
    assert [slot.number for slot in slots] == list(range(12))
    assert {slot.level for slot in slots} == {0, 1, 2}
    assert {slot.good for slot in slots} == {True, False}
    assert site.shares[:-1] == [1.0 if slot.good else 0.075 for slot in slots]
    assert site.fading == 1.0
    assert {slot.sent for slot in slots} == {True, False}
    instance, waiting = draw(0, {}), 0.0
    simulation = Simulation(instance, 1, 0)
    for slot in slots:
        assert (slot.waiting_kb, slot.new_kb % 10) == (waiting, 0)
        simulation.state = type(simulation.state)(
            D1=np.full((1, 1, 1), slot.new_kb), D0=np.full((1, 1, 1), waiting), g=np.full((1, 1), int(slot.good)),
            level=np.full(1, slot.level), backlog=np.zeros(1),
        )  # fmt: skip
        outcome = simulation.step(np.full((1, 1, 1), slot.sent))
        assert slot.reward == pytest.approx(outcome.reward[0, 0])
        assert slot.reward == pytest.approx(50 * slot.privacy - slot.cost)
        waiting = float(outcome.D0[0, 0, 0])
        assert slot.puzzle_kb == slot.new_kb + slot.waiting_kb - waiting
        assert slot.verified
        assert slot.met_ms is not None
        assert (slot.task is not None, slot.amount) == (slot.sent, 17 if slot.sent else 0)
    assert sorted(kb(work) for work in site.sent) == sorted(s.puzzle_kb for s in slots if s.sent)
    assert sorted(kb(work) for work in site.kept) == sorted(s.puzzle_kb for s in slots if not s.sent)
    again, _ = await run(mining, sandbox)
    decided = [(s.new_kb, s.waiting_kb, s.good, s.level, s.sent, s.reward) for s in slots]
    assert [(s.new_kb, s.waiting_kb, s.good, s.level, s.sent, s.reward) for s in again] == decided


async def test_others_are_shown_on_the_same_draws(sandbox: Sandbox) -> None:
    mining = Mining(policy="EO", slots=8, slot_ms=10, bits=0)
    slots, site = await run(mining, sandbox)
    lines = {line.policy: line for line in beside(mining, slots)[1:]}
    assert tuple(lines) == BESIDE
    own = beside(mining, slots)[0]
    assert own == lines["EO"], "the run's own policy, played again"
    assert (own.sent, lines["NO"].sent) == (1.0, 0.0)
    assert lines["myopic"].reward > max(lines["NO"].reward, lines["EO"].reward)
    assert not site.kept
    assert beside(mining, []) == []


async def test_a_failure_is_its_slots_error_and_ones_own_policy_decides(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shy.py").write_text(
        textwrap.dedent("""
            import numpy as np

            class Shy:
                def propose(self, instance, budget_s):
                    return self

                def act(self, state):
                    return (state.D0 + state.D1) > 100.0
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    slots, _ = await run(Mining(policy="shy:Shy", slots=5, slot_ms=10, bits=0), sandbox, away=True)
    for slot in slots:
        assert slot.sent == (slot.new_kb + slot.waiting_kb > 100)
        assert (slot.error, slot.verified) == (("no server is live", None) if slot.sent else (None, True))
    assert {slot.sent for slot in slots} == {True, False}
    with pytest.raises(NotFound, match="nobody"):
        prepared(Mining(policy="nobody"))


def test_a_puzzle_has_its_data_and_repeats() -> None:
    work = puzzle(150.0, 4, 9)
    assert kb(work) == 150.0
    assert work == puzzle(150.0, 4, 9)
    assert work.plaintext != puzzle(150.0, 4, 10).plaintext
