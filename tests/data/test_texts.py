"""Documents as bytes are those that `sources` gives as strings, bad rows and all."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from penjing.config.schema import SourceConfig
from penjing.data.texts import TextBatch, batched, beginnings, document_batches, first_texts, join
from penjing.sources import formats
from penjing.sources.quarantine import Quarantine
from penjing.sources.rows import documents

SPACES = [" ", "\n", "\t", "\x1c", "\x85", "\xa0", "\u1680", "\u2003", "\u3000", "\u200b"]
TEXTS = st.lists(st.sampled_from([*SPACES, "a", "é", "盆景", "\U0001f333", '"', "\\"]), max_size=6)
ODD_LINES = [
    b"",
    b"   \t\r",
    b"[1]",
    b'"text"',
    b"{",
    b'{"text": 1}',
    b'{"Text": "x"}',
    b'{"text": "\\ud800"}',
    b'{"text": "\\ud83c\\udf33"}',
    b'{"text": "x", "n": NaN}',
    b'{"text": "x", "text": "y"}',
    b'{"n": {"text": "no"}, "text": "yes"}',
    b'{"text": "\xff"}',
    b'{"text": "a\\u0000b"}\r',
    b"\xef\xbb\xbf",
    b'\xef\xbb\xbf{"text": "marked"}',
    b'{"text": "cut',
]
LINES = st.one_of(
    TEXTS.map(lambda parts: json.dumps({"text": "".join(parts)}).encode()),
    TEXTS.map(lambda parts: json.dumps({"text": "".join(parts)}, ensure_ascii=False).encode()),
    st.sampled_from(ODD_LINES),
)


def same_as_rows(path: Path) -> list[bytes]:
    """Reads the file on both ways, compares texts and quarantine; returns the texts."""
    folder, name = path.parent, path.name
    logs = [(folder / log) for log in ("slow", "fast")]
    for log in logs:
        log.unlink(missing_ok=True)
    slow, fast = Quarantine(folder / "slow"), Quarantine(folder / "fast")
    source = SourceConfig("s", paths=(name,))
    wanted = [document.text.encode() for document in documents(source, folder, slow)]
    batches = document_batches(path, name, "text", fast)
    found = [text for batch in batches for text in batch.texts()]
    assert found == wanted
    assert fast.facts() == slow.facts()
    assert len({log.read_text() if log.exists() else "" for log in logs}) == 1
    return found


def in_frames(data: bytes) -> bytes:
    return b"".join(zstandard.compress(data[k : k + 50]) for k in range(0, len(data), 50))


@given(lines=st.lists(LINES, max_size=12), end=st.sampled_from([b"", b"\n"]))
def test_json_lines_give_the_same_texts_and_the_same_bad_rows(
    lines: list[bytes], end: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "some.jsonl"
    path.write_bytes(b"\n".join(lines) + end)
    same_as_rows(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json.gz", ".jsonl.zst"])
def test_blocks_are_cut_between_lines_wherever_chunks_end(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "_CHUNK_BYTES", 50)
    monkeypatch.setattr(formats, "_ZSTD_CHUNK_BYTES", 50)
    monkeypatch.setattr(formats, "MAX_ROW_BYTES", 300)
    texts = ["x" * (37 * k % 290) + "y" for k in range(40)]
    texts[7] = "z" * 500  # over the limit, inside several chunks
    texts[-1] = "z" * 400
    data = "\n".join(json.dumps({"text": text}) for text in texts).encode()
    packers = {"gz": gzip.compress, "zst": in_frames}
    pack = packers.get(suffix.rsplit(".", maxsplit=1)[-1], bytes)
    path = tmp_path / f"some{suffix}"
    path.write_bytes(pack(data))

    found = same_as_rows(path)

    assert found == [text.encode() for text in texts if "z" not in text]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("values", [["a", "é盆", "b" * 9], ["a", None, " ", "c"], []])
def test_parquet_gives_the_same_texts_and_the_same_bad_rows(
    kind: Any, values: list[str | None], tmp_path: Path
) -> None:
    table = pa.table({"n": list(range(len(values))), "text": pa.array(values, kind)})
    pq.write_table(table, tmp_path / "some.parquet")
    same_as_rows(tmp_path / "some.parquet")


def test_parquet_with_broken_utf8_or_without_the_column_is_told_row_by_row(tmp_path: Path) -> None:
    broken = pa.array([b"good", b"\xff"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": broken}), tmp_path / "some.parquet")
    assert same_as_rows(tmp_path / "some.parquet") == [b"good"]
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "other.parquet")
    assert same_as_rows(tmp_path / "other.parquet") == []


def test_empty_files_and_text_files_are_read_alike(tmp_path: Path) -> None:
    for name, data in [("a.jsonl", b""), ("b.txt", b"One.\n"), ("c.txt", b"\xff"), ("d.md", b" ")]:
        (tmp_path / name).write_bytes(data)
        same_as_rows(tmp_path / name)


@given(
    parts=st.lists(st.text(max_size=5), max_size=20),
    size=st.integers(1, 9),
    max_texts=st.none() | st.integers(1, 25),
    max_characters=st.none() | st.integers(1, 60),
)
def test_a_limit_stops_after_the_text_that_reaches_it_however_texts_are_batched(
    parts: list[str], size: int, max_texts: int | None, max_characters: int | None
) -> None:
    texts = [text.encode(errors="replace").decode() for text in parts]
    wanted, left = [], max_characters
    for text in texts[:max_texts]:
        if left is not None and left <= 0:
            break
        wanted.append(text)
        left = None if left is None else left - len(text)
    raw = [text.encode() for text in texts]
    batches = [join(raw[start : start + size]) for start in range(0, len(raw), size)]

    kept = list(first_texts(batches, max_texts, max_characters))

    assert [text.decode() for batch in kept for text in batch.texts()] == wanted
    assert sum(batch.num_characters() for batch in kept) == sum(map(len, wanted))


def test_long_texts_are_cut_at_a_character(tmp_path: Path) -> None:
    (batch,) = beginnings([join(["盆景盆景".encode(), b"abc", "é盆".encode()])], 3)
    assert [text.decode() for text in batch.texts()] == ["盆景盆", "abc", "é盆"]


def test_strings_are_batched_and_half_characters_replaced() -> None:
    (batch,) = batched(["a", "", "\ud800b"])
    assert batch.texts() == [b"a", b"", "\ufffdb".encode()]
    assert isinstance(batch, TextBatch)
    assert batch.ends.dtype == np.int64
