"""Which files a source has, and which it lacks."""

from pathlib import Path

import pytest

from penjing.errors import DataError
from penjing.sources.listing import digest_of, find_files, read_checksums
from tests.sources.test_rows import write


def test_globs_reach_down_and_absolute_paths_work(tmp_path: Path) -> None:
    write(tmp_path, "deep/er/x[1].jsonl", {"text": "x"})
    deep = [tmp_path / "deep" / "er" / "x[1].jsonl"]
    assert find_files(["**/*.jsonl"], tmp_path) == deep
    assert find_files([str(deep[0])], Path("/")) == deep


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("storys.jsonl", "did you mean stories.jsonl?"),
        ("*.parquet", "has stories.jsonl"),
        ("nowhere/*.txt", "no directory"),
        ("empty/x.txt", "has no files"),
    ],
)
def test_a_path_without_files_shows_near_misses(tmp_path: Path, path: str, hint: str) -> None:
    write(tmp_path, "stories.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no such file") as error:
        find_files([path], tmp_path)
    assert hint in str(error.value)


def test_a_range_is_whole_or_names_what_is_missing(tmp_path: Path) -> None:
    for number in range(178):
        (tmp_path / f"shard_{number:05}.parquet").touch()
    whole = ["shard_{00000..00177}.parquet"]
    assert len(find_files(whole, tmp_path)) == 178
    for number in (3, *range(100, 177)):
        (tmp_path / f"shard_{number:05}.parquet").unlink()

    with pytest.raises(DataError) as told:
        find_files(whole, tmp_path)

    assert "78 of 178 files are missing: shard_00003.parquet, shard_00100.parquet to " in str(
        told.value
    )
    assert "shard_00176.parquet. Fetch them" in str(told.value)
    assert len(find_files(["shard_{00004..00099}.parquet"], tmp_path)) == 96
    with pytest.raises(DataError, match=r"the range falls: wanted \{3\.\.9\}"):
        find_files(["x{9..3}.txt"], tmp_path)


def test_ranges_multiply_and_reach_urls(tmp_path: Path) -> None:
    pytest.importorskip("upath")
    import fsspec

    memory = fsspec.filesystem("memory")
    for part in (1, 2):
        for number in range(8, 12):
            memory.pipe_file(f"/listing/{part}/x{number}.txt", b"text")

    found = find_files(["memory://listing/{1..2}/x{8..11}.txt"], tmp_path)
    assert len(found) == 8
    with pytest.raises(DataError, match=r"4 of 12 files are missing: x8\.txt to x11\.txt"):
        find_files(["memory://listing/{1..3}/x{8..11}.txt"], tmp_path)


def test_checksums_are_found_by_name_and_by_the_end_of_a_path(tmp_path: Path) -> None:
    a, b = "a" * 64, "B" * 64
    (tmp_path / "SHA256SUMS").write_text(f"{a}  x.txt\n{b} *deep/y.txt\n\n")

    found = read_checksums("SHA256SUMS", tmp_path)

    assert digest_of(tmp_path / "x.txt", found, "SHA256SUMS") == a
    assert digest_of(tmp_path / "deep" / "y.txt", found, "SHA256SUMS") == b.lower()
    with pytest.raises(DataError, match=r"z\.txt: is not in SHA256SUMS"):
        digest_of(tmp_path / "z.txt", found, "SHA256SUMS")
    (tmp_path / "SHA256SUMS").write_text(f"{a}  x.txt\nabc  y.txt\n")
    with pytest.raises(DataError, match=r"SHA256SUMS:2: found 'abc  y\.txt'"):
        read_checksums("SHA256SUMS", tmp_path)
    with pytest.raises(DataError, match="the checksums cannot be read"):
        read_checksums("absent", tmp_path)
