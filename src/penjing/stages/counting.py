"""The tokenizer's work over the corpus: words counted by chunk, then merged by partition.

What is learnt from the counts is the tokenizer stage's duty. Torch is not loaded here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing.artifacts import directories
from penjing.artifacts.stage import identity_digest
from penjing.config.schema import SourceConfig, TokenizerConfig
from penjing.data.chunks import Advance, Chunk, Finished, Job
from penjing.data.texts import beginnings, first_texts
from penjing.data.word_runs import (
    WORD_BYTES,
    Counting,
    RunFile,
    count_texts,
    merge_partitions,
    run_name,
)
from penjing.errors import ArtifactError
from penjing.sources.cache import Cache
from penjing.sources.quarantine import Quarantine
from penjing.stages.inputs import DroppedFiles, SourcePart, source_parts
from penjing.text import native

FORMAT = 2
"""Of counts: raised when code changes what is counted, so that older chunks are counted again."""

QUARANTINE = "quarantine.jsonl"
MERGED_BYTES = 64 << 20
"""Run files that one chunk of the reduce merges, about."""

DISK_SHARES = (0.2, 0.9)
"""Bytes of run files for a byte of text: mixed text, and Chinese. Source: docs/scale.md."""


@dataclass(frozen=True)
class CountTask:
    """A part of a source, and how much of it is counted."""

    part: SourcePart
    how: Counting
    max_docs: int | None
    max_chars: int | None
    doc_cap_chars: int | None


@dataclass(frozen=True)
class ReduceTask:
    """Run files of which partitions [first, stop) are merged."""

    group: str
    runs: tuple[Path, ...]
    first: int
    stop: int
    how: Counting


def count_job(
    directory: Path,
    config: TokenizerConfig,
    sources: Sequence[SourceConfig],
    base: Path,
    seed: int,
    cache: Cache,
    dropped: DroppedFiles | None,
    workers: int,
) -> Job:
    """The plan of the count. A limited source is one chunk: a limit counts from its first text."""
    shared: dict[str, Any] = {
        "format": FORMAT,
        "pattern": config.trained_pattern,
        "unicode": native.unicode_version(),
        "word_bytes": WORD_BYTES,
        "partition_bits": config.partition_bits,
        "doc_cap_chars": config.doc_cap_chars,
    }
    limits = [
        limit and max(1, limit // max(1, len(sources)))
        for limit in (config.max_docs, config.max_chars)
    ]
    shared |= dict(zip(("max_docs", "max_chars"), limits, strict=True))
    memory, partitions = config.memory_bytes // workers, 1 << config.partition_bits
    pattern = config.trained_pattern
    chunks = []
    for source in sources:
        whole = any(limit is not None for limit in limits)
        files = config.chunk_files
        for part in source_parts(
            source, base, seed, cache, chunk_files=files, whole=whole, dropped=dropped
        ):
            settings = shared | part.settings
            how = Counting(identity_digest(settings), pattern, partitions, memory)
            task = CountTask(part, how, limits[0], limits[1], config.doc_cap_chars)
            size = min(part.size, 4 * limits[1]) if limits[1] else part.size
            chunks.append(Chunk(part.label, settings, part.inputs, size, task))
    return Job(directory, tuple(chunks), count_chunk, None)


def count_chunk(
    _shared: None, task: CountTask, directory: Path, advance: Advance
) -> dict[str, Any]:
    """Writes run files; returns what was counted, and what was put into quarantine."""
    quarantine = Quarantine(directory / QUARANTINE)
    batches = task.part.training_batches(quarantine)
    if task.doc_cap_chars is not None:
        batches = beginnings(batches, task.doc_cap_chars)
    batches = first_texts(batches, task.max_docs, task.max_chars)
    characters = 0

    def counted() -> Any:
        nonlocal characters
        for batch in batches:
            characters += batch.num_characters()
            yield batch

    total, runs = count_texts(counted(), task.how, directory, advance)
    facts = {"texts": total.documents, "characters": characters, "bytes": total.bytes}
    return facts | {"pieces": total.pieces, "runs": runs, "quarantine": quarantine.facts()}


def require_disk(job: Job) -> str:
    """A warning when the disk may become too full for the counts that are still to be made.

    Raises:
        ArtifactError: it is too full in any case.
    """
    size = sum(
        chunk.size for chunk in job.chunks if not directories.exists(job.directory / chunk.name)
    )
    low, high = (int(size * share) for share in DISK_SHARES)
    directories.require_free_bytes(job.directory, low)
    try:
        directories.require_free_bytes(job.directory, high)
    except ArtifactError as error:
        return f"the disk may fill up: {error}"
    return ""


def reduce_job(directory: Path, counted: Sequence[Finished], groups: Sequence[str]) -> Job:
    """The plan of the reduce: for each group of chunks (`groups` says where each belongs), and
    for all of them together (""), ranges of partitions.
    """
    chunks: list[Chunk] = []
    for group in dict.fromkeys(["", *sorted(set(groups) - {""})]):
        members = [c for c, own in zip(counted, groups, strict=True) if group in ("", own)]
        chunks += _ranges(group, members)
    return Job(directory, tuple(chunks), reduce_chunk, None)


def _ranges(group: str, counted: Sequence[Finished]) -> list[Chunk]:
    runs = tuple(
        finished.directory / run_name(number)
        for finished in counted
        for number in range(finished.results["runs"])
    )
    how: Counting = counted[0].chunk.task.how
    size = sum(path.stat().st_size for path in runs)
    ranges = 1
    while ranges < how.partitions and ranges * MERGED_BYTES < size:
        ranges *= 2
    step = how.partitions // ranges
    names = identity_digest({"chunks": [finished.chunk.name for finished in counted]})
    chunks = []
    for first in range(0, how.partitions, step):
        settings = {"format": FORMAT, "runs": names, "first": first, "stop": first + step}
        task = ReduceTask(group, runs, first, first + step, how)
        label = f"{group or 'all'}: partitions {first} to {first + step - 1}"
        chunks.append(Chunk(label, settings, (), size // ranges, task))
    return chunks


def reduce_chunk(
    _shared: None, task: ReduceTask, directory: Path, _advance: Advance
) -> dict[str, Any]:
    """Writes one run file with the partitions of all; returns its histogram of counts."""
    runs = [RunFile(path) for path in task.runs]
    path = directory / run_name(0)
    histogram = merge_partitions(runs, task.first, task.stop, task.how, path)
    return {"histogram": histogram.rows()}
