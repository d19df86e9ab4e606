"""The verb `plan`: what a run will read and train on, to the token, before and while it does.

Numbers are exact once the shards are finished; before, what is not known is said to be unknown.
Torch is not loaded here.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing.artifacts.lines import read_records
from penjing.artifacts.records import Manifest, StepRecord
from penjing.artifacts.stage import read_manifest
from penjing.config.model import ModelShape
from penjing.config.schema import RunConfig, SourceConfig
from penjing.config.training import TrainingConfig
from penjing.data.mixture import MixturePlan, Segment, sources_of
from penjing.data.packing import SourceRows, open_rows
from penjing.data.shards import open_shard
from penjing.model.size import flops_per_token, parameters, published_flops_per_token
from penjing.seeds import seed_for
from penjing.sources.listing import find_files, named_at_urls
from penjing.stages.context import StageContext
from penjing.stages.horizon import Measures, horizon_of, read_plan, rows_per_step, steps_of
from penjing.stages.vocabulary import taken_vocabulary

CHARACTERS_PER_TOKEN = 4.8
"""Of English web text in large vocabularies, where nothing was measured. Source: nanochat."""

MIXED_STAGES = ("pretrain", "midtrain", "sft")


@dataclass(frozen=True)
class SourceFacts:
    """A source: its files and their bytes on disk, and, of finished shards, what is in them."""

    name: str
    files: int
    file_bytes: int
    documents: int | None
    text_bytes: int | None
    tokens: int | None
    file_characters: int | None


@dataclass(frozen=True)
class ShareFacts:
    """What a stage takes of a source: its share of rows, on average, and how often it reads it.
    `exhausted_at_step`: from then on it was read as often as it may be.
    """

    source: str
    share: float
    epochs: float | None
    exhausted_at_step: int | None


@dataclass(frozen=True)
class StageFacts:
    """A stage's length: positions planned over all ranks, and consumed so far; `steps` is None if
    it cannot be told yet, and `reason` says why.
    """

    name: str
    steps: int | None
    reason: str
    rows_per_step: int
    tokens_per_step: int
    tokens: int | None
    consumed: int
    tokens_per_parameter: float | None
    flops: float | None
    shares: tuple[ShareFacts, ...]


@dataclass(frozen=True)
class RunFacts:
    """The whole plan."""

    vocab_size: int
    parameters: int
    flops_per_token: int
    published_flops_per_token: int
    bytes_per_token: float | None
    sources: tuple[SourceFacts, ...]
    stages: tuple[StageFacts, ...]


def plan_run(config: RunConfig, base: Path, runs: Path) -> RunFacts:
    """Everything that is known of the run.

    Raises:
        DataError: a source names no files, or files of a range are missing: they are named.
    """
    context = StageContext(config, base, runs / config.name, lambda _: None)
    shape = config.model.shape(_vocab_size(context))
    shards = read_manifest(context.directory("shards"))
    found = {one["name"]: one for one in shards.results["sources"]} if shards else {}
    sources = tuple(_source(source, base, found.get(source.name)) for source in config.sources)
    whole = [one for one in sources if one.tokens and one.text_bytes]
    tokens, text = (sum(getattr(one, key) for one in whole) for key in ("tokens", "text_bytes"))
    stages = [
        _stage(context, name, section, shape, shards)
        for name in MIXED_STAGES
        if (section := getattr(config, name)) is not None
    ]
    per_token = flops_per_token(shape, shape.max_position_embeddings)
    published = published_flops_per_token(shape, shape.max_position_embeddings)
    return RunFacts(
        shape.vocab_size,
        parameters(shape).total,
        per_token,
        published,
        text / tokens if tokens else None,
        sources,
        tuple(stages),
    )


def _vocab_size(context: StageContext) -> int:
    if read_manifest(context.directory("tokenizer")) is not None:
        return context.tokenizer().vocab_size
    if context.config.tokenizer.from_ is not None:
        return taken_vocabulary(context.config.tokenizer, context.base)[0].vocab_size
    return context.config.tokenizer.trained_vocab_size


def _source(source: SourceConfig, base: Path, found: dict[str, Any] | None) -> SourceFacts:
    # What lies elsewhere is not asked for: planning needs no network.
    paths = (*source.paths, *source.validation_paths)
    files = find_files([path for path in paths if "://" not in path], base)
    size, count = sum(path.stat().st_size for path in files), len(files) + named_at_urls(paths)
    documents, text, tokens = (
        found.get(key) if found else None for key in ("documents", "bytes", "tokens")
    )
    return SourceFacts(source.name, count, size, documents, text, tokens, source.file_characters)


def _stage(
    context: StageContext,
    name: str,
    section: TrainingConfig,
    shape: ModelShape,
    shards: Manifest | None,
) -> StageFacts:
    rows, per_step = rows_per_step(section, shape), section.tokens_per_step
    pools = _pools(context, name, section, shape) if shards else {}
    recorded = read_plan(context.directory(name))
    known = recorded is not None and recorded.horizon == horizon_of(section)
    steps, reason = (recorded.steps, "") if recorded and known else _steps(section, shape, pools)
    new = (Segment(0, section.mixture, (steps or 0) * rows),)
    segments = recorded.segments if recorded else new
    tokens = None if steps is None else steps * per_step
    done = read_records(context.directory(name) / "metrics.jsonl", StepRecord)
    cost = flops_per_token(shape, shape.max_position_embeddings)
    return StageFacts(
        name,
        steps,
        reason,
        rows,
        per_step,
        tokens,
        consumed=per_step * sum(1 for _ in done),
        tokens_per_parameter=tokens / parameters(shape).total if tokens else None,
        flops=float(tokens * cost) if tokens else None,
        shares=tuple(_shares(segments, steps or 0, rows, shape, pools)),
    )


def _pools(
    context: StageContext, stage: str, section: TrainingConfig, shape: ModelShape
) -> dict[str, SourceRows]:
    """The rows of each source of the stage's mixture, as training has them."""
    digest = context.tokenizer().digest
    recorded = read_plan(context.directory(stage))
    segments = recorded.segments if recorded else (Segment(0, section.mixture, 1),)
    shards = {
        name: open_shard(context.directory("shards"), f"{name}.train", digest)
        for name in sources_of(segments)
    }
    seed = seed_for(context.config.seed, stage, "order")
    row_tokens = shape.max_position_embeddings
    return open_rows(shards, row_tokens, seed, section.cut, section.overlong)


def _steps(
    section: TrainingConfig, shape: ModelShape, pools: dict[str, SourceRows]
) -> tuple[int | None, str]:
    form = horizon_of(section)[0]
    if form == "seconds":
        return None, "the speed is measured when the stage begins"
    if form == "epochs" and not pools:
        return None, "an epoch's rows are known when the shards are finished"

    def rows_an_epoch() -> int:
        return sum(pool.rows_an_epoch() for pool in pools.values())

    return steps_of(section, Measures(shape, rows_an_epoch, lambda: 1.0)), ""


def _shares(
    segments: Sequence[Segment],
    steps: int,
    rows: int,
    shape: ModelShape,
    pools: dict[str, SourceRows],
) -> Iterator[ShareFacts]:
    """Nothing of a stage whose length is unknown, or whose shares speak of unknown epochs."""
    counted = any(share.epochs or share.max_epochs for part in segments for share in part.shares)
    if not steps or (counted and not pools):
        return
    plan = MixturePlan(segments, shape.max_position_embeddings, pools)
    realised = plan.realised(steps * rows)
    for name in plan.sources:
        taken = realised[name] * steps * rows
        epochs = taken / pools[name].rows_an_epoch() if name in pools else None
        row = plan.exhausted.get(name)
        yield ShareFacts(name, realised[name], epochs, None if row is None else row // rows + 1)


def lines(facts: RunFacts) -> Iterator[str]:
    """What a person reads of it."""
    yield (
        f"model: {facts.parameters:,} parameters, {facts.flops_per_token:.4g} operations a token"
    )
    for source in facts.sources:
        yield f"source {source.name}: {_contents(source)}"
    if facts.bytes_per_token is not None:
        yield f"measured: {facts.bytes_per_token:.3f} bytes of text a token"
    else:
        yield "tokens of the sources: unknown until `penjing shards` has made them"
    for stage in facts.stages:
        if stage.steps is None or stage.tokens is None:
            yield f"{stage.name}: length unknown: {stage.reason}"
            continue
        yield (
            f"{stage.name}: {stage.steps:,} steps x {stage.rows_per_step:,} rows = "
            f"{stage.tokens:,} tokens planned, {stage.consumed:,} consumed; "
            f"{stage.tokens_per_parameter:.2f} a parameter, {stage.flops:.4g} operations "
            f"({stage.tokens * facts.published_flops_per_token:.6e} as nanochat counts)"
        )
        yield from _files_needed(facts, stage)
        for share in stage.shares:
            read = "" if share.epochs is None else f", {share.epochs:.2f} epochs"
            if share.exhausted_at_step is not None:
                read += f", until its max_epochs at step {share.exhausted_at_step:,}"
            yield f"  {share.source}: {share.share:.1%} of the rows{read}"


def _files_needed(facts: RunFacts, stage: StageFacts) -> Iterator[str]:
    """How many files of a source a stage reads, where the run file says how much one holds."""
    sources = {source.name: source for source in facts.sources}
    for share in stage.shares:
        source = sources[share.source]
        if source.file_characters is None or stage.tokens is None:
            continue
        characters = stage.tokens * share.share * (facts.bytes_per_token or CHARACTERS_PER_TOKEN)
        needed = math.ceil(characters / source.file_characters)
        verdict = "" if needed <= source.files else ": too few, text would be read again"
        yield (
            f"  {share.source}: {needed:,} files of {source.file_characters:,} characters at "
            f"{facts.bytes_per_token or CHARACTERS_PER_TOKEN:.2f} a token, the run file names "
            f"{source.files:,}{verdict}"
        )


def _contents(source: SourceFacts) -> str:
    files = f"{source.files:,} files" if source.files else "generated, or names unknown"
    files += f" of {source.file_bytes:,} bytes" if source.file_bytes else ""
    if source.tokens is None:
        return files
    return (
        f"{source.documents:,} documents, {source.text_bytes:,} bytes of text, "
        f"{source.tokens:,} tokens for training; {files}"
    )
