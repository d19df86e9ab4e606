import random
import signal
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.text import bpe, native
from tests.text.test_words import packed


def learnt(blobs: Sequence[bytes], num_merges: int) -> list[tuple[bytes, bytes]]:
    tokens = [bytes([byte]) for byte in range(256)]
    pairs, counts = native.train_merges(blobs, num_merges, None)
    assert counts.tolist() == sorted(counts.tolist(), reverse=True)
    assert pairs.dtype == np.uint32
    assert pairs.shape == (len(pairs), 2)
    for left, right in pairs.tolist():
        tokens.append(tokens[left] + tokens[right])
    return [(tokens[left], tokens[right]) for left, right in pairs.tolist()]


LETTERS = st.sampled_from(["a", "ab", "abc"]).flatmap(lambda some: st.text(some, min_size=1))
WORDS = st.dictionaries(
    LETTERS.map(str.encode) | st.binary(min_size=1, max_size=8),
    st.integers(1, 4) | st.integers(2**31, 2**36) | st.just(70_000),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(WORDS, st.sampled_from([0, 1, 3, 30, 400, 65_279, 65_280]))
def test_merges_are_those_of_the_slow_trainer(words: dict[bytes, int], num_merges: int) -> None:
    assert learnt([packed(words)], num_merges) == bpe.train_merges(words, num_merges)


@pytest.mark.parametrize("word", [b"a" * 1_000, b"ab" * 500, b"aab" * 300, b"abcabd" * 200])
def test_repeats_within_a_long_word_are_merged_from_the_left(word: bytes) -> None:
    words = {word: 3, word[1:]: 1, b"aaa": 2**40}
    assert learnt([packed(words)], 60) == bpe.train_merges(words, 60)


def test_pairs_that_a_guess_left_out_are_found_when_the_frequent_ones_end() -> None:
    rng = random.Random(1)
    words = {bytes(rng.choices(b"xyz", k=9)): 10**9 for _ in range(20)}
    words |= {bytes(rng.choices(range(256), k=6)): rng.randrange(1, 5) for _ in range(3_000)}
    assert learnt([packed(words)], 2_000) == bpe.train_merges(words, 2_000)


def test_more_distinct_counts_than_16_bits_can_number_change_nothing() -> None:
    rng = random.Random(2)
    words: Mapping[bytes, int] = {b"%06d" % (n * 7): n + 1 for n in range(70_000)}
    some = dict(rng.sample(sorted(words.items()), 66_000))
    assert learnt([packed(some)], 8) == bpe.train_merges(some, 8)


def test_the_order_and_number_of_blobs_do_not_matter() -> None:
    rng = random.Random(3)
    words = {bytes(rng.choices(b"abcdef", k=rng.randrange(1, 12))): n % 50 + 1 for n in range(900)}
    whole = learnt([packed(words)], 300)
    parts = [
        packed({word: n for word, n in words.items() if word[0] == first}) for first in b"fbadec"
    ]
    assert learnt(parts, 300) == learnt([b"", *reversed(parts)], 300) == whole


def test_no_words_give_no_merges() -> None:
    assert learnt([], 5) == learnt([b""], 5) == learnt([packed({b"a": 9})], 5) == []


def many_words() -> bytes:
    rng = random.Random(4)
    return packed({bytes(rng.choices(b"abcdefghij", k=12)): n % 9 + 2 for n in range(60_000)})


def test_progress_is_told_seldom_and_its_error_stops_training() -> None:
    blob, seen, started = many_words(), [], time.monotonic()
    merges, _ = native.train_merges([blob], 3_000, lambda done, wanted: seen.append((done, wanted)))
    elapsed = time.monotonic() - started
    assert seen[-1] == (len(merges), 3_000)
    assert seen == sorted(set(seen))
    if native.COMPILED:
        assert len(seen) <= elapsed / 0.05 + 2

    def refuse(_done: int, _wanted: int) -> None:
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        native.train_merges([blob], 3_000, refuse)


@pytest.mark.skipif(not native.COMPILED, reason="Python looks for signals by itself")
def test_a_signal_stops_training() -> None:
    class StoppedError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StoppedError

    blob, before = many_words(), signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(StoppedError):
            for _ in range(100):
                native.train_merges([blob], 20_000, None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
