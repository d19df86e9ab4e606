"""The shards' work over the corpus: one chunk's rows to two small shards, training and validation.

How chunks become the shards of a source is the shards stage's duty. Torch is not loaded here.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penjing.config.schema import ShardsConfig, SourceConfig
from penjing.data.chunks import Advance, Chunk, Job
from penjing.data.shards import ShardWriter
from penjing.errors import DataError
from penjing.sources.cache import Cache
from penjing.sources.quarantine import Quarantine
from penjing.stages.inputs import DroppedFiles, SourcePart, source_parts
from penjing.text.template import render_many
from penjing.text.tokenizer import Tokenizer

FORMAT = 2
"""Of chunks: raised when code changes what is encoded, so that older chunks are made again."""

_CONVERSATIONS = 256
"""Rendered at once."""

CHECKED_DOCUMENTS = 100
"""First documents of a chunk of ids that are decoded and encoded again."""

QUARANTINE = "quarantine.jsonl"
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class EncodedRows:
    """Some stored documents: their ids one after another, and of each how many ids and bytes of
    text it has. `trained` says which ids are learnt (None: all), `held_out` which rows are not.
    """

    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]
    num_bytes: NDArray[np.int64]
    trained: NDArray[np.bool_] | None
    held_out: NDArray[np.bool_]


@dataclass(frozen=True)
class EncodeTask:
    """A part of a source, and below which hash its rows are held out, of 2**32."""

    part: SourcePart
    held_out_below: int


def encode_job(
    directory: Path,
    config: ShardsConfig,
    sources: Sequence[SourceConfig],
    base: Path,
    seed: int,
    cache: Cache,
    dropped: DroppedFiles | None,
    tokenizer: Tokenizer,
) -> Job:
    """The plan: every source but preferences, in order, in chunks of its files."""
    shared = {"format": FORMAT, "tokenizer": tokenizer.digest}
    chunks = []
    for source in sources:
        share = 0.0 if source.validation_paths else config.validation_fraction
        kept_apart = replace(source, paths=source.validation_paths, rows=None)
        for files, held_out in ((source, share), (kept_apart, 1.0)):
            if not (files.paths or files.synthetic) or (files.synthetic and held_out == 1.0):
                continue
            settings = shared | {"held_out": held_out}
            number = config.chunk_files
            for part in source_parts(
                files, base, seed, cache, chunk_files=number, whole=False, dropped=dropped
            ):
                task = EncodeTask(part, int(held_out * 2**32))
                own = settings | part.settings
                chunks.append(Chunk(part.label, own, part.inputs, part.size, task))
    return Job(directory, tuple(chunks), encode_chunk, tokenizer)


def encode_chunk(
    tokenizer: Tokenizer, task: EncodeTask, directory: Path, advance: Advance
) -> dict[str, Any]:
    """Writes the shards `train` and `validation` of a part of a source; returns their counts."""
    part = task.part
    quarantine = Quarantine(directory / QUARANTINE)
    documents = part.source.kind == "documents"
    new_shard = partial(
        ShardWriter,
        directory,
        kind="documents" if documents else "conversations",
        tokenizer_digest=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
    )
    longest = done = tokens = 0
    forms: Counter[str] = Counter()
    with new_shard(SPLITS[0]) as train, new_shard(SPLITS[1]) as validation:
        below = task.held_out_below
        for batch in (
            _documents(part, tokenizer, below, quarantine)
            if documents
            else _conversations(part, tokenizer, below, quarantine, forms)
        ):
            _add(train, batch, ~batch.held_out)
            _add(validation, batch, batch.held_out)
            longest = max(longest, int(batch.lengths.max()))
            done, tokens = done + int(batch.num_bytes.sum()), tokens + len(batch.ids)
            advance(done, tokens)
        train.close()
        validation.close()
    facts = {"tokens": tokens, "longest_tokens": longest, "forms": dict(sorted(forms.items()))}
    return facts | {"quarantine": quarantine.facts()}


def _add(writer: ShardWriter, rows: EncodedRows, chosen: NDArray[np.bool_]) -> None:
    ids = np.repeat(chosen, rows.lengths)
    trained = None if rows.trained is None else rows.trained[ids]
    writer.add_many(rows.ids[ids], rows.lengths[chosen], trained, int(rows.num_bytes[chosen].sum()))


def _documents(
    part: SourcePart, tokenizer: Tokenizer, below: int, quarantine: Quarantine
) -> Iterator[EncodedRows]:
    if part.holds_tokens:
        yield from _encoded_documents(part, tokenizer, below, quarantine)
        return
    for batch in part.document_batches(quarantine):
        ids, ends = tokenizer.encode_batch(batch.data, batch.ends)
        lengths = np.diff(ends, prepend=0)
        yield EncodedRows(
            np.insert(ids.astype(np.int64), ends - lengths, tokenizer.end_of_text),
            lengths + 1,
            np.diff(batch.ends, prepend=0),
            None,
            np.array([is_held_out(text, below) for text in batch.texts()], dtype=np.bool_),
        )


def _encoded_documents(
    part: SourcePart, tokenizer: Tokenizer, below: int, quarantine: Quarantine
) -> Iterator[EncodedRows]:
    """Documents whose ids others made: taken over if this tokenizer makes the same of their text.

    Raises:
        DataError: the ids are of another vocabulary.
    """
    byte_lengths, unchecked = tokenizer.byte_lengths(), CHECKED_DOCUMENTS
    for file, found in part.token_documents():
        ids, lengths = found.ids, found.lengths
        quarantine.seen(len(lengths))
        if ids.max() >= len(byte_lengths) or (byte_lengths[ids] == 0).any():
            wrong = ids[(ids >= len(byte_lengths)) | (byte_lengths[ids % len(byte_lengths)] == 0)]
            raise DataError(
                f"{file}: holds the id {int(wrong[0])}, which is no text in the run's tokenizer of "
                f"{tokenizer.vocab_size} ids: the file is of another, or token_end is wrong"
            )
        ends = np.cumsum(lengths)
        texts = [tokenizer.decode_bytes(own.tolist()) for own in np.split(ids, ends[:-1].tolist())]
        for text, own in zip(texts[:unchecked], np.split(ids, ends[:-1].tolist()), strict=False):
            _require_same_ids(file, tokenizer, text, own)
        unchecked = max(0, unchecked - len(texts))
        yield EncodedRows(
            np.insert(ids, ends - lengths, tokenizer.end_of_text),
            lengths + 1,
            np.add.reduceat(byte_lengths[ids], ends - lengths),
            None,
            np.array([is_held_out(text, below) for text in texts], dtype=np.bool_),
        )


def _require_same_ids(file: str, tokenizer: Tokenizer, text: bytes, ids: NDArray[np.int64]) -> None:
    data = np.frombuffer(text, dtype=np.uint8)
    again, _ = tokenizer.encode_batch(data, np.array([len(data)]))
    if not np.array_equal(again, ids):
        raise DataError(
            f"{file}: its ids {ids[:6].tolist()} read {text[:40].decode(errors='replace')!r} in "
            f"the run's tokenizer, which would write {again[:6].tolist()}: they are of another "
            "one; take that with [tokenizer] from"
        )


def _conversations(
    part: SourcePart,
    tokenizer: Tokenizer,
    below: int,
    quarantine: Quarantine,
    forms: Counter[str],
) -> Iterator[EncodedRows]:
    conversations = part.conversations(quarantine, forms)
    while some := list(islice(conversations, _CONVERSATIONS)):
        found = render_many(tokenizer, some)
        held_out = np.array([is_held_out(text, below) for text in found.contents], dtype=np.bool_)
        yield EncodedRows(found.ids, found.lengths, found.num_bytes, found.trained, held_out)


def is_held_out(text: bytes, below: int) -> bool:
    """Whether a row is for validation: by its content, so that it stays there."""
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") < below
