"""Preference pairs about conduct: answer what was asked and stop, under one's own name.

Never about the calculator: whether to use it is left to reinforcement learning.
"""

from random import Random

from penjing.synthetic.exchanges import Exchange, draw
from penjing.synthetic.grammar import pick
from penjing.synthetic.lexicon import NAMES
from penjing.text.conversation import Conversation, Message, Preference, text_message

_KINDS = ("identity", "facts", "recall", "spelling", "smalltalk")


def _rambling(reply: str, rng: Random) -> str:
    """The right answer and then one or two answers that nobody asked for."""
    extra = [_text(draw(pick(rng, _KINDS), "train", rng)) for _ in range(rng.randrange(1, 3))]
    return " ".join([reply, *extra])


def _text(exchange: Exchange) -> str:
    return exchange.reply[-1].text


def _evasive(exchange: Exchange, rng: Random) -> str:
    """The answer to another question."""
    while True:
        other = _text(draw(pick(rng, _KINDS), "train", rng))
        if other != _text(exchange):
            return other


def make_preference(rng: Random) -> Preference:
    """One training question with its right answer chosen over a rambling, false or evasive one."""
    kind = pick(rng, _KINDS)
    exchange = draw(kind, "train", rng)
    chosen = _text(exchange)
    fault = rng.random()
    if kind == "identity" and fault < 0.6:
        rejected = chosen.replace("Penjing", pick(rng, NAMES))
    elif fault < 0.75:
        rejected = _rambling(chosen, rng)
    else:
        rejected = _evasive(exchange, rng)
    return Preference(Conversation(exchange.prompt), _said(chosen), _said(rejected))


def _said(text: str) -> Message:
    return text_message("assistant", text)
