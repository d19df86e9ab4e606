from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penjing.text import native
from penjing.text.sampling import Threshold, choose_threshold
from tests.text.test_words import packed, unpacked

BINS = st.dictionaries(
    st.integers(1, 10**6), st.tuples(st.integers(1, 10**6), st.integers(1, 9)), max_size=12
)
Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def columns(bins: dict[int, tuple[int, int]]) -> Columns:
    ordered = sorted(bins.items())
    counts = np.array([count for count, _ in ordered], dtype=np.int64)
    words = np.array([number for _, (number, _) in ordered], dtype=np.int64)
    return counts, words, words * np.array([size for _, (_, size) in ordered], dtype=np.int64)


def expected_bytes(histogram: Columns, threshold: int) -> float:
    counts, _, sizes = histogram
    return float((sizes * np.minimum(1.0, counts / threshold)).sum())


@settings(max_examples=200, deadline=None)
@given(BINS, st.integers(100, 10**9))
def test_the_smallest_threshold_that_fits_is_chosen(
    bins: dict[int, tuple[int, int]], memory: int
) -> None:
    histogram, budget = columns(bins), memory // 12
    threshold = choose_threshold(*histogram, memory).threshold
    assert expected_bytes(histogram, threshold) <= budget * (1 + 1e-9)
    if threshold > 1:
        assert expected_bytes(histogram, threshold - 1) > budget * (1 - 1e-9)


def test_training_is_exact_when_everything_fits() -> None:
    histogram = columns({1: (1_000, 6), 50: (10, 6)})
    assert choose_threshold(*histogram, 12 * 6_060) == Threshold(1, 1.0, 1.0)
    assert choose_threshold(*histogram, 12 * 6_060 - 1).threshold == 2


def test_many_merges_need_more_memory_a_word() -> None:
    histogram = columns({1: (1_000, 6), 50: (10, 6)})
    assert choose_threshold(*histogram, 12 * 6_060, 65_280).threshold > 1


def test_a_corpus_of_terabytes_is_summed_exactly() -> None:
    histogram = columns({1: (10**12, 8), 10**12: (10**5, 8)})
    found = choose_threshold(*histogram, 256_000_000)
    assert expected_bytes(histogram, found.threshold) * 12 <= 256_000_000


@pytest.mark.parametrize("memory", [12 * 100_000, 12 * 400_000])
def test_what_is_kept_is_what_was_expected(memory: int) -> None:
    words = {f"word {n}".encode(): 1 + 200_000 // (n + 1) for n in range(60_000)}
    histogram = native.count_histogram(packed(words))
    chosen = choose_threshold(*histogram, memory)
    kept = unpacked(native.sample_words(packed(words), chosen.threshold))
    total = sum(words.values())
    assert sum(map(len, kept)) * 12 <= memory * 1.03
    assert len(kept) / len(words) == pytest.approx(chosen.kept_words, rel=0.03)
    assert sum(words[word] for word in kept) / total == pytest.approx(
        chosen.kept_occurrences, rel=0.03
    )
    assert sum(kept.values()) == pytest.approx(total, rel=0.03)


def test_the_chosen_threshold_depends_on_the_histogram_alone() -> None:
    words = {f"w{n}".encode(): n % 40 + 1 for n in range(5_000)}
    whole = native.count_histogram(packed(words))
    parts: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for last in range(10):
        part = {word: n for word, n in words.items() if word[-1] == ord("0") + last}
        for count, number, size in zip(*native.count_histogram(packed(part)), strict=True):
            parts[int(count)] += int(number)
            sizes[int(count)] += int(size)
    counts = sorted(parts)
    summed = (
        np.array(counts),
        np.array([parts[c] for c in counts]),
        np.array([sizes[c] for c in counts]),
    )
    assert choose_threshold(*summed, 30_000) == choose_threshold(*whole, 30_000)
