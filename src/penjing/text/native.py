"""The core of the tokenizer and of batches' rows: compiled where it was built, else its twin.

Both give the same bits; the compiled one is some fifty times as fast. See docs/tokenizer.md.
"""

from importlib.util import find_spec

_BUILT = find_spec("penjing.text._native") is not None  # mypy takes it for True
COMPILED = _BUILT

if _BUILT:
    from penjing.text._native import *  # noqa: F403 - its names are listed below
else:
    from penjing.text.native_twin import *  # noqa: F403
    from penjing.text.word_encoder import WordEncoder as Encoder

__all__ = [  # noqa: F405
    "COMPILED",
    "Encoder",
    "WordCounter",
    "count_histogram",
    "fill_rows",
    "json_lines",
    "merge_words",
    "pack_rows",
    "pad_rows",
    "sample_words",
    "split_ends",
    "train_merges",
    "unicode_version",
    "word_hash",
]
