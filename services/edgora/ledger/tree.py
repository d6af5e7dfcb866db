"""The state tree: what `stateRoot` certifies (ledger.md 3).

4096 buckets; a key lives in the bucket of the first 12 bits of its keccak. bucket hash = H(0x02 || (len, key, len,
value)... by ascending key), lengths as u32; above them a full binary tree of 12 levels, node = H(0x01 || left ||
right). After a block only the buckets it wrote and their paths are hashed again, once.

A bucket is copied before its first write in a block, so `freeze` costs nothing but 4096 references: that is how a
checkpoint keeps the state of its height while execution goes on.
"""

from collections.abc import Iterable, Mapping, Sequence

from edgora.wire.hashing import keccak
from edgora.wire.pbft import BUCKETS
from edgora.wire.units import Digest

__all__ = ["FrozenState", "StateTree", "bucket_hash", "bucket_of", "fold"]

_DEPTH = 12


def bucket_of(key: bytes) -> int:
    """Number of the bucket that a key lives in."""
    return int.from_bytes(keccak(key)[:2], "big") >> 4


def bucket_hash(pairs: Iterable[tuple[bytes, bytes]]) -> Digest:
    """Hash of one bucket's pairs, which come by ascending key."""
    parts = [b"\x02"]
    for key, value in pairs:
        parts += (len(key).to_bytes(4, "big"), key, len(value).to_bytes(4, "big"), value)
    return keccak(b"".join(parts))


def fold(bucket_hashes: Sequence[bytes]) -> Digest:
    """Root over all 4096 bucket hashes."""
    row = list(bucket_hashes)
    while len(row) > 1:
        row = [keccak(b"\x01" + row[i] + row[i + 1]) for i in range(0, len(row), 2)]
    return Digest(row[0])


def _empty_levels() -> list[list[bytes]]:
    node: bytes = bucket_hash(())
    levels = []
    for depth in range(_DEPTH + 1):
        levels.append([node] * (BUCKETS >> depth))
        node = keccak(b"\x01" + node + node)
    return levels


class FrozenState:
    """The state as it was at one moment; later writes to the tree do not show."""

    __slots__ = ("_buckets", "hashes", "root")

    def __init__(self, buckets: tuple[Mapping[bytes, bytes], ...], hashes: tuple[bytes, ...], root: Digest) -> None:
        self._buckets = buckets
        self.hashes = hashes
        self.root = root

    def pairs(self, bucket: int) -> tuple[tuple[bytes, bytes], ...]:
        """One bucket by ascending key."""
        return tuple(sorted(self._buckets[bucket].items()))

    def path(self, bucket: int) -> tuple[bytes, ...]:
        """The 12 sibling hashes from this bucket up to the root."""
        row, siblings = list(self.hashes), []
        while len(row) > 1:
            siblings.append(row[bucket ^ 1])
            row = [keccak(b"\x01" + row[i] + row[i + 1]) for i in range(0, len(row), 2)]
            bucket >>= 1
        return tuple(siblings)

    def merged(self) -> dict[bytes, bytes]:
        """The whole state as one mapping, in bucket order."""
        return {key: value for bucket in self._buckets for key, value in sorted(bucket.items())}


class StateTree:
    """Keys to values under one root."""

    def __init__(self, state: Mapping[bytes, bytes] | None = None) -> None:
        self._buckets: list[dict[bytes, bytes]] = [{} for _ in range(BUCKETS)]
        self._levels = _empty_levels()
        self._dirty: set[int] = set()
        self._root = Digest(self._levels[_DEPTH][0])
        if state:
            self.write(state)

    def get(self, key: bytes) -> bytes | None:
        return self._buckets[bucket_of(key)].get(key)

    def write(self, writes: Mapping[bytes, bytes | None]) -> None:
        """Set keys, or delete those whose value is None."""
        for key, value in writes.items():
            number = bucket_of(key)
            bucket = self._buckets[number]
            if bucket.get(key) == value:
                continue
            if number not in self._dirty:
                bucket = self._buckets[number] = dict(bucket)
                self._dirty.add(number)
            if value is None:
                del bucket[key]
            else:
                bucket[key] = value

    @property
    def root(self) -> Digest:
        """State root after all writes so far."""
        if self._dirty:
            nodes = sorted(self._dirty)
            self._dirty.clear()
            row = self._levels[0]
            for number in nodes:
                row[number] = bucket_hash(sorted(self._buckets[number].items()))
            for depth in range(1, _DEPTH + 1):
                below, row = row, self._levels[depth]
                nodes = list(dict.fromkeys(number >> 1 for number in nodes))
                for number in nodes:
                    row[number] = keccak(b"\x01" + below[2 * number] + below[2 * number + 1])
            self._root = Digest(row[0])
        return self._root

    def freeze(self) -> FrozenState:
        """The present state, kept apart from later writes."""
        root = self.root  # also ends the block: the next write to any bucket copies it first
        return FrozenState(tuple(self._buckets), tuple(self._levels[0]), root)
