"""The shards stage: every source becomes token files, with validation rows chosen by hash.

Encoding is a job over the corpus (`stages.encoding`); here its chunks are joined in order, so that
the files do not depend on how the work was cut. Torch is not loaded here, and preference sources
are read by the dpo stage itself.
"""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penjing.artifacts.directories import (
    LISTING,
    discard,
    exists,
    fetched,
    require_free_bytes,
    staged,
    verified,
)
from penjing.artifacts.stage import MANIFEST, read_manifest
from penjing.config.schema import SourceConfig
from penjing.data.chunks import Finished, Job
from penjing.data.corpus import JobProgress
from penjing.data.packing import overlong
from penjing.data.shards import ShardInfo, ShardWriter, open_shard
from penjing.errors import DataError
from penjing.sources.quarantine import Quarantine
from penjing.stages.clean import dropped_files
from penjing.stages.context import StageContext
from penjing.stages.encoding import QUARANTINE, SPLITS, encode_job
from penjing.stages.jobs import Values, run_stage_job
from penjing.text.tokenizer import Tokenizer

TOKEN_BYTES = 0.6
"""Of shards for a byte of text, about: ids of two bytes. They exist twice while they are joined."""


def run(context: StageContext) -> dict[str, Any]:
    """Writes `shards/SOURCE.train.*` and `.validation.*`; returns counts per source."""
    counts = _make(context, _sources(context), context.directory("shards"))
    return {"sources": counts, "tokens": sum(count["tokens"] for count in counts)}


def add_sources(
    context: StageContext, names: Sequence[str], old: Path, target: Path, clean: Path
) -> dict[str, Any]:
    """The finished shards `old` and those of these sources besides, as the directory `target`.

    `clean` is the clean stage of all of them, if the run has one.
    """
    sources = [source for source in _sources(context) if source.name in names]
    manifest = read_manifest(old)
    assert manifest is not None
    counts = [*manifest.results["sources"], *_make(context, sources, target, old, clean)]
    return {"sources": counts, "tokens": sum(count["tokens"] for count in counts)}


def _make(
    context: StageContext,
    sources: Sequence[SourceConfig],
    target: Path,
    old: Path | None = None,
    clean: Path | None = None,
) -> list[dict[str, Any]]:
    tokenizer = context.tokenizer()
    job = _job(context, tokenizer, sources, clean)
    finished = _run(context, job)
    counts = []
    with staged(target) as directory:
        for path in verified(old).iterdir() if old else ():
            if path.name not in (MANIFEST, LISTING):
                (directory / path.name).hardlink_to(path)
        for source in sources:
            own = [one for one in finished if one.chunk.task.part.source.name == source.name]
            counts.append(_join(context, tokenizer, source, own, directory))
    discard(job.directory)
    return counts


def run_part(context: StageContext) -> None:
    """One task's share of the encoding; whatever is finished is left alone."""
    _run(context, _job(context, context.tokenizer(), _sources(context)))


def _sources(context: StageContext) -> list[SourceConfig]:
    return [source for source in context.config.sources if source.kind != "preferences"]


def _job(
    context: StageContext,
    tokenizer: Tokenizer,
    sources: Sequence[SourceConfig],
    clean: Path | None = None,
) -> Job:
    directory, config = context.work_directory("shards"), context.config
    where = (context.base, config.seed, context.cache, dropped_files(context, clean))
    return encode_job(directory, config.shards, sources, *where, tokenizer)


def _run(context: StageContext, job: Job) -> list[Finished]:
    lacking = [chunk for chunk in job.chunks if not exists(job.directory / chunk.name)]
    require_free_bytes(job.directory, int(TOKEN_BYTES * sum(chunk.size for chunk in lacking)))
    begun = time.monotonic()

    def values(news: JobProgress) -> Values:
        pace = news.made / max(1e-3, time.monotonic() - begun)
        return (("tokens_per_second", pace),) if news.made else ()

    workers = context.config.shards.workers
    return run_stage_job(
        context, "shards", job, workers, part_of=lambda chunk: chunk.task.part, values=values
    )


def _join(
    context: StageContext,
    tokenizer: Tokenizer,
    source: SourceConfig,
    finished: Sequence[Finished],
    directory: Path,
) -> dict[str, Any]:
    facts = [(one.results["quarantine"], one.directory / QUARANTINE) for one in finished]
    quarantine = Quarantine.merged(facts, directory / f"{source.name}.quarantine.jsonl")
    quarantine.check(context.config.shards.max_bad_row_fraction)
    infos = {}
    forms = sum((Counter(one.results["forms"]) for one in finished), Counter[str]())
    for split in SPLITS:
        parts = [one.directory for one in finished]
        infos[split] = _join_split(tokenizer, source, parts, directory, split)
    train, validation = infos["train"], infos["validation"]
    if not train.documents:
        raise DataError(
            f"sources.{source.name}: no usable rows were found, and training needs some; "
            f"{quarantine.bad} rows are in quarantine"
        )
    shard = open_shard(directory, f"{source.name}.train", tokenizer.digest)
    limit = context.config.model.max_position_embeddings
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
        "longest_tokens": max(one.results["longest_tokens"] for one in finished),
        "overlong": overlong(shard.lengths(), limit) if shard.kind != "documents" else 0,
        "bad_rows": quarantine.bad,
        "forms": dict(sorted(forms.items())),
    }


def _join_split(
    tokenizer: Tokenizer,
    source: SourceConfig,
    parts: Sequence[Path],
    directory: Path,
    split: str,
) -> ShardInfo:
    with ShardWriter(
        directory,
        f"{source.name}.{split}",
        kind="documents" if source.kind == "documents" else "conversations",
        tokenizer_digest=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
    ) as writer:
        for part in parts:
            with fetched(part, f"{split}.*") as folder:
                writer.append(open_shard(folder, split, tokenizer.digest))
        return writer.close()
