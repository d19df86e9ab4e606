"""The tokenizer stage: byte-level BPE over every source of the run, or another's vocabulary.

Counting and merging counts are jobs over the corpus (`stages.counting`), so that a stopped stage
goes on where it was; training is one process. Torch is not loaded here.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import regex

from penjing.artifacts.directories import discard, staged
from penjing.artifacts.progress import Progress
from penjing.artifacts.stage import append_event
from penjing.config.loading import identity
from penjing.config.schema import TokenizerConfig
from penjing.data.chunks import Chunk, Finished, Job, finished_job, sweep_unplanned
from penjing.data.corpus import JobProgress
from penjing.data.word_runs import Histogram, RunFile, histogram_of, run_name
from penjing.errors import ConfigError
from penjing.sources.quarantine import Quarantine
from penjing.stages.clean import dropped_files
from penjing.stages.compression import write_evaluation
from penjing.stages.context import StageContext
from penjing.stages.counting import QUARANTINE, CountTask, count_job, reduce_job, require_disk
from penjing.stages.inputs import SourcePart
from penjing.stages.jobs import Values, run_stage_job
from penjing.stages.vocabulary import taken_vocabulary, write_tokenizer
from penjing.text import native
from penjing.text.patterns import PATTERNS
from penjing.text.sampling import Threshold, choose_threshold
from penjing.text.tokenizer import Tokenizer
from penjing.text.vocabulary import SPECIAL_TOKENS, grown_vocabulary


def run(context: StageContext) -> dict[str, Any]:
    """Trains the tokenizer into `tokenizer/`, or takes one; returns what the report shows."""
    if context.config.tokenizer.from_ is not None and context.part is None:
        return _take(context)
    counts = _count_job(context)
    if context.part == "train":
        counted = finished_job(counts, _remedy("count"))
        merges = _reduce_job(context, counted)
        merged = finished_job(merges, _remedy("reduce"))
    else:
        counted = _run(context, counts, "texts")
        merges = _reduce_job(context, counted)
        merged = _run(context, merges, "")
    with staged(context.directory("tokenizer")) as directory:
        results = _train_all(context, merged, directory)
        results |= _totals(counted)
        parts = [(c.results["quarantine"], c.directory / QUARANTINE) for c in counted]
        results["bad_rows"] = Quarantine.merged(parts, directory / QUARANTINE).bad
    sweep_unplanned(counts)
    discard(merges.directory)
    write_evaluation(context, context.tokenizer())
    return results


def _take(context: StageContext) -> dict[str, Any]:
    """A vocabulary from a file instead of training one."""
    config = context.config.tokenizer
    tokenizer, remarks = taken_vocabulary(config, context.base)
    for remark in remarks:
        append_event(context.run_dir, "warning", "tokenizer", remark)
        _say(context, remark)
    with staged(context.directory("tokenizer")) as directory:
        write_tokenizer(directory, tokenizer, {"from": config.from_})
    write_evaluation(context, tokenizer)
    return _facts(tokenizer)


def _facts(tokenizer: Tokenizer) -> dict[str, Any]:
    lengths = tokenizer.byte_lengths()
    lengths = lengths[lengths > 1]
    return {
        "vocab_size": tokenizer.vocab_size,
        "special_tokens": len(tokenizer.special_ids),
        "digest": tokenizer.digest,
        "merge_bytes_mean": float(lengths.mean()) if len(lengths) else 0.0,
        "merge_bytes_max": int(lengths.max()) if len(lengths) else 0,
    }


def run_part(context: StageContext) -> None:
    """One task's share of the part `count` or `reduce`; whatever is finished is left alone.

    Raises:
        ArtifactError: reduce, and the count is not finished.
    """
    counts = _count_job(context)
    if context.part == "count":
        _run(context, counts, "texts")
    else:
        _run(context, _reduce_job(context, finished_job(counts, _remedy("count"))), "")


def _remedy(part: str) -> str:
    return f"do `--part {part}` first; only what is missing is done"


def _count_job(context: StageContext) -> Job:
    config = context.config.tokenizer
    if config.from_ is not None:
        raise ConfigError(
            "tokenizer.from: the vocabulary is taken from a file; there is nothing to count, "
            "reduce or train"
        )
    pattern = config.trained_pattern
    if pattern not in PATTERNS:
        try:
            regex.compile(pattern)
        except regex.error as error:
            raise ConfigError(
                f"tokenizer.pattern: found {pattern!r}; wanted one of {', '.join(PATTERNS)}, or a "
                f"regular expression ({error})"
            ) from error
        _say(context, "the pattern is none of the named ones: cutting by `regex`, which is slow")
    if not native.COMPILED:
        _say(
            context,
            "the compiled core was not built: counting and training in plain Python, which is slow "
            "(install g++ or clang, then the package again)",
        )
    directory = context.work_directory("tokenizer") / "count"
    sources, seed = context.config.sources, context.config.seed
    workers = context.conduct_with(config.workers).workers
    where = (context.base, seed, context.cache, dropped_files(context))
    return count_job(directory, config, sources, *where, workers)


def _reduce_job(context: StageContext, counted: Sequence[Finished]) -> Job:
    directory = context.work_directory("tokenizer") / "reduce"
    groups = [""] * len(counted)
    if context.config.tokenizer.languages:
        groups = [finished.chunk.task.part.source.language or "" for finished in counted]
        if not any(groups):
            raise ConfigError("tokenizer.languages: found no source that has a `language`")
    return reduce_job(directory, counted, groups)


def _say(context: StageContext, text: str) -> None:
    context.show(Progress("tokenizer", "message", text=text))


def _run(context: StageContext, job: Job, made: str) -> list[Finished]:
    name = job.directory.name
    if name == "count" and (warning := require_disk(job)):
        _say(context, warning)

    def values(news: JobProgress) -> Values:
        return ((made, float(news.made)),) if made else ()

    def part_of(chunk: Chunk) -> SourcePart | None:
        return chunk.task.part if isinstance(chunk.task, CountTask) else None

    workers = context.config.tokenizer.workers
    return run_stage_job(
        context, "tokenizer", job, workers, part_of=part_of, values=values, text=name
    )


def _train_all(
    context: StageContext, merged: Sequence[Finished], directory: Path
) -> dict[str, Any]:
    """The tokenizer of all text, and with `languages` one a language beside it; their facts."""
    groups: dict[str, list[Finished]] = {}
    for finished in merged:
        groups.setdefault(finished.chunk.task.group, []).append(finished)
    facts = {}
    for group, parts in groups.items():
        tokenizer, found = _train(context, parts, group)
        (directory / group).mkdir(exist_ok=True)
        config = context.config.tokenizer
        training = identity(config) | {"pattern": config.trained_pattern, "language": group or None}
        write_tokenizer(directory / group, tokenizer, training)
        facts[group] = found
    results = facts.pop("")
    return results | ({"languages": facts} if facts else {})


def _train(
    context: StageContext, parts: Sequence[Finished], group: str
) -> tuple[Tokenizer, dict[str, Any]]:
    config = context.config.tokenizer

    def on_progress(done: int, total: int) -> None:
        context.show(Progress("tokenizer", "progress", done, total, text=f"train {group}".strip()))

    clock = time.monotonic()
    histogram = histogram_of(part.results["histogram"] for part in parts)
    chosen = Threshold(1, 1.0, 1.0) if config.exact else _threshold(histogram, config)
    blobs = [native.sample_words(blob, chosen.threshold) for blob in _words(parts)]
    wanted = config.trained_vocab_size - 256 - len(SPECIAL_TOKENS)
    pairs, counts = native.train_merges(blobs, wanted, on_progress)
    tokenizer = Tokenizer(grown_vocabulary(pairs.tolist(), config.trained_pattern))
    return tokenizer, _facts(tokenizer) | {
        "train_seconds": time.monotonic() - clock,
        "unique_words": int(histogram.words.sum()),
        "threshold": chosen.threshold,
        "kept_mass": chosen.kept_occurrences,
        "last_merge_count": int(counts[-1]) if len(counts) else None,
    }


def _threshold(histogram: Histogram, config: TokenizerConfig) -> Threshold:
    memory_bytes, num_merges = config.train_memory_bytes, config.trained_vocab_size
    return choose_threshold(
        histogram.counts, histogram.words, histogram.bytes, memory_bytes, num_merges
    )


def _words(parts: Sequence[Finished]) -> Iterator[bytes]:
    for part in parts:
        run_file = RunFile(part.directory / run_name(0))
        for number in range(run_file.partitions):
            yield run_file.partition(number)


def _totals(counted: Sequence[Finished]) -> dict[str, int]:
    keys = ("characters", "texts", "bytes", "pieces")
    return {key: sum(finished.results[key] for finished in counted) for key in keys}
