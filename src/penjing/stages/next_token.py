"""What pretrain, midtrain and sft share: next-token training on a mixture of shards.

The three stages differ in where their weights come from and in their tables of the run file.
"""

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from penjing.artifacts.lines import read_records
from penjing.artifacts.records import StepRecord
from penjing.config.training import MixtureShare, TrainingConfig
from penjing.data.batches import RowStream, ValidationRows, validation_batch
from penjing.data.feeding import Feeding, feed
from penjing.data.mixture import Segment, sources_of
from penjing.data.overlong import TurnMarks
from penjing.data.shards import Shard, open_shard
from penjing.errors import ConfigError
from penjing.evaluate.bits_per_byte import TextLoss, text_loss
from penjing.model.language_model import LanguageModel
from penjing.runtime import Runtime
from penjing.seeds import seed_for
from penjing.stages.context import StageContext
from penjing.stages.horizon import Measures, open_plan, rows_per_step
from penjing.stages.machine import open_machine
from penjing.stages.shares import shares_of, shares_probe, warn_of_exhaustion
from penjing.stages.training import (
    compile_if_it_pays,
    microbatch_rows,
    training_job,
    training_summary,
)
from penjing.text.tokenizer import Tokenizer
from penjing.train.fit import fit
from penjing.train.job import Probe, ProbeResult
from penjing.train.loop import train_steps
from penjing.train.objectives import next_token
from penjing.train.optimizer import build_optimizer

CALIBRATION_STEPS = 8
VALIDATION_ROWS = 16
"""Rows of one forward pass."""


def train_on_mixture(
    context: StageContext, stage: str, section: TrainingConfig, model: LanguageModel, start: str
) -> dict[str, Any]:
    """Trains `model` as the stage's table says; returns what the report shows.

    Args:
        context: the run.
        stage: pretrain, midtrain or sft.
        section: its table.
        model: starting weights, on the runtime's device.
        start: the stage that they come from, for the report.
    """
    runtime, tokenizer = open_machine(context), context.tokenizer()
    rows = rows_per_step(section, model.shape)

    def opened(segments: Sequence[Segment]) -> RowStream:
        return replace(
            open_stream(context, stage, segments, rows, tokenizer, runtime),
            cut=section.cut,
            overlong=section.overlong,
        )

    alike = tuple(MixtureShare(share.source, 1.0, 1.0) for share in section.mixture)
    every_source = (Segment(0, alike, 1),)
    measures = Measures(
        model.shape,
        lambda: opened(every_source).rows_an_epoch(),
        lambda: _seconds_per_step(section, model, opened(every_source), runtime),
    )
    plan = open_plan(context.directory(stage), section, measures)
    stream = opened(plan.segments)
    warn_of_exhaustion(context, stage, stream, plan.steps)
    job = training_job(
        context,
        stage,
        section,
        model,
        objective=next_token,
        open_batches=lambda step: feed(stream, step * rows, feeding_of(context, runtime)),
        steps=plan.steps,
        rows_per_step=rows,
        probes=(
            *_probes(context, stage, section, tokenizer, runtime, model),
            shares_probe(stream, section.cadence.evaluate_every_steps),
        ),
    )
    compile_if_it_pays(context, stage, job, section.tokens_per_step)
    result, planned = fit(job), plan.steps * section.tokens_per_step
    return training_summary(result, start, model, planned) | {
        "mixture": shares_of(stream, result.tokens, plan.steps),
        "utilization": result.tokens / planned,
        "flops": planned * job.flops_per_token,
        "final_bpb": _final(context, stage, "validation_bpb"),
        "overlong": section.overlong,
    }


def _final(context: StageContext, stage: str, name: str) -> float | None:
    """The last value of a probe."""
    records = read_records(context.directory(stage) / "metrics.jsonl", StepRecord)
    found = [record.values[name] for record in records if name in record.values]
    return found[-1] if found else None


def open_stream(
    context: StageContext,
    stage: str,
    segments: Sequence[Segment],
    rows: int,
    tokenizer: Tokenizer,
    runtime: Runtime,
) -> RowStream:
    """The rows of a stage, so many a step: a pure function of its plan and the shards."""
    if rows % runtime.world_size:
        raise ConfigError(
            f"{stage}.tokens_per_step comes to {rows} rows: wanted a multiple of the "
            f"{runtime.world_size} ranks"
        )
    return RowStream(
        shards=[
            open_shard(context.directory("shards"), f"{source}.train", tokenizer.digest)
            for source in sources_of(segments)
        ],
        segments=segments,
        rows_per_step=rows,
        row_tokens=context.config.model.max_position_embeddings,
        end_of_text=tokenizer.end_of_text,
        seed=seed_for(context.config.seed, stage, "order"),
        marks=TurnMarks(
            tokenizer.im_start,
            (tokenizer.im_start, *tokenizer.encode("assistant\n")),
            tokenizer.special_id("<tool_response>"),
        ),
        memory_bytes=context.config.runtime.data_memory_bytes,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )


def feeding_of(context: StageContext, runtime: Runtime) -> Feeding:
    """How the run's batches are made: ahead where the device would wait for them."""
    wanted = context.config.runtime
    ahead = int(runtime.pins_memory) if wanted.data_workers is None else wanted.data_workers
    return Feeding(ahead, wanted.prefetch_steps, runtime.pins_memory)


def _seconds_per_step(
    section: TrainingConfig, model: LanguageModel, stream: RowStream, runtime: Runtime
) -> float:
    """The median of some steps of a copy that is thrown away, after some that warm up."""
    again, seconds, begun = copy.deepcopy(model), list[float](), time.monotonic()
    for _ in train_steps(
        again,
        build_optimizer(again, section.optimizer),
        next_token,
        stream.step_batches(0),
        runtime,
        steps=range(1, CALIBRATION_STEPS + 1),
        microbatch_rows=microbatch_rows(section, model, runtime, stream.rows_per_step),
        schedule=lambda _: 1.0,
        max_grad_norm=section.optimizer.max_grad_norm,
    ):
        seconds.append(time.monotonic() - begun)
        begun = time.monotonic()
    return statistics.median(seconds[CALIBRATION_STEPS // 2 :])


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
    model: LanguageModel,
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
    name: str, model: LanguageModel, tokenizer: Tokenizer, rows: ValidationRows
) -> Callable[[int], ProbeResult]:
    """Bits per byte of the model, as it then is, on fixed rows: of all, and `NAME.SOURCE` of each
    source, by which it is seen what is forgotten while others come in.
    """
    byte_lengths = tokenizer.byte_lengths()

    def run(_: int) -> ProbeResult:
        found = {
            shard.removesuffix(".validation"): text_loss(
                model, batch.split(VALIDATION_ROWS), byte_lengths
            )
            for shard, batch in rows.by_shard()
        }
        values = {name: sum(found.values(), TextLoss(0.0, 0, 0)).bits_per_byte}
        if len(found) > 1:
            values |= {f"{name}.{source}": loss.bits_per_byte for source, loss in found.items()}
        return ProbeResult(values=values)

    return run


def validation_rows(
    context: StageContext, tokenizer: Tokenizer, kind: str, rows: int
) -> ValidationRows | None:
    """Fixed validation rows of that kind; None where the run has no such text."""
    shards = [shard for shard in validation_shards(context, tokenizer, kind) if shard.documents]
    if not shards:
        return None
    row_tokens = context.config.model.max_position_embeddings
    return validation_batch(
        shards, row_tokens=row_tokens, rows=rows, end_of_text=tokenizer.end_of_text
    )
