"""The compiled core and its twin in Python give the same bits on everything."""

import json
import random
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.text import native_twin as twin
from penjing.text.bpe import replace_pair
from penjing.text.patterns import PATTERNS
from penjing.text.word_encoder import WordEncoder
from tests.text.test_splitting import fuzz_strings

native = pytest.importorskip("penjing.text._native", reason="needs the compiled core")

NAMES = st.sampled_from(sorted(PATTERNS))


def damaged(count: int, seed: int) -> Iterator[bytes]:
    """Fuzz strings, every second with bytes that are no UTF-8."""
    rng = random.Random(seed)
    for number, text in enumerate(fuzz_strings(count, seed)):
        raw = bytearray(text.encode())
        for _ in range(rng.randrange(1, 4) if number % 2 else 0):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        yield bytes(raw)


def joined(texts: list[bytes]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    data = np.frombuffer(b"".join(texts), dtype=np.uint8)
    return data, np.cumsum([len(text) for text in texts], dtype=np.int64)


def learnt(texts: list[bytes], pattern: str, num_merges: int) -> tuple[list[bytes], Any]:
    """Tokens and merges (left, right, merged) learnt from texts."""
    counter = twin.WordCounter(pattern, 256)
    counter.add(*joined(texts))
    pairs = twin.train_merges(counter.take(1), num_merges, None)[0].tolist()
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in pairs:
        tokens.append(tokens[left] + tokens[right])
    merges = [(left, right, 256 + rank) for rank, (left, right) in enumerate(pairs)]
    return tokens, np.array(merges, dtype=np.uint32).reshape(-1, 3)


@given(st.binary(max_size=40))
def test_a_word_has_the_same_hash(word: bytes) -> None:
    assert native.word_hash(word) == twin.word_hash(word)


@given(st.binary(max_size=60), NAMES, st.sampled_from([0, 1, 3, 4, 7, 256]))
def test_any_bytes_are_cut_at_the_same_places(text: bytes, pattern: str, cap: int) -> None:
    ends = native.split_ends(text, pattern, cap).tolist()
    assert ends == twin.split_ends(text, pattern, cap).tolist()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_words_are_counted_alike(pattern: str) -> None:
    texts = list(damaged(1_500, 11))
    counters = [core.WordCounter(pattern, 16) for core in (native, twin)]
    for counter in counters:
        counter.add(*joined(texts))
        counter.add_words([b"own", b"\xff\xfe", b"own"])
    facts = [(c.documents, c.bytes, c.pieces, c.unique) for c in counters]
    assert facts[0] == facts[1]
    compiled, slow = (counter.take(8) for counter in counters)
    assert compiled == slow
    assert native.merge_words(compiled) == twin.merge_words(slow)
    assert [c.unique for c in counters] == [0, 0]


def test_words_longer_than_the_counters_blocks_and_many_others_are_counted_alike() -> None:
    rng = random.Random(5)
    texts = [("x" * size).encode() for size in (15, 16, 17, 262_120, 262_121, 300_000, 700_000)]
    texts += [f" {rng.randrange(20_000)}{'é' * rng.randrange(12)}".encode() for _ in range(30_000)]
    counters = [core.WordCounter("gpt2", 0) for core in (native, twin)]
    for counter in counters:
        for _ in range(2):
            counter.add(*joined(rng.sample(texts, len(texts))))
    made, wanted = (counter.take(4) for counter in counters)
    assert made == wanted


@given(st.dictionaries(st.binary(min_size=1, max_size=12), st.integers(1, 2**40)), st.data())
def test_blobs_are_sampled_and_summed_up_alike(counts: dict[bytes, int], data: Any) -> None:
    blob = twin._packed(counts)
    threshold = data.draw(st.integers(1, 2**41))
    assert native.sample_words(blob, threshold) == twin.sample_words(blob, threshold)
    for ours, theirs in zip(native.count_histogram(blob), twin.count_histogram(blob), strict=True):
        assert ours.tolist() == theirs.tolist()


def test_the_same_merges_are_learnt() -> None:
    counter = native.WordCounter("qwen2", 256)
    counter.add(*joined(list(damaged(2_000, 5))))
    blobs = counter.take(4)
    ours, counts = native.train_merges(blobs, 1_000, None)
    assert len(ours) > 500
    theirs, slow_counts = twin.train_merges(blobs, 1_000, None)
    assert ours.tolist() == theirs.tolist()
    assert counts.tolist() == slow_counts.tolist()


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("whole_words", [False, True])
def test_texts_are_encoded_alike_one_by_one_and_in_batches(
    pattern: str, *, whole_words: bool
) -> None:
    texts = list(damaged(1_500, 3))
    tokens, merges = learnt(texts[::2], pattern, 600)
    tokens += [b"", b" the whole", "文字文字".encode()]  # words that no merge makes
    arguments = (tokens, merges, pattern, whole_words)
    compiled, slow = native.Encoder(*arguments), WordEncoder(*arguments)
    long = [b"a" * 5_000, b" " * 3_000, " 文字文字 the whole".encode() * 50, b"", bytes(range(256))]
    texts += long
    wanted = [slow.encode(text).tolist() for text in texts]
    assert [compiled.encode(text).tolist() for text in texts] == wanted
    assert [b"".join(tokens[number] for number in ids) for ids in wanted] == texts
    for threads in (1, 3):
        ids, ends = compiled.encode_batch(*joined(texts), threads)
        assert ids.tolist() == [number for one in wanted for number in one]
        assert ends.tolist() == np.cumsum([len(one) for one in wanted]).tolist()


PATHOLOGICAL: dict[str, Callable[[int], str]] = {
    "one letter": lambda n: "a" * n,
    "spaces": lambda n: " " * n,
    "newlines": lambda n: "\n" * n,
    "digits": lambda n: "7" * n,
    "carets": lambda n: "^" * n,
    "one Han run": lambda n: "".join(chr(0x4E00 + k * 7919 % 20_000) for k in range(n // 3)),
    "letters": lambda n: "".join(chr(97 + k * k * 31 % 26) for k in range(n)),
    "pairs": lambda n: "ab" * (n // 2),
    "emoji": lambda n: "👩‍👩‍👧‍👦" * (n // 25),
    "noise": lambda n: random.Random(n).randbytes(n).decode("latin-1"),
}
"""What has hung tokenizers, by its length."""


@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_eight_times_the_length_takes_about_eight_times_as_long(name: str) -> None:
    tokens, merges = learnt(list(damaged(300, 3)) + [b"aaaaaaaa ababab    77777"] * 9, "qwen2", 300)
    encoder = native.Encoder(tokens, merges, "qwen2", False)

    def seconds(length: int) -> float:
        text = PATHOLOGICAL[name](length).encode()
        spent = []
        for _ in range(3):
            start = time.process_time()
            ids = encoder.encode(text)
            spent.append(time.process_time() - start)
        assert b"".join(tokens[number] for number in ids.tolist()) == text
        return min(spent)

    # 8 is linear, 64 quadratic; below a tenth of a millisecond the clock decides.
    assert seconds(400_000) < 24 * max(seconds(50_000), 1e-4)


def random_merges(
    words: list[list[int]], count: int, rng: random.Random
) -> list[tuple[int, int, int]]:
    """Merges of any pairs that stand in the words, not of the most frequent ones."""
    merges: list[tuple[int, int, int]] = []
    for made in range(256, 256 + count):
        left, right = rng.choice(sorted({pair for word in words for pair in pairwise(word)}))
        words = [replace_pair(word, (left, right), made) for word in words]
        merges.append((left, right, made))
    return merges


@pytest.mark.parametrize("seed", range(12))
def test_merges_across_characters_are_made_in_their_order(seed: int) -> None:
    """Few characters with shared bytes make merges that begin or end inside a character."""
    rng = random.Random(seed)
    alphabet = ["中", "丮", "一", "字", "é", "è", "a", "😀", "😁", "\u4e00"][
        seed % 3 : seed % 3 + 7
    ]
    words = ["".join(rng.choices(alphabet, k=rng.randrange(1, 9))) for _ in range(400)]
    merges = random_merges([list(word.encode()) for word in words], 120, rng)
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right, _ in merges:
        tokens.append(tokens[left] + tokens[right])
    if seed % 2:
        rng.shuffle(merges)  # a foreign vocabulary may have merges before those that they need
    table = np.array(merges, dtype=np.uint32)
    compiled, slow = (made(tokens, table, "qwen2", False) for made in (native.Encoder, WordEncoder))
    for _ in range(600):
        text = "".join(rng.choices(alphabet, k=rng.randrange(1, 40))).encode()
        text = text if rng.random() < 0.7 else text[1:-1]
        assert compiled.encode(text).tolist() == slow.encode(text).tolist(), text
        assert compiled.encode_word(text).tolist() == slow.encode_word(text).tolist(), text


ROWS = st.one_of(
    st.dictionaries(
        st.sampled_from(["text", "te\u00e9", "other", "a"]),
        st.recursive(
            st.one_of(st.text(), st.none(), st.booleans(), st.integers(), st.floats()),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
            ),
            max_leaves=5,
        ),
    ).map(lambda row: json.dumps(row, ensure_ascii="text" in row).encode()),
    st.binary(max_size=20).filter(lambda line: b"\n" not in line),
    st.sampled_from(
        [
            *(
                b'{"text": "a\\ud800b"}',
                b'{"text": "\\ud83d\\ude00"}',
                b'{"text": "a", "text": "b"}',
            ),
            *(b' {"text" : "\\u00e9\\n"} \r', b'{"text": 01}', b'{"text": "a"} x', b"[]", b"null"),
            *(b'{"text": "a\tb"}', b'{"text": "\xff"}', b'{"text": NaN, "a": 1e5}', b"{}", b"{"),
        ]
    ),
)


@given(st.lists(ROWS, max_size=6), st.sampled_from(["text", "te\u00e9"]))
def test_json_lines_give_the_same_texts_and_send_the_same_lines_on(
    rows: list[bytes], field: str
) -> None:
    block = b"\n".join(rows)
    data, ends, lines, bad = native.json_lines(block, field)
    slow_data, slow_ends, slow_lines, slow_bad = twin.json_lines(block, field)
    known = {number for number, _ in slow_bad}
    # The compiled reader may send on more lines than the twin finds bad, never fewer.
    assert known <= {number for number, _ in bad}
    ours = dict(zip(lines.tolist(), np.split(data, ends), strict=False))
    theirs = dict(zip(slow_lines.tolist(), np.split(slow_data, slow_ends), strict=False))
    assert set(ours) == set(theirs) - {number for number, _ in bad}
    assert all(ours[number].tobytes() == theirs[number].tobytes() for number in ours)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, np.ndarray])
def test_a_batch_comes_in_as_any_buffer_of_bytes(kind: type) -> None:
    encoder = native.Encoder(
        [bytes([b]) for b in range(256)], np.empty((0, 3), np.uint32), "gpt2", False
    )
    raw = b"one two"
    data = np.frombuffer(raw, np.uint8) if kind is np.ndarray else kind(raw)
    ids, _ = encoder.encode_batch(data, np.array([3, 7], dtype=np.int64), 1)
    assert bytes(ids.astype(np.uint8)) == raw


@pytest.mark.parametrize("ends", [[3, 2], [-1], [9]])
def test_ends_outside_the_data_are_refused(ends: list[int]) -> None:
    counter = native.WordCounter("qwen2", 0)
    with pytest.raises(ValueError, match="end"):
        counter.add(np.zeros(8, np.uint8), np.array(ends, dtype=np.int64))


def filled_rows(core: Any, seed: int, kind: type, *, masked: bool) -> list[bytes]:
    """The arrays of a batch whose rows were filled with random pieces of random ids."""
    rng = np.random.default_rng(seed)
    size, rows, width = 300, 4, int(rng.integers(1, 40))
    ids: Any = rng.integers(0, 60_000, size).astype(kind)
    mask = rng.integers(0, 2, size if masked else 0).astype(np.uint8)
    pieces, filled = [], []
    for row in range(rows):
        at = number = 0
        while at < width and rng.random() < 0.9:
            length = int(rng.integers(1, width - at + 1))
            begin, ends = int(rng.integers(0, size - length - 1)), bool(rng.integers(0, 2))
            if ends and rng.random() < 0.1:
                begin = size - length  # the shard's last document
            pieces.append((row, at, begin, length, number, ends))
            at, number = at + length, number + 1
        filled.append(at)
    arrays: Any = [np.full((rows, width), 77, dtype=np.int64) for _ in range(4)]
    arrays[2] = arrays[2].astype(np.float32)
    core.fill_rows(ids, mask, np.array(pieces, dtype=np.int64).reshape(-1, 6), *arrays, 9)
    core.pad_rows(np.array(filled, dtype=np.int64), *arrays, 9)
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize("kind", [np.uint16, np.uint32])
@pytest.mark.parametrize("masked", [True, False])
def test_rows_are_filled_alike(kind: type, masked: bool) -> None:
    for seed in range(60):
        ours, wanted = (filled_rows(core, seed, kind, masked=masked) for core in (native, twin))
        assert ours == wanted


@pytest.mark.parametrize(
    "piece",
    [
        (1, 0, 0, 1, 0, 0),
        (-1, 0, 0, 1, 0, 0),
        (0, 7, 0, 2, 0, 0),
        (0, 0, 0, 0, 0, 0),
        (0, 0, -1, 3, 0, 0),
        (0, 0, 18, 2, 0, 0),
        (0, 0, 19, 2, 0, 1),
        (0, 2**62, 0, 2**62, 0, 0),
        (0, 0, 2**62, 2, 0, 0),
    ],
)
def test_a_piece_outside_its_arrays_is_refused(piece: tuple[int, ...]) -> None:
    ids: Any = np.arange(20, dtype=np.uint16)
    arrays: Any = [np.zeros((1, 8), dtype=np.int64) for _ in range(4)]
    arrays[2] = arrays[2].astype(np.float32)
    with pytest.raises(ValueError, match="piece 0 is outside its arrays"):
        native.fill_rows(ids, ids[:0].astype(np.uint8), np.array([piece]), *arrays, 0)
    with pytest.raises(ValueError, match="filled is outside its row"):
        native.pad_rows(np.array([9]), *arrays, 0)


@given(st.lists(st.integers(1, 30), max_size=80), st.integers(-1, 60))
def test_pieces_are_packed_into_the_same_rows(lengths: list[int], free: int) -> None:
    array = np.array(lengths, dtype=np.int64)
    (parts, counts), (same, again) = (core.pack_rows(array, 30, free) for core in (native, twin))

    assert parts.tolist() == same.tolist()
    assert counts.tolist() == again.tolist()
    for wrong in (0, 31):
        with pytest.raises(ValueError, match="piece 0 does not fit"):
            native.pack_rows(np.array([wrong]), 30, free)
