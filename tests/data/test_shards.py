import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penjing.data.shards import BLOCK_BYTES, Shard, ShardWriter, open_shard
from penjing.errors import ArtifactError, DataError

MakeShard = Callable[..., Shard]
FILES = ("bin", "idx", "mask", "json")


def write(directory: Path, documents: list[list[int]], vocab_size: int = 70_000) -> None:
    directory.mkdir()
    with ShardWriter(
        directory, "c", kind="conversations", tokenizer_digest="d", vocab_size=vocab_size
    ) as writer:
        for ids in documents:
            writer.add(ids, [i % 3 == 0 for i in ids], 1)
        writer.close()


def read_all(directory: Path) -> list[list[int]]:
    shard = open_shard(directory, "c", "d")
    lengths = shard.lengths().tolist()
    return [shard.read(number, 0, length)[0].tolist() for number, length in enumerate(lengths)]


@pytest.fixture
def three_blocks(tmp_path: Path) -> Path:
    write(tmp_path / "three", [list(range(9_000))] * 60)
    assert (tmp_path / "three/c.bin").stat().st_size > 2 * BLOCK_BYTES
    return tmp_path / "three"


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.integers(0, 499), min_size=1, max_size=9), max_size=9), st.booleans())
def test_what_was_written_is_read(
    make_shard: MakeShard, documents: list[list[int]], trained: bool
) -> None:
    shard = make_shard(documents, trained=trained)

    assert shard.lengths().tolist() == [len(ids) for ids in documents]
    assert (shard.documents, shard.tokens) == (len(documents), sum(map(len, documents)))
    assert shard.bytes == 3 * shard.tokens
    for number, ids in enumerate(documents):
        found, weights = shard.read(number, 1, 5)
        assert found.tolist() == ids[1:5]
        assert weights.tolist() == [float(i >= 100 or not trained) for i in ids[1:5]]


@pytest.mark.parametrize(("vocab_size", "itemsize"), [(65_536, 2), (65_537, 4)])
def test_ids_take_two_bytes_where_they_fit(tmp_path: Path, vocab_size: int, itemsize: int) -> None:
    write(tmp_path / "s", [[vocab_size - 1, 0]], vocab_size)

    raw = (tmp_path / "s/c.bin").read_bytes()
    assert raw == (vocab_size - 1).to_bytes(itemsize, "little") + bytes(itemsize)
    assert read_all(tmp_path / "s") == [[vocab_size - 1, 0]]
    assert json.loads((tmp_path / "s/c.json").read_text())["tokens"] == 2


def test_every_one_of_100_random_corruptions_is_found(three_blocks: Path) -> None:
    draw = random.Random(1)
    for trial in range(100):
        path = three_blocks / f"c.{FILES[trial % 4]}"
        intact = path.read_bytes()
        damaged = bytearray(intact)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        if trial % 10 == 9:
            damaged = damaged[: draw.randrange(len(damaged))]
        path.write_bytes(damaged)

        with pytest.raises(ArtifactError, match=str(path)):
            read_all(three_blocks)
        path.write_bytes(intact)
    assert len(read_all(three_blocks)) == 60


def test_a_block_is_checked_when_first_touched_and_named(three_blocks: Path) -> None:
    raw = bytearray((three_blocks / "c.bin").read_bytes())
    raw[BLOCK_BYTES + 5] ^= 4
    (three_blocks / "c.bin").write_bytes(raw)
    shard = open_shard(three_blocks, "c", "d")

    assert shard.read(0, 0, 3)[0].tolist() == [0, 1, 2]
    with pytest.raises(ArtifactError, match=r"c\.bin: block 1 "):
        shard.read(59, 0, 3) and shard.read(30, 0, 9_000)


@pytest.mark.parametrize("suffix", FILES)
def test_a_missing_file_is_named_at_open(three_blocks: Path, suffix: str) -> None:
    (three_blocks / f"c.{suffix}").unlink()

    with pytest.raises(ArtifactError, match=rf"c\.{suffix}: cannot be read"):
        open_shard(three_blocks, "c", "d")


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", '{"xxh3_64": 1, "depth": 4}', "\u0000"])
def test_a_foreign_description_is_refused(three_blocks: Path, text: str) -> None:
    (three_blocks / "c.json").write_text(text)

    with pytest.raises(ArtifactError, match="no shard description"):
        open_shard(three_blocks, "c", "d")


def test_a_shard_of_another_tokenizer_is_refused(three_blocks: Path) -> None:
    with pytest.raises(ArtifactError, match="made with tokenizer d"):
        open_shard(three_blocks, "c", "another")


@pytest.mark.parametrize(
    ("ids", "weights", "reason"),
    [
        ([], None, "no tokens"),
        ([1, 50], None, "wanted 0 to 49"),
        ([-1], None, "wanted 0 to 49"),
        ([1], [True], "weights"),
    ],
)
def test_a_document_that_cannot_be_stored_is_refused(
    tmp_path: Path, ids: list[int], weights: list[bool] | None, reason: str
) -> None:
    with (
        pytest.raises(DataError, match=f"x.train: document 0 .*{reason}"),
        ShardWriter(
            tmp_path, "x.train", kind="documents", tokenizer_digest="d", vocab_size=50
        ) as writer,
    ):
        writer.add(ids, weights, 1)
    with pytest.raises(ArtifactError, match=r"x\.train\.json"):
        open_shard(tmp_path, "x.train", "d")
