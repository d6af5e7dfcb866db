"""Draws, nested sweeps and files of mta: reproducible, round-trip exact, strict."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from damage import mutations
from edgora.allocator.mta import Instance, draw, nested
from edgora.allocator.mta.instance import dump, load
from edgora.wire.errors import Refused


def columns(instance: Instance) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(dump(instance))
    return document


def test_a_seed_draws_what_the_reference_draws() -> None:
    """Golden numbers of NumPy's default_rng(7), in the order of mta.md 2."""
    document = columns(draw(7, {"n": 3, "m": 4}))
    rng = np.random.default_rng(7)
    for name, low, high, count in (
        ("price", 1, 10, 4), ("size", 10, 20, 4), ("deadline", 1, 100, 4), ("capacity", 200, 400, 3), ("freq", 1, 10, 3),
        ("theta", 1, 10, 3), ("bandwidth", 5, 10, 3), ("power", 5, 10, 3), ("gain", 5, 10, 3),
    ):  # fmt: skip
        assert document[name] == rng.integers(low, high + 1, count).tolist(), name
    groups = np.array_split(rng.permutation(4), 3)
    assert document["origin"] == [next(i for i, group in enumerate(groups) if j in group) for j in range(4)]
    assert document["arch"] == [1e-5] * 3
    assert (document["fee"], document["noise"], document["seed"]) == (0.01, 0.01, 7)
    assert list(document) == [
        "problem", "version", "seed", "params", "price", "size", "deadline", "origin", "capacity", "freq", "arch",
        "theta", "bandwidth", "power", "gain", "fee", "noise",
    ]  # fmt: skip
    assert document["params"] == {
        "n": 3, "m": 4, "draw": "integer", "cap_scale": 1.0, "price_scale": 1.0, "size_scale": 1.0,
    }  # fmt: skip


def test_default_instances_look_as_the_specification_says() -> None:
    """20 x 50, 78 % of the pairs feasible, origins dealt evenly (mta.md 2, 4)."""
    drawn = [draw(seed) for seed in range(24)]
    assert {(e.n, e.m) for e in drawn} == {(20, 50)}
    assert np.mean([e.model.feasible.mean() for e in drawn]) == pytest.approx(0.78, abs=0.02)
    assert {max(Counter(e.origin.tolist()).values()) for e in drawn} == {3}


def test_scales_multiply_and_leave_the_rest() -> None:
    plain = draw(3)
    scaled = draw(3, {"price_scale": 1.5, "size_scale": 2, "cap_scale": 0.25, "fee": 0.1, "noise": 0.5, "arch": 1e-3})
    np.testing.assert_allclose(scaled.price, 1.5 * plain.price)
    np.testing.assert_allclose(scaled.size, 2 * plain.size)
    np.testing.assert_allclose(scaled.capacity, 0.25 * plain.capacity)
    assert set(scaled.arch) == {1e-3}
    for name in ("deadline", "freq", "theta", "bandwidth", "power", "gain", "origin"):
        assert getattr(scaled, name).tolist() == getattr(plain, name).tolist()


def test_real_draws_stay_in_their_ranges() -> None:
    real = draw(3, {"draw": "real", "n": 50, "m": 200})
    for name, low, high in (("price", 1, 10), ("size", 10, 20), ("deadline", 1, 100), ("capacity", 200, 400)):
        values = getattr(real, name)
        assert values.min() >= low
        assert values.max() <= high
        assert (values != np.floor(values)).all()


def test_nested_instances_share_everything_but_origins() -> None:
    largest = draw(11, {"n": 8, "m": 30})
    small = nested(largest, 3, 10)
    assert (small.n, small.m, small.params.n, small.params.m) == (3, 10, 3, 10)
    assert small.price.tolist() == largest.price[:10].tolist()
    assert small.gain.tolist() == largest.gain[:3].tolist()
    groups = np.array_split(np.random.default_rng([11, 3, 10]).permutation(10), 3)
    assert all(small.origin[j] == i for i, group in enumerate(groups) for j in group)
    with pytest.raises(Refused):
        nested(largest, 9, 10)


@pytest.mark.parametrize("settings", [{}, {"draw": "real"}, {"n": 1, "m": 0}, {"n": 6, "m": 2}, {"size_scale": 0.1}])
def test_files_give_back_the_same_doubles(settings: dict[str, object]) -> None:
    instance = draw(5, settings)
    again = load(dump(instance))
    assert dump(again) == dump(instance)
    assert again.table.value.tolist() == instance.table.value.tolist()


def test_arrays_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        draw(0).price[0] = 1.0


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"q": 1}, "q"),
        ({"n": 0}, "n"),
        ({"m": -1}, "m"),
        ({"n": "many"}, "n"),
        ({"n": 2.5}, "n"),
        ({"n": True}, "n"),
        ({"draw": "normal"}, "draw"),
        ({"cap_scale": "x"}, "cap_scale"),
        ({"cap_scale": -1.0}, "cap_scale"),
        ({"size_scale": 0}, "size_scale"),
        ({"price_scale": 1e300}, "price_scale"),
        ({"size_scale": 1e15}, "size[0]"),
        ({"fee": 1.5}, "fee"),
        ({"noise": 0}, "noise"),
    ],
    ids=str,
)
def test_settings_are_refused_by_name(settings: dict[str, object], field: str) -> None:
    with pytest.raises(Refused) as refusal:
        draw(0, settings)
    assert refusal.value.field in {field, f"params.{field}"}
    assert field.split("[", maxsplit=1)[0] in refusal.value.detail


def set_at(path: list[Any], value: object) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (lambda d: d.pop("gain"), "gain"),
        (lambda d: d["params"].pop("draw"), "params.draw"),
        (set_at(["colour"], 1), "colour"),
        (set_at(["params", "k"], 1), "params.k"),
        (set_at(["problem"], "tcr"), "problem"),
        (set_at(["version"], 2), "version"),
        (set_at(["seed"], -1), "seed"),
        (set_at(["seed"], 1.5), "seed"),
        (lambda d: d["price"].append(1.0), "price"),
        (lambda d: d["theta"].pop(), "theta"),
        (set_at(["price", 2], -1), "price[2]"),
        (set_at(["price", 2], None), "price[2]"),
        (set_at(["price", 2], "3"), "price[2]"),
        (set_at(["size", 0], 0), "size[0]"),
        (set_at(["freq", 1], 1e300), "freq[1]"),
        (set_at(["origin", 3], 3), "origin[3]"),
        (set_at(["origin", 3], -1), "origin[3]"),
        (set_at(["origin", 3], 0.5), "origin[3]"),
        (set_at(["fee"], 1.01), "fee"),
        (set_at(["noise"], 0), "noise"),
        (set_at(["params", "n"], 4), "price"),
        (set_at(["params", "m"], 10**9), "params.m"),
        (set_at(["params", "size_scale"], -2), "params.size_scale"),
        (set_at(["gain"], 7), "gain"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_is_refused_by_the_field_at_fault(edit: Callable[[Any], object], field: str) -> None:
    document = columns(draw(1, {"n": 3, "m": 4}))
    edit(document)
    with pytest.raises(Refused) as refusal:
        load(json.dumps(document).encode())
    if field == "price" and document["params"]["n"] == 4:
        field = "capacity"  # n = 4 is first seen where a server's column has 3
    assert refusal.value.field == field
    assert "\n" not in refusal.value.detail


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b'{"a":1', b"\xff\xfe", b"[" * 100_000, b'{"seed":NaN}', b"1e999"]
)
def test_what_is_no_document_is_refused(text: bytes) -> None:
    with pytest.raises(Refused):
        load(text)


def read_or_refusal(data: bytes) -> Instance | Refused:
    try:
        return load(data)
    except Refused as refusal:
        return refusal


def test_mutated_files_are_read_or_refused_never_more() -> None:
    document = columns(draw(2, {"n": 4, "m": 6}))
    outcomes: Counter[str] = Counter()
    for data in mutations(600, 20, document):
        instance = read_or_refusal(data)
        if isinstance(instance, Refused):
            outcomes["refused"] += 1
            assert instance.field
            assert instance.detail.isprintable()
        else:
            outcomes["read"] += 1
            assert instance.table.allows(instance.table.fill(instance.table.rejected()))
    assert outcomes["refused"] > 300
    assert outcomes["read"] > 20
