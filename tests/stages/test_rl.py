"""A step of rl without anything to learn is left out whole, retention rows included."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from penjing.artifacts.lines import LineLog
from penjing.config.training import RlConfig
from penjing.data.batches import Batch, pad_rows
from penjing.model.language_model import LanguageModel
from penjing.model.weights import load_weights
from penjing.runtime import Runtime
from penjing.stages.problems import problems
from penjing.stages.rl import RESAMPLES, RolloutStream
from penjing.tasks.contract import Answer, Grade, Problem
from penjing.tasks.suite import Task
from penjing.text.tokenizer import load_tokenizer


@pytest.mark.parametrize("rewards", [(0.0, 0.0), (0.0, 1.0)])
def test_retention_rows_come_only_with_something_to_learn(
    small_run: Path, tmp_path: Path, rewards: tuple[float, float]
) -> None:
    given: list[float] = []

    def grade(problem: Problem, answer: Answer) -> Grade:
        given.append(rewards[len(given) % 2])
        return Grade(given[-1])

    section = RlConfig(prompts_per_step=2, num_generations=2, max_completion_length=3)
    model: LanguageModel = load_weights(small_run / "sft" / "step-000012")
    tokenizer = load_tokenizer(small_run / "tokenizer")
    retention: Iterator[Batch] = iter([pad_rows([([1, 2, 3], [1.0] * 3)], tokenizer.end_of_text)])
    task = Task("products", "accuracy", True, True, True, grade)
    log = LineLog(tmp_path / "rollouts.jsonl")
    stream = RolloutStream(
        section,
        model,
        tokenizer,
        task,
        problems("products", "train", 1, 8),
        retention,
        log,
        Runtime(torch.device("cpu"), torch.float32),
        seed=1,
    )

    batch = next(stream.batches(0))
    log.close()

    varied = rewards[0] != rewards[1]
    assert (batch.rows, batch.retention is not None) == ((4, True) if varied else (0, False))
    assert len(given) == 4 * (1 if varied else RESAMPLES)
