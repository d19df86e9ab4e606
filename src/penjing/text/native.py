"""The core of the tokenizer: the compiled one where it is installed, else its twin in Python."""

import unicodedata

from penjing.text.word_encoder import WordEncoder as Encoder

COMPILED = False

__all__ = ["COMPILED", "Encoder", "unicode_version"]


def unicode_version() -> str:
    return unicodedata.unidata_version
