"""What a byte-level BPE vocabulary is, ours or another's, made whole: every byte, every special.

Encoding with it is `text.tokenizer`'s duty; files are those of `text.tokenizer_json` and
`text.vocabulary_files`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import regex

from penjing.errors import DataError
from penjing.text.patterns import PATTERNS

TOOL_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *TOOL_TOKENS,
    *(f"<|reserved_{number}|>" for number in range(9)),
)
"""In id order, after the bytes and the merges."""

MAX_IDS = 2**20
Merge = tuple[int, int, int]


@dataclass(frozen=True)
class Vocabulary:
    """Everything that decides which ids a text has.

    Attributes:
        token_bytes: the bytes of every id; a special token has those of its spelling, an id that
            stands for nothing has none.
        merges: (left id, right id, id of both joined), earliest first.
        special_tokens: (spelling, id), all of `SPECIAL_TOKENS` among them, by id.
        pattern: a name of `text.patterns`, or a regular expression.
        whole_words: a word that is a token is that token, whatever the merges say (tiktoken,
            Llama 3; Hugging Face's `ignore_merges`).
    """

    token_bytes: tuple[bytes, ...]
    merges: tuple[Merge, ...]
    special_tokens: tuple[tuple[str, int], ...]
    pattern: str = "qwen2"
    whole_words: bool = False

    def ordinary_bytes(self) -> list[bytes]:
        """As `token_bytes`, with nothing for special tokens."""
        found = list(self.token_bytes)
        for _, number in self.special_tokens:
            found[number] = b""
        return found


def grown_vocabulary(merges: Iterable[tuple[int, int]], pattern: str = "qwen2") -> Vocabulary:
    """Our own: byte b has id b, merge k makes id 256 + k, then come the special tokens."""
    token_bytes = [bytes([byte]) for byte in range(256)]
    triples = []
    for left, right in merges:
        triples.append((int(left), int(right), len(token_bytes)))
        token_bytes.append(token_bytes[left] + token_bytes[right])
    first = len(token_bytes)
    return Vocabulary(
        (*token_bytes, *(spelling.encode() for spelling in SPECIAL_TOKENS)),
        tuple(triples),
        tuple((spelling, first + number) for number, spelling in enumerate(SPECIAL_TOKENS)),
        pattern,
    )


def completed_vocabulary(
    ordinary: Mapping[bytes, int],
    merges: Iterable[tuple[bytes, bytes]],
    specials: Mapping[str, int],
    pattern: str,
    *,
    whole_words: bool,
) -> Vocabulary:
    """A vocabulary read from a file: its ids stay, what every text and chat needs comes after them.

    Args:
        ordinary: token -> id.
        merges: in their order; two tokens of which the joined one is a token too.
        specials: spelling -> id.
        pattern: a name of `text.patterns`, or a regular expression.
        whole_words: as in `Vocabulary`.

    Raises:
        DataError: ids clash or are out of range, a merge makes no token, or the pattern is none.
    """
    ids, added = dict(ordinary), dict(specials)
    _check_ids(ids, added)
    _check_pattern(pattern)
    following = max([*ids.values(), *added.values()], default=-1) + 1
    for token in (bytes([byte]) for byte in range(256)):
        if token not in ids:
            ids[token], following = following, following + 1
    for spelling in SPECIAL_TOKENS:
        if spelling not in added:
            added[spelling], following = following, following + 1
        if spelling.encode() in ids:
            raise DataError(f"found {spelling!r} as an ordinary token; wanted it as a special one")
    token_bytes = [b""] * following
    for token, number in [*ids.items(), *((s.encode(), number) for s, number in added.items())]:
        token_bytes[number] = token
    by_id = tuple(sorted(added.items(), key=lambda item: item[1]))
    return Vocabulary(tuple(token_bytes), _numbered(merges, ids), by_id, pattern, whole_words)


def _check_ids(ids: Mapping[bytes, int], added: Mapping[str, int]) -> None:
    seen: set[int] = set()
    for number in (*ids.values(), *added.values()):
        if not 0 <= number < MAX_IDS:
            raise DataError(f"found the id {number}; wanted ids from 0 to {MAX_IDS - 1}")
        if number in seen:
            raise DataError(f"found the id {number} twice; wanted one token an id")
        seen.add(number)
    if b"" in ids or "" in added:
        raise DataError("found a token without bytes; wanted at least one")


def _numbered(merges: Iterable[tuple[bytes, bytes]], ids: Mapping[bytes, int]) -> tuple[Merge, ...]:
    found: dict[tuple[int, int], Merge] = {}
    for rank, (left, right) in enumerate(merges):
        for token in (left, right, left + right):
            if token not in ids:
                raise DataError(f"merge {rank} needs the token {token!r}, which has no id")
        pair = (ids[left], ids[right])
        if pair in found:
            raise DataError(f"merge {rank}, {left!r} and {right!r}, stands there twice")
        found[pair] = (*pair, ids[left + right])
    return tuple(found.values())


def _check_pattern(pattern: str) -> None:
    if pattern in PATTERNS:
        return
    try:
        regex.compile(pattern)
    except regex.error as error:
        raise DataError(
            f"found the pattern {pattern[:80]!r}, which `regex` cannot read ({error}); wanted one "
            f"of {', '.join(PATTERNS)}, or a regular expression"
        ) from error


def _byte_characters() -> list[str]:
    """One printable character a byte value. Source: GPT-2's `bytes_to_unicode`."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


_CHARACTERS = _byte_characters()
_SPELLING = dict(enumerate(_CHARACTERS))
_BYTES = dict.fromkeys(range(256), "\uffff")  # what spells nothing becomes no byte
_BYTES |= {ord(character): chr(byte) for byte, character in enumerate(_CHARACTERS)}


def spelled(token: bytes) -> str:
    """A token as GPT-2's and Hugging Face's files spell it: one printable character a byte."""
    return token.decode("latin-1").translate(_SPELLING)


def unspelled(spelling: str) -> bytes:
    """The token of a spelling.

    Raises:
        DataError: a character stands for no byte.
    """
    try:
        return spelling.translate(_BYTES).encode("latin-1")
    except UnicodeEncodeError as error:
        raise DataError(
            f"found the token {spelling[:40]!r}; wanted byte-level spelling, in which "
            f"{spelling[error.start]!r} stands for nothing (is it SentencePiece?)"
        ) from error
