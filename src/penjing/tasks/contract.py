"""What a task is made of: problems, answers and grades.

Where problems come from is not this room's business, and no model is known here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from penjing.text.conversation import Conversation


@dataclass(frozen=True)
class Problem:
    """A conversation that waits for an answer, and what a grader needs to know about it.

    `choices` are the candidates that the answer must be told from; in a task by likelihood they
    are the whole replies to compare, and `answer` is one of them.
    """

    id: str
    prompt: Conversation
    answer: str
    choices: tuple[str, ...] = ()
    tool: bool = False


@dataclass(frozen=True)
class Answer:
    """What a model gave: its last turn's text, whether it ended by itself, how often it called."""

    text: str
    stopped: bool = True
    tool_calls: int = 0


@dataclass(frozen=True)
class Grade:
    """A score in [0, 1] and the measurements beside it, by name."""

    score: float
    parts: Mapping[str, float] = field(default_factory=dict)


class Grader(Protocol):
    """Grades one answer; an answer that did not stop is worth nothing in every task."""

    def __call__(self, problem: Problem, answer: Answer) -> Grade: ...
