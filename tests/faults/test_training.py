"""Poisoned losses and gradients, and memory that runs out: no weight is lost, the run recovers."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

from penjing.artifacts.lines import read_records
from penjing.artifacts.records import Event, StepRecord
from penjing.config.model import ModelShape
from penjing.config.training import CadenceConfig, OptimizerConfig
from penjing.data.batches import Batch
from penjing.model.initialization import initialize
from penjing.model.language_model import LanguageModel
from penjing.model.transformer import Transformer
from penjing.runtime import Runtime
from penjing.train.checkpoint import TokenizerBundle
from penjing.train.fit import fit
from penjing.train.job import FitJob
from penjing.train.loop import LossScale, train_steps
from penjing.train.objectives import Loss, next_token
from penjing.train.optimizer import build_optimizer

SHAPE = ModelShape(24, 1, 16, 2, 1, 8, 24, 12, 10_000.0, 1e-6, tie_word_embeddings=False)
STEPS = 120
RUNTIME = Runtime(torch.device("cpu"), torch.float32)


class Step:
    """Which step the loop is at, for objectives that misbehave."""

    number = 0


def batches(first: int, at: Step) -> Iterator[Batch]:
    """Rows that count upwards: easy to learn."""
    for step in range(first, 10_000):
        at.number = step + 1
        start = torch.randint(24, (4, 1), generator=torch.Generator().manual_seed(step))
        ids = (start + torch.arange(9)) % 24
        yield Batch(ids[:, :-1], ids[:, 1:], torch.ones(4, 8), torch.zeros(4, 8, dtype=torch.int64))


def make_job(
    directory: Path, objective: Callable[..., Loss], at: Step, steps: int
) -> FitJob[Batch]:
    torch.set_num_threads(1)
    model = Transformer(SHAPE)
    initialize(model, 1)
    return FitJob(
        directory=directory / "sft",
        stage="sft",
        seed=1,
        runtime=RUNTIME,
        model=model,
        optimizer=build_optimizer(model, OptimizerConfig()),
        objective=objective,
        open_batches=lambda done: batches(done, at),
        schedule=lambda step: min(1.0, step / 20),
        steps=steps,
        rows_per_step=4,
        microbatch_rows=4,
        max_grad_norm=1.0,
        cadence=CadenceConfig(checkpoint_every_steps=10),
        probes=(),
        tokenizer=TokenizerBundle({}, "digest", 22, 23),
        show=lambda _: None,
    )


def losses(directory: Path) -> list[float | None]:
    return [one.loss for one in read_records(directory / "sft" / "metrics.jsonl", StepRecord)]


@pytest.mark.parametrize("poison", ["nan", "inf", "tenfold"])
def test_fifty_poisoned_steps_leave_finite_weights_and_a_run_that_learns(
    tmp_path: Path, poison: str
) -> None:
    at, steps = Step(), Random(3).sample(range(2, STEPS - 20), 50)

    def objective(model: LanguageModel, batch: Batch) -> Loss:
        loss = next_token(model, batch)
        if at.number not in steps:
            return loss
        if poison == "tenfold":  # the gradient alone
            return replace(loss, total=10 * loss.total - 9 * loss.total.detach())
        return replace(loss, total=loss.total * float(poison))

    job = make_job(tmp_path, objective, at, STEPS)
    result = fit(job)
    assert all(parameter.isfinite().all() for parameter in job.model.parameters())
    assert result.skipped_steps == (0 if poison == "tenfold" else 50)
    assert result.loss is not None
    assert result.loss < 0.5 * math.log(24)


def test_a_burst_of_bad_rows_is_skipped_taken_back_and_passed_over(tmp_path: Path) -> None:
    at, bad = Step(), range(201, 206)

    def objective(model: LanguageModel, batch: Batch) -> Loss:
        if at.number in bad:  # as if the rows came from another world
            batch = replace(batch, targets=(batch.targets * 7 + 5) % 24)
        return next_token(model, batch)

    job = make_job(tmp_path, objective, at, 260)
    result = fit(job)
    records = list(read_records(tmp_path / "sft" / "metrics.jsonl", StepRecord))
    assert [one.step for one in records] == list(range(1, 260 + 1))
    passed_over = [one.step for one in records if one.skipped == "skip list"]
    assert passed_over == [200, *bad]
    messages = [event.message for event in read_records(tmp_path / "events.jsonl", Event)]
    assert any("going back" in message for message in messages)
    assert "sft goes on after step 190" in messages
    assert result.loss is not None
    assert result.loss < 0.5
    again = fit(make_job(tmp_path, objective, at, 260))
    assert (again.loss, again.steps) == (result.loss, 260)


def test_data_that_changes_for_good_is_a_new_level_and_training_goes_on(tmp_path: Path) -> None:
    at = Step()

    def objective(model: LanguageModel, batch: Batch) -> Loss:
        if at.number > 200:
            batch = replace(batch, targets=(batch.targets * 7 + 5) % 24)
        return next_token(model, batch)

    result = fit(make_job(tmp_path, objective, at, 300))
    messages = [event.message for event in read_records(tmp_path / "events.jsonl", Event)]
    assert any("the data has changed" in message for message in messages)
    assert result.loss is not None
    assert result.loss < 1.0


def test_twenty_times_out_of_memory_the_same_tokens_and_the_same_losses(tmp_path: Path) -> None:
    fit(make_job(tmp_path / "plain", next_token, Step(), 30))
    dice = Random(5)
    for case in range(20):
        at, short, failed = Step(), dice.randint(1, 30), list[int]()

        def objective(
            model: LanguageModel, batch: Batch, *, at: Step = at, short: int = short
        ) -> Loss:
            loss = next_token(model, batch)
            if at.number == short and batch.rows == 4:
                failed.append(case)  # noqa: B023 - used within its turn
                raise torch.OutOfMemoryError("injected")
            return loss

        result = fit(make_job(tmp_path / f"{case}", objective, at, 30))
        assert failed == [case]
        assert result.tokens == 30 * 32
        assert losses(tmp_path / f"{case}") == pytest.approx(losses(tmp_path / "plain"), abs=1e-4)


def test_float16_scales_its_loss_down_until_the_gradients_are_finite() -> None:
    torch.set_num_threads(1)
    model = Transformer(SHAPE, dtype=torch.float16)
    initialize(model, 1)
    at, scale = Step(), LossScale(2.0**40, patience=30)
    results = list(
        train_steps(
            model,
            build_optimizer(model, OptimizerConfig()),
            next_token,
            batches(0, at),
            replace(RUNTIME, dtype=torch.float16),
            steps=range(1, 101),
            microbatch_rows=4,
            schedule=lambda _: 1.0,
            max_grad_norm=1.0,
            loss_scale=scale,
        )
    )
    assert results[0].skipped == "not finite"
    assert 1.0 < scale.value < 2.0**40
    assert results[-1].loss < 0.5 * results[0].loss
    parameters: list[Tensor] = list(model.parameters())
    assert all(parameter.isfinite().all() for parameter in parameters)
