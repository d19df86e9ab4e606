"""Which rule of quality a text breaks. The rules are Gopher's, those that fit texts of any length.

Rules about words are for scripts that part words by spaces; a text that is mostly Chinese, Japanese
or Korean is held against the others alone.
Source: Rae et al., arXiv:2112.11446, appendix A1 and table A1.
"""

import re
from collections import Counter

MEAN_WORD_LENGTHS = (3, 10)
MOST_SYMBOLS_A_WORD = 0.1
MOST_BULLET_LINES = 0.9
MOST_ELLIPSIS_LINES = 0.3
LEAST_WORDS_WITH_LETTERS = 0.8
MOST_REPEATED_LINES = 0.3
MOST_REPEATED_LINE_CHARACTERS = 0.2
FEWEST_LINES = 8
"""Of fewer lines a share says little: verse and dialogue repeat themselves."""

FEWEST_WORDS = 20

_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_BULLET = re.compile(r"\s*(?:[-*•‣▪●]|\d+[.)])\s")
_LETTER = re.compile(r"[^\W\d_]")


def broken_rule(text: str) -> str:
    """The name of the first rule that a text breaks, or nothing."""
    return _broken_by_lines(text) or _broken_by_words(text)


def _broken_by_lines(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < FEWEST_LINES:
        return ""
    if sum(bool(_BULLET.match(line)) for line in lines) > MOST_BULLET_LINES * len(lines):
        return "bullet lines"
    endings = sum(line.rstrip().endswith(("...", "…")) for line in lines)
    if endings > MOST_ELLIPSIS_LINES * len(lines):
        return "ellipsis lines"
    repeated = Counter(line.strip() for line in lines)
    again = sum(count - 1 for count in repeated.values())
    if again > MOST_REPEATED_LINES * len(lines):
        return "repeated lines"
    characters = sum((count - 1) * len(line) for line, count in repeated.items())
    if characters > MOST_REPEATED_LINE_CHARACTERS * len(text):
        return "repeated lines"
    return ""


def _broken_by_words(text: str) -> str:
    words = text.split()
    if len(words) < FEWEST_WORDS or len(_CJK.findall(text)) > 0.1 * len(text):
        return ""
    mean = sum(map(len, words)) / len(words)
    if not MEAN_WORD_LENGTHS[0] <= mean <= MEAN_WORD_LENGTHS[1]:
        return "word length"
    symbols = text.count("#") + text.count("...") + text.count("…")
    if symbols > MOST_SYMBOLS_A_WORD * len(words):
        return "symbols"
    if sum(bool(_LETTER.search(word)) for word in words) < LEAST_WORDS_WITH_LETTERS * len(words):
        return "words without letters"
    return ""
