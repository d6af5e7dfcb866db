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

from edgora.allocator.dpe.continuous import Groups, solve_groups
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


class Book:
    """Worths of groups, relative to a base association."""

    def __init__(self, pairs: Pairs, base: Indices) -> None:
        self.pairs = pairs
        self.base = base
        self._members = [np.flatnonzero(base == m).tolist() for m in range(pairs.M)]
        self._known: dict[tuple[int, Moves], tuple[float, float]] = {}
        """By server and the moves from or to it: worth and certified bound."""

    @property
    def groups(self) -> int:
        """How many groups were solved so far."""
        return len(self._known)

    def assoc(self, moves: Moves) -> Indices:
        assoc = self.base.copy()
        for user, server in moves:
            assoc[user] = server
        return assoc

    def value(self, asked: Sequence[Moves]) -> list[Valued]:
        """The optimum of each of these associations; new groups are solved together."""
        servers = range(self.pairs.M)
        keys = [[(m, self._touching(m, moves)) for m in servers] for moves in asked]
        self._solve(list(dict.fromkeys(key for row in keys for key in row if key not in self._known)))
        valued = []
        for moves, row in zip(asked, keys, strict=True):
            known = [self._known[key] for key in row]
            valued.append(Valued(moves, sum(w for w, _ in known), sum(b for _, b in known)))
        return valued

    def _touching(self, server: int, moves: Moves) -> Moves:
        return tuple(move for move in moves if move[1] == server or self.base[move[0]] == server)

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
                self._known[key] = (0.0, 0.0)
                continue
            start.append(len(members))
            server.append(m)
            solved.append(key)
            members += [user * self.pairs.M + m for user in here]
        if solved:
            groups = Groups(np.array(members), np.array(start), np.array(server))
            found = solve_groups(self.pairs, groups)
            self._known.update(zip(solved, zip(found.worth.tolist(), found.bound.tolist(), strict=True), strict=True))
