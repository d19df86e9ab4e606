"""Alike texts have alike hashes, and others have not."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.data.signatures import (
    exact_hash,
    minhash,
    near_duplicates,
    run_hashes,
    split_words,
    word_hashes,
)

alphabet = "abzAZ09 .,-\n'é树盆景、。“”（x"
texts = st.text(st.sampled_from(alphabet), max_size=60)
LETTERS = re.compile("[㐀-鿿]|(?:(?![㐀-鿿、。“”（])[0-9A-Za-z\u0080-\uffff])+")


def words_slowly(text: str) -> list[str]:
    lower = "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)
    return LETTERS.findall(lower)


def hashes_of(text: str) -> list[int]:
    words, _ = word_hashes(np.frombuffer(text.encode(), dtype=np.uint8))
    return [int(one) for one in words]


@settings(max_examples=300)
@given(texts)
def test_the_words_are_those_of_the_slow_search(text: str) -> None:
    wanted = words_slowly(text)
    found = hashes_of(text)

    assert len(found) == len(wanted)
    by_word = dict(zip(wanted, found, strict=True))
    assert [by_word[word] for word in wanted] == found
    assert len(set(by_word.values())) == len(by_word)
    assert found == [one for word in wanted for one in hashes_of(word)]


@given(st.lists(texts, min_size=1, max_size=6))
def test_a_batch_has_the_words_of_each_text(some: list[str]) -> None:
    raw = [text.encode() for text in some]
    data = np.frombuffer(b"".join(raw), dtype=np.uint8)
    found = split_words(data, np.cumsum([len(one) for one in raw]))

    assert [[int(one) for one in words] for words in found] == [hashes_of(text) for text in some]


def test_runs_of_words_are_known_in_any_case_and_punctuation() -> None:
    words, _ = word_hashes(np.frombuffer(b"The tree, STOOD in a small pot", dtype=np.uint8))
    other, _ = word_hashes(np.frombuffer(b"x the Tree stood\n in-a small", dtype=np.uint8))

    assert set(run_hashes(words, 5).tolist()) & set(run_hashes(other, 5).tolist())
    assert not set(run_hashes(words, 7).tolist()) & set(run_hashes(other, 7).tolist())
    assert len(run_hashes(words, 8)) == 0


def test_texts_that_differ_in_white_space_are_the_same() -> None:
    assert exact_hash(b"a  b\n\nc ") == exact_hash(b"a b c")
    assert exact_hash(b"a bc") != exact_hash(b"a b c")


def test_near_duplicates_are_found_and_others_are_not() -> None:
    pytest.importorskip("datasketch")
    draws = np.random.default_rng(0)
    texts = [draws.integers(0, 2**63, 400).astype(np.uint64) for _ in range(30)]
    changed = texts[3].copy()
    changed[200] = 7  # 5 of 396 runs: a Jaccard index of 0.97
    half = np.concatenate([texts[4][:200], texts[5][200:]])
    signatures = np.stack([minhash(words, 5, 128) for words in [*texts, changed, half]])

    assert near_duplicates(signatures, range(32), 0.8) == {30: 3}
    assert near_duplicates(signatures, [30, 3, 31], 0.8) == {3: 30}
