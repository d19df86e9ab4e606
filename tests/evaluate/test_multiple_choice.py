"""The likeliest choice wins, whatever the order of the choices and of the problems."""

import dataclasses
from pathlib import Path

import pytest

from penjing.evaluate.multiple_choice import choose
from penjing.model.language_model import LanguageModel
from penjing.model.weights import load_weights
from penjing.tasks.contract import Problem
from penjing.text.conversation import Conversation, text_message
from penjing.text.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(small_run: Path) -> Tokenizer:
    return load_tokenizer(small_run / "sft" / "step-000012")


@pytest.fixture(scope="module")
def model(small_run: Path) -> LanguageModel:
    return load_weights(small_run / "sft" / "step-000012")


def problem(question: str, answer: str, *others: str) -> Problem:
    prompt = Conversation((text_message("user", question),))
    return Problem(id=question, prompt=prompt, answer=answer, choices=(*others, answer))


PROBLEMS = (
    problem("Who are you?", "I am Penjing.", "zqxj zqxj.", "xx"),
    problem("What is your name?", "My name is Penjing.", "qqqq", "zz zz zz zz zz zz"),
)


def test_words_that_training_held_win_against_noise(
    model: LanguageModel, tokenizer: Tokenizer
) -> None:
    records = choose(model, tokenizer, PROBLEMS)

    assert [record.answer for record in records] == [one.answer for one in PROBLEMS]
    assert [record.score for record in records] == [1.0, 1.0]


def test_the_order_of_choices_and_the_size_of_a_pass_change_nothing(
    model: LanguageModel, tokenizer: Tokenizer
) -> None:
    turned = [dataclasses.replace(one, choices=one.choices[::-1]) for one in PROBLEMS]

    together = choose(model, tokenizer, PROBLEMS)
    apart = choose(model, tokenizer, turned, rows=1)

    assert [record.answer for record in together] == [record.answer for record in apart]
