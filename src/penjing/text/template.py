"""Conversations to ids, with a mask of what is learnt, and an answer's ids to a message.

The only place that sets special tokens. Text is always encoded as text: no spelling in it can
become a special token, whoever wrote it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from penjing.text.bpe import utf8
from penjing.text.conversation import Conversation, Message, Part
from penjing.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Rendered:
    """The ids of a conversation and, for each, whether it is learnt as a target."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]


class _Segment(NamedTuple):
    text: str
    special: bool
    trained: bool


def render(tokenizer: Tokenizer, conversation: Conversation) -> Rendered:
    """The ids of a whole conversation.

    Learnt is what follows the line "assistant" up to and including `<|im_end|>`, nothing else. The
    ids of `messages[:k]` begin those of all messages, unless k parts two consecutive tool
    messages, which share a turn.
    """
    ids: list[int] = []
    trained: list[bool] = []
    for segment in _segments(conversation):
        found = _segment_ids(tokenizer, segment)
        ids += found
        trained += [segment.trained] * len(found)
    return Rendered(tuple(ids), tuple(trained))


@dataclass(frozen=True)
class RenderedMany:
    """Conversations one after another: of each id whether it is learnt, of each conversation how
    many ids it has, its bytes of ordinary text, and all its bytes, special tokens spelled out.
    """

    ids: NDArray[np.int64]
    trained: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    num_bytes: NDArray[np.int64]
    contents: list[bytes]


def render_many(tokenizer: Tokenizer, conversations: Sequence[Conversation]) -> RenderedMany:
    """What `render` makes of each, with all their text encoded at once."""
    segments = [list(_segments(conversation)) for conversation in conversations]
    every = [segment for some in segments for segment in some]
    texts = [utf8(segment.text) for segment in every]
    special = np.array([segment.special for segment in every], dtype=np.bool_)
    sizes = np.array([len(text) for text in texts], dtype=np.int64)
    ordinary = b"".join([t for t, segment in zip(texts, every, strict=True) if not segment.special])
    data = np.frombuffer(ordinary, dtype=np.uint8)
    found, ends = tokenizer.encode_batch(data, np.cumsum(sizes[~special]))
    lengths = np.ones(len(every), dtype=np.int64)
    lengths[~special] = np.diff(ends, prepend=0)
    ids = np.empty(int(lengths.sum()), dtype=np.int64)
    is_special = np.repeat(special, lengths)
    ids[~is_special] = found
    ids[is_special] = [tokenizer.special_id(one.text) for one in every if one.special]
    trained = np.array([segment.trained for segment in every], dtype=np.bool_)
    counts = np.array([len(some) for some in segments], dtype=np.int64)
    firsts = np.cumsum(counts) - counts
    contents = [
        b"".join(texts[first : first + count])
        for first, count in zip(firsts.tolist(), counts.tolist(), strict=True)
    ]
    return RenderedMany(
        ids,
        np.repeat(trained, lengths),
        np.add.reduceat(lengths, firsts),
        np.add.reduceat(np.where(special, 0, sizes), firsts),
        contents,
    )


def render_prompt(tokenizer: Tokenizer, conversation: Conversation) -> list[int]:
    """The ids after which the assistant speaks: the conversation, then its opened turn."""
    return [*render(tokenizer, conversation).ids, *_generation_prompt(tokenizer)]


def render_tool_response(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids put after an assistant's `<|im_end|>`: the tool's turn and the next prompt."""
    response = Conversation((Message("tool", (Part("tool_response", text),)),))
    return [*tokenizer.encode("\n"), *render_prompt(tokenizer, response)]


def training_texts(conversation: Conversation) -> Iterator[str]:
    """The ordinary text that `render` encodes: what a tokenizer is trained on."""
    return (segment.text for segment in _segments(conversation) if not segment.special)


def parse_assistant(tokenizer: Tokenizer, ids: Sequence[int]) -> Message:
    """The message that an assistant wrote, from the ids after the line "assistant".

    Only real special ids count; their spellings in text stay text. What follows `<|im_end|>` or
    `<|endoftext|>` is dropped, and a call without its end is text.
    """
    parts: list[Part] = []
    text: list[int] = []
    call_start: int | None = None
    for token in ids:
        if token in (tokenizer.im_end, tokenizer.end_of_text):
            break
        if token == tokenizer.end_tool_call and call_start is not None:
            parts += _text_parts(tokenizer, text[:call_start], before_call=True, first=not parts)
            parts.append(Part("tool_call", tokenizer.decode(text[call_start + 1 :]).strip()))
            text, call_start = [], None
            continue
        if token == tokenizer.tool_call and call_start is None:
            call_start = len(text)
        text.append(token)
    parts += _text_parts(tokenizer, text, before_call=False, first=not parts)
    return Message("assistant", tuple(parts))


def _text_parts(
    tokenizer: Tokenizer, ids: Sequence[int], *, before_call: bool, first: bool
) -> list[Part]:
    """Undo the line breaks that the template sets between parts."""
    text = tokenizer.decode(ids)
    text = text.removesuffix("\n") if before_call else text
    text = text if first else text.removeprefix("\n")
    return [Part("text", text)] if text else []


def _generation_prompt(tokenizer: Tokenizer) -> list[int]:
    return [tokenizer.im_start, *tokenizer.encode("assistant\n")]


def _segment_ids(tokenizer: Tokenizer, segment: _Segment) -> list[int]:
    if segment.special:
        return [tokenizer.special_id(segment.text)]
    return tokenizer.encode(segment.text)


def _segments(conversation: Conversation) -> Iterator[_Segment]:
    # Consecutive tool messages share one user turn, as in Qwen2.5.
    for is_tool, group in groupby(conversation.messages, lambda message: message.role == "tool"):
        if is_tool:
            yield from _turn("user", [part for message in group for part in message.parts])
        else:
            for message in group:
                yield from _turn(message.role, message.parts)


def _turn(role: str, parts: Sequence[Part]) -> Iterator[_Segment]:
    learnt = role == "assistant"
    yield _Segment("<|im_start|>", special=True, trained=False)
    text = f"{role}\n"
    if learnt:  # encoded apart from the content, so that a prompt is a prefix of what follows
        yield _Segment(text, special=False, trained=False)
        text = ""
    for index, part in enumerate(parts):
        text += "\n" if index else ""
        if part.kind == "text":
            text += part.text
            continue
        yield _Segment(text, special=False, trained=learnt)
        yield _Segment(f"<{part.kind}>", special=True, trained=learnt)
        yield _Segment(f"\n{part.text}\n", special=False, trained=learnt)
        yield _Segment(f"</{part.kind}>", special=True, trained=learnt)
        text = ""
    yield _Segment(text, special=False, trained=learnt)
    yield _Segment("<|im_end|>", special=True, trained=learnt)
    yield _Segment("\n", special=False, trained=False)
