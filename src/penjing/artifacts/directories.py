"""Directories that are there whole and verified, or not there at all: on disk, or at a URL.

What is inside them is the writer's concern; logs that grow are `artifacts.lines`' duty.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penjing.artifacts import disk, remote
from penjing.errors import ArtifactError, DiskFullError

LISTING = "files.json"

SMALL_BYTES = 1 << 20
"""Larger files at a URL carry hashes of their own parts, which their readers check."""


def partial_path(final: Path) -> Path:
    """The hidden sibling under which `final` is prepared; `sweep_partials` finds it."""
    return final.parent / f".{final.name}.{os.getpid()}.partial"


@contextmanager
def staged(final: Path) -> Iterator[Path]:
    """A temporary directory that becomes `final`, hashed and synced, when the block succeeds.

    Raises:
        ArtifactError: `final` exists already.
    """
    if exists(final):
        raise ArtifactError(f"{final} exists already: move it away or choose another name")
    if remote.is_remote(final):
        with tempfile.TemporaryDirectory(prefix="penjing-") as folder:
            yield Path(folder)
            _seal(Path(folder))
            remote.upload(Path(folder), final, LISTING)
        return
    partial = partial_path(final)
    disk.remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        _seal(partial)
        disk.rename(partial, final)
        disk.sync(final.parent)
    except BaseException:
        disk.remove(partial)
        raise


def exists(directory: Path) -> bool:
    """Whether there is a directory of that name; at a URL, a finished one."""
    return (directory / LISTING if remote.is_remote(directory) else directory).exists()


def _seal(directory: Path) -> None:
    listing = {}
    for path in sorted(directory.rglob("*")):
        disk.sync(path)
        if path.is_file():
            listing[path.relative_to(directory).as_posix()] = _fingerprint(path)
    disk.write_file(directory / LISTING, _canonical(listing))
    disk.sync(directory)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _fingerprint(path: Path) -> dict[str, Any]:
    digest = sha256_of(path)
    return {"bytes": path.stat().st_size, "sha256": digest}


def _canonical(listing: dict[str, Any]) -> bytes:
    return (json.dumps(listing, indent=1, sort_keys=True) + "\n").encode()


def verified(directory: Path, *, whole: bool = True) -> Path:
    """The same path, after every listed file's size and sha256 were found right.

    Files that the listing does not name are ignored. Of large files at a URL only the size is
    checked unless `whole`: not every task of many is to read all that the others made.

    Raises:
        ArtifactError: names the first file that is missing or altered.
    """
    by_size = SMALL_BYTES if remote.is_remote(directory) and not whole else None
    for name, wanted in _read_listing(directory).items():
        _check(directory / name, wanted, by_size)
    return directory


def _check(path: Path, wanted: dict[str, Any], by_size: int | None = None) -> None:
    """Raises ArtifactError unless the file is as listed; if over `by_size`, by its size alone."""
    try:
        size = path.stat().st_size
        large = by_size is not None and size > by_size
        found = wanted | {"bytes": size} if large else _fingerprint(path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror or error})") from error
    if found != wanted:
        raise ArtifactError(
            f"{path} was altered: found {found['bytes']} bytes, sha256 {found['sha256'][:12]}; "
            f"{LISTING} says {wanted}"
        )


@contextmanager
def fetched(directory: Path, pattern: str) -> Iterator[Path]:
    """The directory; of one at a URL for a while a local copy of the files that match, verified.

    Raises:
        ArtifactError: a file is missing or another than the listing says.
    """
    if not remote.is_remote(directory):
        yield directory
        return
    listed = _read_listing(directory).items()
    wanted = {name: facts for name, facts in listed if Path(name).match(pattern)}
    with tempfile.TemporaryDirectory(prefix="penjing-") as folder:
        remote.download(directory, wanted, Path(folder))
        for name, facts in wanted.items():
            _check(Path(folder) / name, facts)
        yield Path(folder)


def _read_listing(directory: Path) -> dict[str, Any]:
    path = directory / LISTING
    try:
        data = path.read_bytes()
        listing = json.loads(data)
    except OSError as error:
        raise ArtifactError(
            f"{directory} is not a finished directory: {LISTING} cannot be read ({error.strerror})"
        ) from error
    except ValueError as error:
        raise ArtifactError(f"{path} was altered: it is not JSON ({error})") from error
    if not isinstance(listing, dict) or data != _canonical(listing):
        raise ArtifactError(f"{path} was altered: it is not as Penjing wrote it")
    return listing


def newest_verified(parent: Path, pattern: str = "step-*") -> Path | None:
    """The newest directory that verifies; damaged newer ones are kept as `NAME.corrupt`."""
    found = [path for path in parent.glob(pattern) if path.is_dir() and ".corrupt" not in path.name]
    # Longer first: step-1000000 is newer than step-999999.
    for path in sorted(found, key=lambda path: (len(path.name), path.name), reverse=True):
        try:
            return verified(path)
        except ArtifactError:
            if path.exists():  # else its owner discarded it meanwhile
                disk.rename(path, _corrupt_name(path))
                disk.sync(parent)
    return None


def _corrupt_name(path: Path) -> Path:
    name, count = path.with_name(f"{path.name}.corrupt"), 1
    while name.exists():
        count += 1
        name = path.with_name(f"{path.name}.corrupt-{count}")
    return name


def discard(directory: Path) -> None:
    """Delete a directory so that a crash never leaves half of it under its own name."""
    if remote.is_remote(directory):
        remote.remove(directory, LISTING)
        return
    partial = partial_path(directory)
    disk.remove(partial)
    disk.rename(directory, partial)
    disk.remove(partial)


def sweep_partials(parent: Path) -> None:
    """Delete what interrupted writers left behind; only the run's single writer may call it."""
    for path in parent.glob(".*.partial"):
        disk.remove(path)


def free_bytes(path: Path) -> int:
    """Of the disk that a path is on, or will be."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def require_free_bytes(path: Path, needed_bytes: int) -> None:
    """Refuse to begin what the disk under `path` cannot hold; nothing is known of a URL's.

    Raises:
        DiskFullError: with both numbers.
    """
    if remote.is_remote(path):
        return
    free = free_bytes(path)
    if free < needed_bytes:
        raise DiskFullError(
            f"{path} needs {needed_bytes / 1e9:.2f} GB, but the disk has {free / 1e9:.2f} GB free: "
            "make room or write the run elsewhere with --runs"
        )
