"""Conversations and preference pairs in the forms that other tools write, told apart by their keys.

Each form becomes a row of messages, which `text.conversation` reads and checks; nothing is guessed
here beyond names. Declared tools (`tools`) are not read: a model is told of tools by its system
message alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from penjing.errors import DataError
from penjing.text.conversation import (
    Conversation,
    Preference,
    conversation_from_row,
    preference_from_row,
)

Form = Literal["messages", "ShareGPT", "Alpaca", "prompt and answer"]
Row = Mapping[str, Any]

_SPEAKERS = {
    "system": "system",
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "function_call"), "assistant"),
    **dict.fromkeys(("observation", "tool", "function_response"), "tool"),
}
_PAIRS = tuple(
    (question, answer)
    for question in ("prompt", "question", "query")
    for answer in ("completion", "response", "answer")
)
_LISTS = ("messages", "conversations")
_KNOWN = (
    "messages; conversations of from and value (ShareGPT); instruction and output (Alpaca); "
    "prompt, question or query with completion, response or answer"
)


def form_of(row: Row) -> Form:
    """The form of a conversation.

    Raises:
        DataError: it is in none of them.
    """
    for key in _LISTS:
        turns = row.get(key)
        if isinstance(turns, list):
            shared = bool(turns) and isinstance(turns[0], Mapping) and "from" in turns[0]
            return "ShareGPT" if shared else "messages"
    if "messages" in row:
        return "messages"
    if "instruction" in row and "output" in row:
        return "Alpaca"
    if any(question in row and answer in row for question, answer in _PAIRS):
        return "prompt and answer"
    keys = ", ".join(sorted(map(str, row))[:8]) or "none"
    raise DataError(f"no conversation (keys: {keys}): known are {_KNOWN}")


def read_conversation(row: Row) -> Conversation:
    """A conversation from a row in any of the forms.

    Raises:
        DataError: it is in none, or no conversation with an assistant's turn; the reason.
    """
    form = form_of(row)
    if form == "ShareGPT":
        return conversation_from_row({"messages": _shared(row)})
    if form == "Alpaca":
        return conversation_from_row(
            {"messages": [*_asked(row), _said("assistant", row["output"])]}
        )
    if form == "prompt and answer":
        question, answer = next(pair for pair in _PAIRS if pair[0] in row and pair[1] in row)
        turns = [_said("user", row[question]), _said("assistant", row[answer])]
        return conversation_from_row({"messages": [*_system(row), *turns]})
    return conversation_from_row({"messages": row.get("messages", row.get("conversations"))})


def read_preference(row: Row) -> Preference:
    """A pair: `chosen` and `rejected` answers to a prompt, or two conversations that begin alike.

    Raises:
        DataError: the row is no preference; the reason.
    """
    chosen, rejected = (_answers(row.get(key)) for key in ("chosen", "rejected"))
    if len(chosen) > 1 and len(rejected) > 1:
        if chosen[:-1] != rejected[:-1]:
            raise DataError("chosen and rejected are conversations that do not begin alike")
        prompt: Any = chosen[:-1]
    elif "instruction" in row:
        prompt = _asked(row)
    elif any(_is_shared(row.get(key)) for key in _LISTS):
        prompt = _shared(row)
    else:
        prompt = row.get("prompt", row.get("messages", row.get("conversations")))
        if isinstance(prompt, str):
            prompt = [*_system(row), _said("user", prompt)]
    answers = {"chosen": row.get("chosen"), "rejected": row.get("rejected")}
    if chosen and rejected:
        answers = {"chosen": chosen[-1], "rejected": rejected[-1]}
    return preference_from_row({"prompt": prompt, **answers})


def _answers(value: Any) -> list[Any]:
    """The turns of an answer, or of a conversation that ends in one; none where it is neither."""
    if isinstance(value, str):
        return [_said("assistant", value)]
    turns = value if isinstance(value, list) else [value]
    if _is_shared(turns):
        return _turns(turns)
    return turns if all(isinstance(turn, Mapping) for turn in turns) else []


def _is_shared(turns: Any) -> bool:
    """Whether these are ShareGPT's turns."""
    return isinstance(turns, list) and any(isinstance(t, Mapping) and "from" in t for t in turns)


def _said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _system(row: Row) -> list[dict[str, Any]]:
    return [_said("system", row["system"])] if row.get("system") else []


def _asked(row: Row) -> list[dict[str, Any]]:
    """Alpaca's side of the user: earlier turns, then the instruction and its input below it."""
    turns = _system(row)
    for pair in row.get("history") or []:
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise DataError("'history' is not a list of pairs of question and answer")
        turns += [_said("user", pair[0]), _said("assistant", pair[1])]
    asked, more = row["instruction"], row.get("input")
    if more and isinstance(asked, str) and isinstance(more, str):
        asked = f"{asked}\n\n{more}"
    return [*turns, _said("user", asked)]


def _shared(row: Row) -> list[dict[str, Any]]:
    turns = next(row[key] for key in _LISTS if isinstance(row.get(key), list))
    return [*_system(row), *_turns(turns)]


def _turns(turns: Sequence[Any]) -> list[dict[str, Any]]:
    """ShareGPT's turns as messages; a call right after the assistant's words ends that turn."""
    messages: list[dict[str, Any]] = []
    for index, turn in enumerate(turns):
        speaker = turn.get("from") if isinstance(turn, Mapping) else None
        if speaker not in _SPEAKERS:
            raise DataError(
                f"turn {index} is from {speaker!r}, wanted one of {', '.join(_SPEAKERS)}"
            )
        if speaker != "function_call":
            messages.append(_said(_SPEAKERS[speaker], turn.get("value")))
        elif messages and messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
            messages[-1]["tool_calls"] = [turn.get("value")]
        else:
            messages.append({"role": "assistant", "tool_calls": [turn.get("value")]})
    return messages
