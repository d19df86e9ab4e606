"""Conversations and preference pairs, and the JSON rows they come from.

How a conversation becomes ids is `text.template`'s duty; which file a row is in, `sources`'.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from penjing.errors import DataError

Role = Literal["system", "user", "assistant", "tool"]
PartKind = Literal["text", "tool_call", "tool_response"]

ROLES: tuple[Role, ...] = get_args(Role)
_KINDS: dict[Role, tuple[PartKind, ...]] = {
    "system": ("text",),
    "user": ("text",),
    "assistant": ("text", "tool_call"),
    "tool": ("tool_response",),
}
_MAY_FOLLOW: dict[Role, tuple[Role | None, ...]] = {
    "system": (None,),
    "user": (None, "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


@dataclass(frozen=True)
class Part:
    """A stretch of a message. A `tool_call` holds `{"name": ..., "arguments": {...}}` as JSON."""

    kind: PartKind
    text: str


@dataclass(frozen=True)
class Message:
    """One turn of one speaker; a tool's turn holds `tool_response` parts only."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts alone, joined."""
        return "\n".join(part.text for part in self.parts if part.kind == "text")

    @property
    def tool_calls(self) -> tuple[str, ...]:
        return tuple(part.text for part in self.parts if part.kind == "tool_call")


@dataclass(frozen=True)
class Conversation:
    """Messages in order: an optional system message, then user and assistant in turn."""

    messages: tuple[Message, ...]

    def then(self, *messages: Message) -> "Conversation":
        return Conversation(self.messages + messages)


@dataclass(frozen=True)
class Preference:
    """A prompt with a better and a worse answer."""

    prompt: Conversation
    chosen: Message
    rejected: Message


def text_message(role: Role, text: str) -> Message:
    """A message of one part (a tool's is its response)."""
    return Message(role, (Part("tool_response" if role == "tool" else "text", text),))


def tool_call_json(name: str, arguments: Mapping[str, Any]) -> str:
    """The text of a `tool_call` part, as Hugging Face's `tojson` writes it."""
    return json.dumps({"name": name, "arguments": dict(arguments)}, ensure_ascii=False)


def conversation_from_row(row: Mapping[str, Any]) -> Conversation:
    """A conversation from `{"messages": [{"role", "content"}, ...]}`.

    `content` is a string or a list of `{"type", "text"}`; `tool_calls` are read in
    Hugging Face's form.

    Raises:
        DataError: the row is no conversation, or none with an assistant's turn; the reason.
    """
    messages = _messages(row.get("messages"), "messages")
    if all(message.role != "assistant" for message in messages):
        raise DataError("no assistant message: there is nothing to learn from")
    return Conversation(messages)


def prompt_from_row(row: Mapping[str, Any]) -> Conversation:
    """A conversation that the assistant is to go on with: it ends with a user or a tool.

    Raises:
        DataError: the row is no such conversation; the reason.
    """
    return _prompt(row.get("messages"), "messages")


def conversation_to_row(conversation: Conversation) -> dict[str, Any]:
    return {"messages": [_message_to_json(message) for message in conversation.messages]}


def preference_from_row(row: Mapping[str, Any]) -> Preference:
    """A pair from `{"prompt": [messages], "chosen": answer, "rejected": answer}`.

    `messages` may stand for `prompt`; a prompt may be a string, an answer a string, a message
    or a list of one message.

    Raises:
        DataError: the row is no preference; the reason.
    """
    key = "prompt" if "prompt" in row else "messages"
    prompt = row.get(key)
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    answers = _answer(row, "chosen"), _answer(row, "rejected")
    if answers[0] == answers[1]:
        raise DataError("chosen and rejected are the same answer")
    return Preference(_prompt(prompt, key), *answers)


def preference_to_row(preference: Preference) -> dict[str, Any]:
    return {
        "prompt": conversation_to_row(preference.prompt)["messages"],
        "chosen": [_message_to_json(preference.chosen)],
        "rejected": [_message_to_json(preference.rejected)],
    }


def _prompt(value: Any, key: str) -> Conversation:
    messages = _messages(value, key)
    if messages[-1].role not in ("user", "tool"):
        raise DataError(f"{key} ends with {messages[-1].role}: a prompt ends with user or tool")
    return Conversation(messages)


def _answer(row: Mapping[str, Any], key: str) -> Message:
    value = row.get(key)
    if isinstance(value, str):
        value = {"role": "assistant", "content": value}
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    message = _message(value, key)
    if message.role != "assistant":
        raise DataError(f"{key} is a message of {message.role}, wanted assistant")
    return message


def _messages(value: Any, key: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise DataError(f"'{key}' is {_shown(value)}, wanted a list of messages")
    messages = tuple(_message(item, f"{key}[{index}]") for index, item in enumerate(value))
    previous: Message | None = None
    for index, message in enumerate(messages):
        before = previous.role if previous else None
        calls = previous.tool_calls if previous else ()
        allowed = before in _MAY_FOLLOW[message.role]
        if before == "assistant" and allowed:
            allowed = bool(calls) == (message.role == "tool")
        if not allowed:
            called = " that called a tool" if calls else ""
            place = f"after {before}{called}" if before else "at the start"
            raise DataError(f"{key}[{index}]: {message.role} cannot stand {place}")
        previous = message
    return messages


def _message(value: Any, place: str) -> Message:
    if not isinstance(value, Mapping):
        raise DataError(f"{place} is {_shown(value)}, wanted an object with role and content")
    role = value.get("role")
    if role not in ROLES:
        raise DataError(f"{place}.role is {_shown(role)}, wanted one of {', '.join(ROLES)}")
    content = value.get("content")
    calls = value.get("tool_calls") or []
    if not isinstance(calls, list):
        raise DataError(f"{place}.tool_calls is {_shown(calls)}, wanted a list")
    if content is None and calls:
        content = ""
    if isinstance(content, str):
        content = [{"type": _KINDS[role][0], "text": content}]
    if not isinstance(content, list):
        raise DataError(f"{place}.content is {_shown(content)}, wanted a string or a list of parts")
    parts = [_part(item, role, place) for item in content]
    parts += [_call(call, place) for call in calls]
    return Message(role, _in_order(parts, role, place))


def _in_order(parts: list[Part], role: Role, place: str) -> tuple[Part, ...]:
    """Text first, joined and not empty, then calls; a tool's response may be empty."""
    calls = [part for part in parts if part.kind == "tool_call"]
    if calls and role != "assistant":
        raise DataError(f"{place}: {role} cannot call a tool")
    if role == "tool" and parts:
        return tuple(parts)
    texts = [part for part in parts if part.kind == "text" and part.text]
    if calls and any(part.kind == "text" for part in parts[parts.index(calls[0]) :]):
        raise DataError(f"{place}: text after a tool call, which ends its turn")
    if not texts and not calls:
        raise DataError(f"{place}: the message of {role} is empty")
    joined = [Part("text", "".join(part.text for part in texts))] if texts else []
    return (*joined, *calls)


def _part(value: Any, role: Role, place: str) -> Part:
    kind = value.get("type", "text") if isinstance(value, Mapping) else None
    if kind not in _KINDS[role]:
        raise DataError(f"{place}: a part of {role} is {_shown(value)}, wanted {_KINDS[role]}")
    text = _text(value.get("text"), place)
    return _call(text, place) if kind == "tool_call" else Part(kind, text)


def _call(value: Any, place: str) -> Part:
    """A call as JSON text, as `{"name", "arguments"}` or inside `{"function": ...}`."""
    try:
        call = json.loads(value) if isinstance(value, str) else value
        call = call.get("function", call)
        name, arguments = call["name"], call["arguments"]
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        if not isinstance(name, str) or not isinstance(arguments, Mapping):
            raise TypeError  # noqa: TRY301 - told below, with the other ways to be wrong
        return Part("tool_call", _text(tool_call_json(name, arguments), place))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        wanted = '{"name": "...", "arguments": {...}}'
        raise DataError(f"{place}: tool call {_shown(value)}, wanted {wanted}") from problem


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{place}: text is {_shown(value)}, wanted a string")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(f"{place}: text holds half a character (a lone surrogate)")
    return value


def _message_to_json(message: Message) -> dict[str, Any]:
    only = message.parts[0] if len(message.parts) == 1 else None
    if only is not None and only.kind != "tool_call":
        return {"role": message.role, "content": only.text}
    parts = [{"type": part.kind, "text": part.text} for part in message.parts]
    return {"role": message.role, "content": parts}


def _shown(value: Any) -> str:
    """A value short enough for a message."""
    if value is None:
        return "missing"
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
