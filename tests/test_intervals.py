"""Intervals against published numbers and laws."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.intervals import clustered_interval, mean_interval, wilson


def test_wilson_agrees_with_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (score, no correction).
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0000, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, n), interval in published.items():
        assert wilson(successes, n) == pytest.approx(interval, abs=1e-4)


@settings(max_examples=50)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.floats(0, n), st.just(n))))
def test_wilson_contains_the_share_and_stays_inside_0_and_1(pair: tuple[float, int]) -> None:
    successes, n = pair
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1
    mirrored_low, mirrored_high = wilson(n - successes, n)
    assert (1 - mirrored_high, 1 - mirrored_low) == pytest.approx((low, high))


def test_a_mean_has_the_normal_interval() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    half = 1.96 * math.sqrt(5 / 3 / 4)
    assert (mean, low, high) == pytest.approx((2.5, 2.5 - half, 2.5 + half))
    assert mean_interval([3.0]) == (3.0, 3.0, 3.0)


@settings(max_examples=30)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20), st.integers(2, 4))
def test_repeating_every_value_inside_its_cluster_changes_nothing(
    values: list[float], times: int
) -> None:
    clusters = [index for index in range(len(values)) for _ in range(times)]
    repeated = [value for value in values for _ in range(times)]
    assert clustered_interval(repeated, clusters) == pytest.approx(mean_interval(values), abs=1e-6)


def test_what_is_no_sample_is_refused() -> None:
    for call in (lambda: wilson(0, 0), lambda: wilson(3, 2), lambda: mean_interval([])):
        with pytest.raises(ValueError, match=r"."):
            call()
    with pytest.raises(ValueError, match="2 values and 1"):
        clustered_interval([1.0, 2.0], ["a"])
