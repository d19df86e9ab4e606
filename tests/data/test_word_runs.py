"""Word counts are the same however they were cut into runs, and a damaged run is known."""

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.data.texts import join
from penjing.data.word_runs import (
    MOST_COUNTED_BYTES,
    Counting,
    RunFile,
    count_texts,
    flush_bytes,
    histogram_of,
    merge_partitions,
    run_name,
)
from penjing.errors import ArtifactError
from penjing.text.bpe import count_words
from tests.text.test_words import unpacked

SETTINGS = "ab" * 32
PIECES = st.sampled_from(["a tree", " stood", "盆景", "\n\n", "42", " 's", "é", "a" * 300])
TEXTS = st.lists(st.lists(PIECES, max_size=8).map("".join), max_size=12)


def how(pattern: str = "qwen2", memory_bytes: int = 1 << 30, partitions: int = 4) -> Counting:
    return Counting(SETTINGS, pattern, partitions, memory_bytes)


def words_of(runs: list[Path], folder: Path, partitions: int = 4) -> dict[bytes, int]:
    """What the reduce makes of runs, by ranges of two partitions."""
    found: dict[bytes, int] = {}
    opened = [RunFile(path) for path in runs]
    rows = []
    for first in range(0, partitions, 2):
        path = folder / f"merged-{first}"
        rows.append(merge_partitions(opened, first, first + 2, how(), path).rows())
        merged = RunFile(path)
        for number in range(merged.partitions):
            words = unpacked(merged.partition(number))
            assert list(words) == sorted(words)
            found |= words
    histogram = histogram_of(rows)
    assert int(histogram.words.sum()) == len(found)
    assert int((histogram.counts * histogram.words).sum()) == sum(found.values())
    assert int(histogram.bytes.sum()) == sum(map(len, found))
    return found


@given(texts=TEXTS, cuts=st.lists(st.integers(0, 12), max_size=3), tiny_memory=st.booleans())
def test_the_counts_do_not_depend_on_chunks_or_memory(
    texts: list[str],
    cuts: list[int],
    tiny_memory: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    places = [0, *sorted(cuts), len(texts)]
    runs = []
    for chunk, (start, stop) in enumerate(pairwise(places)):
        directory = folder / str(chunk)
        directory.mkdir()
        batches = [join([text.encode()]) for text in texts[start:stop]]
        memory = 2 if tiny_memory else 1 << 30
        total, number = count_texts(batches, how(memory_bytes=memory), directory, lambda *_: None)
        assert total.documents == len(texts[start:stop])
        assert total.bytes == sum(len(text.encode()) for text in texts[start:stop])
        runs += [directory / run_name(k) for k in range(number)]

    assert words_of(runs, folder) == dict(count_words(texts))


def test_half_the_memory_is_filled_and_never_more_than_a_counter_takes() -> None:
    assert flush_bytes(256 << 20) == 128 << 20
    assert flush_bytes(64 << 30) == MOST_COUNTED_BYTES


def test_a_pattern_of_ones_own_counts_what_it_leaves_out_too(tmp_path: Path) -> None:
    batches = [join([b"one two, two", b""])]
    total, runs = count_texts(batches, how(r"\w+"), tmp_path, lambda *_: None)
    assert (total.pieces, runs) == (5, 1)
    wanted = Counter({b"one": 1, b" ": 1, b"two": 2, b", ": 1})
    assert words_of([tmp_path / run_name(0)], tmp_path) == wanted


def test_a_run_tells_what_it_counted(tmp_path: Path) -> None:
    count_texts([join([b"a b", b"c"])], how(), tmp_path, lambda *_: None)
    run = RunFile(tmp_path / run_name(0))
    assert (run.settings, run.partitions) == (SETTINGS, 4)
    assert (run.counted.documents, run.counted.bytes, run.counted.pieces) == (2, 4, 3)


def test_every_damaged_byte_of_a_run_is_found(tmp_path: Path) -> None:
    count_texts([join([b"a tree stood in a small pot " * 9])], how(), tmp_path, lambda *_: None)
    path = tmp_path / run_name(0)
    whole = path.read_bytes()
    rng = random.Random(1)
    for _ in range(200):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        with pytest.raises(ArtifactError, match=r"000\.run: .*count again"):
            [RunFile(path).partition(number) for number in range(4)]
    path.write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match="partition"):
        [RunFile(path).partition(number) for number in range(4)]
