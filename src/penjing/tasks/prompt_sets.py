"""Fixed prompts in named sets, by which models are seen to learn; some have answers to be scored.

A set never changes: other prompts are another version, with another name, so that what two runs
wrote under one name can be compared. The sets are in `penjing/configs/prompts`.
"""

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from penjing.tasks.graders import normalized
from penjing.text.conversation import Conversation, prompt_from_row, text_message


@dataclass(frozen=True)
class Prompt:
    """What a model is to go on with: a plain text's beginning, or a conversation.

    `answers` are those that count as right; empty where nothing is scored.
    """

    text: str
    conversation: Conversation
    group: str = ""
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class PromptSet:
    """Prompts with the sampling that belongs to them."""

    name: str
    temperature: float
    top_k: int
    max_new_tokens: int
    prompts: tuple[Prompt, ...]


def prompt_set(name: str) -> PromptSet:
    """The set of that name; `config.training.PROMPT_SETS` lists them."""
    path = resources.files("penjing.configs") / "prompts" / f"{name}.toml"
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return PromptSet(
        name,
        table["temperature"],
        table.get("top_k", 0),
        table["max_new_tokens"],
        tuple(_prompt(row) for row in table["prompts"]),
    )


def _prompt(row: dict[str, Any]) -> Prompt:
    """A row has a `text`, which is also asked as a user's message, or `messages`."""
    if "text" in row:
        text, conversation = row["text"], Conversation((text_message("user", row["text"]),))
    else:
        messages = [{"role": role, "content": content} for role, content in row["messages"]]
        conversation = prompt_from_row({"messages": messages})
        text = "\n".join(f"{role}: {content}" for role, content in row["messages"])
    return Prompt(text, conversation, row.get("group", ""), tuple(row.get("answers", ())))


def begins_with(text: str, answers: Sequence[str]) -> bool:
    """Whether the text's first words are one of the answers, but for case and punctuation."""
    said = f"{normalized(text)} "
    return any(said.startswith(f"{normalized(answer)} ") for answer in answers)


def token_f1(text: str, answers: Sequence[str]) -> float:
    """The most that the first words of the text, as many as the answer has, share with an answer.

    Words in common over the mean number of words (arXiv:1606.05250, section 6.1); what a model
    that cannot stop says after its answer is not held against it.
    """
    return max(_overlap(normalized(text).split(), normalized(one).split()) for one in answers)


def _overlap(said: list[str], wanted: list[str]) -> float:
    said = said[: len(wanted)]
    common = (Counter(said) & Counter(wanted)).total()
    return 2 * common / (len(said) + len(wanted)) if said else 0.0
