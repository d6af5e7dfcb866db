"""Associations in order of what they lose at given prices (F9), and their exact worth, each group solved once.

At any prices, an association is worth at most D - sum_n loss_n,a(n), where loss_nm = max_m' U_nm' - U_nm. So whoever
looks for better than `best` needs to look at those with a loss below D - best alone: `Listing` hands them out by rising
loss, every one exactly once. `Book` values them in batches. Associations differ from one another in few servers, and
users compete within a server alone (F3), so it keeps the worth of every group that it ever solved.
"""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.dpe.continuous import Groups, decision, solve_groups
from edgora.allocator.dpe.model import Decision, Model
from edgora.allocator.dpe.pairs import Pairs

__all__ = ["Book", "Listing", "Valued"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Moves = tuple[tuple[int, int], ...]
"""User and server of every user that is elsewhere than in the base association."""


class Valued(NamedTuple):
    """The optimum of an association."""

    moves: Moves
    worth: float
    """Server part."""
    bound: float
    """Certified upper bound on it."""


class Listing:
    """Associations as moves away from the one without loss, by rising loss.

    Users are ordered by their cheapest alternative, and each user's alternatives by loss. A combination's successors
    are: its last user's next alternative; the next user's first alternative as well; and the same instead of the last
    user's first one. None is below its predecessor, and every combination has exactly one, so a heap hands out all in
    order.
    """

    def __init__(self, upper: Floats) -> None:
        best = upper.max(axis=1)
        self.base: Indices = upper.argmax(axis=1)
        loss = best[:, None] - upper
        order = np.argsort(loss, axis=1, kind="stable")
        sorted_loss = np.take_along_axis(loss, order, axis=1)
        self._servers = order.tolist()
        self._loss = sorted_loss.tolist()
        self._users = np.argsort(sorted_loss[:, 1], kind="stable").tolist() if upper.shape[1] > 1 else []
        self._heap: list[tuple[float, tuple[tuple[int, int], ...]]] = [(0.0, ())]
        """Loss, and (place among `_users`, alternative) of every moved user."""

    def next(self, most: int, below: float) -> list[tuple[float, Moves]]:
        """Up to `most` further associations with a loss under `below`; none: there are no more."""
        found: list[tuple[float, Moves]] = []
        heap, users, loss = self._heap, self._users, self._loss
        while heap and len(found) < most and heap[0][0] < below:
            lost, chosen = heapq.heappop(heap)
            found.append((lost, tuple((users[at], self._servers[users[at]][rank]) for at, rank in chosen)))
            at, rank = chosen[-1] if chosen else (-1, 0)
            if chosen and rank + 1 < len(loss[users[at]]):
                more = loss[users[at]][rank + 1] - loss[users[at]][rank]
                heapq.heappush(heap, (lost + more, (*chosen[:-1], (at, rank + 1))))
            if at + 1 < len(users):
                first = loss[users[at + 1]][1]
                heapq.heappush(heap, (lost + first, (*chosen, (at + 1, 1))))
                if rank == 1:
                    heapq.heappush(heap, (lost + first - loss[users[at]][1], (*chosen[:-1], (at + 1, 1))))
        return found


class _Group(NamedTuple):
    """The optimum of a set of users on a server."""

    worth: float
    bound: float
    residual: float
    columns: Indices
    b: Floats
    point: Floats


class Book:
    """Worths of groups, and of associations near a base."""

    def __init__(self, pairs: Pairs, base: Indices, points: Floats) -> None:
        """`points`: where every pair's Newton starts (3, N M)."""
        self.pairs = pairs
        self.base = base
        self._points = points
        self._at = base.tolist()
        self._members: list[list[int]] = [[] for _ in range(pairs.M)]
        for user, server in enumerate(self._at):
            self._members[server].append(user)
        self._known: dict[tuple[int, Moves], _Group] = {}
        """By server and the moves from or to it."""
        whole: list[tuple[int, Moves]] = [(m, ()) for m in range(pairs.M)]
        self._solve(whole)
        self.worth = sum(self._known[key].worth for key in whole)
        """Of the base."""
        self._bound = sum(self._known[key].bound for key in whole)

    @property
    def groups(self) -> int:
        """How many groups were solved so far."""
        return len(self._known)

    def value(self, asked: Sequence[Moves]) -> list[Valued]:
        """The optimum of each of these associations; new groups are solved together."""
        keys = [self._touched(moves) for moves in asked]
        self._solve([key for key in dict.fromkeys(key for row in keys for key in row) if key not in self._known])
        valued = []
        for moves, row in zip(asked, keys, strict=True):
            worth, bound = self.worth, self._bound
            for key in row:
                now, before = self._known[key], self._known[key[0], ()]
                worth, bound = worth + (now.worth - before.worth), bound + (now.bound - before.bound)
            valued.append(Valued(moves, worth, max(bound, worth)))
        return valued

    def union(self, valued: Sequence[Valued]) -> Moves:
        """The moves of the best of these and, by falling worth, of those that touch other servers than all before."""
        moves: Moves = ()
        touched: set[int] = set()
        for one in sorted(valued, key=lambda one: -one.worth):
            servers = {server for user, to in one.moves for server in (to, self._at[user])}
            if touched.isdisjoint(servers):
                moves, touched = moves + one.moves, touched | servers
        return moves

    def decision(self, model: Model, moves: Moves) -> tuple[Decision, float]:
        """The decision of a valued association, and its greatest KKT residual."""
        changed = {server: (server, touching) for server, touching in self._touched(moves)}
        groups = [self._known[changed.get(m, (m, ()))] for m in range(self.pairs.M)]
        columns, b = np.concatenate([g.columns for g in groups]), np.concatenate([g.b for g in groups])
        point = np.concatenate([g.point for g in groups], axis=1)
        return decision(model, columns, b, point), max(g.residual for g in groups)

    def _touched(self, moves: Moves) -> list[tuple[int, Moves]]:
        """The groups that these moves change."""
        touching: dict[int, list[tuple[int, int]]] = {}
        for move in moves:
            for server in (move[1], self._at[move[0]]):
                touching.setdefault(server, []).append(move)
        return [(server, tuple(those)) for server, those in touching.items()]

    def _solve(self, keys: list[tuple[int, Moves]]) -> None:
        members: list[int] = []
        start: list[int] = []
        server: list[int] = []
        solved: list[tuple[int, Moves]] = []
        for key in keys:
            m, moves = key
            gone = {user for user, to in moves if to != m}
            here = [user for user in self._members[m] if user not in gone] if gone else list(self._members[m])
            here += [user for user, to in moves if to == m]
            if not here:
                self._known[key] = _NOBODY
                continue
            start.append(len(members))
            server.append(m)
            solved.append(key)
            members += [user * self.pairs.M + m for user in here]
        if not solved:
            return
        groups = Groups(np.array(members), np.array(start), np.array(server))
        found = solve_groups(self.pairs, groups, self._points.take(groups.columns, axis=1))
        for k, key in enumerate(solved):
            one = slice(start[k], start[k + 1] if k + 1 < len(start) else len(members))
            self._known[key] = _Group(
                float(found.worth[k]), float(found.bound[k]), float(found.residual[k]), groups.columns[one],
                found.b[one], found.point[:, one],
            )  # fmt: skip


_NOBODY = _Group(0.0, 0.0, 0.0, np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros((3, 0)))
