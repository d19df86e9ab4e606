"""Files of token ids, as nanoGPT and nanochat's kin leave them, to documents of ids.

Whether the ids are of the run's tokenizer is the shards stage's to find out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penjing.errors import DataError

TOKEN_FILES = (".bin", ".npy")
WINDOW = 1 << 20
"""Ids read at once."""

_HEADER_INTS = 256
_HEADERS = {20240520: "<u2", 20240801: "<u4"}
"""First number of the header of llm.c and its kin (256 int32), and the ids after it."""


@dataclass(frozen=True)
class TokenDocuments:
    """Documents one after another, without the id that parts them: (tokens,) and (documents,)."""

    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]


def token_documents(path: Path, file: str, dtype: str, end: int) -> Iterator[TokenDocuments]:
    """The documents of a file, in order, in batches of about a million ids.

    Args:
        path: a `.npy` of one dimension, or a `.bin`: raw ids, or with llm.c's header.
        file: what it is called in messages.
        dtype: of raw ids, "uint16" or "uint32", little-endian.
        end: the id that stands before or after each document.

    Raises:
        DataError: it is no such file, or cut short.
    """
    ids = _open(path, file, dtype)
    rest = np.empty(0, dtype=np.int64)
    for start in range(0, len(ids), WINDOW):
        window = np.concatenate([rest, ids[start : start + WINDOW].astype(np.int64)])
        last = len(window) if start + WINDOW >= len(ids) else _after_last(window, end)
        rest = window[last:]
        if found := _documents(window[:last], end):
            yield found


def _after_last(window: NDArray[np.int64], end: int) -> int:
    places = np.flatnonzero(window == end)
    return int(places[-1]) if len(places) else 0


def _documents(window: NDArray[np.int64], end: int) -> TokenDocuments | None:
    places = np.flatnonzero(window == end)
    edges = np.concatenate([[-1], places, [len(window)]])
    lengths = np.diff(edges) - 1
    lengths = lengths[lengths > 0]
    return TokenDocuments(window[window != end], lengths) if len(lengths) else None


def _open(path: Path, file: str, dtype: str) -> NDArray[Any]:
    if path.name.endswith(".npy"):
        return _open_npy(path, file)
    size = path.stat().st_size
    raw: NDArray[Any] = np.memmap(path, dtype=np.uint8, mode="r") if size else np.empty(0, np.uint8)
    header = raw[: 4 * _HEADER_INTS]
    numbers = header.view("<i4") if len(header) == 4 * _HEADER_INTS else np.zeros(3, "<i4")
    if int(numbers[0]) in _HEADERS:
        ids = raw[4 * _HEADER_INTS :]
        kind = np.dtype(_HEADERS[int(numbers[0])])
        if len(ids) != int(numbers[2]) * kind.itemsize:
            raise DataError(
                f"{file}: its header says {int(numbers[2]):,} ids, and "
                f"{len(ids) / kind.itemsize:,.1f} follow: cut short; fetch it again"
            )
        return ids.view(kind)
    kind = np.dtype("<u2" if dtype == "uint16" else "<u4")
    if not size or size % kind.itemsize:
        raise DataError(f"{file}: has {size} bytes: wanted ids of {kind.itemsize} bytes each")
    return raw.view(kind)


def _open_npy(path: Path, file: str) -> NDArray[Any]:
    try:
        ids: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{file}: is no array of numbers, or cut short ({error})") from error
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise DataError(
            f"{file}: has {ids.dtype} of shape {ids.shape}: wanted whole numbers in one dimension"
        )
    return ids
