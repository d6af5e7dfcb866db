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

__all__ = ["BITS", "Block", "Flat", "members", "merged", "profits", "single", "sums", "words"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

BITS = 62
"""Tasks in a word; the sign stays free."""
_BYTE = 8
_BYTES = 8
"""Bytes in a word, the last of them short."""
_LOOKS = 500
"""Pairs of sets that are looked at for each one that a merged block may have."""
_SIGNS = 10
"""Tasks by which the sets of a block are sorted to be joined: most pairs that have one in common are not even looked at."""
_HALF = (1 << 31) - 1
_MIX = (0x5F356495, 0x6C8E9CF5, 0x4C957F2D)
_SAMPLE = 500
"""Sets of each block that are looked at to choose them."""


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
        """With these sets alone, in this order."""
        held = None if self.held is None else self.held[kept]
        rows = None if self.rows is None else self.rows[kept]
        return Block(self.tasks[kept], self.value[kept], self.server, held, self.parts, rows)

    def seen(self, shared: Ints) -> "Block":
        """With the shared tasks (words,) alone in its sets, and of the same sets the best."""
        tasks = self.tasks & shared
        if (tasks == self.tasks).all():
            return self
        kept = np.empty(len(self), dtype=np.int64)
        kept = kept[: _distinct(tasks, self.value, kept)]
        found = self.only(kept)
        return Block(tasks[kept], found.value, self.server, found.held, self.parts, found.rows)

    def union(self) -> Ints:
        """What some set holds (words,)."""
        held: Ints = np.bitwise_or.reduce(self.tasks, axis=0)
        return held

    def give(self, row: int, plan: Ints) -> None:
        """Write the servers of all that the group holds with this set into a plan."""
        if self.held is not None:
            plan[members(self.held[row], len(plan))] = self.server
        elif self.parts is not None and self.rows is not None:
            for part, at in zip(self.parts, self.rows[row].tolist(), strict=True):
                part.give(at, plan)

    def mark(self, held: Bools) -> None:
        """Set held[i,j] for each server i and task j that some set of this block gives it."""
        if self.held is not None:
            held[self.server] |= members(np.bitwise_or.reduce(self.held, axis=0), held.shape[1])
        elif self.parts is not None and self.rows is not None:
            for part, at in zip(self.parts, self.rows.T, strict=True):
                part.only(np.unique(at)).mark(held)


@dataclass(frozen=True, slots=True)
class Flat:
    """The sets of several blocks, one block after the other, as kernels read them."""

    tasks: Ints
    """(k, words)"""
    value: Floats
    """(k,)"""
    starts: Ints
    """The sets of block b are starts[b] .. starts[b + 1] - 1 (b + 1,)."""

    @classmethod
    def of(cls, blocks: Sequence[Block], width: int) -> "Flat":
        """width: words of a set."""
        starts = np.cumsum([0, *(len(block) for block in blocks)])
        tasks = np.concatenate([np.zeros((0, width), dtype=np.int64), *(block.tasks for block in blocks)])
        return cls(tasks, np.concatenate([np.zeros(0), *(block.value for block in blocks)]), starts.astype(np.int64))

    def only(self, kept: Bools) -> "Flat":
        """With these sets alone (k,)."""
        before = np.concatenate(([0], np.cumsum(kept)))
        return Flat(self.tasks[kept], self.value[kept], before[self.starts])


def single(server: int, sets: Bools, value: Floats) -> Block:
    """The block of a server that may hold these sets (k,c) of tasks worth value (c,) to it."""
    tasks, worth = np.zeros((len(sets), -(-sets.shape[1] // BITS)), dtype=np.int64), np.zeros(len(sets))
    _packed(sets, np.where(sets.any(axis=0), value, 0.0), tasks, worth)
    return Block(tasks, worth, server, tasks)


def merged(
    one: Block, other: Block, losses: tuple[Floats, Floats], gap: float, most: int, shared: Ints, best: float
) -> Block | None:
    """The two as one block, without sets that lose more than `gap`; None if it would have more than `most`, or takes long.

    losses: what each set of either falls short of its block's best (k,), at the same multipliers, ascending; shared:
    tasks (words,) that some third block may hold; best: what the blocks' best sets bring, and all their other tasks' multipliers.
    """
    tasks, value = np.empty((most, one.tasks.shape[1]), dtype=np.int64), np.empty(most)
    rows = np.empty((most, 2), dtype=np.int64)
    count: int = _unions(
        one.tasks, losses[0], one.value, other.tasks, losses[1], other.value, gap, shared, best, _LOOKS * most,
        tasks, value, rows,
    )  # fmt: skip
    if count < 0:
        return None
    return Block(tasks[:count].copy(), value[:count].copy(), parts=(one, other), rows=rows[:count].copy())


def words(sets: Bools) -> Ints:
    """Rows of flags (k,c) as rows of words."""
    tasks = np.zeros((len(sets), -(-sets.shape[1] // BITS)), dtype=np.int64)
    _packed(sets, np.zeros(sets.shape[1]), tasks, np.zeros(len(sets)))
    return tasks


def members(tasks: Ints, count: int) -> Bools:
    """Words (..., words) as flags (..., count)."""
    every = np.arange(count)
    held: Bools = ((tasks[..., every // BITS] >> (every % BITS)) & 1).astype(np.bool_)
    return held


def profits(flat: Flat, u: Floats) -> Floats:
    """What each set brings beyond its tasks' multipliers u (k,)."""
    found, table = np.empty(len(flat.value)), np.zeros((flat.tasks.shape[1] * _BYTES, 1 << _BYTE))
    _profits(flat.tasks, flat.value, u, table, found)
    return found


@compiled
def _packed(sets: Bools, value: Floats, tasks: Ints, worth: Floats) -> None:
    for k in range(len(sets)):
        for task in range(sets.shape[1]):
            if sets[k, task]:
                tasks[k, task // BITS] |= 1 << (task % BITS)
                worth[k] += value[task]


@compiled
def sums(u: Floats, table: Floats) -> None:
    """Fill table (8 words, 256) with the sums of u over the tasks of every value of every byte."""
    for at in range(len(table)):
        for bit in range(_BYTE):
            place = (at % _BYTES) * _BYTE + bit
            task = at // _BYTES * BITS + place
            more = u[task] if place < BITS and task < len(u) else 0.0
            for low in range(1 << bit):
                table[at, (1 << bit) + low] = table[at, low] + more


@compiled
def _profits(tasks: Ints, value: Floats, u: Floats, table: Floats, found: Floats) -> None:
    sums(u, table)
    for k in range(len(value)):
        total = 0.0
        for word in range(tasks.shape[1]):
            left, at = tasks[k, word], word * _BYTES
            while left > 0:
                total += table[at, left & ((1 << _BYTE) - 1)]
                left >>= _BYTE
                at += 1
        found[k] = value[k] - total


@compiled
def _slot(key: Ints, slots: Ints, tasks: Ints) -> Any:
    """Where a set is, or would be, in a hash table of rows of `tasks`, -1 where there is none."""
    mixed = 0
    for word in range(len(key)):  # products of 31 bits: no overflow
        mixed = (mixed >> 31) ^ (mixed & _HALF) * _MIX[0] ^ (key[word] & _HALF) * _MIX[1] ^ (key[word] >> 31) * _MIX[2]
    at = (mixed ^ (mixed >> 17) ^ (mixed >> 41)) & (len(slots) - 1)
    while slots[at] >= 0:
        same = True
        for word in range(len(key)):
            if tasks[slots[at], word] != key[word]:
                same = False
        if same:
            break
        at = (at + 1) & (len(slots) - 1)
    return at


@compiled
def _distinct(tasks: Ints, value: Floats, kept: Ints) -> Any:
    """Of each different set the row that is worth most, in the order in which the sets come first. How many there are."""
    slots = np.full(_table_size(len(tasks)), -1, np.int64)
    seen = np.empty_like(tasks)
    count = 0
    for k in range(len(tasks)):
        at = _slot(tasks[k], slots, seen)
        if slots[at] < 0:
            slots[at] = count
            seen[count] = tasks[k]
            kept[count] = k
            count += 1
        elif value[k] > value[kept[slots[at]]]:
            kept[slots[at]] = k
    return count


@compiled
def _table_size(entries: int) -> int:
    size = 16
    while size < 2 * entries:
        size *= 2
    return size


@compiled
def _signs(one: Ints, other: Ints) -> Ints:
    """The tasks that most pairs of sets would have in common (s,)."""
    width = one.shape[1] * BITS
    often, too = np.zeros(width), np.zeros(width)
    for k in range(0, len(one), 1 + len(one) // _SAMPLE):
        for task in range(width):
            often[task] += (one[k, task // BITS] >> (task % BITS)) & 1
    for k in range(0, len(other), 1 + len(other) // _SAMPLE):
        for task in range(width):
            too[task] += (other[k, task // BITS] >> (task % BITS)) & 1
    both = often * too
    most = min(_SIGNS, (both > 0.0).sum())
    while most > 0 and (1 << most) > len(other):
        most -= 1
    chosen = np.empty(most, np.int64)
    for s in range(most):
        chosen[s] = np.argmax(both)
        both[chosen[s]] = 0.0
    return chosen


@compiled
def _signed(tasks: Ints, signs: Ints) -> Ints:
    """Which of those tasks each set holds, as a number (k,)."""
    found = np.zeros(len(tasks), np.int64)
    for k in range(len(tasks)):
        for s in range(len(signs)):
            found[k] |= ((tasks[k, signs[s] // BITS] >> (signs[s] % BITS)) & 1) << s
    return found


@compiled
def _unions(
    one: Ints, loss: Floats, worth: Floats, other: Ints, more: Floats, value: Floats, gap: float, shared: Ints, best: float,
    looks: int, found: Ints, found_value: Floats, rows: Ints,
) -> Any:  # fmt: skip
    """Disjoint unions that lose no more than the gap, what is shared of each, and of the same ones the best; losses ascend.

    Returns how many, or -1 if they do not fit into `found`, or after so many looks.
    """
    signs = _signs(one, other)
    mine, theirs = _signed(one, signs), _signed(other, signs)
    every = (1 << len(signs)) - 1
    start = np.zeros(every + 2, np.int64)
    for b in range(len(other)):
        start[theirs[b] + 1] += 1
    for sign in range(every + 1):
        start[sign + 1] += start[sign]
    fill = start[:-1].copy()
    row = np.empty(len(other), np.int64)
    for b in range(len(other)):
        row[fill[theirs[b]]] = b
        fill[theirs[b]] += 1
    sets, lost = other[row], more[row]

    nothing_shared = True
    for word in range(len(shared)):
        if shared[word] != 0:
            nothing_shared = False
    slots = np.full(_table_size(len(found)), -1, np.int64)
    key = np.zeros(len(shared), np.int64)
    count, width, most = 0, len(shared), gap
    for a in range(len(one)):
        if len(other) == 0 or loss[a] + more[0] > most:
            break
        free = every & ~mine[a]
        sign = free
        while True:
            looks -= 1
            for at in range(start[sign], start[sign + 1]):
                if loss[a] + lost[at] > most:
                    break
                looks -= 1
                disjoint = True
                for word in range(width):
                    if one[a, word] & sets[at, word] != 0:
                        disjoint = False
                if not disjoint:
                    continue
                both = worth[a] + value[row[at]]
                if nothing_shared:  # one set will be left, the best: others may lose no more than it does
                    most = min(most, best - both)
                for word in range(width):
                    key[word] = (one[a, word] | sets[at, word]) & shared[word]
                slot = _slot(key, slots, found)
                place = slots[slot]
                if place < 0:
                    if count == len(found):
                        return -1
                    place = count
                    slots[slot] = place
                    found[place] = key
                    count += 1
                elif both <= found_value[place]:
                    continue
                found_value[place], rows[place, 0], rows[place, 1] = both, a, row[at]
            if sign == 0:
                break
            sign = (sign - 1) & free
        if looks < 0:
            return -1
    return count
