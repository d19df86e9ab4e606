from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.errors import DataError
from penjing.text.conversation import (
    Conversation,
    Message,
    Part,
    Preference,
    conversation_from_row,
    conversation_to_row,
    preference_from_row,
    preference_to_row,
    prompt_from_row,
    text_message,
    tool_call_json,
)

USER = {"role": "user", "content": "2*3?"}
ANSWER = {"role": "assistant", "content": "6"}
CALL = tool_call_json("calculator", {"expression": "2*3"})
CALLING = {"role": "assistant", "content": [{"type": "tool_call", "text": CALL}]}


def test_a_conversation_with_a_tool_survives_its_row() -> None:
    conversation = Conversation(
        (
            text_message("system", "Be brief."),
            text_message("user", "2*3?"),
            Message("assistant", (Part("text", "I ask."), Part("tool_call", CALL))),
            text_message("tool", "6"),
            text_message("assistant", "Six."),
        )
    )
    assert conversation_from_row(conversation_to_row(conversation)) == conversation


@pytest.mark.parametrize("arguments", [{"expression": "2*3"}, '{"expression":"2*3"}'])
def test_tool_calls_are_read_in_hugging_faces_form(arguments: Any) -> None:
    function = {"name": "calculator", "arguments": arguments}
    calling = {"role": "assistant", "content": None, "tool_calls": [{"function": function}]}
    messages = [USER, calling, {"role": "tool", "content": "6"}, ANSWER]
    conversation = conversation_from_row({"messages": messages})
    assert conversation.messages[1] == Message("assistant", (Part("tool_call", CALL),))


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "'messages' is missing"),
        ([], "wanted a list of messages"),
        ("hi", "wanted a list of messages"),
        ([USER], "no assistant message"),
        ([ANSWER], "assistant cannot stand at the start"),
        ([USER, USER, ANSWER], "user cannot stand after user"),
        ([USER, ANSWER, ANSWER], "assistant cannot stand after assistant"),
        ([USER, {"role": "system", "content": "x"}, ANSWER], "system cannot stand after user"),
        ([USER, ANSWER, {"role": "tool", "content": "6"}], "tool cannot stand after assistant"),
        ([USER, CALLING, USER, ANSWER], "user cannot stand after assistant that called a tool"),
        ([USER, {"role": "assistant", "content": ""}], "is empty"),
        ([USER, {"role": "assistant"}], "content is missing"),
        ([USER, {"role": "assistant", "content": 3}], "content is 3"),
        ([USER, {"role": "assistant<|im_end|>", "content": "x"}], "role is"),
        ([USER, {"role": ["user"], "content": "x"}], "role is"),
        ([USER, "x"], "wanted an object"),
        ([USER, {"role": "assistant", "content": "\ud83d"}], "half a character"),
        ([{"role": "user", "content": [{"type": "tool_call", "text": CALL}]}, ANSWER], "a part of"),
        ([USER, {"role": "assistant", "content": [{"type": ["x"], "text": "x"}]}], "a part of"),
        ([USER, {**ANSWER, "tool_calls": ["{"]}], "tool call"),
        ([USER, {**ANSWER, "tool_calls": [{"name": "f", "arguments": 1}]}], "tool call"),
        ([USER, {**ANSWER, "tool_calls": 5}], "tool_calls"),
        ([{**USER, "tool_calls": [CALL]}, ANSWER], "user cannot call a tool"),
        ([USER, {**CALLING, "content": [*CALLING["content"], {"text": "x"}]}], "text after a tool"),
    ],
)
def test_a_row_that_is_no_conversation_says_why(messages: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        conversation_from_row({"messages": messages})


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.sampled_from(["user", "assistant", "tool"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "role",
                        "content",
                        "type",
                        "text",
                        "tool_calls",
                        "function",
                        "name",
                        "arguments",
                    ]
                ),
                inner,
            )
        ),
    )
)
def test_any_json_is_a_conversation_or_a_data_error(value: Any) -> None:
    for row in ({"messages": value}, {"messages": [value]}, {"messages": [USER, value]}):
        try:
            conversation = conversation_from_row(row)
        except DataError as error:
            assert str(error)
        else:
            assert conversation_from_row(conversation_to_row(conversation)) == conversation


def test_a_prompt_ends_with_the_one_who_waits() -> None:
    assert prompt_from_row({"messages": [USER]}).messages[-1].text == "2*3?"
    with pytest.raises(DataError, match="ends with assistant"):
        prompt_from_row({"messages": [USER, ANSWER]})


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "5"}]},
        {"prompt": "2*3?", "chosen": "6", "rejected": "5"},
        {"messages": [USER], "chosen": ANSWER, "rejected": "5"},
    ],
)
def test_preferences_are_read_in_every_usual_form(row: dict[str, Any]) -> None:
    preference = preference_from_row(row)
    prompt = Conversation((text_message("user", "2*3?"),))
    answers = text_message("assistant", "6"), text_message("assistant", "5")
    assert preference == Preference(prompt, *answers)
    assert preference_from_row(preference_to_row(preference)) == preference


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": None}, "chosen is missing"),
        ({"chosen": "5"}, "same answer"),
        ({"rejected": [USER]}, "rejected is a message of user"),
        ({"prompt": [USER, ANSWER]}, "prompt ends with assistant"),
    ],
)
def test_a_row_that_is_no_preference_says_why(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        preference_from_row({"prompt": [USER], "chosen": "6", "rejected": "5", **change})
