# ruff: noqa: N803  # symbols as in the paper
"""One slot and the normative stream, digit for digit; files; and what must hold for any slot."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.allocator.privacy import State, draw
from edgora.allocator.privacy.exact import miner
from edgora.allocator.privacy.instance import Params, dump, load, make
from edgora.allocator.privacy.simulation import Simulation, TableSimulation
from edgora.wire.errors import Refused


def state_of(D1: object, D0: object, g: object, level: int, backlog: float = 0.0) -> State:
    return State(
        np.asarray(D1, dtype=float)[None], np.asarray(D0, dtype=float)[None], np.asarray(g)[None], np.array([level]),
        np.array([backlog]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("D1", "D0", "g", "level", "x", "E", "L", "P", "cost", "reward", "after"),
    [
        (100, 40, 1, 0, 0, 32.5, 66.5, 1.0, 24.0, 26.0, 40),
        (100, 40, 1, 2, 1, 36.0, 58.5, 0.4, 23.392713, -3.392713, 0),
        (60, 0, 0, 1, 1, 33.75, 58.5, 0.35, 22.700405, -5.200405, 0),
        (150, 300, 0, 0, 0, 48.75, 213.75, 0, 60, -60, 300),
        (50, 90, 1, 0, 1, 35.0, 38.5, 0.9, 18.874494, 26.125506, 0),
    ],
)
def test_one_stream_to_the_digit(
    D1: float, D0: float, g: int, level: int, x: int,
    E: float, L: float, P: float, cost: float, reward: float, after: float,
) -> None:  # fmt: skip
    found = make().model.slot(state_of([[D1]], [[D0]], [g], level), np.array([[[x]]]))
    assert 1e3 * found.E.item() == pytest.approx(E, abs=1e-9)
    assert 1e3 * found.L.item() == pytest.approx(L, abs=1e-9)
    assert found.P.item() == pytest.approx(P, abs=1e-12)
    assert found.cost.item() == pytest.approx(cost, abs=5e-7)
    assert found.reward.item() == pytest.approx(reward, abs=5e-7)
    assert found.D0.item() == after
    assert found.late.item() == 0


def test_two_miners_with_two_streams_to_the_digit() -> None:
    state = state_of([[50, 30], [70, 25]], [[0, 40], [20, 0]], [1, 0], 1)
    found = make(N=2, M=2).model.slot(state, np.array([[[1, 0], [1, 1]]]))
    assert 1e3 * found.E[0] == pytest.approx(np.array([[13.396875, 16.25], [50.921875, 14.995833]]), abs=5e-7)
    assert 1e3 * found.L[0] == pytest.approx(np.array([[31.6875, 33.25], [93.6875, 43.041667]]), abs=5e-7)
    assert found.P[0] == pytest.approx(np.array([0.3, 0.35]))
    assert found.reward[0] == pytest.approx(np.array([-0.957642, -17.174916]), abs=5e-7)
    assert found.D0[0].tolist() == [[0, 20], [0, 0]]


def test_the_literal_usage_rewards_sending_everything() -> None:
    model = make(params=Params(usage="literal")).model
    state = state_of([[100]], [[40]], [1], 0)
    assert model.slot(state, np.array([[[1]]])).P.item() == pytest.approx(1.0)  # |40 - 140| / 100
    assert model.slot(state, np.array([[[0]]])).P.item() == pytest.approx(0.4)


def test_nothing_to_send_gives_no_place_away() -> None:
    model = make(params=Params(D1_lo=0.0)).model
    assert model.slot(state_of([[0]], [[0]], [0], 0), np.array([[[1]]])).P.item() == 0.0


def test_a_server_that_cannot_finish_keeps_a_backlog_and_makes_the_next_slot_wait() -> None:
    simulation = Simulation(make(N=1, M=1, params=Params(F=1e8)), 1, 0)
    first = simulation.step(np.array([[[1]]]))
    work = 1000.0 * 2250.0 * 1.0
    D = (first.L.item() - 0.0) and simulation.state.backlog.item()
    assert pytest.approx(max(0.0, first.backlog.item())) == D
    assert first.backlog.item() > 0.0
    assert (first.backlog.item() + 1e8) % work == pytest.approx(0.0, abs=1e-3)  # whole kilobits of work
    waiting = simulation.state
    later = simulation.instance.model.slot(waiting, np.array([[[1]]]))
    fresh = State(waiting.D1, waiting.D0, waiting.g, waiting.level, np.zeros(1))
    alone = simulation.instance.model.slot(fresh, np.array([[[1]]]))
    assert later.L.item() - alone.L.item() == pytest.approx(first.backlog.item() / 1e8)


def test_the_normative_stream() -> None:
    simulation = Simulation(make(7), 1, 7)
    seen = []
    for _ in range(6):
        s = simulation.state
        seen.append((s.D1.item(), s.g.item(), s.level.item()))
        simulation.step(np.zeros((1, 1, 1)))
    assert seen == [(110, 1, 0), (120, 1, 0), (140, 1, 0), (150, 0, 0), (50, 0, 0), (80, 0, 0)]


def test_tables_play_the_same_slots_as_formulas() -> None:
    instance = make(beta=0.8)
    tables = miner(instance)
    fast, slow = TableSimulation(tables, 33, 5), Simulation(instance, 33, 5)
    rng = np.random.default_rng(0)
    for _ in range(60):
        states = tables.states
        assert states.D1[fast.index, 0, 0].tolist() == slow.state.D1[:, 0, 0].tolist()
        assert states.D0[fast.index, 0, 0].tolist() == slow.state.D0[:, 0, 0].tolist()
        assert states.g[fast.index, 0].tolist() == slow.state.g[:, 0].tolist()
        assert states.level[fast.index].tolist() == slow.state.level.tolist()
        actions = rng.integers(0, 2, 33)
        _, rewards = fast.step(actions)
        assert rewards.tolist() == slow.step(actions[:, None, None]).reward[:, 0].tolist()


def test_the_chains_frequencies() -> None:
    simulation = Simulation(make(), 4_000, 1)
    levels, stays = np.zeros(3), 0
    for _ in range(60):
        g = simulation.state.g
        simulation.step(np.zeros((4_000, 1, 1)))
        stays += int((g == simulation.state.g).sum())
    levels = np.bincount(simulation.state.level, minlength=3) / 4_000
    assert stays / 240_000 == pytest.approx(0.8, abs=0.005)
    assert levels == pytest.approx(np.array([6, 3, 2]) / 11, abs=0.04)


@settings(max_examples=60, deadline=None)
@given(
    N=st.integers(1, 4), M=st.integers(1, 3), seed=st.integers(0, 10**6), beta=st.floats(0, 1),
    level=st.integers(0, 2),
)  # fmt: skip
def test_what_holds_in_any_slot(N: int, M: int, seed: int, beta: float, level: int) -> None:
    instance = make(N=N, M=M, beta=beta)
    c, rng = instance.constants, np.random.default_rng(seed)
    grid = round(c.B / c.grid)
    state = State(
        c.D1_lo + c.grid * rng.integers(0, c.K, (1, N, M)), c.grid * rng.integers(0, grid + 1, (1, N, M)).astype(float),
        rng.integers(0, 2, (1, N)), np.array([level]), np.zeros(1),
    )  # fmt: skip
    x = rng.integers(0, 2, (1, N, M))
    found = instance.model.slot(state, x)
    assert (found.D0 >= 0).all()
    assert (found.D0 <= c.B).all()
    assert (found.D0[x == 1] == 0).all()
    kb = state.D0 + state.D1
    assert ((kb - found.D0)[x == 0] >= np.minimum(kb, c.C)[x == 0] - 1e-9).all()
    # Relabelling miners relabels everything.
    order = rng.permutation(N)
    moved = State(state.D1[:, order], state.D0[:, order], state.g[:, order], state.level, state.backlog)
    again = instance.model.slot(moved, x[:, order])
    assert again.reward == pytest.approx(found.reward[:, order])
    # One more offloaded stream never shortens anybody's wait at the server, and costs the others what `caused` says.
    for i in range(N):
        local = x.copy()
        local[0, i] = 0
        alone = instance.model.slot(state, local)
        others = np.arange(N) != i
        lost = (alone.reward - found.reward)[0, others].sum()
        assert lost == pytest.approx(instance.model.caused(state, x)[0, i], abs=1e-9)


def test_an_instance_file_repeats_exactly() -> None:
    instance = draw(9, {"N": 5, "M": 2, "beta": 0.8, "lambda": 0.25, "sigma": 0.7})
    document = json.loads(dump(instance))
    assert list(document)[:4] == ["problem", "version", "seed", "params"]
    assert document["params"] == {"sigma": 0.7, "lambda": 0.25}
    assert load(dump(instance)) == instance
    assert instance.constants.lambda_ == 0.25
    assert (instance.constants.C, instance.constants.B, instance.constants.grid) == (50.0, 150.0, 5.0)


@pytest.mark.parametrize(
    ("settings_", "field"),
    [
        ({"beta": 1.5}, "beta"), ({"N": 0}, "N"), ({"sigma": "x"}, "sigma"), ({"colour": 1}, "colour"),
        ({"usage": "printed"}, "usage"), ({"D1_hi": 10}, "D1_hi"), ({"grid": 7}, "grid"), ({"lambda_": 1}, "lambda_"),
        ({"F": 0}, "F"), ({"gamma": 1}, "gamma"), ({"N": 100_000, "M": 100_000}, "N"), ({"slots": 0}, "slots"),
        ({"beta": float("nan")}, "beta"),
    ],
)  # fmt: skip
def test_settings_are_refused_by_name(settings_: dict[str, object], field: str) -> None:
    with pytest.raises(Refused) as refused:
        draw(0, settings_)
    assert refused.value.field == field


def test_damaged_files_end_in_a_refusal() -> None:
    whole = dump(draw(3, {"N": 2, "M": 2, "C": 40}))
    rng = random.Random(1)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.choice(b'0123456789.-e{}[]",:nNaA ')
        refused += _refused(bytes(data))
    assert refused > 50


def _refused(data: bytes) -> bool:
    """Whether a file is refused by name; anything else that is raised fails the test."""
    try:
        load(data)
    except Refused as refusal:
        return bool(refusal.field)
    return False
