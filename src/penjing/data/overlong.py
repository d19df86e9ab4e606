"""Conversations longer than a row: which of their turns stay. It knows ids, not text."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class TurnMarks:
    """The ids by which turns are told apart: what begins each, what begins the assistant's, and
    what a tool's answer holds within its first ids.
    """

    im_start: int
    assistant: tuple[int, ...]
    tool_response: int


def recent_turns(ids: npt.NDArray[Any], row_tokens: int, marks: TurnMarks) -> npt.NDArray[np.int64]:
    """Places of the ids that stay, at most `row_tokens`: the oldest turns are dropped.

    What stays begins with a user's turn, after the system's if there is one (a first turn that
    the assistant does not answer). Of a last exchange that is too long the beginning stays.

    Args:
        ids: (K,) of a rendered conversation.
        row_tokens: positions of a row.
        marks: of the tokenizer.
    """
    if len(ids) <= row_tokens:
        return np.arange(len(ids))
    starts = np.flatnonzero(ids == marks.im_start)
    spoken = [_begins(ids, start, marks.assistant) for start in starts.tolist()]
    system = 0
    if len(starts) > 1 and not spoken[0] and not spoken[1]:
        system = int(starts[1])
    room = row_tokens - system
    asked = [
        start
        for start, assistant in zip(starts.tolist(), spoken, strict=True)
        if start >= system and not assistant and marks.tool_response not in ids[start : start + 4]
    ]
    fitting = [start for start in asked if len(ids) - start <= room]
    # Without a turn that fits, the last exchange is cut; without any, the conversation is.
    first = fitting[0] if fitting else asked[-1] if asked else system
    kept = np.concatenate([np.arange(system), np.arange(first, len(ids))])
    return kept[:row_tokens]


def _begins(ids: npt.NDArray[Any], start: int, header: tuple[int, ...]) -> bool:
    return tuple(ids[start : start + len(header)].tolist()) == header
