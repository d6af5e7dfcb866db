import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgora.allocator.conic import rounding

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(0, 2**32 - 1))


def drawn(shape):
    n, m, seed = shape
    x = np.random.default_rng(seed).random((n, m))
    return x / x.sum(axis=1, keepdims=True)


def weight(x, assoc):
    return float(x[np.arange(len(x)), assoc].sum())


def even(x, assoc):
    n, m = x.shape
    return np.bincount(assoc, minlength=m).max() <= rounding.crowd(n, m)


@given(SHAPES)
def test_hungarian_is_the_best_even_placement(shape):
    x = drawn(shape)
    n, m = x.shape
    assoc = rounding.hungarian(x)
    assert even(x, assoc)
    if m**n <= 300:
        every = (np.array(a) for a in itertools.product(range(m), repeat=n))
        assert weight(x, assoc) == pytest.approx(max(weight(x, a) for a in every if even(x, a)))


@given(SHAPES)
def test_nearest_is_as_good_as_hungarian(shape):
    x = drawn(shape)
    near = rounding.nearest(x)
    assert even(x, near)
    assert weight(x, near) == pytest.approx(weight(x, rounding.hungarian(x)), abs=1e-6)


@given(SHAPES)
def test_greedy_takes_the_largest_that_is_still_free(shape):
    x = drawn(shape)
    m = x.shape[1]
    assoc = rounding.greedy(x)
    assert even(x, assoc)
    top = int(x.argmax())
    assert assoc[top // m] == top % m
    assert weight(x, assoc) <= weight(x, rounding.hungarian(x)) + 1e-9


def test_greedy_can_lose_to_hungarian():
    x = np.array([[0.6, 0.4], [0.55, 0.0]])
    assert rounding.greedy(x).tolist() == [0, 1]
    assert rounding.hungarian(x).tolist() == [1, 0]


def test_hungarian_divides_rows_that_are_over_one():
    x = np.array([[5.0, 4.9], [0.9, 0.1]])  # undivided, user 0 would win server 0 by 0.1, not by 0.01
    assert rounding.hungarian(x).tolist() == [1, 0]


def test_hungarian_with_more_servers_than_users_places_each():
    assert rounding.hungarian(np.array([[0.1, 0.2, 0.7], [0.2, 0.1, 0.7]])).tolist() in ([1, 2], [2, 0])


def test_random_follows_the_fractions():
    x = np.tile([0.2, -0.5, 0.8], (20_000, 1))
    share = np.bincount(rounding.random(x, np.random.default_rng(1)), minlength=3) / 20_000
    assert share == pytest.approx([0.2, 0.0, 0.8], abs=0.015)
    assert np.array_equal(rounding.random(x, np.random.default_rng(1)), rounding.random(x, np.random.default_rng(1)))
    # no weight at all: any server
    flat = np.bincount(rounding.random(np.zeros((9000, 3)), np.random.default_rng(2)), minlength=3) / 9000
    assert flat == pytest.approx([1 / 3] * 3, abs=0.03)


@pytest.mark.parametrize("kind", ["blocks", "full"])
def test_rank_one_recovers_a_true_point(kind):
    rng = np.random.default_rng(4)
    n, m = 5, 3
    assoc = rng.integers(0, m, n)
    phi, x = rng.uniform(0.5, 1.0, n), np.eye(m)[assoc]
    if kind == "full":
        y = np.concatenate((phi, x.ravel(), [1.0]))[None]
    else:
        y = np.concatenate((phi[:, None], x, np.ones((n, 1))), axis=1)
    fractions = rounding.rank_one(y[:, :, None] * y[:, None, :], n, m)
    assert fractions == pytest.approx(x, abs=1e-9)
    assert np.array_equal(rounding.largest(fractions), assoc)
