"""The normative random stream of baas.md 3: two implementations that follow it see the same slots.

For a batch of B copies from one generator: f, places of servers, places of UEs; then, at reset and after every step,
d, xi, tau, b. Everything is drawn in both profiles. Evaluation plays one generator for each seed (`Streams`).
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from edgora.allocator.baas.model import Floats
from edgora.allocator.baas.params import NEAREST_M, PAPER_SPEED, REFERENCE_M, SIDE_M, Params
from edgora.allocator.radio import PowerLaw, shannon

__all__ = ["Drawn", "Layout", "Source", "Stream", "Streams"]


class Layout(NamedTuple):
    """What an episode keeps."""

    f: Floats
    """Gcycle/s (B,M)."""
    rate: Floats | None
    """Mbit/s (B,U,M) in `hetero`."""


class Drawn(NamedTuple):
    """What a slot draws."""

    d: Floats
    xi: Floats
    tau: Floats
    b: Floats


class Source(Protocol):
    """Where layouts and slots come from."""

    @property
    def params(self) -> Params: ...
    @property
    def copies(self) -> int: ...
    def layout(self) -> Layout: ...
    def slot(self) -> Drawn: ...


class Stream:
    """B copies from one generator."""

    def __init__(self, params: Params, rng: np.random.Generator, copies: int) -> None:
        self.params, self.rng, self.copies = params, rng, copies

    def layout(self) -> Layout:
        """Speeds and places of an episode; the latter as rates."""
        params, B = self.params, self.copies
        f = self.rng.uniform(params.f_lo, params.f_hi, (B, params.M))
        servers = self.rng.uniform(0.0, SIDE_M, (B, params.M, 2))
        ues = self.rng.uniform(0.0, SIDE_M, (B, params.U, 2))
        if params.profile == "paper":
            return Layout(np.full((B, params.M), PAPER_SPEED), None)
        apart = np.hypot(*np.moveaxis(ues[:, :, None, :] - servers[:, None, :, :], -1, 0))
        loss = PowerLaw(params.snr_100, REFERENCE_M, params.a, NEAREST_M)
        return Layout(f, shannon(params.B_w, loss.gain(apart)))

    def slot(self) -> Drawn:
        params = self.params
        return Drawn(
            self._uniform(params.d_lo, params.d_hi, params.U),
            self._uniform(params.xi_lo, params.xi_hi, params.U),
            self._uniform(params.tau_lo, params.tau_hi, params.U),
            self._uniform(params.b_lo, params.b_hi, params.M),
        )

    def _uniform(self, low: float, high: float, width: int) -> Floats:
        """The numbers of `rng.uniform(low, high, (B, width))`, in half its time."""
        values = self.rng.random((self.copies, width))
        values *= high - low
        values += low
        return values


class Streams:
    """One copy from each of several generators, side by side: what evaluation plays."""

    def __init__(self, params: Params, seeds: Sequence[int]) -> None:
        self.params, self.copies = params, len(seeds)
        self._streams = [Stream(params, np.random.default_rng(seed), 1) for seed in seeds]

    def layout(self) -> Layout:
        layouts = [stream.layout() for stream in self._streams]
        rates = [layout.rate for layout in layouts if layout.rate is not None]
        return Layout(np.concatenate([layout.f for layout in layouts]), np.concatenate(rates) if rates else None)

    def slot(self) -> Drawn:
        return Drawn(*map(np.concatenate, zip(*(stream.slot() for stream in self._streams), strict=True)))
