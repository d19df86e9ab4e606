"""The evaluate stage: every trained stage of the run, measured on the same held-out problems."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from penjing.artifacts.directories import staged
from penjing.artifacts.progress import Progress
from penjing.artifacts.records import TaskResult
from penjing.evaluate.bits_per_byte import TextLoss, document_windows, text_loss
from penjing.evaluate.suite import SuiteSettings, TaskProblems, evaluate_stage
from penjing.model.language_model import LanguageModel
from penjing.seeds import seed_for
from penjing.stages.context import StageContext
from penjing.stages.machine import load_model
from penjing.stages.next_token import validation_rows, validation_shards
from penjing.stages.problems import problems
from penjing.tasks.suite import TASKS
from penjing.text.tokenizer import Tokenizer

ROWS_PER_PASS = 16


def run(context: StageContext) -> dict[str, Any]:
    """Writes `evaluate/STAGE.TASK.METRIC.json`; returns every score without its items."""
    tokenizer = context.tokenizer()
    section, seed = context.config.evaluate, seed_for(context.config.seed, "evaluate")
    settings = SuiteSettings(section.samples_per_problem, section.max_new_tokens, seed)
    suite = _suite(context)
    stages = context.trained_stages()
    scores = []
    with staged(context.directory("evaluate")) as partial:
        for place, stage in enumerate(stages):
            context.show(Progress("evaluate", "progress", place, len(stages), text=stage))
            model = load_model(context, stage)
            for result in _results(context, stage, model, tokenizer, suite, settings):
                text = json.dumps(dataclasses.asdict(result), ensure_ascii=False, indent=1)
                name = f"{stage}.{result.task}.{result.metric}.json"
                (partial / name).write_text(text, encoding="utf-8")
                scores.append(dataclasses.asdict(dataclasses.replace(result, items=())))
    return {"scores": scores}


def _suite(context: StageContext) -> list[TaskProblems]:
    """All generated tasks that the run file names, or all there are."""
    section = context.config.evaluate
    wanted = section.tasks or tuple(task.name for task in TASKS)
    suite = []
    for task in TASKS:
        if task.name not in wanted:
            continue
        found = problems(task.name, "test", context.config.seed, section.problems_per_task)
        reason = "" if found else f"no held-out problems of {task.name} exist"
        suite.append(TaskProblems(task, tuple(found), reason))
    return suite


def _results(
    context: StageContext,
    stage: str,
    model: LanguageModel,
    tokenizer: Tokenizer,
    suite: list[TaskProblems],
    settings: SuiteSettings,
) -> Iterator[TaskResult]:
    yield from _bits_per_byte(context, stage, model, tokenizer)
    yield from evaluate_stage(stage, model, tokenizer, suite, settings)


def _bits_per_byte(
    context: StageContext, stage: str, model: LanguageModel, tokenizer: Tokenizer
) -> Iterator[TaskResult]:
    """bpb_packed on training-style rows, bpb_document on each document alone."""
    rows = context.config.evaluate.validation_rows
    fixed = validation_rows(context, tokenizer, "documents", rows)
    if fixed is None:
        reason = "the run has no validation text"
        yield TaskResult(stage, "text", "bpb_packed", None, None, None, 0, None, None, reason)
        return
    device, lengths = model.head_weight.device, tokenizer.byte_lengths()
    windows = document_windows(
        _validation_documents(context, tokenizer, rows),
        tokenizer.end_of_text,
        model.shape.max_position_embeddings,
        ROWS_PER_PASS,
    )
    for metric, batches in (
        ("bpb_packed", fixed.batch.split(ROWS_PER_PASS)),
        ("bpb_document", windows),
    ):
        loss = text_loss(model, (one.to(device) for one in batches), lengths)
        yield _text_result(stage, metric, loss)


def _text_result(stage: str, metric: str, loss: TextLoss) -> TaskResult:
    return TaskResult(
        stage, "text", metric, loss.bits_per_byte, None, None, loss.tokens, None, None
    )


def _validation_documents(
    context: StageContext, tokenizer: Tokenizer, count: int
) -> list[list[int]]:
    """The first validation documents of every text source, without their begin token."""
    found = []
    for shard in validation_shards(context, tokenizer, "documents"):
        lengths = shard.lengths()
        for document in range(min(count, shard.documents)):
            ids, _ = shard.read(document, 1, int(lengths[document]))
            found.append(ids.tolist())
    return found
