"""The same conversation, whoever wrote it down."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.errors import DataError
from penjing.text.conversation import (
    Conversation,
    Message,
    Part,
    conversation_to_row,
    text_message,
    tool_call_json,
)
from penjing.text.conversation_forms import form_of, read_conversation, read_preference

TEXT = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())
CALL = '{"name": "weather", "arguments": {"city": "Oslo"}}'


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    turns = draw(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
    system = draw(st.none() | TEXT)
    messages = [text_message("system", system)] if system else []
    for asked, answer in turns:
        messages += [text_message("user", asked), text_message("assistant", answer)]
    return Conversation(tuple(messages))


@given(conversations())
def test_a_conversation_reads_alike_in_every_form(conversation: Conversation) -> None:
    said = [(message.role, message.text) for message in conversation.messages]
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    *history, (_, asked), (_, answer) = [turn for turn in said if turn[0] != "system"]
    pairs = [list(pair) for pair in zip(history[::2], history[1::2], strict=True)]
    system = {"system": text} if (text := dict(said).get("system")) else {}
    shared = [{"from": names[role], "value": text} for role, text in said]
    alpaca = {"history": [[a[1], b[1]] for a, b in pairs], "instruction": asked, "output": answer}
    forms: dict[str, Mapping[str, Any]] = {
        "messages": conversation_to_row(conversation),
        "ShareGPT": {"conversations": shared},
        "Alpaca": system | alpaca,
    }
    if not history:
        forms["prompt and answer"] = system | {"question": asked, "answer": answer}
    for form, row in forms.items():
        assert form_of(row) == form
        assert read_conversation(row) == conversation


def test_an_input_of_alpaca_stands_below_its_instruction() -> None:
    row = {"instruction": "Add them.", "input": "2 and 3", "output": "5"}
    assert read_conversation(row).messages[0].text == "Add them.\n\n2 and 3"
    assert read_conversation(row | {"input": ""}).messages[0].text == "Add them."


def test_calls_and_observations_of_sharegpt_are_a_tools_turns() -> None:
    turns = [
        {"from": "human", "value": "Is it cold?"},
        {"from": "gpt", "value": "I look."},
        {"from": "function_call", "value": CALL},
        {"from": "observation", "value": "-4"},
        {"from": "function_call", "value": CALL},
        {"from": "observation", "value": "-5"},
        {"from": "gpt", "value": "It is."},
    ]
    call = Part("tool_call", tool_call_json("weather", {"city": "Oslo"}))
    assert read_conversation({"conversations": turns, "tools": "[]"}).messages == (
        text_message("user", "Is it cold?"),
        Message("assistant", (Part("text", "I look."), call)),
        text_message("tool", "-4"),
        Message("assistant", (call,)),
        text_message("tool", "-5"),
        text_message("assistant", "It is."),
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "a", "id": 1}, r"no conversation \(keys: id, text\): known are messages"),
        ({}, "keys: none"),
        ({"conversations": [{"from": "alien", "value": "hi"}]}, "turn 0 is from 'alien', wanted"),
        ({"conversations": [{"from": "gpt", "value": "hi"}]}, "assistant cannot stand at the st"),
        ({"conversations": [{"from": "human"}, {"from": "gpt", "value": "x"}]}, "content is miss"),
        ({"instruction": "Do.", "output": ""}, "the message of assistant is empty"),
        ({"instruction": "Do.", "output": "x", "history": ["ab"]}, "'history' is not a list of"),
        ({"prompt": 7, "response": "x"}, "content is 7"),
        ({"messages": None}, "'messages' is missing"),
    ],
)
def test_a_row_that_is_no_conversation_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_conversation(row)


def whole(answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "2*3?"}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2*3?", "chosen": "6", "rejected": "5"},
        {"prompt": "2*3?", "chosen": whole("6"), "rejected": whole("5")},
        {"chosen": whole("6"), "rejected": whole("5")},
        {"instruction": "2*3?", "input": "", "chosen": "6", "rejected": "5"},
        {
            "conversations": [{"from": "human", "value": "2*3?"}],
            "chosen": {"from": "gpt", "value": "6"},
            "rejected": {"from": "gpt", "value": "5"},
        },
        {"messages": whole("")[:1], "chosen": whole("6")[1:], "rejected": whole("5")[1]},
    ],
)
def test_a_preference_reads_alike_in_every_form(row: dict[str, Any]) -> None:
    found = read_preference(row)
    assert [message.text for message in found.prompt.messages] == ["2*3?"]
    assert (found.chosen.text, found.rejected.text) == ("6", "5")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "the same answer"),
        ({"prompt": "a", "chosen": "b"}, "rejected"),
        ({"chosen": "b", "rejected": "c"}, "'prompt' is missing"),
        ({"chosen": whole("6"), "rejected": [{}, whole("5")[1]]}, "do not begin alike"),
    ],
)
def test_a_row_that_is_no_preference_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_preference(row)
