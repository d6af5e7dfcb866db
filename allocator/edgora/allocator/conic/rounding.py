"""From fractional associations to one server a user.

A rounding takes X (N,M), row n the fractions of user n, and answers the server of each user, (N,) integers. All but
`random` and `largest` put at most L users on a server, L = ceil(N/M) unless said otherwise.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

__all__ = ["crowd", "greedy", "hungarian", "largest", "nearest", "random", "rank_one"]

Floats = NDArray[np.float64]
Servers = NDArray[np.int64]


def crowd(users: int, servers: int) -> int:
    """L: users a server has when all have the same, rounded up."""
    return -(-users // servers)


def hungarian(fractions: Floats) -> Servers:
    """Maximum weight with at most L users a server (tcr.md 7.2, A9).

    Every server stands in L columns and zero rows fill the matrix to a square ("augmented zeros"), so that the
    Hungarian method places every user. Rows with a sum above 1 are divided by it. Ties as in SciPy.
    """
    users, servers = fractions.shape
    places = crowd(users, servers)
    total = fractions.sum(axis=1, keepdims=True)
    weight = fractions / np.maximum(total, 1.0)
    square = np.zeros((servers * places, servers * places))
    square[:users] = np.repeat(weight, places, axis=1)
    rows, columns = linear_sum_assignment(square, maximize=True)
    assoc = np.empty(len(rows), dtype=np.int64)
    assoc[rows] = columns // places
    return assoc[:users]


def random(fractions: Floats, rng: np.random.Generator) -> Servers:
    """Server m with probability max(X_nm, 0) / row sum, one draw a user."""
    weight = np.maximum(fractions, 0.0)
    total = weight.sum(axis=1, keepdims=True)
    edges = np.cumsum(
        np.divide(weight, total, out=np.full_like(weight, 1.0 / weight.shape[1]), where=total > 0), axis=1
    )
    drawn: Servers = (rng.random(len(weight))[:, None] >= edges[:, :-1]).sum(axis=1)
    return drawn


def nearest(fractions: Floats) -> Servers:
    """The closest 0/1 matrix, min ||x - X||^2, with one server a user and at most L users a server, as a MILP.

    x^2 = x makes it linear with weights 1 - 2 X ("secondary" of dpe.md 6).
    """
    import scipy.sparse as sp
    from scipy.optimize import Bounds, LinearConstraint, milp

    users, servers = fractions.shape
    ones_n, ones_m = np.ones((1, users)), np.ones((1, servers))
    rows = [
        LinearConstraint(sp.kron(sp.eye_array(users), ones_m).tocsr(), 1.0, 1.0),
        LinearConstraint(sp.kron(ones_n, sp.eye_array(servers)).tocsr(), 0.0, float(crowd(users, servers))),
    ]
    whole = np.ones(users * servers, dtype=np.int64)
    found = milp((1.0 - 2.0 * fractions).ravel(), integrality=whole, bounds=Bounds(0, 1), constraints=rows)
    assert found.x is not None, found.message  # L servers a user always has a solution
    chosen: Servers = found.x.reshape(users, servers).argmax(axis=1)
    return chosen


def greedy(fractions: Floats) -> Servers:
    """Largest X_nm first, skipping users that have a server and servers that have L users; ties by user, then server."""
    users, servers = fractions.shape
    room = np.full(servers, crowd(users, servers))
    assoc = np.full(users, -1)
    for pair in np.argsort(-fractions, axis=None, kind="stable"):
        n, m = divmod(int(pair), servers)
        if assoc[n] < 0 and room[m] > 0:
            assoc[n] = m
            room[m] -= 1
    return assoc


def largest(fractions: Floats) -> Servers:
    """Each user's largest entry; ties to the lower server."""
    chosen: Servers = fractions.argmax(axis=1)
    return chosen


def rank_one(matrices: Floats, users: int, servers: int) -> Floats:
    """Fractions from the leading eigenvectors of a lift's matrices, scaled to last entry 1 (dpe.md 6, `rank1`).

    For blocks, one eigenvector a user. A leading eigenvector with no constant part says nothing: its row is zero.
    """
    _, vectors = np.linalg.eigh(matrices)
    leading = vectors[..., -1]
    last = leading[:, -1:]
    scaled = np.divide(leading, last, out=np.zeros_like(leading), where=np.abs(last) > 1e-12)
    x = scaled[:, 1:-1] if len(matrices) == users and matrices.shape[-1] == servers + 2 else scaled[:, users:-1]
    fractions: Floats = x.reshape(users, servers)
    return fractions
