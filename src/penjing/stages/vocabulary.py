"""The vocabulary that a run file names, and the files in which a tokenizer is left for others.

What the formats are is `text`'s duty. Torch is not loaded here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penjing.config.schema import TokenizerConfig
from penjing.errors import ConfigError, DataError
from penjing.text import native
from penjing.text.patterns import PATTERNS
from penjing.text.tokenizer import Tokenizer, tokenizer_files
from penjing.text.tokenizer_json import read_tokenizer_json
from penjing.text.vocabulary import Vocabulary
from penjing.text.vocabulary_files import read_gpt2, read_tiktoken, write_gpt2, write_tiktoken

FORMS = "tokenizer.json, NAME.tiktoken, or vocab.json with merges.txt"


def taken_vocabulary(config: TokenizerConfig, base: Path) -> tuple[Tokenizer, tuple[str, ...]]:
    """The tokenizer of `[tokenizer] from`, and remarks on what of its file is not followed.

    Raises:
        ConfigError: the file is not there, cannot be used, or is not what other keys say.
    """
    path = base / (config.from_ or "")
    try:
        vocabulary, remarks = _read(path, config.pattern)
    except OSError as error:
        where = error.filename or path
        raise ConfigError(
            f"tokenizer.from: {where} cannot be read ({error.strerror}); wanted {FORMS}"
        ) from error
    except DataError as error:
        raise ConfigError(f"tokenizer.from: {path}: {error}") from error
    found = len(vocabulary.token_bytes)
    if config.vocab_size not in (None, found):
        raise ConfigError(
            f"tokenizer.vocab_size: found {config.vocab_size}, but the vocabulary of {path} has "
            f"{found} ids, the special tokens that it lacked among them: leave vocab_size out"
        )
    if config.pattern not in (None, vocabulary.pattern, PATTERNS.get(vocabulary.pattern)):
        raise ConfigError(
            f"tokenizer.pattern: found {config.pattern!r}, but {path} is cut by "
            f"{vocabulary.pattern!r}: leave pattern out"
        )
    return Tokenizer(vocabulary), remarks


def _read(path: Path, pattern: str | None) -> tuple[Vocabulary, tuple[str, ...]]:
    if path.is_dir():
        path = _file_in(path)
    if path.suffix == ".tiktoken":
        beside = path.with_name(f"{path.name}.json")
        description = beside.read_bytes() if beside.exists() else None
        return read_tiktoken(path.read_bytes(), description, pattern), ()
    if path.name in ("vocab.json", "merges.txt"):
        vocab, merges = (path.with_name(n).read_bytes() for n in ("vocab.json", "merges.txt"))
        return read_gpt2(vocab, merges, pattern or "gpt2"), ()
    if path.suffix == ".json":
        return read_tokenizer_json(path.read_bytes())
    path.stat()
    raise DataError(f"a file of this name is of no known form; wanted {FORMS}")


def _file_in(folder: Path) -> Path:
    found = [folder / name for name in ("tokenizer.json", "vocab.json")]
    found += sorted(folder.glob("*.tiktoken"))
    for path in found:
        if path.exists():
            return path
    raise DataError(f"a folder in which there is none of {FORMS}")


def write_tokenizer(directory: Path, tokenizer: Tokenizer, training: Mapping[str, Any]) -> None:
    """Writes every file of a tokenizer, Penjing's own and those for other tools.

    Args:
        directory: where.
        tokenizer: what.
        training: how it was made, for people who read the description of `tokenizer.tiktoken`.
    """
    vocabulary = tokenizer.vocabulary
    files = tokenizer_files(tokenizer) | write_gpt2(vocabulary)
    files |= write_tiktoken(vocabulary, native.unicode_version(), training)
    for name, data in files.items():
        (directory / name).write_bytes(data)
