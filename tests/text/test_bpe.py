from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.text.bpe import (
    MIN_PAIR_COUNT,
    count_words,
    replace_pair,
    split,
    train_merges,
    utf8,
)
from penjing.text.word_encoder import merge_ids

Pair = tuple[int, int]


def train_by_recounting(
    word_counts: dict[bytes, int], num_merges: int
) -> list[tuple[bytes, bytes]]:
    """The slow obvious twin: count every pair again for every merge."""
    words = {word: list(word) for word in word_counts}
    tokens = [bytes([byte]) for byte in range(256)]
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < num_merges:
        counts: Counter[Pair] = Counter()
        for word, count in word_counts.items():
            for pair in pairwise(words[word]):
                counts[pair] += count
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < MIN_PAIR_COUNT:
            break
        words = {word: replace_pair(ids, best, len(tokens)) for word, ids in words.items()}
        merges.append((tokens[best[0]], tokens[best[1]]))
        tokens.append(tokens[best[0]] + tokens[best[1]])
    return merges


def merge_by_rescanning(word: bytes, ranks: dict[Pair, int]) -> list[int]:
    ids = list(word)
    while found := [ranks[pair] for pair in pairwise(ids) if pair in ranks]:
        pair = next(pair for pair in pairwise(ids) if ranks.get(pair) == min(found))
        ids = replace_pair(ids, pair, min(found))
    return ids


def merged(word: bytes, ranks: dict[Pair, int]) -> list[int]:
    return merge_ids(list(word), {pair: (rank, rank) for pair, rank in ranks.items()})


def ranks_of(merges: list[tuple[bytes, bytes]]) -> dict[Pair, int]:
    ids = {bytes([byte]): byte for byte in range(256)}
    ids |= {left + right: 256 + rank for rank, (left, right) in enumerate(merges)}
    return {(ids[left], ids[right]): ids[left + right] for left, right in merges}


WORDS = st.dictionaries(
    st.text(alphabet="abc", min_size=1, max_size=9).map(str.encode), st.integers(1, 20), max_size=12
)


@settings(max_examples=150, deadline=None)
@given(WORDS, st.integers(0, 25))
def test_incremental_training_equals_recounting(words: dict[bytes, int], merges: int) -> None:
    assert train_merges(words, merges) == train_by_recounting(words, merges)


@settings(max_examples=100, deadline=None)
@given(WORDS, st.text(alphabet="abcd", max_size=60).map(str.encode))
def test_merging_a_word_equals_rescanning_it(words: dict[bytes, int], word: bytes) -> None:
    merges = train_merges(words, 25)
    assert len({left + right for left, right in merges}) == len(merges)
    ranks = ranks_of(merges)
    assert merged(word, ranks) == merge_by_rescanning(word, ranks)


def test_the_order_of_words_does_not_change_the_merges() -> None:
    words = {b"banana": 3, b"bandana": 3, b"cabana": 2, "čaj".encode(): 5}
    backwards = dict(reversed(words.items()))
    assert train_merges(words, 50) == train_merges(backwards, 50)


def test_a_tie_goes_to_the_smaller_pair_of_ids() -> None:
    assert train_merges({b"xy": 4, b"ab": 4, b"cd": 5}, 3) == [
        (b"c", b"d"),
        (b"a", b"b"),
        (b"x", b"y"),
    ]


def test_a_pair_seen_once_is_not_learnt_and_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    merges = train_merges({b"ab": 2, b"cd": 1}, 9, lambda done, wanted: seen.append((done, wanted)))
    assert merges == [(b"a", b"b")]
    assert seen == [(1, 9)]


@pytest.mark.parametrize("text", ["a" * 50_000, " " * 50_000, "ab" * 25_000, "啊" * 15_000])
def test_a_very_long_word_is_trained_on_and_encoded_quickly(text: str) -> None:
    counts = count_words([text])
    assert max(map(len, counts)) <= 256
    assert sum(len(word) * count for word, count in counts.items()) == len(text.encode())
    ranks = ranks_of(train_merges(counts, 60))
    assert len(merged(text.encode(), ranks)) < len(text.encode()) / 8


@given(st.text())
def test_words_joined_are_the_text(text: str) -> None:
    assert "".join(split(text)) == text


def test_words_are_cut_as_qwen2_cuts_them() -> None:
    assert split("We'LL pay $12 now!\n\n  ok ") == [
        *("We", "'LL", " pay", " $", "1", "2", " now", "!\n\n", " ", " ok", " "),
    ]


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    assert utf8("a\ud800b") == "a\ufffdb".encode()
