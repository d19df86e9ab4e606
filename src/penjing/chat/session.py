"""A trained model to talk to: loading it, one answer, and a conversation that fits the context.

What the screen shows is `chat.terminal`'s duty.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from penjing.artifacts.directories import verified
from penjing.artifacts.lines import read_record
from penjing.artifacts.stage import read_manifest
from penjing.errors import ArtifactError
from penjing.generate.engine import Request, stream
from penjing.generate.sampling import Sampling
from penjing.generate.tools import calculator_turn
from penjing.model.language_model import LanguageModel
from penjing.model.weights import load_weights
from penjing.runtime import Machine, open_runtime
from penjing.seeds import seed_for
from penjing.text.conversation import Conversation, prompt_from_row, text_message
from penjing.text.template import render, render_prompt
from penjing.text.tokenizer import StreamDecoder, Tokenizer, load_tokenizer

STAGES = ("rl", "dpo", "sft", "midtrain", "pretrain")
Said = str | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Piece:
    """A part of an answer as it comes: its text, a tool call with its result, or a remark."""

    kind: Literal["text", "tool", "note"]
    text: str


@dataclass(frozen=True)
class Model:
    """One checkpoint, and which one it is. A pretrained one continues text; later ones answer."""

    transformer: LanguageModel
    tokenizer: Tokenizer
    stage: str
    step: int
    directory: Path

    @property
    def continues(self) -> bool:
        return self.stage == "pretrain"

    @property
    def context_tokens(self) -> int:
        return self.transformer.shape.max_position_embeddings

    def chat(
        self,
        said: Said,
        *,
        system: str | None = None,
        temperature: float = 0.7,
        max_new_tokens: int = 256,
        seed: int = 1,
    ) -> str:
        """The whole answer to a text, or to messages `{"role": …, "content": …}`.

        Args:
            said: the user's words, or a conversation that ends with them.
            system: a system message before a text.
            temperature: 0 is greedy.
            max_new_tokens: tokens of the answer at most, tool turns included.
            seed: the same seed gives the same answer.

        Raises:
            DataError: the messages are no conversation, or longer than the context.
        """
        pieces = self.stream(
            said, system=system, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed
        )
        return "".join(pieces).strip()

    def stream(
        self,
        said: Said,
        *,
        system: str | None = None,
        temperature: float = 0.7,
        max_new_tokens: int = 256,
        seed: int = 1,
    ) -> Iterator[str]:
        """As `chat`, in pieces that never end inside a character; tool turns are left out."""
        sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens)
        request = Request(tuple(self.prompt(said, system)), sampling, seed)
        return (piece.text for piece in Answer(self, request) if piece.kind == "text")

    def prompt(self, said: Said, system: str | None = None) -> list[int]:
        """The ids after which the model speaks."""
        if not isinstance(said, str):
            conversation = prompt_from_row({"messages": list(said)})
            return render_prompt(self.tokenizer, conversation)
        if self.continues:
            return [self.tokenizer.end_of_text, *self.tokenizer.encode(said)]
        before = (text_message("system", system),) if system else ()
        return render_prompt(self.tokenizer, Conversation((*before, text_message("user", said))))


class Answer:
    """The pieces of one answer; `ids` are its tokens so far, tool turns included.

    Special tokens are never shown, a tool call and its result become one piece.
    """

    def __init__(self, model: Model, request: Request) -> None:
        self.ids: list[int] = []
        self._model, self._request = model, request
        self._forced = 0
        self._tool = ""

    def __iter__(self) -> Iterator[Piece]:
        tokenizer = self._model.tokenizer
        decoder = StreamDecoder(tokenizer)
        hidden, in_call = 0, False
        ends = (tokenizer.im_end, tokenizer.end_of_text)
        ids = stream(
            self._model.transformer, self._request, stop_ids=ends, answer_turn=self._answer_turn
        )
        for token in ids:
            self.ids.append(token)
            if hidden:
                hidden -= 1
                in_call = False
                if not hidden:
                    yield Piece("tool", self._tool)
            elif token in ends:
                hidden, self._forced = self._forced, 0
            elif token == tokenizer.tool_call:
                in_call = True
            elif in_call or token in tokenizer.special_ids:
                continue
            elif text := decoder.push(token):
                yield Piece("text", text)
        if rest := decoder.flush():
            yield Piece("text", rest)

    def _answer_turn(self, turn: Sequence[int]) -> tuple[int, ...]:
        forced = calculator_turn(self._model.tokenizer, self._hear)(turn)
        self._forced = len(forced)
        return forced

    def _hear(self, call: str, result: str) -> None:
        self._tool = f"{_shown(call)} → {result}"


def _shown(call: str) -> str:
    """A call for people: its name and its arguments, or as it is when it is malformed."""
    try:
        value = json.loads(call)
        return " ".join([value["name"], *map(str, value["arguments"].values())])
    except (ValueError, TypeError, KeyError, AttributeError):
        return call


class ChatSession:
    """A conversation; when it outgrows the context, the oldest exchanges are forgotten."""

    def __init__(self, model: Model, system: str | None, sampling: Sampling, seed: int) -> None:
        self.model = model
        self._sampling, self._seed = sampling, seed
        self._system: list[int] = []
        if system and not model.continues:
            message = Conversation((text_message("system", system),))
            self._system = list(render(model.tokenizer, message).ids)
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system message."""
        self._exchanges: list[list[int]] = []
        self._turns = 0

    def ask(self, said: str) -> Iterator[Piece]:
        """The answer as it comes; what came before an interruption stays in the conversation.

        Raises:
            DataError: the words alone are longer than the context.
        """
        model, end = self.model, self.model.tokenizer.im_end
        words = model.prompt(said)
        room = model.context_tokens - min(self._sampling.max_new_tokens, model.context_tokens // 4)
        forgotten = 0
        while self._exchanges and len(self._history() + words) > room:
            del self._exchanges[0]
            forgotten += 1
        if forgotten:
            context = f"the context of {model.context_tokens} tokens is full"
            yield Piece("note", f"{context}: forgot what was said first ({forgotten} exchanges)")
        self._turns += 1
        seed = seed_for(self._seed, "chat", self._turns)
        answer = Answer(model, Request((*self._history(), *words), self._sampling, seed))
        try:
            yield from answer
        finally:
            if answer.ids and not model.continues:
                close = [end] * (answer.ids[-1] != end) + model.tokenizer.encode("\n")
                self._exchanges.append(words + answer.ids + close)

    def _history(self) -> list[int]:
        return [*self._system, *(token for exchange in self._exchanges for token in exchange)]


def load(path: Path, *, stage: str | None = None, step: int | None = None) -> Model:
    """The model of a run's last finished stage, of a chosen one, or of one checkpoint directory.

    Raises:
        ArtifactError: there is no such checkpoint, or a file of it was altered.
    """
    given = stage is None and step is None and (path / "state.json").exists()
    directory = verified(path if given else _checkpoint(path, stage or _last_finished(path), step))
    state = json.loads((directory / "state.json").read_text("utf-8"))
    machine = directory.resolve().parents[1] / "machine.json"
    recorded = read_record(machine, Machine) if machine.exists() else None
    dtype = recorded.dtype if recorded else "float32"
    runtime, _ = open_runtime("auto", dtype, None, recorded)
    transformer = load_weights(directory, runtime.dtype).to(runtime.device)
    tokenizer = load_tokenizer(directory)
    return Model(transformer, tokenizer, str(state["stage"]), int(state["step"]), directory)


def _last_finished(run_dir: Path) -> str:
    for name in STAGES:
        if read_manifest(run_dir / name) is not None:
            return name
    raise ArtifactError(
        f"{run_dir}: found no finished stage of {', '.join(STAGES)}; wanted a run directory such "
        "as runs/NAME, or one of its checkpoints; name a stage to take an unfinished one"
    )


def _checkpoint(run_dir: Path, stage: str, step: int | None) -> Path:
    paths = (run_dir / stage).glob("step-*")
    found = {int(path.name[5:]): path for path in paths if path.name[5:].isdigit()}
    wanted = max(found, default=0) if step is None else step
    if wanted not in found:
        kept = ", ".join(map(str, sorted(found))) or "none"
        which = "" if step is None else f" of step {step}"
        raise ArtifactError(f"{run_dir / stage} has no checkpoint{which}; it has: {kept}")
    return found[wanted]
