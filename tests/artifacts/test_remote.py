"""A directory at a URL is there whole, with every byte checked, or it is not there."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from penjing.artifacts import directories, remote
from penjing.errors import ArtifactError, ConfigError


@pytest.fixture
def final() -> Iterator[Path]:
    """A directory at a URL that is to be made."""
    MemoryFileSystem.store.clear()
    yield remote.place("memory://bucket/run", Path(), "here") / "chunk"
    MemoryFileSystem.store.clear()


def make(final: Path) -> None:
    with directories.staged(final) as folder:
        (folder / "words").mkdir()
        (folder / "words" / "large.bin").write_bytes(bytes(range(256)) * 8192)
        (folder / "small.json").write_text("{}")


def test_what_was_staged_is_there_and_verifies(final: Path) -> None:
    make(final)

    assert directories.exists(final)
    assert directories.verified(final) == final
    assert (final / "small.json").read_text() == "{}"
    with pytest.raises(ArtifactError, match="exists already"):
        make(final)


def test_an_upload_that_is_cut_is_not_taken_for_a_finished_one_and_can_be_done_again(
    final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = MemoryFileSystem.put_file
    done: list[str] = []

    def cut(self: Any, source: str, target: str, **options: Any) -> None:
        if len(done) == 2:
            raise ConnectionError("the network is gone")
        done.append(target)
        put(self, source, target, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", cut)
        with pytest.raises(ConnectionError):
            make(final)
    assert not directories.exists(final)
    make(final)
    directories.verified(final)


def test_nothing_is_left_of_a_block_that_failed(final: Path) -> None:
    with pytest.raises(ZeroDivisionError), directories.staged(final) as folder:
        (folder / "file").write_text("half")
        raise ZeroDivisionError
    assert not MemoryFileSystem.store


@pytest.mark.parametrize(("name", "found"), [("small.json", True), ("words/large.bin", False)])
def test_large_files_are_read_whole_only_where_that_is_asked_for(
    final: Path, name: str, found: bool
) -> None:
    make(final)
    path = final / name
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))

    with pytest.raises(ArtifactError, match=f"{name} was altered"):
        directories.verified(final)
    if found:
        with pytest.raises(ArtifactError, match=f"{name} was altered"):
            directories.verified(final, whole=False)
    else:
        directories.verified(final, whole=False)


@pytest.mark.parametrize("change", ["cut", "lost"])
def test_files_cut_short_or_lost_are_found_without_reading_them(final: Path, change: str) -> None:
    make(final)
    path = final / "words" / "large.bin"
    data = path.read_bytes()
    path.unlink()
    if change == "cut":
        path.write_bytes(data[:-1])
    with pytest.raises(ArtifactError, match=r"large\.bin"):
        directories.verified(final, whole=False)


def test_a_range_is_read_without_the_rest_of_the_file(
    final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(final)
    read: list[int] = []
    cat = MemoryFileSystem.cat_file

    def counted(self: Any, path: str, **range_: Any) -> Any:
        data = cat(self, path, **range_)
        read.append(len(data))
        return data

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    assert remote.read_range(final / "words" / "large.bin", 300, 303) == bytes([44, 45, 46])
    assert read == [3]


def test_a_fetched_copy_is_verified_and_goes_away(final: Path, tmp_path: Path) -> None:
    make(final)
    with directories.fetched(final, "*.json") as folder:
        assert [path.name for path in folder.iterdir()] == ["small.json"]
    assert not folder.exists()
    with directories.fetched(tmp_path, "*.json") as folder:
        assert folder == tmp_path
    (final / "small.json").write_text("[]")
    with (
        pytest.raises(ArtifactError, match="was altered"),
        directories.fetched(final, "*.json"),
    ):
        pass


def test_discarding_takes_the_listing_first(final: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(final)

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "rm", stopped)
        with pytest.raises(KeyboardInterrupt):
            directories.discard(final)
    assert not directories.exists(final)
    directories.discard(final)
    assert not MemoryFileSystem.store


def test_a_folder_is_a_path_and_a_bad_url_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert remote.place("state", tmp_path, "here") == tmp_path / "state"
    with pytest.raises(ConfigError, match="here: nowhere://x: fsspec cannot use it here"):
        remote.place("nowhere://x", tmp_path, "here")
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(ConfigError, match=r"pip install 'penjing\[remote\]'"):
        remote.place("memory://x", tmp_path, "here")
