"""Graders give points for what was asked and nothing for the rest."""

from dataclasses import replace

import pytest

from penjing.tasks.contract import Answer, Problem
from penjing.tasks.graders import last_number, mentions
from penjing.tasks.suite import TASKS, Task, majority_baseline, random_baseline
from penjing.text.conversation import Conversation, text_message

PROMPT = Conversation((text_message("user", "?"),))
BY_NAME = {task.name: task for task in TASKS}
STORY = "Once a fox named Tim lived here. " + "Tim saw a red ball. " * 10 + "Then Tim slept well."


def _problem(answer: str, *choices: str) -> Problem:
    return Problem("p", PROMPT, answer, choices)


@pytest.mark.parametrize(
    ("task", "problem", "right", "wrong"),
    [
        ("identity", _problem("Penjing", "Tom"), "I am Penjing.", "I am Tom, not Penjing."),
        ("facts", _problem("A cow says moo.", "A cow says woof."), "A cow says moo.", "moo"),
        ("facts_open", _problem("moo", "A cow says moo."), "a cow says moo", "A cow says moo. A"),
        ("recall", _problem("red", "red", "blue"), "The ball is red.", "The ball is red or blue."),
        ("spelling", _problem("b-a-l-l"), "B-A-L-L", "b-a-l"),
        ("letters", _problem("2", "b-a-l-l"), "b-a-l-l. The count of l is 2.", "b-a-l-l 2 1"),
        ("products", _problem("943"), "23 times 41 is 943.", "The answer is 9430."),
        ("sums", _problem("1043"), "It is 1,043.", "It is one."),
        ("story_heroes", _problem("Tim"), STORY, STORY.replace("Then Tim", "Then Mia")),
        ("stop", _problem("anything"), "yes", "  "),
    ],
)
def test_the_right_answer_scores_and_the_wrong_one_does_not(
    task: str, problem: Problem, right: str, wrong: str
) -> None:
    grade = BY_NAME[task].grade
    assert grade(problem, Answer(right)).score == 1.0
    assert grade(problem, Answer(wrong)).score == 0.0
    assert grade(problem, Answer("")).score == 0.0


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_an_answer_that_does_not_stop_is_worth_nothing(task: Task) -> None:
    answer = Answer("1" if task.name == "letters" else STORY, stopped=False)
    problem = _problem("1" if task.name in ("letters", "products", "sums") else "Tim")
    assert task.grade(problem, answer).score == 0.0


def test_letters_tell_whether_the_word_was_spelled_and_products_whether_the_tool_ran() -> None:
    letters = BY_NAME["letters"].grade(_problem("2", "b-a-l-l"), Answer("b-a-l-l. 2"))
    assert letters.parts["spelled"] == 1.0
    products = BY_NAME["products"].grade(_problem("6"), Answer("6", tool_calls=1))
    assert products.parts["used_tool"] == 1.0


def test_a_story_must_be_of_fair_length() -> None:
    assert BY_NAME["story_heroes"].grade(_problem("Tim"), Answer("Tim sat. Tim ran.")).score == 0


def test_baselines_are_those_of_chance_and_of_the_best_constant() -> None:
    facts = [_problem(answer, "a", "b", "c", "d") for answer in "aab"]
    assert random_baseline(BY_NAME["facts"], facts) == 0.25
    assert majority_baseline(BY_NAME["facts"], facts) == pytest.approx(2 / 3)
    recall = [_problem(answer, "red", "blue") for answer in ("red", "blue", "red", "red")]
    assert random_baseline(BY_NAME["recall"], recall) == 0.0
    assert majority_baseline(BY_NAME["recall"], recall) == 0.75
    assert majority_baseline(BY_NAME["identity"], [_problem("Penjing")] * 3) is None
    assert majority_baseline(BY_NAME["recall"], []) is None


def test_numbers_and_words_are_found_in_text() -> None:
    assert last_number("from 3 to -1,200.5.") == -1200.5
    assert last_number("none") is None
    assert mentions("The Ball, red!", "ball red")
    assert not mentions("reddish", "red")
    assert replace(_problem("a"), answer="b").answer == "b"
