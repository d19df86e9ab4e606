"""A vocabulary that the run file names: its forms, and what must fit it."""

from dataclasses import replace
from pathlib import Path

import pytest

from penjing.config.schema import TokenizerConfig
from penjing.errors import ConfigError
from penjing.stages.vocabulary import taken_vocabulary, write_tokenizer
from penjing.text.tokenizer import Tokenizer, train_tokenizer

OURS = train_tokenizer(["The cat sat on the mat with the other cat."] * 3, 300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with every file of a tokenizer."""
    write_tokenizer(tmp_path, OURS, {"made": "here"})
    return tmp_path


def taken(folder: Path, name: str, pattern: str | None = None) -> Tokenizer:
    return taken_vocabulary(TokenizerConfig(from_=name, pattern=pattern), folder)[0]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.tiktoken", "."])
def test_every_form_gives_the_same_ids(folder: Path, name: str) -> None:
    found = taken(folder, name)
    assert found.encode("The other mat sat.") == OURS.encode("The other mat sat.")
    assert found.vocab_size == OURS.vocab_size
    assert found.im_end == OURS.im_end


def test_gpt2s_files_are_cut_by_gpt2s_pattern_or_the_one_that_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert taken(folder, ".").vocabulary.pattern == "gpt2"
    assert taken(folder, "merges.txt").vocabulary.pattern == "gpt2"
    assert taken(folder, "vocab.json", "qwen2") == OURS


def test_ranks_alone_need_a_pattern(folder: Path) -> None:
    (folder / "tokenizer.tiktoken.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer\.pattern"):
        taken(folder, "tokenizer.tiktoken")
    assert taken(folder, "tokenizer.tiktoken", "qwen2").encode("cat") == OURS.encode("cat")


def test_the_number_of_ids_is_the_vocabularys(folder: Path) -> None:
    config = TokenizerConfig(from_="tokenizer.json", vocab_size=OURS.vocab_size)
    assert taken_vocabulary(config, folder)[0] == OURS
    with pytest.raises(ConfigError, match=rf"found 9999.*{OURS.vocab_size} ids"):
        taken_vocabulary(replace(config, vocab_size=9999), folder)


def test_the_pattern_is_the_vocabularys(folder: Path) -> None:
    assert taken(folder, "tokenizer.json", "qwen2") == OURS
    assert taken(folder, "tokenizer.json", OURS.vocabulary.pattern) == OURS
    with pytest.raises(ConfigError, match=r"'gpt2'.*'qwen2'"):
        taken(folder, "tokenizer.json", "gpt2")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("absent.json", None, "absent.json cannot be read"),
        ("absent.tiktoken", None, "cannot be read"),
        ("vocab.txt", b"a", "no known form"),
        ("model.bin", b"\x80\x04", "no known form"),
        ("tokenizer.json", b'{"model": {"type": "WordPiece"}}', "WordPiece"),
        ("tokenizer.json", b"{", "not JSON"),
        ("tokenizer.tiktoken", b"YQ== 0\n", "sha256"),
        ("vocab.json", b"{}", "vocab.json"),
    ],
)
def test_what_cannot_be_taken_is_told_with_its_file(
    folder: Path, name: str, damage: bytes | None, message: str
) -> None:
    if damage is not None:
        (folder / name).write_bytes(damage)
    with pytest.raises(ConfigError, match=message) as refused:
        taken(folder, name)
    assert str(refused.value).startswith("tokenizer.from: ")


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is none of"):
        taken(tmp_path, ".")
