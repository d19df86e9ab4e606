import csv
import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.artifacts.remote import place
from penjing.errors import DataError
from penjing.sources import formats
from penjing.sources.formats import READERS, read_file
from penjing.sources.quarantine import Quarantine, Row

LINES = b"".join(json.dumps({"text": f"row {k} é"}).encode() + b"\n" for k in range(50))


def parquet_bytes() -> bytes:
    sink = pa.BufferOutputStream()
    texts = [f"row {k} é" for k in range(50)]
    pq.write_table(pa.table({"text": texts, "k": list(range(50))}), sink, row_group_size=20)
    return bytes(sink.getvalue())


WHOLE: dict[str, bytes] = {
    ".jsonl": LINES,
    ".jsonl.gz": gzip.compress(LINES),
    ".json.gz": gzip.compress(LINES[:100]) + gzip.compress(LINES[100:]),
    ".jsonl.zst": zstandard.compress(LINES[:100]) + zstandard.compress(LINES[100:]),
    ".parquet": parquet_bytes(),
}


def read(path: Path, quarantine: Quarantine, text_field: str | None = "text") -> list[Row]:
    return list(read_file(path, path.name, text_field, quarantine))


def read_bytes(suffix: str, data: bytes, quarantine: Quarantine) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{suffix}"
        path.write_bytes(data)
        return read(path, quarantine)


@pytest.mark.parametrize("suffix", WHOLE)
def test_every_format_gives_the_same_rows(suffix: str) -> None:
    quarantine = Quarantine()
    rows = read_bytes(suffix, WHOLE[suffix], quarantine)
    assert rows == [Row({"text": f"row {k} é"}, f"file{suffix}", k + 1) for k in range(50)]
    assert (quarantine.rows, quarantine.bad) == (50, 0)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".json.gz", ".jsonl.zst", ".parquet"])
@pytest.mark.parametrize("keep", [0.3, 0.7, 0.99])
def test_a_file_that_ends_early_is_an_error_with_a_way_out(suffix: str, keep: float) -> None:
    data = WHOLE[suffix][: int(len(WHOLE[suffix]) * keep)]
    with pytest.raises(
        DataError, match=rf"file{suffix}: damaged or cut short after row \d+.*Fetch"
    ):
        read_bytes(suffix, data, Quarantine())


@pytest.mark.parametrize("suffix", READERS)
def test_an_empty_file_is_counted(suffix: str) -> None:
    quarantine = Quarantine()
    assert read_bytes(suffix, b"", quarantine) == []
    assert (quarantine.rows, quarantine.reasons) == (1, {"the file is empty": 1})


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(READERS)), st.binary(max_size=200), st.data())
def test_no_bytes_give_a_traceback(suffix: str, noise: bytes, data: st.DataObject) -> None:
    whole = WHOLE.get(suffix, LINES)
    place = data.draw(st.integers(0, len(whole)))
    for content in (noise, whole[:place] + noise, whole[:place] + noise + whole[place:]):
        quarantine = Quarantine()
        try:
            rows = read_bytes(suffix, content, quarantine)
        except DataError:
            continue
        assert len(rows) + quarantine.bad == quarantine.rows > 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{not json", "not JSON"),
        (b'{"text": "caf\xe9"}', "not UTF-8"),
        (b"[1, 2]", "a JSON list, wanted one object a line"),
        (b"[" * 100_000, "not JSON"),
        (b'{"text": ' + b"1" * 5000 + b"}", "not JSON"),
    ],
)
def test_a_bad_line_is_set_aside_with_its_number(line: bytes, reason: str) -> None:
    quarantine = Quarantine()
    rows = read_bytes(".jsonl", b'{"a": 1}\n\n' + line + b'\r\n{"a": 2}', quarantine)
    assert [(row.value["a"], row.line) for row in rows] == [(1, 1), (2, 4)]
    assert quarantine.first is not None
    assert (quarantine.first.line, quarantine.first.reason) == (3, reason)
    assert (quarantine.rows, quarantine.bad) == (3, 1)


def test_a_byte_order_mark_is_no_text() -> None:
    assert read_bytes(".jsonl", b'\xef\xbb\xbf{"a": 1}\n', Quarantine())[0].value == {"a": 1}
    assert read_bytes(".txt", b"\xef\xbb\xbfhi\n", Quarantine())[0].value == {"text": "hi\n"}


def test_an_endless_line_is_set_aside_without_being_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_ROW_BYTES", 20)
    quarantine = Quarantine()
    rows = read_bytes(".jsonl", b'{"a": 1}\n{"a": "' + b"x" * 99_999 + b'"}\n{"a": 2}', quarantine)
    assert [row.value["a"] for row in rows] == [1, 2]
    assert quarantine.reasons == {"a line over 64 MiB": 1}


def test_a_text_file_is_one_document_and_bad_bytes_are_located() -> None:
    quarantine = Quarantine()
    text = "one\r\n\ntwo\n"
    assert read_bytes(".md", text.encode(), quarantine) == [Row({"text": text}, "file.md", 1)]
    assert read_bytes(".txt", b"one\ntwo\xff\nthree", quarantine) == []
    assert quarantine.first is not None
    assert (quarantine.first.line, quarantine.first.reason) == (2, "not UTF-8")


def test_a_huge_text_file_is_cut_at_blank_lines_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(formats, "MAX_ROW_BYTES", 64)
    monkeypatch.setattr(formats, "_SPLIT_DOCUMENT_BYTES", 16)
    text = "some words\nsome more\n\n" * 4 + "a line without a break\n" * 6
    rows = read_bytes(".txt", text.encode(), Quarantine())
    assert "".join(row.value["text"] for row in rows) == text
    assert [row.line for row in rows] == [1, 4, 7, 10, 13, 16]


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=9), min_size=2, max_size=2
        )
    )
)
def test_any_text_comes_back_from_a_csv_file(cells: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([["text", "k"], *cells])
    found = read_bytes(".csv", b"\xef\xbb\xbf" + out.getvalue().encode(), Quarantine())
    assert [row.value for row in found] == [dict(zip(("text", "k"), c, strict=True)) for c in cells]


def test_bad_rows_of_a_csv_file_are_set_aside_with_the_line_on_which_they_begin() -> None:
    data = b'text,k\n"two\nlines",1\nonly one\n\ngood,2\nbad \xff,3\n"a ""quote""",4\n'
    quarantine = Quarantine()
    found = read_bytes(".csv", data, quarantine)
    assert [(row.line, row.value["text"]) for row in found] == [
        (2, "two\nlines"),
        (6, "good"),
        (8, 'a "quote"'),
    ]
    assert (quarantine.rows, quarantine.bad) == (5, 2)
    assert quarantine.first is not None
    assert (quarantine.first.line, quarantine.first.reason[:7]) == (4, "1 cells")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'text\n"open', r"file\.csv:2: damaged or cut short"),
        (b'"open', r"file\.csv:1: damaged or cut short"),
        (b"a,a\n1,2\n", "each name once"),
    ],
)
def test_a_csv_file_that_is_none_is_an_error(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_bytes(".csv", data, Quarantine())


@pytest.mark.parametrize("suffix", [*WHOLE, ".csv", ".txt"])
def test_every_format_is_read_from_a_url_as_from_a_disk(suffix: str) -> None:
    data = WHOLE.get(suffix, b"text,k\nrow 0,1\n")
    path = place(f"memory://formats/file{suffix}", Path(), "here")
    path.write_bytes(data)
    found = read(path, Quarantine())
    path.unlink()
    assert [row.value for row in found] == [
        row.value for row in read_bytes(suffix, data, Quarantine())
    ]


def test_an_unknown_suffix_lists_the_supported_ones(tmp_path: Path) -> None:
    path = tmp_path / "file.docx"
    path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"file\.docx: unknown format; supported are \.txt \.md"):
        read(path, Quarantine())


def test_parquet_reads_one_column_for_documents_and_all_for_conversations(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    path.write_bytes(WHOLE[".parquet"])
    assert read(path, Quarantine())[7].value == {"text": "row 7 é"}
    assert read(path, Quarantine(), None)[7].value == {"text": "row 7 é", "k": 7}


def test_a_parquet_value_that_is_no_utf8_is_set_aside(tmp_path: Path) -> None:
    broken = pa.array([b"good", b"\xff\xfe", b"fine"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": broken}), tmp_path / "file.parquet")
    quarantine = Quarantine()
    rows = read(tmp_path / "file.parquet", quarantine)
    assert [row.line for row in rows] == [1, 3]
    assert quarantine.reasons == {"unreadable value (UnicodeDecodeError)": 1}


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None])
def test_what_cannot_be_opened_is_told(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "file.jsonl"
    make(path)
    with pytest.raises(DataError, match=r"file\.jsonl: cannot be read"):
        read(path, Quarantine())
