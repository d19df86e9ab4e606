import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.errors import ArtifactError
from penjing.text.tokenizer import (
    StreamDecoder,
    Tokenizer,
    load_tokenizer,
    tokenizer_files,
    train_tokenizer,
)
from penjing.text.vocabulary import SPECIAL_TOKENS, grown_vocabulary

TEXTS = [
    "The cat sat on the mat. The cat's hat isn't there; they'll look, we've looked.\n\n" * 3,
    "User: What is 12 + 30?\nassistant: 12 + 30 = 42. Done!\n" * 3,
    "你好,世界!你好,朋友。 Ünïcödé ¿qué? 🙂🙂\t\ttabs  and   spaces\r\n" * 3,
]
TOKENIZER = train_tokenizer(TEXTS, 272 + 120)
FILES = tokenizer_files(TOKENIZER)
HUGGING_FACE = tokenizers.Tokenizer.from_str(FILES["tokenizer.json"].decode())
# Python 3.11 knows Unicode 14; Oniguruma may not know letters that are newer.
KNOWN = st.characters(exclude_categories=["Cs", "Cn"])
TRICKY = st.sampled_from(
    [*" \n\r\t'sStTſKİıßﬀ1²½١.,!_<|>\x00\x1c\x85\u200b\u3000\u2028\u0301你🙂", "'ll"]
)


def write(tokenizer: Tokenizer, directory: Path) -> Path:
    for name, data in tokenizer_files(tokenizer).items():
        (directory / name).write_bytes(data)
    return directory


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_decoding_undoes_encoding(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert all(0 <= token < TOKENIZER.end_of_text for token in ids)
    assert TOKENIZER.byte_lengths()[ids].sum() == len(text.encode())


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(alphabet=KNOWN), st.lists(TRICKY).map("".join)))
def test_hugging_face_gives_the_same_ids(text: str) -> None:
    if not any(spelling in text for spelling in SPECIAL_TOKENS):
        assert TOKENIZER.encode(text) == HUGGING_FACE.encode(text).ids


@pytest.mark.parametrize("spelling", SPECIAL_TOKENS)
def test_a_special_spelling_is_ordinary_text_to_us_and_special_to_hugging_face(
    spelling: str,
) -> None:
    text = f"say {spelling} please"
    ours, theirs = TOKENIZER.encode(text), HUGGING_FACE.encode(text).ids
    assert TOKENIZER.special_id(spelling) not in ours
    assert TOKENIZER.special_id(spelling) in theirs
    assert ours != theirs
    assert TOKENIZER.decode(ours) == text


def test_special_tokens_follow_the_merges_in_order() -> None:
    content = json.loads(tokenizer_files(TOKENIZER)["tokenizer.json"])
    added = content["added_tokens"]
    first = 256 + len(TOKENIZER.vocabulary.merges)
    assert [token["content"] for token in added] == list(SPECIAL_TOKENS)
    assert [token["id"] for token in added] == list(range(first, first + 16))
    assert [token["content"] for token in added if not token["special"]] == [
        *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    ]
    assert TOKENIZER.vocab_size == len(TOKENIZER.token_bytes) == first + 16
    assert HUGGING_FACE.get_vocab_size() == TOKENIZER.vocab_size
    assert TOKENIZER.decode([TOKENIZER.im_end, TOKENIZER.end_tool_call]) == "<|im_end|></tool_call>"
    assert not TOKENIZER.byte_lengths()[first:].any()


def test_too_little_text_gives_a_smaller_dense_vocabulary() -> None:
    small = train_tokenizer(["abab"], 5000)
    assert small.vocab_size == 256 + 1 + 16
    assert train_tokenizer([], 272).decode([104, 105]) == "hi"


def test_a_tokenizer_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    loaded = load_tokenizer(write(TOKENIZER, tmp_path))
    assert loaded == TOKENIZER
    assert loaded.digest == TOKENIZER.digest
    assert loaded.encode("The cat") == TOKENIZER.encode("The cat")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b"\n", b"", 1),
        lambda data: data.replace(b'"special": true', b'"special": false', 1),
        lambda data: data[: len(data) // 2],
        lambda data: b"[]",
        lambda data: b'{"model": {"merges": ["a", 3]}}',
        lambda data: b'{"model": {"merges": ["ab zz"]}}',
        lambda data: b"\xff\xfe",
    ],
)
def test_an_altered_tokenizer_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write(TOKENIZER, tmp_path) / "tokenizer.json"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_missing_tokenizer_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_tokenizer(tmp_path)


@settings(max_examples=100)
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1)))
def test_streamed_pieces_are_the_decoded_text(ids: list[int]) -> None:
    decoder = StreamDecoder(TOKENIZER)
    assert "".join([*map(decoder.push, ids), decoder.flush()]) == TOKENIZER.decode(ids)
    assert decoder.flush() == ""


def test_streaming_never_shows_half_a_character() -> None:
    bare = Tokenizer(grown_vocabulary([]))
    decoder = StreamDecoder(bare)
    pieces = [decoder.push(token) for token in bare.encode("你好🙂")]
    assert [piece for piece in pieces if piece] == ["你", "好", "🙂"]


def test_a_batch_has_the_ids_of_its_documents() -> None:
    documents = [text.encode() for text in [*TEXTS, "", "a"]]
    data = np.frombuffer(b"".join(documents), dtype=np.uint8)
    ids, ends = TOKENIZER.encode_batch(data, np.cumsum([len(raw) for raw in documents]))
    parts = [part.tolist() for part in np.split(ids, ends[:-1])]
    assert parts == [TOKENIZER.encode(raw.decode()) for raw in documents]
    assert ids.dtype == np.uint32
    assert TOKENIZER.encode_batch(data[:0], np.empty(0, np.int64))[0].tolist() == []


def test_files_and_ids_are_those_of_the_first_release() -> None:
    files = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    ids = TOKENIZER.encode("".join(TEXTS) + "<|im_end|>")
    assert files == {
        "tokenizer.json": "952a35d6f8a86c5f290f26685245f92e51129c0c6cf56002242579c98c27c8a5",
        "tokenizer_config.json": "25c63133bf3a9a03196bd78fc11e0cb2b3fde4c0dd26e16230ca966b61d4c928",
        "chat_template.jinja": "79a1ed60cd99892aa0be9d83927123b07af9ea38d993b16e6da68c03ca3cbdad",
    }
    assert files["tokenizer.json"] == TOKENIZER.digest
    assert len(ids) == 214
    sha256 = hashlib.sha256(json.dumps(ids).encode()).hexdigest()
    assert sha256 == "31487caee2c27bb55f2e3984980fba277fc9e407d6dca70fbf34aefa0badc629"
