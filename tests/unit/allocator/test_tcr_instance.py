"""Draws, profiles and files of tcr: reproducible, round-trip exact, strict."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgora.allocator.tcr import Instance, draw
from edgora.allocator.tcr.instance import dump, load, make
from edgora.wire.errors import Refused


def columns(instance: Instance) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(dump(instance))
    return document


def test_the_reference_draw() -> None:
    """tcr.md 11: seed 0, 6x2, to 1e-12."""
    e = draw(0, {"N": 6, "M": 2})
    exact = {"rel": 1e-12, "abs": 0.0}
    assert e.pos_s[0].tolist() == pytest.approx([636.961687321454, 269.786713763870], **exact)
    assert e.pos_u[0].tolist() == pytest.approx([813.270239200272, 912.755577277722], **exact)
    assert e.gain[0].tolist() == pytest.approx([2.240323204967e-12, 2.913998028506e-14], **exact)
    assert e.d[:2].tolist() == pytest.approx([12261360.766851, 8667057.087749], **exact)
    assert e.score.tolist() == pytest.approx([0.242917679416, 0.444743917175], rel=2e-12)
    noise = e.params.N0
    assert noise == pytest.approx(10**-20.4, rel=1e-14)


def test_a_draw_is_one_for_all_profiles_and_follows_the_order_of_the_specification() -> None:
    """Places of servers, places of users, fading, sizes, scores."""
    rng = np.random.default_rng(7)
    servers, users = rng.random((3, 2)) * 500, rng.random((5, 2)) * 500
    fading, sizes, scores = rng.exponential(size=(5, 3)), rng.random(5), rng.random(3)
    for profile in ("paper", "delegate", "chain"):
        e = draw(
            7, {"N": 5, "M": 3, "side": 500, "d_min": 100, "d_lo": 1, "d_hi": 2, "score_hi": 2, "profile": profile}
        )
        assert e.pos_s.tolist() == servers.tolist()
        assert e.d.tolist() == pytest.approx(((1 + sizes) * 8000).tolist(), rel=1e-14)
        assert e.score.tolist() == (2 * scores).tolist()
        for n in range(5):
            for m in range(3):
                dist = max(float(np.linalg.norm(users[n] - servers[m])), 100.0)
                loss = 10 ** (-(128.1 + 37.6 * np.log10(dist / 1000)) / 10)
                assert e.gain[n, m] == pytest.approx(loss * fading[n, m], rel=1e-12)


def test_profiles_set_switches_and_settings_win_over_them() -> None:
    found = {}
    for profile in ("paper", "delegate", "chain", "custom"):
        p = draw(0, {"profile": profile}).params
        found[profile] = (p.phi_min, p.ut_on_user, p.fin_on_server)
    assert found == {"paper": (0, 1, 0), "delegate": (0.5, 1, 0), "chain": (0.5, 0, 1), "custom": (0.5, 1, 0)}
    changed = draw(0, {"profile": "paper", "phi_min": 0.25, "fin_on_server": 1}).params
    assert (changed.profile, changed.phi_min, changed.ut_on_user, changed.fin_on_server) == ("custom", 0.25, 1, 1)
    same = draw(0, {"profile": "paper", "phi_min": 0}).params
    assert same.profile == "paper"


def test_every_default_can_be_set_by_its_field_name() -> None:
    settings = {
        "B": 4e7, "ps_max": 3.0, "fs_max": 1e10, "pu_max": 0.1, "fu_max": 2e9, "eta_u": 300.0, "eta_r": 290.0,
        "eta_s": 310.0, "eta_b": 700.0, "kappa_u": 2e-28, "kappa_s": 3e-28, "verify": 2e9,
    }  # fmt: skip
    scalars = {
        "omega_b": 0.5, "omega_r": 0.7, "block_bits": 1e7, "w_t": 0.3, "w_e": 0.7, "v1": 2.0, "v2": 3.0, "phi_max": 0.9,
        "N0": 5e-21,
    }  # fmt: skip
    e = draw(3, {"N": 4, "M": 3, **settings, **scalars, "wire": 9e6})
    for name, value in settings.items():
        assert set(getattr(e, name).tolist()) == {value}, name
    for name, value in scalars.items():
        assert getattr(e.params, name) == value, name
    assert e.wire.tolist() == [[0, 9e6, 9e6], [9e6, 0, 9e6], [9e6, 9e6, 0]]


@pytest.mark.parametrize("settings", [{}, {"N": 1, "M": 1}, {"N": 2, "M": 5, "profile": "chain"}, {"profile": "paper"}])
def test_files_give_back_the_same_doubles(settings: dict[str, object]) -> None:
    instance = draw(5, settings)
    again = load(dump(instance))
    assert dump(again) == dump(instance)
    assert again.model.terms(again.model.even(again.model.spread())).tcr == (
        instance.model.terms(instance.model.even(instance.model.spread())).tcr
    )


def test_files_hold_the_fields_of_the_specification() -> None:
    document = columns(draw(0, {"N": 3, "M": 2}))
    assert list(document) == [
        "problem", "version", "seed", "params", "gain", "d", "score", "B", "ps_max", "fs_max", "pu_max", "fu_max",
        "eta_u", "eta_r", "eta_s", "eta_b", "kappa_u", "kappa_s", "wire", "verify", "pos_u", "pos_s",
    ]  # fmt: skip
    assert set(document["params"]) == {
        "profile", "N", "M", "N0", "block_bits", "omega_b", "omega_r", "w_t", "w_e", "v1", "v2", "phi_min", "phi_max",
        "ut_on_user", "fin_on_server",
    }  # fmt: skip


def test_arrays_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        draw(0).gain[0, 0] = 1.0


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"colour": 1}, "colour"), ({"N": 0}, "N"), ({"M": "two"}, "M"), ({"N": 10_000_000}, "N"), ({"N": True}, "N"),
        ({"profile": "papers"}, "profile"), ({"side": -1}, "side"), ({"d_lo": 0}, "d_lo"), ({"B": 0}, "B[0]"),
        ({"w_t": 0, "w_e": 0}, "params.w_t"), ({"phi_min": 0.8, "phi_max": 0.8}, "params.phi_min"),
        ({"phi_max": 1.5}, "params.phi_max"), ({"eta_r": 400}, "params.omega_r"), ({"wire": 0}, "wire[0][1]"),
        ({"ut_on_user": 2}, "ut_on_user"), ({"v2": 0}, "params.v2"), ({"kappa_u": -1}, "kappa_u[0]"),
    ],
    ids=str,
)  # fmt: skip
def test_settings_are_refused_by_name(settings: dict[str, object], field: str) -> None:
    with pytest.raises(Refused) as refusal:
        draw(0, settings)
    assert refusal.value.field == field


def put(*path: Any, value: object) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (lambda d: d.pop("gain"), "gain"), (lambda d: d["params"].pop("w_e"), "params.w_e"),
        (put("colour", value=1), "colour"), (put("params", "k", value=1), "params.k"), (put("version", value=2), "version"),
        (put("problem", value="dpe"), "problem"), (put("seed", value=-1), "seed"), (put("params", "N", value=4), "gain"),
        (lambda d: d["d"].append(1.0), "d"), (lambda d: d["gain"][1].pop(), "gain"), (put("d", 1, value=0), "d[1]"),
        (put("gain", 2, 1, value=-1e-12), "gain[2][1]"), (put("d", 0, value=True), "d[0]"), (put("d", 0, value="1"), "d[0]"),
        (put("d", 0, value=None), "d[0]"), (put("score", 1, value=-0.1), "score[1]"), (put("wire", 0, 0, value=1), "wire[0][0]"),
        (put("eta_u", 0, value=1.0), "params.omega_r"), (put("kappa_s", 0, value=1e300), "kappa_s[0]"),
        (put("params", "phi_min", value=1), "params.phi_min"), (put("params", "ut_on_user", value=0.5), "params.ut_on_user"),
        (put("pos_u", 0, value=[1.0]), "pos_u"), (put("params", "M", value=0), "params.M"),
    ],
)  # fmt: skip
def test_files_are_refused_by_field(edit: Callable[[Any], None], field: str) -> None:
    document = columns(draw(0, {"N": 3, "M": 2}))
    edit(document)
    with pytest.raises(Refused) as refusal:
        load(json.dumps(document).encode())
    assert refusal.value.field == field


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "NaN", '{"problem": "tcr"}', "1e999", '"tcr"'])
def test_what_is_not_an_instance_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        load(text.encode())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1e999", "1" + "0" * 400])
def test_numbers_that_are_not_finite_are_refused(number: str) -> None:
    text = dump(draw(0, {"N": 3, "M": 2})).decode()
    document = json.loads(text)
    marked = json.dumps({**document, "d": ["@", *document["d"][1:]]}).replace('"@"', number)
    with pytest.raises(Refused):
        load(marked.encode())


def test_instances_are_made_by_hand_with_the_same_checks() -> None:
    e = draw(0, {"N": 3, "M": 2})
    arrays = {name: getattr(e, name) for name in columns(e) if isinstance(getattr(e, name, None), np.ndarray)}
    assert make(None, e.params, arrays).seed is None
    with pytest.raises(Refused, match="gain"):
        make(None, e.params, {**arrays, "gain": np.zeros((3, 2))})
