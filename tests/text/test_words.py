import random
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.text import native

Counts = Mapping[bytes, int]


def varint(value: int) -> bytes:
    low = bytearray()
    while value >= 128:
        low.append(value & 127 | 128)
        value >>= 7
    return bytes([*low, value])


def packed(counts: Counts) -> bytes:
    """The twin of the native writer: a words blob."""
    records = (varint(len(word)) + varint(counts[word]) + word for word in sorted(counts))
    return b"".join(records)


def unpacked(blob: bytes) -> dict[bytes, int]:
    counts: dict[bytes, int] = {}
    place = 0
    while place < len(blob):
        numbers = []
        for _ in range(2):
            value = shift = 0
            while blob[place] >= 128:
                value |= (blob[place] & 127) << shift
                place, shift = place + 1, shift + 7
            numbers.append(value | blob[place] << shift)
            place += 1
        word = blob[place : place + numbers[0]]
        assert word not in counts
        counts[word], place = numbers[1], place + numbers[0]
    assert list(counts) == sorted(counts)
    return counts


COUNTS = st.dictionaries(
    st.binary(min_size=1, max_size=5) | st.text("ab", min_size=1, max_size=200).map(str.encode),
    st.integers(1, 20) | st.integers(1, 2**40),
    max_size=20,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(COUNTS, max_size=6), st.randoms())
def test_merging_sums_the_counts_in_whatever_order(
    many: list[dict[bytes, int]], rng: random.Random
) -> None:
    total: Counter[bytes] = Counter()
    for counts in many:
        total.update(counts)
    blobs = [packed(counts) for counts in many]
    assert unpacked(native.merge_words(blobs)) == dict(sorted(total.items()))
    rng.shuffle(blobs)
    assert native.merge_words(blobs) == packed(total)


@settings(max_examples=100, deadline=None)
@given(COUNTS)
def test_a_histogram_tells_words_and_bytes_of_every_count(counts: dict[bytes, int]) -> None:
    found = zip(
        *(column.tolist() for column in native.count_histogram(packed(counts))), strict=True
    )
    words, sizes = Counter(counts.values()), Counter[int]()
    for word, count in counts.items():
        sizes[count] += len(word)
    assert list(found) == [(count, words[count], sizes[count]) for count in sorted(words)]


@settings(max_examples=150, deadline=None)
@given(COUNTS, st.integers(1, 30) | st.integers(1, 2**62))
def test_a_words_hash_decides_whether_a_rare_word_stays(
    counts: dict[bytes, int], threshold: int
) -> None:
    assert unpacked(native.sample_words(packed(counts), threshold)) == {
        word: max(count, threshold)
        for word, count in sorted(counts.items())
        if count >= threshold or native.word_hash(word) * threshold < count << 64
    }


@settings(max_examples=50, deadline=None)
@given(COUNTS)
def test_a_threshold_of_one_keeps_everything(counts: dict[bytes, int]) -> None:
    assert native.sample_words(packed(counts), 1) == packed(counts)


@pytest.mark.parametrize("count", [1, 5, 15])
def test_sampled_weights_are_right_on_average(count: int) -> None:
    words, threshold = 50_000, 16
    blob = packed({f"word {number}".encode(): count for number in range(words)})
    kept = unpacked(native.sample_words(blob, threshold))
    share = count / threshold
    deviation = threshold * (words * share * (1 - share)) ** 0.5
    assert abs(sum(kept.values()) - words * count) < 4 * deviation


def test_sampling_before_and_after_merging_disjoint_words_is_the_same() -> None:
    words = {f"w{number}".encode(): number % 9 + 1 for number in range(2_000)}
    halves = [{word: c for word, c in words.items() if word[-1] % 2 == odd} for odd in (0, 1)]
    one = native.sample_words(packed(words), 5)
    assert native.merge_words([native.sample_words(packed(half), 5) for half in halves]) == one


compiled = pytest.mark.skipif(not native.COMPILED, reason="the twin trusts its blobs")


@compiled
@pytest.mark.parametrize(
    ("blob", "what"),
    [
        (b"\x03\x01ab", "ends behind the blob"),
        (b"\x83", "ends behind the blob"),
        (b"\x02", "ends behind the blob"),
        (b"\x00\x01", "a word of no bytes"),
        (b"\x01\x00a", "a count out of"),
        (b"\x01" + b"\xff" * 9 + b"\x01a", "a count out of"),
        (b"\x01" + b"\xff" * 11 + b"a", "a number over 64 bits"),
        (varint(2**63) + b"\x01a", "ends behind the blob"),
    ],
)
def test_a_damaged_blob_is_refused_with_its_place(blob: bytes, what: str) -> None:
    for use in (
        lambda: native.merge_words([blob]),
        lambda: native.count_histogram(blob),
        lambda: native.sample_words(blob, 2),
        lambda: native.train_merges([blob], 5, None),
    ):
        with pytest.raises(ValueError, match=f"damaged words blob.*{what}.* at byte 0"):
            use()


@compiled
def test_unsorted_and_repeated_words_are_not_merged() -> None:
    for blob in (b"\x01\x01b\x01\x01a", b"\x01\x01a\x01\x01a"):
        with pytest.raises(ValueError, match="a word out of order at byte 3"):
            native.merge_words([blob])


@compiled
def test_a_count_over_63_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="over 2\\^63"):
        native.merge_words([packed({b"ab": 2**62})] * 2)
    with pytest.raises(ValueError, match="over 2\\^63"):
        native.train_merges([packed({b"abc": 2**62})], 5, None)
    with pytest.raises(ValueError, match="threshold of 0"):
        native.sample_words(b"", 0)


@compiled
@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(blob: bytes) -> None:
    try:
        counts = native.count_histogram(blob)[0]
        native.train_merges([blob], 3, None)
        native.sample_words(blob, 2)
    except ValueError as problem:
        assert "damaged" in str(problem) or "2^63" in str(problem)
    else:
        assert np.all(np.diff(counts) > 0)
