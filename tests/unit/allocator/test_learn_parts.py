"""What learners share: replay, schedules, intervals, small networks against finite differences, files of arrays."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.allocator.learn import intervals, weights
from edgora.allocator.learn.network import Perceptron
from edgora.allocator.learn.replay import Replay
from edgora.allocator.learn.schedules import Linear
from edgora.allocator.learn.shallow import Adam, Shallow
from edgora.wire.errors import Refused


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(5, 9))
def test_a_ring_keeps_the_newest(sizes: list[int], capacity: int) -> None:
    ring = Replay(capacity, {"x": ((2,), np.float64), "n": ((), np.int64)})
    added = 0
    for size in sizes:
        numbers = np.arange(added, added + size)
        ring.add(x=np.stack((numbers, -numbers), axis=1).astype(np.float64), n=numbers)
        added += size
    expected = set(range(max(0, added - capacity), added))
    sample = ring.sample(np.random.default_rng(0), 400)
    assert len(ring) == len(expected)
    assert set(sample["n"].tolist()) == expected
    assert (sample["x"][:, 0] == sample["n"]).all()
    again = Replay(capacity, {"x": ((2,), np.float64), "n": ((), np.int64)})
    again.restore(ring.arrays())
    for both in (ring, again):
        both.add(x=np.zeros((1, 2)), n=np.array([-7]))
    first, second = (both.sample(np.random.default_rng(1), 50)["n"] for both in (ring, again))
    assert (first == second).all()


def test_epsilon_falls_linearly_and_stays() -> None:
    falls = Linear(1.0, 0.2, 10.0)
    assert [falls.at(slot) for slot in (0, 5, 10, 99)] == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_an_interval_of_students_t() -> None:
    found = intervals.mean([1.0, 2.0, 3.0, 4.0])
    assert found.mean == 2.5
    assert found.low is not None
    assert found.mean - found.low == pytest.approx(3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2, rel=1e-6)
    assert intervals.mean([3.0]).low is None


def test_the_interval_of_a_ratio_covers_the_truth() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        below = rng.uniform(1, 3, 30)
        found = intervals.ratio(0.7 * below + rng.normal(0, 0.2, 30), below)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.7 <= found.high
    assert 270 <= covered <= 299


def test_gradients_of_a_shallow_network_are_finite_differences() -> None:
    rng = np.random.default_rng(1)
    network = Shallow(rng, 3, 4, 2)
    for weight in network.weights.values():
        weight[...] += rng.normal(0, 0.3, weight.shape)
    x, wanted = rng.normal(0, 1, (7, 3)), rng.normal(0, 1, (7, 2))
    gradients = network.gradient(x, 2 * (network(x) - wanted))
    for name, weight in network.weights.items():
        for at in np.ndindex(weight.shape):
            held = weight[at]
            around = []
            for step in (1e-6, -1e-6):
                weight[at] = held + step
                around.append(np.square(network(x) - wanted).sum())
            weight[at] = held
            assert gradients[name][at] == pytest.approx((around[0] - around[1]) / 2e-6, rel=1e-4, abs=1e-6)


def test_a_shallow_network_learns_a_kink() -> None:
    rng = np.random.default_rng(2)
    network = Shallow(rng, 2, 8, 1)
    adam = Adam({"net": network})
    for _ in range(1500):
        x = rng.uniform(-1, 1, (64, 2))
        wanted = np.abs(x[:, :1]) + 0.5 * x[:, 1:]
        adam.step({"net": network.gradient(x, 2 * (network(x) - wanted) / 64)}, 0.02)
    x = rng.uniform(-1, 1, (500, 2))
    assert np.abs(network(x) - np.abs(x[:, :1]) - 0.5 * x[:, 1:]).mean() < 0.03


def test_adam_goes_on_from_its_arrays() -> None:
    def made() -> tuple[Shallow, Adam]:
        network = Shallow(np.random.default_rng(0), 2, 3, 1)
        return network, Adam({"net": network})

    def steps(network: Shallow, adam: Adam, seeds: range) -> None:
        for seed in seeds:
            x = np.random.default_rng(seed).normal(0, 1, (5, 2))
            adam.step({"net": network.gradient(x, network(x) - 1)}, 0.1)

    whole, first, second = made(), made(), made()
    steps(*whole, range(6))
    steps(*first, range(3))
    second[0].restore("n", first[0].arrays("n"))
    second[1].restore("a", first[1].arrays("a"))
    steps(*second, range(3, 6))
    for name, weight in whole[0].weights.items():
        assert (weight == second[0].weights[name]).all()


def test_arrays_with_a_header(tmp_path: Path) -> None:
    path = tmp_path / "policy.npz"
    state = np.random.default_rng(3).bit_generator.state  # integers of 128 bits
    weights.write(path, {"a": np.arange(3.0)}, {"state": state})
    arrays, header = weights.read(path, "policy")
    assert arrays["a"].tolist() == [0, 1, 2]
    assert header == {"state": state}
    assert [file.name for file in tmp_path.iterdir()] == ["policy.npz"]


@pytest.mark.parametrize("size", [0, 1, 30, 200])
def test_a_damaged_file_of_arrays_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "policy.npz"
    weights.write(path, {"a": np.arange(30.0)}, {})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(Refused, match=r"policy\.npz"):
        weights.read(path, "policy")
    rng = np.random.default_rng(size)
    path.write_bytes(rng.bytes(size))
    with pytest.raises(Refused):
        weights.read(path, "policy")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "policy.npz"
    with path.open("wb") as file:
        np.savez(file, header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(Refused):
        weights.read(path, "policy")


def test_layers_that_do_not_fit_are_refused() -> None:
    good = {
        "net.0.weight": np.zeros((4, 3)),
        "net.0.bias": np.zeros(4),
        "net.1.weight": np.zeros((2, 4)),
        "net.1.bias": np.zeros(2),
    }
    assert Perceptron.of(good, "net")(np.zeros((5, 3))).shape == (5, 2)
    for change in ({"net.1.weight": np.zeros((2, 5))}, {"net.0.bias": np.zeros(3)}, {"net.0.weight": np.zeros(3)}):
        with pytest.raises(Refused, match="fit"):
            Perceptron.of({**good, **change}, "net")
    with pytest.raises(Refused, match="no layers"):
        Perceptron.of(good, "other")
