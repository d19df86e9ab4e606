"""Every task gets a score with its interval, or a reason; answers here are made by hand."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from penjing.artifacts.records import ItemRecord, TaskResult
from penjing.config.model import ModelConfig
from penjing.evaluate import suite
from penjing.evaluate.generative import Answered, Questions
from penjing.evaluate.suite import SuiteSettings, TaskProblems, evaluate_stage
from penjing.generate.engine import Completion, FinishReason
from penjing.model.transformer import Transformer
from penjing.tasks.contract import Answer, Problem
from penjing.tasks.graders import chosen, number, stops
from penjing.tasks.suite import Task
from penjing.text.conversation import Conversation, text_message
from penjing.text.tokenizer import train_tokenizer

PROMPT = Conversation((text_message("user", "?"),))
SUMS = Task("sums", "accuracy", generative=True, sampled=True, uses_tool=True, grade=number)
STOP = Task("stop", "rate", generative=True, sampled=False, uses_tool=False, grade=stops)
FACTS = Task("facts", "accuracy", generative=False, sampled=False, uses_tool=False, grade=chosen)
SETTINGS = SuiteSettings(samples_per_problem=2, max_new_tokens=8, seed=1)

SAID = {
    "a": ["1", "1", "1"],  # greedy, then two samples
    "b": ["5 …", "2", "7"],
    "c": ["3", "3", "3"],
}
"""By problem; what ends in … was cut off, and "1" called the calculator."""


def answer_by_hand(
    model: Any, tokenizer: Any, questions: Sequence[Questions], seed: int
) -> list[list[Answered]]:
    return [
        [one for problem in asked.problems for one in said(asked, problem)] for asked in questions
    ]


def said(asked: Questions, problem: Problem) -> Iterator[Answered]:
    for text in SAID[problem.id][:1] if asked.samples == 1 else SAID[problem.id][1:]:
        reason: FinishReason = "length" if text.endswith("…") else "stop"
        calls = int(text == "1")
        score = asked.grade(problem, Answer(text, reason == "stop", calls)).score
        record = ItemRecord(problem.id, "?", problem.answer, text, score, reason)
        yield Answered(record, Completion((), (), (), reason, calls))


def results_of(entries: list[TaskProblems]) -> dict[tuple[str, str], TaskResult]:
    tokenizer = train_tokenizer(["one two"], 272)
    shape = ModelConfig(depth=1, hidden_size=16, head_dim=8, max_position_embeddings=64)
    model = Transformer(shape.shape(tokenizer.vocab_size))  # all zero: every choice is as likely
    results = list(evaluate_stage("sft", model, tokenizer, entries, SETTINGS))
    return {(result.task, result.metric): result for result in results}


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], TaskResult]:
    monkeypatch.setattr(suite, "answer_together", answer_by_hand)
    sums = tuple(Problem(key, PROMPT, answer) for key, answer in zip("abc", "123", strict=True))
    facts = (Problem("f", PROMPT, "yes", ("yes", "no")),)
    return results_of(
        [
            TaskProblems(SUMS, sums),
            TaskProblems(STOP, (), "no held-out problems of stop exist"),
            TaskProblems(FACTS, facts),
        ]
    )


def test_greedy_answers_have_a_wilson_interval(
    results: dict[tuple[str, str], TaskResult],
) -> None:
    sums = results["sums", "accuracy"]

    assert sums.n == 3
    assert [sums.value, sums.low, sums.high] == pytest.approx([2 / 3, 0.2077, 0.9385], abs=1e-4)
    assert [sums.random_baseline, sums.majority_baseline] == pytest.approx([0, 1 / 3])
    assert [item.score for item in sums.items] == [1.0, 0.0, 1.0]


def test_samples_of_a_problem_are_one_cluster_and_the_interval_stays_a_share(
    results: dict[tuple[str, str], TaskResult],
) -> None:
    sampled = results["sums", "sampled_accuracy"]

    assert sampled.n == 6
    assert sampled.value == pytest.approx(5 / 6)
    assert sampled.low == pytest.approx(5 / 6 - 1.96 / 6)
    assert sampled.high == 1.0  # 1.16 without the cut


def test_samples_that_all_fail_do_not_make_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "answer_together", answer_by_hand)
    wrong = tuple(Problem(key, PROMPT, "9") for key in "abc")

    sampled = results_of([TaskProblems(SUMS, wrong)])["sums", "sampled_accuracy"]

    assert [sampled.low, sampled.high] == pytest.approx([0, 0.5615], abs=1e-4)  # Wilson, 0 of 3


def test_rates_of_stopping_and_calling_are_over_greedy_answers(
    results: dict[tuple[str, str], TaskResult],
) -> None:
    stop, tool = results["all", "stop_rate"], results["sums", "tool_rate"]

    assert [stop.value, stop.n] == pytest.approx([2 / 3, 3])
    assert [item.answer for item in stop.items] == ["5 …"]
    assert [tool.value, tool.n] == pytest.approx([1 / 3, 3])


def test_a_task_without_problems_is_listed_with_its_reason(
    results: dict[tuple[str, str], TaskResult],
) -> None:
    stop = results["stop", "rate"]

    assert stop.value is None
    assert stop.reason == "no held-out problems of stop exist"
    assert results["facts", "accuracy"].random_baseline == 0.5


def test_without_any_answer_the_stop_rate_says_so() -> None:
    assert results_of([])["all", "stop_rate"].reason == "no answers"
