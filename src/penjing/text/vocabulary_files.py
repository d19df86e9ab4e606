"""A vocabulary as tiktoken's and GPT-2's files, written and read; nothing here touches a disk.

`tokenizer.json` is `text.tokenizer_json`'s. None of these formats holds everything: a `.tiktoken`
file has neither pattern nor special tokens, which stand in a description beside it.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from penjing.errors import DataError
from penjing.text import native
from penjing.text.patterns import PATTERNS
from penjing.text.tokenizer_json import json_bytes, written_vocab
from penjing.text.vocabulary import Vocabulary, completed_vocabulary, spelled, unspelled

_FIRST_LINE = "#version: 0.2"


def write_gpt2(vocabulary: Vocabulary) -> dict[str, bytes]:
    """`vocab.json` and `merges.txt`."""
    tokens = vocabulary.token_bytes
    lines = [f"{spelled(tokens[a])} {spelled(tokens[b])}\n" for a, b, _ in vocabulary.merges]
    return {
        "vocab.json": json_bytes(written_vocab(vocabulary) | dict(vocabulary.special_tokens)),
        "merges.txt": "".join([f"{_FIRST_LINE}\n", *lines]).encode(),
    }


def read_gpt2(vocab_json: bytes, merges_txt: bytes, pattern: str = "gpt2") -> Vocabulary:
    """The vocabulary of `vocab.json` and `merges.txt`.

    An entry that is neither a byte nor made by a merge is a special token: no text reaches it.

    Raises:
        DataError: one of them is damaged, or they do not belong together.
    """
    try:
        vocab = json.loads(vocab_json)
        lines = merges_txt.decode().splitlines()
    except (ValueError, RecursionError) as error:
        raise DataError(f"vocab.json or merges.txt is damaged ({error})") from error
    wrong = not isinstance(vocab, dict) or any(type(number) is not int for number in vocab.values())
    if wrong or not vocab:
        raise DataError("vocab.json: wanted an object of tokens and their ids")
    merges = []
    for place, line in enumerate(lines, start=1):
        if not line or (place == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2:
            raise DataError(f"merges.txt:{place}: found {line[:40]!r}; wanted two tokens")
        merges.append((unspelled(parts[0]), unspelled(parts[1])))
    made = {spelled(left + right) for left, right in merges}
    reached = {key for key in vocab if key in made or (len(key) == 1 and _is_byte(key))}
    ordinary = {unspelled(key): vocab[key] for key in reached}
    specials = {key: vocab[key] for key in vocab.keys() - reached}
    return completed_vocabulary(ordinary, merges, specials, pattern, whole_words=False)


def _is_byte(spelling: str) -> bool:
    return spelling in _SPELLED_BYTES


_SPELLED_BYTES = {spelled(bytes([byte])) for byte in range(256)}


def write_tiktoken(
    vocabulary: Vocabulary, unicode_version: str, training: Mapping[str, Any]
) -> dict[str, bytes]:
    """`tokenizer.tiktoken` and `tokenizer.tiktoken.json`, or nothing where they would mislead.

    In tiktoken an id is also its merge's rank, and a word that is a token is that token.

    Args:
        vocabulary: what is written.
        unicode_version: by which the pattern's classes were read.
        training: how the vocabulary was made, for people.
    """
    made = [merged for _, _, merged in vocabulary.merges]
    if made != sorted(set(made)) or not (vocabulary.whole_words or _all_reached(vocabulary)):
        return {}
    tokens = vocabulary.ordinary_bytes()
    ranks = b"".join(
        base64.b64encode(token) + b" %d\n" % number for number, token in enumerate(tokens) if token
    )
    description = {
        "pattern": vocabulary.pattern,
        "pat_str": PATTERNS.get(vocabulary.pattern, vocabulary.pattern),
        "special_tokens": dict(vocabulary.special_tokens),
        "vocab_size": len(tokens),
        "unicode": unicode_version,
        "training": dict(training),
        "sha256": hashlib.sha256(ranks).hexdigest(),
    }
    return {"tokenizer.tiktoken": ranks, "tokenizer.tiktoken.json": json_bytes(description)}


def _all_reached(vocabulary: Vocabulary) -> bool:
    """Whether merging the bytes of each token gives that token."""
    tokens = vocabulary.ordinary_bytes()
    merges = np.array(vocabulary.merges, dtype=np.uint32).reshape(-1, 3)
    encoder = native.Encoder(tokens, merges, "qwen2", False)
    return all(
        encoder.encode_word(token).tolist() == [number]
        for number, token in enumerate(tokens)
        if token
    )


def read_tiktoken(
    data: bytes, description: bytes | None = None, pattern: str | None = None
) -> Vocabulary:
    """The vocabulary of a `.tiktoken` file.

    Args:
        data: lines of a token in base64 and its rank, which is its id.
        description: the JSON beside it, as `write_tiktoken` writes it; its sha256 must fit.
        pattern: a name or regular expression, when there is no description.

    Raises:
        DataError: damaged, or nothing says what the pattern is.
    """
    specials: dict[str, int] = {}
    if description is not None:
        found = _described(description, hashlib.sha256(data).hexdigest())
        specials, pattern = found["special_tokens"], str(found["pattern"])
    if pattern is None:
        raise DataError(
            "a .tiktoken file does not say how text is cut into words; wanted a description beside "
            f"it (NAME.tiktoken.json) or `tokenizer.pattern`, one of {', '.join(PATTERNS)}"
        )
    ranks = dict(_ranks(data))
    merges = _derived_merges(ranks)
    return completed_vocabulary(ranks, merges, specials, pattern, whole_words=True)


def _described(description: bytes, sha256: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(description)
        specials, wanted = found["special_tokens"], found["sha256"]
        whole = all(type(number) is int for number in specials.values()) and found["pattern"]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"the description beside it is damaged ({error!r})") from error
    if not whole or wanted != sha256:
        raise DataError(
            f"found sha256 {sha256[:12]}, the description says {str(wanted)[:12]}: one of them was "
            "altered, or they do not belong together"
        )
    return found


def _ranks(data: bytes) -> Iterator[tuple[bytes, int]]:
    seen: set[bytes] = set()
    for place, line in enumerate(data.splitlines(), start=1):
        if not line:
            continue
        try:
            encoded, rank = line.split()
            token = base64.b64decode(encoded, validate=True)
            number = int(rank)
        except (ValueError, binascii.Error) as error:
            raise DataError(
                f"line {place}: found {line[:40]!r}; wanted a token in base64 and its rank"
            ) from error
        if token in seen:
            raise DataError(f"line {place}: the token {token!r} stands there twice")
        seen.add(token)
        yield token, number
    if not seen:
        raise DataError("holds no tokens: truncated?")


def _derived_merges(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The two tokens that each token is made of: what merging by smaller ranks leaves of it.

    A token that more than two are left of is no merge's; only a whole word is encoded to it.
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [token[at : at + 1] for at in range(len(token))]
        while len(parts) > 2:
            joined = [ranks.get(left + right, rank) for left, right in pairwise(parts)]
            lowest = min(joined)
            if lowest >= rank:
                break
            at = joined.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2 and all(part in ranks for part in parts):
            merges.append((parts[0], parts[1]))
    return merges
