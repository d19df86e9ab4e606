"""Logs of one JSON object a line, and single files replaced atomically.

Which records there are is `artifacts.records`' duty.
"""

import dataclasses
import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from penjing.artifacts import disk, remote
from penjing.artifacts.directories import partial_path
from penjing.artifacts.records import to_json
from penjing.errors import ArtifactError

Record = TypeVar("Record")


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file so that a crash leaves the old content or the new, whole."""
    if remote.is_remote(path):
        path.write_bytes(data)
        return
    partial = partial_path(path)
    try:
        disk.write_file(partial, data)
        disk.rename(partial, path)
    except BaseException:
        disk.remove(partial)
        raise
    disk.sync(path.parent)


class LineLog:
    """An append-only log with one writer; opening it cuts off a torn last line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = self._path.open("ab")
        whole = _whole_bytes(self._path)
        if whole != self._path.stat().st_size:
            self._handle.truncate(whole)

    def append(self, record: Any) -> None:
        """Write one record; it survives a kill of the process at once, a power cut after `sync`.

        Raises:
            ValueError: the record holds a number that is not finite.
        """
        disk.append(self._handle, f"{to_json(record)}\n".encode())

    def truncate_after(self, step: int) -> None:
        """Keep the lines whose "step" is at most `step`, and lines without one."""
        kept = [
            line for line, value in _parsed_lines(self._path) if value.get("step", step) <= step
        ]
        self._handle.close()
        write_atomic(self._path, b"".join(kept))
        self._open()

    def sync(self) -> None:
        disk.sync(self._path)

    def close(self) -> None:
        self._handle.close()


def _whole_bytes(path: Path) -> int:
    if path.stat().st_size == 0:
        return 0
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.rfind(b"\n") + 1


def _parsed_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each whole line with its value; a last line without its newline is left out."""
    if not path.exists():
        return
    with path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            if line.endswith(b"\n"):
                yield line, _json_object(line, f"{path}:{number}")


def _json_object(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ArtifactError(f"{where}: found no JSON ({error})") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{where}: found {type(value).__name__}, wanted a JSON object")
    return value


def read_records(path: Path, record_type: type[Record]) -> Iterator[Record]:
    """The records of a log, which may still be growing; a missing log has none.

    Raises:
        ArtifactError: a line inside the log is damaged; it is named.
    """
    for number, (_, value) in enumerate(_parsed_lines(path), start=1):
        yield _record(record_type, value, f"{path}:{number}")


def read_record(path: Path, record_type: type[Record]) -> Record:
    """The one record that a JSON file holds.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror})") from error
    return _record(record_type, _json_object(data, str(path)), str(path))


def _record(record_type: type[Record], value: dict[str, Any], where: str) -> Record:
    """Fields of a newer Penjing are ignored; lists of records (`items`) are read as such."""
    types = get_type_hints(record_type)
    known: dict[str, Any] = {}
    try:
        for key in value.keys() & types.keys():
            known[key] = value[key]
            if get_origin(types[key]) is tuple:
                inner = get_args(types[key])[0]
                known[key] = tuple(
                    _record(inner, item, f"{where}: {key}")
                    if isinstance(inner, type) and dataclasses.is_dataclass(inner)
                    else item
                    for item in value[key]
                )
        return record_type(**known)
    except (TypeError, AttributeError) as error:
        raise ArtifactError(f"{where}: not a {record_type.__name__} ({error})") from error
