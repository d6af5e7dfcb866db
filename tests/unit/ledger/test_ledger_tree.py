"""The state tree against its definition (ledger.md 3)."""

from hypothesis import given, settings
from hypothesis import strategies as st

from edgora.ledger.tree import StateTree, bucket_hash, bucket_of, fold
from edgora.wire.hashing import keccak

KEYS = st.binary(max_size=6)
WRITES = st.dictionaries(KEYS, st.none() | st.binary(max_size=5), max_size=12)


def defined_root(state):
    """ledger.md 3, word for word and without any cache."""
    buckets = [[] for _ in range(4096)]
    for key in sorted(state):
        value = state[key]
        bits = format(int.from_bytes(keccak(key), "big"), "0256b")[:12]
        buckets[int(bits, 2)].append(len(key).to_bytes(4, "big") + key + len(value).to_bytes(4, "big") + value)
    row = [keccak(b"\x02" + b"".join(pairs)) for pairs in buckets]
    while len(row) > 1:
        row = [keccak(b"\x01" + a + b) for a, b in zip(row[::2], row[1::2], strict=True)]
    return row[0]


@settings(max_examples=10, deadline=None)
@given(st.lists(WRITES, max_size=5))
def test_the_root_depends_on_the_state_only_not_on_its_history(blocks):
    tree, state = StateTree(), {}
    for writes in blocks:
        tree.write(writes)
        state |= {k: v for k, v in writes.items() if v is not None}
        state = {k: v for k, v in state.items() if writes.get(k, b"") is not None}
        assert tree.root == defined_root(state)
    assert tree.root == StateTree(state).root
    assert all(tree.get(key) == value for key, value in state.items())


@settings(max_examples=8, deadline=None)
@given(WRITES, WRITES)
def test_a_frozen_state_does_not_see_later_writes(before, after):
    tree = StateTree()
    tree.write(before)
    frozen = tree.freeze()
    kept, root = frozen.merged(), tree.root
    tree.write(after)
    assert tree.root == defined_root({k: v for k, v in (kept | after).items() if v is not None})
    assert frozen.merged() == kept
    assert frozen.root == root == fold(frozen.hashes)
    for number in {bucket_of(key) for key in kept}:
        assert bucket_hash(frozen.pairs(number)) == frozen.hashes[number]


def test_a_path_leads_from_every_bucket_to_the_root():
    frozen = StateTree({b"a": b"1", b"b": b"2", b"c": b"3"}).freeze()
    for key in (b"a", b"b", b"absent"):
        number = bucket_of(key)
        node, index = bucket_hash(frozen.pairs(number)), number
        for sibling in frozen.path(number):
            node = keccak(b"\x01" + (sibling + node if index % 2 else node + sibling))
            index //= 2
        assert node == frozen.root
        assert len(frozen.path(number)) == 12


def test_pairs_that_concatenate_alike_hash_differently():
    assert StateTree({b"ab": b"c"}).root != StateTree({b"a": b"bc"}).root
    assert bucket_hash([(b"ab", b"c")]) != bucket_hash([(b"a", b"bc")])
