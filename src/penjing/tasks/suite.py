"""The tasks that measure a model of the demo, and the scores that need no model.

Asking a model is `evaluate`'s duty; drawing problems is `synthetic`'s.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from penjing.tasks.contract import Answer, Grader, Problem
from penjing.tasks.graders import (
    chosen,
    count,
    exact,
    names_only,
    number,
    statement,
    stops,
    story,
)


@dataclass(frozen=True)
class Task:
    """A task by name.

    `generative` tasks grade a written answer, the others the likeliest of a problem's choices.
    `sampled` ones are also worth sampling, `uses_tool` ones run the calculator.
    """

    name: str
    metric: str
    generative: bool
    sampled: bool
    uses_tool: bool
    grade: Grader


TASKS: tuple[Task, ...] = (
    Task("identity", "accuracy", True, False, False, names_only),
    Task("facts", "accuracy", False, False, False, chosen),
    Task("facts_open", "accuracy", True, False, False, statement),
    Task("recall", "accuracy", True, False, False, names_only),
    Task("recall_two", "accuracy", True, False, False, names_only),
    Task("numbers", "accuracy", True, False, False, number),
    Task("spelling", "accuracy", True, False, False, exact),
    Task("spelling_new_words", "accuracy", True, False, False, exact),
    Task("letters", "accuracy", True, False, False, count),
    Task("products", "accuracy", True, True, True, number),
    Task("sums", "accuracy", True, False, True, number),
    Task("story_heroes", "accuracy", True, False, False, story),
    Task("stop", "rate", True, True, False, stops),
)


def random_baseline(task: Task, problems: Sequence[Problem]) -> float:
    """The expected score of answering at random: 1 / choices by likelihood, 0 where one writes."""
    if task.generative or not problems:
        return 0.0
    return sum(1 / len(problem.choices) for problem in problems) / len(problems)


def majority_baseline(task: Task, problems: Sequence[Problem]) -> float | None:
    """The score of the best constant answer; None where some constant answers every problem.

    By likelihood, that is the best constant position among the choices. In writing, it is the best
    of the problems' own answers given to all of them. Tasks of conduct (identity, stop) have none.
    """
    if not problems:
        return None
    if not task.generative:
        positions = Counter(problem.choices.index(problem.answer) for problem in problems)
        return max(positions.values()) / len(problems)
    candidates = {problem.answer for problem in problems}
    totals = (
        sum(task.grade(problem, Answer(candidate)).score for problem in problems)
        for candidate in sorted(candidates)
    )
    best = max(totals) / len(problems)
    return best if best < 1 else None
