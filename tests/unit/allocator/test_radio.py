"""The shared radio model: formulas at points that can be checked by hand."""

import numpy as np
import pytest

from edgora.allocator.radio import (
    Channel,
    LogDistance,
    NoFading,
    PowerLaw,
    RayleighFading,
    distances,
    octets_per_s,
    shannon,
    uniform_disc,
    uniform_square,
)  # fmt: skip


def test_shannon_at_powers_of_two() -> None:
    np.testing.assert_allclose(shannon(2.0, [0.0, 1.0, 3.0, 1023.0]), [0.0, 2.0, 4.0, 20.0])


def test_shannon_of_a_vanishing_signal_is_linear_not_zero() -> None:
    assert float(shannon(1.0, 1e-30)) == pytest.approx(1e-30 / np.log(2.0))


def test_octets_are_whole_and_never_more_than_the_link_carries() -> None:
    assert octets_per_s([7.9, 8.0, 1e9]).tolist() == [0, 1, 125_000_000]


def test_log_distance_at_one_and_ten_kilometres() -> None:
    model = LogDistance()
    np.testing.assert_allclose(-10 * np.log10(model.gain([1000.0, 10_000.0])), [128.1, 165.7])
    assert float(model.gain(0.0)) == float(model.gain(1.0))


def test_power_law_relative_to_its_reference() -> None:
    np.testing.assert_allclose(PowerLaw().gain([100.0, 200.0, 0.0]), [1.0, 2**-3.5, 10**3.5])


@pytest.mark.parametrize("model", [LogDistance(), PowerLaw()])
def test_gains_never_rise_with_distance(model: LogDistance | PowerLaw) -> None:
    gains = model.gain(np.linspace(0.0, 5_000.0, 400))
    assert (gains > 0).all()
    assert (np.diff(gains) <= 0).all()


def test_fading_is_off_by_default_and_draws_nothing() -> None:
    rng = np.random.default_rng(1)
    channel = Channel()
    assert channel.fading == NoFading()
    assert channel.gains([100.0, 200.0], rng).tolist() == channel.path_loss.gain([100.0, 200.0]).tolist()
    assert rng.random() == np.random.default_rng(1).random()


def test_rayleigh_power_has_mean_one() -> None:
    factors = RayleighFading().factor(np.random.default_rng(2), (20_000,))
    assert factors.mean() == pytest.approx(1.0, abs=0.03)
    assert factors.min() > 0


def test_a_channels_rate() -> None:
    """0 dB over the whole band carries one bit per hertz; half the band halves the noise too."""
    channel = Channel(bandwidth_hz=1e6, noise_w_per_hz=1e-20)
    gain = 1e-12
    power = 1e-20 * 1e6 / gain
    assert float(channel.rate(power, gain)) == pytest.approx(1e6)
    assert float(channel.rate(power, gain, 0.5)) == pytest.approx(0.5e6 * np.log2(3.0))
    assert channel.rate(power, gain, [0.0, 1.0])[0] == 0.0


def test_positions_and_distances() -> None:
    rng = np.random.default_rng(3)
    square, disc = uniform_square(rng, 2_000, 50.0), uniform_disc(rng, 2_000, 10.0)
    assert square.shape == disc.shape == (2_000, 2)
    assert square.min() >= 0
    assert square.max() <= 50
    radius = np.hypot(*disc.T)
    assert radius.max() <= 10
    assert (radius < 5).mean() == pytest.approx(0.25, abs=0.03)  # uniform by area
    assert distances([[0.0, 0.0]], [[3.0, 4.0], [0.0, 1.0]]).tolist() == [[5.0, 1.0]]
