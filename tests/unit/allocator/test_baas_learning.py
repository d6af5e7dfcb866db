"""BaaS's learners: they learn, they repeat, they survive being killed, and their policies play anywhere."""

import importlib.util
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgora.allocator import registry, solve
from edgora.allocator.baas import Instance, Params, Slots, draw
from edgora.allocator.baas.batch import Batch
from edgora.allocator.baas.evaluate import play, scale
from edgora.allocator.baas.exact import best
from edgora.allocator.baas.learned import FlatPolicy, PairPolicy, greedy_heads, load_policy, table_choice, table_states
from edgora.allocator.baas.learning import ALGORITHMS, LEARNING
from edgora.allocator.baas.policies import Policy
from edgora.allocator.baas.stream import Stream
from edgora.allocator.learn import weights
from edgora.allocator.learn.problem import Progress, Trained, never, silent
from edgora.wire.errors import NotFound, Refused

UNSEEN = range(2000, 2006)
DEEP = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
SMALL = {"U": 6, "M": 3, "horizon": 20}
TINY: dict[str, dict[str, object]] = {
    "pair-q": {"slots": 160, "copies": 8, "updates_per_slot": 0.5, "log_slots": 40},
    "struct-ddqn": {"slots": 160, "copies": 8, "warm_slots": 40, "batch": 16, "log_slots": 40},
    "qlearning": {"slots": 160, "copies": 8, "log_slots": 40},
    "ddqn": {"slots": 160, "copies": 8, "warm_slots": 40, "batch": 16, "log_slots": 40, "hidden": [8]},
    "dqn-no-select": {"slots": 160, "copies": 8, "warm_slots": 40, "batch": 16, "log_slots": 40, "output": "sigmoid"},
}


def train(
    algo: str, out: Path, seed: int = 0, stopped: Callable[[], bool] = never, note: Callable[[Progress], None] = silent,
    **settings: object,
) -> Trained:  # fmt: skip
    return LEARNING.train(algo, out, seed, settings, note, stopped)


def score(policy: Policy, params: Params, slots: int = 50) -> float:
    return scale(params, UNSEEN, slots).score(play(params, policy, UNSEEN, slots)).mean


@pytest.fixture(scope="module")
def pair_q(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pair-q")
    trained = train("pair-q", out, seed=1, slots=600, updates_per_slot=0.7)
    assert trained.finished
    return out / "policy.npz"


def test_pair_q_learns_in_600_slots_and_its_weights_play_any_size(pair_q: Path) -> None:
    policy = load_policy(pair_q)
    assert score(policy, Params()) > 0.93
    assert score(policy, Params(U=40, M=5), 20) > 0.9
    assert score(policy, Params(profile="paper"), 20) > 0.9


def test_pair_q_predicts_worth_and_seconds(pair_q: Path) -> None:
    from edgora.allocator.baas.model import latency, worth

    policy = load_policy(pair_q)
    assert isinstance(policy, PairPolicy)
    slots = Batch(Stream(Params(), np.random.default_rng(77), 20)).slots
    predicted, seconds = policy.pairs(slots)
    assert np.abs(predicted - worth(slots)).mean() < 0.1
    assert np.abs(seconds - latency(slots)).mean() < 0.1


def test_struct_ddqn_learns_from_the_scalar_reward(tmp_path: Path) -> None:
    train("struct-ddqn", tmp_path, seed=3, slots=1200, updates_per_slot=0.2, batch=64, **SMALL)
    assert score(load_policy(tmp_path / "policy.npz"), Params(U=6, M=3, horizon=20)) > 0.7


@pytest.mark.parametrize("algo", [pytest.param(algo, marks=DEEP if "dqn" in algo[:4] else ()) for algo in TINY])
def test_a_seed_is_a_result(algo: str, tmp_path: Path) -> None:
    runs = [
        train(algo, tmp_path / name, seed=seed, **SMALL, **TINY[algo]) for name, seed in (("a", 5), ("b", 5), ("c", 6))
    ]
    policies = [weights.read(Path(str(run.policy)), "policy")[0] for run in runs]
    for name, array in policies[0].items():
        assert (array == policies[1][name]).all()
    assert any((array != policies[2][name]).any() for name, array in policies[0].items())
    assert runs[0].slots == 160


@pytest.mark.parametrize("algo", [pytest.param(algo, marks=DEEP if "dqn" in algo[:4] else ()) for algo in TINY])
def test_a_stopped_run_goes_on_to_the_same_weights(algo: str, tmp_path: Path) -> None:
    whole = train(algo, tmp_path / "whole", seed=5, **SMALL, **TINY[algo])
    for stops in (3, 11):  # asked before each of the 20 steps
        asked = 0

        def stopped(limit: int = stops) -> bool:
            nonlocal asked
            asked += 1
            return asked == limit

        part = train(algo, tmp_path / "parts", seed=5, stopped=stopped, **SMALL, **TINY[algo])
        assert not part.finished
        assert part.policy is None
    done = train(algo, tmp_path / "parts", seed=5, **SMALL, **TINY[algo])
    assert (done.finished, done.slots, done.updates) == (True, whole.slots, whole.updates)
    assert done.figures == whole.figures
    one, other = (weights.read(tmp_path / name / "policy.npz", "policy")[0] for name in ("whole", "parts"))
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert (array == other[name]).all(), name
    logs = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").open()] for name in ("whole", "parts")]
    for log in logs:
        for line in log:
            del line["cpu_s"]
    assert logs[0] == logs[1]
    assert [line["slot"] for line in logs[0]] == [40, 80, 120, 160]


def test_a_killed_process_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    settings = {**SMALL, **TINY["struct-ddqn"]}
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from edgora.allocator.baas.learning import LEARNING\n"
        "from edgora.allocator.learn import run\n"
        "asked = 0\n"
        "def stopped():\n"
        "    global asked\n"
        "    asked += 1\n"
        "    if asked == 14: os._exit(9)\n"  # no clean-up of any kind
        "    return False\n"
        "run.Run.__init__.__kwdefaults__['checkpoint_s'] = 0.0\n"
        f"LEARNING.train('struct-ddqn', Path(sys.argv[1]), 5, {settings!r}, lambda p: None, stopped)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "killed")], check=False, timeout=120)
    assert killed.returncode == 9
    assert not (tmp_path / "killed" / "policy.npz").exists()
    assert train("struct-ddqn", tmp_path / "killed", seed=5, **settings).finished
    train("struct-ddqn", tmp_path / "whole", seed=5, **settings)
    one, other = (weights.read(tmp_path / name / "policy.npz", "policy")[0] for name in ("whole", "killed"))
    for name, array in one.items():
        assert (array == other[name]).all()


def test_a_finished_run_is_returned_and_another_is_refused(tmp_path: Path) -> None:
    first = train("pair-q", tmp_path, seed=5, **SMALL, **TINY["pair-q"])
    before = (tmp_path / "policy.npz").read_bytes()
    heard: list[Progress] = []
    again = train("pair-q", tmp_path, seed=5, note=heard.append, **SMALL, **TINY["pair-q"])
    assert (again.finished, again.updates, again.figures, heard) == (True, first.updates, first.figures, [])
    assert (tmp_path / "policy.npz").read_bytes() == before
    for change in ({"seed": 6}, {"seed": 5, "rate": 0.5}):
        with pytest.raises(Refused) as refusal:
            train("pair-q", tmp_path, **{**SMALL, **TINY["pair-q"], **change})  # type: ignore[arg-type]
        assert refusal.value.field == "--out"


def test_progress_is_heard_and_logged(tmp_path: Path) -> None:
    heard: list[Progress] = []
    train("pair-q", tmp_path, note=heard.append, **SMALL, **TINY["pair-q"])
    assert [(progress.done, progress.total) for progress in heard] == [(40, 160), (80, 160), (120, 160), (160, 160)]
    assert set(heard[-1].figures) == {"reward", "loss", "epsilon"}
    assert heard[-1].figures["loss"] < heard[0].figures["loss"]


@pytest.mark.parametrize("algo", [pytest.param(algo, marks=DEEP if "dqn" in algo[:4] else ()) for algo in ALGORITHMS])
def test_bad_settings_are_refused_by_name(algo: str, tmp_path: Path) -> None:
    for settings, field in (({"u": 3}, "u"), ({"slots": 0}, "slots"), ({"U": "x"}, "U"), ({"profile": 3}, "profile")):
        with pytest.raises(Refused) as refusal:
            train(algo, tmp_path / "run", **settings)  # type: ignore[arg-type]
        assert refusal.value.field == field
    assert not (tmp_path / "run" / "log.jsonl").exists()


def heads_of(slots: Slots, seed: int) -> np.ndarray:
    U, M = slots.params.U, slots.params.M
    return np.random.default_rng(seed).normal(0, 1, (slots.copies, 1 + U * M + 5 * M)).astype(np.float32)


def test_the_argmax_of_additive_heads_is_exact() -> None:
    slots = Batch(Stream(Params(U=3, M=3), np.random.default_rng(0), 12)).slots
    heads = heads_of(slots, 1)
    q, h = heads[:, 1:10].reshape(-1, 3, 3), heads[:, 10:].reshape(-1, 3, 5)
    assign, level = greedy_heads(heads, slots, "", np.random.default_rng(0))
    for copy in range(12):
        legal = [
            ues for ues in itertools.product(range(-1, 3), repeat=3)
            if len({u for u in ues if u >= 0}) == sum(u >= 0 for u in ues)
        ]  # fmt: skip
        worths = [sum(q[copy, u, m] for m, u in enumerate(ues) if u >= 0) for ues in legal]
        chosen = sum(q[copy, u, m] for m, u in enumerate(assign[copy]) if u >= 0)
        assert chosen == pytest.approx(max(worths))
        assert (level[copy] == h[copy].argmax(axis=1)).all()


def test_ablations_fix_their_half_of_the_choice() -> None:
    slots = Batch(Stream(Params(), np.random.default_rng(0), 4)).slots
    heads, rng = heads_of(slots, 1), np.random.default_rng(0)
    whole, no_alloc = (greedy_heads(heads, slots, name, rng) for name in ("", "no-alloc"))
    first, second = (greedy_heads(heads, slots, "no-select", rng) for _ in range(2))
    assert (no_alloc[0] == whole[0]).all()
    assert (no_alloc[1] == 2).all()  # 60 MHash/s
    assert (first[0] != second[0]).any()
    assert (first[1] == whole[1]).all()


def test_what_the_tables_actions_mean() -> None:
    slots = Batch(Stream(Params(U=7, M=4), np.random.default_rng(3), 5)).slots
    actions = np.random.default_rng(1).integers(0, 25, (5, 4))
    choice = table_choice(slots, actions)
    for copy in range(5):
        free = sorted(range(7), key=lambda u: slots.d[copy, u] * slots.xi[copy, u])
        for m in range(4):
            fifth, level = divmod(int(actions[copy, m]), 5)
            taken = free[math.ceil(len(free) * (fifth + 1) / 5) - 1]
            assert choice.assign[copy, m] == taken
            assert choice.request[copy, m] == 20 * (level + 1)
            free.remove(taken)
    crowd = Batch(Stream(Params(U=2, M=4), np.random.default_rng(3), 1)).slots
    assert table_choice(crowd, np.zeros((1, 4), dtype=np.int64)).assign[0, 2:].tolist() == [-1, -1]
    assert table_states(crowd).max() < 36


def test_the_table_learns(tmp_path: Path) -> None:
    train("qlearning", tmp_path, slots=8000)
    assert score(load_policy(tmp_path / "policy.npz"), Params()) > 0.4


def test_the_flat_network_learns_a_little(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    small = {"U": 4, "M": 2, "profile": "paper"}
    train("ddqn", tmp_path, slots=3200, rate=3e-3, updates_per_slot=0.2, batch=64, **small)
    params = Params(U=4, M=2, profile="paper")
    assert score(load_policy(tmp_path / "policy.npz"), params) > 0.25


def test_the_policy_computes_what_torch_computes() -> None:
    torch = pytest.importorskip("torch")
    from edgora.allocator.baas import features
    from edgora.allocator.baas.ddqn import network
    from edgora.allocator.learn.torch_state import deterministic, layers

    deterministic(4)
    params = Params()
    made = network(params, (64, 32, 32))
    header = {"algo": "ddqn", "ablation": "", "U": 20, "M": 10, "profile": "hetero", "obs": "full"}
    policy = FlatPolicy(layers("net", made), header)
    slots = Batch(Stream(params, np.random.default_rng(1), 50)).slots
    x = features.flat(slots)
    with torch.no_grad():
        expected = made(torch.from_numpy(x)).numpy()
    assert np.abs(policy.network(x) - expected).max() < 1e-6
    assign, level = greedy_heads(expected, slots, "", np.random.default_rng(0))
    choice = policy.decide(slots)
    assert (choice.assign == assign).all()
    assert (choice.request == 20.0 * (level + 1)).all()


@pytest.mark.parametrize("change", [{"U": 19}, {"M": 9}, {"profile": "paper"}, {"obs": "paper"}], ids=str)
def test_a_flat_network_fits_its_own_size_only(change: dict[str, object]) -> None:
    header = {"algo": "ddqn", "ablation": "", "U": 20, "M": 10, "profile": "hetero", "obs": "full"}
    policy = FlatPolicy({"net.0.weight": np.zeros((251, 290)), "net.0.bias": np.zeros(251)}, header)
    assert policy.decide(Batch(Stream(Params(), np.random.default_rng(1), 2)).slots).assign.shape == (2, 10)
    with pytest.raises(Refused, match="trained for U=20 M=10"):
        policy.decide(Batch(Stream(Params(**change), np.random.default_rng(1), 2)).slots)  # type: ignore[arg-type]


def test_single_and_double_targets_differ(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    found = []
    for algo in ("dqn", "ddqn"):
        trained = train(algo, tmp_path / algo, seed=5, **SMALL, **TINY["ddqn"])
        found.append(weights.read(Path(str(trained.policy)), "policy")[0])
    assert any((array != found[1][name]).any() for name, array in found[0].items())


def test_a_learner_without_weights_says_what_to_do() -> None:
    with pytest.raises(Refused, match="ships no weights") as refusal:
        solve("baas", "ddqn", draw(1))
    assert refusal.value.fix is not None
    assert "edgora train baas --algo ddqn" in refusal.value.fix


def test_names_that_nobody_has(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="ppo"):
        train("ppo", tmp_path)
    with pytest.raises(NotFound, match="best"):
        LEARNING.evaluate("best", range(1), {}, None, silent)
    with pytest.raises(Refused, match="cannot be read"):
        LEARNING.evaluate(str(tmp_path / "none.npz"), range(1), {}, None, silent)


def test_an_evaluation_says_what_was_played(tmp_path: Path) -> None:
    trace = tmp_path / "trace.npz"
    settings = {**SMALL, "slots": 30}
    found = LEARNING.evaluate("exact", range(4, 7), settings, trace, silent)
    assert (found.seeds, found.slots, found.policy) == ((4, 6), 30, "exact")
    assert found.score is not None
    assert 0.8 < found.score.mean < 1.0
    assert found.scale["random"] < found.metrics["utility"].mean < found.scale["bound"]
    assert found.metrics["served"].mean <= 3
    with np.load(trace, allow_pickle=False) as file:
        kept = {name: file[name] for name in file.files}
    assert set(kept) == {"profile", "d", "xi", "tau", "b", "f", "rep", "hash", "rate", "assign", "reward", "start"}
    assert kept["rate"].shape == (90, 6, 3)
    assert np.flatnonzero(kept["start"]).tolist() == [0, 20, 30, 50, 60, 80]  # two episodes of each seed
    assert kept["reward"].mean() == pytest.approx(found.metrics["utility"].mean)
    params = Params(U=6, M=3, horizon=20)
    batch = Batch(Stream(params, np.random.default_rng(5), 1))  # the second seed, played again
    for t in range(30, 60):
        assert (kept["d"][t] == batch.slots.d[0]).all()
        outcome = batch.step(best(batch.slots))
        assert kept["reward"][t] == pytest.approx(outcome.reward[0], abs=1e-6)
        assert kept["rep"][t] == pytest.approx(outcome.rep[0], abs=1e-6)
        assert kept["hash"][t] == pytest.approx(outcome.hash[0], abs=1e-6)


class Idle:
    """A user's policy that serves nobody."""

    def propose(self, instance: Instance, budget_s: float) -> object:
        assert instance.T == 1
        return {"assign": [-1] * instance.params.M, "request": [60.0] * instance.params.M}


def test_a_users_policy_is_evaluated(tmp_path: Path) -> None:
    found = LEARNING.evaluate(Idle(), range(2), SMALL, None, silent)
    assert found.metrics["served"].mean == 0
    assert found.metrics["ecl"].mean == 0
    assert found.metrics["utility"].mean == pytest.approx(found.metrics["mining"].mean)
    with pytest.raises(NotFound):
        registry.evaluate("baas", "no.such:Policy", range(2))


def test_solving_with_a_trained_policy(pair_q: Path, tmp_path: Path) -> None:
    instance = draw(4, {"slots": 3})
    found = solve("baas", "pair-q", instance, settings={"file": str(pair_q)})
    assert found.objective > solve("baas", "greedy", instance).objective
    with pytest.raises(Refused, match="pair-q"):
        solve("baas", "struct-ddqn", instance, settings={"file": str(pair_q)})


def test_policies_that_are_damaged_or_others_are_refused(pair_q: Path, tmp_path: Path) -> None:
    arrays, header = weights.read(pair_q, "policy")
    path = tmp_path / "bad.npz"
    changes: list[tuple[dict[str, np.ndarray], dict[str, object]]] = [
        ({}, {"problem": "privacy"}), ({}, {"form": "tree"}), ({}, {"form": None}), ({}, {"outputs": 3}), ({}, {"theta": "x"}),
        ({"pair.ue": arrays["pair.ue"][1:]}, {}), ({"pair.out": np.full_like(arrays["pair.out"], np.nan)}, {}),
        ({"block.in": np.array(["x"])}, {}),
    ]  # fmt: skip
    for more, told in changes:
        weights.write(path, {**arrays, **more}, {**header, **told})
        with pytest.raises(Refused) as refusal:
            load_policy(path)
        assert refusal.value.field == "policy"


def test_nothing_but_training_a_deep_network_needs_torch(pair_q: Path) -> None:
    script = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['gymnasium'] = None\n"
        "from edgora.allocator import registry\n"
        f"found = registry.evaluate('baas', {str(pair_q)!r}, range(2), settings={{'slots': 5}})\n"
        "print(found.score.mean)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=120)
    assert float(ended.stdout) > 0.5
