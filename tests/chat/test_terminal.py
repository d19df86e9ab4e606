"""The conversation on the screen."""

import io
from collections.abc import Callable, Iterator

import pytest

from penjing.chat.session import ChatSession, Model, Piece
from penjing.chat.terminal import chat
from penjing.generate.engine import Request

Script = Callable[..., list[Request]]
Screen = pytest.CaptureFixture[str]


def talk(model: Model, typed: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    return chat(model, system=None, temperature=0.0, seed=1, max_new_tokens=8)


def test_piped_lines_are_answered_without_decoration(
    model: Model, script: Script, monkeypatch: pytest.MonkeyPatch, capsys: Screen
) -> None:
    requests = script([*model.tokenizer.encode("Hi."), model.tokenizer.im_end])
    assert talk(model, "Hello\n\nAnd you?\n", monkeypatch) == 0
    assert capsys.readouterr().out == "Hi.\nHi.\n"
    assert len(requests[1].prompt) > len(requests[0].prompt)


def test_reset_forgets_and_quit_leaves(
    model: Model, script: Script, monkeypatch: pytest.MonkeyPatch, capsys: Screen
) -> None:
    requests = script([*model.tokenizer.encode("Hi."), model.tokenizer.im_end])
    talk(model, "Hello\n/reset\nHello\n/nonsense\n/help\n/quit\nnever\n", monkeypatch)
    assert len(requests) == 2
    assert requests[0].prompt == requests[1].prompt
    assert "no command /nonsense" in capsys.readouterr().out


def test_interrupting_an_answer_does_not_leave_the_program(
    model: Model, monkeypatch: pytest.MonkeyPatch, capsys: Screen
) -> None:
    def ask(self: ChatSession, said: str) -> Iterator[Piece]:
        yield Piece("text", said)
        if said == "long":
            raise KeyboardInterrupt

    monkeypatch.setattr(ChatSession, "ask", ask)
    assert talk(model, "long\nshort\n", monkeypatch) == 0
    assert capsys.readouterr().out == "long [stopped]\nshort\n"


def test_a_models_words_cannot_steer_the_terminal(
    model: Model, script: Script, monkeypatch: pytest.MonkeyPatch, capsys: Screen
) -> None:
    script([*model.tokenizer.encode("\x1b]0;title\x07\u202eabc"), model.tokenizer.im_end])
    talk(model, "Hello\n", monkeypatch)
    assert capsys.readouterr().out == "\ufffd]0;title\ufffd\ufffdabc\n"


def test_a_text_longer_than_the_context_is_refused_and_the_talk_goes_on(
    model: Model, monkeypatch: pytest.MonkeyPatch, capsys: Screen
) -> None:
    assert talk(model, "What is 23 times 41? " * 99 + "\n/reset\n", monkeypatch) == 0
    assert "shorten" in capsys.readouterr().out
