import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import regex
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.errors import DataError
from penjing.text.bpe import train_merges
from penjing.text.patterns import PATTERNS
from penjing.text.tokenizer import Tokenizer
from penjing.text.vocabulary import SPECIAL_TOKENS, Vocabulary, grown_vocabulary
from penjing.text.vocabulary_files import (
    read_gpt2,
    read_tiktoken,
    write_gpt2,
    write_tiktoken,
)

TEXT = (
    "The cat sat on the mat. The cat's hat ISN'T there; they'll look, we've looked.\n\n"
    "def spam(eggs):\n    return eggs[12345] / 2.5  # 100 %\n\n\n"
    "你好,世界!你好,朋友。 Ünïcödé ¿qué? 🙂🙂\t\ttabs  and   spaces\r\n"
) * 3
KNOWN = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn"]))
TRICKY = st.lists(
    st.sampled_from([*" \n\r\t'sStTAÀ12½.,!_<|>/\x00\x85\u3000\u0301你🙂", "'ll", "the cat", "  "])
).map("".join)
TEXTS = st.one_of(KNOWN, TRICKY, st.just(TEXT))


def grown(pattern: str, merges: int = 80) -> Vocabulary:
    """A small vocabulary of our own, trained on words that the pattern cuts."""
    counts: dict[bytes, int] = {}
    for word in regex.findall(PATTERNS[pattern], TEXT):
        counts[word.encode()] = counts.get(word.encode(), 0) + 1
    ids = {bytes([byte]): byte for byte in range(256)}
    pairs = []
    for left, right in train_merges(counts, merges):
        pairs.append((ids[left], ids[right]))
        ids[left + right] = len(ids)
    return grown_vocabulary(pairs, pattern)


def tiktoken_encoding(files: dict[str, bytes]) -> Any:
    tiktoken = pytest.importorskip("tiktoken")
    description = json.loads(files["tokenizer.tiktoken.json"])
    lines = files["tokenizer.tiktoken"].splitlines()
    ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in lines}
    return tiktoken.Encoding(
        "ours",
        pat_str=description["pat_str"],
        mergeable_ranks=ranks,
        special_tokens=description["special_tokens"],
    )


@pytest.mark.parametrize("pattern", PATTERNS)
def test_tiktoken_gives_the_same_ids_from_our_file(pattern: str) -> None:
    ours = Tokenizer(grown(pattern))
    encoding = tiktoken_encoding(write_tiktoken(ours.vocabulary, "16.0.0", {}))

    @settings(max_examples=80)
    @given(TEXTS)
    def same(text: str) -> None:
        assert ours.encode(text) == encoding.encode_ordinary(text)

    same()
    assert encoding.n_vocab == ours.vocab_size


@pytest.mark.parametrize("pattern", PATTERNS)
def test_our_tiktoken_file_is_read_back_with_its_merges_and_special_tokens(pattern: str) -> None:
    ours = grown(pattern)
    files = write_tiktoken(ours, "16.0.0", {"vocab_size": 352})
    found = read_tiktoken(files["tokenizer.tiktoken"], files["tokenizer.tiktoken.json"])
    assert found.whole_words
    assert found.merges == ours.merges
    assert found.token_bytes == ours.token_bytes
    assert found.special_tokens == ours.special_tokens
    assert found.pattern == pattern
    described = json.loads(files["tokenizer.tiktoken.json"])
    assert described["training"] == {"vocab_size": 352}
    assert described["sha256"] == hashlib.sha256(files["tokenizer.tiktoken"]).hexdigest()


def lines_of(tokens: dict[bytes, int]) -> bytes:
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in tokens.items())


BYTES = {bytes([byte]): byte for byte in range(256)}


def test_a_token_that_no_merge_makes_is_encoded_as_a_whole_word() -> None:
    pytest.importorskip("tiktoken")
    import tiktoken

    ranks = BYTES | {b"ab": 256, b"xyz": 257, b" xyz": 258}
    theirs = tiktoken.Encoding(
        "theirs", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={}
    )
    ours = Tokenizer(read_tiktoken(lines_of(ranks), pattern="gpt2"))
    for text in ("xyz", "xyz xyz", "wxyz", "abxyz ab"):
        assert ours.encode(text) == theirs.encode_ordinary(text)
    assert ours.encode("xyz") == [257]
    assert ours.encode("wxyz") == [119, 120, 121, 122]


def test_special_tokens_keep_their_ids_and_ours_follow() -> None:
    ranks = BYTES | {b"ab": 256}
    data = lines_of(ranks)
    described = {"pattern": "cl100k", "special_tokens": {"<|endoftext|>": 258, "<|fim|>": 261}}
    described["sha256"] = hashlib.sha256(data).hexdigest()
    ours = Tokenizer(read_tiktoken(data, json.dumps(described).encode()))
    assert ours.end_of_text == 258
    assert ours.special_id("<|fim|>") == 261
    assert ours.im_start == 262
    assert ours.vocab_size == 262 + 15
    assert set(dict(ours.vocabulary.special_tokens)) == {*SPECIAL_TOKENS, "<|fim|>"}
    assert ours.token_bytes[257] == ours.token_bytes[259] == b""
    assert not ours.byte_lengths()[257:].any()
    assert ours.encode("<|fim|>ab")[-1] == 256
    assert not {*ours.encode("<|fim|><|endoftext|>")} & ours.special_ids


def test_a_missing_byte_gets_an_id_so_that_every_text_can_be_encoded() -> None:
    ranks = {token: rank for token, rank in BYTES.items() if token != b"z"} | {b"ab": 256}
    ours = Tokenizer(read_tiktoken(lines_of(ranks), pattern="gpt2"))
    assert ours.encode("abz") == [256, 257]
    assert ours.decode([256, 257]) == "abz"


def test_no_tiktoken_file_is_written_where_it_would_mislead() -> None:
    vocabulary = grown("gpt2", 3)
    backwards = tuple(reversed(vocabulary.merges[:2]))
    unmerged = Vocabulary(
        vocabulary.token_bytes, (), vocabulary.special_tokens, "gpt2", whole_words=False
    )
    assert write_tiktoken(vocabulary, "16.0.0", {})
    swapped = Vocabulary(vocabulary.token_bytes, backwards, vocabulary.special_tokens, "gpt2")
    assert not write_tiktoken(swapped, "16.0.0", {})
    assert not write_tiktoken(unmerged, "16.0.0", {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: len(data) // 2 - 3], "sha256"),
        (lambda data: data.replace(b" 17\n", b" 18\n"), "sha256"),
        (lambda data: b"", "sha256"),
    ],
)
def test_an_altered_tiktoken_file_does_not_fit_its_description(
    change: Callable[[bytes], bytes], message: str
) -> None:
    files = write_tiktoken(grown("qwen2", 5), "16.0.0", {})
    altered = change(files["tokenizer.tiktoken"])
    with pytest.raises(DataError, match=message):
        read_tiktoken(altered, files["tokenizer.tiktoken.json"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"YQ== 0\nYg==", "line 2"),
        (b"YQ== 0\n!!! 1\n", "line 2"),
        (b"YQ== 0\nYQ== 1\n", "twice"),
        (b"YQ== 0\nYg== 0\n", "id 0 twice"),
        (b"YQ== -1\n", "id -1"),
        (b"YQ== 99999999999\n", "id 99999999999"),
        (b"", "no tokens"),
        (b"\x80\x04\x95", "line 1"),
    ],
)
def test_a_damaged_tiktoken_file_is_told_by_its_line(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_tiktoken(data, pattern="gpt2")


@pytest.mark.parametrize(
    "description", [b"", b"[]", b"{}", b"\xff", b'{"special_tokens": {"a": "b"}, "sha256": 1}']
)
def test_a_damaged_description_is_told(description: bytes) -> None:
    with pytest.raises(DataError, match="description"):
        read_tiktoken(lines_of(BYTES), description)


def test_a_tiktoken_file_alone_does_not_say_its_pattern() -> None:
    with pytest.raises(DataError, match=r"tokenizer\.pattern"):
        read_tiktoken(lines_of(BYTES))
    with pytest.raises(DataError, match="regular expression"):
        read_tiktoken(lines_of(BYTES), pattern="(")


def test_hugging_face_gives_the_same_ids_from_our_gpt2_files(tmp_path: Path) -> None:
    ours = Tokenizer(grown("gpt2"))
    for name, data in write_gpt2(ours.vocabulary).items():
        (tmp_path / name).write_bytes(data)
    theirs = tokenizers.ByteLevelBPETokenizer(
        str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")
    )

    @settings(max_examples=80)
    @given(TEXTS)
    def same(text: str) -> None:
        assert ours.encode(text) == theirs.encode(text).ids

    same()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_gpt2_files_are_read_back(pattern: str) -> None:
    ours = grown(pattern)
    files = write_gpt2(ours)
    assert read_gpt2(files["vocab.json"], files["merges.txt"], pattern) == ours


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        (b"{", b"", "damaged"),
        (b"[]", b"", "vocab.json"),
        (b"{}", b"", "vocab.json"),
        (b'{"a": "b"}', b"", "vocab.json"),
        (b'{"a": 0, "b": 1}', b"a b\n", "no id"),
        (b'{"a": 0, "b": 1, "ab": 2}', b"#version: 0.2\na b\na\n", "merges.txt:3"),
        (b'{"a": 0, "b": 1, "ab": 2}', b"a b\na b\n", "twice"),
        (b'{"a": 0, "b": 1}', "a \u2581\n".encode(), "SentencePiece"),
        (b'{"a": 0}', b"\xff", "damaged"),
    ],
)
def test_damaged_gpt2_files_are_told(vocab: bytes, merges: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_gpt2(vocab, merges)
