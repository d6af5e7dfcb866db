"""The penalised round of the full lift, in one small matrix a user (dpe.md 6, "keep").

A round of `rank.alternate` maximises f(S) - tau (tr S - u'Su) over the one matrix S of all users. f and the rows of the
lift use only the entries of a user's own block, but u u^T has every entry: S does not fall apart as it does without the
penalty. It does once it has a border. For every PSD matrix

    [[S, z], [z', e]]:    u'Su >= 2 u'z - e,    with equality at z = Su, e = u'Su,

because (u, -1) applied from both sides is at least 0. So the round is the same as maximising

    f(S) - tau (tr S - 2 u'z + e)

over S with its border: same value, same S. Now the objective, too, uses only entries within the sets
(phi_n, x_n., 1, border), which share nothing but the constant and the border: the pattern is chordal, and N PSD matrices
of order M + 3 that agree on what they share can be completed to one PSD matrix (`lift` says the same of its blocks). u
is in the objective alone, so a round compiles nothing.

The completion is the one of greatest determinant, which is also what an interior-point method tends to in the free
entries of one large matrix: given the shared pair (1, border), the rest of two users is uncorrelated.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgora.allocator.conic.lift import CONSTANT, Lift, Lifted, Tight

__all__ = ["Bordered"]

Floats = NDArray[np.float64]

_LEAST = 1e-300
"""Keeps a quotient finite."""


class Bordered(Lift):
    """The full lift under a rank penalty: users' blocks with a border, read as one matrix over all users.

    Constraints and `read` are those of the full lift; `coefficients` takes a penalty only.
    """

    def __init__(self, users: int, servers: int, low: ArrayLike, high: ArrayLike, tight: Tight = 1) -> None:
        super().__init__(users, servers, low, high, "blocks", tight)

    def _laid_out(self) -> tuple[NDArray[np.int64], int]:
        """The blocks, and after their entries z by users, by pairs, of the constant, and e."""
        blocks, size = super()._laid_out()
        n, m = self.users, self.servers
        user = np.arange(n)[:, None]
        border = np.empty((n, m + 3), dtype=np.int64)
        border[:, :1] = size + user
        border[:, 1:-2] = size + n + user * m + np.arange(m)
        border[:, -2:] = size + n + n * m + np.arange(2)
        place = np.full((n, m + 3, m + 3), CONSTANT)
        place[:, :-1, :-1] = blocks
        place[:, -1, :] = place[:, :, -1] = border
        return place, size + n + n * m + 2

    def coefficients(self, x: ArrayLike, product: ArrayLike, matrices: Floats | None = None) -> Floats:
        """As of the full lift, for `matrices` -tau (I - u u^T), tau > 0 (`rank.penalty`), a quadratic form in the border."""
        assert matrices is not None, "without a penalty nothing bounds the border"
        tau = -np.trace(matrices[0]) / (matrices.shape[-1] - 1)
        u = np.linalg.eigh(matrices[0])[1][:, -1]
        diagonal = np.zeros(self._place.shape)
        inner = np.arange(self.servers + 1)
        diagonal[:, inner, inner] = -tau
        found = super().coefficients(x, product, diagonal)
        found[-len(u) - 1 : -1] = 2.0 * tau * u
        found[-1] = -tau
        return found

    def read(self, values: Mapping[str, Floats]) -> Lifted:
        """The point, its matrix completed."""
        point = super().read(values)
        entries, blocks = values["lifted"], point.matrices[:, :-1, :-1]
        y = np.concatenate((point.phi, point.x.ravel(), [1.0]))
        order = len(y)
        users, pairs = np.arange(self.users)[:, None], np.arange(order - 1 - self.users).reshape(point.x.shape)
        members = np.hstack((users, self.users + pairs, np.full_like(users, order - 1)))
        own = np.empty(order)
        own[members] = np.diagonal(blocks, axis1=1, axis2=2)
        # What is left of S beyond y y^T is q q^T across users. Its bound holds but for the solver's tolerance: near
        # rank one both sides of the quotient are nothing but that.
        z, e = entries[-order - 1 : -1], entries[-1]
        bound = np.sqrt(np.maximum(own - y * y, 0.0))
        q = np.clip((z - z[-1] * y) / np.sqrt(max(e - z[-1] ** 2, _LEAST)), -bound, bound)
        matrix = np.outer(y, y) + np.outer(q, q)
        matrix[members[:, :, None], members[:, None, :]] = blocks
        return Lifted(point.phi, point.x, point.product, matrix[None])
