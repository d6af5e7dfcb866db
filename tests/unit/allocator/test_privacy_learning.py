"""Learners: they learn, resume to the same bytes, run without torch; train, evaluate, solve and score from outside."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

from edgora.allocator import registry, solve
from edgora.allocator.learn.network import Perceptron
from edgora.allocator.learn.problem import never, silent
from edgora.allocator.learn.weights import read
from edgora.allocator.privacy import Instance, State, draw
from edgora.allocator.privacy.afterstate import Afterstate
from edgora.allocator.privacy.evaluation import play, trace, verify_trace
from edgora.allocator.privacy.features import features
from edgora.allocator.privacy.instance import make
from edgora.allocator.privacy.learning import LEARNING
from edgora.allocator.privacy.policies import Inverse, Myopic, lookahead
from edgora.allocator.privacy.problem import PRIVACY, planned
from edgora.allocator.privacy.simulation import Simulation
from edgora.allocator.privacy.solution import build, dump, load, score
from edgora.allocator.privacy.trained import SHIPPED
from edgora.allocator.search import Found, Search
from edgora.wire.errors import EdgoraError, NotFound, Refused

TINY: dict[str, dict[str, object]] = {
    "RLO": {"slots": 300},
    "RL-privacy": {"slots": 200, "past_slots": 150},
    "CMDP": {"slots": 300},
    "afterstate": {"slots": 300},
    "DRLO": {"slots": 160, "hidden": [16, 8], "batch": 32, "N": 2, "M": 2, "replay": 100},
    "ddqn-vec": {"slots": 600, "hidden": [16, 8], "batch": 32, "copies": 20, "ratio": 0.2, "log_every": 200},
}


@pytest.mark.parametrize("algo", TINY)
def test_a_run_that_is_killed_and_goes_on_ends_the_same(algo: str, tmp_path: Path) -> None:
    whole = LEARNING.train(algo, tmp_path / "whole", 3, TINY[algo], silent, never)
    assert whole.finished
    assert whole.policy == str(tmp_path / "whole" / "policy.npz")
    out, asked, resumed = tmp_path / "pieces", 0, 0

    every = 7 if algo == "ddqn-vec" else 37  # its 600 slots are 30 steps of 20 copies

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked % every == every - 1 and resumed < 6

    while not (trained := LEARNING.train(algo, out, 3, TINY[algo], silent, stop)).finished:
        assert trained.policy is None
        resumed += 1
    assert resumed >= 2
    one, other = (read(folder / "policy.npz", "policy") for folder in (tmp_path / "whole", out))
    assert one[1] == other[1]
    assert set(one[0]) == set(other[0])
    assert all(np.array_equal(one[0][name], other[0][name]) for name in one[0])
    lines = [
        [{k: v for k, v in json.loads(line).items() if k != "cpu_s"} for line in (folder / "log.jsonl").open()]
        for folder in (tmp_path / "whole", out)
    ]
    assert lines[0] == lines[1]
    assert lines[0]
    # Another seed learns something else, and a finished run is handed back as it is.
    again = LEARNING.train(algo, out, 3, TINY[algo], silent, never)
    assert msgspec.structs.replace(again, cpu_s=0.0, policy=None) == msgspec.structs.replace(
        whole, cpu_s=0.0, policy=None
    )
    with pytest.raises(Refused) as refused:
        LEARNING.train(algo, out, 4, TINY[algo], silent, never)
    assert refused.value.field == "--out"


def test_trained_networks_run_without_torch_to_the_same_values(tmp_path: Path) -> None:
    import torch
    from torch import nn

    LEARNING.train("ddqn-vec", tmp_path, 1, TINY["ddqn-vec"], silent, never)
    arrays, head = read(tmp_path / "policy.npz", "policy")
    assert head["kind"] == "residual"
    sizes = [arrays[f"q.{k}.weight"] for k in range(3)]
    net = nn.Sequential(*(
        part for w in sizes for part in (nn.Linear(w.shape[1], w.shape[0]), nn.ReLU())
    ))[:-1]  # fmt: skip
    net.load_state_dict({
        f"{2 * k}.{what}": torch.from_numpy(arrays[f"q.{k}.{what}"]) for k in range(3) for what in ("weight", "bias")
    })  # fmt: skip
    instance = make()
    seen = features(Simulation(instance, 500, 1).state, instance)
    with torch.no_grad():
        expected = net(torch.from_numpy(seen)).numpy()
    assert np.abs(Perceptron.of(arrays, "q")(seen) - expected).max() < 1e-6


def test_afterstates_are_nearly_optimal_after_a_few_thousand_slots() -> None:
    solution = solve("privacy", "afterstate", draw(0, {"slots": 3000}), seed=1)
    assert solution.score is not None
    assert solution.score > 0.97
    myopic = solve("privacy", "myopic", make())
    assert solution.objective > myopic.objective + 0.5


def test_afterstates_of_many_miners_beat_myopic_beyond_their_error() -> None:
    instance = make(N=3, M=2, slots=4000)
    policy = planned(Afterstate(copies=20).solve(instance, Search(2)))
    mine, myopic = (play(p, instance, 11, copies=64, slots=100, settling=40) for p in (policy, Myopic(instance)))
    gain = mine.copies - myopic.copies  # common draws
    assert gain.mean() > 5 * gain.std(ddof=1) / 8


def test_the_network_learns_on_a_small_budget() -> None:
    settings = {"slots": 10_000, "log_every": 10_000, "hidden": [32, 32], "ratio": 0.03}
    solution = solve("privacy", "ddqn-vec", make(), seed=0, settings=settings)
    assert solution.score is not None
    assert solution.score > 0.9


def test_tables_learn(tmp_path: Path) -> None:
    for algo in ("RLO", "RL-privacy"):
        trained = LEARNING.train(
            algo,
            tmp_path / algo,
            0,
            {"slots": 2000, "past_slots": 500} if algo != "RLO" else {"slots": 2000},
            silent,
            never,
        )
        curve = [json.loads(line) for line in (tmp_path / algo / "log.jsonl").open()]
        assert [line["slot"] for line in curve if "greedy" in line] == list(range(500, 2001, 500))
        assert trained.figures["greedy"] > -3.0  # random has -6.03
        found = LEARNING.evaluate(str(tmp_path / algo / "policy.npz"), range(1), {}, None, silent)
        assert found.metrics["reward"].mean == pytest.approx(trained.figures["greedy"], abs=1e-9)
        assert found.score is not None
        assert 0.2 < found.score.mean < 1.0


def test_a_floor_that_is_missed_raises_the_price_of_privacy(tmp_path: Path) -> None:
    kept: dict[float, tuple[float, float]] = {}
    for floor in (0.0, 0.62):
        out = tmp_path / str(floor)
        LEARNING.train("CMDP", out, 0, {"slots": 2000, "floor": floor, "multiplier_step": 0.3}, silent, never)
        lines = [json.loads(line) for line in (out / "log.jsonl").open()]
        kept[floor] = (lines[-1]["multiplier"], float(np.mean([line["privacy"] for line in lines[len(lines) // 2 :]])))
    assert kept[0.0][0] == 0.0
    assert kept[0.62][0] > 60.0
    assert kept[0.62][1] > kept[0.0][1] + 0.05


def test_a_learner_by_its_name_plays_the_weights_that_ship() -> None:
    found = LEARNING.evaluate("ddqn-vec", range(1), {}, None, silent)
    assert found.score is not None
    assert found.score.mean > 0.98
    assert all(path.stat().st_size < 1_000_000 for path in SHIPPED.glob("*.npz"))


def test_without_torch_what_has_to_learn_with_it_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    asked: dict[str, Any] = {
        "algo": lambda: LEARNING.train("ddqn-vec", tmp_path, 0, {}, silent, never),
        "solver": lambda: solve("privacy", "DRLO", make(slots=10)),
        "policy": lambda: LEARNING.evaluate("ddqn-vec", range(1), {"N": 3}, None, silent),
    }
    for field, ask in asked.items():
        with pytest.raises(Refused, match="trains with torch, which is not installed") as refused:
            ask()
        assert (refused.value.field, refused.value.fix) == (field, 'pip install "edgora[learn]"')
    with pytest.raises(Refused, match="trains with torch"):
        LEARNING.check_evaluation("DRLO", range(1), {})
    LEARNING.check_evaluation("ddqn-vec", range(1), {})
    assert LEARNING.evaluate("ddqn-vec", range(1), {}, None, silent).score is not None  # these weights ship
    assert solve("privacy", "afterstate", make(slots=10)).score is not None


def test_decisions_of_too_many_streams_are_not_enumerated() -> None:
    with pytest.raises(Refused) as refused:
        solve("privacy", "ddqn-vec", make(M=5, slots=10))
    assert refused.value.field == "M"


def test_many_streams_have_a_head_each() -> None:
    settings = {"slots": 120, "hidden": [8, 8], "batch": 16}
    found = PRIVACY.search(PRIVACY.solver("DRLO", settings), make(M=6, w_P=0.0), Search(0))
    state = Simulation(make(M=6, w_P=0.0), 9, 1).state
    assert planned(found).act(state).shape == (9, 1, 6)
    solution = solve("privacy", "DRLO", make(M=6, w_P=0.0), settings=settings)
    assert solution.score is None
    assert solution.bound is None
    assert score(make(M=6, w_P=0.0), solution).holds


@pytest.mark.parametrize("name", ["myopic", "afterstate", "CMDP", "random"])
def test_a_solution_of_one_stream_is_its_table(name: str) -> None:
    instance = draw(4, {"slots": 400, "beta": 0.8})
    solution = solve("privacy", name, instance, seed=2)
    again = load(dump(solution), instance)
    assert again == solution
    assert np.array(solution.policy).shape == (11, 31, 2, 3)
    judged = score(instance, again)
    assert judged.holds
    assert judged.objective == pytest.approx(solution.objective, abs=1e-9)
    assert solution.bound is not None
    assert solution.objective <= solution.bound + 1e-9


@pytest.mark.parametrize("name", ["inverse", "ddqn-vec"])
def test_a_solution_of_many_miners_is_played_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgora.allocator.privacy.evaluation.SLOTS", 10)
    monkeypatch.setattr("edgora.allocator.privacy.evaluation.COPIES", 4)
    instance = make(5, N=2, M=1, slots=300)
    settings = {"hidden": [8, 8], "batch": 16} if name == "ddqn-vec" else {}
    solution = solve("privacy", name, instance, settings=settings)
    assert solution.policy is None
    assert ("weights" in (solution.info or {})) is (name == "ddqn-vec")
    assert score(instance, load(dump(solution), instance)).holds


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"objective": 5.0}, "objective"), ({"privacy": 0.1}, "privacy"), ({"bound": 9.0}, "bound"),
        ({"score": None}, "score"), ({"energy_mj": 1.0}, "energy_mj"), ({"latency_ms": 1e3}, "latency_ms"),
    ],
)  # fmt: skip
def test_a_wrong_claim_is_named(change: dict[str, Any], named: str) -> None:
    instance = make()
    judged = score(instance, msgspec.structs.replace(solve("privacy", "myopic", instance), **change))
    assert not judged.holds
    assert judged.problems[0].startswith(named)


def test_solution_files_are_refused_by_name() -> None:
    instance = make()
    document = json.loads(dump(solve("privacy", "NO", instance)))
    for change, field in (
        ({"policy": [[[[0.5]]]]}, "policy"), ({"colour": 1}, "colour"), ({"problem": "mta"}, "problem"),
        ({"cost": "x"}, "cost"), ({"policy": None}, "policy"),
    ):  # fmt: skip
        with pytest.raises(Refused) as refused:
            load(json.dumps({**document, **change}).encode(), instance)
        assert refused.value.field == field


def test_traces_are_the_slots_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgora.allocator.privacy.evaluation.SLOTS", 10)
    monkeypatch.setattr("edgora.allocator.privacy.evaluation.COPIES", 4)
    instance = draw(6, {"N": 3, "M": 1, "slots": 80})
    path = tmp_path / "trace.npz"
    solution = solve("privacy", "inverse", instance, settings={"trace": str(path)})
    assert solution.trace == str(path)
    with np.load(path) as file:
        assert {name: file[name].shape for name in file.files} == {
            "N": (), "M": (), "beta": (), "wP": (), "D1": (80, 3, 1), "D0": (80, 3, 1), "x": (80, 3, 1), "g": (80, 3),
            "reward": (80, 3), "q": (80,),
        }  # fmt: skip
        assert {file[name].dtype for name in file.files} == {np.dtype(np.float64)}
        first = Simulation(instance, 1, 6).state
        assert file["D1"][0].tolist() == first.D1[0].tolist()
        arrays = dict(file)
    assert verify_trace(path, instance) < 1e-9
    assert score(instance, solution).holds
    arrays["reward"][40, 1] += 0.01
    np.savez(path, **arrays)
    assert verify_trace(path, instance) == pytest.approx(0.01)
    assert "trace" in score(instance, solution).problems[0]


class Alternating:
    """A user's policy: offload every other slot, whatever happens."""

    def act(self, state: State) -> np.ndarray:
        return np.broadcast_to((state.g == 0)[:, :, None], state.D1.shape)

    def propose(self, instance: Instance, budget_s: float) -> object:
        return self


class Tabled:
    def propose(self, instance: Instance, budget_s: float) -> object:
        return {"policy": np.full((11, 31, 2, 3), 0.5).tolist()}


class Wrong:
    def propose(self, instance: Instance, budget_s: float) -> object:
        return {"policy": [1, 2]}


class Fails:
    def propose(self, instance: Instance, budget_s: float) -> object:
        raise KeyError("nothing")


class FailsLate:
    """Has no answer once data waits."""

    def propose(self, instance: Instance, budget_s: float) -> object:
        return self

    def act(self, state: State) -> np.ndarray:
        if state.D0.any():
            raise ZeroDivisionError("late")
        return np.zeros(state.D1.shape, dtype=bool)


def test_the_policy_of_the_docs_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "allocators" / "privacy.md").read_text(encoding="utf-8")
    module: Any = ModuleType("mine")
    exec(page.split("```python\n")[1].split("```")[0], module.__dict__)
    monkeypatch.setitem(sys.modules, "mine", module)
    solution = solve("privacy", "mine:WhenFull", make())
    assert solution.score is not None
    assert 0.5 < solution.score < 1.0
    assert registry.evaluate("privacy", "mine:WhenFull", range(1)).metrics["reward"].mean == solution.reward


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("my_privacy")
    for kind in (Alternating, Tabled, Wrong, Fails, FailsLate):
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "my_privacy", module)


@pytest.mark.usefixtures("user")
def test_a_users_policy_solves_and_is_evaluated() -> None:
    assert solve("privacy", "my_privacy:Alternating", make()).reward == pytest.approx(2.697, abs=1e-3)  # inverse
    assert solve("privacy", "my_privacy:Tabled", make()).score == pytest.approx(0.0, abs=1e-12)  # random
    found = registry.evaluate(
        "privacy", "my_privacy:Alternating", range(3), settings={"N": 2, "copies": 4, "slots": 30}
    )
    assert found.metrics["reward"].low is not None
    assert found.slots == 120
    with pytest.raises(registry.PolicyError) as refused:
        solve("privacy", "my_privacy:Wrong", make())
    assert refused.value.field == "policy"


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("settings", [{}, {"N": 2, "copies": 2, "slots": 20}], ids=["exactly", "played"])
@pytest.mark.parametrize(
    ("name", "said"), [("Fails", "raised KeyError"), ("FailsLate", "raised ZeroDivisionError: late")]
)
def test_what_a_users_policy_raises_is_told_as_its_own(settings: dict[str, object], name: str, said: str) -> None:
    with pytest.raises(Refused, match=f"{name} {said}") as refused:
        registry.evaluate("privacy", f"my_privacy:{name}", range(1), settings=settings)
    assert (refused.value.field or "").removeprefix("--") == "policy"
    with pytest.raises(EdgoraError, match=f"{name} {said}"):
        solve("privacy", f"my_privacy:{name}", draw(0, {"N": settings.get("N", 1), "slots": 20}))


def test_evaluations_play_common_draws(tmp_path: Path) -> None:
    settings = {"N": 2, "M": 1, "copies": 6, "slots": 40, "settling": 10}
    best = LEARNING.evaluate("lookahead", range(4), settings, tmp_path / "t.npz", silent)
    assert best.score is not None
    assert best.score.mean == pytest.approx(1.0)
    assert best.score.low == pytest.approx(1.0)
    floor = LEARNING.evaluate("random", range(4), settings, None, silent)
    assert floor.scale == best.scale
    assert best.metrics["reward"].low is not None
    assert best.metrics["reward"].low < best.metrics["reward"].mean < (best.metrics["reward"].high or 0)
    assert verify_trace(tmp_path / "t.npz", draw(0, {"N": 2, "M": 1})) < 1e-9


def test_what_cannot_be_done_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        LEARNING.train("SARSA", tmp_path, 0, {}, silent, never)
    for settings, field in (
        ({"colour": 1}, "colour"),
        ({"alpha": 2}, "alpha"),
        ({"beta": 3}, "beta"),
        ({"tensorboard": 1}, "tensorboard"),
    ):
        with pytest.raises(Refused) as refused:
            LEARNING.train("RLO", tmp_path, 0, settings, silent, never)
        assert refused.value.field == field
    with pytest.raises(NotFound) as absent:
        LEARNING.evaluate("nowhere.npz", range(1), {}, None, silent)
    assert absent.value.field == "policy"
    LEARNING.train("afterstate", tmp_path / "a", 0, {"slots": 40}, silent, never)
    with pytest.raises(Refused) as other_grid:
        LEARNING.evaluate(str(tmp_path / "a" / "policy.npz"), range(1), {"M": 2}, None, silent)
    assert other_grid.value.field == "policy"
    (tmp_path / "b.npz").write_bytes(b"PK no")
    with pytest.raises(Refused):
        LEARNING.evaluate(str(tmp_path / "b.npz"), range(1), {}, None, silent)


def test_a_search_that_is_stopped_keeps_what_was_learned() -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 50

    search = Search(0)
    search.stopped = stop
    found = Afterstate(slots=5000).solve(make(), search)
    assert found.status == "interrupted"
    solution = build(make(), "afterstate", 0, found, 0.0, 0.0)
    assert solution.score is not None
    assert solution.score > 0.88  # never below myopic's 0.886 by much


def test_foreign_answers() -> None:
    instance = make(N=2)
    assert isinstance(PRIVACY.foreign(Inverse(), instance), Found)
    assert isinstance(PRIVACY.foreign(PRIVACY.nothing(instance), instance), Found)
    for wrong in (None, 7, {"policy": None}, "x"):
        with pytest.raises(Refused):
            PRIVACY.foreign(wrong, instance)


def test_traces_go_where_they_can(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        trace(lookahead(make()), make(), 0, 3, tmp_path / "no" / "t.npz")
    assert refused.value.field == "--trace"
