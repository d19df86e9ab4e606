from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.data.order import permutation, permute, permute_many

keys = st.integers(0, 2**63 - 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), keys)
def test_every_place_is_taken_once(size: int, key: int) -> None:
    assert sorted(permutation(size, key).tolist()) == list(range(size))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 10**12), keys, st.lists(st.integers(0, 10**12), max_size=5))
def test_one_at_a_time_and_all_at_once_agree(size: int, key: int, indices: list[int]) -> None:
    wanted = [index % size for index in indices]

    found = permute_many(np.array(wanted, dtype=np.int64), size, key)

    assert found.tolist() == [permute(index, size, key) for index in wanted]


def test_all_orders_of_three_come_about_equally_often() -> None:
    counts = Counter(tuple(permute(n, 3, key) for n in range(3)) for key in range(600))

    assert len(counts) == 6
    assert 70 <= min(counts.values()) <= max(counts.values()) <= 130


def test_neighbours_do_not_stay_neighbours() -> None:
    order = permutation(10_000, 5)

    assert np.count_nonzero(np.abs(np.diff(order)) < 100) < 300
    assert np.count_nonzero(order == permutation(10_000, 6)) < 20


def test_no_order_of_nothing_and_no_place_outside() -> None:
    assert permutation(0, 1).tolist() == []
    with pytest.raises(IndexError, match="outside"):
        permute(3, 3, 1)
