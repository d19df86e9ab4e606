"""The demo's generators by name: rows are a function of (seed, name, row index) alone.

What a row says is decided in `stories`, `prose`, `exchanges` and `conduct`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random
from typing import Literal, TypeVar

from penjing.errors import DataError
from penjing.seeds import seed_for
from penjing.synthetic.conduct import make_preference
from penjing.synthetic.exchanges import EXCHANGES, Exchange, draw
from penjing.synthetic.grammar import pick
from penjing.synthetic.prose import make_prose
from penjing.synthetic.splits import SPLITS, Split, split_of
from penjing.synthetic.stories import make_story
from penjing.text.conversation import Conversation, Message, Preference, text_message

Row = TypeVar("Row")
Kind = Literal["documents", "conversations", "preferences"]

_DOCUMENTS: dict[str, Callable[[Random], str]] = {
    "stories": lambda rng: make_story(rng).text,
    "prose": make_prose,
}
_MULTITURN = ("smalltalk", "identity", "facts", "recall", "spelling", "letters", "sums", "products")
_CONVERSATIONS = (*(kind for kind in EXCHANGES if kind != "spelling_new_words"), "multiturn")
_SYSTEM = (
    "You are Penjing, a little model.",
    "You are Penjing. Give short answers.",
    "You are Penjing, a little model grown from text.",
)
_SYSTEM_SHARE = 0.1
GENERATORS: dict[Kind, tuple[str, ...]] = {
    "documents": tuple(_DOCUMENTS),
    "conversations": _CONVERSATIONS,
    "preferences": ("conduct",),
}
"""The generators of each kind of source."""

_REMEMBERED_ROWS = 1 << 16
"""The tokenizer's count, its evaluation and the shards read the same rows: the demo has fewer."""

_TASKS = {name: name for name in EXCHANGES if name not in ("story_requests", "smalltalk")}
_TASKS |= {"facts_open": "facts", "story_heroes": "story_requests"}
TASK_NAMES = (*_TASKS, "stop")
"""The tasks that `exercises` can draw problems for."""


@dataclass(frozen=True)
class Exercise:
    """A problem: the conversation up to the question, and the answer that a grader looks for."""

    id: str
    prompt: Conversation
    answer: str
    choices: tuple[str, ...]
    group: str


def _known(name: str, names: tuple[str, ...], what: str) -> None:
    if name not in names:
        raise DataError(f"no generated {what} is called {name!r}; there are: {', '.join(names)}")


def documents(name: str, seed: int, rows: int) -> Iterator[str]:
    """Texts for pretraining.

    Raises:
        DataError: no generator of documents has that name.
    """
    _known(name, GENERATORS["documents"], "source of documents")
    for row in range(rows):
        yield _document(name, seed, row)


@lru_cache(_REMEMBERED_ROWS)
def _document(name: str, seed: int, row: int) -> str:
    return _DOCUMENTS[name](Random(seed_for(seed, "documents", name, row)))


def _with_tool_share(exchange: Exchange, rng: Random, tool_share: float) -> Exchange:
    """Products are shown with the calculator in `tool_share` of cases, else answered at once.

    The direct answer is true, and beyond what so small a model can learn: that leaves something to
    reinforcement learning. Sums always call, so that the form of a call is learned well; the words
    of a question (plus, add; times, multiply) tell the two apart.
    """
    if exchange.group != "products" or rng.random() < tool_share:
        return exchange
    return replace(exchange, reply=exchange.reply[-1:])


@lru_cache(_REMEMBERED_ROWS)
def _conversation(name: str, seed: int, row: int, tool_share: float) -> Conversation:
    rng = Random(seed_for(seed, "conversations", name, row))
    kinds = [name]
    if name == "multiturn":
        kinds = [pick(rng, _MULTITURN) for _ in range(rng.randrange(2, 4))]
    elif name == "smalltalk" and rng.random() < 0.4:
        kinds = ["smalltalk", "smalltalk"]
    messages: list[Message] = []
    if rng.random() < _SYSTEM_SHARE:
        messages.append(text_message("system", pick(rng, _SYSTEM)))
    for kind in kinds:
        exchange = _with_tool_share(draw(kind, "train", rng), rng, tool_share)
        messages += [*exchange.prompt, *exchange.reply]
    return Conversation(tuple(messages))


def conversations(
    name: str, seed: int, rows: int, tool_share: float = 0.25
) -> Iterator[Conversation]:
    """Conversations made of training exchanges only.

    Raises:
        DataError: no generator of conversations has that name.
    """
    _known(name, GENERATORS["conversations"], "source of conversations")
    for row in range(rows):
        yield _conversation(name, seed, row, tool_share)


def preferences(name: str, seed: int, rows: int) -> Iterator[Preference]:
    """Pairs of a better and a worse answer to training questions.

    Raises:
        DataError: no generator of preferences has that name.
    """
    _known(name, GENERATORS["preferences"], "source of preferences")
    for row in range(rows):
        yield make_preference(Random(seed_for(seed, "preferences", name, row)))


def exercises(task: str, split: Split, seed: int, n: int) -> list[Exercise]:
    """At most n problems with distinct keys; fewer where the split holds fewer.

    Raises:
        DataError: unknown task or split, or training problems of words that are never trained.
    """
    _known(task, TASK_NAMES, "task")
    _known(split, SPLITS, "split")
    if (task, split) == ("spelling_new_words", "train"):
        raise DataError("spelling_new_words has no training problems: its words are held out")
    rng = Random(seed_for(seed, "exercises", task, split))
    found: dict[str, Exercise] = {}
    for attempt in range(10 * n + 3000):
        kind = _MULTITURN[attempt % len(_MULTITURN)] if task == "stop" else _TASKS[task]
        exchange = EXCHANGES[kind](rng)
        if split_of(exchange.key) == split and exchange.key not in found:
            found[exchange.key] = _exercise(task, exchange)
        if len(found) >= n:
            break
    return list(found.values())


def _exercise(task: str, exchange: Exchange) -> Exercise:
    prompt = Conversation(exchange.prompt)
    answer = exchange.reply[-1].text if task == "facts" else exchange.answer
    return Exercise(f"{task}:{exchange.key}", prompt, answer, exchange.choices, exchange.group)
