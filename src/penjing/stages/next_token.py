"""What pretrain, midtrain and sft share: next-token training on a mixture of shards.

The three stages differ in where their weights come from and in their tables of the run file.
"""

from collections.abc import Callable, Iterator
from typing import Any

from penjing.config.training import TrainingConfig
from penjing.data.batches import Batch, RowStream, validation_batch
from penjing.data.mixture import MixturePlan
from penjing.data.shards import Shard, open_shard
from penjing.errors import ConfigError
from penjing.evaluate.bits_per_byte import text_loss
from penjing.model.transformer import Transformer
from penjing.runtime import Runtime
from penjing.seeds import seed_for
from penjing.stages.context import StageContext
from penjing.stages.machine import open_machine
from penjing.stages.training import training_job, training_summary
from penjing.text.tokenizer import Tokenizer
from penjing.train.fit import Probe, ProbeResult, fit
from penjing.train.objectives import next_token


def train_on_mixture(
    context: StageContext, stage: str, section: TrainingConfig, model: Transformer, start: str
) -> dict[str, Any]:
    """Trains `model` as the stage's table says; returns what the report shows.

    Args:
        context: the run.
        stage: pretrain, midtrain or sft.
        section: its table.
        model: starting weights, on the runtime's device.
        start: the stage that they come from, for the report.
    """
    runtime = open_machine(context)
    tokenizer = context.tokenizer()
    stream = open_stream(context, stage, section, tokenizer, runtime)
    rows_per_step = section.tokens_per_step // context.config.model.max_position_embeddings
    job = training_job(
        context,
        stage,
        section,
        model,
        objective=next_token,
        open_batches=lambda step: stream.step_batches(step * rows_per_step),
        rows_per_step=rows_per_step,
        probes=tuple(_probes(context, stage, section, tokenizer, runtime, model)),
    )
    result, planned = fit(job), section.steps * section.tokens_per_step
    return training_summary(result, start, model, planned) | {
        "mixture": _mixture(stream, result.tokens),
        "utilization": result.tokens / planned,
    }


def open_stream(
    context: StageContext,
    stage: str,
    section: TrainingConfig,
    tokenizer: Tokenizer,
    runtime: Runtime,
) -> RowStream:
    """The rows of a stage: a pure function of the run file and the shards."""
    context_tokens = context.config.model.max_position_embeddings
    rows_per_step = section.tokens_per_step // context_tokens
    if rows_per_step % runtime.world_size:
        raise ConfigError(
            f"{stage}.tokens_per_step is {section.tokens_per_step}, {rows_per_step} rows: wanted a "
            f"multiple of the {runtime.world_size} ranks"
        )
    shards = [
        open_shard(context.directory("shards"), f"{share.source}.train", tokenizer.digest)
        for share in section.mixture
    ]
    return RowStream(
        shards=shards,
        plan=MixturePlan(section.mixture, section.steps * rows_per_step),
        rows_per_step=rows_per_step,
        row_tokens=context_tokens,
        end_of_text=tokenizer.end_of_text,
        seed=seed_for(context.config.seed, stage, "order"),
        rank=runtime.rank,
        world_size=runtime.world_size,
    )


def validation_shards(context: StageContext, tokenizer: Tokenizer, kind: str) -> list[Shard]:
    """The validation shards of every source of that kind, in the order of the run file."""
    return [
        open_shard(context.directory("shards"), f"{source.name}.validation", tokenizer.digest)
        for source in context.config.sources
        if source.kind == kind
    ]


def _probes(
    context: StageContext,
    stage: str,
    section: TrainingConfig,
    tokenizer: Tokenizer,
    runtime: Runtime,
    model: Transformer,
) -> Iterator[Probe]:
    kinds = {"documents": "validation_bpb", "conversations": "validation_chat_bpb"}
    for kind, name in kinds.items():
        if kind == "conversations" and stage == "pretrain":
            continue
        batch = validation_rows(context, tokenizer, kind, section.validation_rows)
        if batch is not None:
            yield Probe(
                name,
                section.cadence.evaluate_every_steps,
                bits_probe(name, model, tokenizer, batch.to(runtime.device)),
            )


def bits_probe(
    name: str, model: Transformer, tokenizer: Tokenizer, batch: Batch
) -> Callable[[int], ProbeResult]:
    """Bits per byte of the model, as it then is, on a fixed batch."""
    byte_lengths = tokenizer.byte_lengths()

    def run(_: int) -> ProbeResult:
        loss = text_loss(model, batch.split(16), byte_lengths)
        return ProbeResult(values={name: loss.bits_per_byte})

    return run


def validation_rows(
    context: StageContext, tokenizer: Tokenizer, kind: str, rows: int
) -> Batch | None:
    """Fixed validation rows of that kind; None where the run has no such text."""
    shards = [shard for shard in validation_shards(context, tokenizer, kind) if shard.documents]
    if not shards:
        return None
    row_tokens = context.config.model.max_position_embeddings
    return validation_batch(
        shards, row_tokens=row_tokens, rows=rows, end_of_text=tokenizer.end_of_text
    )


def _mixture(stream: RowStream, tokens: int) -> list[dict[str, Any]]:
    """Requested and realised shares of rows, by source, and how often it was read.

    `epochs` takes the stage's tokens as spread over the sources like its rows: packing fills the
    rows of all sources nearly alike.
    """
    realised = stream.plan.realised(stream.plan.total_rows)
    return [
        {
            "source": share.source,
            "requested_start": share.start,
            "requested_end": share.end,
            "realised": realised[share.source],
            "epochs": realised[share.source] * tokens / shard.tokens,
        }
        for share, shard in zip(stream.plan.shares, stream.shards, strict=True)
    ]
