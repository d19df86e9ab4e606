"""Text in UTF-8 cut into words by a regular expression: what the compiled cutter does, slowly.

Bytes that are no UTF-8 have one treatment: a malformed sequence, as long as `bytes.decode` finds
it, is cut as U+FFFD would be, and its bytes are kept. So no text loses a byte.
"""

import codecs
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

_KEPT = "penjing-kept"
_MALFORMED = {chr(0xDC00 + size): size for size in range(1, 5)}
"""What stands for a malformed sequence of so many bytes: surrogates, which UTF-8 cannot hold."""

_REPLACED = str.maketrans(dict.fromkeys(_MALFORMED, "\ufffd"))


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return chr(0xDC00 + error.end - error.start), error.end


codecs.register_error(_KEPT, _mark)


def words(data: bytes, expression: Any) -> Iterator[bytes]:
    """The words of a text; joined they give it again.

    Args:
        data: text in UTF-8.
        expression: compiled by `regex`. What it leaves out is a word too, as in Hugging Face's
            `Isolated`.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        yield from _words_of_broken(data, expression)
        return
    for start, stop in _spans(text, expression):
        yield text[start:stop].encode()


def _spans(text: str, expression: Any) -> Iterator[tuple[int, int]]:
    place = 0
    for match in expression.finditer(text):
        start, stop = match.span()
        if place < start:
            yield place, start
        if start < stop:
            yield start, stop
        place = stop
    if place < len(text):
        yield place, len(text)


def _words_of_broken(data: bytes, expression: Any) -> Iterator[bytes]:
    text, sizes = _characters(data)
    places = [0, *accumulate(sizes)]
    for start, stop in _spans(text, expression):
        yield data[places[start] : places[stop]]


def _characters(data: bytes) -> tuple[str, list[int]]:
    """The text with U+FFFD for every malformed sequence, and the bytes of each character."""
    marked = data.decode(errors=_KEPT)
    sizes = [_MALFORMED.get(character) or len(character.encode()) for character in marked]
    return marked.translate(_REPLACED), sizes


def capped(word: bytes, cap: int) -> Iterator[bytes]:
    """A word in parts of at most `cap` bytes, cut between characters if it is text; 0: whole."""
    start = 0
    while cap and len(word) - start > cap:
        stop = start + cap
        while stop > start and word[stop] & 0xC0 == 0x80:
            stop -= 1
        stop = stop if stop > start else start + cap
        yield word[start:stop]
        start = stop
    yield word[start:]
