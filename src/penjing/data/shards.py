"""Token files on disk: written as a stream, read through a memory map, checked block by block.

`NAME.bin` holds the ids, `NAME.idx` where each document ends, `NAME.mask` (conversations) which
ids are trained, `NAME.json` the rest and a checksum for every 1 MiB of the others. What becomes a
document, and that the directory appears whole or not at all, is the shards stage's duty.
"""

import dataclasses
import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import xxhash

from penjing.errors import ArtifactError, DataError

ShardKind = Literal["documents", "conversations"]
BLOCK_BYTES = 2**20
_APPEND_TOKENS = 2**20
_REMAKE = "make the shards stage again"


@dataclass(frozen=True)
class ShardInfo:
    """`NAME.json`: `bytes` are the documents' UTF-8 bytes, summed; `blocks` maps a file's suffix
    to the xxh3_64 (hex) of each of its 1 MiB blocks.
    """

    kind: ShardKind
    dtype: str
    tokenizer_digest: str
    documents: int
    tokens: int
    bytes: int
    blocks: dict[str, list[str]]


class ShardWriter:
    """Writes one shard in bounded memory. Left (`with`) before `close`, it leaves no shard."""

    def __init__(
        self, directory: Path, name: str, *, kind: ShardKind, tokenizer_digest: str, vocab_size: int
    ) -> None:
        self._path = directory / f"{name}.json"
        self._kind, self._tokenizer_digest, self._vocab_size = kind, tokenizer_digest, vocab_size
        self._dtype = "<u2" if vocab_size <= 2**16 else "<u4"
        self._documents = self._tokens = self._bytes = 0
        suffixes = ("bin", "idx", "mask") if kind == "conversations" else ("bin", "idx")
        self._files = {suffix: _BlockWriter(directory / f"{name}.{suffix}") for suffix in suffixes}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()

    def add(self, ids: Sequence[int], weights: Sequence[bool] | None, num_bytes: int) -> None:
        """Append one document.

        Args:
            ids: as stored: `<|endoftext|>` and the text's ids, or a rendered conversation.
            weights: which ids are trained; None for documents.
            num_bytes: UTF-8 bytes of the text.

        Raises:
            DataError: no ids, an id outside the vocabulary, or weights that do not fit.
        """
        trained = None if weights is None else np.asarray(weights, dtype=np.bool_)
        self.add_many(np.asarray(ids, dtype=np.int64), np.array([len(ids)]), trained, num_bytes)

    def add_many(
        self,
        ids: npt.NDArray[np.integer[Any]],
        lengths: npt.NDArray[np.int64],
        weights: npt.NDArray[np.bool_] | None,
        num_bytes: int,
    ) -> None:
        """Append documents, one after another in `ids`, (tokens,), as `add` does each.

        Args:
            ids: of all of them.
            lengths: ids of each, (documents,).
            weights: (tokens,); None for documents.
            num_bytes: UTF-8 bytes of all texts.

        Raises:
            DataError: as `add`; names the first document concerned.
        """
        ends = np.cumsum(lengths, dtype=np.int64)
        if len(lengths) and lengths.min() == 0:
            raise DataError(f"{self._place(int(lengths.argmin()))} has no tokens: leave it out")
        wrong = (ids < 0) | (ids >= self._vocab_size)
        if wrong.any():
            which = int(np.searchsorted(ends, int(wrong.argmax()), side="right"))
            own = ids[int(ends[which] - lengths[which]) : int(ends[which])]
            raise DataError(
                f"{self._place(which)} holds ids {own.min()} to {own.max()}: wanted 0 to "
                f"{self._vocab_size - 1}"
            )
        trained = None if weights is None else len(weights)
        if trained != (len(ids) if "mask" in self._files else None):
            raise DataError(f"{self._place(0)} has {len(ids)} ids and {trained} weights")
        self._files["bin"].write(ids.astype(self._dtype).tobytes())
        self._files["idx"].write((ends + self._tokens).astype("<u8").tobytes())
        if weights is not None:
            self._files["mask"].write(weights.tobytes())
        self._documents += len(lengths)
        self._tokens += len(ids)
        self._bytes += int(num_bytes)

    def append(self, shard: "Shard") -> None:
        """Append every document of another shard, in its order.

        Raises:
            ArtifactError: it is not as it was written.
        """
        lengths = shard.lengths()
        ends = np.cumsum(lengths)
        first = 0
        while first < len(lengths):
            begin = int(ends[first] - lengths[first])
            stop = max(first + 1, int(np.searchsorted(ends, begin + _APPEND_TOKENS, side="right")))
            ids, mask = shard.span(begin, int(ends[stop - 1]))
            self.add_many(ids, lengths[first:stop], mask, 0)
            first = stop
        self._bytes += shard.bytes

    def _place(self, index: int) -> str:
        return f"{self._path.stem}: document {self._documents + index}"

    def close(self) -> ShardInfo:
        blocks = {suffix: file.close() for suffix, file in self._files.items()}
        counts = (self._documents, self._tokens, self._bytes)
        info = ShardInfo(self._kind, self._dtype, self._tokenizer_digest, *counts, blocks)
        self._path.write_text(_json_text(info))
        return info


class Shard:
    """A shard opened for reading. A block is checked when it is first touched."""

    def __init__(self, directory: Path, name: str, info: ShardInfo) -> None:
        self.name, self.kind = name, info.kind
        self.documents, self.tokens, self.bytes = info.documents, info.tokens, info.bytes
        stem, blocks = directory / name, info.blocks
        self._ids = _BlockReader(f"{stem}.bin", info.dtype, info.tokens, blocks["bin"])
        self._ends = _BlockReader(f"{stem}.idx", "<u8", info.documents, blocks["idx"])
        self._mask: _BlockReader | None = None
        if info.kind == "conversations":
            self._mask = _BlockReader(f"{stem}.mask", "|u1", info.tokens, blocks["mask"])

    @property
    def token_bytes(self) -> int:
        """Of one id on disk, with its mask."""
        return self._ids.itemsize + (self._mask is not None)

    def release(self) -> None:
        """Give the memory of what was read back to the system."""
        for reader in (self._ids, self._ends, self._mask):
            if reader is not None:
                reader.release()

    def lengths(self) -> npt.NDArray[np.int64]:
        """Ids of each document, (documents,) int64."""
        ends = self._ends.read(0, self.documents).astype(np.int64)
        return np.diff(ends, prepend=np.int64(0))

    def span(
        self, start: int, stop: int
    ) -> tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.bool_] | None]:
        """The ids at [start, stop) of the shard as they are stored, and which are trained.

        Raises:
            ArtifactError: a touched block is not as it was written.
        """
        mask = None if self._mask is None else self._mask.read(start, stop).view(np.bool_)
        return self._ids.read(start, stop), mask

    def verify(self, start: int, stop: int) -> None:
        """See that the ids at [start, stop) are as they were written, and what is trained of them.

        Raises:
            ArtifactError: a block is not.
        """
        self._ids.read(start, stop)
        if self._mask is not None:
            self._mask.read(start, stop)

    @property
    def verified(self) -> bool:
        """Whether every block was found as it was written."""
        return self._ids.verified and (self._mask is None or self._mask.verified)

    @property
    def all_ids(self) -> npt.NDArray[Any]:
        """Every id, (tokens,); `verify` what is read of it."""
        return self._ids.values

    @property
    def all_trained(self) -> npt.NDArray[np.uint8]:
        """For every id of conversations whether it is trained, of documents nothing; as above."""
        return np.empty(0, np.uint8) if self._mask is None else self._mask.values

    def read(
        self, document: int, start: int, stop: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Ids and their weights at [start, stop) of a document; stops early at its end.

        Raises:
            ArtifactError: a touched block is not as it was written.
        """
        ends = self._ends.read(max(0, document - 1), document + 1)
        first = int(ends[0]) if document else 0
        begin, stop = first + start, min(first + stop, int(ends[-1]))
        ids = self._ids.read(begin, stop).astype(np.int64)
        if self._mask is None:
            return ids, np.ones(len(ids), dtype=np.float32)
        return ids, self._mask.read(begin, stop).astype(np.float32)


def open_shard(directory: Path, name: str, tokenizer_digest: str) -> Shard:
    """Open `NAME.*` for reading.

    Raises:
        ArtifactError: a file is missing, truncated or altered, or of another tokenizer.
    """
    path = directory / f"{name}.json"
    try:
        text = path.read_text()
        fields: dict[str, Any] = json.loads(text)
        del fields["xxh3_64"]
        info = ShardInfo(**fields)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}: {_REMAKE}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{path}: is no shard description ({error}): {_REMAKE}") from error
    if text != _json_text(info):
        raise ArtifactError(f"{path}: was altered: {_REMAKE}")
    if info.tokenizer_digest != tokenizer_digest:
        raise ArtifactError(
            f"{path}: made with tokenizer {info.tokenizer_digest[:12]}, but this run's is "
            f"{tokenizer_digest[:12]}: {_REMAKE}"
        )
    return Shard(directory, name, info)


def _json_text(info: ShardInfo) -> str:
    fields = dataclasses.asdict(info)
    digest = xxhash.xxh3_64_hexdigest(json.dumps(fields).encode())
    return json.dumps(fields | {"xxh3_64": digest}, indent=1) + "\n"


class _BlockWriter:
    """A file that is hashed as it is written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._pending = bytearray()
        self._hashes: list[str] = []

    def write(self, data: bytes) -> None:
        self._pending += data
        whole = len(self._pending) // BLOCK_BYTES * BLOCK_BYTES
        if whole:
            self._flush(whole)

    def close(self) -> list[str]:
        self._flush(len(self._pending))
        self._file.close()
        return self._hashes

    def _flush(self, size: int) -> None:
        for start in range(0, size, BLOCK_BYTES):
            block = bytes(self._pending[start : min(size, start + BLOCK_BYTES)])
            self._file.write(block)
            self._hashes.append(xxhash.xxh3_64_hexdigest(block))
        del self._pending[:size]


class _BlockReader:
    """A memory-mapped array of which no element leaves before its block was checked."""

    def __init__(self, path: str, dtype: str, length: int, hashes: list[str]) -> None:
        self._path, self._hashes = path, hashes
        self._unchecked = bytearray(b"\x01") * len(hashes)
        self.itemsize = np.dtype(dtype).itemsize
        try:
            found = Path(path).stat().st_size
            self._map = None
            if found:  # an empty file cannot be mapped
                with Path(path).open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read: {error.strerror}: {_REMAKE}") from error
        wanted = length * self.itemsize
        if found != wanted:
            raise ArtifactError(f"{path}: has {found} bytes instead of {wanted}: {_REMAKE}")
        self.values: npt.NDArray[Any] = np.frombuffer(self._map or b"", dtype=dtype)
        self._left = len(hashes)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """A read-only view of the elements [start, stop)."""
        if not self._left:
            return self.values[start:stop]
        last = -(-stop * self.itemsize // BLOCK_BYTES)
        block = self._unchecked.find(1, start * self.itemsize // BLOCK_BYTES, last)
        while block >= 0:
            self._check(block)
            block = self._unchecked.find(1, block + 1, last)
        return self.values[start:stop]

    @property
    def verified(self) -> bool:
        return not self._left

    def release(self) -> None:
        """Let go of the pages in memory; the system's cache of the file may keep them."""
        if self._map:
            self._map.madvise(mmap.MADV_DONTNEED)

    def _check(self, block: int) -> None:
        size = BLOCK_BYTES // self.itemsize
        data = self.values[block * size : (block + 1) * size].tobytes()
        if xxhash.xxh3_64_hexdigest(data) != self._hashes[block]:
            raise ArtifactError(
                f"{self._path}: block {block} (from byte {block * BLOCK_BYTES}) is not as it was "
                f"written: the file was altered or the disk fails: {_REMAKE}"
            )
        self._left -= self._unchecked[block]  # not twice, if two threads check a block
        self._unchecked[block] = 0
