"""The semidefinite relaxation of "which server, and how much": one association row and one ratio a user.

    y = (phi_1..phi_N, x_1., .., x_N., 1),  S = y y^T,  and then "S = y y^T" is relaxed to "S is PSD"   (tcr.md 7.2, dpe.md 6)

Products phi_n x_nm and the squares are entries of S, linear terms entries of its last column; x_nm^2 = x_nm makes the
diagonal of x equal to that column; S_last,last = 1. (phi - low)(phi - high) <= 0 becomes a linear row in S.

Theory of operation. Every entry of S that has a meaning is one variable, written once: entries that are equal by the
above (x on the diagonal and in the last column) share it, so the only constraint of size is "S is PSD".

- `full` lifts all users into one matrix of order N + N M + 1, as the papers print it.
- `blocks` writes one matrix of order M + 2 a user, over (phi_n, x_n., 1). Objective and rows of both papers use only
  entries within these sets, which share nothing but the constant: the pattern is chordal, and any such blocks can be
  completed to one PSD matrix. It is the same relaxation with the same value, at a small part of the work. A penalty on
  the rank of the full matrix uses all its entries: `bordered` makes small matrices of that, too.

`tight` adds rows that every true point meets: 0 none; 1 phi x >= 0 and x >= 0; 2 also sum_m phi_n x_nm = phi_n and
low x <= phi x <= high x.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cvxpy
import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from edgora.wire.errors import Refused

__all__ = ["CONSTANT", "MAX_FULL_ORDER", "Kind", "Lift", "Lifted", "Tight", "affordable"]

cp: Any = cvxpy  # partly typed

Floats = NDArray[np.float64]
Kind = Literal["blocks", "full"]
Tight = Literal[0, 1, 2]

MAX_FULL_ORDER = 110
"""Largest order of the full lift that Clarabel is given: beyond, it needs gigabytes and minutes (tcr.md 7.2, dpe.md 6)."""

CONSTANT = -1
"""Place of the entry that is 1."""


def affordable(users: int, servers: int, kind: Kind, solver: str) -> None:
    """Refuse a full lift that is too large for Clarabel, by what to take instead."""
    order = users * (servers + 1) + 1
    if kind == "full" and solver == "clarabel" and order > MAX_FULL_ORDER:
        detail = f"lift=full has order {order} at N={users}, M={servers}: Clarabel takes at most {MAX_FULL_ORDER} of it"
        raise Refused(detail, field="lift", fix="lift=blocks is the same relaxation; or take solver=scs")


@dataclass(frozen=True, slots=True)
class Lifted:
    """A solved relaxation, as numbers."""

    phi: Floats
    """(N,)"""
    x: Floats
    """(N,M), rows sum to 1"""
    product: Floats
    """(N,M), what stands for phi_n x_nm"""
    matrices: Floats
    """(blocks, k, k): S, or its block of each user."""


class Lift:
    """Expressions and constraints of the relaxation, to build a program from.

    `phi` (N,), `x` (N,M), `product` (N,M) and `matrices` (blocks,k,k) are affine expressions of the one variable
    `lifted`; `constraints` are those of the relaxation itself: "PSD", one server each, ratios within low..high, `tight`.
    """

    def __init__(
        self, users: int, servers: int, low: ArrayLike, high: ArrayLike, kind: Kind = "blocks", tight: Tight = 1
    ) -> None:
        self.users, self.servers, self.kind, self.tight = users, servers, kind, tight
        self._n, self._nm = users, users * servers
        self._place, size = self._laid_out()
        entries = cp.Variable(size, name="lifted")
        self.entries: Any = entries
        self.phi: Any = entries[: self._n]
        square = entries[self._n : 2 * self._n]
        first = 2 * self._n
        self.x: Any = cp.reshape(entries[first : first + self._nm], (users, servers), order="C")
        first += self._nm
        self.product: Any = cp.reshape(entries[first : first + self._nm], (users, servers), order="C")
        flat = self._place.ravel()
        known = np.flatnonzero(flat != CONSTANT)
        chosen = sp.csr_array((np.ones(len(known)), (known, flat[known])), shape=(len(flat), size))
        self.matrices: Any = cp.reshape(
            chosen @ entries + (flat == CONSTANT).astype(np.float64), self._place.shape, order="C"
        )
        least, most = (np.broadcast_to(np.asarray(bound, dtype=np.float64), users) for bound in (low, high))
        self.constraints: list[Any] = [
            cp.PSD(self.matrices),
            cp.sum(self.x, axis=1) == 1,
            self.phi >= least,
            self.phi <= most,
            square <= cp.multiply(least + most, self.phi) - least * most,
        ]
        if tight >= 1:
            self.constraints += [self.x >= 0, self.product >= 0]
        if tight >= 2:
            self.constraints += [
                cp.sum(self.product, axis=1) == self.phi,
                self.product >= cp.multiply(np.outer(least, np.ones(servers)), self.x),
                self.product <= cp.multiply(np.outer(most, np.ones(servers)), self.x),
            ]

    def _laid_out(self) -> tuple[NDArray[np.int64], int]:
        """Where each entry of each matrix stands in the variable, and the variable's size."""
        return (_blocks if self.kind == "blocks" else _full)(self.users, self.servers)

    @property
    def order(self) -> int:
        """Rows of each matrix: M + 2, or N + N M + 1."""
        return int(self._place.shape[-1])

    def coefficients(self, x: ArrayLike, product: ArrayLike, matrices: Floats | None = None) -> Floats:
        """The coefficients c of `entries` for which c @ entries is <x, x> + <product, product> + <matrices, matrices>.

        The constant entry's part of the last term is left out. One parameter of this size in place of three of the
        expressions' own shapes: cvxpy compiles it in a small part of the time and memory.
        """
        found = np.zeros(self.entries.size)
        if matrices is not None:
            place = self._place.ravel()
            known = place != CONSTANT
            found += np.bincount(place[known], weights=matrices.ravel()[known], minlength=len(found))
        first = 2 * self._n
        found[first : first + self._nm] += np.asarray(x, dtype=np.float64).ravel()
        first += self._nm
        found[first : first + self._nm] += np.asarray(product, dtype=np.float64).ravel()
        return found

    def read(self, values: Mapping[str, Floats]) -> Lifted:
        """The point that a solve of a program with this lift found (`Solved.values`)."""
        entries = values["lifted"]
        n, nm, shape = self._n, self._nm, (self.users, self.servers)
        extended = np.append(entries, 1.0)  # place -1 is the constant
        return Lifted(
            phi=entries[:n].copy(),
            x=entries[2 * n : 2 * n + nm].reshape(shape),
            product=entries[2 * n + nm : 2 * n + 2 * nm].reshape(shape),
            matrices=extended[self._place],
        )


def _blocks(users: int, servers: int) -> tuple[NDArray[np.int64], int]:
    """The entries' places for one block a user."""
    n, m, k = users, servers, servers + 2
    place = np.empty((n, k, k), dtype=np.int64)
    user = np.arange(n)
    x = 2 * n + user[:, None] * m + np.arange(m)
    place[:, 0, 0] = n + user
    place[:, 0, -1] = place[:, -1, 0] = user
    place[:, 0, 1:-1] = place[:, 1:-1, 0] = x + n * m
    place[:, 1:-1, -1] = place[:, -1, 1:-1] = x
    place[:, -1, -1] = CONSTANT
    place[:, np.arange(1, m + 1), np.arange(1, m + 1)] = x
    row, column = np.triu_indices(m, 1)
    cross = 2 * n + 2 * n * m + user[:, None] * len(row) + np.arange(len(row))
    place[:, 1 + row, 1 + column] = place[:, 1 + column, 1 + row] = cross
    return place, 2 * n + 2 * n * m + n * len(row)


def _full(users: int, servers: int) -> tuple[NDArray[np.int64], int]:
    """The same for the one matrix over all users."""
    n, nm = users, users * servers
    k = n + nm + 1
    place = np.full((1, k, k), np.iinfo(np.int64).min)
    s = place[0]
    user, pair = np.arange(n), np.arange(nm)
    owner = pair // servers
    s[user, user] = n + user
    s[user, -1] = s[-1, user] = user
    s[n + pair, n + pair] = s[n + pair, -1] = s[-1, n + pair] = 2 * n + pair
    s[owner, n + pair] = s[n + pair, owner] = 2 * n + nm + pair
    s[-1, -1] = CONSTANT
    row, column = np.nonzero(np.triu(s == np.iinfo(np.int64).min))
    s[row, column] = s[column, row] = 2 * n + 2 * nm + np.arange(len(row))
    return place, 2 * n + 2 * nm + len(row)
