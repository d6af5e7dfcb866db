"""BaaS's files: what is drawn is what is read, and whatever is wrong is refused by the field's name."""

import json
from typing import Any

import numpy as np
import pytest

from edgora.allocator import solve
from edgora.allocator.baas import draw
from edgora.allocator.baas.instance import dump, load
from edgora.allocator.baas.solution import dump as dump_solution
from edgora.allocator.baas.solution import load as load_solution
from edgora.allocator.baas.solution import score
from edgora.wire.errors import Refused


@pytest.mark.parametrize("options", [{}, {"profile": "paper"}, {"slots": 1}, {"slots": 3, "k_T": 1, "U": 4, "M": 2}])
def test_a_file_reads_back_to_the_same_doubles(options: dict[str, object]) -> None:
    instance = draw(7, options)
    again = load(dump(instance))
    assert dump(again) == dump(instance)
    assert again.params == instance.params
    for name in ("d", "xi", "tau", "b", "f", "A", "B", "rate"):
        ours, theirs = getattr(instance, name), getattr(again, name)
        assert (ours is None and theirs is None) or (ours == theirs).all()


def test_the_document_is_the_specs() -> None:
    document = json.loads(dump(draw(7, {"U": 3, "k_T": 1})))
    assert list(document) == [
        "problem",
        "version",
        "seed",
        "profile",
        "params",
        "d",
        "xi",
        "tau",
        "b",
        "f",
        "A",
        "B",
        "rate",
    ]
    assert document["params"] == {"U": 3, "k_T": 1.0}
    assert document["A"] == [0.0] * 10
    assert np.shape(document["rate"]) == (3, 10)
    paper = json.loads(dump(draw(7, {"profile": "paper", "slots": 2})))
    assert list(paper) == ["problem", "version", "seed", "profile", "params", "slots"]
    assert list(paper["slots"][0]) == ["d", "xi", "tau", "b", "f", "A", "B"]
    assert list(paper["slots"][1]) == ["d", "xi", "tau", "b", "f"]
    assert paper["profile"] == "paper"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"q": 1}, "q"), ({"U": 0}, "U"), ({"U": "x"}, "U"), ({"profile": "city"}, "profile"), ({"slots": 0}, "slots"),
        ({"slots": 201}, "slots"), ({"d_lo": 50}, "d_hi"), ({"d_lo": -1}, "d_lo"), ({"p_mean": 10}, "p_mean"),
        ({"lambda_r": 1.5}, "lambda_r"), ({"c_r": 0}, "c_r"), ({"U": 10_000, "M": 10_000}, "U"), ({"k_T": -1}, "k_T"),
        ({"U": 1000, "M": 1000, "slots": 100}, "slots"), ({"obs": "none"}, "obs"), ({"theta": 1e99}, "theta"),
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_is_refused_by_name(options: dict[str, object], field: str) -> None:
    with pytest.raises(Refused) as refusal:
        draw(1, options)
    assert refusal.value.field == field


def document(**options: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(dump(draw(7, {"U": 3, "M": 2, **options})))
    return found


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"d": [1, 2]}, "d"), ({"d": [1, 2, 0]}, "d[2]"), ({"A": [-1, 0]}, "A[0]"), ({"f": None}, "f"),
        ({"rate": [[1, 2]] * 2}, "rate"), ({"rate": None}, "rate"), ({"profile": "paper"}, "rate"),
        ({"params": {"U": 3, "M": 2, "profile": "paper"}}, "params.profile"), ({"params": {"M": 2}}, "d"),
        ({"params": {"U": 3, "M": 2, "p_mean": 0}}, "params.p_mean"), ({"slots": []}, "d"), ({"x": 1}, "x"),
        ({"d": [1, 2, 1e400]}, "d[2]"), ({"version": 2}, "version"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_file_is_refused_by_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(Refused) as refusal:
        load(json.dumps({**document(), **change}).replace("Infinity", "1e400").encode())
    assert refusal.value.field == field


def test_only_slot_0_has_a_history() -> None:
    file = document(slots=2)
    file["slots"][1]["A"] = [0, 0]
    with pytest.raises(Refused, match="only slot 0"):
        load(json.dumps(file).encode())
    del file["slots"][1]["A"], file["slots"][0]["A"]
    with pytest.raises(Refused) as refusal:
        load(json.dumps(file).encode())
    assert refusal.value.field == "slots[0].A"


@pytest.mark.parametrize("options", [{}, {"slots": 3}])
def test_a_claim_that_is_wrong_is_found(options: dict[str, object]) -> None:
    instance = draw(7, options)
    whole = json.loads(dump_solution(solve("baas", "exact", instance)))

    def judged(change: dict[str, object]) -> Any:
        row = whole if not options else whole["slots"][1]
        if not options or "objective" in change or "bound" in change:
            edited = {**whole, **change}
        else:
            edited = {**whole, "slots": [whole["slots"][0], {**row, **change}, whole["slots"][2]]}
        return score(instance, load_solution(json.dumps(edited).encode(), instance))

    assert judged({}).holds
    for name in ("reward", "revenue", "mining", "ecl", "objective"):
        wrong = judged({name: 1.0})
        assert wrong.feasible
        assert not wrong.holds
        assert f"{name} is claimed 1" in wrong.problems[0]
    assert "bound is claimed" in judged({"bound": 3.0}).problems[0]
    assert "hash is claimed" in judged({"hash": [60.0] * 10}).problems[0]
    twice = judged({"assign": [0] * 10})
    assert (twice.feasible, twice.objective) == (False, None)
    assert twice.problems[0].startswith("once")
    assert judged({"request": [10.0] * 10}).problems[0].startswith("request")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"assign": [0]}, "assign"), ({"assign": [20] + [-1] * 9}, "assign[0]"), ({"assign": [-2] + [-1] * 9}, "assign[0]"),
        ({"request": ["x"] * 10}, "request"), ({"slots": []}, "slots"), ({"hash": None}, "hash"), ({"wall_s": -1}, "wall_s"),
        ({"assign": [10**30] * 10}, "assign"),
    ],
    ids=str,
)  # fmt: skip
def test_a_solution_file_is_read_strictly(change: dict[str, object], field: str) -> None:
    instance = draw(7)
    whole = json.loads(dump_solution(solve("baas", "greedy", instance)))
    with pytest.raises(Refused) as refusal:
        load_solution(json.dumps({**whole, **change}).encode(), instance)
    assert refusal.value.field is not None
    assert refusal.value.field.startswith(field)


def test_a_solution_of_the_other_form_is_refused() -> None:
    one, several = draw(7), draw(7, {"slots": 2})
    for instance, other in ((one, several), (several, one)):
        with pytest.raises(Refused, match="slots"):
            load_solution(dump_solution(solve("baas", "greedy", instance)), other)
