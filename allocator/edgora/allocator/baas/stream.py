"""The normative random stream of baas.md 3: two implementations that follow it see the same slots.

For a batch of B copies from one generator: f, places of servers, places of UEs; then, at reset and after every step,
d, xi, tau, b. Everything is drawn in both profiles. Evaluation plays one generator for each seed (`Streams`).
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from edgora.allocator.baas.model import Floats
from edgora.allocator.baas.params import NEAREST_M, PAPER_SPEED, REFERENCE_M, SIDE_M, Params

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
        return Layout(f, _rates(params, ues, servers))

    def slot(self) -> Drawn:
        """All numbers of a slot in one draw: they follow each other in the generator's stream."""
        params, B = self.params, self.copies
        parts = (
            (params.d_lo, params.d_hi, params.U), (params.xi_lo, params.xi_hi, params.U),
            (params.tau_lo, params.tau_hi, params.U), (params.b_lo, params.b_hi, params.M),
        )  # fmt: skip
        numbers = self.rng.random(B * (3 * params.U + params.M))
        drawn, begin = [], 0
        for low, high, width in parts:
            part = numbers[begin : begin + B * width]  # as `rng.uniform(low, high, (B, width))`, in half its time
            part *= high - low
            part += low
            drawn.append(part.reshape(B, width))
            begin += B * width
        return Drawn(*drawn)


_BLOCK = 16_384
"""Pairs whose rates are made at once: what a core keeps near itself."""


def _rates(params: Params, ues: Floats, servers: Floats) -> Floats:
    """Mbit/s of every pair (B,U,M): `radio.shannon` over `radio.PowerLaw` in place, block after block.

    The same operations in the same order, so the same digits, without a dozen arrays of the size of the answer.
    """
    rate = np.empty((len(ues), params.U, params.M))
    rows = max(1, _BLOCK // params.M)
    across = np.empty((rows, params.M))
    for copy, of_copy in enumerate(rate):
        (ux, uy), (sx, sy) = np.ascontiguousarray(ues[copy].T), np.ascontiguousarray(servers[copy].T)
        for begin in range(0, params.U, rows):
            block = of_copy[begin : begin + rows]
            dy = across[: len(block)]
            np.subtract(ux[begin : begin + rows, None], sx, out=block)
            np.subtract(uy[begin : begin + rows, None], sy, out=dy)
            np.hypot(block, dy, out=block)
            np.maximum(block, NEAREST_M, out=block)
            block /= REFERENCE_M
            block **= -params.a
            block *= params.snr_100
            np.log1p(block, out=block)
            block *= params.B_w
            block /= np.log(2.0)
    return rate


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
