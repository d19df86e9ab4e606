"""The conversation on the screen: line editing, commands, and stopping an answer.

What is said and remembered is `chat.session`'s duty.
"""

# ruff: noqa: T201

import contextlib
import io
import re
import sys

from penjing.chat.session import ChatSession, Model, Piece
from penjing.errors import DataError
from penjing.generate.sampling import Sampling

with contextlib.suppress(ImportError):  # importing it is what gives input() line editing
    import readline  # noqa: F401

HELP = """\
/reset   forget the conversation (the system message stays)
/help    this list
/quit    leave, as does Ctrl-D; Ctrl-C stops an answer"""
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def chat(
    model: Model, *, system: str | None, temperature: float, seed: int, max_new_tokens: int = 256
) -> int:
    """Talk until the person leaves; returns the exit code.

    With piped input every line is one thing said, and only answers are printed.
    """
    for standard in (sys.stdin, sys.stdout):
        if isinstance(standard, io.TextIOWrapper):
            standard.reconfigure(errors="replace")
    sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens)
    session = ChatSession(model, system, sampling, seed)
    typed = sys.stdin.isatty()
    if typed:
        _greet(model, system)
    while True:
        try:
            line = input("> " if typed else "").strip()
        except EOFError:
            if typed:
                print()
            return 0
        except KeyboardInterrupt:
            print("\n" + _dim("Ctrl-D or /quit leaves"))
            continue
        if line == "/quit":
            return 0
        if line:
            _respond(session, line)


def _greet(model: Model, system: str | None) -> None:
    print(f"{model.directory}: stage {model.stage}, step {model.step}. /help tells more.")
    if model.continues:
        print(_dim("This stage has only read text: it continues yours, and forgets it each time."))
    elif system:
        print(_dim(f"system: {_inert(system)}"))


def _respond(session: ChatSession, line: str) -> None:
    if line == "/reset":
        session.reset()
        print(_dim("[forgotten]"))
    elif line.startswith("/"):
        print(HELP if line == "/help" else f"no command {_inert(line)}\n{HELP}")
    else:
        _answer(session, line)


def _answer(session: ChatSession, said: str) -> None:
    try:
        for piece in session.ask(said):
            print(_dressed(piece), end="", flush=True)
    except KeyboardInterrupt:
        print(" " + _dim("[stopped]"), end="")
    except DataError as error:
        print(_dim(f"[{error}]"), end="")
    print(flush=True)


def _dressed(piece: Piece) -> str:
    if piece.kind == "text":
        return _inert(piece.text)
    return _dim(f"[{_inert(piece.text)}]") + ("\n" if piece.kind == "note" else " ")


def _inert(text: str) -> str:
    """A model's words cannot steer the terminal: control characters become U+FFFD."""
    return CONTROL.sub("\ufffd", text)


def _dim(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m" if sys.stdout.isatty() else text
