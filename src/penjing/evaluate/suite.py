"""Every score of one stage's model on the same held-out problems, with n, interval and baselines.

A task that cannot be run is listed with its reason, never dropped. Which problems there are is
the stage's choice.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from penjing.artifacts.records import ItemRecord, TaskResult
from penjing.evaluate.generative import Answered, Questions, answer_together
from penjing.evaluate.multiple_choice import choose
from penjing.generate.sampling import Sampling
from penjing.intervals import clustered_interval, wilson
from penjing.model.language_model import LanguageModel
from penjing.tasks.contract import Problem
from penjing.tasks.suite import Task, majority_baseline, random_baseline
from penjing.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TaskProblems:
    """A task with its held-out problems; without problems, `reason` says why it is not run."""

    task: Task
    problems: tuple[Problem, ...]
    reason: str = ""

    @cached_property
    def majority_baseline(self) -> float | None:
        """Grading every answer of the task against every problem: once, not once a stage."""
        return majority_baseline(self.task, self.problems)


@dataclass(frozen=True)
class SuiteSettings:
    """How answers are made: the same for every stage, so that scores can be compared."""

    samples_per_problem: int
    max_new_tokens: int
    seed: int


def evaluate_stage(
    stage: str,
    model: LanguageModel,
    tokenizer: Tokenizer,
    suite: Sequence[TaskProblems],
    settings: SuiteSettings,
) -> Iterator[TaskResult]:
    """Results of every task, then the stop rate over all greedy answers."""
    asked = [
        (entry, _questions(entry, settings, temperature))
        for entry in suite
        if entry.problems and entry.task.generative
        for temperature in ((0.0, 1.0) if entry.task.sampled else (0.0,))
    ]
    every = answer_together(model, tokenizer, [one for _, one in asked], settings.seed)
    found = {
        (entry.task.name, questions.sampling.temperature): answered
        for (entry, questions), answered in zip(asked, every, strict=True)
    }
    greedy: list[Answered] = []
    for entry in suite:
        if not entry.problems:
            yield _not_run(stage, entry)
        elif not entry.task.generative:
            records = choose(model, tokenizer, entry.problems)
            yield _result(stage, entry, entry.task.metric, records)
        else:
            answered = found[entry.task.name, 0.0]
            greedy += answered
            yield _result(stage, entry, entry.task.metric, [one.record for one in answered])
            if entry.task.uses_tool:
                yield _tool_rate(stage, entry, answered)
            if entry.task.sampled:
                records = [one.record for one in found[entry.task.name, 1.0]]
                yield _result(stage, entry, f"sampled_{entry.task.metric}", records)
    yield _stop_rate(stage, greedy)


def _questions(entry: TaskProblems, settings: SuiteSettings, temperature: float) -> Questions:
    return Questions(
        entry.problems,
        entry.task.grade,
        Sampling(temperature=temperature, max_new_tokens=settings.max_new_tokens),
        samples=settings.samples_per_problem if temperature else 1,
    )


def _result(
    stage: str, entry: TaskProblems, metric: str, records: Sequence[ItemRecord]
) -> TaskResult:
    """The mean score; samples of one problem are one cluster of the interval, cut to [0, 1].

    Where all samples score alike, no variance is seen: then each problem counts as one answer.
    """
    scores = [record.score for record in records]
    clusters = [record.problem_id for record in records]
    problems = len(set(clusters))
    alike = len(set(scores)) == 1
    if set(scores) <= {0.0, 1.0} and (alike or problems == len(scores)):
        low, high = wilson(scores[0] * problems if alike else sum(scores), problems)
    else:
        _, low, high = clustered_interval(scores, clusters)
    return TaskResult(
        stage=stage,
        task=entry.task.name,
        metric=metric,
        value=sum(scores) / len(scores),
        low=max(0.0, low),
        high=min(1.0, high),
        n=len(scores),
        random_baseline=random_baseline(entry.task, entry.problems),
        majority_baseline=entry.majority_baseline,
        items=tuple(records),
    )


def _tool_rate(stage: str, entry: TaskProblems, answered: Sequence[Answered]) -> TaskResult:
    used = [float(one.completion.tool_calls > 0) for one in answered]
    return _rate(stage, entry.task.name, "tool_rate", used)


def _stop_rate(stage: str, answered: Sequence[Answered]) -> TaskResult:
    stopped = [float(one.completion.finish_reason == "stop") for one in answered]
    result = _rate(stage, "all", "stop_rate", stopped)
    unstopped = tuple(one.record for one in answered if one.completion.finish_reason != "stop")
    return dataclasses.replace(result, items=unstopped)


def _rate(stage: str, task: str, metric: str, values: Sequence[float]) -> TaskResult:
    if not values:
        return TaskResult(stage, task, metric, None, None, None, 0, None, None, "no answers")
    low, high = wilson(sum(values), len(values))
    value = sum(values) / len(values)
    return TaskResult(stage, task, metric, value, low, high, len(values), None, None)


def _not_run(stage: str, entry: TaskProblems) -> TaskResult:
    return TaskResult(
        stage, entry.task.name, entry.task.metric, None, None, None, 0, None, None, entry.reason
    )
