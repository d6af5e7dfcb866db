"""The one radio model of all problems: Shannon rates, path loss, fading, positions.

Papers that give the gain as a number (mta) use `shannon` alone; those with places on a map (the UE fleet, tcr, dpe,
baas) combine `Channel(path_loss, fading)` with `shannon`. Powers in watts, bandwidth in hertz and gains as power
ratios give bits per second; `octets_per_s` turns them into what adverts carry. In mta's abstract units the same
formula gives data units per time unit.

Everything is vectorised: scalars and arrays of any matching shape go in, arrays come out.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Channel", "Fading", "LogDistance", "NoFading", "PathLoss", "PowerLaw", "RayleighFading", "distances",
    "octets_per_s", "shannon", "uniform_disc", "uniform_square",
]  # fmt: skip

Floats = NDArray[np.float64]


def shannon(bandwidth: ArrayLike, snr: ArrayLike) -> Floats:
    """Bandwidth * log2(1 + snr); accurate for any snr >= 0, however small (log1p)."""
    rate: Floats = np.asarray(bandwidth, dtype=np.float64) * np.log1p(np.asarray(snr, dtype=np.float64)) / np.log(2.0)
    return rate


def octets_per_s(bits_per_s: ArrayLike) -> NDArray[np.int64]:
    """Whole octets per second, rounded down: what a link surely carries, in the unit of adverts."""
    octets: NDArray[np.int64] = np.floor(np.asarray(bits_per_s, dtype=np.float64) / 8.0).astype(np.int64)
    return octets


def distances(a: ArrayLike, b: ArrayLike) -> Floats:
    """Metres between every point of a (k,2) and every point of b (l,2): shape (k,l)."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    apart: Floats = np.hypot(*np.moveaxis(first[:, None, :] - second[None, :, :], -1, 0))
    return apart


def uniform_square(rng: np.random.Generator, count: int, side_m: float) -> Floats:
    """Points uniform on the square [0, side]^2, shape (count,2)."""
    return rng.random((count, 2)) * side_m


def uniform_disc(rng: np.random.Generator, count: int, radius_m: float) -> Floats:
    """Points uniform on the disc of this radius around the origin, shape (count,2)."""
    radius = radius_m * np.sqrt(rng.random(count))
    angle = 2.0 * np.pi * rng.random(count)
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1)


class PathLoss(Protocol):
    def gain(self, distance_m: ArrayLike) -> Floats:
        """Mean power gain over this distance; positive and never rising with it."""
        ...


@dataclass(frozen=True, slots=True)
class LogDistance:
    """Loss in dB = pl0 + pl1 log10(distance in km): macro cells; the defaults are tcr.md A4's."""

    pl0_db: float = 128.1
    pl1_db: float = 37.6
    nearest_m: float = 1.0
    """Closer devices count as this far: the formula has no meaning near the antenna."""

    def gain(self, distance_m: ArrayLike) -> Floats:
        far = np.maximum(np.asarray(distance_m, dtype=np.float64), self.nearest_m)
        power: Floats = 10.0 ** (-(self.pl0_db + self.pl1_db * np.log10(far / 1000.0)) / 10.0)
        return power


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """Gain relative to a reference distance: reference_gain (distance / reference)^-exponent (baas.md 1)."""

    reference_gain: float = 1.0
    reference_m: float = 100.0
    exponent: float = 3.5
    nearest_m: float = 10.0

    def gain(self, distance_m: ArrayLike) -> Floats:
        far = np.maximum(np.asarray(distance_m, dtype=np.float64), self.nearest_m)
        power: Floats = self.reference_gain * (far / self.reference_m) ** -self.exponent
        return power


class Fading(Protocol):
    def factor(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Random power factors of mean 1."""
        ...


@dataclass(frozen=True, slots=True)
class NoFading:
    """Every draw is 1 and the generator is left alone."""

    def factor(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:  # noqa: ARG002 - the Protocol's signature
        return np.ones(shape)


@dataclass(frozen=True, slots=True)
class RayleighFading:
    """No line of sight: the power factor is exponential."""

    def factor(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return rng.exponential(size=shape)


@dataclass(frozen=True, slots=True)
class Channel:
    """One kind of link: how gains follow from distances, and rates from gains."""

    bandwidth_hz: float = 10e6
    noise_w_per_hz: float = 10.0**-20.4
    """-174 dBm/Hz, thermal noise at room temperature."""
    path_loss: PathLoss = field(default_factory=LogDistance)
    fading: Fading = field(default_factory=NoFading)

    def gains(self, distance_m: ArrayLike, rng: np.random.Generator) -> Floats:
        """Power gains of links of these lengths, one fading draw each."""
        mean = self.path_loss.gain(distance_m)
        return mean * self.fading.factor(rng, mean.shape)

    def rate(self, power_w: ArrayLike, gain: ArrayLike, share: ArrayLike = 1.0) -> Floats:
        """Bits per second at this transmit power over `share` (0..1] of the band; 0 share carries nothing."""
        band = self.bandwidth_hz * np.asarray(share, dtype=np.float64)
        received = np.asarray(power_w, dtype=np.float64) * np.asarray(gain, dtype=np.float64)
        noise = self.noise_w_per_hz * band
        snr = np.divide(
            received, noise, out=np.zeros(np.broadcast_shapes(received.shape, noise.shape)), where=noise > 0
        )
        return shannon(band, snr)
