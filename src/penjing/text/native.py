"""The core of the tokenizer: the compiled one where it is installed, else its twin in Python."""

from penjing.text.native_twin import (
    WordCounter,
    count_histogram,
    json_lines,
    merge_words,
    sample_words,
    split_ends,
    train_merges,
    unicode_version,
    word_hash,
)
from penjing.text.word_encoder import WordEncoder as Encoder

COMPILED = False

__all__ = [
    "COMPILED",
    "Encoder",
    "WordCounter",
    "count_histogram",
    "json_lines",
    "merge_words",
    "sample_words",
    "split_ends",
    "train_merges",
    "unicode_version",
    "word_hash",
]
