"""BaaS policies in rounds of the market: `baas:SOLVER` through the registry, like any other policy."""

import asyncio
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from edgora.adapters.memory_bus import MemoryBus
from edgora.allocator.allocd import AllocatorWorker, ThreadEngine
from edgora.allocator.baas.model import latency
from edgora.allocator.baas_rounds import slot_of
from edgora.allocator.live import LiveRound, propose
from edgora.allocator.registry import policy, problem, solve
from edgora.lab.scenario import load
from edgora.market import rules
from edgora.ports.bus import Answer, Proposed, RoundRequest, answers_topic, rounds_topic
from edgora.wire.codec import decode, encode, from_u128
from edgora.wire.errors import NotFound, Refused
from edgora.wire.market import Allocation, Instance, LiveServer, OpenTask, Reason

NOW = 1_800_000_000_000
SHIPPED = ("exact", "priced", "greedy", "random", "ga", "pair-q", "struct-ddqn")


def a_round(number: int = 7, tasks: int = 24, servers: int = 4) -> Instance:
    """Tasks of 1..60 Mfuel with inputs up to 2 MB; fast servers are dear; some pairs are refused."""
    rng = np.random.default_rng(number)
    return Instance(
        number, NOW, 500,
        tuple(
            OpenTask(
                offer_id=bytes(31) + bytes([j]), ue=bytes(20), source=int(rng.integers(servers)),
                fuel_limit=int(rng.integers(10**6, 6 * 10**7)), price=int(rng.integers(20, 60)),
                input_octets=int(rng.integers(10**3, 2 * 10**6)), output_octets=1_000, desired_ms=int(rng.integers(500, 4_000)),
                deadline_ms=NOW + int(rng.integers(2_000, 20_000)), excluded=(0,) if j % 5 == 0 else (),
            )
            for j in range(tasks)
        ),
        tuple(
            LiveServer(
                id=i, speed=(i + 1) * 2 * 10**7, capacity=2 * 10**8, slots=4, ask=10 + 8 * i, uplink=2 * 10**6, forward=1,
                credit=10**12, used=0,
            )
            for i in range(servers)
        ),
    )  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_what_it_proposes_is_what_the_market_accepts(name: str) -> None:
    instance = a_round()
    answer = propose(instance, policy("mta", f"baas:{name}", seed=1), 20.0, floor_bps=0)
    assert isinstance(answer, Allocation), answer
    assert answer.policy == f"baas:{name}"
    market = rules.round_table(instance)
    greedy = rules.greedy(market).value
    value = rules.check_proposal(
        market, rules.instance_digest(instance), answer, greedy_value=greedy, floor_bps=0, accepted={}
    )
    assert 0 < from_u128(answer.value) == value
    assert len(answer.pairs) >= 12  # each server has room for several: slots follow each other


def test_a_slot_has_the_markets_times_and_refused_pairs_never_win() -> None:
    live = LiveRound(a_round())
    tasks, fits = np.arange(24), live.table.feasible
    slots = slot_of(live, tasks, fits)
    scaled = latency(slots)[0].T
    of_time = scaled[fits] / live.time_ms[fits]
    np.testing.assert_allclose(of_time, of_time[0], rtol=1e-9)
    assert np.mean(slots.d * slots.xi) == pytest.approx(26.4)
    assert np.mean(slots.f) == pytest.approx(5.0)
    chosen = policy("mta", "baas:exact").propose(live, 10.0).plan
    assert live.table.allows(chosen)
    assert (chosen >= 0).any()
    nobody = propose(a_round(), policy("mta", "baas:exact"), 1e-9, floor_bps=0)  # no time for a slot: the market's rule
    assert isinstance(nobody, Allocation)
    assert from_u128(nobody.value) == rules.greedy(rules.round_table(a_round())).value


def test_another_objective_is_told_by_the_floor() -> None:
    answers = [propose(a_round(n), policy("mta", "baas:random", seed=n), 5.0, floor_bps=10_000) for n in range(5)]
    assert any(isinstance(answer, Reason) and answer.code == "BELOW_FLOOR" for answer in answers)


def test_ones_own_baas_policy_proposes_and_what_is_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy.py").write_text(
        textwrap.dedent("""
            import numpy as np

            class Heaviest:
                def propose(self, instance, budget_s):
                    order = np.argsort(-(instance.d * instance.xi)[0])
                    assign = np.full(instance.params.M, -1)
                    for server, ue in zip(range(instance.params.M), order):
                        assign[server] = ue
                    return {"assign": assign, "request": np.full(instance.params.M, 60.0)}

            class Wrong:
                def propose(self, instance, budget_s):
                    return {"assign": [0], "request": [60.0]}
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    answer = propose(a_round(), policy("mta", "baas:heavy:Heaviest"), 5.0, floor_bps=0)
    assert isinstance(answer, Allocation)
    assert answer.policy == "baas:heavy:Heaviest"
    wrong = propose(a_round(), policy("mta", "baas:heavy:Wrong"), 5.0, floor_bps=0)
    assert isinstance(wrong, Reason)
    assert (wrong.code, "assign must be 4 integers" in wrong.subject) == ("FAILED", True)
    with pytest.raises(NotFound, match="baas has no solver 'nobody'"):
        policy("mta", "baas:nobody")
    with pytest.raises(Refused, match="live rounds"):
        solve("mta", "baas:exact", problem("mta").draw(1, {"n": 3, "m": 5}))
    untrained = propose(a_round(), policy("mta", "baas:dqn"), 5.0)
    assert isinstance(untrained, Reason)
    assert "dqn ships no weights" in untrained.subject


async def test_it_serves_a_node_like_any_other() -> None:
    bus = MemoryBus()
    worker = AllocatorWorker(bus, 3, ThreadEngine(policy("mta", "baas:pair-q"), floor_bps=0), now_ms=lambda: 1_000)
    running = asyncio.create_task(worker.run())
    await bus.publish(rounds_topic(3), encode(RoundRequest(a_round(9), 1_000, 60_000)))
    [taken] = await bus.take(answers_topic(3), "node", "test", limit=1, wait_ms=60_000)
    worker.stop()
    await running
    await bus.close()
    answer = decode(taken.data, Answer)
    assert isinstance(answer, Proposed)
    assert (answer.allocation.policy, answer.allocation.round) == ("baas:pair-q", 9)


SCENARIO = Path(__file__).parents[3] / "deploy" / "scenarios" / "baas.toml"


def test_the_scenarios_policies_are_there() -> None:
    scenario = load(SCENARIO)
    policies = [scenario.server(i).policy for i in range(scenario.consortium.nodes)]
    assert scenario.market_params().prefer in policies
    for name in policies:
        answer = propose(a_round(), policy("mta", name), 20.0, floor_bps=scenario.market_params().floor_bps)
        assert isinstance(answer, Allocation), answer


@pytest.mark.slow
def test_the_scenario_runs_and_a_round_is_won_by_baas() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from edgora.cli import main; main()", "demo", "--scenario", str(SCENARIO), "--json"],
        capture_output=True, timeout=280, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert (report["problems"], done.returncode) == ([], 0)
    assert report["policies"]["baas:pair-q"] >= 1
    assert [line["policy"] for line in report["privacy"]] == ["myopic", "NO", "EO", "myopic"]
