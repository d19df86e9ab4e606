"""Which files a source has: paths, globs, URLs, and ranges of which every file must be there.

`shard_{000..177}.parquet` stands for 178 files: so a run says how many shards it needs.
"""

import difflib
import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from penjing.artifacts.remote import is_remote, matching, place, read_range
from penjing.errors import DataError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_DIGEST_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


def find_files(paths: Sequence[str], base: Path) -> list[Path]:
    """The files that paths, globs (relative to `base`), ranges and URLs name, each once, sorted.

    Raises:
        DataError: a path or glob names no file (near misses are shown), or files of a range are
            missing (they are named).
    """
    found: set[Path] = set()
    for pattern in paths:
        plain = place(pattern, base, "sources")
        if _RANGE.search(pattern):
            found.update(_whole_range(pattern, plain, base))
        elif is_remote(plain):
            at_url = matching(plain)
            if not at_url:
                raise DataError(f"{pattern}: no such file")
            found.update(at_url)
        else:
            found.update(_on_disk(plain))
    return sorted(found, key=str)


def named_at_urls(paths: Sequence[str]) -> int:
    """How many files the ranges among URLs stand for, without asking whether they are there."""
    urls = [pattern for pattern in paths if "://" in pattern]
    return sum(len(list(_expanded(pattern))) for pattern in urls if "*" not in pattern)


def _on_disk(plain: Path) -> set[Path]:
    names = [str(plain)] if plain.exists() else glob.glob(str(plain), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = {Path(name) for name in names if Path(name).is_file()}
    if not files:
        raise DataError(f"{plain}: no such file{_near_misses(plain)}")
    return files


def _whole_range(pattern: str, plain: Path, base: Path) -> list[Path]:
    wanted = [str(place(one, base, "sources")) for one in _expanded(pattern)]
    starred = place(_RANGE.sub("*", pattern), base, "sources")
    if is_remote(plain):
        there = {str(one): one for one in matching(starred)}
    else:
        there = {name: Path(name) for name in glob.glob(str(starred))}  # noqa: PTH207 - as above
    missing = [name for name in wanted if name not in there]
    if missing:
        raise DataError(
            f"{pattern}: {len(missing)} of {len(wanted)} files are missing: {_told(missing)}. "
            "Fetch them, or give a smaller range"
        )
    return [there[name] for name in wanted]


def _expanded(pattern: str) -> Iterator[str]:
    found = _RANGE.search(pattern)
    if not found:
        yield pattern
        return
    low, high = found[1], found[2]
    if int(high) < int(low):
        raise DataError(f"{pattern}: the range falls: wanted {{{high}..{low}}}")
    for number in range(int(low), int(high) + 1):
        text = str(number).zfill(len(low))
        yield from _expanded(pattern[: found.start()] + text + pattern[found.end() :])


def _told(names: Sequence[str]) -> str:
    """The names, of which many become first and last of each stretch."""
    short = [name.rpartition("/")[2] for name in names]
    stretches: list[list[str]] = []
    for name in short:
        if stretches and _follows(stretches[-1][-1], name):
            stretches[-1].append(name)
        else:
            stretches.append([name])
    parts = [one[0] if len(one) == 1 else f"{one[0]} to {one[-1]}" for one in stretches]
    more = f" and {len(parts) - 10} more stretches" if len(parts) > 10 else ""
    return ", ".join(parts[:10]) + more


def _follows(before: str, name: str) -> bool:
    numbers = [re.findall(r"\d+", one) for one in (before, name)]
    if len(numbers[0]) != len(numbers[1]) or re.sub(r"\d+", "", before) != re.sub(r"\d+", "", name):
        return False
    steps = [int(b) - int(a) for a, b in zip(*numbers, strict=True)]
    return sorted(steps) == [0] * (len(steps) - 1) + [1]


def read_checksums(text: str, base: Path) -> Mapping[str, str]:
    """sha256 (hex) by name, from a file as `sha256sum` writes it.

    Raises:
        DataError: a line is no such line.
    """
    path = place(text, base, "checksums")
    try:
        data = read_range(path, 0, path.stat().st_size).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{text}: the checksums cannot be read ({error})") from error
    found = {}
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        match = _DIGEST_LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(f"{text}:{number}: found {line[:60]!r}: wanted `SHA256  NAME`")
        found[match[2]] = match[1].lower()
    return found


def listed_digests(files: Sequence[Path], checksums: str | None, base: Path) -> dict[Path, str]:
    """The sha256 (hex) of each file, from a list (a path or URL); nothing without one.

    Raises:
        DataError: the list cannot be read, or does not have a file.
    """
    if checksums is None:
        return {}
    listed = read_checksums(checksums, base)
    return {path: digest_of(path, listed, checksums) for path in files}


def digest_of(path: Path, checksums: Mapping[str, str], list_name: str) -> str:
    """The digest of a file, by its name or by the end of its path.

    Raises:
        DataError: the list does not have it.
    """
    parts = str(path).split("/")
    for start in range(len(parts)):
        if (name := "/".join(parts[start:])) in checksums:
            return checksums[name]
    raise DataError(f"{path}: is not in {list_name}: every file of the source must be")


def _near_misses(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f", and no directory {folder}"
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    if not names:
        return f": {folder} has no files"
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"; {folder} has {', '.join(names[:5])}{more}"
