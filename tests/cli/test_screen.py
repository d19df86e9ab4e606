"""What is drawn: few plain lines in a pipe, a live bar on a terminal, nothing unsafe."""

import io
import sys

import pytest

from penjing.artifacts.progress import Progress
from penjing.cli.screen import Screen


def play(screen: Screen) -> None:
    with screen:
        screen.show(Progress("tokenizer", "skipped", text="finished before"))
        screen.show(Progress("pretrain", "started"))
        for step in range(1, 401):
            values: tuple[tuple[str, float], ...] = (
                ("loss", 400 / step),
                ("tokens_per_second", 12345.6),
            )
            if step % 50 == 0:
                values += (("validation_bpb", 1.5),)
                screen.show(Progress("pretrain", "sample", step, 400, text="Once\n\x1b[31m[b]up"))
                screen.show(Progress("pretrain", "sample", step, 400, text="another"))
            screen.show(Progress("pretrain", "progress", step, 400, values))
        screen.show(Progress("pretrain", "finished", values=(("seconds", 12.34),)))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm", "COLUMNS": "100"} | environment).items():
        monkeypatch.setenv(name, value)
    play(Screen(json=False))
    return terminal.getvalue()


def test_a_pipe_gets_a_line_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    play(Screen(json=False))
    lines = capsys.readouterr().out.splitlines()
    progress = [line for line in lines if "/400" in line]
    assert 10 <= len(progress) <= 11
    assert "100 %  400/400  loss 1  12,346 tokens/s  bpb 1.5" in progress[-1]
    assert lines[0].split() == ["tokenizer", "skipped", "finished", "before"]
    assert lines[-1].endswith("finished  loss 1  12,346 tokens/s  bpb 1.5  12.34 s")
    assert 4 <= sum("sample" in line for line in lines) <= 8


def test_samples_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    play(Screen(json=False))
    assert "\x1b" not in capsys.readouterr().out
    shown = on_a_terminal(monkeypatch)
    assert "\x1b[31m[b]up" not in shown
    assert "Once [31m[b]up" in shown


def test_a_terminal_gets_a_bar_and_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_a_terminal(monkeypatch)
    assert "✓ pretrain" in shown
    assert "━" in shown
    assert shown.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[9" in on_a_terminal(monkeypatch)
    assert "\x1b[9" not in on_a_terminal(monkeypatch, NO_COLOR="1")


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in on_a_terminal(monkeypatch, TERM="dumb")
