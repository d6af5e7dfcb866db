"""Draws, hand-made instances and files of dpe: reproducible, round-trip exact, strict (dpe.md 2, 3, 11, 12)."""

import json
import math
from typing import Any

import numpy as np
import pytest

from edgora.allocator import registry
from edgora.allocator.dpe import draw, made
from edgora.allocator.dpe.instance import dump, load
from edgora.wire.errors import Refused

ROOM = registry.problem("dpe")


@pytest.mark.parametrize(
    ("seed", "settings", "gains", "data"),
    [
        (0, {"N": 8, "M": 2}, (7.500025118e-15, 1.647618181e-12), (15208522.19, 14683292.22)),
        (1, {"N": 10, "M": 2}, (1.834259796e-12, 3.537480840e-11), (10113950.58, 6295887.113)),
        (2, {"N": 8, "M": 3, "c_mixed": True}, (6.136647777e-13, 1.240321783e-14), (10273942.05, 14022198.46)),
    ],
)
def test_the_generated_vectors(seed, settings, gains, data):
    instance = draw(seed, settings)
    assert (instance.gain[0, 0], instance.gain[-1, -1]) == pytest.approx(gains, rel=1e-9)
    assert (instance.d[0], instance.d[-1]) == pytest.approx(data, rel=1e-9)
    if "c_mixed" in settings:
        assert instance.c_s[0, 0] == pytest.approx(6.038055173e-07, rel=1e-9)
    assert instance.t_chain == pytest.approx(np.full(instance.M, 4.316666666667), rel=1e-12)


def test_the_draw_in_plain_numpy():
    """The order and the formulas of section 3, written out."""
    N, M = 5, 3
    instance = draw(9, {"N": N, "M": M, "radius": 500, "c_mixed": True, "c": 2e-6, "n0_dbm_hz": -170})
    rng = np.random.default_rng(9)
    servers = 500 * np.sqrt(rng.random(M)) * np.exp(2j * np.pi * rng.random(M))
    users = 500 * np.sqrt(rng.random(N)) * np.exp(2j * np.pi * rng.random(N))
    fading = rng.exponential(size=(N, M))
    far = np.maximum(10.0, np.abs(users[:, None] - servers[None, :]))
    np.testing.assert_allclose(instance.gain, fading * 10 ** (-(128.1 + 37.6 * np.log10(far / 1000)) / 10), rtol=1e-12)
    np.testing.assert_allclose(instance.d, (500 + 1500 * rng.random(N)) * 8000, rtol=1e-12)
    np.testing.assert_allclose(instance.c_u, 2e-6 * rng.random(N), rtol=1e-12)
    np.testing.assert_allclose(instance.c_s, 2e-6 * rng.random((N, M)), rtol=1e-12)
    np.testing.assert_allclose(instance.N0, 1e-20, rtol=1e-12)


def test_only_n_and_m_touch_the_draws():
    plain = draw(4)
    changed = draw(4, {"B": 1e6, "fs_max": 2e9, "w_t": 0.9, "c": 5e-7, "phi_max": 0.5, "c_mixed": True})
    assert changed.gain.tolist() == plain.gain.tolist()
    assert changed.d.tolist() == plain.d.tolist()
    assert set(changed.B) == {1e6}
    assert changed.t_chain == pytest.approx(np.full(2, 64e6 / 15e6 + 0.5))


def test_a_single_server_has_no_chain_to_wait_for():
    assert draw(0, {"M": 1}).t_chain.tolist() == [0.0]


@pytest.mark.parametrize(
    "settings", [{}, {"N": 1, "M": 1}, {"N": 3, "M": 7, "c_mixed": True, "w_e": 0.0}, {"kappa_s": 0, "phi_min": 0.25}]
)
def test_files_give_back_the_same_doubles(settings):
    instance = draw(5, settings)
    again = load(dump(instance))
    assert dump(again) == dump(instance)
    assert again.model.user_part == instance.model.user_part


def test_params_hold_what_differs_from_the_defaults():
    assert json.loads(dump(draw(1, {"M": 3, "N": 10, "w_t": 0.25})))["params"] == {"M": 3, "w_t": 0.25}
    assert json.loads(dump(made([[1e-12]], 1e6)))["params"] == {}


def test_arrays_are_private_and_read_only():
    gain = np.full((2, 2), 1e-12)
    instance = made(gain, [1e6, 2e6])
    gain[0, 0] = 5.0
    assert instance.gain[0, 0] == 1e-12
    with pytest.raises(ValueError, match="read-only"):
        instance.gain[0, 0] = 1.0


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"q": 1}, "q"), ({"N": 0}, "N"), ({"M": 0}, "M"), ({"N": 2.5}, "N"), ({"N": "x"}, "N"), ({"B": 0}, "B[0]"),
        ({"w_t": 0}, "w_t"), ({"w_e": -1}, "w_e"), ({"phi_max": 1.5}, "phi_max"), ({"phi_max": 0}, "phi_max"),
        ({"phi_min": 0.75, "phi_max": 0.5}, "phi_min"), ({"radius": -1}, "radius"), ({"pl0": 1e308}, "pl0"),
        ({"N": 10**9, "M": 10**9}, "N"), ({"d_lo": 0}, "d_lo"), ({"c_mixed": 1}, "c_mixed"), ({"wire": 0}, "wire"),
        ({"kappa_s": -1e-29}, "kappa_s[0]"), ({"eta_b": math.inf}, "eta_b[0]"),
    ],
)  # fmt: skip
def test_settings_are_refused_by_name(settings, field):
    with pytest.raises(Refused) as refused:
        draw(0, settings)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"gain": [1e-12], "d": 1e6}, "gain"), ({"gain": [[]], "d": []}, "gain"), ({"gain": [[1e-12]], "d": "x"}, "d"),
        ({"gain": [[1e-12, 0.0]], "d": 1e6}, "gain[0][1]"), ({"gain": [[1e-12]], "d": [1e6, 1e6]}, "d"),
        ({"gain": [[1e-12]], "d": 1e6, "bandwidth": 1.0}, "bandwidth"), ({"gain": [[math.nan]], "d": 1e6}, "gain[0][0]"),
        ({"gain": [[1e-12]], "d": 10**400}, "d"), ({"gain": [[1e-12]], "d": 1e6, "c_s": [[1e-6, 1e-6]]}, "c_s"),
    ],
)  # fmt: skip
def test_hand_made_instances_are_checked(arguments, field):
    with pytest.raises(Refused) as refused:
        made(**arguments)
    assert refused.value.field == field


def damaged(document: dict[str, Any], k: int) -> bytes:
    """The k-th damaged copy: one field gone, odd, renamed or cut, or a broken byte."""
    odd: list[object] = [
        None, True, -1, 2**70, 1e308, "x", [], {}, [[1]], [None] * 3, [-2] * 3, [1e308] * 2, 0.5, [[1e-12] * 2] * 3, 10**400,
    ]  # fmt: skip
    fields = list(document)
    name = fields[k % len(fields)]
    kind = (k // len(fields)) % 6
    if kind == 0:
        return json.dumps({key: value for key, value in document.items() if key != name}).encode()
    if kind in {1, 5}:
        return json.dumps({**document, name: odd[(k + 3 * kind) % len(odd)]}).encode()
    if kind == 2:
        return json.dumps({**document, f"{name}_": 1}).encode()
    text = json.dumps(document).encode()
    at = (k * 7919) % len(text)
    return text[:at] if kind == 3 else text[:at] + bytes([k % 256]) + text[at + 1 :]


def test_damaged_files_are_read_or_refused_and_nothing_else():
    instance = draw(3, {"N": 3, "M": 2})
    solution = registry.solve("dpe", "priced", instance)
    good = json.loads(ROOM.dump_instance(instance)), json.loads(ROOM.dump_solution(solution))
    fields = []
    for k in range(400):
        fields.append(refused_field(lambda k=k: ROOM.load_instance(damaged(good[0], k))))
        fields.append(refused_field(lambda k=k: ROOM.load_solution(damaged(good[1], k), instance)))
        if fields[-1] is None:
            ROOM.score(instance, ROOM.load_solution(damaged(good[1], k), instance))  # says so, whatever it holds
    named = [field for field in fields if field is not None]
    assert all(named)
    assert len(named) > 400


def refused_field(read):
    """The field that the file is refused for; None if it is read."""
    try:
        read()
    except Refused as error:
        return error.field if "\n" not in error.detail else ""
    return None
