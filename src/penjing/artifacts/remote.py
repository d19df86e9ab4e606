"""Files at an fsspec URL, and finished directories there, where nothing can be renamed.

A place at a URL is a `UPath`, which answers as `pathlib.Path` does and is typed as one. Directories
on disk are `artifacts.directories`' duty, which sends what lies at a URL here.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from penjing.errors import ConfigError


def place(text: str, base: Path, setting: str) -> Path:
    """A file or folder, relative to `base`, or what an fsspec URL names; `setting` says where it
    was asked for.

    Raises:
        ConfigError: the package for URLs, or the one for this protocol, is missing.
    """
    if "://" not in text:
        return base / text
    try:
        from upath import UPath
    except ImportError as error:
        raise ConfigError(
            f"{setting}: {text}: URLs need the package universal_pathlib: "
            "pip install 'penjing[remote]'"
        ) from error
    try:
        found = UPath(text)
        found.fs  # noqa: B018 - made when first asked for
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{setting}: {text}: fsspec cannot use it here: {error}") from error
    return cast(Path, found)


def is_remote(path: Path) -> bool:
    return not isinstance(path, Path)


def matching(pattern: Path) -> list[Path]:
    """The files at a URL that it names, or that it matches as a glob."""
    system, name = _file_system(pattern)
    found: Any = pattern
    names = [name] if system.isfile(name) else system.glob(name)
    return [cast(Path, found.with_segments(system.unstrip_protocol(one))) for one in names]


def name_of(path: Path, base: Path) -> str:
    """How a file is called in a run: relative to `base` where it lies below."""
    below = not is_remote(path) and path.is_relative_to(base)
    return str(path.relative_to(base) if below else path)


def version(path: Path) -> int:
    """A number that changes with the file: its time in ns, or what its store knows it by."""
    if not is_remote(path):
        return path.stat().st_mtime_ns
    system, name = _file_system(path)
    return int(hashlib.sha256(system.ukey(name).encode()).hexdigest()[:15], 16)


@dataclass(frozen=True)
class RemoteFacts:
    """What a store says of a file: its bytes, a text that changes with it, and its sha256."""

    size: int | None
    version: str
    sha256: str | None


def facts(path: Path) -> RemoteFacts:
    """Asks the store of a file at a URL anew."""
    system, name = _file_system(path)
    system.invalidate_cache()
    info = system.info(name)
    kept = "size etag mtime created lastmodified last-modified content-md5 digest blob_id versionid"
    known = {key.lower(): str(value) for key, value in info.items() if key.lower() in kept.split()}
    lfs = info.get("lfs") or {}
    sha256 = lfs.get("sha256") or info.get("sha256")
    return RemoteFacts(info.get("size"), str(sorted(known.items())), sha256)


def _file_system(path: Path) -> tuple[Any, str]:
    found: Any = path
    return found.fs, found.path


def upload(source: Path, target: Path, listing: str) -> None:
    """Every file of a sealed directory; the listing, which makes it a finished one, comes last."""
    system, root = _file_system(target)
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    for path in sorted(files, key=lambda path: path.name == listing):
        name = f"{root}/{path.relative_to(source).as_posix()}"
        system.makedirs(name.rpartition("/")[0], exist_ok=True)
        system.put_file(str(path), name)


def remove(directory: Path, listing: str) -> None:
    """Delete a directory; what is left of it, should this be stopped, is no finished one."""
    system, root = _file_system(directory)
    system.invalidate_cache()
    if system.exists(f"{root}/{listing}"):
        system.rm_file(f"{root}/{listing}")
    if system.exists(root):
        system.rm(root, recursive=True)


def read_range(path: Path, start: int, stop: int) -> bytes:
    """The bytes at [start, stop) of a file, and no others where it lies at a URL."""
    if is_remote(path):
        system, name = _file_system(path)
        return bytes(system.cat_file(name, start=start, end=stop))
    with path.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


def download(directory: Path, names: Iterable[str], folder: Path) -> None:
    """These files of a directory at a URL, into a folder on disk."""
    system, root = _file_system(directory)
    for name in names:
        system.get_file(f"{root}/{name}", str(folder / name))
