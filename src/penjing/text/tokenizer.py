"""Text to ids and back, with the 16 special tokens, stored as Hugging Face's files.

`encode` knows no special tokens: only `text.template` places them. How merges are learnt and
applied is `text.bpe`'s duty.
"""

import codecs
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from penjing.errors import ArtifactError
from penjing.text.bpe import PATTERN, count_words, merge_word, split, train_merges, utf8
from penjing.text.chat_template import CHAT_TEMPLATE

TOOL_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *TOOL_TOKENS,
    *(f"<|reserved_{number}|>" for number in range(9)),
)
"""In id order, after the bytes and the merges."""

_CACHE_WORDS = 1 << 17
_CACHE_WORD_CHARACTERS = 64


def _byte_characters() -> list[str]:
    """One printable character a byte value. Source: GPT-2's `bytes_to_unicode`."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


_CHARACTERS = _byte_characters()
_BYTES = {character: byte for byte, character in enumerate(_CHARACTERS)}


class _SpecialId:
    """A tokenizer's id of one special token."""

    def __init__(self, spelling: str) -> None:
        self._spelling = spelling

    def __get__(self, tokenizer: "Tokenizer", owner: type) -> int:
        return tokenizer.special_id(self._spelling)


@dataclass(frozen=True)
class Tokenizer:
    """Byte-level BPE: ids 0..255 are bytes, then one id a merge, then the special tokens."""

    merges: tuple[tuple[bytes, bytes], ...]
    pattern: ClassVar[str] = PATTERN

    end_of_text = _SpecialId("<|endoftext|>")
    im_start = _SpecialId("<|im_start|>")
    im_end = _SpecialId("<|im_end|>")
    tool_call = _SpecialId("<tool_call>")
    end_tool_call = _SpecialId("</tool_call>")
    tool_response = _SpecialId("<tool_response>")
    end_tool_response = _SpecialId("</tool_response>")

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes of every id; a special token has those of its spelling."""
        ordinary = [bytes([byte]) for byte in range(256)]
        ordinary += [left + right for left, right in self.merges]
        return (*ordinary, *(spelling.encode() for spelling in SPECIAL_TOKENS))

    @cached_property
    def _ranks(self) -> dict[tuple[int, int], int]:
        ids = {token: number for number, token in enumerate(self.token_bytes)}
        return {(ids[a], ids[b]): 256 + rank for rank, (a, b) in enumerate(self.merges)}

    @cached_property
    def _cache(self) -> dict[str, tuple[int, ...]]:
        return {}

    @cached_property
    def _first_special(self) -> int:
        return 256 + len(self.merges)

    @property
    def vocab_size(self) -> int:
        return self._first_special + len(SPECIAL_TOKENS)

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of `tokenizer.json`."""
        return hashlib.sha256(_tokenizer_json(self)).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text, never a special one. A lone surrogate is encoded as U+FFFD."""
        cache = self._cache
        ids: list[int] = []
        for word in split(text):
            known = cache.get(word)
            ids += self._encode_word(word) if known is None else known
        return ids

    def encode_batch(
        self, data: NDArray[np.uint8], ends: NDArray[np.int64], threads: int = 1
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The ids of documents in UTF-8, and where each ends in them."""
        raw, start, found = data.tobytes(), 0, []
        for end in ends.tolist():
            found.append(self.encode(raw[start:end].decode(errors="replace")))
            start = end
        lengths = np.array([len(ids) for ids in found], dtype=np.int64)
        return np.array([i for ids in found for i in ids], dtype=np.uint32), lengths.cumsum()

    def _encode_word(self, word: str) -> tuple[int, ...]:
        ids = tuple(merge_word(utf8(word), self._ranks))
        if len(word) <= _CACHE_WORD_CHARACTERS:
            if len(self._cache) >= _CACHE_WORDS:
                self._cache.clear()
            self._cache[word] = ids
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        token_bytes = self.token_bytes
        return b"".join([token_bytes[number] for number in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids: special tokens as they are spelled, broken UTF-8 as U+FFFD."""
        return self.decode_bytes(ids).decode(errors="replace")

    def byte_lengths(self) -> NDArray[np.int64]:
        """Bytes of text an id stands for, (V,) int64; 0 for special tokens."""
        lengths = np.array([len(token) for token in self.token_bytes], dtype=np.int64)
        lengths[self._first_special :] = 0
        return lengths

    def special_id(self, spelling: str) -> int:
        return self._first_special + SPECIAL_TOKENS.index(spelling)


class StreamDecoder:
    """Decodes id by id; what it gives out never ends inside a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        return self._decoder.decode(self._token_bytes[token])

    def flush(self) -> str:
        """What a broken last character leaves; the decoder can be used again."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Tokenizer:
    """A tokenizer of at most `vocab_size` ids; fewer when the text has too few repeated pairs.

    Ids stay dense then: ask `Tokenizer.vocab_size`, which is 256 + merges + 16.
    """
    num_merges = vocab_size - 256 - len(SPECIAL_TOKENS)
    return Tokenizer(tuple(train_merges(count_words(texts), num_merges, on_progress)))


def _spelled(token: bytes) -> str:
    return "".join([_CHARACTERS[byte] for byte in token])


def _tokenizer_json(tokenizer: Tokenizer) -> bytes:
    """Hugging Face's form: Split + ByteLevel, BPE, ByteLevel decoder, no normalizer."""
    first_special = tokenizer.end_of_text
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added_tokens = [
        {"id": first_special + number, "content": spelling, **flags}
        | {"special": spelling not in TOOL_TOKENS}
        for number, spelling in enumerate(SPECIAL_TOKENS)
    ]
    switches = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    byte_level = {"type": "ByteLevel", **switches}
    pattern = {"Regex": tokenizer.pattern}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    tokens = tokenizer.token_bytes[:first_special]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {_spelled(token): number for number, token in enumerate(tokens)},
        "merges": [f"{_spelled(left)} {_spelled(right)}" for left, right in tokenizer.merges],
    }
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": model,
    }
    return _json_bytes(content)


def _json_bytes(content: Any) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files that `tokenizers`, `transformers` and `load_tokenizer` read, by name."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": False,
    }
    return {
        "tokenizer.json": _tokenizer_json(tokenizer),
        "tokenizer_config.json": _json_bytes(config),
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
    }


def load_tokenizer(directory: Path) -> Tokenizer:
    """Read `tokenizer.json` as Penjing wrote it.

    Raises:
        ArtifactError: the file is missing, unreadable, or differs from what Penjing writes.
    """
    path = directory / "tokenizer.json"
    try:
        data = path.read_bytes()
        content = json.loads(data)
        pairs = [merge.split(" ") for merge in content["model"]["merges"]]
        merges = tuple(
            (bytes(_BYTES[c] for c in left), bytes(_BYTES[c] for c in right))
            for left, right in pairs
        )
        tokenizer = Tokenizer(merges)
        same = data == _tokenizer_json(tokenizer)
    except OSError as problem:
        raise ArtifactError(f"{path}: cannot be read: {problem.strerror}") from problem
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ArtifactError(f"{path}: not a tokenizer.json of Penjing ({problem!r})") from problem
    if not same:
        raise ArtifactError(
            f"{path}: not as Penjing wrote it (altered, or another program's): "
            "train the tokenizer again, or restore the file"
        )
    return tokenizer
