"""What is fetched is the file, whole, or an error; and it is fetched once."""

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penjing.artifacts.remote import place
from penjing.errors import DataError
from penjing.sources import download
from penjing.sources.cache import Cache, WantedFile, fetching_ahead, local
from penjing.sources.download import fetch
from tests.faults.download_campaign import FaultyServer, faulty_downloads, impatient, serving

pytest.importorskip("upath")
pytest.importorskip("aiohttp")
BODY = bytes(range(256)) * 60


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with serving() as one, impatient():
        one.files["/a.txt"] = BODY
        yield one


def at(server: FaultyServer, path: str = "/a.txt") -> Path:
    return place(server.url(path), Path(), "test")


def test_thirty_faulty_downloads_and_none_is_taken_for_the_file(tmp_path: Path) -> None:
    wrong, ends = faulty_downloads(tmp_path, 30, seed=1)

    assert wrong == 0
    assert sum(ends.values()) == 30
    assert sum(count for end, count in ends.items() if end.endswith("refused")) > 3
    assert sum(count for end, count in ends.items() if end.endswith("after all")) > 8


def test_a_cut_download_goes_on_where_it_stopped(server: FaultyServer, tmp_path: Path) -> None:
    server.faults = ["503"] * download.ATTEMPTS
    with pytest.raises(DataError, match=r"a\.txt: not fetched after 4 attempts: .*503"):
        fetch(at(server), tmp_path / "a.txt", None)
    (tmp_path / "a.txt.partial").write_bytes(BODY[:8000])
    server.served = 0

    fetch(at(server), tmp_path / "a.txt", hashlib.sha256(BODY).hexdigest())

    assert (tmp_path / "a.txt").read_bytes() == BODY
    assert server.served < len(BODY) - 8000 + 3 * download.OVERLAP_BYTES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt"]


def test_the_beginning_of_another_version_is_not_gone_on_with(
    server: FaultyServer, tmp_path: Path
) -> None:
    server.faults = ["503"] * download.ATTEMPTS
    with pytest.raises(DataError):
        fetch(at(server), tmp_path / "a.txt", None)
    (tmp_path / "a.txt.partial").write_bytes(BODY[:8000])
    server.files["/a.txt"], server.version = BODY[::-1], 1

    fetch(at(server), tmp_path / "a.txt", None)

    assert (tmp_path / "a.txt").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("name", ["page.txt", "page.jsonl", "page.jsonl.gz", "page.parquet"])
def test_a_page_in_the_place_of_data_is_refused(
    server: FaultyServer, tmp_path: Path, name: str
) -> None:
    server.files[f"/{name}"] = b"\n<!DOCTYPE html><html>Log in first</html>"

    with pytest.raises(DataError, match=r"web page|wanted a \.(gz|parquet) file"):
        fetch(at(server, f"/{name}"), tmp_path / name, None)
    assert not (tmp_path / name).exists()


def test_a_file_is_fetched_once_and_the_longest_unused_goes(
    server: FaultyServer, tmp_path: Path
) -> None:
    for name in "bcd":
        server.files[f"/{name}.txt"] = BODY
    cache = Cache(tmp_path / "cache", 2 * len(BODY) + 2000)
    for name in "abaca":
        with local(at(server, f"/{name}.txt"), cache) as path:
            assert (path.read_bytes(), path.name) == (BODY, f"{name}.txt")
    served = server.served

    kept = sorted(path.name for path in cache.directory.glob("*/*.txt"))
    assert kept == ["a.txt", "c.txt"]
    with local(at(server), cache):
        assert server.served == served


def test_a_file_in_use_stays_however_small_the_cache(server: FaultyServer, tmp_path: Path) -> None:
    server.files["/b.txt"] = BODY
    cache = Cache(tmp_path / "cache", 0)
    with local(at(server), cache) as a:
        with local(at(server, "/b.txt"), cache) as b:
            assert a.read_bytes() == b.read_bytes() == BODY
        assert a.exists()
    assert not list(cache.directory.glob("*/*.txt"))


READ = """
import sys
import threading
import time
from pathlib import Path
from penjing.artifacts.remote import place
from penjing.sources.cache import Cache, local
with local(place(sys.argv[1], Path(), "test"), Cache(Path(sys.argv[2]), 10**9)) as path:
    print(len(path.read_bytes()))
"""


def test_processes_that_want_the_same_file_fetch_it_once(
    server: FaultyServer, tmp_path: Path
) -> None:
    words = [sys.executable, "-c", READ, server.url("/a.txt"), str(tmp_path / "cache")]
    readers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]

    assert [reader.communicate(timeout=60)[0].strip() for reader in readers] == ["15360"] * 3
    assert server.served == len(BODY)


def test_files_are_fetched_ahead_as_many_as_fit(server: FaultyServer, tmp_path: Path) -> None:
    for number in range(6):
        server.files[f"/{number}.txt"] = BODY
    files = [WantedFile(at(server, f"/{number}.txt"), len(BODY), None) for number in range(6)]

    with fetching_ahead(files, Cache(tmp_path / "cache", 4 * len(BODY))) as news:
        assert (news.files, news.total) == (4, 4 * len(BODY))
        for file in files:
            with local(file.path, Cache(tmp_path / "cache", 10**9)) as copy:
                assert copy.read_bytes() == BODY


def test_fetching_that_is_left_stops_and_what_came_stays(
    server: FaultyServer, tmp_path: Path
) -> None:
    server.files["/a.txt"] = BODY * 200
    cache = Cache(tmp_path / "cache", 10**9)
    with fetching_ahead([WantedFile(at(server), 200 * len(BODY), None)], cache) as news:
        while not news.fetched:
            time.sleep(0.001)

    deadline = time.monotonic() + 5
    while any(thread.name.startswith("penjing-fetch") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    served = server.served
    assert served < 200 * len(BODY)
    with local(at(server), cache) as path:
        assert path.read_bytes() == BODY * 200
    assert server.served < 200 * len(BODY) + 300 * download.OVERLAP_BYTES * 3


def test_a_file_on_disk_is_itself_and_its_digest_is_checked(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(BODY)
    cache = Cache(tmp_path / "cache", 0)

    with local(tmp_path / "a.txt", cache, hashlib.sha256(BODY).hexdigest()) as path:
        assert path == tmp_path / "a.txt"
    with (
        pytest.raises(DataError, match="its list of checksums says 0000"),
        local(tmp_path / "a.txt", cache, "0" * 64),
    ):
        pass
