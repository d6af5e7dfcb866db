"""Every learner of both problems, killed by the kernel where it hurts, ends with the policy of a run that was left alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgora.allocator import registry

SMALL = {"U": 5, "M": 3, "horizon": 20, "slots": 96, "copies": 8, "log_slots": 24}
FLAT = {**SMALL, "warm_slots": 24, "batch": 16, "hidden": [8], "updates_per_slot": 0.5}
RUNS: dict[str, dict[str, dict[str, object]]] = {
    "baas": {
        "pair-q": {**SMALL, "updates_per_slot": 0.5},
        "struct-ddqn": {**SMALL, "warm_slots": 24, "batch": 16},
        "qlearning": SMALL,
        **dict.fromkeys(("dqn", "ddqn", "dqn-no-alloc", "dqn-no-select", "ddqn-no-alloc", "ddqn-no-select"), FLAT),
    },
    "privacy": {
        "RLO": {"slots": 36, "log_every": 9},
        "RL-privacy": {"slots": 24, "past_slots": 12, "log_every": 6},
        "CMDP": {"slots": 36, "log_every": 9},
        "afterstate": {"slots": 160, "copies": 8, "log_every": 40, "N": 2, "M": 2},
        "DRLO": {"slots": 45, "hidden": [16, 8], "batch": 16, "N": 2, "M": 2, "replay": 50, "log_every": 9},
        "ddqn-vec": {"slots": 600, "hidden": [16, 8], "batch": 32, "copies": 20, "ratio": 0.2, "log_every": 100},
    },
}

TRAINED = """
import json, os, signal, sys
from pathlib import Path
import torch
from edgora.allocator import registry
from edgora.allocator.learn import run

root, runs = Path(sys.argv[1]), json.loads(sys.argv[2])
run.Run.__init__.__kwdefaults__["checkpoint_s"] = 0.0  # one at every step


def train(problem, algo, settings, out, death):
    # In a process of its own, which dies as its `death`-th file is about to replace the one before. How many it wrote.
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        written = 0

        def fsync(_):
            nonlocal written
            written += 1
            if written == death:
                os.kill(os.getpid(), signal.SIGKILL)

        os.fsync = fsync
        registry.learning(problem).train(algo, out, 5, settings, lambda _: None, lambda: False)
        os.write(write_end, b"%d" % written)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as told:
        count = told.read()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if death else 0), (algo, death, status)
    return int(count or 0)


for problem, algos in runs.items():
    for algo, settings in algos.items():
        # Imports, once for all of its processes.
        registry.learning(problem).train(algo, root / "none" / algo, 5, settings, lambda _: None, lambda: True)
        files = train(problem, algo, settings, root / "whole" / algo, 0)
        killed = root / "killed" / algo
        # A third of the way, a third of that later, and before each of the last two files.
        train(problem, algo, settings, killed, files // 3)
        train(problem, algo, settings, killed, files // 3)
        left = train(problem, algo, settings, root / "tail" / algo, files - 1) or 2
        train(problem, algo, settings, killed, 0)
        train(problem, algo, settings, root / "tail" / algo, left)
        train(problem, algo, settings, root / "tail" / algo, 0)
"""


SAME_FILE = {"dqn", "dqn-no-alloc", "dqn-no-select", "ddqn-no-alloc", "ddqn-no-select"}
"""Run by ddqn's code."""


@pytest.mark.parametrize(
    ("problem", "again"), [("baas", False), ("privacy", False), pytest.param("baas", True, marks=pytest.mark.slow)]
)
def test_every_learner_goes_on_after_sigkill(problem: str, again: bool, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert set(RUNS[problem]) == set(registry.learning(problem).algorithms)
    algos = {algo: settings for algo, settings in RUNS[problem].items() if (algo in SAME_FILE) is again}
    arguments = [str(tmp_path), json.dumps({problem: algos})]
    ended = subprocess.run([sys.executable, "-c", TRAINED, *arguments], check=False, timeout=300)
    assert ended.returncode == 0
    for algo in algos:
        whole = tmp_path / "whole" / algo
        for other in (tmp_path / "killed" / algo, tmp_path / "tail" / algo):
            assert (other / "policy.npz").read_bytes() == (whole / "policy.npz").read_bytes(), (algo, other)
            assert _log(other) == _log(whole), (algo, other)
            assert len(_log(whole)) >= 1


def _log(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "cpu_s"} for line in lines]


def test_a_run_that_is_killed_between_its_last_two_files_is_not_taken_for_anothers(tmp_path: Path) -> None:
    """A run so short that it has no other checkpoint."""
    settings = RUNS["privacy"]["RLO"]
    script = TRAINED.partition("for problem, algos")[0].replace('["checkpoint_s"] = 0.0', '["checkpoint_s"] = 1e9')
    script += 'assert train("privacy", "RLO", runs, root / "whole", 0) == 2\n'
    script += 'train("privacy", "RLO", runs, root / "killed", 2)\ntrain("privacy", "RLO", runs, root / "killed", 0)\n'
    subprocess.run([sys.executable, "-c", script, str(tmp_path), json.dumps(settings)], check=True, timeout=120)
    assert (tmp_path / "killed" / "policy.npz").read_bytes() == (tmp_path / "whole" / "policy.npz").read_bytes()
