"""What the five training stages share: their fit job, and what they report.

What a stage starts from, its batches and its objective are said in the stage's own module.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from penjing.artifacts.lines import LineLog
from penjing.artifacts.progress import Progress
from penjing.artifacts.stage import append_event
from penjing.config.training import DpoConfig, RlConfig, TrainingConfig
from penjing.model.causal import keeps_weights
from penjing.model.compilation import attempt, compile_block
from penjing.model.language_model import LanguageModel
from penjing.model.memory import training_bytes
from penjing.model.size import flops_per_token, parameters
from penjing.runtime import Runtime, keep_compiled_code
from penjing.stages.context import StageContext
from penjing.stages.machine import open_machine
from penjing.stages.samples import sample_probe
from penjing.text.tokenizer import tokenizer_files
from penjing.train.checkpoint import TokenizerBundle
from penjing.train.fit import FitResult
from penjing.train.job import FitJob, Probe
from penjing.train.journal import Tracker
from penjing.train.loop import BatchT, Objective
from penjing.train.optimizer import build_optimizer
from penjing.train.schedule import factor
from penjing.train.trackers import open_trackers

CPU_MICROBATCH_TOKENS = 4096
"""More are not faster on a CPU, and leave its caches."""

MEMORY_SHARE = 0.8
"""Of a device's memory, for training; the rest is for what the memory model does not know."""

EXPECTED_UTILIZATION = 0.5

COMPILE_FROM_SECONDS = {"cpu": 300.0, "else": 60.0}
"""Of expected training: compiling costs a CPU some 20 s at first and saves it some 8 %; an
accelerator wins a third and more."""

Section = TrainingConfig | DpoConfig | RlConfig


def training_job(
    context: StageContext,
    stage: str,
    section: Section,
    model: LanguageModel,
    *,
    objective: Objective[BatchT],
    open_batches: Callable[[int], Iterator[BatchT]],
    steps: int,
    rows_per_step: int,
    probes: tuple[Probe, ...] = (),
    logs: tuple[LineLog, ...] = (),
    skips_spikes: bool = True,
) -> FitJob[BatchT]:
    """The stage's table, model, objective and batches as one job; samples are its last probe."""
    tokenizer, runtime = context.tokenizer(), open_machine(context)
    model.checkpoints_blocks = context.config.runtime.gradient_checkpointing
    context_tokens = context.config.model.max_position_embeddings
    return FitJob(
        directory=context.directory(stage),
        stage=stage,
        seed=context.config.seed,
        runtime=runtime,
        model=model,
        optimizer=build_optimizer(model, section.optimizer),
        objective=objective,
        open_batches=open_batches,
        schedule=lambda step: factor(step, steps, section.schedule),
        steps=steps,
        rows_per_step=rows_per_step,
        microbatch_rows=microbatch_rows(section, model, runtime, rows_per_step),
        max_grad_norm=section.optimizer.max_grad_norm,
        cadence=section.cadence,
        probes=(*probes, sample_probe(stage, section, model, tokenizer, context.config.seed)),
        tokenizer=TokenizerBundle(
            files=tokenizer_files(tokenizer),
            digest=tokenizer.digest,
            end_of_text=tokenizer.end_of_text,
            im_end=tokenizer.im_end,
        ),
        show=context.show,
        logs=logs,
        trackers=_trackers(context, stage, runtime),
        flops_per_token=flops_per_token(model.shape, context_tokens),
        skips_spikes=skips_spikes,
    )


def _trackers(context: StageContext, stage: str, runtime: Runtime) -> tuple[Tracker, ...]:
    """Those of the run file; of several ranks only the first tells them anything."""
    if runtime.rank:
        return ()
    names = context.config.runtime.trackers
    return open_trackers(names, context.run_dir, stage, context.config.name)


def microbatch_rows(
    section: Section, model: LanguageModel, runtime: Runtime, rows_per_step: int
) -> int:
    """Rows of each of the equal parts into which a step is cut, so that one compiled shape serves
    all: at most the table's number, or for "auto" the most that memory holds by the memory model;
    the first step confirms it, since the loop halves what does not fit.
    """
    of_a_rank = max(1, rows_per_step // runtime.world_size)
    if section.microbatch_rows == "auto":
        rows = _fitting_rows(model, runtime, of_a_rank)
    else:
        rows = section.microbatch_rows
    return equal_part(of_a_rank, rows)


def equal_part(rows: int, at_most: int) -> int:
    """Rows of the largest of the fewest parts, as equal as can be, of at most that many rows."""
    parts = -(-rows // at_most)
    return -(-rows // parts)


def _fitting_rows(model: LanguageModel, runtime: Runtime, rows: int) -> int:
    context = model.shape.max_position_embeddings
    if runtime.device.type == "cpu":
        rows = min(rows, max(1, CPU_MICROBATCH_TOKENS // context))
    needed = partial(
        training_bytes,
        model.shape,
        tokens=context,
        keeps_attention=keeps_weights(runtime.device, runtime.dtype),
        checkpoints_blocks=model.checkpoints_blocks,
    )
    while rows > 1 and needed(rows) > MEMORY_SHARE * runtime.total_memory_bytes():
        rows = (rows + 1) // 2
    return max(1, rows)


def compile_if_it_pays(
    context: StageContext, stage: str, job: FitJob[BatchT], tokens_per_step: int
) -> None:
    """Compile the model's block where the run file wants it, or the stage is long enough for it.

    How long follows from the plan and the machine's recorded peak alone, so that a resumed stage
    does as it did.
    """
    runtime, model = job.runtime, job.model
    context_tokens = model.shape.max_position_embeddings
    flops = job.steps * tokens_per_step * job.flops_per_token
    if not compilation_pays(context.config.runtime.compile, runtime, flops):
        return
    keep_compiled_code(context.run_dir.parent / ".cache" / "compiled")
    if runtime.rank == 0:
        text = "compiling the model's block"
        context.show(Progress(stage, "message", text=text))
    parts = {"model's block": compile_block(model, job.microbatch_rows, context_tokens)}
    if runtime.device.type != "cpu":  # there the optimizer's products are all that counts
        parts["optimizer"] = attempt(job.optimizer.compile)
    for what, done in parts.items():
        kind, told = "compiled", f"compiled the {what} in {done.seconds:.1f} s"
        if done.failure:
            kind = "warning"
            told = (
                f"the {what} could not be compiled: it runs eagerly, slower and with other bits "
                f'({done.failure}); runtime.compile = "off" does not try'
            )
        if runtime.rank == 0:
            append_event(context.run_dir, kind, stage, told, seconds=done.seconds)
            context.show(Progress(stage, "message", text=told))


def compilation_pays(wanted: str, runtime: Runtime, flops: float) -> bool:
    """Whether a stage of so many operations is compiled, as `runtime.compile` wants it."""
    seconds = flops / (EXPECTED_UTILIZATION * max(runtime.peak, 1.0) * 1e9) / runtime.world_size
    least = COMPILE_FROM_SECONDS["cpu" if runtime.device.type == "cpu" else "else"]
    return wanted == "block" or (wanted == "auto" and seconds >= least)


def training_summary(
    result: FitResult, start_stage: str, model: LanguageModel, planned_tokens: int | None
) -> dict[str, Any]:
    """What every training stage's manifest says of its end; not every stage can plan its tokens."""
    return {
        "parameters": parameters(model.shape).total,
        "planned_tokens": planned_tokens,
        "steps": result.steps,
        "tokens": result.tokens,
        "targets": result.targets,
        "skipped_steps": result.skipped_steps,
        "final_loss": result.loss,
        "start_stage": start_stage,
        "checkpoint": result.checkpoint.name,
        "resumed_from_step": result.resumed_from_step,
    }
