"""Rows depend on (seed, name, row) alone, and no held-out problem is ever trained on."""

import json
import re
from collections.abc import Callable, Iterator
from random import Random

import pytest

from penjing.errors import DataError
from penjing.synthetic.exchanges import EXCHANGES, products
from penjing.synthetic.generators import (
    GENERATORS,
    TASK_NAMES,
    conversations,
    documents,
    exercises,
    preferences,
)
from penjing.synthetic.grammar import words
from penjing.synthetic.lexicon import FACTS, NEW_WORDS, SPELLED
from penjing.synthetic.splits import SPLITS, split_of
from penjing.text.conversation import Conversation

ROWS = 400
TRAINED = {name: list(conversations(name, 1, ROWS)) for name in GENERATORS["conversations"]}
TASKS_WITH_TRAINING = [task for task in TASK_NAMES if task != "spelling_new_words"]


def _said(conversation: Conversation) -> str:
    return " / ".join(message.text for message in conversation.messages)


def test_rows_are_the_same_again_and_others_with_another_seed() -> None:
    for name in GENERATORS["documents"]:
        assert list(documents(name, 1, 50))[:20] == list(documents(name, 1, 20))
        assert list(documents(name, 1, 20)) != list(documents(name, 2, 20))
    for name in GENERATORS["conversations"]:
        assert list(conversations(name, 1, 20)) == TRAINED[name][:20]
    assert list(preferences("conduct", 1, 20)) == list(preferences("conduct", 1, 40))[:20]


@pytest.mark.parametrize("call", [documents, conversations, preferences])
def test_an_unknown_generator_is_refused_with_the_names(
    call: Callable[[str, int, int], Iterator[object]],
) -> None:
    with pytest.raises(DataError, match=r"there are: \w+"):
        list(call("nothing", 1, 1))


def test_unknown_tasks_and_trained_new_words_are_refused() -> None:
    with pytest.raises(DataError, match="identity"):
        exercises("nothing", "test", 1, 1)
    with pytest.raises(DataError, match="held out"):
        exercises("spelling_new_words", "train", 1, 1)


@pytest.mark.parametrize("task", TASKS_WITH_TRAINING)
def test_splits_share_no_problem_whatever_the_seed(task: str) -> None:
    ids = [
        {exercise.id for seed in (1, 2) for exercise in exercises(task, split, seed, 60)}
        for split in SPLITS
    ]
    assert all(ids)
    assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])


@pytest.mark.parametrize("task", ["identity", "facts", "spelling", "letters", "products", "sums"])
def test_no_training_conversation_asks_a_test_question(task: str) -> None:
    asked = {
        message.text
        for rows in TRAINED.values()
        for conversation in rows
        for message in conversation.messages
        if message.role == "user"
    }
    tested = {exercise.prompt.messages[-1].text for exercise in exercises(task, "test", 1, 300)}
    assert not asked & tested


def test_every_fact_and_every_word_occurs_in_training() -> None:
    trained = {split_of(f"fact/{kind}/{subject}/{form}") for kind, subject, _ in FACTS
               for form in range(5)}  # fmt: skip
    assert trained == set(SPLITS)
    for kind, subject, _ in FACTS:
        assert "train" in {split_of(f"fact/{kind}/{subject}/{form}") for form in range(5)}
    for word in SPELLED:
        assert "train" in {split_of(f"spelling/{word}/{form}") for form in range(8)}


def test_new_words_occur_in_stories_and_are_never_spelled_in_conversations() -> None:
    assert not set(NEW_WORDS) & set(SPELLED)
    told = {word for text in documents("stories", 1, 1500) for word in words(text)}
    assert set(NEW_WORDS) <= told
    spelled = {"-".join(word) for word in NEW_WORDS}
    for rows in TRAINED.values():
        assert not spelled & {word for row in rows for word in words(_said(row))}


def test_everything_is_written_with_few_words() -> None:
    texts = [text for name in GENERATORS["documents"] for text in documents(name, 1, 1500)]
    texts += [_said(row) for rows in TRAINED.values() for row in rows]
    vocabulary = {word for text in texts for word in re.findall(r"[a-z]{2,}", text.lower())}
    assert len(vocabulary) <= 450


def test_products_call_the_calculator_in_the_share_asked_for_and_never_lie() -> None:
    rows = list(conversations("products", 1, 1000, tool_share=0.25))
    calls = sum(bool(message.tool_calls) for row in rows for message in row.messages)
    assert 200 <= calls <= 300
    for row in rows:
        a, b = re.findall(r"\d+", next(m.text for m in row.messages if m.role == "user"))
        assert row.messages[-1].text == f"The answer is {int(a) * int(b)}."


def test_a_tool_call_is_the_canonical_json() -> None:
    call = products(Random(3)).reply[0].tool_calls[0]
    assert json.dumps(json.loads(call)) == call
    assert json.loads(call)["name"] == "calculator"


def test_preferences_are_about_conduct_and_never_about_the_tool() -> None:
    for pair in preferences("conduct", 1, 300):
        assert pair.chosen != pair.rejected
        assert "The answer is" not in pair.chosen.text + pair.rejected.text
        assert not pair.chosen.tool_calls + pair.rejected.tool_calls


def test_a_choice_among_four_holds_the_answer_once() -> None:
    for exercise in exercises("facts", "test", 1, 100):
        assert exercise.choices.count(exercise.answer) == 1
        assert 2 <= len(set(exercise.choices)) == len(exercise.choices)


def test_every_kind_of_exchange_has_a_task_or_a_generator() -> None:
    assert set(EXCHANGES) <= {*GENERATORS["conversations"], *TASK_NAMES}
