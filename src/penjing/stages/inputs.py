"""Opens the sources of a run: rows of files, or of Penjing's own generators, as text objects.

A row that cannot be used goes to the stage's quarantine with its file and line. How a source is
cut into chunks for a job over the whole corpus is said here too.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from penjing.artifacts.remote import is_remote, name_of, place
from penjing.config.schema import SourceConfig
from penjing.data.chunks import InputFile, input_file
from penjing.data.texts import TextBatch, batched, document_batches, without
from penjing.errors import ArtifactError, DataError
from penjing.sources.cache import Cache, WantedFile, local
from penjing.sources.listing import find_files, listed_digests
from penjing.sources.quarantine import Quarantine
from penjing.sources.rows import convert, documents, rows
from penjing.sources.token_files import TOKEN_FILES, TokenDocuments, token_documents
from penjing.synthetic import generators
from penjing.text.conversation import Conversation, Preference
from penjing.text.conversation_forms import form_of, read_conversation, read_preference
from penjing.text.template import training_texts

CHUNK_BYTES = 256 << 20
PACKED = (".gz", ".zst", ".parquet")
UNPACKED_BYTES = 3
"""Bytes of text in one byte of a packed file: a guess, for progress and the disk's use."""

_ROW_BYTES = 500
"""Of a generated row: a guess."""


def open_documents(
    source: SourceConfig, base: Path, seed: int, quarantine: Quarantine, cache: Cache
) -> Iterator[str]:
    """The texts of a source of kind documents."""
    if source.synthetic:
        return generators.documents(source.synthetic, seed, source.rows or 0)
    return (document.text for document in documents(source, base, quarantine, cache))


def open_conversations(
    source: SourceConfig,
    base: Path,
    seed: int,
    quarantine: Quarantine,
    cache: Cache,
    forms: Counter[str],
) -> Iterator[Conversation]:
    """The conversations of a source of kind conversations; `forms` counts their forms."""
    if source.synthetic:
        tool_share = 1.0 if source.tool_share is None else source.tool_share
        return generators.conversations(source.synthetic, seed, source.rows or 0, tool_share)

    def read(row: Mapping[str, Any]) -> Conversation:
        found = read_conversation(row)
        forms[form_of(row)] += 1
        return found

    return convert(rows(source, base, quarantine, cache), read, quarantine)


def open_preferences(
    source: SourceConfig, base: Path, seed: int, quarantine: Quarantine, cache: Cache
) -> Iterator[Preference]:
    """The pairs of a source of kind preferences."""
    if source.synthetic:
        return generators.preferences(source.synthetic, seed, source.rows or 0)
    return convert(rows(source, base, quarantine, cache), read_preference, quarantine)


@dataclass(frozen=True)
class DroppedFiles:
    """What the clean stage left out: of (source, file) its bytes and version then, and the sorted
    numbers of its dropped documents.
    """

    files: Mapping[tuple[str, str], tuple[int, int, NDArray[np.int64]]]

    def of(self, source: str, inputs: Sequence[InputFile]) -> tuple[NDArray[np.int64], ...]:
        """The dropped numbers of each of these files; without files, of the source's rows.

        Raises:
            ArtifactError: a file is new or changed since.
        """
        named = bool(inputs) and (source, inputs[0].name) in self.files
        if not named and (source, "") in self.files:
            return (self.files[source, ""][2],)
        found = []
        for file in inputs:
            size, version, dropped = self.files.get((source, file.name), (-1, 0, None))
            if dropped is None or (size, version) != (file.bytes, file.mtime_ns):
                raise ArtifactError(
                    f"{file.name}: was not there, or another, when the stage clean looked at "
                    "it: do that again with --redo clean"
                )
            found.append(dropped)
        return tuple(found)


@dataclass(frozen=True)
class SourcePart:
    """The part of a source that one chunk reads. Its `source` names these files alone."""

    source: SourceConfig
    base: Path
    seed: int
    label: str
    settings: dict[str, Any]
    inputs: tuple[InputFile, ...]
    size: int
    cache: Cache
    digests: Mapping[str, str]
    """The sha256 of each file, by its name, where the source has a list of them."""
    dropped: tuple[NDArray[np.int64], ...] | None = None
    """Numbers of the documents of each file (or of the rows) that are left out."""

    def document_batches(self, quarantine: Quarantine) -> Iterator[TextBatch]:
        """The texts of a source of kind documents, without those that are left out."""
        files = self.batches_by_file(quarantine)
        if self.dropped is None:
            return (batch for batches in files for batch in batches)
        pairs = zip(files, self.dropped, strict=True)
        return (batch for batches, dropped in pairs for batch in without(batches, dropped))

    def batches_by_file(self, quarantine: Quarantine) -> Iterator[Iterator[TextBatch]]:
        """All texts of each file; of a source that is generated or limited, of its rows at once."""
        source = self.source
        if source.synthetic or source.rows:  # so many rows: that is counted on the slow way
            yield batched(open_documents(source, self.base, self.seed, quarantine, self.cache))
            return
        for file in self.inputs:
            with self._local(file.name) as path:
                yield document_batches(path, file.name, source.text_field, quarantine)

    def _local(self, name: str) -> AbstractContextManager[Path]:
        path = place(name, self.base, "sources")
        return local(path, self.cache, self.digests.get(name))

    @property
    def holds_tokens(self) -> bool:
        """Whether its files hold ids instead of text."""
        return any(file.name.endswith(TOKEN_FILES) for file in self.inputs)

    def token_documents(self) -> Iterator[tuple[str, TokenDocuments]]:
        """The documents of files of ids, each batch with its file.

        Raises:
            DataError: `token_end` is not given, or text lies among them.
        """
        source = self.source
        if source.token_end is None:
            raise DataError(
                f"sources.{source.name}: {self.inputs[0].name} holds token ids: give token_end, "
                "the id that stands between its documents (GPT-2's is 50256)"
            )
        for file in self.inputs:
            if not file.name.endswith(TOKEN_FILES):
                raise DataError(
                    f"{file.name}: a text file among files of ids: make it its own source"
                )
            kind, end = source.token_dtype or "uint16", source.token_end
            with self._local(file.name) as path:
                yield from ((file.name, one) for one in token_documents(path, file.name, kind, end))

    def conversations(self, quarantine: Quarantine, forms: Counter[str]) -> Iterator[Conversation]:
        source, seed = self.source, self.seed
        return open_conversations(source, self.base, seed, quarantine, self.cache, forms)

    def training_batches(self, quarantine: Quarantine) -> Iterator[TextBatch]:
        """What a tokenizer is trained on, of any kind of source."""
        if self.holds_tokens:
            raise DataError(
                f"{self.inputs[0].name} holds token ids, and a tokenizer is trained on text: take "
                "the one that made them with [tokenizer] from"
            )
        if self.source.kind == "documents":
            return self.document_batches(quarantine)
        return batched(self._training_texts(quarantine))

    def _training_texts(self, quarantine: Quarantine) -> Iterator[str]:
        if self.source.kind == "conversations":
            for conversation in self.conversations(quarantine, Counter()):
                yield from training_texts(conversation)
            return
        where = (self.base, self.seed)
        for pair in open_preferences(self.source, *where, quarantine, self.cache):
            messages = (*pair.prompt.messages, pair.chosen, pair.rejected)
            yield from training_texts(Conversation(messages))


def remote_files(parts: Sequence[SourcePart]) -> list[WantedFile]:
    """The files at URLs that these parts will read."""
    found = []
    for part in parts:
        for file in part.inputs:
            path = place(file.name, part.base, "sources")
            if is_remote(path):
                found.append(WantedFile(path, file.bytes, part.digests.get(file.name)))
    return found


def text_bytes(file: Path) -> int:
    """How many bytes of text a file holds: a guess where it is packed."""
    return file.stat().st_size * (UNPACKED_BYTES if file.name.endswith(PACKED) else 1)


def source_parts(
    source: SourceConfig,
    base: Path,
    seed: int,
    cache: Cache,
    *,
    chunk_files: int | None,
    whole: bool,
    dropped: DroppedFiles | None = None,
) -> list[SourcePart]:
    """A source in chunks; in one, if it is generated or read up to a limit (`whole`).

    Raises:
        DataError: a path names no file.
    """
    settings: dict[str, Any] = {"source": source.name, "kind": source.kind}
    if source.synthetic:
        settings |= {"synthetic": source.synthetic, "seed": seed, "generators": _generators()}
        settings |= {"rows": source.rows, "tool_share": source.tool_share}
        size = _ROW_BYTES * (source.rows or 0)
        return [
            _cleaned(
                SourcePart(source, base, seed, source.name, settings, (), size, cache, {}), dropped
            )
        ]
    settings |= {"text_field": source.text_field, "rows": source.rows}
    if source.token_end is not None:
        settings |= {"token_dtype": source.token_dtype, "token_end": source.token_end}
    found = find_files(source.paths, base)
    listed = listed_digests(found, source.checksums, base)
    groups = _groups(found, chunk_files, whole=whole or bool(source.rows))
    parts = []
    for files in groups:
        inputs = tuple(input_file(path, base) for path in files)
        label = f"{source.name}: {inputs[0].name}"
        if len(inputs) > 1:
            label += f" and {len(inputs) - 1} more"
        own = replace(source, paths=tuple(file.name for file in inputs))
        size = sum(map(text_bytes, files))
        digests = {name_of(path, base): listed[path] for path in files if path in listed}
        part = SourcePart(own, base, seed, label, settings, inputs, size, cache, digests)
        parts.append(_cleaned(part, dropped))
    return parts


def _cleaned(part: SourcePart, dropped: DroppedFiles | None) -> SourcePart:
    """The part without what the clean stage dropped, which its settings then name."""
    if dropped is None or part.source.kind != "documents" or part.holds_tokens:
        return part
    found = dropped.of(part.source.name, part.inputs)
    digest = xxhash.xxh3_128_hexdigest(b"|".join(one.tobytes() for one in found))
    return replace(part, dropped=found, settings=part.settings | {"clean": digest})


def _groups(files: list[Path], chunk_files: int | None, *, whole: bool) -> list[list[Path]]:
    if whole:
        return [files]
    if chunk_files:
        return [files[start : start + chunk_files] for start in range(0, len(files), chunk_files)]
    groups, size = [list[Path]()], 0
    for file in files:
        if groups[-1] and size + text_bytes(file) > CHUNK_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += text_bytes(file)
    return groups


def _generators() -> str:
    """A digest of the generators' code: what they make changes with it."""
    digest = xxhash.xxh3_128()
    for path in sorted(Path(generators.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
