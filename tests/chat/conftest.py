"""A tiny model with random weights, and an engine that speaks by script."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pytest

from penjing.chat.session import Model
from penjing.generate.engine import AnswerTurn, Request
from penjing.model.transformer import Transformer
from penjing.text.tokenizer import Tokenizer, train_tokenizer
from tests.conftest import random_transformer

Script = Callable[..., list[Request]]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["What is 23 times 41? Hello there, user and assistant."] * 3, 300)


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Model:
    transformer = random_transformer(tokenizer.vocab_size)
    return Model(transformer, tokenizer, "sft", 40, Path("runs/tiny/sft/step-000040"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """`script(turn, turn, …)`: the engine's turns of one answer; returns the requests it got.

    A turn after which the tool is called is followed by the forced ids, as in the engine.
    """

    def install(*turns: Sequence[int]) -> list[Request]:
        requests: list[Request] = []

        def stream(
            transformer: Transformer,
            request: Request,
            *,
            stop_ids: Collection[int],
            answer_turn: AnswerTurn,
        ) -> Iterator[int]:
            requests.append(request)
            for turn in turns:
                forced = answer_turn(turn) if turn[-1] in stop_ids else ()
                yield from turn
                yield from forced

        monkeypatch.setattr("penjing.chat.session.stream", stream)
        return requests

    return install
