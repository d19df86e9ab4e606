from importlib import resources

import pytest

from penjing.config.training import PROMPT_SETS
from penjing.tasks.prompt_sets import begins_with, prompt_set, token_f1


def test_the_sets_that_a_run_file_may_name_are_those_on_disk() -> None:
    folder = resources.files("penjing.configs") / "prompts"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}.toml" for name in PROMPT_SETS
    )


def test_each_set_has_as_many_different_prompts_as_it_says() -> None:
    sizes = {name: len({one.text for one in prompt_set(name).prompts}) for name in PROMPT_SETS}
    assert sizes == {
        "base-v1": 7,
        "stories-v1": 6,
        "completions-v1": 24,
        "knowledge-v1": 23,
        "chat-v1": 12,
    }
    assert all(one.answers for one in prompt_set("knowledge-v1").prompts)
    assert len({one.group for one in prompt_set("chat-v1").prompts}) == 4


def test_a_chat_prompt_keeps_its_turns_and_its_system_message() -> None:
    roles = {
        tuple(message.role for message in one.conversation.messages)
        for one in prompt_set("chat-v1").prompts
    }
    assert roles == {("user",), ("system", "user"), ("user", "assistant", "user")}


@pytest.mark.parametrize(
    ("text", "exact", "f1"),
    [
        (" Mount Everest. It is", True, 1.0),
        (" everest, in", True, 1.0),
        (" Mount Fuji", False, 0.5),
        (" the Mount Everest", False, 0.5),
        (" Everestine", False, 0.0),
        ("", False, 0.0),
    ],
)
def test_an_answer_is_scored_by_its_first_words(text: str, exact: bool, f1: float) -> None:
    answers = ("Mount Everest", "Everest")
    assert begins_with(text, answers) is exact
    assert token_f1(text, answers) == pytest.approx(f1)
