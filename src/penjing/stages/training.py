"""What the five training stages share: their fit job, their samples, and what they report.

What a stage starts from, its batches and its objective are said in the stage's own module.
"""

from collections.abc import Callable, Iterator
from typing import Any

from penjing.artifacts.lines import LineLog
from penjing.artifacts.records import SampleRecord
from penjing.config.training import DpoConfig, RlConfig, TrainingConfig
from penjing.generate.engine import Request, generate
from penjing.generate.sampling import Sampling
from penjing.generate.tools import calculator_turn
from penjing.model.language_model import LanguageModel
from penjing.model.size import parameters
from penjing.seeds import seed_for
from penjing.stages.context import StageContext
from penjing.stages.machine import open_machine
from penjing.text.conversation import Conversation, text_message
from penjing.text.template import render_prompt
from penjing.text.tokenizer import Tokenizer, tokenizer_files
from penjing.train.checkpoint import TokenizerBundle
from penjing.train.fit import FitResult
from penjing.train.job import FitJob, Probe, ProbeResult
from penjing.train.loop import BatchT, Objective
from penjing.train.optimizer import build_optimizer
from penjing.train.schedule import factor

SAMPLE_TEMPERATURE = 0.7

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
) -> FitJob[BatchT]:
    """The stage's table, model, objective and batches as one job; samples are its last probe."""
    tokenizer = context.tokenizer()
    return FitJob(
        directory=context.directory(stage),
        stage=stage,
        seed=context.config.seed,
        runtime=open_machine(context),
        model=model,
        optimizer=build_optimizer(model, section.optimizer),
        objective=objective,
        open_batches=open_batches,
        schedule=lambda step: factor(step, steps, section.schedule),
        steps=steps,
        rows_per_step=rows_per_step,
        microbatch_rows=section.microbatch_rows,
        max_grad_norm=section.optimizer.max_grad_norm,
        cadence=section.cadence,
        probes=(*probes, _sample_probe(stage, section, model, tokenizer, context.config.seed)),
        tokenizer=TokenizerBundle(
            files=tokenizer_files(tokenizer),
            digest=tokenizer.digest,
            end_of_text=tokenizer.end_of_text,
            im_end=tokenizer.im_end,
        ),
        show=context.show,
        logs=logs,
    )


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


def _sample_probe(
    stage: str, section: Section, model: LanguageModel, tokenizer: Tokenizer, seed: int
) -> Probe:
    """Answers to fixed prompts; the same prompt has the same seed at every step.

    A pretrained model continues the prompt as plain text; later stages answer it.
    """
    prompts = section.sample_prompts
    stop_ids = (tokenizer.im_end, tokenizer.end_of_text)

    def ids_of(prompt: str) -> tuple[int, ...]:
        if stage != "pretrain":
            return tuple(render_prompt(tokenizer, Conversation((text_message("user", prompt),))))
        return (tokenizer.end_of_text, *tokenizer.encode(prompt))

    def run(step: int) -> ProbeResult:
        sampling = Sampling(temperature=SAMPLE_TEMPERATURE, max_new_tokens=section.sample_tokens)
        seeds = [seed_for(seed, "sample", prompt) for prompt in prompts]
        completions = generate(
            model,
            [Request(ids_of(p), sampling, s) for p, s in zip(prompts, seeds, strict=True)],
            stop_ids=stop_ids,
            answer_turn=calculator_turn(tokenizer),
        )
        return ProbeResult(
            samples=tuple(
                SampleRecord(
                    stage=stage,
                    step=step,
                    prompt=prompt,
                    text=tokenizer.decode(
                        [token for token in completion.ids if token not in stop_ids]
                    ),
                    tokens=len(completion.ids),
                    finish_reason=completion.finish_reason,
                    temperature=SAMPLE_TEMPERATURE,
                    seed=prompt_seed,
                )
                for prompt, prompt_seed, completion in zip(prompts, seeds, completions, strict=True)
            )
        )

    return Probe("samples", section.cadence.sample_every_steps, run)
