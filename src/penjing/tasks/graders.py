"""The graders of the generated tasks: pure functions of a problem and an answer.

They look only at text; which grader belongs to which task is `suite`'s duty.
"""

import re

from penjing.tasks.contract import Answer, Grade, Problem

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_SENTENCE_END = re.compile(r'(?<=[.!?])"?\s+')
STORY_WORDS = (40, 200)
"""A story of fewer or more words than this is none."""


def normalized(text: str) -> str:
    """Lower case, words and numbers only, single spaces; hyphens stay inside words."""
    return " ".join(re.findall(r"[a-z0-9]+(?:[-'][a-z0-9]+)*", text.lower()))


def last_number(text: str) -> float | None:
    """The last number written in the text; thousands may be set off by commas."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def mentions(text: str, phrase: str) -> bool:
    """Whether the phrase stands in the text as whole words."""
    return f" {normalized(phrase)} " in f" {normalized(text)} "


def _grade(answer: Answer, *, right: bool, **parts: float) -> Grade:
    measured = {"stopped": float(answer.stopped), "right": float(right), **parts}
    return Grade(float(right and answer.stopped), measured)


def exact(problem: Problem, answer: Answer) -> Grade:
    """The answer, whole, but for case and punctuation."""
    return _grade(answer, right=normalized(answer.text) == normalized(problem.answer))


def statement(problem: Problem, answer: Answer) -> Grade:
    """The choice that holds the answer's word, whole, but for case and punctuation."""
    wanted = (choice for choice in problem.choices if mentions(choice, problem.answer))
    return _grade(answer, right=normalized(answer.text) in map(normalized, wanted))


def names_only(problem: Problem, answer: Answer) -> Grade:
    """The answer's word is mentioned and no other candidate is."""
    mentioned = mentions(answer.text, problem.answer)
    others = (choice for choice in problem.choices if choice != problem.answer)
    wrong = any(mentions(answer.text, other) for other in others)
    return _grade(answer, right=mentioned and not wrong, mentioned=float(mentioned))


def number(problem: Problem, answer: Answer) -> Grade:
    """The last number is the answer; whether the tool was used is measured, not graded."""
    right = last_number(answer.text) == last_number(problem.answer)
    return _grade(answer, right=right, used_tool=float(answer.tool_calls > 0))


def count(problem: Problem, answer: Answer) -> Grade:
    """The last number is the count; `spelled` tells whether the word was spelled out rightly."""
    shown = all(mentions(answer.text, word) for word in problem.choices)
    right = last_number(answer.text) == float(problem.answer)
    return _grade(answer, right=right, spelled=float(shown))


def story(problem: Problem, answer: Answer) -> Grade:
    """A story of fair length that begins and ends with the hero that was asked for."""
    sentences = [part for part in _SENTENCE_END.split(answer.text.strip()) if part]
    first, last = (sentences[0], sentences[-1]) if sentences else ("", "")
    length = len(normalized(answer.text).split())
    fair = STORY_WORDS[0] <= length <= STORY_WORDS[1]
    begins = mentions(" ".join(sentences[:2]), problem.answer) if first else False
    ends = mentions(last, problem.answer)
    parts = {"begins": float(begins), "ends": float(ends), "fair_length": float(fair)}
    return _grade(answer, right=begins and ends and fair, **parts)


def stops(problem: Problem, answer: Answer) -> Grade:  # noqa: ARG001 - any ended answer will do
    """The answer ended by itself and is not empty."""
    return _grade(answer, right=bool(answer.text.strip()))


def chosen(problem: Problem, answer: Answer) -> Grade:
    """The choice that the model found likeliest, given as text, is the right one."""
    return _grade(answer, right=answer.text == problem.answer)
