"""The shards stage: every source becomes token files, with validation rows chosen by hash.

Torch is not loaded here. Preference sources are read by the dpo stage itself.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from penjing.artifacts.directories import staged
from penjing.artifacts.progress import Progress
from penjing.config.schema import SourceConfig
from penjing.data.packing import overlong
from penjing.data.shards import ShardWriter, open_shard
from penjing.errors import DataError
from penjing.sources.quarantine import Quarantine
from penjing.stages.context import StageContext
from penjing.stages.inputs import open_conversations, open_documents
from penjing.text.template import render
from penjing.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class EncodedRow:
    """One stored document: its ids, what is trained of it (None: all), and its text's bytes."""

    ids: list[int]
    trained: list[bool] | None
    num_bytes: int
    digest: bytes


def run(context: StageContext) -> dict[str, Any]:
    """Writes `shards/SOURCE.train.*` and `.validation.*`; returns counts per source."""
    config = context.config
    tokenizer = context.tokenizer()
    sources = [source for source in config.sources if source.kind != "preferences"]
    counts = []
    with staged(context.directory("shards")) as directory:
        for place, source in enumerate(sources):
            context.show(Progress("shards", "progress", place, len(sources), text=source.name))
            counts.append(_encode_source(context, tokenizer, source, directory))
    return {"sources": counts, "tokens": sum(count["tokens"] for count in counts)}


def _encode_source(
    context: StageContext, tokenizer: Tokenizer, source: SourceConfig, directory: Path
) -> dict[str, Any]:
    config, context_tokens = context.config.shards, context.config.model.max_position_embeddings
    quarantine = Quarantine(directory / f"{source.name}.quarantine.jsonl")
    limit = int(config.validation_fraction * 2**32)
    longest = 0
    new_shard = partial(
        ShardWriter,
        directory,
        kind="documents" if source.kind == "documents" else "conversations",
        tokenizer_digest=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
    )
    training, held_out = f"{source.name}.train", f"{source.name}.validation"
    with new_shard(training) as train_writer, new_shard(held_out) as validation_writer:
        for row in _rows(context, tokenizer, source, quarantine):
            is_held_out = int.from_bytes(row.digest[:4], "big") < limit
            writer = validation_writer if is_held_out else train_writer
            writer.add(row.ids, row.trained, row.num_bytes)
            longest = max(longest, len(row.ids))
        quarantine.check(config.max_bad_row_fraction)
        train, validation = train_writer.close(), validation_writer.close()
    if not train.documents:
        raise DataError(
            f"sources.{source.name}: no usable rows were found, and training needs some; "
            f"{quarantine.bad} rows are in quarantine"
        )
    shard = open_shard(directory, training, tokenizer.digest)
    return {
        "name": source.name,
        "kind": source.kind,
        "synthetic": source.synthetic,
        "licence": source.licence,
        "documents": train.documents,
        "tokens": train.tokens,
        "bytes": train.bytes,
        "validation_documents": validation.documents,
        "validation_tokens": validation.tokens,
        "longest_tokens": longest,
        "overlong": overlong(shard.lengths(), context_tokens) if shard.kind != "documents" else 0,
        "bad_rows": quarantine.bad,
    }


def _rows(
    context: StageContext, tokenizer: Tokenizer, source: SourceConfig, quarantine: Quarantine
) -> Iterator[EncodedRow]:
    seed, base = context.config.seed, context.base
    if source.kind == "documents":
        for text in open_documents(source, base, seed, quarantine):
            raw = text.encode()
            ids = [tokenizer.end_of_text, *tokenizer.encode(text)]
            yield EncodedRow(ids, None, len(raw), hashlib.sha256(raw).digest())
        return
    for conversation in open_conversations(source, base, seed, quarantine):
        rendered = render(tokenizer, conversation)
        raw = tokenizer.decode_bytes(rendered.ids)
        num_bytes = int(tokenizer.byte_lengths()[list(rendered.ids)].sum())
        yield EncodedRow(
            list(rendered.ids), list(rendered.trained), num_bytes, hashlib.sha256(raw).digest()
        )
