"""Answers are graded one by one, the same whoever is asked beside them."""

import pytest
import torch

from penjing.config.model import ModelConfig
from penjing.evaluate.generative import answer_of, answer_problems
from penjing.generate.engine import Completion
from penjing.generate.sampling import Sampling
from penjing.model.initialization import initialize
from penjing.model.transformer import Transformer
from penjing.tasks.contract import Answer, Grade, Problem
from penjing.text.conversation import Conversation, text_message
from penjing.text.tokenizer import Tokenizer, train_tokenizer

PROBLEMS = tuple(
    Problem(f"p{n}", Conversation((text_message("user", f"Say {n}."),)), str(n)) for n in range(3)
)


def by_number(problem: Problem, answer: Answer) -> Grade:
    """A score by which problems are told apart."""
    assert not answer.tool_calls
    return Grade(int(problem.answer) / 10)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["Say this and that."], 280)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    shape = ModelConfig(depth=1, hidden_size=32, head_dim=16, max_position_embeddings=64)
    built = Transformer(shape.shape(tokenizer.vocab_size))
    initialize(built, 1)
    torch.nn.init.normal_(built.head_weight)
    return built


def test_samples_are_records_of_their_problem_in_order(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    sampling = Sampling(temperature=1.0, max_new_tokens=6)
    answered = answer_problems(
        model, tokenizer, PROBLEMS, by_number, sampling=sampling, seed=1, samples=2
    )
    (alone, _) = answer_problems(
        model, tokenizer, PROBLEMS[2:], by_number, sampling=sampling, seed=1, samples=2
    )

    records = [one.record for one in answered]
    assert [record.problem_id for record in records] == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert [record.score for record in records] == [0.0, 0.0, 0.1, 0.1, 0.2, 0.2]
    assert [record.wanted for record in records[::2]] == ["0", "1", "2"]
    assert records[2].prompt == "Say 1."
    assert answered[4].completion.ids != answered[5].completion.ids
    assert alone.record == records[4]


def test_a_grader_sees_the_last_turn_and_whether_it_ended(tokenizer: Tokenizer) -> None:
    first = [*tokenizer.encode("this"), tokenizer.im_end]
    forced, last = tokenizer.encode("that"), tokenizer.encode(" and ")
    ids = (*first, *forced, *last)
    sampled = (True,) * len(first) + (False,) * len(forced) + (True,) * len(last)
    cut = Completion(ids, sampled, (0.0,) * len(ids), "length", 1)

    assert answer_of(tokenizer, cut) == Answer("and", stopped=False, tool_calls=1)
