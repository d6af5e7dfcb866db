"""What a group of servers may hold together: the columns of a master problem whose blocks are groups, not servers.

A set of tasks is a row of 62-bit words, so that two sets are disjoint when no word has a bit in common. A block of one
server lists its sets (`subsets`); two blocks merge into one whose sets are the disjoint unions of theirs. A task that no other
block may hold is nobody else's concern: it leaves the sets (`seen`), its value stays, and of sets that then are the
same the best is kept. So lists shorten again as groups grow, as in elimination of variables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgora.allocator.compiled import compiled

__all__ = ["Block", "merged", "profits", "single"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_BITS = 62
"""Tasks in a word; the sign stays free."""
_BYTE = 8
_BYTES = 8
"""Bytes in a word, the last of them short."""
_LOOKS = 64
"""Pairs of sets that are looked at for each one that a merged block may have."""


@dataclass(frozen=True, slots=True)
class Block:
    """Sets of tasks, each with the most that the group earns with it."""

    tasks: Ints
    """What others may want to hold, too (k, words)."""
    value: Floats
    """(k,)."""
    server: int = -1
    """Of a block of one server ..."""
    held: Ints | None = None
    """... and all that it holds (k, words)."""
    parts: "tuple[Block, Block] | None" = None
    """The two blocks that another one was merged of ..."""
    rows: Ints | None = None
    """... and the rows of theirs that each set is the union of (k,2)."""

    def __len__(self) -> int:
        return len(self.value)

    def only(self, kept: Bools | Ints) -> "Block":
        """With these sets alone."""
        held = None if self.held is None else self.held[kept]
        rows = None if self.rows is None else self.rows[kept]
        return Block(self.tasks[kept], self.value[kept], self.server, held, self.parts, rows)

    def seen(self, shared: Bools) -> "Block":
        """With the shared tasks (c,) alone in its sets, and of the same sets the best."""
        tasks = self.tasks & _words(shared[None])
        if (tasks == self.tasks).all():
            return self
        best = _best(tasks, self.value)
        found = self.only(best)
        return Block(tasks[best], found.value, self.server, found.held, self.parts, found.rows)

    def members(self, count: int) -> Bools:
        """The sets as rows over so many tasks (k,count)."""
        return _members(self.tasks, count)

    def union(self, count: int) -> Bools:
        """What some set holds (count,)."""
        held: Bools = _members(np.bitwise_or.reduce(self.tasks, axis=0, keepdims=True), count)[0]
        return held

    def give(self, row: int, plan: Ints) -> None:
        """Write the servers of all that the group holds with this set into a plan."""
        if self.held is not None:
            plan[_members(self.held[row : row + 1], len(plan))[0]] = self.server
        elif self.parts is not None and self.rows is not None:
            for part, at in zip(self.parts, self.rows[row].tolist(), strict=True):
                part.give(at, plan)

    def mark(self, held: Bools) -> None:
        """Set held[i,j] for each server i and task j that some set of this block gives it."""
        if self.held is not None:
            held[self.server] |= _members(self.held, held.shape[1]).any(axis=0)
        elif self.parts is not None and self.rows is not None:
            for part, at in zip(self.parts, self.rows.T, strict=True):
                part.only(np.unique(at)).mark(held)


def single(server: int, sets: Bools, value: Floats) -> Block:
    """The block of a server that may hold these sets (k,c) of tasks worth value (c,) to it."""
    tasks = _words(sets)
    worth: Floats = sets.astype(np.float64) @ np.where(sets.any(axis=0), value, 0.0)
    return Block(tasks, worth, server, tasks)


def profits(block: Block, u: Floats) -> Floats:
    """What each set brings beyond its tasks' multipliers u (k,)."""
    words = block.tasks.shape[1]
    padded = np.zeros((words, _BYTES * _BYTE))
    for word in range(words):
        mine = u[word * _BITS : (word + 1) * _BITS]
        padded[word, : len(mine)] = mine
    found = np.empty(len(block))
    _profits(block.tasks, block.value, padded, found)
    return found


def merged(
    one: Block, other: Block, losses: Sequence[Floats], most_loss: float, most: int, shared: Bools
) -> Block | None:
    """The two as one block, without sets that lose more than most_loss; None if it would have more than `most`.

    losses: what each set of either falls short of its block's best (k,), at the same multipliers; shared: tasks (c,)
    that some third block may hold.
    """
    order = [np.argsort(loss, kind="stable") for loss in losses]
    first, second = one.tasks[order[0]], other.tasks[order[1]]
    found = np.empty((most, 2), dtype=np.int64)
    count = int(_unions(first, losses[0][order[0]], second, losses[1][order[1]], most_loss, found))
    if count < 0:
        return None
    rows = np.column_stack((order[0][found[:count, 0]], order[1][found[:count, 1]]))
    tasks = (one.tasks[rows[:, 0]] | other.tasks[rows[:, 1]]) & _words(shared[None])
    value = one.value[rows[:, 0]] + other.value[rows[:, 1]]
    best = _best(tasks, value)
    return Block(tasks[best], value[best], parts=(one, other), rows=rows[best])


def _best(tasks: Ints, value: Floats) -> Ints:
    """Of each different set (k, words) the row that is worth most."""
    ranked = np.lexsort((-value, *tasks.T))
    tasks = tasks[ranked]
    fresh = np.ones(len(ranked), dtype=np.bool_)
    fresh[1:] = (tasks[1:] != tasks[:-1]).any(axis=1)
    best: Ints = ranked[fresh]
    return best


def _words(sets: Bools) -> Ints:
    """Rows of flags (k,c) as rows of words."""
    count = sets.shape[1]
    tasks = np.zeros((len(sets), -(-count // _BITS)), dtype=np.int64)
    for task in range(count):
        tasks[:, task // _BITS] |= sets[:, task].astype(np.int64) << (task % _BITS)
    return tasks


def _members(tasks: Ints, count: int) -> Bools:
    every = np.arange(count)
    held: Bools = ((tasks[:, every // _BITS] >> (every % _BITS)) & 1).astype(np.bool_)
    return held


@compiled
def _profits(tasks: Ints, value: Floats, u: Floats, found: Floats) -> None:
    """Byte by byte, by tables of the sums of u over every byte: u (words,64)."""
    words = tasks.shape[1]
    sums = np.zeros((words * _BYTES, 1 << _BYTE))
    for at in range(words * _BYTES):
        for bit in range(_BYTE):
            for low in range(1 << bit):
                sums[at, (1 << bit) + low] = sums[at, low] + u[at // _BYTES, (at % _BYTES) * _BYTE + bit]
    for k in range(len(value)):
        total = 0.0
        for word in range(words):
            left, at = tasks[k, word], word * _BYTES
            while left > 0:
                total += sums[at, left & ((1 << _BYTE) - 1)]
                left >>= _BYTE
                at += 1
        found[k] = value[k] - total


@compiled
def _unions(one: Ints, loss: Floats, other: Ints, more: Floats, most_loss: float, found: Ints) -> Any:
    """Rows of disjoint sets that lose no more together; losses ascend. How many; -1 if too many, or too many looks."""
    count, looks, words = 0, 0, one.shape[1]
    for a in range(len(one)):
        if len(other) == 0 or loss[a] + more[0] > most_loss:
            break
        for b in range(len(other)):
            if loss[a] + more[b] > most_loss:
                break
            looks += 1
            disjoint = True
            for word in range(words):
                if one[a, word] & other[b, word] != 0:
                    disjoint = False
            if not disjoint:
                continue
            if count == len(found):
                return -1
            found[count, 0], found[count, 1] = a, b
            count += 1
        if looks > _LOOKS * len(found):
            return -1
    return count
