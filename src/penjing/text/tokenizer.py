"""Text to ids and back, with the special tokens of the template, stored as Hugging Face's files.

`encode` knows no special tokens: only `text.template` places them. What a vocabulary is, and how
foreign ones are read, is `text.vocabulary`'s duty; cutting and merging is the encoder's.
"""

import codecs
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penjing.errors import ArtifactError, DataError
from penjing.text import native
from penjing.text.bpe import count_words, train_merges, utf8
from penjing.text.chat_template import CHAT_TEMPLATE
from penjing.text.patterns import PATTERNS
from penjing.text.tokenizer_json import json_bytes, read_tokenizer_json, write_tokenizer_json
from penjing.text.vocabulary import SPECIAL_TOKENS, Vocabulary, grown_vocabulary
from penjing.text.word_encoder import WordEncoder


class _SpecialId:
    """A tokenizer's id of one special token."""

    def __init__(self, spelling: str) -> None:
        self._spelling = spelling

    def __get__(self, tokenizer: "Tokenizer", owner: type) -> int:
        return tokenizer.special_id(self._spelling)


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary at work: text to ids and back."""

    vocabulary: Vocabulary

    end_of_text = _SpecialId("<|endoftext|>")
    im_start = _SpecialId("<|im_start|>")
    im_end = _SpecialId("<|im_end|>")
    tool_call = _SpecialId("<tool_call>")
    end_tool_call = _SpecialId("</tool_call>")
    tool_response = _SpecialId("<tool_response>")
    end_tool_response = _SpecialId("</tool_response>")

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[Vocabulary]]:
        """Another process makes its own encoder."""
        return Tokenizer, (self.vocabulary,)

    @property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes of every id; a special token has those of its spelling."""
        return self.vocabulary.token_bytes

    @property
    def vocab_size(self) -> int:
        """Ids in all, those that stand for nothing included: the rows of an embedding."""
        return len(self.vocabulary.token_bytes)

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        return dict(self.vocabulary.special_tokens)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self._special_ids.values())

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of `tokenizer.json`."""
        return hashlib.sha256(self.json).hexdigest()

    @cached_property
    def json(self) -> bytes:
        """`tokenizer.json`, as it is written."""
        return write_tokenizer_json(self.vocabulary)

    @cached_property
    def _encoder(self) -> native.Encoder | WordEncoder:
        vocabulary = self.vocabulary
        merges = np.array(vocabulary.merges, dtype=np.uint32).reshape(-1, 3)
        # The compiled encoder knows the named patterns only.
        encoder = native.Encoder if vocabulary.pattern in PATTERNS else WordEncoder
        tokens = vocabulary.ordinary_bytes()
        return encoder(tokens, merges, vocabulary.pattern, vocabulary.whole_words)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, never a special one. A lone surrogate is encoded as U+FFFD."""
        ids: list[int] = self._encoder.encode(utf8(text)).tolist()
        return ids

    def encode_batch(
        self, data: NDArray[np.uint8], ends: NDArray[np.int64], threads: int = 1
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The ids of many documents in UTF-8: document i is `data[ends[i - 1]:ends[i]]`.

        Returns:
            The ids of all, (N,) uint32, and the end of every document in them, (documents,) int64.
        """
        return self._encoder.encode_batch(data, ends, threads)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        token_bytes = self.token_bytes
        return b"".join([token_bytes[number] for number in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids: special tokens as they are spelled, broken UTF-8 as U+FFFD."""
        return self.decode_bytes(ids).decode(errors="replace")

    def byte_lengths(self) -> NDArray[np.int64]:
        """Bytes of text an id stands for, (V,) int64; 0 for special tokens."""
        return np.array([len(token) for token in self.vocabulary.ordinary_bytes()], dtype=np.int64)

    def special_id(self, spelling: str) -> int:
        return self._special_ids[spelling]


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
    ids = {bytes([byte]): byte for byte in range(256)}
    pairs = []
    for left, right in train_merges(count_words(texts), num_merges, on_progress):
        pairs.append((ids[left], ids[right]))
        ids[left + right] = len(ids)
    return Tokenizer(grown_vocabulary(pairs))


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
        "tokenizer.json": tokenizer.json,
        "tokenizer_config.json": json_bytes(config),
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
        vocabulary, _ = read_tokenizer_json(data)
    except OSError as problem:
        raise ArtifactError(f"{path}: cannot be read: {problem.strerror}") from problem
    except DataError as problem:
        raise ArtifactError(f"{path}: not a tokenizer.json of Penjing: {problem}") from problem
    tokenizer = Tokenizer(vocabulary)
    if data != tokenizer.json:
        raise ArtifactError(
            f"{path}: not as Penjing wrote it (altered, or another program's): "
            "train the tokenizer again, or restore the file"
        )
    return tokenizer
